"""Enqueueing on PostgreSQL beside open transactions of others: nobody waits, nothing doubles, no receipt is empty."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from holdfast import Holdfast, Unique, UniqueConflict
from holdfast.client import patience
from holdfast.errors import StoreAway
from holdfast.job import Draft, State
from holdfast.store import Receipt, Store
from holdfast.stores.postgres import limits
from tests.servers.places import Database
from tests.store.acts import PATIENCE, answers, draft, exists, keyed, listing, receipt, record
from tests.stores.strangers import at_first, opened, stranger, through_the_door

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]


@pytest.fixture
async def store(postgres: Database) -> AsyncIterator[Store]:
    async with opened(postgres) as store:
        yield store


def theirs(job: Draft) -> dict[str, Any]:
    """The same job as a stranger enqueues it by SQL."""
    said = {"id": str(job.id), "task": job.task, "queue": job.queue, "args": [7]}
    return said | ({"unique": job.unique.text} if job.unique else {})


async def settled(store: Store, jobs: Sequence[Draft]) -> list[Receipt]:
    """The receipts of these jobs once nobody's transaction is in their way."""
    receipts = {job.id: Receipt(job.id, "busy") for job in jobs}
    async with asyncio.timeout(PATIENCE):
        while busy := [job for job in jobs if receipts[job.id].answer == "busy"]:
            receipts |= {receipt.id: receipt for receipt in await store.enqueue(busy)}
    return [receipts[job.id] for job in jobs]


# --- what hangs on a transaction that is open


@pytest.mark.parametrize("ends", ["commit", "rollback"])
async def test_a_key_that_an_open_transaction_takes_is_busy_and_delays_no_other_job(
    store: Store, postgres: Database, ends: str
) -> None:
    job, plain, other = keyed(), draft(), keyed(text="another")
    async with stranger(postgres) as connection:
        [theirs_] = await through_the_door(connection, theirs(keyed()))
        assert theirs_["answer"] == "accepted"
        assert await at_first(store, [plain, job, other]) == ["accepted", "busy", "accepted"]
        assert await exists(store, plain.id)
        assert await at_first(store, [job, draft()]) == ["busy", "accepted"]
        await getattr(connection, ends)()
    [met] = await store.enqueue([job])
    expected = ("duplicate", theirs_["id"]) if ends == "commit" else ("accepted", None)
    assert (met.answer, met.holder) == expected


@pytest.mark.parametrize("ends", ["commit", "rollback"])
async def test_an_id_that_an_open_transaction_takes_is_busy_and_delays_no_other_job(
    store: Store, postgres: Database, ends: str
) -> None:
    job, plain = draft(payload=b'{"args":[7]}'), draft()
    async with stranger(postgres) as connection:
        await through_the_door(connection, theirs(job))
        assert await at_first(store, [job, plain]) == ["busy", "accepted"]
        await getattr(connection, ends)()
    assert await receipt(store, job) == Receipt(job.id, "accepted", created=ends == "rollback")


async def test_a_holder_that_a_stranger_has_locked_is_a_duplicate_at_once_and_is_replaced_later(
    store: Store, postgres: Database
) -> None:
    holder = keyed()
    await store.enqueue([holder])
    async with stranger(postgres) as connection:
        await connection.execute("SELECT 1 FROM holdfast_jobs WHERE id = %s FOR UPDATE", [holder.id])
        assert await answers(store, [keyed(), keyed(on_clash="raise")]) == ["duplicate", "taken"]
        other = keyed(on_clash="replace", payload=b"[8]")
        assert await at_first(store, [other, draft()]) == ["busy", "accepted"]
    assert (await receipt(store, other)).answer == "replaced"
    assert (await record(store, holder.id)).payload == b"[8]"


async def test_hundreds_of_jobs_that_hang_on_one_transaction_leave_the_others_alone(
    store: Store, postgres: Database
) -> None:
    jobs = [keyed(text=f"order {n}") for n in range(200)]
    async with stranger(postgres) as connection:
        await through_the_door(connection, *(theirs(replace(job, id=draft().id)) for job in jobs[::2]))
        met = await at_first(store, jobs)
        assert Counter(met) == {"accepted": 100, "busy": 100}
        assert set(met[::2]) == {"busy"}


