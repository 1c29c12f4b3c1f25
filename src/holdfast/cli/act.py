"""`holdfast retry`, `cancel` and `delete`: by ids or by filter; more than one job is previewed and asked about."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, NamedTuple
from uuid import UUID

import click

from holdfast.app import Holdfast, parts_of
from holdfast.cli import ids, show
from holdfast.cli.ends import REFUSED, NothingMatched, Refused, Wrong
from holdfast.cli.options import filter_options, operated, url_option, wanted
from holdfast.client.filters import Filter, which
from holdfast.client.operating import Acted, Operating
from holdfast.clock import moment
from holdfast.errors import JobNotFound, StoreError
from holdfast.errors import Refused as RefusedByStore
from holdfast.job import CANCELLABLE, DELETABLE, RETRYABLE, Record, State
from holdfast.observe.visible import visible
from holdfast.store import Where

COUNTED = 10_000  # jobs that a preview looks at
GROUPS = 10  # lines of a preview


class Verb(NamedTuple):
    """What is done to jobs in `states`. `one` and `many` do it; `rule` says to which, `kept` why some may be left."""

    name: str
    past: str
    states: frozenset[State]
    rule: str
    one: Callable[[Holdfast, UUID], bool]
    many: Callable[[Operating, Where], Acted]
    kept: str = "they changed meanwhile"


def _retry_one(app: Holdfast, id: UUID) -> bool:
    app.job(id).retry()
    return True


def _retry_many(operating: Operating, where: Where) -> Acted:
    return operating.retry(where, dry_run=False)


def _cancel_one(app: Holdfast, id: UUID) -> bool:
    return app.job(id).cancel()


def _cancel_many(operating: Operating, where: Where) -> Acted:
    return operating.cancel(where, dry_run=False)


def _delete_one(app: Holdfast, id: UUID) -> bool:
    app.job(id).delete()
    return True


def _delete_many(operating: Operating, where: Where) -> Acted:
    return operating.delete(where, dry_run=False)


RETRY = Verb(
    "retry",
    "retried",
    RETRYABLE,
    "only dead and cancelled jobs can be retried",
    _retry_one,
    _retry_many,
    "another job holds their unique key, their queue has no place, or they changed meanwhile",
)
CANCEL = Verb(
    "cancel",
    "cancelled",
    CANCELLABLE,
    "only unfinished jobs can be cancelled",
    _cancel_one,
    _cancel_many,
)
DELETE = Verb(
    "delete",
    "deleted",
    DELETABLE,
    "running jobs cannot be deleted: cancel them first",
    _delete_one,
    _delete_many,
)


@dataclass
class Matched:
    """What a look at the store found: how many of what, which ids may be acted on, and the newest job of all."""

    possible: Counter[tuple[State, str, str]] = field(default_factory=Counter)
    skipped: Counter[State] = field(default_factory=Counter)
    ids: list[UUID] = field(default_factory=list)
    newest: Record | None = None
    more: bool = False

    @property
    def count(self) -> int:
        """How many jobs may be acted on, among those looked at."""
        return self.possible.total()

    def jobs(self, count: int) -> str:
        """`count` in words, as exact as it is known."""
        return f"{count:,}{'+' if self.more else ''} job{'' if count == 1 else 's'}"


def _command(verb: Verb, summary: str) -> Callable[[Callable[..., Any]], click.Command]:
    def made(function: Callable[..., Any]) -> click.Command:
        for option in (
            url_option,
            click.option("--yes", is_flag=True, help="Do not ask."),
            click.option("--dry-run", is_flag=True, help="Show what would be done, and do nothing."),
            filter_options,
            click.argument("ids_given", metavar="[ID]...", nargs=-1),
        ):
            function = option(function)
        return click.command(verb.name, short_help=summary)(function)

    return made


@_command(RETRY, "Give dead or cancelled jobs a new life.")
def retry(**given: Any) -> int:
    """Give dead or cancelled jobs a new life: same id, attempts from 0, history kept.

    Name jobs by ids, or by a filter such as --state dead --error TimeoutError. More than one job: a preview, and a
    question.
    """
    return _act(RETRY, **given)


@_command(CANCEL, "Cancel unfinished jobs.")
def cancel(**given: Any) -> int:
    """Cancel jobs: those not running at once, running ones by asking their workers, within about a second.

    Name jobs by ids, or by a filter such as --queue mail. More than one: a preview, and a question.
    """
    return _act(CANCEL, **given)


@_command(DELETE, "Delete jobs that do not run, for good.")
def delete(**given: Any) -> int:
    """Delete jobs with all that belongs to them: error, result, log, unique key. There is no way back.

    Name jobs by ids, or by a filter such as --state dead --before 30d. More than one: a preview, and a question.
    Running jobs are left as they are: cancel them first.
    """
    return _act(DELETE, **given)


def _act(verb: Verb, *, ids_given: Sequence[str], dry_run: bool, yes: bool, url: str | None, **flags: Any) -> int:
    where = wanted(flags)
    if not ids_given and not where:
        raise Wrong(f"say which jobs to {verb.name}: ids, or a filter such as --state dead")
    with operated(url) as app:
        chosen = which(where)
        if ids_given:
            chosen = replace(chosen, ids=ids.resolved(app, ids_given))
        matched = _look(app, chosen, verb)
        _possible(matched, verb, chosen)
        if dry_run:
            _tell(_preview(matched, verb), show.out)
            return 0
        if not _agreed(matched, verb, yes=yes):
            show.note("nothing was changed")
            return REFUSED
        if ids_given:
            acted = Acted(_one_by_one(app, verb, matched))
        else:
            acted = verb.many(parts_of(app).operating, which(_until_now(where, matched)))
        _report(verb, matched, acted, by_ids=bool(ids_given))
    return 0 if acted.done else REFUSED


def _look(app: Holdfast, where: Where, verb: Verb) -> Matched:
    matched, states = Matched(), verb.states
    for record in islice(parts_of(app).operating.records(where), COUNTED + 1):
        if matched.count + matched.skipped.total() == COUNTED:
            matched.more = True
            break
        matched.newest = matched.newest or record
        if record.state in states:
            matched.possible[record.state, record.queue, record.task] += 1
            matched.ids.append(record.id)
        else:
            matched.skipped[record.state] += 1
    return matched


def _possible(matched: Matched, verb: Verb, where: Where) -> None:
    if matched.newest is None:
        raise NothingMatched(f"nothing to {verb.name}: no job matches")
    if not matched.count and not matched.more:
        alone = where.ids is not None and len(where.ids) == 1
        what = f"job {matched.newest.id} is {matched.newest.state}" if alone else _skipped(matched)
        raise Refused(f"nothing to {verb.name}: {what}; {verb.rule}")


def _preview(matched: Matched, verb: Verb) -> Iterator[str]:
    yield f"{matched.jobs(matched.count)} would be {verb.past}:"
    for (state, queue, task), count in matched.possible.most_common(GROUPS):
        yield f"  {count:>6,}  {show.state_of(state)}  {visible(queue)}  {visible(task)}"
    if len(matched.possible) > GROUPS:
        yield f"  … and {len(matched.possible) - GROUPS} more kinds"
    if matched.skipped:
        yield f"left as they are: {_skipped(matched)} ({verb.rule})"


def _skipped(matched: Matched) -> str:
    return ", ".join(f"{count:,} {state}" for state, count in matched.skipped.most_common())


def _agreed(matched: Matched, verb: Verb, *, yes: bool) -> bool:
    if yes or (matched.count == 1 and not matched.more):
        return True
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise Refused(
            f"{matched.jobs(matched.count)} would be {verb.past}, and there is nobody to ask: "
            "add --yes to do it, or --dry-run to look"
        )
    _tell(_preview(matched, verb), show.note)
    return click.confirm(f"{verb.name.capitalize()} {matched.jobs(matched.count)}?", err=True)


def _tell(lines: Iterator[str], to: Callable[[str], None]) -> None:
    for line in lines:
        to(line)


def _until_now(where: Filter, matched: Matched) -> Filter:
    """The filter without jobs enqueued after the newest that was seen: what is asked about is what is done."""
    if matched.newest is None:
        return where
    seen = moment(matched.newest.enqueued_at + 1)
    before = where.get("before")
    return {**where, "before": seen if before is None else min(before, seen)}


def _one_by_one(app: Holdfast, verb: Verb, matched: Matched) -> int:
    done = 0
    for chosen in matched.ids:
        try:
            done += verb.one(app, chosen)
        except (JobNotFound, StoreError, RefusedByStore) as error:
            show.note(f"left as it is: {error}")
    return done


def _report(verb: Verb, matched: Matched, acted: Acted, *, by_ids: bool) -> None:
    done = acted.done
    what = str(matched.ids[0]) if done == len(matched.ids) == 1 else f"{done:,} job{'' if done == 1 else 's'}"
    running = min(done, sum(count for (state, _, _), count in matched.possible.items() if state is State.RUNNING))
    asked = f"; {running:,} of them running: their workers were asked to stop them" if running else ""
    show.out(f"{verb.past} {what}{asked}")
    if acted.held:
        show.note(f"left as they are: {acted.held:,} ({acted.why}; try again when that has ended)")
    if not by_ids and done + acted.held < matched.count:
        show.note(f"left as they are: {matched.count - done - acted.held:,} more ({verb.kept})")
    if matched.skipped:
        show.note(f"left as they are: {_skipped(matched)} ({verb.rule})")
