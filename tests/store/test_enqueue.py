"""The laws of enqueue."""

import pytest

from holdfast.clock import DAY, MINUTE
from holdfast.errors import ConfigError
from holdfast.job import TOMBSTONE, Draft, Record, State, Succeeded, Terms
from holdfast.store import Receipt, Store
from tests.store.acts import (
    FINAL_BOOM,
    draft,
    ended,
    exists,
    finish,
    hand,
    listing,
    now,
    record,
    running,
    state,
    stored,
)


async def test_a_new_job_is_stored_whole(store: Store) -> None:
    job = draft(
        task="shop.mail.send:v2",
        queue="Mail-1.low",
        payload=bytes(range(256)),
        terms=Terms(7, 1, 86_400_000, 0.123456789, 0, 250, DAY),
        priority=-100,
        tags=("order 7", "50%_off", "naïve", "'; --"),
        line="customer:7",
        alone=True,
        headers='{"tenant":"naïve"}',
    )
    await stored(store, job)
    assert await record(store, job.id) == Record(
        id=job.id,
        task=job.task,
        queue=job.queue,
        line="customer:7",
        state=State.QUEUED,
        payload=job.payload,
        terms=job.terms,
        priority=-100,
        tags=job.tags,
        life=1,
        attempt=0,
        fence=0,
        releases=0,
        losses=0,
        crashes=0,
        alone=True,
        enqueued_at=await now(store),
        due_at=await now(store),
        started_at=None,
        finished_at=None,
        worker=None,
        cancel_requested_at=None,
        settled_fence=None,
        settled_by=None,
        settled_state=None,
        result=None,
        reason="",
        headers='{"tenant":"naïve"}',
    )


async def test_a_payload_of_a_megabyte_is_kept(store: Store) -> None:
    [job_id] = await stored(store, draft(payload=b"\x00\xff" * 2**19))
    assert (await record(store, job_id)).payload == b"\x00\xff" * 2**19


@pytest.mark.parametrize(
    ("delay", "at", "becomes", "due"),
    [
        (0, None, State.QUEUED, 0),
        (1, None, State.SCHEDULED, 1),
        (DAY, None, State.SCHEDULED, DAY),
        (0, 0, State.QUEUED, 0),
        (0, -MINUTE, State.QUEUED, -MINUTE),
        (0, 1, State.SCHEDULED, 1),
        (0, DAY, State.SCHEDULED, DAY),
    ],
)
async def test_due_now_is_queued_else_scheduled(
    store: Store, delay: int, at: int | None, becomes: State, due: int
) -> None:
    store.shift = 12_345
    start = await now(store)
    [job_id] = await stored(store, draft(delay=delay, at=None if at is None else start + at))
    found = await record(store, job_id)
    assert (found.state, found.due_at, found.enqueued_at) == (becomes, start + due, start)


async def test_receipts_come_in_the_order_of_the_call(store: Store) -> None:
    old, clash, new, late = draft(), draft(), draft(), draft(delay=MINUTE)
    await stored(store, old, clash)
    other = draft(id=clash.id, payload=b"[43]")
    assert list(await store.enqueue([new, old, other, late])) == [
        Receipt(new.id, "accepted", created=True),
        Receipt(old.id, "accepted", created=False),
        Receipt(clash.id, "conflict", created=False),
        Receipt(late.id, "accepted", created=True),
    ]
    assert {r.id for r in await listing(store)} == {old.id, clash.id, new.id, late.id}


async def test_enqueueing_nothing_answers_nothing(store: Store) -> None:
    assert list(await store.enqueue([])) == []


async def test_the_same_job_again_is_accepted_and_changes_nothing(store: Store) -> None:
    job = draft()
    await stored(store, job)
    before = await record(store, job.id)
    store.shift += MINUTE
    again = draft(id=job.id, delay=DAY, priority=50, tags=("new",), terms=Terms(), alone=True)
    assert list(await store.enqueue([again])) == [Receipt(job.id, "accepted", created=False)]
    assert await record(store, job.id) == before


@pytest.mark.parametrize("other", [{"task": "shop.print"}, {"queue": "slow"}, {"payload": b"[43]"}])
async def test_the_same_id_with_other_content_is_a_conflict_and_changes_nothing(
    store: Store, other: dict[str, object]
) -> None:
    job = draft()
    await stored(store, job)
    before = await record(store, job.id)
    assert list(await store.enqueue([draft(id=job.id, **other)])) == [Receipt(job.id, "conflict", created=False)]
    assert await listing(store) == [before]


async def test_a_running_job_is_not_touched_by_its_own_repeat(store: Store) -> None:
    job = draft()
    await stored(store, job)
    claim = await (await hand(store)).take()
    before = await record(store, job.id)
    assert (await store.enqueue([job]))[0] == Receipt(job.id, "accepted", created=False)
    assert await record(store, job.id) == before
    assert (await finish(store, claim, Succeeded(b"1"))).answer == "accepted"


@pytest.mark.parametrize("verdict", [Succeeded(b"1"), FINAL_BOOM])
async def test_a_finished_job_is_known_by_its_id_for_a_minute_at_least(store: Store, verdict: object) -> None:
    job = draft(terms=Terms(keep=0))
    await stored(store, job)
    claim = await (await hand(store)).take()
    await finish(store, claim, verdict)  # type: ignore[arg-type]
    store.shift += TOMBSTONE - 1
    await store.prune(100)
    assert list(await store.enqueue([job])) == [Receipt(job.id, "accepted", created=False)]
    assert await state(store, job.id) in {"succeeded", "dead"}


async def test_after_pruning_the_id_makes_a_new_job(store: Store) -> None:
    worker = await hand(store)
    job = draft(terms=Terms(keep=0))
    await stored(store, job)
    await finish(store, await worker.take(), Succeeded(b"1"))
    store.shift += TOMBSTONE
    await store.prune(100)
    assert list(await store.enqueue([job])) == [Receipt(job.id, "accepted", created=True)]
    found = await record(store, job.id)
    assert (found.state, found.fence, found.result, found.settled_fence) == ("queued", 0, None, None)


async def test_a_job_that_appears_twice_in_one_call_is_stored_once(store: Store) -> None:
    job = draft()
    other = draft(id=job.id, payload=b"[43]")
    assert list(await store.enqueue([job, job, other])) == [
        Receipt(job.id, "accepted", created=True),
        Receipt(job.id, "accepted", created=False),
        Receipt(job.id, "conflict", created=False),
    ]
    assert [(r.id, r.payload) for r in await listing(store)] == [(job.id, job.payload)]


async def test_thousands_of_jobs_fit_in_one_call(store: Store) -> None:
    drafts: list[Draft] = [draft(tags=("bulk", str(n))) for n in range(3000)]
    await stored(store, *drafts)
    assert {r.id: r.tags for r in await listing(store)} == {d.id: d.tags for d in drafts}


async def test_a_connection_of_another_kind_is_refused_and_nothing_stored(store: Store) -> None:
    job = draft()
    with pytest.raises(ConfigError, match="connection"):
        await store.enqueue([job], connection=object())
    assert not await exists(store, job.id)


async def test_enqueue_leaves_other_jobs_alone(store: Store) -> None:
    worker = await hand(store)
    held = await running(store, worker)
    done = await ended(store, worker, Succeeded(b"1"))
    before = [await record(store, held.id), await record(store, done)]
    await stored(store, draft(), draft(delay=5))
    assert [await record(store, held.id), await record(store, done)] == before
