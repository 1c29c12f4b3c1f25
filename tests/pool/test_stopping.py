"""stop, join and leaving: from any thread, in any order, with threads that do not end, at exit, in forks."""

import asyncio
import gc
import logging
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from holdfast import ConfigError, JobCancelled, Pool, Retry, State, current_job
from tests.pool.rig import PATIENCE, Gate, held, threads_of_pools, until


def double(number: int) -> int:
    return 2 * number


async def endless() -> None:
    await asyncio.sleep(10 * PATIENCE)


def test_leaving_waits_for_all_jobs_and_ends_all_threads() -> None:
    done: list[int] = []

    async def on_loop() -> None:
        done.append(1)

    with Pool(3) as pool:
        for _ in range(50):
            pool.submit(done.append, 0)
            pool.submit(on_loop)
        pool.using(retry=Retry(max_attempts=2, base_delay=0.01)).submit(_fails_once())
    assert (len(done), pool.stats().succeeded) == (100, 101)
    assert threads_of_pools() == set()


def _fails_once() -> object:
    tries: list[int] = []

    def work() -> None:
        tries.append(1)
        if len(tries) == 1:
            raise ValueError("once")

    return work


def test_stop_with_drain_lets_what_waits_run() -> None:
    with Pool(1) as pool:
        gate, _ = held(pool)
        job = pool.submit(double, 4)
        assert pool.stop() == []
        gate.open()
        assert job.result(PATIENCE) == 8


def test_stop_without_drain_returns_what_it_dropped() -> None:
    with Pool(2) as pool:
        gate, (running,) = held(pool)
        later = pool.using(retry=Retry(max_attempts=2, base_delay="1h", max_delay="1h")).submit(lambda: 1 / 0)
        until(lambda: later.state == State.SCHEDULED, "it waits for its next attempt")
        pool.resize(1)
        waiting = [pool.submit(double, number) for number in range(3)]
        assert pool.stop(drain=False) == [later, *waiting]
        assert pool.stop(drain=False) == []
        for job in (later, *waiting):
            with pytest.raises(JobCancelled, match=r"^dropped: the pool was stopped without draining it"):
                job.result()
        assert running.state == State.RUNNING
        gate.open()
        assert running.result(PATIENCE) == 0
    stats = pool.stats()
    assert (stats.dropped, stats.succeeded, stats.submitted) == (4, 1, 5)


def test_what_fails_after_a_stop_without_drain_is_not_tried_again() -> None:
    gate = Gate()

    def fail() -> None:
        gate()
        raise ValueError("x")

    with Pool(1, retry=Retry(max_attempts=9, base_delay="1h", max_delay="1h")) as pool:
        job = pool.submit(fail)
        gate.await_begun()
        pool.stop(drain=False)
        gate.open()
        assert isinstance(job.exception(PATIENCE), ValueError)
    assert job.state == State.DEAD


def test_a_stopped_pool_takes_nothing_more() -> None:
    pool = Pool(1)
    pool.submit(double, 1).result(PATIENCE)
    pool.stop()
    assert pool.join(PATIENCE)
    with pytest.raises(ConfigError, match="this pool was stopped"):
        pool.submit(double, 1)
    with pytest.raises(ConfigError, match="this pool was stopped"):
        pool.using(timeout=1).submit(double, 1)
    with pytest.raises(ConfigError, match="this pool was stopped"), pool:
        pass
    assert pool.join(PATIENCE)
    assert pool.stop(drain=False) == []


async def test_a_stopped_pool_takes_nothing_more_on_a_loop() -> None:
    async with Pool(1) as pool:
        pool.stop()
        with pytest.raises(ConfigError, match="this pool was stopped"):
            await pool.asubmit(double, 1)
    with pytest.raises(ConfigError, match="this pool was stopped"):
        async with pool:
            pass


def test_one_with_for_each_pool() -> None:
    with Pool(1) as pool, pytest.raises(ConfigError, match="entered already"), pool:
        pass


async def test_async_with_comes_before_the_first_async_job() -> None:
    pool = Pool(1)
    await pool.submit(asyncio.sleep, 0).aresult(PATIENCE)
    with pytest.raises(ConfigError, match="has a loop already"):
        async with pool:
            pass
    pool.stop()
    assert await pool.ajoin(PATIENCE)


