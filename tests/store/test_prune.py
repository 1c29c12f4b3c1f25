"""The laws of prune: finished jobs whose time is over, and the rows of workers who are over."""

import pytest

from holdfast.clock import DAY, HOUR, MINUTE
from holdfast.job import TOMBSTONE, Cancelled, Released, Succeeded, Terms, Verdict
from holdfast.store import LEASE, Receipt, Store, Where
from tests.store.acts import (
    BOOM,
    FINAL_BOOM,
    LOSS,
    Hand,
    draft,
    ended,
    exists,
    finish,
    hand,
    listing,
    record,
    running,
    stored,
)


async def _goes_after(store: Store, job_id: object, length: int) -> None:
    store.shift += length - 1
    await store.prune(100)
    assert await store.find(Where(ids=[job_id])), f"pruned before its time ({length} ms)"  # type: ignore[list-item]
    store.shift += 1
    assert await store.prune(100) == 1
    assert not await store.find(Where(ids=[job_id]))  # type: ignore[list-item]


@pytest.mark.parametrize("verdict", [Succeeded(b"1"), Cancelled("not wanted")])
@pytest.mark.parametrize(
    ("keep", "stays"),
    [(0, TOMBSTONE), (TOMBSTONE - 1, TOMBSTONE), (TOMBSTONE + 1, TOMBSTONE + 1), (DAY, DAY)],
)
async def test_a_finished_job_stays_for_its_time_and_a_minute_at_least(
    store: Store, verdict: Verdict, keep: int, stays: int
) -> None:
    job_id = await ended(store, await hand(store), verdict, terms=Terms(keep=keep))
    await _goes_after(store, job_id, stays)


@pytest.mark.parametrize(("keep", "stays"), [(0, TOMBSTONE), (HOUR, HOUR)])
@pytest.mark.parametrize("delay", [0, 5])
async def test_a_job_cancelled_before_it_ran_stays_as_long(store: Store, delay: int, keep: int, stays: int) -> None:
    [job_id] = await stored(store, draft(delay=delay, terms=Terms(keep=keep)))
    await store.cancel([job_id])
    await _goes_after(store, job_id, stays)


async def test_a_flagged_job_that_ended_cancelled_stays_as_long(store: Store) -> None:
    job = await running(store, await hand(store), terms=Terms(keep=HOUR))
    await store.cancel([job.id])
    await finish(store, job, FINAL_BOOM)
    await _goes_after(store, job.id, HOUR)


async def test_dead_jobs_are_kept_until_someone_decides(store: Store) -> None:
    job_id = await ended(store, await hand(store), FINAL_BOOM, terms=Terms(keep=0))
    store.shift += 1000 * DAY
    assert await store.prune(100) == 0
    assert await exists(store, job_id)


async def test_what_is_not_finished_is_never_pruned(store: Store) -> None:
    worker = await hand(store)
    short = Terms(keep=0, max_attempts=5)
    held = await running(store, worker, terms=short)
    back = await ended(store, worker, Released(), terms=short)
    failed = await ended(store, worker, BOOM, terms=short)
    queued, late = await stored(store, draft(terms=short), draft(terms=short, delay=1000 * DAY))
    store.shift += 999 * DAY
    assert await store.prune(100) == 0
    assert {r.id for r in await listing(store)} == {held.id, back, failed, queued, late}


async def test_a_retried_job_is_pruned_no_more(store: Store) -> None:
    [job_id] = await stored(store, draft(terms=Terms(keep=0)))
    await store.cancel([job_id])
    await store.retry([job_id])
    store.shift += DAY
    assert await store.prune(100) == 0
    await store.cancel([job_id])
    await _goes_after(store, job_id, TOMBSTONE)


async def test_at_most_the_limit_and_the_answer_counts_the_jobs(store: Store) -> None:
    ids = await stored(store, *(draft(terms=Terms(keep=0)) for _ in range(7)))
    kept = await stored(store, draft())
    await store.cancel(ids)
    store.shift += TOMBSTONE
    assert await store.prune(0) == 0
    assert [await store.prune(3) for _ in range(4)] == [3, 3, 1, 0]
    assert [r.id for r in await listing(store)] == kept


