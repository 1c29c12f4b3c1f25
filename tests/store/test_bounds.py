"""The laws of bounded queues: a place is taken by an enqueue or a retry, given back by the end, and never oversold."""

from dataclasses import replace
from typing import Any

import pytest

from holdfast.clock import HOUR, MINUTE, SECOND
from holdfast.job import TOMBSTONE, QueueTerms, State, Succeeded, Terms, WhenFull, new_id
from holdfast.policy import decide
from holdfast.store import Receipt, Room, Store
from tests.store.acts import (
    ENDS,
    FINAL_BOOM,
    GOES_ON,
    Way,
    admitted,
    answer,
    answers,
    bound,
    draft,
    ended,
    exists,
    finish,
    hand,
    listing,
    now,
    receipt,
    record,
    retried,
    stats_of,
    stored,
)

MODES: list[WhenFull] = ["block", "reject", "drop_oldest", "drop_newest"]
modes = pytest.mark.parametrize("when_full", MODES)


async def _dropped(store: Store) -> int:
    stats = await stats_of(store)
    return 0 if stats is None else stats.dropped


# --- a full queue


@modes
@pytest.mark.parametrize("size", [1, 3])
async def test_up_to_its_bound_a_queue_takes_every_job(store: Store, when_full: WhenFull, size: int) -> None:
    await bound(store, size, when_full)
    await stored(store, *(draft(delay=n % 2) for n in range(size)))
    assert await admitted(store) == size
    assert await _dropped(store) == 0


@pytest.mark.parametrize("when_full", ["block", "reject"])
async def test_a_full_queue_stores_nothing_and_says_so(store: Store, when_full: WhenFull) -> None:
    await store.configure({"mail": QueueTerms(2, when_full, 7 * SECOND)}, by="worker")
    await stored(store, draft(), draft())
    before = await listing(store)
    job = draft()
    assert await receipt(store, job) == Receipt(job.id, "full", created=False, room=Room(2, 2, when_full, 7 * SECOND))
    assert await listing(store) == before
    assert await _dropped(store) == 0


async def test_drop_newest_stores_nothing_and_counts_it(store: Store) -> None:
    await bound(store, 2, "drop_newest")
    await stored(store, draft(), draft())
    before = await listing(store)
    jobs = [draft() for _ in range(3)]
    room = Room(2, 2, "drop_newest", None)
    assert list(await store.enqueue(jobs)) == [Receipt(job.id, "dropped", created=False, room=room) for job in jobs]
    assert await listing(store) == before
    assert await _dropped(store) == 3


async def test_drop_oldest_ends_the_oldest_job_and_counts_it(store: Store) -> None:
    await bound(store, 2, "drop_oldest")
    first, second, third = draft(priority=9), draft(terms=Terms(keep=HOUR)), draft()
    for job in (first, second):
        await stored(store, job)
        store.shift += 1
    before = await record(store, first.id)
    assert await receipt(store, third) == Receipt(third.id, "accepted", dropped=first.id)
    assert await record(store, first.id) == replace(
        before, state=State.CANCELLED, reason="dropped", finished_at=await now(store)
    )
    assert {row.id for row in await listing(store) if row.state == "queued"} == {second.id, third.id}
    assert (await admitted(store), await _dropped(store)) == (2, 1)


async def test_a_dropped_job_is_pruned_like_a_cancelled_one_and_never_runs(store: Store) -> None:
    await bound(store, 1, "drop_oldest")
    old, new = draft(terms=Terms(keep=0)), draft()
    await stored(store, old)
    assert (await receipt(store, new)).dropped == old.id
    assert [job.id for job in await (await hand(store)).claim()] == [new.id]
    store.shift += TOMBSTONE - 1
    assert await store.prune(10) == 0
    store.shift += 1
    assert await store.prune(10) == 1


async def test_the_oldest_is_the_first_enqueued_and_among_equals_the_lowest_id(store: Store) -> None:
    await bound(store, 5, "drop_oldest")
    ids = sorted(new_id() for _ in range(4))
    early = draft(id=ids[3], priority=9, delay=HOUR)
    await stored(store, early)
    store.shift += 1
    equals = [draft(id=ids[n]) for n in (1, 0, 2)]
    await stored(store, *equals)
    store.shift += 1
    await stored(store, draft(at=0, priority=-9))
    dropped = [(await receipt(store, draft())).dropped for _ in range(4)]
    assert dropped == [early.id, ids[0], ids[1], ids[2]]


