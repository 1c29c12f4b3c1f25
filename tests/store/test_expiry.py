"""The laws of `expires` and `deadline`, by which promote ends jobs, and of the fingerprint of a death."""

from typing import Any

import pytest

from holdfast.clock import HOUR, MINUTE
from holdfast.job import Released, State, Succeeded, Until
from holdfast.policy import decide
from holdfast.rulings import instant
from holdfast.store import Over, Promoted, Quota, Store, Where
from tests.store.acts import (
    BOOM,
    FINAL_BOOM,
    LOSS,
    TERMS,
    admitted,
    answer,
    bound,
    draft,
    finish,
    hand,
    keyed,
    listing,
    now,
    record,
    retried,
    running,
    state,
    stored,
)

ENDS_AS = {"expires": (State.CANCELLED, "expired"), "deadline": (State.DEAD, "deadline")}
both = pytest.mark.parametrize("limit", ENDS_AS)


@both
@pytest.mark.parametrize("by", ["delay", "at"])
async def test_at_its_time_it_is_over_and_not_before(store: Store, limit: str, by: str) -> None:
    began = await now(store)
    until = Until(delay=MINUTE) if by == "delay" else Until(at=began + MINUTE)
    times: dict[str, Any] = {limit: until}
    [job_id, other] = await stored(store, draft(**times), draft(queue="other"))
    found = await record(store, job_id)
    ends_at = began + MINUTE
    assert (found.expires_at, found.deadline_at) == ((ends_at, None) if limit == "expires" else (None, ends_at))
    assert await store.promote(10) == Promoted(0, MINUTE)
    store.shift += MINUTE - 1
    assert await store.promote(10) == Promoted(0, 1)
    worker = await hand(store)
    store.shift += 1
    assert [job.id for job in await worker.claim()] == [other], "its time is over, yet it was claimed"
    ended, reason = ENDS_AS[limit]
    assert await store.promote(10) == Promoted(0, None, (Over(job_id, "shop.send", "mail", reason),))  # type: ignore[arg-type]
    found = await record(store, job_id)
    assert (found.state, found.reason, found.finished_at) == (ended, reason, await now(store))
    assert (found.attempt, found.history, found.worker, found.settled_by) == (0, (), None, None)
    assert await store.promote(10) == Promoted(0, None)


async def test_before_its_time_it_is_claimed_and_knows_its_deadline(store: Store) -> None:
    at = await now(store) + MINUTE
    worker = await hand(store)
    store.shift += MINUTE - 1
    await worker.beat()
    job = await running(store, worker, expires=Until(at=at), deadline=Until(at=at + HOUR))
    assert job.deadline_at == at + HOUR
    assert (await running(store, worker)).deadline_at is None
    store.shift += HOUR  # what runs is its worker's affair
    assert await store.promote(10) == Promoted(0, None)
    assert (await finish(store, job, Succeeded(b"1"))).answer == "accepted"


async def test_a_sweeper_is_told_the_deadline_too(store: Store) -> None:
    job = await running(store, worker := await hand(store), deadline=Until(HOUR))
    await worker.retire(LOSS)
    taken = await (await hand(store)).reclaim()
    assert taken[job.id].deadline_at == job.deadline_at is not None


async def test_once_started_it_does_not_expire_but_its_deadline_goes_on(store: Store) -> None:
    """A retry, a release, a rescue: it was started in time."""
    worker = await hand(store)
    times: dict[str, Any] = {"expires": Until(MINUTE), "deadline": Until(HOUR)}
    failed, released = [await running(store, worker, **times) for _ in range(2)]
    await finish(store, failed, BOOM)
    await finish(store, released, Released())
    store.shift += 2 * MINUTE
    await worker.beat()
    assert await store.promote(10) == Promoted(1, HOUR - 2 * MINUTE)
    await stored(store, draft(expires=Until()))  # so that claims have something to pass over
    again = {job.id: job for job in await worker.claim()}
    assert again.keys() == {failed.id, released.id}
    await finish(store, again[failed.id], BOOM)
    store.shift += HOUR
    promoted = await store.promote(10)
    assert [over.reason for over in promoted.over if over.id == failed.id] == ["deadline"]
    found = await record(store, failed.id)
    assert (found.state, found.attempt, [past.fence for past in found.history]) == (State.DEAD, 2, [1, 2])
    assert (found.settled_fence, found.settled_state) == (2, State.SCHEDULED)
    assert (await finish(store, again[failed.id], BOOM)).answer == "replayed"


