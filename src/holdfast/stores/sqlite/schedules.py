"""Schedules: what changes an entry, which are due, and the step that settles a tick with its job."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from holdfast.clock import Span
from holdfast.job import Pause
from holdfast.rulings import stepped, steps
from holdfast.store import Entry, Schedules, Tick, Ticked
from holdfast.stores.columns import text_of_ticks, ticks_of
from holdfast.stores.sqlite.enqueue import enqueue
from holdfast.stores.sqlite.statements import Row, Sql


def schedules(sql: Sql, names: Sequence[str] | None) -> Schedules:
    return Schedules(sql.now(), _entries(sql, names))


def due(sql: Sql, limit: int) -> Schedules:
    now, most = sql.now(), max(0, limit)
    rows = sql.rows("due_schedules", now, most + 1)
    next_in = 0 if len(rows) > most else _next_in(sql)
    return Schedules(now, [_entry_of(row) for row in rows[:most]], next_in)


def _next_in(sql: Sql) -> Span | None:
    [[at]] = sql.rows("next_tick", sql.now())
    return None if at is None else max(0, at - sql.now())


def schedule(sql: Sql, entries: Sequence[Entry]) -> list[bool]:
    return [_put(sql, entry) for entry in entries]


def _put(sql: Sql, entry: Entry) -> bool:
    [stored] = sql.row("revision", entry.name) or [0]
    if stored != entry.revision:
        return False
    pause = (None, None, "") if entry.pause is None else entry.pause
    sql.write("schedule", entry.name, entry.queue, entry.next_at, *pause, stored + 1, entry.text)
    return True


def unschedule(sql: Sql, names: Mapping[str, int]) -> list[bool]:
    return [sql.write("unschedule", name, revision) > 0 for name, revision in names.items()]


def nothing_to_tick(sql: Sql, ticks: Sequence[Tick]) -> list[Ticked | None] | None:
    """The answers where all of them are settled already, or were changed."""
    entries = {entry.name: entry for entry in _entries(sql, [tick.name for tick in ticks])}
    if any(steps(entries.get(tick.name), tick, sql.now()) for tick in ticks):
        return None
    return [None for _ in ticks]


def settle(sql: Sql, ticks: Sequence[Tick]) -> list[Ticked | None]:
    return [_settle(sql, tick) for tick in ticks]


def _settle(sql: Sql, tick: Tick) -> Ticked | None:
    now = sql.now()
    entry = next(iter(_entries(sql, [tick.name])), None)
    if entry is None or not steps(entry, tick, now):
        return None
    receipt = None if tick.draft is None else enqueue(sql, [tick.draft])[0]
    after, answer = stepped(entry, tick, receipt, now)
    ticks = text_of_ticks(after.ticks)
    sql.write("tick", after.next_at, ticks, after.made, after.skipped, after.missed, after.name)
    return answer


def _entries(sql: Sql, names: Sequence[str] | None) -> list[Entry]:
    rows = sql.rows("schedules", None if names is None else json.dumps(list(names)))
    return [_entry_of(row) for row in rows]


def _entry_of(row: Row) -> Entry:
    name, queue, text, next_at, paused_at, paused_until, reason, revision, ticks, *counts = row
    pause = None if paused_at is None else Pause(paused_at, paused_until, reason)
    return Entry(name, queue, text, next_at, pause, revision, ticks_of(ticks), *counts)
