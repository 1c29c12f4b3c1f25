"""What code declares of schedules, and how it comes to the store when a worker starts."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple
from uuid import UUID

from holdfast.client.reasons import known_tasks
from holdfast.client.registry import Registry, redefinition
from holdfast.clock import Instant, moment
from holdfast.errors import ConfigError, HoldfastError, StoreError
from holdfast.handles import NewJob
from holdfast.headers import headers_text
from holdfast.job import Draft
from holdfast.naming import module_named, named
from holdfast.observe.logging import tell, workers
from holdfast.options import Plan
from holdfast.schedule.entry import Definition, Text, read
from holdfast.schedule.rule import Rule
from holdfast.store import Entry, Schedules, Store
from holdfast.task import Task

TRIES = 20  # of a start, against other workers that start at the same moment and operators
_NOBODY = UUID(int=0)


class Declared(NamedTuple):
    """A schedule as code declares it; its job is made when it is needed, since that costs the import of the codec."""

    rule: Rule
    draft: Callable[[], Draft]
    owner: str
    fn: Callable[..., Any]

    def definition(self) -> Definition:
        return Definition(self.rule, without_an_id(self.draft()), self.owner)


class Declarations:
    """An app's schedules, by name."""

    def __init__(self) -> None:
        self.by_name: dict[str, Declared] = {}

    def task(self, task: Task[..., Any], name: str | None, rule: Rule, registry: Registry) -> None:
        """Declares a schedule that calls `task` without arguments. ConfigError where that does not fit."""
        name = task.name if name is None else named(name, "name")
        _check_ours(task.name, name, registry)
        _check_callable_bare(task, name)
        _check_plan(task, name)
        self._add(name, Declared(rule, lambda: _bare(task), module_named(task.fn.__module__), task.fn))

    def bound(self, name: str, job: NewJob[Any], rule: Rule, registry: Registry, module: str) -> None:
        """Declares a schedule of a bound job, in `module`."""
        draft = checked(named(name, "name"), job)
        task = _check_ours(draft.task, name, registry)
        self._add(name, Declared(rule, lambda: draft, module_named(module), task.fn))

    def _add(self, name: str, declared: Declared) -> None:
        known = self.by_name.get(name)
        if known is not None and not redefinition(known.fn, declared.fn):
            raise ConfigError(
                f"two schedules are named {name!r}: in {known.owner} and in {declared.owner}; give one of them name="
            )
        self.by_name[name] = declared

    async def reconcile(self, store: Store, registry: Registry) -> Mapping[str, Instant | None]:
        """Brings what code declares to the store, and takes away what it does not declare any more: entries whose
        owner, a module, is the app's own. What changes is told, a line each; operators' own words stay. Returns the
        next ticks of what is declared.

        What it does not know how to do is told, and keeps no worker from its work.
        """
        try:
            return await self._bring(store, registry)
        except HoldfastError:
            raise
        except Exception as error:  # noqa: BLE001  # such as what another version has left in the store
            tell(workers, logging.WARNING, "step-failed", role="schedules", error=f"{type(error).__name__}: {error}")
            workers.error("a bug in schedules; it goes on, please report it", exc_info=error)
            return dict.fromkeys(self.by_name)

    async def _bring(self, store: Store, registry: Registry) -> Mapping[str, Instant | None]:
        definitions = {name: declared.definition() for name, declared in self.by_name.items()}
        owners = {definition.owner for definition in definitions.values()}

        def ours(owner: str) -> bool:
            return owner in owners or registry.knows(owner)

        told = set[str]()
        for _ in range(TRIES):
            found = await store.schedules()
            texts = {entry.name: text for entry in found.entries if (text := readable(entry, told)) is not None}
            changes = list(_changes(definitions, found, texts, ours))
            if not changes:
                await _tell_of_lost_tasks(store, texts, ours, registry)
                return {entry.name: entry.next_at for entry in found.entries if entry.name in definitions}
            strange = [change for change in changes if change.before and change.before.job.task not in registry.names]
            live = (known_tasks(await store.workers()) or frozenset[str]()) - registry.names.keys() if strange else ()
            for change in await _made(store, changes):
                _tell_of_taking(change, ours, live)
        why = "others change schedules all the time; the next start tries again"
        tell(workers, logging.WARNING, "schedules-contended", message=why)
        return dict.fromkeys(definitions)


class Change(NamedTuple):
    """One step of a reconciliation: `entry` is stored, or, if it `goes`, removed."""

    event: str
    entry: Entry
    goes: bool = False
    message: str | None = None
    before: Definition | None = None  # that some code declared


def _changes(
    definitions: Mapping[str, Definition], found: Schedules, texts: Mapping[str, Text], ours: Callable[[str], bool]
) -> Iterable[Change]:
    """`texts`: of the entries that can be read; the others are left alone."""
    entries = {entry.name: entry for entry in found.entries}
    for name, definition in definitions.items():
        if name not in entries:
            text = Text(declared=definition).written()
            entry = Entry(name, definition.job.queue, text, definition.rule.next(found.now))
            yield Change("schedule-added", entry)
        elif name in texts and texts[name].declared != definition:
            new = texts[name]._replace(declared=definition)
            message = "an operator's change stays in effect" if new.edited else None
            entry = changed(entries[name], texts[name], new, found.now)
            yield Change("schedule-changed", entry, message=message, before=texts[name].declared)
    for name, said in texts.items():
        if name in definitions or said.declared is None or not ours(said.declared.owner):
            continue
        if said.edited is None:
            yield Change("schedule-removed", entries[name], goes=True, before=said.declared)
        else:
            kept = changed(entries[name], said, said._replace(declared=None), found.now)
            why = "no code declares it; an operator's change keeps it"
            yield Change("schedule-removed", kept, message=why, before=said.declared)


