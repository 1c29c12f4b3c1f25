"""How lines are written: together where one turn of a loop tells them, in order, whole, none lost and none twice."""

import asyncio
import io
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from holdfast.context import current, detached
from holdfast.job import Claim, Terms
from holdfast.observe import logging as observed
from holdfast.observe.lines import MOST, Lines
from holdfast.observe.logging import configure, flush, tell, tell_usual
from holdfast.observe.told import Told
from holdfast.worker.report import tell_of, tell_started

JOB = UUID("01a20391-922e-7b4c-a1d0-5f6e8c2b7c3e")
CLAIM = Claim(JOB, 2, UUID(int=1), "shop.pay", "mail", b"{}", Terms(max_attempts=5), 0, 2, 0, 0, 0, False, 0, 0, 0)


class Written(io.StringIO):
    """A stream that keeps each write by itself."""

    def __init__(self, descriptor: int | None = None) -> None:
        super().__init__()
        self.writes: list[str] = []
        self._descriptor = descriptor

    def write(self, text: str) -> int:
        self.writes.append(text)
        return len(text)

    def fileno(self) -> int:
        return super().fileno() if self._descriptor is None else self._descriptor

    @property
    def lines(self) -> list[str]:
        return "".join(self.writes).splitlines()


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> Iterator[Written]:
    """What our lines are written to, as in a worker process; our logger is afterwards as it was."""
    logger, root = observed.ours, logging.getLogger()
    before = (logger.level, logger.propagate, list(logger.handlers), list(root.handlers))
    stream = Written()
    logger.handlers = []
    monkeypatch.setattr(observed, "_installed", [])
    monkeypatch.setattr(sys, "stderr", stream)
    configure("kv", "info", together=True)
    yield stream
    logger.setLevel(before[0])
    logger.propagate, logger.handlers, root.handlers = before[1:]


def _events(stream: Written) -> list[str]:
    return [line.partition("event=")[2].split()[0] for line in stream.lines]


def _pytest_aside() -> None:
    """In a worker nobody else listens; pytest has added handlers since the fixture."""
    observed.ours.handlers[:] = [handler for handler in observed.ours.handlers if isinstance(handler, Lines)]


async def _turn_over() -> None:
    await asyncio.sleep(0)
    await asyncio.sleep(0)


async def test_what_one_turn_tells_is_written_at_once_when_it_is_over(stream: Written) -> None:
    _pytest_aside()
    for number in range(50):
        tell_usual("started", CLAIM, "waited", float(number))
        tell(observed.workers, logging.INFO, "told", number=number)
    assert stream.writes == []
    await _turn_over()
    assert _events(stream) == ["started", "told"] * 50
    assert all(text.endswith("\n") for text in stream.writes)
    assert len(stream.writes) < 20, "each line was a write of its own"


async def test_a_first_step_that_is_to_come_finds_its_start_written(stream: Written) -> None:
    found: list[list[str]] = []

    async def handler() -> None:
        found.append(_events(stream))

    _pytest_aside()
    tell_usual("started", CLAIM, "waited", 0.1)
    await asyncio.create_task(handler())
    assert found == [["started"]]


@pytest.mark.parametrize("how", ["warning", "plain"])
async def test_a_warning_and_a_handlers_word_wait_for_nothing(stream: Written, how: str) -> None:
    tell_of(CLAIM, logging.INFO, "started", waited=0.1)
    if how == "warning":
        tell(observed.workers, logging.WARNING, "message")
    else:
        observed.workers.info("paying")
    assert _events(stream) == ["started", "message"], "at once, and in order"


async def test_another_thread_writes_at_once_and_all_that_waits_before_it(stream: Written) -> None:
    tell_of(CLAIM, logging.INFO, "started", waited=0.1)
    thread = threading.Thread(target=tell, args=(observed.workers, logging.INFO, "told"))
    thread.start()
    thread.join(30)
    assert _events(stream) == ["started", "told"]


def test_off_a_loop_each_line_is_written_at_once(stream: Written) -> None:
    tell_of(CLAIM, logging.INFO, "started", waited=0.1)
    assert len(stream.writes) == 1


