"""A steady sweeper beside the services. It robs whoever falls silent for a lease: so a lease is seen to be kept."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from contextlib import suppress
from types import TracebackType
from typing import Self
from uuid import UUID, uuid4

from holdfast.errors import StoreAway
from holdfast.job import Draft, Terms, new_id
from holdfast.store import Store, Where
from holdfast.stores import open_store
from tests.flows.conftest import until

EVERY = 0.2  # seconds between its beats; after each it looks whom it can rob
BAITS = 6


class Robber:
    """It keeps baits alive, jobs of workers of its own making. When one that it lets go is robbed, a lease is over."""

    def __init__(self, url: str) -> None:
        self.robbed: set[UUID] = set()  # jobs that it took from others, whose leases were not kept
        self._url = url
        self._id = uuid4()
        self._baits: dict[UUID, UUID] = {}  # worker: job
        self._let_go: set[UUID] = set()  # workers that get one more beat, their last
        self._beats = 0
        self._over = False
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="robber", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        until(lambda: self._beats, "the robber's first beat")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._over = True
        self._thread.join(40)

    def waits_for_a_lease(self) -> None:
        """Returns when whoever was not beaten for since this call has been robbed."""
        bait = next(iter(self._baits))
        self._let_go.add(bait)
        until(lambda: bait not in self._baits, "the robbery of a bait")

    def stops(self, pid: int) -> None:
        """Stops a process with SIGSTOP, at a moment in which it does not keep others from the store."""
        for _ in range(20):
            os.kill(pid, signal.SIGSTOP)
            beats, end = self._beats, time.monotonic() + 2
            while time.monotonic() < end:
                if self._beats > beats + 1:
                    return
                time.sleep(0.01)
            os.kill(pid, signal.SIGCONT)
            until(lambda beats=beats: self._beats > beats, "the robber's next beat")
        raise AssertionError(f"whenever process {pid} was stopped it kept others from the store")

    # --- in its thread

    async def _serve(self) -> None:
        store = open_store(self._url)
        await store.open()
        try:
            await store.register(self._id, None, {})
            for _ in range(BAITS):
                await self._lay(store)
            silent: set[UUID] = set()
            while not self._over:
                with suppress(StoreAway):
                    await self._step(store, silent)
                await asyncio.sleep(EVERY)
            for worker in [self._id, *self._baits]:
                await store.retire(worker)
        finally:
            await store.close()

    async def _lay(self, store: Store) -> None:
        worker, draft = uuid4(), Draft(new_id(), "bait", "baits", b"[]", Terms())
        await store.register(worker, None, {})
        await store.enqueue([draft])
        claims = await store.claim(worker, 1, ["baits"], 1)
        assert [claim.id for claim in claims.jobs] == [draft.id], "the robber must be there before the services"
        await store.cancel([draft.id])  # should a service rob it, that is its end
        self._baits[worker] = draft.id

    async def _step(self, store: Store, silent: set[UUID]) -> None:
        last = set(self._let_go)
        await store.beat([self._id, *(self._baits.keys() - silent)])
        silent |= last
        self._beats += 1
        for claim in await store.reclaim(self._id, 100):
            if claim.task != "bait":
                self.robbed.add(claim.id)
        for worker in silent & self._baits.keys():
            (bait,) = await store.find(Where(ids=[self._baits[worker]]), None, 1)
            if bait.worker != worker:
                del self._baits[worker]
