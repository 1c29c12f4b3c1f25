"""A job as its pool has it: what was asked for, how it stands, and whoever waits for its end."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context, copy_context
from logging import WARNING
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from uuid import UUID

from holdfast.clock import SECOND, Duration, Span, short, span
from holdfast.context import current
from holdfast.job import State, Terms, new_id
from holdfast.policy import Retry
from holdfast.worker.pooled.kinds import Kind, name_of
from holdfast.worker.pooled.waits import noticed

if TYPE_CHECKING:
    from collections import deque

    from holdfast.worker.pooled.core import Core
    from holdfast.worker.pooled.inside import Inside

Told = Callable[["Work"], object]

_queued = State.QUEUED
_rare = threading.RLock()  # of a signal handler, too: for what few jobs ever need, an id, somebody who waits


class Plan(NamedTuple):
    """How jobs are run: the options of `using`, checked. `level`: of the log lines about what fails."""

    lane: deque[Work]
    priority: int
    retry: Retry
    terms: Terms
    timeout: Span | None
    run_in: Literal["thread", "process"] | None
    level: int = WARNING


class Work:
    """One job. `PoolJob` is what its submitter sees of it."""

    __slots__ = (
        "_id",
        "args",
        "asked",
        "attempt",
        "chain",
        "context",
        "core",
        "done",
        "error",
        "fn",
        "kind",
        "kwargs",
        "plan",
        "run",
        "runs",
        "saved",
        "state",
        "submitted",
        "traceback",
        "value",
        "waiters",
    )

    _id: UUID
    traceback: TracebackType | None  # the error's own: each time that it is raised, its traceback grows

    def __init__(
        self, core: Core, plan: Plan, fn: Callable[..., Any], kind: Kind, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self.core = core
        self.plan = plan
        self.fn = fn
        self.kind = kind
        self.args = args
        self.kwargs = kwargs
        self.context: Context | None = copy_context()
        self.submitted = time.monotonic()
        self.state = _queued
        self.done = False  # set last: who sees it may read all else
        self.asked = False  # to be cancelled
        self.run: Inside | None = None  # the attempt under way
        self.waiters: list[Told] | None = None
        self.attempt = self.runs = 1  # a snoozed run gives its attempt back
        self.saved: bytes | None = None  # by `current_job().save`, for the next attempt
        self.chain: tuple[Core, ...] = ()  # the pools that it was submitted from the inside of
        outer = current.get(None)
        if outer is not None:
            self.chain = getattr(type(outer), "pools", _outside)(outer)

    @property
    def id(self) -> UUID:
        """Made for those who look: it costs a quarter of a whole job."""
        try:
            return self._id
        except AttributeError:
            with _rare:
                made = new_id()
                if not hasattr(self, "_id"):
                    self._id = made
            return self._id

    @property
    def task(self) -> str:
        """The function's name, as log lines have it."""
        return name_of(self.fn)

    def __repr__(self) -> str:
        return f"<PoolJob {self.task} {self.state}>"

    # --- its end

    def ended(self, state: State, value: object, error: BaseException | None) -> None:
        """It is over, and whoever waits is told."""
        self.value = value
        self.error = error
        self.state = state
        self.context = self.run = None  # each of them names this job
        if error is not None:
            self.traceback = error.__traceback__
        self.done = True
        if self.waiters is not None:
            while self.waiters:
                with suppress(IndexError):  # somebody has just given up waiting
                    self.waiters.pop()(self)

    def tell(self, told: Told) -> None:
        """Calls `told` with this job when it is over, in the thread that ends it; at once if it is."""
        with _rare:
            if self.waiters is None:
                self.waiters = []
        self.waiters.append(told)
        if self.done and self.untell(told):
            told(self)

    def untell(self, told: Told) -> bool:
        """False if it was called, or is about to be."""
        try:
            (self.waiters or []).remove(told)
        except ValueError:
            return False
        return True

    def wait(self, what: str, timeout: Duration | None) -> None:
        """Waits for its end. TimeoutError if that does not come in time, ConfigError where it never could."""
        limit = None if timeout is None else span(timeout, "timeout")
        if self.core.tasks.runs_here():
            self.core.may_wait(f"{what} of {self!r}", "await job.aresult()")
        bell = threading.Lock()
        bell.acquire()

        def ring(_: Work) -> None:
            bell.release()

        self.tell(ring)
        try:
            with noticed((self,), what, forever=limit is None):
                if not bell.acquire(timeout=-1 if limit is None else min(limit / SECOND, threading.TIMEOUT_MAX)):
                    raise self._not_ended(limit)
        finally:
            self.untell(ring)

    async def await_(self, what: str, timeout: Duration | None) -> None:
        """As `wait`, without holding up the loop."""
        limit = None if timeout is None else span(timeout, "timeout")
        loop = asyncio.get_running_loop()
        over: asyncio.Future[None] = loop.create_future()

        def told(_: Work) -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(_ring, over)

        self.tell(told)
        try:
            with noticed((self,), what, forever=limit is None):
                await asyncio.wait_for(over, None if limit is None else limit / SECOND)
        except TimeoutError:
            if not self.done:
                raise self._not_ended(limit) from None
        finally:
            self.untell(told)

    def _not_ended(self, limit: Span | None) -> TimeoutError:
        return TimeoutError(f"{self!r} has not ended within {short(limit or 0)}")


def forget() -> None:
    """In a forked child: another thread may have held the lock."""
    global _rare  # noqa: PLW0603
    _rare = threading.RLock()


def _outside(_: object) -> tuple[Core, ...]:
    return ()


def _ring(over: asyncio.Future[None]) -> None:
    if not over.done():
        over.set_result(None)
