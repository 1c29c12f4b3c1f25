"""Real servers for tests: one of each kind per test process, started when a test first asks, and places in them.

`postgres` is the server in TEST_PG_DSN, else the wheel's; there is always one, or the tests fail and say what would
help. `pooled` is the oldest of Debian's, behind pgbouncer: what a machine may have, and else a test is skipped.
`valkey` is the server in TEST_REDIS_URL, else the wheel's; `slots` is another of these, as a whole cluster that refuses
what crosses slots; `redis7` is the machine's own Redis, which not every machine has.
"""

from __future__ import annotations

import atexit
import os
from contextlib import ExitStack
from functools import cache
from typing import TypeVar
from urllib.parse import urlsplit

import pytest

from tests.servers.places import Places
from tests.servers.prefixes import Prefixes
from tools.servers import Pgbouncer, Postgres, Valkey, debian, pgbouncer, redis

Server = TypeVar("Server", Postgres, Pgbouncer, Valkey)
_ending = ExitStack()
_owner = os.getpid()  # a fork of this process leaves the servers alone


def stop() -> None:
    """Drops what the tests made, and stops what they started."""
    if os.getpid() == _owner:
        _ending.close()


atexit.register(stop)


def lasting(server: Server) -> Server:
    """The server, started; it ends with the tests."""
    return _ending.enter_context(server)


def _places(dsn: str, reached: str | None = None) -> Places:
    return _ending.enter_context(Places(dsn, reached))


@cache
def postgres() -> Places:
    """Places in the server that all tests use."""
    if dsn := os.environ.get("TEST_PG_DSN"):
        return _places(dsn)
    return _places(lasting(Postgres()).dsn)


@cache
def pooled() -> Places:
    """Places in the oldest server there is, reached through pgbouncer; skips the test where that is not installed."""
    binary = pgbouncer()
    if binary is None:
        pytest.skip("this machine has no pgbouncer: not run through a pooler")
    binaries = debian(oldest=True)
    dsn = postgres().dsn if binaries is None else lasting(Postgres(binaries)).dsn
    server = urlsplit(dsn)
    words = {"host": server.hostname, "port": server.port, "user": server.username, "password": server.password}
    target = " ".join(f"{name}={word}" for name, word in words.items() if word)
    pooler = lasting(Pgbouncer(binary, target))
    return _places(dsn, f"postgresql://{server.username}@127.0.0.1:{pooler.port}/")


@cache
def valkey() -> Prefixes:
    """Places in the server that all tests use."""
    # A server that keeps nothing at all would make every program warn of that, on its standard error.
    url = os.environ.get("TEST_REDIS_URL") or lasting(Valkey(save="86400 1")).url
    return _ending.enter_context(Prefixes(url))


@cache
def slots() -> Prefixes:
    """Places in a server that is a whole cluster."""
    return _ending.enter_context(Prefixes(lasting(Valkey(cluster=True)).url))


@cache
def redis7() -> Prefixes:
    """Places in the machine's own Redis; skips the test where there is none."""
    program = redis()
    if program is None:
        pytest.skip("this machine has no redis-server: not run on Redis itself")
    return _ending.enter_context(Prefixes(lasting(Valkey(program)).url))
