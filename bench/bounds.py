"""What a bound and a unique key cost: enqueues beside plain ones, and the drain of a bounded queue beside another."""

from __future__ import annotations

import asyncio
import logging
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.measure import drained, say
from bench.places import SqliteFile

BATCH = 1000
ROUNDS = 12
SINGLE = 200
JOBS = 40_000
PLENTY = 10_000_000  # a bound that is not met


def bounds(folder: Path) -> None:
    """All kinds in turns, so that what else the machine does meets all of them."""
    logging.getLogger("holdfast").setLevel(logging.ERROR)  # it tells of jobs that are dropped
    _enqueues(folder)
    queues = {"no bound": None, "another queue bounded": "other", "bounded": "default"}
    rates: dict[str, list[float]] = {kind: [] for kind in queues}
    costs: dict[str, list[float]] = {kind: [] for kind in queues}
    for number in range(3):
        for kind, queue in queues.items():
            url = f"sqlite:///{folder}/drain-{number}-{queue}.db"
            _bound(url, queue)
            used: list[float] = []
            rates[kind].append(drained(SqliteFile(url), folder, JOBS, used))
            costs[kind].append(sum(used) / JOBS * 1e6)
    for kind in queues:
        rate, cost = statistics.median(rates[kind]), statistics.median(costs[kind])
        say(f"drain, FULL, {kind}", f"{rate:,.0f}/s", f"ratio {rate / statistics.median(rates['no bound']):.2f}")
        say("  of it CPU, supervisor and worker", f"{cost:.0f} us/job")


def _bound(url: str, queue: str | None) -> None:
    """Makes the store, with a bound as an operator sets it."""
    from holdfast.clock import SystemClock
    from holdfast.job import QueueTerms
    from holdfast.stores import open_store

    async def set_() -> None:
        store = open_store(url, SystemClock())
        await store.open()
        await store.configure({} if queue is None else {queue: QueueTerms(PLENTY)}, "operator")
        await store.close()

    asyncio.run(set_())


def _enqueues(folder: Path) -> None:
    from holdfast import Holdfast, Unique

    client = Holdfast(f"sqlite:///{folder}/bounds.db")
    client.queue("bounded", max_size=PLENTY)
    client.queue("full", max_size=BATCH, when_full="drop_oldest")
    send = client.task(name="bench.bounds.send")(_send)
    number = iter(range(10**9))
    unique: Callable[[], Any] = lambda: Unique(f"order:{next(number)}")  # noqa: E731
    held = Unique("held")
    kinds: dict[str, Callable[[], Any]] = {
        "plain": lambda: send,
        "unique": lambda: send.using(unique=unique()),
        "unique, by arguments": lambda: send.using(unique=Unique()),
        "unique, a duplicate": lambda: send.using(unique=held),
        "bounded": lambda: send.using(queue="bounded"),
        "bounded and unique": lambda: send.using(queue="bounded", unique=unique()),
        "full, drops the oldest": lambda: send.using(queue="full"),
    }
    with client:
        send.using(unique=held).enqueue(0)
        client.enqueue_many(send.using(queue="full").bind(n) for n in range(BATCH))
        one: dict[str, list[float]] = {kind: [] for kind in kinds}
        many: dict[str, list[float]] = {kind: [] for kind in kinds}
        for _ in range(SINGLE):
            for kind, task in kinds.items():
                one[kind].append(_timed(lambda task=task: task().enqueue(next(number))))
        for _ in range(ROUNDS):
            for kind, task in kinds.items():
                bound = [task().bind(next(number)) for _ in range(BATCH)]
                many[kind].append(_timed(lambda bound=bound: client.enqueue_many(bound)) / BATCH)
    for name, figures in (("one by one", one), ("enqueue_many", many)):
        plain = statistics.median(figures["plain"])
        for kind, each in figures.items():
            cost = statistics.median(each)
            say(f"{name}, FULL, {kind}", f"{cost * 1e6:.0f} us/job", f"{(cost - plain) * 1e6:+.1f} us")


async def _send(number: int) -> None: ...


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
