"""What keeps bounds and unique keys exact in a SQLite file: what counts, what it costs, and changes made by hand."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from holdfast.bridge import run_here
from holdfast.clock import HOUR, FakeClock
from holdfast.errors import StoreAway
from holdfast.job import Claim, Draft, Failed, Failure, Note, QueueTerms, Succeeded, Terms, UniqueKey, new_id
from holdfast.policy import decide
from holdfast.store import QueueStats, Retried, Room, Where
from holdfast.stores.sqlite import SqliteStore
from holdfast.stores.sqlite import store as store_module
from holdfast.stores.sqlite.enqueue import enqueue
from holdfast.stores.sqlite.opening import connect
from holdfast.stores.sqlite.statements import Sql

PATIENCE = 30  # seconds, for whatever a test waits for
TERMS = Terms(max_attempts=2, base_delay=0, jitter=0.0)
DEAD = Failed(Failure("KeyError", "gone for good", ""), final=True)
KEY = UniqueKey("invoice:42")


def draft(**changes: Any) -> Draft:
    return Draft(**{"id": new_id(), "task": "shop.send", "queue": "mail", "payload": b"[42]", "terms": TERMS} | changes)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "shop.db"


@pytest.fixture
async def store(file: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(str(file), durability="normal", clock=FakeClock())
    await store.open()
    yield store
    async with asyncio.timeout(PATIENCE):
        await store.close()


@contextmanager
def database(path: Path, **options: Any) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, **options)) as connection:
        yield connection


def by_hand(file: Path, *statements: str) -> int:
    """The number of rows that the last one changed."""
    with database(file) as connection:
        for statement in statements:
            changed = connection.execute(statement).rowcount
        connection.commit()
    return changed


def counting(file: Path) -> set[str]:
    """What of the schema is there for bounds only."""
    with database(file) as connection:
        names = {name for [name] in connection.execute("SELECT name FROM sqlite_master")}
    return names & {"holdfast_count_ended", "holdfast_count_deleted", "holdfast_oldest"}


async def mail(store: SqliteStore) -> QueueStats:
    [found] = [queue for queue in (await store.stats()).queues if queue.name == "mail"]
    return found


async def exact(store: SqliteStore) -> int:
    """The places taken, which must be what a recount finds."""
    queue = await mail(store)
    unfinished = sum(number for state, number in queue.counts.items() if state != "dead")
    assert queue.admitted == unfinished, "the places are not what a recount finds"
    return unfinished


async def claimed(store: SqliteStore, limit: int = 100) -> list[Claim]:
    worker = uuid4()
    await store.register(worker, None, {})
    return list((await store.claim(worker, 1, ["mail"], limit)).jobs)


async def end(store: SqliteStore, *claims: Claim, dead: bool = False) -> None:
    answers = await store.finish([decide(job, DEAD if dead else Succeeded(b"1")) for job in claims])
    assert {settled.answer for settled in answers} == {"accepted"}


# --- what counts


async def test_a_file_without_bounds_has_nothing_that_counts(store: SqliteStore, file: Path) -> None:
    assert counting(file) == set()
    await store.configure({"mail": QueueTerms(), "slow": QueueTerms(None, "drop_oldest")}, "worker")
    assert counting(file) == set()


async def test_what_counts_comes_with_the_first_bound_and_goes_with_the_last(store: SqliteStore, file: Path) -> None:
    triggers = {"holdfast_count_ended", "holdfast_count_deleted"}
    await store.configure({"mail": QueueTerms(5)}, "producer")
    assert counting(file) == triggers
    await store.configure({"slow": QueueTerms(5, "drop_oldest")}, "worker")
    assert counting(file) == triggers | {"holdfast_oldest"}
    await store.configure({"slow": QueueTerms(5)}, "worker")
    assert counting(file) == triggers
    await store.configure({"slow": QueueTerms()}, "worker")
    assert counting(file) == triggers
    await store.configure({"mail": QueueTerms()}, "operator")
    assert counting(file) == set()
    await store.configure({"mail": None}, "operator")
    assert counting(file) == triggers, "the bound that code declared is in effect again"


async def test_jobs_are_counted_anew_when_a_bound_comes_back(store: SqliteStore) -> None:
    await store.configure({"mail": QueueTerms(5)}, "worker")
    await store.enqueue([draft() for _ in range(4)])
    await store.configure({"mail": QueueTerms()}, "worker")
    await end(store, *await claimed(store, 2))
    await store.enqueue([draft(delay=HOUR) for _ in range(5)])
    await store.configure({"mail": QueueTerms(9)}, "worker")
    assert await exact(store) == 7


async def test_a_declaration_that_changes_nothing_waits_for_nobody(store: SqliteStore, file: Path) -> None:
    await store.configure({"mail": QueueTerms(5)}, "worker")
    await store.enqueue([draft()])
    with database(file, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        async with asyncio.timeout(PATIENCE):
            await store.configure({"mail": QueueTerms(5)}, "worker")
            await store.configure({"mail": QueueTerms(7)}, "producer")
        other.execute("ROLLBACK")
    assert (await mail(store)).terms == QueueTerms(5)


async def test_one_that_does_gives_up_where_the_caller_holds_the_lock_himself(
    store: SqliteStore, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "OWN_LOCK_PATIENCE", 0.2)
    with database(file, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreAway, match="write lock"):
            async with asyncio.timeout(PATIENCE):
                await store.configure({"mail": QueueTerms(5)}, "producer")
        other.execute("ROLLBACK")
    assert counting(file) == set()


async def test_a_rollback_of_the_callers_takes_places_and_declarations_back(store: SqliteStore, file: Path) -> None:
    with database(file) as shop:
        receipts = run_here(store.enqueue([draft(), draft()], shop, {"mail": QueueTerms(2)}))
        assert [receipt.answer for receipt in receipts] == ["accepted", "accepted"]
        assert [receipt.answer for receipt in run_here(store.enqueue([draft()], shop))] == ["full"]
        shop.rollback()
    assert counting(file) == set()
    await store.configure({"mail": QueueTerms(2)}, "producer")
    with database(file) as shop:
        run_here(store.enqueue([draft(), draft()], shop))
        shop.rollback()
        assert await exact(store) == 0
        run_here(store.enqueue([draft(), draft()], shop))
        shop.commit()
    assert await exact(store) == 2


def _five() -> list[Draft]:
    first, key = draft(), draft(unique=KEY)
    replacing = draft(unique=KEY._replace(on_clash="replace"), payload=b"[43]")
    return [first, key, draft(unique=KEY), replacing, draft()]


async def _check_five(store: SqliteStore, jobs: list[Draft], receipts: Any) -> None:
    first, key, *_ = jobs
    assert [(receipt.answer, receipt.holder, receipt.dropped) for receipt in receipts] == [
        ("accepted", None, None),
        ("accepted", None, None),
        ("duplicate", key.id, None),
        ("replaced", key.id, None),
        ("accepted", None, first.id),
    ]
    [found] = await store.find(Where(ids=[key.id]))
    assert found.payload == b"[43]"
    assert await exact(store) == 2


async def test_keys_and_bounds_are_met_on_a_connection_with_settings_of_its_owners(
    store: SqliteStore, file: Path
) -> None:
    def upper(value: bytes) -> str:
        return value.decode().upper()

    with database(file, detect_types=sqlite3.PARSE_DECLTYPES) as shop:
        shop.row_factory, shop.text_factory = sqlite3.Row, upper
        receipts = run_here(store.enqueue(jobs := _five(), shop, {"mail": QueueTerms(2, "drop_oldest")}))
        shop.commit()
    await _check_five(store, jobs, receipts)


@pytest.mark.parametrize("encoding", ["UTF-16le", "UTF-16be"])
async def test_keys_and_bounds_are_met_in_a_database_of_another_encoding(file: Path, encoding: str) -> None:
    with database(file) as shop:
        shop.execute(f"PRAGMA encoding = '{encoding}'")
        shop.execute("CREATE TABLE orders (id)")
    store = SqliteStore(str(file), durability="normal", clock=FakeClock())
    await store.open()
    await store.configure({"mail": QueueTerms(2, "drop_oldest")}, "worker")
    await _check_five(store, jobs := _five(), await store.enqueue(jobs))
    await store.configure({"mail": QueueTerms(2, "drop_oldest")}, "worker")
    assert await store.retry([jobs[0].id]) == [Retried("full", room=Room(2, 2, "drop_oldest", None))]
    await store.close()


# --- what was saved


async def test_what_was_saved_goes_with_a_success_and_stays_with_the_dead(store: SqliteStore, file: Path) -> None:
    await store.enqueue([draft() for _ in range(3)])
    good, dead, running = await claimed(store, 3)
    notes = [Note(job.id, job.fence, job.worker, saved=b"1") for job in (good, dead, running)]
    assert await store.note(notes) == [True] * 3
    await end(store, good)
    await end(store, dead, dead=True)
    with database(file) as connection:
        left = connection.execute("SELECT id FROM holdfast_saved JOIN holdfast_jobs ON job = seq").fetchall()
    assert {job for [job] in left} == {str(dead.id), str(running.id)}


async def test_the_places_of_many_queues_are_counted_in_one_pass(store: SqliteStore, file: Path) -> None:
    names = [f"queue-{n}" for n in range(20)]
    await store.enqueue([draft(queue=name, delay=delay) for name in names[:10] for delay in (0, 60_000)])
    await store.configure({name: QueueTerms(5) for name in names}, "producer")
    assert {queue.name: queue.admitted for queue in (await store.stats()).queues} == {
        name: 2 if name in names[:10] else 0 for name in names
    }


# --- rows that cannot be read


@pytest.mark.parametrize("terms", ["{broken", "[]", '["a", 1, 1, 1, 1, 1, "x"]', "7"])
async def test_terms_that_cannot_be_read_are_in_nobodys_way(store: SqliteStore, file: Path, terms: str) -> None:
    await store.configure({"mail": QueueTerms(3, "drop_oldest")}, "worker")
    odd, good, new, *_ = jobs = [draft() for _ in range(5)]
    await store.enqueue(jobs[:3])
    by_hand(file, f"UPDATE holdfast_jobs SET terms = '{terms}' WHERE id = '{odd.id}'")
    [receipt] = await store.enqueue(jobs[3:4])
    assert (receipt.answer, receipt.dropped) == ("accepted", odd.id), "the oldest is dropped like any other"
    by_hand(file, f"UPDATE holdfast_jobs SET terms = '{terms}' WHERE id = '{new.id}'")
    assert await store.cancel([new.id, good.id]) == ["cancelled", "cancelled"]
    assert await store.delete([odd.id, new.id, good.id]) == ["deleted"] * 3
    assert await exact(store) == 1


async def test_what_is_said_of_a_queue_and_cannot_be_read_is_replaced_by_the_next_word(
    store: SqliteStore, file: Path
) -> None:
    await store.configure({"mail": QueueTerms(3)}, "worker")
    by_hand(file, "UPDATE holdfast_queues SET declared = 'broken'")
    await store.configure({"mail": QueueTerms(4)}, "worker")
    assert (await mail(store)).terms == QueueTerms(4)


# --- changes made by hand

CHANGES = {
    "cancelled": "UPDATE holdfast_jobs SET state = 'cancelled', finished_at = 1 WHERE state = 'queued'",
    "killed": "UPDATE holdfast_jobs SET state = 'dead', finished_at = 1, worker = NULL WHERE state = 'running'",
    "revived": "UPDATE holdfast_jobs SET state = 'queued', finished_at = NULL, started_at = NULL WHERE state = 'dead'",
    "queued at once": "UPDATE holdfast_jobs SET state = 'queued' WHERE state = 'scheduled'",
    "deleted": "DELETE FROM holdfast_jobs WHERE state <> 'running'",
    "all deleted": "DELETE FROM holdfast_jobs",
    "moved away": "UPDATE holdfast_jobs SET queue = 'slow' WHERE state = 'queued'",
    "moved here": "UPDATE holdfast_jobs SET queue = 'mail' WHERE queue = 'slow'",
    "moved and ended": "UPDATE holdfast_jobs SET queue = 'slow', state = 'dead', finished_at = 1",
    "ended and moved here": "UPDATE holdfast_jobs SET queue = 'mail', state = 'dead', finished_at = 1",
}


@pytest.mark.parametrize("change", CHANGES)
async def test_places_are_exact_after_changes_by_hand(store: SqliteStore, file: Path, change: str) -> None:
    await store.configure({"mail": QueueTerms(50)}, "worker")
    await store.enqueue([draft() for _ in range(9)])
    dead, done, *_ = await claimed(store, 4)
    await end(store, dead, dead=True)
    await end(store, done)
    await store.enqueue([draft(delay=HOUR), draft(delay=HOUR), draft(queue="slow"), draft(queue="slow", delay=HOUR)])
    assert await exact(store) == 9
    assert by_hand(file, CHANGES[change]) > 0
    await exact(store)
    await store.enqueue([draft()])
    assert await exact(store) > 0


@pytest.mark.parametrize("by", ["worker", "operator"])
async def test_what_was_stored_by_hand_is_counted_by_the_next_worker_or_operator(
    store: SqliteStore, file: Path, by: Any
) -> None:
    """As by a process of an older version that was not stopped before the file was migrated."""
    await store.configure({"mail": QueueTerms(3)}, "worker")
    names = "task, queue, state, priority, alone, born_alone, enqueued_at, due_at, terms, tags, payload"
    await store.enqueue([draft()])
    by_hand(file, f"INSERT INTO holdfast_jobs (id, {names}) SELECT '{new_id()}', {names} FROM holdfast_jobs")
    assert (await mail(store)).admitted == 1, "nothing was wrong before"
    await store.configure({"mail": QueueTerms(3)}, by)
    assert await exact(store) == 2
    assert [receipt.answer for receipt in await store.enqueue([draft(), draft()])] == ["accepted", "full"]


HOLDERS = {
    "ended": ("UPDATE holdfast_jobs SET state = 'dead', finished_at = 1", True),
    "deleted": ("DELETE FROM holdfast_jobs", True),
    "moved": ("UPDATE holdfast_jobs SET queue = 'slow'", True),
    "another key": ("UPDATE holdfast_jobs SET unique_key = 'invoice:43'", True),
    "queued again": ("UPDATE holdfast_jobs SET state = 'queued', worker = NULL", False),
}


@pytest.mark.parametrize("change", HOLDERS)
async def test_a_key_is_held_as_its_jobs_row_says_after_changes_by_hand(
    store: SqliteStore, file: Path, change: str
) -> None:
    statement, free = HOLDERS[change]
    await store.enqueue([draft(unique=KEY)])
    await claimed(store)
    by_hand(file, statement)
    [receipt] = await store.enqueue([draft(unique=KEY)])
    assert receipt.answer == ("accepted" if free else "duplicate")


async def test_nobody_can_write_a_second_holder(store: SqliteStore, file: Path) -> None:
    await store.enqueue([draft(unique=KEY), draft()])
    with pytest.raises(sqlite3.IntegrityError, match="unique_key"):
        by_hand(file, "UPDATE holdfast_jobs SET unique_key = 'invoice:42', unique_until = 'finished'")


# --- holds


async def _answer(store: SqliteStore) -> str:
    """What a draft with the key meets; it is taken back if it is stored."""
    [receipt] = await store.enqueue([draft(unique=KEY)])
    if receipt.created:
        await store.delete([receipt.id])
    return receipt.answer


async def test_a_key_that_was_lost_after_its_hold_is_held_again_in_the_next_life(store: SqliteStore) -> None:
    job = draft(unique=KEY._replace(hold=HOUR))
    await store.enqueue([job])
    await end(store, *await claimed(store), dead=True)
    assert await _answer(store) == "duplicate"
    store.shift += HOUR
    assert await _answer(store) == "accepted", "and with it the first loses the key for good"
    assert [retried.answer for retried in await store.retry([job.id])] == ["retried"]
    assert await _answer(store) == "duplicate"
    await end(store, *await claimed(store), dead=True)
    assert await _answer(store) == "duplicate", "the second end's hold is forgotten"
    store.shift += HOUR
    assert await _answer(store) == "accepted"


async def test_a_job_that_was_replaced_twice_is_recognised_by_what_its_producer_wrote(store: SqliteStore) -> None:
    job = draft(unique=KEY)
    await store.enqueue([job])
    for payload in (b"[43]", b"[44]"):
        [receipt] = await store.enqueue([draft(unique=KEY._replace(on_clash="replace"), payload=payload)])
        assert (receipt.answer, receipt.holder) == ("replaced", job.id)
        assert [(again.answer, again.created) for again in await store.enqueue([job])] == [("accepted", False)]
    [found] = await store.find(Where(ids=[job.id]))
    assert found.payload == b"[44]"


@pytest.mark.parametrize("started", [True, False])
async def test_a_hold_counts_only_where_the_key_is_held_at_the_end(store: SqliteStore, started: bool) -> None:
    job = draft(unique=UniqueKey("invoice:42", "started", HOUR), terms=TERMS._replace(max_attempts=9, keep=0))
    await store.enqueue([job])
    if started:
        await store.finish([decide(claim, Failed(Failure("ValueError", "", ""))) for claim in await claimed(store)])
    await store.cancel([job.id])
    assert await _answer(store) == ("accepted" if started else "duplicate")
    store.shift += HOUR - 1
    await store.prune(10)
    assert bool(await store.find(Where(ids=[job.id]))) is not started, "a holder was pruned, or kept as if it were one"


# --- what it costs


def traced(file: Path, jobs: list[Draft]) -> list[str]:
    """The statements of one enqueue of ours; rolled back."""
    texts: list[str] = []
    with closing(connect(str(file), "normal", 4)) as connection:
        sql = Sql(connection, lambda: 0)
        sql.run("BEGIN IMMEDIATE")
        connection.set_trace_callback(texts.append)
        enqueue(sql, jobs)
        connection.set_trace_callback(None)
        sql.run("ROLLBACK")
    return texts


async def test_plain_jobs_pay_no_statement_for_keys_and_bounds(store: SqliteStore, file: Path) -> None:
    await store.enqueue([draft(unique=KEY)])
    first, insert = traced(file, [draft() for _ in range(64)])
    assert first.startswith("SELECT")
    assert "INSERT INTO holdfast_jobs" in insert
    assert "unique_key" not in insert


def work_of(file: Path, jobs: list[Draft]) -> int:
    """How many instructions SQLite runs to enqueue them, in tens; rolled back."""
    count = 0

    def tick() -> None:
        nonlocal count
        count += 1

    with closing(connect(str(file), "normal", 4)) as connection:
        sql = Sql(connection, lambda: 0)
        sql.run("BEGIN IMMEDIATE")
        connection.set_progress_handler(tick, 10)
        receipts = enqueue(sql, jobs)
        connection.set_progress_handler(None, 0)
        sql.run("ROLLBACK")
    assert {receipt.answer for receipt in receipts} <= {"accepted", "full", "duplicate"}
    return count


@pytest.mark.parametrize("when_full", ["reject", "drop_oldest"])
async def test_an_enqueue_into_a_full_queue_costs_the_same_whatever_its_length(
    store: SqliteStore, file: Path, when_full: Any
) -> None:
    costs: list[int] = []
    for size in (100, 3000):
        await store.configure({"mail": QueueTerms(size, when_full)}, "operator")
        jobs = [draft() for _ in range(size - ((await mail(store)).admitted or 0))]
        await store.enqueue(jobs)
        await end(store, *await claimed(store, size // 2))  # what has ended must not be read either
        await store.enqueue([draft() for _ in range(size // 2)])
        assert await exact(store) == size
        costs.append(work_of(file, [draft()]))
    assert costs[1] < 2 * costs[0] + 50, f"{costs} tens of instructions"


async def test_an_enqueue_with_a_key_costs_the_same_whatever_is_stored(store: SqliteStore, file: Path) -> None:
    costs: list[tuple[int, int]] = []
    for _ in range(2):
        await store.enqueue([draft(unique=UniqueKey(str(new_id()))) for _ in range(1500)])
        await store.enqueue([draft(unique=KEY)])
        costs.append((work_of(file, [draft(unique=KEY)]), work_of(file, [draft(unique=UniqueKey("free"))])))
    assert costs[1][0] < 2 * costs[0][0] + 50, f"{costs} tens of instructions"
    assert costs[1][1] < 2 * costs[0][1] + 50, f"{costs} tens of instructions"


# --- calls of one transaction


async def test_calls_that_are_committed_together_are_refused_one_by_one(store: SqliteStore) -> None:
    await store.configure({"mail": QueueTerms(5)}, "worker")
    calls = [[draft(), draft(unique=UniqueKey(f"key {number % 3}")), draft(queue="slow")] for number in range(20)]
    async with asyncio.timeout(PATIENCE):
        answers = await asyncio.gather(*(store.enqueue(jobs) for jobs in calls))
    receipts = [receipt for answer in answers for receipt in answer]
    assert [receipt.id for receipt in receipts] == [job.id for jobs in calls for job in jobs], "not in order"
    assert {receipts[place].answer for place in range(2, 60, 3)} == {"accepted"}, "a stranger's refusal met others"
    created = {receipt.id for receipt in receipts if receipt.created}
    assert {record.id for record in await store.find(Where(), None, 100)} == created
    assert await exact(store) == 5


async def test_a_call_that_fails_takes_no_place(store: SqliteStore) -> None:
    await store.configure({"mail": QueueTerms(5)}, "worker")
    with pytest.raises(OverflowError):
        await store.enqueue([draft(), draft(priority=2**70)])
    assert await exact(store) == 0


async def test_the_same_id_twice_takes_one_place(store: SqliteStore) -> None:
    await store.configure({"mail": QueueTerms(5)}, "worker")
    job = draft()
    for _ in range(2):
        receipts = await store.enqueue([job, job, draft(id=job.id, queue="slow")])
        assert [receipt.answer for receipt in receipts] == ["accepted", "accepted", "conflict"]
    assert await exact(store) == 1


async def test_a_row_with_a_key_that_cannot_be_read_is_left_out_of_listings(store: SqliteStore, file: Path) -> None:
    await store.enqueue([draft(unique=KEY), other := draft()])
    by_hand(file, "UPDATE holdfast_jobs SET unique_clash = 'sing' WHERE unique_key IS NOT NULL")
    assert {record.id for record in await store.find(Where())} == {other.id}


async def test_log_lines_of_one_job_stay_apart_from_anothers(store: SqliteStore, file: Path) -> None:
    """And go with it, when its row goes."""
    await store.enqueue([draft(terms=TERMS._replace(keep=0)) for _ in range(2)])
    one, two = await claimed(store)
    for job, text in ((one, "one"), (two, "two"), (one, "one more")):
        await store.note([Note(job.id, job.fence, job.worker, text=text, lines=((0, text),), saved=b"1")])
    assert [line.text for line in await store.log(one.id)] == ["one", "one more"]
    await end(store, one)
    store.shift += HOUR
    assert await store.prune(10) == 1
    with database(file) as connection:
        for table in ("notes", "saved", "log"):
            [[job]] = connection.execute(f"SELECT DISTINCT job FROM holdfast_{table}").fetchall()
            [[owner]] = connection.execute("SELECT id FROM holdfast_jobs WHERE seq = ?", (job,)).fetchall()
            assert UUID(owner) == two.id, f"what belonged to a job is left in holdfast_{table}"
