"""The recorder: looks how full the queues are, and writes the history of each minute from what was counted.

What the store did not answer for is written again under its number, so that nothing is counted twice.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import NamedTuple
from uuid import UUID

from holdfast.errors import StoreError
from holdfast.job import State
from holdfast.observe.tally import Totals
from holdfast.store import Level, Stats, Store, Tally

RECORD_EVERY = 5.0  # seconds
LOOK_EVERY = 15.0  # seconds between looks at the queues that nobody asked for
LOOKS_SHARE = 100  # a look that takes a second is taken every so many seconds, at most
FRESH, ASKED_SHARE = 1.0, 20  # seconds: a younger look is shown to whoever asks; as LOOKS_SHARE, for those
LOOK_LIMIT = 2.0  # seconds that whoever asks waits for a look
LAST = 0.5  # seconds that the store has for the last part, at a stop


class Looks:
    """Looks at the queues, as often as they are worth. `ask` asks the store."""

    def __init__(self, ask: Callable[[], Awaitable[Stats]]) -> None:
        self._ask = ask
        self._looked = float("-inf")  # monotonic seconds
        self._took = 0.0
        self._looking: asyncio.Task[Stats] | None = None
        self.newest: Stats | None = None

    async def due(self) -> Stats | None:
        """A look, if it is time for one that nobody asked for. Raises StoreError."""
        if time.monotonic() - self._looked < max(LOOK_EVERY, LOOKS_SHARE * self._took):
            return None
        return await self._look()

    async def asked(self) -> Stats | None:
        """How full they are now, or were a moment ago; None if the store does not say so soon."""
        if time.monotonic() - self._looked < max(FRESH, ASKED_SHARE * self._took):
            return self.newest
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        with suppress(StoreError, TimeoutError):
            return await asyncio.wait_for(asyncio.shield(self._looking), LOOK_LIMIT)
        return None

    async def _look(self) -> Stats:
        began = time.monotonic()
        self.newest = await self._ask()
        self._looked = time.monotonic()
        self._took = self._looked - began
        return self.newest


class Unwritten(NamedTuple):
    """A part of the history that the store has not answered for."""

    reporter: UUID
    number: int
    tallies: Sequence[Tally]
    levels: Sequence[Level]


class Recorder:
    """Of a service, in the name of `who`, which is registered in the store."""

    def __init__(self, store: Store, who: Callable[[], UUID], totals: Totals) -> None:
        self._store = store
        self._who = who
        self._totals = totals
        self._number = 0
        self._unwritten: Unwritten | None = None
        self.looks = Looks(store.stats)

    async def step(self) -> float:
        """Writes what is new."""
        stats = await self.looks.due()
        await self._write([] if stats is None else self._levels(stats))
        return RECORD_EVERY

    async def last(self) -> None:
        """Writes what is left, if the store takes it at once."""
        with suppress(StoreError, TimeoutError):
            async with asyncio.timeout(LAST):
                await self._write([])

    async def _write(self, levels: Sequence[Level]) -> None:
        if self._unwritten is None:
            tallies = self._totals.fresh()
            if not tallies and not levels:
                return
            self._unwritten = Unwritten(self._who(), self._next(), tallies, levels)
        elif self._unwritten.reporter != self._who():  # it began anew: numbers of its former life say nothing any more
            self._unwritten = self._unwritten._replace(reporter=self._who(), number=self._next())
        if await self._store.record(*self._unwritten):  # else it is not registered any more, and soon anew
            self._unwritten = None

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _levels(self, stats: Stats) -> list[Level]:
        found: dict[str, Level] = {}
        for queue in stats.queues:
            if depth := queue.counts.get(State.QUEUED, 0):
                name = self._totals.queues.of(queue.name)
                former = found.get(name, Level(name, 0, 0))
                found[name] = Level(name, former.depth + depth, max(former.oldest, queue.waited(stats.now)))
        return list(found.values())
