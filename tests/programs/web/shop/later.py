"""The web application after a change that somebody got wrong: one route fails when its job is enqueued already."""

from typing import Annotated
from uuid import UUID

from fastapi import Depends, HTTPException
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from shop.jobs import send_invoice
from shop.web import app, session

__all__ = ["app"]


@app.post("/orders/{order_id}/refused")
async def refused(order_id: int, job_id: UUID, s: Annotated[AsyncSession, Depends(session)]) -> None:
    await s.execute(text("UPDATE orders SET paid = true WHERE id = :id"), {"id": order_id})
    job = await send_invoice.using(connection=s).aenqueue(order_id)
    raise HTTPException(409, f"{job.id}")
