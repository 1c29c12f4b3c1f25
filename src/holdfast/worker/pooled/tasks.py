"""A pool's async functions: one asyncio task each, on the caller's loop, or on one of the pool's own in a thread."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from contextvars import Context
from logging import INFO
from typing import TYPE_CHECKING

from holdfast.clock import SECOND
from holdfast.context import current
from holdfast.errors import ConfigError, Stop
from holdfast.job import State
from holdfast.observe.logging import jobs
from holdfast.worker.pooled import settle
from holdfast.worker.pooled.inside import Inside
from holdfast.worker.pooled.kinds import LOOP
from holdfast.worker.pooled.tallies import Tally
from holdfast.worker.runner import GRACE

if TYPE_CHECKING:
    from holdfast.worker.pooled.core import Core
    from holdfast.worker.pooled.work import Work

STANDS = "the pool's event loop does not run"
CLOSED = f"{STANDS}: it was closed; a pool is left (`async with`) before its loop ends"
_running = State.RUNNING


class Tasks:
    """Jobs come in by `start`, from any thread; a burst of them costs the loop one wake-up."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._inbox: deque[Work] = deque()
        self._woken = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread_id = 0  # of the thread that the loop runs in
        self._thread: threading.Thread | None = None  # with a loop of our own
        self._running: set[Inside] = set()
        self._fresh: list[Inside] = []  # whose tasks have perhaps not had their first step
        self._graces: dict[Inside, asyncio.TimerHandle] = {}  # of those whose time is over
        self._nowhere = Context()  # for timers: a job's own would keep the job
        self._ended = self._tidying = self._looking = False
        self.left: deque[threading.Thread] = deque(maxlen=1)
        self.tally = Tally()

    def adopt(self, loop: asyncio.AbstractEventLoop) -> None:
        """Has async functions run on the caller's loop. ConfigError if they run elsewhere already."""
        with self._core.lock:
            if self._loop is not None:
                raise ConfigError("this pool has a loop already: enter it by `async with` before its first async job")
            self._loop, self._thread_id = loop, threading.get_ident()

    def start(self, job: Work) -> None:
        self._inbox.append(job)
        if not self._woken:
            self._woken = True
            self._wake()
        elif self._is_closed():  # and will never collect it
            self.fail_stranded()

    def take_waiting(self) -> Iterator[Work]:
        """Takes out what has not begun; each comes with its slot."""
        while self._inbox:
            with suppress(IndexError):  # another thread was faster
                yield self._inbox.popleft()

    def fail_stranded(self) -> None:
        """If the caller's loop was closed, fails what was on it, and what is to come to it."""
        if self._is_closed():
            self._woken = True
            self._fail(CLOSED)

    def _is_closed(self) -> bool:
        return self._loop is not None and self._loop.is_closed()

    def _wake(self) -> None:
        try:
            loop = self._loop or self._own()
            if self._thread_id == threading.get_ident():
                loop.call_soon(self._collect)
            else:
                loop.call_soon_threadsafe(self._collect)
        except (RuntimeError, OSError) as error:  # no thread or no file for a loop, or it was closed
            self._fail(CLOSED if self._is_closed() else f"{STANDS}: {error}")
        except BaseException:  # Ctrl-C: the loop knows of them, or not
            self._woken = False
            for job in self.take_waiting():
                self._core.put_back(job)
            raise

    def _own(self) -> asyncio.AbstractEventLoop:
        with self._core.lock:
            if self._loop is None:
                loop = asyncio.new_event_loop()
                thread = threading.Thread(target=self._serve, args=(loop,), name="holdfast-pool-loop", daemon=True)
                try:
                    thread.start()
                except BaseException:  # Ctrl-C, too: the thread, if it comes, goes
                    loop.close()
                    raise
                self._loop, self._thread = loop, thread
            return self._loop

    def _fail(self, why: str) -> None:
        """There is no loop. `_woken` holds meanwhile, so that what the free slots begin next, comes to the inbox."""
        while True:
            for run in self._stranded():
                settle.raised(self._core, run, RuntimeError(why))
                self._core.home()
            self._woken = False  # before the last look: what comes after it, wakes for itself
            if not self._inbox:
                break
            self._woken = True
        if self._ended:
            self._core.look()

    def _stranded(self) -> Iterator[Inside]:
        for job in self.take_waiting():
            yield Inside(job, time.monotonic())
        while self._running and self._is_closed():
            with suppress(KeyError):  # another thread was faster
                run = self._running.pop()
                run.handle = run.task_ = None
                yield run

    def runs(self) -> Iterable[Inside]:
        """The attempts under way."""
        return list(self._running)

    def runs_here(self) -> bool:
        """Whether the caller is on the loop itself."""
        loop = self._loop
        return self._thread_id == threading.get_ident() and not self._ended and loop is not None and loop.is_running()

    def interrupt(self, run: Inside) -> None:
        """Cancels an attempt; from any thread."""
        if self._loop is not None:
            try:
                self._loop.call_soon_threadsafe(self._cancel, run)
            except RuntimeError:  # closed
                self.fail_stranded()

    def end(self) -> None:
        """A loop of our own ends when nothing runs on it any more; for the caller's, nothing is to be done."""
        self._ended = True
        if self._loop is not None and self._thread is not None:
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._end_if_idle)

    @property
    def idle(self) -> bool:
        """Whether nothing runs, or is about to."""
        return not self._running and not self._inbox

    @property
    def gone(self) -> bool:
        return self._thread is None and self.idle

    # --- on the loop

    def _collect(self) -> None:
        self._woken = False  # before the first look: what comes after it asks for a collection of its own
        for job in self.take_waiting():
            self._begin(job)

    def _begin(self, job: Work) -> None:
        run = job.run = Inside(job, time.monotonic())
        context = job.context
        if context is not None and job.plan.retry.max_attempts > 1:
            context = context.copy()
        self._running.add(run)
        assert self._loop is not None  # noqa: S101  # it runs this very function
        # Not create_task(): a task that begins at once, as a loop's task factory may have it, would begin the next one
        # from within this one, and so on.
        run.task_ = asyncio.Task(self._attempt(run), loop=self._loop, context=context)
        self._fresh.append(run)
        if not self._looking:
            self._looking = True
            self._loop.call_soon(self._look_after)

    def _look_after(self) -> None:
        """Ends what was cancelled before its first step, by somebody who cancels all tasks of the loop."""
        fresh, self._fresh = self._fresh, []
        for run in fresh:
            if run.handle is None and run.task_ is not None:
                if run.task_.done():
                    self._left(run, None)
                    settle.raised(self._core, run, asyncio.CancelledError())
                    self._next()
                else:
                    self._fresh.append(run)
        self._looking = bool(self._fresh)
        if self._looking and self._loop is not None:
            self._loop.call_soon(self._look_after)

    async def _attempt(self, run: Inside) -> None:
        core, job = self._core, run.job
        current.set(run)
        job.state = _running
        run.handle = run.task_
        timer = self._timed(run, job.plan.timeout) if job.plan.timeout is not None else None
        if jobs.isEnabledFor(INFO):
            settle.tell_started(run)
        try:
            if job.asked or core.leaving:
                job.asked = True
                raise Stop("cancelled")
            value = await job.fn(*job.args, **job.kwargs)
        except BaseException as error:  # noqa: BLE001  # whatever leaves a function is its verdict
            if run not in self._running:  # it failed already, with its loop
                return
            self._left(run, timer)
            settle.raised(core, run, error)
            del job, run, timer  # the error's traceback leads here, and they to the error
        else:
            self._left(run, timer)
            if run.only is None:
                settle.returned(core, self.tally, job, value)
            else:
                settle.returned_in_time(core, self.tally, run, value)
        self._next()

    def _timed(self, run: Inside, timeout: int) -> asyncio.TimerHandle:
        run.timed(timeout / SECOND)
        return asyncio.get_running_loop().call_later(timeout / SECOND, self._time_is_over, run, context=self._nowhere)

    def _time_is_over(self, run: Inside) -> None:
        if run.stop("timeout"):
            self._cancel(run)
            loop = asyncio.get_running_loop()
            self._graces[run] = loop.call_later(GRACE, self._is_overdue, run, context=self._nowhere)

    def _is_overdue(self, run: Inside) -> None:
        if run.handle is not None:
            settle.overdue(self._core, run)

    def _cancel(self, run: Inside) -> None:
        if run.handle is not None:
            run.handle.cancel()

    def _left(self, run: Inside, timer: asyncio.TimerHandle | None) -> None:
        """The code has ended: nobody shall cancel its task any more."""
        run.handle = run.task_ = None
        self._running.remove(run)
        if timer is not None:
            timer.cancel()
            grace = self._graces.pop(run, None)
            if grace is not None:
                grace.cancel()

    def _next(self) -> None:
        core = self._core
        if core.surplus and core.give_up():
            job = None
        else:
            job = core.take()
            if job is None:
                core.home()
            elif job.kind is LOOP:
                self._begin(job)
            else:
                core.start(job)
                if core.slots:  # there was no thread for it
                    core.fill()
        if self._ended:
            self._end_if_idle()

    def _end_if_idle(self) -> None:
        if self._running or self._inbox or self._tidying:
            return
        if self._thread is not None and self._loop is not None:
            self._loop.stop()
        else:
            self._core.look()

    # --- in a thread of our own

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._core.lock:
            if self._loop is not loop:
                return
        self._thread_id = threading.get_ident()
        asyncio.set_event_loop(loop)
        try:
            while not self._ended or self._running or self._inbox:  # a function may stop the loop that it runs on
                with suppress(KeyboardInterrupt, SystemExit):  # of a task that a function started; it has it, too
                    loop.run_forever()
            self._tidying = True
            tidying = loop.create_task(_tidy())
            while not tidying.done():
                with suppress(Exception, KeyboardInterrupt, SystemExit):
                    loop.run_until_complete(tidying)
        finally:
            with suppress(Exception):
                loop.close()
            self.fail_stranded()
            self.left.append(threading.current_thread())
            self._thread, self._thread_id = None, 0
            self._core.look()


async def _tidy() -> None:
    """Ends the tasks that functions left behind."""
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    if rest:
        await asyncio.wait(rest, timeout=GRACE)
    await asyncio.get_running_loop().shutdown_asyncgens()
