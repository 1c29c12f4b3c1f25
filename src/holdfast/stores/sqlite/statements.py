"""The .sql files of this folder, and `Sql`, which runs them on one connection.

A statement that writes many rows names one of them, `VALUES (?, ?, ?)`, and is sent with as many as there are.
So a batch is one step of SQLite: after every step Python's interpreter lock has to be won back, which takes
5 ms each time while another thread computes. Row by row, a batch of 100 held the write lock for half a second.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any, Protocol, Self, TypeAlias

from holdfast.clock import Instant

Row: TypeAlias = tuple[Any, ...]

MOST_ROWS = 128  # in one statement; all sizes are powers of two, so that few texts have to be prepared
_ONE_ROW = re.compile(r"(?<=VALUES )\([?, ]+\)")


class Cursor(Protocol):
    """What runs statements: sqlite3's cursor, or what stands for it."""

    @property
    def rowcount(self) -> int: ...
    def execute(self, text: str, parameters: Sequence[Any] = (), /) -> Cursor: ...
    def fetchall(self) -> list[Row]: ...
    def close(self) -> None: ...


class Sql:
    """Runs statements by their file's name on one connection, whatever its owner set on it.

    `now` is the store's time. No text is read through it that a caller's `text_factory` could change, where the
    connection is a caller's.
    """

    def __init__(self, connection: sqlite3.Connection, now: Callable[[], Instant]) -> None:
        self.connection = connection
        self.now = now
        self._cursor: Cursor = sqlite3.Cursor(connection)

    @classmethod
    def lent(cls, cursor: Cursor, now: Callable[[], Instant]) -> Self:
        """On a caller's connection: there is no `connection` here that could be used, or closed."""
        sql = cls.__new__(cls)
        sql.now = now
        sql._cursor = cursor  # noqa: SLF001  # its own kind
        return sql

    def close(self) -> None:
        self._cursor.close()  # in Python 3.11 one whose last statement failed would keep the file open, locks and all
        self.connection.close()

    def rows(self, name: str, *parameters: Any) -> list[Row]:
        """All rows that the statement returns."""
        return self._cursor.execute(statement(name), parameters).fetchall()

    def row(self, name: str, *parameters: Any) -> Row | None:
        """The first row, if there is one."""
        found = self.rows(name, *parameters)
        return found[0] if found else None

    def write(self, name: str, *parameters: Any) -> int:
        """Runs it; the number of rows that changed."""
        return self._cursor.execute(statement(name), parameters).rowcount

    def spread(self, name: str, rows: Sequence[Row], *before: Any) -> int:
        """Runs it with all these rows in place of its one; `before`: the parameters that stand before them."""
        changed = 0
        for text, part in _parts(name, rows):
            parameters = [*before, *(value for row in part for value in row)]
            changed += self._cursor.execute(text, parameters).rowcount
        return changed

    def run(self, text: str) -> list[Row]:
        """A statement that is no file: BEGIN, a savepoint, a pragma, a listing's."""
        return self._cursor.execute(text).fetchall()

    def listing(self, text: str, parameters: Sequence[Any]) -> list[Row]:
        """A statement that was put together."""
        return self._cursor.execute(text, parameters).fetchall()


def statement(name: str) -> str:
    """The statement of `sql/<name>.sql`, without the comments above it."""
    return _statements[name]


def _read(file: Traversable) -> str:
    text = file.read_text("utf-8")
    return "\n".join(line for line in text.splitlines() if not line.startswith("--")).strip().rstrip(";")


# All at once: later the process may have no descriptor left, or an upgrade may have put other files here.
_statements = {
    file.name.removesuffix(".sql"): _read(file)
    for file in (resources.files("holdfast.stores.sqlite") / "sql").iterdir()
    if file.name.endswith(".sql")
}


def _parts(name: str, rows: Sequence[Row]) -> Iterator[tuple[str, Sequence[Row]]]:
    start = 0
    while left := len(rows) - start:
        size = min(MOST_ROWS, 1 << (left.bit_length() - 1))
        yield _repeated(name, size), rows[start : start + size]
        start += size


@lru_cache(maxsize=128)
def _repeated(name: str, size: int) -> str:
    text = statement(name)
    row = _ONE_ROW.search(text)
    if row is None:
        raise AssertionError(f"{name}.sql has no VALUES (?, ...) to repeat")
    return f"{text[: row.start()]}{', '.join([row[0]] * size)}{text[row.end() :]}"
