"""/metrics, /live and /ready as an ASGI app, for workers in one's own process, and for processes that only enqueue.

`app.mount("/holdfast", endpoint(jobs))`, or alone under any ASGI server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias
from uuid import UUID

from holdfast.app import Holdfast, parts_of
from holdfast.errors import StoreError
from holdfast.observe.endpoint import Answer, Watched, answer, plain
from holdfast.observe.health import Seen
from holdfast.store import Stats, Where
from holdfast.worker.recorder import Looks

ASK_LIMIT = 2.0  # seconds that the store has to answer a process without workers

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Endpoint: TypeAlias = Callable[[Message, Receive, Send], Awaitable[None]]

_NOBODY = UUID(int=0)


def endpoint(jobs: Holdfast) -> Endpoint:
    """An ASGI app that answers GET and HEAD of /metrics, /live and /ready, wherever it is mounted.

    It tells of the workers that `jobs.worker()` has started in this process; where there is none, /ready says whether
    the store answers. /metrics needs holdfast[metrics]. It asks for no login: what it shows are names of queues and
    tasks, and numbers.
    """
    staffing = parts_of(jobs).staffing
    looks = Looks(lambda: _asked(jobs))

    async def metrics(accept: str) -> tuple[str, bytes]:
        from holdfast import __version__
        from holdfast.observe.metrics import Shown, exposition  # an extra, which not all have

        seen = await _seen(jobs)
        stats = await looks.asked() if seen.answers else None
        return exposition(Shown(staffing.totals, seen, stats, __version__), accept)

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _live_through(receive, send)
        elif scope["type"] == "http":
            seen = await _seen(jobs)
            await _send(send, scope["method"], await _said(Watched(lambda: seen, metrics), scope))
        else:
            await send({"type": "websocket.close", "code": 1000})

    return app


async def _said(watched: Watched, scope: Message) -> Answer:
    if scope["method"] not in {"GET", "HEAD"}:
        return plain(405, "GET and HEAD alone")
    accept = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"accept"), "")
    return await answer(watched, f"/{scope['path'].rpartition('/')[2]}", accept)


async def _send(send: Send, method: str, said: Answer) -> None:
    headers = [
        (b"content-type", said.content_type.encode("latin-1")),
        (b"content-length", str(len(said.body)).encode()),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
    ]
    if said.status == 405:
        headers.append((b"allow", b"GET, HEAD"))
    await send({"type": "http.response.start", "status": said.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if method == "HEAD" else said.body})


async def _live_through(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def _seen(jobs: Holdfast) -> Seen:
    crews = [crew for crew in parts_of(jobs).staffing.crews if crew.started]
    if not crews:
        away = await _away(jobs)
        return Seen([], not away, away, supervised=False, works=False)
    away = next((crew.away for crew in crews if crew.away), "")
    vitals = [crew.vitals(number) for number, crew in enumerate(crews)]
    return Seen(vitals, not away, away, stopping=all(crew.stopping for crew in crews), supervised=False)


async def _away(jobs: Holdfast) -> str:
    """Why the store does not answer; empty if it does."""
    link = parts_of(jobs).link

    async def ask() -> None:
        async with asyncio.timeout(ASK_LIMIT):
            await (await link.opened()).store.find(Where(ids=(_NOBODY,)), None, 1)

    try:
        await link.arun(ask)
    except TimeoutError:
        return f"it has not answered for {ASK_LIMIT:g} s"
    except StoreError as error:
        return str(error)
    return ""


async def _asked(jobs: Holdfast) -> Stats:
    link = parts_of(jobs).link

    async def ask() -> Stats:
        return await (await link.opened()).store.stats()

    return await link.arun(ask)
