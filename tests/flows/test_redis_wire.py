"""A bad wire between the clients and a Redis server: nothing is lost, and nothing runs twice while workers live.

The wire is bad for producers and workers alike. The ledger says what ran; the server itself is asked, past the wire,
what was recorded.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit
from uuid import UUID

import pytest

from holdfast import Holdfast, NewJob, StoreError
from holdfast.clock import SECOND
from tests import servers
from tests.flows.conftest import SHORT_LEASE, Ledger, Service, until
from tests.flows.outage import told
from tests.flows.proxy import Proxy, behind
from tests.flows.redis_outage import ran_once, short_leases
from tests.flows.resp import RespSession
from tests.flows.shop import work

JOBS = 80
Serve = Callable[..., Service]


@pytest.fixture
def direct() -> Iterator[str]:
    """The place, past the wire."""
    with servers.valkey().bare() as prefix:
        yield prefix.url


@pytest.fixture
def wire(direct: str) -> Iterator[Proxy]:
    parts = urlsplit(direct)
    assert parts.hostname
    assert parts.port
    with Proxy(parts.hostname, parts.port, RespSession) as proxy:
        yield proxy


@pytest.fixture
def url(direct: str, wire: Proxy) -> str:
    return behind(direct, wire)


def _started(serve: Serve, processes: int) -> Service:
    """A fleet that has begun to work: a service whose store is not there at its start says so and leaves."""
    service = serve("--processes", str(processes), "--concurrency", "4")
    until(lambda: service.text().count("event=started") == processes, "the start of the worker processes")
    return service


def _enqueued(app: Holdfast) -> list[UUID]:
    """Jobs one by one, so that their own replies are lost too. What stays unclear is enqueued again, as errors say."""
    return [_stored(app, work.bind(n, seconds=0.01)) for n in range(JOBS)]


def _stored(app: Holdfast, job: NewJob[int]) -> UUID:
    for _ in range(20):
        with contextlib.suppress(StoreError):
            return app.enqueue_many([job])[0].id
    pytest.fail("an enqueue was not answered in 20 tries")


@pytest.mark.timeout(240)
@pytest.mark.parametrize("every", [7, pytest.param(5, marks=pytest.mark.soak)])  # more than a fresh connection needs
def test_a_reply_that_is_lost_loses_nothing_and_repeats_nothing(
    every: int, app: Holdfast, ledger: Ledger, serve: Serve, wire: Proxy, direct: str
) -> None:
    service = _started(serve, 2)
    wire.lose_every = every
    jobs = _enqueued(app)
    ran_once(direct, jobs, ledger, 100)
    wire.lose_every = 0
    assert service.stop() == 0, service.text()[-3000:]
    assert wire.lost >= 10, f"only {wire.lost} replies of {wire.replies} were lost: nothing was proved"


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("every", [11, 29])
def test_a_reply_that_never_comes_is_given_up_and_asked_for_again(
    every: int, app: Holdfast, ledger: Ledger, serve: Serve, wire: Proxy, direct: str
) -> None:
    service = _started(serve, 2)
    wire.how, wire.lose_every = "silent", every
    jobs = _enqueued(app)
    ran_once(direct, jobs, ledger, 200)
    wire.lose_every = 0
    assert service.stop() == 0, service.text()[-3000:]
    assert wire.lost >= 5


@pytest.mark.soak
@pytest.mark.timeout(240)
def test_cuts_and_delays_lose_nothing_and_repeat_nothing(
    app: Holdfast, ledger: Ledger, serve: Serve, wire: Proxy, direct: str
) -> None:
    service = _started(serve, 2)
    wire.delay = 0.01
    jobs = _enqueued(app)
    cut = 0
    for effects in range(5, JOBS, 5):
        until(lambda effects=effects: ledger.count("effect") >= effects, f"{effects} effects", 100)
        cut += wire.cut()
    ran_once(direct, jobs, ledger, 100)
    assert service.stop() == 0, service.text()[-3000:]
    assert cut >= 10, f"only {cut} connections were cut: nothing was proved"


@pytest.mark.timeout(240)
def test_while_nobody_can_connect_workers_wait_and_say_so_once_and_go_on(
    app: Holdfast, ledger: Ledger, serve: Serve, wire: Proxy, direct: str
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
    ran_once(direct, jobs, ledger, 100)
    until(lambda: all(said[-1] == "store-back" for said in told(service).values()), "words that the store is back")
    assert service.stop() == 0, service.text()[-3000:]
    away = Counter({process: said.count("store-away") for process, said in told(service).items()})
    assert max(away.values()) == 1, f"said again and again: {away}"
    assert len(away) <= 2, "one line for the worker process, one for its supervisor"
    assert "event=not-listening" not in service.text(), "the same outage, told once more"


@pytest.mark.soak
@pytest.mark.timeout(240)
def test_an_idle_worker_leaves_in_time_though_the_server_is_silent(serve: Serve, wire: Proxy) -> None:
    service = _started(serve, 1)
    wire.deaf = True
    assert service.stop() == 0, service.text()[-3000:]
    assert "event=killed" not in service.text()
    assert "event=not-retired" in service.text(), "the server was not silent"


@pytest.mark.soak
@pytest.mark.timeout(240)
def test_a_wire_that_is_dead_for_longer_than_the_lease_robs_nobody(
    app: Holdfast, ledger: Ledger, serve: Serve, wire: Proxy, direct: str
) -> None:
    short_leases(direct, SHORT_LEASE)
    service = _started(serve, 2)
    jobs = [work.enqueue(n, seconds=0.05).id for n in range(JOBS)]
    until(lambda: ledger.count("effect") >= 10, "10 effects before the wire is dead")
    wire.deaf = True
    over = time.monotonic() + 2 * SHORT_LEASE / SECOND
    until(lambda: time.monotonic() > over, "two leases")
    wire.deaf = False
    ran_once(direct, jobs, ledger, 100)
    assert service.stop() == 0, service.text()[-3000:]
