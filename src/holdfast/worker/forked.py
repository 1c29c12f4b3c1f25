"""A process that a handler forks is a copy of the worker: where it would go on as the worker, it ends instead."""

from __future__ import annotations

import asyncio
import os
import threading
from contextlib import suppress
from typing import Any

from holdfast.context import current

CAME_BACK = (
    b"holdfast: a process that a handler forked came back from the handler, and was ended;"
    b" end it there, with os._exit()\n"
)


def end_if_copy(pid: int, error: BaseException | None = None) -> None:
    """Where a handler has ended, with `error` or without: ends this process unless it is `pid`, where it began."""
    if os.getpid() != pid:
        _end(error)


def _end(error: BaseException | None = None) -> None:
    """At once: buffers, exit hooks and open files are the worker's own."""
    if isinstance(error, SystemExit):
        code: Any = error.code
        os._exit(code & 0xFF if isinstance(code, int) else code is not None)
    with suppress(OSError):
        os.write(2, CAME_BACK)  # not through the log: at the fork another thread may have held its locks
    os._exit(1)


class _Here(threading.local):
    loop: Any = None


_here = _Here()


def _before_fork() -> None:
    job = current.get(None)
    _here.loop = None
    if job is not None and job.fence:  # elsewhere the application knows what it does
        with suppress(RuntimeError):
            _here.loop = asyncio.get_running_loop()


def _in_copy() -> None:
    """A copied loop would run the worker's tasks once more, and take wake-ups from the worker itself."""
    if _here.loop is not None:
        with suppress(AttributeError):
            _here.loop._ready.clear()  # noqa: SLF001  # what is ready is the worker's; there is no public way
        _here.loop.call_soon(_end)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_child=_in_copy)
