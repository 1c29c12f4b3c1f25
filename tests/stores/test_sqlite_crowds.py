"""Several processes crowd one bounded queue and a few unique keys of one file, and are killed at any moment."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from holdfast.clock import SystemClock
from holdfast.job import Draft, QueueTerms, State, Succeeded, Terms, UniqueKey, new_id
from holdfast.policy import decide
from holdfast.store import QueueStats
from holdfast.stores.sqlite import SqliteStore

PATIENCE = 60  # seconds, for whatever a test waits for
BOUND = 7
KEYS = 3

# Each process is producer, worker and operator at once, and acts as it likes.
PROGRAM = """
import asyncio, os, random, sys
from uuid import uuid4
from holdfast.clock import SystemClock
from holdfast.job import Cancelled, Draft, Failed, Failure, Released, Succeeded, Terms, UniqueKey, new_id
from holdfast.policy import decide
from holdfast.store import Where
from holdfast.stores.sqlite import SqliteStore

path, told, keys = sys.argv[1], os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND), int(sys.argv[3])
TERMS = Terms(max_attempts=2, base_delay=0, jitter=0.0)
VERDICTS = [Succeeded(b"1"), Failed(Failure("ValueError", "", "")), Released(), Cancelled("by itself"),
            Failed(Failure("KeyError", "", ""), final=True)]

def draft():
    unique = UniqueKey(f"key {random.randrange(keys)}", random.choice(["finished", "started"]), 0,
                       random.choice(["return", "raise", "replace"]))
    return Draft(new_id(), "shop.send", "mail", b"[42]", TERMS, unique=random.choice([None, unique]),
                 delay=random.choice([0, 0, 3]))

async def main():
    store = SqliteStore(path, durability="normal", clock=SystemClock())
    await store.open()
    worker, ticket, known = uuid4(), 0, []
    await store.register(worker, None, {})
    while True:
        made = [draft() for _ in range(random.choice([1, 1, 4]))]
        for receipt in await store.enqueue(made):
            os.write(told, f"{receipt.answer}\\n".encode())
            known += [receipt.id] if receipt.created else []
        await store.promote(10)
        await store.beat([worker])
        claims = await store.claim(worker, ticket + 1, None, random.choice([1, 3]))
        ticket += bool(claims.jobs)
        await store.finish([decide(job, random.choice(VERDICTS)) for job in claims.jobs])
        if random.random() < 0.3:
            operate = random.choice([store.cancel, store.retry, store.delete])
            await operate(random.sample(known, min(3, len(known))))
        await store.finish([decide(job, Released()) for job in await store.reclaim(worker, 9)])

asyncio.run(main())
"""


class Crowd:
    """So many processes; who is killed is started anew."""

    def __init__(self, folder: Path, processes: int) -> None:
        self.path, self.told = folder / "jobs.db", folder / "told"
        self._errors = folder / "errors"
        self.told.touch()
        self.killed = 0
        self._processes = [self._started() for _ in range(processes)]

    def _started(self) -> subprocess.Popen[bytes]:
        arguments = [sys.executable, "-c", PROGRAM, str(self.path), str(self.told), str(KEYS)]
        with self._errors.open("ab") as errors:
            return subprocess.Popen(arguments, stderr=errors)

    def answers(self) -> list[str]:
        return self.told.read_text().splitlines()

    def kill_one(self) -> None:
        number = random.randrange(len(self._processes))
        assert self._processes[number].poll() is None, f"a process ended by itself\n{self._errors.read_text()[-3000:]}"
        _kill(self._processes[number])
        self._processes[number] = self._started()
        self.killed += 1

    def kill_all(self) -> None:
        while self._processes:
            _kill(self._processes.pop())


def _kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait(PATIENCE)


# All in one statement, so in one state of the file.
LOOK = """
SELECT
    (SELECT admitted - left FROM holdfast_queues WHERE name = 'mail'),
    (SELECT count(*) FROM holdfast_jobs WHERE state IN ('scheduled', 'queued', 'running') AND queue = 'mail'),
    (SELECT max(number) FROM (
        SELECT count(*) AS number FROM holdfast_jobs
        WHERE unique_key IS NOT NULL AND state IN ('scheduled', 'queued', 'running')
        AND (unique_until = 'finished' OR started_at IS NULL) GROUP BY unique_key
    ))
