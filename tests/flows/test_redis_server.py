"""A Redis server's bad days: it is killed, forgets scripts and its last second, is full, loads, is replaced by a copy.

Whatever it is: what the server's settings keep is kept, nothing is stuck, workers wait and go on by themselves.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple
from uuid import UUID

import pytest

from holdfast import Holdfast
from holdfast.clock import SECOND
from tests.flows import redis_outage as outage
from tests.flows.conftest import SHORT_LEASE, Ledger, until
from tests.flows.outage import Producer, Serve, away, effects, leaves, started, told_once_each
from tests.flows.proxy import Pipe, Proxy
from tests.flows.redis_outage import all_succeed, place, ran_once, records
from tests.flows.resp import RespSession
from tests.flows.shop import held
from tools.servers import Valkey


@pytest.fixture(scope="module")
def lasting() -> Iterator[Valkey]:
    with outage.own() as server:
        yield server


@pytest.fixture
def server(lasting: Valkey) -> Iterator[Valkey]:
    """Empty, and again in order at the end."""
    lasting.say("FLUSHALL")
    yield lasting
    if lasting.say("PING") != "PONG":
        lasting.start()
    lasting.say("CONFIG", "SET", "maxmemory", "0")


@pytest.fixture
def url(server: Valkey) -> str:
    return place(server)


# --- it goes away


@pytest.mark.timeout(240)
def test_a_server_that_is_killed_and_forgets_its_scripts_loses_nothing_and_repeats_nothing(
    app: Holdfast, ledger: Ledger, serve: Serve, server: Valkey, url: str
) -> None:
    """What a killed process has written is in the hands of the system."""
    service = started(serve)
    with Producer(app) as producer:
        effects(ledger, 20)
        assert server.say("SCRIPT", "FLUSH") == "OK"
        effects(ledger, 40)
        outage.written(server)
        server.kill()
        away(service)
        until(lambda: producer.errors, "an enqueue that met the killed server")
        server.start()
        effects(ledger, 60)
        server.stop()
        server.start()
        effects(ledger, 80)
        jobs = producer.stop()
    ran_once(url, jobs, ledger)
    leaves(service)
    told_once_each(service, 2)


@pytest.mark.soak
@pytest.mark.timeout(400)
def test_a_server_whose_disk_has_not_the_last_second_loses_no_more_than_that_and_nothing_is_stuck(
    app: Holdfast, ledger: Ledger, serve: Serve, server: Valkey, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    service = started(serve)
    with Producer(app) as producer:
        effects(ledger, 40)
        on_disk = list(producer.jobs)
        since = time.time()
        size = outage.written(server)
        effects(ledger, ledger.count("effect") + 25)
        outage.cut_short(server, size)
        effects(ledger, ledger.count("effect") + 40)
        jobs = producer.stop()
    lost = _lost(url, jobs)
    assert not lost & set(on_disk), "lost, though it was on the disk"
    all_succeed(url, [job for job in jobs if job not in lost], 120)
    again = _again(ledger)
    early = {line["job"] for line in ledger.lines("effect") if line["at"] < since - 1}
    assert not again & early, "what the disk has was done again"
    with capsys.disabled():
        print(f"\n{len(lost)} of {len(jobs)} jobs were lost, {len(again)} ran again, after a cut of the last moment")
    assert service.stop() == 0, service.text()[-3000:]


def _lost(url: str, jobs: list[UUID]) -> set[UUID]:
    """What was acknowledged and is not there, nor was it done."""
    return set(jobs) - records(url, jobs).keys()


def _again(ledger: Ledger) -> set[str]:
    counts = Counter(line["job"] for line in ledger.lines("effect"))
    return {job for job, count in counts.items() if count > 1}


@pytest.mark.soak
@pytest.mark.timeout(400)
def test_a_server_that_is_gone_for_longer_than_the_lease_has_nobody_robbed(
    app: Holdfast, ledger: Ledger, serve: Serve, server: Valkey, url: str
) -> None:
    outage.short_leases(url, SHORT_LEASE)
    services = [started(serve), started(serve)]
    jobs = [job.id for job in app.enqueue_many(held.bind("back") for _ in range(12))]
    until(lambda: ledger.count("begin") >= len(jobs), f"{len(jobs)} jobs that run")
    with Producer(app) as producer:
        server.stop()
        for service in services:
            away(service)
        over = time.monotonic() + 3 * SHORT_LEASE / SECOND
        until(lambda: time.monotonic() > over, "three leases")
        server.start()
        effects(ledger, 30)
        jobs += producer.stop()
    ledger.path.with_name("back").touch()
    ran_once(url, jobs, ledger)
    for service in services:
        leaves(service)
        told_once_each(service, 1)


@pytest.mark.soak
@pytest.mark.timeout(240)
def test_a_server_that_loads_is_waited_for(
    app: Holdfast, ledger: Ledger, serve: Serve, server: Valkey, url: str
) -> None:
    service = started(serve)
    with Producer(app) as producer:
        effects(ledger, 10)
        outage.loads_slowly(server, 18)
        away(service)
        late = serve("--processes", "1")
        assert late.process.wait(40) == 3
        assert "loading" in late.text()
        until(lambda: "loading" in str(producer.errors), "an enqueue that met it")
        effects(ledger, ledger.count("effect") + 20)
        jobs = producer.stop()
    ran_once(url, jobs, ledger)
    leaves(service)
    told_once_each(service, 2)


# --- it is there, and takes nothing


@pytest.mark.timeout(240)
def test_a_full_server_refuses_producers_while_workers_go_on_and_make_room(
    app: Holdfast, ledger: Ledger, serve: Serve, server: Valkey, url: str
) -> None:
    service = started(serve)
    jobs = [job.id for job in app.enqueue_many(held.bind("room") for _ in range(20))]  # more than run at once
    until(lambda: ledger.count("begin") == 8, "eight jobs that run")
    with Producer(app) as producer:
        until(lambda: producer.jobs, "a job more")
        server.say("CONFIG", "SET", "maxmemory", "1")
        until(lambda: producer.errors, "an enqueue that found the server full")
        stored = len(producer.jobs)
        ledger.path.with_name("room").touch()
        all_succeed(url, jobs + producer.jobs[:stored])  # in a server that has no room for more
        assert len(producer.jobs) == stored
        server.say("CONFIG", "SET", "maxmemory", "0")
        effects(ledger, len(jobs) + stored + 10)
        jobs += producer.stop()
    assert "out of memory" in str(producer.errors[0])
    ran_once(url, jobs, ledger)
    leaves(service)
    told_once_each(service, 0)


# --- a copy takes its place


@pytest.fixture
def replica(server: Valkey) -> Iterator[Valkey]:
    with Valkey(replica_of=server) as replica:
        yield replica


class Servers(NamedTuple):
    """A primary, its replica, and the link by which the replica hears of the primary."""

    primary: Valkey
    replica: Valkey
    link: Proxy


@pytest.fixture
def servers(server: Valkey, replica: Valkey) -> Iterator[Servers]:
    with Proxy("127.0.0.1", server.port, Pipe) as link:
        replica.say("REPLICAOF", "127.0.0.1", link.port)
        until(lambda: "master_link_status:up" in replica.say("INFO", "replication"), "the replica in step")
        until(lambda: "connected_slaves:1" in server.say("INFO", "replication"), "the only replica")
        yield Servers(server, replica, link)


@pytest.fixture
def wire(server: Valkey) -> Iterator[Proxy]:
    """An address that leads to the primary, and elsewhere later."""
    with Proxy("127.0.0.1", server.port, RespSession) as wire:
        yield wire


class TestFailover:
    """By hand: the replica is told to be the primary, and the address leads there."""

    @pytest.fixture
    def url(self, wire: Proxy, replica: Valkey) -> str:
        return f"redis://127.0.0.1:{wire.port}/0?wait=1"

    @pytest.mark.timeout(400)
    @pytest.mark.parametrize("lags", [False, pytest.param(True, marks=pytest.mark.soak)])
    def test_nothing_that_was_acknowledged_is_lost_and_nothing_is_stuck(
        self,
        lags: bool,
        app: Holdfast,
        ledger: Ledger,
        serve: Serve,
        servers: Servers,
        wire: Proxy,
    ) -> None:
        """What the replica has not heard of when the primary is lost, nobody was told is stored."""
        server, replica, link = servers
        service = started(serve)
        with Producer(app) as producer:
            effects(ledger, 30)
            if lags:
                link.deaf = True
                until(lambda: "replica" in str(producer.errors), "an enqueue that was not confirmed")
                stored = list(producer.jobs)
            server.kill()
            wire.redirect("127.0.0.1", replica.port)
            wire.cut()
            until(lambda: "takes no writes" in str(producer.errors), "an enqueue that met the replica")
            away(service)
            replica.say("REPLICAOF", "NO", "ONE")
            if lags:
                assert stored == producer.jobs, "it was told that a job is stored which no replica has"
            server.start()
            server.say("REPLICAOF", "127.0.0.1", replica.port)
            effects(ledger, ledger.count("effect") + 40)
            jobs = producer.stop()
        all_succeed(place(replica), jobs, 150)
        done = Counter(line["job"] for line in ledger.lines("effect"))
        assert not [job for job in jobs if str(job) not in done], "it stands as succeeded, and never ran"
        assert service.stop() == 0, service.text()[-3000:]
