"""The one I/O thread per app and process: sync calls and `a` calls both go through it; it knows forks and exits.

The thread and its loop start with the first call. After a fork the child has no such thread: the bridge forgets
it, unclosed (its objects stay referenced, so that nothing acts on sockets or files that the parent uses), and
starts afresh at the next call. At exit, calls in flight get EXIT_GRACE seconds.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")

EXIT_GRACE = 2.0
_bridges: weakref.WeakSet[Bridge] = weakref.WeakSet()
_left_by_fork: list[object] = []


class Bridge:
    """Runs coroutines on a loop of its own. `forgotten` is called in a forked child, to drop what lived on the loop."""

    def __init__(self, forgotten: Callable[[], object]) -> None:
        self._lock = threading.RLock()  # a signal handler may enqueue in the middle of an enqueue
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._calls: set[asyncio.Task[Any]] = set()  # the loop's own
        self._forgotten = forgotten
        _bridges.add(self)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Runs it there and waits for the result here. KeyboardInterrupt cancels it.

        No lock is held while it waits, nor taken by the answer: a signal handler may enqueue in the middle of this.
        """
        loop = self._running()
        call = self._tracked(coroutine)
        ended: SimpleQueue[asyncio.Task[T]] = SimpleQueue()
        begun: list[asyncio.Task[T]] = []

        def begin() -> None:
            begun.append(loop.create_task(call))
            begun[0].add_done_callback(ended.put)

        try:
            loop.call_soon_threadsafe(begin)
            task = ended.get()
        except BaseException:
            loop.call_soon_threadsafe(lambda: [task.cancel() for task in begun])
            raise
        if task.cancelled():
            raise CancelledError("the app was closed before this call could end")
        return task.result()

    async def arun(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Runs it there and awaits the result on the caller's loop."""
        loop = self._running()
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._tracked(coroutine), loop))

    def close(self, last: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Gives calls in flight EXIT_GRACE seconds, runs `last()` and ends the thread. Without a thread: nothing."""
        with self._lock:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is None or thread is None:
            return
        with suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(self._finish(last), loop).result(2 * EXIT_GRACE)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(EXIT_GRACE)

    async def _finish(self, last: Callable[[], Coroutine[Any, Any, object]]) -> None:
        if self._calls:
            _, late = await asyncio.wait(set(self._calls), timeout=EXIT_GRACE)
            for call in late:
                call.cancel()
        with suppress(Exception):
            await last()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _tracked(self, coroutine: Coroutine[Any, Any, T]) -> T:
        call = asyncio.current_task()
        assert call is not None  # noqa: S101  # a coroutine that runs on a loop is a task's
        self._calls.add(call)
        try:
            return await coroutine
        finally:
            self._calls.discard(call)

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            return self._loop or self._start()

    def _start(self) -> asyncio.AbstractEventLoop:
        loop = self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=_serve, args=(loop,), name="holdfast-io", daemon=True)
        self._thread.start()
        return loop

    def forget(self) -> None:
        """In a forked child: drop everything that lived on the parent's thread, closing nothing."""
        _left_by_fork.append((self._loop, self._thread, self._calls, self._forgotten()))
        self._lock = threading.RLock()
        self._loop = self._thread = None
        self._calls = set()


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.close()


def run_here(coroutine: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine that never suspends to its end, in this thread; TypeError if it does suspend."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    coroutine.close()
    raise TypeError("this connection is asynchronous: use aenqueue() or aenqueue_many()")


def _after_fork() -> None:
    for bridge in list(_bridges):
        bridge.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def at_exit(close: Callable[[], object]) -> None:
    """Registers what an app does when the interpreter ends, without keeping the app alive."""
    method = weakref.WeakMethod(close)

    def call() -> None:
        alive = method()
        if alive is not None:
            alive()

    atexit.register(call)
