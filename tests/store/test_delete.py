"""The laws of delete: a job that is gone for everybody, but still known to a producer or worker that repeats itself."""

from uuid import uuid4

import pytest

from holdfast.clock import DAY, HOUR, MINUTE
from holdfast.job import TOMBSTONE, Note, State, Succeeded, Terms
from holdfast.store import Answer, Promoted, Receipt, Settled, Store, Where
from tests.store.acts import (
    BOOM,
    ENDS,
    FINAL_BOOM,
    LOSS,
    answers,
    draft,
    ended,
    exists,
    finish,
    hand,
    keyed,
    listing,
    now,
    record,
    retried,
    running,
    stored,
)

STATES = [None, *ENDS]  # what became of a job before it is deleted; None: nothing yet


@pytest.mark.parametrize("became", STATES)
async def test_a_deleted_job_is_gone_for_every_reader_and_writer(store: Store, became: str | None) -> None:
    job = draft(tags=("a",))
    await stored(store, job)
    if became is not None:
        await ENDS[became](store, job.id)
    assert list(await store.delete([job.id])) == ["deleted"]
    for where in (
        Where(),
        Where(ids=[job.id]),
        Where(starts=str(job.id)[:8]),
        Where(ends=str(job.id)[-8:]),
        Where(states=list(State)),
        Where(queue="mail"),
        Where(task=job.task),
        Where(tag="a"),
        Where(error="KeyError"),
        Where(since=0),
        Where(before=await now(store) + DAY),
    ):
        assert list(await store.find(where)) == [], where
    assert list(await store.cancel([job.id])) == ["missing"]
    assert await retried(store, job.id) == ["missing"]
    assert list(await store.delete([job.id])) == ["missing"]
    assert list(await store.log(job.id)) == []
    assert list((await store.stats()).queues) == []
    assert not await exists(store, job.id)


@pytest.mark.parametrize("delay", [0, MINUTE])
async def test_a_deleted_job_never_runs(store: Store, delay: int) -> None:
    [job_id] = await stored(store, draft(delay=delay))
    await store.delete([job_id])
    assert not await store.wait(None, 0.01)
    store.shift += MINUTE
    assert await store.promote(10) == Promoted(0, None)
    assert await (await hand(store)).claim() == []


async def test_a_failed_job_that_waits_for_its_retry_can_be_deleted(store: Store) -> None:
    job_id = await ended(store, await hand(store), BOOM)
    assert list(await store.delete([job_id])) == ["deleted"]
    store.shift += HOUR
    assert await store.promote(10) == Promoted(0, None)


@pytest.mark.parametrize("flagged", [True, False])
async def test_a_running_job_is_refused_and_stays_as_it_is(store: Store, flagged: bool) -> None:
    worker = await hand(store)
    job = await running(store, worker)
    if flagged:
        await store.cancel([job.id])
    before = await record(store, job.id)
    assert list(await store.delete([job.id])) == ["running"]
    assert await record(store, job.id) == before
    assert len(await store.mail([worker.id])) == flagged
    assert (await finish(store, job, Succeeded(b"1"))).answer == "accepted"


async def test_a_job_that_a_sweeper_holds_is_refused_too(store: Store) -> None:
    worker, sweeper = await hand(store), await hand(store)
    job = await running(store, worker)
    await worker.retire(LOSS)
    await sweeper.reclaim()
    assert list(await store.delete([job.id])) == ["running"]
    await sweeper.sweep()
    assert list(await store.delete([job.id])) == ["deleted"]


async def test_delete_answers_each_id_in_the_order_of_the_call(store: Store) -> None:
    worker = await hand(store)
    held = await running(store, worker)
    dead = await ended(store, worker, FINAL_BOOM)
    [queued] = await stored(store, draft())
    assert list(await store.delete([queued, held.id, uuid4(), dead, queued])) == [
        "deleted",
        "running",
        "missing",
        "deleted",
        "missing",
    ]
    assert list(await store.delete([])) == []
    assert [row.id for row in await listing(store)] == [held.id]


async def test_other_jobs_are_left_alone(store: Store) -> None:
    worker = await hand(store)
    dead = [await ended(store, worker, FINAL_BOOM) for _ in range(3)]
    before = await listing(store, Where(ids=dead[1:]))
    await store.delete(dead[:1])
    assert await listing(store) == before


async def test_thousands_are_deleted_at_once(store: Store) -> None:
    ids = await stored(store, *(draft() for _ in range(2500)))
    assert list(await store.delete(ids[500:])) == ["deleted"] * 2000
    assert {row.id for row in await listing(store)} == set(ids[:500])
    assert len(await (await hand(store)).claim(5000)) == 500


# --- a repeated enqueue


@pytest.mark.parametrize("became", STATES)
async def test_a_repeated_enqueue_is_recognised_and_stores_nothing(store: Store, became: str | None) -> None:
    job = keyed()
    other = draft(id=job.id, payload=b"[43]")
    await stored(store, job)
    if became is not None:
        await ENDS[became](store, job.id)
    await store.delete([job.id])
    store.shift += TOMBSTONE - 1
    await store.prune(100)
    assert list(await store.enqueue([job, other])) == [
        Receipt(job.id, "accepted", created=False),
        Receipt(job.id, "conflict", created=False),
    ]
    assert await listing(store) == []
    store.shift += 1
    assert await store.prune(100) == 1, "what is left of a deleted job is counted like a job"
    assert list(await store.enqueue([job])) == [Receipt(job.id, "accepted", created=True)]
    found = await record(store, job.id)
    assert (found.state, found.fence, found.life, found.history, found.settled_by) == ("queued", 0, 1, (), None)