async def _tell_of_lost_tasks(
    store: Store, texts: Mapping[str, Text], ours: Callable[[str], bool], registry: Registry
) -> None:
    """Tells of schedules whose task neither this app has nor a live worker."""
    effective = {name: definition for name, text in texts.items() if (definition := text.effective) is not None}
    lost = {
        name: definition.job.task
        for name, definition in effective.items()
        if definition.job.task not in registry.names and (not definition.owner or ours(definition.owner))
    }
    if not lost:
        return
    known = known_tasks(await store.workers()) or ()
    for name, task in lost.items():
        if task not in known:
            text = f"nobody has this task, so that its jobs wait: bring it back, or `holdfast schedules delete {name}`"
            tell(workers, logging.WARNING, "schedule-without-task", schedule=name, task=task, message=text)


async def _made(store: Store, changes: list[Change]) -> list[Change]:
    """Writes them; tells and returns those that were written: somebody else may have been first."""
    puts, gone = [c for c in changes if not c.goes], [c for c in changes if c.goes]
    answers = list(await store.schedule([change.entry for change in puts])) if puts else []
    if gone:
        answers += await store.unschedule({change.entry.name: change.entry.revision for change in gone})
    made = [change for change, done in zip([*puts, *gone], answers, strict=True) if done]
    for change in made:
        next_at, name = None if change.goes else change.entry.next_at, change.entry.name
        tell(workers, logging.INFO, change.event, schedule=name, next=shown(next_at), message=change.message)
    return made


def _tell_of_taking(change: Change, ours: Callable[[str], bool], live: Collection[str]) -> None:
    """Tells of one that may well be another app's. `live`: tasks that live workers have, and this app has not."""
    before, name = change.before, change.entry.name
    if before is None or (ours(before.owner) and before.job.task not in live):
        return
    why = "an older version of this app, or another app on this store"
    tell(
        workers,
        logging.WARNING,
        "schedule-taken",
        schedule=name,
        owner=before.owner,
        task=before.job.task,
        message=f"it was {why}'s: two apps need other names of modules and of schedules",
    )


def changed(entry: Entry, before: Text, after: Text, now: Instant) -> Entry:
    """The entry with another text: where its times are other ones, the next is sought anew."""
    old, new = before.effective, after.effective
    if new is None:
        raise ValueError("an entry says something")
    same = old is not None and old.rule.times == new.rule.times
    next_at = entry.next_at if same else next_tick(entry, new.rule, now)
    return entry._replace(queue=new.job.queue, text=after.written(), next_at=next_at)


def next_tick(entry: Entry, rule: Rule, now: Instant) -> Instant | None:
    """The first tick that is still to come, and that its pause does not cover."""
    until = entry.pause.until if entry.pause is not None else None
    return rule.next(now if until is None else max(now, until - 1))


def readable(entry: Entry, told: set[str]) -> Text | None:
    """What it says; None where this version cannot read it, which is told, if it is not among the `told`."""
    try:
        return read(entry.text, entry.name)
    except StoreError as error:
        if entry.name not in told:
            told.add(entry.name)
            tell(workers, logging.WARNING, "schedule-unreadable", schedule=entry.name, message=str(error))
        return None


# --- jobs of schedules


def without_an_id(draft: Draft) -> Draft:
    """As a Definition keeps it."""
    return replace(draft, id=_NOBODY)


def checked(name: str, job: object) -> Draft:
    """The draft of a bound job. ConfigError for what is none, and for one with a time of its own."""
    if not isinstance(job, NewJob):
        raise ConfigError(f"schedule {name!r}: {job!r} is no bound job: make one with task.bind(...)")
    _check_times(job.draft, name)
    return job.draft


def _bare(task: Task[..., Any]) -> Draft:
    """Carried variables do not travel: they are what they happen to be where the worker starts."""
    return replace(task.bind().draft, headers=headers_text(task.plan.headers or {}))


def _check_ours(task: str, name: str, registry: Registry) -> Task[..., Any]:
    if (known := registry.names.get(task)) is None:
        raise ConfigError(f"schedule {name!r}: {task} is not a task of this app, so that its workers could not run it")
    return known


def _check_callable_bare(task: Task[..., Any], name: str) -> None:
    parameters = inspect.signature(task.fn).parameters.values()
    needed = [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if needed:
        short = task.name.rpartition(".")[2]
        raise ConfigError(
            f"schedule {name!r}: the parameter {needed[0]!r} of {task.name} has no default, and a schedule calls it "
            f"without arguments; give it one, or bind it: "
            f"jobs.schedule('{name}', {short}.bind({needed[0]}=...), cron=...)"
        )


def _check_plan(task: Task[..., Any], name: str) -> None:
    if task.plan.connection is not None:
        raise ConfigError(f"schedule {name!r}: connection= does not go with a schedule, whose ticks are nobody's own")
    _check_times(task.plan, name)


def _check_times(said: Plan | Draft, name: str) -> None:
    if said.delay or said.at is not None:
        raise ConfigError(f"schedule {name!r}: delay= and at= do not go with a schedule, whose ticks say when")
    for parameter, end in (("expires", said.expires), ("deadline", said.deadline)):
        if end is not None and end.at is not None:
            raise ConfigError(
                f"schedule {name!r}: {parameter}={moment(end.at).isoformat()} would be over for all later ticks; "
                f"give a duration, such as {parameter}='1h', which counts from when each job is due"
            )


def shown(at: Instant | None) -> str | None:
    """An instant for the log."""
    return None if at is None else moment(at).isoformat(timespec="seconds")