async def test_of_both_the_deadline_counts(store: Store) -> None:
    [job_id] = await stored(store, draft(expires=Until(5), deadline=Until(5)))
    [early] = await stored(store, draft(expires=Until(5), deadline=Until(MINUTE)))
    store.shift += 5
    assert {over.id: over.reason for over in (await store.promote(10)).over} == {job_id: "deadline", early: "expired"}


@both
async def test_scheduled_ones_are_ended_too_and_not_moved_before(store: Store, limit: str) -> None:
    times: dict[str, Any] = {limit: Until(MINUTE)}
    [job_id] = await stored(store, draft(delay=HOUR, **times))
    assert await store.promote(10) == Promoted(0, MINUTE)
    store.shift += 2 * HOUR
    promoted = await store.promote(10)
    assert (promoted.moved, [over.id for over in promoted.over]) == (0, [job_id])
    assert await state(store, job_id) == ENDS_AS[limit][0]


@both
async def test_one_that_is_over_from_the_start_is_stored_and_never_runs(store: Store, limit: str) -> None:
    at = await now(store) - 1
    options: list[dict[str, Any]] = [{limit: Until()}, {limit: Until(at=at)}, {limit: Until(), "delay": 5}]
    ids = await stored(store, *(draft(**each) for each in options))
    assert await (await hand(store)).claim() == []
    assert {over.id for over in (await store.promote(10)).over} == set(ids)


async def test_up_to_the_limit_are_ended_and_the_rest_is_due_at_once(store: Store) -> None:
    ids = await stored(store, *(draft(expires=Until(n)) for n in (1, 2, 3)), draft(deadline=Until(4)))
    await stored(store, draft(expires=Until(9)))
    store.shift += 4
    first = await store.promote(3)
    assert (len(first.over), first.next_in) == (3, 0)
    second = await store.promote(3)
    assert (len(second.over), second.next_in) == (1, 5)
    assert {over.id for over in (*first.over, *second.over)} == set(ids)


async def test_the_next_step_is_the_nearest_of_all(store: Store) -> None:
    await stored(store, draft(delay=30), draft(delay=10, expires=Until(40)), draft(deadline=Until(20)))
    nexts: list[Promoted] = []
    for _ in range(5):
        nexts.append(await store.promote(10))
        store.shift += nexts[-1].next_in or 0
    assert [(each.moved, len(each.over), each.next_in) for each in nexts] == [
        (0, 0, 10),
        (1, 0, 10),
        (0, 1, 10),
        (1, 0, 10),
        (0, 1, None),
    ]


async def test_those_that_are_over_do_not_stand_in_the_way(store: Store) -> None:
    """However many there are at the head."""
    await stored(store, *(draft(priority=5, expires=Until(1)) for _ in range(300)))
    ids = await stored(store, draft(), draft(priority=1))
    store.shift += 1
    worker = await hand(store)
    assert [job.id for job in await worker.claim(1, ["mail"])] == [ids[1]]
    assert [job.id for job in await worker.claim(5, None, [Quota("mail", 5)])] == [ids[0]]


@both
async def test_its_place_and_its_key_are_free(store: Store, limit: str) -> None:
    await bound(store, 1)
    times: dict[str, Any] = {limit: Until(5)}
    [job_id] = await stored(store, keyed(**times))
    assert await answer(store, draft()) == "full"
    store.shift += 5
    await store.promote(10)
    assert await admitted(store) == 0
    assert await answer(store, keyed()) == "accepted"
    assert await retried(store, job_id) == ["taken"]


@both
async def test_a_key_with_a_hold_is_held_after_the_end(store: Store, limit: str) -> None:
    times: dict[str, Any] = {limit: Until(5)}
    [job_id] = await stored(store, keyed(hold=MINUTE, **times))
    store.shift += 5
    await store.promote(10)
    assert (await record(store, job_id)).holds_until == await now(store) + MINUTE
    assert await answer(store, keyed()) == "duplicate"


async def test_an_expired_one_is_pruned_like_any_cancelled_one_a_dead_one_is_kept(store: Store) -> None:
    ids = await stored(store, draft(expires=Until(5)), draft(deadline=Until(5)))
    store.shift += 5
    await store.promote(10)
    store.shift += TERMS.keep - 1
    assert await store.prune(10) == 0
    store.shift += 1
    assert await store.prune(10) == 1
    store.shift += 1000 * HOUR
    assert await store.prune(10) == 0
    assert [found.id for found in await listing(store)] == [ids[1]]


