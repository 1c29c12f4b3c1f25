"""Schedules at run time: looking at them, and an operator's word about them, which stands above what code declares."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, Literal, NamedTuple
from uuid import UUID

from holdfast import rulings
from holdfast.client.declaring import changed, checked, next_tick, without_an_id
from holdfast.client.link import Link
from holdfast.client.producing import Producing
from holdfast.client.reasons import known_tasks
from holdfast.clock import Duration, Instant, moment
from holdfast.errors import ConfigError, ScheduleNotFound, StoreAway, StoreError
from holdfast.handles import Job, NewJob
from holdfast.job import REASON_LIMIT, cut, new_id
from holdfast.naming import named
from holdfast.options import until as as_until
from holdfast.rulings import in_force
from holdfast.schedule.entry import Definition, Text, read
from holdfast.schedule.rule import Missed, Overlap, Rule, rule_of
from holdfast.store import Entry, Store, Ticked

TRIES = 20  # of one change, against others that change the same schedule
_UNSET: Any = object()


@dataclass(frozen=True)
class ScheduleTick:
    """What became of a tick. "made": `job` was enqueued for it; "skipped": it was not, `reason` says why, and `job` is
    the one that stood in its way, if there is one; "missed": `count` ticks, of which `due` is the first, were passed
    over.
    """

    due: datetime
    at: datetime
    outcome: Literal["made", "skipped", "missed"]
    job: UUID | None
    reason: str
    count: int


@dataclass(frozen=True)
class ScheduleStatus:
    """A schedule as one read found it. Times are aware, in UTC but for those of `coming`; lengths of time are seconds.

    Either `cron` or `every` says when it ticks, `description` says it in English. `declared`: code declares it;
    `edited`: an operator has added or changed it, which stands above that. `next_at` is None while it is paused with no
    end in view. `ticks`: the newest, the oldest first. `problem`: why this version or this machine can make nothing of
    it; mostly "". `stranded`: there are live workers, and none of them has its task.
    """

    name: str
    task: str
    queue: str
    cron: str | None
    every: float | None
    tz: str
    missed: Missed
    overlap: Overlap
    jitter: float
    description: str
    next_at: datetime | None
    paused: bool
    paused_since: datetime | None
    paused_until: datetime | None
    pause_reason: str
    declared: bool
    edited: bool
    owner: str
    ticks: Sequence[ScheduleTick]
    ticks_made: int
    ticks_skipped: int
    ticks_missed: int
    problem: str
    stranded: bool
    _rule: Rule
    _from: Instant  # its next tick is the first later than this

    def coming(self, count: int = 5) -> list[datetime]:
        """Its next ticks, `count` of them, in its own time zone; of one that is paused, if it were resumed now."""
        return [local for local, _ in self.remarked(count)]

    def remarked(self, count: int = 5) -> list[tuple[datetime, str]]:
        """As `coming`; each with what is odd about it, since the zone's clock changes then, mostly ""."""
        if self.problem:
            return []
        from holdfast.schedule.zone import zone

        ticks = islice(self._rule.coming(self._from), count)
        return [(moment(at).astimezone(zone(self.tz)), self._rule.remark(at)) for at in ticks]


class Edit(NamedTuple):
    """What an operator says of a rule; None: as it is."""

    cron: str | None = None
    every: Duration | None = None
    tz: str | None = None
    missed: Missed | None = None
    overlap: Overlap | None = None
    jitter: Duration | None = None

    def over(self, rule: Rule) -> Rule:
        """The rule, changed. ConfigError as `rule_of`."""
        cron, every = self.cron, self.every
        if cron is None and every is None:
            cron, every = rule.cron, None if rule.every is None else _length(rule.every)
        tz = self.tz
        if tz is None and cron is not None:
            tz = rule.tz
        return rule_of(
            cron=cron,
            every=every,
            tz=tz,
            missed=self.missed or rule.missed,
            overlap=self.overlap or (None if self.missed == "all" else rule.overlap),
            jitter=_length(rule.jitter) if self.jitter is None else self.jitter,
        )


