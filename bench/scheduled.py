"""A million jobs that are due much later: what they cost a worker's memory, and the start of a job that is due now."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.measure import family, percentile, rss_mib, say, until, worker

JOBS = 1_000_000
CHUNK = 50_000  # jobs in one call, so that their handles do not pile up here
SAMPLES = 400


class Place:
    """A store with a worker process, idle, and a task of it."""

    def __init__(self, folder: Path, name: str, stack: ExitStack) -> None:
        from holdfast import Holdfast

        url = f"sqlite:///{folder}/{name}.db"
        self._starts = folder / f"{name}-starts"
        self._starts.touch()
        self._client = stack.enter_context(Holdfast(url))
        self._stamp = self._client.task(name="bench.app.stamp")(_stamp)
        self._process = stack.enter_context(worker(url, folder, BENCH_STARTS=str(self._starts)))
        self.ask(-1)
        until(lambda: -1 in self.began(), "the first job")
        time.sleep(1)

    def fill(self) -> float:
        """Stores the million; returns the seconds that it took."""
        later = self._stamp.using(delay="30d")
        start = time.perf_counter()
        for first in range(0, JOBS, CHUNK):
            self._client.enqueue_many(later.bind(number) for number in range(first, first + CHUNK))
        return time.perf_counter() - start

    def ask(self, number: int) -> int:
        """Enqueues a job that is due now; returns when that was asked for, in nanoseconds."""
        asked = time.time_ns()
        self._stamp.enqueue(number)
        return asked

    def began(self) -> dict[int, int]:
        """When each job began, in nanoseconds."""
        return dict(map(int, line.split()) for line in self._starts.read_text().splitlines())

    def memory(self) -> list[float]:
        """MiB of the supervisor and of the worker."""
        return [rss_mib(pid) for pid in family(self._process.pid)]


async def _stamp(number: int) -> None: ...


def scheduled(folder: Path) -> None:
    """One worker on an empty store and one on the million, asked in turns."""
    with ExitStack() as stack:
        empty, full = Place(folder, "empty", stack), Place(folder, "full", stack)
        before = full.memory()
        seconds = full.fill()
        say(f"enqueue_many of {JOBS:,} scheduled jobs, FULL", f"{JOBS / seconds:,.0f}/s")
        say("  size of the file", f"{os.path.getsize(folder / 'full.db') / 2**20:,.0f} MiB")  # noqa: PTH202
        waits = _in_turns(empty, full)
        for name, was, now in zip(("supervisor", "worker"), before, full.memory(), strict=True):
            say(f"{name}'s memory, before and with them", f"{was:.0f}, {now:.0f} MiB", "[flat]")
        _compare(waits)


def _in_turns(*places: Place) -> list[list[float]]:
    asked: list[dict[int, int]] = [{} for _ in places]
    for number in range(SAMPLES):
        for place, times in zip(places, asked, strict=True):
            time.sleep(random.uniform(0.005, 0.02))
            times[number] = place.ask(number)
    done: Callable[[Any], bool] = lambda place: len(place.began()) > SAMPLES  # noqa: E731
    for place in places:
        until(lambda place=place: done(place), "the last job")
    began = [place.began() for place in places]
    return [[(b[n] - a[n]) / 1e6 for n in a] for a, b in zip(asked, began, strict=True)]


def _compare(waits: list[list[float]]) -> None:
    for share in (0.50, 0.99):
        none, many = (percentile(one, share) for one in waits)
        aim = "[ratio <= 1.2]" if share == 0.50 else ""
        say(
            f"enqueue to start, p{share * 100:.0f}, without and with them",
            f"{none:.2f}, {many:.2f} ms",
            f"ratio {many / none:.2f} {aim}",
        )
