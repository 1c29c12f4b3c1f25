"""Where handlers run: async ones as tasks on the loop, plain ones in a bounded set of threads."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue

from holdfast.context import current
from holdfast.job import Verdict
from holdfast.worker.runner import Run, run_async, run_plain

Ended = Callable[[Run, Verdict | None], None]  # called on the loop, once for each attempt, when its code has ended


class OnLoop:
    """Async handlers: one asyncio task each, so that each has a context of its own and can be cancelled."""

    def __init__(self, ended: Ended) -> None:
        self._ended = ended

    def start(self, run: Run) -> None:
        run.handle = asyncio.get_running_loop().create_task(self._attempt(run))

    async def _attempt(self, run: Run) -> None:
        current.set(run.job)
        self._ended(run, await run_async(run))


class InThreads:
    """Plain handlers: at most `most` daemon threads, made as needed, kept while the worker lives.

    Own threads and not concurrent.futures, because Python waits for those at exit, however stuck they are.
    Ends are collected, so that a burst of them costs the loop one wake-up.
    """

    def __init__(self, ended: Ended, most: int) -> None:
        self._ended = ended
        self._most = most
        self._todo: SimpleQueue[tuple[contextvars.Context, Run] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._busy = 0
        self._done: deque[tuple[Run, Verdict | None]] = deque()
        self._collecting = False
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self, run: Run) -> None:
        """Raises RuntimeError if the system has no thread to give and there is none yet."""
        self._loop = asyncio.get_running_loop()
        if self._busy >= len(self._threads) and len(self._threads) < self._most:
            self._add_thread()
        self._busy += 1
        self._todo.put((contextvars.copy_context(), run))

    def close(self) -> None:
        """Lets idle threads end; a busy one ends after its handler."""
        for _ in self._threads:
            self._todo.put(None)

    @property
    def alive(self) -> bool:
        """Whether a handler still runs."""
        return self._busy > 0

    def _add_thread(self) -> None:
        name = f"holdfast-job-{len(self._threads)}"
        thread = threading.Thread(target=self._serve, name=name, daemon=True)
        try:
            thread.start()
        except RuntimeError:
            if not self._threads:
                raise
        else:
            self._threads.append(thread)

    def _serve(self) -> None:
        while (item := self._todo.get()) is not None:
            context, run = item
            verdict = context.run(run_plain, run)
            self._report(run, verdict)
            del item, context, run, verdict

    def _report(self, run: Run, verdict: Verdict | None) -> None:
        self._done.append((run, verdict))
        if not self._collecting and self._loop is not None:
            self._collecting = True
            try:
                self._loop.call_soon_threadsafe(self._collect)
            except RuntimeError:  # the loop is closed: the worker has left without this job
                self._busy -= 1

    def _collect(self) -> None:
        self._collecting = False  # before the first look: what is reported after it asks for a collection of its own
        while self._done:
            run, verdict = self._done.popleft()
            self._busy -= 1
            self._ended(run, verdict)
