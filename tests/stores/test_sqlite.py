"""What is special to the SQLite store: the file, the caller's transaction, many processes, group commit, the log."""

import asyncio
import gc
import json
import os
import re
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from holdfast.bridge import run_here
from holdfast.clock import DAY, HOUR, FakeClock, SystemClock
from holdfast.errors import ConfigError, StoreAway, StoreError
from holdfast.job import Draft, Failed, Failure, Loss, QueueTerms, Succeeded, Terms, new_id
from holdfast.policy import decide
from holdfast.store import Where
from holdfast.stores.sqlite import SqliteStore, checkpoint, opening
from holdfast.stores.sqlite import store as store_module
from holdfast.stores.sqlite.checkpoint import Checkpoint
from holdfast.stores.sqlite.files import Files, identity
from holdfast.stores.sqlite.opening import Migration, connect, patiently, prepare
from holdfast.stores.sqlite.statements import Sql, statement
from holdfast.stores.sqlite.writer import Pen, Work, Writer

PATIENCE = 30  # seconds, for whatever a test waits for
TERMS = Terms(max_attempts=40, base_delay=0, max_delay=0, jitter=0.0)


def draft(**changes: Any) -> Draft:
    fields: dict[str, Any] = {"id": new_id(), "task": "shop.send", "queue": "mail", "payload": b"[42]", "terms": TERMS}
    return Draft(**fields | changes)


def sqlite_store(path: Path | str, **options: Any) -> SqliteStore:
    return SqliteStore(str(path), clock=SystemClock(), **{"durability": "normal"} | options)


@asynccontextmanager
async def opened(path: Path | str, **options: Any) -> AsyncIterator[SqliteStore]:
    store = sqlite_store(path, **options)
    await store.open()
    try:
        yield store
    finally:
        async with asyncio.timeout(PATIENCE):
            await store.close()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "shop.db"


@pytest.fixture
async def store(file: Path) -> AsyncIterator[SqliteStore]:
    async with opened(file) as store:
        yield store


@contextmanager
def database(path: Path, **options: Any) -> Iterator[sqlite3.Connection]:
    """A connection as an application has it."""
    with closing(sqlite3.connect(path, **options)) as connection:
        yield connection


def content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def put(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def size(path: Path) -> int:
    return path.stat().st_size


async def ids(store: SqliteStore) -> set[UUID]:
    return {record.id for record in await store.find(Where(), None, 100_000)}


async def a_worker(store: SqliteStore) -> UUID:
    worker = uuid4()
    await store.register(worker, None, {})
    return worker


# --- opening


async def test_a_missing_file_is_made_and_serves(file: Path) -> None:
    async with opened(file) as store:
        await store.enqueue([job := draft()])
    async with opened(file) as store:
        assert await ids(store) == {job.id}


async def test_an_empty_file_gets_its_tables(file: Path) -> None:
    put(file, b"")
    async with opened(file) as store:
        assert (await store.enqueue([draft()]))[0].created


async def test_an_applications_own_database_gets_the_tables_beside_its_own(file: Path) -> None:
    with database(file) as shop:
        shop.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY)")
        shop.execute("INSERT INTO orders VALUES (42)")
        shop.commit()
        async with opened(file) as store:
            assert (await store.enqueue([draft()]))[0].created
        assert shop.execute("SELECT id FROM orders").fetchall() == [(42,)]
        assert shop.execute("PRAGMA journal_mode").fetchall() == [("wal",)]


@pytest.mark.parametrize("encoding", ["UTF-16le", "UTF-16be"])
async def test_a_database_in_another_encoding_serves(file: Path, encoding: str) -> None:
    with database(file) as shop:
        shop.execute(f"PRAGMA encoding = '{encoding}'")
        shop.execute("CREATE TABLE orders (id)")
    async with opened(file) as store:
        job = draft(payload=bytes(range(256)), tags=("naïve 😀",))
        await store.enqueue([job])
        [found] = await store.find(Where(starts=str(job.id)[:20], ends=str(job.id)[-5:], tag="naïve 😀"))
        assert (found.id, found.payload) == (job.id, job.payload)
        [claim] = (await store.claim(await a_worker(store), 1, ["mail"], 5)).jobs
        assert (await store.finish([decide(claim, Succeeded(b"1"))]))[0].answer == "accepted"
        with database(file) as shop:
            assert (await store.enqueue([draft()], shop))[0].created, "in the caller's own transaction"


async def test_many_may_open_a_fresh_file_at_once(file: Path) -> None:
    stores = [sqlite_store(file) for _ in range(8)]
    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*(store.open() for store in stores))
        await asyncio.gather(*(store.enqueue([draft()]) for store in stores))
        assert len(await ids(stores[0])) == 8
        await asyncio.gather(*(store.close() for store in stores))


async def test_the_path_is_made_absolute_when_the_store_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = sqlite_store("shop.db")
    monkeypatch.chdir("/")
    await store.open()
    await store.close()
    assert (tmp_path / "shop.db").exists()
    assert store.url == f"sqlite:///{tmp_path}/shop.db"


@pytest.mark.parametrize("options", [{"path": ""}, {"path": ":memory:"}, {"path": "a.db", "durability": "some"}])
def test_nonsense_is_refused_at_once(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(reversed(options))):
        SqliteStore(**options, clock=FakeClock())


async def _refused(path: Path, match: str) -> str:
    """The message of an open that must fail and leave the file as it is."""
    before = content(path)
    store = sqlite_store(path)
    with pytest.raises(StoreError, match=match) as refusal:
        await store.open()
    assert not isinstance(refusal.value, StoreAway)
    assert str(path) in str(refusal.value), "the message does not name the file"
    assert content(path) == before, "the file was touched"
    with pytest.raises(StoreError, match="not open"):
        await store.enqueue([draft()])
    await store.close()
    return str(refusal.value)


async def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    message = await _refused(tmp_path / "none" / "shop.db", "no directory")
    assert f"{tmp_path}/none;" in message


async def test_a_directory_is_no_file(tmp_path: Path) -> None:
    await _refused(tmp_path, "is a directory")


async def test_a_file_that_is_no_database_is_refused(file: Path) -> None:
    put(file, b"id,name\n1,Ann\n" * 1000)
    await _refused(file, "not a SQLite database")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
