"""The laws of promote."""

import pytest

from holdfast.clock import HOUR, MINUTE
from holdfast.job import State
from holdfast.store import Promoted, Store
from tests.store.acts import BOOM, TERMS, draft, finish, hand, listing, now, record, running, state, stored


async def test_nothing_scheduled_nothing_to_come(store: Store) -> None:
    await stored(store, draft())
    assert await store.promote(10) == Promoted(0, None)


@pytest.mark.parametrize("by", ["delay", "at"])
async def test_a_job_is_promoted_when_it_is_due_and_not_before(store: Store, by: str) -> None:
    when = MINUTE if by == "delay" else await now(store) + MINUTE
    [job_id] = await stored(store, draft(**{by: when}))
    due_at = (await record(store, job_id)).due_at
    assert await store.promote(10) == Promoted(0, MINUTE)
    store.shift += MINUTE - 1
    assert await store.promote(10) == Promoted(0, 1)
    assert await state(store, job_id) == State.SCHEDULED
    store.shift += 1
    assert await store.promote(10) == Promoted(1, None)
    found = await record(store, job_id)
    assert (found.state, found.due_at) == (State.QUEUED, due_at)
    assert await store.promote(10) == Promoted(0, None)


async def test_the_earliest_due_first_up_to_the_limit(store: Store) -> None:
    delays = [40, 10, 30, 20, 50]
    ids = dict(zip(delays, await stored(store, *(draft(delay=d) for d in delays)), strict=True))
    store.shift += 45
    assert await store.promote(2) == Promoted(2, 0)
    assert {job_id for job_id in ids.values() if await state(store, job_id) == "queued"} == {ids[10], ids[20]}
    assert await store.promote(1) == Promoted(1, 0)
    assert await state(store, ids[30]) == "queued"
    assert await store.promote(2) == Promoted(1, 5)
    assert await state(store, ids[50]) == "scheduled"


async def test_a_limit_that_is_just_met_tells_when_the_next_is_due(store: Store) -> None:
    await stored(store, draft(delay=10), draft(delay=25))
    store.shift += 10
    assert await store.promote(1) == Promoted(1, 15)
    store.shift += 15
    assert await store.promote(1) == Promoted(1, None)


async def test_urgency_plays_no_part_in_promotion(store: Store) -> None:
    urgent, early = await stored(store, draft(delay=20, priority=100), draft(delay=10, priority=-100))
    store.shift += 30
    await store.promote(1)
    assert (await state(store, urgent), await state(store, early)) == ("scheduled", "queued")


async def test_a_retry_waits_in_the_store_and_runs_again_when_due(store: Store) -> None:
    worker = await hand(store)
    job = await running(store, worker)
    await finish(store, job, BOOM)
    assert await store.promote(10) == Promoted(0, TERMS.base_delay)
    store.shift += TERMS.base_delay
    assert await store.promote(10) == Promoted(1, None)
    assert (await worker.take()).attempt == 2


async def test_what_is_due_far_off_is_told_exactly(store: Store) -> None:
    await stored(store, draft(delay=100 * 365 * 24 * HOUR))
    assert await store.promote(1) == Promoted(0, 100 * 365 * 24 * HOUR)


async def test_hundreds_are_promoted_in_batches(store: Store) -> None:
    await stored(store, *(draft(delay=1 + n) for n in range(700)))
    store.shift += 650
    assert [await store.promote(300) for _ in range(3)] == [
        Promoted(300, 0),
        Promoted(300, 0),
        Promoted(50, 1),
    ]
    assert sum(r.state == "queued" for r in await listing(store)) == 650
