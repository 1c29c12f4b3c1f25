"""The shop's web application: orders come in, get paid, and their invoices go out in the background.

`uvicorn examples.invoices.shop:app` serves it.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from html import escape

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from examples.invoices import database
from examples.invoices.orders import read_orders
from examples.invoices.tasks import jobs, send_invoice

UNFINISHED = ("scheduled", "queued", "running")


def paid(request: Request) -> Response:
    """`POST /orders/{number}/paid`: the order is paid and its invoice is on its way, both or neither."""
    number = request.path_params["number"]
    with database.transaction() as db:
        if database.mark_paid(db, number, datetime.now(UTC).date()):
            job = send_invoice.using(connection=db).enqueue(number)
            database.note_jobs(db, [(number, str(job.id))])
        answer = {"order": number, "job": database.invoice_job(db, number)}
    return JSONResponse(answer, status_code=202)


async def import_orders(request: Request) -> Response:
    """`POST /orders`: a CSV export. Known orders are skipped; those that are paid get their invoice."""
    export = (await request.body()).decode()
    return JSONResponse(await run_in_threadpool(_import, export), status_code=202)


def _import(export: str) -> dict[str, int]:
    orders = list(read_orders(export.splitlines(keepends=True)))
    with database.transaction() as db:
        added = [order for order in orders if database.add(db, order)]
        due = [order.number for order in added if order.paid_on]
        sent = jobs.enqueue_many([send_invoice.bind(number) for number in due], connection=db)
        database.note_jobs(db, [(number, str(job.id)) for number, job in zip(due, sent, strict=True)])
    return {"orders": len(added), "repeated": len(orders) - len(added), "jobs": len(sent)}


def order(request: Request) -> Response:
    """`GET /orders/{number}`: the order, and where its invoice is."""
    number = request.path_params["number"]
    found = database.load(number)
    with database.connected() as db:
        job_id = database.invoice_job(db, number)
    status = jobs.job(job_id).status() if job_id else None
    return JSONResponse(
        {
            "order": number,
            "customer": found.customer,
            "total": found.money(found.total),
            "currency": found.currency,
            "paid_on": found.paid_on and found.paid_on.isoformat(),
            "invoice": status and {"job": job_id, "state": status.state, "attempt": status.attempt},
        }
    )


def home(_request: Request) -> Response:
    """`GET /`: the day's numbers on a plain page."""
    rows = "".join(f"<tr><th scope=row>{name}<td>{count}" for name, count in _counts().items())
    dead = "".join(
        f"<tr><td>{status.id}<td>{escape(status.errors[-1].message)}"
        for status in jobs.find(state="dead", task=send_invoice.name)
    )
    return HTMLResponse(
        "<!doctype html><html lang=en><meta charset=utf-8><title>Invoice shop</title>"
        f"<h1>Invoice shop</h1><table><caption>Today</caption>{rows}</table>"
        f"<table><caption>Invoices that need a look</caption>{dead}</table>"
    )


def status(_request: Request) -> Response:
    """`GET /status`: the same numbers for programs."""
    return JSONResponse(_counts())


def _counts() -> dict[str, int]:
    orders, paid_orders = database.counts()
    waiting = sum(1 for state in UNFINISHED for _ in jobs.find(state=state, task=send_invoice.name))
    dead = sum(1 for _ in jobs.find(state="dead", task=send_invoice.name))
    return {"orders": orders, "paid": paid_orders, "waiting": waiting, "dead": dead}


def unknown(_request: Request, error: Exception) -> Response:
    """An order that does not exist."""
    return JSONResponse({"error": str(error)}, status_code=404)


@asynccontextmanager
async def lifespan(_app: Starlette) -> AsyncGenerator[None]:
    """Tables and queue are ready before the first request."""
    database.create()
    async with jobs:
        yield


app = Starlette(
    lifespan=lifespan,
    exception_handlers={database.UnknownOrder: unknown},
    routes=[
        Route("/", home),
        Route("/status", status),
        Route("/orders", import_orders, methods=["POST"]),
        Route("/orders/{number:int}", order),
        Route("/orders/{number:int}/paid", paid, methods=["POST"]),
    ],
)
