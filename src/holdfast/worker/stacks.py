"""The stacks of a process, written by the standard library's faulthandler at a crash or a signal, read from outside.

faulthandler writes from the signal handler itself, so it works where Python code does not run any more: in a crash,
and while a C call keeps the interpreter to itself.
"""

from __future__ import annotations

import asyncio
import faulthandler
import fcntl
import os
import signal
import weakref
from collections.abc import Callable

from holdfast.worker.memory import nameless

SIGNAL = signal.SIGRTMIN + 7 if hasattr(signal, "SIGRTMIN") else signal.SIGUSR2  # the default action would end it
MOST = 64 * 1024  # bytes that are read
LOOK_EVERY, WAIT_MOST = 0.02, 1.0  # seconds


class Stacks:
    """A file without a name that a child inherits. Made by the parent, which reads it."""

    def __init__(self) -> None:
        self.descriptor = nameless("holdfast-stacks", 0, fixed=False)
        weakref.finalize(self, os.close, self.descriptor)
        fcntl.fcntl(self.descriptor, fcntl.F_SETFL, fcntl.fcntl(self.descriptor, fcntl.F_GETFL) | os.O_APPEND)

    def read(self) -> str:
        """What was written since the last `clear`."""
        return os.pread(self.descriptor, MOST, 0).decode("ascii", "backslashreplace")

    def clear(self) -> None:
        """Forgets what was written."""
        os.ftruncate(self.descriptor, 0)

    async def of(self, send: Callable[[int], object]) -> str:
        """Asks a process for its stacks now, through what sends it a signal; nothing if it is stopped or gone."""
        self.clear()
        send(SIGNAL)
        text, end = "", asyncio.get_running_loop().time() + WAIT_MOST
        while asyncio.get_running_loop().time() < end:
            await asyncio.sleep(LOOK_EVERY)
            before, text = text, self.read()
            if text and text == before:
                break
        self.clear()  # what was asked for must not be taken for a crash later
        return text


def write_stacks(descriptor: int) -> None:
    """In the child: writes its stacks to `descriptor` when it crashes, and whenever it is asked for them."""
    faulthandler.enable(descriptor)
    faulthandler.register(SIGNAL, descriptor)
