"""Who waits for a job to be queued, in this process, each on an event loop of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Generator, Sequence
from contextlib import contextmanager, suppress


class Waiter:
    """One call of `wait`, for jobs of some queues or of all (None)."""

    __slots__ = ("_ended", "_hinted", "_loop", "_queues", "_rung")

    def __init__(self, queues: Sequence[str] | None) -> None:
        self._queues = queues
        self._loop = asyncio.get_running_loop()
        self._rung = asyncio.Event()
        self._hinted = False
        self._ended = False

    def hears(self, queues: Collection[str]) -> bool:
        """Whether a hint for `queues` is meant for it."""
        return self._queues is None or any(queue in queues for queue in self._queues)

    def wake(self, *, hint: bool = False, end: bool = False) -> None:
        """On any thread. Without a hint it shall look by itself, or end."""
        with suppress(RuntimeError):  # no loop runs here
            if asyncio.get_running_loop() is self._loop:  # as a rule; another thread has to be woken
                self._woken(hint, end)
                return
        with suppress(RuntimeError):  # its loop may be closed by now
            self._loop.call_soon_threadsafe(self._woken, hint, end)

    def _woken(self, hint: bool, end: bool) -> None:
        self._hinted |= hint
        self._ended |= end
        self._rung.set()

    async def news(self, seconds: float) -> bool | None:
        """True at a hint; False when it was ended; None when it is time to look."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._rung.wait()
        self._rung.clear()
        return True if self._hinted else False if self._ended else None


class Waiters:
    """All of one place: the twins of a store share them, each on its own loop and thread."""

    def __init__(self) -> None:
        self._all: set[Waiter] = set()
        self.latest = object()  # another with every hint
        self.deaf = False  # whether it was said that others' jobs are not heard of
        self.unheard = ""  # why they are not heard of just now

    @contextmanager
    def one(self, queues: Sequence[str] | None) -> Generator[Waiter]:
        """One more, while this is entered."""
        waiter = Waiter(queues)
        self._all.add(waiter)
        try:
            yield waiter
        finally:
            self._all.discard(waiter)

    def hint(self, queues: Collection[str]) -> None:
        """To those who wait for one of `queues`: it has a job."""
        self.latest = object()
        for waiter in tuple(self._all):  # other threads come and go meanwhile
            if waiter.hears(queues):
                waiter.wake(hint=True)

    def look(self) -> None:
        """To all: something may have been missed."""
        self.latest = object()
        for waiter in tuple(self._all):
            waiter.wake()
