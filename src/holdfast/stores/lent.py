"""Connections that callers lend, as far as every store in a database meets them alike: SQLAlchemy's and Django's.

They are known by the names of their classes, so that nothing of these libraries is imported here, and are used by
documented calls: so their library knows of the transaction that it is to commit. What is begun behind its back, it
leaves open.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Generator
from contextlib import contextmanager
from typing import Any, TypeVar

from holdfast.errors import ConfigError

T = TypeVar("T")

_CONNECTION = "sqlalchemy.engine.base.Connection"
_ASYNC_CONNECTION = "sqlalchemy.ext.asyncio.engine.AsyncConnection"
_SYNC = {_CONNECTION, "sqlalchemy.orm.session.Session", "sqlalchemy.orm.scoping.scoped_session"}
_ASYNC = {
    _ASYNC_CONNECTION,
    "sqlalchemy.ext.asyncio.session.AsyncSession",
    "sqlalchemy.ext.asyncio.scoping.async_scoped_session",
}
SQLALCHEMY = _SYNC | _ASYNC
DJANGO = {"django.utils.connection.ConnectionProxy", "django.db.backends.base.base.BaseDatabaseWrapper"}
_LIBRARIES = ("sqlalchemy.exc", "django.db.utils", "django.db.transaction", "django.core.exceptions")


def name_of(connection: object) -> str:
    """What errors call it."""
    if kind_of(connection, DJANGO) and vendor_of(connection):
        return f"django.db.connections[{getattr(connection, 'alias', None)!r}]"
    return f"{type(connection).__module__}.{type(connection).__qualname__}"


def kind_of(connection: object, kinds: Collection[str]) -> str | None:
    """Which of these classes, by their full names, it is an instance of."""
    names = (f"{kind.__module__}.{kind.__qualname__}" for kind in type(connection).__mro__)
    return next((name for name in names if name in kinds), None)


async def in_sqlalchemy(connection: object, work: Callable[[Any], T]) -> T:
    """Does the work with the `Connection` that one of SQLALCHEMY stands for, in the thread or greenlet that may use
    it; with a synchronous one it never suspends. ConfigError where there is none now.
    """
    kind, name = kind_of(connection, SQLALCHEMY), name_of(connection)
    lent: Any = connection
    if kind in _ASYNC:
        await asyncio.sleep(0)  # who cannot await must leave before anything is done
        with usable(name):
            reached = lent if kind == _ASYNC_CONNECTION else await lent.connection()
            return await _in_its_turn(reached, work)
    with usable(name):
        reached = lent if kind == _CONNECTION else lent.connection()
    return work(reached)


async def _in_its_turn(connection: Any, work: Callable[[Any], T]) -> T:
    done: T = await connection.run_sync(work)
    return done


def vendor_of(connection: object) -> str | None:
    """Which database one of DJANGO is to: "postgresql", "sqlite", ...; None: it is none (a proxy of a cache)."""
    vendor = getattr(connection, "vendor", None)
    return vendor if isinstance(vendor, str) else None


def in_django(connection: object) -> Any:
    """The driver's connection of one of DJANGO, opened if it was not. ConfigError where Django does not let it be
    used: in another thread, on an event loop, in a block whose transaction is to be rolled back.
    """
    lent: Any = connection
    with usable(name_of(connection)):
        lent.validate_no_broken_transaction()
        lent.cursor().close()
        return lent.connection


@contextmanager
def usable(name: str) -> Generator[None]:
    """What these libraries themselves have against it as a ConfigError; a driver's error that they bring stays."""
    try:
        yield
    except Exception as error:
        if driver_error(error) is None and any(kind.__module__ in _LIBRARIES for kind in type(error).__mro__):
            raise ConfigError(f"connection={name}: cannot be used here: {error}") from error
        raise


def driver_error(error: BaseException) -> BaseException | None:
    """The error of the driver that an error of SQLAlchemy or Django brings."""
    orig = getattr(error, "orig", None)
    if isinstance(orig, BaseException):
        return orig
    return error.__cause__ if type(error).__module__ == "django.db.utils" else None
