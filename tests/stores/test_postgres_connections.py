"""Calls in callers' own transactions on PostgreSQL, on each kind of connection that there is."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import psycopg
import psycopg2
import psycopg2.extras
import pytest
from django.db import transaction
from psycopg.rows import dict_row, scalar_row
from sqlalchemy import create_engine, event, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.ext.asyncio import create_async_engine as create_async
from sqlalchemy.orm import Session

from holdfast import ConfigError, Holdfast, IdConflict, JobNotFound, NewJob, QueueFull, State
from holdfast.bridge import run_here
from holdfast.clock import HOUR
from holdfast.job import TOMBSTONE, Claim, Outcome
from holdfast.store import Answer, Where
from holdfast.stores import open_store
from holdfast.stores.postgres import PostgresStore
from holdfast.task import Task
from tests import servers
from tests.servers.places import Database
from tests.store.acts import draft, working
from tests.stores.tills import ASYNC, EVERY, SYNC, Psycopg2, Till, a_till, django_to, maybe, sqlalchemy_url

PATIENCE = 30  # seconds, for whatever a test waits for
every_kind = pytest.mark.parametrize("kind", EVERY)


@pytest.fixture(scope="module")
def place() -> Iterator[Database]:
    """A store for all tests of this file, beside a table of the program's own: each test knows its jobs by their ids."""
    with servers.postgres().ready() as database:
        with psycopg.connect(database.dsn) as connection:
            connection.execute("CREATE TABLE orders (id text PRIMARY KEY)")
        yield database
        with psycopg.connect(database.dsn) as connection:
            connection.execute("DROP TABLE orders")


@pytest.fixture(scope="module")
def app(place: Database) -> Iterator[Holdfast]:
    with Holdfast(place.url) as app:
        yield app


@pytest.fixture(scope="module")
def send(app: Holdfast) -> Task[[str], None]:
    @app.task(name="send")
    def send(order: str) -> None: ...

    return send


@pytest.fixture(autouse=True)
def on_any_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Django's connection may be used in the same tests as all others."""
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")


@pytest.fixture
def order() -> str:
    return uuid4().hex


def insert(order: str) -> str:
    return f"INSERT INTO orders (id) VALUES ('{order}')"


def paid(place: Database, order: str) -> bool:
    with psycopg.connect(place.dsn) as connection:
        return bool(connection.execute("SELECT FROM orders WHERE id = %s", [order]).fetchall())


async def stored(job: Any) -> bool:
    try:
        return bool(await job.astatus())
    except JobNotFound:
        return False


# --- part of the transaction


@every_kind
async def test_a_job_comes_with_the_commit(kind: str, place: Database, send: Task[[str], None], order: str) -> None:
    async with a_till(kind, place.dsn) as till:
        await till.rows(insert(order))
        job = await send.using(connection=till.lent).aenqueue(order)
        assert job.created
        assert not await stored(job), "visible before the commit"
        await till.commit()
        assert await stored(job)
        assert paid(place, order)


@every_kind
async def test_a_rollback_takes_the_job_along(kind: str, place: Database, send: Task[[str], None], order: str) -> None:
    async with a_till(kind, place.dsn) as till:
        taken = await send.using(connection=till.lent).aenqueue(order)  # a transaction may begin with it
        await till.rows(insert(order))
        await till.rollback()
        kept = await send.using(connection=till.lent).aenqueue(order)
        await till.commit()
        left = await send.using(connection=till.lent).aenqueue(order)  # and is gone with the connection
    assert [await stored(job) for job in (taken, kept, left)] == [False, True, False]
    assert not paid(place, order)


@every_kind
async def test_several_are_stored_or_none(
    kind: str, place: Database, app: Holdfast, send: Task[[str], None], order: str
) -> None:
    @app.task(name=f"other {uuid4().hex}".replace(" ", "_"))
    def other(order: str) -> None: ...

    known = await send.aenqueue(order)
    clash: NewJob[None] = other.bind(order)
    object.__setattr__(clash, "draft", replace(clash.draft, id=known.id))
    fresh = [send.bind(order) for _ in range(50)]
    async with a_till(kind, place.dsn) as till:
        with pytest.raises(IdConflict):
            await app.aenqueue_many([fresh[0], clash], connection=till.lent)
        await till.rows(insert(order))  # the transaction goes on as if nothing had been
        jobs = await app.aenqueue_many(fresh[1:], connection=till.lent)
        await till.commit()
    assert paid(place, order)
    assert [await stored(app.job(fresh[0].id)), await stored(jobs[0]), await stored(jobs[-1])] == [False, True, True]


@pytest.mark.parametrize("kind", SYNC)
async def test_sync_kinds_take_enqueue_as_well(
    kind: str, place: Database, app: Holdfast, send: Task[[str], None], order: str
) -> None:
    async with a_till(kind, place.dsn) as till:
        job = send.using(connection=till.lent).enqueue(order)
        [more] = app.enqueue_many([send.bind(order)], connection=till.lent)
        await till.commit()
    assert await stored(job)
    assert await stored(more)


@pytest.mark.parametrize("kind", ASYNC)
async def test_async_kinds_name_the_twin_to_await(
    kind: str, place: Database, send: Task[[str], None], order: str
) -> None:
    bound = send.bind(order)
    async with a_till(kind, place.dsn) as till:
        with pytest.raises(TypeError, match="aenqueue"):
            send.using(connection=till.lent).enqueue(order)
        [rows] = [await till.rows("SELECT count(*) FROM holdfast_jobs WHERE xmin::text = pg_current_xact_id()::text")]
        assert rows == [(0,)], "something was stored"
        del bound
