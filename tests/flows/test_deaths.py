"""Processes that die, stop, or are stopped: what becomes of their jobs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from uuid import uuid4

import pytest

from holdfast import Holdfast
from holdfast.job import Claim, Loss, Lost
from holdfast.policy import decide
from holdfast.store import Store
from holdfast.stores import open_store
from tests.flows.conftest import Ledger, Service, until
from tests.flows.shop import deaf, thread_work, wait_async, work


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


@pytest.mark.timeout(120)
def test_without_its_supervisor_a_child_drains_and_nothing_runs_twice(
    app: Holdfast, ledger: Ledger, serve: Callable[..., Service]
) -> None:
    service = serve("--concurrency", "2")
    job = work.enqueue(3, seconds=1.5)
    pid = until(lambda: ledger.lines("begin"), "the job's start")[0]["pid"]
    service.process.kill()
    assert job.result(timeout=30) == 3
    until(lambda: not os.path.exists(f"/proc/{pid}"), "the child's leave")  # noqa: PTH110
    assert ledger.count("begin") == 1


@pytest.mark.timeout(120)
def test_when_the_supervisor_is_killed_its_children_drain_and_another_service_runs_the_rest_once(
    app: Holdfast, ledger: Ledger, serve: Callable[..., Service]
) -> None:
    service = serve("--processes", "2", "--concurrency", "2")
    until(lambda: service.text().count("event=started worker=") == 2, "two children")
    running = app.enqueue_many([*(work.bind(n, seconds=3) for n in range(2)), thread_work.bind(2, seconds=3)])
    until(lambda: ledger.count("begin") == 3, "three jobs running")
    children = service.children()
    assert len({line["pid"] for line in ledger.lines("begin")}) == 2, "both children run some"
    service.process.kill()
    until(lambda: service.text().count("event=supervisor-gone") == 2, "the children's notice")
    rest = app.enqueue_many(work.bind(n) for n in range(3, 10))
    serve("--concurrency", "4")
    assert [job.result(timeout=40) for job in [*running, *rest]] == list(range(10))
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children), "the children's leave")
    assert ledger.count("begin") == 10, "nothing is run again"
    assert {status.attempt for status in app.find()} == {1}


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
    from tests.flows.taps import async_life, async_quick, jobs

    process, log = embedded
    async with jobs:
        ended, running = await async_quick.aenqueue(), await async_life.aenqueue("middle", stays=True)
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
    begun = Counter((line["job"], line["fence"]) for line in ledger.lines("begin"))
    assert begun == {(str(job.id), fence): 1 for job in (ended, running) for fence in (1, 3)}


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


# --- apps of other shapes


class Guest:
    """A `holdfast worker` of an app that a test writes, started in its folder."""

    def __init__(self, folder: Path, source: str, *options: str) -> None:
        self.folder = folder
        folder.joinpath("guest.py").write_text(source)
        self.log = folder / "guest.log"
        command = [sys.executable, "-m", "holdfast", "worker", "guest:jobs", "--log", "kv", *options]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stderr=log, cwd=folder)

    def text(self) -> str:
        return self.log.read_text()


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Callable[..., Guest]]:
    """Starts guests; whatever still runs at the end is stopped."""
    started: list[Guest] = []

    def start(source: str, *options: str) -> Guest:
        started.append(Guest(tmp_path, source, "--deadline", "0.5", *options))
        return started[-1]

    yield start
    for guest in started:
        if guest.process.poll() is None:
            guest.process.terminate()
            try:
                guest.process.wait(20)
            finally:
                guest.process.kill()


@pytest.mark.timeout(120)
def test_a_store_of_one_process_is_refused(host: Callable[..., Guest]) -> None:
    guest = host("from holdfast import Holdfast\njobs = Holdfast('memory://')\n")
    assert guest.process.wait(30) == 2
    assert "memory://" in guest.text()


@pytest.mark.timeout(120)
def test_the_supervisor_opens_the_file_that_the_app_means(host: Callable[..., Guest], tmp_path: Path) -> None:
    name = "my jobs%41.db"
    tmp_path.joinpath("data").mkdir()
    guest = host(
        "import os\nfrom holdfast import Holdfast\nos.chdir('data')\n"
        "jobs = Holdfast('sqlite:///my%20jobs%2541.db?durability=normal')\n"
    )
    until(lambda: "ready in" in guest.text(), "the banner")
    guest.process.terminate()
    assert guest.process.wait(30) == 0, guest.text()
    assert [path.name for path in tmp_path.rglob("*.db")] == [name]
    assert tmp_path.joinpath("data", name).exists()


@pytest.mark.timeout(120)
def test_the_banner_counts_the_tasks_of_all_modules(host: Callable[..., Guest], tmp_path: Path) -> None:
    tmp_path.joinpath("more.py").write_text("from guest import jobs\n@jobs.task(name='late')\ndef late(): ...\n")
    guest = host("from holdfast import Holdfast\njobs = Holdfast('sqlite:///jobs.db', modules=['more'])\n")
    until(lambda: "ready in" in guest.text(), "the banner")
    assert "tasks    1: late" in guest.text()


@pytest.mark.timeout(120)
def test_the_banner_of_an_app_without_tasks_says_why_that_may_be(host: Callable[..., Guest]) -> None:
    guest = host("from holdfast import Holdfast\njobs = Holdfast('sqlite:///jobs.db')\n")
    until(lambda: "ready in" in guest.text(), "the banner")
    assert "tasks    0: none; is the module that defines them imported, or named in modules=[...]?" in guest.text()


_WITH_GRANDCHILD = """
import os, subprocess, sys
from holdfast import Holdfast

jobs = Holdfast("sqlite:///{folder}/jobs.db")

@jobs.task(name="parent")
def parent(folder: str) -> int:
    if not os.path.exists(folder + "/grandchild"):
        process = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"])
        with open(folder + "/pids", "w") as pids:
            pids.write(f"{{os.getpid()}} {{process.pid}}")
        os.rename(folder + "/pids", folder + "/grandchild")
        process.wait()
    grandchild = open(folder + "/grandchild").read().split()[1]
    try:
        with open(f"/proc/{{grandchild}}/stat") as stat:
            return 0 if stat.read().rpartition(")")[2].split()[0] in "ZX" else 1
    except OSError:
        return 0
"""


@pytest.mark.timeout(120)
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_nothing_of_a_dead_childs_group_runs_when_its_job_starts_again(
    host: Callable[..., Guest], tmp_path: Path
) -> None:
    guest = host(_WITH_GRANDCHILD.format(folder=tmp_path))
    producer = Holdfast(f"sqlite:///{tmp_path}/jobs.db")

    @producer.task(name="parent")
    def parent(folder: str) -> int:
        raise AssertionError(folder)

    with producer:
        job = parent.enqueue(str(tmp_path))
        grandchild = tmp_path / "grandchild"
        until(grandchild.exists, "the grandchild")
        os.kill(int(grandchild.read_text().split()[0]), signal.SIGKILL)
        assert job.result(timeout=40) == 0, "the grandchild of the first run still ran beside the second"
    assert "event=group-stays" not in guest.text()


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
