"""What all twins of one store share in a process: the place, the time, and three threads with their connections."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Sequence

from holdfast.clock import Clock, Instant, Span
from holdfast.errors import StoreAway, StoreError
from holdfast.stores.sqlite.checkpoint import Checkpoint
from holdfast.stores.sqlite.files import Files, Identity, identity
from holdfast.stores.sqlite.opening import Durability, connect, migrate, patiently, prepare
from holdfast.stores.sqlite.presence import Presence
from holdfast.stores.sqlite.reader import Eye, Reader
from holdfast.stores.sqlite.statements import Sql
from holdfast.stores.sqlite.trouble import stated
from holdfast.stores.sqlite.turns import Turns
from holdfast.stores.sqlite.unreadable import Told
from holdfast.stores.sqlite.watcher import Watcher
from holdfast.stores.sqlite.writer import Pen, Writer

WRITER_CACHE, OTHER_CACHE = 64, 4  # MiB of pages, at most

_open: set[Core] = set()  # nothing may close a connection because it was forgotten, least of all in a forked child


class Hands:
    """The threads of a store that is open."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self.reader = Reader(core.path, core.eye, self.let_go)
        self.watcher = Watcher(core.path, lambda: core.eye().sql)
        try:
            self.writer = Writer(core.path, core.pen, self.watcher.ring, self.let_go)
        except BaseException:
            self.watcher.close()
            raise

    def close(self) -> None:
        """Waits for the calls that were submitted, then lets go of the file."""
        self.writer.close()
        self.watcher.close()
        self.reader.close()

    def let_go(self) -> None:
        """Closes all connections, and with them what SQLite keeps of a file that is gone; the threads take new ones.

        For a thread whose own turn is over: it waits for the turns of the others.
        """
        for thread in (self.reader, self.watcher, self.writer):
            thread.let_go()
        self._core.served = None  # another file may get the same inode now


class Core:
    """Opened by the first twin that opens, closed by the last that closes."""

    def __init__(self, path: str, durability: Durability, clock: Clock) -> None:
        self.path = path
        self.durability: Durability = durability
        self.shift: Span = 0
        self.told = Told()
        self.presence = Presence(path)
        self._clock = clock
        self._lock = threading.Lock()
        self._visits = Turns(lambda: None, lambda _: None)
        self._users = 0
        self._hands: Hands | None = None
        self.served: Identity | None = None  # the file that was looked at last

    def now(self) -> Instant:
        return self._clock.now() + self.shift

    def open(self, *, create: bool = True) -> Hands:
        """Blocks while the file is being looked at."""
        with self._lock:
            if self._hands is None:
                with self._visits.turn():
                    prepare(self.path, create=create)
                self.served = identity(self.path)
                try:
                    self._hands = Hands(self)
                except (MemoryError, OSError) as error:
                    raise stated(error, self.path) from error
                _open.add(self)
            self._users += 1
            return self._hands

    def migrate(self, *, dry_run: bool) -> Sequence[str]:
        """Blocks while the file is being migrated."""
        with self._visits.turn():
            return migrate(self.path, dry_run=dry_run)

    def close(self) -> None:
        """Blocks until the calls in flight are done, if this was the last user."""
        with self._lock:
            self._users -= 1
            if self._users == 0 and self._hands is not None:
                self._hands.close()
                self._hands = None
                _open.discard(self)

    def tend(self) -> None:
        """A transaction that is not ours writes: sees to it that the log stays short, if the store is open."""
        hands = self._hands
        if hands is not None:
            hands.writer.tend()

    def _connect(self, cache_mib: int, timeout: float = 5.0) -> sqlite3.Connection:
        try:
            return connect(self.path, self.durability, cache_mib, timeout)
        except (sqlite3.Error, MemoryError, OSError) as error:
            raise stated(error, self.path) from error

    def _open(self, cache_mib: int, timeout: float = 5.0) -> tuple[Sql, Files]:
        """A connection that has read, so that the log and its index are open too."""
        main = self._found()
        sql = Sql(self._connect(cache_mib, timeout), self.now)
        try:
            patiently(self.path, lambda: sql.rows("any_queued"))
            files = Files(self.path, main)
            files.check()
        except BaseException as error:
            sql.close()
            if isinstance(error, (sqlite3.Error, MemoryError)):
                raise stated(error, self.path) from error
            raise
        return sql, files

    def _found(self) -> Identity:
        """The file at the path, which is never made here: a new one would look as if all jobs were done."""
        main = identity(self.path)
        if main is None:
            raise StoreAway(
                f"{self.path}: the file is gone. Put it back, from where it was moved to or from a backup, and this "
                "process goes on by itself; or start a worker or producer anew, which begins with an empty one"
            )
        if main != self.served:
            try:
                prepare(self.path, create=False)
            except StoreError as error:
                raise StoreAway(f"{error}. It took the place of the file that was opened first") from error
            self.served = main
        return main

    def pen(self) -> Pen:
        """What the writer needs."""
        sql, files = self._open(WRITER_CACHE, timeout=0.0)
        return Pen(sql, files, Checkpoint(self.path, sql.connection, lambda: self._connect(OTHER_CACHE)))

    def eye(self) -> Eye:
        """A connection for a thread that does not write."""
        return Eye(*self._open(OTHER_CACHE))
