"""Lets statements of a store's writer fail, as a disk that is full, broken or locked makes SQLite say it."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from enum import Enum
from typing import Any, NamedTuple

import pytest

WRITER = "holdfast-sqlite-writer"  # the thread
PATIENCE = 30.0


class Fault(NamedTuple):
    """An error as Python's module raises it."""

    name: str
    code: int
    text: str

    def error(self) -> sqlite3.OperationalError:
        error = sqlite3.OperationalError(self.text)
        error.sqlite_errorname, error.sqlite_errorcode = self.name, self.code
        return error


FULL = Fault("SQLITE_FULL", 13, "database or disk is full")
BROKEN = Fault("SQLITE_IOERR_WRITE", 778, "disk I/O error")
LOCKED = Fault("SQLITE_BUSY", 5, "database is locked")


class Then(Enum):
    """What became of the transaction that the failing statement was part of."""

    OPEN = "it is still open"
    UNDONE = "SQLite has rolled it back"
    DONE = "the statement did its work, and only its answer is an error"
    ALL = "every further statement fails too, the ROLLBACK as well"


class Faults:
    """Counts the statements of the writer's thread. Armed, it lets the n-th from now on fail."""

    def __init__(self) -> None:
        self.struck = 0
        self.statement = ""  # the first that failed
        self.committed = False  # before that
        self._number = 0
        self._at: int | None = None
        self._fault, self._then = FULL, Then.OPEN
        self._gate: threading.Event | None = None
        self._reached = threading.Event()
        self._behind = False  # the transaction that waited at the gate is not over yet

    def arm(self, at: int, fault: Fault, then: Then) -> None:
        """The statement number `at` fails, counted from 1, and from the gate if one is shut."""
        self.struck, self.statement, self.committed, self._number = 0, "", False, 0
        self._fault, self._then, self._at = fault, then, at

    def disarm(self) -> None:
        self._at = None

    @asynccontextmanager
    async def pile(self, first: Coroutine[Any, Any, Any]) -> AsyncIterator[None]:
        """While the call `first` waits at the start of its transaction, all calls of the block pile up behind it."""
        self._gate = gate = threading.Event()
        self._reached.clear()
        self._behind = True
        try:
            call = asyncio.ensure_future(first)
            await asyncio.sleep(0)
            assert await asyncio.to_thread(self._reached.wait, PATIENCE), "the writer never began a transaction"
            yield
        finally:
            self._gate = None
            gate.set()
        await call

    def execute(self, cursor: sqlite3.Cursor, text: str, execute: Callable[[], Any]) -> Any:
        """In place of `cursor.execute`."""
        if threading.current_thread().name != WRITER:
            return execute()
        if self._behind:
            return self._at_the_gate(text, execute)
        self._number += 1
        if self._at is None or self._number < self._at or (self._number > self._at and self._then is not Then.ALL):
            self.committed = self.committed or (text == "COMMIT" and not self.struck)
            return execute()
        self.struck += 1
        self.statement = self.statement or text
        if self._then is Then.DONE:
            execute()
        if self._then is Then.UNDONE and cursor.connection.in_transaction:
            cursor.connection.execute("ROLLBACK")
        raise self._fault.error()

    def _at_the_gate(self, text: str, execute: Callable[[], Any]) -> Any:
        gate = self._gate
        if text == "BEGIN IMMEDIATE" and gate is not None:
            self._reached.set()
            assert gate.wait(PATIENCE), "the gate stayed shut"
        answer = execute()
        if text == "COMMIT":
            self._behind = False
        return answer


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Faults:
    """For stores that are opened after it."""
    made = Faults()

    class Cursor(sqlite3.Cursor):
        def execute(self, text: str, parameters: Any = (), /) -> Any:
            run = super().execute
            return made.execute(self, text, lambda: run(text, parameters))

    monkeypatch.setattr(sqlite3, "Cursor", Cursor)
    return made


class Witness:
    """Looks at a file from outside the store, and brings it back to an earlier state."""

    def __init__(self, path: object) -> None:
        self._connection = sqlite3.connect(str(path), isolation_level=None, timeout=PATIENCE)
        self._kept = sqlite3.connect(":memory:")

    def version(self) -> int:
        """Changes with every commit of others."""
        [[version]] = self._connection.execute("PRAGMA data_version").fetchall()
        return int(version)

    def contents(self) -> dict[str, list[Any]]:
        """All rows of all tables, sorted; jobs by their id and not by their number, which tells only who came first."""
        named = "SELECT name FROM sqlite_master WHERE type = 'table'"
        names = [name for [name] in self._connection.execute(named).fetchall()]
        tables = {name: self._connection.execute(f"SELECT * FROM {name}").fetchall() for name in names}
        ids = {seq: job for seq, job, *_ in tables["holdfast_jobs"]}
        tables["holdfast_jobs"] = [tuple(rest) for _, *rest in tables["holdfast_jobs"]]
        tables["holdfast_attempts"] = [(ids[seq], *rest) for seq, *rest in tables["holdfast_attempts"]]
        return {name: sorted(rows, key=lambda row: str(row[:2])) for name, rows in tables.items()}

    def whole(self) -> bool:
        return self._connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]

    def unlocked(self) -> bool:
        """Whether nobody holds the write lock; who is just about to leave it is waited for."""
        with suppress(sqlite3.OperationalError):
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.execute("ROLLBACK")
            return True
        return False

    def keep(self) -> None:
        """Remembers the file as it is now."""
        self._connection.backup(self._kept)

    def restore(self) -> None:
        """Makes it again as it was then."""
        self._kept.backup(self._connection)

    def close(self) -> None:
        self._connection.close()
        self._kept.close()
