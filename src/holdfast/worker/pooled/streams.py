"""map and each: items go in as places are free, results come out in order, or as jobs end."""

from __future__ import annotations

import asyncio
import math
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from logging import INFO
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from holdfast.errors import ConfigError
from holdfast.worker.pooled.job import PoolJob
from holdfast.worker.pooled.kinds import kind_of
from holdfast.worker.pooled.waits import noticed
from holdfast.worker.pooled.work import Plan, Told, Work

if TYPE_CHECKING:
    from holdfast.worker.pooled.core import Core
    from holdfast.worker.pooled.entry import Entry


AT_ONCE = 1000  # items that are taken in without a step of the loop


class Stream:
    """One call of map or each. What is left when it is given up is cancelled: nobody could have its results."""

    def __init__(
        self, pool: object, core: Core, entry: Entry, plan: Plan, fn: Callable[..., Any], items: Iterable[Any]
    ) -> None:
        self._pool = pool  # held: a pool that nobody holds is stopped
        self._core = core
        self._entry = entry
        self._plan = plan._replace(level=INFO)  # what fails is in its consumer's hands
        self._inside = bool(core.pools_outside())
        self._fn = fn
        self._kind = kind_of(fn, plan.run_in)
        self._items = iter(items)
        self._more = True
        self._held: list[Any] = []  # the next item, if it has no place yet
        self._refusal: ConfigError | None = None  # the pool was stopped meanwhile
        self._ahead: dict[Work, None] = {}  # what is in, and not out yet; in order
        if core.closed:
            raise core.refusal()

    def in_order(self) -> Iterator[Any]:
        """The results; raises the first error."""
        try:
            while self._more or self._ahead:
                self._pull(lambda: next(iter(self._ahead)).done, None)
                if self._ahead:
                    job = next(iter(self._ahead))
                    handle: PoolJob[Any] = PoolJob(job)
                    result = handle.result()
                    del self._ahead[job], job, handle
                    yield result
            self._complete()
        finally:
            self._cancel()

    def as_they_end(self) -> Iterator[PoolJob[Any]]:
        """The jobs, however they ended."""
        ended: SimpleQueue[Work] = SimpleQueue()
        try:
            while self._more or self._ahead:
                self._pull(lambda: not ended.empty(), ended.put)
                if self._ahead:
                    job = self._first(ended) if self._inside else ended.get()
                    del self._ahead[job]
                    yield PoolJob(job)
            self._complete()
        finally:
            self._cancel()

    async def as_they_end_async(self) -> AsyncIterator[PoolJob[Any]]:
        """As `as_they_end`."""
        arrivals = _Arrivals()
        try:
            while self._more or self._ahead:
                if not self._ahead and self._has_item():
                    with self._until_stopped():
                        if not self._core.take_place():
                            await self._entry.await_(None)
                        self._put(arrivals.add)
                while self._pull(lambda: bool(arrivals), arrivals.add, AT_ONCE):  # noqa: ASYNC110  # others' turn
                    await asyncio.sleep(0)
                if self._ahead:
                    with noticed(self._ahead, "aeach()"):
                        job = await arrivals.next()
                    del self._ahead[job]
                    yield PoolJob(job)
            self._complete()
        finally:
            self._cancel()

    def _first(self, ended: SimpleQueue[Work]) -> Work:
        if not ended.empty():
            return ended.get()
        with noticed(self._ahead, "each()"):
            return ended.get()

    def _pull(self, enough: Callable[[], bool], told: Told | None, most: float = math.inf) -> bool:
        """Takes items in until something may come out, or the pool is full; one at least. True after so many."""
        taken = 0
        while len(self._ahead) < self._core.bound and not (self._ahead and enough()):
            if taken >= most:
                return True
            if not self._has_item():
                return False
            if not self._core.take_place():
                if self._ahead:
                    return False
                with self._until_stopped():
                    self._entry.wait(None)
            if self._more:
                self._put(told)
                taken += 1
        return False

    @contextmanager
    def _until_stopped(self) -> Generator[None]:
        """What is in still comes out, and then the error."""
        try:
            yield
        except ConfigError as error:
            if not self._core.closed:
                raise
            self._more, self._refusal = False, error
            self._held.clear()

    def _complete(self) -> None:
        if self._refusal is not None:
            raise self._refusal

    def _has_item(self) -> bool:
        """Has the next item, before any place is taken for it: getting it may need a place itself, or wait for long."""
        if self._more and not self._held:
            try:
                self._held.append(next(self._items))
            except StopIteration:
                self._more = False
        return self._more

    def _put(self, told: Told | None) -> None:
        """Takes in the next item, with the place that it has."""
        job = Work(self._core, self._plan, self._fn, self._kind, (self._held.pop(),), {})
        if told is not None:
            job.waiters = [told]
        with self._until_stopped():
            self._core.enter(job)
            self._ahead[job] = None

    def _cancel(self) -> None:
        self._more = False
        for job in self._ahead:
            self._core.cancel(job)


class _Arrivals:
    """Jobs that have ended, for one async consumer on the loop where this is made."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._here = threading.get_ident()
        self._jobs: deque[Work] = deque()
        self._waiter: asyncio.Future[None] | None = None

    def __bool__(self) -> bool:
        return bool(self._jobs)

    def add(self, job: Work) -> None:
        self._jobs.append(job)
        if self._waiter is None:
            return
        if threading.get_ident() == self._here:
            self._ring()
        else:
            with suppress(RuntimeError):  # the loop is closed: nobody waits
                self._loop.call_soon_threadsafe(self._ring)

    def _ring(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def next(self) -> Work:
        while not self._jobs:  # a ring may come late, for what was taken already
            self._waiter = self._loop.create_future()
            try:
                if not self._jobs:
                    await self._waiter
            finally:
                self._waiter = None
        return self._jobs.popleft()
