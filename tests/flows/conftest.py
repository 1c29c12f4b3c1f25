"""What the tests need of each shared store; `Service`: a `holdfast worker`; `Ledger`: what the handlers wrote."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote

import psycopg
import pytest
import redis

from holdfast import Holdfast
from holdfast.clock import SECOND
from holdfast.stores import open_store
from tests import servers
from tests.flows import pids, shop
from tests.store.backends import standing_still

if TYPE_CHECKING:
    from tests.flows.robber import Robber


def _sqlite(url: str, statement: str, *values: object) -> None:
    with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as database, database:
        database.execute(statement, values)


@contextlib.contextmanager
def _postgres(_: Path, frozen: bool) -> Iterator[str]:
    with servers.postgres().ready(frozen=frozen) as database:
        yield database.url


def _postgres_lease(url: str, length: int) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("UPDATE holdfast_meta SET lease = %s", [length])


@contextlib.contextmanager
def _redis(_: Path, frozen: bool) -> Iterator[str]:
    with servers.valkey().bare() as prefix, standing_still() if frozen else contextlib.nullcontext():
        yield prefix.url


def _redis_lease(url: str, length: int) -> None:
    server, _, prefix = url.partition("?prefix=")
    with redis.Redis.from_url(server) as connection:
        connection.hset(f"{{{unquote(prefix)}}}:meta", "lease", length)


class Shared(NamedTuple):
    """A store that processes share."""

    # The URL of a fresh one, perhaps in a folder; a clock of its own may have to stand still, where a FakeClock does.
    place: Callable[[Path, bool], AbstractContextManager[str]]
    lease: Callable[[str, int], None]  # sets how long its leases are, in ms; before anybody uses it


SHARED = {
    "sqlite": Shared(
        lambda folder, _: contextlib.nullcontext(f"sqlite:///{folder}/jobs.db"),
        lambda url, length: _sqlite(url, "UPDATE holdfast_meta SET lease = ?", length),
    ),
    "postgres": Shared(_postgres, _postgres_lease),
    "redis": Shared(_redis, _redis_lease),
}
# Of tests whose handlers finish their jobs in transactions of their own: those stores that are databases.
in_databases = pytest.mark.parametrize("shared", ["postgres", "sqlite"], indirect=True)
SHORT_LEASE = 3 * SECOND


def until(condition: Callable[[], Any], what: str, seconds: float = 40) -> Any:
    """Waits until `condition()` gives something true, and returns it."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"{what}: not within {seconds} s"
        time.sleep(0.01)
    return found


class Ledger:
    """What the handlers wrote, line by line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()

    def lines(self, event: str | None = None) -> list[dict[str, Any]]:
        text = self.path.read_text()
        whole = text[: text.rfind("\n") + 1]
        found = [json.loads(line) for line in whole.splitlines()]
        return [line for line in found if event in (None, line["event"])]

    def count(self, event: str, job: object = None) -> int:
        return sum(job is None or line["job"] == str(job) for line in self.lines(event))


class Service:
    """A `holdfast worker` as an operator would start it."""

    def __init__(
        self, url: str, ledger: Ledger, *options: str, app: str = "tests.flows.shop:jobs", **streams: Any
    ) -> None:
        environment = {**os.environ, "HOLDFAST_URL": url, "LEDGER": str(ledger.path)}
        self.log = ledger.path.parent / f"worker-{time.monotonic_ns()}.log"
        command = [sys.executable, "-m", "holdfast", "worker", app, "--log", "kv", *options]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, **{"stderr": log, **streams}, env=environment)

    def children(self) -> list[int]:
        """The worker processes that are alive now."""
        return pids.children(self.process.pid)

    def text(self) -> str:
        return self.log.read_text()

    def stop(self, number: signal.Signals = signal.SIGTERM, seconds: float = 40) -> int:
        """Signals the supervisor and waits for its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            pytest.fail(f"the worker did not leave {seconds} s after {number.name}:\n{self.text()[-3000:]}")


class Guest:
    """A `holdfast worker` of an app that a test writes, started in its folder."""

    def __init__(self, url: str, folder: Path, source: str, *options: str) -> None:
        folder.joinpath("guest.py").write_text(source)
        self.log = folder / "guest.log"
        command = [sys.executable, "-m", "holdfast", "worker", "guest:jobs", "--log", "kv", *options]
        with self.log.open("wb") as log:
            environment = {**os.environ, "HOLDFAST_URL": url}
            self.process = subprocess.Popen(command, stderr=log, cwd=folder, env=environment)

    def text(self) -> str:
        return self.log.read_text()

    def stop(self) -> int:
        """Ends it, if it still runs; its exit code."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(30)
        finally:
            self.process.kill()


@pytest.fixture(params=sorted(SHARED))
def shared(request: pytest.FixtureRequest) -> Shared:
    return SHARED[request.param]


@pytest.fixture
def frozen() -> bool:
    """Whether the store's time stands still; modules whose apps have a FakeClock say so."""
    return False


@pytest.fixture
def url(shared: Shared, tmp_path: Path, frozen: bool) -> Iterator[str]:
    with shared.place(tmp_path, frozen) as url:
        yield url


@pytest.fixture
def short_lease(shared: Shared, url: str) -> None:
    """The store gives leases of 3 s."""

    async def make() -> None:
        store = open_store(url)
        await store.open()
        await store.close()

    asyncio.run(make())
    shared.lease(url, SHORT_LEASE)


@pytest.fixture
def robber(short_lease: None, url: str) -> Iterator[Robber]:
    """Somebody who robs whoever does not keep his lease, which is short."""
    from tests.flows.robber import Robber

    with Robber(url) as robber:
        yield robber


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger")


@pytest.fixture
def serve(url: str, ledger: Ledger) -> Iterator[Callable[..., Service]]:
    """Starts services; whatever still runs at the end is killed, whole."""
    started: list[Service] = []

    def start(*options: str, **how: Any) -> Service:
        started.append(Service(url, ledger, *options, **how))
        return started[-1]

    yield start
    for service in started:
        for pid in [*service.children(), service.process.pid]:
            if service.process.poll() is None or pid != service.process.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        service.process.wait(10)


@pytest.fixture
def using(url: str, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Holdfast], Holdfast]]:
    """Makes an app that finds its store in the environment usable in the test's own process, until the test's end."""
    monkeypatch.setenv("HOLDFAST_URL", url)
    monkeypatch.setenv("LEDGER", str(ledger.path))
    with contextlib.ExitStack() as stack:
        yield stack.enter_context


@pytest.fixture
def app(using: Callable[[Holdfast], Holdfast]) -> Holdfast:
    """The producers' side of the app that `serve` runs by default."""
    return using(shop.jobs)
