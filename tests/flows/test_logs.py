"""The log of `holdfast worker --log json`: every line an object, none lost, handlers' lines with their job."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from holdfast import Holdfast
from tests.flows.conftest import Guest, until
from tests.flows.scrape import ENDPOINT

pytestmark = pytest.mark.timeout(120)

GUEST = """
import logging, threading
from holdfast import Holdfast
jobs = Holdfast()
log = logging.getLogger("shop.mail")

@jobs.task
async def on_loop(n: int) -> None:
    log.info("loop %s", n)

@jobs.task
def in_thread(n: int) -> None:
    log.info("thread %s", n)

@jobs.task(run_in="process")
def apart(n: int) -> None:
    log.warning("apart %s \\u202e\\n", n)

@jobs.task
async def quiet(secret: str) -> None:
    pass
"""


@pytest.fixture
def jobs(url: str) -> Holdfast:
    return Holdfast(url)


def test_each_line_is_an_object_and_a_handlers_lines_carry_its_job(url: str, jobs: Holdfast, tmp_path: Path) -> None:
    def task(name: str) -> str:
        return f"guest.{name}"

    @jobs.task(name=task("on_loop"))
    async def on_loop(n: int) -> None: ...

    @jobs.task(name=task("in_thread"))
    async def in_thread(n: int) -> None: ...

    @jobs.task(name=task("apart"))
    async def apart(n: int) -> None: ...

    @jobs.task(name=task("quiet"))
    async def quiet(secret: str) -> None: ...

    with jobs:
        spoken = [on_loop.enqueue(1), in_thread.enqueue(2), apart.enqueue(3)]
        silent = jobs.enqueue_many(quiet.bind(f"hush {n}") for n in range(200))
        guest = Guest(url, tmp_path, GUEST, "--log", "json", "--processes", "2", "--log-arguments", *ENDPOINT)
        try:
            until(lambda: all(job.status().finished for job in [*spoken, *silent]), "all jobs")
            assert guest.stop() == 0, guest.text()
        finally:
            guest.process.kill()
    lines = [json.loads(line) for line in guest.text().splitlines()]
    assert all({"time", "level", "logger", "event"} <= line.keys() for line in lines)
    (serving,) = [line for line in lines if line["event"] == "serving"]
    assert re.fullmatch(r"http://127\.0\.0\.1:[1-9]\d*/metrics", serving["metrics"]), "the port that was free"
    assert (serving["processes"], serving["tasks"], serving["deadline"]) == (2, 4, 10.0)
    own = {line["message"]: line for line in lines if line["logger"] == "shop.mail"}
    assert {text.split()[0] for text in own} == {"loop", "thread", "apart"}
    assert {line["job"] for line in own.values()} == {str(job.id) for job in spoken}
    assert own["apart 3 \u202e\n"]["task"] == "guest.apart"
    told = Counter((line["job"], line["event"]) for line in lines if line["logger"] == "holdfast.job")
    for job in [*spoken, *silent]:
        assert (told[str(job.id), "started"], told[str(job.id), "succeeded"]) == (1, 1)
    arguments = [
        line["arguments"] for line in lines if line["event"] == "started" and line.get("task") == "guest.quiet"
    ]
    assert sorted(arguments) == sorted(f'"hush {n}"' for n in range(200))
