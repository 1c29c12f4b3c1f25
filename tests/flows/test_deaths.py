"""Processes that die, stop, or are stopped: what becomes of their jobs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from uuid import uuid4

import pytest

from holdfast import Holdfast, Retry
from holdfast.job import Claim, Loss, Lost
from holdfast.policy import decide
from holdfast.store import Store
from holdfast.stores import open_store
from tests.flows import taps
from tests.flows.conftest import Guest, Ledger, Service, until
from tests.flows.pids import runs
from tests.flows.robber import Robber
from tests.flows.shop import deaf, held, held_in_thread, thread_work, wait_async, waits_for_a_child, work


@pytest.mark.every_store
@pytest.mark.timeout(120)
def test_a_killed_childs_job_runs_again_while_the_lease_still_lives(
    app: Holdfast, ledger: Ledger, serve: Callable[..., Service]
) -> None:
    service = serve("--processes", "2", "--concurrency", "2")
    job = work.enqueue(7, seconds=3)
    first = until(lambda: ledger.lines("begin"), "the first run")[0]
    os.kill(first["pid"], signal.SIGKILL)
    second = until(lambda: ledger.lines("begin")[1:], "the second run", seconds=14)[0]  # a lease is 15 s: not by lease
    assert second["fence"] > first["fence"]
    assert second["attempt"] == first["attempt"], "a death is not an attempt"
    assert job.result(timeout=30) == 7
    assert "event=rescued" in service.text()
    assert "SIGKILL" in service.text()


@pytest.mark.timeout(120)
def test_a_drain_finishes_what_runs_and_gives_back_the_rest(
    app: Holdfast, ledger: Ledger, serve: Callable[..., Service]
) -> None:
    service = serve("--concurrency", "2")
    jobs = app.enqueue_many(thread_work.bind(n, seconds=0.5) for n in range(10))
    until(lambda: ledger.count("begin") >= 2, "two jobs running")
    assert service.stop() == 0, service.text()[-3000:]
    begun = {line["job"] for line in ledger.lines("begin")}
    ended = {line["job"] for line in ledger.lines("effect")}
    assert begun == ended, "a drain must let running jobs finish"
    statuses = [job.status() for job in jobs]
    assert {str(status.id) for status in statuses if status.state == "succeeded"} == ended
    assert all((s.state, s.attempt) == ("queued", 0) for s in statuses if str(s.id) not in begun)


@pytest.mark.timeout(120)
def test_past_the_deadline_an_async_job_is_interrupted_uncharged(
    app: Holdfast, ledger: Ledger, serve: Callable[..., Service]
) -> None:
    service = serve("--deadline", "0.5")
    job = wait_async.enqueue()
    until(lambda: ledger.count("begin"), "the job's start")
    assert service.stop() == 0, service.text()[-3000:]
    assert ledger.count("stopped") == 1
    status = job.status()
    assert (status.state, status.attempt) == ("queued", 0)


@pytest.mark.timeout(120)
def test_past_the_deadline_a_deaf_thread_is_ended_with_its_process_and_its_job_given_back(
    app: Holdfast, ledger: Ledger, serve: Callable[..., Service]
) -> None:
    service = serve("--deadline", "0.5")
    job = deaf.enqueue()
    until(lambda: ledger.count("begin"), "the job's start")
    assert service.stop() == 1, service.text()[-3000:]
    status = job.status()
    assert (status.state, status.attempt) == ("queued", 0)
    assert "event=forced" in service.text()
    assert str(job.id) in service.text()


@pytest.mark.timeout(120)
def test_a_second_signal_skips_to_the_deadline(app: Holdfast, ledger: Ledger, serve: Callable[..., Service]) -> None:
    service = serve("--deadline", "300")
    job = wait_async.enqueue()
    until(lambda: ledger.count("begin"), "the job's start")
    service.process.send_signal(signal.SIGINT)
    until(lambda: "event=stopping" in service.text(), "the drain")

    def hurried() -> bool:
        service.process.send_signal(signal.SIGINT)  # again and again: the echo of the first is not a second
        return "then=hurry" in service.text()

    until(hurried, "the second signal")
    assert service.process.wait(40) == 0, service.text()[-3000:]
    assert job.status().state == "queued"


def kept_at_once(service: Service) -> bool:
    """Whether its children began to beat when they heard that it is dead, and not only when they missed its beats."""
    told = [line for line in service.text().splitlines() if "supervisor-gone" in line or "beats-stay-away" in line]
    return "supervisor-gone" in told[-1]


@pytest.mark.timeout(120)
def test_without_its_supervisor_a_child_drains_and_nothing_runs_twice(
    robber: Robber, app: Holdfast, ledger: Ledger, serve: Callable[..., Service]
) -> None:
    service = serve("--concurrency", "2", "--deadline", "60")
    job = held.enqueue("enough")
    pid = until(lambda: ledger.lines("begin"), "the job's start")[0]["pid"]
    service.process.kill()
    until(lambda: "event=supervisor-gone" in service.text(), "the child's notice")
    robber.waits_for_a_lease()
    ledger.path.with_name("enough").touch()
    assert not robber.robbed
    assert kept_at_once(service)
    assert job.result(timeout=30) == "enough"
    until(lambda: not runs(pid), "the child's leave")
    assert ledger.count("begin") == 1


@pytest.mark.timeout(120)
def test_when_the_supervisor_is_killed_its_children_drain_and_another_service_runs_the_rest_once(
    robber: Robber, app: Holdfast, ledger: Ledger, serve: Callable[..., Service]
) -> None:
    service = serve("--processes", "2", "--concurrency", "2", "--deadline", "60")
    until(lambda: service.text().count("event=started worker=") == 2, "two children")
    running = app.enqueue_many([*(held.bind("enough") for _ in range(2)), held_in_thread.bind("enough")])
    until(lambda: ledger.count("begin") == 3, "three jobs running")
    children = service.children()
    assert len({line["pid"] for line in ledger.lines("begin")}) == 2, "both children run some"
    service.process.kill()
    until(lambda: service.text().count("event=supervisor-gone") == 2, "the children's notice")
    rest = app.enqueue_many(work.bind(n) for n in range(7))
    serve("--concurrency", "4")
    assert [job.result(timeout=40) for job in rest] == list(range(7))
    robber.waits_for_a_lease()
    ledger.path.with_name("enough").touch()
    assert not robber.robbed
    assert kept_at_once(service)
    assert [job.result(timeout=40) for job in running] == ["enough"] * 3
    until(lambda: not any(runs(pid) for pid in children), "the children's leave")
    assert ledger.count("begin") == 10, "nothing is run again"
    assert {job.status().attempt for job in [*running, *rest]} == {1}


@pytest.mark.every_store
@pytest.mark.timeout(120)
async def test_a_late_outcome_of_a_worker_stopped_past_its_lease_is_refused_counted_and_logged(
    url: str, app: Holdfast, ledger: Ledger, serve: Callable[..., Service]
) -> None:
    service = serve()
    job = await work.aenqueue(5, seconds=1.0)
    pid = until(lambda: ledger.lines("begin"), "the job's start")[0]["pid"]
    service.process.send_signal(signal.SIGSTOP)
    os.kill(pid, signal.SIGSTOP)

    other = open_store(url)
    await other.open()
    rescued = await _rescue_by_lease(other)
    assert [claim.id for claim in rescued] == [job.id]
    await other.close()

    os.kill(pid, signal.SIGCONT)  # the supervisor sleeps on, so that no mail tells the worker before it finishes
    until(lambda: "event=refused" in service.text(), "the late outcome's refusal")
    assert f"job={job.id} fence=1" in service.text()
    service.process.send_signal(signal.SIGCONT)
    assert await job.aresult(timeout=30) == 5, "the rescued job runs again and ends"
    assert service.stop() == 0
    assert "refused=1" in service.text()


_EMBEDDED = """
import os, time
from pathlib import Path
from holdfast.observe.logging import configure
from tests.flows.taps import jobs

