"""What the parts share: worker processes, percentiles, and what a process costs."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bench.places import Place

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


def say(name: str, value: str, aim: str = "") -> None:
    """Prints a line: what, the figure, and beside it the aim."""
    print(f"  {name:<46} {value:>14}   {aim}", flush=True)


@contextlib.contextmanager
def worker(url: str, folder: Path, *options: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A `holdfast worker` on the benchmark's app, ended by SIGTERM."""
    command = [sys.executable, "-m", "holdfast", "worker", "bench.app:jobs", "--log-level", "warning", *options]
    with (folder / "worker.log").open("ab") as log:
        process = subprocess.Popen(command, stderr=log, env={**os.environ, "HOLDFAST_URL": url, **environment})
        try:
            yield process
        finally:
            process.terminate()
            process.wait(30)


def drained(
    place: Place,
    folder: Path,
    jobs: int,
    used: list[float] | None = None,
    processes: int = 1,
    options: Sequence[str] = (),
) -> float:
    """Jobs per second of worker processes on so many that wait already, in a store of their own.

    From the first start to the last recorded end. `used` gets the CPU seconds of all processes.
    """
    fill = f"from bench.app import jobs, noop\nwith jobs: jobs.enqueue_many(noop.bind(n) for n in range({jobs}))"
    subprocess.run([sys.executable, "-c", fill], check=True, env={**os.environ, "HOLDFAST_URL": place.url})
    with worker(place.url, folder, "--concurrency", "100", "--processes", str(processes), *options) as process:
        until(lambda: not place.unfinished(), "drain", every=0.2)
        if used is not None:
            used += [cpu_seconds(pid) for pid in family(process.pid)]
        first, last = place.ran()
    return jobs / ((last - first) / 1000)


def until(condition: Callable[[], bool], what: str, seconds: float = 120, every: float = 0.02) -> None:
    """Waits for something to become true."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {seconds} s")
        time.sleep(every)


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of the values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def family(pid: int) -> list[int]:
    """A process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    return [pid, *(int(child) for child in children.read_text().split())]


def cpu_seconds(pid: int) -> float:
    """CPU time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def rss_mib(pid: int) -> float:
    """Memory that a process holds."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE / 2**20


def runs(pid: int) -> bool:
    """Whether a process still runs; one that nobody has reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
