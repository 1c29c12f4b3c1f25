"""The thread that watches for queued jobs, and for ended ones, while someone waits for some: other processes' commits,
and our own.

The kernel says when the write-ahead log is written to; then `PRAGMA data_version` says when that is a commit (a
few microseconds a look, and some looks may be needed: the commit is there only when its pages are on the disk);
then there is one look at what is waited for. Our own writer rings at once. Where the kernel says nothing,
`data_version` is polled.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Sequence

from holdfast.stores.sqlite.bell import HEARS_KERNEL, Bell
from holdfast.stores.sqlite.calls import Call, answer
from holdfast.stores.sqlite.notice import heard, noticing
from holdfast.stores.sqlite.statements import Row, Sql
from holdfast.stores.sqlite.threads import started
from holdfast.stores.sqlite.trouble import stated
from holdfast.stores.sqlite.turns import Turns

POLL = 0.01  # seconds between two looks where the kernel says nothing
CALM = 0.25  # and where it would have said something
FIRST, LATER, LAST = 0.001, 0.002, 0.1  # the pauses double after a write: from FIRST, after a commit from LATER


class Waiting(Call[bool]):
    """Someone who waits until what `look` asks is so."""

    __slots__ = ("look",)

    def __init__(self, look: Callable[[Sql], bool]) -> None:
        super().__init__()
        self.look = look

    def end(self) -> None:
        """Nothing came; on the caller's loop."""
        if not self.future.done():
            self.future.set_result(False)


class Watcher:
    """Owns a connection that only looks. The thread starts with the first to wait, and sleeps while nobody does."""

    def __init__(self, path: str, connect: Callable[[], Sql]) -> None:
        self._path = path
        self._connect = connect
        self._turns = Turns(self._start, Sql.close)
        self.let_go = self._turns.close
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._bell = Bell()
        self._arrivals: deque[Waiting] = deque()
        self._closing = False
        # the thread's own
        self._waiting: list[Waiting] = []
        self._kernel: int | None = None
        self._version: Row | None = None
        self._pause = 0.0  # until the next look after a write; 0: nothing was written of late

    @property
    def listens(self) -> bool:
        """Whether anybody waits."""
        return bool(self._waiting)

    def begin(self, look: Callable[[Sql], bool]) -> Waiting:
        """Its future becomes True as soon as `look` says so; whoever waits may end it before."""
        waiting = Waiting(look)
        self._arrivals.append(waiting)
        with self._lock:
            if self._thread is None:
                self._thread = started(self._run, "holdfast-sqlite-watcher")
        self._bell.pull()
        return waiting

    def ring(self) -> None:
        """Our own writer has queued jobs, or ended some."""
        if self._waiting:
            self._bell.pull()

    def close(self) -> None:
        """Ends the thread; nobody may wait any more."""
        self._closing = True
        self._bell.pull()
        if self._thread is not None:
            self._thread.join()
        self._turns.close()
        if self._kernel is not None:
            os.close(self._kernel)
        self._bell.close()

    def _run(self) -> None:
        while not self._closing:
            try:
                self._step()
            except Exception as error:  # noqa: BLE001  # it is for those who wait
                self._fail(stated(error, self._path))

    def _start(self) -> Sql:
        sql = self._connect()
        if self._kernel is not None:
            os.close(self._kernel)
        self._kernel = noticing(f"{os.path.realpath(self._path)}-wal") if HEARS_KERNEL else None
        self._version = None
        return sql

    def _step(self) -> None:
        """One sleep, and one look if there is reason for one."""
        rung = self._sleep()
        with self._turns.turn() as sql:
            [version] = sql.run("PRAGMA data_version")
            if version != self._version:
                self._version = version  # before the look: a later commit shows in the next step
                self._pause = LATER
            elif not rung:
                return
            self._look(sql)

    def _look(self, sql: Sql) -> None:
        hinted = [waiting for waiting in self._waiting if waiting.look(sql)]
        for waiting in hinted:
            waiting.result = True
        self._answer(hinted)

    def _sleep(self) -> bool:
        """Until someone rings (True), or it is time for a look."""
        self._receive()
        if not self._waiting:
            return self._listen(None)
        if self._kernel is None:
            return self._listen(POLL)
        pause = self._pause
        self._pause = pause * 2 if pause < LAST else 0.0
        rest = 0 < pause <= LATER  # others may write without end
        return self._listen(pause or CALM, None if rest else self._kernel)

    def _listen(self, seconds: float | None, kernel: int | None = None) -> bool:
        rung, written = self._bell.listen(seconds, kernel)
        if written and kernel is not None:
            heard(kernel)
            self._pause = FIRST
        if rung:
            self._receive()
        return rung

    def _receive(self) -> None:
        while self._arrivals:
            self._waiting.append(self._arrivals.popleft())
        self._waiting = [waiting for waiting in self._waiting if not waiting.future.done()]

    def _fail(self, error: Exception) -> None:
        self._receive()
        for waiting in self._waiting:
            waiting.error = error
        self._answer(self._waiting)

    def _answer(self, answered: Sequence[Waiting]) -> None:
        answer(answered)
        self._waiting = [waiting for waiting in self._waiting if waiting not in answered]
