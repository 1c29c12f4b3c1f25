"""Connections that callers lend: sqlite3's own, and SQLAlchemy's Session, Connection, AsyncSession, AsyncConnection.

SQLAlchemy's are known by the names of their classes, so that nothing of it is imported here, and are used by
documented calls alone: `connection()`, `run_sync`, `exec_driver_sql`, `driver_connection`. So it knows of the
transaction that it is to commit: what is begun behind its back, its commit() leaves open.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn, Protocol, TypeVar

from holdfast.errors import ConfigError
from holdfast.stores.sqlite.statements import Cursor, Row

T = TypeVar("T")

_CONNECTION = "sqlalchemy.engine.base.Connection"
_ASYNC_CONNECTION = "sqlalchemy.ext.asyncio.engine.AsyncConnection"
_SYNC = {_CONNECTION, "sqlalchemy.orm.session.Session", "sqlalchemy.orm.scoping.scoped_session"}
_ASYNC = {
    _ASYNC_CONNECTION,
    "sqlalchemy.ext.asyncio.session.AsyncSession",
    "sqlalchemy.ext.asyncio.scoping.async_scoped_session",
}


class Lent(Protocol):
    """A connection of a caller's, as far as it matters here. `name`: what errors call it."""

    @property
    def name(self) -> str: ...
    @property
    def in_transaction(self) -> bool:
        """Whether SQLite has a transaction open on it."""
        ...

    @property
    def commits_itself(self) -> bool:
        """Whether nothing begins a transaction on it but an explicit BEGIN, as far as it tells."""
        ...

    def cursor(self) -> Cursor: ...


async def with_lent(connection: object, path: str, work: Callable[[Lent], T]) -> T:
    """Does the work where the connection lives; with a synchronous one it never suspends.

    ConfigError for an object that is no such connection, or cannot be used now; `path` is for its text. Errors of
    SQLite are sqlite3's, whoever brings them.
    """
    kind, name = _kind(connection), _name(connection)
    lent: Any = connection
    if kind in _ASYNC:
        await asyncio.sleep(0)  # who cannot await must leave before anything is done
        with _plainly(name):
            reached = lent if kind == _ASYNC_CONNECTION else await lent.connection()
            return await _in_its_turn(reached, lambda inner: work(Wrapped(name, inner, path)))
    if kind in _SYNC:
        with _plainly(name):
            reached = lent if kind == _CONNECTION else lent.connection()
        return work(Wrapped(name, reached, path))
    if not isinstance(connection, sqlite3.Connection):
        _refuse(name, connection, path)
    return work(Bare(name, connection))


async def _in_its_turn(connection: Any, work: Callable[[Any], T]) -> T:
    done: T = await connection.run_sync(work)
    return done


class Bare:
    """A connection of sqlite3's."""

    def __init__(self, name: str, connection: sqlite3.Connection) -> None:
        self.name = name
        self._connection = connection

    @property
    def in_transaction(self) -> bool:
        return self._connection.in_transaction

    @property
    def commits_itself(self) -> bool:
        return self._connection.isolation_level is None

    def cursor(self) -> Cursor:
        return sqlite3.Cursor(self._connection)  # not of the connection's own making: no factories of its owner's


class Wrapped:
    """A Connection of SQLAlchemy's, in the thread or greenlet that may use it."""

    def __init__(self, name: str, connection: Any, path: str) -> None:
        self.name = name
        self._connection = connection
        if connection.dialect.name != "sqlite":
            _refuse(f"{name} on {connection.dialect.name}", connection, path)
        with _plainly(name):
            self._driver = connection.connection.driver_connection
        if not isinstance(self._driver, sqlite3.Connection) and not _name(self._driver).startswith("aiosqlite."):
            _refuse(f"{name} on {_name(self._driver)}", self._driver, path)

    @property
    def in_transaction(self) -> bool:
        return not self._connection.invalidated and bool(self._driver.in_transaction)

    @property
    def commits_itself(self) -> bool:
        return self._driver.isolation_level is None

    def cursor(self) -> Cursor:
        return _Through(self.name, self._connection)


class _Through:
    """A cursor whose statements go through SQLAlchemy, which begins its transaction with the first."""

    def __init__(self, name: str, connection: Any) -> None:
        self._name = name
        self._connection = connection
        self._result: Any = None

    def execute(self, text: str, parameters: Sequence[Any] = (), /) -> _Through:
        with _plainly(self._name):
            self._result = self._connection.exec_driver_sql(text, tuple(parameters) or None)
        return self

    def fetchall(self) -> list[Row]:
        with _plainly(self._name):
            return [tuple(row) for row in self._result.fetchall()] if self._result.returns_rows else []

    @property
    def rowcount(self) -> int:
        return int(self._result.rowcount)

    def close(self) -> None:
        if self._result is not None:
            self._result.close()


@contextmanager
def _plainly(name: str) -> Generator[None]:
    """SQLAlchemy's errors as ours: the driver's error where there is one, else that it cannot be used now."""
    try:
        yield
    except Exception as error:
        driver = getattr(error, "orig", None)
        if isinstance(driver, sqlite3.Error):
            raise driver from error
        if any(kind.__module__ == "sqlalchemy.exc" for kind in type(error).__mro__):
            raise ConfigError(f"connection={name}: cannot be used here: {error}") from error
        raise


def accepted(path: str) -> str:
    """What `connection=` takes, for errors."""
    return (
        "accepted are a sqlite3.Connection and SQLAlchemy's Session, Connection, AsyncSession and AsyncConnection (on "
        f"pysqlite or aiosqlite) to {path}; of another framework, pass the driver's own connection"
    )


def _refuse(name: str, connection: object, path: str) -> NoReturn:
    why = accepted(path)
    if _name(connection).startswith("pysqlite3"):
        why = (
            "two copies of SQLite in one process undo each other's file locks, so the whole program must use "
            'one: sys.modules["sqlite3"] = pysqlite3 before anything else is imported'
        )
    if _name(connection).startswith("aiosqlite."):
        why = f"aiosqlite runs no code of others in its thread; use it through SQLAlchemy: {why}"
    raise ConfigError(f"connection={name}: {why}")


def _kind(connection: object) -> str | None:
    """Which of SQLAlchemy's classes it is an instance of."""
    names = (f"{kind.__module__}.{kind.__qualname__}" for kind in type(connection).__mro__)
    return next((name for name in names if name in _SYNC or name in _ASYNC), None)


def _name(connection: object) -> str:
    return f"{type(connection).__module__}.{type(connection).__qualname__}"
