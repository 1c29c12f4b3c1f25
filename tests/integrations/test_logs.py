"""WithJob: an application's own log lines say whose they are."""

import asyncio
import contextvars
import io
import logging
import logging.config
import threading
from collections.abc import Iterator

import pytest

from holdfast import Holdfast, Pool

CONFIG = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {"job": {"()": "holdfast.integrations.logs.WithJob"}},
    "formatters": {"own": {"format": "[%(task)s %(job)s %(attempt)s] %(message)s"}},
    "handlers": {"own": {"class": "logging.StreamHandler", "filters": ["job"], "formatter": "own"}},
    "loggers": {"shop": {"handlers": ["own"], "level": "INFO", "propagate": False}},
}
log = logging.getLogger("shop.mail")


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    logging.config.dictConfig(CONFIG)
    handler = logging.getLogger("shop").handlers[0]
    assert isinstance(handler, logging.StreamHandler)
    stream = io.StringIO()
    handler.setStream(stream)
    yield stream
    logging.getLogger("shop").handlers.clear()


async def test_lines_of_both_kinds_of_handlers_and_of_nobody(lines: io.StringIO) -> None:
    jobs = Holdfast("memory://")

    @jobs.task(name="on_loop")
    async def on_loop() -> None:
        log.info("here")
        await asyncio.to_thread(log.info, "there")

    @jobs.task(name="in_thread")
    def in_thread() -> None:
        log.info("here")

    async with jobs, jobs.worker():
        first = await on_loop.aenqueue()
        await first.aresult(timeout=40)
        second = await in_thread.aenqueue()
        await second.aresult(timeout=40)
        log.info("nobody")
    assert lines.getvalue().splitlines() == [
        f"[on_loop {first.id} 1] here",
        f"[on_loop {first.id} 1] there",
        f"[in_thread {second.id} 1] here",
        "[  ] nobody",
    ]


async def test_what_a_handler_leaves_behind_is_no_jobs(lines: io.StringIO) -> None:
    jobs, over, left = Holdfast("memory://"), asyncio.Event(), list[asyncio.Task[None]]()

    async def heartbeat() -> None:
        log.info("within")
        await over.wait()
        log.info("after")

    @jobs.task(name="connects")
    async def connects() -> None:
        left.append(asyncio.create_task(heartbeat()))
        await asyncio.sleep(0)

    async with jobs, jobs.worker():
        job = await connects.aenqueue()
        await job.aresult(timeout=40)
        over.set()
        await asyncio.wait_for(left[0], 40)
    assert lines.getvalue().splitlines() == [f"[connects {job.id} 1] within", "[  ] after"]


def test_nor_is_what_a_pools_function_leaves_behind(lines: io.StringIO) -> None:
    over, done = threading.Event(), threading.Event()

    def heartbeat() -> None:
        log.info("within")
        begun.set()
        over.wait(40)
        log.info("after")
        done.set()

    begun = threading.Event()

    def connects() -> None:
        threading.Thread(target=contextvars.copy_context().run, args=(heartbeat,)).start()
        assert begun.wait(40)

    with Pool() as pool:
        job = pool.submit(connects)
        job.result(timeout=40)
        over.set()
        assert done.wait(40)
    within, after = lines.getvalue().splitlines()
    assert within.endswith(f"connects {job.id} 1] within")
    assert after == "[  ] after"
