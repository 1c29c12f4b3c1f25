"""A worker in the caller's own process, as users have it: on the caller's loop, or on one of its own in a thread."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Self

from holdfast.bridge import at_exit
from holdfast.clock import SECOND, Duration, span
from holdfast.errors import ConfigError
from holdfast.observe.logging import tell, workers
from holdfast.worker.loop import Signal

if TYPE_CHECKING:
    from holdfast.worker.crew import Crew


class Worker:
    """Claims jobs and runs them: with `async with` on the caller's loop, with `with` and `start` on one of its own."""

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self._thread: threading.Thread | None = None
        self._leave: Callable[[], object] | None = None

    async def __aenter__(self) -> Self:
        await self._crew.astart()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._crew.astop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop(self._crew.deadline)

    def start(self) -> None:
        """Starts the worker in a thread with a loop of its own; returns when it claims. Raises as `async with` does:
        ConfigError, StoreError if the store cannot be used, or ResourceError.
        """
        if self._thread is not None:
            raise ConfigError("this worker runs already")
        ready: Future[None] = Future()
        self._left: Future[bool] = Future()  # True: code of ours still runs in the thread
        self._thread = threading.Thread(target=self._serve, args=(ready,), name="holdfast-worker", daemon=True)
        self._thread.start()
        try:
            ready.result()
        except BaseException:
            if ready.done():
                self._thread.join()
            else:  # Ctrl-C while it starts
                ready.add_done_callback(lambda _: self._leave and self._leave())
            self._thread = None
            raise
        at_exit(self._stop_at_exit)

    def stop(self, deadline: Duration = 10) -> None:
        """Stops the worker that `start` started; running jobs have `deadline` to finish."""
        if self._thread is None or self._leave is None:
            return
        if not self._thread.is_alive() and not self._left.done():  # a forked child has no such thread
            self._thread = None
            return
        self._crew.deadline = span(deadline, "deadline") / SECOND
        self._leave()
        if not self._left.result():
            self._thread.join()
        self._thread = None

    def _stop_at_exit(self) -> None:
        self.stop(self._crew.deadline)

    def _serve(self, ready: Future[None]) -> None:
        try:
            asyncio.run(self._serve_until_stopped(ready))
        finally:
            if ready.done() and not ready.exception() and not self._left.done():  # a handler ended the loop
                worker = self._crew.identity.id
                tell(workers, logging.ERROR, "loop-ended", worker=worker, message="its jobs are given back")
                self._crew.linger()
                self._left.set_result(False)

    async def _serve_until_stopped(self, ready: Future[None]) -> None:
        leaving = Signal()
        loop = asyncio.get_running_loop()
        self._leave = lambda: loop.call_soon_threadsafe(leaving.set)
        try:
            await self._crew.astart()
        except BaseException as error:  # noqa: BLE001  # it belongs to the thread that called start()
            ready.set_exception(error)
            return
        ready.set_result(None)
        await leaving.wait(None)
        handles: list[asyncio.Task[None]] = []
        try:
            departure = await self._crew.astop()
            handles = [run.handle for run in departure.forced if run.handle is not None]
        finally:
            self._left.set_result(bool(handles))
        if handles:  # they run on this loop, and the keeper keeps their jobs until they end
            await asyncio.wait(handles)
