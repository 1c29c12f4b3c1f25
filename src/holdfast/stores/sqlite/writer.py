"""The one thread per process and store that writes: takes all calls that wait, and commits them together.

1. look: what needs no write is answered at once
2. lock: waits for the write lock in short steps, as long as the callers have patience
3. write: all calls in one transaction; if one fails, nothing of it is stored, and each gets one of its own
4. commit; only then the callers are answered, each event loop woken once
5. checkpoint, when the log has grown
"""

from __future__ import annotations

import queue
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from holdfast.stores.sqlite.calls import Call, answer
from holdfast.stores.sqlite.checkpoint import Checkpoint
from holdfast.stores.sqlite.files import Files
from holdfast.stores.sqlite.opening import WAL_LIMIT, locked_out, pause
from holdfast.stores.sqlite.statements import Sql
from holdfast.stores.sqlite.threads import started
from holdfast.stores.sqlite.trouble import busy, stated
from holdfast.stores.sqlite.turns import Turns

R = TypeVar("R")

MOST_CALLS = 64  # in one transaction
MOST_SECONDS = 0.02  # then a transaction takes no further call: other processes want to write too
PATIENCE = 30.0  # seconds that a call waits for the write lock


@dataclass(frozen=True, slots=True)
class Work(Generic[R]):
    """What is done for a call: `look` before the transaction, `write` in it, `read` after its commit.

    `look` and `write` answer None where the next of the three is to answer. Each may be run again from the start.
    `wakes`: jobs may be queued afterwards. `patience`: seconds that it waits for the write lock.
    """

    write: Callable[[Sql], R | None]
    look: Callable[[Sql], R | None] | None = None
    read: Callable[[Sql], R] | None = None
    wakes: bool = False
    patience: float = PATIENCE


class _Writing(Call[R]):
    __slots__ = ("work",)

    def __init__(self, work: Work[R]) -> None:
        super().__init__()
        self.work = work


class _Wake:
    """Nothing to write, but something to do."""


@dataclass(frozen=True, slots=True)
class Pen:
    """What the writer writes with: its connection, the files it has open, and the step that keeps the log short."""

    sql: Sql
    files: Files
    checkpoint: Checkpoint

    def close(self) -> None:
        self.checkpoint.close()
        self.sql.close()


