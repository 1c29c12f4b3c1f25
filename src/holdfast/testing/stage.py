"""The store of a sandbox, as the app sees it: in memory; it takes any connection, and its workers find nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, cast
from uuid import UUID

from holdfast.job import Draft, QueueTerms
from holdfast.store import Cancelling, Claims, Receipt, Schedules, Store
from holdfast.stores.memory import MemoryStore

Stored = Callable[[Sequence[UUID]], Awaitable[None]]


class Stage:
    """A memory store. `stored`, if set, is awaited with the ids of what an enqueue has stored or changed, before the
    enqueue returns; `asked` is called with the id of each running job that is asked to end.
    """

    def __init__(self, store: MemoryStore, asked: Callable[[UUID], None]) -> None:
        self.stored: Stored | None = None
        self._store = store
        self._asked = asked

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def enqueue(
        self, jobs: Sequence[Draft], connection: object = None, declared: Mapping[str, QueueTerms] = {}
    ) -> Sequence[Receipt]:
        """With `connection` all jobs or none, and what is stored stays, whatever becomes of its transaction."""
        if declared:
            await self._store.configure(declared, by="producer")
        receipts = await (self._store.enqueue(jobs) if connection is None else self._store.enqueue_all(jobs))
        due = [receipt.holder or receipt.id for receipt in receipts if receipt.created or receipt.answer == "replaced"]
        if due and self.stored is not None:
            await self.stored(due)
        return receipts

    async def cancel(self, ids: Sequence[UUID], reason: str = "") -> Sequence[Cancelling]:
        answers = await self._store.cancel(ids, reason)
        for job, answer in zip(ids, answers, strict=True):
            if answer == "requested":
                self._asked(job)
        return answers

    def twin(self) -> Store:
        return cast("Store", Idle(self._store))


class Idle:
    """What a worker gets that is started while a sandbox is open: it finds nothing to do."""

    shared = False

    def __init__(self, store: Store) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def twin(self) -> Idle:
        return self

    async def claim(self, *_: object) -> Claims:
        return Claims([])

    async def wait(self, _: object, timeout: float) -> bool:
        await asyncio.sleep(timeout)
        return False

    async def due(self, _: int) -> Schedules:
        return Schedules(0, ())

    async def reclaim(self, *_: object) -> Sequence[object]:
        return []

    async def prune(self, _: int) -> int:
        return 0
