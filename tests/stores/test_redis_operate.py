"""Operators and listings on Redis: long listings in short steps, many queues, keys that somebody else has written."""

import logging
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from itertools import chain, combinations
from uuid import UUID, uuid4

import pytest
import redis

from holdfast.clock import DAY, FakeClock
from holdfast.errors import StoreAway, StoreError
from holdfast.job import TOMBSTONE, Failed, Failure, Note, Record, State, Succeeded
from holdfast.store import Retried, Store, Where
from holdfast.stores import open_store
from holdfast.stores.redis import find, operate, whereabouts
from holdfast.stores.redis.known import Whereabouts
from holdfast.stores.redis.lane import Lane
from holdfast.stores.redis.store import RedisStore
from tests import servers
from tests.servers.prefixes import Prefix
from tests.store.acts import (
    BOOM,
    FINAL_BOOM,
    Hand,
    answers,
    bound,
    draft,
    ended,
    exists,
    finish,
    hand,
    keyed,
    listing,
    retried,
    running,
    state,
    stored,
)
from tests.store.backends import standing_still
from tests.worker.rig import fields
from tools.servers import Valkey


@pytest.fixture
def prefix() -> Iterator[Prefix]:
    with servers.valkey().bare() as prefix:
        yield prefix


def _at(prefix: Prefix) -> RedisStore:
    with standing_still():
        store = open_store(prefix.url)
    assert isinstance(store, RedisStore)
    return store


@pytest.fixture
async def store(prefix: Prefix) -> AsyncIterator[RedisStore]:
    store = _at(prefix)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture
async def stranger(prefix: Prefix) -> AsyncIterator[RedisStore]:
    """The same place, as another process knows it: nothing so far."""
    store = _at(prefix)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture
def server(prefix: Prefix) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(prefix.server, decode_responses=True) as server:
        yield server


def _key(prefix: Prefix, name: str, queue: str = "mail") -> str:
    return f"{{{prefix.name}:{queue}}}:{name}"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the scripts and commands that are asked, in order."""
    asked: list[str] = []
    scripts, commands = Lane.scripts, Lane.commands

    async def and_scripts(self, calls):  # type: ignore[no-untyped-def]
        asked.extend(name for name, *_ in calls)
        return await scripts(self, calls)

    async def and_commands(self, sent):  # type: ignore[no-untyped-def]
        asked.extend(words[0] for words in sent)
        return await commands(self, sent)

    monkeypatch.setattr(Lane, "scripts", and_scripts)
    monkeypatch.setattr(Lane, "commands", and_commands)
    return asked


# --- listings


KINDS = [("ab"[n % 2], n % 3) for n in range(9)]


async def _life(store: Store, ids: Iterator[UUID]) -> None:
    """Jobs in every state, of several queues, tasks, times and tags; some with errors."""
    first, second = Hand(store), Hand(store)
    first.id, second.id = next(ids), next(ids)
    for worker in (first, second):
        await store.register(worker.id, None, {})
    for queue in ("mail", "slow", "a.b:c"):
        for round_ in range(3):
            await stored(
                store,
                *(
                    draft(id=next(ids), queue=queue, task=f"shop.{'ab'[n % 2]}", tags=("x", "é")[: n % 3])
                    for n in range(9)
                ),
            )
            worker = (first, second)[round_ % 2]
            jobs = await worker.claim(6, [queue])
            verdicts = [Succeeded(b"1"), BOOM, FINAL_BOOM, Failed(Failure("ValueError", "", ""), final=True)]
            for job, verdict in zip(jobs, verdicts, strict=False):
                await finish(store, job, verdict)
            await store.cancel([jobs[5].id], "not wanted")
            late = await stored(store, *(draft(id=next(ids), queue=queue, delay=DAY) for _ in range(4)))
            await store.cancel(late[:2], "twice")
            await store.retry([late[0], jobs[2].id])
            await store.delete([late[1]])
            store.shift += round_  # the first two rounds are of one moment


WHERES = [
    Where(),
    *(Where(states=list(states)) for states in chain(combinations(State, 1), combinations(State, 2))),
    Where(states=[State.DEAD, State.CANCELLED, State.RUNNING, State.QUEUED]),
    Where(queue="slow"),
    Where(queue="nowhere"),
    Where(queue="slow", states=[State.QUEUED]),
    Where(task="shop.a", states=[State.DEAD]),
    Where(tag="é"),
    Where(tag="x", states=[State.SUCCEEDED, State.DEAD]),
    Where(error="KeyError"),
    Where(error="ValueError", states=[State.SCHEDULED, State.DEAD]),
    Where(since=FakeClock().now() + 1),
    Where(before=FakeClock().now() + 1),
    Where(since=FakeClock().now() + 1, before=FakeClock().now() + 3, states=[State.QUEUED, State.DEAD]),
]


async def _pages(store: Store, where: Where, size: int) -> list[Record]:
    pages: list[Record] = []
    cursor = None
    while page := await store.find(where, cursor, size):
        pages += page
        cursor = (page[-1].enqueued_at, page[-1].id)
        assert len(page) <= size
    return pages


@pytest.mark.parametrize(
    ("looked_at", "few", "size"),
    [
        (find.LOOKED_AT, find.FEW, 1000),
        (4, find.FEW, 3),
        (1, 2, 1000),
        *(
            pytest.param(looked_at, few, size, marks=pytest.mark.soak)
            for looked_at, few, size in [(find.LOOKED_AT, find.FEW, 3), (4, find.FEW, 1000), (1, 2, 3), (3, 2, 2)]
        ),
    ],
)
async def test_listings_are_those_of_a_store_in_memory_however_few_jobs_a_step_looks_at(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch, looked_at: int, few: int, size: int
) -> None:
    monkeypatch.setattr(find, "LOOKED_AT", looked_at)
    monkeypatch.setattr(find, "LOOKED_INTO", looked_at)
    monkeypatch.setattr(find, "FEW", few)
    memory = open_store("memory://", FakeClock())
    ids = [uuid4() for _ in range(200)]
    await _life(store, iter(ids))
    await _life(memory, iter(ids))
    workers = [Where(worker=worker) for worker in ids[:2]]
    few_ids = [
        Where(ids=ids[10:40]),
        Where(starts=str(ids[12])),
        Where(starts=str(ids[13])[:2]),
        Where(ends=str(ids[14])[-3:]),
    ]
    met = 0
    for where in [*WHERES, *workers, *few_ids]:
        expected = await _pages(memory, where, 1000)
        met += bool(expected)
        assert await _pages(store, where, size) == expected, where
    assert met > 30, "most of these listings should have something to list"


async def test_a_listing_ends_where_its_time_does(
    store: RedisStore, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is older than `since` is not looked at."""
    monkeypatch.setattr(find, "LOOKED_AT", 10)
    await stored(store, *(draft() for _ in range(300)))
    store.shift += 1
    new = await stored(store, *(draft() for _ in range(3)))
    asked.clear()
    assert {row.id for row in await store.find(Where(since=FakeClock().now() + 1))} == set(new)
    assert asked.count("find") == 1


