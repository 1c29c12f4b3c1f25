"""The shop's web application: orders come in, get paid, and their invoices go out in the background.

`uvicorn examples.invoices.shop:app` serves it.
"""

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Mount, Route

from examples.invoices import database, incidents, outbox, page
from examples.invoices.orders import read_orders
from examples.invoices.settings import INVOICES
from examples.invoices.tasks import jobs, send_invoice
from holdfast import JobNotFound, JobStatus, QueueFull, Refused, StoreError
from holdfast.integrations.asgi import endpoint
from holdfast.integrations.starlette import queue_full

UNFINISHED = ("scheduled", "queued", "running")
SHOWN = 25  # orders on a page


def paid(request: Request) -> Response:
    """`POST /orders/{number}/paid`: the order is paid and its invoice is on its way, both or neither."""
    number = request.path_params["number"]
    return JSONResponse({"order": number, "job": _pay(number)}, status_code=202)


def _pay(number: int) -> str | None:
    """The job that sends the invoice; None while the order waits in the outbox."""
    with database.transaction() as db:
        if database.mark_paid(db, number, datetime.now(UTC).date()):
            _send_invoices(db, [number])
    if outbox.NEEDED:
        outbox.drain(number)
    with database.connected() as db:
        return database.invoice_job(db, number)


def _send_invoices(db: database.Database, numbers: Sequence[int]) -> None:
    """Part of the transaction: these invoices are on their way once it is committed."""
    if outbox.NEEDED:
        outbox.put(db, numbers)
        return
    sent = jobs.enqueue_many([send_invoice.bind(number) for number in numbers], connection=db.connection)
    database.note_jobs(db, [(number, str(job.id)) for number, job in zip(numbers, sent, strict=True)])


async def import_orders(request: Request) -> Response:
    """`POST /orders`: a CSV export. Known orders are skipped; those that are paid get their invoice."""
    export = (await request.body()).decode()
    return JSONResponse(await run_in_threadpool(_import, export), status_code=202)


def _import(export: str) -> dict[str, int]:
    orders = list(read_orders(export.splitlines(keepends=True)))
    with database.transaction() as db:
        added = [order for order in orders if database.add(db, order)]
        due = [order.number for order in added if order.paid_on]
        _send_invoices(db, due)
    if outbox.NEEDED:
        outbox.drain()
    return {"orders": len(added), "repeated": len(orders) - len(added), "jobs": len(due)}


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


def home(request: Request) -> Response:
    """`GET /`: the page for people."""
    asked = request.query_params
    below = asked.get("below", "")
    view = page.View(
        "unpaid" in asked,
        "dead" in asked,
        int(below) if below.isdecimal() and len(below) < 19 else None,
        "still" in asked,
        asked.get("note", ""),
    )
    among = [str(status.id) for status in _dead()] if view.dead else None
    found = database.listed(view.below, SHOWN + 1, unpaid=view.unpaid, jobs=among)
    rows = [(order, _invoice(order.number, job)) for order, job in found[:SHOWN]]
    older = found[SHOWN - 1][0].number if len(found) > SHOWN else None
    killable = incidents.workers_can_be_killed()
    return HTMLResponse(page.home(view, _counts(), incidents.ask_provider(), rows, older=older, killable=killable))


def _invoice(number: int, job: str | None) -> page.Invoice | None:
    if job is None:
        return None
    try:
        status = jobs.job(job).status()
    except JobNotFound:  # it has ended long ago
        status = None
    return page.Invoice(status, filed=_pdf(number).exists())


def _pdf(number: int) -> Path:
    return INVOICES / f"invoice-{number}.pdf"


def pay(request: Request) -> Response:
    """`POST /orders/{number}/pay`: as `/paid`, for the button on the page."""
    number = request.path_params["number"]
    _pay(number)
    return _back(request, f"order-{number}")


