"""Connections that callers lend: of psycopg, psycopg2, asyncpg, and SQLAlchemy and Django on these.

Each is sent one statement with one text, and answers one text: so it is the same for every driver, whatever row and
cursor factories its owner has, and whatever codecs but for text itself. It begins a transaction where its owner's next
statement would; nothing is committed, no setting is touched. Apart from psycopg, the store's own driver, nothing of a
library is imported here.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

import psycopg
from psycopg.rows import tuple_row
from psycopg.types.string import StrDumperUnknown, TextLoader

from holdfast.errors import ConfigError
from holdfast.stores.lent import DJANGO, SQLALCHEMY, in_django, in_sqlalchemy, kind_of, name_of, usable, vendor_of
from holdfast.stores.postgres.address import Place
from holdfast.stores.postgres.statements import quoted

Answer: TypeAlias = Sequence[Mapping[str, Any]]  # rows, by the names of their columns
Standing: TypeAlias = Literal["idle", "by itself", "open", "failed", "in use", "closed", "elsewhere"]

_LIBPQ: Mapping[int, Standing] = {0: "idle", 1: "in use", 2: "open", 3: "failed"}  # by its transaction status
_BLOCK = "open one: `{}with connection.transaction():`"
_IN_SQLALCHEMY = 'do not give its engine isolation_level="AUTOCOMMIT"'
_IN_DJANGO = "open one: `with transaction.atomic():`"


class OwnersError(Exception):
    """The cause is the answer to a statement of the owner's own, which was in his pipeline still."""


@dataclass(frozen=True, slots=True)
class Asking:
    """One statement: what `function` answers to `parameter`, on the connection that errors call `name`."""

    name: str
    place: Place
    function: str
    parameter: str

    def statement(self, mark: str) -> str:
        """`mark`: where the driver puts the parameter. No `%` stands in it but that, as a schema's name has none."""
        return (
            "SELECT CAST(pg_catalog.json_agg(pg_catalog.row_to_json(told)) AS text) "  # noqa: S608  # names of ours
            f"FROM {quoted(self.place.schema)}.holdfast_{self.function}({mark}) AS told"
        )

    def unusable(self, why: str) -> ConfigError:
        return ConfigError(f"connection={self.name}: {why}")


async def ask(connection: object, place: Place, function: str, parameter: str) -> Answer:
    """The rows of `holdfast_<function>(parameter)`, asked where the connection lives, in its transaction.

    With a synchronous connection it never suspends. ConfigError for an object that is no such connection, or on which
    nothing can be part of a transaction now. Errors of the server are those of the connection's own library.
    """
    asking = Asking(name_of(connection), place, function, parameter)
    answer: Answer = json.loads(await _reached(connection, asking) or "[]")
    return answer


async def _reached(connection: object, asking: Asking) -> Any:
    if kind_of(connection, SQLALCHEMY):
        return await in_sqlalchemy(connection, lambda inner: _in_sqlalchemy(inner, asking))
    if kind_of(connection, DJANGO) and (vendor := vendor_of(connection)):
        return _in_django(connection, vendor, asking)
    driver = _driver_of(connection)
    if driver is None:
        raise _unknown(asking.name, asking.place)
    return await driver.ask(connection, asking)


# --- by each driver


async def _psycopg(connection: Any, asking: Asking) -> Any:
    if _in_pipeline(connection):
        try:
            with connection.pipeline() as pipeline:
                pipeline.sync()
        except psycopg.Error as error:
            raise OwnersError from error
    _check(_by_libpq(connection), _BLOCK.format(""), asking)
    with psycopg.Cursor(connection, row_factory=tuple_row) as cursor:
        _plain_texts(cursor)
        cursor.execute(asking.statement("%s"), (asking.parameter,), prepare=False)  # pyright: ignore[reportArgumentType]
        [[text]] = cursor.fetchall()
    return text


async def _psycopg_async(connection: Any, asking: Asking) -> Any:
    await asyncio.sleep(0)  # who cannot await must leave before anything is done
    if _in_pipeline(connection):
        try:
            async with connection.pipeline() as pipeline:
                await pipeline.sync()
        except psycopg.Error as error:
            raise OwnersError from error
    _check(_by_libpq(connection), _BLOCK.format("async "), asking)
    async with psycopg.AsyncCursor(connection, row_factory=tuple_row) as cursor:
        _plain_texts(cursor)
        await cursor.execute(asking.statement("%s"), (asking.parameter,), prepare=False)  # pyright: ignore[reportArgumentType]
        [[text]] = await cursor.fetchall()
    return text


def _in_pipeline(connection: Any) -> bool:
    """Whether nobody knows before a sync if a transaction is open."""
    return not connection.closed and bool(connection.info.pipeline_status)


def _plain_texts(cursor: psycopg.Cursor[Any] | psycopg.AsyncCursor[Any]) -> None:
    """On this cursor alone: what its owner has registered for texts is for his own."""
    cursor.adapters.register_dumper(str, StrDumperUnknown)
    cursor.adapters.register_loader("text", TextLoader)


