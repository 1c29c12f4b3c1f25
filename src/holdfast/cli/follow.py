"""`holdfast job ID --watch`: what becomes of one job, as it happens, until it has ended."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from holdfast.app import Holdfast, parts_of
from holdfast.cli import show
from holdfast.client.asking import LONG
from holdfast.clock import Instant
from holdfast.clock import short as exact
from holdfast.errors import StoreAway
from holdfast.job import FINAL, LogLine, Record, State
from holdfast.observe.visible import visible, visible_lines

EVERY = 0.5  # seconds between two looks at a job that goes on
AWAY_PAUSE = 1.0
RESULT_MOST = 2_000  # characters
ENDED_BADLY = 1  # exit code: it is dead, or was cancelled


@dataclass(frozen=True)
class Seen:
    """A job at one look."""

    record: Record
    log: Sequence[LogLine] = ()


def follow(app: Holdfast, record: Record, form: Callable[[Seen | None, Seen], Iterator[str]]) -> int:
    """Prints what `form` makes of each look and the one before; returns the exit code. JobNotFound if it is deleted."""
    operating, before = parts_of(app).operating, None
    away, why = False, _Why()
    while True:
        try:
            seen = Seen(record, operating.log(record.id))
            for line in form(before, seen):
                show.out(line)
            if record.state in FINAL:
                return 0 if record.state is State.SUCCEEDED else ENDED_BADLY
            if form is as_text and why.wanted(record):
                show.out(f"{_clock(show.now())}    why: {operating.why_not_begun(record)}")
            operating.ended(record.id, EVERY)
            record, before, away = operating.record(record.id), seen, False
        except StoreAway as error:
            if not away:
                show.note(f"{error}; trying again")
            away = True
            time.sleep(AWAY_PAUSE)


def should_run(record: Record) -> bool:
    """Whether a worker could have begun it by now."""
    return record.state is State.QUEUED or (record.state is State.SCHEDULED and record.due_at < show.now())


class _Why:
    """When to say why nobody begins it: once for each time that it waits long."""

    def __init__(self) -> None:
        self._since: float | None = None  # monotonic seconds
        self._said = False

    def wanted(self, record: Record) -> bool:
        now = time.monotonic()
        if not should_run(record):
            self._since, self._said = None, False
            return False
        self._since = now if self._since is None else self._since
        if self._said or now - self._since < LONG:
            return False
        self._said = True
        return True


def as_json(before: Seen | None, seen: Seen) -> Iterator[str]:
    """The whole job, whenever something has changed."""
    if before != seen:
        yield show.all_as_json(seen.record, seen.log)


def as_text(before: Seen | None, seen: Seen) -> Iterator[str]:
    """A line for each thing that has changed, as they happened; at the end the result or the error."""
    record = seen.record
    if before is None:
        yield f"{visible(record.task)}   {record.id}   queue {visible(record.queue)}"
    happened = _happened(record)
    told = [(line.at, [_of_log(line)]) for line in _fresh(before.log if before else (), seen.log)]
    if (before is None or _progress(before.record) != _progress(record)) and _progress(record):
        at = happened if record.state in FINAL else show.now()
        told.append((at, [f"{_clock(at)}  {_progress(record)}"]))
    told.sort(key=lambda one: one[0])
    if before is None or _step(before.record) != _step(record):
        text = f"{_clock(happened)}  {show.state_of(record.state)}   {_more(record)}".rstrip()
        after = len(told) if record.state in FINAL else sum(at < happened for at, _ in told)
        told.insert(after, (happened, [text, *_end(record)]))
    for _, lines in told:
        yield from lines


def _happened(record: Record) -> Instant:
    """When it came to be as it is, as far as that is known; else now."""
    if record.state in FINAL:
        return record.finished_at or show.now()
    if record.state is State.RUNNING:
        return record.cancel_requested_at or record.started_at or show.now()
    return show.now()


def _fresh(before: Sequence[LogLine], after: Sequence[LogLine]) -> Sequence[LogLine]:
    """What was added; the oldest lines may have made room for it."""
    for dropped in range(len(before) + 1):
        kept = len(before) - dropped
        if tuple(after[:kept]) == tuple(before[dropped:]):
            return after[kept:]
    return after


def _of_log(line: LogLine) -> str:
    return f"{_clock(line.at)}    {visible(line.text)}".rstrip()


def _clock(at: int) -> str:
    return show.utc(at)[11:19]


def _step(record: Record) -> tuple[object, ...]:
    return record.state, record.life, record.attempt, record.fence, record.cancel_requested_at is not None


def _progress(record: Record) -> str:
    done = "" if record.progress is None else f"{record.progress:.0%}".replace("%", " %")
    return visible(" ".join(part for part in (done, record.text or "") if part))


def _more(record: Record) -> str:
    attempt = f"attempt {record.attempt} of {record.terms.max_attempts}"
    match record.state:
        case State.RUNNING:
            asked = ", asked to stop" if record.cancel_requested_at is not None else ""
            return f"{attempt} on worker {show.worker(record)}{asked}"
        case State.SCHEDULED | State.QUEUED:
            last = record.history[-1] if record.history else None
            why = "" if last is None else show.summary(last.error) if last.error else last.reason or last.ended
            after = f"attempt {last.attempt} of {record.terms.max_attempts}: {why}; " if last else ""
            due = max(0, record.due_at - show.now())
            return visible(f"{after}due in {exact(due)}" if record.state is State.SCHEDULED else after.rstrip("; "))
        case State.SUCCEEDED:
            return f"in {exact(max(0, (record.finished_at or 0) - (record.started_at or 0)))}"
        case _:
            error = show.last_error(record) if record.state is State.DEAD else None
            return visible(f"{attempt}: {show.summary(error)}" if error else record.reason)


def _end(record: Record) -> Iterator[str]:
    if record.result is not None:
        text = json.dumps(show.content(record.result), ensure_ascii=False)
        yield f"          {visible(text[:RESULT_MOST])}{'…' if len(text) > RESULT_MOST else ''}"
    error = show.last_error(record)
    if record.state is State.DEAD and error is not None:
        yield from (f"          {line}".rstrip() for line in visible_lines(error.traceback) if error.traceback)
