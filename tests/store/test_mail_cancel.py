"""The laws of cancel, and of the mailbox that tells a worker."""

from collections.abc import Sequence
from uuid import uuid4

import pytest

from holdfast.clock import DAY, MINUTE
from holdfast.job import Lost, Released, State, Succeeded, Verdict
from holdfast.policy import decide
from holdfast.store import Line, Store
from tests.store.acts import (
    BOOM,
    FINAL_BOOM,
    LOSS,
    TERMS,
    Hand,
    draft,
    ended,
    exists,
    finish,
    hand,
    now,
    record,
    running,
    state,
    steady_hand,
    stored,
)


async def _lines(store: Store, *workers: Hand) -> Sequence[Line]:
    return sorted(await store.mail([worker.id for worker in workers]))


# --- cancel


@pytest.mark.parametrize("delay", [0, MINUTE])
async def test_a_job_that_is_not_running_is_cancelled_now(store: Store, delay: int) -> None:
    [job_id] = await stored(store, draft(delay=delay))
    before = await record(store, job_id)
    store.shift += 5
    assert list(await store.cancel([job_id], "customer left")) == ["cancelled"]
    found = await record(store, job_id)
    assert (found.state, found.reason, found.finished_at) == (
        State.CANCELLED,
        "customer left",
        await now(store),
    )
    assert (found.history, found.fence, found.attempt, found.worker) == ((), 0, 0, None)
    assert (found.settled_fence, found.settled_by, found.settled_state) == (None, None, None)
    assert (found.due_at, found.enqueued_at) == (before.due_at, before.enqueued_at)
    assert found.cancel_requested_at is None


async def test_a_cancelled_job_never_runs(store: Store) -> None:
    queued, scheduled = await stored(store, draft(), draft(delay=5))
    await store.cancel([queued, scheduled])
    store.shift += 10
    promoted = await store.promote(10)
    assert (promoted.moved, promoted.next_in) == (0, None)
    assert await (await hand(store)).claim() == []


async def test_a_running_job_is_flagged_once_and_its_worker_told(store: Store) -> None:
    worker = await hand(store)
    job = await running(store, worker)
    before = await record(store, job.id)
    store.shift += 5
    asked_at = await now(store)
    assert list(await store.cancel([job.id], "first")) == ["requested"]
    found = await record(store, job.id)
    assert (found.state, found.worker, found.fence) == (State.RUNNING, worker.id, 1)
    assert (found.cancel_requested_at, found.reason, found.finished_at) == (asked_at, "first", None)
    assert found.history == before.history
    assert await _lines(store, worker) == [Line(worker.id, "cancel", job.id, 1)]


async def test_asked_again_it_is_still_requested_and_nothing_changes(store: Store) -> None:
    worker = await hand(store)
    job = await running(store, worker)
    await store.cancel([job.id], "first")
    before = await record(store, job.id)
    store.shift += 5
    assert list(await store.cancel([job.id], "second")) == ["requested"]
    assert await record(store, job.id) == before
    assert await _lines(store, worker) == [Line(worker.id, "cancel", job.id, 1)]


@pytest.mark.parametrize("verdict", [Succeeded(b"1"), FINAL_BOOM])
async def test_a_final_job_answers_final_and_stays_as_it_is(store: Store, verdict: Verdict) -> None:
    worker = await hand(store)
    job_id = await ended(store, worker, verdict)
    before = await record(store, job_id)
    assert list(await store.cancel([job_id], "late")) == ["final"]
    assert await record(store, job_id) == before
    assert await _lines(store, worker) == []


async def test_a_cancelled_job_answers_final(store: Store) -> None:
    [job_id] = await stored(store, draft())
    await store.cancel([job_id], "first")
    before = await record(store, job_id)
    store.shift += 5
    assert list(await store.cancel([job_id], "second")) == ["final"]
    assert await record(store, job_id) == before


async def test_cancel_answers_each_id_in_the_order_of_the_call(store: Store) -> None:
    worker = await hand(store)
    busy = await running(store, worker)
    done = await ended(store, worker, Succeeded(b"1"))
    queued, late = await stored(store, draft(), draft(delay=5))
    ids = [late, uuid4(), busy.id, done, queued]
    answers = ["cancelled", "missing", "requested", "final", "cancelled"]
    assert list(await store.cancel(ids)) == answers
    assert list(await store.cancel([])) == []


async def test_a_waiting_retry_is_cancelled_with_its_history(store: Store) -> None:
    job_id = await ended(store, await hand(store), BOOM)
    before = await record(store, job_id)
    assert list(await store.cancel([job_id])) == ["cancelled"]
    found = await record(store, job_id)
    assert (found.state, found.history, found.attempt) == (State.CANCELLED, before.history, 1)
    assert found.settled_state == State.SCHEDULED


async def test_other_jobs_are_left_alone_by_a_cancel(store: Store) -> None:
    worker = await hand(store)
    busy = await running(store, worker)
    [queued, other] = await stored(store, draft(), draft())
    before = [await record(store, busy.id), await record(store, queued)]
    await store.cancel([other])
    assert [await record(store, busy.id), await record(store, queued)] == before


async def test_a_cancel_between_two_claims_of_a_job_is_about_the_job(store: Store) -> None:
    worker = await hand(store)
    job = await running(store, worker)
    await finish(store, job, Released())
    assert list(await store.cancel([job.id])) == ["cancelled"]
    assert await worker.claim() == []
    assert await _lines(store, worker) == []


# --- mail


async def test_a_line_stays_however_often_it_is_read(store: Store) -> None:
    worker = await hand(store)
    job = await running(store, worker)
    await store.cancel([job.id])
    for _ in range(3):
        assert await _lines(store, worker) == [Line(worker.id, "cancel", job.id, 1)]


