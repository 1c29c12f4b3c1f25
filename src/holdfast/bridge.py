"""The one I/O thread per app and process: sync calls and `a` calls both go through it; it knows forks and exits.

The thread and its loop start with the first call. After a fork the child has no such thread: the bridge forgets
it, unclosed (its objects stay referenced, so that nothing acts on sockets or files that the parent uses), and
starts afresh at the next call. At exit, and whenever the app is closed, no call is taken in any more and those in
flight get EXIT_GRACE seconds. A later call starts another thread; where the interpreter starts none any more, the
call runs in the caller's own thread, on a store that is opened for it alone.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import weakref
from collections.abc import Callable, Coroutine
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from holdfast.errors import StoreAway

R = TypeVar("R")
T = TypeVar("T")
Last = Callable[[], Coroutine[Any, Any, object]]

EXIT_GRACE = 2.0
_bridges: weakref.WeakSet[Bridge] = weakref.WeakSet()
_left_by_fork: list[object] = []


class Bridge:
    """Runs coroutines on a loop of its own. `last()` is run there when it closes, to close what lived on the loop;
    `forgotten` is called in a forked child, to drop it.
    """

    def __init__(self, forgotten: Callable[[], object], last: Last) -> None:
        self._lock = threading.RLock()  # a signal handler may enqueue in the middle of an enqueue
        self._life: _Life | None = None
        self._forgotten = forgotten
        self._last = last
        _bridges.add(self)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Runs it there and waits for the result here. KeyboardInterrupt cancels it.

        No lock is held while it waits, nor taken by the answer: a signal handler may enqueue in the middle of this.
        Raises StoreAway if the app is closed before the call ends.
        """
        ended: SimpleQueue[asyncio.Task[T]] = SimpleQueue()
        call = _Call(coroutine, ended.put)
        try:
            if not self._taken_in(call):
                return asyncio.run(self._alone(coroutine))
            task = ended.get()
        except BaseException:
            call.leave()
            raise
        if task.cancelled():
            raise _closed()
        return task.result()

    async def arun(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Runs it there and awaits the result on the caller's loop. Raises as `run`."""
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        call = _Call(coroutine, lambda task: _tell(answer, task))
        try:
            if not self._taken_in(call):
                return await self._alone(coroutine)
            return await answer
        except asyncio.CancelledError:
            call.leave()
            raise

    def close(self) -> None:
        """Gives calls in flight EXIT_GRACE seconds, runs `last()` and ends the thread. Without a thread: nothing."""
        with self._lock:
            life, self._life = self._life, None
        if life is not None:
            life.end(self._last)

    def _taken_in(self, call: _Call[T]) -> bool:
        """Under the lock, so that a close comes before it, or ends it too. False: there is no thread any more."""
        with self._lock:
            life = self._life
            if life is None or life.loop.is_closed():
                life = self._life = call.unless_refused(_started)
            if life is not None:
                life.call(call.begin, life)
            return life is not None

    async def _alone(self, coroutine: Coroutine[Any, Any, T]) -> T:
        try:
            return await coroutine
        finally:
            with suppress(Exception):
                await self._last()

    def forget(self) -> None:
        """In a forked child: drop everything that lived on the parent's thread, closing nothing."""
        _left_by_fork.append((self._life, self._forgotten()))
        self._lock = threading.RLock()
        self._life = None


class _Call(Generic[T]):
    """A coroutine on its way to the bridge's loop. `ended` is told there of its task, when that has ended."""

    def __init__(self, coroutine: Coroutine[Any, Any, T], ended: Callable[[asyncio.Task[T]], object]) -> None:
        self._coroutine = coroutine
        self._ended = ended
        self._task: asyncio.Task[T] | None = None
        self._left = False

    def begin(self, life: _Life) -> None:
        """On the loop."""
        self._task = life.loop.create_task(life.tracked(self._coroutine))
        self._task.add_done_callback(self._ended)
        if self._left:  # before it began
            self._task.cancel()
            self._coroutine.close()

    def leave(self) -> None:
        """On any thread, even in the middle of being taken in: nobody waits for it any more."""
        self._left = True
        if self._task is not None:
            with suppress(RuntimeError):  # the loop is closed
                self._task.get_loop().call_soon_threadsafe(self._task.cancel)

    def unless_refused(self, start: Callable[[], R]) -> R:
        try:
            return start()
        except StoreAway:
            self._coroutine.close()
            raise


class _Life:
    """A thread and its loop, from a first call to a close."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.calls: set[asyncio.Task[Any]] = set()
        self.thread = threading.Thread(target=self._serve, name="holdfast-io", daemon=True)

    def call(self, function: Callable[..., object], *args: object) -> None:
        """Has it called there, in turn; nothing, once the loop is closed."""
        with suppress(RuntimeError):
            self.loop.call_soon_threadsafe(function, *args)

    async def tracked(self, coroutine: Coroutine[Any, Any, T]) -> T:
        call = asyncio.current_task()
        assert call is not None  # noqa: S101  # a coroutine that runs on a loop is a task's
        self.calls.add(call)
        try:
            return await coroutine
        finally:
            self.calls.discard(call)

    def end(self, last: Last) -> None:
        with suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(self._finish(last), self.loop).result(3 * EXIT_GRACE)
        self.call(self.loop.stop)
        self.thread.join(EXIT_GRACE)

    async def _finish(self, last: Last) -> None:
        if self.calls:
            _, late = await asyncio.wait(set(self.calls), timeout=EXIT_GRACE)
            for call in late:
                call.cancel()
        with suppress(Exception):
            async with asyncio.timeout(EXIT_GRACE * 3 / 4):  # what then hangs must end before the loop does
                await last()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def _serve(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            self.loop.close()


def _started() -> _Life | None:
    """None where the interpreter is ending and starts no thread any more (Python 3.12). StoreAway where there are
    too many threads.
    """
    life = _Life()
    try:
        life.thread.start()
    except RuntimeError as error:
        life.loop.close()
        if "shutdown" in str(error):
            return None
        raise StoreAway(f"the operating system gives no further thread ({error})") from error
    return life


def _tell(call: asyncio.Future[T], task: asyncio.Task[T]) -> None:
    """Tells the caller on his own loop, if that still runs and he still waits."""
    with suppress(RuntimeError):
        call.get_loop().call_soon_threadsafe(_tell_here, call, task)


def _tell_here(call: asyncio.Future[T], task: asyncio.Task[T]) -> None:
    error = _closed() if task.cancelled() else task.exception()
    if call.done():
        return
    if error is not None:
        call.set_exception(error)
    else:
        call.set_result(task.result())


def _closed() -> StoreAway:
    return StoreAway("the app was closed before this call could end")


def run_here(coroutine: Coroutine[Any, Any, T], twins: str = "aenqueue() or aenqueue_many()") -> T:
    """Runs a coroutine that never suspends to its end, in this thread; TypeError, naming the `twins`, if it does."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    coroutine.close()
    raise TypeError(f"this connection is asynchronous: use {twins}")


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
