"""A session: one connection of ours, with our settings, given up when the server does not answer in time.

The settings travel in the startup packet (`options`). Where a pooler refuses or drops them, the time-outs go along with
every statement instead, in one round trip and one transaction.
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeAlias

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from holdfast.clock import SECOND
from holdfast.stores.postgres.limits import CONNECT, RESOLVE, Limit

Row: TypeAlias = tuple[Any, ...]
Connection: TypeAlias = psycopg.AsyncConnection[Row]

_PROGRAM = "holdfast"  # in application_name, unless the URL has one

# A connection whose other end is gone without a word is found out also while nobody asks anything.
_KEEPALIVES = {"keepalives_idle": 20, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 20 * SECOND}
_TIME_OUTS = "SELECT set_config('statement_timeout', %b, true), set_config('lock_timeout', %b, true)"
_FIT = f"""
SELECT set_config('statement_timeout', %b, false), set_config('lock_timeout', %b, false), set_config(
    'application_name',
    CASE WHEN name LIKE '{_PROGRAM} %%' THEN %b ELSE name END,
    false
)
FROM current_setting('application_name') AS name
"""  # noqa: S608  # a word of ours
_STILL_READING = 1.0  # seconds more where an answer is there but was not read yet: this process was busy
_left: list[object] = []  # what a forked child holds of its parent's: never closed, never collected


class Unanswered(psycopg.OperationalError):
    """The server, or whatever stands between, did not answer in time."""


class Session:
    """One connection, in autocommit. Not for concurrent use: see Lane."""

    def __init__(self, connection: Connection, limit: Limit, *, bare: bool) -> None:
        self.connection = connection
        self._limit = limit
        self._bare = bare  # without our settings
        self._cursor = connection.cursor(binary=True)
        self._pid = os.getpid()
        self._backend = connection.info.backend_pid
        self._cut = False

    @staticmethod
    async def opened(conninfo: str, name: str, limit: Limit) -> Session:
        """As `connected` does."""
        session = Session(await connected(conninfo, name, limit), limit, bare=False)
        try:
            session._bare = limit.statement > 0 and not await session._has_settings()
        except BaseException:
            await session.close()
            raise
        return session

    @property
    def usable(self) -> bool:
        return not self.connection.closed and not self._cut and self._pid == os.getpid()

    @property
    def backend(self) -> int:
        """The pid of the server's process, as notifications from it say; behind a pooler some other number."""
        return self._backend

    @property
    def standby(self) -> bool:
        """Whether the server says that it only follows another; a pooler may not pass that on."""
        return self.connection.info.parameter_status("in_hot_standby") == "on"

    async def rows(self, text: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> list[Row]:
        """Runs one statement. Raises psycopg.Error; the session is not usable after some."""
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._limit.answer / SECOND, self._give_up, loop)
        try:
            if self._bare and self._limit.lock:  # 0: its function sets its own, and two writes would hold locks longer
                return await self._rows_with_time_outs(text, parameters)
            await self._cursor.execute(text, parameters or None)  # pyright: ignore[reportArgumentType]
            return await self._cursor.fetchall() if self._cursor.description else []
        except psycopg.Error as error:
            if self._cut:
                raise Unanswered(f"no answer within {self._limit.answer / SECOND:g} s") from error
            raise
        finally:
            self._timer.cancel()

    async def _rows_with_time_outs(self, text: str, parameters: Sequence[Any] | Mapping[str, Any]) -> list[Row]:
        """Both are one transaction, since there is no Sync between them."""
        async with self.connection.pipeline(), self.connection.cursor() as before:
            await before.execute(_TIME_OUTS, (f"{self._limit.statement}ms", f"{self._limit.lock}ms"))
            await self._cursor.execute(text, parameters or None)  # pyright: ignore[reportArgumentType]
        return await self._cursor.fetchall() if self._cursor.description else []

    async def fit(self, name: str, limit: Limit) -> None:
        """Gives it another lane's name and limits."""
        if not self._bare:
            await self.rows(_FIT, (f"{limit.statement}ms", f"{limit.lock}ms", f"{_PROGRAM} {name}"))
        self._limit = limit

    async def _has_settings(self) -> bool:
        """Some poolers take `options` and drop them."""
        [[found]] = await self.rows("SELECT extract(epoch FROM current_setting('statement_timeout')::interval) * 1000")
        return bool(found == self._limit.statement)

    def _give_up(self, loop: asyncio.AbstractEventLoop) -> None:
        """Shuts the socket down: whoever waits for an answer is told that there is none."""
        if self.connection.closed:
            return
        descriptor = self.connection.fileno()
        if _readable(descriptor):
            self._timer = loop.call_later(_STILL_READING, self._give_up, loop)
            return
        self.cut()

    def cut(self) -> None:
        """At once: whoever waits for an answer is told that there is none."""
        self._cut = True
        shut(self.connection)

    async def close(self) -> None:
        """In a forked child nothing is closed: the server would take it for its parent's goodbye."""
        if self._pid == os.getpid():
            await self.connection.close()
        else:
            _left.append(self.connection)


