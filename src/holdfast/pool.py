"""A bounded pool in this process, for any function and any object: nothing to register, nothing survives."""

from __future__ import annotations

import asyncio
import time
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ParamSpec, Self, TypeVar, Unpack, overload

from holdfast.bounds import SIZE_MOST, queue_terms
from holdfast.clock import SECOND, Duration, span
from holdfast.errors import ConfigError
from holdfast.job import WhenFull
from holdfast.worker.pooled.core import Core
from holdfast.worker.pooled.entry import Entry
from holdfast.worker.pooled.job import PoolJob
from holdfast.worker.pooled.kinds import kind_of
from holdfast.worker.pooled.leaving import aleave, leave
from holdfast.worker.pooled.options import PoolOptions, changed_plan, first_plan, refuse_options
from holdfast.worker.pooled.streams import Stream
from holdfast.worker.pooled.waits import noticed
from holdfast.worker.pooled.work import Work

__all__ = ["Pool", "PoolJob", "PoolOptions", "PoolStats"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

CONCURRENCY_MOST = 100_000
_NONE: deque[None] = deque()


@dataclass(frozen=True)
class PoolStats:
    """What a pool has counted at one moment. Latencies: seconds from submission to end, of what succeeded or failed.

    `submitted` is the number of all jobs that it ever had: it is the sum of those that are over and of `queued` and
    `running`. `queued` counts all admitted jobs that do not run now, those that wait for another attempt included.
    `retried` counts failed attempts that are followed by another. `running` counts functions, those that go on although
    their job has failed with a TimeoutError included.
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
    """Runs callables, plain ones in threads (or processes) and async ones on a loop: `concurrency` at a time.

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
        terms = queue_terms(max_size, when_full, block_timeout)
        self._core = core = Core(concurrency, max_size)
        self._entry = Entry(core, terms.when_full, terms.block_timeout)
        self._plan = first_plan(core, options)
        self._anchor = _Anchor(core)

    def using(self, **options: Unpack[PoolOptions]) -> Self:
        """The same pool, with other options for the jobs that are submitted through what this returns."""
        face = object.__new__(type(self))
        face._core = self._core  # another face of the same pool
        face._entry = self._entry
        face._anchor = self._anchor
        face._plan = changed_plan(self._core, self._plan, options)
        return face

    # --- jobs

    @overload
    def submit(self, fn: Callable[P, Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs) -> PoolJob[R]: ...
    @overload
    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> PoolJob[R]: ...
    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> PoolJob[Any]:
        """Has `fn(*args, **kwargs)` run as soon as there is a slot.

        Raises QueueFull as `when_full` says, and where waiting would be for ever: inside a job of this very pool.
        ConfigError if `fn` cannot be called or is a generator function, if an option is among its arguments
        (`pool.using(timeout=5).submit(fn)`), or if the pool was stopped.
        """
        core, plan = self._core, self._plan
        if kwargs:
            refuse_options(fn, kwargs)
        work = Work(core, plan, fn, kind_of(fn, plan.run_in), args, kwargs)
        if core.closed:
            raise core.refusal()
        try:
            core.places.pop()
        except IndexError:
            if not self._entry.admit(work):
                return PoolJob(work)
        core.enter(work)
        return PoolJob(work)

    @overload
    async def asubmit(
        self, fn: Callable[P, Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> PoolJob[R]: ...
    @overload
    async def asubmit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> PoolJob[R]: ...
    async def asubmit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> PoolJob[Any]:
        """As `submit`; waits for a place without holding up the loop."""
        core, plan = self._core, self._plan
        if kwargs:
            refuse_options(fn, kwargs)
        work = Work(core, plan, fn, kind_of(fn, plan.run_in), args, kwargs)
        if core.closed:
            raise core.refusal()
        try:
            (_NONE if core.askers else core.places).pop()  # whoever waits was first
        except IndexError:
            if not await self._entry.aadmit(work):
                return PoolJob(work)
        core.enter(work)
        return PoolJob(work)

    @overload
    def map(self, fn: Callable[[T], Coroutine[Any, Any, R]], items: Iterable[T], /) -> Iterator[R]: ...
    @overload
    def map(self, fn: Callable[[T], R], items: Iterable[T], /) -> Iterator[R]: ...
    def map(self, fn: Callable[[Any], Any], items: Iterable[Any], /) -> Iterator[Any]:
        """The results of `fn(item)` in the order of `items`; raises the first error, and cancels what is left.

        Lazy: nothing runs before the first step, and at most `max_size` items are taken ahead. It waits for places
        whatever `when_full` is.
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
        tally = core.tallied()  # first: what is over by then, is among those that are counted next
        ended = tally.succeeded + tally.failed
        submitted, (running, given_up) = core.submitted, core.running()
        not_over = submitted - ended - tally.cancelled - tally.dropped
        running = min(running, not_over)
        return PoolStats(
            submitted=submitted,
            running=running + given_up,
            queued=not_over - running,
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
        return [PoolJob(work) for work in self._core.close(drain=drain)]

    def join(self, deadline: Duration | None = None) -> bool:
        """Waits until all jobs are over, and, if the pool was stopped, its threads too; False if not by `deadline`."""
        self._refuse_own_job("join()")
        self._core.may_wait("join()", "await pool.ajoin()")
        end = _end(deadline)
        core = self._core
        with noticed(core, "join()", forever=end is None):
            if not core.wait(core.finished, None if end is None else end - time.monotonic()):
                return False
        return not core.closed or core.join_threads(end)

    async def ajoin(self, deadline: Duration | None = None) -> bool:
        """As `join`, without holding up the loop."""
        self._refuse_own_job("ajoin()")
        end = _end(deadline)
        core = self._core
        with noticed(core, "ajoin()", forever=end is None):
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
        except BaseException as error:
            kind = type(error)
            raise
        finally:
            if kind is not None:
                leave(self._core, kind)

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
        except BaseException as error:
            kind = type(error)
            raise
        finally:
            if kind is not None:
                await aleave(self._core, kind)

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


def _whole(name: str, value: object, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise ConfigError(f"{name}={value!r}: a whole number from 1 to {most:,}")


def _end(deadline: Duration | None) -> float | None:
    return None if deadline is None else time.monotonic() + span(deadline, "deadline") / SECOND
