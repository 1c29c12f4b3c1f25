"""Producers on Redis: what a refused draft leaves behind, whom a full queue drops, and how much one script is given."""

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace

import pytest
import redis

from holdfast.clock import HOUR, MINUTE, SECOND
from holdfast.errors import StoreAway, StoreError
from holdfast.job import TOMBSTONE, Draft, QueueTerms, Succeeded, Terms, UniqueKey
from holdfast.store import Receipt, Store
from holdfast.stores import open_store
from holdfast.stores.redis import queues
from holdfast.stores.redis.lane import Lane, Step
from holdfast.stores.redis.store import RedisStore
from tests import servers
from tests.servers.prefixes import Prefix
from tests.store.acts import (
    FINAL_BOOM,
    admitted,
    answer,
    answers,
    bound,
    draft,
    exists,
    finish,
    hand,
    keyed,
    listing,
    receipt,
    record,
    retried,
    stats_of,
    stored,
)
from tests.store.backends import standing_still
from tools.servers import Valkey


@pytest.fixture
def prefix() -> Iterator[Prefix]:
    with servers.valkey().bare() as prefix:
        yield prefix


@pytest.fixture
async def store(prefix: Prefix) -> AsyncIterator[RedisStore]:
    async for store in _opened(prefix.url):
        yield store


@pytest.fixture
async def stranger(prefix: Prefix) -> AsyncIterator[RedisStore]:
    """The same place, as another process knows it: nothing so far."""
    async for store in _opened(prefix.url):
        yield store


async def _opened(url: str) -> AsyncIterator[RedisStore]:
    with standing_still():
        store = open_store(url)
    assert isinstance(store, RedisStore)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture
def server(prefix: Prefix) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(prefix.server, decode_responses=True) as server:
        yield server


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """The scripts that are called, in order, each with the bytes that it is sent."""
    asked: list[tuple[str, int]] = []
    step = Lane.step

    def and_note(self, name, keys, args=()):  # type: ignore[no-untyped-def]
        asked.append((name, sum(len(arg) for arg in args if isinstance(arg, bytes))))
        return step(self, name, keys, args)

    monkeypatch.setattr(Lane, "step", and_note)
    return asked


def _key(prefix: Prefix, name: str, queue: str = "mail") -> str:
    return f"{{{prefix.name}:{queue}}}:{name}"


# --- no lock is left behind


async def _conflict(store: Store, locking: Draft) -> None:
    """Its id is another job's."""
    await stored(store, draft(id=locking.id, payload=b"other"))


async def _conflict_elsewhere(store: Store, locking: Draft) -> None:
    """Its id is another queue's job."""
    await stored(store, draft(id=locking.id, queue="slow"))


async def _full(store: Store, _: Draft) -> None:
    await bound(store, 1)
    await stored(store, draft())


async def _dropped(store: Store, _: Draft) -> None:
    await bound(store, 1, "drop_newest")
    await stored(store, draft())


async def _full_of_started(store: Store, _: Draft) -> None:
    await bound(store, 1, "drop_oldest")
    await stored(store, draft())
    await (await hand(store)).take()


REFUSALS = {
    "conflict": _conflict,
    "conflict with another queue": _conflict_elsewhere,
    "full": _full,
    "dropped": _dropped,
    "full of started jobs": _full_of_started,
}


@pytest.mark.parametrize("why", REFUSALS)
async def test_a_refused_draft_leaves_no_lock_on_its_unique_key(
    store: RedisStore, server: redis.Redis, prefix: Prefix, why: str
) -> None:
    """Elsewhere the lock is taken first and the id looked at then: nobody gives such a lock back."""
    refused = keyed()
    await REFUSALS[why](store, refused)
    assert (await receipt(store, refused)).answer in why
    assert server.hgetall(_key(prefix, "unique")) == {}
    await bound(store, None)
    assert await answers(store, [keyed(), keyed()]) == ["accepted", "duplicate"]


async def test_in_one_call_a_refused_draft_leaves_its_key_to_the_next(store: RedisStore) -> None:
    taken, first, second = draft(), keyed(), keyed()
    await stored(store, taken)
    receipts = await store.enqueue([replace(first, id=taken.id, payload=b"other"), first, second])
    assert [(r.answer, r.holder) for r in receipts] == [("conflict", None), ("accepted", None), ("duplicate", first.id)]


async def test_the_key_of_a_job_that_was_dropped_is_the_next_ones(store: RedisStore) -> None:
    await bound(store, 1, "drop_oldest")
    first, second, third = keyed(), draft(), keyed()
    receipts = await store.enqueue([first, second, third, keyed()])
    assert [(r.answer, r.dropped or r.holder) for r in receipts] == [
        ("accepted", None),
        ("accepted", first.id),
        ("accepted", second.id),
        ("duplicate", third.id),
    ]
    assert [row.id for row in await listing(store) if row.holds] == [third.id]


