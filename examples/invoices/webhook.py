"""The team's chat: takes a post for every invoice that went out, and the nightly reports, and keeps each once.

`uvicorn examples.invoices.webhook:app --port 8026` serves it.
"""

from pathlib import Path
from uuid import UUID

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from examples.invoices.settings import OUT

POSTS = OUT / "webhook"


async def invoice_sent(request: Request) -> Response:
    """`POST /invoices`: kept under its Idempotency-Key; a repeated key changes nothing."""
    return await _taken(request, POSTS)


async def report(request: Request) -> Response:
    """`POST /reports`: kept likewise."""
    return await _taken(request, POSTS / "reports")


async def _taken(request: Request, folder: Path) -> Response:
    key = UUID(request.headers["Idempotency-Key"])
    body = await request.body()
    kept = await run_in_threadpool(_keep, folder / f"{key}.json", body)
    return JSONResponse({"kept": kept}, status_code=201 if kept else 200)


def _keep(path: Path, body: bytes) -> bool:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("xb") as file:
            file.write(body)
    except FileExistsError:
        return False
    return True


app = Starlette(
    routes=[
        Route("/invoices", invoice_sent, methods=["POST"]),
        Route("/reports", report, methods=["POST"]),
    ]
)