async def _psycopg2(connection: Any, asking: Asking) -> Any:
    if connection.async_:
        raise asking.unusable("an asynchronous connection of psycopg2 cannot be used; of psycopg and asyncpg it can")
    _check(_by_libpq(connection), "set connection.autocommit = False", asking)
    extensions = sys.modules["psycopg2.extensions"]
    with extensions.cursor(connection) as cursor:  # not of the connection's own making: no factory of its owner's
        extensions.register_type(extensions.UNICODE, cursor)
        cursor.execute(asking.statement("%s"), (extensions.QuotedString(asking.parameter),))
        [[text]] = cursor.fetchall()
    return text


async def _asyncpg(connection: Any, asking: Asking) -> Any:
    await asyncio.sleep(0)  # who cannot await must leave before anything is done
    _check(_by_asyncpg(connection), _BLOCK.format("async "), asking)
    return await connection.fetchval(asking.statement("$1"), asking.parameter)


def _by_libpq(connection: Any) -> Standing:
    standing = "closed" if connection.closed else _LIBPQ.get(connection.info.transaction_status, "closed")
    return "by itself" if standing == "idle" and connection.autocommit else standing


def _by_asyncpg(connection: Any) -> Standing:
    if getattr(connection, "_loop", None) not in (None, asyncio.get_running_loop()):
        return "elsewhere"  # the statement would be sent, but nobody would hear the answer
    if connection.is_closed():
        return "closed"
    return "open" if connection.is_in_transaction() else "by itself"


class _Driver(NamedTuple):
    mark: str
    standing: Callable[[Any], Standing]
    ask: Callable[[Any, Asking], Awaitable[Any]]


_ASYNCPG = _Driver("$1", _by_asyncpg, _asyncpg)
_DRIVERS = {
    "psycopg.Connection": _Driver("%s", _by_libpq, _psycopg),
    "psycopg.AsyncConnection": _Driver("%s", _by_libpq, _psycopg_async),
    "psycopg2.extensions.connection": _Driver("%s", _by_libpq, _psycopg2),
    "asyncpg.connection.Connection": _ASYNCPG,
    "asyncpg.pool.PoolConnectionProxy": _ASYNCPG,
}


def _driver_of(connection: object) -> _Driver | None:
    name = kind_of(connection, _DRIVERS)
    return None if name is None else _DRIVERS[name]


# --- by those who stand before a driver


def _in_sqlalchemy(connection: Any, asking: Asking) -> Any:
    """`connection`: SQLAlchemy's Connection. It begins its transaction with the statement, as with any."""
    with usable(asking.name):
        dialect, pooled = connection.dialect, connection.connection
        driver = _driver_of(pooled.driver_connection)
        if dialect.name != "postgresql" or driver is None:
            raise _unknown(f"{asking.name} on {dialect.name}+{dialect.driver}", asking.place)
        standing = driver.standing(pooled.driver_connection)
        if standing == "by itself" and not pooled.dbapi_connection.autocommit:
            standing = "idle"  # SQLAlchemy begins for a driver that does not
        _check(standing, _IN_SQLALCHEMY, asking)
        return connection.exec_driver_sql(asking.statement(driver.mark), (asking.parameter,)).scalar_one()


def _in_django(connection: Any, vendor: str, asking: Asking) -> Any:
    if vendor != "postgresql":
        raise _unknown(f"{asking.name} on {vendor}", asking.place)
    opened = in_django(connection)
    driver = _driver_of(opened)
    if driver is None:
        raise _unknown(f"{asking.name} on {name_of(opened)}", asking.place)
    _check(driver.standing(opened), _IN_DJANGO, asking)
    with usable(asking.name), connection.cursor() as cursor:
        cursor.execute(asking.statement("%s"), [asking.parameter])
        [[text]] = cursor.fetchall()
    return text


# --- what cannot be used


def _check(standing: Standing, begin: str, asking: Asking) -> None:
    """Whether what is stored now is part of a transaction of the owner's. `begin`: how he has one."""
    match standing:
        case "closed":
            raise asking.unusable("cannot be used here: it is closed")
        case "failed":
            raise asking.unusable("its transaction has failed, so that it can only be rolled back")
        case "in use":
            raise asking.unusable("it is in the middle of another statement (or a COPY, or a stream): end that first")
        case "elsewhere":
            raise asking.unusable("it belongs to another event loop than the one that this runs on")
        case "by itself":
            raise asking.unusable(
                "it commits every statement by itself and has no transaction open that the job could be part of; "
                f"{begin}"
            )
        case "idle" | "open":
            pass


def _unknown(name: str, place: Place) -> ConfigError:
    return ConfigError(
        f"connection={name}: accepted are a connection of psycopg, psycopg2 or asyncpg, SQLAlchemy's Session, "
        "Connection, AsyncSession and AsyncConnection on one of these, and Django's connection, to the database of "
        f"{place.url}; of another framework, pass the driver's own connection"
    )
