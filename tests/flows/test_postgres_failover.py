"""A PostgreSQL server is lost, and its standby takes over, after a while in which it takes no writes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from holdfast import Holdfast
from tests.flows import outage
from tests.flows.conftest import Ledger, until
from tests.flows.outage import Producer, Serve, away, effects, leaves, order, ran_once, started, told_once_each
from tests.flows.proxy import Proxy, behind
from tools.servers import Postgres


@pytest.fixture
def primary() -> Iterator[Postgres]:
    with outage.own() as primary:
        outage.migrated(primary)
        yield primary


@pytest.fixture
def standby(primary: Postgres) -> Iterator[outage.Standby]:
    """Nothing is answered by the primary that the standby does not have."""
    with outage.Standby(primary) as standby:
        order(primary.dsn, "ALTER SYSTEM SET synchronous_standby_names = '*'")
        order(primary.dsn, "SELECT pg_reload_conf()")
        asked = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'"
        until(lambda: order(primary.dsn, asked), "the standby in step")
        yield standby


@pytest.fixture
def wire(primary: Postgres) -> Iterator[Proxy]:
    """An address that leads to the primary, and elsewhere later."""
    with Proxy("127.0.0.1", primary.port) as wire:
        yield wire


@pytest.fixture
def reached(request: pytest.FixtureRequest) -> str:
    """How the service finds its server."""
    return str(request.param)


@pytest.fixture
def url(primary: Postgres, standby: outage.Standby, wire: Proxy, reached: str) -> str:
    store = outage.place(primary)
    if reached == "by one address":
        return behind(store, wire)
    hosts = f"127.0.0.1:{primary.port},127.0.0.1:{standby.port}"
    return f"{store.replace(f'127.0.0.1:{primary.port}', hosts)}?target_session_attrs=read-write"


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    "reached", ["by one address", pytest.param("among hosts", marks=pytest.mark.soak)], indirect=True
)
def test_a_failover_loses_nothing_and_workers_wait_while_the_standby_takes_no_writes(
    reached: str,
    standby: outage.Standby,
    app: Holdfast,
    ledger: Ledger,
    serve: Serve,
    primary: Postgres,
    wire: Proxy,
) -> None:
    service = started(serve)
    with Producer(app) as producer:
        effects(ledger, 30)
        primary.kill()
        wire.redirect("127.0.0.1", standby.port)
        late = serve("--processes", "1")
        until(lambda: producer.errors, "an enqueue that was refused")
        away(service)
        assert late.process.wait(40) == 3
        assert "takes no writes" in late.text()
        standby.promote()
        effects(ledger, ledger.count("effect") + 50)
        jobs = producer.stop()
    assert "takes no writes" in service.text()
    ran_once(outage.place(standby), jobs, ledger)
    leaves(service)
    told_once_each(service, 1)


@pytest.mark.soak
@pytest.mark.timeout(400)
@pytest.mark.parametrize("reached", ["by one address"], indirect=True)
def test_while_the_synchronous_standby_is_gone_nothing_is_answered_and_then_all_goes_on(
    reached: str, standby: outage.Standby, app: Holdfast, ledger: Ledger, serve: Serve, primary: Postgres
) -> None:
    """Every commit on the primary waits meanwhile, and no time-out of the server's ends that."""
    service = started(serve)
    with Producer(app) as producer:
        effects(ledger, 30)
        standby.stop()
        until(lambda: producer.errors, "an enqueue that was given up")
        away(service)
        standby.start()
        effects(ledger, ledger.count("effect") + 30)
        jobs = producer.stop()
    ran_once(outage.place(primary), jobs, ledger)
    leaves(service)
    told_once_each(service, 2)
