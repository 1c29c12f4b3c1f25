"""The app that the benchmarked workers run; the store comes from HOLDFAST_URL."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from holdfast import Holdfast, current_job

jobs = Holdfast()
_starts = Path(os.environ.get("BENCH_STARTS", os.devnull)).open("a", buffering=1)  # noqa: SIM115  # for the process's life


@jobs.task
async def noop(number: int) -> None:
    """Does nothing, as fast as the worker can."""


@jobs.task
async def stamp(number: int) -> None:
    """Writes down when it began."""
    _starts.write(f"{number} {time.time_ns()}\n")


@jobs.task
async def stay(seconds: float) -> None:
    """Writes down when it began; its first run takes so long."""
    fence = current_job().fence
    _starts.write(f"{fence} {time.time_ns()} {os.getpid()}\n")
    if fence == 1:
        await asyncio.sleep(seconds)


@jobs.task(run_in="process")
def slot() -> float:
    """When it began."""
    return time.time()


@jobs.task(run_in="process", timeout=0.5)
def spin() -> None:
    """Has to be ended."""
    while True:
        pass
