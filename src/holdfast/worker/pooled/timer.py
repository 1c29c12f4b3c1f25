"""A pool's timer: one thread, once needed. Jobs wait in it for their next attempt; it looks at runs with a timeout."""

from __future__ import annotations

import heapq
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING

from holdfast.job import State
from holdfast.observe.logging import workers
from holdfast.worker.pooled import settle
from holdfast.worker.pooled.inside import Inside
from holdfast.worker.pooled.kinds import PROCESS
from holdfast.worker.runner import GRACE

if TYPE_CHECKING:
    from holdfast.worker.pooled.core import Core
    from holdfast.worker.pooled.work import Work

LAST = 4  # times the grace: so long may the end of a process take

Entry = tuple[float, int, "Work | Callable[[], object]"]


class Timer:
    """`look_at` costs a comparison for all runs but those whose time is over before all others'."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._changed = threading.Condition(threading.RLock())
        self._heap: list[Entry] = []
        self._order = count()
        self._look_at = math.inf
        self._thread: threading.Thread | None = None
        self._ended = False
        self.left: deque[threading.Thread] = deque(maxlen=1)

    def later(self, seconds: float, what: Work | Callable[[], object]) -> None:
        """Has a job tried again, or something called, after so long. RuntimeError if there is no thread for that."""
        entry = (time.monotonic() + seconds, next(self._order), what)
        with self._changed:
            self._start()
            heapq.heappush(self._heap, entry)
            if not callable(what):
                what.state = State.SCHEDULED  # seen only once it is here
            if self._heap[0] is entry:
                self._changed.notify()

    def look_at(self, moment: float) -> None:
        """A run's time is over then."""
        if moment < self._look_at:
            with self._changed:
                if moment < self._look_at:
                    self._start()
                    self._look_at = moment
                    self._changed.notify()

    def take_out(self, what: Work | Callable[[], object]) -> bool:
        """Whether the job waited here; it does no more."""
        with self._changed:
            for place, entry in enumerate(self._heap):
                if entry[2] is what:
                    del self._heap[place]
                    heapq.heapify(self._heap)
                    self._changed.notify()
                    return True
        return False

    def take_all(self) -> list[Work]:
        """Takes out all jobs."""
        with self._changed:
            entries, self._heap = self._heap, [entry for entry in self._heap if callable(entry[2])]
            heapq.heapify(self._heap)
        return [entry[2] for entry in entries if not callable(entry[2])]

    def all(self) -> list[Work]:
        """The jobs that wait, in a process that has no other thread."""
        return [entry[2] for entry in self._heap if not callable(entry[2])]

    def end(self) -> None:
        """Its thread ends when nothing waits here any more; only ends of processes still may."""
        with self._changed:
            self._ended = True
            self._changed.notify()

    @property
    def gone(self) -> bool:
        return self._thread is None

    def _start(self) -> None:
        if self._thread is None:
            thread = threading.Thread(target=self._serve, name="holdfast-pool-timer", daemon=True)
            thread.start()
            self._thread = thread

    # --- in its thread

    def _serve(self) -> None:
        while not self._done():
            due, look = self._next()
            try:
                while due:
                    self._do(due.pop(0))
                if look:
                    self._look(time.monotonic())
            except Exception as error:  # noqa: BLE001  # a bug must not stop all timers
                workers.error("a bug in the pool's timer; please report it", exc_info=error)
        self._core.look()

    def _do(self, what: Work | Callable[[], object]) -> None:
        """In a frame of its own, which keeps nothing while the thread waits."""
        if callable(what):
            what()
        else:
            self._core.again(what)

    def _done(self) -> bool:
        with self._changed:
            if self._heap or not self._ended:
                return False
            self.left.append(threading.current_thread())
            self._thread = None
            return True

    def _next(self) -> tuple[list[Work | Callable[[], object]], bool]:
        with self._changed:
            moment = min(self._look_at, self._heap[0][0] if self._heap else math.inf)
            wait = moment - time.monotonic()
            if wait > 0 and (self._heap or not self._ended):
                self._changed.wait(None if moment == math.inf else min(wait, threading.TIMEOUT_MAX))
            now = time.monotonic()
            due: list[Work | Callable[[], object]] = []
            while self._heap and self._heap[0][0] <= now:
                due.append(heapq.heappop(self._heap)[2])
            look = self._look_at <= now
            if look:
                self._look_at = math.inf  # before the look: who begins during it, comes to the lock
            return due, look

    def _look(self, now: float) -> None:
        for run in self._core.threads.runs():
            if run.only is not None and run.look_at <= now:
                self._time_is_over(run)
            if run.only is not None:
                self.look_at(run.look_at)

    def _time_is_over(self, run: Inside) -> None:
        if run.why == "timeout":
            run.look_at = math.inf
            settle.overdue(self._core, run)
            return
        run.look_at += GRACE
        if not run.stop("timeout"):
            return
        if run.job.kind is PROCESS:
            run.look_at += LAST * GRACE  # its process is ended, and then its thread knows
            self._core.threads.interrupt(run)
        else:
            settle.tell_flagged(run)