async def test_few_jobs_in_a_state_are_found_without_looking_at_all_the_others(
    store: RedisStore, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(find, "LOOKED_AT", 10)
    worker = await hand(store)
    dead = await ended(store, worker, FINAL_BOOM)
    held = (await running(store, worker)).id
    await stored(store, *(draft(queue=record.queue) for record in await listing(store) for _ in range(100)))
    running_now = [
        Where(states=[State.RUNNING]),
        Where(worker=worker.id),
        Where(states=[State.RUNNING, State.SCHEDULED]),
    ]
    for where, job in [(Where(states=[State.DEAD]), dead), *((where, held) for where in running_now)]:
        asked.clear()
        assert [row.id for row in await store.find(where)] == [job]
        assert asked.count("find") <= 2, "more than one step for each queue"


async def test_of_many_jobs_in_a_state_no_more_are_looked_at_than_are_listed(
    store: RedisStore, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(find, "LOOKED_AT", 10)
    monkeypatch.setattr(find, "FEW", 20)
    ids = await stored(store, *(draft() for _ in range(300)))
    asked.clear()
    assert [row.id for row in await store.find(Where(states=[State.QUEUED]), None, 5)] == ids[:-6:-1]
    assert asked.count("find") == 1


async def test_a_large_record_is_read_with_few_others(
    store: RedisStore, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.stores.redis.records._AT_ONCE", 2500)
    ids = await stored(store, *(draft(payload=b"[%b]" % (b"1," * 1000 + b"1")) for _ in range(7)))
    asked.clear()
    assert [row.id for row in await store.find(Where())] == sorted(ids, reverse=True)
    assert asked.count("records") == 4


async def test_a_job_that_changes_between_two_steps_is_left_out(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is found queued and read cancelled: a listing of the queued does not show it."""
    ids = await stored(store, draft(), draft(), draft())
    read = find.read

    async def and_meanwhile(lane, jobs):  # type: ignore[no-untyped-def]
        await store.cancel([ids[1]])
        return await read(lane, jobs)

    monkeypatch.setattr(find, "read", and_meanwhile)
    assert [row.id for row in await store.find(Where(states=[State.QUEUED]), None, 2)] == [ids[2], ids[0]]


async def test_a_record_that_somebody_has_spoilt_is_left_out_and_told_of_once(
    store: RedisStore, prefix: Prefix, server: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    ids = await stored(store, *(draft() for _ in range(4)))
    server.hset(_key(prefix, f"job:{ids[1]}"), "kind", "not JSON")
    server.hdel(_key(prefix, f"job:{ids[2]}"), "payload")
    with caplog.at_level(logging.ERROR):
        for _ in range(2):
            assert [row.id for row in await store.find(Where(), None, 2)] == [ids[3], ids[0]]
    told = fields(caplog, "unreadable-row")
    assert sorted(line["job"] for line in told) == ids[1:3]


# --- where a job is


async def test_what_another_process_enqueued_is_found_in_whichever_queue_it_is(
    store: RedisStore, stranger: RedisStore, asked: list[str]
) -> None:
    ids = await stored(store, *(draft(queue=f"queue.{n % 5}") for n in range(40)))
    asked.clear()
    assert {row.id for row in await stranger.find(Where(ids=[*ids, uuid4()]))} == set(ids)
    assert asked.count("EXISTS") == 41 * 5
    asked.clear()
    assert list(await stranger.cancel(ids)) == ["cancelled"] * 40
    assert "EXISTS" not in asked, "it knows by now where they are"
    assert list(await stranger.cancel([uuid4()])) == ["missing"]


async def test_thousands_of_jobs_of_many_queues_are_asked_for_in_pieces(
    store: RedisStore, stranger: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whereabouts, "_ASKED_AT_ONCE", 7)
    monkeypatch.setattr(whereabouts, "AT_ONCE", 3)
    ids = await stored(store, *(draft(queue=f"queue.{n % 5}") for n in range(50)))
    unknown = uuid4()
    said = await stranger.cancel([*ids[:20], unknown, *ids])
    assert list(said) == ["cancelled"] * 20 + ["missing"] + ["final"] * 20 + ["cancelled"] * 30


def test_what_is_held_is_known_as_long_as_it_is_held() -> None:
    known = Whereabouts(most=10)
    held, passing = uuid4(), [uuid4() for _ in range(5000)]
    assert known.hold("mail", uuid4(), [held], [str(held).encode()]) == set()
    for job in passing:
        known.learn("slow", [job])
    assert (known.queue_of(held), known.queue_of(passing[-1]), known.queue_of(passing[0])) == ("mail", "slow", None)
    known.let_go([held, uuid4()])
    assert known.queue_of(held) == "mail"
    for job in passing:
        known.learn("slow", [job])
    assert known.queue_of(held) is None
    known.learn("mail", [held])
    known.forget([held])
    assert known.queue_of(held) is None


async def test_a_job_that_went_to_another_queue_is_found_there(
    store: RedisStore, stranger: RedisStore, asked: list[str]
) -> None:
    """Deleted, forgotten, and enqueued in another queue under its id: this process still thinks it in the first."""
    one = draft(queue="a")
    for act in (
        lambda: store.find(Where(ids=[one.id])),
        lambda: store.cancel([one.id, one.id]),
        lambda: store.retry([one.id]),
        lambda: store.delete([one.id]),
    ):
        await stored(store, replace(one, queue="a"))
        await stranger.delete([one.id])
        store.shift = stranger.shift = stranger.shift + TOMBSTONE
        await stranger.prune(9)
        await stored(stranger, replace(one, queue="b"))
        answer = await act()
        assert "missing" not in answer
        assert answer
        await stranger.delete([one.id])
        store.shift = stranger.shift = stranger.shift + TOMBSTONE
        await stranger.prune(9)
        stranger._place.whereabouts.forget([one.id])  # noqa: SLF001
        store._place.whereabouts.forget([one.id])  # noqa: SLF001


async def test_a_server_that_answers_nothing_is_no_endless_loop(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    [job] = await stored(store, draft())

    async def nothing(_: Lane, calls: list[object]) -> list[object]:
        return [[] for _ in calls]

    monkeypatch.setattr(Lane, "scripts", nothing)
    with pytest.raises(StoreError, match=r"answered \[\] to cancel"):
        await store.cancel([job])


@pytest.mark.parametrize("tag", ["\0", "a\ud800b"])
async def test_a_tag_that_cannot_be_stored_as_it_is_is_found(store: RedisStore, tag: str) -> None:
    [job] = await stored(store, draft(tags=(tag,)))
    assert [found.id for found in await store.find(Where(tag=tag))] == [job]


# --- cancel, retry, delete


async def test_jobs_of_one_key_that_are_retried_in_one_call_get_it_once(store: RedisStore) -> None:
    first, second = keyed(), keyed()
    await stored(store, first)
    await store.cancel([first.id])
    await stored(store, second)
    await store.cancel([second.id])
    assert list(await store.retry([first.id, second.id, first.id])) == [
        Retried("retried"),
        Retried("taken", holder=first.id),
        Retried("unfinished"),
    ]
    assert [await state(store, job.id) for job in (first, second)] == ["queued", "cancelled"]


async def test_jobs_that_are_retried_in_one_call_share_the_places_that_are_left(store: RedisStore) -> None:
    ids = await stored(store, *(draft() for _ in range(5)))
    await store.cancel(ids)
    await bound(store, 3, "drop_oldest")
    assert await retried(store, *ids) == ["retried"] * 3 + ["full"] * 2
    [answer] = await store.retry(ids[3:4])
    assert answer.room is not None
    assert tuple(answer.room) == (3, 3, "drop_oldest", None)


@pytest.mark.parametrize("size", [3, 700])
async def test_the_oldest_job_of_a_full_queue_may_be_one_that_was_retried(store: RedisStore, size: int) -> None:
    """Behind it, the search for the oldest, which is along the queue where that is long, had gone on already."""
    await bound(store, size, "drop_oldest")
    jobs = sorted((draft() for _ in range(size)), key=lambda job: job.id)
    await stored(store, *jobs)
    store.shift += 1
    assert [receipt.dropped for receipt in await store.enqueue([draft(), draft()])] == [jobs[0].id, jobs[1].id]
    await store.delete([jobs[2].id])
    assert await retried(store, jobs[0].id) == ["retried"]
    assert [receipt.dropped for receipt in await store.enqueue([draft()])] == [jobs[0].id]


async def test_a_key_whose_holder_is_gone_holds_up_no_retry(
    store: RedisStore, prefix: Prefix, server: redis.Redis
) -> None:
    job = keyed()
    await stored(store, job)
    await store.cancel([job.id])
    assert job.unique is not None
    server.hset(_key(prefix, "unique"), job.unique.text, str(uuid4()))
    assert await retried(store, job.id) == ["retried"]
    assert server.hget(_key(prefix, "unique"), job.unique.text) == str(job.id)


async def test_a_delete_digests_so_much_in_one_script_and_no_more(
    store: RedisStore, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operate, "_DIGESTED", 10_000)
    jobs = [draft(payload=b"[%b]" % (b"7" * 9_000)) for _ in range(6)]
    ids = await stored(store, *jobs)
    asked.clear()
    assert list(await store.delete([ids[0], *ids])) == ["deleted", "missing"] + ["deleted"] * 5
    assert asked.count("delete") == 6
    assert await answers(store, [jobs[3], draft(id=ids[3])]) == ["accepted", "conflict"]


async def test_a_deleted_job_leaves_nothing_but_what_recognises_it_and_that_goes_too(
    store: RedisStore, prefix: Prefix, server: redis.Redis
) -> None:
    worker = await hand(store)
    job = await running(store, worker, unique=keyed().unique)
    await store.note([Note(job.id, job.fence, worker.id, 0.5, "half", ((0, "line"),), b"1")])
    await finish(store, job, FINAL_BOOM)
    assert list(await store.delete([job.id])) == ["deleted"]
    keys = [key for key in server.scan_iter(f"{{{prefix.name}:*", count=1000) if str(job.id) in key]
    assert keys == [_key(prefix, f"job:{job.id}", job.queue)]
    assert sorted(server.hkeys(keys[0])) == ["finished", "first", "settled", "state", "task"]
    assert server.zscore(_key(prefix, "jobs", job.queue), str(job.id)) is None
    assert server.hlen(_key(prefix, "unique", job.queue)) == 0
    waiting = keyed(queue=job.queue)
    await stored(store, waiting)
    assert list(await store.delete([waiting.id])) == ["deleted"]
    assert server.hlen(_key(prefix, "unique", job.queue)) == 0
    store.shift += TOMBSTONE
    assert await store.prune(10) == 2
    assert not server.exists(keys[0])
    assert not await exists(store, job.id)


async def test_a_full_server_lets_operators_make_room() -> None:
    with Valkey() as server:
        store = open_store(server.url)
        await store.open()
        try:
            held = await running(store, await hand(store))
            ids = await stored(store, *(draft() for _ in range(4)))
            server.say("CONFIG", "SET", "maxmemory", "1")
            with pytest.raises(StoreAway, match="memory"):
                await store.enqueue([draft()])
            assert list(await store.cancel([held.id, ids[0]], "no room")) == ["requested", "cancelled"]
            assert list(await store.delete(ids[:3])) == ["deleted"] * 3
            assert [row.id for row in await listing(store)] == [ids[3], held.id]
        finally:
            await store.close()
