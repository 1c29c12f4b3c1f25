"""Watching: who waits for jobs to end is told by this process, by others' notifications, and looks by itself."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from uuid import UUID

from holdfast.clock import SECOND
from holdfast.stores.postgres.address import Place
from holdfast.stores.postgres.lane import Lane
from holdfast.stores.postgres.listener import WATCH_MARK, Listener
from holdfast.stores.waiters import Waiter

SELDOM = 1.0  # seconds between two looks, at most
SOON, SLOWER = 0.02, 2.0  # where notifications arrive: the first pause, and how the next grow with the time waited
OFTEN, STEADY = 0.02, 0.25  # where they do not
DEAR = 20.0  # and no pause is shorter than so many times the last look


class Watching:
    """One for each store that is open. `look` is the lane to look on."""

    def __init__(self, place: Place, look: Lane, listener: Listener) -> None:
        self._place = place
        self._look = look
        self._listener = listener
        self._mine: set[Waiter] = set()
        self._ended = False
        self._took = 0.0  # seconds, the last look

    async def watch(self, ids: Sequence[UUID], timeout: float) -> bool:
        """As the seam says."""
        with self._place.watchers.one([WATCH_MARK + str(job) for job in ids]) as waiter:  # before the first look
            self._mine.add(waiter)
            try:
                return await self._news(waiter, list(ids), timeout)
            finally:
                self._mine.discard(waiter)

    async def _news(self, waiter: Waiter, ids: list[UUID], timeout: float) -> bool:
        """Whoever ends a job at the time of the first look may not see yet that somebody waits: the next comes soon."""
        now = asyncio.get_running_loop().time
        begun = now()
        end = begun + timeout
        over = await self._over(ids, timeout)
        while not over and now() < end and not self._ended:
            self._listener.start()
            news = await waiter.news(min(end - now(), self._pause(now() - begun)))
            if news is not None:
                return news
            over = await self._over(ids, None)
        return over

    async def _over(self, ids: list[UUID], span: float | None) -> bool:
        """Whether one of them has ended; with `span`, seconds, whoever ends one is asked to tell."""
        begun = asyncio.get_running_loop().time()
        [[over]] = await self._look.call("watch", ids, None if span is None else round(span * SECOND))
        self._took = asyncio.get_running_loop().time() - begun
        return bool(over)

    def _pause(self, waited: float) -> float:
        pause = max(SOON, waited * SLOWER) if self._listener.hearing.now else max(OFTEN, waited * STEADY)
        return min(max(pause, DEAR * self._took), SELDOM) * random.uniform(0.8, 1)

    def end(self) -> None:
        """Ends all at once, but for those that look just now: these end with the answer."""
        self._ended = True
        for waiter in tuple(self._mine):
            waiter.wake(end=True)