async def test_a_dropped_job_keeps_its_key_for_its_hold(store: RedisStore) -> None:
    await bound(store, 1, "drop_oldest")
    held = keyed(hold=HOUR)
    receipts = await store.enqueue([held, draft(), keyed()])
    assert [(r.answer, r.holder) for r in receipts] == [("accepted", None), ("accepted", None), ("duplicate", held.id)]
    store.shift += HOUR
    assert await answer(store, keyed()) == "accepted"
    assert not (await record(store, held.id)).holds


async def test_what_was_replaced_and_dropped_in_one_call_is_written_once(store: RedisStore) -> None:
    await bound(store, 2, "drop_oldest")
    old, fresh = keyed(text="old"), keyed(text="fresh")
    await stored(store, old)
    store.shift += 1
    calls = [
        keyed(text="old", on_clash="replace", payload=b"[2]"),
        fresh,
        keyed(text="fresh", on_clash="replace", payload=b"[3]", delay=HOUR),
        draft(),
        old,
        fresh,
        replace(fresh, payload=b"[3]"),
        draft(),
    ]
    receipts = await store.enqueue(calls)
    assert [(r.answer, r.created) for r in receipts] == [
        ("replaced", False),
        ("accepted", True),
        ("replaced", False),
        ("accepted", True),
        ("accepted", False),
        ("accepted", False),
        ("conflict", False),
        ("accepted", True),
    ]
    assert [r.dropped for r in receipts if r.dropped] == [old.id, fresh.id]
    rows = {row.id: row for row in await listing(store)}
    assert [(rows[job.id].state, rows[job.id].payload) for job in (old, fresh)] == [
        ("cancelled", b"[2]"),
        ("cancelled", b"[3]"),
    ]
    assert (await answers(store, [old, fresh, replace(old, payload=b"[2]")])) == ["accepted", "accepted", "conflict"]


# --- whom a full queue drops


async def _many(store: Store, number: int) -> list[Draft]:
    drafts = [draft() for _ in range(number)]
    await stored(store, *drafts)
    return sorted(drafts, key=lambda job: job.id)


@pytest.mark.parametrize("size", [650, 1300])
async def test_behind_hundreds_of_started_jobs_the_oldest_is_found(
    store: RedisStore, asked: list[tuple[str, int]], size: int
) -> None:
    """More than one script looks at; of 1,300 so many are left that they are searched for along the queue."""
    await bound(store, size, "drop_oldest")
    drafts = await _many(store, size)
    store.shift += 1
    worker = await hand(store)
    for _ in range(3):
        await worker.claim(200)
    asked.clear()
    late = [draft() for _ in range(3)]
    assert [r.dropped for r in await store.enqueue(late)] == [job.id for job in drafts[600:603]]
    assert len(asked) == (1 if size == 650 else 2), "a script looked at too many jobs, or at too few"
    asked.clear()
    assert (await receipt(store, draft())).dropped == drafts[603].id
    assert len(asked) == 1, "the search did not go on where it had ended"
    assert await admitted(store) == size


async def test_after_the_clock_was_stepped_back_the_oldest_is_found_behind_the_search(store: RedisStore) -> None:
    await bound(store, 200, "drop_oldest")
    drafts = await _many(store, 200)
    store.shift += 10
    assert (await receipt(store, draft())).dropped == drafts[0].id
    store.shift -= 20
    early = draft()
    assert (await receipt(store, early)).dropped == drafts[1].id
    assert (await receipt(store, draft())).dropped == early.id


async def test_a_new_life_is_as_old_as_the_job(store: RedisStore) -> None:
    await bound(store, 200, "drop_oldest")
    drafts = await _many(store, 200)
    [first] = await (await hand(store)).claim(1)
    store.shift += 1
    assert (await receipt(store, draft())).dropped == drafts[1].id, "the search is past the first"
    await finish(store, first, FINAL_BOOM)
    assert await retried(store, first.id) == ["retried"]
    assert [(await receipt(store, draft())).dropped for _ in range(2)] == [first.id, drafts[2].id]


@pytest.mark.parametrize("size", [5, 150])
async def test_the_job_where_the_search_had_ended_may_be_gone(store: RedisStore, size: int) -> None:
    await bound(store, size, "drop_oldest")
    drafts = await _many(store, size)
    assert (await receipt(store, draft(terms=Terms(keep=0)))).dropped == drafts[0].id
    store.shift += HOUR
    await store.prune(1000)
    assert not await exists(store, drafts[0].id)
    await store.delete([drafts[1].id])
    await stored(store, draft())
    store.shift += HOUR
    await store.prune(1000)
    assert (await receipt(store, draft())).dropped == drafts[2].id