def shut(connection: Connection) -> None:
    """Ends what waits for an answer on it. To cancel that instead is of no use where a server is silent: the driver
    would ask the server to cancel the statement, and wait for the answer.
    """
    if not connection.closed:
        with suppress(OSError), socket.socket(fileno=os.dup(connection.fileno())) as end:
            end.shutdown(socket.SHUT_RDWR)


def _readable(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


async def connected(conninfo: str, name: str, limit: Limit) -> Connection:
    """A connection with our settings, whatever the role's own are; without them where a pooler refuses to pass them on.

    Raises psycopg.Error, with Unanswered among them.
    """
    try:
        return await _connected(conninfo, name, _options(limit))
    except psycopg.OperationalError as error:
        if not _about_options(error):
            raise
        return await _connected(conninfo, name, "")


async def _connected(conninfo: str, name: str, options: str) -> Connection:
    given = conninfo_to_dict(conninfo)
    theirs = given.get("options") or os.environ.get("PGOPTIONS") or ""
    settings: dict[str, Any] = {key: value for key, value in _KEEPALIVES.items() if key not in given}
    if "connect_timeout" not in given and "PGCONNECT_TIMEOUT" not in os.environ:
        settings["connect_timeout"] = CONNECT // SECOND
    settings |= {"client_encoding": "UTF8", "fallback_application_name": f"{_PROGRAM} {name}"}
    if options or theirs:
        settings["options"] = f"{theirs} {options}".strip()  # ours last: they go before
    whole = make_conninfo(conninfo, **settings)
    try:
        async with asyncio.timeout(_patience(whole)):
            return await psycopg.AsyncConnection.connect(whole, autocommit=True, prepare_threshold=None)
    except TimeoutError:
        raise Unanswered(f"no connection within {_patience(whole):g} s") from None


def _patience(conninfo: str) -> float:
    given = conninfo_to_dict(conninfo)
    hosts = str(given.get("host") or given.get("hostaddr") or "").count(",") + 1
    each = float(given.get("connect_timeout") or os.environ.get("PGCONNECT_TIMEOUT") or CONNECT / SECOND)
    return hosts * each * 2 + RESOLVE / SECOND  # a name may stand for two addresses


def _options(limit: Limit) -> str:
    settings = {
        "statement_timeout": limit.statement,
        "lock_timeout": limit.lock,
        "default_transaction_isolation": r"read\ committed",  # whatever the role's own is
        "idle_session_timeout": 0,
        "jit": "off",
    }
    return " ".join(f"-c {name}={value}" for name, value in settings.items())


def _about_options(error: psycopg.Error) -> bool:
    """pgbouncer: unsupported startup parameter: options; others speak of command-line options."""
    text = str(error).lower()
    return "startup parameter" in text or "command-line option" in text
