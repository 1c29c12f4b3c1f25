"""A pool's process from inside: calls what it is sent, one after the other, and sends back what came of it."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import os
import pickle
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Any

from holdfast.context import CurrentJob, ask_to_end, current
from holdfast.errors import Stop, StopReason
from holdfast.observe.logging import POOL
from holdfast.observe.tracebacks import text_of
from holdfast.worker.forked import end_if_copy
from holdfast.worker.processes.beginning import end_with, load_main
from holdfast.worker.processes.pickles import BEGUN, About, Answer, pickled, receive, send, unpickled


def main(end: int, parent: int) -> int:
    """Serves until its pool lets it go or is gone."""
    end_with(parent)
    os.set_inheritable(end, False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the pool, which decides
    Callee(socket.socket(fileno=end)).serve()
    return 0


class Callee:
    """The process's end of the channel."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._pid = os.getpid()
        self._job: CurrentJob | None = None  # while a call is under way
        signal.signal(signal.SIGTERM, self._terminated)

    def serve(self) -> None:
        """Answers one call after the other."""
        launch = receive(self._end)
        if launch is None:
            return
        main, file, sys.argv[:] = pickle.loads(launch)  # noqa: S301  # from the pool
        while (call := receive(self._end)) is not None:
            send(self._end, self._answer(call, main, file))

    def _answer(self, data: bytes, main: str, file: str) -> bytes:
        about: About
        about, call = pickle.loads(data)  # noqa: S301  # from the pool
        name, id, attempt, runs, seconds = about  # noqa: A001
        try:
            if main:
                load_main(main, file)
            fn, args, kwargs = unpickled(call, main)
            send(self._end, BEGUN)
            deadline = None if seconds is None else time.monotonic() + seconds
            value = self._called(CurrentJob(id, name, POOL, attempt, runs, deadline=deadline), fn, args, kwargs)
            return pickled(f"the result of {name} (a {type(value).__name__})", Answer("value", value))
        except BaseException as error:  # noqa: BLE001  # it belongs to the pool
            end_if_copy(self._pid, error)
            return _failure(error)

    def _called(self, job: CurrentJob, fn: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        return contextvars.copy_context().run(self._call, job, fn, args, kwargs)

    def _call(self, job: CurrentJob, fn: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        current.set(job)
        self._job = job
        try:
            value = fn(*args, **kwargs)
            if inspect.iscoroutine(value):
                value = asyncio.run(value)
        finally:
            self._job = None
        end_if_copy(self._pid)
        return value

    def _terminated(self, number: int, frame: FrameType | None) -> None:
        """The pool asks the call to end, once; soon it ends the process."""
        del number, frame
        job = self._job
        if job is not None:
            why: StopReason = "timeout" if job.time_left == 0 else "cancelled"
            if ask_to_end(job, why):
                raise Stop(why)


def _failure(error: BaseException) -> bytes:
    """The exception, and its traceback as text; of one that cannot be pickled, what it said."""
    text = "".join(traceback.format_exception(error))
    try:
        data = pickled("", Answer("error", error, text))
        pickle.loads(data)  # noqa: S301  # ours; some can be pickled, but not read
    except Exception:  # noqa: BLE001  # whatever a user's own __reduce__ raises
        return pickled("", Answer("said", (type(error).__qualname__, text_of(error)), text))
    return data