def retry(request: Request) -> Response:
    """`POST /orders/{number}/retry`: a new life for the job of an invoice that was given up."""
    number = request.path_params["number"]
    with database.connected() as db:
        job = database.invoice_job(db, number)
    try:
        if job:
            jobs.job(job).retry()
    except (JobNotFound, Refused, StoreError) as error:  # gone, or somebody was faster
        return _back(request, note=str(error))
    return _back(request, f"order-{number}")


def invoice(request: Request) -> Response:
    """`GET /orders/{number}/invoice.pdf`."""
    pdf = _pdf(request.path_params["number"])
    if not pdf.exists():
        return HTMLResponse(page.document("No invoice", "<p>This order has no invoice yet."), status_code=404)
    return FileResponse(pdf, media_type="application/pdf")


def mail_server(request: Request) -> Response:
    """`POST /incidents/mail-server/{mood}`: well, busy or silent."""
    mood = request.path_params["mood"]
    if mood not in incidents.FAULTS:
        return Response(status_code=404)
    heard = incidents.make_provider(mood)
    return _back(request, note="" if heard else "The mail server does not answer.")


def kill(request: Request) -> Response:
    """`POST /incidents/kill`: `kill -9` for a worker process."""
    victim = incidents.kill_a_worker()
    said = (
        f"Worker process {victim} was ended by kill -9. Its jobs run again."
        if victim
        else "There is no worker to kill."
    )
    return _back(request, note=said)


def _back(request: Request, place: str = "", note: str = "") -> Response:
    """To the page where the button was; a reload then repeats nothing."""
    came_from = urlsplit(request.headers.get("referer", ""))
    asked = dict(parse_qsl(came_from.query)) if came_from.path == "/" else {}
    asked.pop("note", None)
    query = urlencode(asked | ({"note": note} if note else {}))
    return RedirectResponse(f"/{'?' if query else ''}{query}{'#' if place else ''}{place}", status_code=303)


async def full(request: Request, error: Exception) -> Response:
    """The queue of mails has no place: 503 and when to come again, as a page for those who read pages."""
    answer = queue_full(request, error)
    if "text/html" in request.headers.get("accept", ""):
        after = answer.headers["Retry-After"]
        return HTMLResponse(page.full(after), status_code=answer.status_code, headers={"Retry-After": after})
    return answer


def status(_request: Request) -> Response:
    """`GET /status`: the same numbers for programs."""
    return JSONResponse(_counts())


def _counts() -> dict[str, int]:
    orders, paid_orders, waiting = database.counts()
    waiting += sum(1 for state in UNFINISHED for _ in jobs.find(state=state, task=send_invoice.name))
    return {"orders": orders, "paid": paid_orders, "waiting": waiting, "dead": sum(1 for _ in _dead())}


def _dead() -> Iterator[JobStatus[str]]:
    return jobs.find(state="dead", task=send_invoice.name)


def unknown(_request: Request, error: Exception) -> Response:
    """An order that does not exist."""
    return JSONResponse({"error": str(error)}, status_code=404)


@asynccontextmanager
async def lifespan(_app: Starlette) -> AsyncGenerator[None]:
    """Tables and queue are ready before the first request."""
    database.create()
    async with jobs, outbox.draining():
        yield


app = Starlette(
    lifespan=lifespan,
    exception_handlers={database.UnknownOrder: unknown, QueueFull: full},
    routes=[
        Route("/", home),
        Route("/status", status),
        Route("/orders", import_orders, methods=["POST"]),
        Route("/orders/{number:int}", order),
        Route("/orders/{number:int}/paid", paid, methods=["POST"]),
        Route("/orders/{number:int}/pay", pay, methods=["POST"]),
        Route("/orders/{number:int}/retry", retry, methods=["POST"]),
        Route("/orders/{number:int}/invoice.pdf", invoice),
        Route("/incidents/mail-server/{mood}", mail_server, methods=["POST"]),
        Route("/incidents/kill", kill, methods=["POST"]),
        Mount(
            "/jobs", endpoint(jobs)
        ),  # /jobs/metrics: how full the queues are; what workers did, they tell themselves
    ],
)
