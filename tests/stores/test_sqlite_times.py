"""Pauses, weights, expiry and schedules in a SQLite file: what older code wrote, rows of somebody's hand, the cost."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from holdfast.clock import FakeClock
from holdfast.job import Draft, QueueTerms, Terms, Until, new_id
from holdfast.store import Entry, Tick, Where
from holdfast.stores.sqlite import SqliteStore

PATIENCE = 30  # seconds, for whatever a test waits for


def draft(**changes: Any) -> Draft:
    return Draft(
        **{"id": new_id(), "task": "shop.send", "queue": "mail", "payload": b"[42]", "terms": Terms()} | changes
    )


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


def by_hand(file: Path, statement: str, *values: Any) -> list[Any]:
    with closing(sqlite3.connect(file)) as connection:
        rows = connection.execute(statement, values).fetchall()
        connection.commit()
        return rows


async def test_what_older_code_declared_has_a_weight_of_one(store: SqliteStore, file: Path) -> None:
    await store.configure({"mail": QueueTerms(9)}, "worker")
    by_hand(file, "UPDATE holdfast_queues SET declared = '[5, \"reject\", null]', max_size = 5")
    await store.configure({"mail": QueueTerms(7, weight=3)}, "operator")
    await store.configure({"mail": None}, "operator")
    assert [each.terms for each in await store.queues()] == [QueueTerms(5)]


async def test_older_code_can_read_what_has_no_weight(store: SqliteStore, file: Path) -> None:
    await store.configure({"mail": QueueTerms(9)}, "worker")
    await store.configure({"mail": QueueTerms(8, weight=2)}, "operator")
    assert by_hand(file, "SELECT declared, edited FROM holdfast_queues") == [
        ('[9, "reject", null]', '[8, "reject", null, 2]')
    ]


async def test_a_row_that_cannot_be_read_is_ended_too_when_its_time_is_over(store: SqliteStore, file: Path) -> None:
    """Else it would be due again and again."""
    jobs = [draft(expires=Until(5)), draft(deadline=Until(5))]
    await store.enqueue(jobs)
    by_hand(file, "UPDATE holdfast_jobs SET id = 'nonsense', terms = 'broken' WHERE id = ?", str(jobs[0].id))
    store.shift += 5
    promoted = await store.promote(10)
    assert ([over.id for over in promoted.over], promoted.next_in) == ([jobs[1].id], None)
    assert by_hand(file, "SELECT state FROM holdfast_jobs ORDER BY seq") == [("cancelled",), ("dead",)]


async def test_ticks_that_cannot_be_read_are_in_no_schedules_way(store: SqliteStore, file: Path) -> None:
    now = FakeClock().now()
    await store.schedule([Entry(name, "mail", "{}", now) for name in ("broken", "sound")])
    for text in ("nonsense", "{}", "[1]", '[[1, 2, "made", "no id", "", 1]]', '[[null, 2, "made", null, "", 1]]'):
        by_hand(file, "UPDATE holdfast_schedules SET ticks = ? WHERE name = 'broken'", text)
        assert len((await store.schedules()).entries) == len((await store.due(9)).entries) == 2
    [ticked] = await store.tick([Tick("broken", "mail", 1, now, now, now, draft())])
    assert ticked is not None
    [entry] = (await store.schedules(["broken"])).entries
    assert list(entry.ticks) == [ticked]


async def test_jobs_without_such_times_are_not_in_their_index(store: SqliteStore, file: Path) -> None:
    """All others would pay for it."""
    await store.enqueue([*(draft() for _ in range(50)), draft(expires=Until(5)), draft(delay=5, deadline=Until(9))])
    with closing(sqlite3.connect(file)) as connection:
        [[statistics]] = (
            connection.execute("ANALYZE").fetchall()
            or connection.execute("SELECT stat FROM sqlite_stat1 WHERE idx = 'holdfast_mortal'").fetchall()
        )
    assert statistics.split()[0] == "2"


async def test_a_tick_that_is_settled_already_writes_nothing(store: SqliteStore, file: Path) -> None:
    now = FakeClock().now()
    await store.schedule([Entry("nightly", "mail", "{}", now)])
    tick = Tick("nightly", "mail", 1, now, now, now + 5, draft())
    await store.tick([tick])
    with closing(sqlite3.connect(file)) as other:
        other.execute("BEGIN IMMEDIATE")  # whoever would write now waits in vain
        async with asyncio.timeout(PATIENCE):
            assert list(await store.tick([tick])) == [None]
            assert (await store.due(9)).next_in == 5
        other.execute("ROLLBACK")


async def test_a_claim_uses_no_ticket_where_all_that_is_queued_is_over_or_paused(store: SqliteStore) -> None:
    worker = uuid4()
    await store.register(worker, None, {})
    await store.enqueue([draft(expires=Until(5)), draft(deadline=Until(5)), draft(queue="slow")])
    await store.pause("slow")
    store.shift += 5
    for queues in (None, ["mail", "slow"]):
        assert list((await store.claim(worker, 1, queues, 9)).jobs) == []
        assert await store.wait(queues, 0) is False
    await store.resume("slow")
    assert len((await store.claim(worker, 1, None, 9)).jobs) == 1
    assert len(await store.find(Where(queue="mail"))) == 2