async def test_all_that_belongs_to_a_job_goes_with_it(store: Store) -> None:
    """The same id stored anew starts with a clean sheet."""
    worker = await hand(store)
    job = draft(terms=Terms(keep=0, max_attempts=5))
    await stored(store, job)
    await finish(store, await worker.take(), BOOM)
    await store.cancel([job.id], "customer left")
    store.shift += TOMBSTONE
    assert await store.prune(100) == 1
    assert await store.enqueue([job]) == [Receipt(job.id, "accepted", created=True)]
    found = await record(store, job.id)
    assert (found.history, found.omitted, found.reason, found.settled_by) == ((), 0, "", None)
    assert (found.state, found.fence, found.attempt, found.life) == ("queued", 0, 0, 1)


async def test_hundreds_with_history_are_pruned(store: Store) -> None:
    ids = await stored(store, *(draft(terms=Terms(keep=0)) for _ in range(600)))
    worker = await hand(store)
    from holdfast.policy import decide

    jobs = await worker.claim(600)
    await store.finish([decide(job, Cancelled("not wanted")) for job in jobs])
    store.shift += TOMBSTONE
    assert await store.prune(1000) == len(ids)
    assert await listing(store) == []


# --- workers' rows


async def _forgotten(store: Store, worker: Hand) -> bool:
    """Whether the worker's row is gone: registering then opens a new life."""
    await store.register(worker.id, None, {})
    return await worker.refusal() != "gone"


@pytest.mark.parametrize(("after", "gone"), [(HOUR - 1, False), (HOUR, True)])
async def test_a_retired_workers_row_goes_after_an_hour(store: Store, after: int, gone: bool) -> None:
    worker = await hand(store)
    await worker.retire()
    store.shift += after
    assert await store.prune(100) == 0, "workers are not counted"
    assert await _forgotten(store, worker) is gone


@pytest.mark.parametrize(("after", "gone"), [(DAY - 1, False), (DAY, True)])
async def test_the_row_of_a_worker_silent_for_a_day_goes(store: Store, after: int, gone: bool) -> None:
    worker = await hand(store)
    store.shift += HOUR
    await worker.beat()
    store.shift += after
    await store.prune(100)
    assert await worker.beat() is not gone


@pytest.mark.parametrize("retired", [True, False])
async def test_a_row_stays_while_a_job_runs_under_it(store: Store, retired: bool) -> None:
    worker = await hand(store)
    job = await running(store, worker)
    if retired:
        await worker.retire(LOSS)
    store.shift += 10 * DAY
    await store.prune(100)
    sweeper = await hand(store)
    if retired:
        assert (await sweeper.reclaim())[job.id].loss == LOSS, "the loss was forgotten with the row"
    else:
        assert await worker.beat()


async def test_a_row_goes_once_its_last_job_has_ended(store: Store) -> None:
    worker = await hand(store)
    job = await running(store, worker)
    await worker.retire(LOSS)
    store.shift += HOUR
    await store.prune(100)
    assert (await finish(store, job, Succeeded(b"1"))).answer == "accepted"
    await store.prune(100)
    assert await _forgotten(store, worker)


async def test_a_sweeper_keeps_its_row_for_what_it_took_over(store: Store) -> None:
    worker, sweeper = await hand(store), await hand(store)
    await running(store, worker)
    await worker.retire(LOSS)
    [claim] = (await sweeper.reclaim()).values()
    await sweeper.retire()
    store.shift += 2 * HOUR
    await store.prune(100)
    assert not await _forgotten(store, sweeper)
    assert (await finish(store, claim, Succeeded(b"1"))).answer == "accepted"


async def test_live_workers_keep_their_rows(store: Store) -> None:
    worker = await hand(store)
    for _ in range(3):
        store.shift += LEASE + MINUTE
        await store.prune(100)
    assert await worker.beat()


async def test_the_mailbox_goes_with_the_row(store: Store) -> None:
    """Seen by nobody but a worker that would reuse an id; still it must not pile up."""
    worker = await hand(store)
    job = await running(store, worker)
    await store.cancel([job.id])
    await finish(store, job, Released())
    await worker.retire()
    store.shift += HOUR
    await store.prune(100)
    assert list(await store.mail([worker.id])) == []
