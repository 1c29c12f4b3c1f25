"""How jobs look in the terminal and in a pipe: glyphs, ages, tables, JSON."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple, cast

import click

from holdfast.cli import ids
from holdfast.clock import DAY, HOUR, MINUTE, SECOND, Instant, Span, SystemClock, moment
from holdfast.clock import short as exact
from holdfast.job import FINAL, Attempt, Failure, LogLine, Record, State, UniqueKey
from holdfast.observe.visible import columns, shortened, visible

_LOOKS = {
    State.SCHEDULED: ("◷", "blue"),
    State.WAITING: ("⧖", "yellow"),
    State.QUEUED: ("▤", "bright_blue"),
    State.RUNNING: ("▶", "cyan"),
    State.SUCCEEDED: ("✓", "green"),
    State.DEAD: ("✕", "red"),
    State.CANCELLED: ("⊘", "bright_black"),
}
_TIMES = {
    State.WAITING: ("WAITS", "waits {}"),
    State.SCHEDULED: ("DUE IN", "due in {}"),
    State.QUEUED: ("WAITS", "waits {}"),
    State.RUNNING: ("RUNS", "for {}"),
    State.SUCCEEDED: ("TOOK", "took {}"),
    State.DEAD: ("DIED", "{} ago"),
    State.CANCELLED: ("CANCELLED", "{} ago"),
}
_GAP = "  "


def out(text: str) -> None:
    """Prints a line; a reader that has gone (`| head`) ends the command quietly."""
    try:
        click.echo(text)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the interpreter complains at its end
        raise click.exceptions.Exit(0) from None


def note(text: str) -> None:
    """Prints a line beside the output, for people."""
    click.echo(text, err=True)


def on_terminal() -> bool:
    """Whether a person reads the output."""
    return sys.stdout.isatty()


def now() -> Instant:
    """This machine's time, for ages."""
    return SystemClock().now()


def painted(text: str, colour: str) -> str:
    """`text` in a colour, on a terminal that wants colours."""
    plain = not on_terminal() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return text if plain else click.style(text, fg=colour)


def state_of(state: State) -> str:
    """Glyph and word: never the colour alone."""
    glyph, colour = _LOOKS[state]
    return f"{painted(glyph, colour)} {state}"


def coarse(length: Span) -> str:
    """A length of time in one unit: 840 ms, 4.1 s, 41 s, 14 m, 3 h, 2 d."""
    length = max(0, length)
    if length < 10 * SECOND:
        return exact(length)
    for size, unit, most in ((SECOND, "s", 60), (MINUTE, "m", 60), (HOUR, "h", 48)):
        if (count := _nearest(length, size)) < most:
            return f"{count} {unit}"
    return f"{_nearest(length, DAY)} d"


