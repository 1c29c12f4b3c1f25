"""The shop's jobs, and its database, which is the file that the jobs are in."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from holdfast import Holdfast, Retry, current_job

FILE = os.environ["SHOP_FILE"]
OUTBOX = Path(os.environ["SHOP_OUTBOX"])  # where the mail server would be; without it none can be sent

jobs = Holdfast(f"sqlite:///{FILE}")
jobs.queue("mail", max_size=2)


@jobs.resource
async def db() -> AsyncIterator[async_sessionmaker[AsyncSession]]:
    engine = create_async_engine(f"sqlite+aiosqlite:///{FILE}")
    yield async_sessionmaker(engine, expire_on_commit=False)
    await engine.dispose()


@jobs.task(queue="mail", retry=Retry(max_attempts=100, base_delay=0.1, max_delay=0.1), timeout=30)
async def send_invoice(order_id: int) -> str:
    job = current_job()
    async with db()() as s:
        paid = await s.scalar(text("SELECT paid FROM orders WHERE id = :id"), {"id": order_id})
    invoice = f"Order {order_id}: {'paid' if paid else 'to be paid'}, with thanks"
    job.progress(1, 2, text="written")
    OUTBOX.joinpath(str(order_id)).write_text(invoice)
    job.progress(2, 2, text="sent")
    return invoice
