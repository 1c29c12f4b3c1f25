"""The laws of claim."""

from collections import Counter
from uuid import uuid4

import pytest

from holdfast.clock import HOUR, MINUTE
from holdfast.job import Claim, Released, Snoozed, State, Succeeded, Verdict
from holdfast.store import LEASE, Store
from tests.store.acts import (
    BOOM,
    LOSS,
    Hand,
    draft,
    finish,
    hand,
    listing,
    now,
    record,
    state,
    steady_hand,
    stored,
)


async def test_a_claim_carries_what_the_worker_needs(store: Store) -> None:
    job = draft(payload=b"\x00\xff", priority=7, alone=True, headers='{"tenant": "naïve", "n": "7"}')
    await stored(store, job)
    enqueued_at = await now(store)
    store.shift += 1234
    worker = await hand(store)
    assert await worker.take() == Claim(
        id=job.id,
        fence=1,
        worker=worker.id,
        task=job.task,
        queue=job.queue,
        payload=b"\x00\xff",
        terms=job.terms,
        priority=7,
        attempt=1,
        releases=0,
        losses=0,
        crashes=0,
        alone=True,
        enqueued_at=enqueued_at,
        due_at=enqueued_at,
        claimed_at=enqueued_at + 1234,
        loss=None,
        headers='{"tenant": "naïve", "n": "7"}',
        saved=None,
    )


async def test_a_claimed_job_is_running_under_its_worker(store: Store) -> None:
    [job_id] = await stored(store, draft())
    worker = await hand(store)
    store.shift += 10
    await worker.take()
    found = await record(store, job_id)
    assert (found.state, found.worker, found.started_at) == (State.RUNNING, worker.id, await now(store))
    assert (found.attempt, found.fence) == (1, 1)


async def test_attempt_and_fence_grow_by_one_with_each_claim(store: Store) -> None:
    [job_id] = await stored(store, draft())
    worker = await hand(store)
    seen = []
    for _ in range(2):
        job = await worker.take()
        seen.append((job.attempt, job.fence))
        await finish(store, job, BOOM)
        store.shift += MINUTE
        await store.promote(10)
        await worker.beat()
    job = await worker.take()
    assert [*seen, (job.attempt, job.fence)] == [(1, 1), (2, 2), (3, 3)]
    assert job.id == job_id


@pytest.mark.parametrize("size", [1, 4, 100])
async def test_in_a_queue_by_priority_then_due_then_id(store: Store, size: int) -> None:
    start = await now(store)
    first = draft(priority=1, at=start - 5)
    second = draft(priority=1, at=start - 5)  # ids grow
    drafts = [
        draft(priority=-100, at=start - HOUR),
        draft(priority=0, at=start),
        second,
        first,
        draft(priority=0, at=start - 1),
        draft(priority=1, at=start),
        draft(priority=100),
        draft(priority=0, at=start - 2),
    ]
    await stored(store, *drafts)
    worker = await hand(store)
    claimed: list[Claim] = []
    while jobs := await worker.claim(size):
        claimed += jobs
    order = sorted(drafts, key=lambda d: (-d.priority, start if d.at is None else d.at, d.id))
    assert [job.id for job in claimed] == [d.id for d in order]


async def test_the_id_decides_among_equals_whatever_the_order_of_enqueue(store: Store) -> None:
    drafts = [draft(id=uuid4()) for _ in range(20)]
    await stored(store, *drafts)
    claimed = await (await hand(store)).claim()
    assert [job.id for job in claimed] == sorted(d.id for d in drafts)


@pytest.mark.parametrize("limit", [0, 1, 3, 5, 6])
async def test_never_more_than_the_limit(store: Store, limit: int) -> None:
    await stored(store, *(draft() for _ in range(5)))
    jobs = await (await hand(store)).claim(limit)
    assert len(jobs) == min(limit, 5)
    assert Counter(r.state for r in await listing(store))["running"] == len(jobs)


async def test_the_limit_holds_over_several_queues(store: Store) -> None:
    await stored(store, *(draft(queue=name) for name in "abc" for _ in range(4)))
    worker = await hand(store)
    sizes = []
    while jobs := await worker.claim(5, ["a", "b", "c"]):
        sizes.append(len(jobs))
    assert sizes == [5, 5, 2]


