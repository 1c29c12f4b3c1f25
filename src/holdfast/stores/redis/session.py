"""One connection to the server, redis-py's: commands go out in the order of the calls, and so do the replies come back.

Nobody takes turns: a caller that is cancelled leaves its reply to be thrown away, and holds up and harms no other.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from inspect import signature
from typing import Any

from redis import exceptions
from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection, UnixDomainSocketConnection
from redis.exceptions import RedisError

from holdfast.clock import SECOND, Span
from holdfast.stores.redis.address import Address
from holdfast.stores.redis.resp import Refusal, Reply, command, refusal_of


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


class Session:
    """A connection that is made. `heard` takes what comes without having been asked for (messages of pub/sub)."""

    def __init__(self, connection: AbstractConnection, limit: Span, heard: Callable[[Reply], None] | None) -> None:
        self._connection = connection
        # redis-py's own way to send waits for the socket, ends the connection of all when that is cancelled, and
        # connects anew by itself. Nothing need wait here: whoever asks waits for his reply.
        reader: Any = connection._reader  # noqa: SLF001
        self._writer: Any = connection._writer  # noqa: SLF001
        _overhear(reader, self._heard_something)
        self._limit = limit / SECOND
        self._heard = heard
        self._loop = asyncio.get_running_loop()
        self._due = deque[tuple[asyncio.Future[list[Reply]], int]]()  # who waits, and for how many replies
        self._replies = list[Reply]()  # of the first of them
        self._spoke = 0.0  # when the server was last heard, or first asked
        self._watch: asyncio.TimerHandle | None = None
        self.lost: Lost | None = None
        self._reading = asyncio.create_task(self._read())
        _open.add(self)

    @classmethod
    async def opened(
        cls, address: Address, name: str, limit: Span, heard: Callable[[Reply], None] | None = None
    ) -> Session:
        """A connection that has greeted the server. Lost if there is none; Refusal if the server will not have us."""
        connection = _connection(address)
        try:
            async with asyncio.timeout(address.connect_timeout / SECOND):
                await _greet(connection, address)
                session = cls(connection, limit, heard)
                try:
                    await session._introduce(name)
                except BaseException:
                    session.cut()
                    raise
                return session
        except TimeoutError:
            await _let_go(connection)
            tls = "; does it speak TLS?" if address.tls else ""
            raise Lost(f"no answer within {address.connect_timeout / SECOND:g} s{tls}") from None
        except BaseException:
            await _let_go(connection)
            raise

    async def _introduce(self, name: str) -> None:
        [named] = await self.ask(command("CLIENT", "SETNAME", f"holdfast-{name}"), 1)
        if isinstance(named, Refusal) and named.code == "NOAUTH":  # else a name is for people, and may be forbidden
            raise named

    # --- calls

    async def ask(self, packed: bytes, replies: int) -> list[Reply]:
        """So many replies to these commands, with a Refusal in the place of each that was refused. Raises Lost."""
        if self.lost is not None:
            raise self.lost
        if not self._due:
            self._spoke = self._loop.time()
            if self._watch is None:
                self._watch = self._loop.call_later(self._limit, self._watched)
        future: asyncio.Future[list[Reply]] = self._loop.create_future()
        self._due.append((future, replies))
        self._writer.write(packed)  # in the same step, or replies would go to other callers than they belong to
        return await future

    def _watched(self) -> None:
        self._watch = None
        if not self._due:
            return
        left = self._spoke + self._limit - self._loop.time()
        if left <= 0:
            self._end(Lost(f"no answer within {self._limit:g} s"))
        else:
            self._watch = self._loop.call_later(left, self._watched)

    # --- what the server says

    async def _read(self) -> None:
        try:
            while True:
                try:
                    self._take(await self._connection.read_response(disable_decoding=True, disconnect_on_error=False))
                except RedisError as error:
                    refusal = refusal_of(error)
                    if refusal is None:
                        self._end(_lost(error))
                        return
                    self._take(refusal)
        except _UNFORESEEN:
            self._end(_strange())
        finally:
            self._end(Lost("it was closed here"))
            await _let_go(self._connection)

    def _heard_something(self) -> None:
        self._spoke = self._loop.time()

    def _take(self, reply: Reply) -> None:
        if not self._due:
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
        if self._reading is not asyncio.current_task():
            self._reading.cancel()

    async def ended(self, seconds: float) -> None:
        """Waits for the end of the connection, so long."""
        await asyncio.wait([self._reading], timeout=seconds)

    async def close(self) -> None:
        """Lets go; what was not answered is Lost. In a forked child it is its parent's, and left alone."""
        if self._reading.get_loop() is asyncio.get_running_loop():
            self.cut()
            await asyncio.wait([self._reading])

    def cut(self) -> None:
        """Ends it at once."""
        self._end(Lost("it was closed here"))

    def leave(self) -> None:
        """In a forked child: it is its parent's."""
        self.lost = Lost("it was made in another process, before a fork")


