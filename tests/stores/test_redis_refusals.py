"""What the Redis store answers with no leaves no trace: every key is as it was before."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import pytest

from holdfast.clock import MINUTE, SECOND
from holdfast.job import Note, QueueTerms, Released, Succeeded, UniqueKey, Verdict, new_id
from holdfast.store import LEASE, Store
from holdfast.stores import open_store
from tests.store.acts import BOOM, FINAL_BOOM, LOSS, draft, ended, finish, hand, running, stored
from tests.store.backends import STANDS_STILL
from tests.stores.keyspace import Bench, difference
from tools.servers import Valkey

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with Valkey() as server, contextlib.closing(Bench(server)) as bench:
        yield bench


@pytest.fixture
async def store(bench: Bench) -> AsyncIterator[Store]:
    bench.redis.flushdb()
    store = open_store(f"redis://127.0.0.1:{bench.server.port}/0")
    store._place.clock = STANDS_STILL  # type: ignore[attr-defined]  # noqa: SLF001
    await store.open()
    try:
        yield store
    finally:
        await store.close()


Asked = tuple[Callable[[], Awaitable[Any]], Any]  # what is asked, and the answer


async def _enqueue(store: Store, answer: str, *changes: Mapping[str, Any], queue: str = "mail") -> Asked:
    """The last draft must get the answer; those before it are stored."""
    *first, last = [draft(queue=queue, **change) for change in changes]
    for each in first:
        await stored(store, each)

    async def ask() -> str:
        return (await store.enqueue([last]))[0].answer

    return ask, answer


async def _same_again(store: Store) -> Asked:
    again = {"id": new_id()}
    [receipt] = await store.enqueue([draft(**again)])
    return await _enqueue(store, "accepted", {"id": receipt.id})


async def _other_content(store: Store) -> Asked:
    same = {"id": new_id()}
    return await _enqueue(store, "conflict", same, {**same, "payload": b"other"})


async def _duplicate(store: Store) -> Asked:
    return await _enqueue(store, "duplicate", {"unique": UniqueKey("k")}, {"unique": UniqueKey("k")})


async def _taken(store: Store) -> Asked:
    return await _enqueue(store, "taken", {"unique": UniqueKey("k")}, {"unique": UniqueKey("k", on_clash="raise")})


async def _taken_by_another_task(store: Store) -> Asked:
    key = UniqueKey("k", on_clash="replace")
    return await _enqueue(store, "taken", {"unique": key, "task": "shop.other"}, {"unique": key})


async def _taken_by_one_that_runs(store: Store) -> Asked:
    key = UniqueKey("k", on_clash="replace")
    job = await running(store, await hand(store), unique=key)
    return await _enqueue(store, "taken", {"unique": key}, queue=job.queue)


async def _full(store: Store) -> Asked:
    await store.configure({"mail": QueueTerms(1)}, by="worker")
    return await _enqueue(store, "full", {}, {"unique": UniqueKey("k"), "delay": SECOND})


async def _full_and_nothing_to_drop(store: Store) -> Asked:
    job = await running(store, await hand(store))
    await store.configure({job.queue: QueueTerms(1, "drop_oldest")}, by="worker")
    return await _enqueue(store, "full", {}, queue=job.queue)


async def _claim(store: Store, refused: str | None, ticket: int = 1, worker: UUID | None = None) -> Asked:
    worker = worker or (await hand(store)).id
    await stored(store, draft())

    async def ask() -> Any:
        claims = await store.claim(worker, ticket, ["mail"], 5)
        return len(claims.jobs), claims.refused

    return ask, (0, refused)


async def _claim_by_nobody(store: Store) -> Asked:
    return await _claim(store, "gone", worker=uuid4())


async def _claim_by_a_retired(store: Store) -> Asked:
    worker = await hand(store)
    await worker.retire()
    return await _claim(store, "gone", worker=worker.id)


async def _claim_without_a_lease(store: Store) -> Asked:
    worker = await hand(store)
    store.shift += LEASE
    return await _claim(store, "expired", worker=worker.id)


async def _claim_ahead(store: Store) -> Asked:
    return await _claim(store, "ticket", ticket=3)


async def _claim_used_up(store: Store) -> Asked:
    worker = await hand(store)
    await ended(store, worker, Succeeded(b"1"))
    return await _claim(store, "used", worker=worker.id)


async def _claim_behind(store: Store) -> Asked:
    worker = await hand(store)
    for _ in range(2):
        await ended(store, worker, Succeeded(b"1"))
    return await _claim(store, "ticket", worker=worker.id)


async def _claim_overtaken(store: Store) -> Asked:
    """By a process that does not know of the last two claims, which another made for the same worker."""
    worker, other = await hand(store), store.twin()
    other._place = replace(store._place)  # type: ignore[attr-defined]  # noqa: SLF001  # as in a process of its own
    other._place.tickets = {}  # type: ignore[attr-defined]  # noqa: SLF001
    await other.open()
    try:
        assert (await other.claim(worker.id, 1, ["mail"], 1)).refused is None
        await stored(store, *(draft() for _ in range(3)))
        for _ in range(2):
            assert await worker.claim(1)
    except BaseException:
        await other.close()
        raise

    async def ask() -> Any:
        claims = await other.claim(worker.id, 1, ["mail"], 5)
        await other.close()
        return len(claims.jobs), claims.refused

    return ask, (0, "ticket")


async def _finish(store: Store, answer: str, verdict: Verdict = BOOM, **changes: Any) -> Asked:
    job = await running(store, await hand(store))

    async def ask() -> str:
        return str((await finish(store, job._replace(**changes), verdict)).answer)

    return ask, answer


async def _finish_twice(store: Store) -> Asked:
    worker = await hand(store)
    job = await running(store, worker)
    await finish(store, job, Released())
    await worker.claim(1, [job.queue])  # by which it runs again

    async def ask() -> str:
        return str((await finish(store, job, Released())).answer)

    return ask, "replayed"


async def _finish_too_late(store: Store) -> Asked:
    """A late `done`: its job was given to someone else."""
    worker = await hand(store)
    job = await running(store, worker)
    await worker.retire(LOSS)
    await (await hand(store)).sweep()

    async def ask() -> str:
        return str((await finish(store, job, Succeeded(b"1"))).answer)

    return ask, "stale"


async def _note_of_another(store: Store) -> Asked:
    job = await running(store, await hand(store))
    note = Note(job.id, job.fence + 1, job.worker, 0.5, "x", ((0, "x"),), b"x")
    return partial(_listed, store.note, [note, note._replace(id=new_id())]), [False, False]


async def _listed(ask: Callable[..., Awaitable[Iterable[Any]]], *args: Any) -> list[Any]:
    return list(await ask(*args))


async def _cancel(store: Store) -> Asked:
    worker = await hand(store)
    runs = (await running(store, worker)).id
    await store.cancel([runs], "why")
    over = await ended(store, worker, Succeeded(b"1"))
    return partial(_listed, store.cancel, [runs, over, new_id()], "other"), ["requested", "final", "missing"]


async def _delete(store: Store) -> Asked:
    job = await running(store, await hand(store))
    return partial(_listed, store.delete, [job.id, new_id()]), ["running", "missing"]


async def _retry(store: Store) -> Asked:
    worker = await hand(store)
    over, runs = await ended(store, worker, Succeeded(b"1")), (await running(store, worker)).id

    async def ask() -> list[str]:
        return [each.answer for each in await store.retry([over, runs, new_id()])]

    return ask, ["succeeded", "unfinished", "missing"]


async def _retry_taken_or_full(store: Store) -> Asked:
    worker, full, keyless = await hand(store), "full", "keyless"
    dead = await ended(store, worker, FINAL_BOOM, unique=UniqueKey("k"), queue=full)
    other = await ended(store, worker, FINAL_BOOM, queue=keyless)
    await stored(store, draft(queue=full, unique=UniqueKey("k")), draft(queue=keyless))
    await store.configure({full: QueueTerms(1), keyless: QueueTerms(1)}, by="worker")

    async def ask() -> list[str]:
        return [each.answer for each in await store.retry([dead, other])]

    return ask, ["taken", "full"]


async def _beat_of_nobody(store: Store) -> Asked:
    worker = await hand(store)
    await worker.retire()

    async def ask() -> frozenset[UUID]:
        return (await store.beat([worker.id])).gone

    return ask, {worker.id}


async def _reclaim(store: Store) -> Asked:
    """By one who is not steady, and by one whom nobody knows, of a silent worker's job."""
    await running(store, await hand(store))
    store.shift += 2 * LEASE
    sweeper = await hand(store)
    assert not await sweeper.reclaim()  # by which it joined the queue's slot

    async def ask() -> int:
        return len(await store.reclaim(sweeper.id, 5)) + len(await store.reclaim(uuid4(), 5))

    return ask, 0