def _nearest(length: Span, size: Span) -> int:
    return (length + size // 2) // size


def many(count: int, what: str) -> str:
    """1 job, 2 jobs, 1,204 jobs."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def utc(instant: Instant) -> str:
    """An instant for people: 2026-11-22 14:03:22 UTC."""
    return f"{moment(instant):%Y-%m-%d %H:%M:%S} UTC"


def iso(instant: Instant | None) -> str | None:
    """An instant for machines: 2026-11-22T14:03:22.540Z."""
    if instant is None:
        return None
    text: datetime = moment(instant)
    return text.isoformat(timespec="milliseconds").replace("+00:00", "Z")


# --- lists


class Cut(NamedTuple):
    """A column that may be cut, to no less than `least`; names with a path in front lose their beginning."""

    column: int
    least: int
    front: bool = False


class Table(NamedTuple):
    """Rows for people. `cuts` in the order in which columns give way on a narrow terminal."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    cuts: Sequence[Cut]


def table(content: Table) -> Iterable[str]:
    """Aligned lines, none wider than the terminal."""
    widths, room = _widths(content), _room()
    _narrow(widths, content.cuts, room)
    for row in (content.heads, *content.rows):
        cells = list(row)
        for cut in content.cuts:
            cells[cut.column] = _cut(row[cut.column], widths[cut.column], cut)
        line = _GAP.join(_padded(cell, width) for cell, width in zip(cells, widths, strict=True)).rstrip()
        yield line if columns(click.unstyle(line)) <= room else shortened(click.unstyle(line), room)


def excess(content: Table) -> int:
    """How many columns of the terminal it is too wide, if nothing is cut; 0 or less if it fits."""
    return _total(_widths(content)) - _room()


def _room() -> int:
    return shutil.get_terminal_size().columns if on_terminal() else sys.maxsize


def _widths(content: Table) -> list[int]:
    by_column = zip(content.heads, *content.rows, strict=True)
    return [max(columns(click.unstyle(cell)) for cell in column) for column in by_column]


def _total(widths: list[int]) -> int:
    return sum(widths) + len(_GAP) * (len(widths) - 1)


def _narrow(widths: list[int], cuts: Sequence[Cut], room: int) -> None:
    over = _total(widths) - room
    for cut in cuts:
        gives = max(0, min(over, widths[cut.column] - cut.least))
        widths[cut.column] -= gives
        over -= gives


def _cut(cell: str, room: int, cut: Cut) -> str:
    """A cell that is cut has no colour: its codes could be cut, too."""
    plain = click.unstyle(cell)
    if columns(plain) <= room:
        return cell
    return shortened(plain[::-1], room)[::-1] if cut.front else shortened(plain, room)


def _padded(cell: str, width: int) -> str:
    return cell + " " * (width - columns(click.unstyle(cell)))


def for_people(records: Sequence[Record], state: State | None) -> Iterable[str]:
    """The table of `holdfast jobs`; with one `state` in view its time column has that state's name."""
    seen = now()
    head = "TIME" if state is None else _TIMES[state][0]
    rows = [
        (
            state_of(record.state),
            visible(record.task),
            visible(record.queue),
            attempts(record),
            _time(record, seen, bare=head != "TIME"),
            visible(words(record)),
            ids.short(record.id),
        )
        for record in records
    ]
    cuts = (Cut(5, 12), Cut(1, 10, front=True), Cut(2, 4), Cut(5, 6))
    return table(Table(("STATE", "TASK", "QUEUE", "ATTEMPT", head, "ERROR, WHERE", "ID"), rows, cuts))


def for_pipes(record: Record) -> str:
    """One line of tab-separated columns: state, task, queue, attempt, the state's time, error or where, id."""
    time = _instant(record)
    cells = (record.state, record.task, record.queue, attempts(record), iso(time) or "", words(record), str(record.id))
    return "\t".join(visible(cell) for cell in cells)


def attempts(record: Record) -> str:
    """2/5: the attempt and how many there may be."""
    return f"{record.attempt}/{record.terms.max_attempts}"


def words(record: Record) -> str:
    """The most useful words about a job: where it runs, what went wrong, why it ended."""
    if record.state is State.RUNNING and record.worker is not None:
        asked = ", asked to stop" if record.cancel_requested_at is not None else ""
        return f"worker {worker(record)}{asked}"
    if record.state is State.SUCCEEDED:
        return ""
    error = last_error(record)
    if error is None or record.state is State.CANCELLED:
        return record.reason
    return summary(error)


def summary(error: Failure) -> str:
    """Type and first line of the message."""
    return f"{error.type}: {error.message.strip().partition(chr(10))[0]}".removesuffix(": ")


def last_error(record: Record) -> Failure | None:
    """The newest error that is kept."""
    return next((attempt.error for attempt in reversed(record.history) if attempt.error), None)


def worker(run: Record | Attempt) -> str:
    """The beginning of a worker's id."""
    return str(run.worker)[:8]


def _instant(record: Record) -> Instant | None:
    if record.state in FINAL:
        return record.finished_at
    return record.started_at if record.state is State.RUNNING else record.due_at


def _time(record: Record, seen: Instant, *, bare: bool) -> str:
    instant = _instant(record)
    if instant is None:
        return ""
    if record.state is State.SUCCEEDED:
        span = exact(max(0, instant - (record.started_at or instant)))
    else:
        span = coarse(instant - seen if record.state is State.SCHEDULED else seen - instant)
    if record.state is State.SCHEDULED and instant < seen:
        return f"{'' if bare else 'due '}{coarse(seen - instant)} ago"
    return span if bare else _TIMES[record.state][1].format(span)


# --- JSON


def as_json(record: Record) -> str:
    """One job as one line of JSON."""
    return json.dumps(_document(record))


def all_as_json(record: Record, log: Sequence[LogLine]) -> str:
    """One job with its log as one line of JSON."""
    lines = [{"at": iso(line.at), "fence": line.fence, "text": line.text} for line in log]
    return json.dumps({**_document(record), "log": lines})


def _document(record: Record) -> dict[str, Any]:
    args, kwargs = arguments(record)
    return {
        "id": str(record.id),
        "state": record.state,
        "task": record.task,
        "queue": record.queue,
        "priority": record.priority,
        "tags": record.tags,
        "attempt": record.attempt,
        "max_attempts": record.terms.max_attempts,
        "life": record.life,
        "fence": record.fence,
        "crashes": record.crashes,
        "timeout": None if record.terms.timeout is None else record.terms.timeout / SECOND,
        "enqueued_at": iso(record.enqueued_at),
        "due_at": iso(record.due_at),
        "expires_at": iso(record.expires_at),
        "deadline_at": iso(record.deadline_at),
        "started_at": iso(record.started_at),
        "finished_at": iso(record.finished_at),
        "cancel_requested_at": iso(record.cancel_requested_at),
        "worker": None if record.worker is None else str(record.worker),
        "reason": record.reason,
        "args": args,
        "kwargs": kwargs,
        "result": None if record.result is None else content(record.result),
        "attempts": [_attempt(attempt) for attempt in record.history],
        "attempts_omitted": record.omitted,
        "progress": record.progress,
        "text": record.text,
        "unique": None if record.unique is None else _unique(record, record.unique),
        "headers": headers(record),
    }


def _unique(record: Record, unique: UniqueKey) -> dict[str, Any]:
    return {
        "key": unique.text,
        "until": unique.until,
        "hold": unique.hold / SECOND,
        "on_clash": unique.on_clash,
        "holds": record.holds,
        "holds_until": iso(record.holds_until),
    }


def _attempt(attempt: Attempt) -> dict[str, Any]:
    return {
        "attempt": attempt.attempt,
        "fence": attempt.fence,
        "worker": str(attempt.worker),
        "started_at": iso(attempt.started_at),
        "ended_at": iso(attempt.ended_at),
        "ended": attempt.ended,
        "reason": attempt.reason,
        "error": None if attempt.error is None else attempt.error._asdict(),
    }


def arguments(record: Record) -> tuple[list[Any], dict[str, Any]]:
    """Positional and keyword arguments as they are stored."""
    call = cast("dict[str, Any]", content(record.payload))
    return call.get("args", []), call.get("kwargs", {})


def headers(record: Record) -> dict[str, str]:
    """What travels with the job beside its arguments, by name."""
    return cast("dict[str, str]", content(record.headers.encode() or b"{}"))


def content(data: bytes) -> Any:
    """What stored JSON says, whole numbers of any size unchanged; text that is no JSON as it is."""
    try:
        return json.loads(data)
    except ValueError:
        return data.decode("utf-8", "backslashreplace")


def lines(records: Iterable[Record], form: Callable[[Record], str]) -> None:
    """Prints records as they come."""
    for record in records:
        out(form(record))
