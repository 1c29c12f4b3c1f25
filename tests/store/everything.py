"""All that a store does for producers, workers and operators, once: for tests of the rights that this takes."""

import secrets

from holdfast.clock import DAY
from holdfast.job import Note, State, Succeeded
from holdfast.store import Store
from tests.store.acts import BOOM, FINAL_BOOM, bound, draft, finish, hand, keyed, record, retried, stats_of, stored


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
    store.shift += 2 * DAY
    assert await store.prune(100) >= 3