"""


def _look(connection: sqlite3.Connection) -> int:
    """The places taken."""
    [(taken, unfinished, holders)] = connection.execute(LOOK).fetchall()
    assert taken == unfinished, "the places taken are not the unfinished jobs"
    assert unfinished <= BOUND, "the bound is exceeded"
    assert (holders or 0) <= 1, "two jobs hold one key"
    return int(unfinished)


async def _declare(path: Path) -> None:
    store = SqliteStore(str(path), clock=SystemClock())
    await store.open()
    await store.configure({"mail": QueueTerms(BOUND)}, "worker")
    await store.close()


async def _finish(path: Path) -> None:
    """Does all that is left; then nothing holds a place or a key any more."""
    store = SqliteStore(str(path), clock=SystemClock())
    await store.open()
    worker, ticket = uuid4(), 0
    await store.register(worker, None, {})
    end = time.monotonic() + PATIENCE
    while (await _mail(store)).admitted:
        assert time.monotonic() < end, f"{await _mail(store)} is left"
        await store.promote(100)
        await store.beat([worker])
        claims = await store.claim(worker, ticket + 1, None, 100)
        ticket += bool(claims.jobs)
        held = [*claims.jobs, *await store.reclaim(worker, 100)]
        await store.finish([decide(job, Succeeded(b"1")) for job in held])
    assert set((await _mail(store)).counts) <= {State.DEAD}, "a job is left that takes no place"
    drafts = [Draft(new_id(), "shop.send", "mail", b"", Terms(), unique=UniqueKey(f"key {n}")) for n in range(KEYS)]
    assert [receipt.answer for receipt in await store.enqueue(drafts)] == ["accepted"] * KEYS, "a key is held by nobody"
    await store.close()


async def _mail(store: SqliteStore) -> QueueStats:
    [queue] = (await store.stats()).queues
    return queue


def _run(folder: Path, processes: int, kills: int, answers: int, every: float) -> None:
    asyncio.run(_declare(folder / "jobs.db"))
    crowd = Crowd(folder, processes)
    fullest = looks = 0
    end = time.monotonic() + PATIENCE * 4
    try:
        with closing(sqlite3.connect(crowd.path, timeout=PATIENCE)) as connection:
            next_kill = time.monotonic() + every
            while crowd.killed < kills or len(crowd.answers()) < answers:
                assert time.monotonic() < end, f"{crowd.killed} kills, {len(crowd.answers())} answers"
                fullest, looks = max(fullest, _look(connection)), looks + 1
                time.sleep(0.001)  # the others want to get on, too
                if crowd.killed < kills and time.monotonic() > next_kill:
                    crowd.kill_one()
                    next_kill = time.monotonic() + random.uniform(0, 2 * every)
            crowd.kill_all()
            _look(connection)
            asyncio.run(_finish(crowd.path))
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    finally:
        crowd.kill_all()
    heard: dict[str, Any] = {answer: crowd.answers().count(answer) for answer in set(crowd.answers())}
    print(f"{heard}, {crowd.killed} kills, {looks} looks, fullest {fullest}")
    assert {"accepted", "full", "duplicate", "taken"} <= heard.keys(), "the queue or the keys were hardly asked for"
    assert fullest == BOUND, "the bound was never met"


@pytest.mark.timeout(300)
def test_killed_processes_leave_every_place_and_key_exact(tmp_path: Path) -> None:
    _run(tmp_path, processes=3, kills=5, answers=600, every=0.5)


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_places_and_keys_stay_exact_through_many_kills(tmp_path: Path) -> None:
    _run(tmp_path, processes=6, kills=100, answers=20_000, every=0.5)
