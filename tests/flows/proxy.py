"""Between clients and a server: loses replies, cuts, delays, falls silent. The server never notices why.

It understands just enough of a protocol to know where a reply ends: PostgreSQL's here
(https://www.postgresql.org/docs/current/protocol-message-formats.html), Redis' in resp.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
import threading
from collections.abc import Coroutine
from typing import Any, Literal, Self, TypeVar

T = TypeVar("T")

_SSL, _GSS, _CANCEL = 80877103, 80877104, 80877102  # what a first message may ask for instead of a session
_READY, _BY_ITSELF = b"Z", (b"A", b"N", b"S")  # the end of a reply; what the server says unasked


async def let_nobody_in(server: asyncio.Server) -> None:
    """Closes it. Whom it is just letting in it serves before: asyncio would forget them, unclosed."""
    for listening in server.sockets:
        server.get_loop().remove_reader(listening)
    for _ in range(10):
        await asyncio.sleep(0)
    server.close()


class Proxy:
    """Listens on a loopback port of its own, until it is closed; runs in a thread.

    `lose_every`: of all replies together every so-many-th is lost after the server has done what it was asked; its
    connection then ends, or with `how="silent"` it stays open and says nothing any more. `replies` counts them.
    """

    def __init__(self, host: str, port: int, speaks: type[Session] | None = None) -> None:
        self._server = (host, port)
        self._speaks = speaks or PostgresSession
        self._sessions: set[Session] = set()
        self.lose_every = 0  # 0: none
        self.how: Literal["cut", "silent"] = "cut"
        self.delay = 0.0  # seconds before each reply goes on its way
        self.refuses = False  # new connections are closed at once
        self.deaf = False  # nothing goes either way, and nobody is told
        self.replies = self.lost = self.accepted = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self._listener = self._do(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port: int = self._listener.sockets[0].getsockname()[1]

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def redirect(self, host: str, port: int) -> None:
        """From now on new connections go there: what a failover looks like from outside."""
        self._server = (host, port)

    def cut(self) -> int:
        """Ends all connections as they are, with a reset; how many there were."""

        async def cut() -> int:
            sessions = list(self._sessions)
            for session in sessions:
                session.cut()
            return len(sessions)

        return self._do(cut())

    def close(self) -> None:
        async def close() -> None:
            self.refuses = True
            await let_nobody_in(self._listener)
            for session in list(self._sessions):
                session.cut()
            while others := asyncio.all_tasks() - {asyncio.current_task()}:
                for task in others:
                    task.cancel()
                await asyncio.gather(*others, return_exceptions=True)

        self._do(close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        assert not self._thread.is_alive(), "the proxy's thread still runs 30 s after it was closed"
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if self.refuses:
            writer.transport.abort()
            return
        session = self._speaks(self, reader, writer)
        self._sessions.add(session)
        try:
            with contextlib.suppress(OSError, EOFError, asyncio.CancelledError):
                await session.run(*self._server)
        finally:
            session.cut()
            self._sessions.discard(session)

    def keeps(self) -> bool:
        """Counts one reply; whether it goes on to the client."""
        self.replies += 1
        if self.lose_every and self.replies % self.lose_every == 0:
            self.lost += 1
            return False
        return True


class Session:
    """One client's connection and the one to the server that belongs to it."""

    def __init__(self, proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.proxy = proxy
        self.client = reader
        self.to_client = writer
        self.to_server: asyncio.StreamWriter | None = None

    def cut(self) -> None:
        for writer in (self.to_client, self.to_server):
            if writer is not None:
                writer.transport.abort()

    async def run(self, host: str, port: int) -> None:
        first = await self.first()
        server, self.to_server = await asyncio.open_connection(host, port)
        self.to_server.write(first)
        if self.only(first):
            await self.to_server.drain()
            return
        tasks = [asyncio.create_task(self.up(self.to_server)), asyncio.create_task(self.down(server))]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def first(self) -> bytes:
        """What the client says before there is a connection to the server."""
        return b""

    def only(self, first: bytes) -> bool:
        """Whether that is all, and nothing is answered."""
        return False

    async def up(self, server: asyncio.StreamWriter) -> None:
        """Everything that the client says."""
        raise NotImplementedError

    async def down(self, server: asyncio.StreamReader) -> None:
        """Everything that the server says; ends with the session."""
        raise NotImplementedError

    async def passes(self) -> bool:
        """Whether a whole reply goes on to the client. False ends the session; a silent one stays until it is cut."""
        if self.proxy.delay:
            await asyncio.sleep(self.proxy.delay)
        if self.proxy.keeps():
            return True
        if self.proxy.how == "silent":
            await asyncio.Event().wait()
        return False

    async def while_deaf(self) -> None:
        while self.proxy.deaf:  # noqa: ASYNC110  # set from another thread
            await asyncio.sleep(0.01)


class Pipe(Session):
    """Whatever it is that is spoken there: nothing is lost."""

    async def up(self, server: asyncio.StreamWriter) -> None:
        await self._on(self.client, server)

    async def down(self, server: asyncio.StreamReader) -> None:
        await self._on(server, self.to_client)

    async def _on(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            await self.while_deaf()
            target.write(data)
            await target.drain()


class PostgresSession(Session):
    """Its replies are whole messages, up to ReadyForQuery."""

    def __init__(self, proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__(proxy, reader, writer)
        self._started = False  # the first ReadyForQuery has come
        self._asked = False  # the server owes a reply

    async def first(self) -> bytes:
        """The message that opens the session; encryption is not spoken here."""
        while True:
            head = await self.client.readexactly(8)
            size, code = struct.unpack("!ii", head)
            if code not in (_SSL, _GSS):
                return head + await self.client.readexactly(size - 8)
            self.to_client.write(b"N")

    def only(self, first: bytes) -> bool:
        return bool(struct.unpack("!i", first[4:8])[0] == _CANCEL)

    async def up(self, server: asyncio.StreamWriter) -> None:
        while data := await self.client.read(65536):
            await self.while_deaf()
            if self._started:
                self._asked = True
            server.write(data)
            await server.drain()

    async def down(self, server: asyncio.StreamReader) -> None:
        reply = bytearray()
        while True:
            head = await server.readexactly(5)
            kind, size = head[:1], struct.unpack("!i", head[1:])[0]
            reply += head + await server.readexactly(size - 4)
            if self._started and kind != _READY and (self._asked or kind not in _BY_ITSELF):
                continue
            if not await self._goes_on(ends=kind == _READY):
                return
            self.to_client.write(bytes(reply))
            reply.clear()
            await self.to_client.drain()

    async def _goes_on(self, *, ends: bool) -> bool:
        await self.while_deaf()
        if not ends:
            return True
        if not self._started:
            self._started = True
            return True
        self._asked = False
        return await self.passes()


def behind(dsn: str, proxy: Proxy) -> str:
    """The same place, reached through the proxy."""
    from urllib.parse import urlsplit, urlunsplit

    parts = urlsplit(dsn)
    user = f"{parts.username}{f':{parts.password}' if parts.password else ''}@" if parts.username else ""
    return urlunsplit(parts._replace(netloc=f"{user}127.0.0.1:{proxy.port}"))
