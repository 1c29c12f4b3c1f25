"""How a worker process is now, read from its black box, and how much memory a process holds."""

from __future__ import annotations

import mmap
import resource
import sys

from holdfast.observe.health import Vitals
from holdfast.worker.blackbox import BlackBox


def vitals(box: BlackBox, number: int, slots: int, memory: int, now: float) -> Vitals:
    """Of the worker whose black box this is, at `now` (monotonic seconds)."""
    loop, _, _ = box.pulses
    claimed, unheard = box.claiming
    return Vitals(
        number,
        slots,
        box.running(),
        memory,
        box.lag,
        now - loop if loop else 0.0,
        now - claimed if claimed else None,
        now < box.held_until,
        unheard,
    )


def resident(pid: int | None = None) -> int:
    """The memory that a process holds, in bytes: this one, or another, of which 0 says that nobody knows."""
    try:
        with open(f"/proc/{pid or 'self'}/statm", "rb") as file:  # noqa: PTH123  # twice a second
            return int(file.read().split()[1]) * mmap.PAGESIZE
    except (OSError, ValueError, IndexError):  # not Linux: the most that it ever held
        if pid is not None:
            return 0
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
