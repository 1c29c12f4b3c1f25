"""One attempt of a pool's job, which is also what `current_job()` gives in it."""

from __future__ import annotations

import threading
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from holdfast.clock import SECOND
from holdfast.context import CurrentJob, ask_to_end
from holdfast.errors import StopReason
from holdfast.observe.logging import POOL

if TYPE_CHECKING:
    import asyncio

    from holdfast.worker.pooled.core import Core
    from holdfast.worker.pooled.work import Work

_making = threading.RLock()  # of a signal handler, too


class Inside(CurrentJob):
    """The attempt under way. Most functions never look at their job, so the CurrentJob is made at the first look."""

    __slots__ = ("began", "end", "given_up", "handle", "job", "look_at", "only", "task_", "why")

    def __init__(self, job: Work, began: float) -> None:
        # Not CurrentJob's own: that costs as much as the rest of a job. `__getattr__` makes up for it.
        self.job = job
        self.began = began
        self.why: StopReason | None = None
        self.handle: asyncio.Task[None] | None = None  # of an async function, once it has begun
        self.task_: asyncio.Task[None] | None = None
        self.given_up = False  # its job has failed, and its code goes on
        self.only: deque[None] | None = None  # whoever takes it out says how the attempt ended

    def __getattr__(self, name: str) -> Any:
        """Reached where a field of CurrentJob is not there yet."""
        if name not in _FIELDS:
            raise AttributeError(name)
        with _making:
            try:
                return object.__getattribute__(self, name)
            except AttributeError:
                job = self.job
                end = self.end if self.only is not None else None
                CurrentJob.__init__(self, job.id, job.task, POOL, job.attempt, job.runs, deadline=end, saved=job.saved)
        return object.__getattribute__(self, name)

    def _ended(self) -> bool:
        return self.job.run is not self and not self.given_up

    def stop(self, why: StopReason) -> bool:
        """Asks the function to end. The first reason stays: False if there was one."""
        if not ask_to_end(self, why):
            return False
        self.why = why
        return True

    def pools(self) -> tuple[Core, ...]:
        """The pools that this code runs in: its own, and those that its job came from."""
        chain, own = self.job.chain, self.job.core
        return chain if own in chain else (*chain, own)

    def leave_saved(self) -> None:
        """What it has saved is there for the job's next attempt."""
        with suppress(AttributeError):  # it never looked
            self.job.saved = object.__getattribute__(self, "_saved")

    def timed(self, seconds: float) -> None:
        """It may run so long from now."""
        self.began = time.monotonic()
        self.end = self.look_at = self.began + seconds
        self.only = deque((None,))

    def begins(self) -> None:
        """Its code begins, in a thread or in a process: now its time runs."""
        timeout = self.job.plan.timeout
        if timeout is not None:
            self.timed(timeout / SECOND)
            self.job.core.timer.look_at(self.look_at)


def forget() -> None:
    """In a forked child: another thread may have held the lock."""
    global _making  # noqa: PLW0603
    _making = threading.RLock()


_FIELDS = frozenset(name for cls in CurrentJob.__mro__ for name in getattr(cls, "__slots__", ()))
