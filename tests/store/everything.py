"""All that a store does for producers, workers and operators, once: for tests of the rights that this takes."""

import secrets

from holdfast.clock import DAY, MINUTE
from holdfast.job import Note, State, Succeeded, Until
from holdfast.store import BUCKETS, Entry, Level, Quota, Store, Tally, Tick
from tests.store.acts import BOOM, FINAL_BOOM, bound, draft, finish, hand, keyed, now, record, retried, stats_of, stored


async def all_that_a_store_does(store: Store) -> None:
    """On queues that are nobody else's; it prunes two days' jobs of all."""
    queue, other = f"mail {secrets.token_hex(4)}", f"other {secrets.token_hex(4)}"
    await bound(store, 3, queue=queue)
    worker = await hand(store)
    ids = await stored(store, keyed(queue=queue), draft(queue=queue), draft(queue=queue, delay=5), draft(queue=other))
    store.shift += 5
    await store.promote(100)
    jobs = await worker.claim(10, [queue, other])
    assert len(jobs) == len(ids)
    said = [Note(job.id, job.fence, worker.id, 0.5, "half", ((0, "line"),), b"1") for job in jobs]
    assert list(await store.note(said)) == [True] * 4
    assert len(await store.log(ids[0])) == 1
    for job, verdict in zip(jobs, [Succeeded(b"1"), BOOM, FINAL_BOOM], strict=False):
        assert (await finish(store, job, verdict)).answer == "accepted"
    assert list(await store.cancel([jobs[3].id])) == ["requested"]
    assert [line.kind for line in await store.mail([worker.id])] == ["cancel"]
    await worker.retire()
    sweeper = await hand(store)
    assert len(await sweeper.sweep()) == 1
    assert await retried(store, jobs[2].id) == ["retried"]
    assert list(await store.delete([jobs[2].id])) == ["deleted"]
    assert (await record(store, jobs[1].id)).state is State.SCHEDULED
    assert (await stats_of(store, queue)) is not None
    await _pauses_and_times(store, queue)
    await _schedules(store, other)
    await _history(store, queue)
    store.shift += 2 * DAY
    assert await store.prune(100) >= 3


async def _pauses_and_times(store: Store, queue: str) -> None:
    worker = await hand(store)
    [mortal] = await stored(store, draft(queue=queue, expires=Until(5), deadline=Until(9)))
    await store.pause(queue, None, "why")
    assert await worker.claim(1, [queue]) == []
    assert queue in [each.name for each in await store.queues()]
    assert await store.resume(queue)
    store.shift += 5
    assert await worker.claim(1, [queue], [Quota(queue, 1)]) == []
    assert mortal in [over.id for over in (await store.promote(100)).over]
    assert await store.watch([mortal], 1)
    assert worker.id in [row.id for row in (await store.workers()).workers]


async def _schedules(store: Store, queue: str) -> None:
    name, due = f"every day, {queue}", await now(store)
    assert list(await store.schedule([Entry(name, queue, "{}", due)])) == [True]
    assert name in [entry.name for entry in (await store.due(100)).entries]
    job = draft(queue=queue)
    [ticked] = await store.tick([Tick(name, queue, 1, due, due, due + DAY, job, 1)])
    assert ticked is not None
    assert (ticked.outcome, ticked.job) == ("made", job.id)
    [entry] = (await store.schedules([name])).entries
    assert list(await store.schedule([entry._replace(text="new")])) == [True]
    assert list(await store.unschedule({name: 3})) == [True]
    assert list(await store.cancel([job.id])) == ["cancelled"]


async def _history(store: Store, queue: str) -> None:
    worker, at = await hand(store), await now(store)
    tally = Tally(queue, "shop.send", "succeeded", 1, (1,) * BUCKETS, (0,) * BUCKETS)
    assert await store.record(worker.id, 1, [tally], [Level(queue, 1, 5)]) == 1
    for tens in (False, True):
        steps = await store.history(at - 20 * MINUTE, at + MINUTE, tens=tens)
        assert tally in [each for step in steps for each in step.tallies]
