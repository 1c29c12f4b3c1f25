"""What the tests of the seam are made of: drafts, a worker's hand, verdicts, and reading a job back."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import count
from typing import Any, TypeAlias, cast
from uuid import UUID, uuid4

from holdfast.clock import HOUR, SECOND, Instant, Span
from holdfast.job import (
    Cancelled,
    Claim,
    Draft,
    Failed,
    Failure,
    Loss,
    Lost,
    Outcome,
    QueueTerms,
    Record,
    Released,
    Snoozed,
    State,
    Succeeded,
    Terms,
    UniqueKey,
    Verdict,
    WhenFull,
    new_id,
)
from holdfast.policy import decide
from holdfast.store import LEASE, QueueStats, Quota, Receipt, Retried, Settled, Store, Where

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

    async def claim(
        self, limit: int = 100, queues: Sequence[str] | None = None, quotas: Sequence[Quota] = ()
    ) -> list[Claim]:
        claims = await self.store.claim(self.id, self.ticket, queues, limit, quotas)
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


class Patient:
    """A store that is spoken to as producers and workers do: what is busy is asked again."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def enqueue(self, jobs: Sequence[Draft]) -> Sequence[Receipt]:
        return await _heard(self._store.enqueue, jobs)

    async def finish(self, outcomes: Sequence[Outcome]) -> Sequence[Settled]:
        return await _heard(self._store.finish, outcomes)

    async def retry(self, ids: Sequence[UUID]) -> Sequence[Retried]:
        return await _heard(self._store.retry, ids)


async def _heard(ask: Callable[[Sequence[Any]], Awaitable[Sequence[Any]]], items: Sequence[Any]) -> list[Any]:
    answers = list(await ask(items))
    async with asyncio.timeout(PATIENCE):
        while busy := [n for n, each in enumerate(answers) if each.answer == "busy"]:
            again = await ask([items[n] for n in busy])
            for n, each in zip(busy, again, strict=True):
                answers[n] = each
    return answers


async def heard(store: Store, drafts: Sequence[Draft]) -> list[Receipt]:
    """The receipts of an enqueue; what is busy is asked again."""
    return await _heard(store.enqueue, drafts)


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
            return await program(cast("Store", Patient(twin)))
        finally:
            await twin.close()

    async with asyncio.timeout(PATIENCE):
        return await asyncio.to_thread(asyncio.run, visit())


# --- keys and bounds


def keyed(**changes: Any) -> Draft:
    """A draft that wants the key "k"; options of the key by their own names."""
    of_key = {name: changes.pop(name) for name in ("text", "until", "hold", "on_clash") if name in changes}
    return draft(unique=UniqueKey(**{"text": "k"} | of_key), **changes)


async def bound(store: Store, size: int | None, when_full: WhenFull = "reject", queue: str = "mail") -> None:
    await store.configure({queue: QueueTerms(size, when_full)}, by="worker")


async def receipt(store: Store, job: Draft) -> Receipt:
    [answer] = await heard(store, [job])
    assert answer.id == job.id
    return answer


async def answer(store: Store, job: Draft) -> str:
    return (await receipt(store, job)).answer


async def answers(store: Store, jobs: Sequence[Draft]) -> list[str]:
    receipts = await heard(store, jobs)
    assert [each.id for each in receipts] == [job.id for job in jobs]
    return [each.answer for each in receipts]


async def retried(store: Store, *ids: UUID) -> list[str]:
    return [each.answer for each in await store.retry(ids)]


async def stats_of(store: Store, queue: str = "mail") -> QueueStats | None:
    [stats] = [each for each in (await store.stats()).queues if each.name == queue] or [None]
    return stats


async def admitted(store: Store, queue: str = "mail") -> int | None:
    """The places taken in a bounded queue; it must be as many as its unfinished jobs are."""
    stats = await stats_of(store, queue)
    assert stats is not None
    unfinished = [row for row in await listing(store, Where(queue=queue)) if row.finished_at is None]
    assert stats.admitted in (None, len(unfinished)), "the places taken are not the unfinished jobs"
    return stats.admitted


Way: TypeAlias = Callable[[Store, UUID], Awaitable[object]]  # what becomes of a job that is the only one in its queue


async def _grab(store: Store, job_id: UUID) -> Claim:
    [job] = await (await hand(store)).claim(2, [(await record(store, job_id)).queue])
    assert job.id == job_id
    return job


def _settles(verdict: Verdict) -> Way:
    async def way(store: Store, job_id: UUID) -> None:
        settled = await finish(store, job := await _grab(store, job_id), verdict)
        assert settled.answer == "accepted"
        assert (await finish(store, job, verdict)).answer == "replayed"

    return way


async def _is_cancelled_while_it_runs(store: Store, job_id: UUID) -> None:
    job = await _grab(store, job_id)
    await store.cancel([job_id])
    assert (await finish(store, job, BOOM)).state == "cancelled"


async def _is_cancelled_before(store: Store, job_id: UUID) -> None:
    assert list(await store.cancel([job_id])) == ["cancelled"]
    assert list(await store.cancel([job_id])) == ["final"]


async def _is_reclaimed(store: Store, job_id: UUID, loss: Loss = LOSS) -> Hand:
    job = await _grab(store, job_id)
    await store.retire(job.worker, loss)
    sweeper = await hand(store)
    assert list(await sweeper.reclaim()) == [job_id]
    return sweeper


async def _is_lost(store: Store, job_id: UUID, loss: Loss = LOSS) -> None:
    assert await (await _is_reclaimed(store, job_id, loss)).sweep() == [job_id]


async def _kills_its_workers(store: Store, job_id: UUID) -> None:
    for _ in range(TERMS.max_crashes):
        await _is_lost(store, job_id, LOSS._replace(culprit=True))


# Every way to a final state, and every way of a started job on which it stays unfinished.
ENDS: dict[str, Way] = {
    "succeeds": _settles(Succeeded(b"1")),
    "dies": _settles(FINAL_BOOM),
    "gives up": _settles(Cancelled("not wanted")),
    "is cancelled while it runs": _is_cancelled_while_it_runs,
    "is cancelled before it runs": _is_cancelled_before,
    "kills its workers": _kills_its_workers,
}
GOES_ON: dict[str, Way] = {
    "is claimed": _grab,
    "fails": _settles(BOOM),
    "is failed and due at once": _settles(Failed(BOOM.error, after=0)),
    "is snoozed": _settles(Snoozed(5)),
    "is released": _settles(Released()),
    "is lost": _is_lost,
    "is reclaimed": _is_reclaimed,
}
