"""The laws of a claim with quotas: so many of each queue named there, in their order, then as without."""

from collections import Counter

import pytest

from holdfast.clock import MINUTE
from holdfast.job import Released, Until
from holdfast.store import Quota, Store
from tests.store.acts import draft, finish, hand, stored

NAMES = ["a", "b", "c"]


async def _fill(store: Store, each: int) -> None:
    await stored(store, *(draft(queue=name) for name in NAMES for _ in range(each)))


@pytest.mark.parametrize(
    ("quotas", "limit", "taken"),
    [
        ([Quota("a", 1), Quota("b", 2)], 3, {"a": 1, "b": 2}),
        ([Quota("b", 2), Quota("a", 9)], 4, {"b": 2, "a": 2}),
        ([Quota("c", 9)], 2, {"c": 2}),
        ([Quota("a", 0), Quota("c", 1), Quota("nobody", 5)], 1, {"c": 1}),
        ([Quota("a", 2), Quota("a", 1)], 3, {"a": 3}),
        ([Quota("c", 2), Quota("b", 4)], 0, {}),
        ([Quota("a", 1)], 100, {"a": 4, "b": 4, "c": 4}),  # with room left, as without
    ],
)
async def test_each_queue_gives_what_its_quota_says(
    store: Store, quotas: list[Quota], limit: int, taken: dict[str, int]
) -> None:
    await _fill(store, 4)
    worker = await hand(store)
    jobs = await worker.claim(limit, NAMES, quotas)
    assert Counter(job.queue for job in jobs) == taken


async def test_in_each_queue_the_head_comes_first_and_the_rest_follows_in_its_turn(store: Store) -> None:
    ids = await stored(store, *(draft(queue="a", priority=n) for n in range(5)))
    others = await stored(store, *(draft(queue=name) for name in ("b", "c") for _ in range(2)))
    worker = await hand(store)
    assert [job.id for job in await worker.claim(2, NAMES, [Quota("a", 2)])] == [ids[4], ids[3]]
    jobs = await worker.claim(4, NAMES, [Quota("a", 1)])
    assert len(jobs) == len({job.id for job in jobs}) == 4
    assert ids[2] in {job.id for job in jobs}
    rest = await worker.claim(100, NAMES, [Quota("a", 1)])
    assert {job.id for job in [*jobs, *rest]} == {*ids[:3], *others}
    assert await worker.claim(100, NAMES, [Quota("a", 9)]) == []


async def test_a_quota_counts_for_queues_that_are_not_asked_for_otherwise(store: Store) -> None:
    await stored(store, draft(queue="b"), draft(queue="b"), draft(queue="c"))
    jobs = await (await hand(store)).claim(9, ["a"], [Quota("b", 1)])
    assert [job.queue for job in jobs] == ["b"]


async def test_what_an_empty_queue_leaves_goes_to_the_others(store: Store) -> None:
    await stored(store, draft(queue="a"), *(draft(queue="b") for _ in range(9)))
    jobs = await (await hand(store)).claim(8, NAMES, [Quota("a", 6), Quota("b", 1), Quota("c", 1)])
    assert Counter(job.queue for job in jobs) == {"a": 1, "b": 7}


async def test_a_quota_takes_nothing_that_is_paused_or_over(store: Store) -> None:
    await _fill(store, 2)
    await stored(store, draft(queue="b", priority=9, expires=Until(5)), draft(queue="b", priority=8, deadline=Until(5)))
    await store.pause("a", Until(MINUTE))
    store.shift += 5
    worker = await hand(store)
    jobs = await worker.claim(3, ["a", "b"], [Quota("a", 5), Quota("b", 5)])
    assert [(job.queue, job.priority) for job in jobs] == [("b", 0)] * 2


async def test_a_lost_reply_is_the_same_jobs_whatever_the_quotas_are_then(store: Store) -> None:
    await _fill(store, 3)
    worker = await hand(store)
    first = (await store.claim(worker.id, 1, NAMES, 3, [Quota("b", 2), Quota("a", 1)])).jobs
    again = (await store.claim(worker.id, 1, NAMES, 3, [Quota("c", 3)])).jobs
    assert {job.id for job in again} == {job.id for job in first}
    assert Counter(job.queue for job in first) == {"b": 2, "a": 1}


async def test_with_changing_quotas_every_queue_gets_its_share_of_many_claims(store: Store) -> None:
    """As a worker that weighs queues claims: never for more than it has room for."""
    await _fill(store, 12)
    worker = await hand(store)
    took: Counter[str] = Counter()
    for quotas in [[Quota("a", 6)], [Quota("b", 3), Quota("c", 1), Quota("a", 2)], [Quota("c", 4), Quota("b", 2)]]:
        took.update(job.queue for job in await worker.claim(6, NAMES, quotas))
    assert took == {"a": 8, "b": 5, "c": 5}


async def test_what_was_given_back_is_taken_by_the_next_quota(store: Store) -> None:
    await stored(store, draft(queue="a"), draft(queue="b"))
    worker = await hand(store)
    [job] = await worker.claim(1, NAMES, [Quota("b", 1)])
    assert (await finish(store, job, Released())).answer == "accepted"
    assert [(again.id, again.attempt) for again in await worker.claim(1, NAMES, [Quota("b", 1)])] == [(job.id, 1)]
