"""The server forgets what it answered last, as after a failover to a copy that had not heard of it: what then holds.

Each test takes the keyspace back to what it was a moment ago, under stores that go on.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator

import pytest

from holdfast.clock import SECOND
from holdfast.job import Loss, Note, State, Succeeded
from holdfast.store import LEASE, Store
from holdfast.stores import open_store
from tests.store.acts import (
    BOOM,
    draft,
    exists,
    finish,
    hand,
    keep_beating,
    keyed,
    listing,
    record,
    running,
    state,
    stats_of,
    stored,
)
from tests.store.backends import STANDS_STILL
from tests.stores.keyspace import Bench
from tools.servers import Valkey

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with Valkey() as server, contextlib.closing(Bench(server)) as bench:
        yield bench


@pytest.fixture
async def store(bench: Bench) -> AsyncIterator[Store]:
    bench.redis.flushdb()
    async with _opened(bench) as store:
        yield store


@contextlib.asynccontextmanager
async def _opened(bench: Bench) -> AsyncIterator[Store]:
    """As another process has it: it shares no memory with other stores."""
    store = open_store(f"redis://127.0.0.1:{bench.server.port}/0")
    store._place.clock = STANDS_STILL  # type: ignore[attr-defined]  # noqa: SLF001
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def test_a_claim_that_is_forgotten_is_refused_once_the_job_is_somebody_elses(store: Store, bench: Bench) -> None:
    """Both have the job under the same fence: it is the worker's id that tells them apart."""
    first, second = await hand(store), await hand(store)
    [job] = await stored(store, draft())
    before = bench.read()
    mine = await first.take()
    bench.write(before)
    theirs = await second.take()
    assert (theirs.id, theirs.fence) == (mine.id, mine.fence) == (job, 1)
    assert (await finish(store, mine, Succeeded(b"late"))).answer == "stale"
    [held] = await store.note([Note(mine.id, mine.fence, mine.worker, saved=b"late")])
    assert not held
    assert (await finish(store, theirs, Succeeded(b"in time"))).answer == "accepted"
    assert (await record(store, job)).result == b"in time"
    assert (await finish(store, mine, BOOM)).answer == "stale"


async def test_a_claim_that_is_forgotten_can_be_made_again_under_the_next_ticket(store: Store, bench: Bench) -> None:
    worker = await hand(store)
    await stored(store, *(draft(queue=queue) for queue in ("mail", "mail", "slow")))
    await worker.claim(1)
    before = bench.read()
    await worker.claim(1)
    bench.write(before)
    assert len(await worker.claim(5)) == 2
    assert len(await worker.claim(5)) == 0


async def test_an_outcome_that_is_forgotten_is_accepted_again(store: Store, bench: Bench) -> None:
    job = await running(store, await hand(store))
    before = bench.read()
    assert (await finish(store, job, Succeeded(b"1"))).answer == "accepted"
    bench.write(before)
    assert await state(store, job.id) is State.RUNNING
    assert (await finish(store, job, Succeeded(b"1"))).answer == "accepted"


async def test_a_job_that_is_forgotten_is_stored_again_by_the_same_enqueue(store: Store, bench: Bench) -> None:
    worker = await hand(store)
    before = bench.read()
    job = keyed(queue="new")
    await stored(store, job)
    bench.write(before)
    assert not await exists(store, job.id)
    [receipt] = await store.enqueue([job])
    assert (receipt.answer, receipt.created) == ("accepted", True)
    assert [claim.id for claim in await worker.claim(5)] == [job.id]


async def test_a_worker_that_is_forgotten_is_told_to_begin_anew(store: Store, bench: Bench) -> None:
    before = bench.read()
    worker = await hand(store)
    bench.write(before)
    assert not await worker.beat()
    assert await worker.refusal() == "gone"


async def test_jobs_of_a_worker_whose_row_is_forgotten_are_rescued(store: Store, bench: Bench) -> None:
    """A job in `active` whose lease entry is gone."""
    worker, sweeper = await hand(store), await hand(store)
    job = await running(store, worker)
    for rows in bench.redis.scan_iter("*:workers"):
        bench.redis.hdel(rows, str(worker.id))
    await keep_beating([sweeper], LEASE + SECOND)
    assert await sweeper.sweep() == [job.id]
    assert (await finish(store, job, Succeeded(b"late"))).answer == "stale"


async def test_a_retirement_that_is_forgotten_ends_in_a_rescue_all_the_same(store: Store, bench: Bench) -> None:
    worker, sweeper = await hand(store), await hand(store)
    job = await running(store, worker)
    before = bench.read()
    await worker.retire(Loss("killed by signal 9"))
    bench.write(before)
    await keep_beating([sweeper], LEASE + SECOND)
    assert await sweeper.sweep() == [job.id]


async def test_a_queue_whose_name_is_forgotten_is_found_again(store: Store, bench: Bench) -> None:
    """By its producers when they enqueue, and by those who serve it when they beat."""
    worker = await hand(store)
    before = bench.read()
    [job] = await stored(store, draft(queue="new"))
    bench.write(before)
    [again] = await stored(store, draft(queue="new"))
    assert [claim.id for claim in await worker.claim(5)] == [again]
    for key in bench.redis.scan_iter("*:queues"):
        bench.redis.delete(key)
    assert await worker.beat()
    async with _opened(bench) as other:
        stats = await stats_of(other, "new")
        assert stats is not None
        assert stats.counts == {State.RUNNING: 1}
        assert [row.id for row in await listing(other)] == [again]
    assert not await exists(store, job)


async def test_places_and_keys_are_counted_as_the_jobs_are(store: Store, bench: Bench) -> None:
    """What is set back is set back whole: no place and no key without its job."""
    job = await running(store, await hand(store), unique=keyed().unique)
    before = bench.read()
    await finish(store, job, Succeeded(b"1"))
    bench.write(before)
    [receipt] = await store.enqueue([draft(queue=job.queue, unique=keyed().unique)])
    assert (receipt.answer, receipt.holder) == ("duplicate", job.id)
    await finish(store, job, Succeeded(b"1"))
    [receipt] = await store.enqueue([draft(queue=job.queue, unique=keyed().unique)])
    assert receipt.answer == "accepted"
