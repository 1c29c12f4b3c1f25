"""The database file, its log or the log's index is deleted or replaced under an open store: nobody is told lies."""

from __future__ import annotations

import asyncio
import logging
import shutil
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from holdfast import Holdfast
from holdfast.clock import SystemClock
from holdfast.errors import StoreAway
from holdfast.job import Draft, Terms, new_id
from holdfast.store import Where
from holdfast.stores.sqlite import SqliteStore
from holdfast.stores.sqlite.opening import WAL_LIMIT
from tests.stores.faults import PATIENCE, Fault, Faults, Then, Witness, faults
from tests.worker.rig import events, fields, until

__all__ = ["faults"]

READONLY = Fault("SQLITE_READONLY", 8, "attempt to write a readonly database")


def draft(size: int = 2) -> Draft:
    return Draft(new_id(), "shop.send", "mail", b"x" * size, Terms())


def store_at(path: Path) -> SqliteStore:
    return SqliteStore(str(path), durability="normal", clock=SystemClock())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


@pytest.fixture
async def store(faults: Faults, file: Path) -> AsyncIterator[SqliteStore]:
    store = store_at(file)
    await store.open()
    yield store
    async with asyncio.timeout(PATIENCE):
        await store.close()


async def ids(store: SqliteStore) -> set[UUID]:
    return {record.id for record in await store.find(Where(), None, 1000)}


def aside(file: Path, suffix: str = "") -> Path:
    """Moves one of the store's files away."""
    return Path(f"{file}{suffix}").rename(f"{file}{suffix}.aside")


def remove(path: Path | str) -> None:
    Path(path).unlink()


def make_empty(path: Path) -> None:
    path.write_bytes(b"")


def there(path: Path) -> bool:
    return path.exists()


async def test_nothing_is_acknowledged_into_a_file_that_was_moved_away(store: SqliteStore, file: Path) -> None:
    await store.enqueue([before := draft()])
    moved = aside(file)
    for _ in range(3):
        with pytest.raises(StoreAway) as refused:
            await store.enqueue([draft()])
        assert str(file) in str(refused.value)
        assert "back" in str(refused.value), "it does not say what to do"
    with pytest.raises(StoreAway):
        await store.find(Where())
    assert not there(file), "an empty file looks as if all jobs were done"
    moved.rename(file)
    await store.enqueue([after := draft()])
    assert await ids(store) >= {before.id, after.id}


async def test_a_file_deleted_in_the_middle_of_a_transaction_acknowledges_nothing(
    store: SqliteStore, file: Path, faults: Faults
) -> None:
    await store.enqueue([draft()])
    with pytest.raises(StoreAway, match="deleted or moved away while it was in use"):
        async with faults.pile(store.enqueue([draft()])):
            remove(file)


async def test_a_file_in_its_place_is_served_after_it_was_told(store: SqliteStore, file: Path, tmp_path: Path) -> None:
    await store.enqueue([old := draft()])
    other = store_at(tmp_path / "backup.db")
    await other.open()
    await other.enqueue([restored := draft()])
    await other.close()
    (tmp_path / "backup.db").rename(file)
    for suffix in ("-wal", "-shm"):
        aside(file, suffix)
    with pytest.raises(StoreAway, match="replaced by another file"):
        await store.enqueue([lost := draft()])
    await store.enqueue([new := draft()])
    assert await ids(store) == {restored.id, new.id}
    assert not {old.id, lost.id} & await ids(store)


async def test_a_file_without_tables_in_its_place_is_refused(store: SqliteStore, file: Path) -> None:
    moved = aside(file)
    make_empty(file)
    with pytest.raises(StoreAway, match="replaced"):
        await store.enqueue([draft()])
    with pytest.raises(StoreAway, match=r"no tables.*took the place"):
        await store.enqueue([draft()])
    moved.replace(file)
    assert (await store.enqueue([draft()]))[0].created


async def test_an_empty_file_that_gets_the_old_ones_inode_is_refused(store: SqliteStore, file: Path) -> None:
    for path in (file, f"{file}-wal", f"{file}-shm"):
        remove(path)
    for _ in range(2):  # all that was open is closed
        with pytest.raises(StoreAway):
            await store.enqueue([draft()])
    make_empty(file)
    with pytest.raises(StoreAway, match="no tables"):
        await store.enqueue([draft()])
    other = store_at(file)
    await other.open()
    await other.close()
    assert (await store.enqueue([draft()]))[0].created


