"""Opens connections, and a place: is it a file that we can use, are the tables there, are they ours to serve?"""

from __future__ import annotations

import os
import random
import sqlite3
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, contextmanager
from functools import cache, partial
from importlib import resources
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias, TypeVar

from holdfast.clock import short
from holdfast.errors import StoreAway, StoreError
from holdfast.stores.sqlite.statements import Sql
from holdfast.stores.sqlite.trouble import busy, stated

T = TypeVar("T")
Durability: TypeAlias = Literal["full", "normal"]

OLDEST_SQLITE = (3, 37, 0)  # STRICT tables
WAL_LIMIT = 4 << 20  # bytes; a longer write-ahead log is checkpointed, and cut to this length when it starts anew
OPEN_PATIENCE = 5.0  # seconds; whoever waits may hold the lock himself


class Migration(NamedTuple):
    """One step of the schema: its number is the version that it leads to."""

    number: int
    statements: Sequence[str]


def connect(path: str, durability: Durability, cache_mib: int, timeout: float = OPEN_PATIENCE) -> sqlite3.Connection:
    """A connection of ours. No automatic checkpoints: see checkpoint.py. `timeout`: seconds that SQLite waits.

    Waits itself for whoever is making the file's first tables, or its log anew after a crash.
    """
    connection = sqlite3.connect(
        path, timeout=timeout, isolation_level=None, check_same_thread=False, cached_statements=256
    )
    try:
        for pragma in (
            "wal_autocheckpoint = 0",
            f"journal_size_limit = {WAL_LIMIT}",
            f"synchronous = {durability}",
            f"cache_size = {-1024 * cache_mib}",
            "temp_store = memory",
            "mmap_size = 0",
        ):
            patiently(path, partial(_run, connection, f"PRAGMA {pragma}"))
    except BaseException:
        connection.close()
        raise
    return connection


def _run(connection: sqlite3.Connection, text: str) -> None:
    connection.execute(text).close()


def prepare(path: str, *, create: bool = True) -> None:
    """Makes sure that the file is there and has tables that this code can serve. Touches nothing if it must refuse.

    A file without any table of ours gets them, whatever else is in it: that is how an application's own database
    gets its jobs; with create=False that is refused. It is put into WAL mode.
    """
    _refuse_place(path)
    if not create and not Path(path).exists():
        raise StoreError(
            f"{path}: there is no such file; is the path right? A producer, a worker or `migrate` makes it"
        )
    with _brief(path) as sql:
        version = _served_version(sql, path)
        if version is None and not create:
            raise StoreError(f"{path}: has no tables of Holdfast; is the path right? `holdfast migrate` makes them")
        try:
            patiently(path, lambda: _use_wal(sql, path))
            if version is None:
                _run_missing(sql, path)
        except StoreAway as error:
            if version is not None:
                raise
            raise StoreAway(
                f"{path}: has no tables of Holdfast yet, and they cannot be made while a write transaction is open "
                "(your own, if you enqueue within one): run `holdfast migrate` first, or open the app before it"
            ) from error


def migrate(path: str, *, dry_run: bool) -> Sequence[str]:
    """Runs, or with `dry_run` only returns, what leads from the file's version to this code's."""
    _refuse_place(path)
    if dry_run and not Path(path).exists():
        return _statements_after(0)
    with _brief(path) as sql:
        if dry_run:
            return _statements_after(_version(sql, path))
        patiently(path, lambda: _use_wal(sql, path))
        return _run_missing(sql, path)


def patiently(path: str, step: Callable[[], T], patience: float = OPEN_PATIENCE) -> T:
    """Repeats a step that meets a lock, for up to `patience` seconds."""
    start = time.monotonic()
    while True:
        try:
            return step()
        except sqlite3.OperationalError as error:
            if not busy(error):
                raise
            if (waited := time.monotonic() - start) >= patience:
                raise locked_out(path, waited) from error
        pause()


def pause() -> None:
    """A short sleep between two looks at a lock: SQLite's own waits grow to 100 ms, transactions of ours last 1 ms."""
    time.sleep(random.uniform(0.0003, 0.003))


