"""`holdfast dead`: what went wrong, grouped by error, and what to do next."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import islice
from typing import Any

import click

from holdfast.app import Holdfast, parts_of
from holdfast.cli import show
from holdfast.cli.ends import NothingMatched, Wrong
from holdfast.cli.options import filter_without, operated, url_option, wanted
from holdfast.client.filters import which
from holdfast.clock import DAY, HOUR, Instant
from holdfast.fingerprint import LATE, fingerprint, shape
from holdfast.job import Failure, Record, State
from holdfast.observe.visible import visible
from holdfast.policy import DEADLINE
from holdfast.store import Where

COUNTED = 10_000  # dead jobs that are looked at, the newest
SHOWN = 50  # groups on a terminal


@dataclass
class Group:
    """Dead jobs of one fingerprint. `stored`: all of them have it in the store, so that a filter finds them."""

    fingerprint: str
    type: str
    shape: str
    newest: Record  # by its death
    message: str  # what all of them say, or the shape of it
    stored: bool = True
    count: int = 0
    oldest_at: Instant = 0
    died: list[Instant] = field(default_factory=list[Instant])
    tasks: dict[str, int] = field(default_factory=dict[str, int])

    def add(self, record: Record, message: str) -> None:
        at = _died(record)
        self.count += 1
        self.stored = self.stored and bool(record.fingerprint)
        self.died.append(at)
        self.tasks[record.task] = self.tasks.get(record.task, 0) + 1
        self.oldest_at = min(self.oldest_at or at, at)
        if at > _died(self.newest):
            self.newest = record
        if message != self.message:
            self.message = self.shape

    def since(self, instant: Instant) -> int:
        return sum(at >= instant for at in self.died)

    @property
    def names(self) -> list[str]:
        """Its tasks, the most frequent first."""
        return sorted(self.tasks, key=lambda name: (-self.tasks[name], name))

    @property
    def error(self) -> str:
        return f"{self.type}: {self.message}".removesuffix(": ")


@click.command(short_help="Show dead jobs, grouped by error.")
@filter_without("state")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per group.")
@click.option("-q", "--quiet", is_flag=True, help="Ids only: the newest job of each group.")
@url_option
def dead(as_json: bool, quiet: bool, url: str | None, **flags: Any) -> None:
    """Show why jobs are dead: one line for each kind of error, the most frequent first.

    One kind is one task, type of error, message (but for numbers, ids, quotations, paths and hosts) and place in your
    code; jobs, retry, cancel and delete take it as --fingerprint. In a pipe tab-separated columns: count, newest and
    oldest death, tasks, error, id of the newest, fingerprint.
    """
    if as_json and quiet:
        raise Wrong("--json and --quiet exclude each other")
    with operated(url) as app:
        where = which(wanted(flags))
        found = parts_of(app).operating.records(replace(where, states=(State.DEAD,)))
        groups = grouped(islice(found, COUNTED))  # one by one: their histories together may be large
        more = next(found, None) is not None
        if not groups:
            _nothing(app, where)
            return
    if as_json or quiet or not show.on_terminal():
        _lines(groups, _form(flags, as_json=as_json, quiet=quiet))
    else:
        _page(groups, flags)
    if more:
        show.note(f"the newest {COUNTED:,} dead jobs were looked at; there are more: narrow by --since or --queue")


def grouped(records: Iterable[Record]) -> list[Group]:
    """The groups of these records, the largest first."""
    groups: dict[str, Group] = {}
    for record in records:
        type_, message = _said(record)
        key = record.fingerprint or fingerprint(record.task, _cause(record), record.reason)
        if key not in groups:
            groups[key] = Group(key, type_, shape(message), newest=record, message=message)
        groups[key].add(record, message)
    return sorted(groups.values(), key=lambda group: (-group.count, -_died(group.newest)))


def _said(record: Record) -> tuple[str, str]:
    """Type and first line of the error that ended it; without one, of the reason."""
    error = _cause(record)
    if error is None:
        return record.reason.strip().partition("\n")[0] or "no error kept", ""
    return error.type, error.message.strip().partition("\n")[0]


def _cause(record: Record) -> Failure | None:
    """The error that ended it; None for one that its deadline ended while it waited, whatever went wrong before."""
    error = show.last_error(record)
    ran = error is not None and error.message.startswith(LATE)
    return None if record.reason == DEADLINE and not ran else error


def _died(record: Record) -> Instant:
    return record.finished_at or record.enqueued_at


def _nothing(app: Holdfast, where: Where) -> None:
    place = parts_of(app).link.store.url
    if where != Where():
        raise NothingMatched(f"no dead job in {place} matches all of this")
    show.note(f"no dead jobs in {place}; they would be kept until someone retries or deletes them")


# --- for people


def _page(groups: Sequence[Group], flags: dict[str, Any]) -> None:
    seen = show.now()
    rows = [
        (
            f"{group.count:,}",
            f"{group.since(seen - DAY):,}",
            f"{group.since(seen - HOUR):,}",
            show.coarse(seen - _died(group.newest)),
            show.coarse(seen - group.oldest_at),
            visible(", ".join(group.names)),
            visible(group.error),
            group.fingerprint,
        )
        for group in groups[:SHOWN]
    ]
    cuts = (show.Cut(6, 20), show.Cut(5, 10, front=True), show.Cut(6, 8))
    heads = ("ALL", "24H", "1H", "NEWEST", "OLDEST", "TASKS", "ERROR", "FINGERPRINT")
    for line in show.table(show.Table(heads, rows, cuts)):
        show.out(line)
    if len(groups) > SHOWN:
        show.out(f"… and {show.many(len(groups) - SHOWN, 'more kind')}: holdfast dead --json has all")
    show.out("")
    for line in _next(groups, flags):
        show.out(line)


def _next(groups: Sequence[Group], flags: dict[str, Any]) -> Iterator[str]:
    count, kinds = sum(group.count for group in groups), len(groups)
    yield f"{show.many(count, 'dead job')}, {show.many(kinds, 'kind')} of error. For the first:"
    commands = commands_for(groups[0], flags)
    yield f"  look at one    {visible(commands['look'])}"
    yield f"  retry one      {visible(commands['retry_one'])}"
    if groups[0].count > 1:
        yield f"  then the rest  {visible(commands['retry_all'])}"


def commands_for(group: Group, flags: dict[str, Any]) -> dict[str, str]:
    """What to run next about a group."""
    words = ["--fingerprint", group.fingerprint] if group.stored else _words(group)
    for name, value in wanted(flags).items():
        if name not in ("task", "error", "fingerprint"):
            words += [f"--{name}", value.isoformat() if isinstance(value, datetime) else str(value)]
    return {
        "look": f"holdfast job {group.newest.id}",
        "retry_one": f"holdfast retry {group.newest.id}",
        "retry_all": shlex.join(["holdfast", "retry", *words]),
    }


def _words(group: Group) -> list[str]:
    """Where older code has stored some of them: a filter knows the error's type, not its shape, and may find more."""
    words = ["--state", "dead", "--task", group.names[0]] if len(group.names) == 1 else ["--state", "dead"]
    return words if _cause(group.newest) is None else [*words, "--error", group.type]


# --- for programs


def _form(flags: dict[str, Any], *, as_json: bool, quiet: bool) -> Callable[[Group], str]:
    if as_json:
        return lambda group: json.dumps(_document(group, flags))
    return _id if quiet else _columns


def _lines(groups: Sequence[Group], form: Callable[[Group], str]) -> None:
    for group in groups:
        show.out(form(group))


def _id(group: Group) -> str:
    return str(group.newest.id)


def _columns(group: Group) -> str:
    newest, oldest = show.iso(_died(group.newest)) or "", show.iso(group.oldest_at) or ""
    tasks, example = ",".join(group.names), str(group.newest.id)
    cells = (str(group.count), newest, oldest, tasks, group.error, example, group.fingerprint)
    return "\t".join(visible(cell) for cell in cells)


def _document(group: Group, flags: dict[str, Any]) -> dict[str, Any]:
    return {
        "fingerprint": group.fingerprint,
        "count": group.count,
        "type": group.type,
        "shape": group.shape,
        "message": group.message,
        "newest_at": show.iso(_died(group.newest)),
        "oldest_at": show.iso(group.oldest_at),
        "tasks": {name: group.tasks[name] for name in group.names},
        "id": str(group.newest.id),
        "next": commands_for(group, flags),
    }
