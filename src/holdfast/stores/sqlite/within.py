"""Enqueues and finishes in the caller's own transaction, on the caller's own connection to the store's file.

Nothing is committed here, and what fails leaves the transaction as it was. Of the connection's settings only
`wal_autocheckpoint` is changed: a checkpoint that it would run could meet another process's (see checkpoint.py).
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager

from holdfast.clock import Instant
from holdfast.errors import ConfigError, StoreAway, StoreError
from holdfast.job import Draft, Outcome, QueueTerms
from holdfast.rulings import one_success
from holdfast.store import Receipt, Settled
from holdfast.stores.sqlite.connections import Lent, accepted, with_lent
from holdfast.stores.sqlite.enqueue import enqueue
from holdfast.stores.sqlite.finish import Finishing
from holdfast.stores.sqlite.queues import configure
from holdfast.stores.sqlite.statements import Sql
from holdfast.stores.sqlite.trouble import busy, stated


class _Undone(Exception):
    """Carries the receipts of a call that is to leave nothing behind."""

    def __init__(self, receipts: Sequence[Receipt]) -> None:
        self.receipts = receipts


async def enqueue_within(
    connection: object,
    path: str,
    now: Callable[[], Instant],
    jobs: Sequence[Draft],
    declared: Mapping[str, QueueTerms] = {},
) -> Sequence[Receipt]:
    """Stores all jobs, or none where one is refused: `created` is False for every job then."""
    try:
        return await with_lent(connection, path, lambda lent: _store(lent, path, now, jobs, declared))
    except _Undone as undone:
        return [receipt._replace(created=False, dropped=None) for receipt in undone.receipts]
    except (sqlite3.Error, MemoryError) as error:
        raise _stated(error, path) from error


async def finish_within(
    connection: object, path: str, now: Callable[[], Instant], outcomes: Sequence[Outcome]
) -> Sequence[Settled]:
    """Writes one success with all that follows from it: the caller holds the only write lock as it is."""
    finishing = Finishing.of([one_success(outcomes)])
    try:
        return await with_lent(connection, path, lambda lent: _finish(lent, path, now, finishing))
    except (sqlite3.Error, MemoryError) as error:
        raise _stated(error, path) from error


def _finish(lent: Lent, path: str, now: Callable[[], Instant], finishing: Finishing) -> Sequence[Settled]:
    sql = _trusted(lent, path, now)
    sql.run("PRAGMA wal_autocheckpoint = 0")
    with _transaction(lent, sql), _savepoint(lent, sql):
        return finishing.write(sql)


def _store(
    lent: Lent, path: str, now: Callable[[], Instant], jobs: Sequence[Draft], declared: Mapping[str, QueueTerms]
) -> Sequence[Receipt]:
    sql = _trusted(lent, path, now)
    sql.run("PRAGMA wal_autocheckpoint = 0")
    with _transaction(lent, sql), _savepoint(lent, sql):
        configure(sql, declared, by="producer")
        receipts = enqueue(sql, jobs)
        if any(receipt.refused for receipt in receipts):
            raise _Undone(receipts)
    return receipts


def _trusted(lent: Lent, path: str, now: Callable[[], Instant]) -> Sql:
    """The connection if it can be used, and is one to this very file."""
    try:
        sql = Sql.lent(lent.cursor(), now)
        [[place]] = sql.rows("place")
    except sqlite3.Error as error:
        if busy(error):
            raise
        raise ConfigError(f"connection={lent.name}: cannot be used here: {error}") from error
    if os.path.realpath(named := _path_of(place)) != os.path.realpath(path):
        file = named or "a database in memory"
        raise ConfigError(f"connection={lent.name} to {file}: the jobs are in another file; {accepted(path)}")
    return sql


def _path_of(place: bytes | None) -> str:
    """A path as place.sql gives it: in the encoding of the database, which may be UTF-16."""
    if place and b"\0" in place:
        return place.decode("utf-16-be" if place[:1] == b"\0" else "utf-16-le")
    return os.fsdecode(place or b"")


@contextmanager
def _transaction(lent: Lent, sql: Sql) -> Generator[None]:
    """Sees to it that there is a transaction, begun as the connection's own settings have it, and that it may write.

    One that was begun here ends here, if nothing comes of it.
    """
    began = not lent.in_transaction
    if began and lent.commits_itself:
        raise _commits_itself(lent)
    try:
        sql.write("take_lock")
        if not lent.in_transaction:
            raise _commits_itself(lent)
        yield
    except BaseException:
        if began and lent.in_transaction:
            sql.run("ROLLBACK")
        raise


@contextmanager
def _savepoint(lent: Lent, sql: Sql) -> Generator[None]:
    """After an error all is as it was before, if the transaction is still there."""
    sql.run("SAVEPOINT holdfast")
    try:
        yield
    except BaseException:
        if lent.in_transaction:
            sql.run("ROLLBACK TO holdfast")
            sql.run("RELEASE holdfast")
        raise
    sql.run("RELEASE holdfast")


def _commits_itself(lent: Lent) -> ConfigError:
    return ConfigError(
        f"connection={lent.name}: it commits every statement by itself and has no transaction open that the job could "
        f"be part of; {lent.begin}"
    )


def _stated(error: Exception, path: str) -> Exception:
    if isinstance(error, sqlite3.Error) and busy(error):
        return StoreAway(
            f"{path}: the transaction on connection= could not get the write lock ({error}). One that begins by "
            "reading cannot write once others have written: open it with BEGIN IMMEDIATE, so that it waits its turn "
            '(SQLAlchemy: in the engine\'s "begin" event; Django: "OPTIONS": {"transaction_mode": "IMMEDIATE"}), or '
            "write before you read"
        )
    if "no such table: holdfast_" in str(error):
        return StoreError(f"{path}: has no tables of Holdfast yet: run `holdfast migrate`, or open the store first")
    return stated(error, path)
