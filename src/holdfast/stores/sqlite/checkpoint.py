"""Keeps the write-ahead log short, without the race of SQLite 3.7.0 to 3.51.2 that can lose commits.

There, a checkpoint that meets a writer which starts the log anew can go wrong. So no connection checkpoints by
itself, and this step does it while a second connection of ours holds the write lock.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from holdfast.stores.sqlite.opening import WAL_LIMIT

COMMITS_BETWEEN = 32  # a reader may keep the log from starting anew: trying at every commit would not help


class Checkpoint:
    """Runs on the writer's thread, between its transactions; `writer` is its connection."""

    def __init__(self, path: str, writer: sqlite3.Connection, connect: Callable[[], sqlite3.Connection]) -> None:
        self._log = Path(f"{path}-wal")
        self._writer = writer
        self._connect = connect
        self._second: sqlite3.Connection | None = None
        self._commits = COMMITS_BETWEEN

    def after_commit(self) -> None:
        """Checkpoints when the log has grown past its limit. What fails here is tried again later."""
        self._commits += 1
        if self._commits > COMMITS_BETWEEN and self._long():
            self._commits = 0
            with suppress(sqlite3.Error):
                self._run()

    def _long(self) -> bool:
        with suppress(FileNotFoundError):
            return self._log.stat().st_size > WAL_LIMIT
        return False

    def _run(self) -> None:
        self._second = self._second or self._connect()
        self._writer.execute("BEGIN IMMEDIATE")
        try:
            self._second.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        finally:
            self._writer.execute("ROLLBACK")

    def close(self) -> None:
        if self._second is not None:
            self._second.close()
