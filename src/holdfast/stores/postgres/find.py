"""Reads records: the conditions of a listing, and what it returns."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeAlias
from uuid import UUID

from holdfast.clock import Instant
from holdfast.job import Attempt, Record, State
from holdfast.store import Cursor, Where
from holdfast.stores.columns import attempt_of, record_of, storable, tags_of
from holdfast.stores.postgres.lane import Lane
from holdfast.stores.postgres.session import Row
from holdfast.stores.postgres.statements import quoted, statement
from holdfast.stores.unreadable import Told, decoded

Condition: TypeAlias = tuple[str, tuple[Any, ...]]

_ID, _TAGS, _ENQUEUED_AT = 3, 11, 19  # where find.sql returns them
FEW = 5_000  # jobs that are asked for by their ids
_UNFINISHED = {State.QUEUED, State.RUNNING, State.SCHEDULED}  # nothing ever waits yet

_FIRST_ID, _LAST_ID = str(UUID(int=0)), str(UUID(int=2**128 - 1))
_NEWEST_ERROR = (
    "(SELECT error_type FROM {schema}.holdfast_attempts AS ended WHERE ended.job = job.id AND error_type IS NOT NULL"
    " ORDER BY number DESC LIMIT 1)"
)


async def find(lane: Lane, where: Where, after: Cursor | None, limit: int, told: Told) -> list[Record]:
    """A page is short only at the end of the listing: others come in the place of rows that cannot be read."""
    found: list[Record] = []
    conditions = [*_conditions(where), *await _among_few(lane, where)]
    while (wanted := limit - len(found)) > 0:
        rows = await _rows(lane, [*conditions, *_behind(after)], wanted)
        records, unreadable = decoded(rows, _record_of)
        found.extend(records)
        told.left_out((row[_ID], why) for row, why in unreadable)
        if len(rows) < wanted or not unreadable:
            break
        after = (rows[-1][_ENQUEUED_AT], rows[-1][_ID])
    return found


async def _among_few(lane: Lane, where: Where) -> Iterable[Condition]:
    """Unfinished jobs by their ids, where they are few: the others would be read one after the other, and left out."""
    if where.states is None or where.ids is not None or not (states := set(where.states) - {State.WAITING}):
        return ()
    if not states <= _UNFINISHED:
        return ()
    queue = None if where.queue is None else storable(where.queue)
    [[few]] = await lane.call("few", [state.value for state in states], queue, FEW)
    return () if few is None else [("job.id = ANY (%b)", (few,))]


async def _rows(lane: Lane, conditions: Sequence[Condition], limit: int) -> list[Row]:
    wanted = " AND ".join(text for text, _ in conditions).replace("{schema}", quoted(lane.schema)) or "true"
    text = statement("find", lane.schema).replace("{conditions}", wanted)
    return await lane.rows(text, [lane.shift, *(value for _, values in conditions for value in values), limit])


def _record_of(row: Row) -> Record:
    now, history, *columns = row
    columns[_TAGS - 2] = tags_of(columns[_TAGS - 2])
    return record_of(columns, _history_of(history), now)


def _history_of(text: str | None) -> list[Attempt]:
    attempts: list[list[Any]] = [] if text is None else json.loads(text)
    for attempt in attempts:
        attempt[2] = UUID(attempt[2])
    return list(map(attempt_of, attempts))


def _conditions(where: Where) -> Iterator[Condition]:
    yield from _about_ids(where)
    if where.states is not None:
        yield _in_states(where.states)
    if where.fingerprint == "":
        yield "job.fingerprint IS NULL", ()
    if where.worker is not None:
        yield "job.state = 'running' AND job.worker = %b", (where.worker,)
    for text, value in (
        ("job.queue = %b", where.queue),
        ("job.task = %b", where.task),
        ("%b = ANY (job.tags)", where.tag),
        ("job.fingerprint = %b", where.fingerprint or None),
        (f"{_NEWEST_ERROR} = %b", where.error),
    ):
        if value is not None:
            yield text, (storable(value),)
    for text, instant in (("job.enqueued_at >= %b", where.since), ("job.enqueued_at < %b", where.before)):
        if instant is not None:
            yield text, (instant,)


def _about_ids(where: Where) -> Iterator[Condition]:
    if where.ids is not None:
        yield ("job.id = ANY (%b)", (list(where.ids),)) if where.ids else ("false", ())
    if where.starts:
        yield _beginning(where.starts)
    if where.ends:
        yield (
            ("right(job.id::text, %b) = %b", (len(where.ends), where.ends)) if _ends_ids(where.ends) else ("false", ())
        )


def _beginning(text: str) -> Condition:
    """As a range of the index. A text that begins no id matches none."""
    lowest, highest = text + _FIRST_ID[len(text) :], text + _LAST_ID[len(text) :]
    if not (_is_id(lowest) and _is_id(highest)):
        return "false", ()
    return "job.id BETWEEN %b AND %b", (UUID(lowest), UUID(highest))


def _ends_ids(text: str) -> bool:
    return _is_id(_FIRST_ID[: -len(text)] + text)


def _is_id(text: str) -> bool:
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False


def _in_states(states: Sequence[State]) -> Condition:
    """As literals: only so does the planner see that a partial index has what is wanted."""
    if not states:
        return "false", ()
    return f"job.state IN ({', '.join(repr(State(state).value) for state in states)})", ()


def _behind(after: tuple[Instant, UUID] | None) -> Iterator[Condition]:
    if after is not None:
        yield "(job.enqueued_at, job.id) < (%b, %b)", after