class Scheduling:
    """An operator's side of schedules. Each change is made against what was read, and made anew where that was
    changed meanwhile.
    """

    def __init__(self, link: Link, producing: Producing) -> None:
        self._link = link
        self._producing = producing

    def all(self) -> list[ScheduleStatus]:
        return self._link.blocking("aschedules", self._all)

    async def aall(self) -> list[ScheduleStatus]:
        return await self._link.arun(self._all)

    def add(self, name: str, job: NewJob[Any], rule: Rule) -> None:
        self._link.blocking("aadd_schedule", self._add, *_addition(name, job, rule))

    async def aadd(self, name: str, job: NewJob[Any], rule: Rule) -> None:
        await self._link.arun(self._add, *_addition(name, job, rule))

    def change(self, name: str, edit: Edit, job: NewJob[Any] | None) -> None:
        self._link.blocking("achange_schedule", self._changed, name, _change(name, edit, job))

    async def achange(self, name: str, edit: Edit, job: NewJob[Any] | None) -> None:
        await self._link.arun(self._changed, name, _change(name, edit, job))

    def pause(self, name: str, until: Duration | datetime | None, reason: str) -> None:
        self._link.blocking("apause_schedule", self._changed, name, _pause(until, reason))

    async def apause(self, name: str, until: Duration | datetime | None, reason: str) -> None:
        await self._link.arun(self._changed, name, _pause(until, reason))

    def resume(self, name: str) -> bool:
        return self._link.blocking("aresume_schedule", self._changed, name, _resume)

    async def aresume(self, name: str) -> bool:
        return await self._link.arun(self._changed, name, _resume)

    def reset(self, name: str) -> bool:
        return self._link.blocking("areset_schedule", self._changed, name, _reset)

    async def areset(self, name: str) -> bool:
        return await self._link.arun(self._changed, name, _reset)

    def delete(self, name: str) -> None:
        self._link.blocking("adelete_schedule", self._delete, name)

    async def adelete(self, name: str) -> None:
        await self._link.arun(self._delete, name)

    def trigger(self, name: str) -> Job[Any]:
        return self._producing.store(self._link.blocking("atrigger_schedule", self._job_now, name), None)

    async def atrigger(self, name: str) -> Job[Any]:
        return await self._producing.astore(await self._link.arun(self._job_now, name), None)

    # --- on the bridge's loop

    async def _all(self) -> list[ScheduleStatus]:
        store = (await self._link.opened()).store
        found = await store.schedules()
        known = known_tasks(await store.workers()) if found.entries else None
        return [_status(entry, found.now, known) for entry in found.entries]

    async def _add(self, name: str, definition: Definition) -> None:
        store = (await self._link.opened()).store
        text = Text(edited=definition).written()
        for _ in range(TRIES):
            found = await store.schedules([name])
            if found.entries:
                if found.entries[0].text == text:  # the reply to this very call was lost
                    return
                raise StoreError(f"schedule {name!r} is there already: change_schedule() changes it")
            if (await store.schedule([Entry(name, definition.job.queue, text, definition.rule.next(found.now))]))[0]:
                return
        raise _contended(name)

    async def _changed(self, name: str, change: Callable[[Entry, Instant], Entry]) -> bool:
        """Whether anything was to be changed."""
        store = (await self._link.opened()).store
        for _ in range(TRIES):
            entry, now = await _found(store, name)
            wanted = change(entry, now)
            if wanted == entry:
                return False
            if (await store.schedule([wanted]))[0]:
                return True
        raise _contended(name)

    async def _delete(self, name: str) -> None:
        store = (await self._link.opened()).store
        for _ in range(TRIES):
            entry, _ = await _found(store, name)
            declared = _text(entry).declared
            if declared is not None:
                raise StoreError(
                    f"schedule {name!r} is declared by code, in {declared.owner}, which would bring it back: take it "
                    "out there, or pause it"
                )
            if (await store.unschedule({name: entry.revision}))[0]:
                return
        raise _contended(name)

    async def _job_now(self, name: str) -> NewJob[Any]:
        entry, _ = await _found((await self._link.opened()).store, name)
        return NewJob(_effective(read(entry.text, name), name).made(name, new_id(), None))


def _addition(name: str, job: NewJob[Any], rule: Rule) -> tuple[str, Definition]:
    return named(name, "name"), Definition(rule, without_an_id(checked(name, job)))


def _change(name: str, edit: Edit, job: NewJob[Any] | None) -> Callable[[Entry, Instant], Entry]:
    if edit == Edit() and job is None:
        raise ConfigError(
            f"schedule {name!r}: say what to change: {', '.join(f'{word}=' for word in Edit._fields)} or job="
        )
    draft = None if job is None else without_an_id(checked(name, job))

    def change(entry: Entry, now: Instant) -> Entry:
        text = read(entry.text, entry.name)
        before = _effective(text, entry.name)
        edited = Definition(edit.over(before.rule), draft or before.job)
        if text.edited is None and edited == before._replace(owner=""):
            return entry
        return changed(entry, text, text._replace(edited=edited), now)

    return change