async def test_mail_is_for_the_workers_asked_about_only(store: Store) -> None:
    one, two, three = await hand(store), await hand(store), await hand(store)
    jobs = [await running(store, worker) for worker in (one, one, two, three)]
    await store.cancel([job.id for job in jobs])
    lines = sorted(Line(job.worker, "cancel", job.id, job.fence) for job in jobs)
    assert await _lines(store, one, two, three) == lines
    assert await _lines(store, one) == [line for line in lines if line.worker == one.id]
    assert await _lines(store, Hand(store)) == []
    assert list(await store.mail([])) == []


@pytest.mark.parametrize("verdict", [Succeeded(b"1"), FINAL_BOOM, BOOM, Released()])
async def test_the_claims_lines_go_when_it_settles(store: Store, verdict: Verdict) -> None:
    worker = await hand(store)
    job, other = await running(store, worker), await running(store, worker)
    await store.cancel([job.id, other.id])
    await finish(store, job, verdict)
    assert await _lines(store, worker) == [Line(worker.id, "cancel", other.id, 1)]


async def test_a_later_claim_of_the_job_is_not_told_of_an_older_cancel(store: Store) -> None:
    worker = await hand(store)
    job = await running(store, worker)
    await store.cancel([job.id])
    await finish(store, job, Released())
    await store.retry([job.id])
    again = await worker.take()
    assert again.id == job.id
    assert await _lines(store, worker) == []
    assert (await record(store, job.id)).cancel_requested_at is None


async def test_a_refused_finish_leaves_the_line(store: Store) -> None:
    worker = await hand(store)
    job = await running(store, worker)
    await store.cancel([job.id])
    await finish(store, job._replace(fence=7), BOOM)
    assert await _lines(store, worker) == [Line(worker.id, "cancel", job.id, 1)]


# --- lost


@pytest.mark.parametrize("cancelled", [False, True])
async def test_a_robbed_worker_that_comes_back_finds_that_its_claim_was_lost(store: Store, cancelled: bool) -> None:
    worker = await hand(store)
    job = await running(store, worker)
    if cancelled:
        await store.cancel([job.id])
    sweeper = await steady_hand(store)
    await sweeper.reclaim()
    assert await _lines(store, worker) == [Line(worker.id, "lost", job.id, 1)]
    assert await worker.beat()
    assert await _lines(store, worker) == [Line(worker.id, "lost", job.id, 1)]


async def test_a_lost_line_stays_until_its_worker_is_retired(store: Store) -> None:
    worker = await hand(store)
    job = await running(store, worker)
    sweeper = await steady_hand(store)
    await sweeper.sweep()
    assert await exists(store, job.id)
    assert await _lines(store, worker) == [Line(worker.id, "lost", job.id, 1)]
    await finish(store, job, Succeeded(b"late"))
    assert await _lines(store, worker) == [Line(worker.id, "lost", job.id, 1)]
    await worker.retire()
    assert await _lines(store, worker) == []


async def test_a_lost_line_goes_with_its_job_and_no_other_line_does(store: Store) -> None:
    """A worker that lives for years does not hear for ever of what it once lost."""
    worker = await hand(store)
    pruned, kept = await running(store, worker), await running(store, worker, terms=TERMS._replace(keep=2 * DAY))
    sweeper = await steady_hand(store)
    await sweeper.reclaim()
    await store.finish([decide(job, Succeeded(b"1")) for job in await sweeper.store.reclaim(sweeper.id, 9)])
    lost = Line(worker.id, "lost", kept.id, 1)
    assert await _lines(store, worker) == sorted([Line(worker.id, "lost", pruned.id, 1), lost])
    store.shift += TERMS.keep or 0
    assert await worker.beat()
    assert await store.prune(100) == 1
    assert await _lines(store, worker) == [lost]


async def test_a_retired_worker_is_not_told_what_it_lost(store: Store) -> None:
    worker, sweeper = await hand(store), await hand(store)
    await running(store, worker)
    await worker.retire(LOSS)
    assert len(await sweeper.reclaim()) == 1
    assert await _lines(store, worker, sweeper) == []


async def test_a_cancel_of_a_reclaimed_job_is_told_to_the_sweeper(store: Store) -> None:
    worker, sweeper = await hand(store), await hand(store)
    job = await running(store, worker)
    await worker.retire(LOSS)
    await sweeper.reclaim()
    assert list(await store.cancel([job.id])) == ["requested"]
    assert await _lines(store, worker, sweeper) == [Line(sweeper.id, "cancel", job.id, 2)]


async def test_the_flag_outlives_a_robbery_and_the_job_ends_cancelled(store: Store) -> None:
    worker, sweeper = await hand(store), await hand(store)
    job = await running(store, worker)
    await store.cancel([job.id], "customer left")
    await worker.retire(LOSS)
    [claim] = (await sweeper.reclaim()).values()
    assert (await record(store, job.id)).cancel_requested_at is not None
    assert await _lines(store, worker, sweeper) == [], "there is no code left that could be told"
    assert (await finish(store, claim, Lost(LOSS))).state == State.CANCELLED
    found = await record(store, job.id)
    assert (found.state, found.reason, found.crashes, found.losses) == ("cancelled", "customer left", 0, 0)


async def test_a_cancelled_job_can_be_retried_and_runs(store: Store) -> None:
    [job_id] = await stored(store, draft(delay=MINUTE))
    await store.cancel([job_id], "by mistake")
    await store.retry([job_id])
    assert (await (await hand(store)).take()).id == job_id
    assert await state(store, job_id) == "running"