configure("kv", "info")
with jobs.worker(concurrency=2):
    while not Path(os.environ["LEDGER"]).with_name("leave").exists():
        time.sleep(0.01)
"""


@pytest.fixture
def embedded(url: str, ledger: Ledger) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A program with a worker in it, whose outcomes are held before they are written; and its log."""
    log = ledger.path.with_name("embedded.log")
    environment = {**os.environ, "HOLDFAST_URL": url, "LEDGER": str(ledger.path), "HOLD": "finish"}
    with log.open("wb") as stream:
        process = subprocess.Popen([sys.executable, "-c", _EMBEDDED], stderr=stream, env=environment)
    yield process, log
    if process.poll() is None:
        process.kill()
        process.wait(10)


@pytest.mark.timeout(120)
async def test_late_outcomes_of_an_embedded_worker_stopped_past_its_lease_are_refused_counted_and_logged(
    url: str, ledger: Ledger, embedded: tuple[subprocess.Popen[bytes], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOLDFAST_URL", url)
    process, log = embedded
    async with taps.jobs:
        ended, running = await taps.async_quick.aenqueue(), await taps.async_life.aenqueue("middle", stays=True)
        until(lambda: {"at middle", "at finish"} <= {line["event"] for line in ledger.lines()}, "both at their points")
        process.send_signal(signal.SIGSTOP)
        other = open_store(url)
        await other.open()
        rescued = await _rescue_by_lease(other)
        assert {claim.id for claim in rescued} == {ended.id, running.id}
        await other.close()

        ledger.path.with_name("finish.go").touch()
        process.send_signal(signal.SIGCONT)
        until(lambda: "event=refused" in log.read_text(), "the late outcome's refusal")
        until(lambda: f"event=lost task=tests.flows.taps.async_life job={running.id}" in log.read_text(), "the loss")
        await ended.aresult(timeout=40)
        await running.aresult(timeout=40)
        assert [(await job.astatus()).attempt for job in (ended, running)] == [1, 1], "a loss is no attempt"
        ledger.path.with_name("leave").touch()
        assert process.wait(40) == 0, log.read_text()[-3000:]
    text = log.read_text()
    assert text.count("event=refused") == 1
    assert f"job={ended.id} fence=1" in text
    assert "refused=1" in text
    for job in (ended, running):
        first, again = (line["fence"] for line in ledger.lines("begin") if line["job"] == str(job.id))
        assert first == 1
        assert again >= 3, "what is claimed while its first run is still under way here is given back until that ends"


async def _rescue_by_lease(store: Store) -> Sequence[Claim]:
    """What another machine's steady sweeper does, two leases later by the store's clock."""
    sweeper = uuid4()
    lease = (await store.register(sweeper, None, {})).lease
    for _ in range(6):
        store.shift += lease // 3
        await store.beat([sweeper])
    claims = await store.reclaim(sweeper, 10)
    store.shift = 0  # due times are written by the clock that the others read
    await store.finish([decide(claim, Lost(claim.loss or Loss("none"))) for claim in claims])
    return claims


@pytest.mark.timeout(120)
def test_a_child_that_cannot_start_ends_the_service_and_says_why(serve: Callable[..., Service]) -> None:
    service = serve("--queues", "no such name")
    assert service.process.wait(30) == 2
    assert "no such name" in service.text()


@pytest.mark.timeout(120)
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_nothing_of_a_dead_childs_group_runs_when_its_job_starts_again(
    app: Holdfast, ledger: Ledger, serve: Callable[..., Service]
) -> None:
    service = serve()
    job = waits_for_a_child.enqueue()
    parent = until(lambda: ledger.lines("begin"), "the grandchild")[0]["pid"]
    grandchild = int(ledger.path.with_name("child").read_text())
    assert runs(grandchild)
    os.kill(parent, signal.SIGKILL)
    assert job.result(timeout=40) is False, "the grandchild of the first run still ran beside the second"
    assert "event=group-stays" not in service.text()


@pytest.mark.timeout(120)
def test_a_drain_waits_for_the_jobs_of_every_child(
    app: Holdfast, ledger: Ledger, serve: Callable[..., Service]
) -> None:
    service = serve("--processes", "2", "--concurrency", "1")
    until(lambda: len(service.children()) == 2 and service.text().count("event=started worker=") == 2, "two children")
    jobs = app.enqueue_many(work.bind(n, seconds=3) for n in range(2))
    until(lambda: len({line["pid"] for line in ledger.lines("begin")}) == 2, "a job running in each child")
    assert service.stop() == 0, service.text()[-3000:]
    assert [job.status().state for job in jobs] == ["succeeded"] * 2
    assert ledger.count("begin") == 2


AT_MOST_ONCE = Retry(max_attempts=1, max_crashes=0)


@pytest.mark.timeout(120)
def test_at_most_once_a_run_that_had_begun_is_the_last_whoever_ended_its_process(
    app: Holdfast, ledger: Ledger, serve: Callable[..., Service]
) -> None:
    service = serve("--concurrency", "3")
    once = held.using(retry=AT_MOST_ONCE).enqueue("enough")
    others = [held.enqueue("enough"), held_in_thread.enqueue("enough")]
    until(lambda: ledger.count("begin") == 3, "all three running")
    os.kill(service.children()[0], signal.SIGKILL)
    until(lambda: all(ledger.count("begin", job.id) == 2 for job in others), "the others' next runs")
    ledger.path.with_name("enough").touch()
    assert [job.result(timeout=40) for job in others] == ["enough"] * 2
    until(lambda: once.status().finished, "its end")
    assert once.status().state == "dead"
    assert "SIGKILL" in once.status().errors[-1].message
    assert ledger.count("begin", once.id) == 1
    assert service.stop() == 0


@pytest.mark.timeout(120)
def test_what_was_claimed_and_not_begun_runs_once_however_often_it_may_run(
    using: Callable[[Holdfast], Holdfast],
    ledger: Ledger,
    serve: Callable[..., Service],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = using(taps.jobs)
    jobs = [taps.async_quick.using(retry=AT_MOST_ONCE).enqueue() for _ in range(3)]
    monkeypatch.setenv("HOLD", "claimed")
    service = serve("--concurrency", "3", app="tests.flows.taps:jobs")
    until(lambda: ledger.count("at claimed"), "the claim")
    assert len(list(app.find(state="running"))) == 3, "they are the worker's"
    os.kill(service.children()[0], signal.SIGKILL)
    ledger.path.with_name("claimed.go").touch()
    for job in jobs:
        job.result(timeout=40)
    assert {job.status().attempt for job in jobs} == {1}
    assert [ledger.count("begin", job.id) for job in jobs] == [1, 1, 1]
    assert service.stop() == 0


# --- apps of other shapes


@pytest.fixture
def host(url: str, tmp_path: Path) -> Iterator[Callable[..., Guest]]:
    """Starts guests; whatever still runs at the end is stopped."""
    started: list[Guest] = []

    def start(source: str, *options: str) -> Guest:
        started.append(Guest(url, tmp_path, source, "--deadline", "0.5", *options))
        return started[-1]

    yield start
    for guest in started:
        guest.stop()


@pytest.mark.timeout(120)
def test_a_store_of_one_process_is_refused(host: Callable[..., Guest]) -> None:
    guest = host("from holdfast import Holdfast\njobs = Holdfast('memory://')\n")
    assert guest.process.wait(30) == 2
    assert "memory://" in guest.text()


@pytest.mark.timeout(120)
def test_the_banner_counts_the_tasks_of_all_modules(host: Callable[..., Guest], tmp_path: Path) -> None:
    tmp_path.joinpath("more.py").write_text("from guest import jobs\n@jobs.task(name='late')\ndef late(): ...\n")
    guest = host("from holdfast import Holdfast\njobs = Holdfast(modules=['more'])\n")
    until(lambda: "ready in" in guest.text(), "the banner")
    assert "tasks    1: late" in guest.text()


@pytest.mark.timeout(120)
def test_the_banner_of_an_app_without_tasks_says_why_that_may_be(host: Callable[..., Guest]) -> None:
    guest = host("from holdfast import Holdfast\njobs = Holdfast()\n")
    until(lambda: "ready in" in guest.text(), "the banner")
    assert "tasks    0: none; is the module that defines them imported, or named in modules=[...]?" in guest.text()
