"""Waking: those who wait for jobs ask to be rung for, look once, and hear of what is queued from then on.

Whoever makes a job ready finds the queue's `idle` key, takes it away and publishes the queue's name (ring() in
prelude.lua): one message for each time that somebody went idle, and none under load. All of it is a hint: where
messages do not arrive, those who wait look by themselves.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Sequence

from holdfast.clock import HOUR
from holdfast.errors import StoreError
from holdfast.stores.redis.lane import Lane, Step
from holdfast.stores.redis.listener import Listener
from holdfast.stores.redis.place import Place, queue_keys
from holdfast.stores.redis.queues import pause_of
from holdfast.stores.redis.resp import Reply
from holdfast.stores.waiters import Waiter

SELDOM = 1.0  # seconds between two looks, at most, and always where messages arrive
OFTEN, STEADY = 0.010, 0.25  # where they do not: the first pause, and how the next grow with the idle time
IDLE_FOR = 1 * HOUR  # so long an `idle` key stays where nothing is ever queued again


class Waking:
    """One for each store that is open. `look` is the lane to look on."""

    def __init__(self, place: Place, look: Lane) -> None:
        self._place = place
        self._look = look
        self._listener = Listener(place, look, place.waiters, place.channel, self._heard)
        self._known: frozenset[str] = frozenset()  # of all queues, as they were at the last look
        self._mine: set[Waiter] = set()
        self._ended = False
        self._found_at = float("-inf")

    def found(self) -> None:
        """A claim has found jobs, and there may be more soon."""
        self._found_at = asyncio.get_running_loop().time()

    async def wait(self, queues: Sequence[str] | None, timeout: float) -> bool:
        """As the seam says. Another process's job is heard of within 1 ms; of a new queue, when it is announced."""
        with self._place.waiters.one(queues) as waiter:  # before the first look, so that nothing falls between
            self._mine.add(waiter)
            try:
                return await self._news(waiter, queues, timeout)
            finally:
                self._mine.discard(waiter)

    async def _news(self, waiter: Waiter, queues: Sequence[str] | None, timeout: float) -> bool:
        now = asyncio.get_running_loop().time
        end = now() + timeout
        while not await self._any_queued(queues):
            if now() >= end or self._ended:
                return False
            self._listener.start()
            news = await waiter.news(min(end - now(), self._pause()))
            if news is not None:
                return news
            if now() >= end or self._ended:  # the next wait begins with a look
                return False
        return True

    async def _any_queued(self, queues: Sequence[str] | None) -> bool:
        """Asks to be rung for, then looks: what is queued in between is found or rung for."""
        if queues is not None:
            return await self._found(await self._look.each(self._steps(queues)))
        known = self._known
        listing = self._look.command("SMEMBERS", self._place.registry[2])
        names, *replies = await self._look.each([listing, *self._steps(known)])
        if isinstance(names, StoreError):
            raise names
        self._known = frozenset(name.decode() for name in names)
        return await self._found(replies + await self._look.each(self._steps(self._known - known)))

    def _steps(self, queues: Iterable[str]) -> list[Step]:
        steps = list[Step]()
        for queue in queues:
            keys = queue_keys(self._place, queue)
            steps.append(self._look.command("SET", f"{keys.base}idle", 1, "NX", "PX", IDLE_FOR))
            steps.append(self._look.command("EXISTS", f"{keys.base}ready"))
            steps.append(self._look.command("HGET", f"{keys.base}meta", "paused"))
        return steps

    async def _found(self, replies: Sequence[Reply | StoreError]) -> bool:
        """Whether some queue has jobs, and is not paused. One that is away does not hide the others, nor does a server
        that is full.
        """
        looks, pauses = replies[1::3], replies[2::3]
        away = [reply for reply in looks if isinstance(reply, StoreError)]
        if away and len(away) == len(looks):
            raise away[0]
        filled = [paused for look, paused in zip(looks, pauses, strict=True) if look == 1]
        return any(not isinstance(paused, bytes) for paused in filled) or await self._any_over(filled)

    async def _any_over(self, pauses: Sequence[Reply]) -> bool:
        """Whether the time of one of these is over."""
        ends = [end for paused in pauses if (end := pause_of(paused).until) is not None]
        return bool(ends) and min(ends) <= (await self._look.script("queues", self._place.registry))[0]

    def _heard(self, queue: str) -> None:
        if queue in self._place.queues:
            self._place.filled.add(queue)  # the next claim asks there first
        self._place.waiters.hint([queue])

    def _pause(self) -> float:
        idle = asyncio.get_running_loop().time() - self._found_at
        pause = SELDOM if self._listener.hearing.now else min(max(OFTEN, idle * STEADY), SELDOM)
        return pause * random.uniform(0.8, 1)

    def end_waits(self) -> None:
        """At once, but for those that look just now: these end with the answer."""
        self._ended = True
        for waiter in tuple(self._mine):
            waiter.wake(end=True)

    async def close(self) -> None:
        """Ends all waits."""
        self.end_waits()
        await self._listener.close()
