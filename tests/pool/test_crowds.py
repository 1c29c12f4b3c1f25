"""64 threads and 64 tasks on one pool, in every mode: counts equal a recount, the bound holds, nothing is left."""

import asyncio
import random
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from holdfast import ConfigError, JobCancelled, Pool, PoolJob, QueueFull, Retry
from holdfast.job import WhenFull
from tests.pool.rig import PATIENCE, threads_of_pools

CROWD, EACH, SIZE, SLOTS, JOBS = 64, 25, 20, 8, 1000
MODES: list[WhenFull] = ["block", "reject", "drop_oldest", "drop_newest"]


class Recount:
    """What jobs themselves see: how many were at work at a time, and how each ended."""

    def __init__(self) -> None:
        self.running = self.most = 0
        self.ran: Counter[str] = Counter()
        self.lock = threading.Lock()

    def enter(self) -> None:
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)

    def leave(self, how: str) -> None:
        with self.lock:
            self.running -= 1
            self.ran[how] += 1

    def work(self, number: int) -> int:
        self.enter()
        try:
            return self.outcome(number)
        except ValueError:
            self.leave("failed")
            raise
        finally:
            if number % 5:
                self.leave("succeeded")

    async def awork(self, number: int) -> int:
        await asyncio.sleep(0)
        return self.work(number)

    @staticmethod
    def outcome(number: int) -> int:
        if number % 5 == 0:
            raise ValueError(number)
        return number


def check(pool: Pool, recount: Recount, jobs: list[PoolJob[int]], refused: int) -> None:
    states = Counter(job.state.value for job in jobs)
    dropped = sum(isinstance(job.exception(), JobCancelled) and "dropped" in str(job.exception()) for job in jobs)
    stats = pool.stats()
    assert len(jobs) + refused == CROWD * EACH
    assert stats.submitted == len(jobs)
    assert (stats.succeeded, stats.failed) == (states["succeeded"], states["dead"])
    assert (stats.dropped, stats.cancelled) == (dropped, states["cancelled"] - dropped)
    assert (stats.running, stats.queued) == (0, 0)
    assert recount.ran["succeeded"] == stats.succeeded
    cancelled = sum(str(job.exception()) == "cancelled while running" for job in jobs)  # some of them failed, too
    assert 0 <= recount.ran["failed"] - stats.failed - stats.retried <= cancelled
    assert recount.most <= SLOTS


def submitter(pool: Pool, recount: Recount, seed: int) -> tuple[list[PoolJob[int]], int, int]:
    """One of the crowd; also says the most jobs that it saw in the pool."""
    dice, jobs, refused, most = random.Random(seed), list[PoolJob[int]](), 0, 0
    for number in range(EACH):
        options: dict[str, Any] = {"priority": dice.choice([0, 0, 5])}
        if number % 10 == 0:
            options |= {"retry": Retry(max_attempts=2, base_delay=0.001)}
        if number % 7 == 0:
            options |= {"timeout": 3600}
        try:
            fn: Any = recount.awork if dice.random() < 0.5 else recount.work
            jobs.append(pool.using(**options).submit(fn, number))
        except QueueFull:
            refused += 1
        most = max(most, pool._core.depth)  # noqa: SLF001
        if dice.random() < 0.1 and jobs:
            dice.choice(jobs).cancel()
    return jobs, refused, most


@pytest.mark.parametrize("mode", MODES)
def test_64_threads(mode: WhenFull) -> None:
    recount, results = Recount(), list[tuple[list[PoolJob[int]], int, int]]()
    with Pool(SLOTS, max_size=SIZE, when_full=mode) as pool:
        crowd = [
            threading.Thread(target=lambda seed=seed: results.append(submitter(pool, recount, seed)))
            for seed in range(CROWD)
        ]
        for thread in crowd:
            thread.start()
        for thread in crowd:
            thread.join(PATIENCE)
    jobs = [job for mine, _, _ in results for job in mine]
    assert max(most for _, _, most in results) <= SIZE
    check(pool, recount, jobs, sum(refused for _, refused, _ in results))
    assert mode in {"reject", "drop_oldest"} or not any(refused for _, refused, _ in results)
    assert threads_of_pools() == set()


@pytest.mark.parametrize("mode", MODES)
async def test_64_tasks(mode: WhenFull) -> None:
    recount = Recount()
    before = asyncio.all_tasks()
    jobs: list[PoolJob[int]] = []
    refused = most = 0

    async def member(seed: int) -> None:
        nonlocal refused, most
        dice = random.Random(seed)
        for number in range(EACH):
            retry = Retry(max_attempts=1 + (number % 10 == 0), base_delay=0.001)
            fn: Any = recount.awork if dice.random() < 0.5 else recount.work
            try:
                jobs.append(await pool.using(retry=retry, priority=number % 3).asubmit(fn, number))
            except QueueFull:
                refused += 1
            most = max(most, pool._core.depth)  # noqa: SLF001
            if dice.random() < 0.1 and jobs:
                dice.choice(jobs).cancel()
            if dice.random() < 0.2 and jobs:
                await asyncio.gather(jobs[-1].aresult(PATIENCE), return_exceptions=True)

    async with Pool(SLOTS, max_size=SIZE, when_full=mode) as pool:
        done = await asyncio.wait_for(
            asyncio.gather(*(member(seed) for seed in range(CROWD)), return_exceptions=True), PATIENCE
        )
    assert [one for one in done if one is not None] == []
    assert most <= SIZE
    check(pool, recount, jobs, refused)
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before
    assert threads_of_pools() == set()


@pytest.fixture
def often() -> Iterator[None]:
    """Threads take turns so often that every order of their steps is met."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(usual)


def test_stats_add_up_at_every_moment(often: None) -> None:
    recount, submitted = Recount(), 0
    wrong: list[object] = []
    stop = threading.Event()

    def watch() -> None:
        last = 0
        while not stop.is_set():
            stats = pool.stats()
            over = stats.succeeded + stats.failed + stats.cancelled + stats.dropped
            if stats.submitted != over + stats.running + stats.queued or stats.running > SLOTS:
                wrong.append(stats)
            most = submitted + 1  # one may be on its way
            if not last <= stats.submitted <= most or stats.queued < 0:
                wrong.append((last, stats, most))
            last = stats.submitted

    with Pool(SLOTS, max_size=SIZE) as pool:
        watcher = threading.Thread(target=watch)
        watcher.start()
        for number in range(JOBS):
            pool.submit(recount.work, number * 5 + 1)
            submitted += 1
        stop.set()
        watcher.join(PATIENCE)
    assert wrong == []
    assert pool.stats().succeeded == JOBS


def test_resizing_and_stopping_under_way() -> None:
    recount, ends = Recount(), list[str]()

    def submit() -> None:
        try:
            while True:
                pool.submit(recount.work, 1)
        except ConfigError:
            ends.append("stopped")

    with Pool(SLOTS, max_size=SIZE) as pool:
        crowd = [threading.Thread(target=submit) for _ in range(8)]
        for thread in crowd:
            thread.start()
        for size in (1, 5, 2, 8, 3):
            pool.resize(size)
            while recount.ran["succeeded"] < 200 * size:
                threading.Event().wait(0.001)
        dropped = pool.stop(drain=False)
        for thread in crowd:
            thread.join(PATIENCE)
        assert ends == ["stopped"] * 8
        assert pool.join(PATIENCE)
    stats = pool.stats()
    assert recount.most <= SLOTS
    assert (stats.succeeded, stats.dropped) == (recount.ran["succeeded"], len(dropped))
    assert stats.submitted == stats.succeeded + stats.dropped
