"""Lanes: connections of ours, one for each kind of call, so that none stands behind another's work."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeAlias

import psycopg

from holdfast.clock import Span
from holdfast.stores.postgres.address import Place
from holdfast.stores.postgres.statements import quoted, statement

Row: TypeAlias = tuple[Any, ...]


class Lane:
    """One connection, opened at first use; calls on it take turns. All that it runs commits by itself."""

    def __init__(self, name: str, conninfo: str, schema: str, shift: Callable[[], Span]) -> None:
        self.name = name
        self.schema = schema
        self._conninfo = conninfo
        self._shift = shift
        self._turn = asyncio.Lock()
        self._connection: psycopg.AsyncConnection[Row] | None = None

    async def call(self, function: str, *parameters: Any) -> list[Row]:
        """The rows of `holdfast_<function>(*parameters, shift)`: one round trip, one transaction."""
        marks = ", ".join(["%b"] * (len(parameters) + 1))
        text = f"SELECT * FROM {quoted(self.schema)}.holdfast_{function}({marks})"  # noqa: S608  # names of ours
        return await self.rows(text, (*parameters, self._shift()))

    async def read(self, name: str, *parameters: Any) -> list[Row]:
        """The rows of the statement in `sql/<name>.sql`."""
        return await self.rows(statement(name, self.schema), parameters)

    async def rows(self, text: str, parameters: Sequence[Any] = ()) -> list[Row]:
        async with self._turn:
            if self._connection is None:
                self._connection = await psycopg.AsyncConnection.connect(
                    self._conninfo, autocommit=True, prepare_threshold=None
                )
            async with self._connection.cursor(binary=True) as cursor:
                await cursor.execute(text, parameters or None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
                return await cursor.fetchall() if cursor.description else []

    async def close(self) -> None:
        async with self._turn:
            connection, self._connection = self._connection, None
            if connection is not None:
                await connection.close()


class Lanes:
    """The lanes of one store, on one event loop."""

    def __init__(self, place: Place) -> None:
        def lane(name: str) -> Lane:
            return Lane(name, place.address.conninfo, place.schema, lambda: place.shift)

        self._waking: Any = None
        self.enqueue = lane("enqueue")  # producers
        self.claim = lane("claim")
        self.finish = lane("finish")
        self.beat = lane("beat")  # what keeps the lease: register, beat, mail, retire
        self.work = lane("work")  # janitors, operators, notes

    def ring(self, queues: Collection[str]) -> None:
        """Tells waiters, here and elsewhere, that these queues have jobs now: what made them so is committed."""
        if self._waking is not None:
            self._waking.ring(queues)

    async def wait(self, queues: Sequence[str] | None, timeout: float) -> bool:
        await asyncio.sleep(min(timeout, 0.005))
        return True

    async def close(self) -> None:
        for lane in (self.enqueue, self.claim, self.finish, self.beat, self.work):
            await lane.close()
