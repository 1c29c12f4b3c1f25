"""Transfers between accounts: asked for with the row that describes one, and done with the rows that it changes."""

import asyncio
import os
import time
from typing import Any

import psycopg
from psycopg.rows import dict_row

from holdfast import Holdfast, Retry, current_job

jobs = Holdfast(retry=Retry(max_attempts=20, base_delay=0.05, max_crashes=20))

LOCK = "SELECT FROM accounts WHERE name IN (%(source)s, %(target)s) ORDER BY name FOR UPDATE"  # or two may deadlock
TAKE = "UPDATE accounts SET balance = balance - %(amount)s WHERE name = %(source)s"
GIVE = "UPDATE accounts SET balance = balance + %(amount)s WHERE name = %(target)s RETURNING balance"
DONE = "UPDATE transfers SET times = times + 1 WHERE id = %(id)s RETURNING *"
WORK = 0.02  # seconds that a transfer takes


def bank() -> Any:
    return psycopg.connect(os.environ["HOLDFAST_URL"], row_factory=dict_row)


def ask(how: Any, source: str, target: str, amount: int, *, change_of_mind: bool = False) -> Any:
    """A transfer and its job, or neither."""
    with bank() as db:
        row = db.execute(
            "INSERT INTO transfers (source, target, amount) VALUES (%s, %s, %s) RETURNING id", [source, target, amount]
        ).fetchone()
        job = how.using(connection=db).enqueue(row["id"])
        if change_of_mind:
            db.rollback()
    return job


def _transfer(number: int) -> int:
    with bank() as db:
        row = db.execute(DONE, {"id": number}).fetchone()
        db.execute(LOCK, row)
        db.execute(TAKE, row)
        balance: int = db.execute(GIVE, row).fetchone()["balance"]
        time.sleep(WORK)
        current_job().finish(db, result=balance)
    time.sleep(WORK)
    return -1  # nobody sees it: the job has ended with its transaction


@jobs.task
def in_thread(number: int) -> int:
    return _transfer(number)


@jobs.task(run_in="process")
def in_process(number: int) -> int:
    return _transfer(number)


@jobs.task
async def on_loop(number: int) -> int:
    async with await psycopg.AsyncConnection.connect(os.environ["HOLDFAST_URL"], row_factory=dict_row) as db:
        row = await (await db.execute(DONE, {"id": number})).fetchone()
        await db.execute(LOCK, row)
        await db.execute(TAKE, row)
        found: Any = await (await db.execute(GIVE, row)).fetchone()
        await asyncio.sleep(WORK)
        await current_job().afinish(db, result=found["balance"])
    await asyncio.sleep(WORK)
    return -1
