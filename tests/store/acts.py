"""What the tests of the seam are made of: drafts, a worker's hand, verdicts, and reading a job back."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import count
from typing import Any
from uuid import UUID, uuid4

from holdfast.clock import HOUR, SECOND, Instant, Span
from holdfast.job import (
    Claim,
    Draft,
    Failed,
    Failure,
    Loss,
    Lost,
    Record,
    State,
    Terms,
    Verdict,
    new_id,
)
from holdfast.policy import decide
from holdfast.store import LEASE, Settled, Store, Where

PATIENCE = 30  # seconds, for whatever a test waits for
TERMS = Terms(max_attempts=3, base_delay=10 * SECOND, max_delay=HOUR, jitter=0.0, max_crashes=2, keep=HOUR)
BOOM = Failed(Failure("ValueError", "no such order", "Traceback: …"))
FINAL_BOOM = Failed(Failure("KeyError", "gone for good", "Traceback: …"), final=True)
LOSS = Loss("killed by signal 9")


def draft(**changes: Any) -> Draft:
    """A job that is due now, on the queue "mail"; each with an id of its own."""
    fields: dict[str, Any] = {
        "id": new_id(),
        "task": "shop.send",
        "queue": "mail",
        "payload": b"[42]",
        "terms": TERMS,
    }
    return Draft(**fields | changes)


class Hand:
    """A worker as a test moves it. It counts its tickets as a fetcher does."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.id = uuid4()
        self._tickets = count(1)
        self.ticket = next(self._tickets)  # the next one to use

    async def claim(self, limit: int = 100, queues: Sequence[str] | None = None) -> list[Claim]:
        claims = await self.store.claim(self.id, self.ticket, queues, limit)
        assert claims.refused is None, f"a claim that should have been served was refused: {claims.refused}"
        if claims.jobs:
            self.ticket = next(self._tickets)
        return list(claims.jobs)

    async def take(self) -> Claim:
        """Claims the one job at the head."""
        [job] = await self.claim(1)
        return job

    async def refusal(self) -> str | None:
        """Why a claim takes nothing just now; None if it would be served."""
        claims = await self.store.claim(self.id, self.ticket, ["a queue without jobs"], 1)
        assert not claims.jobs
        return claims.refused

    async def beat(self) -> bool:
        """True if the beat was accepted."""
        return self.id not in (await self.store.beat([self.id])).gone

    async def retire(self, loss: Loss | None = None, jobs: Mapping[tuple[UUID, int], Loss] | None = None) -> None:
        await self.store.retire(self.id, loss, jobs or {})

    async def reclaim(self, limit: int = 100) -> dict[UUID, Claim]:
        return {job.id: job for job in await self.store.reclaim(self.id, limit)}

    async def sweep(self) -> list[UUID]:
        """Reclaims and settles, as the janitor does; returns the jobs that it gave back or ended."""
        jobs = list((await self.reclaim()).values())
        assert all(job.loss is not None for job in jobs)
        settled = await self.store.finish([decide(job, Lost(job.loss or LOSS)) for job in jobs])
        assert [s.answer for s in settled] == ["accepted"] * len(jobs)
        return [job.id for job in jobs]


async def hand(store: Store) -> Hand:
    """A worker that has just been registered."""
    worker = Hand(store)
    await store.register(worker.id, None, {"host": "test"})
    return worker


async def steady_hand(store: Store) -> Hand:
    """A worker that has been beating for longer than a lease. All others have been silent meanwhile."""
    worker = await hand(store)
    await keep_beating([worker], LEASE + 1)
    return worker


async def keep_beating(hands: Sequence[Hand], length: Span) -> None:
    """Lets `length` pass while these workers, and no others, beat as they should."""
    store = hands[0].store
    while length > 0:
        step = min(length, LEASE // 3)
        store.shift += step
        length -= step
        assert not (await store.beat([h.id for h in hands])).gone


async def stored(store: Store, *drafts: Draft) -> list[UUID]:
    receipts = await store.enqueue(drafts)
    assert [(r.answer, r.created) for r in receipts] == [("accepted", True)] * len(drafts)
    return [d.id for d in drafts]


async def running(store: Store, worker: Hand, **changes: Any) -> Claim:
    """A fresh job, alone in its own queue, claimed by `worker`."""
    [job_id] = await stored(store, draft(**{"queue": f"own-{uuid4().hex}"} | changes))
    jobs = await worker.claim(1, [(await record(store, job_id)).queue])
    assert [job.id for job in jobs] == [job_id]
    return jobs[0]


async def finish(store: Store, job: Claim, verdict: Verdict) -> Settled:
    [settled] = await store.finish([decide(job, verdict)])
    return settled


async def ended(store: Store, worker: Hand, verdict: Verdict, **changes: Any) -> UUID:
    """A job that was claimed once and ended with `verdict`."""
    job = await running(store, worker, **changes)
    assert (await finish(store, job, verdict)).answer == "accepted"
    return job.id


async def record(store: Store, job_id: UUID) -> Record:
    [found] = await store.find(Where(ids=[job_id]))
    assert found.id == job_id
    return found


async def exists(store: Store, job_id: UUID) -> bool:
    return bool(await store.find(Where(ids=[job_id])))


async def listing(store: Store, where: Where | None = None) -> list[Record]:
    return list(await store.find(where or Where(), None, 1_000_000))


async def state(store: Store, job_id: UUID) -> State:
    return (await record(store, job_id)).state


async def now(store: Store) -> Instant:
    """The store's own time."""
    return (await store.beat([])).now


async def elsewhere(program: Callable[[Store], Awaitable[Any]], store: Store) -> Any:
    """Runs `program` with a twin of the store, on an event loop of its own in another thread."""

    async def visit() -> Any:
        twin = store.twin()
        await twin.open()
        try:
            return await program(twin)
        finally:
            await twin.close()

    async with asyncio.timeout(PATIENCE):
        return await asyncio.to_thread(asyncio.run, visit())
