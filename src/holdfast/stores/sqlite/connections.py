"""Connections that callers lend: sqlite3's own, SQLAlchemy's Session, Connection, AsyncSession, AsyncConnection, and
Django's.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn, Protocol, TypeVar

from holdfast.errors import ConfigError
from holdfast.stores.lent import (
    DJANGO,
    SQLALCHEMY,
    driver_error,
    in_django,
    in_sqlalchemy,
    kind_of,
    name_of,
    usable,
    vendor_of,
)
from holdfast.stores.sqlite.statements import Cursor, Row

T = TypeVar("T")

_BEGIN = 'execute "BEGIN IMMEDIATE" on it first'
_ATOMIC = "open one with transaction.atomic()"


class Lent(Protocol):
    """A connection of a caller's, as far as it matters here. `name`: what errors call it."""

    @property
    def name(self) -> str: ...
    @property
    def begin(self) -> str:
        """What its owner is to do for a transaction, where nothing begins one by itself."""
        ...

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
    name = name_of(connection)
    with _sqlites():
        if kind_of(connection, SQLALCHEMY):
            return await in_sqlalchemy(connection, lambda inner: work(Wrapped(name, inner, path)))
        if kind_of(connection, DJANGO) and (vendor := vendor_of(connection)):
            return work(_of_django(connection, vendor, path))
    if not isinstance(connection, sqlite3.Connection):
        _refuse(name, connection, path)
    return work(Bare(name, connection))


def _of_django(connection: object, vendor: str, path: str) -> Bare:
    """Django sends its BEGIN by itself when a block begins, so that statements may go by the driver."""
    name = name_of(connection)
    if vendor != "sqlite":
        _refuse(f"{name} on {vendor}", connection, path)
    return Bare(name, in_django(connection), begin=_ATOMIC)


class Bare:
    """A connection of sqlite3's."""

    def __init__(self, name: str, connection: sqlite3.Connection, begin: str = _BEGIN) -> None:
        self.name = name
        self.begin = begin
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
        self.begin = _BEGIN
        self._connection = connection
        if connection.dialect.name != "sqlite":
            _refuse(f"{name} on {connection.dialect.name}", connection, path)
        with usable(name):
            self._driver = connection.connection.driver_connection
        if not isinstance(self._driver, sqlite3.Connection) and not name_of(self._driver).startswith("aiosqlite."):
            _refuse(f"{name} on {name_of(self._driver)}", self._driver, path)

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
def _sqlites() -> Generator[None]:
    """The errors of SQLite that a library brings as sqlite3's own."""
    try:
        yield
    except Exception as error:
        driver = driver_error(error)
        if isinstance(driver, sqlite3.Error):
            raise driver from error
        raise


@contextmanager
def _plainly(name: str) -> Generator[None]:
    with _sqlites(), usable(name):
        yield


def accepted(path: str) -> str:
    """What `connection=` takes, for errors."""
    return (
        "accepted are a sqlite3.Connection, SQLAlchemy's Session, Connection, AsyncSession and AsyncConnection (on "
        f"pysqlite or aiosqlite) and Django's connection, to {path}; of another framework, pass the driver's own "
        "connection"
    )


def _refuse(name: str, connection: object, path: str) -> NoReturn:
    why = accepted(path)
    if name_of(connection).startswith("pysqlite3"):
        why = (
            "two copies of SQLite in one process undo each other's file locks, so the whole program must use "
            'one: sys.modules["sqlite3"] = pysqlite3 before anything else is imported'
        )
    if name_of(connection).startswith("aiosqlite."):
        why = f"aiosqlite runs no code of others in its thread; use it through SQLAlchemy: {why}"
    raise ConfigError(f"connection={name}: {why}")
