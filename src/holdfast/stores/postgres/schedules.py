"""Schedules, and their ticks: each is settled in a transaction of its own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from holdfast.clock import SECOND, Span
from holdfast.store import TICKS_MOST, Entry, Schedules, Tick, Ticked
from holdfast.stores.columns import storable, ticks_of
from holdfast.stores.postgres import limits
from holdfast.stores.postgres.enqueue import one_text
from holdfast.stores.postgres.lane import Lane
from holdfast.stores.postgres.queues import pause_of
from holdfast.stores.postgres.session import Row


async def schedules(lane: Lane, names: Sequence[str] | None) -> Schedules:
    wanted = None if names is None else list(names)
    return _schedules_of(await lane.read("schedules", lane.shift, wanted, wanted), None)


async def due(lane: Lane, limit: int) -> Schedules:
    rows = await lane.call("due", max(0, limit))
    return _schedules_of([row[:-1] for row in rows], rows[0][-1])


def _schedules_of(rows: Sequence[Row], next_in: int | None) -> Schedules:
    return Schedules(rows[0][0], [_entry_of(*row[1:]) for row in rows if row[1] is not None], next_in)


def _entry_of(name: str, queue: str, text: str, next_at: int | None, *more: Any) -> Entry:
    since, until, why, revision, ticks, *counts = more
    return Entry(name, queue, text, next_at, pause_of(since, until, why), revision, ticks_of(ticks), *counts)


async def schedule(lane: Lane, entries: Sequence[Entry]) -> list[bool]:
    if not entries:
        return []
    return [stored for (stored,) in await lane.call("schedule", json.dumps([_said(entry) for entry in entries]))]


def _said(entry: Entry) -> dict[str, Any]:
    """By the names of the columns."""
    since, until, why = (None, None, None) if entry.pause is None else entry.pause
    return {
        "name": storable(entry.name),
        "queue": storable(entry.queue),
        "text": storable(entry.text),
        "next_at": entry.next_at,
        "paused_since": since,
        "paused_until": until,
        "paused_why": None if why is None else storable(why),
        "revision": entry.revision,
    }


async def unschedule(lane: Lane, names: Mapping[str, int]) -> list[bool]:
    rows = await lane.call("unschedule", list(names), list(names.values())) if names else []
    return [(name,) in rows for name in names]


async def tick(lane: Lane, ticks: Sequence[Tick], ring: Callable[[Collection[str]], None]) -> list[Ticked | None]:
    """Strangers that hold drafts up are waited for once, not for each draft again."""
    filled = set[str]()
    answers: list[Ticked | None] = []
    now, patience = asyncio.get_running_loop().time, limits.ENQUEUE
    try:
        for one in ticks:
            begun = now()
            answers.append(await _tick(lane, one, patience, filled))
            if answers[-1] is None:
                patience = max(limits.ENQUEUE_AGAIN, patience - round((now() - begun) * SECOND))
        return answers
    finally:
        if filled:
            ring(filled)


async def _tick(lane: Lane, tick: Tick, patience: Span, filled: set[str]) -> Ticked | None:
    job, said, payload, queue = None, None, None, None
    if tick.draft is not None:
        job, said, payload, queue = tick.draft.id, one_text(tick.draft), tick.draft.payload, tick.draft.queue
    rows = await lane.call(
        "tick",
        tick.name,
        tick.revision,
        tick.due,
        tick.at,
        tick.next_at,
        tick.missed,
        storable(tick.reason),
        job,
        said,
        payload,
        queue,
        patience,
        TICKS_MOST,
    )
    for *ticked, fills in rows:
        if fills and tick.draft is not None:
            filled.add(tick.draft.queue)
        return Ticked(*ticked)
    return None
