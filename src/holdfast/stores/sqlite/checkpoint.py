"""Keeps the write-ahead log short, without the race of SQLite 3.7.0 to 3.51.2 that can lose commits.

There, a checkpoint that meets a writer which starts the log anew can go wrong. So no connection checkpoints by
itself, and this step does it while a second connection of ours holds the write lock.

The next writer starts the log anew if nobody reads from it any more. Where reading never pauses it would grow for
ever; so the longer it is, the longer this step keeps the write lock, until those who read from it have left: who
begins to read after a whole checkpoint does not need the log.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from holdfast.stores.sqlite.opening import WAL_LIMIT

COMMITS_BETWEEN = 32  # as long as a reader keeps the log from starting anew, trying at every commit does not help
GRACE, LONGEST_GRACE = 0.002, 0.1  # seconds, for each time that the log is longer than its limit
VAIN, REST = 2, 5.0  # after so many graces in vain none is given for so many seconds: a reader stays


class Checkpoint:
    """Runs on the writer's thread, between its transactions; `writer` is its connection."""

    def __init__(self, path: str, writer: sqlite3.Connection, connect: Callable[[], sqlite3.Connection]) -> None:
        self._log = Path(f"{os.path.realpath(path)}-wal")  # beside the file itself where the path is a symbolic link
        self._writer = writer
        self._connect = connect
        self._second: sqlite3.Connection | None = None
        self._commits = 0  # since this step ran last
        self._last = 0  # the log's length then
        self._vain = 0  # graces in a row
        self._rested = 0.0  # when one may be given again, as time.monotonic() says it

    def after_commit(self) -> None:
        """Checkpoints when the log has grown past its limit. What fails here is tried again later."""
        self._commits += 1
        length = self.length()
        if length <= WAL_LIMIT:
            self._last = 0  # it was started anew
        elif self._last == 0 or length > self._last + WAL_LIMIT // 4 or self._commits > COMMITS_BETWEEN:
            self._commits, self._last = 0, length
            with suppress(Exception):
                self._run(self._grace(length))

    def _grace(self, length: int) -> float:
        if time.monotonic() < self._rested:
            return 0.0
        return min(LONGEST_GRACE, GRACE * (length // WAL_LIMIT - 1))

    def length(self) -> int:
        """The log's, in bytes; on any thread."""
        with suppress(OSError):
            return self._log.stat().st_size
        return 0

    def _run(self, grace: float) -> None:
        self._second = self._second or self._connect()
        self._writer.execute("BEGIN IMMEDIATE")
        try:
            whole = self._checkpoint(self._second)
            if grace > 0:
                time.sleep(grace)
                self._note(whole=whole or self._checkpoint(self._second))
            if grace > 0 and not whole:
                time.sleep(grace)
        finally:
            self._writer.execute("ROLLBACK")

    def _note(self, *, whole: bool) -> None:
        self._vain = 0 if whole else self._vain + 1
        if self._vain >= VAIN:
            self._vain, self._rested = 0, time.monotonic() + REST

    def _checkpoint(self, connection: sqlite3.Connection) -> bool:
        """Whether nothing was left over for the sake of a reader."""
        [[_, frames, done]] = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        return bool(frames == done)

    def close(self) -> None:
        if self._second is not None:
            self._second.close()
