"""The app of tests/flows/test_slots.py: handlers in processes of their own, which write the ledger."""

import asyncio
import contextlib
import os
import subprocess
import time
from pathlib import Path

from holdfast import Holdfast, Retry, current_job
from tests.flows.pids import runs
from tests.flows.shop import note

jobs = Holdfast()
PATIENT = Retry(max_attempts=4, base_delay=0.1)


@jobs.task(run_in="process", retry=PATIENT)
def press(number: int, seconds: float = 0.05) -> int:
    """Takes a while; its effect comes last."""
    note("begin")
    time.sleep(seconds)
    note("effect")
    return number


@jobs.task(run_in="process", retry=PATIENT)
async def press_async(number: int, seconds: float = 0.05) -> int:
    note("begin")
    await asyncio.sleep(seconds)
    note("effect")
    return number


@jobs.task(run_in="process")
def has_a_family() -> None:
    """Starts processes of its own, and never looks whether it should stop; each attempt says who of the last lives."""
    family = Path(os.environ["LEDGER"]).with_name("family")
    living = [pid for pid in family.read_text().split() if runs(int(pid))] if family.exists() else []
    for pid in living:
        note(f"living {pid}")
    child = subprocess.Popen(["sleep", "600"])
    daemon = subprocess.run(["sh", "-c", "sleep 600 >&- & echo $!"], stdout=subprocess.PIPE, check=True, timeout=30)
    with family.open("a") as file:
        file.write(f"{os.getpid()}\n{child.pid}\n{daemon.stdout.decode()}")
    note("begin")
    while current_job().fence < 3:  # at its second run it is content
        with contextlib.suppress(BaseException):
            time.sleep(600)


@jobs.task
def neighbour(seconds: float) -> int:
    """In a thread of the worker itself."""
    note("begin")
    time.sleep(seconds)
    note("effect")
    return os.getpid()


@jobs.task(run_in="process", retry=Retry(max_attempts=1, max_crashes=2))
def poison() -> None:
    note("begin")
    os._exit(9)


@jobs.task(run_in="process", retry=Retry(max_attempts=1, max_crashes=1))
def fragile() -> int:
    """Dead, should its first run be charged with the death of its process; its second is content."""
    note("begin")
    time.sleep(600 if current_job().fence == 1 else 0)
    note("effect")
    return os.getpid()


@jobs.task
async def twice_unlucky() -> int:
    """Ends its whole worker process, until it runs in one of its own."""
    note("begin")
    if current_job().fence <= 3:
        os._exit(7)
    note("effect")
    return os.getpid()


@jobs.task(run_in="process")
def chain(number: int) -> str:
    """Enqueues from inside its process, to the store that the worker has."""
    note("begin")
    return str(press.enqueue(number).id)


@jobs.task(run_in="process")
def starts_a_session() -> None:
    """Starts a process that leaves its group and its session, and never looks whether it should stop."""
    child = subprocess.Popen(["sleep", "600"], start_new_session=True)
    with Path(os.environ["LEDGER"]).with_name("family").open("a") as file:
        file.write(f"{child.pid}\n")
    note("begin")
    while True:
        with contextlib.suppress(BaseException):
            time.sleep(600)
