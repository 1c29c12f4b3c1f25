"""Watching: those who wait for the end of jobs say which, look once, and hear of it from then on.

Whoever ends a job that is watched takes it off the list and publishes its id (tell_end in jobs.lua). A hint, as in
waking.py: where messages do not arrive, those who watch look by themselves.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from uuid import UUID

from holdfast.clock import SECOND
from holdfast.stores.redis.lane import Call, Lane
from holdfast.stores.redis.listener import Listener
from holdfast.stores.redis.place import Place, queue_keys
from holdfast.stores.redis.waking import OFTEN, SELDOM, STEADY
from holdfast.stores.redis.whereabouts import by_queue, located
from holdfast.stores.waiters import Waiter

_AT_ONCE = 200  # jobs that one script is asked about
_LISTED = 5 * SECOND  # how long a job stays on the list after a look


class Watching:
    """One for each store that is open. `look` is the lane to look on."""

    def __init__(self, place: Place, look: Lane) -> None:
        self._place = place
        self._look = look
        self._listener = Listener(place, look, place.watchers, place.ended, self._heard)
        self._mine: set[Waiter] = set()
        self._ended = False

    async def watch(self, ids: Sequence[UUID], timeout: float) -> bool:
        """As the seam says."""
        with self._place.watchers.one([str(job) for job in ids]) as watcher:
            self._mine.add(watcher)
            try:
                return await self._news(watcher, ids, timeout)
            finally:
                self._mine.discard(watcher)

    async def _news(self, watcher: Waiter, ids: Sequence[UUID], timeout: float) -> bool:
        now = asyncio.get_running_loop().time
        begun = now()
        while not await self._any_over(ids):
            self._listener.start()
            if now() >= begun + timeout or self._ended:
                return False
            idle = now() - begun
            pause = SELDOM if self._listener.hearing.now else min(max(OFTEN, idle * STEADY), SELDOM)
            news = await watcher.news(min(begun + timeout - now(), pause * random.uniform(0.8, 1)))
            if news is not None:
                return news
        return True

    async def _any_over(self, ids: Sequence[UUID]) -> bool:
        """Asks to be told of their ends, then looks: what ends in between is found or told of."""
        if not ids:
            return False
        queues = await located(self._look, self._place, ids)
        if any(job not in queues for job in ids):
            return True
        steps: list[Call] = [
            ("watch", queue_keys(self._place, queue), [_LISTED, *map(str, jobs[start : start + _AT_ONCE])])
            for queue, jobs in by_queue(queues).items()
            for start in range(0, len(jobs), _AT_ONCE)
        ]
        return any(await self._look.scripts(steps))

    def _heard(self, ids: str) -> None:
        self._place.watchers.hint(frozenset(ids.split()))

    def end_watches(self) -> None:
        """At once, but for those that look just now: these end with the answer."""
        self._ended = True
        for watcher in tuple(self._mine):
            watcher.wake(end=True)

    async def close(self) -> None:
        """Ends all watches."""
        self.end_watches()
        await self._listener.close()
