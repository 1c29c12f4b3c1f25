"""Calls in callers' own transactions on PostgreSQL, on each kind of connection that there is."""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from typing import Any
from uuid import uuid4

import asyncpg
import django.db
import psycopg
import psycopg2
import psycopg2.extras
import pytest
import sqlalchemy.exc
from django.db import transaction
from psycopg.rows import dict_row, scalar_row
from sqlalchemy import create_engine, event, text
from sqlalchemy.orm import Session

from holdfast import ConfigError, Holdfast, IdConflict, JobNotFound, QueueFull
from holdfast.errors import HoldfastError, StoreAway
from holdfast.job import Claim, Outcome, Succeeded, new_id
from holdfast.policy import decide
from holdfast.store import Store
from holdfast.stores import open_store
from holdfast.task import Task
from tests import servers
from tests.servers.places import Database
from tests.store.acts import draft, hand, keyed, record, running, state
from tests.stores.tills import (
    ASYNC,
    EVERY,
    ONE_OF_EACH,
    SYNC,
    Asyncpg,
    OnDjango,
    Psycopg2,
    Till,
    a_till,
    django_alias,
    django_to,
    sqlalchemy_url,
)

PATIENCE = 30  # seconds, for whatever a test waits for
every_kind = pytest.mark.parametrize("kind", EVERY)
one_of_each = pytest.mark.parametrize("kind", ONE_OF_EACH)


@pytest.fixture(scope="module")
def place() -> Iterator[Database]:
    """A store for all tests of this file, with a table of the program's own; each test knows its jobs by their ids."""
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


@pytest.fixture(scope="module")
def other(app: Holdfast) -> Task[[str], None]:
    @app.task(name="other")
    def other(order: str) -> None: ...

    return other


@pytest.fixture
async def store(place: Database) -> AsyncIterator[Store]:
    """The same jobs, by the seam."""
    store = open_store(place.url)
    await store.open()
    yield store
    await store.close()


@pytest.fixture(autouse=True)
def on_any_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Django's connection may be used in the same tests as all others."""
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Database]:
    """Another store, with a database of its own."""
    with servers.postgres().ready() as database:
        yield database


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


def success(claim: Claim, result: bytes = b'"done"', **changes: Any) -> Outcome:
    return decide(claim, Succeeded(result))._replace(**changes)


# --- part of the transaction


@every_kind
async def test_a_job_is_part_of_the_transaction(
    kind: str, place: Database, send: Task[[str], None], order: str
) -> None:
    async with a_till(kind, place.dsn) as till:
        gone = await send.using(connection=till.lent).aenqueue(order)  # a transaction may begin with it
        await till.rows(insert(order))
        await till.rollback()
        await till.rows(insert(order))
        kept = await send.using(connection=till.lent).aenqueue(order)
        assert kept.created
        assert not await stored(kept), "visible before the commit"
        await till.commit()
        assert await stored(kept)
        left = await send.using(connection=till.lent).aenqueue(order)  # and is gone with the connection
    assert [await stored(job) for job in (gone, kept, left)] == [False, True, False]
    assert paid(place, order)


@one_of_each
async def test_several_are_stored_or_none(
    kind: str, place: Database, app: Holdfast, send: Task[[str], None], other: Task[[str], None], order: str
) -> None:
    known = await send.aenqueue(order)
    clash = other.bind(order)
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
    async with a_till(kind, place.dsn) as till:
        with pytest.raises(TypeError, match="aenqueue"):
            send.using(connection=till.lent).enqueue(order)
        await till.commit()
    with psycopg.connect(place.dsn) as connection:
        found = connection.execute("SELECT FROM holdfast_jobs WHERE position(%s IN payload) > 0", [order.encode()])
        assert found.fetchall() == [], "something was stored"


async def test_the_inside_of_run_sync_is_sync(place: Database, send: Task[[str], None], order: str) -> None:
    async with a_till("asyncpg AsyncSession", place.dsn) as till:

        def pay(session: Session) -> Any:
            session.execute(text(insert(order)))
            return send.using(connection=session).enqueue(order)

        job = await till.lent.run_sync(pay)
        assert not await stored(job)
        await till.commit()
    assert await stored(job)


