"""What operators do to single jobs: cancel, retry, delete. One that another transaction holds is asked for again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import cast
from uuid import UUID

from holdfast.clock import SECOND
from holdfast.job import TOMBSTONE
from holdfast.store import Cancelling, Deleting, Retried, Room
from holdfast.stores.columns import storable
from holdfast.stores.postgres import limits
from holdfast.stores.postgres.lane import Lane
from holdfast.stores.postgres.session import Row

_FIRST_PAUSE, _LONGEST_PAUSE = 0.005, 0.1  # seconds

_HELD = ("finishing", "busy")  # by a transaction that is open elsewhere: nothing was changed


async def cancel(lane: Lane, ids: Sequence[UUID], reason: str) -> list[Cancelling]:
    told = storable(reason)
    rows = await _patiently(ids, lambda some: lane.call("cancel", some, told, TOMBSTONE))
    return [cast("Cancelling", answer) for (answer,) in rows]


async def retry(lane: Lane, ids: Sequence[UUID], ring: Callable[[Collection[str]], None]) -> list[Retried]:
    async def ask(some: list[UUID]) -> list[Row]:
        rows = await lane.call("retry", some, limits.RETRY)
        if revived := {queue for answer, _, queue, *_ in rows if answer == "retried"}:
            ring(revived)
        return rows

    rows = await _patiently(ids, ask)
    return [_retried_of(row) for row in rows]


def _retried_of(row: Row) -> Retried:
    answer, holder, _, *room = row
    return Retried(answer, holder, Room(*room) if answer == "full" else None)


async def delete(lane: Lane, ids: Sequence[UUID]) -> list[Deleting]:
    rows = await _patiently(ids, lambda some: lane.call("delete", some, TOMBSTONE))
    return [cast("Deleting", answer) for (answer,) in rows]


async def _patiently(ids: Sequence[UUID], ask: Callable[[list[UUID]], Awaitable[list[Row]]]) -> list[Row]:
    """The answers, in order. No call waits for a lock: one that did would hold all that it has locked already."""
    rows = await ask(list(ids)) if ids else []
    pause, end = _FIRST_PAUSE, time.monotonic() + limits.OPERATE / SECOND
    while (held := [place for place, row in enumerate(rows) if row[0] in _HELD]) and time.monotonic() < end:
        await asyncio.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE)
        for place, row in zip(held, await ask([ids[place] for place in held]), strict=True):
            rows[place] = row
    return rows


async def locker(lane: Lane, job: UUID) -> str:
    """Whose transaction holds the job's row or its queue's, where that can be seen."""
    for pid, application, state, seconds in await lane.read("locker", job, job):
        said = [f"pid {pid}", application, state, f"open for {seconds} s" if state else ""]
        return ", ".join(part for part in said if part)
    return ""
