"""The release drill: kills and restarts in the middle of work; the ledger says whether the promises were kept."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable

import pytest

from holdfast import Holdfast
from tests.flows.conftest import Ledger, Service, until
from tests.flows.shop import wait_async, wait_in_thread, work

JOBS, FAILING = 100, 20


@pytest.mark.every_store
@pytest.mark.timeout(120)
def test_kills_and_restarts_lose_nothing_and_repeat_only_what_ran(
    app: Holdfast, ledger: Ledger, serve: Callable[..., Service]
) -> None:
    jobs = app.enqueue_many(work.bind(n, fails_first=n < FAILING, seconds=0.1) for n in range(JOBS))
    service = serve("--processes", "2", "--concurrency", "4")
    interrupted: set[str] = set()
    for done in (15, 35):
        until(lambda done=done: ledger.count("effect") >= done, f"{done} effects before a kill")
        victim = until(service.children, "a worker process")[0]
        interrupted |= _kill(victim, app, ledger)
        until(lambda victim=victim: victim not in service.children(), "the victim's burial")
    until(lambda: ledger.count("effect") >= 60, "60 effects before the restart")
    assert service.stop() == 0, service.text()[-3000:]
    restarted = serve("--processes", "2", "--concurrency", "4")
    values = [job.result(timeout=60) for job in jobs]
    assert restarted.stop() == 0

    assert values == list(range(JOBS))
    assert interrupted, "no job was running at a kill: the drill proved nothing"
    effects = Counter(line["job"] for line in ledger.lines("effect"))
    assert set(effects) == {str(job.id) for job in jobs}
    assert {job for job, count in effects.items() if count > 1} <= interrupted
    begun = Counter(line["job"] for line in ledger.lines("begin"))
    failing = {str(job.id) for job in jobs[:FAILING]}
    for job in map(str, (job.id for job in jobs)):
        runs = 2 if job in failing else 1
        assert begun[job] == runs or job in interrupted, f"{job} began {begun[job]} times and was not interrupted"
    fences = Counter((line["job"], line["fence"]) for line in ledger.lines("begin"))
    assert max(fences.values()) == 1, "two runs under one fence"


def _kill(victim: int, app: Holdfast, ledger: Ledger) -> set[str]:
    """Kills a worker process; the jobs that it was running: begun there, and no end recorded."""
    os.kill(victim, signal.SIGSTOP)
    begun = {line["job"] for line in ledger.lines("begin") if line["pid"] == victim}
    running = {str(status.id) for status in app.find(state="running")}
    os.kill(victim, signal.SIGKILL)
    return begun & running


@pytest.mark.timeout(120)
def test_retries_use_the_attempts_and_errors_that_the_policy_says(
    app: Holdfast, ledger: Ledger, serve: Callable[..., Service]
) -> None:
    serve()
    job = work.enqueue(1, fails_first=True)
    assert job.result(timeout=40) == 1
    status = job.status()
    assert status.attempt == 2
    assert [(error.attempt, error.type, error.message) for error in status.errors] == [
        (1, "ConnectionError", "not the first time")
    ]
    assert "in work" in status.errors[0].traceback


@pytest.mark.every_store
@pytest.mark.timeout(120)
@pytest.mark.parametrize("task", [wait_async, wait_in_thread], ids=["async", "thread"])
def test_cancel_stops_a_running_job(task: object, app: Holdfast, ledger: Ledger, serve: Callable[..., Service]) -> None:
    serve()
    job = task.enqueue()  # type: ignore[attr-defined]
    until(lambda: ledger.count("begin", job.id), "the job's start")
    assert job.cancel("not wanted any more")
    until(lambda: job.status().finished, "the cancelled job's end")
    assert job.status().state == "cancelled"
    assert job.status().reason == "not wanted any more"
    assert ledger.count("stopped", job.id) == 1
    assert ledger.count("effect", job.id) == 0
    assert not job.cancel()
