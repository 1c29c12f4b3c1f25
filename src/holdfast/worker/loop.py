"""The only loop: `repeat` runs a role's step, which returns its own next delay, until it is asked to stop.

A loop stops between steps; a step is never cut short, because a store call that is cancelled in the middle may
have claimed what nobody then knows of.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress

from holdfast.errors import StoreAway
from holdfast.observe.logging import tell, workers
from holdfast.worker.outage import Outage

BACKOFF_FIRST, BACKOFF_MOST = 0.1, 5.0  # seconds; the most is a third of the default lease


class Signal:
    """A flag that can be waited for, by many, with a time limit. `set` stays; `poke` wakes the waiters once."""

    def __init__(self) -> None:
        self._set = False
        self._waiters: set[asyncio.Future[None]] = set()

    def __bool__(self) -> bool:
        return self._set

    def set(self) -> None:
        self._set = True
        self.poke()

    def poke(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def wait(self, seconds: float | None) -> bool:
        """Waits until set or poked, at most `seconds`; True if set."""
        if self._set or (seconds is not None and seconds <= 0):
            await asyncio.sleep(0)
            return self._set
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        timer = None
        if seconds is not None:
            timer = asyncio.get_running_loop().call_later(seconds, _wake, waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)
            if timer is not None:
                timer.cancel()
        return self._set


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


async def unless(stopping: Signal, hint: Awaitable[bool]) -> bool:
    """Awaits a hint, which may be cut, but leaves it as soon as `stopping` is set or poked."""
    asked = asyncio.ensure_future(hint)
    stopped = asyncio.ensure_future(stopping.wait(None))
    try:
        await asyncio.wait((asked, stopped), return_when=asyncio.FIRST_COMPLETED)
        return asked.done() and asked.result()
    finally:
        for task in (asked, stopped):
            task.cancel()
            with suppress(asyncio.CancelledError, StoreAway):
                await task


class Trouble:
    """Of one role that cannot do its work: how long it waits between tries. What is the store's trouble is told with
    the other roles' as one outage, all else here.
    """

    def __init__(self, role: str, outage: Outage) -> None:
        self._role = role
        self._outage = outage
        self._tries = 0
        self._failures = 0  # those that are not the store's

    def again(self, error: Exception) -> float:
        """Notes a failed step; returns the seconds to wait."""
        if isinstance(error, StoreAway):
            self._outage.met(self, self._role, error)
        else:
            self._failed(error)
        pause: float = min(BACKOFF_FIRST * 2**self._tries, BACKOFF_MOST)
        self._tries = min(self._tries + 1, 16)
        return float(pause * random.uniform(0.5, 1))

    def _failed(self, error: Exception) -> None:
        self._failures += 1
        if self._failures == 1:
            text = f"{type(error).__name__}: {error}"
            tell(workers, logging.WARNING, "step-failed", role=self._role, error=text)
            workers.error("a bug in %s; it goes on, please report it", self._role, exc_info=error)

    def over(self) -> None:
        """Notes a step that worked."""
        if self._tries:
            self._outage.left(self)
            if self._failures:
                tell(workers, logging.INFO, "step-works", role=self._role, tries=self._failures)
            self._tries = self._failures = 0
        self._outage.look()


async def repeat(
    role: str, step: Callable[[], Awaitable[float]], stopping: Signal, outage: Outage | None = None
) -> None:
    """Runs `step` again and again, each time after the delay in seconds that it returned, until `stopping`.

    `outage`: what the roles of a worker share, for those that ask the store.
    """
    trouble = Trouble(role, Outage() if outage is None else outage)
    while not stopping:
        try:
            delay = await step()
        except Exception as error:  # noqa: BLE001  # a role outlives whatever its step met
            delay = trouble.again(error)
        else:
            trouble.over()
        await stopping.wait(delay)
