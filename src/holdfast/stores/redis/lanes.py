"""The lanes of a store that is open."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import contextmanager

from holdfast.stores.redis.lane import Lane
from holdfast.stores.redis.place import Place
from holdfast.stores.redis.waking import Waking
from holdfast.stores.redis.watching import Watching


class Lanes:
    """The lanes of one store, on one event loop."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.enqueue = Lane("enqueue", place)  # producers
        self.claim = Lane("claim", place)
        self.finish = Lane("finish", place)
        self.beat = Lane("beat", place)  # what keeps the lease: register, beat, mail, retire
        self.work = Lane("work", place)  # janitors, operators, notes
        self._all = (self.enqueue, self.claim, self.finish, self.beat, self.work)
        self.waking = Waking(place, self.claim)
        self.watching = Watching(place, self.work)
        self._in_flight = 0
        self._landed = asyncio.Event()

    @contextmanager
    def flight(self) -> Generator[Lanes]:
        """Around a call of the seam, which may need several of a lane: close() waits for it."""
        self._in_flight += 1
        try:
            yield self
        finally:
            self._in_flight -= 1
            self._landed.set()

    async def close(self) -> None:
        """Ends waits at once; all other calls in flight are waited for. Whoever cancels it ends them too."""
        self.waking.end_waits()
        self.watching.end_watches()
        try:
            while self._in_flight:
                self._landed.clear()
                await self._landed.wait()
            await self.waking.close()
            await self.watching.close()
            for lane in self._all:
                await lane.close()
        except asyncio.CancelledError:
            for lane in self._all:
                lane.cut()
            raise
