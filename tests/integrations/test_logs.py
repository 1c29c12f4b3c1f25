"""WithJob: an application's own log lines say whose they are."""

import asyncio
import io
import logging
import logging.config
from collections.abc import Iterator

import pytest

from holdfast import Holdfast

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
