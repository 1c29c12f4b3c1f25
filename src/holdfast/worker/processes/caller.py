"""A pool's process as the pool's thread sees it: spawned by exec, called, asked to end, killed with all it started."""

from __future__ import annotations

import json
import math
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from holdfast.clock import SECOND
from holdfast.errors import ConfigError, JobFailed, Stop
from holdfast.job import JobError
from holdfast.worker.deaths import await_group, end_family, ending, kill_group, reaped
from holdfast.worker.processes.beginning import loading
from holdfast.worker.processes.launch import interpreter, main_module
from holdfast.worker.processes.pickles import BEGUN, About, Answer, pickled_call, receive, send, unpickled
from holdfast.worker.runner import GRACE

if TYPE_CHECKING:
    from holdfast.worker.pooled.inside import Inside

LOOK = 0.5  # seconds between two looks at whether a process that says nothing is alive
START = 60.0  # seconds that a process has to start and to read a call with a timeout, beside that
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from holdfast.worker.processes.callee import main; sys.exit(main(*map(int, sys.argv[2:])))"
)


class TracebackThere(Exception):  # it is no error, but shown as the cause of one
    """The traceback of an exception in the process that raised it, as text."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._text = text

    def __str__(self) -> str:
        return f'\n"""\n{self._text}"""'


class Caller:
    """One process; it serves one call at a time, from the thread that calls. `stop` is for all other threads."""

    def __init__(self) -> None:
        self._main, self._file = main_module()
        self._lock = threading.RLock()
        self._process: subprocess.Popen[bytes] | None = None
        self._end: socket.socket | None = None
        self._run: Inside | None = None
        self._latest = math.inf  # monotonic; when a call must have begun
        self._killing: Callable[[], None] | None = None  # what will end the call's process by force

    @property
    def alive(self) -> bool:
        """Whether it may be called once more."""
        return self._process is not None

    def call(self, run: Inside) -> object:
        """What the function returned there; raises what it raised. JobFailed if the process died of it."""
        job = run.job
        about = About(job.task, job.id, job.attempt, job.runs, (job.plan.timeout or 0) / SECOND or None)
        call = pickled_call(job.task, job.fn, job.args, job.kwargs)
        with self._lock:
            self._run = run
        try:
            answer = self._answer(run, pickle.dumps((about, call)))
            if run.why is not None:
                raise Stop(run.why)
            return self._unpacked(run, answer)
        finally:
            with self._lock:
                self._run, killing, self._killing = None, self._killing, None
            if killing is not None:
                job.core.timer.take_out(killing)
            if run.why is not None:  # what it was doing may go on in it
                self.close()

    def stop(self, run: Inside) -> None:
        """Asks the call to end, and ends the process soon, whatever it does."""
        with self._lock:
            if self._run is not run or self._process is None:
                return
            with suppress(OSError):
                self._process.send_signal(signal.SIGTERM)
            self._killing = partial(self._kill, run)
            try:
                run.job.core.timer.later(GRACE, self._killing)
            except RuntimeError:  # the interpreter is ending, and starts no thread any more
                end_family(self._process.pid)

    def close(self) -> None:
        """Ends the process, and all that it started."""
        with self._lock:
            process, self._process = self._process, None
            end, self._end = self._end, None
        if end is not None:
            end.close()
        if process is not None:
            end_family(process.pid)
            reaped(process)
            await_group(process.pid)

    def _kill(self, run: Inside) -> None:
        with self._lock:
            if self._run is run and self._process is not None:
                end_family(self._process.pid)

    def _answer(self, run: Inside, call: bytes) -> Answer:
        if self._process is not None and _is_dead(self._process):  # of nothing that this call did
            self.close()
        if self._process is None:
            self._spawn()
        assert self._end is not None  # noqa: S101  # as it has a process
        if run.why is not None:  # asked to end while there was nothing that a signal could reach
            raise Stop(run.why)
        self._latest = self._patience(run)
        self._end.settimeout(None if self._latest == math.inf else self._latest - time.monotonic())
        with suppress(OSError):  # it is dead, or does not read: that shows below
            send(self._end, call)
        self._end.settimeout(LOOK)
        data = receive(self._end, self._goes_on)
        if data == BEGUN:
            self._latest = math.inf
            run.begins()
            data = receive(self._end, self._goes_on)
        elif data is None and time.monotonic() >= self._latest:
            self.close()
            raise TimeoutError(
                f"{run.job.task} has not begun within {START:g} s and its timeout: reading its call hung"
            )
        self._end.settimeout(None)
        if data is None:
            raise self._died(run)
        answer: Answer = unpickled(data, self._main)
        return answer

    def _patience(self, run: Inside) -> float:
        timeout = run.job.plan.timeout
        return math.inf if timeout is None else time.monotonic() + START + timeout / SECOND

    def _goes_on(self) -> bool:
        """Its end of the channel may stay open when it is dead: in a process that it has forked."""
        process = self._process
        return process is not None and not _is_dead(process) and time.monotonic() < self._latest

    def _unpacked(self, run: Inside, answer: Answer) -> object:
        match answer.kind:
            case "value":
                return answer.what
            case "error":
                error: BaseException = answer.what
                error.__cause__ = TracebackThere(answer.traceback)
                raise error
            case "said":
                type_, message = answer.what
                text = f"{type_}: {message}"
                raise JobFailed(text, _error(run, type_, message, answer.traceback))

    def _died(self, run: Inside) -> BaseException:
        """It is gone, with the call in it."""
        with self._lock:
            process, self._process = self._process, None
        if self._end is not None:
            self._end.close()
            self._end = None
        if process is None:
            return Stop(run.why or "shutdown")
        with suppress(subprocess.TimeoutExpired):  # it has closed its channel, but goes on
            process.wait(GRACE)
        kill_group(process.pid)
        code = process.wait()
        await_group(process.pid)
        if run.why is not None:
            return Stop(run.why)
        text = f"its process (pid {process.pid}) ended: {ending(code)}"
        return JobFailed(f"{run.job.task}: {text}", _error(run, "Lost", text, ""))

    def _spawn(self) -> None:
        if script := loading():
            raise ConfigError(
                f"{script} submits a job with run_in='process' while it is imported, here by such a process; put what "
                "starts the program under `if __name__ == '__main__':`"
            )
        ours, theirs = socket.socketpair()
        path = json.dumps([part or os.getcwd() for part in sys.path])  # noqa: PTH109  # a text for another process
        command = [*interpreter(), "-P", "-c", _START, path, str(theirs.fileno()), str(os.getpid())]
        with theirs:
            try:
                process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, pass_fds=(theirs.fileno(),), process_group=0
                )
            except BaseException:
                ours.close()
                raise
        with self._lock:
            self._process, self._end = process, ours
        send(ours, pickle.dumps((self._main, self._file, list(sys.argv))))


def _is_dead(process: subprocess.Popen[bytes]) -> bool:
    """Looks without reaping: until that is done, neither its pid nor its group can be another's."""
    if process.returncode is not None or not hasattr(os, "waitid"):  # macOS before Python 3.13
        return process.poll() is not None
    try:
        return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None
    except ChildProcessError:  # the program has the system reap its children
        return True


def _error(run: Inside, type_: str, message: str, traceback: str) -> JobError:
    return JobError(run.job.attempt, datetime.now(UTC), type_, message, traceback)
