"""Reads records: the conditions of a listing, and the history of each job on its page."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, TypeAlias

from holdfast.job import Record, State
from holdfast.store import Cursor, Where
from holdfast.stores.sqlite.rows import record_of, texts_of
from holdfast.stores.sqlite.statements import Row, Sql, statement

Condition: TypeAlias = tuple[str, tuple[Any, ...]]

_NEWEST_ERROR = (
    "(SELECT error_type FROM holdfast_attempts WHERE job = job.seq AND error_type IS NOT NULL"
    " ORDER BY number DESC LIMIT 1)"
)


def find(sql: Sql, where: Where, after: Cursor | None, limit: int) -> list[Record]:
    conditions = [*_conditions(where), *_behind(after)]
    text = statement("find").replace("{conditions}", " AND ".join(text for text, _ in conditions) or "true")
    rows = sql.listing(text, [*(value for _, values in conditions for value in values), max(0, limit)])
    history = _history(sql, [row[0] for row in rows if row[1]])
    return [record_of(row, history.get(row[0], ())) for row in rows]


def _conditions(where: Where) -> Iterator[Condition]:
    yield from _about_ids(where)
    if where.states is not None:
        yield _in_states(where.states)
    if where.worker is not None:
        yield "job.state = 'running' AND job.worker = ?", (str(where.worker),)
    for text, value in (
        ("job.queue = ?", where.queue),
        ("job.task = ?", where.task),
        ("EXISTS (SELECT 1 FROM json_each(job.tags) WHERE value = ?)", where.tag),
        (f"{_NEWEST_ERROR} = ?", where.error),
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


def _behind(after: Cursor | None) -> Iterator[Condition]:
    if after is not None:
        yield "(job.enqueued_at, job.id) < (?, ?)", (after[0], str(after[1]))


def _history(sql: Sql, jobs: Sequence[int]) -> dict[int, list[Row]]:
    if not jobs:
        return {}
    rows = sql.rows("history", json.dumps(jobs))
    return {job: list(attempts) for job, attempts in groupby(rows, key=lambda row: int(row[0]))}
