"""A file of version 1, as its code left it, with jobs in every state: refused, migrated, and worked on."""

import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from holdfast.clock import FakeClock
from holdfast.errors import StoreAway, StoreError
from holdfast.job import Draft, Note, QueueTerms, Released, State, Succeeded, Terms, UniqueKey, held_as, new_id
from holdfast.policy import decide
from holdfast.store import Where
from holdfast.stores.sqlite import SqliteStore

VERSION_1 = Path(__file__).parent / "version_1.sql"
CLOCK = FakeClock(1_800_000_000_063)  # when the file was left

# What stands in it: jobs by the last two digits of their ids.
FIRST, AGAIN, RUNNING, FLAGGED, ORPHAN = (
    UUID(f"01990000-0000-7000-8000-0000000000{end}") for end in ("01", "07", "0b", "0d", "0f")
)
DONE, DEAD, CANCELLED = (UUID(f"01990000-0000-7000-8000-0000000000{end}") for end in ("11", "13", "14"))
WORKER = UUID("01990000-0000-7000-8000-000000000385")
TERMS = Terms(max_attempts=3, base_delay=10_000, max_delay=3_600_000, jitter=0.0, max_crashes=2, keep=86_400_000)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "shop.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(VERSION_1.read_text("utf-8"))
        connection.execute("PRAGMA journal_mode = WAL").fetchall()
    return path


