"""What a program has of a database, of each kind of connection that may be lent to a store in PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import asyncpg
import django
import psycopg
import psycopg2
from django.conf import settings
from django.db import connections, transaction
from django.utils.connection import ConnectionProxy
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import async_scoped_session, async_sessionmaker
from sqlalchemy.ext.asyncio import create_async_engine as create_async
from sqlalchemy.orm import scoped_session, sessionmaker

DRIVERS = ("psycopg", "psycopg async", "psycopg2", "asyncpg", "asyncpg pool")
ON_SQLALCHEMY = (
    "psycopg Connection",
    "psycopg Session",
    "psycopg2 Connection",
    "psycopg2 Session",
    "psycopg2 scoped_session",
    "psycopg AsyncConnection",
    "psycopg AsyncSession",
    "asyncpg AsyncConnection",
    "asyncpg AsyncSession",
    "asyncpg async_scoped_session",
)
ON_DJANGO = ("django", "django proxy")
ONE_OF_EACH = (*DRIVERS, "psycopg2 Session", "asyncpg AsyncSession", "django")
EVERY = (*DRIVERS, *ON_SQLALCHEMY, *ON_DJANGO)
ASYNC = tuple(kind for kind in EVERY if "async" in kind.casefold())
SYNC = tuple(kind for kind in EVERY if kind not in ASYNC)


class Till:
    """`lent` is what is handed to Holdfast. A transaction is there, or begins with the next statement."""

    def __init__(self, lent: Any) -> None:
        self.lent = lent

    async def rows(self, statement: str) -> list[tuple[Any, ...]]:
        """What a statement answers, if anything."""
        cursor = await maybe(self.lent.execute(statement))
        return await maybe(cursor.fetchall()) if cursor.description else []

    async def commit(self) -> None:
        await maybe(self.lent.commit())

    async def rollback(self) -> None:
        await maybe(self.lent.rollback())

    async def close(self) -> None:
        await maybe(self.lent.close())


async def maybe(value: Any) -> Any:
    return await value if isinstance(value, Awaitable) else value


class Psycopg2(Till):
    async def rows(self, statement: str) -> list[tuple[Any, ...]]:
        with self.lent.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []


class Asyncpg(Till):
    def __init__(self, lent: Any) -> None:
        super().__init__(lent)
        self._transaction: Any = None

    async def begin(self) -> None:
        self._transaction = self.lent.transaction()
        await self._transaction.start()

    async def rows(self, statement: str) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in await self.lent.fetch(statement)]

    async def commit(self) -> None:
        await self._transaction.commit()
        await self.begin()

    async def rollback(self) -> None:
        await self._transaction.rollback()
        await self.begin()


class OnSQLAlchemy(Till):
    async def rows(self, statement: str) -> list[tuple[Any, ...]]:
        result = await maybe(self.lent.execute(text(statement)))
        return [tuple(row) for row in result] if result.returns_rows else []


class OnDjango(Till):
    def __init__(self, lent: Any, *, begin: bool = True) -> None:
        super().__init__(lent)
        if begin:
            self.begin()

    def begin(self) -> None:
        self._atomic = transaction.atomic(using=self.lent.alias)
        self._atomic.__enter__()

    async def rows(self, statement: str) -> list[tuple[Any, ...]]:
        with self.lent.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []

    async def commit(self) -> None:
        self._atomic.__exit__(None, None, None)
        self.begin()

    async def rollback(self) -> None:
        self.lent.set_rollback(True)
        await self.commit()

    async def close(self) -> None:
        self.lent.set_rollback(True)
        self._atomic.__exit__(None, None, None)
        self.lent.close()


@asynccontextmanager
async def a_till(kind: str, dsn: str, **options: Any) -> AsyncIterator[Any]:
    """One of the kind; closed as its owner would, with what is open rolled back. `options`: of SQLAlchemy's engine."""
    match kind.split(" "):
        case ["psycopg"]:
            async with _closing(Till(psycopg.connect(dsn))) as till:
                yield till
        case ["psycopg", "async"]:
            async with _closing(Till(await psycopg.AsyncConnection.connect(dsn))) as till:
                yield till
        case ["psycopg2"]:
            async with _closing(Psycopg2(psycopg2.connect(dsn))) as till:
                yield till
        case ["asyncpg"]:
            async with _closing(Asyncpg(await asyncpg.connect(dsn))) as till:
                await till.begin()
                yield till
        case ["asyncpg", "pool"]:
            async with asyncpg.create_pool(dsn, min_size=1, max_size=1) as pool, pool.acquire() as lent:
                till = Asyncpg(lent)
                await till.begin()
                yield till
        case ["django", *proxy]:
            with django_to(dsn) as wrapper:
                async with _closing(
                    OnDjango(ConnectionProxy(connections, wrapper.alias) if proxy else wrapper)
                ) as till:
                    yield till
        case [driver, form]:
            async with _sqlalchemy(driver, form, dsn, **options) as till:
                yield till


@asynccontextmanager
async def _closing(till: Any) -> AsyncIterator[Any]:
    try:
        yield till
    finally:
        await till.close()


@asynccontextmanager
async def _sqlalchemy(driver: str, form: str, dsn: str, **options: Any) -> AsyncIterator[Till]:
    url = sqlalchemy_url(driver, dsn)
    if form in ("Connection", "Session", "scoped_session"):
        engine = create_engine(url, **options)
        lent: Any = engine.connect() if form == "Connection" else sessionmaker(engine)()
        async with _closing(OnSQLAlchemy(scoped_session(lambda: lent) if form == "scoped_session" else lent)) as till:
            yield till
        engine.dispose()
        return
    asynchronous = create_async(url, **options)
    lent = await asynchronous.connect() if form == "AsyncConnection" else async_sessionmaker(asynchronous)()
    scoped = form == "async_scoped_session"
    async with _closing(
        OnSQLAlchemy(async_scoped_session(lambda: lent, asyncio.current_task) if scoped else lent)
    ) as till:
        yield till
    await asynchronous.dispose()


def sqlalchemy_url(driver: str, dsn: str) -> str:
    return f"postgresql+{driver}:{dsn.partition(':')[2]}"


@contextmanager
def django_to(dsn: str, alias: str = "shop", **options: Any) -> Iterator[Any]:
    """Django's own connection of this thread to a database: that of an alias which is there meanwhile."""
    facts = psycopg.conninfo.conninfo_to_dict(dsn)
    with django_alias(
        alias,
        ENGINE="django.db.backends.postgresql",
        NAME=facts["dbname"],
        HOST=facts.get("host", ""),
        PORT=str(facts.get("port", "")),
        USER=facts.get("user", ""),
        PASSWORD=facts.get("password", ""),
        **options,
    ) as wrapper:
        yield wrapper


@contextmanager
def django_alias(alias: str, **database: Any) -> Iterator[Any]:
    if not settings.configured:
        settings.configure(USE_TZ=True)
        django.setup()
    connections.databases[alias] = connections.configure_settings({"default": {}, alias: database})[alias]
    try:
        yield connections[alias]
    finally:
        connections[alias].close()
        del connections[alias]
        del connections.databases[alias]
