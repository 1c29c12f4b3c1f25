"""What the proxy knows of Redis' protocol (https://redis.io/docs/latest/develop/reference/protocol-spec/), 2 and 3."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from tests.flows.proxy import Proxy, Session

# Asked of a fresh connection before it is of use: losing these replies would only be the same as refusing it.
_GREETING = {b"HELLO", b"AUTH", b"CLIENT", b"SELECT"}
_UNANSWERED = {b"SUBSCRIBE", b"PSUBSCRIBE", b"UNSUBSCRIBE", b"PUNSUBSCRIBE"}  # but by what looks like a message
_TEXTS, _ARRAYS, _MAPS = b"$=!", b"*~>", b"%|"

Tap = Callable[[list[bytes]], None]


class RespSession(Session):
    """Its replies are whole frames, one for each command; what the server says unasked always goes on."""

    def __init__(self, proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__(proxy, reader, writer)
        self.owed: deque[bool] = deque()  # one per reply that is to come; whether it may be lost

    async def up(self, server: asyncio.StreamWriter) -> None:
        while True:
            command = await frame(self.client)
            await self.while_deaf()
            await self.hears(command)
            name = next(words(command)).upper()
            if name not in _UNANSWERED:
                self.owed.append(name not in _GREETING)
            server.write(command)
            await server.drain()

    async def hears(self, command: bytes) -> None:
        """A command that goes to the server next."""

    async def down(self, server: asyncio.StreamReader) -> None:
        while True:
            reply = await frame(server)
            await self.while_deaf()
            asked = not reply.startswith(b">") and self.owed and self.owed.popleft()
            if asked and not await self.passes():
                return
            self.to_client.write(reply)
            await self.to_client.drain()


def tapped(tap: Tap) -> type[RespSession]:
    """Sessions whose commands are told to `tap`, word by word, in the proxy's thread: before the server hears them,
    and when it has done all that the session asked before.
    """

    class Tapped(RespSession):
        async def hears(self, command: bytes) -> None:
            while self.owed:  # noqa: ASYNC110  # a pipeline is taken apart
                await asyncio.sleep(0)
            tap(list(words(command)))

    return Tapped


async def frame(reader: asyncio.StreamReader) -> bytes:
    """The next whole command or reply, as it stands."""
    line = await reader.readuntil(b"\r\n")
    kind = line[:1]
    if kind in _TEXTS:
        size = int(line[1:])
        return line if size < 0 else line + await reader.readexactly(size + 2)
    if kind not in _ARRAYS + _MAPS:
        return line
    parts = max(0, int(line[1:])) * (2 if kind in _MAPS else 1) + (kind == b"|")  # an attribute, then the reply
    whole = bytearray(line)
    for _ in range(parts):
        whole += await frame(reader)
    return bytes(whole)


def words(command: bytes) -> Iterator[bytes]:
    """Of a command: an array of texts."""
    at = command.index(b"\r\n") + 2
    while at < len(command):
        end = command.index(b"\r\n", at)
        size = int(command[at + 1 : end])
        yield command[end + 2 : end + 2 + size]
        at = end + size + 4


def resp(host: str, port: int, **settings: Any) -> Proxy:
    """A proxy before a Redis."""
    proxy = Proxy(host, port, RespSession)
    for name, value in settings.items():
        setattr(proxy, name, value)
    return proxy