@pytest.fixture
async def store(file: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(str(file), durability="normal", clock=CLOCK)
    await store.migrate()
    await store.open()
    yield store
    await store.close()


def rows(file: Path, statement: str) -> list[Any]:
    with closing(sqlite3.connect(file)) as connection:
        return connection.execute(statement).fetchall()


def content(file: Path) -> bytes:
    return file.read_bytes()


def migrate(file: Path) -> str:
    command = [sys.executable, "-m", "holdfast", "migrate", "--url", f"sqlite:///{file}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def draft(**changes: Any) -> Draft:
    return Draft(**{"id": new_id(), "task": "shop.send", "queue": "mail", "payload": b"[]", "terms": TERMS} | changes)


def columns_of_version_1(file: Path) -> dict[str, list[Any]]:
    """All that the file had before it was migrated, table by table."""
    names = {
        table: [name for _, name, *_ in rows(file, f"PRAGMA table_info({table})")]
        for table in ("holdfast_jobs", "holdfast_attempts", "holdfast_workers", "holdfast_mail")
    }
    with closing(sqlite3.connect(":memory:")) as first:
        first.executescript(VERSION_1.read_text("utf-8"))
        old = {table: {name for _, name, *_ in first.execute(f"PRAGMA table_info({table})")} for table in names}
    kept = {table: ", ".join(name for name in all_ if name in old[table]) for table, all_ in names.items()}
    return {table: rows(file, f"SELECT {kept[table]} FROM {table} ORDER BY 1, 2") for table in names}


async def test_a_file_of_version_1_is_refused_with_the_command_and_not_touched(file: Path) -> None:
    before = content(file)
    store = SqliteStore(str(file), clock=CLOCK)
    with pytest.raises(StoreError, match=r"version 1, this code needs 3: run `holdfast migrate`") as refusal:
        await store.open()
    assert not isinstance(refusal.value, StoreAway), "nobody shall wait for it to come right by itself"
    assert content(file) == before


def test_the_command_that_is_named_migrates_it(file: Path) -> None:
    before = columns_of_version_1(file)
    assert before["holdfast_jobs"], "there is nothing in the file"
    states = {state for [state] in rows(file, "SELECT DISTINCT state FROM holdfast_jobs")}
    assert states == {str(state) for state in State} - {"waiting"}, "not every state is there"
    assert "migrated" in migrate(file)
    assert rows(file, "SELECT version, oldest_code, lease FROM holdfast_meta") == [(3, 2, 15000)]
    assert columns_of_version_1(file) == before
    assert rows(file, "PRAGMA integrity_check") == [("ok",)]
    assert "up to date" in migrate(file)


async def test_all_jobs_are_read_back_as_they_were(store: SqliteStore) -> None:
    found = {record.id: record for record in await store.find(Where())}
    assert len(found) == 15
    assert {(record.headers, record.unique, record.holds, record.text) for record in found.values()} == {
        ("", None, False, None)
    }
    assert (found[FIRST].tags, found[FIRST].line, found[FIRST].terms) == (("a", "b"), "customer-7", TERMS)
    assert [attempt.ended for attempt in found[AGAIN].history] == ["failed"]
    assert (found[DONE].result, found[DEAD].history[0].error.type) == (b'{"ok": true}', "KeyError")  # type: ignore[union-attr]
    assert found[FLAGGED].reason == "customer left"


async def test_what_ran_during_the_migration_ends_under_its_word(store: SqliteStore) -> None:
    [record] = await store.find(Where(ids=[RUNNING]))
    [settled] = await store.finish([decide(held_as(record, WORKER), Succeeded(b"1"))])
    assert (settled.answer, settled.state) == ("accepted", State.SUCCEEDED)


async def test_a_cancel_and_a_burial_from_before_are_heeded(store: SqliteStore) -> None:
    sweeper = new_id()
    await store.register(sweeper, None, {})
    [claim] = await store.reclaim(sweeper, 10)
    assert (claim.id, claim.loss and claim.loss.cause) == (ORPHAN, "killed by signal 9")
    [flagged] = await store.find(Where(ids=[FLAGGED]))
    assert flagged.worker is not None
    assert [line.job for line in await store.mail([flagged.worker])] == [FLAGGED]
    [settled] = await store.finish([decide(held_as(flagged, flagged.worker), Released())])
    assert settled.state is State.CANCELLED


async def test_the_old_jobs_count_in_a_bound_and_may_be_dropped(store: SqliteStore) -> None:
    await store.configure({"mail": QueueTerms(5)}, "worker")
    [mail] = [queue for queue in (await store.stats()).queues if queue.name == "mail"]
    assert mail.admitted == 5, "three queued and two scheduled"
    assert [receipt.answer for receipt in await store.enqueue([draft()])] == ["full"]
    await store.configure({"mail": QueueTerms(5, "drop_oldest")}, "worker")
    [receipt] = await store.enqueue([draft()])
    assert (receipt.answer, receipt.dropped) == ("accepted", FIRST)


async def test_the_old_jobs_do_all_that_jobs_do(store: SqliteStore) -> None:
    worker = new_id()
    await store.register(worker, None, {})
    store.shift = 3_600_000
    await store.beat([worker])
    assert (await store.promote(100)).moved == 3
    assert [answer.answer for answer in await store.retry([DEAD, CANCELLED, DONE])] == [
        "retried", "retried", "succeeded",
    ]  # fmt: skip
    claims = (await store.claim(worker, 1, None, 100)).jobs
    assert len(claims) == 10
    notes = [Note(job.id, job.fence, worker, 0.5, "half", ((0, "a line"),), b"1") for job in claims]
    assert list(await store.note(notes)) == [True] * 10
    assert {(job.progress, job.text) for job in await store.find(Where(worker=worker))} == {(0.5, "half")}
    assert {settled.answer for settled in await store.finish([decide(job, Succeeded(b"1")) for job in claims])} == {
        "accepted"
    }
    assert list(await store.delete([DONE, FIRST])) == ["deleted", "deleted"]
    store.shift += 2 * 86_400_000
    await store.prune(1000)
    assert {str(job.state) for job in await store.find(Where())} == {"running"}


async def test_keys_are_held_beside_the_old_jobs(store: SqliteStore) -> None:
    first, second = (draft(unique=UniqueKey("invoice:42")) for _ in range(2))
    answers = [(receipt.answer, receipt.holder) for receipt in await store.enqueue([first, second])]
    assert answers == [("accepted", None), ("duplicate", first.id)]
