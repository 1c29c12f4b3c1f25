"""The app that the flow tests' worker processes run. Its handlers write a ledger, which is the witness."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path

from holdfast import Holdfast, Retry, current_job

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
