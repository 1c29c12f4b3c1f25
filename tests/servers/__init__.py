"""Real servers for tests: one of each kind per test process, started when a test first asks, and places in them.

`postgres` is the server in TEST_PG_DSN, else the wheel's; there is always one, or the tests fail and say what would
help. `pooled` is the oldest of Debian's, behind pgbouncer: what a machine may have, and else a test is skipped.
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
from tools.servers import Pgbouncer, Postgres, debian, pgbouncer

Server = TypeVar("Server", Postgres, Pgbouncer)
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
