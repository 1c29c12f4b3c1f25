"""A PostgreSQL server that a test may stop, fill and replace; who works on it; whether the promises were kept."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self
from urllib.parse import urlsplit
from uuid import UUID

import psycopg
import pytest

from holdfast import Holdfast, NewJob
from holdfast.errors import StoreAway
from holdfast.stores import open_store
from tests.flows.conftest import Ledger, Service, until
from tests.flows.shop import work
from tools.servers import Postgres

Serve = Callable[..., Service]
EVICT = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name LIKE 'holdfast%'
"""
TEMPLATE = "a_store"


class Standby(Postgres):
    """A copy of `primary` that follows it, and becomes a primary itself when it is promoted."""

    def __init__(self, primary: Postgres, **settings: object) -> None:
        super().__init__(**settings)
        self._primary = primary

    def start(self) -> None:
        if not self._data.exists():
            words = ["--pgdata", self._data, "--dbname", self._primary.dsn, "--checkpoint=fast", "--no-sync", "-R"]
            self._room.run([self._binaries / "pg_basebackup", *words], self._environment)
        super().start()

    def promote(self) -> None:
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            assert connection.execute("SELECT pg_promote()").fetchone() == (True,)


def migrated(server: Postgres) -> None:
    """Makes the database that those of the tests are copies of."""
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {TEMPLATE} TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C'")
    asyncio.run(open_store(_database(server, TEMPLATE)).migrate())


def place(server: Postgres) -> str:
    """The URL of the store that is the template, for servers on which there is no other."""
    return _database(server, TEMPLATE)


@contextlib.contextmanager
def store(server: Postgres) -> Iterator[str]:
    """A store in a database of its own: its URL. The server runs again at the end."""
    name = f"store_{secrets.token_hex(4)}"
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
    try:
        yield _database(server, name)
    finally:
        runs_again(server)
        with psycopg.connect(server.dsn, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def runs_again(server: Postgres) -> None:
    """Starts the server if a test has left it stopped."""
    try:
        psycopg.connect(server.dsn).close()
    except psycopg.OperationalError:
        server.start()


def _database(server: Postgres, name: str) -> str:
    return urlsplit(server.dsn)._replace(path=f"/{name}").geturl()


def order(url: str, statement: str, *values: object) -> Any:
    """One statement; what its first row says first."""
    with psycopg.connect(url, autocommit=True) as connection:
        asked = connection.execute(statement.encode(), values or None)
        row = asked.fetchone() if asked.description else None
    return row[0] if row else None


def short_leases(url: str, length: int) -> None:
    """Sets the length of leases, in ms, before anybody uses the store."""
    order(url, "UPDATE holdfast_meta SET lease = %s", length)


class Producer:
    """Enqueues jobs in a thread, one by one, until it is told to stop.

    What is unclear or refused it enqueues again, as the error says.
    """

    def __init__(self, app: Holdfast, seconds: float = 0.02) -> None:
        self.jobs: list[UUID] = []
        self.errors: list[StoreAway] = []
        self._app = app
        self._seconds = seconds
        self._enough = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._produce, name="producer")

    def _produce(self) -> None:
        try:
            while not self._enough.wait(0.015):  # no faster than the fleet
                self._stored(work.bind(len(self.jobs), seconds=self._seconds))
        except BaseException as error:  # noqa: BLE001  # raised again where it is waited for
            self._failure = error

    def _stored(self, job: NewJob[int]) -> None:
        for _ in range(2000):
            try:
                self.jobs += [stored.id for stored in self._app.enqueue_many([job])]
            except StoreAway as error:
                self.errors.append(error)
                time.sleep(0.05)
            else:
                return
        raise AssertionError("an enqueue was not answered in 2000 tries")

    def stop(self) -> list[UUID]:
        """Its jobs, once the last is stored."""
        self._enough.set()
        self._thread.join(60)
        assert not self._thread.is_alive(), "an enqueue hangs"
        if self._failure is not None:
            raise self._failure
        return self.jobs

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def effects(ledger: Ledger, number: int, seconds: float = 60) -> None:
    until(lambda: ledger.count("effect") >= number, f"{number} effects", seconds)


