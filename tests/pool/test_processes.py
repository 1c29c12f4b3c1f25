"""run_in="process": pickles, errors, timeouts and deaths."""

import gc
import os
import signal
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from typing import Any

import pytest

from holdfast import JobCancelled, JobFailed, Pool, Retry, State
from holdfast.errors import PayloadError
from tests.pool.errands import (
    Point,
    Slow,
    about,
    amirrored,
    die,
    fail,
    fail_fussily,
    fail_with,
    fork_and_die,
    leave,
    mirrored,
    pid,
    slow_to_read,
    spin,
    stubborn,
    unpicklable,
    with_a_child,
)
from tests.pool.rig import PATIENCE, until

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes of their own need POSIX")


def lives(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_any_object_goes_there_and_back() -> None:
    with Pool(2, run_in="process") as pool:
        assert pool.submit(mirrored, Point(1, 2), factor=2).result(PATIENCE) == Point(4, 2)
        assert pool.submit(amirrored, Point(1, 2)).result(PATIENCE) == Point(2, 1)
        assert list(pool.map(abs, range(-5, 5))) == [5, 4, 3, 2, 1, 0, 1, 2, 3, 4]


def test_it_is_another_process_and_kept_for_the_next_job() -> None:
    with Pool(1) as pool:
        there = pool.using(run_in="process")
        first, second = there.submit(pid).result(PATIENCE), there.submit(pid).result(PATIENCE)
        assert pool.submit(pid).result(PATIENCE) == os.getpid()
    assert first == second != os.getpid()
    assert not lives(first)


def test_current_job_works_there() -> None:
    with Pool(1, run_in="process") as pool:
        job = pool.submit(about)
        assert job.result(PATIENCE)[:2] == (str(job.id), 1)


def test_what_it_raises_is_raised_here_with_its_traceback() -> None:
    with Pool(1, run_in="process") as pool:
        error = pool.submit(fail).exception(PATIENCE)
    assert isinstance(error, KeyError)
    assert 'raise KeyError("no such key")' in str(error.__cause__)


def test_an_error_that_cannot_be_pickled_is_told_by_its_text() -> None:
    with Pool(1, run_in="process") as pool:
        error = pool.submit(fail_fussily).exception(PATIENCE)
    assert isinstance(error, JobFailed)
    assert (error.error.type, error.error.message) == ("Fussy", "fussy")
    assert "raise Fussy(1, 2)" in error.error.traceback


def test_what_cannot_be_pickled_is_named() -> None:
    lock = threading.Lock()
    cases: list[tuple[tuple[Any, ...], dict[str, Any], str]] = [
        ((lambda: 1,), {}, r"^fn=.*<lambda> cannot be pickled, as run_in='process' needs"),
        ((mirrored, Point(1, 2), lock), {}, r"^argument 1 of .*mirrored \(a lock\) cannot be pickled"),
        ((mirrored, Point(1, 2)), {"factor": lock}, r"^argument factor= of .*mirrored \(a lock\) cannot be pickled"),
        ((unpicklable,), {}, r"^the result of .*unpicklable \(a lock\) cannot be pickled"),
    ]
    with Pool(1, run_in="process", retry=Retry(max_attempts=3, base_delay=0)) as pool:
        for args, kwargs, text in cases:
            with pytest.raises(PayloadError, match=text):
                pool.submit(*args, **kwargs).result(PATIENCE)
        assert pool.stats().retried == 0
        assert pool.submit(abs, -1).result(PATIENCE) == 1


def test_a_death_is_a_failure_that_names_the_signal() -> None:
    with Pool(1, run_in="process") as pool:
        with pytest.raises(JobFailed, match=r"its process \(pid \d+\) ended: killed by signal 11 \(SIGSEGV\)"):
            pool.submit(die, signal.SIGSEGV).result(PATIENCE)
        with pytest.raises(JobFailed, match="exit code 7"):
            pool.submit(leave).result(PATIENCE)
        assert pool.submit(abs, -1).result(PATIENCE) == 1
        assert (pool.stats().failed, pool.stats().succeeded) == (2, 1)


@pytest.mark.parametrize("apart", [False, True])
def test_a_death_is_seen_although_a_child_of_it_lives(apart: bool, tmp_path: Path) -> None:
    note = tmp_path / "pid"
    with Pool(1, run_in="process") as pool:
        try:
            with pytest.raises(JobFailed, match="SIGKILL"):
                pool.submit(fork_and_die, str(note), apart).result(PATIENCE)
        finally:
            if note.exists() and lives(int(note.read_text())):
                os.kill(int(note.read_text()), signal.SIGKILL)
        assert pool.submit(abs, -1).result(PATIENCE) == 1


def test_a_call_that_is_never_read_has_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.worker.processes.caller.START", 0.5)
    with Pool(1, run_in="process", timeout=0.5) as pool:
        with pytest.raises(TimeoutError, match="has not begun within"):
            pool.submit(abs, Slow()).result(PATIENCE)
        monkeypatch.undo()
        assert pool.submit(abs, -1).result(PATIENCE) == 1


def test_a_result_that_is_never_read_fails_its_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.worker.pooled.timer.GRACE", 0.1)
    gate = threading.Event()
    monkeypatch.setattr("tests.pool.errands.wait_here", gate.wait)
    with Pool(1, run_in="process", timeout=0.5) as pool:
        with pytest.raises(TimeoutError, match="could not be ended in time"):
            pool.submit(slow_to_read).result(PATIENCE)
        gate.set()


def test_a_death_is_retried_as_any_failure() -> None:
    with Pool(1, run_in="process", retry=Retry(max_attempts=2, base_delay=0)) as pool:
        with pytest.raises(JobFailed, match="SIGKILL"):
            pool.submit(die, signal.SIGKILL).result(PATIENCE)
        assert pool.stats().retried == 1


@pytest.mark.parametrize("fn", [spin, stubborn, with_a_child])
def test_a_timeout_ends_the_process(fn: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.worker.processes.caller.GRACE", 0.2)
    note = tmp_path / "pid"
    with Pool(1, run_in="process") as pool:
        pool.submit(abs, 1).result(PATIENCE)
        with pytest.raises(TimeoutError, match="ran longer than its timeout of 400 ms"):
            pool.using(timeout=0.4).submit(fn, str(note)).result(PATIENCE)
        until(lambda: not lives(int(note.read_text())), "it has ended")
        assert pool.submit(abs, -1).result(PATIENCE) == 1


def test_the_start_of_the_process_is_not_the_jobs_time() -> None:
    with Pool(1, run_in="process", timeout=0.05) as pool:
        assert pool.submit(abs, -1).result(PATIENCE) == 1


@pytest.mark.parametrize("fn", [spin, stubborn])
def test_a_cancel_ends_the_process(fn: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.worker.processes.caller.GRACE", 0.2)
    note = tmp_path / "pid"
    with Pool(1, run_in="process") as pool:
        job = pool.submit(fn, str(note))
        until(lambda: note.exists() and note.read_text() != "", "it runs")
        assert job.cancel()
        with pytest.raises(JobCancelled):
            job.result(PATIENCE)
        assert job.state == State.CANCELLED
        until(lambda: not lives(int(note.read_text())), "it has ended")


@pytest.mark.parametrize("fn", [spin, stubborn])
def test_leaving_by_an_exception_ends_them(fn: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    note = tmp_path / "pid"
    with pytest.raises(LookupError), Pool(1, run_in="process") as pool:  # noqa: PT012
        pool.submit(fn, str(note))
        until(lambda: note.exists() and note.read_text() != "", "it runs")
        raise LookupError
    assert not lives(int(note.read_text()))
    assert "event=stuck" not in caplog.text


def test_a_script_finds_its_own_functions_and_classes(tmp_path: Path) -> None:
    script = tmp_path / "shop.py"
    script.write_text(
        """
from holdfast import Pool

class Order:
    def __init__(self, number): self.number = number

def work(order): return Order(order.number + 1)

if __name__ == "__main__":
    with Pool(1, run_in="process") as pool:
        done = pool.submit(work, Order(1)).result(30)
        print(type(done) is Order, done.number)
"""
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.stdout == "True 2\n", done.stderr


def test_a_script_without_a_main_guard_is_told(tmp_path: Path) -> None:
    script = tmp_path / "shop.py"
    script.write_text(
        """
from holdfast import Pool

def work(): return 1

with Pool(1, run_in="process") as pool:
    print(pool.submit(work).exception(30))
"""
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert "if __name__ == '__main__':" in done.stdout + done.stderr
    assert done.returncode == 0


def test_what_failed_there_is_kept_by_its_handle_alone() -> None:
    with Pool(1, run_in="process") as pool:
        gc.collect()
        gc.disable()
        try:
            job = pool.submit(fail_with, Point(1, 2))
            gone = weakref.ref(job.args[0])
            assert isinstance(job.exception(PATIENCE), KeyError)
            del job
            until(lambda: gone() is None, "it is let go")
        finally:
            gc.enable()
