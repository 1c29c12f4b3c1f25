"""Waking: those who wait for jobs hear of them from this process, from others by notification, and look by themselves.

A look is needed where notifications do not arrive, and now and then where they do: a transaction that leaves the
ringing to another (functions/wake.sql) may commit after it. So looks come soon after there was something, and ever
more seldom then, but at least once a second.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Collection, Sequence

from holdfast.stores.postgres.address import Place
from holdfast.stores.postgres.bell import Bell
from holdfast.stores.postgres.lane import Lane
from holdfast.stores.postgres.listener import WATCH_MARK, Listener
from holdfast.stores.waiters import Waiter

SELDOM = 1.0  # seconds between two looks, at most
SOON, SLOWER = 0.005, 3.0  # where notifications arrive: the first pause, and how the next grow with the idle time
OFTEN, STEADY = 0.010, 0.25  # where they do not
DEAR = 20.0  # and no pause is shorter than so many times the last look: it may have passed thousands of dead entries


class Waking:
    """One for each store that is open. `look` is the lane to look on."""

    def __init__(self, place: Place, look: Lane) -> None:
        self._place = place
        self._waiters = place.waiters
        self._look = look
        self._bell = Bell()
        self.listener = Listener(place, look)
        self._mine: set[Waiter] = set()
        self._ended = False
        self._found_at = float("-inf")
        self._took = 0.0  # seconds, the last look
        self._looked: tuple[Sequence[str] | None, object] = ((), None)

    def ring(self, queues: Collection[str], lane: Lane) -> None:
        """These queues have jobs now, and what made them so is committed, on `lane`; among them may be words for those
        who watch jobs.
        """
        if not queues:
            return
        if ended := [word for word in queues if word.startswith(WATCH_MARK)]:
            self._place.watchers.hint(ended)
        if filled := set(queues).difference(ended, self._place.stopped):
            self._waiters.hint(filled)
        self._bell.ring(queues, lane)

    @property
    def latest(self) -> object:
        """What to give to `claimed` after a claim that begins now."""
        return self._waiters.latest

    def claimed(self, queues: Sequence[str] | None, *, found: bool, latest: object) -> None:
        """A claim has found jobs, and there may be more soon; or none, which spares the next wait its first look."""
        if found:
            self._found_at = asyncio.get_running_loop().time()
        self._looked = (queues, None if found else latest)

    async def wait(self, queues: Sequence[str] | None, timeout: float) -> bool:
        """As the seam says. Another process's job is heard of after a few ms, one of this process's within 1 ms."""
        with self._waiters.one(queues) as waiter:  # before the first look, so that nothing falls between
            self._mine.add(waiter)
            try:
                return await self._news(waiter, queues, timeout)
            finally:
                self._mine.discard(waiter)

    async def _news(self, waiter: Waiter, queues: Sequence[str] | None, timeout: float) -> bool:
        now = asyncio.get_running_loop().time
        end = now() + timeout
        if not self._just_looked(queues) and await self._any_queued(queues):
            return True
        while now() < end and not self._ended:
            self.listener.start()
            news = await waiter.news(min(end - now(), self._pause()))
            if news is not None:
                return news
            if now() < end and not self._ended and await self._any_queued(queues):
                return True
        return False

    def _just_looked(self, queues: Sequence[str] | None) -> bool:
        """Whether a claim found nothing, and nothing was heard since: said once. What is queued all the same cannot be
        claimed, as when another transaction holds its row: a look would have the worker ask without end.
        """
        looked, self._looked = self._looked, ((), None)
        return looked == (queues, self._waiters.latest)

    async def _any_queued(self, queues: Sequence[str] | None) -> bool:
        begun = asyncio.get_running_loop().time()
        [(queued, stopped)] = await self._look.call("look", None if queues is None else list(queues))
        self._took = asyncio.get_running_loop().time() - begun
        self._place.stopped = set(stopped)
        return bool(queued)

    def _pause(self) -> float:
        idle = asyncio.get_running_loop().time() - self._found_at
        pause = max(SOON, idle * SLOWER) if self.listener.hearing.now else max(OFTEN, idle * STEADY)
        return min(max(pause, DEAR * self._took), SELDOM) * random.uniform(0.8, 1)

    def end_waits(self) -> None:
        """At once, but for those that look just now: these end with the answer."""
        self._ended = True
        for waiter in tuple(self._mine):
            waiter.wake(end=True)

    async def close(self) -> None:
        """Ends all waits, and rings for what has not been rung for yet."""
        self.end_waits()
        await self._bell.close()
        await self.listener.close()

    async def cut(self) -> None:
        """Without ringing."""
        await self.listener.close()
