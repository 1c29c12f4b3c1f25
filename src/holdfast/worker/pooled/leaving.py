"""How a pool is left at once: what waits is dropped, what runs is cancelled, and what stays is named."""

from __future__ import annotations

import atexit
import time
from collections.abc import Generator
from contextlib import contextmanager

from holdfast.clock import SECOND, short
from holdfast.worker.pooled.core import Core, cores
from holdfast.worker.pooled.report import tell_dropped, tell_leaving, tell_stuck
from holdfast.worker.runner import GRACE

LEAVE = 10.0  # seconds that running jobs have when a pool is left by an exception
AT_ONCE = 0.2  # seconds after which somebody who waits wants to know for what


def leave(core: Core, why: type[BaseException]) -> None:
    """Returns when nothing runs any more, or after LEAVE, or at the next Ctrl-C, which passes if `why` is another."""
    with _impatience(core, why):
        _drop(core)
        gone = core.wait(core.is_gone, AT_ONCE)
        if not gone:
            _tell_waiting(core)
            gone = core.wait(core.is_gone, LEAVE - AT_ONCE)
        _left(core, gone=gone)


async def aleave(core: Core, why: type[BaseException]) -> None:
    """As `leave`, without holding up the loop."""
    with _impatience(core, why):
        _drop(core)
        gone = await core.await_(core.is_gone, AT_ONCE)
        if not gone:
            _tell_waiting(core)
            gone = await core.await_(core.is_gone, LEAVE - AT_ONCE)
        _left(core, gone=gone)


@contextmanager
def _impatience(core: Core, why: type[BaseException]) -> Generator[None]:
    try:
        yield
    except KeyboardInterrupt:
        if not issubclass(why, KeyboardInterrupt):
            raise
    finally:
        core.left = True


def _drop(core: Core) -> None:
    dropped = core.close(drain=False, why="the pool was left")
    tell_dropped(len(dropped), "the pool was left before they began")
    core.interrupt_all()
    core.end()


def _tell_waiting(core: Core) -> None:
    most = short(round(LEAVE * SECOND))
    tell_leaving(core, f"they have been told to end, and have {most} for it; Ctrl-C again leaves now")


def _left(core: Core, *, gone: bool) -> None:
    if gone:
        core.join_threads(time.monotonic() + GRACE)
    else:
        tell_stuck(core, "they still run, and do not look at current_job().check()")


def _leave_at_exit() -> None:
    """A pool that nobody stopped does not keep the interpreter: what it still had is told."""
    here = [core for core in list(cores) if core.used and not core.left]
    for core in here:
        _drop(core)
    end = time.monotonic() + GRACE
    for core in here:
        _left(core, gone=core.wait(core.is_gone, end - time.monotonic()))
        core.left = True


atexit.register(_leave_at_exit)
