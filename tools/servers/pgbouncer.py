"""A private pgbouncer in transaction mode: one transaction of a client may run on another connection than the next."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

from tools.servers.processes import PORTS_TRIED, Room, free_port, stop, wait_ready

CONFIGURATION = """\
[databases]
* = {server}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 20
max_client_conn = 500
ignore_startup_parameters = extra_float_digits,options
"""


def pgbouncer() -> Path | None:
    """The binary; None if there is none."""
    found = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    return Path(found) if found else None


class Pgbouncer:
    """A pooler before a server, for all of its databases; `server` is its address in pgbouncer's words, with the user.

    For example `host=127.0.0.1 port=5432 user=postgres`. Clients need no password.
    """

    def __init__(self, binary: Path, server: str) -> None:
        self._binary = binary
        self._server = server
        self._room = Room("pgbouncer")
        self.log = self._room.path / "pgbouncer"
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it takes connections."""
        for tried in range(PORTS_TRIED):
            self.port = free_port()
            configuration = self._room.path / "pgbouncer.ini"
            configuration.write_text(CONFIGURATION.format(server=self._server, port=self.port))
            configuration.chmod(0o644)
            command = [self._binary, configuration]
            self._process = self._room.start(command, dict(os.environ), self.log, signal.SIGKILL)
            try:
                wait_ready(self._process, self._ready, self.log)
            except RuntimeError:
                if tried == PORTS_TRIED - 1:
                    raise
            else:
                return

    def _ready(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True

    def stop(self) -> None:
        """Connections are cut."""
        if self._process is not None:
            stop(self._process, signal.SIGTERM)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self._room.remove()
            raise
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self.stop()
        self._room.remove()
