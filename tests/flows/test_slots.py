"""Jobs in processes of their own, under `holdfast worker`: drained, killed with their worker, charged alone."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast import Holdfast, Retry
from tests.flows import press
from tests.flows.conftest import Ledger, Service, until
from tests.flows.pids import runs

pytestmark = [pytest.mark.timeout(120)]
Start = Callable[..., Service]


@pytest.fixture
def served(using: Callable[[Holdfast], Holdfast], serve: Start) -> Start:
    using(press.jobs)
    return lambda *options: serve(*options, app="tests.flows.press:jobs")


def family(ledger: Ledger) -> list[int]:
    file = ledger.path.with_name("family")
    return [int(pid) for pid in file.read_text().split()] if file.exists() else []


def living(pids: list[int]) -> list[int]:
    return [pid for pid in pids if runs(pid)]


def test_both_kinds_of_handlers_run_in_processes_and_a_drain_lets_them_end(ledger: Ledger, served: Start) -> None:
    service = served("--concurrency", "3", "--deadline", "60")
    jobs = press.jobs.enqueue_many([press.press.bind(1, 0.5), press.press_async.bind(2, 0.5)])
    until(lambda: ledger.count("begin") == 2, "both running")
    pids = {line["pid"] for line in ledger.lines("begin")}
    assert len(pids) == 2
    assert not pids & {*service.children(), service.process.pid}
    assert service.stop() == 0, service.text()[-3000:]
    assert [job.result(timeout=1) for job in jobs] == [1, 2]
    assert living(list(pids)) == [], "processes outlive their worker"


def test_a_handler_enqueues_into_the_workers_store(ledger: Ledger, served: Start) -> None:
    served()
    job = press.jobs.job(press.chain.enqueue(5).result(timeout=40))
    assert job.result(timeout=40) == 5


def test_at_the_deadline_a_deaf_process_is_ended_with_its_own_and_its_job_given_back(
    ledger: Ledger, served: Start
) -> None:
    service = served("--deadline", "0.5")
    job = press.has_a_family.enqueue()
    until(lambda: ledger.count("begin"), "the job's start")
    assert service.stop() == 0, service.text()[-3000:]
    assert living(family(ledger)) == []
    assert (job.status().state, job.status().attempt) == ("queued", 0)
    assert "event=forced" not in service.text()


def test_when_a_worker_is_killed_nothing_of_its_processes_runs_when_the_job_starts_again(
    ledger: Ledger, served: Start
) -> None:
    service = served()
    job = press.has_a_family.enqueue()
    until(lambda: ledger.count("begin"), "the job's start")
    old = family(ledger)
    assert len(living(old)) == 3
    os.kill(service.children()[0], signal.SIGKILL)
    until(lambda: ledger.count("begin") == 2, "the second start")
    assert [line["event"] for line in ledger.lines() if line["event"].startswith("living")] == []
    assert living(old) == []
    job.result(timeout=40)
    assert service.stop() == 0, service.text()[-3000:]


def test_a_slot_that_is_killed_is_a_crash_of_its_job_and_of_no_other(ledger: Ledger, served: Start) -> None:
    service = served("--concurrency", "3")
    others = [press.neighbour.enqueue(3), press.press.enqueue(1, 3)]
    until(lambda: ledger.count("begin") == 2, "the neighbours' start")
    job = press.poison.enqueue()
    until(lambda: job.status().finished, "the end of the poison")
    status = job.status()
    assert (status.state, [error.type for error in status.errors]) == ("dead", ["Lost", "Lost"])
    assert all("exit code 9" in error.message for error in status.errors)
    until(lambda: all(other.status().finished for other in others), "the neighbours' end")
    assert [(other.status().state, other.status().errors) for other in others] == [("succeeded", ())] * 2
    assert [ledger.count("begin", other.id) for other in others] == [1, 1]
    assert service.stop() == 0, service.text()[-3000:]


@pytest.mark.parametrize("company", [True, False])
def test_a_run_in_a_process_of_its_own_is_not_charged_with_the_death_of_its_worker(
    company: bool, ledger: Ledger, served: Start
) -> None:
    service = served("--concurrency", "3")
    jobs = [press.fragile.enqueue(), *([press.fragile.enqueue(), press.neighbour.enqueue(5)] if company else [])]
    until(lambda: ledger.count("begin") == len(jobs), "all running")
    os.kill(service.children()[0], signal.SIGKILL)
    assert all(job.result(timeout=40) for job in jobs)
    assert {job.status().attempt for job in jobs} == {1}
    assert [ledger.count("begin", job.id) for job in jobs] == [2] * len(jobs)
    assert service.stop() == 0, service.text()[-3000:]


def test_a_job_that_lost_two_workers_runs_in_a_process_of_its_own(ledger: Ledger, served: Start) -> None:
    service = served("--concurrency", "3")
    job = press.twice_unlucky.enqueue()
    assert job.result(timeout=60) not in {*service.children(), service.process.pid}
    assert [line["fence"] for line in ledger.lines("begin")] == [1, 3, 5]
    assert service.stop() == 0, service.text()[-3000:]


def test_without_a_worker_process_no_slot_stays(ledger: Ledger, served: Start, tmp_path: Path) -> None:
    service = served()
    press.press.enqueue(1, 600)
    pid = until(lambda: ledger.lines("begin"), "the job's start")[0]["pid"]
    children = service.children()
    for victim in (service.process.pid, *children):
        os.kill(victim, signal.SIGKILL)
    until(lambda: not living([pid]), "the end of the slot")


def test_what_a_handler_started_in_a_session_of_its_own_is_ended_with_it(ledger: Ledger, served: Start) -> None:
    service = served()
    job = press.starts_a_session.using(timeout=1).enqueue()
    until(lambda: job.status().finished, "its end")
    assert job.status().errors[-1].type == "TimeoutError"
    assert len(family(ledger)) == 1
    assert living(family(ledger)) == []
    assert service.stop() == 0


def test_at_most_once_holds_for_what_was_ended_at_the_shutdown_deadline(ledger: Ledger, served: Start) -> None:
    service = served("--deadline", "0.5")
    once = press.starts_a_session.using(retry=Retry(max_attempts=1, max_crashes=0)).enqueue()
    until(lambda: ledger.count("begin"), "its start")
    assert service.stop() == 0, service.text()[-3000:]
    status = once.status()
    assert status.state == "dead"
    assert "its worker was leaving" in status.errors[-1].message
