"""Worker processes that are replaced, and supervisors that fall silent: no job is lost, run twice or charged."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast import Holdfast, Job
from tests.flows.conftest import Ledger, Service, until
from tests.flows.pids import children
from tests.flows.robber import Robber
from tests.flows.shop import held, hoards, orphans, pids, work

pytestmark = [pytest.mark.timeout(120)]


def test_after_max_jobs_a_process_is_replaced_and_no_job_notices(
    app: Holdfast, ledger: Ledger, serve: Callable[..., Service]
) -> None:
    service = serve("--max-jobs", "10", "--concurrency", "2")
    jobs: list[Job[int]] = []
    ran_in: set[int] = set()

    def another_process() -> bool:
        jobs.extend(more := app.enqueue_many(pids.bind() for _ in range(60)))
        ran_in.update(job.result(timeout=60) for job in more)
        return len(ran_in) > 1

    until(another_process, "a job in a process that replaces the first")
    assert ledger.count("effect") == len(jobs), "a job was lost or ran twice"
    assert {job.status().attempt for job in jobs} == {1}
    assert "event=relieved" in service.text()
    assert "event=restart" not in service.text()
    assert service.stop() == 0


def test_a_process_that_is_replaced_finishes_what_it_runs_however_long_that_takes(
    app: Holdfast, ledger: Ledger, serve: Callable[..., Service], tmp_path: Path
) -> None:
    service = serve("--max-jobs", "3", "--concurrency", "2", "--deadline", "0.2")
    long = held.enqueue("enough")
    (begun,) = until(lambda: ledger.lines("begin"), "its start")
    app.enqueue_many(pids.bind() for _ in range(3))
    later = until(lambda: [pid for pid in service.children() if pid != begun["pid"]], "another process beside it")
    assert begun["pid"] in service.children()
    assert pids.enqueue().result(timeout=40) in later, "the replaced one claims nothing more"
    tmp_path.joinpath("enough").touch()
    assert long.result(timeout=40) == "enough"
    assert ledger.count("begin", long.id) == 1, "it was interrupted"
    until(lambda: begun["pid"] not in service.children(), "its leaving")
    assert service.stop() == 0


def test_a_shutdown_ends_the_patience_with_a_replaced_process(
    app: Holdfast, ledger: Ledger, serve: Callable[..., Service]
) -> None:
    service = serve("--max-jobs", "3", "--concurrency", "2", "--deadline", "0.5")
    long = work.enqueue(1, seconds=600.0)
    (begun,) = until(lambda: ledger.lines("begin"), "its start")
    app.enqueue_many(pids.bind() for _ in range(3))
    until(lambda: [pid for pid in service.children() if pid != begun["pid"]], "another process beside it")
    assert service.stop() == 0
    status = long.status()
    assert (status.state, status.attempt) == ("queued", 0)


def test_beyond_max_memory_a_process_is_replaced(app: Holdfast, ledger: Ledger, serve: Callable[..., Service]) -> None:
    service = serve("--max-memory", "200MB")
    first = hoards.enqueue(250).result(timeout=40)
    until(lambda: first not in service.children() and service.children(), "another process")
    assert "MiB of memory" in service.text()
    assert pids.enqueue().result(timeout=40) != first
    assert service.stop() == 0


def test_a_child_whose_supervisor_is_stopped_beats_for_itself(
    robber: Robber, app: Holdfast, ledger: Ledger, serve: Callable[..., Service], tmp_path: Path
) -> None:
    service = serve()
    long = held.enqueue("enough")
    until(lambda: ledger.count("begin", long.id), "its start")
    robber.stops(service.process.pid)
    until(lambda: "event=beats-stay-away" in service.text(), "its noticing")
    assert work.enqueue(2).result(timeout=40) == 2, "it goes on meanwhile"
    robber.waits_for_a_lease()
    tmp_path.joinpath("enough").touch()
    assert not robber.robbed
    assert long.result(timeout=40) == "enough"
    os.kill(service.process.pid, signal.SIGCONT)
    assert work.enqueue(3).result(timeout=40) == 3
    assert service.stop() == 0
    assert ledger.count("begin") == 3


def _can_be_the_first_process() -> bool:
    if shutil.which("unshare") is None:
        return False
    tried = subprocess.run(["unshare", "--pid", "--fork", "--mount-proc", "true"], capture_output=True, check=False)
    return tried.returncode == 0


@pytest.mark.skipif(not _can_be_the_first_process(), reason="this user may not make a PID namespace")
def test_as_the_first_process_of_a_container_it_reaps_orphans_and_obeys_sigterm(
    app: Holdfast, url: str, ledger: Ledger, tmp_path: Path
) -> None:
    log = tmp_path / "first.log"
    command = [sys.executable, "-m", "holdfast", "worker", "tests.flows.shop:jobs", "--log", "kv"]
    environment = {**os.environ, "HOLDFAST_URL": url, "LEDGER": str(ledger.path)}
    with log.open("wb") as stderr:
        inside = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", *command]
        process = subprocess.Popen(inside, stderr=stderr, env=environment)
    try:
        orphaned = orphans.enqueue(5)
        assert orphaned.result(timeout=40) == 5
        (first,) = until(lambda: children(process.pid), "the first process")
        until(lambda: len(children(first)) == 1, "the end of the orphans: only the worker is its child", 40)
        os.kill(first, signal.SIGTERM)
        assert process.wait(40) == 0, log.read_text()[-2000:]
    finally:
        process.kill()
        process.wait(10)