@pytest.mark.parametrize("suffix", ["-wal", "-shm"])
async def test_a_log_that_was_deleted_is_told_and_loses_nothing(store: SqliteStore, file: Path, suffix: str) -> None:
    stored = [draft() for _ in range(20)]
    await store.enqueue(stored)
    await store.wait(None, 5)
    await ids(store)  # all three threads have the files open now
    remove(f"{file}{suffix}")
    with pytest.raises(StoreAway, match="log was deleted"):
        await store.enqueue([draft()])
    await store.enqueue([again := draft()])
    assert await ids(store) >= {again.id, *(job.id for job in stored)}
    witness = Witness(file)
    assert witness.whole()
    assert {again.id, *(job.id for job in stored)} <= {UUID(row[0]) for row in witness.contents()["holdfast_jobs"]}
    witness.close()


async def test_a_reader_alone_notices(store: SqliteStore, file: Path) -> None:
    await store.enqueue([draft()])
    assert len(await ids(store)) == 1
    moved = aside(file)
    with pytest.raises(StoreAway):
        await store.find(Where())
    moved.rename(file)
    assert len(await ids(store)) == 1


async def test_claims_of_an_idle_worker_notice(store: SqliteStore, file: Path) -> None:
    await store.register(worker := uuid4(), None, {})
    assert (await store.claim(worker, 1, None, 1)).jobs == []
    moved = aside(file)

    async def claim_on() -> None:
        while True:  # what it saw is believed for some milliseconds
            await store.claim(worker, 1, None, 1)

    with pytest.raises(StoreAway):
        await asyncio.wait_for(claim_on(), PATIENCE)
    moved.rename(file)
    assert (await store.claim(worker, 1, None, 1)).jobs == []


async def test_behind_a_symbolic_link_all_is_as_usual(faults: Faults, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    link = tmp_path / "jobs.db"
    link.symlink_to(tmp_path / "real" / "shop.db")
    store = store_at(link)
    await store.open()
    for _ in range(12):
        await store.enqueue([draft(WAL_LIMIT // 4)])
    log = tmp_path / "real" / "shop.db-wal"
    assert log.stat().st_size < 2.5 * WAL_LIMIT, "the log behind a link is never checkpointed"
    aside(log)
    with pytest.raises(StoreAway, match="its log"):
        await store.enqueue([draft()])
    await store.close()


async def test_a_file_that_may_not_be_written_to_may_be_later(store: SqliteStore, faults: Faults) -> None:
    """As when the system mounts a disk read-only after an error: workers keep what they have, and try again."""
    faults.arm(1, READONLY, Then.ALL)
    with pytest.raises(StoreAway, match=r"not writable any more.*readonly"):
        await store.enqueue([draft()])
    faults.disarm()
    assert (await store.enqueue([draft()]))[0].created


async def test_a_worker_pauses_and_goes_on_when_the_file_is_back(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    jobs = Holdfast(f"sqlite:///{file}?durability=normal")
    go = asyncio.Event()
    runs: list[int] = []

    @jobs.task
    async def send(number: int) -> int:
        runs.append(number)
        await go.wait()
        return number

    caplog.set_level(logging.WARNING, "holdfast.worker")
    async with jobs, jobs.worker(), asyncio.timeout(PATIENCE):
        job = await send.aenqueue(7)
        await until(lambda: runs == [7], "the job never began")
        moved = aside(file)
        go.set()
        await until(lambda: fields(caplog, "store-away"), "nothing was said")
        with pytest.raises(StoreAway):
            await send.aenqueue(8)
        moved.rename(file)
        assert await job.aresult(timeout=PATIENCE) == 7
        later = await send.aenqueue(9)
        assert await later.aresult(timeout=PATIENCE) == 9
        await until(
            lambda: len(fields(caplog, "store-back")) == len(fields(caplog, "store-away")), "not said to be over"
        )
    assert runs == [7, 9]
    assert set(events(caplog)) == {"store-away", "store-back"}
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("SELECT state, count(*) FROM holdfast_jobs GROUP BY 1").fetchall() == [
            ("succeeded", 2)
        ]


async def test_a_worker_begins_a_new_life_in_a_restored_backup(file: Path, tmp_path: Path) -> None:
    jobs = Holdfast(f"sqlite:///{file}?durability=normal")
    runs: list[int] = []

    @jobs.task
    async def send(number: int) -> None:
        runs.append(number)

    backup = tmp_path / "backup.db"
    async with jobs:
        await send.aenqueue(1)
        with closing(sqlite3.connect(file)) as connection, closing(sqlite3.connect(backup)) as copy:
            connection.backup(copy)
        async with jobs.worker(), asyncio.timeout(PATIENCE):
            await until(lambda: runs == [1], "the job never ran")
            for suffix in ("-wal", "-shm"):
                remove(f"{file}{suffix}")
            shutil.move(backup, file)
            await until(lambda: runs == [1, 1], "the job of the backup never ran")
