"""The way from the orders to jobs that are elsewhere, such as in Redis, where no transaction covers both.

With the order a row is committed that says: its invoice is to go out. `drain` enqueues the jobs of such rows, and only
then takes the rows away. So a crash anywhere between loses nothing, and at worst a job is enqueued a second time:
of the jobs of one order, the one that is noted in its row sends the invoice, and another one steps down (tasks.py).
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

from starlette.concurrency import run_in_threadpool

from examples.invoices import database
from examples.invoices.settings import DATABASE, JOBS
from examples.invoices.tasks import jobs, send_invoice
from holdfast import QueueFull, StoreError

NEEDED = JOBS != DATABASE
AGAIN = 1.0  # seconds until what stayed behind is tried again
AT_ONCE = 500  # rows
log = logging.getLogger(__name__)


def put(db: database.Database, numbers: Sequence[int]) -> None:
    """Within the transaction of `db`: the invoices of these orders are to go out."""
    db.write_all("INSERT INTO outbox VALUES (?) ON CONFLICT DO NOTHING", ((number,) for number in numbers))


def drain(only: int | None = None) -> None:
    """Enqueues what waits, or what waits for one order. What the store does not take now stays, for the next time."""
    while numbers := _waiting(only):
        try:
            sent = jobs.enqueue_many(send_invoice.bind(number) for number in numbers)
        except (QueueFull, StoreError) as error:
            log.warning("the invoices of %d orders stay in the outbox: %s", len(numbers), error)
            return
        # Whoever dies here has enqueued and not noted it. It is done again: while the first job is unfinished, its
        # unique key makes that the same job; later, the order knows that its invoice has gone out with another.
        with database.transaction() as db:
            for number, job in zip(numbers, sent, strict=True):
                database.note_sender(db, number, str(job.id))
                db.execute("DELETE FROM outbox WHERE number = ?", (number,))


def _waiting(only: int | None) -> list[int]:
    """The orders whose jobs are to be enqueued; rows of those that have one already are what a crash left over."""
    with database.transaction() as db:
        db.execute("DELETE FROM outbox WHERE number IN (SELECT number FROM orders WHERE invoice_job IS NOT NULL)")
        rows = db.execute("SELECT number FROM outbox WHERE number = coalesce(?, number) LIMIT ?", (only, AT_ONCE))
        return [row["number"] for row in rows]


@asynccontextmanager
async def draining() -> AsyncGenerator[None]:
    """While it lasts, what stayed in the outbox is tried again and again."""
    task = asyncio.create_task(_drain_for_ever())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _drain_for_ever() -> None:
    while NEEDED:
        try:
            await run_in_threadpool(drain)
        except Exception:  # of either driver: the next time may be better
            log.exception("the outbox was not drained")
        await asyncio.sleep(AGAIN)
