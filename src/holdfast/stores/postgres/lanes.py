"""The lanes of a store that is open, with what rings and listens for it."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Generator
from contextlib import contextmanager

from holdfast.stores.postgres.address import Place
from holdfast.stores.postgres.lane import Lane
from holdfast.stores.postgres.session import Session
from holdfast.stores.postgres.waking import Waking
from holdfast.stores.postgres.watching import Watching


class Lanes:
    """The lanes of one store, on one event loop."""

    def __init__(self, place: Place, session: Session) -> None:
        self._spare = [session]
        self.enqueue = Lane("enqueue", place, self._spare)  # producers
        self.claim = Lane("claim", place, self._spare)
        self.finish = Lane("finish", place, self._spare)
        self.beat = Lane("beat", place, self._spare)  # what keeps the lease: register, beat, mail, retire
        self.work = Lane("work", place, self._spare)  # janitors, operators, notes
        self._all = (self.enqueue, self.claim, self.finish, self.beat, self.work)
        self.waking = Waking(place, self.work)
        self.watching = Watching(place, self.work, self.waking.listener)
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

    def ring(self, queues: Collection[str], lane: Lane) -> None:
        """Tells waiters, here and elsewhere, that these queues have jobs now, or that a job has ended: in a commit that
        is through.
        """
        self.waking.ring(queues, lane)

    async def close(self) -> None:
        """Ends waits at once; all other calls in flight are waited for. Whoever cancels it ends them too."""
        try:
            await self._close()
        except asyncio.CancelledError:
            await asyncio.gather(self.waking.cut(), *(lane.cut() for lane in self._all))
            raise
        finally:
            while self._spare:
                await self._spare.pop().close()

    async def _close(self) -> None:
        self.waking.end_waits()
        self.watching.end()
        while self._in_flight:
            self._landed.clear()
            await self._landed.wait()
        await self.waking.close()
        for lane in self._all:
            await lane.close()
