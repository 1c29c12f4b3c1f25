"""A bounded pool in this process, for any function and any object: nothing to register, nothing survives."""

from __future__ import annotations

import asyncio
import atexit
import logging
import time
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, ParamSpec, Self, TypedDict, TypeVar, Unpack, get_args, overload

from holdfast.clock import SECOND, Duration, span
from holdfast.errors import ConfigError
from holdfast.job import WhenFull
from holdfast.observe.logging import jobs as told
from holdfast.observe.logging import tell
from holdfast.policy import Retry
from holdfast.worker.pooled.core import Core, cores
from holdfast.worker.pooled.entry import Entry
from holdfast.worker.pooled.job import Plan, PoolJob
from holdfast.worker.pooled.kinds import kind_of
from holdfast.worker.pooled.streams import Stream
from holdfast.worker.runner import GRACE

__all__ = ["Pool", "PoolJob", "PoolOptions", "PoolStats"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

LEAVE = 10.0  # seconds that running jobs have when a pool is left by an exception
CONCURRENCY_MOST, SIZE_MOST = 100_000, 2**31 - 1


class PoolOptions(TypedDict, total=False):
    """Options for `Pool()` and for its `using()`; "not given" differs from None."""

    run_in: Literal["thread", "process"]  # default: a thread for a plain function, the loop for an async one
    priority: int  # -100..100, higher first
    retry: Retry
    timeout: Duration | None


@dataclass(frozen=True)
class PoolStats:
    """What a pool has counted at one moment. Latencies: seconds from submission to end, of what succeeded or failed.

    `queued` counts all admitted jobs that do not run now, those that wait for another attempt included. `submitted` is
    the number of all jobs that it ever had; `retried` counts failed attempts that are followed by another. `running`
    counts functions, those that go on although their job has failed with a TimeoutError included.
    """

    submitted: int
    running: int
    queued: int
    succeeded: int
    failed: int
    retried: int
    cancelled: int
    dropped: int
    latency_mean: float
    latency_max: float


class Pool:
    """Runs plain functions in threads (or processes) and async ones on a loop: at most `concurrency` at a time.

    `max_size` bounds the jobs that are admitted and not over, running ones and those that wait for another attempt
    included. `when_full` says what `submit` does then: "block" waits (at most `block_timeout`, then QueueFull),
    "reject" raises QueueFull, "drop_oldest" ends the oldest job that was never begun, "drop_newest" the new one.

        with Pool(20) as pool:
            job = pool.using(timeout=5, retry=Retry(max_attempts=3)).submit(fetch, url)
            job.result()
            for done in pool.each(fetch, urls): ...

    `with` runs async functions on a loop of its own in a thread, `async with` on the caller's loop. A normal end of
    the block waits for all jobs. An exception, such as Ctrl-C, drops what waits, cancels what runs, and leaves within
    10 seconds. A pool works without `with`, too: `stop()` and `join()` it.
    """

    def __init__(
        self,
        concurrency: int = 10,
        *,
        max_size: int = 1000,
        when_full: WhenFull = "block",
        block_timeout: Duration | None = None,
        **options: Unpack[PoolOptions],
    ) -> None:
        _whole("concurrency", concurrency, CONCURRENCY_MOST)
        _whole("max_size", max_size, SIZE_MOST)
        if when_full not in get_args(WhenFull):
            modes = ", ".join(map(repr, get_args(WhenFull)))
            raise ConfigError(f"when_full={when_full!r}: one of {modes}")
        if block_timeout is not None and when_full != "block":
            raise ConfigError(f"block_timeout={block_timeout!r}: only with when_full='block', not {when_full!r}")
        patience = None if block_timeout is None else span(block_timeout, "block_timeout")
        self._core = core = Core(concurrency, max_size)
        self._entry = Entry(core, when_full, patience)
        plain = Plan(core.lane(0), 0, _ONCE, _ONCE.terms(None, 0), None, None)
        self._plan = _changed(core, plain, options, "Pool")
        self._anchor = _Anchor(core)

    def using(self, **options: Unpack[PoolOptions]) -> Self:
        """The same pool, with other options for the jobs that are submitted through what this returns."""
        face = object.__new__(type(self))
        face._core = self._core  # another face of the same pool
        face._entry = self._entry
        face._anchor = self._anchor
        face._plan = _changed(self._core, self._plan, options, "using")
        return face

    # --- jobs

    @overload
    def submit(self, fn: Callable[P, Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs) -> PoolJob[R]: ...
    @overload
    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> PoolJob[R]: ...
    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> PoolJob[Any]:
        """Has `fn(*args, **kwargs)` run as soon as there is a slot.

        Raises QueueFull as `when_full` says, and where waiting would be for ever: inside a job of this very pool.
        ConfigError if `fn` is no function, or the pool was stopped.
        """
        core, plan = self._core, self._plan
        job: PoolJob[Any] = PoolJob(core, plan, fn, kind_of(fn, plan.run_in), args, kwargs)
        if core.closed:
            raise core.refusal()
        try:
            core.places.pop()
        except IndexError:
            if not self._entry.admit(job):
                return job
        core.enter(job)
        return job

    @overload
    async def asubmit(
        self, fn: Callable[P, Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> PoolJob[R]: ...
    @overload
    async def asubmit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> PoolJob[R]: ...
    async def asubmit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> PoolJob[Any]:
        """As `submit`; waits for a place without holding up the loop."""
        core, plan = self._core, self._plan
        job: PoolJob[Any] = PoolJob(core, plan, fn, kind_of(fn, plan.run_in), args, kwargs)
        if core.closed:
            raise core.refusal()
        try:
            core.places.pop()
        except IndexError:
            if not await self._entry.aadmit(job):
                return job
        core.enter(job)
        return job

    @overload
    def map(self, fn: Callable[[T], Coroutine[Any, Any, R]], items: Iterable[T], /) -> Iterator[R]: ...
    @overload
    def map(self, fn: Callable[[T], R], items: Iterable[T], /) -> Iterator[R]: ...
    def map(self, fn: Callable[[Any], Any], items: Iterable[Any], /) -> Iterator[Any]:
        """The results of `fn(item)` in the order of `items`; raises the first error, and cancels what is left.

        Lazy: takes at most `max_size` items ahead. It waits for places whatever `when_full` is.
        """
        self._core.may_wait("map()", "async for job in pool.aeach(...)")
        return Stream(self, self._core, self._entry, self._plan, fn, items).in_order()

    @overload
    def each(self, fn: Callable[[T], Coroutine[Any, Any, R]], items: Iterable[T], /) -> Iterator[PoolJob[R]]: ...
    @overload
    def each(self, fn: Callable[[T], R], items: Iterable[T], /) -> Iterator[PoolJob[R]]: ...
    def each(self, fn: Callable[[Any], Any], items: Iterable[Any], /) -> Iterator[PoolJob[Any]]:
        """The jobs of `fn(item)` as they end, whatever they ended as; `job.args` says which it was.

        Lazy as `map`. What is left when it is given up is cancelled.
        """
        self._core.may_wait("each()", "async for job in pool.aeach(...)")
        return Stream(self, self._core, self._entry, self._plan, fn, items).as_they_end()

    @overload
    def aeach(self, fn: Callable[[T], Coroutine[Any, Any, R]], items: Iterable[T], /) -> AsyncIterator[PoolJob[R]]: ...
    @overload
    def aeach(self, fn: Callable[[T], R], items: Iterable[T], /) -> AsyncIterator[PoolJob[R]]: ...
    def aeach(self, fn: Callable[[Any], Any], items: Iterable[Any], /) -> AsyncIterator[PoolJob[Any]]:
        """As `each`, for `async for`."""
        return Stream(self, self._core, self._entry, self._plan, fn, items).as_they_end_async()

    # --- the pool itself

    def stats(self) -> PoolStats:
        """What the pool has counted up to now."""
        core = self._core
        depth, tally, (running, given_up) = core.depth, core.tallied(), core.running()
        over = tally.succeeded + tally.failed + tally.cancelled + tally.dropped
        ended = tally.succeeded + tally.failed
        return PoolStats(
            submitted=over + depth,
            running=running + given_up,
            queued=max(0, depth - running),
            succeeded=tally.succeeded,
            failed=tally.failed,
            retried=tally.retried,
            cancelled=tally.cancelled,
            dropped=tally.dropped,
            latency_mean=tally.latency / ended if ended else 0.0,
            latency_max=tally.longest,
        )

    def resize(self, concurrency: int) -> None:
        """From now on at most `concurrency` jobs run at a time; those that run already are not interrupted."""
        _whole("concurrency", concurrency, CONCURRENCY_MOST)
        self._core.resize(concurrency)

    def stop(self, *, drain: bool = True) -> list[PoolJob[Any]]:
        """Takes no more jobs, and returns at once. Without `drain` what does not run yet is dropped, and returned.

        A dropped job is cancelled; its `result()` raises JobCancelled, "dropped: …". Afterwards `submit` raises
        ConfigError. To wait for the end of what is left: `join()`.
        """
        return self._core.close(drain=drain)

    def join(self, deadline: Duration | None = None) -> bool:
        """Waits until all jobs are over, and, if the pool was stopped, its threads too; False if not by `deadline`."""
        self._refuse_own_job("join()")
        self._core.may_wait("join()", "await pool.ajoin()")
        end = _end(deadline)
        core = self._core
        if not core.wait(core.finished, None if end is None else end - time.monotonic()):
            return False
        return not core.closed or core.join_threads(end)

    async def ajoin(self, deadline: Duration | None = None) -> bool:
        """As `join`, without holding up the loop."""
        self._refuse_own_job("ajoin()")
        end = _end(deadline)
        core = self._core
        if not await core.await_(core.finished, None if end is None else end - time.monotonic()):
            return False
        return not core.closed or core.join_threads(end)

    def __enter__(self) -> Self:
        self._enter()
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        try:
            if kind is None:
                self.stop()
                self.join()
        except BaseException:
            kind = BaseException
            raise
        finally:
            if kind is not None:
                _drop(self._core)
                _told_stuck(self._core, gone=self._core.wait(self._core.is_gone, LEAVE))

    async def __aenter__(self) -> Self:
        self._enter()
        try:
            self._core.tasks.adopt(asyncio.get_running_loop())
        except BaseException:
            self._core.entered = False
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        try:
            if kind is None:
                self.stop()
                await self.ajoin()
        except BaseException:
            kind = BaseException
            raise
        finally:
            if kind is not None:
                _drop(self._core)
                _told_stuck(self._core, gone=await self._core.await_(self._core.is_gone, LEAVE))

    def _enter(self) -> None:
        if self._core.closed:
            raise self._core.refusal()
        if self._core.entered:
            raise ConfigError("this pool is entered already: one `with` for each pool")
        self._core.entered = True

    def _refuse_own_job(self, what: str) -> None:
        if self._core.is_inside():
            raise ConfigError(f"{what} inside a job of the same pool would wait for that very job")

    def __repr__(self) -> str:
        core = self._core
        return f"<Pool {core.concurrency} slots, {core.depth} of {core.bound} jobs>"


class _Anchor:
    """What all faces of a pool hold, and its threads do not: when it is gone, nobody can submit any more."""

    def __init__(self, core: Core) -> None:
        weakref.finalize(self, core.close, drain=True).atexit = False


_ONCE = Retry(max_attempts=1)


def _changed(core: Core, plan: Plan, options: Mapping[str, Any], where: str) -> Plan:
    """`plan` with `options` over it. ConfigError naming the option, its value and what would work."""
    for name, value in options.items():
        match name:
            case "timeout":
                timeout = None if value is None else span(value, name, positive=True)
                plan = plan._replace(timeout=timeout, terms=plan.retry.terms(timeout, 0))
            case "retry":
                if not isinstance(value, Retry):
                    raise ConfigError(f"retry={value!r}: a Retry, for example Retry(max_attempts=5)")
                plan = plan._replace(retry=value, terms=value.terms(plan.timeout, 0))
            case "priority":
                if isinstance(value, bool) or not isinstance(value, int) or not -100 <= value <= 100:
                    raise ConfigError(f"priority={value!r}: a whole number from -100 to 100, higher first")
                plan = plan._replace(priority=value, lane=core.lane(value))
            case "run_in":
                if value not in ("thread", "process"):
                    raise ConfigError(f"run_in={value!r}: 'thread' or 'process'")
                plan = plan._replace(run_in=value)
            case _:
                known = ", ".join(sorted(PoolOptions.__annotations__))
                raise ConfigError(f"{where}: no option {name!r}; there are {known}")
    return plan


def _whole(name: str, value: object, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise ConfigError(f"{name}={value!r}: a whole number from 1 to {most:,}")


def _end(deadline: Duration | None) -> float | None:
    return None if deadline is None else time.monotonic() + span(deadline, "deadline") / SECOND


def _drop(core: Core) -> None:
    """Leaves at once: drops what waits, cancels what runs."""
    dropped = core.close(drain=False, why="the pool was left")
    if dropped:
        tell(told, logging.WARNING, "dropped", count=len(dropped), message="the pool was left before they began")
    core.interrupt_all()
    core.end()


def _told_stuck(core: Core, *, gone: bool) -> None:
    core.left = True
    stuck = [] if gone else core.stuck()
    if stuck:
        message = "they still run, and do not look at current_job().check()"
        tell(told, logging.WARNING, "stuck", threads=", ".join(stuck), message=message)
    elif gone:
        core.join_threads(time.monotonic() + GRACE)


def _leave_at_exit() -> None:
    """A pool that nobody stopped does not keep the interpreter: what it still had is told."""
    left = [core for core in list(cores) if core.used and not core.left]
    for core in left:
        _drop(core)
    end = time.monotonic() + GRACE
    for core in left:
        _told_stuck(core, gone=core.wait(core.is_gone, end - time.monotonic()))


atexit.register(_leave_at_exit)
