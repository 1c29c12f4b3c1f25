"""A thread that opens and closes plain resources for a loop, one after the other, while the loop goes on."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue

from holdfast.resource.definition import loop_of

Call = Callable[[], None]
Todo = SimpleQueue[tuple[Call, Future[None]] | None]


class Hands:
    """The same thread closes what it has opened, as some libraries want; begun with the first call.

    A call that does not end cannot be ended: it is left behind with its thread, and the next call has another.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._todo: Todo | None = None

    async def do(self, call: Call, undo: Call) -> None:
        """What `call` raises is raised here. If this is cancelled, `undo` follows should `call` yet succeed."""
        done: Future[None] = Future()
        try:
            todo = self._todo = self._todo or self._begun()
        except RuntimeError:  # no more threads just now
            call()
            return
        todo.put((call, done))
        try:
            await asyncio.wrap_future(done)
        except asyncio.CancelledError:
            if not done.cancelled():
                self._todo = None
                done.add_done_callback(lambda done: _late(done, todo, undo))
            raise

    def _begun(self) -> Todo:
        todo: Todo = SimpleQueue()
        context = contextvars.copy_context()
        context.run(loop_of.set, self._loop)
        threading.Thread(target=context.run, args=(_serve, todo), name="holdfast-resources", daemon=True).start()
        return todo

    def let_go(self) -> None:
        """Its thread ends when it has nothing left to do."""
        todo, self._todo = self._todo, None
        if todo is not None:
            todo.put(None)


def _late(done: Future[None], todo: Todo, undo: Call) -> None:
    if done.exception() is None:
        todo.put((undo, Future()))
    todo.put(None)


def _serve(todo: Todo) -> None:
    while (item := todo.get()) is not None:
        call, done = item
        if not done.set_running_or_notify_cancel():
            continue
        try:
            call()
        except BaseException as error:  # noqa: BLE001  # it belongs to whoever waits
            done.set_exception(error)
        else:
            done.set_result(None)
