"""Attempts in slot processes: their results, their ends by force, their deaths, and what they cannot spoil."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from holdfast import ConfigError, Holdfast, Job, JobFailed, Worker
from holdfast.app import parts_of
from holdfast.worker import deaths
from holdfast.worker.channel import Channel
from holdfast.worker.processes import executor as processes
from holdfast.worker.processes import spawned
from holdfast.worker.processes.launch import Launch
from tests.worker import crew
from tests.worker.rig import Flaky, events, fields, soon, until

pytestmark = pytest.mark.timeout(120)
Started = Callable[..., Any]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CREW", str(tmp_path))
    return tmp_path


@pytest.fixture
async def worker(here: Path) -> AsyncIterator[Worker]:
    async with crew.jobs.worker(concurrency=4, deadline=0) as it:
        yield it


async def outcome(job: Job[Any]) -> tuple[Any, ...]:
    """What a user sees of the end."""
    await until_over(job)
    status = await job.astatus()
    value = await job.aresult() if status.state == "succeeded" else None
    return status.state, status.attempt, value, status.reason, [(e.attempt, e.type, e.message) for e in status.errors]


async def until_over(job: Job[Any]) -> None:
    async with asyncio.timeout(60):
        while not (await job.astatus()).finished:  # noqa: ASYNC110  # a handle tells nobody of its end
            await asyncio.sleep(0.005)


async def begun(here: Path, name: str, count: int = 1) -> list[int]:
    """The processes that the handler noted."""
    file = here / name
    await until(lambda: file.exists() and file.read_text().count("\n") >= count, f"{name} never began")
    return [int(line) for line in file.read_text().split()]


async def gone(pids: list[int]) -> None:
    await until(lambda: not any(crew._runs(pid) for pid in pids), f"something of {pids} still runs")  # noqa: SLF001


# --- results


async def test_jobs_run_one_after_another_in_a_process_of_their_own(worker: Worker) -> None:
    here = os.getpid()
    assert await (await crew.thread_pid.aenqueue()).aresult(60) == here
    first = await (await crew.pid.aenqueue()).aresult(60)
    assert first != here
    assert await (await crew.pid.aenqueue()).aresult(60) == first, "a process that is idle is used again"
    assert await (await crew.async_pid.aenqueue()).aresult(60) == first, "an async handler gets one, too"


async def test_jobs_at_the_same_time_have_a_process_each(worker: Worker) -> None:
    jobs = [await crew.sleeps.aenqueue(0.5) for _ in range(3)]
    assert len({await job.aresult(60) for job in jobs}) == 3


async def test_whatever_ends_a_handler_means_the_same_as_in_a_thread(worker: Worker) -> None:
    tasks = parts_of(crew.jobs).registry.names
    kinds = {
        kind: {name: await tasks[f"{name}.{kind}"].aenqueue() for name in crew.BOTH} for kind in ("thread", "process")
    }
    ends = {kind: {name: await outcome(job) for name, job in jobs.items()} for kind, jobs in kinds.items()}
    assert ends["process"] == ends["thread"]
    assert {end[0] for end in ends["process"].values()} == {"succeeded", "dead", "cancelled"}
    for name in crew.BOTH:
        places = [[f"in {name}" in e.traceback for e in (await kinds[k][name].astatus()).errors] for k in kinds]
        assert places[0] == places[1]


async def test_a_handler_knows_its_job(worker: Worker) -> None:
    job = await crew.looks_around.aenqueue()
    seen = await job.aresult(60)
    assert 25 < seen.pop("left") <= 30
    assert seen == {
        "id": str(job.id),
        "task": crew.looks_around.name,
        "queue": "default",
        "attempt": 1,
        "fence": 1,
        "held": True,
        "cancelled": False,
    }


# --- ends by force


@pytest.mark.parametrize("task", [crew.spins, crew.backtracks], ids=["python", "c"])
async def test_a_timeout_ends_what_never_looks_and_the_retry_comes_after_it(
    task: Any, here: Path, worker: Worker
) -> None:
    job = await task.aenqueue("it")
    assert await job.aresult(60) == [], "the first process still ran when the second attempt began"
    status = await job.astatus()
    assert (status.attempt, [error.type for error in status.errors]) == (2, ["TimeoutError"])
    assert "300 ms" in status.errors[0].message
    assert f"in {task.name.rpartition('.')[2]}" in status.errors[0].traceback, "where it was"


@pytest.mark.parametrize("task", [crew.is_deaf, crew.holds_the_interpreter], ids=["python", "c"])
async def test_a_jobs_deadline_ends_what_never_looks(task: Any, here: Path, worker: Worker) -> None:
    await (await crew.pid.aenqueue()).aresult(60)  # a process is ready
    job = await task.using(retry=crew.TWICE, deadline=1).aenqueue("it")
    state, attempt, _, reason, errors = await outcome(job)
    assert (state, attempt, reason) == ("dead", 1, "deadline")
    assert [(kind, message[:21]) for _, kind, message in errors] == [("TimeoutError", "ran past its deadline")]
    await gone(await begun(here, "it"))


async def test_a_handler_in_a_process_knows_its_jobs_deadline(here: Path, worker: Worker) -> None:
    found = await (await crew.looks_around.using(deadline=20, timeout="10m").aenqueue()).aresult(60)
    assert 0 < found["left"] <= 20


@pytest.mark.parametrize("task", [crew.waits, crew.waits_async], ids=["plain", "async"])
async def test_a_cancel_is_heard_inside(task: Any, here: Path, worker: Worker) -> None:
    job = await task.aenqueue("it")
    pids = await begun(here, "it")
    assert await job.acancel("enough")
    assert (await outcome(job))[:4] == ("cancelled", 1, None, "enough")
    assert (here / "it.stopped").read_text() == "True", "its finally: ran, and it knew why"
    assert not any(crew._runs(pid) for pid in pids)  # noqa: SLF001


async def test_a_cancel_ends_what_does_not_listen_with_all_that_it_started(here: Path, worker: Worker) -> None:
    job = await crew.is_deaf.aenqueue("it")
    pids = await begun(here, "it", 2)
    await job.acancel()
    assert (await outcome(job))[0] == "cancelled"
    assert not any(crew._runs(pid) for pid in pids), "told as cancelled while its code ran"  # noqa: SLF001


async def test_what_returns_when_it_is_told_to_stop_has_succeeded(here: Path, worker: Worker) -> None:
    job = await crew.returns_when_stopped.aenqueue("it")
    await begun(here, "it")
    await job.acancel()
    assert (await outcome(job))[:3] == ("succeeded", 1, "done all the same")


async def test_a_stop_that_comes_together_with_the_answer_changes_nothing(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = processes._first  # noqa: SLF001

    async def both(*futures: Any, **options: Any) -> None:
        await first(*futures, **options)
        raise asyncio.CancelledError

    monkeypatch.setattr(processes, "_first", both)
    pid = await (await crew.pid.aenqueue()).aresult(60)
    assert not crew._runs(pid)  # noqa: SLF001  # it may be in the middle of being told


async def test_a_stop_ends_the_processes_and_gives_their_jobs_back(here: Path) -> None:
    worker = crew.jobs.worker(deadline=0)._crew  # noqa: SLF001
    await worker.astart()
    jobs = [await crew.is_deaf.aenqueue("deaf"), await crew.waits.aenqueue("waits")]
    pids = [*await begun(here, "deaf", 2), *await begun(here, "waits")]
    departure = await soon(worker.astop(), "the worker does not stop")
    assert departure.forced == [], "nothing has to be forced: a process can be ended"
    assert not any(crew._runs(pid) for pid in pids)  # noqa: SLF001
    for job in jobs:
        status = await job.astatus()
        assert (status.state, status.attempt) == ("queued", 0)
        await job.acancel()


# --- deaths


@pytest.mark.parametrize(("how", "cause"), [("exit", "exit code 7"), ("segfault", "(SIGSEGV)"), ("kill", "(SIGKILL)")])
async def test_a_death_is_charged_with_its_evidence_and_leaves_others_alone(
    how: str, cause: str, here: Path, worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    sibling = await crew.waits.aenqueue("sibling")
    pids = await begun(here, "sibling")
    job = await crew.dies.aenqueue(how)
    with pytest.raises(JobFailed):
        await job.aresult(60)
    status = await job.astatus()
    assert [error.type for error in status.errors] == ["Lost", "Lost"], "max_crashes=2"
    for error in status.errors:
        assert cause in error.message
        assert "MiB of memory" in error.message
    if how == "segfault":
        assert "in dies" in status.errors[0].traceback
    assert events(caplog, "crashed", "dead") == ["crashed", "dead"]
    assert (await sibling.astatus()).state == "running"
    assert crew._runs(pids[0])  # noqa: SLF001
    assert await (await crew.pid.aenqueue()).aresult(60) not in (os.getpid(), *pids)
    await sibling.acancel()
    await until_over(sibling)


async def test_a_process_killed_from_outside_is_a_crash_of_its_job_alone(here: Path, worker: Worker) -> None:
    job = await crew.waits.aenqueue("it")
    (pid,) = await begun(here, "it")
    os.kill(pid, signal.SIGKILL)
    await begun(here, "it", 2)
    status = await job.astatus()
    assert (status.state, status.attempt) == ("running", 1), "the attempt was given back"
    assert "(SIGKILL)" in status.errors[0].message
    await job.acancel()
    await until_over(job)


class Clinging:
    """From now on, until `let_go`, something of every group still runs, as far as anybody can see."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.looks: list[int] = []
        self._gone = threading.Event()
        monkeypatch.setattr(deaths, "_runs", self._runs)
        monkeypatch.setattr(deaths, "GROUP_GONE", 60.0)

    def _runs(self, group: int) -> bool:
        self.looks.append(group)
        return not self._gone.is_set()

    async def looked_at(self, group: int) -> None:
        await until(lambda: self.looks.count(group) > 100, "nobody looks whether the group of the process is gone")

    def let_go(self) -> None:
        self._gone.set()


