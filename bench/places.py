"""Where benchmarked jobs live: in a SQLite file each; each in a schema or under a prefix of a server of our own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

if TYPE_CHECKING:
    from tools.servers import Valkey

Row = tuple[Any, ...]


class Place(Protocol):
    """One store, looked at from outside."""

    url: str

    def unfinished(self) -> bool:
        """Whether jobs are queued or running; costs next to nothing."""
        ...

    def ran(self) -> tuple[int, int]:
        """When the first job began and the last ended, in milliseconds."""
        ...

    def figures(self) -> Mapping[str, float]:
        """What its server has done since it was started, by what it is called in `3.2 ... per job`."""
        ...


class Places(Protocol):
    """A kind of store. `aims`: what its figures should be, by part. `jobs`: so many take it seconds to drain."""

    name: str
    jobs: int
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

    def unfinished(self) -> bool:
        return _unfinished(self.rows)

    def ran(self) -> tuple[int, int]:
        return _ran(self.rows)

    def figures(self) -> Mapping[str, float]:
        return {}


def _unfinished(rows: Callable[[str], list[Row]]) -> bool:
    """Looked up in the partial indexes: counting rows would cost what is being measured."""
    queued = "SELECT 1 FROM holdfast_jobs WHERE state = 'queued' AND queue = 'default' ORDER BY priority DESC LIMIT 1"
    running = "SELECT 1 FROM holdfast_jobs WHERE state = 'running' ORDER BY worker LIMIT 1"
    return bool(rows(queued) or rows(running))


def _ran(rows: Callable[[str], list[Row]]) -> tuple[int, int]:
    [(first, last)] = rows("SELECT min(started_at), max(finished_at) FROM holdfast_jobs")
    return first, last


class SqliteFiles:
    name = f"sqlite {sqlite3.sqlite_version}"
    jobs = 40_000
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

    def unfinished(self) -> bool:
        return _unfinished(self.rows)

    def ran(self) -> tuple[int, int]:
        return _ran(self.rows)

    def figures(self) -> Mapping[str, float]:
        time.sleep(1.5)  # sessions tell once a second
        self.rows("SELECT pg_stat_force_next_flush()")
        [figures] = self.rows(
            "SELECT tup_inserted + tup_updated + tup_deleted, pg_current_wal_insert_lsn() - '0/0', xact_commit "
            "FROM pg_stat_database WHERE datname = current_database()"
        )
        return dict(zip(("rows", "bytes of WAL", "round trips"), map(float, figures), strict=True))


class PostgresServer:
    """As installed, but for more connections and the counting of statements."""

    jobs = 40_000
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


class RedisPrefix:
    def __init__(self, server: Valkey, prefix: str) -> None:
        self.url = f"{server.url}?prefix={prefix}"
        self._say = server.say
        self._base = f"{{{prefix}:default}}:"

    def unfinished(self) -> bool:
        return any(self._say(*words) not in ("0", "", "$-1") for words in self._looks())

    def _looks(self) -> Iterator[tuple[str, ...]]:
        yield "ZCARD", f"{self._base}ready"
        yield "HGET", f"{self._base}meta", "running"

    def ran(self) -> tuple[int, int]:
        first, last = self._say("EVAL", _RAN, 1, f"{self._base}jobs", f"{self._base}job:").split()
        return int(first), int(last)

    def figures(self) -> Mapping[str, float]:
        """The time of a script is that of its commands, too."""
        stats = self._info("commandstats")
        commands = {name: dict(part.split("=") for part in text.split(",")) for name, text in stats.items()}
        called = [float(figures["calls"]) for name, figures in commands.items() if name.startswith("cmdstat_")]
        scripts = commands.get("cmdstat_evalsha", {"calls": "0", "usec": "0"})
        return {
            "script calls": float(scripts["calls"]),
            "us of scripts": float(scripts["usec"]),
            "commands in them": sum(called) - float(scripts["calls"]),
            "bytes of memory": float(self._info("memory")["used_memory"]),
        }

    def _info(self, section: str) -> dict[str, str]:
        return _parted(self._say("INFO", section))


def _parted(info: str) -> dict[str, str]:
    return dict(line.split(":", 1) for line in info.splitlines() if ":" in line)


_RAN = """
local first, last
for _, id in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  local job = redis.call('HMGET', ARGV[1] .. id, 'started', 'finished')
  local started, finished = tonumber(job[1]), tonumber(job[2])
  if started and (not first or started < first) then first = started end
  if finished and (not last or finished > last) then last = finished end
end
return string.format('%.0f %.0f', first, last)
"""


class RedisServer:
    """With an append-only file, written out each second."""

    jobs = 100_000
    aims: ClassVar[Mapping[str, str]] = {
        "drain": "[>= 25,000/s]",
        "drain 2": "[>= 40,000/s]",
        "one": "[>= 6,000/s]",
        "many": "[>= 50,000/s]",
        "p50": "[<= 1 ms]",
        "p99": "[<= 4 ms]",
    }

    def __init__(self, server: Valkey) -> None:
        self._server = server
        said = _parted(server.say("INFO", "server") + server.say("INFO", "memory"))
        kind = "valkey" if "valkey_version" in said else "redis"
        self.name = f"{kind} {said[f'{kind}_version']}, {said['mem_allocator']}, AOF everysec"

    def fresh(self, folder: Path, name: str) -> RedisPrefix:
        return RedisPrefix(self._server, f"{folder.name}-{name}")


@contextlib.contextmanager
def places(kind: str) -> Iterator[Places]:
    """The places of STORE=`kind`; a server is started, with fsync on, and ended with this."""
    if kind == "sqlite":
        yield SqliteFiles()
        return
    from tools.servers import Postgres, Valkey, redis

    match kind:
        case "postgres":
            settings = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "max_connections": 300}
            with Postgres(shared_preload_libraries="pg_stat_statements", **settings) as server:
                yield PostgresServer(server.dsn)
        case "redis":
            # The machine's own before the wheel's, whose malloc, the C library's, costs it half of its speed.
            with Valkey(None if os.environ.get("TEST_REDIS_SERVER") else redis(), persistent=True) as server:
                yield RedisServer(server)
        case _:
            raise SystemExit(f"STORE={kind}: sqlite, postgres or redis")