def test_join_without_stop_waits_for_what_there_is() -> None:
    pool = Pool(1)
    gate, (job,) = held(pool)
    assert not pool.join(deadline=0.01)
    gate.open()
    assert pool.join(deadline=PATIENCE)
    assert job.state == State.SUCCEEDED
    assert pool.submit(double, 4).result(PATIENCE) == 8
    pool.stop()
    assert pool.join()


def test_join_gives_up_at_its_deadline() -> None:
    pool = Pool(1)
    gate, _ = held(pool)
    pool.stop()
    assert not pool.join(deadline="10ms")
    with pytest.raises(ConfigError, match="deadline=-1"):
        pool.join(deadline=-1)
    gate.open()
    assert pool.join(deadline=PATIENCE)
    assert threads_of_pools() == set()


def test_stop_and_join_from_many_threads_at_once() -> None:
    for _ in range(20):
        pool = Pool(4, max_size=10)
        answers: list[bool] = []

        def work(pool: Pool = pool, answers: list[bool] = answers) -> None:
            try:
                for number in range(20):
                    pool.submit(double, number)
            except ConfigError:
                pass
            pool.stop(drain=bool(len(answers) % 2))
            answers.append(pool.join(PATIENCE))

        threads = [threading.Thread(target=work) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert answers == [True] * 6
        stats = pool.stats()
        assert (stats.running, stats.queued) == (0, 0)
        assert stats.submitted == stats.succeeded + stats.dropped


def test_a_job_may_stop_its_pool() -> None:
    with Pool(1) as pool:
        assert pool.submit(pool.stop).result(PATIENCE) == []


def test_leaving_by_an_exception_drops_and_cancels() -> None:
    looked = threading.Event()

    def looking() -> None:
        while True:
            looked.wait(0.001)
            current_job().check()

    with pytest.raises(LookupError, match="of the block"), Pool(2) as pool:  # noqa: PT012
        running = [pool.submit(looking), pool.submit(endless)]
        until(lambda: all(job.state == State.RUNNING for job in running), "both run")
        waiting = pool.submit(double, 1)
        raise LookupError("of the block")
    assert [job.state for job in (*running, waiting)] == [State.CANCELLED] * 3
    with pytest.raises(JobCancelled, match="dropped: the pool was left"):
        waiting.result()
    assert threads_of_pools() == set()


async def test_leaving_async_with_by_an_exception_drops_and_cancels() -> None:
    before = asyncio.all_tasks()
    with pytest.raises(LookupError, match="of the block"):  # noqa: PT012
        async with Pool(1) as pool:
            running = pool.submit(endless)
            while running.state != State.RUNNING:  # noqa: ASYNC110  # a job has no event for it
                await asyncio.sleep(0)
            waiting = pool.submit(double, 1)
            raise LookupError("of the block")
    assert [job.state for job in (running, waiting)] == [State.CANCELLED] * 2
    assert asyncio.all_tasks() == before


async def test_a_cancel_of_the_block_leaves_at_once() -> None:
    async def block() -> None:
        async with Pool(1) as pool:
            jobs.append(pool.submit(endless))
            entered.set()

    jobs: list[object] = []
    entered = asyncio.Event()
    task = asyncio.create_task(block())
    await entered.wait()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, PATIENCE)
    assert [job.state for job in jobs] == [State.CANCELLED]  # type: ignore[attr-defined]


def test_stuck_threads_are_named_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("holdfast.worker.pooled.leaving.LEAVE", 0.3)
    gate = Gate()
    with pytest.raises(LookupError), Pool(2) as pool:  # noqa: PT012
        pool.submit(gate)
        gate.await_begun()
        raise LookupError
    warnings = [str(record.msg) for record in caplog.records if record.levelno == logging.WARNING]
    assert [line.split()[0] for line in warnings] == ["event=leaving", "event=stuck"]
    assert "have 300 ms for it; Ctrl-C again leaves now" in warnings[0]
    for line in warnings:
        assert "holdfast-pool-" in line
        assert "rig.Gate" in line
    gate.open()
    assert pool.join(PATIENCE)


def test_a_pool_that_nobody_holds_any_more_ends() -> None:
    before = threads_of_pools()
    pool = Pool(2)
    pool.submit(double, 1).result(PATIENCE)
    pool.submit(asyncio.sleep, 0).result(PATIENCE)
    assert threads_of_pools() > before
    del pool
    gc.collect()
    until(lambda: threads_of_pools() <= before, "its threads end")