def _pause(until: Duration | datetime | None, reason: str) -> Callable[[Entry, Instant], Entry]:
    if not isinstance(reason, str):
        raise ConfigError(f"reason={reason!r}: a text")
    wanted = None if until is None else as_until(until, "until")

    def change(entry: Entry, now: Instant) -> Entry:
        pause = rulings.paused(entry.pause, wanted, cut(reason, REASON_LIMIT), now)
        paused, end = entry._replace(pause=pause), pause.until
        if end is not None and end <= now:
            raise ConfigError(
                f"until={moment(end).isoformat()}: that is over, it is {moment(now).isoformat()} now by the store's "
                "clock; give a later time"
            )
        if end is None or (definition := _text(entry).effective) is None:
            return paused
        return paused._replace(next_at=next_tick(paused, definition.rule, now))  # what it covers is not missed

    return change


def _resume(entry: Entry, now: Instant) -> Entry:
    if not in_force(entry.pause, now):
        return entry
    resumed = entry._replace(pause=None)
    definition = _text(entry).effective
    return resumed if definition is None else resumed._replace(next_at=next_tick(resumed, definition.rule, now))


def _reset(entry: Entry, now: Instant) -> Entry:
    text = read(entry.text, entry.name)
    if text.edited is None:
        return entry
    if text.declared is None:
        raise StoreError(f"schedule {entry.name!r} is declared by no code: delete_schedule() removes it")
    return changed(entry, text, text._replace(edited=None), now)


async def _found(store: Store, name: str) -> tuple[Entry, Instant]:
    """ScheduleNotFound, with names that are near."""
    found = await store.schedules([name])
    if found.entries:
        return found.entries[0], found.now
    raise not_found(name, [entry.name for entry in (await store.schedules()).entries])


def not_found(name: str, names: Sequence[str]) -> ScheduleNotFound:
    """With names that are near, of those there are."""
    import difflib

    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    some = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(names[:5]) or 'none at all'}"
    return ScheduleNotFound(f"there is no schedule {name!r}; {some}")


def _contended(name: str) -> StoreAway:
    error = StoreAway(f"schedule {name!r} is changed by others all the time; nothing was done, try again")
    error.certain = True
    return error


def _effective(text: Text, name: str) -> Definition:
    if text.effective is None:
        raise StoreError(f"schedule {name!r}: its entry in the store says nothing; delete it, and add it anew")
    return text.effective


def _text(entry: Entry) -> Text:
    """What it says; nothing, where this version cannot read it: it can be paused and deleted all the same."""
    try:
        return read(entry.text, entry.name)
    except StoreError:
        return Text()


def _length(milliseconds: int) -> timedelta:
    return timedelta(milliseconds=milliseconds)


# --- what is shown


def _status(entry: Entry, now: Instant, known: Collection[str] | None) -> ScheduleStatus:
    """`known`: the tasks of live workers; None: there are none."""
    text, problem, description = Text(), "", ""
    try:
        text = read(entry.text, entry.name)
        description = explained(_effective(text, entry.name).rule)
    except (StoreError, ConfigError) as error:
        problem = str(error)
    except Exception as error:  # noqa: BLE001  # one entry is not to hide the others
        problem = f"schedule {entry.name}: {type(error).__name__}: {error}"
    definition = text.effective
    rule = Rule() if definition is None else definition.rule
    pause = entry.pause if in_force(entry.pause, now) else None
    next_at = None if pause is not None and pause.until is None else entry.next_at
    return ScheduleStatus(
        name=entry.name,
        task="" if definition is None else definition.job.task,
        queue=entry.queue,
        cron=rule.cron,
        every=None if rule.every is None else rule.every / 1000,
        tz=rule.tz,
        missed=rule.missed,
        overlap=rule.overlap,
        jitter=rule.jitter / 1000,
        description=description,
        next_at=_moment(next_at),
        paused=pause is not None,
        paused_since=None if pause is None else moment(pause.since),
        paused_until=None if pause is None else _moment(pause.until),
        pause_reason="" if pause is None else pause.reason,
        declared=text.declared is not None,
        edited=text.edited is not None,
        owner="" if text.declared is None else text.declared.owner,
        ticks=tuple(map(_tick, entry.ticks)),
        ticks_made=entry.made,
        ticks_skipped=entry.skipped,
        ticks_missed=entry.missed,
        problem=problem,
        stranded=definition is not None and known is not None and definition.job.task not in known,
        _rule=rule,
        _from=now if next_at is None else next_at - 1,
    )


def explained(rule: Rule) -> str:
    """When it ticks, in English, with the zone of a clock."""
    return rule.explain() if rule.cron is None else f"{rule.explain()}, {rule.tz}"


def _tick(ticked: Ticked) -> ScheduleTick:
    return ScheduleTick(moment(ticked.due), moment(ticked.at), ticked.outcome, ticked.job, ticked.reason, ticked.count)


def _moment(at: Instant | None) -> datetime | None:
    return None if at is None else moment(at)
