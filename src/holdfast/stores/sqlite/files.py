"""Notices that the file, its log, or the log's index was deleted or replaced while open: what it gets then is lost."""

from __future__ import annotations

import os
import time
from typing import NoReturn, TypeAlias

from holdfast.errors import StoreAway

Identity: TypeAlias = tuple[int, int]  # device, inode

BRIEFLY = 0.01  # seconds for which a look is believed by what is about to be checked again anyway
_BESIDE = {"-wal": "its log ", "-shm": "the index of its log "}


class Files:
    """What a connection that has read keeps open, by name. `main`: the database file as it was before it was opened."""

    def __init__(self, path: str, main: Identity) -> None:
        self._path = path
        self._opened = {path: main}
        self._roles = {path: ""}
        for suffix, role in _BESIDE.items():
            name = os.path.realpath(path) + suffix  # where SQLite has them if the path is a symbolic link
            if (beside := identity(name)) is not None:
                self._opened[name], self._roles[name] = beside, role
        self._checked = 0.0

    def check(self) -> None:
        """StoreAway if one of the names does not lead to what was opened under it. Costs a few microseconds."""
        for name, opened in self._opened.items():
            try:
                found = os.stat(name)  # noqa: PTH116  # a Path would double the time of every commit's check
            except FileNotFoundError:
                self._refuse(name, "deleted or moved away")
            if (found.st_dev, found.st_ino) != opened:
                self._refuse(name, "replaced by another file")
        self._checked = time.monotonic()

    def check_if_long(self) -> None:
        """The same, unless it was done just now."""
        if time.monotonic() - self._checked > BRIEFLY:
            self.check()

    def _refuse(self, name: str, what: str) -> NoReturn:
        raise StoreAway(
            f"{self._path}: {self._roles[name]}was {what} while it was in use ({name}). What this call wrote, if "
            "anything, may be lost with it. Find out who did that, and put the right files back: this process opens "
            "them anew by itself"
        )


def identity(path: str) -> Identity | None:
    """Which file is at `path`; None if there is none, or it cannot be seen."""
    try:
        found = os.stat(path)  # noqa: PTH116  # as above
    except OSError:
        return None
    return found.st_dev, found.st_ino
