"""The app that the benchmarked workers run; the store comes from HOLDFAST_URL."""

from __future__ import annotations

import os
import time
from pathlib import Path

from holdfast import Holdfast

jobs = Holdfast()
_starts = Path(os.environ.get("BENCH_STARTS", os.devnull)).open("a", buffering=1)  # noqa: SIM115  # for the process's life


@jobs.task
async def noop(number: int) -> None:
    """Does nothing, as fast as the worker can."""


@jobs.task
async def stamp(number: int) -> None:
    """Writes down when it began."""
    _starts.write(f"{number} {time.time_ns()}\n")
