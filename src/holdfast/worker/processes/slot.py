"""A slot process from inside: reads claims from the channel, runs them one by one, answers with verdicts.

A handler may do to this process what it likes: close every descriptor, change signal handlers, fork, start threads,
leave by sys.exit(). The attempt still ends with its verdict; what would spoil the next one ends this process.
"""

from __future__ import annotations

import asyncio
import contextvars
import errno
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from queue import SimpleQueue
from types import FrameType
from typing import Any

from holdfast.around import Around
from holdfast.codec import from_json, to_json
from holdfast.context import ask_to_end, current, finished
from holdfast.errors import Stop, StopReason
from holdfast.job import Claim, Failed, Failure, Verdict
from holdfast.policy import failure
from holdfast.resource import Resources
from holdfast.store import Store
from holdfast.task import Task
from holdfast.worker.forked import end_if_copy
from holdfast.worker.processes.board import Board
from holdfast.worker.processes.pad import Pad
from holdfast.worker.processes.words import claim_of, words_of
from holdfast.worker.runner import Run, begun, judged, run_async, run_plain
from holdfast.worker.stacks import write_stacks
from holdfast.worker.vitals import resident
from holdfast.worker.within import Within

Find = Callable[[str, str], Task[..., Any] | None]  # a task by its name and the module that defines it


