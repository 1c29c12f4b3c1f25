"""The demo's processes: started with their sockets, watched, and always ended together."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

ROOT = Path(__file__).parents[2]
PATIENCE = 15  # seconds that a process has to end after SIGTERM; a draining worker takes up to 10


class Crew:
    """Processes by name, their output in `<name>.log`. Leaving the `with` block ends them all."""

    def __init__(self, logs: Path, environment: Mapping[str, str]) -> None:
        self._logs = logs
        self._environment = os.environ | dict(environment)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        try:
            for process in self._processes.values():
                process.terminate()
            for process in self._processes.values():
                process.wait(PATIENCE)
        finally:
            for process in self._processes.values():
                _kill_tree(process)

    def start(self, name: str, *command: str, sockets: Sequence[socket.socket] = ()) -> int:
        """Start a command of this Python's environment; returns its process id.

        The sockets are handed over, to be found under the same file descriptors.
        """
        with (self._logs / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [Path(sys.executable).with_name(command[0]), *command[1:]],
                cwd=ROOT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=[each.fileno() for each in sockets],
                start_new_session=True,  # Ctrl-C reaches the demo alone, which then ends them in order
            )
        for each in sockets:
            each.close()
        return self._processes[name].pid

    def stop(self, name: str, meanwhile: Callable[[], object]) -> int:
        """SIGTERM, and the exit code; until then calls `meanwhile`. Raises TimeoutExpired if that takes too long."""
        process = self._processes[name]
        process.terminate()
        end = time.monotonic() + PATIENCE
        while process.poll() is None and time.monotonic() < end:
            meanwhile()
            time.sleep(0.01)
        code = process.wait(0)
        del self._processes[name]
        return code

    def check(self) -> None:
        """Raise RuntimeError, with the end of its log, if a process has ended by itself."""
        for name, process in self._processes.items():
            if process.poll() is not None:
                raise RuntimeError(f"{name} ended with exit code {process.returncode}:\n{self._tail(name)}")

    def _tail(self, name: str) -> str:
        lines = (self._logs / f"{name}.log").read_text(errors="replace").splitlines()
        return "\n".join(f"  {line}" for line in lines[-20:])


def listening() -> socket.socket:
    """A socket that listens on a free port of loopback: nobody can take the port before its server starts."""
    return socket.create_server(("127.0.0.1", 0))


def address(bound: socket.socket) -> str:
    """'127.0.0.1:40213'"""
    host, port = bound.getsockname()
    return f"{host}:{port}"


def children(parent: int) -> list[int]:
    """The process ids of a process's children."""
    return [pid for pid, its_parent in _parents() if its_parent == parent]


def _parents() -> Iterator[tuple[int, int]]:
    if not Path("/proc/self/stat").exists():
        for line in subprocess.check_output(["/bin/ps", "-A", "-o", "pid=,ppid="]).splitlines():
            pid, parent = line.split()
            yield int(pid), int(parent)
        return
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # ended meanwhile
            after_name = stat.read_text().rpartition(")")[2].split()
            yield int(stat.parent.name), int(after_name[1])


def _kill_tree(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    # Each worker process leads a group of its own, so that killing the supervisor alone would leave them.
    for child in children(process.pid):
        os.kill(child, signal.SIGKILL)
    process.kill()
    process.wait()