def locked_out(path: str, waited: float) -> StoreAway:
    return StoreAway(
        f"{path}: waited {short(round(waited * 1000))} for the write lock: another process, or another connection of "
        "this one, holds a write transaction open. If it is the caller's own, enqueue within it: "
        ".using(connection=...)"
    )


def _refuse_place(path: str) -> None:
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        raise StoreError(f"{path}: this Python has SQLite {sqlite3.sqlite_version}, and Holdfast needs 3.37 or newer")
    directory = Path(path).parent
    if not directory.is_dir():
        raise StoreError(f"{path}: there is no directory {directory}; create it first")
    if Path(path).is_dir():
        raise StoreError(f"{path}: is a directory, not a file")
    for place in (Path(path), directory):
        if place.exists() and not os.access(place, os.R_OK | os.W_OK):
            raise StoreError(f"{path}: {place} is not writable for this user; SQLite writes the file and two beside it")


@contextmanager
def _brief(path: str) -> Generator[Sql]:
    """A connection for one visit; errors come out as ours."""
    try:
        with closing(Sql(connect(path, "full", cache_mib=2), lambda: 0)) as sql:
            yield sql
    except (sqlite3.Error, MemoryError, OSError) as error:
        raise stated(error, path) from error


def _use_wal(sql: Sql, path: str) -> None:
    [[mode]] = sql.run("PRAGMA journal_mode = WAL")
    if mode != "wal":
        raise StoreError(f"{path}: SQLite cannot use a write-ahead log here (journal mode {mode}); use a local disk")


def _served_version(sql: Sql, path: str) -> int | None:
    """The version of the tables if this code can serve them; None if there are none."""
    version = _version(sql, path)
    if version == 0:
        return None
    if version < newest():
        raise StoreError(
            f"{path}: its tables are of version {version}, this code needs {newest()}: run `holdfast migrate`"
        )
    return version


def _version(sql: Sql, path: str) -> int:
    """0: no tables of ours. StoreError where they are of a newer code that this one cannot serve."""
    tables, meta = patiently(path, lambda: sql.rows("check"))[0]
    if not tables:
        return 0
    rows = sql.rows("version") if meta else []
    if not rows:
        raise StoreError(
            f"{path}: has tables whose names begin with holdfast_, but holdfast_meta does not say of which version"
        )
    version, oldest_code = rows[0]
    if oldest_code > newest():
        raise StoreError(
            f"{path}: its tables are of version {version} and need a newer Holdfast (this one serves up to version "
            f"{newest()}): upgrade this installation"
        )
    return int(version)


def _run_missing(sql: Sql, path: str) -> Sequence[str]:
    """Under the write lock, because several processes may open a fresh file at once."""
    patiently(path, lambda: sql.run("BEGIN IMMEDIATE"))
    try:
        statements = _statements_after(_version(sql, path))
        for text in statements:
            sql.run(text)
    except BaseException:
        if sql.connection.in_transaction:  # some errors end it
            sql.run("ROLLBACK")
        raise
    sql.run("COMMIT")
    return statements


def newest() -> int:
    """The version of the schema that this code is written for."""
    return migrations()[-1].number


def _statements_after(version: int) -> Sequence[str]:
    return [text for migration in migrations() if migration.number > version for text in migration.statements]


@cache
def migrations() -> Sequence[Migration]:
    """All steps from an empty file to this code, oldest first: `migrations/<number>_<name>.sql`."""
    folder = resources.files("holdfast.stores.sqlite") / "migrations"
    files = [file for file in folder.iterdir() if file.name.endswith(".sql")]
    return sorted(Migration(int(file.name.partition("_")[0]), _split(file.read_text("utf-8"))) for file in files)


def _split(text: str) -> Sequence[str]:
    statements, lines = list[str](), list[str]()
    for line in text.splitlines():
        lines.append(line)
        if sqlite3.complete_statement("\n".join(lines)):
            statements.append("\n".join(lines).strip())
            lines = []
    return statements