def ran_once(url: str, jobs: Sequence[UUID], ledger: Ledger, seconds: float = 60) -> None:
    """Waits until all jobs stand as succeeded; each took effect once."""
    until(lambda: _states(url).get("succeeded", 0) >= len(jobs), f"{len(jobs)} jobs succeeded", seconds)
    assert _states(url) == {"succeeded": len(jobs)}
    took_effect_once(jobs, ledger)


def took_effect_once(jobs: Sequence[UUID], ledger: Ledger) -> None:
    """Each, and no job was even begun twice."""
    counts = Counter(line["job"] for line in ledger.lines("effect"))
    lost = [job for job in jobs if str(job) not in counts]
    assert not lost, f"{len(lost)} jobs stand as succeeded and never ran, such as {lost[0]}"
    again = {job: count for job, count in counts.items() if count > 1}
    assert not again, f"{len(again)} jobs took effect twice though no worker died: {again}"
    begun = {job: count for job, count in Counter(line["job"] for line in ledger.lines("begin")).items() if count > 1}
    assert not begun, f"{len(begun)} jobs were begun twice though no worker died: {begun}"


def _states(url: str) -> dict[str, int]:
    with psycopg.connect(url, autocommit=True) as connection:
        return dict(connection.execute("SELECT state, count(*) FROM holdfast_jobs GROUP BY state").fetchall())


def told(service: Service) -> dict[str, list[str]]:
    """By process: the words store-away and store-back as the log has them, one after the other."""
    said: dict[str, list[str]] = defaultdict(list)
    for line in service.text().splitlines():
        event = line.partition(" event=")[2].partition(" ")[0]
        if event in ("store-away", "store-back"):
            said[line.rpartition(" worker=")[2]].append(event)
    return said


def healed(service: Service) -> None:
    """Waits until whoever said that the store is away has said that it is back."""
    until(lambda: all(said[-1] == "store-back" for said in told(service).values()), "an end of all outages", 90)
    text = service.text
    until(lambda: text().count("event=not-listening") == text().count("event=listening"), "all ears open again")


def told_once_each(service: Service, most: int) -> None:
    """Each process said at most so many times that the store is away, and each time once that it is back."""
    for process, said in told(service).items():
        whole = ["store-away", "store-back"] * (len(said) // 2)
        assert said == whole, f"{process} said {said}:\n{service.text()[-3000:]}"
        assert len(said) <= 2 * most, f"{process} said {len(said) // 2} times that the store is away"


def unexpected(service: Service) -> list[str]:
    """What of its log stands for a bug, or for work that was lost or done twice."""
    alarms = ("step-failed", "refused", "not-recorded", "worker-gone", "rescued", "lost", "gone", "stray", "restart")
    bad = [" ERROR ", " CRITICAL ", "Traceback", *(f"event={event} " for event in alarms)]
    return [line for line in service.text().splitlines() if any(word in line for word in bad)]


def leaves(service: Service) -> None:
    """Every role is at work again; it drains and leaves with 0, and its log has nothing that would alarm anyone."""
    healed(service)
    assert service.stop() == 0, service.text()[-3000:]
    assert not unexpected(service), "\n".join(unexpected(service))


def started(serve: Serve) -> Service:
    """A service of two processes, both of which have begun."""
    service = serve("--processes", "2", "--concurrency", "4")
    until(lambda: service.text().count("event=started") == 2, "two worker processes")
    return service


def away(service: Service, words: str = "event=store-away", seconds: float = 60) -> None:
    until(lambda: words in service.text(), f"{words!r} in the log", seconds)


def own(**settings: object) -> Postgres:
    """A server of the test's own; skips where only a foreign one was given."""
    try:
        return Postgres(**settings)
    except LookupError as error:
        if os.environ.get("TEST_PG_DSN"):
            pytest.skip(f"it stops and kills its server, and TEST_PG_DSN's is not ours: {error}")
        raise
