"""/metrics, /live and /ready as an ASGI app, for workers in one's own process, and for processes that only enqueue.

`app.mount("/holdfast", endpoint(jobs))`, or alone under any ASGI server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias
from uuid import UUID

from holdfast.app import Holdfast, parts_of
from holdfast.errors import StoreError
from holdfast.observe.endpoint import Answer, Watched, answer
from holdfast.observe.health import Seen
from holdfast.observe.pages import Pages
from holdfast.store import Stats, Where
from holdfast.worker.crew import Crew
from holdfast.worker.recorder import Looks
from holdfast.worker.vitals import resident

if TYPE_CHECKING:
    from holdfast.observe.metrics import Shown

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
    tasks, and numbers, and while the store is away the store's address (without passwords) and what its driver says.
    """
    staffing = parts_of(jobs).staffing
    looks = Looks(lambda: _asked(jobs))
    away = _Away(jobs)

    def own() -> Seen:
        return _seen([crew for crew in staffing.crews if crew.started])

    async def seen() -> Seen:
        without = own()
        return without if without.works else _without_workers(await away.asked())

    async def shown() -> Shown:
        from holdfast import __version__
        from holdfast.observe.metrics import Shown  # an extra, which not all have

        now = await seen()
        stats = await looks.asked() if now.answers else None
        return Shown(staffing.totals, now, stats, __version__)

    watched = Watched(own, seen, Pages(shown).asked)

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _live_through(receive, send)
        elif scope["type"] == "http":
            accept = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"accept"), "")
            path = f"/{scope['path'].rpartition('/')[2]}"
            await _send(send, scope["method"], await answer(watched, scope["method"], path, accept))
        else:
            await send({"type": "websocket.close", "code": 1000})

    return app


async def _send(send: Send, method: str, said: Answer) -> None:
    headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in said.headers]
    await send({"type": "http.response.start", "status": said.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if method == "HEAD" else said.body})


async def _live_through(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


def _seen(crews: Sequence[Crew]) -> Seen:
    if not crews:
        return _without_workers()
    away = next((crew.away for crew in crews if crew.away), "")
    vitals = [crew.vitals() for crew in sorted(crews, key=lambda crew: crew.number)]
    stopping = all(crew.stopping for crew in crews)
    return Seen(vitals, not away, away, stopping=stopping, supervised=False, memory=resident())


def _without_workers(away: str = "") -> Seen:
    return Seen([], not away, away, supervised=False, works=False)


class _Away:
    """Why the store does not answer; it is asked once for all who want to know at a time."""

    def __init__(self, jobs: Holdfast) -> None:
        self._jobs = jobs
        self._asking: asyncio.Task[str] | None = None

    async def asked(self) -> str:
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(_away(self._jobs))
        return await asyncio.shield(self._asking)


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
