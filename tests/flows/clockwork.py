"""The app of the flow tests of schedules: a task that ticks each second, and notes its ticks in the ledger."""

from __future__ import annotations

import asyncio
import json
import os

from holdfast import Holdfast, current_job

jobs = Holdfast()


@jobs.every("1s", missed="all", name="clockwork")
@jobs.task(name="clockwork.tick")
async def tick() -> None:
    """Takes a while, so that some are killed in the middle."""
    job = current_job()
    await asyncio.sleep(0.05)
    assert job.scheduled_for is not None
    line = {"event": "tick", "job": str(job.id), "tick": job.scheduled_for.timestamp()}
    ledger = os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(ledger, json.dumps(line).encode() + b"\n")  # one write: lines of several processes never mix
    finally:
        os.close(ledger)
