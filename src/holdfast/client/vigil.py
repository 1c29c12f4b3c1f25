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
    """One who waits for a job's end. `rests(self, …)` is told when it waits for a hint, and when it looks."""

    __slots__ = ("_hint", "_rests", "id")

    def __init__(self, id: UUID, rests: Callable[[Waiting, bool], None]) -> None:
        self.id = id
        self._hint = asyncio.Event()
        self._rests = rests

    async def hinted(self, timeout: float) -> bool:
        """Waits up to so many seconds for a hint that the job may have ended."""
        if not self._hint.is_set():  # it may have come while this one looked
            self._rests(self, True)
            try:
                async with asyncio.timeout(timeout):
                    await self._hint.wait()
            except TimeoutError:
                return False
        self._hint.clear()
        return True

    def wake(self) -> None:
        """It is to look now."""
        self._rests(self, False)
        self._hint.set()


class Vigil:
    """Of one loop of the bridge."""

    def __init__(self, store: Watched) -> None:
        self._store = store
        self._resting: dict[Waiting, None] = {}
        self._more = asyncio.Event()  # somebody waits who is not watched for yet
        self._watching: asyncio.Task[None] | None = None

    @contextmanager
    def of(self, id: UUID) -> Generator[Waiting]:
        """For as long as somebody waits for the job."""
        one = Waiting(id, self._rests)
        try:
            yield one
        finally:
            self._resting.pop(one, None)
            if not self._resting:
                self._more.set()  # nobody is left to watch for

    def _rests(self, one: Waiting, rests: bool) -> None:
        if not rests:
            self._resting.pop(one, None)
        elif one not in self._resting:
            self._resting[one] = None
            self._more.set()
            if self._watching is None or self._watching.done():
                self._watching = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        while self._resting:
            watched = list(self._resting)
            self._more.clear()
            if await self._hinted(list({one.id for one in watched})):
                for one in watched:
                    if one in self._resting:
                        one.wake()
            await asyncio.sleep(EACH * len(watched))

    async def _hinted(self, ids: Sequence[UUID]) -> bool:
        """Whether there was a hint before somebody came, or all had left."""
        watch = asyncio.create_task(self._asked(ids))
        more = asyncio.create_task(self._more.wait())
        try:
            await asyncio.wait((watch, more), return_when=asyncio.FIRST_COMPLETED)
            return watch.done() and watch.result()
        finally:
            more.cancel()
            watch.cancel()
            await asyncio.wait((watch, more))

    async def _asked(self, ids: Sequence[UUID]) -> bool:
        try:
            return await self._store.watch(ids, WATCH_MOST)
        except Exception:  # noqa: BLE001  # those who wait look anyhow, and are told what is wrong
            await asyncio.sleep(AWAY_PAUSE)
            return False

    async def close(self) -> None:
        """Ends the watch."""
        if self._watching is not None:
            self._watching.cancel()
            with suppress(asyncio.CancelledError):
                await self._watching
