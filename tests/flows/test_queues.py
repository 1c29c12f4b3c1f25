"""Queues as `holdfast worker` serves them: by weight, strictly, paused; and a handler past its job's deadline."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from holdfast import Holdfast, Job
from holdfast.app import parts_of
from holdfast.job import QueueTerms
from tests.flows.conftest import Ledger, Service, until
from tests.flows.shop import deaf, work

pytestmark = [pytest.mark.timeout(150)]
WEIGHTS = {"big": 6, "middle": 3, "small": 1}


def filled(app: Holdfast, *queues: str, each: int) -> dict[str, str]:
    """Jobs in these queues; their queue by their id."""
    made: dict[str, str] = {}
    for name in queues:
        jobs = app.enqueue_many([work.using(queue=name).bind(n, seconds=0.0) for n in range(each)])
        made |= {str(job.id): name for job in jobs}
    return made


def begun(ledger: Ledger, made: dict[str, str], jobs: int) -> list[str]:
    """The queues of the first `jobs` of these that began, in the order in which they did."""
    until(lambda: sum(it["job"] in made for it in ledger.lines("begin")) >= jobs, f"{jobs} jobs begin")
    lines = [it for it in ledger.lines("begin") if it["job"] in made]
    return [made[it["job"]] for it in sorted(lines, key=lambda it: it["at"])[:jobs]]


def test_processes_together_start_by_weight_and_what_is_paused_not_at_all(
    app: Holdfast, ledger: Ledger, serve: Callable[..., Service]
) -> None:
    for name, weight in WEIGHTS.items():
        parts_of(app).operating.set_queue(name, QueueTerms(weight=weight))
    app.pause("held", reason="the provider is down")
    held = filled(app, "held", each=20)
    made = filled(app, *WEIGHTS, each=200)
    service = serve("--processes", "2", "--concurrency", "4")
    counts = Counter(begun(ledger, made, 250))
    assert {name: counts[name] for name in WEIGHTS} == {
        name: pytest.approx(25 * weight, rel=0.25) for name, weight in WEIGHTS.items()
    }
    begun(ledger, made, 600)
    assert not any(it["job"] in held for it in ledger.lines("begin")), "a paused queue started something"
    app.resume("held")
    assert begun(ledger, held, 20) == ["held"] * 20
    assert service.stop() == 0, service.text()[-3000:]


def test_strictly_the_queues_come_one_after_the_other(
    app: Holdfast, ledger: Ledger, serve: Callable[..., Service]
) -> None:
    made = filled(app, "slow", "mail", "urgent", each=40)
    service = serve("--queues", "urgent,mail,slow", "--strict", "--concurrency", "1")
    assert begun(ledger, made, 120) == ["urgent"] * 40 + ["mail"] * 40 + ["slow"] * 40
    until(lambda: "urgent mail slow, strictly in this order" in service.text(), "its banner says so")
    assert service.stop() == 0, service.text()[-3000:]


def test_a_handler_that_outlasts_its_jobs_deadline_is_ended_with_its_process(
    app: Holdfast, ledger: Ledger, serve: Callable[..., Service]
) -> None:
    service = serve("--concurrency", "2", "--deadline", "1s")
    assert work.enqueue(1).result(timeout=60) == 1
    job: Job[Any] = deaf.using(deadline="3s").enqueue()
    until(lambda: ledger.count("begin", job.id), "its start")
    process = ledger.lines("begin")[-1]["pid"]
    until(lambda: job.status().finished, "its end")
    status = job.status()
    assert (status.state, status.reason, status.attempt) == ("dead", "deadline", 1)
    assert status.errors[-1].message.startswith("ran past its deadline of ")
    assert process not in service.children()
    assert work.enqueue(2).result(timeout=60) == 2
    assert service.stop() == 0, service.text()[-3000:]
