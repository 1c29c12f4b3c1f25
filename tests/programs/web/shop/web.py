"""The web application: an order that is paid has its invoice sent, or neither."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, FastAPI, HTTPException
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from holdfast import JobNotFound, QueueFull
from holdfast.integrations.starlette import queue_full
from shop.jobs import db, jobs, send_invoice


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
    async with jobs.worker(concurrency=20):  # this loop; opens the resources
        yield


async def session() -> AsyncIterator[AsyncSession]:
    async with db()() as s, s.begin():
        yield s


app = FastAPI(lifespan=lifespan)
app.add_exception_handler(QueueFull, queue_full)


@app.post("/orders/{order_id}/paid", status_code=202)
async def paid(order_id: int, s: Annotated[AsyncSession, Depends(session)]) -> dict[str, UUID]:
    await s.execute(text("UPDATE orders SET paid = true WHERE id = :id"), {"id": order_id})
    job = await send_invoice.using(connection=s).aenqueue(order_id)
    return {"job": job.id}


@app.get("/jobs/{job_id}")
async def status(job_id: UUID) -> dict[str, Any]:
    try:
        s = await send_invoice.job(job_id).astatus()
    except JobNotFound:
        raise HTTPException(404) from None
    return {"state": s.state, "progress": s.progress, "error": s.errors[-1].message if s.errors else None}
