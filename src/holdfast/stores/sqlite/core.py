"""What all twins of one store share in a process: the place, the time, and three threads with their connections."""

from __future__ import annotations

import sqlite3
import threading

from holdfast.clock import Clock, Instant, Span
from holdfast.stores.sqlite.checkpoint import Checkpoint
from holdfast.stores.sqlite.opening import Durability, connect, prepare
from holdfast.stores.sqlite.reader import Reader
from holdfast.stores.sqlite.statements import Sql
from holdfast.stores.sqlite.trouble import stated
from holdfast.stores.sqlite.unreadable import Told
from holdfast.stores.sqlite.watcher import Watcher
from holdfast.stores.sqlite.writer import Pen, Writer

WRITER_CACHE, OTHER_CACHE = 64, 4  # MiB of pages, at most

_open: set[Core] = set()  # nothing may close a connection because it was forgotten, least of all in a forked child


class Hands:
    """The threads of a store that is open."""

    def __init__(self, core: Core) -> None:
        self.reader = Reader(core.path, core.other)
        self.watcher = Watcher(core.path, core.other)
        try:
            self.writer = Writer(core.path, core.pen, self.watcher.ring)
        except BaseException:
            self.watcher.close()
            raise

    def close(self) -> None:
        """Waits for the calls that were submitted, then lets go of the file."""
        self.writer.close()
        self.watcher.close()
        self.reader.close()


class Core:
    """Opened by the first twin that opens, closed by the last that closes."""

    def __init__(self, path: str, durability: Durability, clock: Clock) -> None:
        self.path = path
        self.durability: Durability = durability
        self.shift: Span = 0
        self.told = Told()
        self._clock = clock
        self._lock = threading.Lock()
        self._users = 0
        self._hands: Hands | None = None

    def now(self) -> Instant:
        return self._clock.now() + self.shift

    def open(self, *, create: bool = True) -> Hands:
        """Blocks while the file is being looked at."""
        with self._lock:
            if self._hands is None:
                prepare(self.path, create=create)
                try:
                    self._hands = Hands(self)
                except (MemoryError, OSError) as error:
                    raise stated(error, self.path) from error
                _open.add(self)
            self._users += 1
            return self._hands

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

    def connect(self, cache_mib: int, timeout: float = 5.0) -> sqlite3.Connection:
        try:
            return connect(self.path, self.durability, cache_mib, timeout)
        except (sqlite3.Error, MemoryError, OSError) as error:
            raise stated(error, self.path) from error

    def pen(self) -> Pen:
        """What the writer needs."""
        connection = self.connect(WRITER_CACHE, timeout=0.0)
        checkpoint = Checkpoint(self.path, connection, lambda: self.connect(OTHER_CACHE))
        return Pen(Sql(connection, self.now), checkpoint)

    def other(self) -> Sql:
        """A connection for a thread that does not write."""
        return Sql(self.connect(OTHER_CACHE), self.now)
