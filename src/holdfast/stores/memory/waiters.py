"""Who waits for a job to be queued or to end, and how they are woken, each on an event loop of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, eq=False)
class Waiter:
    """One call of `wait`, for jobs of `queues`, or of `watch`."""

    loop: asyncio.AbstractEventLoop
    hint: asyncio.Event
    queues: Sequence[str] | None = None

    def wake(self) -> None:
        with suppress(RuntimeError):  # its loop may be closed by now
            self.loop.call_soon_threadsafe(self.hint.set)

    async def woken(self, timeout: float) -> bool:
        try:
            await asyncio.wait_for(self.hint.wait(), timeout)
        except TimeoutError:
            return False
        return True


def waiter(queues: Sequence[str] | None = None) -> Waiter:
    return Waiter(asyncio.get_running_loop(), asyncio.Event(), queues)