async def _janitor_with_nothing_to_do(store: Store) -> Asked:
    await ended(store, await hand(store), Succeeded(b"1"))
    await stored(store, draft(delay=MINUTE))

    async def ask() -> tuple[int, int]:
        return (await store.promote(5)).moved, await store.prune(5)

    return ask, (0, 0)


async def _configure(store: Store) -> Asked:
    await store.configure({"mail": QueueTerms(3)}, by="producer")
    await store.configure({"mail": QueueTerms(5)}, by="worker")

    async def ask() -> None:
        await store.configure({"mail": QueueTerms(7)}, by="producer")
        await store.configure({"mail": None}, by="worker")
        await store.configure({"mail": None}, by="operator")
        await store.configure({"mail": QueueTerms(5)}, by="worker")

    return ask, None


REFUSALS: dict[str, Callable[[Store], Awaitable[Asked]]] = {
    "the same job again": _same_again,
    "an id with other content": _other_content,
    "a duplicate": _duplicate,
    "a key that is taken": _taken,
    "a key that another task has": _taken_by_another_task,
    "a key of a job that runs": _taken_by_one_that_runs,
    "a full queue": _full,
    "a full queue with nothing to drop": _full_and_nothing_to_drop,
    "a claim by a worker that nobody knows": _claim_by_nobody,
    "a claim by a retired worker": _claim_by_a_retired,
    "a claim without a lease": _claim_without_a_lease,
    "a claim with a ticket too far ahead": _claim_ahead,
    "a claim with a ticket from before": _claim_behind,
    "a claim with a ticket that is used up": _claim_used_up,
    "a claim that others have overtaken": _claim_overtaken,
    "an outcome under another fence": partial(_finish, answer="stale", fence=7),
    "an outcome of another worker": partial(_finish, answer="stale", worker=UUID(int=7)),
    "an outcome of no job": partial(_finish, answer="gone", id=UUID(int=7)),
    "an outcome that was written already": _finish_twice,
    "an outcome of a claim that was robbed": _finish_too_late,
    "a note under another word": _note_of_another,
    "a cancel again, too late, and of no job": _cancel,
    "a delete of what runs, and of no job": _delete,
    "a retry of what succeeded, of what runs, and of no job": _retry,
    "a retry of one whose key is taken, and of one without a place": _retry_taken_or_full,
    "a beat of a retired worker": _beat_of_nobody,
    "a reclaim by one who is not steady": _reclaim,
    "a promote and a prune too early": _janitor_with_nothing_to_do,
    "a word on a queue that changes nothing": _configure,
}


@pytest.mark.parametrize("refusal", REFUSALS)
async def test_a_refusal_leaves_no_trace(refusal: str, store: Store, bench: Bench) -> None:
    ask, answer = await REFUSALS[refusal](store)
    before = bench.read()
    assert await ask() == answer
    assert not difference(before, bench.read())
