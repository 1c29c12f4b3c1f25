"""Effect and completion commit together: handlers that finish in their own transactions, in real workers."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text

from holdfast import Holdfast, JobFailed, Retry
from holdfast.clock import SECOND
from holdfast.job import Lost
from holdfast.policy import decide
from holdfast.store import Where
from holdfast.stores import open_store
from tests.flows import till
from tests.flows.conftest import SHORT_LEASE, Ledger, Service, in_databases, until
from tests.flows.robber import Robber

pytestmark = in_databases

KINDS = [till.in_thread, till.on_loop, till.in_process, till.on_its_loop]
ONCE = Retry(max_attempts=1)


class Payments:
    """The rows that handlers wrote, in the store's database."""

    def __init__(self, url: str) -> None:
        self._engine = till.engine(url)
        with self._engine.begin() as connection:
            connection.execute(text("CREATE TABLE payments (order_id INTEGER, fence INTEGER, attempt INTEGER)"))

    def of(self, order: int) -> int:
        with self._engine.connect() as connection:
            return connection.execute(
                text("SELECT count(*) FROM payments WHERE order_id = :o"), {"o": order}
            ).scalar_one()

    def drop(self) -> None:
        with self._engine.begin() as connection:
            connection.execute(text("DROP TABLE payments"))


@pytest.fixture
def app(using: Callable[[Holdfast], Holdfast]) -> Holdfast:
    return using(till.jobs)


@pytest.fixture
def payments(app: Holdfast, url: str) -> Iterator[Payments]:
    made = Payments(url)
    yield made
    till.close_left_open()
    made.drop()


@pytest.fixture
def service(payments: Payments, serve: Callable[..., Service]) -> Service:
    return serve("--processes", "1", app="tests.flows.till:jobs")


def errors(job: Any) -> list[str]:
    return [error.type for error in job.status().errors]


@pytest.mark.timeout(180)
def test_effect_and_success_are_committed_together_in_every_kind_of_handler(
    service: Service, payments: Payments, ledger: Ledger
) -> None:
    ways = [(how, task) for how in ("commits", "rolls back", "raises before", "raises after") for task in KINDS]
    enqueued = [(how, task.enqueue(number, how)) for number, (how, task) in enumerate(ways)]
    for number, (how, job) in enumerate(enqueued):
        assert job.result(timeout=60) == f"receipt {number}", how
        assert payments.of(number) == 1, f"{how}: the effect is there as often as the success"
        again = {"rolls back": ["FinishRolledBack"], "raises before": ["Refusal"]}.get(how, [])
        assert (errors(job), job.status().attempt) == (again, 1 + len(again)), how
        assert ledger.count("begin", job.id) == 1 + len(again)
    told = service.text
    until(lambda: told().count("event=succeeded") == len(ways), "each success, told once")
    assert (told().count("event=ended-after-finish"), told().count("event=failed")) == (len(KINDS), 2 * len(KINDS))

    with pytest.raises(JobFailed) as failed:
        till.finishes_blocking.enqueue(100).result(timeout=60)
    assert (failed.value.error.type, "await job.afinish" in failed.value.error.message) == ("TypeError", True)
    assert payments.of(100) == 0

    last = till.in_thread.enqueue(101, "waits")
    until(lambda: ledger.count("finish", last.id), "the finish")
    service.process.send_signal(signal.SIGTERM)
    until(lambda: "event=stopping" in told(), "the drain, which waits for the commit and the answer")
    ledger.path.with_name("go").touch()
    assert service.stop() == 0
    assert (last.status().state, payments.of(101)) == ("succeeded", 1)


@pytest.mark.timeout(180)
def test_a_death_round_the_commit_doubles_nothing_and_loses_nothing(
    service: Service, payments: Payments, ledger: Ledger
) -> None:
    ways = [(how, task) for task in (till.in_thread, till.in_process) for how in ("dies before", "dies after")]
    for number, (how, task) in enumerate(ways):
        job = task.enqueue(number, how)
        until(lambda job=job: job.status().finished, f"its end ({how})")
        assert job.result(timeout=60) == f"receipt {number}", how
        assert (payments.of(number), ledger.count("begin", job.id)) == (1, 1 + (how == "dies before")), how
    until(lambda: service.text().count("event=ended-after-finish") == 1, "the end of the slot process, told")
    assert "event=dead" not in service.text()


@pytest.mark.soak
@pytest.mark.timeout(120)
def test_a_process_that_is_ended_past_its_timeout_after_the_commit_has_succeeded(
    service: Service, payments: Payments, ledger: Ledger
) -> None:
    job = till.in_time.enqueue(1, "stays after")
    until(lambda: "event=ended-after-finish" in service.text(), "its end, told")
    until(lambda: "event=succeeded" in service.text(), "the success, told")
    assert (job.result(timeout=30), payments.of(1), ledger.count("begin", job.id)) == ("receipt 1", 1, 1)
    assert "event=failed" not in service.text()