def test_what_a_handler_leaves_on_the_pools_loop_is_ended() -> None:
    cancelled = threading.Event()

    async def stray() -> None:
        try:
            await endless()
        finally:
            cancelled.set()

    async def work() -> None:
        strays.append(asyncio.create_task(stray()))
        await asyncio.sleep(0)

    strays: list[object] = []
    with Pool(1) as pool:
        pool.submit(work).result(PATIENCE)
    assert cancelled.is_set()


def test_a_job_that_stops_the_pools_loop_stops_nobody_else() -> None:
    async def work() -> None:
        asyncio.get_running_loop().stop()

    with Pool(1) as pool:
        pool.submit(work).result(PATIENCE)
        assert pool.submit(asyncio.sleep, 0, "x").result(PATIENCE) == "x"


# --- processes that end, or are forked


def run(tmp_path: Path, body: str, *, interrupt: bool = False) -> subprocess.CompletedProcess[str]:
    """Runs a script; with `interrupt`, presses Ctrl-C once it has printed a line."""
    script = tmp_path / "script.py"
    script.write_text("import asyncio, os, sys, threading, time\nfrom holdfast import *\n" + body)
    process = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )
    first = ""
    if interrupt:
        assert process.stdout is not None
        first = process.stdout.readline()
        process.send_signal(signal.SIGINT)
    try:
        out, err = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return subprocess.CompletedProcess([], process.returncode, first + out, err)


def test_an_interpreter_that_ends_with_a_running_pool(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        """
pool = Pool(2)
started = threading.Event()
def work():
    started.set()
    while True:
        time.sleep(0.01)
        current_job().check()
jobs = [pool.submit(work), pool.submit(asyncio.sleep, 1000), pool.submit(print, "never")]
started.wait(30)
while jobs[1].state != "running":
    time.sleep(0.01)
print("end")
""",
    )
    assert (done.returncode, done.stdout) == (0, "end\n"), done.stderr
    assert "Traceback" not in done.stderr
    assert "event=dropped count=1" in done.stderr


def test_an_interpreter_that_ends_with_a_thread_that_never_does(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        """
pool = Pool(2)
started = threading.Event()
def work():
    started.set()
    time.sleep(1000)
pool.submit(work)
started.wait(30)
""",
    )
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert "event=stuck" in done.stderr
    assert "__main__.work" in done.stderr


@pytest.mark.parametrize(
    "waiting", ["time.sleep(1000)", "pass", "job.result()", "list(pool.map(work, range(9)))", "pool.submit(work, 3)"]
)
def test_ctrl_c(tmp_path: Path, waiting: str) -> None:
    done = run(
        tmp_path,
        f"""
def work(number=0):
    while True:
        time.sleep(0.01)
        current_job().check()
with Pool(2, max_size=4) as pool:
    for _ in range(4):
        job = pool.submit(work)
    print("ready", flush=True)
    {waiting}
""",
        interrupt=True,
    )
    assert "KeyboardInterrupt" in done.stderr
    assert done.returncode in {1, 130, -signal.SIGINT}
    assert "event=dropped count=2" in done.stderr
    assert "event=stuck" not in done.stderr


def test_ctrl_c_under_async_with(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        """
async def work():
    try:
        await asyncio.sleep(1000)
    finally:
        print("cancelled", flush=True)
async def main():
    async with Pool(2) as pool:
        job = await pool.asubmit(work)
        await asyncio.sleep(0.01)
        print("ready", flush=True)
        await job.aresult()
asyncio.run(main())
""",
        interrupt=True,
    )
    assert done.stdout == "ready\ncancelled\n", done.stderr
    assert "KeyboardInterrupt" in done.stderr


def test_ctrl_c_with_a_stuck_thread_leaves_within_its_deadline(tmp_path: Path) -> None:
    start = time.monotonic()
    done = run(
        tmp_path,
        """
import holdfast.worker.pooled.leaving
holdfast.worker.pooled.leaving.LEAVE = 0.3
with Pool(2) as pool:
    pool.submit(time.sleep, 1000)
    print("ready", flush=True)
""",
        interrupt=True,
    )
    assert "KeyboardInterrupt" in done.stderr
    assert done.stderr.count("event=stuck") == 1
    assert time.monotonic() - start < PATIENCE


