"""The laws of stats: the queues as they are now."""

import pytest

from holdfast.clock import HOUR, MINUTE
from holdfast.job import QueueTerms, State, Succeeded
from holdfast.store import QueueStats, Store
from tests.store.acts import (
    BOOM,
    ENDS,
    FINAL_BOOM,
    GOES_ON,
    Way,
    bound,
    draft,
    ended,
    finish,
    hand,
    now,
    record,
    retried,
    stats_of,
    stored,
)


async def test_an_empty_store_has_no_queues_but_a_time(store: Store) -> None:
    store.shift = 12_345
    stats = await store.stats()
    assert (stats.now, list(stats.queues)) == (await now(store), [])


async def test_jobs_are_counted_by_state(store: Store) -> None:
    worker = await hand(store)
    await ended(store, worker, Succeeded(b"1"), queue="mail")
    await ended(store, worker, FINAL_BOOM, queue="mail")
    await ended(store, worker, FINAL_BOOM, queue="mail")
    await stored(store, draft(), draft(), draft())
    await worker.claim(1)
    await stored(store, draft(delay=HOUR))
    [gone] = await stored(store, draft())
    await store.cancel([gone])
    assert await stats_of(store) == QueueStats(
        "mail",
        QueueTerms(),
        edited=False,
        counts={State.QUEUED: 2, State.RUNNING: 1, State.SCHEDULED: 1, State.DEAD: 2},
        admitted=None,
        dropped=0,
        oldest_due=await now(store),
    )


@pytest.mark.parametrize("end", ENDS)
async def test_of_what_has_ended_only_the_dead_are_counted(store: Store, end: str) -> None:
    [job_id] = await stored(store, draft())
    await ENDS[end](store, job_id)
    stats = await stats_of(store)
    dead = (await record(store, job_id)).state is State.DEAD
    assert (stats and stats.counts) == ({State.DEAD: 1} if dead else None)


async def test_a_declared_queue_is_shown_though_it_is_empty(store: Store) -> None:
    terms = QueueTerms(7, "block", MINUTE)
    await store.configure({"mail": terms}, by="producer")
    await store.configure({"free": QueueTerms()}, by="operator")
    assert list((await store.stats()).queues) == [
        QueueStats("free", QueueTerms(), edited=True, counts={}, admitted=None, dropped=0, oldest_due=None),
        QueueStats("mail", terms, edited=False, counts={}, admitted=0, dropped=0, oldest_due=None),
    ]


async def test_queues_come_by_name(store: Store) -> None:
    names = ["b", "a", "C", "é", "a.1", "Z", "z"]
    await stored(store, *(draft(queue=name) for name in names[:4]))
    for name in names[4:]:
        await bound(store, 1, queue=name)
    assert [each.name for each in (await store.stats()).queues] == sorted(names)


@pytest.mark.parametrize("way", GOES_ON.values(), ids=GOES_ON.keys())
async def test_what_goes_on_is_counted_where_it_stands(store: Store, way: Way) -> None:
    await bound(store, 5)
    [job_id] = await stored(store, draft())
    await way(store, job_id)
    stats = await stats_of(store)
    assert stats is not None
    assert stats.counts == {(await record(store, job_id)).state: 1}
    assert stats.admitted == 1


async def test_the_oldest_due_is_that_of_the_jobs_that_wait_to_be_claimed(store: Store) -> None:
    start = await now(store)
    await stored(store, draft(at=start - MINUTE), draft(at=start - HOUR, priority=-1), draft(delay=5))
    assert (await stats_of(store)).oldest_due == start - HOUR  # type: ignore[union-attr]
    worker = await hand(store)
    await worker.claim(1)
    assert (await stats_of(store)).oldest_due == start - HOUR  # type: ignore[union-attr]
    job = await worker.take()
    assert (await stats_of(store)).oldest_due is None  # type: ignore[union-attr]
    await finish(store, job, BOOM)
    assert (await stats_of(store)).oldest_due is None  # type: ignore[union-attr]
    store.shift += 5
    await store.promote(10)
    assert (await stats_of(store)).oldest_due == start + 5  # type: ignore[union-attr]


async def test_a_retried_job_is_counted_as_queued_and_no_more_as_dead(store: Store) -> None:
    dead = await ended(store, await hand(store), FINAL_BOOM, queue="mail")
    await retried(store, dead)
    stats = await stats_of(store)
    assert stats is not None
    assert stats.counts == {State.QUEUED: 1}


async def test_deleted_and_pruned_jobs_are_not_counted(store: Store) -> None:
    worker = await hand(store)
    dead = [await ended(store, worker, FINAL_BOOM, queue="mail") for _ in range(3)]
    await store.delete(dead[:2])
    stats = await stats_of(store)
    assert stats is not None
    assert stats.counts == {State.DEAD: 1}
    await store.delete(dead)
    assert await stats_of(store) is None


async def test_thousands_are_counted(store: Store) -> None:
    await stored(store, *(draft(queue=f"q{n % 10}", delay=n % 2) for n in range(3000)))
    assert {each.name: each.counts for each in (await store.stats()).queues} == {
        f"q{n}": {State.SCHEDULED if n % 2 else State.QUEUED: 300} for n in range(10)
    }
