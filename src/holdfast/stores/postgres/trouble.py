"""What PostgreSQL's errors mean to our callers: StoreAway where the same call may work later, else StoreError."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import psycopg

from holdfast.errors import StoreAway, StoreError
from holdfast.stores.postgres.privileges import missing
from holdfast.stores.postgres.statements import quoted

READ_ONLY = (
    "the server takes no writes: it is a standby, or was made read-only (after a failover, or because its disk is "
    "almost full); name the primary, or several hosts with target_session_attrs=read-write (workers that run go on by "
    "themselves once it takes writes)"
)
_MIGRATE = "a table or function of Holdfast is missing: run `holdfast migrate`"

# By SQLSTATE, or by its first two characters.
_AWAY = {
    "08": "the connection was lost, or a pooler between could not reach the server",
    "25006": READ_ONLY,
    "28": "the server does not let this role in any more; check the role, its password and pg_hba.conf",
    "3D000": "there is no such database any more",
    "3F000": _MIGRATE,
    "40001": "other transactions were in the way, several times over",
    "40P01": "a deadlock with another transaction, several times over",
    "42501": "{missing}",
    "42883": _MIGRATE,
    "42P01": _MIGRATE,
    "53": "the server is out of some resource",
    "53100": "the server's disk is full; nothing of this call was stored: free some space, then repeat it (workers do "
    "so by themselves)",
    "53200": "the server is out of memory",
    "53300": "the server has no connection left for this role or database: raise max_connections (or the limit of the "
    "role or database), put a pooler between, or run fewer processes (each uses up to 9 connections)",
    "55P03": "another transaction holds a lock that this call needs; docs/postgres.md has a query that names it",
    "57": "the server ended the connection: a restart, a failover, or pg_terminate_backend",
    "57014": "the server cut the statement off: it took longer than its statement_timeout, or someone called "
    "pg_cancel_backend; the server may be overloaded, or a lock be in the way (docs/postgres.md has a query that names "
    "it)",
    "57P03": "the server is starting, stopping or recovering",
    "58": "the server's operating system reports an error; the server's log says more",
}
# While a place is opened: what no repeat mends.
_REFUSED = {
    "28": "the server does not let this role in; check the role's name and pg_hba.conf",
    "28P01": "the server refuses the password, or was given none",
    "3D000": "there is no such database; make it with CREATE DATABASE … ENCODING 'UTF8', then run `holdfast migrate`",
    "3F000": _MIGRATE,
    "42501": _AWAY["42501"],
    "42883": _MIGRATE,
    "42P01": _MIGRATE,
}
# What servers and poolers say in English before a connection stands, and what it would be afterwards.
_CONNECTING = {
    "password authentication failed": "28P01",
    "no password supplied": "28P01",
    "pg_hba.conf": "28000",
    "no such user": "28000",
    "permission denied for database": "42501",
    "is not permitted to log in": "28000",
    "no such database": "3D000",
    "too many connections": "53300",
    "too many clients": "53300",
    "no more connections allowed": "53300",
    "connection slots": "53300",
    "the database system is": "57P03",
    "session is read-only": "25006",
    "server is in hot standby mode": "25006",
}
_MISSING = re.compile(r'(role|user|database) ".*" does not exist')
_LOST = "the server cannot be reached, or the connection to it was lost"
_ENDS_SESSION = ("08", "25006", "57P", "25P03", "25P04")
_PASSING = ("40001", "40P01")  # a second try of the same, at once, may well work


def ends_session(error: psycopg.Error) -> bool:
    """Whether the connection is of no use any more, and the call may be asked again on another."""
    state = error.sqlstate or ""
    return state.startswith(_ENDS_SESSION) or error.diag.severity_nonlocalized in {"FATAL", "PANIC"}


def passing(error: psycopg.Error) -> bool:
    """Whether the same may work on the same connection, at once."""
    return error.sqlstate in _PASSING


def stated(error: psycopg.Error, url: str, schema: str, lacks: Sequence[Sequence[Any]] = ()) -> StoreError:
    """The error that callers get: the place, what it means and what to do, then the server's own words. `lacks`: rows
    of lacking.sql, where a privilege is missing.
    """
    state = _state(error)
    meaning = _AWAY.get(state) or _AWAY.get(state[:2])
    if meaning is None and not state and isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        meaning = _LOST
    if meaning is None:
        return StoreError(f"{url}: PostgreSQL refused a statement ({_words(error)})")
    away = StoreAway(f"{url}: {meaning.replace('{missing}', missing(lacks, schema))} ({_words(error)})")
    away.full = state == "53100"
    return away


def answered(error: psycopg.Error) -> bool:
    """Whether the server itself says that it did nothing; a pooler's word (08) says only that it knows no answer."""
    return error.sqlstate is not None and not error.sqlstate.startswith("08")


def refused(error: psycopg.Error, url: str, schema: str) -> StoreError:
    """The same while a place is opened: what only someone can mend is a StoreError."""
    state = _state(error)
    meaning = _REFUSED.get(state) or _REFUSED.get(state[:2])
    if meaning is None:
        return stated(error, url, schema)
    return StoreError(f"{url}: {meaning.replace('{missing}', missing((), schema))} ({_words(error)})")


def may_not_create(error: psycopg.Error, url: str, schema: str) -> StoreError:
    """While a schema is migrated."""
    return StoreError(
        f"{url}: the role may not do what migrating needs: CREATE on schema {quoted(schema)} (on the database, where "
        "the schema is to be made), and to own the tables that are there; run it as a role that may, with --url "
        f"({_words(error)})"
    )


def _state(error: psycopg.Error) -> str:
    """The SQLSTATE. The driver gives none for what a server says before a connection stands."""
    if error.sqlstate is None:
        words = str(error)
        if missing := _MISSING.search(words):
            return "3D000" if missing[1] == "database" else "28000"
        return next((state for part, state in _CONNECTING.items() if part in words), "")
    return error.sqlstate


def _words(error: psycopg.Error) -> str:
    """The server's message on one line, with its detail, or the driver's."""
    primary, detail = error.diag.message_primary, error.diag.message_detail
    text = f"{primary}; {detail}" if primary and detail else primary or str(error) or type(error).__name__
    state = f"; SQLSTATE {error.sqlstate}" if error.sqlstate else ""
    return " ".join(text.split()) + state