async def test_a_wait_for_a_key_that_is_called_cancelled_is_busy(
    store: Store, postgres: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server says so where the key is granted just as the time for it runs out."""
    monkeypatch.setattr(limits, "ENQUEUE", 60_000)
    async with stranger(postgres) as connection:
        await through_the_door(connection, theirs(keyed()))
        asking = asyncio.create_task(at_first(store, [keyed(), draft()]))
        waiting = "wait_event_type = 'Lock' AND datname = current_database()"
        cancel = f"SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE {waiting}"
        async with (
            await psycopg.AsyncConnection.connect(postgres.dsn, autocommit=True) as eye,
            asyncio.timeout(PATIENCE),
        ):
            while not await (await eye.execute(cancel)).fetchone():  # noqa: ASYNC110  # the server's to say
                await asyncio.sleep(0.005)
            assert await asking == ["busy", "accepted"]


# --- at the same moment


async def test_batches_with_the_same_keys_in_opposite_order_end_with_one_holder_each(postgres: Database) -> None:
    async with opened(postgres) as one, opened(postgres) as other:
        for _ in range(15):
            queue = f"q-{draft().id}"
            ours = [keyed(text=f"k{n}", queue=queue) for n in range(30)]
            others = [keyed(text=f"k{n}", queue=queue) for n in reversed(range(30))]
            async with asyncio.timeout(PATIENCE):
                mine, theirs_ = await asyncio.gather(settled(one, ours), settled(other, others))
            by_key = dict(zip([job.unique for job in ours], mine, strict=True))
            for job, met in zip(others, theirs_, strict=True):
                assert {met.answer, by_key[job.unique].answer} == {"accepted", "duplicate"}
                assert met.holder == (by_key[job.unique].id if met.answer == "duplicate" else None)
                assert by_key[job.unique].holder == (None if met.answer == "duplicate" else met.id)


async def test_a_call_that_meets_its_own_first_copy_stores_each_job_once(postgres: Database) -> None:
    """The reply of the first was lost, and it is still under way."""
    async with opened(postgres) as one, opened(postgres) as other:
        for _ in range(15):
            jobs = [*(draft() for _ in range(40)), *(keyed(text=str(draft().id)) for _ in range(5))]
            met = await asyncio.gather(settled(one, jobs), settled(other, jobs[::-1]))
            created = Counter(each.id for receipts in met for each in receipts if each.created)
            assert {each.answer for receipts in met for each in receipts} == {"accepted"}
            assert created == dict.fromkeys((job.id for job in jobs), 1)


async def test_while_others_commit_and_roll_back_every_receipt_says_who_holds_the_key(postgres: Database) -> None:
    held = dict[object, str]()

    async def user(n: int) -> None:
        """Takes keys in transactions of his own, every other one of which comes to nothing."""
        async with stranger(postgres) as connection:
            for turn in range(25):
                job = theirs(keyed(text=f"k{turn % 5}", queue="crowd"))
                [met] = await through_the_door(connection, job)
                if (turn + n) % 2:
                    await connection.rollback()
                    continue
                await connection.commit()
                assert met["answer"] in ("accepted", "duplicate")
                held[met["holder"] or met["id"]] = f"k{turn % 5}"

    async def ours(store: Store) -> None:
        for turn in range(25):
            job = keyed(text=f"k{turn % 5}", queue="crowd")
            [met] = await settled(store, [job])
            assert met.answer in ("accepted", "duplicate")
            assert (met.holder is None) == (met.answer == "accepted")
            held[met.holder or met.id] = f"k{turn % 5}"

    async with opened(postgres) as one, opened(postgres) as other, asyncio.timeout(PATIENCE * 2):
        await asyncio.gather(user(0), user(1), user(2), ours(one), ours(other))
        assert Counter(held.values()) == dict.fromkeys([f"k{n}" for n in range(5)], 1)
        assert {row.id for row in await listing(one) if row.queue == "crowd"} == held.keys()


async def test_of_an_id_twice_in_one_call_the_first_is_stored_whatever_the_others_are(store: Store) -> None:
    job = keyed()
    plain = replace(job, unique=None, queue="a", payload=b"[43]")
    assert [(met.answer, met.created) for met in await store.enqueue([job, plain, job])] == [
        ("accepted", True),
        ("conflict", False),
        ("accepted", False),
    ]
    assert (await record(store, job.id)).queue == "mail"


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
async def test_under_a_snapshot_what_others_took_since_is_the_users_own_serialization_error(
    store: Store, postgres: Database, level: str
) -> None:
    async with stranger(postgres, level) as connection:
        await store.enqueue([keyed()])
        with pytest.raises(psycopg.errors.SerializationFailure):
            await through_the_door(connection, theirs(keyed()))
        await connection.rollback()
        [met] = await through_the_door(connection, theirs(keyed()))
        assert met["answer"] == "duplicate"


# --- as a producer sees it


@pytest.fixture
async def jobs(postgres: Database) -> AsyncIterator[Holdfast]:
    async with Holdfast(postgres.url) as jobs:
        yield jobs


async def test_a_producer_waits_for_a_transaction_that_ends_soon(jobs: Holdfast, postgres: Database) -> None:
    @jobs.task(name="shop.send", queue="mail", unique=Unique("k"))
    def send(number: int) -> None: ...

    async with stranger(postgres) as connection:
        [met] = await through_the_door(connection, theirs(keyed()))
        asking = asyncio.create_task(send.aenqueue(1))
        await jobs.task(name="shop.print", queue="mail")(send.fn).aenqueue(2)
        assert not asking.done()
        await connection.commit()
        async with asyncio.timeout(PATIENCE):
            job = await asking
        assert (job.id, job.created) == (met["id"], False)


async def test_of_one_that_stays_open_the_producer_is_told_which_job_and_key(
    jobs: Holdfast, postgres: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "OPEN_MOST", 0.2)

    @jobs.task(name="shop.send", queue="mail", unique=Unique("order 7"))
    def send(number: int) -> None: ...

    bound = send.bind(1)
    async with stranger(postgres) as connection:
        await through_the_door(connection, theirs(keyed(text="order 7")))
        with pytest.raises(StoreAway, match=f"{bound.id}.*another transaction.*unique key 'order 7'.*queue mail"):
            await jobs.aenqueue_many([bound])
    [job] = await jobs.aenqueue_many([bound])
    assert (await job.astatus()).state == State.QUEUED


async def test_a_taken_key_is_still_a_conflict_where_the_draft_says_so(jobs: Holdfast) -> None:
    @jobs.task(queue="mail", unique=Unique("k", on_clash="raise"))
    def send() -> None: ...

    await send.aenqueue()
    with pytest.raises(UniqueConflict, match="holds the unique key 'k'"):
        await send.aenqueue()
