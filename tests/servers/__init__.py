"""Real servers for tests: one of each kind per test process, started when a test first asks, and places in them.

`postgres` is the server in TEST_PG_DSN, else the wheel's; there is always one, or the tests fail and say what would
help. `older` (Debian's oldest) and `pooled` (the oldest there is, behind pgbouncer) are what a machine may have.
"""

from __future__ import annotations

import atexit
import os
from contextlib import ExitStack
from functools import cache
from urllib.parse import urlsplit

import pytest

from tests.servers.places import Places
from tools.servers import Pgbouncer, Postgres, debian, pgbouncer

_ending = ExitStack()
_owner = os.getpid()  # a fork of this process leaves the servers alone


def stop() -> None:
    """Drops what the tests made, and stops what they started."""
    if os.getpid() == _owner:
        _ending.close()


atexit.register(stop)


def _places(dsn: str, reached: str | None = None) -> Places:
    return _ending.enter_context(Places(dsn, reached))


@cache
def postgres() -> Places:
    """Places in the server that all tests use."""
    if dsn := os.environ.get("TEST_PG_DSN"):
        return _places(dsn)
    return _places(_ending.enter_context(Postgres()).dsn)


@cache
def older() -> Places:
    """Places in Debian's oldest server; skips the test where there is none."""
    return _places(_older().dsn)


@cache
def _older() -> Postgres:
    binaries = debian(oldest=True)
    if binaries is None:
        pytest.skip("this machine has no PostgreSQL of Debian's: not run on an older server")
    return _ending.enter_context(Postgres(binaries))


@cache
def pooled() -> Places:
    """Places in the oldest server there is, reached through pgbouncer; skips the test where that is not installed."""
    binary = pgbouncer()
    if binary is None:
        pytest.skip("this machine has no pgbouncer: not run through a pooler")
    dsn = postgres().dsn if debian() is None else _older().dsn
    server = urlsplit(dsn)
    words = {"host": server.hostname, "port": server.port, "user": server.username, "password": server.password}
    pooler = _ending.enter_context(
        Pgbouncer(binary, " ".join(f"{name}={word}" for name, word in words.items() if word))
    )
    return _places(dsn, f"postgresql://{server.username}@127.0.0.1:{pooler.port}/")