@pytest.mark.parametrize("what", ["file", "directory"])
async def test_a_place_that_is_not_writable_is_refused(file: Path, what: str) -> None:
    async with opened(file):
        pass
    place = file if what == "file" else file.parent
    mode = place.stat().st_mode
    place.chmod(mode & ~0o222)
    try:
        await _refused(file, "not writable")
    finally:
        place.chmod(mode)


async def test_a_damaged_file_is_refused(file: Path) -> None:
    async with opened(file) as store:
        await store.enqueue([draft() for _ in range(200)])
    pages = bytearray(content(file) or b"")
    pages[100:4096] = os.urandom(3996)  # the first page, behind its header: the table of tables
    put(file, pages)
    await _refused(file, "damaged")


async def test_damage_that_is_met_later_is_named(file: Path) -> None:
    async with opened(file) as store:
        await store.enqueue([draft() for _ in range(2000)])
    pages = bytearray(content(file) or b"")
    for page in range(40, len(pages) // 4096):
        pages[page * 4096 : page * 4096 + 64] = b"\xee" * 64
    put(file, pages)
    async with opened(file) as store:
        with pytest.raises(StoreError, match=r"damaged.*integrity_check"):
            await store.find(Where(), None, 100_000)


# --- the schema and its versions


def _schema(path: Path) -> list[Any]:
    with database(path) as connection:
        return connection.execute("SELECT type, name, sql FROM sqlite_master ORDER BY name").fetchall()


async def test_the_statements_of_a_dry_run_do_the_same_by_hand(tmp_path: Path) -> None:
    told = await sqlite_store(tmp_path / "a.db").migrate(dry_run=True)
    assert not (tmp_path / "a.db").exists(), "a dry run made the file"
    await sqlite_store(tmp_path / "a.db").migrate()
    with database(tmp_path / "b.db", isolation_level=None) as byhand:
        byhand.executescript("BEGIN;\n" + "\n".join(told) + "\nCOMMIT;")
    assert _schema(tmp_path / "b.db") == _schema(tmp_path / "a.db")
    async with opened(tmp_path / "b.db") as store:
        assert (await store.enqueue([draft()]))[0].created


async def _meta(file: Path, version: int, oldest_code: int) -> None:
    await sqlite_store(file).migrate()
    with database(file) as connection:
        connection.execute("UPDATE holdfast_meta SET version = ?, oldest_code = ?", (version, oldest_code))
        connection.commit()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


async def test_tables_of_a_newer_code_that_allows_this_one_are_served(file: Path) -> None:
    await _meta(file, 99, opening.newest())
    async with opened(file) as store:
        assert (await store.enqueue([draft()]))[0].created
    assert await sqlite_store(file).migrate() == []


async def test_tables_of_a_newer_code_that_does_not_are_refused(file: Path) -> None:
    await _meta(file, 99, 98)
    assert "upgrade" in await _refused(file, "version 99")
    with pytest.raises(StoreError, match="upgrade"):
        await sqlite_store(file).migrate()


async def test_tables_without_a_version_are_refused(file: Path) -> None:
    with database(file) as connection:
        connection.execute("CREATE TABLE holdfast_notes (x)")
    await _refused(file, "holdfast_meta")


async def test_outdated_tables_are_refused_until_they_are_migrated(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(file) as store:
        await store.enqueue([job := draft()])
    number = opening.newest() + 1
    coming = Migration(
        number, ["ALTER TABLE holdfast_jobs ADD COLUMN colour TEXT;", f"UPDATE holdfast_meta SET version = {number};"]
    )
    steps = [*opening.migrations(), coming]
    monkeypatch.setattr(opening, "migrations", lambda: steps)
    await _refused(file, "holdfast migrate")
    assert await sqlite_store(file).migrate(dry_run=True) == coming.statements
    await _refused(file, "holdfast migrate")
    assert await sqlite_store(file).migrate() == coming.statements
    assert await sqlite_store(file).migrate() == []
    async with opened(file) as store:
        assert await ids(store) == {job.id}


async def test_a_migration_that_fails_leaves_nothing_behind(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await sqlite_store(file).migrate()
    before = _schema(file)
    statements = ["CREATE TABLE holdfast_colours (x) STRICT;", "CREATE TABLE holdfast_jobs (x TEXT);"]
    steps = [*opening.migrations(), Migration(opening.newest() + 1, statements)]
    monkeypatch.setattr(opening, "migrations", lambda: steps)
    with pytest.raises(StoreError):
        await sqlite_store(file).migrate()
    assert _schema(file) == before


# --- in the caller's own transaction


async def test_a_job_of_the_callers_transaction_comes_with_its_commit(store: SqliteStore, file: Path) -> None:
    worker = await a_worker(store)
    with database(file) as shop:
        shop.execute("CREATE TABLE orders (id)")
        shop.execute("INSERT INTO orders VALUES (1)")
        [receipt] = run_here(store.enqueue([job := draft()], connection=shop))
        assert (receipt.id, receipt.answer, receipt.created) == (job.id, "accepted", True)
        assert await ids(store) == set()
        assert (await store.claim(worker, 1, None, 5)).jobs == []
        assert shop.in_transaction
        shop.commit()
        assert await ids(store) == {job.id}


async def test_a_rollback_takes_the_job_along(store: SqliteStore, file: Path) -> None:
    with database(file) as shop:
        run_here(store.enqueue([draft(), draft()], connection=shop))
        shop.rollback()
        assert await ids(store) == set()
        run_here(store.enqueue([job := draft()], connection=shop))
        shop.commit()
    assert await ids(store) == {job.id}


async def test_a_commit_wakes_who_waits_for_jobs(store: SqliteStore, file: Path) -> None:
    waiting = asyncio.ensure_future(store.wait(["mail"], PATIENCE))
    with database(file, isolation_level=None) as shop:
        shop.execute("BEGIN IMMEDIATE")
        run_here(store.enqueue([draft()], connection=shop))
        await asyncio.sleep(0.02)
        assert not waiting.done(), "woken before the commit"
        shop.execute("COMMIT")
    assert await waiting


async def test_the_connection_keeps_its_owners_settings(store: SqliteStore, file: Path) -> None:
    def upper(value: bytes) -> str:
        return value.decode().upper()

    with database(file, detect_types=sqlite3.PARSE_DECLTYPES) as shop:
        shop.row_factory, shop.text_factory = sqlite3.Row, upper
        for known in (False, True):
            [receipt] = run_here(store.enqueue([job := draft(id=new_id())], connection=shop))
            assert receipt.created
            [receipt] = run_here(store.enqueue([job], connection=shop))
            assert (receipt.answer, receipt.created) == ("accepted", False), known
        assert (shop.row_factory, shop.text_factory) == (sqlite3.Row, upper)
        assert shop.isolation_level == ""
        assert shop.execute("SELECT 'a' AS x").fetchone()["x"] == "A"
        shop.commit()
        assert tuple(shop.execute("PRAGMA wal_autocheckpoint").fetchone()) == (0,)


async def test_a_conflict_leaves_the_transaction_as_it_was(store: SqliteStore, file: Path) -> None:
    known = draft()
    await store.enqueue([known])
    other, clash = draft(), draft(id=known.id, payload=b"[43]")
    with database(file) as shop:
        shop.execute("CREATE TABLE orders (id)")
        shop.execute("INSERT INTO orders VALUES (1)")
        receipts = run_here(store.enqueue([other, clash], connection=shop))
        assert [(r.id, r.answer, r.created) for r in receipts] == [
            (other.id, "accepted", False),
            (known.id, "conflict", False),
        ]
        assert shop.in_transaction
        shop.commit()
        assert shop.execute("SELECT id FROM orders").fetchall() == [(1,)]
    assert await ids(store) == {known.id}


async def test_an_error_leaves_the_transaction_as_it_was(store: SqliteStore, file: Path) -> None:
    with database(file) as shop:
        with pytest.raises(OverflowError):
            run_here(store.enqueue([draft(), draft(priority=2**70)], connection=shop))
        assert not shop.in_transaction, "the transaction that was begun for the job is left open"
        shop.execute("CREATE TABLE orders (id)")
        shop.execute("INSERT INTO orders VALUES (1)")
        with pytest.raises(OverflowError):
            run_here(store.enqueue([draft(), draft(priority=2**70)], connection=shop))
        shop.commit()
        assert shop.execute("SELECT id FROM orders").fetchall() == [(1,)]
    assert await ids(store) == set()


async def test_a_connection_to_another_file_is_refused(store: SqliteStore, tmp_path: Path) -> None:
    with database(tmp_path / "other.db") as other, pytest.raises(ConfigError, match=r"other\.db.*shop\.db"):
        run_here(store.enqueue([draft()], connection=other))
    with closing(sqlite3.connect(":memory:")) as other, pytest.raises(ConfigError, match="in memory"):
        run_here(store.enqueue([draft()], connection=other))


async def test_a_symbolic_link_to_the_file_is_the_file(store: SqliteStore, file: Path, tmp_path: Path) -> None:
    (tmp_path / "link.db").symlink_to(file)
    with database(tmp_path / "link.db") as shop:
        run_here(store.enqueue([job := draft()], connection=shop))
        shop.commit()
    assert await ids(store) == {job.id}


async def test_what_cannot_be_used_as_connection_is_named(store: SqliteStore, file: Path) -> None:
    with database(file) as shop:
        pass
    foreign = type("Connection", (), {"__module__": "pysqlite3.dbapi2"})()
    for connection, match in (
        (object(), r"object.*accepted are a sqlite3\.Connection"),
        (foreign, "two copies of SQLite"),
        (shop, "closed"),
    ):
        with pytest.raises(ConfigError, match=match):
            run_here(store.enqueue([draft()], connection=connection))


async def test_a_connection_of_another_thread_is_refused(store: SqliteStore, file: Path) -> None:
    with database(file) as shop, pytest.raises(ConfigError, match="thread"):
        await asyncio.to_thread(lambda: run_here(store.enqueue([draft()], connection=shop)))


async def test_without_a_transaction_there_is_nothing_to_be_part_of(store: SqliteStore, file: Path) -> None:
    with database(file, isolation_level=None) as shop:
        with pytest.raises(ConfigError, match="BEGIN IMMEDIATE"):
            run_here(store.enqueue([draft()], connection=shop))
        shop.execute("BEGIN IMMEDIATE")
        run_here(store.enqueue([job := draft()], connection=shop))
        shop.execute("COMMIT")
    assert await ids(store) == {job.id}


async def test_a_transaction_with_an_old_snapshot_is_told_of_begin_immediate(store: SqliteStore, file: Path) -> None:
    with database(file, isolation_level=None) as shop:
        shop.execute("BEGIN")
        shop.execute("SELECT count(*) FROM holdfast_jobs").fetchall()
        await store.enqueue([job := draft()])
        with pytest.raises(StoreAway, match="BEGIN IMMEDIATE"):
            run_here(store.enqueue([draft()], connection=shop))
        assert shop.in_transaction
        shop.execute("ROLLBACK")
    assert await ids(store) == {job.id}


async def test_a_file_without_tables_is_told_to_migrate(file: Path) -> None:
    with database(file) as shop, pytest.raises(StoreError, match="holdfast migrate"):
        run_here(sqlite_store(file).enqueue([draft()], connection=shop))


async def test_an_enqueue_beside_the_callers_own_open_transaction_says_what_to_do(
    store: SqliteStore, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "OWN_LOCK_PATIENCE", 0.1)
    with database(file, isolation_level=None) as shop:
        shop.execute("BEGIN IMMEDIATE")
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(StoreAway, match=r"shop\.db.*write transaction open.*\.using\(connection="):
                await store.enqueue([draft()])
        shop.execute("ROLLBACK")
    assert (await store.enqueue([draft()]))[0].created
    assert len(await ids(store)) == 1


# --- group commit


async def _behind_a_lock(file: Path, *calls: Any) -> list[Any]:
    """What becomes of calls that pile up while another process holds the write lock."""
    with database(file, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        tasks = [asyncio.ensure_future(call) for call in calls]
        await asyncio.sleep(0.02)
        assert not any(task.done() for task in tasks)
        other.execute("ROLLBACK")
    async with asyncio.timeout(PATIENCE):
        return await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_call_that_fails_does_not_harm_those_committed_with_it(store: SqliteStore, file: Path) -> None:
    first, last = draft(), draft()
    results = await _behind_a_lock(
        file, store.enqueue([first]), store.enqueue([draft(), draft(priority=2**70)]), store.enqueue([last])
    )
    assert [type(result) for result in results] == [list, OverflowError, list]
    assert await ids(store) == {first.id, last.id}


async def test_a_caller_that_left_before_its_turn_is_withdrawn(store: SqliteStore, file: Path) -> None:
    with database(file, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        left = asyncio.ensure_future(store.enqueue([draft()]))
        stays = asyncio.ensure_future(store.enqueue([job := draft()]))
        await asyncio.sleep(0.02)
        left.cancel()
        await asyncio.sleep(0)
        other.execute("ROLLBACK")
    async with asyncio.timeout(PATIENCE):
        await stays
    assert await ids(store) == {job.id}


@asynccontextmanager
async def a_writer(file: Path, *pragmas: str) -> AsyncIterator[Writer]:
    """A writer on a file with one table, t (x)."""
    prepare(str(file))

    def take() -> Pen:
        connection = connect(str(file), "normal", 4, 0.0)
        sql = Sql(connection, lambda: 0)
        for text in ("CREATE TABLE IF NOT EXISTS t (x)", *pragmas):
            sql.run(text)
        sql.run("SELECT x FROM t LIMIT 1")
        main = identity(str(file))
        assert main is not None
        return Pen(sql, Files(str(file), main), Checkpoint(str(file), connection, lambda: connection))

    writer = Writer(str(file), take, lambda: None, lambda: writer.let_go())  # noqa: PLW0108  # made later
    try:
        yield writer
    finally:
        await asyncio.to_thread(writer.close)


def _insert(size: int) -> Work[int]:
    return Work(lambda sql: len(sql.listing("INSERT INTO t VALUES (zeroblob(?)) RETURNING 1", [size])))


def _sizes(file: Path) -> list[int]:
    with database(file) as other:
        return [size for [size] in other.execute("SELECT length(x) FROM t ORDER BY x")]


async def test_a_full_file_fails_only_the_call_that_does_not_fit(file: Path) -> None:
    async with a_writer(file, "PRAGMA max_page_count = 60") as writer:
        results = await _behind_a_lock(file, *(writer.submit(_insert(size)) for size in (10, 20, 10**6, 30)))
        assert [type(result) for result in results] == [int, int, StoreAway, int]
        assert "full" in str(results[2])
    assert _sizes(file) == [10, 20, 30]


@pytest.mark.parametrize("several", [False, True])
async def test_when_the_transaction_is_gone_only_the_call_that_broke_it_fails(file: Path, several: bool) -> None:
    """Some errors end the whole transaction, and the calls before it with it (SEMANTICS M18)."""

    def break_it(sql: Sql) -> int:
        sql.run("ROLLBACK")
        raise sqlite3.OperationalError("disk I/O error")

    works = [_insert(10), Work(break_it), _insert(30), _insert(40)]
    async with a_writer(file) as writer:
        if several:
            results = await _behind_a_lock(file, *map(writer.submit, works))
        else:
            results = [await asyncio.gather(writer.submit(work), return_exceptions=True) for work in works]
            results = [result for [result] in results]
        assert [type(result) for result in results] == [int, StoreError, int, int]
    assert _sizes(file) == [10, 30, 40]


async def test_an_undo_that_fails_is_told_and_the_next_call_is_served(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(sql: Sql) -> int:
        raise ValueError("no")

    run = Sql.run
    left = [3]

    def deaf(self: Sql, text: str) -> Any:
        if text == "ROLLBACK" and left[0]:
            left[0] -= 1
            raise sqlite3.OperationalError("disk I/O error")
        return run(self, text)

    async with a_writer(file) as writer, asyncio.timeout(PATIENCE):
        monkeypatch.setattr(Sql, "run", deaf)
        with pytest.raises(ValueError, match="no"):
            await writer.submit(Work(fail))
        assert await writer.submit(_insert(10)) == 1
    assert _sizes(file) == [10]
    assert left == [2], "no undo was tried, or too many"


async def test_a_bell_that_fails_does_not_keep_the_answer(file: Path) -> None:
    async with a_writer(file) as writer, asyncio.timeout(PATIENCE):

        def fail() -> None:
            raise OSError("no bell")

        writer._woken = fail  # noqa: SLF001
        assert await writer.submit(Work(_insert(10).write, wakes=True)) == 1
        assert await writer.submit(_insert(20)) == 1
    assert _sizes(file) == [10, 20]


@pytest.mark.parametrize("error", [MemoryError(), OSError(24, "Too many open files")])
async def test_what_the_system_lacks_for_a_moment_is_no_fault_of_the_call(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(self: Sql, *_: Any) -> Any:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(Sql, "spread", fail)
        with pytest.raises(StoreAway):
            await store.enqueue([draft()])
    with monkeypatch.context() as patch:
        patch.setattr(Sql, "listing", fail)
        with pytest.raises(StoreAway):
            await store.find(Where())
    await store.enqueue([job := draft()])
    assert await ids(store) == {job.id}


async def test_calls_that_pile_up_are_committed_together(store: SqliteStore, file: Path) -> None:
    with database(file) as other:
        before = other.execute("PRAGMA data_version").fetchone()
        await _behind_a_lock(file, *(store.enqueue([draft()]) for _ in range(40)))
        [after] = other.execute("PRAGMA data_version").fetchone()
    assert len(await ids(store)) == 40
    assert after - before[0] <= 8, f"{after - before[0]} commits for 40 calls that waited together"


# --- what a call costs


async def test_calls_that_find_nothing_write_nothing(store: SqliteStore, file: Path) -> None:
    worker = await a_worker(store)
    await store.enqueue([draft(delay=DAY), draft(queue="other")])
    [job] = (await store.claim(worker, 1, ["other"], 1)).jobs
    with database(file, isolation_level=None) as other:
        before = other.execute("PRAGMA data_version").fetchall()
        other.execute("BEGIN IMMEDIATE")  # and none of these waits for the lock
        async with asyncio.timeout(PATIENCE):
            assert (await store.claim(worker, 2, None, 10)).jobs == []
            assert (await store.claim(worker, 2, ["mail", "other"], 10)).jobs == []
            assert (await store.claim(worker, 1, None, 10)).jobs == [job], "the repeat"
            assert (await store.claim(worker, 9, None, 10)).refused == "ticket"
            assert (await store.promote(10)).moved == 0
            assert await store.reclaim(worker, 10) == []
            assert await store.prune(10) == 0
            assert await store.wait(None, 0) is False
        other.execute("ROLLBACK")
        assert other.execute("PRAGMA data_version").fetchall() == before


def _plan(file: Path, name: str) -> str:
    with database(file) as connection:
        text = statement(name)
        places = max(map(int, re.findall(r"\?(\d+)", text)), default=text.count("?"))
        return " ".join(row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {text}", ["[]"] * places))


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("claim", "holdfast_ready (queue=?)"),
        ("next_queue", "holdfast_ready (queue>?)"),
        ("first_filled", "holdfast_ready (queue=?)"),
        ("held", "holdfast_held (worker=? AND ticket=?)"),
        ("promote", "holdfast_scheduled (due_at<?)"),
        ("over", "holdfast_prunable (prune_at<?)"),
        ("prune_jobs", "holdfast_jobs USING INTEGER PRIMARY KEY (rowid=?)"),
        ("prune_attempts", "holdfast_attempts USING PRIMARY KEY (job=?)"),
        ("prune_notes", "holdfast_notes USING INTEGER PRIMARY KEY (rowid=?)"),
        ("prune_saved", "holdfast_saved USING INTEGER PRIMARY KEY (rowid=?)"),
        ("prune_log", "holdfast_log USING PRIMARY KEY (job=?)"),
        ("succeed", "sqlite_autoindex_holdfast_jobs_1 (id=?)"),
        ("mail", "holdfast_flagged (worker=?)"),
        ("moment", "INDEX holdfast_bounded"),
        ("recognise", "sqlite_autoindex_holdfast_jobs_1 (id=?)"),
        ("holder", "holdfast_keys (queue=? AND unique_key=?)"),
        ("oldest", "holdfast_oldest (queue=?)"),
        ("room", "holdfast_queues USING PRIMARY KEY (name=?)"),
        ("places", "holdfast_ready (queue=?)"),
        ("places", "holdfast_by_state (state=?)"),
        ("counts", "holdfast_ready"),
        ("speaking", "sqlite_autoindex_holdfast_jobs_1 (id=?)"),
        ("log", "line USING PRIMARY KEY (job=?)"),
        ("lines", "holdfast_log USING PRIMARY KEY (job=?)"),
        ("cut_log", "holdfast_log USING PRIMARY KEY (job=? AND number<?)"),
        ("held_back", "holdfast_mortal (<expr><?)"),
        ("timed_out", "holdfast_mortal (<expr><?)"),
        ("next_due", "holdfast_mortal (<expr>>?)"),
        ("ended", "sqlite_autoindex_holdfast_jobs_1 (id=?)"),
        ("due_schedules", "holdfast_due (next_at>? AND next_at<?)"),
        ("next_tick", "holdfast_due (next_at>?)"),
        ("tallies", "holdfast_tallies USING PRIMARY KEY (length=? AND start>? AND start<?)"),
        ("prune_levels", "holdfast_levels USING PRIMARY KEY (length=? AND start<?)"),
    ],
)
@pytest.mark.parametrize("analyzed", [False, True])
async def test_statements_use_the_index_made_for_them(
    store: SqliteStore, file: Path, name: str, index: str, analyzed: bool
) -> None:
    await store.configure({"other": QueueTerms(9, "drop_oldest")}, "operator")
    await store.enqueue([draft(delay=n % 2 * HOUR) for n in range(200)])
    if analyzed:  # statistics that an application may have gathered must not change the plan
        with database(file) as other:
            other.execute("ANALYZE")
    plan = _plan(file, name)
    assert index in plan
    if name in {"claim", "promote", "over", "oldest", "holder", "timed_out", "due_schedules"}:
        assert "TEMP B-TREE" not in plan, "it sorts, so it reads all"
        assert "SCAN holdfast_jobs" not in plan


@pytest.mark.parametrize("state", ["dead", "scheduled", "cancelled"])
async def test_a_listing_of_a_state_does_not_read_the_others(store: SqliteStore, file: Path, state: str) -> None:
    text = statement("find").replace("{conditions}", f"job.state = '{state}'")
    with database(file) as connection:
        plan = str(connection.execute(f"EXPLAIN QUERY PLAN {text}", [50]).fetchall())
    assert "holdfast_by_state (state=?)" in plan


def _work_of(file: Path, step: Any) -> int:
    """How many instructions SQLite runs for `step(sql)`, in tens; rolled back."""
    count = 0

    def tick() -> None:
        nonlocal count
        count += 1

    with closing(connect(str(file), "normal", 4)) as connection:
        sql = Sql(connection, SystemClock().now)
        sql.run("BEGIN IMMEDIATE")
        connection.set_progress_handler(tick, 10)
        step(sql)
        connection.set_progress_handler(None, 0)
        sql.run("ROLLBACK")
    return count


async def test_what_a_claim_reads_depends_on_its_limit_alone(store: SqliteStore, file: Path) -> None:
    from holdfast.stores.sqlite.claim import Claiming

    worker = await a_worker(store)

    def claim(sql: Sql) -> None:
        Claiming(worker, 1, None, 10).write(sql)

    await store.enqueue([draft(queue="mail", payload=b"x" * 500) for _ in range(50)])
    few = _work_of(file, claim)
    await store.enqueue([draft(queue="mail", at=1) for _ in range(3000)])
    await store.enqueue([draft(queue=f"q{n % 300}", delay=n % 2 * HOUR, priority=n % 7) for n in range(3000)])
    many = _work_of(file, claim)
    assert 20 < many < 2 * few, f"{few} for 50 jobs, {many} for 6050"


async def test_no_step_reads_scheduled_jobs_that_are_not_due(store: SqliteStore, file: Path) -> None:
    from holdfast.stores.sqlite import sweep
    from holdfast.stores.sqlite.claim import Claiming

    worker = await a_worker(store)
    await store.enqueue([draft() for _ in range(50)])
    steps: dict[str, Any] = {
        "idle claim": Claiming(worker, 1, ["other"], 10).look,
        "claim": Claiming(worker, 1, None, 10).write,
        "claim of one queue": Claiming(worker, 1, ["mail"], 10).write,
        "look for due ones": sweep.nothing_due,
        "promote": lambda sql: sweep.promote(sql, 500),
        "look for what to prune": sweep.nothing_over,
    }

    await store.enqueue([draft(delay=DAY)])
    one = {name: _work_of(file, step) for name, step in steps.items()}
    for _ in range(4):
        await store.enqueue([draft(delay=DAY, queue=f"q{n % 3}", priority=n % 5) for n in range(5000)])
    many = {name: _work_of(file, step) for name, step in steps.items()}
    assert many.keys() == steps.keys()
    assert many == pytest.approx(one, abs=10), "a hundred instructions more or less; 20,000 jobs read would be 60,000"


async def test_a_batch_is_a_few_steps_whatever_its_size(store: SqliteStore, file: Path) -> None:
    """After each step Python's interpreter lock must be won back, with the write lock held all the while."""
    from holdfast.stores.sqlite.enqueue import enqueue
    from holdfast.stores.sqlite.finish import Finishing

    await store.enqueue([draft() for _ in range(100)])
    jobs = (await store.claim(await a_worker(store), 1, None, 100)).jobs
    boom = Failed(Failure("ValueError", "no", "…"))
    for step in (
        Finishing.of([decide(job, Succeeded(b"1")) for job in jobs]).write,
        Finishing.of([decide(job, boom) for job in jobs]).write,
        lambda sql: enqueue(sql, [draft() for _ in range(100)]),
    ):
        texts: list[str] = []
        with closing(connect(str(file), "normal", 4)) as connection:
            connection.set_trace_callback(texts.append)
            sql = Sql(connection, SystemClock().now)
            sql.run("BEGIN IMMEDIATE")
            step(sql)
            sql.run("ROLLBACK")
        assert len(texts) <= 15, [text[:60] for text in texts]


# --- the write-ahead log


async def test_the_log_stays_short_although_someone_always_reads(store: SqliteStore, file: Path) -> None:
    log = Path(f"{file}-wal")
    longest = written = 0
    stop = threading.Event()

    def read() -> None:
        with database(file, isolation_level=None) as other:
            while not stop.is_set():
                other.execute("BEGIN")
                other.execute("SELECT count(*) FROM holdfast_jobs").fetchall()
                stop.wait(0.003)  # the snapshots of three such readers overlap
                other.execute("COMMIT")

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    try:
        async with asyncio.timeout(PATIENCE):
            while written < 12 * opening.WAL_LIMIT or longest > written / 2:  # until it has begun anew
                assert written < 100 * opening.WAL_LIMIT, f"the log grew to {longest / 1e6:.1f} MB"
                await store.enqueue([draft(payload=b"x" * 20_000) for _ in range(10)])
                written += 200_000
                longest = max(longest, size(log))
    finally:
        stop.set()
        for reader in readers:
            reader.join(PATIENCE)
    assert longest > opening.WAL_LIMIT, "the test has not written enough to say anything"


async def test_a_reader_that_stays_is_not_waited_for_again_and_again(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(str(file))
    monkeypatch.setattr(checkpoint, "WAL_LIMIT", 1)
    sleeps: list[float] = []
    now = [1000.0]
    monkeypatch.setattr(checkpoint.time, "sleep", sleeps.append)
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now[0])
    with (
        closing(connect(str(file), "normal", 4)) as first,
        closing(connect(str(file), "normal", 4)) as second,
        database(file, isolation_level=None) as reader,
    ):
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM holdfast_jobs").fetchall()
        first.execute("CREATE TABLE t (x)")
        step = Checkpoint(str(file), first, lambda: second)

        def graces() -> int:
            sleeps.clear()
            for _ in range(10):
                first.execute("INSERT INTO t VALUES (zeroblob(9000))")
                step.after_commit()
            return len(sleeps)

        assert graces() == 4, "two graces of two sleeps each, then none"
        assert graces() == 0
        now[0] += checkpoint.REST + 1
        assert graces() == 4
        reader.execute("COMMIT")
        now[0] += checkpoint.REST + 1
        assert graces() == 1, "a whole checkpoint, and the log is started anew"


async def test_the_log_stays_short_where_only_others_transactions_write(store: SqliteStore, file: Path) -> None:
    log = Path(f"{file}-wal")

    async def enqueue(jobs: int) -> None:
        with database(file, isolation_level=None) as shop:
            shop.execute("PRAGMA wal_autocheckpoint = 0")
            shop.execute("BEGIN IMMEDIATE")
            await store.enqueue([draft(payload=b"x" * 100_000) for _ in range(jobs)], shop)
            shop.execute("COMMIT")

    with database(file) as _keeps_the_log:
        await enqueue(60)
        assert size(log) > opening.WAL_LIMIT
        before = 0
        async with asyncio.timeout(PATIENCE):
            while size(log) != before:  # until one is written without a longer log: it was started anew
                before = size(log)
                await asyncio.sleep(0.02)
                await enqueue(1)


async def test_no_connection_of_ours_checkpoints_by_itself(file: Path) -> None:
    prepare(str(file))
    with closing(connect(str(file), "full", 4)) as connection:
        assert connection.execute("PRAGMA wal_autocheckpoint").fetchall() == [(0,)]
        assert connection.execute("PRAGMA synchronous").fetchall() == [(2,)]
    with closing(connect(str(file), "normal", 4)) as connection:
        assert connection.execute("PRAGMA synchronous").fetchall() == [(1,)]


async def test_a_checkpoint_runs_only_while_we_hold_the_write_lock(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(str(file))
    monkeypatch.setattr(checkpoint, "WAL_LIMIT", 1)
    monkeypatch.setattr(checkpoint, "GRACE", 0.0)
    texts: list[str] = []
    with closing(connect(str(file), "normal", 4)) as first, closing(connect(str(file), "normal", 4)) as second:
        step = Checkpoint(str(file), first, lambda: second)
        first.execute("CREATE TABLE t (x)")
        first.set_trace_callback(lambda text: texts.append(f"first: {text}"))
        second.set_trace_callback(lambda text: texts.append(f"second: {text}"))
        step.after_commit()
    assert texts == ["first: BEGIN IMMEDIATE", "second: PRAGMA wal_checkpoint(PASSIVE)", "first: ROLLBACK"]


# --- texts that exceptions may hold


async def test_an_error_with_a_lone_surrogate_or_a_nul_is_kept(store: SqliteStore) -> None:
    await store.enqueue([draft()])
    [job] = (await store.claim(await a_worker(store), 1, None, 1)).jobs
    boom = Failed(Failure("OSError", "no file \udcff\x00.txt", "…\udcff"))
    assert (await store.finish([decide(job, boom)]))[0].answer == "accepted"
    [found] = await store.find(Where(ids=[job.id]))
    assert found.history[0].error == Failure("OSError", "no file \\udcff\\x00.txt", "…\\udcff")


# --- letting go


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="no /proc here")
async def test_a_store_that_is_forgotten_closes_nothing(file: Path) -> None:
    """In a forked child a connection that closes itself would take the parent's locks away."""

    def descriptors() -> int:
        return sum(os.path.realpath(entry) == str(file) for entry in Path("/proc/self/fd").iterdir())

    store: SqliteStore | None = sqlite_store(file)
    await store.open()
    twin = store.twin()
    count = descriptors()
    assert count > 0
    store = None
    gc.collect()
    assert descriptors() == count
    await twin.open()  # the last to close takes what was forgotten along
    await twin.close()


async def test_closing_ends_a_wait(file: Path) -> None:
    store = sqlite_store(file)
    await store.open()
    waiting = asyncio.ensure_future(store.wait(None, PATIENCE))
    await asyncio.sleep(0)
    async with asyncio.timeout(PATIENCE / 3):
        await store.close()
        assert await waiting is False


async def test_a_twin_stays_open_when_the_other_closes(store: SqliteStore) -> None:
    twin = store.twin()
    await twin.open()
    await twin.close()
    assert (await store.enqueue([draft()]))[0].created
    with pytest.raises(StoreError, match="not open"):
        await twin.enqueue([draft()])


# --- four processes

PROGRAM = """
import asyncio, json, os, sys
from uuid import uuid4
from holdfast.clock import SystemClock
from holdfast.job import Draft, Succeeded, Terms, new_id
from holdfast.policy import decide
from holdfast.stores.sqlite import SqliteStore

async def produce(store, number):
    for _ in range(number // 10):
        await store.enqueue([Draft(new_id(), "t", "q", b"[]", Terms()) for _ in range(5)])
        await asyncio.gather(*(store.enqueue([Draft(new_id(), "t", "q", b"[]", Terms())]) for _ in range(5)))

async def consume(store, total, ran):
    worker, ticket = uuid4(), 1
    await store.register(worker, None, {})
    while not os.path.exists(sys.argv[1] + ".done"):
        claims = await store.claim(worker, ticket, None, 7)
        assert claims.refused is None, claims.refused
        if not claims.jobs:
            await store.beat([worker])
            await store.wait(None, 0.05)
            continue
        ticket += 1
        ran += [str(job.id) for job in claims.jobs]
        settled = await store.finish([decide(job, Succeeded(b"1")) for job in claims.jobs])
        assert all(s.answer == "accepted" for s in settled), settled

async def main(path, number, total):
    asyncio.get_running_loop().slow_callback_duration = 60  # a busy machine is no finding
    store = SqliteStore(path, clock=SystemClock())
    await store.open()
    ran = []
    await asyncio.gather(produce(store, int(number)), consume(store, int(total), ran))
    await store.close()
    print(json.dumps(ran))

asyncio.run(main(*sys.argv[1:]))
"""


def test_four_processes_share_a_file_and_every_job_runs_once(file: Path) -> None:
    each, processes = 300, 4
    asyncio.run(sqlite_store(file).migrate())
    arguments = [sys.executable, "-X", "dev", "-W", "error", "-c", PROGRAM, str(file), str(each), str(each * processes)]
    children = [
        subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(processes)
    ]
    try:
        _until_all_succeeded(file, each * processes, children)
        Path(f"{file}.done").touch()
        outputs = [child.communicate(timeout=PATIENCE) for child in children]
    finally:
        for child in children:
            child.kill()
            child.communicate()
    assert [(child.returncode, errors) for child, (_, errors) in zip(children, outputs, strict=True)] == [(0, "")] * 4
    ran = [job for output, _ in outputs for job in json.loads(output)]
    assert len(ran) == len(set(ran)) == each * processes
    with database(file) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        found = connection.execute("SELECT state, fence, count(*) FROM holdfast_jobs GROUP BY 1, 2").fetchall()
    assert found == [("succeeded", 1, each * processes)]


def _until_all_succeeded(file: Path, total: int, children: list[subprocess.Popen[str]]) -> None:
    end = time.monotonic() + PATIENCE
    with database(file) as connection:
        while True:
            [[done]] = connection.execute("SELECT count(*) FROM holdfast_jobs WHERE state = 'succeeded'").fetchall()
            if done == total or any(child.poll() for child in children):
                return
            assert time.monotonic() < end, f"{done} of {total} jobs had run after {PATIENCE} s"
            time.sleep(0.05)


async def test_who_only_looks_makes_no_file_and_no_tables(tmp_path: Path) -> None:
    path = tmp_path / "missing.db"
    with pytest.raises(StoreError, match="no such file"):
        await sqlite_store(path).open(create=False)
    assert not path.exists()
    sqlite3.connect(path).execute("CREATE TABLE mine (x)").connection.close()
    with pytest.raises(StoreError, match="holdfast migrate"):
        await sqlite_store(path).open(create=False)


async def test_tables_that_cannot_be_made_within_a_transaction_name_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.stores.sqlite.opening.OPEN_PATIENCE", 0.05)
    monkeypatch.setattr(patiently, "__defaults__", (0.05,))
    path = tmp_path / "new.db"
    mine = sqlite3.connect(path, isolation_level=None)
    mine.execute("CREATE TABLE orders (id)")
    mine.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreAway, match="holdfast migrate"):
        await sqlite_store(path).open()
    mine.close()


# --- rows that cannot be read

BROKEN = [
    "id = 'order-3'",
    "id = upper(id)",
    "terms = '{broken'",
    "terms = '[1]'",
    """terms = '["a", "b", 1, 1, 1, 1, "x"]'""",
    "terms = '[1, 2, 3, NaN, 5, 6, 7]'",
]


def _break(file: Path, change: str, where: str) -> None:
    with database(file) as other:
        assert other.execute(f"UPDATE holdfast_jobs SET {change} WHERE {where}").rowcount == 1
        other.commit()


def _told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [str(record.msg) for record in caplog.records if "unreadable-row" in str(record.msg)]


@pytest.mark.parametrize("change", BROKEN)
async def test_a_row_that_cannot_be_read_is_dead_and_the_others_are_claimed(
    store: SqliteStore, file: Path, caplog: pytest.LogCaptureFixture, change: str
) -> None:
    jobs = [draft() for _ in range(5)]
    await store.enqueue(jobs)
    _break(file, change, "seq = 3")
    worker = await a_worker(store)
    claims = await store.claim(worker, 1, None, 10)
    assert {claim.id for claim in claims.jobs} == {job.id for job in jobs if job is not jobs[2]}
    with database(file) as other:
        [row] = other.execute("SELECT state, worker, ticket, finished_at > 0, reason FROM holdfast_jobs WHERE seq = 3")
    assert row[:4] == ("dead", None, None, 1)
    assert row[4].startswith("row cannot be read: ")
    assert len((await store.claim(worker, 1, None, 10)).jobs) == 4, "the repeat"
    assert len(await store.find(Where(worker=worker))) == 4
    assert len(await store.find(Where(), None, 4)) == 4, "a page is as long as it may be"
    assert len(_told(caplog)) == 1


@pytest.mark.parametrize(
    ("stored", "loss"),
    [
        ('["killed"]', Loss("killed")),
        ('["killed", true, false, true]', Loss("killed", on_purpose=True, begun=False, culprit=True)),
        ('["stuck", 1, 1, 0, 1, "a stack", "final"]', Loss("stuck", True, True, False, True, "a stack", "final")),
    ],
)
async def test_a_loss_as_older_versions_wrote_it_is_read(
    store: SqliteStore, file: Path, stored: str, loss: Loss
) -> None:
    worker, sweeper = await a_worker(store), await a_worker(store)
    await store.enqueue([draft()])
    await store.claim(worker, 1, None, 1)
    _break(file, f"loss = '{stored}'", "seq = 1")
    await store.retire(worker)
    [claim] = await store.reclaim(sweeper, 10)
    assert claim.loss == loss


LOSSES = ["7", "[7]", '["a",0,0,0,0,7,""]', '["a",0,0,0,0,"","soon"]', '["a",0,0,0,0,"","",0]']


@pytest.mark.parametrize("change", [*BROKEN, *(f"loss = '{loss}'" for loss in LOSSES), "started_at = NULL"])
async def test_a_row_that_cannot_be_read_is_dead_and_the_others_are_reclaimed(
    store: SqliteStore, file: Path, caplog: pytest.LogCaptureFixture, change: str
) -> None:
    worker, sweeper = await a_worker(store), await a_worker(store)
    jobs = [draft() for _ in range(5)]
    await store.enqueue(jobs)
    assert len((await store.claim(worker, 1, None, 10)).jobs) == 5
    _break(file, change, "seq = 3")
    await store.retire(worker)
    claims = await store.reclaim(sweeper, 10)
    assert {claim.id for claim in claims} == {job.id for job in jobs if job is not jobs[2]}
    with database(file) as other:
        assert other.execute("SELECT state, worker FROM holdfast_jobs WHERE seq = 3").fetchall() == [("dead", None)]
    assert len(await store.reclaim(sweeper, 10)) == 4
    assert len(_told(caplog)) == 1


@pytest.mark.parametrize("change", [*BROKEN, "state = 'bogus'", "tags = '{no'", "tags = '7'", "settled_by = 'me'"])
async def test_a_listing_leaves_out_what_cannot_be_read(
    store: SqliteStore, file: Path, caplog: pytest.LogCaptureFixture, change: str
) -> None:
    jobs = [draft(tags=("a",)) for _ in range(5)]
    await store.enqueue(jobs)
    _break(file, change, "seq = 3")
    others = {job.id for job in jobs if job is not jobs[2]}
    assert await ids(store) == others
    assert {record.id for record in await store.find(Where(tag="a"))} == others
    assert {record.id for record in await store.find(Where(), None, 4)} == others, "a page is as long as it may be"
    assert len(_told(caplog)) == 1


# --- a process that lacks something


def _program(text: str, file: Path) -> subprocess.CompletedProcess[str]:
    begin = f"""
import asyncio, atexit, sys
{text}
from holdfast.clock import SystemClock
from holdfast.job import Draft, Terms, new_id
from holdfast.store import Where
from holdfast.stores.sqlite import SqliteStore

store = SqliteStore(sys.argv[1], durability="normal", clock=SystemClock())
draft = lambda: Draft(id=new_id(), task="a", queue="a", payload=b"1", terms=Terms())
""".lstrip()
    text = begin + PROGRAMS[text]
    return subprocess.run(
        [sys.executable, "-c", text, str(file)], capture_output=True, text=True, timeout=PATIENCE, check=False
    )


USES_ALL = """
async def main():
    await store.open()
    await store.enqueue([draft()])
    print(len(await store.find(Where())))
    await store.close()
"""
AT_EXIT = "# at exit"
NO_THREADS = "# at exit, as Python 3.12 has it"
NO_FILES = "# files that are gone"
NO_POLL = "import select; del select.poll; sys.modules['ctypes'] = None"
PROGRAMS = {
    AT_EXIT: USES_ALL + "atexit.register(lambda: asyncio.run(main()))",
    NO_THREADS: USES_ALL
    + """
import threading
def start(self): raise RuntimeError("can't create new thread at interpreter shutdown")
threading.Thread.start = start
asyncio.run(main())
""",
    NO_FILES: USES_ALL
    + """
from importlib import resources
asyncio.run(store.migrate())
def files(*_): raise OSError("Too many open files")
resources.files = files
asyncio.run(main())
""",
    NO_POLL: """
async def main():
    await store.open()
    waiting = asyncio.ensure_future(store.wait(None, 20))
    await asyncio.sleep(0.01)
    await store.enqueue([draft()])
    print(int(await waiting))
    await store.close()
asyncio.run(main())
""",
}


@pytest.mark.parametrize("lacks", PROGRAMS)
def test_a_process_that_lacks_something_is_served(file: Path, lacks: str) -> None:
    done = _program(lacks, file)
    assert (done.stdout.strip(), done.stderr) == ("1", "")
