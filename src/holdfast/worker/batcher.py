"""Natural batching: while a write is in flight, later items pile up and go together in the next one."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from holdfast.errors import StoreAway

T = TypeVar("T")
R = TypeVar("R")


class Batcher(Generic[T, R]):
    """Joins concurrent calls into batches of at most `most` items; one write is in flight at a time.

    An error of a joint write is not passed on to strangers: each call is then written alone, except that a store
    that is away is away for all, unless it had no room for so much.
    """

    def __init__(self, write: Callable[[Sequence[T]], Awaitable[Sequence[R]]], most: int = 500) -> None:
        self._write = write
        self._most = most
        self._waiting: deque[tuple[Sequence[T], asyncio.Future[Sequence[R]]]] = deque()
        self._writing: asyncio.Task[None] | None = None

    async def put(self, items: Sequence[T]) -> Sequence[R]:
        """Writes `items`, returns one result for each. A caller that leaves takes along what waits still."""
        answer: asyncio.Future[Sequence[R]] = asyncio.get_running_loop().create_future()
        call = (items, answer)
        self._waiting.append(call)
        if self._writing is None:
            self._writing = asyncio.create_task(self._drain())
        try:
            return await answer
        except asyncio.CancelledError:
            if call in self._waiting:
                self._waiting.remove(call)
            raise

    async def _drain(self) -> None:
        try:
            while self._waiting:
                await self._write_batch(self._next_batch())
        finally:
            self._writing = None

    def _next_batch(self) -> list[tuple[Sequence[T], asyncio.Future[Sequence[R]]]]:
        batch, size = [self._waiting.popleft()], 0
        size = len(batch[0][0])
        while self._waiting and size + len(self._waiting[0][0]) <= self._most:
            batch.append(self._waiting.popleft())
            size += len(batch[-1][0])
        return batch

    async def _write_batch(self, batch: list[tuple[Sequence[T], asyncio.Future[Sequence[R]]]]) -> None:
        try:
            results = await self._write([item for items, _ in batch for item in items])
        except Exception as error:  # noqa: BLE001  # every kind belongs to the callers, none to this loop
            await self._apart(batch, error)
            return
        start = 0
        for items, answer in batch:
            if not answer.done():
                answer.set_result(results[start : start + len(items)])
            start += len(items)

    async def _apart(self, batch: list[tuple[Sequence[T], asyncio.Future[Sequence[R]]]], error: Exception) -> None:
        if len(batch) > 1 and (error.full if isinstance(error, StoreAway) else True):
            for call in batch:
                await self._write_batch([call])
            return
        for _, answer in batch:
            if not answer.done():
                answer.set_exception(error)
