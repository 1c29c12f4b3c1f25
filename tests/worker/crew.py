"""The app whose handlers run in slot processes for tests/worker/test_processes.py; it lives in memory."""

import asyncio
import contextlib
import ctypes
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast import Cancel, Holdfast, Permanent, Retry, Snooze, current_job

jobs = Holdfast("memory://", keep="1h")
TWICE = Retry(max_attempts=2, base_delay=0.01)

BOTH: list[str] = []  # handlers that exist as a task of either kind, to be compared


def both(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Makes two tasks of a function: in a thread, and in a process."""
    BOTH.append(fn.__name__)
    jobs.task(name=f"{fn.__name__}.thread", retry=TWICE)(fn)
    jobs.task(name=f"{fn.__name__}.process", retry=TWICE, run_in="process")(fn)
    return fn


@dataclass
class Point:
    x: int
    label: str


class Fatal(BaseException):
    pass


class Unreadable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


# --- how a handler can end, each in a thread and in a process


@both
def returns() -> Point:
    return Point(3, "ü \ud800"[:2] + "\x00")


@both
def raises() -> None:
    raise ValueError("no, \ud800\x00 \N{SNOWMAN}")


@both
def gives_up() -> None:
    raise Permanent("never")


@both
def cancels_itself() -> None:
    raise Cancel("not wanted")


@both
def comes_later() -> int:
    if not (_here() / f"snoozed-{current_job().id}").exists():
        (_here() / f"snoozed-{current_job().id}").touch()
        raise Snooze(0.01, "not now")
    return current_job().attempt


@both
def names_the_delay() -> int:
    if current_job().attempt == 1:
        raise Retry.after(0.01, "soon")
    return current_job().attempt


@both
def exits() -> None:
    sys.exit(3)


@both
def is_fatal() -> None:
    raise Fatal("more than an error")


@both
def is_interrupted() -> None:
    raise KeyboardInterrupt


@both
def cannot_be_read() -> None:
    raise Unreadable


@both
def returns_no_json() -> Any:
    return object()


@both
def goes_deep() -> int:
    def down(n: int) -> int:
        return down(n + 1) + 1

    return down(0)


@both
def says_much() -> None:
    raise ValueError("é" * 5_000_000)


@both
def returns_much() -> str:
    return "x" * 1_000_000


def _here() -> Path:
    return Path(os.environ["CREW"])


# --- in processes alone


@jobs.task(run_in="process")
def pid() -> int:
    return os.getpid()


@jobs.task
def thread_pid() -> int:
    return os.getpid()


@jobs.task(run_in="process")
async def async_pid() -> int:
    await asyncio.sleep(0)
    return os.getpid()


@jobs.task(run_in="process", timeout=30)
def looks_around() -> dict[str, Any]:
    job = current_job()
    job.check()
    left = job.time_left
    return {
        "id": str(job.id),
        "task": job.task,
        "queue": job.queue,
        "attempt": job.attempt,
        "fence": job.fence,
        "held": job.held,
        "cancelled": job.cancelled,
        "left": left,
    }


def _begin(name: str) -> list[int]:
    """Notes this process, and returns those noted before that still run."""
    file = _here() / name
    before = [int(line) for line in file.read_text().split()] if file.exists() else []
    with file.open("a") as out:
        out.write(f"{os.getpid()}\n")
    return [other for other in before if other != os.getpid() and _runs(other)]


def _runs(other: int) -> bool:
    try:
        state = Path(f"/proc/{other}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


@jobs.task(run_in="process", timeout=0.3, retry=TWICE)
def spins(name: str) -> list[int]:
    """Pure Python, for ever; at its second attempt it tells which of the former processes still run."""
    still = _begin(name)
    while current_job().attempt == 1:
        pass
    return still


@jobs.task(run_in="process", timeout=0.3, retry=TWICE)
def backtracks(name: str) -> list[int]:
    """One C call that holds the interpreter, for ever."""
    still = _begin(name)
    if current_job().attempt == 1:
        re.match(r"(a+)+$", "a" * 60 + "b")
    return still


@jobs.task(run_in="process")
def waits(name: str) -> None:
    """Until it is stopped; says so."""
    _begin(name)
    try:
        time.sleep(600)
    finally:
        (_here() / f"{name}.stopped").write_text(f"{current_job().cancelled}")


@jobs.task(run_in="process")
async def waits_async(name: str) -> None:
    _begin(name)
    try:
        await asyncio.sleep(600)
    finally:
        (_here() / f"{name}.stopped").write_text(f"{current_job().cancelled}")


@jobs.task(run_in="process")
def is_deaf(name: str) -> None:
    """Goes on whatever it is told, and has a process of its own that does."""
    with contextlib.suppress(OSError):
        child = subprocess.Popen(["sleep", "600"])
        with (_here() / name).open("a") as out:
            out.write(f"{child.pid}\n")
    _begin(name)
    while True:
        with contextlib.suppress(BaseException):
            time.sleep(600)


@jobs.task(run_in="process")
def holds_the_interpreter(name: str) -> None:
    """One C call that lets no other thread run."""
    _begin(name)
    re.match(r"(a+)+$", "a" * 60 + "b")


@jobs.task(run_in="process")
def returns_when_stopped(name: str) -> str:
    _begin(name)
    with contextlib.suppress(BaseException):
        time.sleep(600)
    return "done all the same"


@jobs.task(run_in="process", retry=Retry(max_attempts=1, max_crashes=2))
def dies(how: str) -> None:
    match how:
        case "exit":
            os._exit(7)
        case "segfault":
            ctypes.string_at(0)
        case _:
            os.kill(os.getpid(), signal.SIGKILL)


@jobs.task(run_in="process")
def closes_everything() -> str:
    os.closerange(0, 4096)
    return "closed"


@jobs.task(run_in="process", retry=TWICE)
def closes_and_reuses(name: str) -> str:
    """What it opens gets the numbers of what it closed; nobody else may write there."""
    os.closerange(3, 4096)
    for _ in range(10):
        os.open(_here() / name, os.O_RDWR | os.O_CREAT)
    if current_job().attempt == 1:
        raise ValueError("closed")
    return (_here() / name).read_text()


@jobs.task(run_in="process")
def forks(how: str) -> int:
    """Its copy comes back from the handler, too; returns how that ended."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if how == "exit":
        sys.exit(5)
    if how == "raise":
        raise ValueError("in the copy")
    return -1


@jobs.task(run_in="process", retry=TWICE)
def leaves_a_process(kind: str) -> list[int]:
    """A child, or a daemon in its group whose parent is gone."""
    still = _begin(kind)
    if kind == "child":
        pid = subprocess.Popen(["sleep", "600"]).pid
    else:
        command = ["sh", "-c", "sleep 600 >&- & echo $!"]
        pid = int(subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=30).stdout)
    with (_here() / kind).open("a") as out:
        out.write(f"{pid}\n")
    if current_job().attempt == 1:
        raise ValueError("again, please")
    return still


@jobs.task(run_in="process", retry=TWICE)
def leaves_a_thread(name: str) -> int:
    """Which goes on writing after its handler has failed; returns by how much the file grew meanwhile."""
    file = _here() / name
    if current_job().attempt == 2:
        before = file.stat().st_size
        time.sleep(0.2)
        return file.stat().st_size - before
    written = threading.Event()

    def write() -> None:
        while True:
            with file.open("a") as out:
                out.write("x")
            written.set()
            time.sleep(0.005)

    threading.Thread(target=write, daemon=True).start()
    written.wait(10)
    raise ValueError("again, please")


@jobs.task(run_in="process")
def spoils_signals() -> int:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    return os.getpid()


@jobs.task(run_in="process")
def sleeps(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


@jobs.task(run_in="process")
def enqueues() -> str:
    return str(pid.enqueue().id)


@jobs.task(run_in="process")
def hoards(mib: int) -> int:
    _hoard.append(b"x" * (mib * 2**20))
    return os.getpid()


_hoard: list[bytes] = []
