"""Bounds and unique keys, while producers and workers that crowd the same queues are killed again and again."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Self
from uuid import UUID

import pytest

from holdfast import Holdfast, QueueFull, Unique
from holdfast.job import FINAL, Record, State
from holdfast.store import QueueStats, Store, Where
from holdfast.stores import open_store
from tests.flows import crowd
from tests.flows.conftest import Ledger, Service, until

UNFINISHED = (State.SCHEDULED, State.QUEUED, State.RUNNING)
PRODUCERS = 3


class Watcher:
    """Counts again and again, from outside, and keeps what must not be."""

    def __init__(self, url: str) -> None:
        self.wrong: list[str] = []
        self.looks = 0
        self.fullest = 0
        self._url = url
        self._over = False
        self._thread = threading.Thread(target=lambda: asyncio.run(self._watch()), name="watcher", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True
        self._thread.join(40)

    async def _watch(self) -> None:
        store = open_store(self._url)
        await store.open()
        try:
            while not self._over:
                await self._look(store)
                await asyncio.sleep(0.005)
        finally:
            await store.close()

    async def _look(self, store: Store) -> None:
        stats = await store.stats()
        records = await store.find(Where(states=UNFINISHED), None, 1000)
        for queue in stats.queues:
            self._check_places(queue)
        for name, count in Counter(record.queue for record in records).items():
            if count > crowd.BOUND:
                self.wrong.append(f"{count} unfinished jobs in {name}")
        held = Counter((record.queue, record.unique.text) for record in records if record.unique and record.holds)
        self.wrong += [f"{count} jobs hold {key}" for key, count in held.items() if count > 1]
        self.looks += 1

    def _check_places(self, queue: QueueStats) -> None:
        unfinished = sum(queue.counts.get(state, 0) for state in UNFINISHED)
        if queue.admitted != unfinished:
            self.wrong.append(f"{queue.name}: {queue.admitted} places are taken, by {unfinished} jobs")
        if unfinished > crowd.BOUND:
            self.wrong.append(f"{queue.name}: {unfinished} unfinished jobs")
        self.fullest = max(self.fullest, unfinished)


class Producers:
    """Processes that enqueue; one that is killed is followed by another."""

    def __init__(self, url: str, ledger: Ledger) -> None:
        self._environment = {**os.environ, "HOLDFAST_URL": url, "LEDGER": str(ledger.path)}
        self._stop = ledger.path.with_name("stop")
        self._started = 0
        self._all = [self._start() for _ in range(PRODUCERS)]

    def _start(self) -> subprocess.Popen[bytes]:
        self._started += 1
        return subprocess.Popen([sys.executable, "-m", "tests.flows.crowd", str(self._started)], env=self._environment)

    def kill(self, which: int) -> None:
        victim = self._all[which]
        assert victim.poll() is None, "a producer has ended by itself: see its error above"
        victim.kill()
        victim.wait(40)
        self._all[which] = self._start()

    def stop(self) -> None:
        self._stop.touch()
        for process in self._all:
            assert process.wait(60) == 0, "a producer has failed: see its error above"

    def end(self) -> None:
        for process in self._all:
            process.kill()
            process.wait(40)


@pytest.fixture
def producers(url: str, ledger: Ledger, app: Holdfast) -> Iterator[Producers]:
    producers = Producers(url, ledger)
    yield producers
    producers.end()


@pytest.fixture
def app(using: Callable[[Holdfast], Holdfast]) -> Holdfast:
    return using(crowd.jobs)


def serve_crowd(serve: Callable[..., Service]) -> Service:
    return serve("--processes", "2", "--concurrency", "3", app="tests.flows.crowd:jobs")


def the_crowd(
    kills: int, url: str, app: Holdfast, ledger: Ledger, serve: Callable[..., Service], producers: Producers
) -> None:
    """Kills a producer and a worker process at a time, now and then a supervisor, and then lets all of it end."""
    chance = random.Random(kills)
    service = serve_crowd(serve)
    with Watcher(url) as watcher:
        for kill in range(1, kills + 1):
            effects = ledger.count("effect")
            until(lambda effects=effects: ledger.count("effect") >= effects + 15, "15 effects before a kill")
            producers.kill(chance.randrange(PRODUCERS))
            if kill % 10 == 0:
                service.process.kill()
                service = serve_crowd(serve)
            else:
                with suppress(ProcessLookupError):
                    os.kill(chance.choice(until(service.children, "a worker process")), signal.SIGKILL)
        producers.stop()
        until(lambda: not list(app.find(state=",".join(UNFINISHED))), "the end of all jobs", seconds=60)
    assert service.stop() == 0, service.text()[-3000:]
    assert watcher.wrong == []
    assert watcher.looks >= 10 * kills, "too few looks to say that the bound was kept"
    assert watcher.fullest == crowd.BOUND, "no queue was full at any look"


def check(records: dict[UUID, Record], ledger: Ledger) -> None:
    """Every acknowledged job is there and final, and nothing is there that nobody asked for."""
    told = {event: {UUID(line["job"]) for line in ledger.lines(event)} for event in TOLD}
    assert all(told.values()), f"not everything was tried: { ({event: len(ids) for event, ids in told.items()}) }"
    assert told["stored"] <= records.keys(), "acknowledged jobs are lost"
    assert told["duplicate"] | told["taken"] <= records.keys(), "a holder was named that is not there"
    assert records.keys() <= told["asked"]
    assert not told["dropped"] & records.keys()
    assert all(line["depth"] == line["bound"] == crowd.BOUND for line in ledger.lines("full"))
    assert {record.state for record in records.values()} == FINAL, "not every end was met"
    effects = {UUID(line["job"]) for line in ledger.lines("effect")}
    for record in records.values():
        assert not record.holds, record
        assert (record.id in effects) >= (record.state is State.SUCCEEDED), record
        assert record.state is not State.CANCELLED or (record.queue, record.reason) == ("drop_oldest", "dropped")


TOLD = ("asked", "stored", "duplicate", "taken", "dropped", "effect")


def check_turns(records: dict[UUID, Record], ledger: Ledger) -> None:
    """By the ledger alone: a job that holds a key until it is finished has ended before the next one of it begins."""
    last: dict[tuple[str, str], UUID] = {}
    gone: set[UUID] = set()
    begun = [records[UUID(line["job"])] for line in ledger.lines("begin")]
    for record in begun:
        if record.unique is None or record.unique.until != "finished":
            continue
        before = last.get(key := (record.queue, record.unique.text))
        if before not in (None, record.id):
            gone.add(before)
        assert record.id not in gone, f"{record.id} ran again after another job of {key} had begun"
        last[key] = record.id
    assert gone, "no key was ever used twice"


def check_free(app: Holdfast, queues: dict[str, QueueStats]) -> None:
    """After all that, every place and every key is there for others: as many as the bound, and no more."""
    for name in crowd.MODES:
        assert queues[name].admitted == 0
        new = [crowd.errand.using(queue=name, unique=Unique(key, on_clash="raise")).enqueue("") for key in crowd.KEYS]
        assert all(job.created for job in new)
        crowd.errand.using(queue=name).enqueue("")
    for name in ("reject", "block"):
        with pytest.raises(QueueFull):
            crowd.errand.using(queue=name).enqueue("")


def run(kills: int, url: str, app: Holdfast, *parts: Any) -> None:
    ledger, serve, producers = parts
    the_crowd(kills, url, app, ledger, serve, producers)

    async def read() -> tuple[dict[UUID, Record], dict[str, QueueStats]]:
        store = open_store(url)
        await store.open()
        try:
            records = await store.find(Where(), None, 1_000_000)
            return {record.id: record for record in records}, {q.name: q for q in (await store.stats()).queues}
        finally:
            await store.close()

    records, queues = asyncio.run(read())
    check(records, ledger)
    check_turns(records, ledger)
    dropped = sum(record.state is State.CANCELLED for record in records.values())
    assert queues["drop_oldest"].dropped == dropped
    assert queues["drop_newest"].dropped >= ledger.count("dropped") > 0
    assert queues["reject"].dropped == queues["block"].dropped == 0
    check_free(app, queues)


@pytest.mark.timeout(120)
def test_killed_producers_and_workers_leave_every_bound_and_key_exact(
    url: str, app: Holdfast, ledger: Ledger, serve: Callable[..., Service], producers: Producers
) -> None:
    run(3, url, app, ledger, serve, producers)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_bounds_and_keys_under_many_kills(
    url: str, app: Holdfast, ledger: Ledger, serve: Callable[..., Service], producers: Producers
) -> None:
    run(80, url, app, ledger, serve, producers)