async def test_a_scheduled_job_is_dropped_like_a_queued_one(store: Store) -> None:
    await bound(store, 2, "drop_oldest")
    late = draft(delay=HOUR)
    await stored(store, late)
    store.shift += 1
    await stored(store, draft())
    assert (await receipt(store, draft(delay=HOUR))).dropped == late.id
    store.shift += HOUR
    await store.promote(10)
    assert (await record(store, late.id)).state == "cancelled"


@pytest.mark.parametrize("way", GOES_ON.values(), ids=GOES_ON.keys())
async def test_what_was_started_is_never_dropped(store: Store, way: Way) -> None:
    await bound(store, 1, "drop_oldest")
    started, refused = draft(), draft()
    await stored(store, started)
    await way(store, started.id)
    before = await record(store, started.id)
    room = Room(1, 1, "drop_oldest", None)
    assert await receipt(store, refused) == Receipt(refused.id, "full", created=False, room=room)
    await bound(store, 2, "drop_oldest")
    second = draft()
    await stored(store, second)
    assert (await receipt(store, draft())).dropped == second.id, "of two, the one that was not started"
    assert await record(store, started.id) == before
    assert await _dropped(store) == 1


async def test_a_new_life_that_was_not_started_can_be_dropped(store: Store) -> None:
    await bound(store, 2, "drop_oldest")
    old, new = draft(), draft()
    await stored(store, old)
    await ENDS["dies"](store, old.id)
    store.shift += 1
    await stored(store, new)
    assert await retried(store, old.id) == ["retried"]
    assert (await receipt(store, draft())).dropped == old.id


async def test_what_is_dropped_by_many_drafts_of_one_call_comes_in_its_order(store: Store) -> None:
    await bound(store, 2, "drop_oldest")
    ids = sorted(new_id() for _ in range(6))
    drafts = [draft(id=job_id) for job_id in ids]
    receipts = await store.enqueue([*drafts, drafts[0]])
    assert [r.dropped for r in receipts] == [None, None, *ids[:4], None]
    assert [r.created for r in receipts] == [True] * 6 + [False]
    assert await _dropped(store) == 4
    assert {row.id for row in await listing(store) if row.state == "queued"} == set(ids[4:])


async def test_hundreds_are_dropped_one_for_one(store: Store) -> None:
    await bound(store, 50, "drop_oldest")
    drafts = [draft() for _ in range(400)]
    receipts = await store.enqueue(drafts)
    assert [r.dropped for r in receipts] == [None] * 50 + [job.id for job in drafts[:350]]
    assert (await admitted(store), await _dropped(store)) == (50, 350)


async def test_after_started_ended_and_deleted_jobs_the_oldest_is_still_found(store: Store) -> None:
    """Whatever a store remembers of its oldest jobs must not go stale."""
    await bound(store, 4, "drop_oldest")
    worker = await hand(store)
    drafts = [draft() for _ in range(4)]
    for job in drafts:
        await stored(store, job)
        store.shift += 1
    late = [draft(delay=MINUTE) for _ in range(3)]
    assert (await receipt(store, late[0])).dropped == drafts[0].id
    claims = await worker.claim(2)
    assert [job.id for job in claims] == [drafts[1].id, drafts[2].id]
    await finish(store, claims[0], FINAL_BOOM)
    await store.delete([drafts[3].id])
    await stored(store, *late[1:])
    assert await retried(store, drafts[1].id) == ["full"]
    assert (await receipt(store, draft())).dropped == late[0].id
    await finish(store, claims[1], FINAL_BOOM)
    assert await retried(store, drafts[1].id) == ["retried"]
    assert (await receipt(store, draft())).dropped == drafts[1].id, "it was enqueued before all others"


# --- who counts, and until when


