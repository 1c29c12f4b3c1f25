"""Places for jobs in a PostgreSQL server: databases of ours, as many as are lent at once, emptied for each new use."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import TracebackType
from typing import Self
from urllib.parse import quote, urlsplit

import psycopg
from psycopg import sql

from holdfast.clock import FakeClock
from holdfast.stores import open_store

NOT_CLEAN = 1000  # rows that were deleted, from which on the tables are made anew: dead rows slow every search
CREATE = "CREATE DATABASE {} TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C'"
EVICT = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
AND (state <> 'idle' OR NOT %s)
"""
# Tables, columns by number, functions, triggers, settings of them and privileges: all that is not rows.
SHAPE = """
WITH ours AS (SELECT oid, nspacl FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema')
SELECT
    (SELECT array_agg((oid, nspacl)::text ORDER BY oid) FROM ours),
    (SELECT array_agg((oid, relnatts, relacl, reloptions)::text ORDER BY oid) FROM pg_class
        WHERE relnamespace IN (SELECT oid FROM ours)),
    (SELECT array_agg((oid, xmin, proacl)::text ORDER BY oid) FROM pg_proc
        WHERE pronamespace IN (SELECT oid FROM ours)),
    (SELECT array_agg(oid ORDER BY oid) FROM pg_trigger)
"""
PATIENCE = 20.0  # seconds for connections to end
FREEZE = """
CREATE OR REPLACE FUNCTION {}.holdfast_now(shift bigint DEFAULT 0) RETURNS bigint
LANGUAGE sql VOLATILE PARALLEL SAFE AS $$ SELECT {}::bigint + shift $$
"""


class Database:
    """One database, with the schema of a store or without, and our own connection to it."""

    def __init__(self, server: Places, schema: str) -> None:
        self.name = f"holdfast_test_{os.getpid()}_{secrets.token_hex(4)}"
        self._schema = schema
        server.order(CREATE, self.name)
        self.dsn = _database(server.reached, self.name)  # for those who use it
        self._direct = _database(server.dsn, self.name)
        self._pooled = server.reached != server.dsn
        self._connection = psycopg.connect(self._direct, autocommit=True)
        self._connection.execute("SET lock_timeout = '20s'")
        self._tables: Sequence[sql.Identifier] = ()
        self._dead = 0
        self._shape: object = None

    @property
    def url(self) -> str:
        """The store's URL."""
        return self.dsn if self._schema == "public" else f"{self.dsn}?schema={quote(self._schema, safe='')}"

    def bare(self) -> None:
        """Takes everything out, the schema too; so does whoever still has it open lose it."""
        self._evict()
        names = self._connection.execute(
            "SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'"
        )
        for (name,) in names.fetchall():
            self._connection.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(name)))
        self._connection.execute("CREATE SCHEMA public")
        self._tables = ()

    def ready(self, *, frozen: bool) -> None:
        """Makes the schema, or, where it is, takes everything out of its tables."""
        if self._tables:
            self._evict()
            if self._look() == self._shape:
                self._empty()
                return
        self.bare()
        _elsewhere_migrated(_database(self._direct, self.name) + self.url.removeprefix(self.dsn))
        if frozen:
            self.freeze()
        found = self._connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = %s", [self._schema])
        self._tables = [sql.Identifier(self._schema, name) for (name,) in found if name != "holdfast_meta"]
        self._connection.execute("CREATE SCHEMA kept")
        self._connection.execute(sql.SQL("CREATE TABLE kept.meta AS SELECT * FROM {}").format(self._meta))
        self._shape = self._look()

    def _look(self) -> object:
        """What the place is like, but for its rows: if somebody has changed that, it is made anew."""
        return self._connection.execute(SHAPE).fetchone()

    def freeze(self) -> None:
        """From now on the store's time stands still, where a FakeClock begins, and moves with `shift` alone."""
        began = sql.Literal(FakeClock().now())
        self._connection.execute(sql.SQL(FREEZE).format(sql.Identifier(self._schema), began))

    @property
    def _meta(self) -> sql.Identifier:
        return sql.Identifier(self._schema, "holdfast_meta")

    def _evict(self) -> None:
        """Ends all other connections: what is written from now on is written by the next user.

        A pooler's own connections are spared if they are idle: they are what makes it quick.
        """
        end = time.monotonic() + PATIENCE
        while self._connection.execute(EVICT, [self._pooled]).fetchall():  # gone when it is not listed any more
            assert time.monotonic() < end, f"connections to {self.name} do not end"
            time.sleep(0.0005)

    def _empty(self) -> None:
        for table in self._tables:
            self._dead += self._connection.execute(sql.SQL("DELETE FROM {}").format(table)).rowcount
        if self._dead > NOT_CLEAN:
            self._connection.execute(sql.SQL("TRUNCATE {}").format(sql.SQL(", ").join(self._tables)))
            self._dead = 0
        self._connection.execute(sql.SQL("DELETE FROM {}").format(self._meta))
        self._connection.execute(sql.SQL("INSERT INTO {} SELECT * FROM kept.meta").format(self._meta))

    def close(self) -> None:
        self._connection.close()


def _elsewhere_migrated(url: str) -> None:
    """Migrates, whether or not this thread has a running loop."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(lambda: asyncio.run(_migrate(url))).result()


async def _migrate(url: str) -> None:
    await open_store(url).migrate()


def _database(dsn: str, name: str) -> str:
    return urlsplit(dsn)._replace(path=f"/{name}", query="").geturl()


class Places:
    """What a server's places are lent by; at the end all are dropped. `reached`: its address for those who use them."""

    def __init__(self, dsn: str, reached: str | None = None) -> None:
        if not dsn.startswith(("postgresql://", "postgres://")):
            raise ValueError("TEST_PG_DSN: give a URL, such as postgresql://postgres@127.0.0.1:5432/postgres")
        self.dsn = dsn
        self.reached = reached or dsn
        self._free: dict[tuple[str, str], list[Database]] = {}
        self._all: list[Database] = []

    @contextmanager
    def bare(self, schema: str = "public") -> Iterator[Database]:
        """An empty database, without a schema of ours."""
        with self._lent("bare", schema) as database:
            database.bare()
            yield database

    @contextmanager
    def ready(self, schema: str = "public", *, frozen: bool = False) -> Iterator[Database]:
        """A store that was migrated, without a job in it; `frozen`: its time stands still. Do not change its tables."""
        with self._lent("frozen" if frozen else "live", schema) as database:
            database.ready(frozen=frozen)
            yield database

    @contextmanager
    def _lent(self, kind: str, schema: str) -> Iterator[Database]:
        free = self._free.setdefault((kind, schema), [])
        database = free.pop() if free else self._new(schema)
        try:
            yield database
        finally:
            free.append(database)

    def _new(self, schema: str) -> Database:
        database = Database(self, schema)
        self._all.append(database)
        return database

    def order(self, statement: str, database: str) -> None:
        """Says something about a database to the server."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute(sql.SQL(statement).format(sql.Identifier(database)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        for database in self._all:
            database.close()
            self.order("DROP DATABASE {} WITH (FORCE)", database.name)
