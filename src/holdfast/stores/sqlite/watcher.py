"""The thread that watches for queued jobs while someone waits for some: other processes' commits, and our own.

`PRAGMA data_version` changes when another connection has committed, and costs a few microseconds; only then is
there a look into the index of queued jobs. Our own writer rings at once.
"""

from __future__ import annotations

import json
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from typing import TypeAlias

from holdfast.stores.sqlite.calls import Call, answer
from holdfast.stores.sqlite.statements import Row, Sql
from holdfast.stores.sqlite.trouble import stated

POLL = 0.004  # seconds between two looks at data_version: on average half of it until another process's job is seen


class Waiting(Call[bool]):
    """Someone who waits for jobs of some queues, or of all (None)."""

    __slots__ = ("queues",)

    def __init__(self, queues: Sequence[str] | None) -> None:
        super().__init__()
        self.queues = queues

    def end(self) -> None:
        """Nothing came; on the caller's loop."""
        if not self.future.done():
            self.future.set_result(False)


def any_queued(sql: Sql, queues: Sequence[str] | None) -> bool:
    """Whether these queues, or any (None), have queued jobs."""
    if queues is None:
        return sql.rows("any_queued") == [(1,)]
    return sql.row("first_filled", json.dumps(list(queues))) is not None


_Ring: TypeAlias = Waiting | bool  # someone who waits; True: our own writer has queued jobs; False: the end


class Watcher:
    """Owns a connection that only looks. The thread starts with the first to wait."""

    def __init__(self, path: str, connect: Callable[[], Sql]) -> None:
        self._path = path
        self._connect = connect
        self._rings: queue.SimpleQueue[_Ring] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._waiting: list[Waiting] = []

    def begin(self, queues: Sequence[str] | None) -> Waiting:
        """Its future becomes True as soon as something is queued; whoever waits may end it before."""
        waiting = Waiting(queues)
        self._rings.put(waiting)
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="holdfast-sqlite-watcher", daemon=True)
                self._thread.start()
        return waiting

    def ring(self) -> None:
        """Our own writer has queued jobs."""
        if self._waiting:
            self._rings.put(True)

    def close(self) -> None:
        """Ends the thread; nobody may wait any more."""
        if self._thread is not None:
            self._rings.put(False)
            self._thread.join()

    def _run(self) -> None:
        sql: Sql | None = None
        version: Row | None = None
        while (rung := self._next()) is not False:
            try:
                sql = sql or self._connect()
                [now] = sql.run("PRAGMA data_version")
                if rung or now != version:
                    version = now  # read before the look: a later commit shows in the next round
                    self._look(sql)
            except Exception as error:  # noqa: BLE001  # it is for those who wait
                self._fail(stated(error, self._path) if isinstance(error, sqlite3.Error) else error)
        if sql is not None:
            sql.connection.close()

    def _next(self) -> bool | None:
        """True: look; None: see whether there is anything to look at; False: the end."""
        self._waiting = [waiting for waiting in self._waiting if not waiting.future.done()]
        try:
            ring = self._rings.get(timeout=POLL if self._waiting else None)
        except queue.Empty:
            return None
        if isinstance(ring, Waiting):
            self._waiting.append(ring)
            return True
        return ring

    def _look(self, sql: Sql) -> None:
        hinted = [waiting for waiting in self._waiting if any_queued(sql, waiting.queues)]
        for waiting in hinted:
            waiting.result = True
        self._answer(hinted)

    def _fail(self, error: Exception) -> None:
        for waiting in self._waiting:
            waiting.error = error
        self._answer(self._waiting)

    def _answer(self, answered: Sequence[Waiting]) -> None:
        answer(answered)
        self._waiting = [waiting for waiting in self._waiting if waiting not in answered]
