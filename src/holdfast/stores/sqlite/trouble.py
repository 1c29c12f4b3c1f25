"""What SQLite's errors mean to our callers: StoreAway where the same call may work later, else StoreError."""

from __future__ import annotations

import sqlite3

from holdfast.errors import HoldfastError, StoreAway, StoreError

_AWAY = {
    "BUSY": "another connection holds a lock that this call needs",
    "LOCKED": "another connection of this process holds a lock that this call needs",
    "FULL": "the disk, or the file's own limit, is full; nothing of this call was stored: free some space, then "
    "repeat it (workers do so by themselves)",
    "IOERR": "the operating system reports an I/O error; its own log may say more (a failing or full disk, a quota, "
    "a limit on the size of files): repeat the call once that is mended (workers do so by themselves)",
    "NOMEM": "out of memory",
    "CANTOPEN": "a file could not be opened (permissions, a missing directory, too many open files)",
    "PROTOCOL": "the locks of the file were contended for too long",
    "READONLY": "the file, or its directory, is not writable any more; the system may have made the whole disk "
    "read-only after an error: its own log says why (workers go on by themselves once it is writable)",
}
_REFUSED = {
    "CORRUPT": "the file is damaged; check it with PRAGMA integrity_check and restore it from a backup",
    "NOTADB": "the file is not a SQLite database",
    "PERM": "no permission",
    "AUTH": "an authorizer on the connection forbids it",
}


def busy(error: sqlite3.Error) -> bool:
    """Whether a lock was in the way."""
    return _family(error) in {"BUSY", "LOCKED"}


def stated(error: Exception, path: str) -> Exception:
    """The error that callers get, naming the file, where it is one of SQLite's or of the system's; else itself."""
    if isinstance(error, sqlite3.Error):
        return _stated(error, path)
    if isinstance(error, MemoryError):  # also where SQLite had none
        return StoreAway(f"{path}: {_AWAY['NOMEM']}")
    if isinstance(error, OSError) and not isinstance(error, HoldfastError):
        return StoreAway(f"{path}: {_AWAY['IOERR']} ({error})")
    return error


def _stated(error: sqlite3.Error, path: str) -> StoreError:
    family = _family(error)
    if family in _AWAY:
        away = StoreAway(f"{path}: {_AWAY[family]} ({error})")
        away.full = family in {"FULL", "IOERR"}  # the latter where the file must not grow: a quota, a limit
        return away
    if family in _REFUSED:
        return StoreError(f"{path}: {_REFUSED[family]} ({error})")
    return StoreError(f"{path}: SQLite refused a statement ({error})")


def _family(error: sqlite3.Error) -> str:
    """SQLITE_BUSY_SNAPSHOT -> BUSY; the empty text for errors that Python's module raises by itself."""
    return str(getattr(error, "sqlite_errorname", "")).removeprefix("SQLITE_").partition("_")[0]