async def test_after_a_replace_the_content_that_counts_is_the_one_it_came_with(store: Store) -> None:
    job = keyed(payload=b"[1]")
    await stored(store, job)
    await answers(store, [keyed(on_clash="replace", payload=b"[2]")])
    await store.delete([job.id])
    assert await answers(store, [job, draft(id=job.id, payload=b"[2]")]) == ["accepted", "conflict"]


async def test_the_minute_counts_from_the_end_and_not_from_the_delete(store: Store) -> None:
    job = draft()
    await stored(store, job)
    await ENDS["dies"](store, job.id)
    store.shift += TOMBSTONE - 1
    await store.delete([job.id])
    assert await store.prune(100) == 0
    store.shift += 1
    assert await store.prune(100) == 1
    assert await answers(store, [job]) == ["accepted"]
    assert await exists(store, job.id)


@pytest.mark.parametrize("keep", [0, DAY])
async def test_what_ended_long_ago_is_prunable_at_once(store: Store, keep: int) -> None:
    job = draft(terms=Terms(keep=keep))
    await stored(store, job)
    await ENDS["succeeds"](store, job.id)
    store.shift += HOUR
    await store.delete([job.id])
    assert await store.prune(100) == 1
    assert await store.prune(100) == 0
    assert list(await store.enqueue([job])) == [Receipt(job.id, "accepted", created=True)]


async def test_a_hold_keeps_nothing_of_a_deleted_job(store: Store) -> None:
    job = keyed(hold=DAY)
    await stored(store, job)
    await ENDS["succeeds"](store, job.id)
    await store.delete([job.id])
    store.shift += TOMBSTONE
    assert await store.prune(100) == 1


async def test_prune_keeps_its_limit_with_deleted_jobs_too(store: Store) -> None:
    ids = await stored(store, *(draft(terms=Terms(keep=0)) for _ in range(7)))
    await store.cancel(ids)
    await store.delete(ids[:4])
    store.shift += TOMBSTONE
    assert [await store.prune(3) for _ in range(4)] == [3, 3, 1, 0]
    assert await listing(store) == []


# --- a repeated finish


@pytest.mark.parametrize(("verdict", "state"), [(Succeeded(b"1"), State.SUCCEEDED), (FINAL_BOOM, State.DEAD)])
async def test_a_repeated_finish_is_replayed_with_what_was_recorded(
    store: Store, verdict: Succeeded, state: State
) -> None:
    job = await running(store, await hand(store))
    await finish(store, job, verdict)
    await store.delete([job.id])
    store.shift += TOMBSTONE - 1
    await store.prune(100)
    assert await finish(store, job, verdict) == Settled(Answer.REPLAYED, state)
    store.shift += 1
    await store.prune(100)
    assert await finish(store, job, verdict) == Settled(Answer.GONE)
    assert await listing(store) == []


async def test_a_repeated_failure_of_a_job_deleted_before_its_next_attempt_is_replayed(store: Store) -> None:
    job = await running(store, await hand(store))
    await finish(store, job, BOOM)
    await store.delete([job.id])
    assert await finish(store, job, BOOM) == Settled(Answer.REPLAYED, State.SCHEDULED)


async def test_any_other_word_is_gone(store: Store) -> None:
    worker = await hand(store)
    job = await running(store, worker)
    await finish(store, job, BOOM)
    store.shift += MINUTE
    await worker.beat()
    await store.promote(10)
    second = await worker.take()
    await finish(store, second, Succeeded(b"1"))
    await store.delete([job.id])
    assert (await finish(store, job, BOOM)).answer == "gone"
    assert (await finish(store, second._replace(worker=uuid4()), BOOM)).answer == "gone"
    assert (await finish(store, second._replace(fence=3), BOOM)).answer == "gone"
    assert (await finish(store, second, Succeeded(b"1"))).answer == "replayed"


async def test_a_note_about_a_deleted_job_is_refused_and_kept_nowhere(store: Store) -> None:
    worker = await hand(store)
    job = await running(store, worker)
    await store.note([Note(job.id, job.fence, worker.id, 0.5, "half", ((0, "line"),), b"1")])
    await finish(store, job, FINAL_BOOM)
    await store.delete([job.id])
    assert list(await store.log(job.id)) == []
    assert list(await store.note([Note(job.id, job.fence, worker.id, 0.7, "more", ((0, "late"),))])) == [False]
    assert list(await store.log(job.id)) == []


async def test_what_a_deleted_job_said_is_not_told_of_a_new_one_with_its_id(store: Store) -> None:
    worker = await hand(store)
    job = draft()
    await stored(store, job)
    claim = await worker.take()
    await store.note([Note(job.id, 1, worker.id, 0.5, "half", ((0, "line"),), b"1")])
    await finish(store, claim, FINAL_BOOM)
    await store.delete([job.id])
    store.shift += TOMBSTONE
    await store.prune(100)
    await stored(store, job)
    await worker.beat()
    again = await (await hand(store)).take()
    assert (again.fence, again.saved) == (1, None)
    found = await record(store, job.id)
    assert (found.progress, found.text, list(await store.log(job.id))) == (None, None, [])


async def test_nobody_holds_a_job_that_is_free(store: Store) -> None:
    [job_id] = await stored(store, draft())
    assert [await store.locker(job_id), await store.locker(uuid4())] == ["", ""]
