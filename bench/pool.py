"""The pool: jobs per second beside ThreadPoolExecutor and raw asyncio.Queue, latency, and what each option costs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bench.measure import percentile, say
from holdfast import Pool, Retry

JOBS = 30_000
ROUNDS = 5
SLOTS = 10
SAMPLES = 2_000


def noop() -> None:
    """Does nothing."""


async def anoop() -> None:
    """Does nothing."""


def pool(folder: Path) -> None:
    """Each figure is the best of some rounds, the rounds taking turns: what they share, they share with all others."""
    del folder
    best = _best(
        {
            "executor": _executor,
            "threads": lambda: _threads(noop),
            "unbounded": lambda: _threads(noop, max_size=JOBS),
            "using": lambda: _using({}),
            "timeout": lambda: _using({"timeout": 60}),
            "retry": lambda: _using({"retry": Retry()}),
            "each": _each,
            "map": _map,
            "queue": lambda: asyncio.run(_queue()),
            "async": lambda: asyncio.run(_async()),
            "own loop": lambda: _threads(anoop),
        }
    )
    rate = {name: JOBS / seconds for name, seconds in best.items()}
    say("ThreadPoolExecutor, submit and result", f"{rate['executor']:,.0f}/s")
    ratio = rate["threads"] / rate["executor"]
    say("Pool, plain functions, submit and result", f"{rate['threads']:,.0f}/s", f"{ratio:.1f} x  [>= 2 x]")
    say("  with room for all of them", f"{rate['unbounded']:,.0f}/s")
    say("  pool.map", f"{rate['map']:,.0f}/s")
    say("  pool.each", f"{rate['each']:,.0f}/s")
    say("raw asyncio.Queue and workers", f"{rate['queue']:,.0f}/s")
    say("Pool, async functions, asubmit and aresult", f"{rate['async']:,.0f}/s", "[>= 100,000/s]")
    say("  on a loop of its own, submit and result", f"{rate['own loop']:,.0f}/s")
    for name in ("timeout", "retry"):
        say(f"a job's {name} costs", f"{_difference(best, name, 'using'):.2f} us")
    say("pool.using() costs", f"{_per_call(Pool(1).using):.2f} us")
    say("a handle's id, when it is looked at, costs", f"{_id_cost():.2f} us")
    _latency()


def _best(ways: dict[str, Callable[[], float]]) -> dict[str, float]:
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(ROUNDS):
        for name, way in ways.items():
            best[name] = min(best[name], way())
    return best


def _difference(best: dict[str, float], name: str, without: str) -> float:
    return max(0.0, best[name] - best[without]) / JOBS * 1e6  # what is below 0 is noise


def _executor() -> float:
    with ThreadPoolExecutor(SLOTS) as executor:
        start = time.perf_counter()
        for future in [executor.submit(noop) for _ in range(JOBS)]:
            future.result()
        return time.perf_counter() - start


def _threads(fn: Callable[[], Any], **options: Any) -> float:
    with Pool(SLOTS, **options) as pool:
        start = time.perf_counter()
        for job in [pool.submit(fn) for _ in range(JOBS)]:
            job.result()
        return time.perf_counter() - start


def _using(options: Any) -> float:
    with Pool(SLOTS) as whole:
        pool = whole.using(**options)
        start = time.perf_counter()
        for job in [pool.submit(noop) for _ in range(JOBS)]:
            job.result()
        return time.perf_counter() - start


def _one(item: object) -> None:
    """Does nothing with it."""


def _map() -> float:
    with Pool(SLOTS) as pool:
        start = time.perf_counter()
        for _ in pool.map(_one, range(JOBS)):
            pass
        return time.perf_counter() - start


def _each() -> float:
    with Pool(SLOTS) as pool:
        start = time.perf_counter()
        for _ in pool.each(_one, range(JOBS)):
            pass
        return time.perf_counter() - start


async def _async() -> float:
    async with Pool(SLOTS) as pool:
        start = time.perf_counter()
        for job in [await pool.asubmit(anoop) for _ in range(JOBS)]:
            await job.aresult()
        return time.perf_counter() - start


async def _queue() -> float:
    """What a bounded queue and some workers written by hand do, without results, errors, limits or counts."""
    queue: asyncio.Queue[Any] = asyncio.Queue(1000)

    async def work() -> None:
        while True:
            await (await queue.get())()
            queue.task_done()

    workers = [asyncio.create_task(work()) for _ in range(SLOTS)]
    start = time.perf_counter()
    for _ in range(JOBS):
        await queue.put(anoop)
    await queue.join()
    taken = time.perf_counter() - start
    for worker in workers:
        worker.cancel()
    return taken


def _per_call(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    for _ in range(JOBS):
        call()
    return (time.perf_counter() - start) / JOBS * 1e6


def _id_cost() -> float:
    with Pool(1) as pool:
        jobs = [pool.submit(noop) for _ in range(JOBS)]
    handles: Iterator[Any] = iter(jobs)
    return _per_call(lambda: next(handles).id)


def _latency() -> None:
    """From `submit` to the first line of the function, one job at a time, in pools that are idle; they take turns."""

    async def now() -> float:
        return time.perf_counter()

    with Pool(SLOTS) as threads, Pool(SLOTS) as loop, ThreadPoolExecutor(SLOTS) as executor:
        ways: dict[str, tuple[Callable[..., Any], Any]] = {
            "ThreadPoolExecutor": (executor.submit, time.perf_counter),
            "Pool, a thread": (threads.submit, time.perf_counter),
            "Pool, its own loop": (loop.submit, now),
        }
        waits: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(SAMPLES):
            for name, (submit, fn) in ways.items():
                asked = time.perf_counter()
                waits[name].append((submit(fn).result() - asked) * 1e6)
    for name, found in waits.items():
        say(
            f"submit to start, {name}, p50", f"{percentile(found, 0.5):.0f} us", f"p99 {percentile(found, 0.99):.0f} us"
        )
