"""The bell: tells other processes that queues have jobs now. At once, then at most every few ms for each queue."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from contextlib import suppress

from holdfast.clock import SECOND
from holdfast.errors import StoreError
from holdfast.stores.postgres.lane import Lane
from holdfast.stores.postgres.limits import LAST_RINGS

REST = 0.005  # seconds between two rings for a queue


class Bell:
    """What is rung for while a queue rests is rung together when the rest is over."""

    def __init__(self) -> None:
        self._resting: dict[str, Lane | None] = {}  # with the lane on which to ring again
        self._rings: set[asyncio.Task[None]] = set()

    def ring(self, queues: Collection[str], lane: Lane) -> None:
        """Rings on `lane`, which has made these queues have jobs; returns at once."""
        for queue in self._resting.keys() & queues:
            self._resting[queue] = lane
        if fresh := [queue for queue in queues if queue not in self._resting]:
            self._send(fresh, lane)
            asyncio.get_running_loop().call_later(REST, self._rested, fresh)

    def _send(self, queues: list[str], lane: Lane) -> None:
        self._resting.update(dict.fromkeys(queues))
        ring = asyncio.create_task(_ring(queues, lane))
        self._rings.add(ring)
        ring.add_done_callback(self._rings.discard)

    def _rested(self, queues: list[str]) -> None:
        again: dict[Lane, list[str]] = {}
        for queue in queues:
            if (lane := self._resting.pop(queue, None)) is not None:
                again.setdefault(lane, []).append(queue)
        for lane, those in again.items():
            self.ring(those, lane)

    async def close(self) -> None:
        """Rings for what still rests, and waits for it a moment."""
        self._rested(list(self._resting))
        if self._rings:
            await asyncio.wait(self._rings, timeout=LAST_RINGS / SECOND)


async def _ring(queues: list[str], lane: Lane) -> None:
    with suppress(StoreError):  # a hint: those who wait look by themselves
        await lane.call("ring", queues)
