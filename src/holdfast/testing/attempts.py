"""An attempt in a sandbox: the handler is called right here, in the test's thread or on its loop."""

from __future__ import annotations

import asyncio
import copy
import functools
import threading
import time
from collections.abc import Callable
from typing import Any

from holdfast.context import current
from holdfast.job import Verdict
from holdfast.task import Task
from holdfast.testing.loops import Loops, awaitable, fresh, loop_here, off_loop
from holdfast.testing.openings import Openings, is_the_tests
from holdfast.worker.runner import Run, run_async, run_plain, timed_out


class Attempts:
    """Opens the resources that a handler needs, and runs it to its verdict."""

    def __init__(self, loops: Loops, openings: Openings) -> None:
        self._loops = loops
        self._openings = openings

    async def carried_out(self, run: Run) -> Verdict | None:
        here = loop_here()
        if run.task.is_async:
            return self._loops.run(lambda: self._on_loop(run)) if here is None else await self._on_loop(run)
        if self._loops.at_home:
            await self._openings.aopen()
        with off_loop():
            self._openings.open()
            return _plain(run)

    async def _on_loop(self, run: Run) -> Verdict | None:
        await awaitable()
        if self._loops.at_home:
            await self._openings.aopen()
        loop = asyncio.get_running_loop()
        ended: list[Verdict | None] = []
        run.handle = handle = loop.create_task(_alone(run, ended), context=fresh())
        if run.deadline is not None:
            run.timer = loop.call_later(run.deadline - time.monotonic(), timed_out, run)
        try:
            await asyncio.wait({handle})
        except asyncio.CancelledError:  # the test gives up, or Ctrl-C
            run.stop("shutdown")
            await asyncio.wait({handle})
            raise
        finally:
            run.settled()
        return ended[0]


async def _alone(run: Run, ended: list[Verdict | None]) -> None:
    current.set(run.job)
    ended.append(await run_async(run))


def _plain(run: Run) -> Verdict | None:
    """Runs it in this thread; a timer flags it when its time is over, as a worker does."""
    if run.deadline is None:
        return fresh().run(run_plain, run)
    timer = threading.Timer(max(0.0, run.deadline - time.monotonic()), timed_out, [run])
    timer.daemon = True
    timer.start()
    try:
        return fresh().run(run_plain, run)
    finally:
        timer.cancel()
        timer.join()


def watched(task: Task[..., Any]) -> tuple[Task[..., Any], list[BaseException]]:
    """The task, and what leaves its handler that is the test's and not the job's: Ctrl-C, pytest.fail()."""
    escaped = list[BaseException]()

    def note(error: BaseException) -> None:
        if is_the_tests(error):
            escaped.append(error)

    twin = copy.copy(task)
    twin.fn = _noting_async(task.fn, note) if task.is_async else _noting(task.fn, note)
    return twin, escaped


def _noting(fn: Callable[..., Any], note: Callable[[BaseException], None]) -> Callable[..., Any]:
    @functools.wraps(fn)
    def watched(*args: Any, **kwargs: Any) -> Any:
        try:
            return fn(*args, **kwargs)
        except BaseException as error:
            note(error)
            raise

    return watched


def _noting_async(fn: Callable[..., Any], note: Callable[[BaseException], None]) -> Callable[..., Any]:
    @functools.wraps(fn)
    async def watched(*args: Any, **kwargs: Any) -> Any:
        try:
            return await fn(*args, **kwargs)
        except BaseException as error:
            note(error)
            raise

    return watched
