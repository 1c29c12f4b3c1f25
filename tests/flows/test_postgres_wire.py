"""A bad wire between the clients and a PostgreSQL server: nothing is lost, and nothing runs twice while workers live.

The wire is bad for producers and workers alike. The ledger says what ran; the server itself is asked, past the wire,
what was recorded.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit
from uuid import UUID

import psycopg
import pytest

from holdfast import Holdfast, NewJob, StoreError
from tests import servers
from tests.flows.conftest import SHORT_LEASE, Ledger, Service, until
from tests.flows.proxy import Proxy, behind
from tests.flows.shop import work

JOBS = 80


@pytest.fixture
def direct() -> Iterator[str]:
    """The database, past the wire."""
    with servers.postgres().ready() as database:
        yield database.url


@pytest.fixture
def wire(direct: str) -> Iterator[Proxy]:
    parts = urlsplit(direct)
    assert parts.hostname
    assert parts.port
    with Proxy(parts.hostname, parts.port) as proxy:
        yield proxy


@pytest.fixture
def url(direct: str, wire: Proxy) -> str:
    return behind(direct, wire)


def _ran_once(jobs: list[UUID], ledger: Ledger, direct: str) -> None:
    """Every job took effect under exactly one claim, and stands as succeeded."""
    effects = Counter(line["job"] for line in ledger.lines("effect"))
    lost = [job for job in jobs if str(job) not in effects]
    assert not lost, f"{len(lost)} jobs were lost, such as {lost[0]}"
    again = {job: count for job, count in effects.items() if count > 1}
    assert not again, f"{len(again)} jobs ran twice though no worker died: {again}"
    with psycopg.connect(direct) as connection:
        states = dict(connection.execute("SELECT state, count(*) FROM holdfast_jobs GROUP BY state").fetchall())
    assert states == {"succeeded": len(jobs)}


def _started(serve: Callable[..., Service], processes: int) -> Service:
    """A fleet that has begun to work: a service whose store is not there at its start says so and leaves."""
    service = serve("--processes", str(processes), "--concurrency", "4")
    until(lambda: service.text().count("event=started") == processes, "the start of the worker processes")
    return service


def _enqueued(app: Holdfast) -> list[UUID]:
    """Jobs one by one, so that their own replies are lost too. What stays unclear is enqueued again, as errors say."""
    jobs = [work.bind(n, seconds=0.01) for n in range(JOBS)]
    return [_stored(app, job) for job in jobs]


def _stored(app: Holdfast, job: NewJob[int]) -> UUID:
    for _ in range(20):
        with contextlib.suppress(StoreError):
            return app.enqueue_many([job])[0].id
    pytest.fail("an enqueue was not answered in 20 tries")


def _done(direct: str, number: int) -> None:
    def finished() -> bool:
        with psycopg.connect(direct) as connection:
            row = connection.execute("SELECT count(*) FROM holdfast_jobs WHERE state = 'succeeded'").fetchone()
        return row is not None and row[0] >= number

    until(finished, f"{number} jobs succeeded", 100)


@pytest.mark.timeout(240)
# Few enough and two workers may be in step: what each needs to go on is then what is lost.
@pytest.mark.parametrize("every", [7, 11])
def test_a_reply_that_is_lost_loses_nothing_and_repeats_nothing(
    every: int, app: Holdfast, ledger: Ledger, serve: Callable[..., Service], wire: Proxy, direct: str
) -> None:
    service = _started(serve, 2)
    wire.lose_every = every
    jobs = _enqueued(app)
    _done(direct, len(jobs))
    wire.lose_every = 0
    assert service.stop() == 0, service.text()[-3000:]
    assert wire.lost >= 10, f"only {wire.lost} replies of {wire.replies} were lost: nothing was proved"
    _ran_once(jobs, ledger, direct)


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("every", [11, 29])
def test_a_reply_that_never_comes_is_given_up_and_asked_for_again(
    every: int, app: Holdfast, ledger: Ledger, serve: Callable[..., Service], wire: Proxy, direct: str
) -> None:
    service = _started(serve, 2)
    wire.how, wire.lose_every = "silent", every
    jobs = _enqueued(app)
    _done(direct, len(jobs))
    wire.lose_every = 0
    assert service.stop() == 0, service.text()[-3000:]
    assert wire.lost >= 5
    _ran_once(jobs, ledger, direct)


@pytest.mark.timeout(240)
def test_cuts_and_delays_lose_nothing_and_repeat_nothing(
    app: Holdfast, ledger: Ledger, serve: Callable[..., Service], wire: Proxy, direct: str
) -> None:
    service = _started(serve, 2)
    wire.delay = 0.01
    jobs = _enqueued(app)
    cut = 0
    for effects in range(5, JOBS, 5):
        until(lambda effects=effects: ledger.count("effect") >= effects, f"{effects} effects", 100)
        cut += wire.cut()
    _done(direct, len(jobs))
    assert service.stop() == 0, service.text()[-3000:]
    assert cut >= 10, f"only {cut} connections were cut: nothing was proved"
    _ran_once(jobs, ledger, direct)


@pytest.mark.timeout(240)
def test_while_nobody_can_connect_workers_wait_and_say_so_once_and_go_on(
    app: Holdfast, ledger: Ledger, serve: Callable[..., Service], wire: Proxy, direct: str
) -> None:
    service = _started(serve, 1)
    jobs = _enqueued(app)
    until(lambda: ledger.count("effect") >= 10, "10 effects before the wire is cut")
    wire.refuses = True
    wire.cut()
    until(lambda: "event=store-away" in service.text(), "a word that the store is away")
    tries = wire.accepted
    until(lambda: wire.accepted >= tries + 5, "five more tries to connect")
    wire.refuses = False
    _done(direct, len(jobs))
    until(
        lambda: len(_told(service, "store-back")) == len(_told(service, "store-away")), "words that the store is back"
    )
    assert service.stop() == 0, service.text()[-3000:]
    away = Counter(line.rpartition(" worker=")[2] for line in _told(service, "store-away"))
    assert max(away.values()) == 1, f"said again and again: {away}"
    assert len(away) <= 2, "one line for the worker process, one for its supervisor"
    assert "event=not-listening" not in service.text(), "the same outage, told once more"
    _ran_once(jobs, ledger, direct)


@pytest.mark.soak
@pytest.mark.timeout(240)
def test_an_idle_worker_leaves_in_time_though_the_server_is_silent(serve: Callable[..., Service], wire: Proxy) -> None:
    service = _started(serve, 1)
    wire.deaf = True
    assert service.stop() == 0, service.text()[-3000:]
    assert "event=killed" not in service.text()
    assert "event=not-retired" in service.text(), "the server was not silent"


def _told(service: Service, event: str) -> list[str]:
    return [line for line in service.text().splitlines() if f"event={event}" in line and "holdfast.worker " in line]


@pytest.mark.timeout(240)
def test_a_wire_that_is_dead_for_longer_than_the_lease_robs_nobody(
    app: Holdfast,
    ledger: Ledger,
    serve: Callable[..., Service],
    wire: Proxy,
    direct: str,
) -> None:
    with psycopg.connect(direct) as connection:
        connection.execute("UPDATE holdfast_meta SET lease = %s", [SHORT_LEASE])
    service = _started(serve, 2)
    jobs = [work.enqueue(n, seconds=0.05).id for n in range(JOBS)]
    until(lambda: ledger.count("effect") >= 10, "10 effects before the wire is dead")
    wire.deaf = True
    with psycopg.connect(direct) as connection:
        until(lambda: _leases_over(connection), f"all leases ({SHORT_LEASE} ms) have run out")
    wire.deaf = False
    _done(direct, len(jobs))
    assert service.stop() == 0, service.text()[-3000:]
    _ran_once(jobs, ledger, direct)


def _leases_over(connection: psycopg.Connection) -> bool:
    row = connection.execute(
        "SELECT count(*) FROM holdfast_workers WHERE retired_at IS NULL AND lease_until > holdfast_now()"
    ).fetchone()
    connection.rollback()
    return row == (0,)
