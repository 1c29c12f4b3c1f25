"""The app for tests/flows/test_handlers.py: hooks, resources, carried variables, and handlers that talk."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar
from typing import Any

from holdfast import CurrentJob, Holdfast, Permanent, current_job

tenant: ContextVar[str] = ContextVar("tenant")
jobs = Holdfast(carry=[tenant])


def note(event: str, job: object = None) -> None:
    line = json.dumps({"event": event, "job": str(job), "pid": os.getpid()}) + "\n"
    descriptor = os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_APPEND)
    os.write(descriptor, line.encode())
    os.close(descriptor)


@jobs.resource
def pool() -> Iterator[str]:
    note("+pool")
    yield "pool"
    note("-pool")


@jobs.resource
async def http() -> AsyncIterator[str]:
    await asyncio.sleep(0)
    note("+http")
    yield "http"
    await asyncio.sleep(0)
    note("-http")


@jobs.around
def hook(job: CurrentJob) -> Iterator[None]:
    if job.task.endswith((".plain", ".coro", ".apart")):
        note(f"+hook {tenant.get('nobody')}")
        yield
        note("-hook")
    else:
        yield


def _talk() -> dict[str, Any]:
    job = current_job()
    job.log("first")
    job.progress(3, 4, text="three of four")
    job.log("second")
    return {"tenant": tenant.get(), "trace": job.headers["trace"], "pool": pool(), "http": None}


@jobs.task
def plain() -> dict[str, Any]:
    return _talk()


@jobs.task
async def coro() -> dict[str, Any]:
    return {**_talk(), "http": http()}


@jobs.task(run_in="process")
def apart() -> dict[str, Any]:
    return _talk()


@jobs.task
def counts(upto: int, stops_at: int) -> int:
    job = current_job()
    for number in range(job.saved(int, 0), upto):
        note(f"step {number}", job.id)
        job.log(f"step {number}")
        if number == stops_at and job.fence == 1:
            time.sleep(600)
        job.progress(number + 1, upto)
        job.save(number + 1)
    return job.saved(int, 0)


counts_apart = jobs.task(name="counts_apart", run_in="process")(counts.fn)


@jobs.task
async def counts_on_loop(upto: int, stops_at: int) -> int:
    job = current_job()
    for number in range(job.saved(int, 0), upto):
        note(f"step {number}", job.id)
        job.log(f"step {number}")
        if number == stops_at and job.fence == 1:
            await asyncio.sleep(600)
        job.progress(number + 1, upto)
        await job.asave(number + 1)
    return job.saved(int, 0)


@jobs.task
def fails_after_saving() -> str:
    job = current_job()
    before = job.saved(str, "")
    if not before:
        job.save("page 3")
        raise Permanent("look at me")
    return f"saved before: {before}"


@jobs.task
def chatty(count: int) -> int:
    job = current_job()
    for number in range(100):
        job.log(f"line {number}")
    for number in range(count):
        job.progress(number + 1, count)
    return count
