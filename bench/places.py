"""Where benchmarked jobs live: in a SQLite file each, or each in a schema of a PostgreSQL server of our own."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol

Row = tuple[Any, ...]


class Place(Protocol):
    """One store; `rows` asks its tables by a connection of its own."""

    url: str

    def rows(self, query: str) -> list[Row]: ...


class Places(Protocol):
    """A kind of store. `aims`: what its figures should be, by part."""

    name: str
    aims: Mapping[str, str]

    def fresh(self, folder: Path, name: str) -> Place: ...


class SqliteFile:
    def __init__(self, url: str) -> None:
        self.url = url
        self._path = url.removeprefix("sqlite:///").partition("?")[0]
        self._connection: sqlite3.Connection | None = None

    def rows(self, query: str) -> list[Row]:
        if self._connection is None:
            self._connection = sqlite3.connect(self._path)
        return self._connection.execute(query).fetchall()


class SqliteFiles:
    name = f"sqlite {sqlite3.sqlite_version}"
    aims: ClassVar[Mapping[str, str]] = {"drain": "[>= 20,000/s]", "p50": "[<= 5 ms]"}

    def fresh(self, folder: Path, name: str) -> Place:
        return SqliteFile(f"sqlite:///{folder}/{name}.db")


class PostgresSchema:
    def __init__(self, dsn: str, schema: str) -> None:
        import psycopg

        from holdfast.stores import open_store

        self.dsn = dsn
        self.schema = schema
        self.url = f"{dsn}?schema={schema}"
        asyncio.run(open_store(self.url).migrate())
        self._connection = psycopg.connect(dsn, autocommit=True, options=f"-c search_path={schema}")

    def rows(self, query: str) -> list[Row]:
        cursor = self._connection.execute(query.encode())
        return cursor.fetchall() if cursor.description else []


class PostgresServer:
    """As installed, but for more connections and the counting of statements."""

    aims: ClassVar[Mapping[str, str]] = {
        "drain": "[>= 20,000/s]",
        "drain 2": "[>= 30,000/s]",
        "callers": "[>= 10,000/s]",
        "many": "[>= 60,000/s]",
        "p50": "[<= 3 ms]",
        "p99": "[<= 6 ms]",
    }

    def __init__(self, dsn: str) -> None:
        import psycopg

        self._dsn = dsn
        with psycopg.connect(dsn) as connection:
            self.name = f"postgresql {connection.info.parameter_status('server_version')}"

    def fresh(self, folder: Path, name: str) -> PostgresSchema:
        return PostgresSchema(self._dsn, f"{folder.name}-{name}")


@contextlib.contextmanager
def places(kind: str) -> Iterator[Places]:
    """The places of STORE=`kind`; a server is started, with fsync on, and ended with this."""
    if kind == "sqlite":
        yield SqliteFiles()
        return
    if kind != "postgres":
        raise SystemExit(f"STORE={kind}: sqlite or postgres")
    from tools.servers import Postgres

    settings = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "max_connections": 300}
    with Postgres(shared_preload_libraries="pg_stat_statements", **settings) as server:
        yield PostgresServer(server.dsn)
