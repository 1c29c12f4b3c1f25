"""The app that the flow tests' worker processes run. Its handlers write a ledger, which is the witness."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import mmap
import operator
import os
import signal
import subprocess
import time
from functools import partial
from pathlib import Path

from holdfast import Holdfast, Retry, current_job
from tests.flows.pids import runs

jobs = Holdfast()


def note(event: str) -> None:
    """One line in the ledger: one write, so that lines of several processes never mix."""
    job = current_job()
    line = {"event": event, "job": str(job.id), "fence": job.fence, "attempt": job.attempt, "pid": os.getpid()}
    ledger = os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(ledger, json.dumps({**line, "at": time.time()}).encode() + b"\n")
    finally:
        os.close(ledger)


@jobs.task(retry=Retry(max_attempts=4, base_delay=0.1))
async def work(number: int, fails_first: bool = False, seconds: float = 0.05) -> int:
    """Takes a while; fails at its first attempt if it is told to; its effect comes last."""
    note("begin")
    await asyncio.sleep(seconds)
    if fails_first and current_job().attempt == 1:
        note("failed")
        raise ConnectionError("not the first time")
    note("effect")
    return number


@jobs.task(retry=Retry(max_attempts=4, base_delay=0.1))
def thread_work(number: int, seconds: float = 0.05) -> int:
    """The same in a thread."""
    note("begin")
    time.sleep(seconds)
    note("effect")
    return number


def _there(name: str) -> bool:
    """Whether the test has made the file `name` beside the ledger."""
    return Path(os.environ["LEDGER"]).with_name(name).exists()


@jobs.task
async def held(until: str) -> str:
    """Runs until the file `until` is there."""
    note("begin")
    while not _there(until):  # noqa: ASYNC110  # a file tells nobody
        await asyncio.sleep(0.01)
    note("effect")
    return until


@jobs.task
def held_in_thread(until: str) -> str:
    """The same in a thread, which never looks whether it should stop."""
    note("begin")
    while not _there(until):
        time.sleep(0.01)
    note("effect")
    return until


@jobs.task
def waits_for_a_child() -> bool:
    """Starts a process and waits for it; in its next run it says whether that of the first still runs."""
    file = Path(os.environ["LEDGER"]).with_name("child")
    if file.exists():
        return runs(int(file.read_text()))
    child = subprocess.Popen(["sleep", "600"])
    file.write_text(str(child.pid))
    note("begin")
    child.wait()
    return True


@jobs.task
async def wait_async() -> None:
    """Runs until it is stopped; says so in the ledger."""
    note("begin")
    try:
        await asyncio.sleep(600)
    except asyncio.CancelledError:
        note("stopped")
        raise
    note("effect")


@jobs.task
def wait_in_thread() -> None:
    """Runs until it is stopped; says so in the ledger."""
    note("begin")
    job = current_job()
    end = time.monotonic() + 600
    try:
        while time.monotonic() < end:
            job.check()
            time.sleep(0.01)
    except BaseException:
        note("stopped")
        raise
    note("effect")


@jobs.task
def deaf(seconds: float = 600) -> None:
    """A thread that never looks whether it should stop."""
    note("begin")
    Path(os.environ["LEDGER"]).parent.joinpath("deaf").touch()
    time.sleep(seconds)
    note("effect")


@jobs.task
async def poison() -> None:
    """Ends its whole process."""
    note("begin")
    os._exit(7)


@jobs.task
def poison_in_thread() -> None:
    """The same in a thread."""
    note("begin")
    os._exit(7)


@jobs.task
async def segfaults_on_loop() -> None:
    """Reads what is not there."""
    note("begin")
    await asyncio.sleep(0)
    ctypes.string_at(0)


@jobs.task
def segfaults_in_thread() -> None:
    """The same in a thread."""
    note("begin")
    ctypes.string_at(0)


@jobs.task
def hogs_memory(mib: int) -> None:
    """Takes memory, and ends as the system would end it in the end, which a test cannot wait for."""
    note("begin")
    hoard = b"x" * (mib * 2**20)
    os.kill(os.getpid(), signal.SIGKILL)
    del hoard


def _spin_until(name: str) -> None:
    """Pure Python that never waits, until the file `name` is there."""
    while not _there(name):
        sum(range(10_000))


@jobs.task
async def blocks_the_loop(until: str) -> str:
    """An async handler that forgot to be one."""
    note("begin")
    _spin_until(until)
    note("effect")
    return until


@jobs.task
async def blocks_the_loop_when(asked: str) -> None:
    """Waits for the file `asked`, which it takes away, and blocks the loop from then on; its next run waits again."""
    note("begin")
    while not _there(asked):  # noqa: ASYNC110  # a file tells nobody
        await asyncio.sleep(0.01)
    Path(os.environ["LEDGER"]).with_name(asked).unlink()
    _spin_until("never")


@jobs.task
def spins(until: str) -> str:
    """A plain handler that is busy in Python all the time, and never looks whether it should stop."""
    note("begin")
    _spin_until(until)
    note("effect")
    return until


@jobs.task
def holds_the_interpreter(seconds: float, until: str) -> str:
    """C calls of `seconds` or more that let no other thread run meanwhile, until the file `until` is there."""
    note("begin")
    while not _there(until):
        sum(range(int(4e7 * seconds)))  # it takes no break
    note("effect")
    return until


@jobs.task
async def holds_it_on_the_loop(seconds: float, until: str) -> str:
    """The same in an async handler."""
    return holds_the_interpreter.fn(seconds, until)


@jobs.task
def holds_it_throughout(until: str) -> str:
    """One C call that lets no other thread run, until the first byte of the file `until`, which it makes, is a 1."""
    file = Path(os.environ["LEDGER"]).with_name(until)
    file.write_bytes(b"\0")
    with file.open("r+b") as opened, mmap.mmap(opened.fileno(), 1) as mapped:
        note("begin")
        looks = iter(partial(operator.getitem, mapped, 0), 1)
        sum(looks)  # all of it in C, which takes no break
    note("effect")
    return until


@jobs.task
async def holds_it_throughout_on_the_loop(until: str) -> str:
    """The same in an async handler."""
    return holds_it_throughout.fn(until)


@jobs.task
def pids() -> int:
    """Which process ran it."""
    note("begin")
    note("effect")
    return os.getpid()


@jobs.task
def hoards(mib: int) -> int:
    """Keeps memory for good."""
    note("begin")
    _hoard.append(b"x" * (mib * 2**20))
    note("effect")
    return os.getpid()


_hoard: list[bytes] = []


@jobs.task
def orphans(number: int) -> int:
    """Leaves processes behind whose parent is gone, and which nobody waits for."""
    for _ in range(number):
        subprocess.run(["sh", "-c", "sleep 0.2 & exit 0"], check=True)
    return number


@jobs.task
async def swallows_its_cancel(seconds: float) -> None:
    """An async handler that goes on whatever it is asked."""
    note("begin")
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0.05)
    note("effect")
