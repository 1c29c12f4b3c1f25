"""A call on its way to one of our threads and back: who waits for it, and what came of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Generic, TypeVar

R = TypeVar("R")


class Call(Generic[R]):
    """One call of a coroutine. Made on the loop that will hear the answer; all else happens on a thread of ours."""

    __slots__ = ("error", "future", "loop", "result", "since")

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[R] = self.loop.create_future()
        self.since = time.monotonic()
        self.result: R | None = None
        self.error: Exception | None = None

    @property
    def wanted(self) -> bool:
        """False once the caller has left: a call that has not begun is withdrawn then."""
        return not self.future.cancelled()

    @property
    def waited(self) -> float:
        """Seconds since the call was made."""
        return time.monotonic() - self.since

    def deliver(self) -> None:
        """On the caller's loop."""
        if self.future.done():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def answer(calls: Iterable[Call[Any]]) -> None:
    """Tells the callers what came of their calls, waking each event loop once."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Call[Any]]] = {}
    for call in calls:
        by_loop.setdefault(call.loop, []).append(call)
    for loop, theirs in by_loop.items():
        with suppress(RuntimeError):  # the loop is closed: nobody waits there any more
            loop.call_soon_threadsafe(_deliver, theirs)


def _deliver(calls: Iterable[Call[Any]]) -> None:
    for call in calls:
        call.deliver()
