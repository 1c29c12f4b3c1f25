"""`holdfast job`: everything that is known about one job."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import click

from holdfast.app import parts_of
from holdfast.cli import follow, ids, show
from holdfast.cli.options import operated, url_option
from holdfast.clock import Instant
from holdfast.clock import short as exact
from holdfast.job import ERRORS_FIRST, FINAL, Attempt, LogLine, Record, State, UniqueKey
from holdfast.observe.visible import visible, visible_lines

EXPIRED, DEADLINE = "expired", "deadline"  # reasons, as stores write them
_LOG_SHOWN = 10
_TEXT_LIMIT = 2_000  # characters of arguments and result; --json has all
_ENDS = {"failed": "✕", "snoozed": "◷", "cancelled": "⊘", "released": "↩", "lost": "☠"}


@click.command(short_help="Show one job: attempts, error, arguments, result, log.")
@click.argument("id_given", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="One JSON object; with --watch one at each change.")
@click.option("--watch", is_flag=True, help="Follow its states, progress and log until it has ended.")
@url_option
def job(id_given: str, as_json: bool, watch: bool, url: str | None) -> int:
    """Show all that is known about one job. ID: whole, the short form of tables, or a beginning.

    With --watch the exit code is 0 if it succeeded, 1 if it is dead or was cancelled. Times are in UTC.
    """
    with operated(url) as app:
        record = ids.found(app, id_given)
        if watch:
            return follow.follow(app, record, follow.as_json if as_json else follow.as_text)
        log = parts_of(app).operating.log(record.id)
        why = parts_of(app).operating.why_not_begun(record) if follow.should_run(record) and not as_json else ""
    if as_json:
        show.out(show.all_as_json(record, log))
        return 0
    for line in _told(record, log, show.now(), why):
        show.out(line)
    return 0


def _told(record: Record, log: Sequence[LogLine], seen: Instant, why: str) -> Iterator[str]:
    yield f"{show.state_of(record.state)}   {visible(record.task)}   {record.id}"
    yield f"  {visible(_sentence(record, seen))}"
    if why:
        yield f"  why        {why}"
    yield "  " + "   ".join(_facts(record, seen))
    yield f"  arguments  {_arguments(record) or '(none)'}"
    if record.result is not None:
        yield f"  result     {_text(show.content(record.result))}"
    if record.progress is not None or record.text:
        yield f"  progress   {_progress(record)}"
    if record.unique is not None:
        yield f"  unique     {_unique(record, record.unique, seen)}"
    if record.headers:
        yield f"  headers    {_headers(record)}"
    yield from _attempts(record, seen)
    yield from _error(record)
    yield from _log(log)


def _sentence(record: Record, seen: Instant) -> str:
    """How the job is, in words."""
    ago = show.coarse(seen - (record.finished_at or seen))
    last = _last_failed(record)
    again = f" {_before(last)}" if last else ""
    match record.state:
        case State.SCHEDULED if record.due_at < seen:
            late = show.coarse(seen - record.due_at)
            return f"Due for {late}, since {show.utc(record.due_at)}: no worker has looked since. Does one run?{again}"
        case State.SCHEDULED:
            return f"Due in {show.coarse(record.due_at - seen)}, at {show.utc(record.due_at)}.{again}"
        case State.QUEUED:
            waits = show.coarse(seen - record.due_at)
            return f"Waiting for a free worker for {waits}, due since {show.utc(record.due_at)}.{again}"
        case State.RUNNING:
            asked = "; its worker is asked to stop it" if record.cancel_requested_at is not None else ""
            runs = show.coarse(seen - (record.started_at or seen))
            return f"Running for {runs} on worker {record.worker}{asked}.{again}"
        case State.SUCCEEDED:
            return f"Succeeded {ago} ago, in {exact(max(0, (record.finished_at or 0) - (record.started_at or 0)))}."
        case State.DEAD:
            return f"Dead since {ago}. {_blame(record)}"
        case _:
            return f"Cancelled {ago} ago{_why_cancelled(record)}"


def _before(attempt: Attempt) -> str:
    how = "was lost" if attempt.ended == "lost" else "failed"
    return f"It {how} before: {_why(attempt)}".removesuffix(".") + "."


def _why(attempt: Attempt) -> str:
    """What ended it; a process that died has left no exception, and its entry's type would only say `Lost` again."""
    if attempt.error is None:
        return attempt.reason
    summary = show.summary(attempt.error)
    return summary.removeprefix(f"{attempt.error.type}: ") if attempt.ended == "lost" else summary


def _last_failed(record: Record) -> Attempt | None:
    return next((attempt for attempt in reversed(record.history) if attempt.error), None)


def _why_cancelled(record: Record) -> str:
    if record.reason == EXPIRED and record.expires_at is not None:
        return f": nobody had started it by {show.utc(record.expires_at)}, when it expired."
    return f". {record.reason}".rstrip()


def _blame(record: Record) -> str:
    error = show.last_error(record)
    used = f"{record.attempt} of {record.terms.max_attempts} attempts used"
    again = f"To try again: holdfast retry {ids.short(record.id)}"
    if record.reason == DEADLINE and record.deadline_at is not None:
        return f"{used}; it was not finished by {show.utc(record.deadline_at)}, its deadline. {again}"
    if error is None:
        return f"{used}; {record.reason}. {again}" if record.reason else f"{used}. {again}"
    return f"{used}, the last ended with {error.type}. {again}"


