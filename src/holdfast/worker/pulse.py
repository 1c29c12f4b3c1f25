"""The pulse: a thread of the worker's own that proves that loop and threads go on, and names what blocks them.

1. twice a second it marks in the black box that threads go on, and asks the loop to mark that it does, too;
2. if the loop does not answer, it says which handler blocks it, where, and for how long;
3. it has the worker mind its lease, in case the supervisor's beats stay away.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from holdfast.context import current
from holdfast.observe.logging import flush, jobs, tell, workers
from holdfast.observe.places import place
from holdfast.worker.blackbox import BlackBox
from holdfast.worker.runner import Run

EVERY = 0.5  # seconds
BLOCKED = 1.0  # seconds without an answer from the loop before that is told; then at each doubling
STACK_MOST = 20  # calls


class Pulse:
    """Of one worker. `start` is called on its loop, `stop` from any thread."""

    def __init__(
        self,
        box: BlackBox,
        runs: Callable[[], Iterable[Run]],
        unsent: Callable[[], float],
        each: Callable[[], object],
        look: Callable[[], object],
    ) -> None:
        self._box = box
        self._runs = runs
        self._unsent = unsent
        self._each = each  # called in the pulse's thread
        self._look = look  # called on the loop
        self._over = threading.Event()
        self._asked = 0.0  # when the loop was asked and has not answered yet
        self._tell_at = 0.0
        self._failed = False
        self._thread = threading.Thread(target=self._serve, name="holdfast-pulse", daemon=True)

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._box.on_loop()
        self._box.thread_pulse(time.monotonic())
        self._answer()
        self._thread.start()

    def stop(self) -> None:
        self._over.set()

    def _serve(self) -> None:
        while not self._over.wait(EVERY):
            self._box.thread_pulse(time.monotonic())
            for step in (self._see_to_the_loop, self._each, flush):
                try:
                    step()
                except Exception as error:  # noqa: BLE001  # a pulse that stops would have a healthy process ended
                    if not self._failed:
                        workers.error("a bug in the pulse; it goes on, please report it", exc_info=error)
                    self._failed = True

    def _see_to_the_loop(self) -> None:
        now = time.monotonic()
        if not self._asked:
            self._ask(now)
        elif now - self._asked > BLOCKED:
            self._blocked(now - self._asked)

    def _ask(self, now: float) -> None:
        self._asked, self._tell_at = now, BLOCKED
        with suppress(RuntimeError):  # the loop is closed: the worker has left
            self._loop.call_soon_threadsafe(self._answer)

    def _answer(self) -> None:
        """On the loop."""
        now = time.monotonic()
        if self._asked and now - self._asked > BLOCKED:
            self._box.blocked_by(None)
            tell(workers, logging.WARNING, "loop-goes-on", blocked=now - self._asked)
        self._box.lags(now - self._asked if self._asked else 0.0)
        self._asked = 0.0
        self._box.pulse(now, self._unsent())
        self._look()

    def _blocked(self, seconds: float) -> None:
        """Names who keeps the loop from going on, as well as another thread can see it."""
        run = self._run_of(asyncio.current_task(self._loop))
        self._box.blocked_by(None if run is None else run.key)
        if not self._asked:  # it has just gone on
            self._box.blocked_by(None)
        elif seconds > self._tell_at:
            self._tell_at *= 2
            self._tell_blocked(seconds, run)

    def _tell_blocked(self, seconds: float, run: Run | None) -> None:
        tell(
            jobs,
            logging.WARNING,
            "loop-blocked",
            task=run.claim.task if run else None,
            job=run.claim.id if run else None,
            fence=run.claim.fence if run else None,
            blocked=seconds,
            at=place(stack_of_thread(self._loop_thread)),
            message="nothing else on this loop goes on: put blocking code in a plain function or asyncio.to_thread()",
        )

    def _run_of(self, task: asyncio.Task[Any] | None) -> Run | None:
        """The run that a task of the loop belongs to, be it one that the handler itself made."""
        if task is None:
            return None
        runs = list(self._runs())
        context = getattr(task, "get_context", None)  # from Python 3.12 on
        job = context().get(current) if context is not None else None
        return next((run for run in runs if run.handle is task or (job is not None and run.job is job)), None)


def stack_of_thread(ident: int) -> str:
    """Where another thread of this process is now, as a traceback shows it; empty if it has ended."""
    frame = sys._current_frames().get(ident)  # noqa: SLF001  # CPython's only way to another thread's stack
    if frame is None:
        return ""
    return "Stack (most recent call last):\n" + "".join(traceback.format_stack(frame, STACK_MOST))