class Slot:
    """The slot's end of the channel, and the process that it is. `held`: whether its worker's lease is beyond doubt."""

    def __init__(self, end: socket.socket, board: Board, held: Callable[[], bool]) -> None:
        self._end = end
        self._board = board
        self._held = held
        self._sending = threading.Lock()
        self._pad = Pad(self._sent, self._sending)
        self._pid = os.getpid()
        self._end_id, self._board_id = _identity(end.fileno()), _identity(board.descriptor)
        self._todo: SimpleQueue[dict[str, Any] | None] = SimpleQueue()
        self._why: StopReason | None = None  # asked of the attempt under way
        self._ask: Callable[[StopReason], object] | None = None  # how to ask it
        self._run: Run | None = None  # the plain handler under way, while a signal may stop it
        self._last: Run | None = None
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        self._settle_in()
        os.register_at_fork(after_in_child=self._copied)
        threading.Thread(target=self._hear, name="holdfast-slot", daemon=True).start()

    def first(self) -> dict[str, Any]:
        """The first message: what to load."""
        message = self._todo.get()
        if message is None:
            raise SystemExit(0)
        return message

    def failed(self, error: BaseException, app: str) -> None:
        """Says that the app cannot be loaded, and why."""
        why = failure(error)
        text = f"{app} could not be loaded in a process of its own: {why.message}"
        self._say(to_json({"word": "failed", "failure": why._replace(message=text)}))

    def serve(
        self,
        find: Find,
        peak: int,
        resources: Resources,
        around: Around,
        stores: tuple[Callable[[], Store], Callable[[], Awaitable[Store]]],
    ) -> None:
        """Runs attempts until the worker lets it go. `peak`: the memory that it began with, as rusage has it; `stores`
        open the store of its jobs in this process, from a handler's thread and from its loop.
        """
        self._resources, self._around = resources, around
        self._within = Within(*stores, self._finished_within)
        resources.at_first_use = True
        self._say(to_json({"word": "ready", "peak": peak}))
        while (message := self._todo.get()) is not None:
            self._board.begin(message["number"])
            claim = claim_of(message["claim"])
            self._pad.begin(message["number"], claim)
            self._one(claim, message["module"], find, message["ends"])
        resources.close()

    # --- one attempt

    def _one(self, claim: Claim, module: str, find: Find, ends: float | None) -> None:
        before, self._last = set(threading.enumerate()), None
        try:
            verdict = self._attempt(claim, module, find, ends)
        except BaseException as error:  # noqa: BLE001  # a Stop that came when the handler had just ended
            verdict = Failed(failure(error)) if self._last is None else judged(self._last, error)
        end_if_copy(self._pid)  # whatever came back here past the runner, as from a module that forks when imported
        self._run = self._ask = None
        left = any(thread not in before for thread in threading.enumerate()) or _has_children()
        answer = {
            "word": "verdict",
            **words_of(verdict),
            "left": left,
            "finished": self._has_finished(),
            "memory": resident(),
            "note": self._pad.end(),
        }
        self._say(to_json(answer))
        self._settle_in()

    def _attempt(self, claim: Claim, module: str, find: Find, ends: float | None) -> Verdict | None:
        try:
            task = find(claim.task, module)
        except BaseException as error:  # noqa: BLE001  # the task's own module raised
            return Failed(failure(error))
        if task is None:
            where = f"neither in the app nor in {module or 'any module'}"
            text = f"the process made for it does not know the task {claim.task!r}: {where}"
            return Failed(Failure("ConfigError", text, ""))
        around = self._around or None
        within = self._within.of
        now = time.monotonic()
        self._last = run = begun(claim, task, self._held, now, None, self._pad, around, within, ends=ends)
        return contextvars.copy_context().run(self._async if task.is_async else self._plain, run)

    def _has_finished(self) -> bool:
        return self._last is not None and finished(self._last.job)

    def _finished_within(self, claim: Claim) -> None:
        """From now on its handler may commit its success: that is known also of a process that dies of it."""
        if self._last is not None and self._last.key == (claim.id, claim.fence):  # no thread that an attempt has left
            self._board.finish(self._board.last_begun)

    def _plain(self, run: Run) -> Verdict | None:
        self._run = run
        self._listen(lambda why: self._interrupt(run, why))
        try:
            return run_plain(run)
        except BaseException as error:  # noqa: BLE001  # a Stop that came when the handler had just ended
            return judged(run, error)
        finally:
            self._run = None

    def _interrupt(self, run: Run, why: StopReason) -> None:
        """A signal to the very thread: it ends a system call that the handler waits in."""
        if ask_to_end(run.job, why):
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)

    def _async(self, run: Run) -> Verdict | None:
        async def attempt() -> Verdict | None:
            current.set(run.job)
            run.handle = asyncio.current_task()
            loop = asyncio.get_running_loop()
            self._listen(lambda why: loop.call_soon_threadsafe(run.stop, why))
            opening = await self._resources.aopen()
            try:
                return await run_async(run)
            finally:
                run.handle = None  # it has ended: who stops it now must not cut this short
                await opening.aclose()

        try:
            return asyncio.run(attempt())
        except BaseException as error:  # noqa: BLE001  # such as sys.exit() in a task that the handler made
            return judged(run, error)

    def _listen(self, ask: Callable[[StopReason], object]) -> None:
        self._ask = ask
        if self._why is not None:  # asked before there was anything to stop
            ask(self._why)

    def _terminated(self, number: int, frame: FrameType | None) -> None:
        """SIGTERM: stops a plain handler once, if its worker asked for it; who signals all processes does not."""
        del number, frame
        run, self._run = self._run, None
        if run is not None:
            if run.asked is None:
                self._run = run
            else:
                raise Stop(run.asked)

    def _settle_in(self) -> None:
        """Undoes what a handler may have changed that would befall the next one, or end this process."""
        if threading.current_thread() is not threading.main_thread():
            return
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
        signal.signal(signal.SIGTERM, self._terminated)
        signal.signal(signal.SIGINT, _ignored)  # the worker decides; SIG_IGN would pass on to subprocesses
        signal.setitimer(signal.ITIMER_REAL, 0)
        if self._is(self._board.descriptor, self._board_id):
            write_stacks(self._board.descriptor)

    def _copied(self) -> None:
        """In a process that a handler forked: it shall die of signals like any other."""
        if signal.getsignal(signal.SIGTERM) == self._terminated:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if signal.getsignal(signal.SIGINT) is _ignored:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    # --- the channel

    def _say(self, line: bytes) -> None:
        with self._sending:
            if self._sent(line):
                return
        self._board.leave(line)
        with suppress(Exception):
            sys.stdout.flush()
        os._exit(0)

    def _sent(self, line: bytes) -> bool:
        if not self._is(self._end.fileno(), self._end_id):
            return False
        self._end.sendall(line + b"\n")
        return True

    def _hear(self) -> None:
        """In a thread of its own. Without its worker nothing of this process, nor of its group, shall go on."""
        rest = b""
        while True:
            try:
                data = self._end.recv(65536) if self._is(self._end.fileno(), self._end_id) else None
            except OSError as error:
                data = None if error.errno in (errno.EBADF, errno.ENOTSOCK) else b""
            if data is None:  # a handler closed it: the answer will end this process
                return
            if not data:
                end_group(self._pid)
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                self._heard(from_json(line))

    def _heard(self, message: dict[str, Any]) -> None:
        match message["word"]:
            case "stop":
                self._why = message["why"]
                ask = self._ask
                if ask is not None:
                    with suppress(RuntimeError):  # its loop has just ended
                        ask(message["why"])
            case "saved":
                self._pad.answered(message)
            case "leave":
                self._todo.put(None)
            case _:
                self._why = None
                self._todo.put(message)

    def _is(self, descriptor: int, identity: tuple[int, int] | None) -> bool:
        """Whether a descriptor is still what it was: a handler may have closed it, and opened something else there."""
        return identity is not None and _identity(descriptor) == identity


def end_group(pid: int) -> None:
    """Ends this process and all that it started in its group, at once."""
    with suppress(OSError):
        os.killpg(pid, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


def _identity(descriptor: int) -> tuple[int, int] | None:
    try:
        found = os.fstat(descriptor)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _ignored(number: int, frame: FrameType | None) -> None:
    pass


def _has_children() -> bool:
    """Whether any process that a handler started still runs; those that have ended are reaped.

    Hazard: a handler's module that keeps a Popen from one attempt to the next then reads 0 for its exit code. To look
    without reaping would not do: waitid(WNOWAIT) shows the first of the dead and hides who still runs behind it, and
    the orphans, which come to this process, would pile up.
    """
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True
