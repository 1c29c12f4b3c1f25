"""Producers and workers of one SQLite file are killed at any moment: what was acknowledged is there and was done."""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from holdfast.clock import SystemClock
from holdfast.stores.sqlite import SqliteStore

PROGRAM = """
import asyncio, itertools, json, os, sys
from holdfast import Holdfast, current_job

role, url, file, pause = sys.argv[1:]
lines = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
jobs = Holdfast(url, keep="1d")

@jobs.task
async def send(number: int) -> int:
    job = current_job()
    os.write(lines, json.dumps([str(job.id), job.fence]).encode() + b"\\n")
    return number

async def produce():
    async def some(first):
        for number in range(first, first + 5):
            job = await send.aenqueue(number)
            os.write(lines, json.dumps(str(job.id)).encode() + b"\\n")
    async with jobs:
        for first in itertools.count(0, 100):
            await asyncio.sleep(float(pause))  # or all would be stored before many are killed
            await asyncio.gather(*(some(first + part) for part in range(0, 50, 5)))
            many = await jobs.aenqueue_many(send.bind(number) for number in range(50))
            os.write(lines, b"".join(json.dumps(str(job.id)).encode() + b"\\n" for job in many))

async def work():
    async with jobs, jobs.worker(concurrency=50):
        await asyncio.Event().wait()

asyncio.run(produce() if role == "produce" else work())
"""


class Crowd:
    """Producers, which pause between every hundred jobs, and workers; who is killed is started anew."""

    def __init__(self, folder: Path, producers: int, workers: int, total: int, pause: float) -> None:
        self.path, self.acknowledged, self.ledger = folder / "jobs.db", folder / "acknowledged", folder / "ledger"
        self.killed = 0
        self._errors = folder / "errors"
        self._total, self._pause = total, pause
        for file in (self.acknowledged, self.ledger):
            file.touch()
        self._processes = [self._started("produce") for _ in range(producers)]
        self._processes += [self._started("work") for _ in range(workers)]

    def _started(self, role: str) -> tuple[str, subprocess.Popen[bytes]]:
        lines = self.acknowledged if role == "produce" else self.ledger
        arguments = [sys.executable, "-c", PROGRAM, role, f"sqlite:///{self.path}?durability=normal", str(lines)]
        with self._errors.open("ab") as errors:
            return role, subprocess.Popen([*arguments, str(self._pause)], stderr=errors)

    def kill_some(self, seconds: float, every: float) -> None:
        """One after the other, at random, until enough jobs are acknowledged; then all."""
        end = time.monotonic() + seconds
        while (done := _lines(self.acknowledged)) < self._total:
            assert time.monotonic() < end, f"{done} jobs after {seconds} s\n{self.errors()}"
            time.sleep(random.uniform(0, 2 * every))
            number = random.randrange(len(self._processes))
            role, process = self._processes[number]
            _kill(process)
            self.killed += 1
            self._processes[number] = self._started(role)
        self.kill_all()

    def kill_all(self) -> None:
        while self._processes:
            _kill(self._processes.pop()[1])

    def finish(self, seconds: float) -> None:
        """Lets new workers do what is left, once the store was told that the old ones are dead."""
        asyncio.run(_bury(self.path, [UUID(worker) for [worker] in self.rows("SELECT id FROM holdfast_workers")]))
        self._processes = [self._started("work"), self._started("work")]
        end = time.monotonic() + seconds
        unfinished = "SELECT state, count(*) FROM holdfast_jobs WHERE finished_at IS NULL GROUP BY 1"
        while left := self.rows(unfinished):
            assert time.monotonic() < end, f"{left} after {seconds} s\n{self.errors()}"
            time.sleep(0.1)
        self.kill_all()

    def errors(self) -> str:
        return self._errors.read_text()[-3000:]

    def rows(self, statement: str) -> list[Any]:
        with closing(sqlite3.connect(self.path, timeout=30)) as connection:
            return connection.execute(statement).fetchall()


def _lines(file: Path) -> int:
    return file.read_bytes().count(b"\n")


def _kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait(30)


async def _bury(path: Path, workers: Sequence[UUID]) -> None:
    store = SqliteStore(str(path), clock=SystemClock())
    await store.open()
    for worker in workers:
        await store.retire(worker)
    await store.close()


def _run(crowd: Crowd, seconds: float, every: float) -> None:
    try:
        crowd.kill_some(seconds, every)
        crowd.finish(seconds)
    finally:
        crowd.kill_all()
    assert crowd.rows("PRAGMA integrity_check") == [("ok",)]
    acknowledged = [json.loads(line) for line in crowd.acknowledged.read_text().splitlines()]
    stored = {job: (state, fence) for job, state, fence in crowd.rows("SELECT id, state, fence FROM holdfast_jobs")}
    runs = Counter(map(tuple, map(json.loads, crowd.ledger.read_text().splitlines())))
    ran = {job for job, _ in runs}
    states = Counter(state for state, _ in stored.values())
    print(
        f"{len(acknowledged)} acknowledged, {len(stored)} stored, {states}, {len(runs) - len(ran)} ran again,", end=" "
    )
    print(f"{crowd.killed} kills")
    assert len(acknowledged) == len(set(acknowledged)), "a job was acknowledged twice"
    assert set(acknowledged) <= set(stored), f"{len(set(acknowledged) - set(stored))} acknowledged jobs are gone"
    assert ran <= set(stored), "something ran that is not stored"
    assert max(runs.values()) == 1, "two runs under one fence"
    assert ran == {job for job, (state, _) in stored.items() if state == "succeeded"}, "a success without a run"
    assert set(states) == {"succeeded"}
    assert crowd.killed >= 3, "hardly anybody was killed"


@pytest.mark.timeout(180)
def test_killed_producers_and_workers_lose_nothing(tmp_path: Path) -> None:
    _run(Crowd(tmp_path, producers=1, workers=2, total=3_000, pause=0.05), seconds=80, every=0.4)


@pytest.mark.soak
@pytest.mark.timeout(1300)
def test_eight_processes_that_are_killed_lose_nothing_of_100_000_jobs(tmp_path: Path) -> None:
    _run(Crowd(tmp_path, producers=3, workers=5, total=100_000, pause=0.2), seconds=600, every=0.75)
