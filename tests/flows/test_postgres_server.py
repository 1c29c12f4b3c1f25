"""A PostgreSQL server's bad days: it stops, dies, throws everybody out, is full, moves; and strangers are in the way.

Whatever it is: nothing is lost, nothing runs twice, workers wait and go on by themselves, and their log says so once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import psycopg
import pytest

from holdfast import Holdfast
from tests.flows import outage
from tests.flows.conftest import SHORT_LEASE, Ledger, Service, until
from tests.flows.outage import FLEET, Producer, away, effects, leaves, order, ran_once, told_once_each
from tools.servers import Postgres

CONNECTIONS, RESERVED = 40, 10
HOG = "CREATE ROLE {0} LOGIN; GRANT pg_read_all_data, pg_write_all_data TO {0}"


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with outage.own(max_connections=CONNECTIONS, superuser_reserved_connections=RESERVED) as server:
        outage.migrated(server)
        yield server


@pytest.fixture
def direct(server: Postgres) -> Iterator[str]:
    """A fresh store, as the server's superuser sees it."""
    with outage.store(server) as url:
        yield url


@pytest.fixture
def url(direct: str) -> str:
    """The same, as the service and the producers see it."""
    return direct


@pytest.fixture
def short_lease(direct: str) -> None:
    outage.short_leases(direct, SHORT_LEASE)


Serve = Callable[..., Service]


@pytest.mark.timeout(240)
def test_a_server_that_stops_and_one_that_crashes_lose_nothing_and_repeat_nothing(
    app: Holdfast, ledger: Ledger, serve: Serve, server: Postgres, direct: str
) -> None:
    service = serve(*FLEET)
    with Producer(app) as producer:
        effects(ledger, 10)
        server.stop()
        away(service)
        until(lambda: producer.errors, "an enqueue that met the stopped server")
        server.start()
        effects(ledger, 50)
        server.kill()
        server.start()
        jobs = producer.stop()
    ran_once(direct, jobs, ledger)
    leaves(service)
    told_once_each(service, 2)
    assert "holdfast migrate" not in service.text() + str(producer.errors)


@pytest.mark.timeout(240)
def test_sessions_that_are_ended_again_and_again_are_opened_again(
    app: Holdfast, ledger: Ledger, serve: Serve, direct: str
) -> None:
    service = serve(*FLEET)
    ended = 0
    with Producer(app) as producer:
        for number in range(5, 100, 5):
            effects(ledger, number)
            ended += order(direct, outage.EVICT)
        jobs = producer.stop()
    ran_once(direct, jobs, ledger)
    leaves(service)
    assert ended >= 40, f"only {ended} sessions were ended: nothing was proved"
    told_once_each(service, 19)


@contextlib.contextmanager
def _everything_taken(url: str) -> Iterator[None]:
    """Ends our sessions, and takes every connection that others may have, until none of ours is left."""
    with contextlib.ExitStack() as stack, psycopg.connect(url, autocommit=True) as watch:
        hog = url.replace("postgres@", "hog@")

        def take() -> bool:
            watch.execute(outage.EVICT)
            with contextlib.suppress(psycopg.OperationalError):
                while True:
                    stack.enter_context(psycopg.connect(hog))
            ours = watch.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'holdfast%' AND usename = 'app'"
            )
            return ours.fetchone() == (0,)

        until(take, "all connections are others'")
        yield


@pytest.fixture
def common(server: Postgres, direct: str) -> str:
    """The store as an ordinary role sees it."""
    for role in ("app", "hog"):
        if not order(server.dsn, "SELECT count(*) FROM pg_roles WHERE rolname = %s", role):
            with psycopg.connect(server.dsn, autocommit=True) as connection:
                connection.execute(HOG.format(role).encode())
    return direct.replace("postgres@", "app@")


@pytest.mark.timeout(240)
def test_while_others_hold_all_connections_workers_wait_and_producers_are_told(
    common: str, ledger: Ledger, serve: Serve, direct: str, using: Callable[[Holdfast], Holdfast]
) -> None:
    pass
