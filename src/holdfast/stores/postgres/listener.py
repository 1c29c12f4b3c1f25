"""The listener: a connection that hears when other processes ring, as long as a probe has shown that it does."""

from __future__ import annotations

import asyncio
import random
from contextlib import aclosing, suppress
from uuid import uuid4

import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus

from holdfast.clock import SECOND
from holdfast.errors import StoreError
from holdfast.stores.hearing import POLLING, Hearing
from holdfast.stores.postgres import limits
from holdfast.stores.postgres.address import Place
from holdfast.stores.postgres.lane import CUT, Lane
from holdfast.stores.postgres.session import Connection, connected, shut
from holdfast.stores.postgres.statements import within

CHECK = 30.0  # seconds between two looks whether the connection is there still
PROBE_MARK = "?"  # what no queue's name begins with
ALL = "*"  # is rung where a transaction has jobs for many queues, see functions/wake.sql
WATCH_MARK = "!"  # before the id of a job that has ended

_DEAF = (
    "notifications do not arrive: a pooler in transaction mode stands between, it seems, or listen_url leads to "
    f"another database; {POLLING}. The address of the server itself, as listen_url=... in the store's URL, ends that"
)


class _NotHeardError(Exception):
    """What was rung did not come back."""


class Listener:
    """Connects with `start`, and again by itself; tells the waiters of the place what it hears."""

    def __init__(self, place: Place, lane: Lane) -> None:
        self._place = place
        self._lane = lane  # to ring on: another way than the one on which it listens
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self._connection: Connection | None = None
        self.hearing = Hearing(place.waiters, place.url)

    def start(self) -> None:
        """At the first wait; not any more after `close`."""
        if self._task is None and not self._closed:
            self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        self._closed = True
        if self._task is None:
            return
        if self._connection is not None and self._connection.info.transaction_status == TransactionStatus.ACTIVE:
            shut(self._connection)
            await asyncio.wait([self._task], timeout=CUT)
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _run(self) -> None:
        while not self._closed:
            pause = 0.0
            try:
                await self._listen()
            except _NotHeardError:
                pause = self.hearing.deaf(_DEAF)
            except Exception as error:  # noqa: BLE001  # whatever it is, it must come back
                pause = self.hearing.cut_off(_words(error), alone=await self._answers())
            finally:
                self.hearing.now = False
            await asyncio.sleep(pause * random.uniform(0.5, 1))

    async def _listen(self) -> None:
        """Until the connection ends, which raises."""
        connection = await connected(self._place.address.listen, "listen", limits.limits()["open"])
        self._connection = connection
        try:
            async with asyncio.timeout(limits.LISTEN / SECOND):
                await self._tune_in(connection)
            await self._prove(connection)
            self.hearing.begins()
            self._place.watchers.look()
            while True:
                await self._hear(connection, CHECK)
                async with asyncio.timeout(limits.LISTEN / SECOND):
                    await connection.execute("")
        finally:
            self._connection = None
            await connection.close()

    async def _tune_in(self, connection: Connection) -> None:
        asked = await connection.execute(within("SELECT {schema}.holdfast_channel()", self._place.schema).encode())
        [[channel]] = await asked.fetchall()
        await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))

    async def _prove(self, connection: Connection) -> None:
        """A pooler in transaction mode takes the LISTEN, says nothing, and gives the server's notifications to nobody
        or to a stranger: only what comes back shows that something would come.
        """
        word = f"{PROBE_MARK}{uuid4()}"
        await self._lane.call("ring", [word])
        if not await self._hear(connection, limits.LISTEN_PROBE / SECOND, word):
            async with asyncio.timeout(limits.LISTEN / SECOND):
                await connection.execute("UNLISTEN *")
            raise _NotHeardError

    async def _hear(self, connection: Connection, seconds: float, word: str = "") -> bool:
        """Whether `word` was heard; it ends with it, and after so many seconds."""
        async with aclosing(connection.notifies(timeout=seconds)) as notifications:
            async for notification in notifications:
                if notification.payload == word:
                    return True
                if notification.payload == ALL:
                    self._place.waiters.look()
                elif notification.payload.startswith(WATCH_MARK):
                    self._place.watchers.hint([notification.payload])
                elif notification.pid not in self._place.backends:
                    self._place.stopped.discard(notification.payload)  # nobody rings for one that is paused
                    self._place.waiters.hint([notification.payload])
        return False

    async def _answers(self) -> bool:
        """Whether other connections of this process work."""
        with suppress(StoreError):
            await self._lane.rows("SELECT 1")
            return True
        return False


def _words(error: Exception) -> str:
    return " ".join((str(error) if isinstance(error, (psycopg.Error, StoreError)) else repr(error)).split())
