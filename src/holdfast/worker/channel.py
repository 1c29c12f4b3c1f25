"""The channel between a supervisor and its child: one socket pair, one JSON object a line, both ways."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from typing import Any

from holdfast.codec import from_json, to_json

LINE_MOST = 4 * 1024 * 1024


class Channel:
    """One end. `send` never blocks; `receive` gives None when the other end is gone."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, end: socket.socket) -> Channel:
        """A channel over one end of a socket pair."""
        return cls(*await asyncio.open_connection(sock=end, limit=LINE_MOST))

    def send(self, word: str, **values: Any) -> None:
        """Sends one message; if the other end is gone, nobody needs it."""
        with suppress(OSError, RuntimeError):
            self._writer.write(to_json({"word": word, **values}) + b"\n")

    @property
    def unread(self) -> int:
        """Bytes sent that wait here because the other end does not read."""
        return self._writer.transport.get_write_buffer_size()

    async def receive(self) -> dict[str, Any] | None:
        """The next message, or None when there will be no more."""
        try:
            line = await self._reader.readline()
        except (OSError, ValueError):
            return None
        if not line.endswith(b"\n"):
            return None
        message: dict[str, Any] = from_json(line)
        return message

    async def drain(self) -> None:
        """Waits until what was sent has left."""
        self._writer.transport.set_write_buffer_limits(0)  # else up to 64 KiB may stay, which os._exit would lose
        with suppress(OSError):
            await self._writer.drain()

    def close(self) -> None:
        """Closes this end."""
        with suppress(OSError, RuntimeError):
            self._writer.close()
