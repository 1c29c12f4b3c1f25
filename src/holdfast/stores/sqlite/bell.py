"""Wakes the one thread that listens: another thread pulls, or the kernel has something to say."""

from __future__ import annotations

import os
import select
import threading
from contextlib import suppress

HEARS_KERNEL = hasattr(select, "poll")  # not select(): descriptors may be greater than 1024


class Bell:
    """`pull` on any thread, `listen` on one."""

    def __init__(self) -> None:
        self._rung = threading.Event()
        self._ends: tuple[int, int] | None = None
        if HEARS_KERNEL:
            self._ends = os.pipe()
            os.set_blocking(self._ends[1], False)

    def pull(self) -> None:
        """Ends the listening now, or the next one at once."""
        if self._ends is None:
            self._rung.set()
            return
        with suppress(BlockingIOError):  # it rings already
            os.write(self._ends[1], b".")

    def listen(self, seconds: float | None, kernel: int | None = None) -> tuple[bool, bool]:
        """Waits; whether someone pulled, and whether the descriptor `kernel` became readable."""
        if self._ends is None:
            rung = self._rung.wait(seconds)
            self._rung.clear()
            return rung, False
        sources = select.poll()
        for source in (self._ends[0], kernel):
            if source is not None:
                sources.register(source, select.POLLIN)
        ready = {source for source, _ in sources.poll(None if seconds is None else seconds * 1000)}
        rung = self._ends[0] in ready
        if rung:
            os.read(self._ends[0], 4096)
        return rung, kernel is not None and kernel in ready

    def close(self) -> None:
        for end in self._ends or ():
            os.close(end)
