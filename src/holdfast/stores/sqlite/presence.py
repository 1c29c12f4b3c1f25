"""Which workers' processes are there: each holds a lock on a file named after its worker, until the process ends.

Whoever can lock a file that stands in the folder knows that the worker's process is gone: no PID, no waiting for the
lease. Without such a file, or where the system has no such locks, nothing is known, and the lease decides.

All of this runs in the writer's turns, so that no fork falls into the middle of it (turns.py).
"""

from __future__ import annotations

import fcntl
import logging
import os
import stat
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

from holdfast.clock import HOUR, SECOND
from holdfast.observe.logging import stores, tell

MOST_HELD = 64  # by one process: a descriptor each
MOST_ASKED = 32  # workers looked after at once
FOLDER = "-workers"
NEW = ".new"  # at the end of a name: not locked yet


class _Lock(NamedTuple):
    """A lock that this process holds, and which file it was taken on: a number may be closed and used anew."""

    path: Path
    descriptor: int
    device: int
    inode: int

    def close(self) -> None:
        with suppress(OSError):
            found = os.fstat(self.descriptor)
            if (found.st_dev, found.st_ino) == (self.device, self.inode):
                os.close(self.descriptor)


_held: dict[str, _Lock] = {}  # per worker, the oldest first; of the process, because its code may outlive its store
_changing = threading.Lock()


class Presence:
    """The locks beside one database."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._told = False  # that a lock could not be taken

    @property
    def _folder(self) -> Path:
        return Path(f"{os.path.realpath(self._path)}{FOLDER}")  # as SQLite names the log, where the path is a link

    def begin(self, worker: UUID) -> None:
        """Takes the worker's lock, if this process does not hold it yet; before the worker's row is written."""
        name = str(worker)
        with _changing:
            if name in _held:
                return
            while len(_held) >= MOST_HELD:
                _let_go(next(iter(_held)))
            try:
                _held[name] = _locked(self._folder, name)
            except OSError as error:
                self._tell(error)

    def _tell(self, error: OSError) -> None:
        if not self._told:
            self._told = True
            text = f"{error}; should its process be killed, its jobs come back when its lease ends, not at once"
            tell(stores, logging.WARNING, "no-file-lock", path=self._folder, message=text)

    def end(self, worker: UUID) -> None:
        """Removes the worker's file, and lets go of its lock if it is ours."""
        with _changing:
            _let_go(str(worker))
            with suppress(OSError):
                (self._folder / str(worker)).unlink()

    def gone(self, workers: Iterable[tuple[str, str | None]]) -> Iterator[str]:
        """Which of these workers, each with its supervisor if it has one, are gone for certain.

        A supervisor that is there ends what is left of its worker before it gives the jobs back, and knows how it died.
        """
        asked = list(workers)[:MOST_ASKED]
        if not asked:
            return
        ended = cache(partial(_ended, self._folder))
        for worker, supervisor in asked:
            if (supervisor is None or ended(supervisor)) and ended(worker):
                yield worker

    def left_over(self) -> list[UUID]:
        """Workers whose files nobody has locked. What was never locked is removed."""
        names: list[str] = []
        with suppress(OSError):
            names = [path.name for path in self._folder.iterdir() if not _removed_as_new(path)]
        return [UUID(name) for name in names if _is_id(name) and _ended(self._folder, name)]


def _locked(folder: Path, name: str) -> _Lock:
    """A new file that nobody sees before it is locked. OSError where that cannot be done, or the file is there."""
    mode = stat.S_IMODE(os.stat(str(folder).removesuffix(FOLDER)).st_mode)  # noqa: PTH116  # who may write to the database
    folder.mkdir(mode=mode | (mode & 0o444) >> 2, exist_ok=True)  # and who may read it may enter the folder
    new = folder / f"{name}{NEW}"
    descriptor = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.link(new, folder / name)
        found = os.fstat(descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    finally:
        with suppress(OSError):
            new.unlink()
    return _Lock(folder / name, descriptor, found.st_dev, found.st_ino)


def _let_go(name: str) -> None:
    """First the file, then the lock: a lock that can be had on a file that stands there means a death."""
    if (lock := _held.pop(name, None)) is not None:
        with suppress(OSError):
            lock.path.unlink()
        lock.close()


def _ended(folder: Path, name: str) -> bool:
    """Whether the process that locked this file is gone."""
    if name in _held:  # some network disks would give a process its own lock once more
        return False
    try:
        descriptor = os.open(folder / name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: others may be asking, too
        return os.fstat(descriptor).st_nlink > 0  # else it was removed just now, by a process that lives
    except OSError:
        return False
    finally:
        os.close(descriptor)


def _removed_as_new(path: Path) -> bool:
    """What its maker left behind between making and locking it."""
    if not path.name.endswith(NEW):
        return False
    with suppress(OSError):
        if time.time() - path.stat().st_mtime > HOUR / SECOND:
            path.unlink()
    return True


def _is_id(name: str) -> bool:
    try:
        return str(UUID(name)) == name
    except ValueError:
        return False


def _in_child() -> None:
    """Closed, not unlocked: the locks are the parent's, and end with it."""
    for lock in _held.values():
        lock.close()
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