@modes
async def test_queues_are_bounded_each_for_itself(store: Store, when_full: WhenFull) -> None:
    await bound(store, 1, when_full, "mail")
    await bound(store, 2, when_full, "slow")
    jobs = [draft(queue=name) for name in ("mail", "slow", "slow", "free", "free", "free")]
    await stored(store, *jobs)
    assert [await admitted(store, name) for name in ("mail", "slow", "free")] == [1, 2, None]
    await answers(store, [draft(queue=name) for name in ("mail", "slow", "free")])
    assert [await admitted(store, name) for name in ("mail", "slow", "free")] == [1, 2, None]


@modes
@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS.keys())
async def test_every_end_gives_the_place_back_once(store: Store, when_full: WhenFull, end: Way) -> None:
    await bound(store, 1, when_full)
    job, second = draft(), draft()
    await stored(store, job)
    await end(store, job.id)
    assert await admitted(store) == 0
    assert await receipt(store, second) == Receipt(second.id, "accepted")
    assert await admitted(store) == 1
    third = await receipt(store, draft())
    assert third.room is not None or third.dropped == second.id


@pytest.mark.parametrize("way", GOES_ON.values(), ids=GOES_ON.keys())
async def test_what_goes_on_keeps_its_place_and_is_never_refused(store: Store, way: Way) -> None:
    await bound(store, 1)
    [job_id] = await stored(store, draft())
    await way(store, job_id)
    assert await admitted(store) == 1
    assert await answer(store, draft()) == "full"


async def test_a_refused_outcome_gives_no_place_back(store: Store) -> None:
    await bound(store, 2)
    worker = await hand(store)
    await stored(store, draft(), draft())
    first, second = await worker.claim(2)
    assert (await finish(store, first._replace(fence=2), Succeeded(b"1"))).answer == "stale"
    assert (await finish(store, second, Succeeded(b"1"))).answer == "accepted"
    assert (await finish(store, second, Succeeded(b"1"))).answer == "replayed"
    assert await admitted(store) == 1


async def test_an_outcome_twice_in_one_call_gives_one_place_back(store: Store) -> None:
    await bound(store, 2)
    await stored(store, draft(), draft())
    [first, _] = await (await hand(store)).claim(2)
    await store.finish([decide(first, Succeeded(b"1"))] * 3)
    assert await admitted(store) == 1


async def test_pruning_and_deleting_what_has_ended_gives_no_second_place_back(store: Store) -> None:
    await bound(store, 2)
    worker = await hand(store)
    done, gone = draft(terms=Terms(keep=0)), draft()
    await stored(store, done, gone)
    for job in await worker.claim(2):
        await finish(store, job, Succeeded(b"1"))
    await stored(store, draft())
    await store.delete([gone.id])
    store.shift += TOMBSTONE
    assert await store.prune(10) == 2
    assert await admitted(store) == 1


@pytest.mark.parametrize("delay", [0, HOUR])
async def test_a_deleted_job_gives_its_place_back(store: Store, delay: int) -> None:
    await bound(store, 1)
    [job_id] = await stored(store, draft(delay=delay))
    await store.delete([job_id])
    assert await admitted(store) == 0
    assert await answers(store, [draft(), draft()]) == ["accepted", "full"]


async def test_the_id_comes_first(store: Store) -> None:
    await bound(store, 1)
    job = draft()
    await stored(store, job)
    assert await answers(store, [job, draft(id=job.id, payload=b"[43]"), draft()]) == ["accepted", "conflict", "full"]
    assert await admitted(store) == 1


@modes
async def test_in_one_call_the_first_that_fit_are_stored(store: Store, when_full: WhenFull) -> None:
    await bound(store, 3, when_full)
    await stored(store, draft())
    drafts = [draft() for _ in range(5)]
    other = draft(queue="free")
    says = {"drop_oldest": "accepted", "drop_newest": "dropped"}.get(when_full, "full")
    expected = ["accepted", "accepted", "accepted", says, says, says]
    assert await answers(store, [drafts[0], other, *drafts[1:]]) == expected
    assert await admitted(store) == 3
    assert await exists(store, other.id)


async def test_thousands_meet_a_bound_in_one_call(store: Store) -> None:
    await bound(store, 700)
    assert await answers(store, [draft() for _ in range(2000)]) == ["accepted"] * 700 + ["full"] * 1300
    assert await admitted(store) == 700


# --- an operator's retry


