"""A pool's threads: each is parked, or runs one job after another."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from contextvars import Context, copy_context
from itertools import count
from logging import INFO
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from holdfast.context import current
from holdfast.errors import Stop
from holdfast.job import State
from holdfast.observe.logging import jobs, workers
from holdfast.worker.forked import end_if_copy
from holdfast.worker.pooled import settle
from holdfast.worker.pooled.inside import Inside
from holdfast.worker.pooled.kinds import LOOP, THREAD
from holdfast.worker.pooled.tallies import Tally

if TYPE_CHECKING:
    from holdfast.worker.pooled.core import Core
    from holdfast.worker.pooled.work import Work
    from holdfast.worker.processes.caller import Caller

_numbers = count(1)
_running = State.RUNNING


class Seat:
    """One thread, and what it does now. A job is put into `job`, then `bell` is rung; None: it may end."""

    __slots__ = ("bell", "caller", "job", "run", "tally", "thread")

    def __init__(self) -> None:
        self.bell = threading.Lock()
        self.bell.acquire()
        self.job: Work | None = None
        self.run: Inside | None = None
        self.tally = Tally()
        self.caller: Caller | None = None  # the process that its job runs in
        self.thread: threading.Thread


class Threads:
    """As many as have ever been needed at a time, at most one for each slot."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._name = f"holdfast-pool-{next(_numbers)}"
        self._parked: deque[Seat] = deque()
        self.seats: list[Seat] = []
        self.left: deque[threading.Thread] = deque(maxlen=1000)  # on their last line of code
        self._callers: deque[Caller] = deque()  # processes that are idle
        self._ended = False
        self.rung: deque[None] = deque()  # one for each thread that has a job, and is not awake yet

    def start(self, job: Work) -> None:
        self.rung.append(None)
        try:
            seat = self._parked.pop()
        except IndexError:
            self._sit(job)
            return
        seat.job = job
        seat.bell.release()

    def _sit(self, job: Work) -> None:
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
            self._stand_up(seat)
            self._core.not_started(job, error)
        except BaseException:  # Ctrl-C: the thread may be there, or not
            if _taken_back(seat):  # and if the thread comes, it goes
                self._stand_up(seat)
                self._core.put_back(job)
            raise

    def _stand_up(self, seat: Seat) -> None:
        with self._core.lock, suppress(ValueError):
            self.seats.remove(seat)
        self.rung.pop()

    @property
    def idle(self) -> bool:
        """Whether all threads wait for a job."""
        return len(self._parked) == len(self.seats)

    @property
    def parked(self) -> bool:
        """Whether a thread waits for a job."""
        return bool(self._parked)

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
            caller = seat.caller
            if seat.run is run and caller is not None:
                caller.stop(run)

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
        try:
            while True:
                seat.bell.acquire()
                if seat.job is None:
                    return
                self.rung.pop()
                if core.slots and any(core.lanes):
                    core.fill()
                self._work(seat)
                if core.closed:
                    core.look()
                if self._ended:
                    self.end()
        finally:
            self._leave(seat)

    def _work(self, seat: Seat) -> None:
        """Runs one job after another; at the end the thread is parked, and its slot home or with another job."""
        job, seat.job = seat.job, None
        core = self._core
        while job is not None:
            try:
                _context(job).run(self._attempt, seat, job)
            except BaseException as error:  # noqa: BLE001  # a bug of ours must not cost a slot
                workers.error("a bug in the pool, at %r; please report it", job, exc_info=error)
            seat.run = None
            if core.surplus and core.give_up():
                break
            job = core.take()
            if job is None:
                self._parked.append(seat)
                core.home()
                return
            if job.kind is LOOP:
                core.tasks.start(job)
                break
        del job
        self._parked.append(seat)

    def _attempt(self, seat: Seat, job: Work) -> None:
        core = self._core
        run = seat.run = job.run = Inside(job, time.monotonic())
        current.set(run)
        job.state = _running
        if job.plan.timeout is not None and job.kind is THREAD:
            run.begins()
        if jobs.isEnabledFor(INFO):
            settle.tell_started(run)
        try:
            if job.asked or core.leaving:
                job.asked = True
                raise Stop("cancelled")
            value: Any = job.fn(*job.args, **job.kwargs) if job.kind is THREAD else self._apart(seat, run)
        except BaseException as error:  # noqa: BLE001  # whatever leaves a function is its verdict
            if core.threads is not self:
                end_if_copy(-1, error)
            settle.raised(core, run, error)
            del job, run  # the error's traceback leads here, and they to the error
            return
        if core.threads is not self:  # a process that the function forked came back from it
            end_if_copy(-1)
        if type(value) is CoroutineType:
            settle.never_awaited(core, run, value)
        elif run.only is None:
            settle.returned(core, seat.tally, job, value)
        else:
            settle.returned_in_time(core, seat.tally, run, value)

    def _apart(self, seat: Seat, run: Inside) -> object:
        try:
            caller = self._callers.pop()
        except IndexError:
            from holdfast.worker.processes.caller import Caller  # few pools need a process

            caller = Caller()
        seat.caller = caller
        try:
            return caller.call(run)
        finally:
            seat.caller = None
            if caller.alive:
                self._callers.append(caller)

    def _leave(self, seat: Seat) -> None:
        with suppress(IndexError):
            while True:
                self._callers.pop().close()
        core = self._core
        with core.lock:
            core.tally.add(seat.tally)
            with suppress(ValueError):  # it came after all (see `_sit`)
                self.seats.remove(seat)
            self.left.append(seat.thread)
        core.look()


def _taken_back(seat: Seat) -> bool:
    job, seat.job = seat.job, None
    return job is not None


def _context(job: Work) -> Context:
    context = job.context or copy_context()
    return context if job.plan.retry.max_attempts == 1 else context.copy()  # each attempt begins as the first
