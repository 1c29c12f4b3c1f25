"""Bounded queues on PostgreSQL: never exceeded, also beside transactions that are open, and nobody waits for those."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest

from holdfast import Holdfast, QueueFull
from holdfast.client import patience
from holdfast.clock import MINUTE, SECOND
from holdfast.errors import StoreAway
from holdfast.job import QueueTerms, Succeeded, Terms
from holdfast.store import RESERVED, Receipt, Room, Store
from holdfast.stores.postgres import limits
from holdfast.task import SyncTask
from tests import servers
from tests.servers.places import Database
from tests.store.acts import (
    FINAL_BOOM,
    PATIENCE,
    admitted,
    answer,
    answers,
    bound,
    draft,
    ended,
    exists,
    finish,
    hand,
    keyed,
    listing,
    receipt,
    retried,
    stats_of,
    stored,
)
from tests.stores.strangers import at_first, opened, stranger, through_the_door

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

levels = pytest.mark.parametrize("level", ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])


@pytest.fixture
async def store(postgres: Database) -> AsyncIterator[Store]:
    async with opened(postgres) as store:
        yield store


@pytest.fixture
async def jobs(postgres: Database) -> AsyncIterator[Holdfast]:
    async with Holdfast(postgres.url) as jobs:
        yield jobs


def sending(jobs: Holdfast) -> SyncTask[[], None]:
    """A task of the bounded queue."""

    @jobs.task(queue="mail", name="shop.send")
    def send() -> None: ...

    return send


def at_door(queue: str = "mail") -> dict[str, Any]:
    return {"task": "shop.send", "queue": queue}


# --- in a caller's transaction


@levels
async def test_a_place_is_kept_for_an_open_transaction_and_nobody_waits_for_it(
    jobs: Holdfast, store: Store, postgres: Database, level: str
) -> None:
    await bound(store, 2)

    send = sending(jobs)

    async with stranger(postgres, level) as connection:
        job = await send.using(connection=connection).aenqueue()
        assert await answers(store, [draft(), draft()]) == ["accepted", "full"]
        assert not await exists(store, job.id)
        await connection.commit()
    assert await admitted(store) == 2


@levels
async def test_without_a_place_nothing_of_the_call_is_stored_and_the_transaction_goes_on(
    jobs: Holdfast, store: Store, postgres: Database, level: str
) -> None:
    await bound(store, 2)
    await stored(store, draft())

    send = sending(jobs)
    async with stranger(postgres, level) as connection:
        await connection.execute("CREATE TEMPORARY TABLE orders AS SELECT 7 AS number")
        slow = send.using(queue="slow")
        with pytest.raises(QueueFull, match=r"queue mail is full: 2 of 2 places are taken; .*nothing was stored"):
            await jobs.aenqueue_many([send.bind(), send.bind(), slow.bind()], connection=connection)
        cursor = await connection.execute("SELECT number FROM orders")
        assert await cursor.fetchall() == [(7,)]
        await connection.commit()
    assert len(await listing(store)) == 1


@levels
async def test_a_place_that_was_not_used_comes_free_again(
    jobs: Holdfast, store: Store, postgres: Database, level: str
) -> None:
    await bound(store, 1)

    send = sending(jobs)

    async with stranger(postgres, level) as connection:
        await send.using(connection=connection).aenqueue()
        await connection.rollback()
    for store.shift in (0, RESERVED - MINUTE // 3):
        assert await answer(store, draft()) == "full"
    store.shift = RESERVED + 1
    assert await answer(store, draft()) == "accepted"
    await store.prune(10)
    assert await admitted(store) == 1


@levels
async def test_a_transaction_that_is_open_for_longer_than_its_place_is_kept_keeps_it(
    jobs: Holdfast, store: Store, postgres: Database, level: str
) -> None:
    await bound(store, 1)

    send = sending(jobs)

    async with stranger(postgres, level) as connection:
        await send.using(connection=connection).aenqueue()
        for minutes in range(1, 4):
            store.shift = minutes * MINUTE + 1
            await store.prune(10)
            assert await answer(store, draft()) == "full"
        await connection.commit()
    assert await admitted(store) == 1
    await store.prune(10)
    assert await admitted(store) == 1, "the place is the job's now"
    store.shift += MINUTE
    assert await answer(store, draft()) == "full"
    worker = await hand(store)
    await finish(store, await worker.take(), Succeeded(b"1"))
    await store.prune(10)
    assert await admitted(store) == 0, "its place was given back once"
    assert await answers(store, [draft(), draft()]) == ["accepted", "full"]


def test_in_synchronous_code_it_is_the_same(postgres: Database) -> None:
    with Holdfast(postgres.url) as jobs, psycopg.connect(postgres.dsn) as connection:
        jobs.queue("mail", max_size=2)
        send = sending(jobs)
        two = [send.bind(), send.bind()]
        assert [job.created for job in jobs.enqueue_many(two, connection=connection)] == [True, True]
        with pytest.raises(QueueFull, match="queue mail is full"):
            send.using(connection=connection).enqueue()
        connection.commit()
        with pytest.raises(QueueFull):
            send.enqueue()
        assert [status.id for status in jobs.find(queue="mail")] == [job.id for job in reversed(two)]


async def test_in_a_transaction_the_modes_of_a_full_queue_are_as_outside(
    jobs: Holdfast, store: Store, postgres: Database
) -> None:
    send = sending(jobs)

    oldest = draft(queue="old")
    for mode in ("drop_oldest", "drop_newest"):
        queue = mode.removeprefix("drop_").removesuffix("est")
        await bound(store, 1, mode, queue)  # type: ignore[arg-type]
    await stored(store, oldest, draft(queue="new"))
    async with stranger(postgres) as connection:
        kept, dropped = await jobs.aenqueue_many(
            [send.using(queue="old").bind(), send.using(queue="new").bind()], connection=connection
        )
        await connection.commit()
    assert (kept.created, dropped.created) == (True, False)
    rows = {row.id: row for row in await listing(store)}
    assert rows[oldest.id].reason == "dropped"
    assert kept.id in rows
    assert dropped.id not in rows
    assert [(await stats_of(store, queue)).dropped for queue in ("old", "new")] == [1, 1]  # type: ignore[union-attr]


async def test_what_its_producer_declares_bounds_a_transactions_jobs_too(
    jobs: Holdfast, store: Store, postgres: Database
) -> None:
    jobs.queue("mail", max_size=1)

    send = sending(jobs)

    async with stranger(postgres) as connection:
        await send.using(connection=connection).aenqueue()
        with pytest.raises(QueueFull):
            await send.using(connection=connection).aenqueue()
        async with asyncio.timeout(PATIENCE):
            await store.configure({"mail": QueueTerms(1)}, by="producer")
            await store.configure({"mail": QueueTerms(1)}, by="worker")
        await connection.commit()
    assert await admitted(store) == 1


async def test_a_repeat_in_a_transaction_needs_no_second_place(store: Store, postgres: Database) -> None:
    await bound(store, 1)
    job = draft()
    await stored(store, job)
    async with stranger(postgres) as connection:
        assert list(await store.enqueue([job], connection)) == [Receipt(job.id, "accepted", created=False)]
        other = draft()
        assert list(await store.enqueue([other], connection)) == [Receipt(other.id, "unreserved", created=False)]


async def test_after_the_door_the_same_transaction_needs_no_reservation_for_that_queue(
    jobs: Holdfast, store: Store, postgres: Database
) -> None:
    for queue in ("mail", "post"):
        await bound(store, 3, queue=queue)
    send = sending(jobs)
    async with stranger(postgres) as connection:
        await through_the_door(connection, at_door())
        await jobs.aenqueue_many([send.bind(), send.using(queue="post").bind()], connection=connection)
        await connection.execute("SAVEPOINT before")
        await send.using(connection=connection).aenqueue()
        with pytest.raises(QueueFull, match="queue mail is full: 3 of 3 places"):
            await send.using(connection=connection).aenqueue()
        await connection.execute("ROLLBACK TO before")
        await connection.commit()
    assert await admitted(store) == 2
    assert await answers(store, [draft(), draft()]) == ["accepted", "full"]
    async with stranger(postgres) as connection:
        await connection.execute("SAVEPOINT before")
        await through_the_door(connection, at_door("post"))
        await connection.execute("ROLLBACK TO before")
        assert [met.answer for met in await store.enqueue([draft(queue="post")], connection)] == ["unreserved"]


async def test_a_refused_call_keeps_no_place(jobs: Holdfast, store: Store, postgres: Database) -> None:
    await bound(store, 2)
    send = sending(jobs)
    async with stranger(postgres) as connection:
        with pytest.raises(QueueFull):
            await jobs.aenqueue_many([send.bind(), send.bind(), send.bind()], connection=connection)
        assert await answers(store, [draft(), draft(), draft()]) == ["accepted", "accepted", "full"]


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
async def test_a_place_that_a_snapshot_does_not_show_counts_only_as_long_as_it_is_kept(
    store: Store, postgres: Database, level: str
) -> None:
    await bound(store, 1)
    job = draft()
    async with stranger(postgres, level) as connection:
        assert [met.answer for met in await store.reserve([job])] == ["accepted"]
        store.shift = RESERVED + 1
        assert await answer(store, draft()) == "accepted"
        assert [met.answer for met in await store.enqueue([job], connection)] == ["unreserved"]
        await connection.commit()
    assert await admitted(store) == 1


# --- reserve


async def test_a_reservation_is_taken_once_and_answers_as_an_enqueue_would(store: Store) -> None:
    await bound(store, 2)
    free, one, two = draft(queue="free"), draft(), draft()
    assert [r.answer for r in await store.reserve([free, one, one, two])] == ["accepted"] * 4
    assert [r.answer for r in await store.reserve([two])] == ["accepted"]
    third = draft()
    room = Room(2, 2, "reject", None)
    assert list(await store.reserve([third])) == [Receipt(third.id, "full", created=False, room=room)]
    await bound(store, 2, "drop_newest")
    assert [r.answer for r in await store.reserve([third])] == ["dropped"]
    assert not await listing(store)
    store.shift = RESERVED + 1
    assert await answers(store, [draft(), draft(), draft()]) == ["accepted", "accepted", "dropped"]


async def test_a_clash_needs_no_place(store: Store) -> None:
    await bound(store, 2)
    holder, other = keyed(), keyed(on_clash="raise")
    await stored(store, holder)
    assert [r.answer for r in await store.reserve([other, holder])] == ["accepted", "accepted"]
    assert await admitted(store) == 1


async def test_a_place_is_kept_no_longer_than_that_when_the_clock_was_set_back(store: Store) -> None:
    await bound(store, 1)
    store.shift = 60 * MINUTE
    await store.reserve([draft()])
    store.shift = SECOND
    assert await answer(store, draft()) == "accepted"
    await store.prune(10)
    assert await admitted(store) == 1


async def test_a_call_that_had_to_wait_takes_no_place_back_that_was_kept_meanwhile(postgres: Database) -> None:
    """By its time, which is when it began, the place is kept for longer than any is."""
    async with opened(postgres) as early, opened(postgres) as late:
        await bound(early, 1)
        late.shift = 500
        assert [receipt.answer for receipt in await late.reserve([draft()])] == ["accepted"]
        await early.configure({"mail": QueueTerms(1)}, by="worker")  # counts the places anew
        assert [receipt.answer for receipt in await early.enqueue([draft()])] == ["full"]


# --- at the same moment


async def test_however_many_enqueue_commit_roll_back_and_finish_a_bound_is_never_exceeded(
    jobs: Holdfast, postgres: Database
) -> None:
    await _crowd(jobs, postgres, turns=12)


@pytest.mark.soak
async def test_for_longer_a_bound_is_never_exceeded_either(jobs: Holdfast, postgres: Database) -> None:
    await _crowd(jobs, postgres, turns=150)


async def _crowd(jobs: Holdfast, postgres: Database, turns: int) -> None:
    size, over = 7, asyncio.Event()
    async with opened(postgres) as one, opened(postgres) as two, opened(postgres) as three, asyncio.timeout(100):
        await bound(one, size)
        watching = asyncio.create_task(_deepest(postgres, over))
        working = asyncio.create_task(_work(three, QueueTerms(size), over))
        send = sending(jobs)
        try:
            await asyncio.gather(
                _within(send, postgres, turns),
                _within(send, postgres, turns),
                _through_the_door(postgres, turns),
                _plain(one, turns),
                _plain(two, turns),
            )
        finally:
            over.set()
            await working
        assert 0 < await watching <= size
        three.shift = RESERVED + 1
        await three.prune(1000)
        await admitted(three)  # asserts that it is as many as there are


async def _within(send: SyncTask[[], None], postgres: Database, turns: int) -> None:
    async with stranger(postgres) as connection:
        for turn in range(turns):
            try:
                await send.using(connection=connection).aenqueue()
            except QueueFull:
                await connection.rollback()
                continue
            await (connection.rollback() if turn % 3 == 0 else connection.commit())


async def _through_the_door(postgres: Database, turns: int) -> None:
    async with stranger(postgres) as connection:
        for _ in range(turns):
            await through_the_door(connection, at_door(), at_door())
            await connection.commit()


async def _plain(store: Store, turns: int) -> None:
    for _ in range(turns):
        await store.enqueue([draft(terms=Terms(keep=0)) for _ in range(3)])


async def _work(store: Store, terms: QueueTerms, over: asyncio.Event) -> None:
    worker = await hand(store)
    while not over.is_set():
        for job in await worker.claim(3):
            await finish(store, job, Succeeded(b"1"))
        await store.configure({"mail": terms}, by="worker")


async def _deepest(postgres: Database, over: asyncio.Event) -> int:
    """The most unfinished jobs that anybody saw."""
    deepest = 0
    async with await psycopg.AsyncConnection.connect(postgres.dsn, autocommit=True) as eye:
        while not over.is_set():
            cursor = await eye.execute("SELECT count(*) FROM holdfast_jobs WHERE finished_at IS NULL")
            [depth] = await cursor.fetchone() or (0,)
            deepest = max(deepest, depth)
    return deepest


async def test_jobs_that_were_under_way_when_the_bound_was_set_count(store: Store, postgres: Database) -> None:
    async with stranger(postgres) as early, stranger(postgres) as late:
        for connection in (early, late):
            await through_the_door(connection, at_door(), at_door())
        await bound(store, 5)
        assert await answers(store, [draft()]) == ["accepted"]
        await early.commit()
        assert await answers(store, [draft(), draft(), draft()]) == ["accepted", "accepted", "full"]
        await late.commit()
    assert await answers(store, [draft()]) == ["full"]
    assert await admitted(store) == 7


async def test_a_long_transaction_that_is_no_producers_is_not_waited_for(store: Store, postgres: Database) -> None:
    async with stranger(postgres) as long, stranger(postgres) as eye:
        await long.execute("CREATE TEMPORARY TABLE orders AS SELECT 7 AS number")  # it writes, and knows no queue
        await bound(store, 5)
        assert await answers(store, [draft()]) == ["accepted"]
        assert await answers(store, [draft()]) == ["accepted"]
        cursor = await eye.execute("SELECT unsettled FROM holdfast_queues")
        assert await cursor.fetchall() == [(None,)]


async def test_a_long_queue_is_not_counted_at_every_call() -> None:
    with servers.postgres().ready(frozen=True) as postgres:
        async with opened(postgres) as store, stranger(postgres) as producer, stranger(postgres) as eye:
            await eye.rollback()
            await eye.set_autocommit(True)
            await stored(store, *(draft() for _ in range(200)))
            await through_the_door(producer, at_door())
            await bound(store, 1000)
            counted = "SELECT counted_at, unsettled IS NULL FROM holdfast_queues"
            [(since, settled)] = await (await eye.execute(counted)).fetchall()
            assert not settled, "one may still bring in jobs"
            for passed, at in [(1, 0), (2, 2)]:  # ms: 200 jobs are counted every 2
                store.shift = passed
                assert await answer(store, draft()) == "accepted"
                assert await (await eye.execute(counted)).fetchall() == [(since + at, False)]


@pytest.mark.parametrize("queue", ["mail", "free"])
async def test_who_has_the_row_of_a_queue_in_hand_waits_for_no_key(
    store: Store, postgres: Database, monkeypatch: pytest.MonkeyPatch, queue: str
) -> None:
    """All others who enqueue there would wait as long."""
    monkeypatch.setattr(limits, "ENQUEUE", 60_000)
    await bound(store, 10)
    job = keyed(queue=queue)
    async with stranger(postgres) as connection:
        await store.reserve([job])
        assert [met.answer for met in await store.enqueue([job], connection)] == ["accepted"]
        assert await at_first(store, [draft(), keyed(queue=queue)]) == ["accepted", "busy"]


async def test_who_has_the_row_of_a_queue_in_hand_hardly_waits_for_another(
    store: Store, postgres: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ENQUEUE", 60_000)
    for queue in ("mail", "post"):
        await bound(store, 10, queue=queue)
    async with stranger(postgres) as connection:
        await through_the_door(connection, at_door("post"))
        assert await at_first(store, [draft(), draft(queue="post")]) == ["accepted", "busy"]
        reserved = await store.reserve([draft(), draft(queue="post")])
        assert [met.answer for met in reserved] == ["accepted", "busy"]


async def test_of_many_keys_that_strangers_hold_each_call_waits_for_a_few_with_a_row_in_hand(
    store: Store, postgres: Database
) -> None:
    await bound(store, 1000)
    jobs = [keyed(text=f"order {n}") for n in range(80)]
    theirs = [keyed(text=f"order {n}") for n in range(0, 80, 2)]
    async with stranger(postgres) as connection, asyncio.timeout(PATIENCE):
        await store.reserve(theirs)
        assert {met.answer for met in await store.enqueue(theirs, connection)} == {"accepted"}
        met = dict(zip(jobs, await at_first(store, jobs), strict=True))
        assert list(met.values()).count("accepted") in (19, 20, 21), "every other one, until 20 were busy"
        while any(met[job] == "busy" for job in jobs[1::2]):
            busy = [job for job in jobs if met[job] == "busy"]
            met |= zip(busy, await at_first(store, busy), strict=True)
        assert {met[job] for job in jobs[::2]} == {"busy"}


async def test_a_queue_whose_row_a_stranger_holds_delays_no_other_queue_and_no_worker(
    store: Store, postgres: Database
) -> None:
    await bound(store, 10)
    dead = await ended(store, await hand(store), FINAL_BOOM, queue="mail")
    await stored(store, draft(), draft(), draft())
    async with stranger(postgres) as connection:
        await through_the_door(connection, at_door())
        assert await at_first(store, [draft(), draft(queue="slow")]) == ["busy", "accepted"]
        assert [r.answer for r in await store.reserve([draft()])] == ["busy"]
        worker = await hand(store)
        claims = await worker.claim(2, ["mail"])
        for claim in claims:
            assert (await finish(store, claim, Succeeded(b"1"))).answer == "accepted"
        assert len(claims) == 2
        await connection.commit()
    assert await retried(store, dead) == ["retried"]
    assert await answer(store, draft()) == "accepted"
    assert await admitted(store) == 4


async def test_the_producer_is_told_of_a_queue_that_a_transaction_holds(
    jobs: Holdfast, store: Store, postgres: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "OPEN_MOST", 0.2)
    await bound(store, 10)

    send = sending(jobs)

    async with stranger(postgres) as connection:
        await through_the_door(connection, at_door())
        with pytest.raises(StoreAway, match=r"that is still open decides on .* place in queue mail"):
            await send.aenqueue()
        async with stranger(postgres) as other:
            with pytest.raises(StoreAway, match=r"place in queue mail.*nothing was stored"):
                await send.using(connection=other).aenqueue()


async def test_places_that_went_wrong_are_counted_anew_where_the_queue_looks_full(
    store: Store, postgres: Database
) -> None:
    await bound(store, 2)
    store.shift = MINUTE
    async with stranger(postgres) as connection:
        await connection.execute("UPDATE holdfast_queues SET admitted = 2")
        await connection.commit()
    assert await answers(store, [draft(), draft(), draft()]) == ["accepted", "accepted", "full"]
    assert (await receipt(store, draft())).room == Room(2, 2, "reject", None)
