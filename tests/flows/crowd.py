"""The app of tests/flows/test_crowd.py; run as a program it is a producer, which enqueues until it is told to stop.

Every queue is bounded, and most jobs have one of a few keys, so that producers stand in each other's way all the time.
What a producer means to do it says in the ledger before, and what it was told after.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from pathlib import Path
from typing import Any
from uuid import UUID

from holdfast import Holdfast, Job, QueueFull, Retry, Unique, UniqueConflict, current_job
from tests.flows.shop import note

jobs = Holdfast()

BOUND = 6
MODES = ("reject", "block", "drop_oldest", "drop_newest")
KEYS = tuple(f"key {n}" for n in range(5))

for mode in MODES:
    jobs.queue(mode, max_size=BOUND, when_full=mode, **({"block_timeout": 0.2} if mode == "block" else {}))


@jobs.task(retry=Retry(max_attempts=2, base_delay=0.02, max_crashes=100))
def errand(fate: str) -> str:
    """Fails always, or at first, or never; its effect comes last."""
    note("begin")
    time.sleep(0.01)
    if fate == "fails" or (fate == "stumbles" and current_job().attempt == 1):
        raise ConnectionError(fate)
    note("effect")
    return fate


def say(event: str, **facts: Any) -> None:
    """A line in the ledger: one write, so that lines of several processes never mix."""
    ledger = os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(ledger, json.dumps({"event": event, "job": None, "pid": os.getpid(), **facts}).encode() + b"\n")
    finally:
        os.close(ledger)


def _enqueue(chance: random.Random) -> None:
    """One call, of one to three jobs."""
    asked = []
    for _ in range(chance.choice((1, 1, 3))):
        key = chance.choice((None, *KEYS))
        until = chance.choice(("finished", "finished", "started"))
        unique = key and Unique(key, until=until, on_clash=chance.choice(("return", "return", "raise", "replace")))
        queue = chance.choice(MODES)
        errand_there = errand.using(queue=queue, unique=unique, delay=chance.choice((0, 0, 0.05)))
        asked.append(errand_there.bind(chance.choice(("goes well", "stumbles", "fails"))))
        say("asked", job=str(asked[-1].id), queue=queue, key=key, until=until)
    try:
        stored = jobs.enqueue_many(asked)
    except QueueFull as error:
        say("full", depth=error.depth, bound=error.bound, wait=error.retry_after)
        stored = list(error.accepted)
    except UniqueConflict as error:
        say("taken", job=str(error.job.id))
        stored = list(error.accepted)
    _acknowledge(stored, {job.id for job in asked})


def _acknowledge(handles: list[Job[str]], asked: set[UUID]) -> None:
    """One that was not created is another's, perhaps of the same call, or was dropped."""
    created = {job.id for job in handles if job.created}
    for job in handles:
        dropped = job.id in asked - created
        say("stored" if job.created else "dropped" if dropped else "duplicate", job=str(job.id))


if __name__ == "__main__":
    chance, stop = random.Random(int(sys.argv[1])), Path(os.environ["LEDGER"]).with_name("stop")
    while not stop.exists():
        _enqueue(chance)