class Writer:
    """Owns the writing connection. `submit` on any event loop; `woken` is called when jobs may have been queued.

    `lost` is called when a round was stopped: something is wrong with the connections, or with the file.
    """

    def __init__(self, path: str, take: Callable[[], Pen], woken: Callable[[], None], lost: Callable[[], None]) -> None:
        self._path = path
        self._turns = Turns(take, Pen.close)
        self.let_go = self._turns.close
        self._woken = woken
        self._lost = lost
        with self._turns.turn() as self._pen:  # what keeps us from writing is told now
            pass
        self._arrivals: queue.SimpleQueue[_Writing[Any] | _Wake | None] = queue.SimpleQueue()
        self._calls: deque[_Writing[Any]] = deque()  # taken from the arrivals, not answered yet
        self._taken: list[_Writing[Any]] = []  # into a transaction, not answered yet
        self._tending = False
        self._singly = 0  # so many of the next calls get a transaction of their own
        self._closing = False
        self._alone = threading.Lock()  # where there is no thread
        self._thread = started(self._run, "holdfast-sqlite-writer")

    async def submit(self, work: Work[R]) -> R:
        """Has it done; the answer comes after the commit."""
        call = _Writing(work)
        self._arrivals.put(call)
        if self._thread is None:
            self._run_here()
        return await call.future

    def close(self) -> None:
        """Ends the thread after all calls that were submitted."""
        self._arrivals.put(None)
        if self._thread is not None:
            self._thread.join()
        self._turns.close()

    def _run(self) -> None:
        while self._gather():
            try:
                self._round()
            except BaseException as error:  # noqa: BLE001  # a thread that dies would leave its callers waiting for ever
                self._give_up(error)

    def tend(self) -> None:
        """Someone else's transaction writes: if the log is long, it is checkpointed after its end."""
        if self._thread is not None and not self._tending and self._pen.checkpoint.length() > WAL_LIMIT:
            self._tending = True
            self._arrivals.put(_Wake())

    def _run_here(self) -> None:
        with self._alone:
            self._arrivals.put(None)
            self._run()
            self._closing = False

    def _gather(self) -> bool:
        """Waits until there may be something to do; False when nothing will come any more."""
        if not self._calls and not self._closing and not self._tending:
            self._receive(self._arrivals.get())
        self._receive_more()
        return bool(self._calls) or not self._closing

    def _receive_more(self) -> None:
        while len(self._calls) < MOST_CALLS and not self._closing:
            try:
                self._receive(self._arrivals.get_nowait())
            except queue.Empty:
                return

    def _receive(self, call: _Writing[Any] | _Wake | None) -> None:
        if call is None:
            self._closing = True
        elif isinstance(call, _Writing):
            self._calls.append(call)

    def _round(self) -> None:
        """Each step is a turn with the pen, so that a fork need not wait for the write lock."""
        with self._turns.turn() as self._pen:
            self._pen.files.check_if_long()
            self._look()
        while self._calls and not self._written():
            self._dismiss()
            pause()
            self._receive_more()
        if self._tending:
            self._tend()

    def _written(self) -> bool:
        """Whether the write lock could be had, and the calls that wait were dealt with."""
        with self._turns.turn() as self._pen:
            if not self._locked():
                return False
            self._transaction()
            self._pen.files.check()  # before anybody is told that his jobs are stored
            self._answer_taken()
            self._pen.checkpoint.after_commit()
        return True

    def _tend(self) -> None:
        """Waits for the write lock as a call does, unless calls come: a checkpoint follows those anyway."""
        start = time.monotonic()
        try:
            while not (self._calls or self._closing) and time.monotonic() - start < PATIENCE:
                with self._turns.turn() as self._pen:
                    if self._locked():
                        self._sql.run("ROLLBACK")
                        self._pen.checkpoint.after_commit()
                        return
                pause()
                self._receive_more()
        finally:
            self._tending = False

    # --- look

    def _look(self) -> None:
        answered = [call for call in self._calls if self._answered(call)]
        if answered:
            done = set(map(id, answered))
            self._calls = deque(call for call in self._calls if id(call) not in done)
            self._singly = min(self._singly, len(self._calls))
            answer(answered)

    def _answered(self, call: _Writing[Any]) -> bool:
        if not call.wanted:
            return True
        if call.work.look is None:
            return False
        try:
            call.result = call.work.look(self._sql)
        except Exception as error:  # noqa: BLE001  # it is the caller's
            if isinstance(error, sqlite3.Error) and busy(error):
                return False
            call.error = self._stated(error)
        return call.error is not None or call.result is not None

    # --- lock

    def _locked(self) -> bool:
        try:
            if self._connection.in_transaction:  # its end failed
                self._sql.run("ROLLBACK")
            self._sql.run("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            if not busy(error):
                raise
            return False
        return True

    def _dismiss(self) -> None:
        """Lets go those who have left, and those whose patience is over."""
        patient = deque[_Writing[Any]]()
        dismissed: list[_Writing[Any]] = []
        for call in self._calls:
            if call.waited < call.work.patience and call.wanted:
                patient.append(call)
            else:
                call.error = locked_out(self._path, call.waited)
                dismissed.append(call)
        self._calls = patient
        answer(dismissed)

    # --- write and commit

    def _transaction(self) -> None:
        """Writes what waits, as far as one transaction goes; `_taken` are the calls that are to be answered then."""
        taken = self._taken
        try:
            self._write_into(taken)
            self._sql.run("COMMIT")
        except Exception as error:  # noqa: BLE001  # one call's, or the end of the transaction for all of them
            for call in taken:
                call.error = self._stated(error)
            if self._connection.in_transaction:
                self._sql.run("ROLLBACK")
            if len(taken) > 1:  # nothing of it was stored; one by one, only those fail whose own fault it is
                self._calls.extendleft(reversed(taken))
                self._singly = len(taken)
                taken.clear()
        else:
            self._after_commit(taken)

    def _write_into(self, taken: list[_Writing[Any]]) -> None:
        start = time.monotonic()
        most = 1 if self._singly else MOST_CALLS
        self._singly = max(0, self._singly - 1)
        while self._calls and len(taken) < most and time.monotonic() - start < MOST_SECONDS:
            call = self._calls.popleft()
            if not call.wanted:
                continue
            call.result = call.error = None
            taken.append(call)
            call.result = call.work.write(self._sql)

    def _after_commit(self, taken: Sequence[_Writing[Any]]) -> None:
        if any(call.work.wakes and call.error is None for call in taken):
            with suppress(Exception):  # what is committed is answered; who waits looks by himself soon
                self._woken()
        for call in taken:
            if call.result is None and call.error is None and call.work.read is not None:
                try:
                    call.result = call.work.read(self._sql)
                except Exception as error:  # noqa: BLE001  # it is the caller's
                    call.error = self._stated(error)

    def _answer_taken(self) -> None:
        taken, self._taken = self._taken, []
        answer(taken)

    def _give_up(self, error: BaseException) -> None:
        """What stopped a whole round is told to all who wait. A transaction that may be open ends with its pen."""
        told = self._stated(error) if isinstance(error, Exception) else RuntimeError(f"the writer met {error!r}")
        with suppress(Exception):
            self._lost()
        for call in self._calls:
            call.error = told
        for call in self._taken:
            call.error = call.error or told
        self._taken.extend(self._calls)
        self._calls.clear()
        self._singly, self._tending = 0, False
        self._answer_taken()

    @property
    def _sql(self) -> Sql:
        return self._pen.sql

    @property
    def _connection(self) -> sqlite3.Connection:
        return self._pen.sql.connection

    def _stated(self, error: Exception) -> Exception:
        return stated(error, self._path)
