"""A pool's threads: each is parked, or runs one job after another."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from holdfast.clock import SECOND
from holdfast.context import current
from holdfast.errors import ConfigError
from holdfast.job import State
from holdfast.worker.forked import end_if_copy
from holdfast.worker.pooled import settle
from holdfast.worker.pooled.inside import Inside
from holdfast.worker.pooled.kinds import LOOP, PROCESS
from holdfast.worker.pooled.tallies import Tally

if TYPE_CHECKING:
    from holdfast.worker.pooled.core import Core
    from holdfast.worker.pooled.job import PoolJob
    from holdfast.worker.processes.caller import Caller

_numbers = count(1)
_running, _succeeded = State.RUNNING, State.SUCCEEDED


class Seat:
    """One thread, and what it does now. A job is put into `job`, then `bell` is rung; None: it may end."""

    __slots__ = ("bell", "caller", "job", "run", "tally", "thread")

    def __init__(self) -> None:
        self.bell = threading.Lock()
        self.bell.acquire()
        self.job: PoolJob[Any] | None = None
        self.run: Inside | None = None
        self.tally = Tally()
        self.caller: Caller | None = None  # its process, once it has needed one
        self.thread: threading.Thread


class Threads:
    """As many as have ever been needed at a time, at most one for each slot."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._name = f"holdfast-pool-{next(_numbers)}"
        self._parked: deque[Seat] = deque()
        self.seats: list[Seat] = []
        self._ended = False

    def start(self, job: PoolJob[Any]) -> None:
        try:
            seat = self._parked.pop()
        except IndexError:
            self._sit(job)
            return
        seat.job = job
        seat.bell.release()

    def _sit(self, job: PoolJob[Any]) -> None:
        seat = Seat()
        seat.job = job
        seat.bell.release()
        seat.thread = threading.Thread(target=self._serve, args=(seat,), daemon=True)
        with self._core.lock:
            self.seats.append(seat)
            seat.thread.name = f"{self._name}-{len(self.seats)}"
        try:
            seat.thread.start()
        except RuntimeError as error:
            with self._core.lock:
                self.seats.remove(seat)
            self._core.not_started(job, error)

    def runs(self) -> Iterator[Inside]:
        """The attempts under way."""
        for seat in list(self.seats):
            run = seat.run
            if run is not None:
                yield run

    def stuck(self) -> Iterator[Seat]:
        """Those whose thread is not parked."""
        return (seat for seat in list(self.seats) if seat.run is not None)

    def interrupt(self, run: Inside) -> None:
        """A thread only sees the flag; a process is ended."""
        for seat in list(self.seats):
            if seat.run is run and seat.caller is not None:
                seat.caller.stop()

    def end(self) -> None:
        """Parked threads end; a busy one ends after its job."""
        self._ended = True
        with suppress(IndexError):
            while True:
                seat = self._parked.pop()
                seat.job = None
                seat.bell.release()

    @property
    def gone(self) -> bool:
        return not self.seats

    # --- in the thread

    def _serve(self, seat: Seat) -> None:
        core = self._core
        while True:
            seat.bell.acquire()
            job = seat.job
            if job is None:
                break
            while job is not None:
                context = job.context
                if context is not None:
                    context.run(self._attempt, seat, job)
                seat.job = job = context = None  # what waits for nothing shall hold nothing
                job = core.next_for(seat)
            self._parked.append(seat)
            core.home()
            if self._ended:
                self.end()
        self._leave(seat)
