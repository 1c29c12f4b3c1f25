"""Who waits for results: all that wait on one loop share one watch of the store, and look when it gives a hint.

A hint says that one of the jobs has ended, not which: all who wait look then, in few questions. So that many who wait
do not cost their square, there is a pause after each watch, in proportion to their number. They look anyhow, now and
then: no watch is ever needed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from typing import Protocol
from uuid import UUID

WATCH_MOST = 30.0  # seconds of one watch
EACH = 0.001  # seconds between two watches, for each job
AWAY_PAUSE = 1.0  # seconds without a watch after the store did not answer


class Watched(Protocol):
    """Of the seam: what a vigil needs."""

    async def watch(self, ids: Sequence[UUID], timeout: float) -> bool: ...


class Waiting:
    """One who waits for a job's end."""

    __slots__ = ("_hint", "_idle", "id")

    def __init__(self, id: UUID, idle: Callable[[Waiting, bool], None]) -> None:
        self.id = id
        self._hint = asyncio.Event()
        self._idle = idle

    async def hinted(self, timeout: float) -> bool:
        """Waits up to so many seconds for a hint that the job may have ended."""
        self._hint.clear()
        self._idle(self, True)
        try:
            async with asyncio.timeout(timeout):
                await self._hint.wait()
        except TimeoutError:
            return False
        return True

    def wake(self) -> None:
        """It is to look now."""
        self._idle(self, False)
        self._hint.set()


class Vigil:
    """Of one loop of the bridge."""

    def __init__(self, store: Watched) -> None:
        self._store = store
        self._idle: dict[Waiting, None] = {}  # those that wait for a hint, not those that look
        self._more = asyncio.Event()  # somebody waits who is not watched for yet
        self._watching: asyncio.Task[None] | None = None

    @contextmanager
    def of(self, id: UUID) -> Generator[Waiting]:
        """For as long as somebody waits for the job."""
        one = Waiting(id, self._wait)
        try:
            yield one
        finally:
            self._idle.pop(one, None)
            if not self._idle:
                self._more.set()  # nobody is left to watch for

    def _wait(self, one: Waiting, idle: bool) -> None:
        if not idle:
            self._idle.pop(one, None)
        elif one not in self._idle:
            self._idle[one] = None
            self._more.set()
            if self._watching is None or self._watching.done():
                self._watching = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        while self._idle:
            watched = list(self._idle)
            self._more.clear()
            if await self._hinted(list({one.id for one in watched})):
                for one in watched:
                    if one in self._idle:
                        one.wake()
            await asyncio.sleep(EACH * len(watched))

    async def _hinted(self, ids: Sequence[UUID]) -> bool:
        """Whether there was a hint before somebody came, or all had left."""
        watch = asyncio.ensure_future(self._store.watch(ids, WATCH_MOST))
        more = asyncio.create_task(self._more.wait())
        try:
            await asyncio.wait((watch, more), return_when=asyncio.FIRST_COMPLETED)
            if watch.done() and watch.exception() is not None:
                await asyncio.sleep(AWAY_PAUSE)
            return watch.done() and watch.exception() is None and watch.result()
        finally:
            more.cancel()
            watch.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await watch

    async def close(self) -> None:
        """Ends the watch."""
        if self._watching is not None:
            self._watching.cancel()
            with suppress(asyncio.CancelledError):
                await self._watching
