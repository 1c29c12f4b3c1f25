"""One connection to the server: commands go out in the order of the calls, and so do the replies come back.

Nobody takes turns: a caller that is cancelled leaves its reply to be thrown away, and holds up and harms no other.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import weakref
from collections import deque
from collections.abc import Callable

from holdfast.clock import SECOND, Span
from holdfast.stores.redis.address import Address
from holdfast.stores.redis.reader import UNFINISHED, Garbled, pushes, reader
from holdfast.stores.redis.resp import Refusal, Reply, command


class Lost(Exception):
    """The connection is gone, or was never made; what was asked on it may have been done."""


class Foreign(Lost):
    """What answers there is no server that we can speak with: no repeat mends that."""


_open: weakref.WeakSet[Session] = weakref.WeakSet()
_left: list[object] = []  # what a forked child holds of its parent's: never closed, never collected


def _in_child() -> None:
    """Nothing is closed: the server would take it for its parent's goodbye, and the loop's selector is shared."""
    for session in list(_open):
        _left.append(session)
        session.leave()
    _open.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


class Session(asyncio.Protocol):
    """A connection that is made. `heard` takes what comes without having been asked for (messages of pub/sub)."""

    def __init__(self, limit: Span, heard: Callable[[Reply], None] | None = None) -> None:
        self._limit = limit / SECOND
        self._heard = heard
        self._loop = asyncio.get_running_loop()
        self._reader = reader()
        self._pushes = pushes()
        self._due = deque[tuple[asyncio.Future[list[Reply]], int]]()  # who waits, and for how many replies
        self._replies = list[Reply]()  # of the first of them
        self._spoke = 0.0  # when the server was last heard, or first asked
        self._watch: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None
        self._closed = self._loop.create_future()
        self.lost: Lost | None = None
        _open.add(self)

    @classmethod
    async def opened(
        cls, address: Address, name: str, limit: Span, heard: Callable[[Reply], None] | None = None
    ) -> Session:
        """A connection that has greeted the server. Lost if there is none; Refusal if the server will not have us."""
        try:
            async with asyncio.timeout(address.connect_timeout / SECOND):
                session = await cls._connected(address, limit, heard)
                try:
                    await session._greet(address, name)  # noqa: SLF001  # its own kind
                except BaseException:
                    session.cut()
                    raise
        except TimeoutError:
            tls = "; does it speak TLS?" if address.tls else ""
            raise Lost(f"no answer within {address.connect_timeout / SECOND:g} s{tls}") from None
        except ssl.SSLCertVerificationError as error:
            raise Foreign(f"its certificate is not trusted: {error.verify_message or error}") from error
        except ssl.SSLError as error:
            raise Foreign(f"TLS is not what it speaks, or not as we do: {error.reason or error}") from error
        except (OSError, ValueError) as error:  # ValueError: ssl says so of some names
            raise Lost(str(error) or type(error).__name__) from error
        return session

    @classmethod
    async def _connected(cls, address: Address, limit: Span, heard: Callable[[Reply], None] | None) -> Session:
        loop = asyncio.get_running_loop()
        if address.path:
            _, session = await loop.create_unix_connection(lambda: cls(limit, heard), address.path)
        else:
            made, session = await loop.create_connection(
                lambda: cls(limit, heard), address.host, address.port, ssl=address.tls
            )
            made.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return session

    async def _greet(self, address: Address, name: str) -> None:
        steps = list[bytes]()
        login = (address.user or "default", address.password) if address.password is not None else ()
        if address.protocol == 3:
            steps.append(command("HELLO", 3, *(("AUTH", *login) if login else ())))
        elif login:
            steps.append(command("AUTH", *(login if address.user else login[1:])))
        if address.db:
            steps.append(command("SELECT", address.db))
        steps.append(command("CLIENT", "SETNAME", f"holdfast-{name}"))
        *replies, named = await self.ask(b"".join(steps), len(steps))
        for reply in replies:
            if isinstance(reply, Refusal):
                raise reply
        if isinstance(named, Refusal) and named.code == "NOAUTH":  # else a name is for people, and may be forbidden
            raise named

    # --- calls

    def ask(self, packed: bytes, replies: int) -> asyncio.Future[list[Reply]]:
        """So many replies to these commands, with a Refusal in the place of each that was refused. Raises Lost."""
        future: asyncio.Future[list[Reply]] = self._loop.create_future()
        if self.lost is not None:
            future.set_exception(self.lost)
            return future
        if not self._due:
            self._spoke = self._loop.time()
            if self._watch is None:
                self._watch = self._loop.call_later(self._limit, self._watched)
        self._due.append((future, replies))
        assert self._transport is not None  # noqa: S101  # whoever has a session has a connection
        self._transport.write(packed)
        return future

    def _watched(self) -> None:
        self._watch = None
        if not self._due:
            return
        left = self._spoke + self._limit - self._loop.time()
        if left <= 0:
            self._end(Lost(f"no answer within {self._limit:g} s"))
        else:
            self._watch = self._loop.call_later(left, self._watched)

    # --- what the transport says

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """As asyncio says."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """As asyncio says."""
        self._spoke = self._loop.time()
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not UNFINISHED:
                self._take(reply)
        except Garbled as error:
            self._end(Foreign(f"what answers speaks another protocol: {error}"))

    def _take(self, reply: Reply) -> None:
        if not self._due or type(reply) in self._pushes:
            if self._heard is not None:
                self._heard(reply)
            return
        self._replies.append(reply)
        future, wanted = self._due[0]
        if len(self._replies) == wanted:
            replies, self._replies = self._replies, []
            self._due.popleft()
            if not future.done():
                future.set_result(replies)

    def connection_lost(self, exc: Exception | None) -> None:
        """As asyncio says."""
        self._end(Lost(str(exc) if exc else "the server closed the connection"))
        if not self._closed.done():
            self._closed.set_result(None)

    def _end(self, lost: Lost) -> None:
        if self.lost is None:
            self.lost = lost
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        while self._due:
            future, _ = self._due.popleft()
            if not future.done():
                future.set_exception(self.lost)
        if self._transport is not None:
            self._transport.abort()

    async def ended(self, seconds: float) -> None:
        """Waits for the end of the connection, so long."""
        await asyncio.wait([self._closed], timeout=seconds)

    async def close(self) -> None:
        """Lets go; what was not answered is Lost."""
        self.cut()
        await self._closed

    def cut(self) -> None:
        """Ends it at once."""
        self._end(Lost("it was closed here"))

    def leave(self) -> None:
        """In a forked child: it is its parent's."""
        self._transport = None
        self.lost = Lost("it was made in another process, before a fork")