async def test_what_waits_is_bounded(stream: Written) -> None:
    _pytest_aside()
    for _ in range(MOST + 1):
        tell_usual("started", CLAIM, "waited", 0.1)
    assert len(stream.lines) == MOST


async def test_a_pulse_writes_what_a_blocked_loop_has_told(stream: Written) -> None:
    tell_of(CLAIM, logging.INFO, "succeeded", ran=0.1)
    thread = threading.Thread(target=flush)
    thread.start()
    thread.join(30)  # this loop does not go on
    assert _events(stream) == ["succeeded"]
    await _turn_over()
    assert len(stream.lines) == 1


async def test_a_write_to_a_pipe_is_one_that_no_other_process_can_tear(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    try:
        stream = Written(writer)
        lines = Lines(stream, together=True)
        for number in range(300):
            text = f"{number} {'é' if number % 2 else 'e'}{'x' * (number % 90)}"
            lines.emit(logging.makeLogRecord({"msg": Told(text, {}), "levelno": logging.INFO}))
        await _turn_over()
        assert [int(line.split()[0].removeprefix("event=")) for line in stream.lines] == list(range(300))
        assert all(len(text.encode()) <= 4096 and text.endswith("\n") for text in stream.writes)
        assert len(stream.writes) < 10
    finally:
        os.close(reader)
        os.close(writer)


async def test_lines_of_many_threads_and_loops_come_whole_each_once(stream: Written) -> None:
    def tells(who: int) -> None:
        async def on_a_loop() -> None:
            for number in range(200):
                tell(observed.workers, logging.INFO, "told", who=who, number=number)
                if number % 7 == 0:
                    await asyncio.sleep(0)

        if who % 2:
            asyncio.run(on_a_loop())
        else:
            for number in range(200):
                tell(observed.workers, logging.INFO, "told", who=who, number=number)

    threads = [threading.Thread(target=tells, args=(who,)) for who in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join, 40)
    flush()
    pairs = [(line.partition(" who=")[2].split()[0], line.partition(" number=")[2].split()[0]) for line in stream.lines]
    assert sorted(pairs) == sorted((str(who), str(number)) for who in range(6) for number in range(200))
    for who in range(6):
        assert [int(number) for one, number in pairs if one == str(who)] == list(range(200)), "in order"


async def test_a_stream_that_fails_costs_a_line_and_nothing_else(
    stream: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell_of(CLAIM, logging.INFO, "started", waited=0.1)
    with monkeypatch.context() as patch:
        patch.setattr(stream, "write", lambda _: 1 / 0)
        await _turn_over()
    tell_of(CLAIM, logging.INFO, "succeeded", ran=0.1)
    await _turn_over()
    assert _events(stream) == ["succeeded"]


# --- the short way


@pytest.mark.parametrize("style", ["kv", "json"])
async def test_the_short_way_says_what_the_long_one_says(
    stream: Written, monkeypatch: pytest.MonkeyPatch, style: Any
) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    configure(style, "info", together=True)
    hostile = CLAIM._replace(task='a "b"\n\x1b[2J', queue="x y")
    made: list[str] = []
    make = observed.jobs.makeRecord
    monkeypatch.setattr(observed.jobs, "makeRecord", lambda *args: made.append(args[0]) or make(*args))
    pytests = [handler for handler in observed.ours.handlers if not isinstance(handler, Lines)]
    said: list[str] = []
    for listeners in ([], pytests):
        stream.writes.clear()
        observed.ours.handlers[:] = [*observed._installed, *listeners]  # noqa: SLF001
        for claim in (CLAIM, hostile):
            tell_usual("started", claim, "waited", 0.0)
            tell_usual("succeeded", claim, "ran", 0.61234)
        await _turn_over()
        said += ["\n".join(_untimed(line) for line in stream.lines)]
        assert len(made) == (4 if listeners else 0)
    assert said[0] == said[1]
    assert said[0].count("\n") == 3


def _untimed(line: str) -> str:
    return json.dumps({**json.loads(line), "time": ""}) if line.startswith("{") else line.partition("Z ")[2]


async def test_who_listens_too_gets_records(stream: Written) -> None:
    heard: list[str] = []

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(record.getMessage())

    ear = Ear()
    for logger in (observed.ours, observed.jobs):
        logger.addHandler(ear)
        tell_of(CLAIM, logging.INFO, "succeeded", ran=0.6)
        logger.removeHandler(ear)
    observed.ours.handlers[0].addFilter(lambda record: not heard.append("filtered"))
    tell_of(CLAIM, logging.INFO, "succeeded", ran=0.6)
    assert len(heard) == 3
    assert heard[2] == "filtered"
    assert heard[0] == f"event=succeeded task=shop.pay job={JOB} queue=mail attempt=2/5 fence=2 ran=0.6"


# --- whose line it is


async def test_a_handlers_own_lines_carry_its_job(stream: Written) -> None:
    job = detached("shop.pay", "mail")
    logger = observed.ours.getChild("shop")
    token = current.set(job)
    try:
        logger.info("paying %s", 42)
        await asyncio.to_thread(logger.warning, "in a thread")
    finally:
        current.reset(token)
    logger.info("outside")
    more = {
        "order": 42,
        "job": "forged",
        "a b": 1,
        "worker": "forged",
        **{f"field_{number}": 0 for number in range(50)},
    }
    logger.info("paid twice", extra=more)
    inside, thread, outside, extra = stream.lines
    assert 'message="paid twice" order=42 field_0=0' in extra
    assert "forged" not in extra
    assert "a b" not in extra
    assert "field_40" not in extra
    assert f'message="paying 42" task=shop.pay job={job.id}' in inside
    assert f"job={job.id}" in thread
    assert "job=" not in outside


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        (b'{"args":[42],"kwargs":{"to":"a@b.example"}}', '42, to=\\"a@b.example\\"'),
        (b'{"args":["\\u001b[2J\\u202e"]}', "u001b[2J⟪RLO⟫"),
        (b"not json", "not readable"),
        (b'{"args":[]}', "waited=0.5"),
        (b"[1]", "not readable"),
        (b'{"args":["' + b"x" * 5_000 + b'"]}', "… 4,502 more"),
        (b'{"args":["' + b"x" * 70_000 + b'"]}', "… 70,013 bytes"),
    ],
)
def test_arguments_are_told_only_where_somebody_asks_bounded_and_harmless(
    stream: Written, monkeypatch: pytest.MonkeyPatch, payload: bytes, text: str
) -> None:
    claim = CLAIM._replace(payload=payload)
    tell_started(claim, waited=0.5)
    assert "arguments" not in stream.lines[0]
    monkeypatch.setattr("holdfast.worker.report.shown", {"arguments"})
    tell_started(claim, waited=0.5)
    assert text in stream.lines[1]
    assert 'arguments=""' not in stream.lines[1]
    assert stream.lines[1].isprintable()
    assert len(stream.lines[1]) < 1_000


