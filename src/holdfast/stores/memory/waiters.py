"""Who waits for a job to be queued, and how they are woken, each on an event loop of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, eq=False)
class Waiter:
    """One call of `wait`."""

    loop: asyncio.AbstractEventLoop
    hint: asyncio.Event
    queues: Sequence[str] | None

    def wake(self) -> None:
        with suppress(RuntimeError):  # its loop may be closed by now
            self.loop.call_soon_threadsafe(self.hint.set)