def _facts(record: Record, seen: Instant) -> Iterator[str]:
    yield f"queue {visible(record.queue)}"
    yield f"priority {record.priority}"
    yield f"attempt {record.attempt} of {record.terms.max_attempts}"
    if record.terms.timeout is not None:
        yield f"timeout {exact(record.terms.timeout)}"
    if record.expires_at is not None and (record.state not in FINAL or record.reason == EXPIRED):
        yield f"expires {show.utc(record.expires_at)}"
    if record.deadline_at is not None:
        yield f"deadline {show.utc(record.deadline_at)}"
    if record.life > 1:
        yield f"life {record.life}"
    if record.crashes:
        yield f"crashes {record.crashes} of {record.terms.max_crashes}"
    yield f"enqueued {show.utc(record.enqueued_at)} ({show.coarse(seen - record.enqueued_at)} ago)"
    if record.tags:
        yield f"tags {visible(', '.join(record.tags))}"


def _arguments(record: Record) -> str:
    args, kwargs = show.arguments(record)
    texts = [_json(value) for value in args] + [f"{name}={_json(value)}" for name, value in kwargs.items()]
    return _bounded(", ".join(texts))


def _progress(record: Record) -> str:
    """50 % rendered: what its last run said of itself."""
    done = "" if record.progress is None else f"{record.progress:.0%}".replace("%", " %")
    return _bounded(" ".join(part for part in (done, record.text or "") if part))


def _unique(record: Record, unique: UniqueKey, seen: Instant) -> str:
    """The key, and whether and until when the job keeps others from having it."""
    key = visible(unique.text)
    if not record.holds:
        return f"{key}: does not hold it any more"
    if record.holds_until is not None:
        return f"{key}: holds it until {show.utc(record.holds_until)}, {show.coarse(record.holds_until - seen)} more"
    after = f" and {exact(unique.hold)} have passed" if unique.hold else ""
    return f"{key}: holds it until it is {unique.until}{after}"


def _headers(record: Record) -> str:
    return _bounded(", ".join(f"{name}={_header(text)}" for name, text in show.headers(record).items()))


def _header(text: str) -> str:
    """A carried variable is stored as JSON; where that is a text, it is shown as the job's own headers are."""
    value = show.content(text.encode("utf-8", "surrogatepass"))
    return value if isinstance(value, str) else text


def _log(log: Sequence[LogLine]) -> Iterator[str]:
    if not log:
        return
    shown = log[-_LOG_SHOWN:]
    yield ""
    more = f", the last {len(shown)} of {len(log)} (--json has all)" if len(shown) < len(log) else ""
    yield f"  log (times in UTC{more})"
    for line in shown:
        yield f"    {show.utc(line.at).removesuffix(' UTC')}  {_bounded(line.text)}".rstrip()


def _text(value: object) -> str:
    return _bounded(_json(value))


def _bounded(text: str) -> str:
    more = len(text) - _TEXT_LIMIT
    return visible(text) if more <= 0 else f"{visible(text[:_TEXT_LIMIT])}… {more:,} characters more: --json"


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _attempts(record: Record, seen: Instant) -> Iterator[str]:
    rows = [_row(attempt) for attempt in record.history]
    if record.omitted:
        rows.insert(ERRORS_FIRST, ("…", "", "", "", "", f"{record.omitted} attempts are not kept"))
    if record.state in (State.RUNNING, State.SUCCEEDED) and record.started_at is not None:
        rows.append(_last_row(record, record.started_at, seen))
    if not rows:
        return
    yield ""
    heads = ("#", "FENCE", "STARTED (UTC)", "RAN", "WORKER", "ENDED")
    yield from show.table(show.Table(heads, rows, (show.Cut(5, 12),)))


def _row(attempt: Attempt) -> tuple[str, ...]:
    why = _why(attempt)
    ended = f"{_ENDS.get(attempt.ended, '·')} {attempt.ended}" + (f": {why}" if why else "")
    return (
        str(attempt.attempt),
        str(attempt.fence),
        show.utc(attempt.started_at).removesuffix(" UTC"),
        exact(max(0, attempt.ended_at - attempt.started_at)),
        show.worker(attempt),
        visible(ended),
    )


def _last_row(record: Record, started: Instant, seen: Instant) -> tuple[str, ...]:
    """The run that has no history: the one under way, or the one that succeeded."""
    running = record.state is State.RUNNING
    worker = record.worker if running else record.settled_by
    return (
        str(record.attempt),
        str(record.fence if running else record.settled_fence),
        show.utc(started).removesuffix(" UTC"),
        exact(max(0, (seen if running else record.finished_at or seen) - started)),
        str(worker)[:8],
        show.state_of(record.state),
    )


def _error(record: Record) -> Iterator[str]:
    last = _last_failed(record)
    if last is None or last.error is None:
        return
    told_above = record.state in (State.SCHEDULED, State.QUEUED, State.RUNNING)
    more = last.error.traceback or last.error.message.strip().partition("\n")[2]
    if not more and told_above:
        return
    yield ""
    yield f"  error (attempt {last.attempt})  {visible(_why(last))}"
    for line in visible_lines(more) if more else ():
        yield f"    {line}".rstrip()