async def test_a_savepoint_takes_the_job_along(place: Database, send: Task[[str], None], order: str) -> None:
    async with a_till("psycopg", place.dsn) as till:
        kept = send.using(connection=till.lent).enqueue(order)
        with till.lent.transaction(force_rollback=True):
            gone = send.using(connection=till.lent).enqueue(order)
        await till.commit()
    assert [await stored(kept), await stored(gone)] == [True, False]


def test_a_block_of_django_in_a_block(place: Database, send: Task[[str], None], order: str) -> None:
    with django_to(place.dsn) as wrapper, transaction.atomic(using=wrapper.alias):
        kept = send.using(connection=wrapper).enqueue(order)
        with transaction.atomic(using=wrapper.alias):
            gone = send.using(connection=wrapper).enqueue(order)
            transaction.set_rollback(True, using=wrapper.alias)
    assert kept.status().state == "queued"
    with pytest.raises(JobNotFound):
        gone.status()


# --- whatever its owner has chosen


def a_row(cursor: Any) -> Any:
    return lambda values: {"a": "row"}


@pytest.mark.parametrize("level", ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
@pytest.mark.parametrize("kind", ["psycopg", "psycopg async", "psycopg2", "asyncpg"])
async def test_at_any_isolation(
    kind: str, level: str, place: Database, store: Store, send: Task[[str], None], order: str
) -> None:
    claim = await running(store, await hand(store))
    async with a_till(kind, place.dsn) as till:
        await till.rows(f"SET TRANSACTION ISOLATION LEVEL {level}")
        await till.rows("SELECT count(*) FROM orders")
        unseen = await send.aenqueue("unseen")
        job = await send.using(connection=till.lent).aenqueue(order)
        await store.finish([success(claim)], till.lent)
        assert await till.rows("SHOW transaction_isolation") == [(level.lower(),)]
        await till.commit()
    assert await stored(job)
    assert await stored(unseen)
    assert await state(store, claim.id) == "succeeded"


async def test_psycopg_with_rows_cursors_and_types_of_its_owners(
    place: Database, store: Store, send: Task[[str], None], order: str
) -> None:
    class Loud(psycopg.adapt.Dumper):
        def dump(self, obj: str) -> bytes:
            return b"loud"

    class Deaf(psycopg.adapt.Loader):
        def load(self, data: Any) -> str:
            return "[]"

    for factory, rows in ((psycopg.RawCursor, dict_row), (psycopg.ClientCursor, a_row), (psycopg.Cursor, scalar_row)):
        claim = await running(store, await hand(store))
        with psycopg.connect(place.dsn, row_factory=rows, cursor_factory=factory) as connection:
            connection.adapters.register_dumper(str, Loud)
            for name in ("text", "json", "uuid"):
                connection.adapters.register_loader(name, Deaf)
            job = send.using(connection=connection).enqueue(order)
            await store.finish([success(claim)], connection)
            assert (connection.row_factory, connection.cursor_factory) == (rows, factory)
        assert await stored(job)
        assert await state(store, claim.id) == "succeeded"


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII", "UTF8"])
@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
async def test_any_encoding_of_the_client(
    driver: str, encoding: str, place: Database, store: Store, app: Holdfast, send: Task[[str], None]
) -> None:
    payload = "é 𝄞 \\ ' \" %s %(x)s :x \x00"
    async with a_till(driver, place.dsn) as till:
        await till.rows(f"SET client_encoding TO '{encoding}'")
        await till.rows("SET standard_conforming_strings TO off")
        job = await send.using(connection=till.lent).aenqueue(payload)
        await till.commit()
    assert payload in json.loads((await record(store, job.id)).payload)["args"]


@pytest.mark.parametrize(
    "factory", [psycopg2.extras.RealDictCursor, psycopg2.extras.DictCursor, psycopg2.extras.NamedTupleCursor]
)
async def test_psycopg2_with_cursors_and_types_of_its_owners(
    factory: Any, place: Database, send: Task[[str], None], order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loud(value: str) -> Any:
        return psycopg2.extensions.AsIs("'loud'")

    monkeypatch.setitem(psycopg2.extensions.adapters, (str, psycopg2.extensions.ISQLQuote), loud)
    connection = psycopg2.connect(place.dsn, cursor_factory=factory)
    psycopg2.extras.register_uuid(conn_or_curs=connection)
    psycopg2.extras.register_default_json(connection, loads=lambda _: "deaf")
    psycopg2.extensions.register_type(psycopg2.extensions.new_type((25,), "DEAF", lambda *_: "[]"), connection)
    job = send.using(connection=connection).enqueue(order)
    connection.commit()
    connection.close()
    assert await stored(job)


async def test_asyncpg_with_records_and_codecs_of_its_owners(
    place: Database, store: Store, send: Task[[str], None], order: str
) -> None:
    class Ours(asyncpg.Record):
        pass

    connection = await asyncpg.connect(place.dsn, record_class=Ours, statement_cache_size=0)
    for name in ("json", "jsonb", "uuid", "int8", "bool"):
        await connection.set_type_codec(name, schema="pg_catalog", encoder=str, decoder=lambda _: "deaf")
    claim = await running(store, await hand(store))
    async with connection.transaction():
        job = await send.using(connection=connection).aenqueue(order)
        await store.finish([success(claim)], connection)
    await connection.close()
    assert await stored(job)
    assert await state(store, claim.id) == "succeeded"


@pytest.mark.parametrize("binding", [False, True])
def test_django_with_parameters_bound_here_or_there(
    binding: bool, place: Database, send: Task[[str], None], order: str
) -> None:
    options = {"server_side_binding": binding}
    with django_to(place.dsn, OPTIONS=options) as wrapper, transaction.atomic(using=wrapper.alias):
        job = send.using(connection=wrapper).enqueue(order)
    assert job.status().state == "queued"


@one_of_each
async def test_no_setting_is_touched(kind: str, place: Database, store: Store, send: Task[[str], None]) -> None:
    claim = await running(store, await hand(store))
    async with a_till(kind, place.dsn) as till:
        await till.rows("SET LOCAL lock_timeout = '7s'")
        before = await till.rows("SELECT name, setting FROM pg_settings")
        await send.using(connection=till.lent).aenqueue("x")
        await store.finish([success(claim)], till.lent)
        after = dict(await till.rows("SELECT name, setting FROM pg_settings"))  # and those of PL/pgSQL, now loaded
        assert [(name, after[name]) for name, _ in before] == before
        await till.rollback()


async def test_it_is_one_statement(place: Database, send: Task[[str], None], store: Store) -> None:
    engine = create_engine(sqlalchemy_url("psycopg", place.dsn))
    sent: list[str] = []
    with Session(engine) as session:
        session.execute(text("SELECT 1"))
        event.listen(engine, "before_cursor_execute", lambda *call: sent.append(call[2]))
        send.using(connection=session).enqueue("x")
        assert len(sent) == 1, sent
        await store.finish([success(await running(store, await hand(store)))], session)
        assert len(sent) == 2, sent
    engine.dispose()


@pytest.mark.parametrize("autocommit", [False, True])
async def test_in_a_pipeline_of_psycopgs(
    autocommit: bool, place: Database, send: Task[[str], None], order: str
) -> None:
    with psycopg.connect(place.dsn, autocommit=autocommit) as connection, connection.pipeline():
        if autocommit:
            with pytest.raises(ConfigError, match="commits every statement by itself"):
                send.using(connection=connection).enqueue(order)
        with connection.transaction():
            connection.execute(insert(order))
            job = send.using(connection=connection).enqueue(order)
            assert not await stored(job)
    assert await stored(job)
    assert paid(place, order)
    connecting = psycopg.AsyncConnection.connect(place.dsn, autocommit=autocommit)
    async with await connecting as one, one.pipeline(), one.transaction():
        await one.execute("SELECT 1")
        job = await send.using(connection=one).aenqueue(order)
    assert await stored(job)


async def test_what_fails_in_the_owners_pipeline_is_his_to_hear(place: Database, send: Task[[str], None]) -> None:
    async def asks(connection: psycopg.AsyncConnection) -> None:
        async with connection.pipeline():
            await connection.execute("SELECT * FROM nosuch")
            await send.using(connection=connection).aenqueue("1")

    def asks_here(connection: psycopg.Connection) -> None:
        with connection.pipeline():
            connection.execute("SELECT * FROM nosuch")
            send.using(connection=connection).enqueue("1")

    with psycopg.connect(place.dsn) as connection:
        with pytest.raises(psycopg.errors.UndefinedTable, match="nosuch"):
            asks_here(connection)
        connection.rollback()
    async with await psycopg.AsyncConnection.connect(place.dsn) as one:
        with pytest.raises(psycopg.errors.UndefinedTable, match="nosuch"):
            await asks(one)
        await one.rollback()


async def test_through_a_pooler_that_gives_each_transaction_another_connection(order: str) -> None:
    with servers.pooled().ready() as database:
        store = open_store(database.url)
        await store.open()
        for kind in ("psycopg", "psycopg async", "psycopg2", "django"):
            worker = await hand(store)
            async with a_till(kind, database.dsn) as till:
                for _ in range(8):  # a driver prepares what comes often
                    job, claim = draft(), await running(store, worker)
                    assert (await store.enqueue([job], till.lent))[0].answer == "accepted", kind
                    assert (await store.finish([success(claim)], till.lent))[0].answer == "accepted", kind
                    await till.commit()
                    assert [await state(store, job.id), await state(store, claim.id)] == ["queued", "succeeded"], kind
        await store.close()


@pytest.mark.parametrize("kind", ["psycopg", "asyncpg", "django"])
async def test_a_full_queue_refuses_and_the_transaction_goes_on(
    kind: str, place: Database, app: Holdfast, send: Task[[str], None], order: str
) -> None:
    queue = f"narrow-{order}"
    app.queue(queue, max_size=1)
    narrow = send.using(queue=queue)
    async with a_till(kind, place.dsn) as till:
        job = await narrow.using(connection=till.lent).aenqueue(order)
        with pytest.raises(QueueFull):
            await narrow.using(connection=till.lent).aenqueue(order)
        await till.rows(insert(order))
        await till.commit()
    assert await stored(job)
    assert paid(place, order)


async def test_a_schema_whose_name_needs_quotes(order: str) -> None:
    schema = """it's "one" $1 :x $$"""
    with servers.postgres().ready(schema) as database:
        store = open_store(database.url)
        await store.open()
        for kind in ("psycopg", "psycopg2", "asyncpg", "psycopg Session", "asyncpg AsyncSession", "django"):
            job, claim = draft(), await running(store, await hand(store))
            async with a_till(kind, database.dsn) as till:
                assert (await store.enqueue([job], till.lent))[0].answer == "accepted", kind
                assert (await store.finish([success(claim)], till.lent))[0].answer == "accepted", kind
                await till.commit()
            assert [await state(store, job.id), await state(store, claim.id)] == ["queued", "succeeded"], kind
        await store.close()


# --- the transaction is its owner's: so is what the server says of it


async def test_who_cannot_be_serialized_hears_it_from_his_own_library(place: Database, store: Store) -> None:
    errors: dict[str, Any] = {
        "psycopg": psycopg.errors.SerializationFailure,
        "psycopg2": psycopg2.errors.SerializationFailure,
        "asyncpg": asyncpg.SerializationError,
        "psycopg Session": sqlalchemy.exc.OperationalError,
        "asyncpg AsyncSession": sqlalchemy.exc.DBAPIError,
        "django": django.db.OperationalError,
    }
    for kind, error in errors.items():
        claim = await running(store, await hand(store))
        async with a_till(kind, place.dsn) as till:
            await till.rows("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            await till.rows("SELECT count(*) FROM orders")
            assert await store.cancel([claim.id]) == ["requested"]
            with pytest.raises(error, match="could not serialize") as raised:
                await store.finish([success(claim)], till.lent)
            assert not isinstance(raised.value, HoldfastError)
            await till.rollback()
        assert await state(store, claim.id) == "running"


async def test_who_set_a_time_limit_hears_it_from_his_own_library(place: Database, app: Holdfast, store: Store) -> None:
    job = keyed(queue="limits", text=uuid4().hex)
    async with a_till("psycopg", place.dsn) as one, a_till("psycopg", place.dsn) as two:
        await store.enqueue([job], one.lent)
        await two.rows("SET LOCAL lock_timeout = '50ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            await store.enqueue([replace(job, id=new_id())], two.lent)


# --- what cannot be used


@pytest.mark.parametrize(
    ("kind", "autocommit"),
    [
        ("psycopg", "connection.transaction()"),
        ("psycopg async", "async with connection.transaction()"),
        ("psycopg2", "autocommit = False"),
        ("asyncpg", "async with connection.transaction()"),
        ("psycopg Session", "isolation_level="),
        ("asyncpg AsyncSession", "isolation_level="),
        ("psycopg AsyncConnection", "isolation_level="),
        ("django", "transaction.atomic()"),
    ],
)
async def test_without_a_transaction_there_is_nothing_to_be_part_of(
    kind: str, autocommit: str, place: Database, store: Store, send: Task[[str], None], order: str
) -> None:
    claim = await running(store, await hand(store))
    async with by_itself(kind, place.dsn) as till:
        refused = rf"commits every statement by itself.*{re.escape(autocommit)}"
        with pytest.raises(ConfigError, match=refused):
            await send.using(connection=till.lent).aenqueue(order)
        with pytest.raises(ConfigError, match=refused):
            await store.finish([success(claim)], till.lent)
        assert await state(store, claim.id) == "running"
        await till.rows("BEGIN")  # as its own statement, it is a transaction like any
        await till.rows(insert(order))
        job = await send.using(connection=till.lent).aenqueue(order)
        assert not await stored(job)
        await till.rows("COMMIT")
    assert await stored(job)


@asynccontextmanager
async def by_itself(kind: str, dsn: str) -> AsyncIterator[Any]:
    """One of the kind that commits every statement by itself."""
    match kind:
        case "psycopg":
            with psycopg.connect(dsn, autocommit=True) as one:
                yield Till(one)
        case "psycopg async":
            async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
                yield Till(connection)
        case "psycopg2":
            lent = psycopg2.connect(dsn)
            lent.autocommit = True
            yield Psycopg2(lent)
            lent.close()
        case "asyncpg":
            lent = await asyncpg.connect(dsn)
            yield Asyncpg(lent)
            await lent.close()
        case "django":
            with django_to(dsn) as wrapper:
                yield OnDjango(wrapper, begin=False)
        case _:
            async with a_till(kind, dsn, isolation_level="AUTOCOMMIT") as till:
                yield till


@one_of_each
async def test_a_failed_transaction_is_refused(kind: str, place: Database, store: Store, order: str) -> None:
    claim = await running(store, await hand(store))
    async with a_till(kind, place.dsn) as till:
        with pytest.raises(Exception, match=r"division by zero"):
            await till.rows("SELECT 1 / 0")
        for call in (store.enqueue([draft()], till.lent), store.finish([success(claim)], till.lent)):
            with pytest.raises(ConfigError, match=r"transaction has failed.*rolled back"):
                await call
        await till.rollback()
        assert (await store.finish([success(claim)], till.lent))[0].answer == "accepted"


@pytest.mark.parametrize("kind", ["psycopg", "psycopg async", "psycopg2", "asyncpg", "psycopg Connection"])
async def test_a_closed_connection_is_refused(kind: str, place: Database, store: Store) -> None:
    async with a_till(kind, place.dsn) as till:
        lent = till.lent
        await till.close()
        with pytest.raises(ConfigError, match=r"connection=\w+\..*cannot be used here: .*closed"):
            await store.enqueue([draft()], lent)


async def test_one_that_is_back_in_its_pool_is_refused(place: Database, store: Store) -> None:
    async with asyncpg.create_pool(place.dsn, min_size=1, max_size=1) as pool:
        async with pool.acquire() as lent:
            pass
        with pytest.raises(ConfigError, match=r"cannot be used here: .*released back to the pool"):
            await store.enqueue([draft()], lent)


async def test_one_whose_server_is_gone_says_so_in_its_own_words(place: Database, store: Store) -> None:
    async with a_till("psycopg", place.dsn) as till, a_till("psycopg", place.dsn) as killer:
        [[pid]] = await till.rows("SELECT pg_backend_pid()")
        await killer.rows(f"SELECT pg_terminate_backend({pid}, 10000)")
        with pytest.raises(psycopg.OperationalError):
            await store.enqueue([draft()], till.lent)
        with pytest.raises(ConfigError, match="closed"):
            await store.enqueue([draft()], till.lent)


@one_of_each
async def test_another_store_is_refused(kind: str, store: Store, elsewhere: Database) -> None:
    claim = await running(store, await hand(store))
    async with a_till(kind, elsewhere.dsn) as till:
        for call in (store.enqueue([draft()], till.lent), store.finish([success(claim)], till.lent)):
            with pytest.raises(
                ConfigError, match=rf"{elsewhere.name} has other jobs than those of the store at .*roll"
            ):
                await call
            await till.rollback()


@pytest.mark.parametrize("kind", ["psycopg", "psycopg2", "asyncpg", "asyncpg AsyncSession", "django"])
async def test_a_database_without_holdfast_is_refused(kind: str, store: Store) -> None:
    with servers.postgres().bare() as bare:
        async with a_till(kind, bare.dsn) as till:
            with pytest.raises(
                ConfigError, match=r"no Holdfast.* in schema public .*another database.*holdfast migrate"
            ):
                await store.enqueue([draft()], till.lent)


async def test_a_transaction_that_only_reads_is_refused(place: Database, store: Store) -> None:
    async with a_till("psycopg", place.dsn) as till:
        await till.rows("SET TRANSACTION READ ONLY")
        with pytest.raises(ConfigError, match="READ ONLY"):
            await store.enqueue([draft()], till.lent)


async def test_a_role_without_the_privilege_is_told_which(place: Database, store: Store) -> None:
    async with a_till("psycopg", place.dsn) as till:
        await till.rows("CREATE ROLE nobody_here")
        await till.rows("GRANT USAGE ON SCHEMA public TO nobody_here")
        await till.rows("SET LOCAL ROLE nobody_here")
        with pytest.raises(
            StoreAway, match=r"lacks a privilege \(permission denied for table holdfast_\w+\); as the ow"
        ):
            await store.enqueue([draft()], till.lent)


async def test_one_in_the_middle_of_a_statement_is_refused(place: Database, store: Store) -> None:
    async with a_till("psycopg", place.dsn) as till:
        with till.lent.cursor() as cursor:
            stream = cursor.stream("SELECT generate_series(1, 9)")
            next(stream)
            with pytest.raises(ConfigError, match="in the middle of another statement"):
                await store.enqueue([draft()], till.lent)
            stream.close()
        assert (await store.enqueue([draft()], till.lent))[0].answer == "accepted"
    async with a_till("asyncpg", place.dsn) as till:
        slow = asyncio.ensure_future(till.lent.fetch("SELECT pg_sleep(0.2)"))
        await asyncio.sleep(0)
        with pytest.raises(ConfigError, match="another operation is in progress"):
            await store.enqueue([draft()], till.lent)
        await slow


@pytest.mark.parametrize("kind", ["asyncpg", "asyncpg AsyncConnection"])
async def test_one_of_another_loop_is_refused(kind: str, place: Database, store: Store) -> None:
    async with a_till(kind, place.dsn) as till:

        async def elsewhere() -> None:
            with pytest.raises(ConfigError, match="another event loop"):
                await open_store(place.url).enqueue([draft()], till.lent)

        await asyncio.to_thread(asyncio.run, elsewhere())
        assert (await store.enqueue([draft()], till.lent))[0].answer == "accepted"


def test_django_refuses_other_threads_loops_and_broken_blocks(
    place: Database, send: Task[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DJANGO_ALLOW_ASYNC_UNSAFE")
    with django_to(place.dsn) as wrapper:
        lent = send.using(connection=wrapper)
        with transaction.atomic(using=wrapper.alias):
            with ThreadPoolExecutor(1) as thread, pytest.raises(ConfigError, match=r"\['shop'\].* thread"):
                thread.submit(lent.enqueue, "x").result(PATIENCE)
            with pytest.raises(ConfigError, match=r"\['shop'\].* async context"):
                asyncio.run(lent.aenqueue("x"))  # type: ignore[arg-type]
            with pytest.raises(KeyError), transaction.atomic(using=wrapper.alias, savepoint=False):
                raise KeyError
            with pytest.raises(ConfigError, match=r"\['shop'\].* 'atomic' block"):
                lent.enqueue("x")
            wrapper.set_rollback(False)
            job = lent.enqueue("x")
    assert job.status().state == "queued"


async def test_who_is_no_such_connection_hears_which_are(place: Database, store: Store) -> None:
    engine = create_engine("sqlite://")
    with (
        Session(engine) as on_sqlite,
        django_alias("lite", ENGINE="django.db.backends.sqlite3", NAME=":memory:") as lite,
        psycopg.connect(place.dsn) as connection,
        closing(sqlite3.connect(":memory:")) as bare,
    ):
        for lent, name in (
            (object(), "builtins.object"),
            (place.dsn, "builtins.str"),
            (bare, "sqlite3.Connection"),
            (engine, "sqlalchemy.engine.base.Engine"),
            (on_sqlite, r"sqlalchemy.orm.session.Session on sqlite\+pysqlite"),
            (lite, r"django.db.connections\['lite'\] on sqlite"),
            (connection.cursor(), "psycopg.Cursor"),
        ):
            with pytest.raises(ConfigError, match=rf"connection={name}: accepted are .*psycopg2.*AsyncSession.*Django"):
                await store.enqueue([draft()], lent)
    engine.dispose()


async def test_a_server_that_is_no_postgresql_is_refused_untouched(place: Database, store: Store) -> None:
    engine = create_engine(sqlalchemy_url("psycopg", place.dsn))
    engine.dialect.name = "cockroachdb"
    sent: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *call: sent.append(call[2]))
    with Session(engine) as session, pytest.raises(ConfigError, match=r"Session on cockroachdb\+psycopg: accepted"):
        await store.enqueue([draft()], session)
    engine.dispose()
    assert sent == []


def test_nothing_of_other_libraries_is_imported(place: Database) -> None:
    program = f"""
import sys
import psycopg
from holdfast import Holdfast
app = Holdfast({place.url!r})
@app.task(name="send")
def send(order: int) -> None: ...
with app, psycopg.connect({place.dsn!r}) as shop:
    job = send.using(connection=shop).enqueue(1)
    shop.commit()
    print(job.status().state, [name for name in ("sqlalchemy", "django", "psycopg2", "asyncpg") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.strip() == "queued []", done.stderr


def test_a_synchronous_call_never_suspends(place: Database) -> None:
    """Not even in a thread that has a loop which stands still: nobody would wake it up."""
    job = draft()

    async def main() -> None:
        with psycopg.connect(place.dsn) as connection:
            step = open_store(place.url).enqueue([job], connection)
            with pytest.raises(StopIteration) as done:
                step.send(None)
            assert [receipt.id for receipt in done.value.value] == [job.id]

    asyncio.run(main())
