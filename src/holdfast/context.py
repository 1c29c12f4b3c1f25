"""current_job(): what a handler can know and ask about the job it runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextvars import ContextVar
from uuid import UUID

from holdfast.errors import Stop, StopReason
from holdfast.job import new_id

current: ContextVar[CurrentJob] = ContextVar("holdfast_current_job")


def current_job() -> CurrentJob:
    """The job that this code runs in. LookupError outside of one.

    A task called directly runs in a detached job, so that its tests need no worker. Threads that you start
    yourself do not inherit the job: pass it to them.
    """
    try:
        return current.get()
    except LookupError:
        raise LookupError("not inside a job; threads you start yourself do not inherit it") from None


class CurrentJob:
    """The running job, seen from inside.

    `id` is the same for every attempt, so it is a good idempotency key. `fence` grows with every claim: a write
    of your own that says `WHERE fence < :fence` cannot be overtaken by an earlier run.
    """

    __slots__ = ("_deadline", "_held", "_why", "attempt", "fence", "id", "queue", "task")

    def __init__(
        self,
        id: UUID,  # the public name of the attribute
        task: str,
        queue: str,
        attempt: int,
        fence: int,
        *,
        deadline: float | None = None,
        held: Callable[[], bool] | None = None,
    ) -> None:
        self.id = id
        self.task = task
        self.queue = queue
        self.attempt = attempt
        self.fence = fence
        self._deadline = deadline
        self._held = held
        self._why: StopReason | None = None

    @classmethod
    def detached(cls, task: str, queue: str) -> CurrentJob:
        """What a direct call runs in: a fresh id, attempt 1, fence 0, never stopped."""
        return cls(new_id(), task, queue, 1, 0)

    @property
    def cancelled(self) -> bool:
        """Whether someone asked for this job to be cancelled. A plain function looks here or calls `check()`."""
        return self._why == "cancelled"

    @property
    def held(self) -> bool:
        """False once the worker's lease is in doubt, so that another worker may soon run this job."""
        return self._why != "lost" and (self._held is None or self._held())

    @property
    def time_left(self) -> float | None:
        """Seconds until the timeout, not below 0; None without one."""
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def check(self) -> None:
        """Raises Stop when this attempt must end; reads a flag, never blocks."""
        if self._why is not None:
            raise Stop(self._why)

    def stop(self, why: StopReason) -> bool:
        """Asks the handler to end; for the worker. The first reason stays: False if there was one."""
        if self._why is not None:
            return False
        self._why = why
        return True

    @property
    def stopped(self) -> StopReason | None:
        """Why the worker asked this attempt to end, if it did."""
        return self._why
