"""Transactions of others on the database of a store: open for as long as a test likes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import psycopg

from holdfast.job import Draft
from holdfast.store import Store
from holdfast.stores import open_store
from tests.servers.places import Database
from tests.store.acts import PATIENCE

Connection = psycopg.AsyncConnection[tuple[Any, ...]]


@asynccontextmanager
async def stranger(database: Database, level: str = "READ COMMITTED") -> AsyncIterator[Connection]:
    """A connection with a transaction open, which is rolled back at the end if the test does not end it."""
    connection = await psycopg.AsyncConnection.connect(database.dsn)
    try:
        await connection.set_isolation_level(psycopg.IsolationLevel[level.replace(" ", "_")])
        await connection.execute("SELECT 1")  # from now on it has its snapshot, where it keeps one
        yield connection
    finally:
        await connection.close()


async def through_the_door(connection: Connection, *jobs: dict[str, Any]) -> list[dict[str, Any]]:
    """The receipts of jobs that are enqueued in the connection's transaction."""
    cursor = await connection.execute("SELECT * FROM holdfast_enqueue(%s)", [json.dumps(jobs)])
    names = [column.name for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in await cursor.fetchall()]


async def at_first(store: Store, jobs: Sequence[Draft]) -> list[str]:
    """The answers of one enqueue, in order; what is busy is not asked again."""
    receipts = await store.enqueue(jobs)
    assert [each.id for each in receipts] == [job.id for job in jobs]
    return [each.answer for each in receipts]


async def waits(database: Database, connection: Connection) -> None:
    """Until the connection's statement waits for another transaction."""
    async with (
        await psycopg.AsyncConnection.connect(database.dsn, autocommit=True) as eye,
        asyncio.timeout(PATIENCE),
    ):
        waiting = "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'"
        while not await (await eye.execute(waiting, [connection.info.backend_pid])).fetchone():  # noqa: ASYNC110  # the server's
            await asyncio.sleep(0.005)


@asynccontextmanager
async def opened(database: Database) -> AsyncIterator[Store]:
    store = open_store(database.url)
    await store.open()
    try:
        yield store
    finally:
        await store.close()
