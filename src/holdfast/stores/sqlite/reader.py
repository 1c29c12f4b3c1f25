"""The thread that reads for callers, on a connection of its own: a listing never stands behind a write."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

from holdfast.errors import StoreError
from holdfast.stores.sqlite.calls import Call, answer
from holdfast.stores.sqlite.files import Files
from holdfast.stores.sqlite.statements import Sql
from holdfast.stores.sqlite.threads import started
from holdfast.stores.sqlite.trouble import stated
from holdfast.stores.sqlite.turns import Turns

R = TypeVar("R")


class _Reading(Call[R]):
    __slots__ = ("work",)

    def __init__(self, work: Callable[[Sql], R]) -> None:
        super().__init__()
        self.work = work


class Eye(NamedTuple):
    """What one reads with: a connection, and the files that it has open."""

    sql: Sql
    files: Files

    def close(self) -> None:
        self.sql.close()


class Reader:
    """Owns the reading connection. The thread starts with the first call. `lost`: the file is not there any more."""

    def __init__(self, path: str, take: Callable[[], Eye], lost: Callable[[], None]) -> None:
        self._path = path
        self._turns = Turns(take, Eye.close)
        self.let_go = self._turns.close
        self._lost = lost
        self._arrivals: queue.SimpleQueue[_Reading[Any] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    async def submit(self, work: Callable[[Sql], R]) -> R:
        """Has it read, all in one state of the file."""
        call = _Reading(work)
        self._arrivals.put(call)
        with self._lock:
            if self._thread is None:
                self._thread = started(self._run, "holdfast-sqlite-reader")
            if self._thread is None:
                self._arrivals.put(None)
                self._run()
        return await call.future

    def close(self) -> None:
        """Ends the thread after all calls that were submitted."""
        if self._thread is not None:
            self._arrivals.put(None)
            self._thread.join()
        self._turns.close()

    def _run(self) -> None:
        while (call := self._arrivals.get()) is not None:
            if not call.wanted:
                continue
            try:
                with self._turns.turn() as eye:
                    eye.files.check()
                    call.result = _read(eye.sql, call.work)
            except Exception as error:  # noqa: BLE001  # it is the caller's
                call.error = stated(error, self._path)
                if isinstance(call.error, StoreError):  # the transaction may still be open, or the file be another
                    with suppress(Exception):
                        self._lost()
            answer([call])


def _read(sql: Sql, work: Callable[[Sql], R]) -> R:
    sql.run("BEGIN")
    try:
        return work(sql)
    finally:
        if sql.connection.in_transaction:  # some errors end it
            sql.run("ROLLBACK")
