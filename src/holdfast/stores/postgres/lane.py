"""A lane: one connection of ours, for one kind of call, so that none stands behind another's work."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any

import psycopg

from holdfast.clock import Span
from holdfast.errors import StoreAway, StoreError
from holdfast.stores.postgres.address import Place
from holdfast.stores.postgres.limits import limits
from holdfast.stores.postgres.session import Row, Session
from holdfast.stores.postgres.statements import quoted, statement
from holdfast.stores.postgres.trouble import answered, ends_session, passing, stated

NO_PRIVILEGE = "42501"
CUT = 1.0  # seconds for a call to notice that its connection was cut
TRIES = 4  # of a call that meets a deadlock or a serialization failure


class Lane:
    """One connection, opened at first use; calls on it take turns. All that it runs commits by itself.

    A call whose connection is lost, before or in the middle of it, is asked once more on a fresh one: every call of the
    seam may be repeated. A caller that is cancelled leaves before its turn, or leaves its call behind, which goes on to
    its end: nothing is cut short, and the next turn begins after it.
    Raises StoreAway or StoreError.
    """

    def __init__(self, name: str, place: Place, spare: list[Session] | None = None) -> None:
        self.name = name
        self.schema = place.schema
        self._place = place
        self._limit = limits(place.lease)[name]
        self._turn = asyncio.Lock()
        self._call: asyncio.Task[list[Row]] | None = None  # whose turn it is
        self._spare = spare if spare is not None else []
        self._session: Session | None = None
        self._closed = False
        self._unreached: tuple[float, StoreError] | None = None  # when the last try to connect failed, and how

    @property
    def shift(self) -> Span:
        """The tests' clock: milliseconds for holdfast_now."""
        return self._place.shift

    async def call(self, function: str, *parameters: Any) -> list[Row]:
        """The rows of `holdfast_<function>(*parameters, shift)`: one round trip, one transaction."""
        text = _calling(function, self.schema, len(parameters) + 1)
        return await self.rows(text, (*parameters, self._place.shift))

    async def read(self, name: str, *parameters: Any) -> list[Row]:
        """The rows of the statement in `sql/<name>.sql`."""
        return await self.rows(statement(name, self.schema), parameters)

    async def rows(self, text: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """The rows of one statement that may be repeated, in binary form."""
        asked = time.monotonic()
        await self._turn.acquire()
        try:
            self._refuse_when_closed()
            self._not_again(asked)
            turn = self._call = asyncio.ensure_future(self._answer(text, parameters))
        except BaseException:
            self._turn.release()
            raise
        turn.add_done_callback(self._over)
        try:
            return await asyncio.shield(turn)
        except asyncio.CancelledError:
            me = asyncio.current_task()
            if turn.cancelled() and self._closed and not (me and me.cancelling()):
                raise StoreAway(f"{self._place.url}: the store was closed before it answered") from None
            raise

    def _over(self, turn: asyncio.Task[list[Row]]) -> None:
        self._call = None
        self._turn.release()
        if not turn.cancelled():
            turn.exception()  # looked at, in case that its caller has left

    def _refuse_when_closed(self) -> None:
        """Nobody would close what a call that comes too late opened."""
        if self._closed:
            raise StoreError(f"{self._place.url}: the store was closed")

    def _not_again(self, asked: float) -> None:
        """Whoever waited while another found out that the server cannot be reached need not find out again."""
        if self._unreached is not None and self._unreached[0] >= asked:
            error = self._unreached[1]
            raise _certainly(type(error)(*error.args), certain=True) from error.__cause__

    async def _answer(self, text: str, parameters: Sequence[Any]) -> list[Row]:
        certain = True  # that nothing was done so far
        for attempt in range(1, TRIES + 1):
            session = await self._connected(certain=certain)
            try:
                return await session.rows(text, parameters)
            except psycopg.Error as error:
                certain = certain and answered(error)
                lost = not session.usable or ends_session(error)
                if lost:
                    await self._leave()
                if attempt == TRIES or self._closed or not (passing(error) or (lost and attempt == 1)):
                    lacks = await self._lacks(session) if error.sqlstate == NO_PRIVILEGE else ()
                    raise _certainly(stated(error, self._place.url, self.schema, lacks), certain) from error
            except BaseException:
                await self._leave()  # in the middle of an answer, perhaps
                raise
        raise AssertionError  # the last try returns or raises

    async def _lacks(self, session: Session) -> Sequence[Row]:
        """What our role may not do: the server names one table alone."""
        with suppress(psycopg.Error):
            return await session.rows(statement("lacking", self.schema), {"schema": self.schema})
        return ()

    async def _connected(self, *, certain: bool) -> Session:
        if self._session is not None and not self._session.usable:
            await self._leave()
        if self._session is None:
            try:
                self._session = await self._spared() or await self._fresh()
            except (psycopg.Error, StoreAway) as error:
                away = error if isinstance(error, StoreAway) else stated(error, self._place.url, self.schema)
                self._unreached = (time.monotonic(), away)
                raise _certainly(away, certain) from (error if error is not away else None)
            self._unreached = None
            self._place.backends.add(self._session.backend)
        return self._session

    async def _spared(self) -> Session | None:
        """The session that the store was opened with, for the lane that asks first."""
        session = self._spare.pop() if self._spare else None
        with suppress(psycopg.Error):
            if session is not None and session.usable:
                await session.fit(self.name, self._limit)
                return session
        if session is not None:
            await session.close()
        return None

    async def _fresh(self) -> Session:
        session = await Session.opened(self._place.address.conninfo, self.name, self._limit)
        if session.standby:
            await session.close()
            raise psycopg.errors.ReadOnlySqlTransaction("it is a standby")
        try:
            await self._recognise(session)
        except BaseException:
            await session.close()
            raise
        return session

    async def _recognise(self, session: Session) -> None:
        """A name may lead to another server by now, and whoever migrated may have left this code behind."""
        place = self._place
        if place.store is None:
            return
        for version, oldest_code, _, store, _ in await session.rows(statement("version", self.schema)):
            if store == place.store and oldest_code <= place.code:
                return
            if store == place.store:
                why = (
                    f"its tables are of version {version} now and need a newer Holdfast (this one serves up to version "
                    f"{place.code}): upgrade this installation"
                )
                break
        else:
            why = "there is another store than the one that was opened; if that is meant, start this process anew"
        raise StoreAway(f"{self._place.url}: {why}; nothing is done")

    async def _leave(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            self._place.backends.discard(session.backend)
            await session.close()

    async def close(self) -> None:
        """After the calls that came before it; those that come later are a StoreError."""
        async with self._turn:
            self._closed = True
            await self._leave()

    async def cut(self) -> None:
        """Ends it at once, with the call whose answer it waits for."""
        self._closed = True
        if self._call is not None:
            if self._session is not None:
                self._session.cut()
            else:
                self._call.cancel()  # it connects
            await asyncio.wait([self._call], timeout=CUT)
        await self._leave()


def _certainly(error: StoreError, certain: bool) -> StoreError:
    if isinstance(error, StoreAway):
        error.certain = certain
    return error


@lru_cache(maxsize=256)
def _calling(function: str, schema: str, parameters: int) -> str:
    marks = ", ".join(["%b"] * parameters)
    return f"SELECT * FROM {quoted(schema)}.holdfast_{function}({marks})"  # noqa: S608  # names of ours
