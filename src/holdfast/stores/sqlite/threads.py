"""Threads of ours: daemons, and none where the interpreter is ending and starts none any more (Python 3.12)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from holdfast.errors import StoreAway
from holdfast.stores.sqlite.calls import Call, answer

R = TypeVar("R")


def started(run: Callable[[], None], name: str) -> threading.Thread | None:
    """A thread that runs it; None where the interpreter is ending. StoreAway where there are too many."""
    thread = threading.Thread(target=run, name=name, daemon=True)
    try:
        thread.start()
    except RuntimeError as error:
        if "shutdown" in str(error):
            return None
        raise StoreAway(f"{name}: the operating system gives no further thread ({error})") from error
    return thread


async def aside(work: Callable[[], R]) -> R:
    """Runs what blocks on a thread of its own, not on asyncio's pool: that is gone before the last exit hook."""
    call = Call[R]()

    def run() -> None:
        try:
            call.result = work()
        except Exception as error:  # noqa: BLE001  # it is the caller's
            call.error = error
        answer([call])

    if started(run, "holdfast-sqlite-open") is None:
        run()
    return await call.future
