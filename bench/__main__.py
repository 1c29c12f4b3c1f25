"""`python -m bench [PART …]`: measures and prints; figures are this machine's at this moment, aims are in brackets."""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.bounds import bounds
from bench.measure import cpu_seconds, drained, family, percentile, rss_mib, say, until, worker
from bench.pool import pool
from bench.recovery import recovery
from bench.scheduled import scheduled

JOBS = 40_000
SAMPLES = 300
IDLE_SECONDS = 10


def imports(folder: Path) -> None:
    """Import time, beside an empty interpreter."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}

    def run(code: str) -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, cwd=folder, env=environment)
        return time.perf_counter() - start

    run("import holdfast")  # once, so that the byte code is there, as after an installation
    bare = statistics.median(run("pass") for _ in range(7))
    full = statistics.median(run("import holdfast") for _ in range(7))
    say("import holdfast (median of 7)", f"{(full - bare) * 1000:.0f} ms", "[<= 60 ms]")


def enqueue(folder: Path) -> None:
    """Enqueue on SQLite: one by one, by 50 concurrent callers, in bulk."""
    os.environ["HOLDFAST_URL"] = f"sqlite:///{folder}/enqueue.db"
    from bench.app import jobs, noop

    with jobs:
        start = time.perf_counter()
        for number in range(1000):
            noop.enqueue(number)
        say("enqueue, one by one, FULL", f"{1000 / (time.perf_counter() - start):,.0f}/s")

        async def many() -> float:
            async def caller() -> None:
                for number in range(100):
                    await noop.aenqueue(number)

            start = time.perf_counter()
            await asyncio.gather(*(caller() for _ in range(50)))
            return 5000 / (time.perf_counter() - start)

        say("enqueue, 50 concurrent callers, FULL", f"{asyncio.run(many()):,.0f}/s")
        start = time.perf_counter()
        jobs.enqueue_many(noop.bind(number) for number in range(20_000))
        say("enqueue_many, FULL", f"{20_000 / (time.perf_counter() - start):,.0f}/s")


def drain(folder: Path) -> None:
    """Jobs that wait already, drained by one worker process; from the first start to the last recorded end."""
    for durability, aim in (("full", "[>= 20,000/s]"), ("normal", "")):
        used: list[float] = []
        rate = drained(f"sqlite:///{folder}/drain-{durability}.db?durability={durability}", folder, JOBS, used)
        say(f"drain, 1 process, {durability.upper()}, {JOBS:,} no-op jobs", f"{rate:,.0f}/s", aim)
        say("  of it CPU, supervisor and worker", f"{sum(used) / JOBS * 1e6:.0f} us/job")


def latency(folder: Path) -> None:
    """An idle worker process: what it costs, and how soon it starts a job of another process."""
    url, starts = f"sqlite:///{folder}/latency.db", folder / "starts"
    starts.touch()
    os.environ["HOLDFAST_URL"] = url
    from holdfast import Holdfast

    client = Holdfast(url)

    @client.task(name="bench.app.stamp")
    async def stamp(number: int) -> None: ...

    with client, worker(url, folder, BENCH_STARTS=str(starts)) as process:
        stamp.enqueue(-1)
        until(lambda: starts.stat().st_size > 0, "the first job")
        time.sleep(1)
        processes = family(process.pid)
        before = [cpu_seconds(pid) for pid in processes]
        time.sleep(IDLE_SECONDS)
        used = [cpu_seconds(pid) - was for pid, was in zip(processes, before, strict=True)]
        for name, pid, seconds in zip(("supervisor", "worker"), processes, used, strict=True):
            say(f"idle {name}: CPU of one core", f"{seconds / IDLE_SECONDS:.2%}", "[<= 1 % together]")
            say(f"idle {name}: memory", f"{rss_mib(pid):.0f} MiB")
        asked: list[int] = []
        for number in range(SAMPLES):
            time.sleep(random.uniform(0.005, 0.04))
            asked.append(time.time_ns())
            stamp.enqueue(number)
        until(lambda: starts.read_text().count("\n") == SAMPLES + 1, "the last job")
    began = dict(map(int, line.split()) for line in starts.read_text().splitlines())
    waits = [(began[number] - asked[number]) / 1e6 for number in range(SAMPLES)]
    say("idle latency, enqueue to start, p50", f"{percentile(waits, 0.50):.2f} ms", "[<= 5 ms]")
    say("idle latency, enqueue to start, p99", f"{percentile(waits, 0.99):.2f} ms")


def slots(folder: Path) -> None:
    """Jobs in processes of their own: the cost of one, and how long one waits for its process."""
    os.environ["HOLDFAST_URL"] = f"sqlite:///{folder}/slots.db"
    from bench.app import jobs, slot, spin

    def waited() -> float:
        asked = time.time()
        return (slot.enqueue().result(60) - asked) * 1000

    with jobs, jobs.worker(concurrency=1):
        say("process job, enqueue to start, cold", f"{waited():.0f} ms")
        time.sleep(1)
        say("process job, enqueue to start, warm", f"{statistics.median(waited() for _ in range(50)):.1f} ms")
        began = [job.result(60) for job in jobs.enqueue_many(slot.bind() for _ in range(500))]
        say("process jobs that wait already, one slot", f"{(max(began) - min(began)) / 499 * 1000:.2f} ms/job")
        waits: list[float] = []
        for _ in range(7):
            ended = spin.enqueue()
            until(lambda ended=ended: ended.status().finished, "the end by force", every=0.005)
            waits.append(waited())
            time.sleep(0.7)
        say("  enqueue to start after an end by force", f"{statistics.median(waits):.0f} ms", "[<= 100 ms]")


PARTS: dict[str, Callable[[Path], None]] = {
    "imports": imports,
    "enqueue": enqueue,
    "drain": drain,
    "bounds": bounds,
    "latency": latency,
    "slots": slots,
    "scheduled": scheduled,
    "recovery": recovery,
    "pool": pool,
}


def main() -> int:
    names = sys.argv[1:] or list(PARTS)
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        print(f"no part {unknown[0]!r}; there are {', '.join(PARTS)}", file=sys.stderr)
        return 2
    print(f"holdfast bench: sqlite {sqlite3.sqlite_version}, python {sys.version.split()[0]}, {os.cpu_count()} cores")
    for name in names:
        with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as folder:
            PARTS[name](Path(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
