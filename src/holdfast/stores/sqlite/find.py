"""Reads records: the conditions of a listing, and the history of each job on its page."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple, TypeAlias

from holdfast.job import Record, State
from holdfast.store import Cursor, Where
from holdfast.stores.sqlite.rows import record_of, texts_of
from holdfast.stores.sqlite.statements import Row, Sql, statement
from holdfast.stores.sqlite.unreadable import Unreadable, decoded

Condition: TypeAlias = tuple[str, tuple[Any, ...]]

_SEQ, _ID, _FENCE, _ENQUEUED_AT = 0, 2, 13, 18  # where find.sql returns them
_NEWEST_ERROR = (
    "(SELECT error_type FROM holdfast_attempts WHERE job = job.seq AND error_type IS NOT NULL"
    " ORDER BY number DESC LIMIT 1)"
)
_HAS_TAG = "EXISTS (SELECT 1 FROM json_each(iif(json_valid(job.tags), job.tags, '[]')) WHERE value = ?)"


class Found(NamedTuple):
    """A page, and the rows that are missing in it."""

    records: list[Record]
    unreadable: list[Unreadable]


def find(sql: Sql, where: Where, after: Cursor | None, limit: int) -> Found:
    """A page is short only at the end of the listing: others come in the place of rows that cannot be read."""
    found, now = Found([], []), sql.now()
    behind = None if after is None else (after[0], str(after[1]))
    while (wanted := limit - len(found.records)) > 0:
        rows = _rows(sql, [*_conditions(where), *_behind(behind)], wanted)
        history = _history(sql, [row[0] for row in rows if row[1]])
        records, unreadable = decoded(rows, lambda row: record_of(row, history.get(row[0], ()), now), _place_of)  # noqa: B023
        found.records.extend(records)
        found.unreadable.extend(unreadable)
        if len(rows) < wanted or not unreadable:
            break
        behind = (rows[-1][_ENQUEUED_AT], rows[-1][_ID])
    return found


def _rows(sql: Sql, conditions: Sequence[Condition], limit: int) -> list[Row]:
    text = statement("find").replace("{conditions}", " AND ".join(text for text, _ in conditions) or "true")
    return sql.listing(text, [*(value for _, values in conditions for value in values), limit])


def _place_of(row: Row) -> tuple[int, int, str]:
    return row[_SEQ], row[_FENCE], row[_ID]


def _conditions(where: Where) -> Iterator[Condition]:
    yield from _about_ids(where)
    if where.states is not None:
        yield _in_states(where.states)
    if where.worker is not None:
        yield "job.state = 'running' AND job.worker = ?", (str(where.worker),)
    for text, value in (
        ("job.queue = ?", where.queue),
        ("job.task = ?", where.task),
        (_HAS_TAG, where.tag),
        (f"{_NEWEST_ERROR} = ?", where.error),
        ("job.fingerprint = ?", where.fingerprint),
        ("job.enqueued_at >= ?", where.since),
        ("job.enqueued_at < ?", where.before),
    ):
        if value is not None:
            yield text, (value,)


def _about_ids(where: Where) -> Iterator[Condition]:
    if where.ids is not None:
        yield "job.id IN (SELECT value FROM json_each(?))", (texts_of(where.ids),)
    if where.starts:
        # The bounds let the index find it, the comparison makes it exact.
        yield "job.id >= ? AND job.id < ? || 'g' AND substr(job.id, 1, length(?)) = ?", (where.starts,) * 4
    if where.ends:
        yield "substr(job.id, -length(?)) = ?", (where.ends,) * 2


def _in_states(states: Sequence[State]) -> Condition:
    """One state stands as a literal: only so does SQLite see that a partial index has what is wanted."""
    if len(states) == 1:
        return f"job.state = '{State(states[0]).value}'", ()
    return "job.state IN (SELECT value FROM json_each(?))", (json.dumps([State(state).value for state in states]),)


def _behind(after: tuple[int, str] | None) -> Iterator[Condition]:
    if after is not None:
        yield "(job.enqueued_at, job.id) < (?, ?)", after


def _history(sql: Sql, jobs: Sequence[int]) -> dict[int, list[Row]]:
    if not jobs:
        return {}
    rows = sql.rows("history", json.dumps(jobs))
    return {job: list(attempts) for job, attempts in groupby(rows, key=lambda row: int(row[0]))}
