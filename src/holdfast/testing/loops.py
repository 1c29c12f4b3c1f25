"""Where the async handlers of a sandbox run: on the loop of `async with`, else on one of the sandbox's own."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")
Made = Callable[[], Coroutine[Any, Any, T]]

LOOK_EVERY = 0.05  # seconds


class Loops:
    """`caller`: the loop of `async with`, None under `with`."""

    def __init__(self, caller: asyncio.AbstractEventLoop | None) -> None:
        self.caller = caller
        self._own = asyncio.Runner(loop_factory=asyncio.new_event_loop)  # which it does not make the thread's own
        self._turn = threading.Lock()

    def run(self, made: Made[T]) -> T:
        """Runs it to its end from a thread on which no loop runs."""
        if self.caller is not None:
            return asyncio.run_coroutine_threadsafe(made(), self.caller).result()
        if self._turn.acquire(blocking=False):
            try:
                return self._own.run(made())
            finally:
                self._turn.release()
        return self._beside(made)

    def _beside(self, made: Made[T]) -> T:
        """The loop runs in another thread, in an async handler that perhaps waits for this very thread."""
        running = asyncio.run_coroutine_threadsafe(made(), self._own.get_loop())
        while True:
            try:
                return running.result(LOOK_EVERY)
            except TimeoutError:
                if running.done():
                    raise
            if self._turn.acquire(blocking=False):  # it has stopped meanwhile: go on with it here
                try:
                    return self._own.run(_awaited(running))
                finally:
                    self._turn.release()

    @property
    def at_home(self) -> bool:
        """Whether the loop of the handlers runs in this thread, and not one that the code under test has started."""
        here = loop_here()
        return here is not None and here is (self._own.get_loop() if self.caller is None else self.caller)

    def close(self) -> None:
        """Cancels what is left on the sandbox's own loop, and closes it with its threads."""
        self._own.close()


async def _awaited(running: Future[T]) -> T:
    return await asyncio.wrap_future(running)


def loop_here() -> asyncio.AbstractEventLoop | None:
    """The loop that runs in this thread."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


async def awaitable() -> None:
    """RuntimeError where a blocking call drives this on a running loop, which can run no handler meanwhile."""
    try:
        await asyncio.sleep(0)
    except GeneratorExit:
        raise RuntimeError(
            "inline=True: this enqueue() blocks the event loop that the job needs for its async handler or resources: "
            "use `await ….aenqueue()`"
        ) from None


@contextmanager
def off_loop() -> Generator[None]:
    """Steps off the running loop, so that a plain function finds none, as in a worker's thread."""
    loop = loop_here()
    task = None if loop is None else asyncio.current_task(loop)
    if loop is None or task is None:
        yield
        return
    asyncio.tasks._leave_task(loop, task)  # noqa: SLF001  # documented for extending asyncio
    asyncio._set_running_loop(None)  # noqa: SLF001  # as above
    try:
        yield
    finally:
        asyncio._set_running_loop(loop)  # noqa: SLF001  # as above
        asyncio.tasks._enter_task(loop, task)  # noqa: SLF001  # as above


def fresh() -> contextvars.Context:
    """A context without the test's own variables: a worker has none of them either."""
    return contextvars.Context()
