"""What is measured on any store: enqueueing, draining, and what an idle worker costs and how soon it begins a job."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path

from bench.measure import cpu_seconds, drained, family, percentile, rss_mib, say, until, worker
from bench.places import Place, Places

SAMPLES = 300
IDLE_SECONDS = 10
CALLERS = 50


def enqueue(places: Places, folder: Path) -> None:
    """One by one, by 50 concurrent callers, in bulk."""
    from holdfast import Holdfast

    client = Holdfast(places.fresh(folder, "enqueue").url)
    noop = client.task(name="bench.app.noop")(_job)
    with client:
        noop.enqueue(-1)
        start = time.perf_counter()
        for number in range(1000):
            noop.enqueue(number)
        say("enqueue, one by one", f"{1000 / (time.perf_counter() - start):,.0f}/s")

        async def one_by_one() -> float:
            start = time.perf_counter()
            for number in range(2000):
                await noop.aenqueue(number)
            return 2000 / (time.perf_counter() - start)

        say("enqueue, one by one, awaited", f"{asyncio.run(one_by_one()):,.0f}/s", places.aims.get("one", ""))

        async def many() -> float:
            async def caller() -> None:
                for number in range(400):
                    await noop.aenqueue(number)

            start = time.perf_counter()
            await asyncio.gather(*(caller() for _ in range(CALLERS)))
            return 400 * CALLERS / (time.perf_counter() - start)

        say(f"enqueue, {CALLERS} concurrent callers", f"{asyncio.run(many()):,.0f}/s", places.aims.get("callers", ""))
        start = time.perf_counter()
        client.enqueue_many(noop.bind(number) for number in range(50_000))
        rate = 50_000 / (time.perf_counter() - start)
        say("enqueue_many", f"{rate:,.0f}/s", places.aims.get("many", ""))


def drain(places: Places, folder: Path) -> None:
    """Jobs that wait already, drained by one worker process and by two."""
    for processes, aim in ((1, "drain"), (2, "drain 2")):
        place = places.fresh(folder, f"drain-{processes}")
        used: list[float] = []
        counted = Counted(place)
        rate = drained(place, folder, places.jobs, used, processes)
        say(f"drain, {processes} process(es), {places.jobs:,} no-op jobs", f"{rate:,.0f}/s", places.aims.get(aim, ""))
        say("  of it CPU, supervisor and workers", f"{sum(used) / places.jobs * 1e6:.0f} us/job")
        counted.say(places.jobs)


class Counted:
    """What the server has done since, for these jobs from their enqueue to their end."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._before = place.figures()

    def say(self, jobs: int) -> None:
        each = [f"{(now - self._before[what]) / jobs:,.4g} {what}" for what, now in self._place.figures().items()]
        if each:
            say("  per job, from enqueue to end", "", ", ".join(each))


def latency(places: Places, folder: Path) -> None:
    """An idle worker process: what it costs, and how soon it starts a job of another process."""
    place, starts = places.fresh(folder, "latency"), folder / "starts"
    starts.touch()
    from holdfast import Holdfast

    client = Holdfast(place.url)
    stamp = client.task(name="bench.app.stamp")(_job)
    with client, worker(place.url, folder, BENCH_STARTS=str(starts)) as process:
        stamp.enqueue(-1)
        until(lambda: starts.stat().st_size > 0, "the first job")
        time.sleep(1)
        _idle(process.pid)
        asked: list[int] = []
        for number in range(SAMPLES):
            time.sleep(random.uniform(0.005, 0.04))
            asked.append(time.time_ns())
            stamp.enqueue(number)
        until(lambda: starts.read_text().count("\n") == SAMPLES + 1, "the last job")
    began = dict(map(int, line.split()) for line in starts.read_text().splitlines())
    waits = [(began[number] - asked[number]) / 1e6 for number in range(SAMPLES)]
    for share in (0.50, 0.99):
        name = f"p{share * 100:.0f}"
        say(f"idle latency, enqueue to start, {name}", f"{percentile(waits, share):.2f} ms", places.aims.get(name, ""))


def _idle(pid: int) -> None:
    processes = family(pid)
    before = [cpu_seconds(pid) for pid in processes]
    time.sleep(IDLE_SECONDS)
    used = [cpu_seconds(pid) - was for pid, was in zip(processes, before, strict=True)]
    for name, each, seconds in zip(("supervisor", "worker"), processes, used, strict=True):
        say(f"idle {name}: CPU of one core", f"{seconds / IDLE_SECONDS:.2%}", "[<= 1 % together]")
        say(f"idle {name}: memory", f"{rss_mib(each):.0f} MiB")


async def _job(number: int) -> None: ...