@both
async def test_a_retry_begins_without_them(store: Store, limit: str) -> None:
    times: dict[str, Any] = {limit: Until(5)}
    [job_id] = await stored(store, draft(**times))
    store.shift += 5
    await store.promote(10)
    assert await retried(store, job_id) == ["retried"]
    assert await store.promote(10) == Promoted(0, None)
    found = await record(store, job_id)
    assert (found.state, found.reason, found.expires_at, found.deadline_at) == (State.QUEUED, "", None, None)
    assert (await (await hand(store)).take()).deadline_at is None


async def test_a_cancelled_or_deleted_one_is_nobodys_affair_any_more(store: Store) -> None:
    ids = await stored(store, *(draft(expires=Until(5), deadline=Until(9)) for _ in range(2)))
    await store.cancel(ids[:1])
    await store.delete(ids[1:])
    assert await store.promote(10) == Promoted(0, None)
    store.shift += 9
    assert await store.promote(10) == Promoted(0, None)


async def test_a_replaced_one_has_the_times_of_who_spoke_last(store: Store) -> None:
    """Also where its own time is over already, but nobody has ended it."""
    [job_id] = await stored(store, keyed(expires=Until(MINUTE), deadline=Until(HOUR)))
    store.shift += MINUTE
    said = [
        {"expires": Until(2 * HOUR), "deadline": Until(at=await now(store) + 3 * HOUR), "delay": 30 * MINUTE},
        {"deadline": Until(MINUTE)},
        {},
        {"expires": Until(10), "delay": 5},
    ]
    for limits in said:
        at, job = await now(store), keyed(on_clash="replace", **limits)
        assert await answer(store, job) == "replaced"
        found = await record(store, job_id)
        assert (found.expires_at, found.deadline_at) == (instant(job.expires, at), instant(job.deadline, at))
        assert (await store.promote(10)).over == ()
    store.shift += 10
    assert [over.reason for over in (await store.promote(10)).over] == ["expired"]
    assert await store.promote(10) == Promoted(0, None), "something is left of the times that it had before"


async def test_replaced_within_one_call_it_has_the_last_times(store: Store) -> None:
    first = keyed(expires=Until(MINUTE), on_clash="replace")
    jobs = [first, keyed(on_clash="replace", expires=Until(HOUR)), keyed(on_clash="replace", deadline=Until(5))]
    assert [receipt.answer for receipt in await store.enqueue(jobs)] == ["accepted", "replaced", "replaced"]
    found = await record(store, first.id)
    assert (found.expires_at, found.deadline_at) == (None, found.enqueued_at + 5)
    store.shift += 5
    assert [over.reason for over in (await store.promote(10)).over] == ["deadline"]
    assert await store.promote(10) == Promoted(0, None)


async def test_enqueued_again_the_times_are_the_first_ones(store: Store) -> None:
    first = draft(expires=Until(MINUTE))
    await stored(store, first)
    store.shift += 5
    assert await answer(store, first) == "accepted"
    assert (await record(store, first.id)).expires_at == await now(store) - 5 + MINUTE


async def test_a_fingerprint_stands_with_the_death_that_it_tells_of(store: Store) -> None:
    worker = await hand(store)
    job, other = [await running(store, worker) for _ in range(2)]
    outcome = decide(job, FINAL_BOOM)._replace(fingerprint="f7c1e90ab314")
    assert [settled.answer for settled in await store.finish([outcome])] == ["accepted"]
    await finish(store, other, FINAL_BOOM)
    assert (await record(store, job.id)).fingerprint == "f7c1e90ab314"
    assert [found.id for found in await listing(store, Where(fingerprint="f7c1e90ab314"))] == [job.id]
    assert await listing(store, Where(fingerprint="f7c1")) == []
    assert await listing(store, Where(fingerprint="f7c1e90ab314", states=[State.CANCELLED])) == []
    assert await listing(store, Where(fingerprint="f7c1e90ab314", queue=job.queue, task="shop.send")) != []
    await retried(store, job.id)
    assert (await record(store, job.id)).fingerprint == ""
    assert await listing(store, Where(fingerprint="f7c1e90ab314")) == []
    [again] = await worker.claim(1, [job.queue])
    await store.finish([decide(again, BOOM)._replace(fingerprint="f7c1e90ab314")])  # not dead: nothing to tell of
    assert (await record(store, job.id)).fingerprint == ""