async def test_finished_jobs_are_passed_once(store: RedisStore, asked: list[tuple[str, int]]) -> None:
    worker = await hand(store)
    for _ in range(4):
        await stored(store, *(draft() for _ in range(400)))
        await worker.beat()
        for job in await worker.claim(400):
            await finish(store, job, Succeeded(b"1"))
    await bound(store, 150, "drop_oldest")
    store.shift += 1
    drafts = await _many(store, 150)
    asked.clear()
    assert [(await receipt(store, draft())).dropped for _ in range(3)] == [job.id for job in drafts[:3]]
    assert [name for name, _ in asked] == ["admit"] * (1 + 1600 // 500 + 2)


# --- what one script is given


async def test_no_script_is_given_more_than_some_hundred_drafts_or_a_megabyte(
    store: RedisStore, asked: list[tuple[str, int]]
) -> None:
    await stored(store, *(draft(queue=f"q{n % 2}") for n in range(1001)))
    assert [name for name, _ in asked] == ["enqueue"] * 6
    asked.clear()
    sizes = [600_000, 400_000, 1, 999_999, 2_000_000, 1]
    await stored(store, *(draft(payload=b"x" * size) for size in sizes))
    assert [size for _, size in asked] == [1_000_000, 1_000_000, 2_000_000, 1]
    assert [len(row.payload) for row in sorted(await listing(store), key=lambda row: row.id)[-6:]] == sizes


async def test_drafts_with_keys_or_of_bounded_queues_go_to_a_script_of_their_own(
    store: RedisStore, stranger: RedisStore, asked: list[tuple[str, int]]
) -> None:
    def names() -> list[str]:
        names = [name for name, _ in asked]
        asked.clear()
        return names

    await stored(store, *(keyed(queue="keys", text=str(n)) for n in range(120)))
    assert names() == ["admit"] * 3, "it is given fewer drafts at a time, as each costs the server more"
    await stored(store, draft())
    assert names() == ["enqueue"]
    await stranger.configure({"mail": QueueTerms(2)}, by="operator")
    names()
    assert await answers(store, [draft(), draft()]) == ["accepted", "full"]
    assert names() == ["enqueue", "admit"], "it did not know of the bound"
    assert await answers(store, [draft()]) == ["full"]
    assert names() == ["admit"]
    await stranger.configure({"mail": None}, by="operator")
    names()
    assert await answers(store, [draft(), draft()]) == ["accepted", "accepted"]
    await stored(store, draft())
    assert names() == ["admit", "enqueue"], "the bound is gone"


async def test_one_refused_queue_spares_the_others(store: RedisStore, server: redis.Redis, prefix: Prefix) -> None:
    await stored(store, draft(queue="slow"))
    server.hset(_key(prefix, "meta", "slow"), "layout", "99")
    jobs = [draft(), draft(queue="slow"), draft(queue="third")]
    with pytest.raises(StoreError, match="99"):
        await store.enqueue(jobs)
    server.hset(_key(prefix, "meta", "slow"), "layout", "1")
    assert [await exists(store, job.id) for job in jobs] == [True, False, True]
    assert [r.created for r in await store.enqueue(jobs)] == [False, True, False]


async def test_a_producer_says_the_name_of_its_queue_once_a_minute(
    store: RedisStore, server: redis.Redis, prefix: Prefix, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The registry may have lost it, and nobody else may know it."""
    time = 1000.0
    monkeypatch.setattr(queues, "monotonic", lambda: time)
    await stored(store, *(draft() for _ in range(60)))
    names = f"{{{prefix.name}}}:queues"
    for later, wanted in ((0, set()), (59, set()), (2, {"mail"}), (59, set()), (2, {"mail"})):
        server.delete(names)
        time += later
        await stored(store, draft())
        assert server.smembers(names) == wanted


async def test_a_plain_draft_is_known_again_after_its_job_was_deleted(store: RedisStore) -> None:
    [job] = [draft()]
    await stored(store, job)
    assert list(await store.delete([job.id])) == ["deleted"]
    assert await answers(store, [job, replace(job, payload=b"other")]) == ["accepted", "conflict"]
    assert not await exists(store, job.id)


async def test_drafts_of_many_queues_are_not_all_packed_before_the_first_is_sent(
    store: RedisStore, asked: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred queues with a megabyte each would be some hundred megabytes in memory."""
    drafts = [draft(queue=f"q.{n}", payload=b"x" * 1000) for n in range(40)]
    each = Lane.each
    packed: list[int] = []

    async def and_count(lane: Lane, steps: Sequence[Step]) -> object:
        packed.append(len(asked))
        return await each(lane, steps)

    monkeypatch.setattr(Lane, "each", and_count)
    ids = await stored(store, *drafts)
    monkeypatch.undo()
    assert {job.id for job in await listing(store)} == set(ids)
    sent = [count for count in packed if count]
    assert sent[0] < 40 == sent[-1]


async def test_of_a_call_of_which_some_is_stored_it_is_not_said_that_nothing_is(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    each = Lane.each
    calls: list[int] = []

    async def ends(lane: Lane, steps: Sequence[Step]) -> object:
        calls.append(len(steps))
        if len(calls) == 2:
            away = StoreAway("nobody is there")
            away.certain = True  # as where it cannot connect any more
            raise away
        return await each(lane, steps)

    await stored(store, draft())  # the name is known
    monkeypatch.setattr(Lane, "each", ends)
    with pytest.raises(StoreAway) as away:
        await store.enqueue([draft() for _ in range(300)])
    assert len(calls) == 2
    assert not away.value.certain
    monkeypatch.undo()
    assert len(await listing(store)) > 1


async def test_an_id_is_one_queues_even_within_a_call(store: RedisStore) -> None:
    job = draft()
    jobs = [job, draft(id=job.id, queue="slow"), job, draft(id=job.id, queue="third"), draft(queue="slow")]
    assert [(r.answer, r.created) for r in await store.enqueue(jobs)] == [
        ("accepted", True),
        ("conflict", False),
        ("accepted", False),
        ("conflict", False),
        ("accepted", True),
    ]
    await store.delete([job.id])
    assert await answer(store, jobs[1]) == "conflict"
    store.shift += TOMBSTONE
    await store.prune(10)
    assert await answer(store, jobs[1]) == "accepted", "nobody has the id any more"


# --- a queue's name


async def test_the_name_of_a_queue_is_said_again_when_it_may_have_been_taken_out(
    store: RedisStore, stranger: RedisStore, server: redis.Redis, prefix: Prefix, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reply of the call that would have said it is lost: the repeat finds the queue with its own job in it."""
    await stored(store, draft(terms=Terms(keep=0)))
    names = f"{{{prefix.name}}}:queues"
    worker = await hand(store)
    await finish(store, await worker.take(), Succeeded(b"1"))
    await worker.retire()
    stranger.shift += 2 * HOUR
    for _ in range(3):  # first the job, then the queue
        await stranger.prune(10)
    assert not server.smembers(names)
    job, each = draft(), Lane.each

    async def and_lose(self, steps):  # type: ignore[no-untyped-def]
        await each(self, steps)
        raise StoreAway("the reply is lost")

    monkeypatch.setattr(Lane, "each", and_lose)
    with pytest.raises(StoreAway):
        await store.enqueue([job])
    monkeypatch.setattr(Lane, "each", each)
    assert list(await store.enqueue([job])) == [Receipt(job.id, "accepted", created=False)]
    assert server.smembers(names) == {"mail"}
    assert await stats_of(store) is not None


# --- a full server


@pytest.fixture(scope="module")
def own() -> Iterator[Valkey]:
    with Valkey() as own:
        yield own


def _keyspace(own: Valkey) -> dict[bytes, bytes]:
    with redis.Redis.from_url(own.url) as server:
        return {key: server.dump(key) for key in server.scan_iter(count=1000)}


DRAFTS: dict[str, Sequence[Draft]] = {
    "plain": [draft(), draft(delay=HOUR)],
    "with a key": [keyed(text="new")],
    "that replaces": [keyed(on_clash="replace", payload=b"[2]", delay=MINUTE)],
    "that takes over a key": [keyed(text="over")],
    "whose queue drops another": [draft(queue="oldest"), draft(queue="oldest", unique=UniqueKey("k"))],
    "that is dropped": [draft(queue="newest")],
}


@pytest.mark.parametrize("what", DRAFTS)
async def test_a_full_server_stores_nothing_and_says_so(own: Valkey, what: str) -> None:
    async for store in _opened(f"{own.url}?prefix=full {what}".replace(" ", "-")):
        await bound(store, 2, "drop_oldest", "oldest")
        await bound(store, 1, "drop_newest", "newest")
        await stored(store, keyed(), draft(), draft(queue="oldest"), draft(queue="oldest"), draft(queue="newest"))
        over = keyed(text="over", hold=SECOND)
        await stored(store, over)
        await store.cancel([over.id])
        store.shift += SECOND
        before = _keyspace(own)
        own.say("CONFIG", "SET", "maxmemory", "1")
        try:
            with pytest.raises(StoreAway, match=r"memory"):
                await store.enqueue(DRAFTS[what])
        finally:
            own.say("CONFIG", "SET", "maxmemory", "0")
        assert _keyspace(own) == before
        assert await answers(store, DRAFTS[what]) == [
            {"that replaces": "replaced", "that is dropped": "dropped"}.get(what, "accepted")
        ] * len(DRAFTS[what])
        assert _keyspace(own) != before