@modes
async def test_a_retry_asks_for_a_place_and_drops_nothing(store: Store, when_full: WhenFull) -> None:
    dead = await ended(store, await hand(store), FINAL_BOOM, queue="mail")
    await bound(store, 1, when_full)
    other = draft()
    await stored(store, other)
    before = await listing(store)
    [refusal] = await store.retry([dead])
    assert (refusal.answer, refusal.holder, refusal.room) == ("full", None, Room(1, 1, when_full, None))
    assert await listing(store) == before
    assert await _dropped(store) == 0
    await store.cancel([other.id])
    assert await retried(store, dead) == ["retried"]
    assert await admitted(store) == 1
    assert await retried(store, other.id, dead) == ["full", "unfinished"]


async def test_of_many_retries_in_one_call_as_many_as_fit_are_served(store: Store) -> None:
    ids = await stored(store, *(draft() for _ in range(5)))
    await store.cancel(ids)
    await bound(store, 3)
    assert await retried(store, *ids) == ["retried"] * 3 + ["full"] * 2
    assert await admitted(store) == 3


async def test_a_retried_job_gives_its_place_back_again(store: Store) -> None:
    await bound(store, 1)
    [job_id] = await stored(store, draft())
    for _ in range(3):
        await ENDS["dies"](store, job_id)
        assert await admitted(store) == 0
        assert await retried(store, job_id) == ["retried"]
        assert await admitted(store) == 1


# --- a bound that comes, goes and changes


async def test_jobs_that_were_there_before_the_bound_count(store: Store) -> None:
    worker = await hand(store)
    await stored(store, draft(), draft(), draft(delay=HOUR), draft())
    await worker.claim(1)
    await finish(store, await worker.take(), FINAL_BOOM)
    await bound(store, 3)
    assert await admitted(store) == 3
    assert await answer(store, draft()) == "full"


@modes
async def test_a_lowered_bound_drops_nothing_and_never_lets_the_queue_grow(store: Store, when_full: WhenFull) -> None:
    await bound(store, 4, when_full)
    ids = await stored(store, *(draft() for _ in range(4)))
    await bound(store, 2, when_full)
    assert await admitted(store) == 4
    assert {row.state for row in await listing(store)} == {State.QUEUED}
    met = await receipt(store, draft())
    assert met.dropped == (ids[0] if when_full == "drop_oldest" else None)
    assert met.room is None or met.room[:2] == (4, 2)
    assert await admitted(store) == 4
    worker = await hand(store)
    for left in (3, 2):
        await finish(store, await worker.take(), Succeeded(b"1"))
        assert await admitted(store) == left
        await answer(store, draft())
        assert await admitted(store) == left, "above the bound nothing may be added"
    await finish(store, await worker.take(), Succeeded(b"1"))
    assert await answers(store, [draft()]) == ["accepted"]
    assert await admitted(store) == 2


async def test_a_raised_bound_has_places_at_once(store: Store) -> None:
    await bound(store, 1)
    assert await answers(store, [draft(), draft()]) == ["accepted", "full"]
    await bound(store, 3)
    assert await answers(store, [draft(), draft(), draft()]) == ["accepted", "accepted", "full"]


async def test_a_bound_taken_away_and_set_again_counts_what_came_meanwhile(store: Store) -> None:
    await bound(store, 1)
    await stored(store, draft())
    await bound(store, None)
    worker = await hand(store)
    await stored(store, draft(), draft(), draft())
    await finish(store, await worker.take(), Succeeded(b"1"))
    assert await admitted(store) is None
    await bound(store, 4)
    assert await admitted(store) == 3
    assert await answers(store, [draft(), draft()]) == ["accepted", "full"]


async def test_a_mode_may_change_while_the_queue_is_full(store: Store) -> None:
    await bound(store, 1, "reject")
    first, second, third = draft(), draft(), draft()
    await stored(store, first)
    says: dict[WhenFull, Any] = {}
    for when_full in ("reject", "drop_newest", "block"):
        await bound(store, 1, when_full)
        says[when_full] = await answer(store, second)
    assert says == {"reject": "full", "drop_newest": "dropped", "block": "full"}
    await bound(store, 1, "drop_oldest")
    assert (await receipt(store, third)).dropped == first.id
    assert await _dropped(store) == 2