def test_ctrl_c_again_leaves_now(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        """
import logging, signal
import holdfast.worker.pooled.leaving
holdfast.worker.pooled.leaving.LEAVE = 1000
class Again(logging.Handler):
    def emit(self, record):
        if "event=leaving" in record.getMessage():
            print(record.getMessage(), flush=True)
            threading.Timer(0.1, signal.pthread_kill, [threading.main_thread().ident, signal.SIGINT]).start()
logging.getLogger("holdfast.job").addHandler(Again())
with Pool(2) as pool:
    pool.submit(time.sleep, 1000)
    print("ready", flush=True)
    time.sleep(1000)
""",
        interrupt=True,
    )
    assert "__main__" not in done.stdout
    assert "time.sleep" in done.stdout
    assert "KeyboardInterrupt" in done.stderr
    assert "another exception" not in done.stderr
    assert "event=stuck" not in done.stdout + done.stderr


async def test_leaving_cancels_what_its_loop_has_not_begun() -> None:
    with pytest.raises(LookupError):  # noqa: PT012
        async with Pool(2) as pool:
            job = pool.submit(endless)
            raise LookupError
    assert job.state == State.CANCELLED
    with pytest.raises(JobCancelled, match=r"^dropped: the pool was left"):
        job.result()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_may_join_a_pool_that_was_stopped(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        """
pool = Pool(1)
gate = threading.Event()
pool.submit(gate.wait)
pool.stop()
if os.fork() == 0:
    print(pool.join(20), flush=True)
    os._exit(0)
os.wait()
gate.set()
print(pool.join(20))
""",
    )
    assert done.stdout == "True\nTrue\n", done.stderr


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_needs_no_lock_that_a_thread_of_its_parent_had(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        """
from holdfast.worker.pooled import inside, waits, work
held, over = threading.Event(), threading.Event()
def hold():
    with work._rare, inside._making, waits._lock:
        held.set()
        over.wait()
threading.Thread(target=hold).start()
held.wait()
if os.fork() == 0:
    def nested():
        current_job().check()
        return pool.submit(abs, -3).result()
    pool = Pool(2)
    job = pool.submit(nested)
    print(job.id.version, job.result(20), flush=True)
    os._exit(0)
os.wait()
over.set()
""",
    )
    assert done.stdout == "7 3\n", done.stderr


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_starts_afresh(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        """
gate = threading.Event()
pool = Pool(1, max_size=3)
held = pool.submit(gate.wait)
loop = pool.submit(asyncio.sleep, 0, "x")
waiting = pool.submit(abs, -3)
if os.fork() == 0:
    for job in (held, waiting):
        try:
            job.result(20)
        except JobCancelled as error:
            print(error)
    jobs = [pool.submit(abs, -4), pool.submit(asyncio.sleep, 0, "y")]
    print([job.result(20) for job in jobs], pool.stats().submitted)
    pool.stop()
    print(pool.join(20), flush=True)
    os._exit(0)
os.wait()
gate.set()
print([job.result(20) for job in (held, loop, waiting)])
pool.stop()
pool.join()
""",
    )
    text = "it belongs to the process that this one was forked from\n"
    assert done.stdout == f"{text}{text}[4, 'y'] 2\nTrue\n[True, 'x', 3]\n", done.stderr


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_inside_a_job_does_not_go_on_as_the_pool(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        """
def work():
    return os.fork()
async def awork():
    return os.fork()
with Pool(1) as pool:
    for fn in (work, awork):
        child = pool.submit(fn).result(20)
        print("in the child:", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    print(pool.submit(abs, -3).result(20))
""",
    )
    assert done.stdout == "in the child: 1\nin the child: 1\n3\n", done.stderr
    assert "came back from the handler, and was ended" in done.stderr


def test_no_descriptor_is_left_open() -> None:
    def count() -> int:
        return len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 0

    with Pool(1) as pool:
        pool.submit(asyncio.sleep, 0).result(PATIENCE)
    before = count()
    for _ in range(5):
        with Pool(1) as pool:
            pool.submit(asyncio.sleep, 0).result(PATIENCE)
    assert count() == before