@pytest.mark.parametrize("how", ["killed", "cancelled"])
async def test_an_attempt_is_not_over_while_anything_of_its_group_still_runs(
    how: str, here: Path, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await crew.waits.aenqueue("it")
    (pid,) = await begun(here, "it")
    clinging = Clinging(monkeypatch)
    try:
        if how == "killed":
            os.kill(pid, signal.SIGKILL)
        else:
            await job.acancel()
        await clinging.looked_at(pid)
        await gone([pid])
        assert await (await crew.pid.aenqueue()).aresult(60) != pid
        status = await job.astatus()
        assert (status.state, status.errors) == ("running", ()), "told as over while its code may run"
        assert pid in {run.group for run in box(worker).begun()}, "nobody could end it with its worker"
    finally:
        clinging.let_go()
    if how == "killed":
        await begun(here, "it", 2)
        await job.acancel()
    assert (await outcome(job))[0] == "cancelled"


def box(worker: Worker) -> Any:
    return worker._crew._box  # noqa: SLF001


@pytest.fixture
async def unwritten(here: Path) -> AsyncIterator[tuple[Worker, Flaky]]:
    """A worker whose outcomes are not taken, and the store that does not."""
    it = crew.jobs.worker(concurrency=4, deadline=0)
    supply = it._crew._supply  # noqa: SLF001
    store = Flaky(supply()[0])
    store.away("finish")
    it._crew._supply = lambda: (store, supply()[1])  # type: ignore[assignment]  # noqa: SLF001
    async with it:
        yield it, store
        store.back()


async def test_the_number_of_a_group_that_is_gone_is_forgotten_while_outcomes_wait(
    here: Path, unwritten: tuple[Worker, Flaky], monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, store = unwritten
    jobs = [await crew.waits.aenqueue("busy"), await crew.pid.aenqueue()]
    (busy,) = await begun(here, "busy")

    def groups() -> dict[Any, int]:
        return {run.id: run.group for run in box(worker).begun()}

    def waiting() -> set[Any]:
        return worker._crew._finisher.pending  # noqa: SLF001

    await until(lambda: waiting() == {jobs[1].id}, "the other job does not end")
    idle = groups()[jobs[1].id]
    assert groups() == {jobs[0].id: busy, jobs[1].id: idle}
    clinging = Clinging(monkeypatch)
    try:
        for pid in (busy, idle):
            os.kill(pid, signal.SIGKILL)
            await clinging.looked_at(pid)
        assert groups() == {jobs[0].id: busy, jobs[1].id: idle}, "forgotten before it was gone"
    finally:
        clinging.let_go()
    await until(lambda: waiting() == {job.id for job in jobs}, "the death of the busy one")
    await until(lambda: groups() == {job.id: 0 for job in jobs}, "the numbers may be others' by now")
    store.back()
    await begun(here, "busy", 2)
    await jobs[0].acancel()
    assert [(await outcome(job))[0] for job in jobs] == ["cancelled", "succeeded"]


async def test_an_idle_process_that_dies_harms_nobody(worker: Worker) -> None:
    pid = await (await crew.pid.aenqueue()).aresult(60)
    os.kill(pid, signal.SIGKILL)
    job = await crew.pid.aenqueue()
    assert await job.aresult(60) != pid
    assert (await job.astatus()).errors == ()


async def test_who_signals_all_processes_ends_no_job(here: Path, worker: Worker) -> None:
    job = await crew.waits.aenqueue("it")
    (busy,) = await begun(here, "it")
    idle = await (await crew.pid.aenqueue()).aresult(60)
    for pid in (busy, idle):
        for number in (signal.SIGTERM, signal.SIGINT):
            os.kill(pid, number)
    assert await (await crew.pid.aenqueue()).aresult(60) == idle
    assert not (here / "it.stopped").exists()
    await job.acancel()
    assert (await outcome(job))[:2] == ("cancelled", 1)
    assert (here / "it.stopped").read_text() == "True", "it was the cancel that ended it"


# --- errors of the worker's own


@pytest.fixture
async def narrow(here: Path) -> AsyncIterator[Worker]:
    async with crew.jobs.worker(concurrency=1, deadline=0) as it:
        yield it


def fails_once(monkeypatch: pytest.MonkeyPatch, of: object, name: str) -> list[Any]:
    """Has a function raise at its next call; returns whom it was called with."""
    real, calls = getattr(of, name), []

    def broken(*args: Any, **options: Any) -> Any:
        calls.append(args[0])
        if len(calls) > 1:
            return real(*args, **options)
        if name == "close":  # else it would stay open
            real(*args, **options)
        raise LookupError("unforeseen")

    monkeypatch.setattr(of, name, broken)
    return calls


@pytest.mark.parametrize("name", ["ask", "_send"])
async def test_an_error_of_the_workers_own_costs_an_attempt_and_its_process_but_no_place(
    name: str, narrow: Worker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pid = await (await crew.pid.aenqueue()).aresult(60)
    await until(lambda: len(kept(narrow)._idle) == 2, "there is no spare")  # noqa: SLF001
    for slot in kept(narrow)._slots:  # noqa: SLF001
        await soon(asyncio.wait({slot.ready}), "the spare is not ready")
    calls, clinging = fails_once(monkeypatch, spawned.Spawned, name), Clinging(monkeypatch)
    job, after = await crew.pid.aenqueue(), await crew.pid.aenqueue()
    try:
        await until(lambda: calls, "nothing is asked of the process")
        await clinging.looked_at(calls[0].group)
        assert (await job.astatus()).state == "running", "told as over while its process may run"
    finally:
        clinging.let_go()
    assert (await outcome(job))[:2] == ("dead", 1)
    (error,) = (await job.astatus()).errors
    assert (error.type, error.message) == ("LookupError", "unforeseen")
    assert await after.aresult(60) in {pid, *(slot.group for slot in kept(narrow)._slots)}  # noqa: SLF001
    assert len([line for line in caplog.records if "a bug in" in line.getMessage()]) == 1


def kept(worker: Worker) -> Any:
    return worker._crew._attempts._in_processes  # noqa: SLF001


@pytest.mark.parametrize(
    ("of", "name", "said"),
    [
        (spawned, "await_group", "could not be confirmed"),
        (spawned, "await_death", "could not be confirmed"),
        (Channel, "close", "could not be read"),
    ],
    ids=["burial", "death", "last-words"],
)
async def test_an_error_while_a_process_is_buried_keeps_nobody_waiting(
    of: object,
    name: str,
    said: str,
    here: Path,
    narrow: Worker,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    fails_once(monkeypatch, of, name)
    job = await crew.dies.aenqueue("exit")
    await until_over(job)
    causes = [error.message for error in (await job.astatus()).errors]
    assert any(said in cause and "unforeseen" in cause for cause in causes), causes
    assert await (await crew.pid.aenqueue()).aresult(60) != os.getpid()
    assert len([line for line in caplog.records if "a bug in" in line.getMessage()]) == 1


# --- what a handler cannot spoil


async def test_a_handler_may_close_every_descriptor(here: Path, worker: Worker) -> None:
    for _ in range(3):
        assert await (await crew.closes_everything.aenqueue()).aresult(60) == "closed"
    job = await crew.closes_and_reuses.aenqueue("it")
    assert await job.aresult(60) == "", "something was written to what it opened"
    assert (await job.astatus()).errors[0].message == "closed"


@pytest.mark.parametrize(("how", "code"), [("return", 1), ("exit", 5), ("raise", 1)])
async def test_a_copy_of_the_process_does_not_answer(how: str, code: int, worker: Worker) -> None:
    assert await (await crew.forks.aenqueue(how)).aresult(60) == code
    assert await (await crew.pid.aenqueue()).aresult(60) != os.getpid()


@pytest.mark.parametrize("kind", ["child", "daemon"])
async def test_what_a_failed_attempt_left_running_is_gone_before_the_next(
    kind: str, here: Path, worker: Worker
) -> None:
    assert await (await crew.leaves_a_process.aenqueue(kind)).aresult(60) == []


async def test_a_thread_that_a_failed_attempt_left_is_gone_before_the_next(here: Path, worker: Worker) -> None:
    assert await (await crew.leaves_a_thread.aenqueue("thread")).aresult(60) == 0


async def test_changed_signals_and_timers_do_not_reach_the_next_job(here: Path, worker: Worker) -> None:
    pid = await (await crew.spoils_signals.aenqueue()).aresult(60)
    assert await (await crew.sleeps.aenqueue(0.5)).aresult(60) == pid, "its alarm came in another's time"
    job = await crew.waits.aenqueue("it")
    assert await begun(here, "it") == [pid]
    await job.acancel()
    await until_over(job)
    assert (here / "it.stopped").exists(), "it was killed without being asked"


async def test_a_handler_cannot_enqueue_into_the_memory_of_another_process(worker: Worker) -> None:
    job = await crew.enqueues.aenqueue()
    state, _, _, _, errors = await outcome(job)
    assert state == "dead"
    assert errors[0][1] == "ConfigError"
    assert "memory://" in errors[0][2]


# --- the processes


async def test_a_process_is_replaced_after_so_many_jobs(here: Path) -> None:
    async with _limited(max_jobs=2):
        pids = [await (await crew.pid.aenqueue()).aresult(60) for _ in range(6)]
    assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [2, 2, 2]


async def test_a_process_is_replaced_when_it_holds_too_much(here: Path) -> None:
    async with _limited(max_memory=200 * 2**20):
        small = [await (await crew.hoards.aenqueue(1)).aresult(60) for _ in range(2)]
        large = await (await crew.hoards.aenqueue(300)).aresult(60)
        assert small == [large, large]
        assert await (await crew.hoards.aenqueue(1)).aresult(60) != large


def _limited(**limits: int) -> Worker:
    worker = crew.jobs.worker(deadline=0)
    it = worker._crew  # noqa: SLF001
    it._max_jobs, it._max_memory = limits.get("max_jobs"), limits.get("max_memory")  # noqa: SLF001
    return worker


async def test_idle_processes_end(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "IDLE_MOST", 0.1)
    jobs = [await crew.sleeps.aenqueue(0.2) for _ in range(2)]
    pids = [await job.aresult(60) for job in jobs]
    await gone(pids)
    assert await (await crew.pid.aenqueue()).aresult(60) not in pids


async def test_a_spare_is_ready_when_a_process_dies(worker: Worker) -> None:
    await (await crew.pid.aenqueue()).aresult(60)
    await until(lambda: [s.ready.done() for s in kept(worker)._idle] == [True, True], "there is no spare")  # noqa: SLF001


async def test_no_process_just_now_puts_the_job_off(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    spawn, refused = subprocess.Popen, []

    def popen(*args: Any, **options: Any) -> Any:
        if not refused:
            refused.append(args)
            raise BlockingIOError("Resource temporarily unavailable")
        return spawn(*args, **options)

    monkeypatch.setattr("holdfast.worker.processes.spawned.subprocess.Popen", popen)
    job = await crew.pid.aenqueue()
    assert await job.aresult(60) != os.getpid()
    assert refused
    assert ((await job.astatus()).attempt, (await job.astatus()).errors) == (1, ())
    assert "Resource temporarily unavailable" in fields(caplog, "not-started")[0]["message"]


@pytest.mark.parametrize(
    ("app", "said"),
    [
        ("tests.worker.nowhere:jobs", "no module 'tests.worker.nowhere'"),
        ("tests.worker.stillborn:jobs", "exit code 5"),
        ("tests.worker.rig:_app", "does not know the task"),
    ],
    ids=["no-module", "dies", "no-task"],
)
async def test_an_app_that_cannot_be_loaded_fails_the_attempt_and_says_why(
    app: str, said: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = crew.jobs.worker()
    worker._crew._launch = lambda: Launch(app)  # noqa: SLF001
    monkeypatch.setattr(Launch, "module_of", lambda *_: "")
    async with worker:
        job = await crew.pid.aenqueue()
        state, attempt, _, _, errors = await outcome(job)
        assert (state, attempt, len(errors)) == ("dead", 1, 1), "an ordinary failure, of a task without retry="
        assert said in errors[0][2]
        assert await (await crew.thread_pid.aenqueue()).aresult(60) == os.getpid(), "other jobs go on"


async def test_an_app_that_no_other_process_finds_is_refused_at_the_start() -> None:
    hidden = Holdfast("memory://")
    hidden.task(run_in="process")(crew.returns)
    with pytest.raises(ConfigError, match=r"run_in='process' on .*crew\.returns.*at the top of a module"):
        hidden.worker().start()


# --- a script that is its own app

_SCRIPT = '''
"""An app that is a script."""
import os, sys
from holdfast import Holdfast

jobs = Holdfast()

@jobs.task(run_in="process")
def where() -> list[str]:
    return [__name__, str(os.getpid()), f"-O{sys.flags.optimize}", *sys.warnoptions, *sys.argv[1:]]

def main() -> None:
    jobs.configure("memory://")
    with jobs.worker():
        job = where.enqueue()
        try:
            print(where.name, os.getpid(), *job.result(60))
        except Exception as error:
            print(error)

GUARD
'''


def _script(folder: Path, name: str, *, guarded: bool) -> None:
    file = folder / name
    file.parent.mkdir(exist_ok=True)
    (file.parent / "__init__.py").touch()
    file.write_text(_SCRIPT.replace("GUARD", 'if __name__ == "__main__":\n    main()' if guarded else "main()"))


@pytest.mark.parametrize(
    ("file", "command", "task", "module"),
    [
        ("shop/my-shop.py", ["my-shop.py"], "my-shop.where", "my-shop"),
        ("shop/mail.py", ["-m", "mail"], "mail.where", "mail"),
        ("shop/front/__main__.py", ["-m", "front"], "front.where", "front.__main__"),
    ],
    ids=["script", "module", "package"],
)
def test_a_script_can_be_its_own_app(tmp_path: Path, file: str, command: list[str], task: str, module: str) -> None:
    (tmp_path / "shop").mkdir()
    _script(tmp_path, file, guarded=True)
    name, host, inside, slot, *flags, word = _run(tmp_path / "shop", "-O", "-Wonce", *command, "word").split()
    assert (name, inside, word) == (task, module, "word")
    assert host != slot
    assert {"-O1", "once"} <= set(flags), "started with other flags than the script"


def test_a_script_without_a_guard_is_told_to_have_one(tmp_path: Path) -> None:
    _script(tmp_path, "shop/shop.py", guarded=False)
    said = _run(tmp_path / "shop", "shop.py")
    assert 'if __name__ == "__main__":' in said
    assert "ConfigError" in said


def _run(folder: Path, *command: str) -> str:
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("task", [crew.waits, crew.holds_the_interpreter], ids=["waits", "c"])
def test_the_slots_of_a_program_that_is_killed_end(task: Any, tmp_path: Path) -> None:
    program = (
        f"import os; os.environ['CREW'] = {str(tmp_path)!r}\n"
        "from tests.worker import crew\n"
        f"with crew.jobs.worker(): crew.{task.name.rpartition('.')[2]}.enqueue('it').result()"
    )
    process = subprocess.Popen([sys.executable, "-c", program])
    file, end = tmp_path / "it", time.monotonic() + 60
    try:
        while not (file.exists() and file.read_text().endswith("\n")):
            assert time.monotonic() < end, "the handler never began"
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait(30)
    slot = int(file.read_text())
    while crew._runs(slot):  # noqa: SLF001
        assert time.monotonic() < end, "the slot outlives its worker"
        time.sleep(0.01)