async def test_only_the_queues_that_were_asked_for(store: Store) -> None:
    await stored(store, *(draft(queue=name) for name in ["a", "b", "b", "c"]))
    worker = await hand(store)
    assert [job.queue for job in await worker.claim(10, ["b", "none"])] == ["b", "b"]
    assert await worker.claim(10, ["none"]) == []
    assert await worker.claim(10, []) == []
    assert sorted(job.queue for job in await worker.claim(10, None)) == ["a", "c"]


@pytest.mark.parametrize("size", [1, 3])
async def test_every_queue_gets_its_turn(store: Store, size: int) -> None:
    """However full and urgent the neighbours are."""
    await stored(store, *(draft(queue=name, priority=100) for name in "ac" for _ in range(60)))
    await stored(store, *(draft(queue="b", priority=-100) for _ in range(3)))
    worker = await hand(store)
    served: Counter[str] = Counter()
    for _ in range(30 // size):
        served.update(job.queue for job in await worker.claim(size, ["a", "b", "c"]))
    assert served["b"] == 3, served
    assert served["a"] >= 5, served
    assert served["c"] >= 5, served


async def test_within_a_queue_the_order_holds_when_several_are_claimed(store: Store) -> None:
    drafts = [draft(queue=name, priority=p) for p in range(5) for name in "ab"]
    await stored(store, *drafts)
    jobs = await (await hand(store)).claim(100, ["a", "b"])
    for name in "ab":
        assert [job.priority for job in jobs if job.queue == name] == [4, 3, 2, 1, 0]


async def test_a_scheduled_job_is_not_claimed_before_it_is_promoted(store: Store) -> None:
    await stored(store, draft(delay=1000))
    worker = await hand(store)
    assert await worker.claim() == []
    store.shift += 1000
    assert await worker.claim() == []
    await store.promote(10)
    assert len(await worker.claim()) == 1


async def test_a_queued_job_stays_claimable_when_the_clock_steps_back(store: Store) -> None:
    [job_id] = await stored(store, draft())
    store.shift -= HOUR
    assert (await (await hand(store)).take()).id == job_id


async def test_two_workers_never_get_the_same_job(store: Store) -> None:
    ids = await stored(store, *(draft() for _ in range(6)))
    one, two = await hand(store), await hand(store)
    claimed = [await one.claim(2), await two.claim(2), await one.claim(2), await two.claim(2)]
    assert [len(jobs) for jobs in claimed] == [2, 2, 2, 0]
    assert sorted(job.id for jobs in claimed for job in jobs) == sorted(ids)


# --- who may claim


async def _refused(store: Store, worker: Hand, why: str) -> None:
    [job_id] = await stored(store, draft())
    claims = await store.claim(worker.id, worker.ticket, None, 10)
    assert (list(claims.jobs), claims.refused) == ([], why)
    assert await state(store, job_id) == "queued"


async def test_an_unknown_worker_takes_nothing(store: Store) -> None:
    await _refused(store, Hand(store), "gone")


async def test_a_retired_worker_takes_nothing(store: Store) -> None:
    worker = await hand(store)
    await worker.retire()
    await _refused(store, worker, "gone")
    store.shift += 2 * LEASE
    assert await worker.refusal() == "gone"


async def test_a_worker_whose_lease_is_over_takes_nothing(store: Store) -> None:
    worker = await hand(store)
    store.shift += LEASE - 1
    assert await worker.refusal() is None
    store.shift += 1
    await _refused(store, worker, "expired")


async def test_a_refused_claim_leaves_its_ticket_unused(store: Store) -> None:
    worker = await hand(store)
    store.shift += LEASE
    await _refused(store, worker, "expired")
    await worker.beat()
    assert len(await worker.claim()) == 1


async def test_an_expired_worker_is_not_given_its_last_claim_again(store: Store) -> None:
    await stored(store, draft())
    worker = await hand(store)
    await worker.take()
    store.shift += LEASE
    claims = await store.claim(worker.id, 1, None, 10)
    assert (list(claims.jobs), claims.refused) == ([], "expired")


# --- tickets


async def test_the_last_ticket_again_returns_the_same_jobs_and_takes_no_others(store: Store) -> None:
    await stored(store, *(draft(priority=n) for n in range(5)))
    worker = await hand(store)
    lost = await store.claim(worker.id, 1, None, 3)
    assert len(lost.jobs) == 3
    store.shift += 10
    for queues, limit in [(None, 3), (None, 5), (["mail"], 1), ([], 0)]:
        again = await store.claim(worker.id, 1, queues, limit)
        assert again.refused is None
        assert sorted(again.jobs) == sorted(lost.jobs)
    assert Counter(r.state for r in await listing(store)) == {"running": 3, "queued": 2}


async def test_the_last_ticket_again_returns_only_what_is_still_held(store: Store) -> None:
    await stored(store, *(draft(priority=-n) for n in range(4)))
    worker, other = await hand(store), await hand(store)
    done, released, snoozed, kept = (await store.claim(worker.id, 1, None, 4)).jobs
    await finish(store, done, Succeeded(b"1"))
    await finish(store, released, Released())
    await finish(store, snoozed, Snoozed(MINUTE))
    assert (await other.take()).id == released.id
    assert list((await store.claim(worker.id, 1, None, 4)).jobs) == [kept]


async def test_the_last_ticket_again_does_not_return_what_a_sweeper_took(store: Store) -> None:
    await stored(store, draft())
    worker = await hand(store)
    await worker.take()
    sweeper = await steady_hand(store)
    assert len(await sweeper.reclaim()) == 1
    assert await worker.beat()
    again = await store.claim(worker.id, 1, None, 10)
    assert (list(again.jobs), again.refused) == ([], "used")


async def test_what_a_sweeper_took_is_no_part_of_its_own_claims(store: Store) -> None:
    """The robbed claim and the sweeper's own may bear the same number."""
    await stored(store, draft(), draft(queue="other"))
    worker, sweeper = await hand(store), await hand(store)
    robbed = (await worker.claim(1, ["mail"]))[0]
    own = (await sweeper.claim(1, ["other"]))[0]
    assert worker.ticket == sweeper.ticket == 2, "the test needs equal tickets"
    await worker.retire(LOSS)
    assert list(await sweeper.reclaim()) == [robbed.id]
    assert list((await store.claim(sweeper.id, 1, None, 10)).jobs) == [own]


@pytest.mark.parametrize("verdict", [Succeeded(b"1"), Released(), Snoozed(0)])
async def test_a_used_ticket_of_which_nothing_is_held_is_refused_as_used(store: Store, verdict: Verdict) -> None:
    """Else a worker whose lost claim was rescued by others would ask for that ticket for ever."""
    await stored(store, draft(), draft())
    worker = await hand(store)
    [lost] = (await store.claim(worker.id, 1, None, 1)).jobs
    await finish(store, lost, verdict)
    for queues, limit in [(None, 10), ([], 0)]:
        claims = await store.claim(worker.id, 1, queues, limit)
        assert (list(claims.jobs), claims.refused) == ([], "used")
    assert len((await store.claim(worker.id, 2, None, 1)).jobs) == 1


async def test_an_older_ticket_is_refused(store: Store) -> None:
    await stored(store, draft(), draft(), draft())
    worker = await hand(store)
    await worker.take()
    await worker.take()
    claims = await store.claim(worker.id, 1, None, 10)
    assert (list(claims.jobs), claims.refused) == ([], "ticket")
    assert len(await worker.claim()) == 1


@pytest.mark.parametrize("used", [0, 1])
async def test_a_ticket_that_skips_one_is_refused(store: Store, used: int) -> None:
    await stored(store, draft(), draft(), draft())
    worker = await hand(store)
    for _ in range(used):
        await worker.take()
    claims = await store.claim(worker.id, used + 2, None, 10)
    assert (list(claims.jobs), claims.refused) == ([], "ticket")
    assert Counter(r.state for r in await listing(store))["running"] == used


async def test_an_empty_answer_leaves_its_ticket_unused(store: Store) -> None:
    worker = await hand(store)
    for _ in range(2):
        assert await worker.claim() == []
    [job_id] = await stored(store, draft())
    assert [job.id for job in (await store.claim(worker.id, 1, None, 10)).jobs] == [job_id]


async def test_each_worker_counts_its_own_tickets(store: Store) -> None:
    await stored(store, *(draft() for _ in range(4)))
    one, two = await hand(store), await hand(store)
    await one.take()
    await one.take()
    assert len((await store.claim(two.id, 1, None, 1)).jobs) == 1


async def test_hundreds_in_one_claim_and_again(store: Store) -> None:
    ids = await stored(store, *(draft() for _ in range(1500)))
    worker = await hand(store)
    assert [job.id for job in (await store.claim(worker.id, 1, None, 1500)).jobs] == sorted(ids)
    assert sorted(job.id for job in (await store.claim(worker.id, 1, None, 1)).jobs) == sorted(ids)
