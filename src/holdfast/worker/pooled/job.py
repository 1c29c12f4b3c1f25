"""A pool's job: what was asked for, how it stands, and whoever waits for its end."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, TypeVar, cast
from uuid import UUID

from holdfast.clock import SECOND, Duration, Span, span
from holdfast.context import current
from holdfast.job import State, Terms, new_id
from holdfast.policy import Retry
from holdfast.worker.pooled.kinds import Kind, name_of

if TYPE_CHECKING:
    from collections import deque

    from holdfast.worker.pooled.core import Core
    from holdfast.worker.pooled.inside import Inside

R_co = TypeVar("R_co", covariant=True)
Told = Callable[["PoolJob[Any]"], object]

_queued = State.QUEUED
_rare = threading.Lock()  # for what few jobs ever need: an id, somebody who waits


class Plan(NamedTuple):
    """How jobs are run: the options of `using`, checked."""

    lane: deque[PoolJob[Any]]
    priority: int
    retry: Retry
    terms: Terms
    timeout: Span | None
    run_in: Literal["thread", "process"] | None


class PoolJob(Generic[R_co]):
    """A job of a `Pool`. `args`: the positional arguments that it was submitted with."""

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
        "state_",
        "submitted",
        "value",
        "waiters",
    )

    _id: UUID

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
        self.state_ = _queued
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
        """The job's id, as log lines and `current_job().id` have it."""
        try:
            return self._id
        except AttributeError:
            with _rare:
                if not hasattr(self, "_id"):
                    self._id = new_id()  # made for those who look: it costs a quarter of a whole job
            return self._id

    @property
    def state(self) -> State:
        """Where the job is: queued, running, scheduled (it waits for its next attempt), succeeded, dead, cancelled."""
        return self.state_

    @property
    def task(self) -> str:
        """The function's name, as log lines have it."""
        return name_of(self.fn)

    def result(self, timeout: Duration | None = None) -> R_co:
        """What the function returned; waits for it, at most `timeout`.

        Raises what the function raised; TimeoutError if the job ran longer than its own timeout, or has not ended
        within this one; JobCancelled if it was cancelled or dropped.
        """
        if not self.done:
            self._wait(timeout)
        error = self.error
        if error is None:
            return cast("R_co", self.value)
        try:
            raise error
        finally:
            del error, self  # or this frame, which the error's traceback names, would name them

    async def aresult(self, timeout: Duration | None = None) -> R_co:
        """As `result`, for async code."""
        if not self.done:
            await self._await(timeout)
        return self.result()

    def exception(self, timeout: Duration | None = None) -> BaseException | None:
        """What `result` would raise of the job's own, or None if it succeeded; waits for its end, at most `timeout`.

        Raises TimeoutError only if it has not ended within `timeout`.
        """
        if not self.done:
            self._wait(timeout)
        return self.error

    def cancel(self) -> bool:
        """Asks for the job to be cancelled; False if it has ended.

        One that has not begun, or waits for its next attempt, is cancelled at once. An async function gets a
        CancelledError, a process is ended. A plain function is only told, by `current_job().check()` or `.cancelled`,
        and runs on until it looks; if it returns a value, the job has succeeded.
        """
        return self.core.cancel(self)

    def __repr__(self) -> str:
        return f"<PoolJob {self.task} {self.state_}>"

    # --- for the pool

    def ended(self, state: State, value: object, error: BaseException | None) -> None:
        """It is over, and whoever waits is told."""
        self.value = value
        self.error = error
        self.state_ = state
        self.context = self.run = None  # each of them names this job
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

    def _wait(self, timeout: Duration | None) -> None:
        seconds = -1 if timeout is None else span(timeout, "timeout") / SECOND
        if self.core.tasks.runs_here():
            self.core.may_wait(f"result() of {self!r}", "await job.aresult()")
        bell = threading.Lock()
        bell.acquire()

        def ring(_: PoolJob[Any]) -> None:
            bell.release()

        self.tell(ring)
        try:
            if not bell.acquire(timeout=min(seconds, threading.TIMEOUT_MAX)):
                raise TimeoutError(f"{self!r} has not ended within {timeout!r} s")
        finally:
            self.untell(ring)

    async def _await(self, timeout: Duration | None) -> None:
        seconds = None if timeout is None else span(timeout, "timeout") / SECOND
        loop = asyncio.get_running_loop()
        over: asyncio.Future[None] = loop.create_future()

        def told(_: PoolJob[Any]) -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(_ring, over)

        self.tell(told)
        try:
            await asyncio.wait_for(over, seconds)
        except TimeoutError:
            if not self.done:
                raise TimeoutError(f"{self!r} has not ended within {timeout!r} s") from None
        finally:
            self.untell(told)


def _outside(_: object) -> tuple[Core, ...]:
    return ()


def _ring(over: asyncio.Future[None]) -> None:
    if not over.done():
        over.set_result(None)
