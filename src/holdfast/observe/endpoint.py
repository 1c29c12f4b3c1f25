"""The endpoint: /metrics, /live and /ready over HTTP, for probes and scrapers alone.

`answer` is what is said, whoever serves it; `Server` serves it, on the loop that starts it: GET and HEAD, one request
per connection, all of it bounded in size, time and number.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from http import HTTPStatus
from typing import NamedTuple, TypeAlias

from holdfast.errors import ConfigError
from holdfast.observe.health import Check, Seen, live, ready, well
from holdfast.observe.logging import tell, workers

HEAD_MOST = 8 * 1024  # bytes of a request's line and headers
PATIENCE = 5.0  # seconds for a whole request, and for its answer
CONNECTIONS_MOST = 32
EXAMPLE = "127.0.0.1:9100"
TEXT, JSON = "text/plain; charset=utf-8", "application/json"


class Answer(NamedTuple):
    """What is answered to one request; to a HEAD without the body."""

    status: int
    content_type: str
    body: bytes

    @property
    def headers(self) -> list[tuple[str, str]]:
        """Those that it has wherever it is served."""
        headers = [
            ("Content-Type", self.content_type),
            ("Content-Length", str(len(self.body))),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
        ]
        return [*headers, ("Allow", "GET, HEAD")] if self.status == 405 else headers


class Watched(NamedTuple):
    """What there is to say of a service.

    `own`: how it is, without a question to its store; `seen`: how it is, after one where its workers ask none;
    `metrics`: for a header Accept, as content type and text.
    """

    own: Callable[[], Seen]
    seen: Callable[[], Awaitable[Seen]]
    metrics: Callable[[str], Awaitable[tuple[str, bytes]]]


async def answer(watched: Watched, method: str, path: str, accept: str = "") -> Answer:
    """The answer to a request."""
    if method not in {"GET", "HEAD"}:
        return plain(405, "GET and HEAD alone")
    match path.partition("?")[0]:
        case "/live":
            return _health("live", live(watched.own()))
        case "/ready":
            return _health("ready", ready(await watched.seen()))
        case "/metrics":
            return await _metrics(watched, accept)
        case _:
            return plain(404, "there are /metrics, /live and /ready")


async def _metrics(watched: Watched, accept: str) -> Answer:
    try:
        return Answer(200, *await watched.metrics(accept))
    except ImportError as error:
        return plain(501, str(error))


def _health(word: str, checks: Sequence[Check]) -> Answer:
    good = well(checks)
    text = json.dumps({word: good, "checks": [check.shown() for check in checks]}, ensure_ascii=False)
    return Answer(200 if good else 503, JSON, text.encode(errors="replace") + b"\n")


def plain(status: int, text: str) -> Answer:
    """An answer for people."""
    return Answer(status, TEXT, text.encode() + b"\n")


def head(said: Answer) -> bytes:
    """The status line and the headers."""
    headers = [*said.headers, ("Connection", "close")]
    lines = [f"HTTP/1.1 {said.status} {HTTPStatus(said.status).phrase}", *(f"{name}: {is_}" for name, is_ in headers)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


class Asked(NamedTuple):
    """What a request says that matters here."""

    method: str
    path: str
    accept: str


Request: TypeAlias = Asked | Answer  # or what is answered to one that cannot be read


class Server:
    """Of one service. `bound` finds out early whether the address can be had."""

    def __init__(self, listening: socket.socket) -> None:
        self._socket = listening
        self._open: set[asyncio.Task[None]] = set()
        self._silent: dict[asyncio.Task[None], asyncio.StreamWriter] = {}  # of them, whose request has not come yet
        self._server: asyncio.Server | None = None
        self._told = False

    @classmethod
    def bound(cls, address: str, parameter: str = "--metrics") -> Server:
        """One that listens at `address`, as "127.0.0.1:9100"; port 0: any that is free. ConfigError where it cannot."""
        host, port = located(address, parameter)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            listening = socket.create_server((host, port), family=family, backlog=CONNECTIONS_MOST)
        except (OSError, OverflowError, UnicodeError) as error:
            why = _why(error, host)
            raise ConfigError(
                f"{parameter} {address}: cannot listen there: {why}; choose an address of this machine and a port that "
                f"is free, such as 127.0.0.1:{port + 1 if 0 < port < 65535 else 9100}"
            ) from None
        listening.setblocking(False)
        return cls(listening)

    @property
    def address(self) -> str:
        """Where it listens, as host:port."""
        host, port = self._socket.getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    async def start(self, watched: Watched) -> None:
        """Answers from now on."""
        self._watched = watched
        self._server = await asyncio.start_server(self._connected, sock=self._socket, limit=HEAD_MOST)

    async def close(self) -> None:
        """Answers no more; what is being answered is cut."""
        if self._server is None:
            self._socket.close()
            return
        self._server.close()
        for task in list(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or not self._has_room():
            writer.transport.abort()
            return
        self._open.add(task)
        self._silent[task] = writer
        try:
            async with asyncio.timeout(PATIENCE):
                request = await _request(reader)
                self._silent.pop(task, None)
                await self._serve(request, writer)
        except (TimeoutError, OSError):
            writer.transport.abort()
        except Exception as error:  # noqa: BLE001  # a request must not end what it asks about
            self._tell(error)
            writer.transport.abort()
        finally:
            self._leave(task)
            with suppress(Exception):
                writer.close()

    def _has_room(self) -> bool:
        """Whoever says nothing must not keep a probe out: its worker would be ended for it."""
        if len(self._open) >= CONNECTIONS_MOST and self._silent:
            eldest = next(iter(self._silent))
            self._silent[eldest].transport.abort()
            self._leave(eldest)
        return len(self._open) < CONNECTIONS_MOST

    def _leave(self, task: asyncio.Task[None]) -> None:
        self._open.discard(task)
        self._silent.pop(task, None)

    async def _serve(self, request: Request, writer: asyncio.StreamWriter) -> None:
        said = request if isinstance(request, Answer) else await answer(self._watched, *request)
        writer.write(head(said))
        if isinstance(request, Answer) or request.method != "HEAD":
            writer.write(said.body)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    def _tell(self, error: Exception) -> None:
        if not self._told:
            self._told = True
            tell(workers, logging.WARNING, "endpoint-failed", error=repr(error), message="a request was not answered")
            workers.error("a bug in the endpoint; it goes on, please report it", exc_info=error)


async def _request(reader: asyncio.StreamReader) -> Request:
    try:
        text = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        return plain(431, f"the request's line and headers are longer than {HEAD_MOST} bytes")
    except asyncio.IncompleteReadError:
        return plain(400, "the request ended early")
    line, *headers = text.decode("latin-1").split("\r\n")
    words = line.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        return plain(400, "this is no HTTP/1.1 request")
    return Asked(words[0], words[1], _accept(headers))


def _why(error: Exception, host: str) -> str:
    if isinstance(error, UnicodeError) or (isinstance(error, OSError) and (error.errno or 0) < 0):  # as resolvers count
        return f"no address is known of {host!r}"
    return os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)


def _accept(headers: Sequence[str]) -> str:
    found = (value for name, _, value in (header.partition(":") for header in headers) if name.lower() == "accept")
    return next(found, "").strip()


def located(address: str, parameter: str) -> tuple[str, int]:
    """Host and port of "host:port"; ConfigError naming the parameter for anything else."""
    host, colon, port = address.strip().rpartition(":")
    host = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
    whole = port.isascii() and port.isdigit() and int(port) < 65536
    if not colon or not host or not whole or (":" in host and "[" not in address):
        raise ConfigError(f"{parameter} {address}: give HOST:PORT, such as {EXAMPLE} (0.0.0.0:9100: on every address)")
    return host, int(port)