# Else it tells the server its own version, for each connection: what the server's ACL may forbid to hear.
_UNNAMED: dict[str, Any] = (
    {"driver_info": None}
    if "driver_info" in signature(AbstractConnection).parameters
    else {"lib_name": None, "lib_version": None}  # before redis-py 8
)


def _connection(address: Address) -> AbstractConnection:
    """One of redis-py's that gives up by our clocks alone, and does nothing a second time."""
    common: dict[str, Any] = {
        "db": address.db,
        "username": address.user or None,
        "password": address.password,
        "protocol": address.protocol,
        "socket_timeout": None,
        "socket_connect_timeout": None,
        **_UNNAMED,
    }
    if address.path:
        return UnixDomainSocketConnection(path=address.path, **common)
    where: dict[str, Any] = {"host": address.host, "port": address.port, "socket_keepalive": True}
    if address.tls is None:
        return Connection(**where, **common)
    return SSLConnection(**where, **common, **address.tls)


# What redis-py does not foresee, where what greets us back is no greeting.
_UNFORESEEN = (AttributeError, LookupError, TypeError, ValueError)


async def _greet(connection: AbstractConnection, address: Address) -> None:
    try:
        await connection.connect()  # type: ignore[no-untyped-call]
    except (RedisError, *_UNFORESEEN) as error:
        failure = _failure(error, address)
    else:
        return
    raise failure  # with no cause and no context: redis-py's own error may have the password in it


_CUT_OFF = ("reset by peer", "closed by server")


def _failure(error: Exception, address: Address) -> Refusal | Lost:
    """Why there is no connection, in words without the password: the server may have been told it, and repeat it."""
    failure = refusal_of(error) or _lost(error) if isinstance(error, RedisError) else _strange()
    words = str(failure)
    if not address.tls and any(said in words for said in _CUT_OFF):
        return Lost(f"{words}; does it want TLS (rediss://)?")
    if address.password and address.password in words and not isinstance(error, exceptions.ConnectionError):
        return type(failure)(words.replace(address.password, "***"))
    return failure


async def _let_go(connection: AbstractConnection) -> None:
    with suppress(RedisError, OSError):
        await connection.disconnect(nowait=True)


_MISNAMED = (62, 64)  # X509_V_ERR_HOSTNAME_MISMATCH, …_IP_ADDRESS_MISMATCH


def _strange() -> Foreign:
    return Foreign("what answers speaks another protocol")


def _overhear(reader: Any, hear: Callable[[], None]) -> None:
    """Calls `hear` for each piece that arrives: a long reply on a slow way is no silence."""
    feed = reader.feed_data

    def fed(data: bytes) -> None:
        hear()
        feed(data)

    reader.feed_data = fed


def _lost(error: RedisError) -> Lost:
    cause = error.__cause__ or error.__context__
    if isinstance(cause, ssl.SSLCertVerificationError):
        name = cause.verify_code in _MISNAMED
        why = (
            "is for another name; use the one that it is for" if name else "is not trusted; ?ssl_ca_certs= says whom to"
        )
        return Foreign(f"its certificate {why} ({cause.verify_message or cause})")
    if isinstance(cause, ssl.SSLError):
        return Foreign(f"TLS is not what it speaks, or not as we do: {cause.reason or cause}")
    if isinstance(error, exceptions.InvalidResponse):
        return Foreign(f"what answers speaks another protocol: {error}")
    return Lost(str(error).rstrip(".") or type(error).__name__)
