"""A server's process: it runs as somebody who is not root, and dies with its parent."""

from __future__ import annotations

import ctypes
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

PATIENCE = 60.0  # seconds for a server to start
LEAVE = 20.0  # seconds for it to stop
PORTS_TRIED = 5
_libc = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


def free_port() -> int:
    """A port of the loopback that nobody listens at now."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


class Room:
    """A temporary folder, and the user who works in it: never root, whom database servers refuse."""

    def __init__(self, name: str) -> None:
        self.path = Path(tempfile.mkdtemp(prefix=f"holdfast-{name}-"))
        self.options: dict[str, Any] = {"cwd": self.path}  # of every process started here
        if os.geteuid() == 0:
            user = _somebody()
            os.chown(self.path, user.pw_uid, user.pw_gid)
            self.options |= {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}

    def run(self, command: Sequence[object], environment: dict[str, str]) -> None:
        """Runs a command to its end; RuntimeError with what it said if it fails."""
        done = subprocess.run(
            [str(word) for word in command], env=environment, capture_output=True, check=False, **self.options
        )
        if done.returncode != 0:
            raise RuntimeError(f"{command[0]} failed: {(done.stdout + done.stderr).decode(errors='replace')[-2000:]}")

    def start(
        self, command: Sequence[object], environment: dict[str, str], log: Path, farewell: signal.Signals
    ) -> subprocess.Popen[bytes]:
        """A process that gets `farewell` when this process is gone, however it went."""
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("start servers from the main thread: they die with the thread that started them")
        with log.open("ab") as stream:
            return subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                env=environment,
                start_new_session=True,  # Ctrl-C is for whoever started it, who then stops it in order
                preexec_fn=_die_with_parent(farewell),  # noqa: PLW1509  # one call of libc, which is loaded already
                **self.options,
            )

    def usable(self, folder: Path, program: str) -> Path:
        """The folder of binaries, or a copy of the installation around it where this room's user may not go."""
        look = ["/usr/bin/env", "test", "-x", str(folder / program)]
        allowed = subprocess.run(look, check=False, **self.options).returncode == 0
        return folder if allowed else self._copied(folder)

    def _copied(self, folder: Path) -> Path:
        root = folder.parent
        copy = self.path / "installation"
        shutil.copytree(root, copy / "package" / root.name, symlinks=True)
        libraries = root.parent.parent / f"{root.parent.name}.libs"  # wheels keep them beside the package
        if libraries.is_dir():
            shutil.copytree(libraries, copy / libraries.name)
        return copy / "package" / root.name / folder.name

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


def _somebody() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise LookupError("a database server does not run as root, and there is neither a user postgres nor nobody")


def _die_with_parent(farewell: signal.Signals) -> Callable[[], None] | None:
    if sys.platform != "linux":
        return None
    return lambda: _libc.prctl(_PR_SET_PDEATHSIG, farewell)  # runs after the change of user, so it stays


def wait_ready(process: subprocess.Popen[bytes], ready: Callable[[], bool], log: Path) -> None:
    """Returns when `ready()`; RuntimeError with the end of the log when the process ended, or all took too long."""
    end = time.monotonic() + PATIENCE
    while not ready():
        if process.poll() is not None:
            raise RuntimeError(f"{log.name} server ended with exit code {process.returncode}: {tail(log)}")
        if time.monotonic() > end:
            process.kill()
            raise RuntimeError(f"{log.name} server was not ready after {PATIENCE:g} s: {tail(log)}")
        time.sleep(0.01)


def tail(log: Path) -> str:
    return log.read_text(errors="replace")[-2000:]


def stop(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Signals the process and waits until it is gone; kills it if that takes too long."""
    if process.poll() is None:
        process.send_signal(number)
    try:
        process.wait(LEAVE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
