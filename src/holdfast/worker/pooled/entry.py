"""How a job gets a place in a full pool: waits, is refused, or has another dropped."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from holdfast.clock import SECOND, Span
from holdfast.errors import QueueFull
from holdfast.job import WhenFull
from holdfast.observe.logging import POOL
from holdfast.worker.pooled.waits import noticed

if TYPE_CHECKING:
    from holdfast.worker.pooled.core import Core
    from holdfast.worker.pooled.work import Work

LEAST, MOST, UNKNOWN = 0.01, 60.0, 1.0  # seconds, for retry_after


class Entry:
    """What a pool does when it is full."""

    def __init__(self, core: Core, when_full: WhenFull, block_timeout: Span | None) -> None:
        self._core = core
        self._when_full = when_full
        self._timeout = None if block_timeout is None else block_timeout / SECOND

    def admit(self, job: Work) -> bool:
        """Gets the job a place; False: it was dropped. QueueFull if it is refused."""
        if self._core.take_place():
            return True
        if self._when_full == "block":
            self.wait(self._timeout)
            job.submitted = time.monotonic()
            return True
        return self._at_once(job)

    async def aadmit(self, job: Work) -> bool:
        """As `admit`, without holding up the loop."""
        if not self._core.askers and self._core.take_place():  # else others were first
            return True
        if self._when_full == "block":
            await self.await_(self._timeout)
            job.submitted = time.monotonic()
            return True
        return self._at_once(job)

    def _at_once(self, job: Work) -> bool:
        core = self._core
        if self._when_full == "drop_newest":
            core.drop_newest(job)
            return False
        if self._when_full == "drop_oldest":
            if core.drop_oldest() or core.take_place():
                return True
            raise self.full("it has no job that was never begun, which it could drop for this one")
        raise self.full("submit again later, make max_size larger, or choose another when_full")

    def wait(self, seconds: float | None) -> None:
        """Returns with a place. QueueFull after so many seconds, or where waiting would be for ever."""
        core = self._core
        self._may_wait()
        if core.tasks.runs_here():
            raise self.full("submit() would hold up the event loop that it runs on: write `await pool.asubmit(...)`")
        end = None if seconds is None else time.monotonic() + seconds
        bell, again = _bell(), False
        while not self._asked(bell.release, again=again):
            try:
                with noticed(core, "submit()", forever=end is None):
                    rung = bell.acquire(timeout=_left(end, threading.TIMEOUT_MAX))
            except BaseException:  # Ctrl-C
                self._stop_asking(bell.release)
                raise
            if not rung and self._stop_asking(bell.release):
                raise self.full(f"no place within {seconds:g} s")
            bell, again = _bell(), True  # a new one: whoever was about to ring the old one may still do so

    async def await_(self, seconds: float | None) -> None:
        """As `wait`."""
        self._may_wait()
        loop = asyncio.get_running_loop()
        end = None if seconds is None else time.monotonic() + seconds
        again = False
        while True:
            bell: asyncio.Future[None] = loop.create_future()

            def ring(bell: asyncio.Future[None] = bell) -> None:
                try:
                    loop.call_soon_threadsafe(_ring, bell)
                except RuntimeError:  # the loop is closed: the next may have the place
                    self._core.wake_asker()

            if self._asked(ring, again=again):
                return
            again = True
            try:
                with noticed(self._core, "asubmit()", forever=end is None):
                    await asyncio.wait({bell}, timeout=None if end is None else _left(end, MOST))
            except BaseException:
                self._stop_asking(ring)
                raise
            if not bell.done() and end is not None and time.monotonic() >= end and self._stop_asking(ring):
                raise self.full(f"no place within {seconds:g} s")
            self._stop_asking(ring, passing_on=False)

    def _may_wait(self) -> None:
        if self._core in self._core.pools_outside():
            raise self.full(
                "submit() inside a job of the same pool, or of one whose jobs it submits, would wait for itself"
                " to end; make max_size larger, or submit from outside"
            )

    def _asked(self, ring: Callable[[], object], *, again: bool) -> bool:
        """Takes a place, or is told of the next one by `ring`. Raises as `submit` does once the pool is stopped.

        Who was told, and found that another had taken the place, asks `again`: as the first of the line.
        """
        core = self._core
        if again:
            core.askers.appendleft(ring)
        else:
            core.askers.append(ring)
        if core.closed:
            self._stop_asking(ring)
            raise core.refusal()
        if not core.take_place():
            return False
        if not _leads(core.askers, ring):
            core.give_place()
            return False
        self._stop_asking(ring)
        return True

    def _stop_asking(self, ring: Callable[[], object], *, passing_on: bool = True) -> bool:
        """False if it was told meanwhile; then the next one is told."""
        try:
            self._core.askers.remove(ring)
        except ValueError:
            if passing_on and self._core.places:
                self._core.wake_asker()
            return False
        return True

    def full(self, what: str) -> QueueFull:
        """The error, with how full the pool is."""
        core = self._core
        depth, bound = core.depth, core.bound
        return QueueFull(f"the pool is full ({depth} of {bound} jobs): {what}", POOL, depth, bound, self._soon())

    def _soon(self) -> float:
        """Seconds until a place is likely to be free."""
        tally = self._core.tallied()
        ended = tally.succeeded + tally.failed
        mean = tally.latency / ended / self._core.bound if ended else UNKNOWN
        return min(max(mean, LEAST), MOST)


def _bell() -> threading.Lock:
    bell = threading.Lock()
    bell.acquire()
    return bell


def _leads(line: deque[Callable[[], object]], ring: Callable[[], object]) -> bool:
    try:
        return line[0] == ring
    except IndexError:
        return False


def _left(end: float | None, most: float) -> float:
    return -1 if end is None else min(max(0.0, end - time.monotonic()), most)


def _ring(bell: asyncio.Future[None]) -> None:
    with suppress(asyncio.InvalidStateError):
        bell.set_result(None)
