"""An app whose handlers finish their jobs in transactions of their own, in the store's database, as the test says."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import sqlalchemy
from sqlalchemy import Connection, Engine, NullPool, text
from sqlalchemy.ext.asyncio import create_async_engine

from holdfast import Holdfast, Retry, current_job

DRIVERS = {"sqlite": ("sqlite", "sqlite+aiosqlite"), "postgresql": ("postgresql+psycopg", "postgresql+psycopg")}
PATIENCE = 60  # seconds, that something is held at most: the test must have failed by then

jobs = Holdfast(keep="1h", retry=Retry(max_attempts=2, base_delay=0.01))


def address(url: str, *, is_async: bool = False) -> str:
    """The store's URL as SQLAlchemy writes it."""
    scheme, _, rest = url.partition("://")
    return f"{DRIVERS[scheme][is_async]}://{rest}"


@cache
def engine(url: str) -> Engine:
    return sqlalchemy.create_engine(address(url), poolclass=NullPool)


def note(event: str, **facts: Any) -> None:
    """A line in the ledger: one write, so that lines of several processes never mix."""
    job = current_job()
    line = {"event": event, "job": str(job.id), "fence": job.fence, "attempt": job.attempt, "pid": os.getpid(), **facts}
    ledger = os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(ledger, json.dumps(line).encode() + b"\n")
    finally:
        os.close(ledger)


def told(name: str) -> bool:
    """Whether the test has put a file of this name beside the ledger."""
    return Path(os.environ["LEDGER"]).with_name(name).exists()


def await_told(name: str) -> None:
    end = time.monotonic() + PATIENCE
    while not told(name) and time.monotonic() < end:
        time.sleep(0.01)


def _first_run() -> bool:
    note("begin")
    begun = Path(os.environ["LEDGER"]).with_name(f"begun {current_job().id}")
    if begun.exists():
        return False
    begun.touch()
    return True


def paid(order: int) -> Any:
    facts = {"o": order, "f": current_job().fence, "a": current_job().attempt}
    return text("INSERT INTO payments VALUES (:o, :f, :a)"), facts


class Refusal(Exception):
    """What a handler of the till raises."""


_left_open: list[Connection] = []


def close_left_open() -> None:
    while _left_open:
        _left_open.pop().close()


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _raise() -> None:
    raise Refusal("after it")


def _stay() -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:  # deaf to whatever it is asked
        with suppress(BaseException):
            time.sleep(PATIENCE)


# What the first run does, before its commit and after it; the second one always commits, and returns.
BEFORE: dict[str, Callable[[], None]] = {"raises before": _raise, "dies before": _die}
AFTER: dict[str, Callable[[], None]] = {"raises after": _raise, "dies after": _die, "stays after": _stay}


def pay(order: int, how: str) -> str:
    how = how if _first_run() else "commits"
    connection = engine(os.environ["HOLDFAST_URL"]).connect()
    if how == "leaves open":
        _left_open.append(connection)
    try:
        connection.execute(*paid(order))
        current_job().finish(connection, f"receipt {order}")
        note("finish")
        BEFORE.get(how, lambda: None)()
        if how == "waits":
            await_told("go")
        if how == "rolls back":
            connection.rollback()
        elif how != "leaves open":
            connection.commit()
            note("commit")
            AFTER.get(how, lambda: None)()
    finally:
        if how != "leaves open":
            connection.close()
    return "what is returned does not matter"


@jobs.task
def in_thread(order: int, how: str) -> str:
    return pay(order, how)


@jobs.task(run_in="process")
def in_process(order: int, how: str) -> str:
    return pay(order, how)


@jobs.task(run_in="process", timeout=8)
def in_time(order: int, how: str) -> str:
    return pay(order, how)


async def apay(order: int, how: str) -> str:
    how = how if _first_run() else "commits"
    own = create_async_engine(address(os.environ["HOLDFAST_URL"], is_async=True), poolclass=NullPool)
    async with own.connect() as connection:
        await connection.execute(*paid(order))
        await current_job().afinish(connection, f"receipt {order}")
        note("finish")
        BEFORE.get(how, lambda: None)()
        if how == "rolls back":
            await connection.rollback()
        else:
            await connection.commit()
            note("commit")
            AFTER.get(how, lambda: None)()
    return "what is returned does not matter"


@jobs.task
async def on_loop(order: int, how: str) -> str:
    return await apay(order, how)


@jobs.task(run_in="process")
async def on_its_loop(order: int, how: str) -> str:
    return await apay(order, how)


@jobs.task
async def finishes_blocking(order: int) -> str:
    own = create_async_engine(address(os.environ["HOLDFAST_URL"], is_async=True), poolclass=NullPool)
    async with own.connect() as connection:
        await connection.execute(*paid(order))
        current_job().finish(connection)
        await connection.commit()
    return ""


@jobs.task
async def plain() -> int:
    note("plain")
    await asyncio.sleep(0)
    return current_job().fence


@jobs.task
def slow_then_finishes(order: int) -> int:
    """Waits before it has a transaction at all."""
    note("begin")
    if current_job().fence == 1:
        await_told("go")
    with engine(os.environ["HOLDFAST_URL"]).begin() as connection:
        connection.execute(*paid(order))
        current_job().finish(connection, current_job().fence)
    return 0