def test_a_claim_that_was_lost_writes_nothing(
    payments: Payments, ledger: Ledger, url: str, app: Holdfast, caplog: pytest.LogCaptureFixture
) -> None:
    with app.worker():
        job = till.slow_then_finishes.enqueue(1)
        until(lambda: ledger.count("begin", job.id) == 1, "its first run")
        asyncio.run(_rob(url, job.id))
        ledger.path.with_name("go").touch()
        assert job.result(timeout=60) == 3, "claimed, taken over, claimed again"
    assert payments.of(1) == 1
    assert "event=lost" in caplog.text


async def _rob(url: str, job: object) -> None:
    """Retires the worker of a job, takes the job over, and gives it back."""
    store = open_store(url)
    await store.open()
    [found] = await store.find(Where(ids=(job,)), None, 1)  # type: ignore[arg-type]
    assert found.worker is not None
    robber = uuid4()
    await store.register(robber, None, {})
    await store.retire(found.worker)
    [claim] = await store.reclaim(robber, 10)
    assert claim.loss is not None
    await store.finish([decide(claim, Lost(claim.loss))])
    await store.close()


# --- a transaction that stays open


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A transaction may stay open for a moment only."""
    monkeypatch.setattr("holdfast.worker.confirms.OPEN_MOST", 0.3)


@pytest.mark.timeout(120)
@pytest.mark.usefixtures("impatient")
def test_a_transaction_that_is_left_open_is_told_and_failed_when_it_ends(
    payments: Payments, app: Holdfast, ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    with app.worker():
        job = till.in_thread.using(retry=ONCE).enqueue(1, "leaves open")
        until(lambda: "event=left-open" in caplog.text, "the open transaction, told")
        assert job.status().state == "running", "nobody knows yet"
        till.close_left_open()
        with pytest.raises(JobFailed) as failed:
            job.result(timeout=60)
        assert failed.value.error.type == "TransactionLeftOpen"
        assert till.plain.enqueue().result(timeout=60) == 1, "all goes on"
    assert payments.of(1) == 0


@pytest.mark.timeout(120)
@pytest.mark.usefixtures("impatient")
def test_a_transaction_that_is_committed_late_is_a_success(
    payments: Payments, app: Holdfast, caplog: pytest.LogCaptureFixture
) -> None:
    with app.worker():
        job = till.in_thread.using(retry=ONCE).enqueue(1, "leaves open")
        until(lambda: "event=left-open" in caplog.text, "the open transaction, told")
        [connection] = till._left_open  # noqa: SLF001
        connection.commit()
        assert job.result(timeout=60) == "receipt 1"
    assert (payments.of(1), errors(job)) == (1, [])


@pytest.mark.timeout(120)
@pytest.mark.parametrize("leases", [0.1, pytest.param(1.5, marks=pytest.mark.soak)])
def test_nobody_is_robbed_while_a_transaction_with_a_finish_stays_open(
    leases: float, robber: Robber, serve: Callable[..., Service], payments: Payments, ledger: Ledger
) -> None:
    """Where it holds the only write lock, no lease can be kept meanwhile; leases are short here."""
    services = [serve("--processes", "1", app="tests.flows.till:jobs") for _ in range(2)]
    job = till.in_thread.enqueue(1, "waits")
    until(lambda: ledger.count("finish", job.id), "the finish")
    time.sleep(leases * SHORT_LEASE / SECOND)  # it is the time itself that is looked at
    ledger.path.with_name("go").touch()
    assert job.result(timeout=60) == "receipt 1"
    other = till.plain.enqueue()
    other.result(timeout=60)
    assert (payments.of(1), ledger.count("begin", job.id), errors(job)) == (1, 1, [])
    assert ledger.count("plain", other.id) == 1
    for service in services:
        assert service.stop() == 0
        assert "event=rescued" not in service.text()


# --- leaving


def test_what_an_operator_sees_of_a_killed_worker_is_a_success(
    serve: Callable[..., Service], payments: Payments, ledger: Ledger, app: Holdfast
) -> None:
    """The whole service dies between the commit and the question: nobody is there to settle anything."""
    service = serve("--processes", "1", app="tests.flows.till:jobs")
    job = till.in_thread.enqueue(1, "stays after")
    until(lambda: ledger.count("commit", job.id), "the commit")
    for pid in [service.process.pid, *service.children()]:
        os.kill(pid, signal.SIGKILL)
    service.process.wait(30)
    assert (job.status().state, errors(job), job.result(timeout=30)) == ("succeeded", [], "receipt 1")
