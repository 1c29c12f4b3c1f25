"""The app for tests/worker/test_surroundings.py: handlers in slot processes that talk, with hooks and resources."""

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from holdfast import CurrentJob, Holdfast, Retry, Stop, current_job
from holdfast.errors import StoreError

tenant: ContextVar[str] = ContextVar("tenant")
jobs = Holdfast("memory://", keep="1h", carry=[tenant])
AGAIN = Retry(max_attempts=3, base_delay=0)


def note(event: str) -> None:
    with (Path(os.environ["TALKERS"]) / "seen").open("a") as file:
        file.write(f"{os.getpid()} {event}\n")


@jobs.resource
def files() -> Iterator[str]:
    if "BROKEN" in os.environ:
        raise OSError("no such disk")
    note("+files")
    yield "files"
    note("-files")


@jobs.resource
def never_used() -> Iterator[str]:
    note("+never_used")
    yield "never used"
    note("-never_used")


@jobs.resource
async def http() -> AsyncIterator[str]:
    files()
    await asyncio.sleep(0)
    note("+http")
    yield "http"
    await asyncio.sleep(0)
    note("-http")


@jobs.around
def hook(job: CurrentJob) -> Iterator[None]:
    note(f"+hook {tenant.get('nobody')}")
    try:
        yield
    except BaseException as error:
        note(f"hook saw {type(error).__name__}")
        raise
    note("-hook")


@jobs.task(run_in="process")
def says() -> dict[str, Any]:
    job = current_job()
    for number in range(200):
        job.progress(number, 200, text=f"number {number}")
    for number in range(5):
        job.log(f"line {number}")
    job.progress(3, 4)
    return {"tenant": tenant.get("nobody"), "headers": dict(job.headers)}


@jobs.task(run_in="process")
def says_and_waits(name: str) -> None:
    job = current_job()
    job.log("begun")
    job.progress(0.25)
    (Path(os.environ["TALKERS"]) / name).touch()
    while True:
        job.check()
        time.sleep(0.001)


@jobs.task(run_in="process", retry=AGAIN)
def saves() -> list[int]:
    job = current_job()
    before = job.saved(list[int], [])
    job.save([*before, job.attempt])
    if job.attempt < 3:
        raise ValueError("again")
    return job.saved(list[int], [])


@jobs.task(run_in="process", retry=AGAIN)
async def saves_async() -> list[int]:
    job = current_job()
    before = job.saved(list[int], [])
    await job.asave([*before, job.attempt])
    if job.attempt < 3:
        raise ValueError("again")
    return job.saved(list[int], [])


@jobs.task(run_in="process")
def saves_much() -> int:
    current_job().save("é" * 500_000)
    return len(current_job().saved(str, ""))


@jobs.task(run_in="process")
def meets_what_a_save_raises() -> str:
    try:
        current_job().save(1)
    except StoreError as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


@jobs.task(run_in="process")
def saves_from_threads() -> int:
    job = current_job()

    def talk(number: int) -> None:
        for _ in range(20):
            job.save(number)
        job.log(f"thread {number}")

    threads = [threading.Thread(target=talk, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return job.saved(int, -1)


@jobs.task(run_in="process")
def closes_everything() -> str:
    job = current_job()
    job.log("before")
    os.closerange(3, 1_000)
    job.log("after")
    job.progress(1)
    try:
        job.save(1)
    except StoreError as error:
        return str(error)
    return "saved"


@jobs.task(run_in="process")
def looks(name: str, look: str) -> None:
    job = current_job()
    try:
        (Path(os.environ["TALKERS"]) / name).touch()  # within: from here on it may be asked to end
        while True:
            with suppress(Exception):
                job.check() if look == "check" else job.save(1)
    except Stop as stop:
        note(f"stopped {stop.why}")
        raise


@jobs.task(run_in="process")
async def looks_async(name: str, look: str) -> None:
    job = current_job()
    try:
        (Path(os.environ["TALKERS"]) / name).touch()  # within: from here on it may be asked to end
        while True:
            with suppress(Exception, asyncio.CancelledError):
                job.check() if look == "check" else await job.asave(1)
                await asyncio.sleep(0)
    except Stop as stop:
        note(f"stopped {stop.why}")
        raise


looks_timed = jobs.task(name="looks_timed", run_in="process", timeout=0.3)(looks.fn)
looks_async_timed = jobs.task(name="looks_async_timed", run_in="process", timeout=0.3)(looks_async.fn)


@jobs.task(run_in="process")
def tidies_up(name: str) -> str:
    job = current_job()
    (Path(os.environ["TALKERS"]) / name).touch()
    try:
        while True:
            job.check()
            time.sleep(0.001)
    except Stop as stop:
        return f"closed the file: {stop.why}"


@jobs.task(run_in="process")
def uses(count: int) -> list[str]:
    return [files() for _ in range(count)]


@jobs.task(run_in="process")
async def uses_async() -> list[str]:
    return [files(), http()]


@jobs.task
async def on_the_loop() -> str:
    return http()


@jobs.task(run_in="process")
def wants_the_async_one() -> str:
    return http()


@jobs.task(run_in="process")
def pid() -> int:
    return os.getpid()
