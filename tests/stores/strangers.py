"""Transactions of others on the database of a store: open for as long as a test likes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg

from holdfast.store import Store
from holdfast.stores import open_store
from tests.servers.places import Database

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


@asynccontextmanager
async def opened(database: Database) -> AsyncIterator[Store]:
    store = open_store(database.url)
    await store.open()
    try:
        yield store
    finally:
        await store.close()
