"""What surrounds handlers, through `holdfast worker`: resources, hooks, carried variables, notes and what is saved."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from holdfast.app import parts_of
from holdfast.client.link import Link
from tests.flows import talk
from tests.flows.conftest import Guest, Ledger, Service, until

pytestmark = [pytest.mark.timeout(180)]


@pytest.fixture
def served(using: Callable[..., Any], serve: Callable[..., Service]) -> Callable[..., Service]:
    using(talk.jobs)
    return lambda *options: serve(*options, app="tests.flows.talk:jobs")


def said(id: UUID) -> list[str]:
    link: Link = parts_of(talk.jobs).link

    async def read() -> list[str]:
        return [line.text for line in await (await link.opened()).store.log(id)]

    return link.run(read)


@pytest.mark.parametrize("kind", ["plain", "coro", "apart"])
def test_a_handler_has_its_context_its_resources_and_is_heard(
    kind: str, ledger: Ledger, served: Callable[..., Service]
) -> None:
    service = served("--concurrency", "2")
    talk.tenant.set("acme")
    task: Any = {"plain": talk.plain, "coro": talk.coro, "apart": talk.apart}[kind]
    job = task.using(headers={"trace": "4bf9"}).enqueue()
    seen = job.result(timeout=60)
    assert seen == {"tenant": "acme", "trace": "4bf9", "pool": "pool", "http": "http" if kind == "coro" else None}
    until(lambda: said(job.id) == ["first", "second"], "what it said")
    until(lambda: (job.status().progress, job.status().text) == (0.75, "three of four"), "how far it is")
    assert service.stop() == 0, service.text()[-3000:]
    hooks = [line["event"] for line in ledger.lines() if "hook" in line["event"]]
    assert hooks == ["+hook acme", "-hook"]
    theirs = [line for line in ledger.lines() if line["pid"] != os.getpid()]  # `with jobs:` opens it here, too
    opened = [line["event"] for line in theirs if line["event"][1:] in ("pool", "http")]
    assert opened == ["+pool", "+http", *(["+pool", "-pool"] if kind == "apart" else []), "-http", "-pool"]


@pytest.mark.parametrize("kind", ["plain", "coro", "apart"])
def test_what_is_saved_outlives_a_kill(kind: str, ledger: Ledger, served: Callable[..., Service]) -> None:
    service = served("--concurrency", "2")
    task: Any = {"plain": talk.counts, "coro": talk.counts_on_loop, "apart": talk.counts_apart}[kind]
    job = task.enqueue(20, 7)
    until(lambda: ledger.count("step 7", job.id) == 1, "the middle")
    pid = ledger.lines("step 7")[0]["pid"]
    os.kill(pid, signal.SIGKILL)
    assert job.result(timeout=60) == 20
    counted = [ledger.count(f"step {number}", job.id) for number in range(20)]
    assert counted == [1] * 7 + [2] + [1] * 12, "only the step that was not saved is done again"
    until(lambda: len(said(job.id)) >= 13 and job.status().progress == 1, "what it said after the kill")
    assert service.stop() == 0, service.text()[-3000:]


def test_a_retry_by_hand_goes_on_from_what_was_saved(ledger: Ledger, served: Callable[..., Service]) -> None:
    service = served()
    job = talk.fails_after_saving.enqueue()
    until(lambda: job.status().state == "dead", "the end of its first life")
    job.retry()
    assert job.result(timeout=60) == "saved before: page 3"
    assert service.stop() == 0, service.text()[-3000:]


BROKEN = """
from holdfast import Holdfast
jobs = Holdfast()

@jobs.resource
def first():
    print("first is opened", flush=True)
    yield 1
    print("first is closed", flush=True)

@jobs.resource
{kind}def broken():
    raise OSError("no route to the database")
    yield 1
"""


@pytest.mark.parametrize("kind", ["", "async "], ids=["plain", "async"])
def test_a_worker_whose_resource_cannot_be_opened_exits_and_says_why(kind: str, url: str, tmp_path: Path) -> None:
    guest = Guest(url, tmp_path, BROKEN.format(kind=kind))
    try:
        code = guest.process.wait(60)
    finally:
        guest.stop()
    assert code not in (0, None)
    assert "resource guest.broken could not be opened: OSError: no route to the database" in guest.text()
    assert "Traceback" not in guest.text()


SLOW = """
import asyncio, sys, time
from holdfast import Holdfast
jobs = Holdfast()

@jobs.resource
def first():
    yield 1
    print("first is closed", file=sys.stderr, flush=True)

@jobs.resource
{opening}
    yield 1
"""
OPENINGS = {
    "plain": 'def slow():\n    print("it opens", file=sys.stderr, flush=True)\n    time.sleep(600)',
    "async": 'async def slow():\n    print("it opens", file=sys.stderr, flush=True)\n    await asyncio.sleep(600)',
    "thread": (
        'async def slow():\n    print("it opens", file=sys.stderr, flush=True)\n'
        "    await asyncio.to_thread(time.sleep, 600)"
    ),
}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["TERM", "INT"])
@pytest.mark.parametrize("kind", OPENINGS)
def test_a_stop_is_heard_while_a_resource_opens(kind: str, number: signal.Signals, url: str, tmp_path: Path) -> None:
    guest = Guest(url, tmp_path, SLOW.format(opening=OPENINGS[kind]))
    try:
        until(lambda: "it opens" in guest.text(), "it is not opened")
        guest.process.send_signal(number)
        code = guest.process.wait(60)
    finally:
        guest.stop()
    assert code == 0, guest.text()
    assert "event=killed" not in guest.text()
    assert 'event=opening resource=guest.slow message="given up' in guest.text()
    assert "first is closed" in guest.text()


ENDS = """
from asyncio import CancelledError
from holdfast import Holdfast
jobs = Holdfast()

@jobs.resource
{kind}def it():
    raise {error}
    yield 1
"""


@pytest.mark.parametrize("error", ["SystemExit(5)", "GeneratorExit", "CancelledError"])
@pytest.mark.parametrize("kind", ["", "async "], ids=["plain", "async"])
def test_whatever_an_opening_raises_the_worker_exits_and_names_it(
    kind: str, error: str, url: str, tmp_path: Path
) -> None:
    guest = Guest(url, tmp_path, ENDS.format(kind=kind, error=error))
    try:
        code = guest.process.wait(60)
    finally:
        guest.stop()
    assert code == 2
    assert "resource guest.it could not be opened: " + error.partition("(")[0] in guest.text()


@pytest.mark.every_store
def test_notes_of_many_jobs_are_few_writes(ledger: Ledger, served: Callable[..., Service]) -> None:
    service = served("--concurrency", "20")
    jobs = [talk.chatty.enqueue(200) for _ in range(20)]
    for job in jobs:
        assert job.result(timeout=60) == 200
    for job in jobs:
        until(lambda job=job: (len(said(job.id)), job.status().progress) == (100, 1), "what it said")  # type: ignore[misc]
    assert service.stop() == 0, service.text()[-3000:]