# --- a process's end

ENDS = """
import asyncio, logging, os, sys
from holdfast.observe import logging as observed
observed.configure("kv", "info", together=True)
def say(event): observed.tell(observed.workers, logging.INFO, event)
async def main():
    say("one")
    how = sys.argv[1]
    if how == "returns":
        say("two")
    elif how == "raises":
        say("two")
        raise SystemExit(3)
    elif how == "forks":
        if (pid := os.fork()) == 0:
            say("two")
            logging.shutdown()
            os._exit(0)
        os.waitpid(pid, 0)
        say("three")
    elif how == "shuts down":
        say("two")
        logging.shutdown()
        os._exit(0)
asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("how", "events"),
    [
        ("returns", ["one", "two"]),
        ("raises", ["one", "two"]),
        ("forks", ["one", "two", "three"]),
        ("shuts down", ["one", "two"]),
    ],
)
def test_no_line_is_lost_or_written_twice_at_a_process_end_or_fork(tmp_path: Path, how: str, events: list[str]) -> None:
    log = tmp_path / "log"
    with log.open("w") as file:
        subprocess.run([sys.executable, "-c", ENDS, how], stderr=file, check=False, timeout=40)
    assert [line.partition("event=")[2].split()[0] for line in log.read_text().splitlines()] == events
