"""Enqueues in the caller's own transaction, on the caller's own `sqlite3.Connection` to the store's file.

Nothing is committed here, and what fails leaves the transaction as it was. Of the connection's settings only
`wal_autocheckpoint` is changed: a checkpoint that it would run could meet another process's (see checkpoint.py).
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Sequence

from holdfast.clock import Instant
from holdfast.errors import ConfigError, StoreAway, StoreError
from holdfast.job import Draft
from holdfast.store import Receipt
from holdfast.stores.sqlite.enqueue import enqueue
from holdfast.stores.sqlite.statements import Sql
from holdfast.stores.sqlite.trouble import busy, stated


def enqueue_within(
    connection: object, path: str, now: Callable[[], Instant], jobs: Sequence[Draft]
) -> Sequence[Receipt]:
    """Stores all jobs, or none where one conflicts: `created` is False for every job then."""
    sql = _trusted(connection, path, now)
    began = _begin(sql, path)
    try:
        sql.run("PRAGMA wal_autocheckpoint = 0")
        sql.run("SAVEPOINT holdfast")
        receipts = enqueue(sql, jobs)
        if conflict := any(receipt.answer == "conflict" for receipt in receipts):
            receipts = [receipt._replace(created=False) for receipt in receipts]
        _leave(sql, began=began, undo=conflict)
    except BaseException as error:
        if sql.connection.in_transaction:
            _leave(sql, began=began, undo=True)
        if isinstance(error, (sqlite3.Error, MemoryError)):
            raise _stated(error, path) from error
        raise
    return receipts


def _trusted(connection: object, path: str, now: Callable[[], Instant]) -> Sql:
    """The connection if it is one that can be used, and one to this very file."""
    kind = f"{type(connection).__module__}.{type(connection).__qualname__}"
    accepted = f"accepted is a sqlite3.Connection to {path}; of a framework, pass the driver's own connection"
    if not isinstance(connection, sqlite3.Connection):
        if kind.startswith("pysqlite3"):
            accepted = (
                "two copies of SQLite in one process undo each other's file locks, so the whole program must use "
                'one: sys.modules["sqlite3"] = pysqlite3 before anything else is imported'
            )
        raise ConfigError(f"connection={kind}: {accepted}")
    try:
        sql = Sql(connection, now)
        [[place]] = sql.rows("place")
    except sqlite3.Error as error:
        raise ConfigError(f"connection={kind}: cannot be used here: {error}") from error
    if os.path.realpath(os.fsdecode(place or b"")) != os.path.realpath(path):
        file = os.fsdecode(place) if place else "a database in memory"
        raise ConfigError(f"connection={kind} to {file}: the jobs are in another file; {accepted}")
    return sql


def _begin(sql: Sql, path: str) -> bool:
    """Sees to it that there is a transaction, as the connection's own settings have it; True if one was begun here."""
    connection = sql.connection
    if connection.in_transaction:
        return False
    if connection.isolation_level is None or getattr(connection, "autocommit", None) is True:
        raise ConfigError(
            "connection=sqlite3.Connection: it commits every statement by itself and has no transaction open that "
            'the job could be part of; connection.execute("BEGIN IMMEDIATE") first'
        )
    try:
        sql.run(f"BEGIN {connection.isolation_level}")
    except sqlite3.Error as error:
        raise _stated(error, path) from error
    return True


def _leave(sql: Sql, *, began: bool, undo: bool) -> None:
    """Ends the savepoint; with `undo` all is as it was before the call."""
    if undo and began:
        sql.run("ROLLBACK")
        return
    if undo:
        sql.run("ROLLBACK TO holdfast")
    sql.run("RELEASE holdfast")


def _stated(error: Exception, path: str) -> Exception:
    if isinstance(error, sqlite3.Error) and busy(error):
        return StoreAway(
            f"{path}: the transaction on connection= could not get the write lock ({error}). One that begins by "
            "reading cannot write once others have written: open it with BEGIN IMMEDIATE, so that it waits its turn"
        )
    if "no such table: holdfast_" in str(error):
        return StoreError(f"{path}: has no tables of Holdfast yet: run `holdfast migrate`, or open the store first")
    return stated(error, path)
