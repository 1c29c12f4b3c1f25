"""An app whose jobs can be held at any point of their life, so that a test can do something to the worker just there.

HOLD names points, with commas between. Who reaches one for the first time says so in the ledger ("at <point>") and
waits for the file `<point>.go` beside it. At the seam there are claim, claimed, finish and finished: before the call,
and when it is done but its answer is not known yet. In a handler there are first, middle and last.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from holdfast import Holdfast, current_job
from holdfast.client import link
from holdfast.clock import Span
from holdfast.store import Store
from holdfast.stores import open_store
from tests.flows.shop import note

POINTS = ("first", "middle", "last")
PATIENCE = 60  # seconds, that something is held at most: the test must have failed by then


def _go(point: str) -> Path:
    return Path(os.environ["LEDGER"]).parent / f"{point}.go"


def say(event: str) -> None:
    """A line in the ledger that is about no job."""
    ledger = os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(ledger, json.dumps({"event": event, "job": None, "pid": os.getpid()}).encode() + b"\n")
    finally:
        os.close(ledger)


async def held_at(point: str) -> None:
    """Waits there if the test wants it."""
    if point not in os.environ.get("HOLD", "").split(",") or _go(point).exists():
        return
    say(f"at {point}")
    await until_go(point)


async def until_go(point: str) -> None:
    end = time.monotonic() + PATIENCE
    while not _go(point).exists() and time.monotonic() < end:  # noqa: ASYNC110  # a file tells nobody
        await asyncio.sleep(0.01)


class Tapped:
    """A store that can be held before and after what matters most."""

    def __init__(self, inner: Store) -> None:
        self._inner = inner

    def twin(self) -> Tapped:
        return Tapped(self._inner.twin())

    @property
    def url(self) -> str:
        return self._inner.url

    @property
    def shared(self) -> bool:
        return self._inner.shared

    @property
    def unheard(self) -> str:
        return self._inner.unheard

    @property
    def shift(self) -> Span:
        return self._inner.shift

    async def claim(self, *args: Any) -> Any:
        await held_at("claim")
        claims = await self._inner.claim(*args)
        if claims.jobs:
            await held_at("claimed")
        return claims

    async def finish(self, outcomes: Sequence[Any]) -> Any:
        await held_at("finish")
        settled = await self._inner.finish(outcomes)
        await held_at("finished")
        return settled

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


if "pytest" not in sys.modules:  # in the app's own processes alone: tests import this, too
    link.open_store = lambda url, clock: Tapped(open_store(url, clock))  # type: ignore[assignment]

jobs = Holdfast()


@jobs.task
async def leaf(number: int) -> int:
    """What others enqueue."""
    note("effect")
    return number


def _meant(at: str, point: str) -> bool:
    """Whether the job is to be held here: in its first run, and never again."""
    return at == point and current_job().fence == 1


@jobs.task
async def async_life(point: str, stays: bool, leaves: int = 0) -> None:
    """Held at `point` until the test says go or, if it `stays`, until it is stopped."""
    note("begin")
    for at in POINTS:
        if _meant(at, point):
            note(f"at {at}")
            await (asyncio.sleep(PATIENCE) if stays else until_go("handlers"))
        for number in range(leaves // len(POINTS)):
            await leaf.aenqueue(number)
    note("effect")


def _plain_life(point: str, stays: bool, leaves: int) -> None:
    note("begin")
    for at in POINTS:
        if _meant(at, point):
            note(f"at {at}")
            _wait(stays)
        for number in range(leaves // len(POINTS)):
            leaf.enqueue(number)
    note("effect")


def _wait(stays: bool) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if stays:
            current_job().check()
        elif _go("handlers").exists():
            return
        time.sleep(0.01)


@jobs.task
def thread_life(point: str, stays: bool, leaves: int = 0) -> None:
    """As async_life, in a thread."""
    _plain_life(point, stays, leaves)


@jobs.task(run_in="process")
def process_life(point: str, stays: bool, leaves: int = 0) -> None:
    """As async_life, in a process of its own."""
    _plain_life(point, stays, leaves)


@jobs.task
async def async_quick() -> None:
    note("begin")
    note("effect")


@jobs.task
def thread_quick() -> None:
    note("begin")
    note("effect")


@jobs.task(run_in="process")
def process_quick() -> None:
    note("begin")
    note("effect")


LIVES = {"async": async_life, "thread": thread_life, "process": process_life}
QUICK = {"async": async_quick, "thread": thread_quick, "process": process_quick}
