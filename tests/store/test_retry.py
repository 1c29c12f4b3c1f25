"""The laws of retry: an operator's decision that a job shall live again."""

from uuid import uuid4

import pytest

from holdfast.clock import MINUTE
from holdfast.job import (
    Cancelled,
    Lost,
    Released,
    State,
    Succeeded,
    Verdict,
)
from holdfast.policy import decide
from holdfast.store import Answer, Retried, Settled, Store
from tests.store.acts import (
    BOOM,
    FINAL_BOOM,
    LOSS,
    draft,
    ended,
    finish,
    hand,
    now,
    record,
    retried,
    running,
    state,
    stored,
)


@pytest.mark.parametrize("verdict", [FINAL_BOOM, Cancelled("not wanted")])
async def test_a_dead_or_cancelled_job_starts_a_new_life(store: Store, verdict: Verdict) -> None:
    job_id = await ended(store, await hand(store), verdict)
    before = await record(store, job_id)
    store.shift += MINUTE
    assert list(await store.retry([job_id])) == [Retried("retried")]
    found = await record(store, job_id)
    assert (found.state, found.due_at, found.life) == (State.QUEUED, await now(store), 2)
    assert (found.attempt, found.releases, found.losses, found.crashes) == (0, 0, 0, 0)
    assert (found.result, found.reason, found.finished_at, found.started_at) == (None, "", None, None)
    assert (found.worker, found.cancel_requested_at) == (None, None)
    assert (found.fence, found.history, found.enqueued_at) == (1, before.history, before.enqueued_at)
    assert (found.payload, found.terms, found.tags, found.priority) == (
        before.payload,
        before.terms,
        before.tags,
        before.priority,
    )


async def test_counters_begin_again(store: Store) -> None:
    job = await running(store, await hand(store))
    outcome = decide(job, FINAL_BOOM)._replace(attempt=3, releases=4, losses=2, crashes=2)
    await store.finish([outcome])
    await store.retry([job.id])
    found = await record(store, job.id)
    assert (found.attempt, found.releases, found.losses, found.crashes) == (0, 0, 0, 0)


@pytest.mark.parametrize("drafted", [True, False])
@pytest.mark.parametrize("became", [True, False])
async def test_the_new_life_is_alone_only_if_the_draft_said_so(store: Store, drafted: bool, became: bool) -> None:
    job = await running(store, await hand(store), alone=drafted)
    await store.finish([decide(job, FINAL_BOOM)._replace(alone=became)])
    assert (await record(store, job.id)).alone is became
    await store.retry([job.id])
    assert (await record(store, job.id)).alone is drafted


async def test_the_fence_goes_on(store: Store) -> None:
    worker = await hand(store)
    job_id = await ended(store, worker, FINAL_BOOM)
    await store.retry([job_id])
    job = await worker.take()
    assert (job.id, job.attempt, job.fence) == (job_id, 1, 2)
    await finish(store, job, BOOM)
    found = await record(store, job_id)
    assert [(a.attempt, a.fence) for a in found.history] == [(1, 1), (1, 2)]
    assert found.state == "scheduled", "the new life has attempts of its own"


async def test_a_repeated_finish_of_the_old_life_is_replayed(store: Store) -> None:
    job = await running(store, await hand(store))
    await finish(store, job, FINAL_BOOM)
    await store.retry([job.id])
    before = await record(store, job.id)
    assert await finish(store, job, FINAL_BOOM) == Settled(Answer.REPLAYED, State.DEAD)
    assert await record(store, job.id) == before


async def test_a_job_cancelled_before_it_ran_can_be_retried(store: Store) -> None:
    [job_id] = await stored(store, draft(delay=MINUTE))
    await store.cancel([job_id])
    assert await retried(store, job_id) == ["retried"]
    assert await state(store, job_id) == "queued"


async def test_a_succeeded_job_stays_and_says_so(store: Store) -> None:
    job_id = await ended(store, await hand(store), Succeeded(b"1"))
    before = await record(store, job_id)
    assert await retried(store, job_id) == ["succeeded"]
    assert await record(store, job_id) == before


@pytest.mark.parametrize("what", ["queued", "scheduled", "running", "running, cancel asked for"])
async def test_an_unfinished_job_stays_and_says_so(store: Store, what: str) -> None:
    if what.startswith("running"):
        job_id = (await running(store, await hand(store))).id
        if "cancel" in what:
            await store.cancel([job_id])
    else:
        [job_id] = await stored(store, draft(delay=5 if what == "scheduled" else 0))
    before = await record(store, job_id)
    store.shift += 1
    assert await retried(store, job_id) == ["unfinished"]
    assert await record(store, job_id) == before


async def test_retry_answers_each_id_in_the_order_of_the_call(store: Store) -> None:
    worker = await hand(store)
    dead = await ended(store, worker, FINAL_BOOM)
    done = await ended(store, worker, Succeeded(b"1"))
    [queued] = await stored(store, draft())
    assert await retried(store, done, uuid4(), dead, queued) == [
        "succeeded",
        "missing",
        "retried",
        "unfinished",
    ]
    assert await retried(store) == []
    assert await retried(store, dead) == ["unfinished"]


async def test_a_third_life_follows_the_second(store: Store) -> None:
    worker = await hand(store)
    job_id = await ended(store, worker, FINAL_BOOM)
    for life in (2, 3):
        await store.retry([job_id])
        assert (await record(store, job_id)).life == life
        await finish(store, await worker.take(), FINAL_BOOM)


async def test_a_crash_in_an_older_life_does_not_count_in_the_new(store: Store) -> None:
    worker = await hand(store)
    job_id = await ended(store, worker, Lost(LOSS._replace(culprit=True)))
    job = await worker.take()
    assert (job.id, job.crashes, job.alone) == (job_id, 1, True)
    await finish(store, job, Lost(LOSS))
    assert await state(store, job_id) == "dead"
    await store.retry([job_id])
    job = await worker.take()
    assert (job.crashes, job.alone) == (0, False)
    assert (await finish(store, job, Released())).state == "queued"
