"""Brings a schema to this code's version, while workers of the version before go on.

A migration is one transaction; one whose file begins with the line `-- apart` runs statement by statement outside of
any (CREATE INDEX CONCURRENTLY), and must bear being begun again after a failure in the middle. The functions are made
anew where they differ. Nobody else migrates meanwhile: another connection holds an advisory lock in a transaction,
which works behind every pooler and holds up no concurrent index. A newer version is left alone, with its functions: so
a release that changes a function has a migration too, if only to raise the number.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeAlias, TypeVar

import psycopg

from holdfast.clock import SECOND
from holdfast.errors import StoreAway
from holdfast.stores.postgres import limits
from holdfast.stores.postgres.address import Place
from holdfast.stores.postgres.opening import Found, look, newest, version_of
from holdfast.stores.postgres.session import Session
from holdfast.stores.postgres.statements import digest, functions, migrations, quoted, split, statement, within
from holdfast.stores.postgres.trouble import may_not_create, refused

PAUSE = 0.1

_BEGIN = ("BEGIN;", f"SET LOCAL lock_timeout = '{limits.MIGRATE_LOCK}ms';")

T = TypeVar("T")
Step: TypeAlias = Sequence[str]  # statements; a transaction has BEGIN and COMMIT among them


async def migrate(place: Place, *, dry_run: bool) -> Sequence[str]:
    """Runs, or with `dry_run` only returns, what leads from the version that is there to this code's."""
    try:
        if dry_run:
            async with _session(place) as session:
                return _flat(await _patiently(session, place, partial(_looked, session, place)))
        async with _alone(place), _session(place) as session:
            steps = await _patiently(session, place, partial(_looked, session, place))
            for step in steps:
                await _patiently(session, place, partial(_run, session, step))
            return _flat(steps)
    except psycopg.errors.InsufficientPrivilege as error:
        raise may_not_create(error, place.url, place.schema) from error
    except psycopg.Error as error:
        raise refused(error, place.url, place.schema) from error


def _flat(steps: Sequence[Step]) -> Sequence[str]:
    return [text for step in steps for text in step]


async def _looked(session: Session, place: Place) -> Sequence[Step]:
    """What is missing, seen in a transaction of its own, so that it waits for no lock for long."""
    await _run(session, _BEGIN)
    steps = await _missing(session, place)
    await _run(session, ("COMMIT;",))
    return steps


async def _run(session: Session, step: Step) -> None:
    for text in step:
        await session.rows(text)


async def _missing(session: Session, place: Place) -> Sequence[Step]:
    found = await look(session, place)
    version = await version_of(session, place, found)
    if version is not None and version.number > newest():
        return []  # newer workers are there already: their functions serve this code too, ours might not serve them
    steps = [
        _step(text if version else _at_once(text), place.schema, found)
        for name, text in sorted(migrations().items())
        if int(name.partition("_")[0]) > (version.number if version else 0)
    ]
    if steps or version is None or version.functions != digest() or await _some_gone(session, place):
        steps.append(_functions(place.schema))
    return steps


async def _some_gone(session: Session, place: Place) -> bool:
    """As after a restore that left some out."""
    made = {name for (name,) in await session.rows(statement("made", place.schema), (place.schema,))}
    return not made.issuperset(f"holdfast_{name}" for name in functions())


def _at_once(text: str) -> str:
    """Where nothing is yet: an index that nobody stands behind need not wait for all open transactions."""
    return text.replace(" INDEX CONCURRENTLY ", " INDEX ")


def _step(text: str, schema: str, found: Found) -> Step:
    statements = split(within(text, schema))
    if text.startswith("-- apart\n"):
        return statements
    made = () if found.schema else (f"CREATE SCHEMA IF NOT EXISTS {quoted(schema)};",)
    return [*_BEGIN, *made, *statements, "COMMIT;"]


def _functions(schema: str) -> Step:
    made = [text for name in sorted(functions()) for text in split(within(functions()[name], schema))]
    noted = within(f"UPDATE {{schema}}.holdfast_meta SET functions = '{digest()}';", schema)  # noqa: S608  # ours
    return [*_BEGIN, "SET LOCAL check_function_bodies = off;", *made, noted, "COMMIT;"]  # they know each other


async def _patiently(session: Session, place: Place, work: Callable[[], Awaitable[T]]) -> T:
    """Waits for a lock for a moment only, time and again."""
    start = time.monotonic()
    while True:
        try:
            return await work()
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected) as error:
            await session.rows("ROLLBACK")
            if (waited := time.monotonic() - start) >= limits.MIGRATE / SECOND:
                raise StoreAway(
                    f"{place.url}: waited {waited:.0f} s for a lock on a table of Holdfast that another transaction "
                    "holds; docs/postgres.md has a query that names it. Nothing of this step was changed: run "
                    "`holdfast migrate` again"
                ) from error
        await asyncio.sleep(PAUSE)


@asynccontextmanager
async def _session(place: Place) -> AsyncGenerator[Session]:
    session = await Session.opened(place.address.conninfo, "migrate", limits.limits()["migrate"])
    try:
        yield session
    finally:
        await session.close()


@asynccontextmanager
async def _alone(place: Place) -> AsyncGenerator[None]:
    """While this is entered no other process migrates this schema."""
    key = int.from_bytes(hashlib.sha256(f"holdfast migrate {place.schema}".encode()).digest()[:8], signed=True)
    start = time.monotonic()
    async with _session(place) as session:
        await session.rows("BEGIN")
        while not (await session.rows("SELECT pg_try_advisory_xact_lock(%b)", (key,)))[0][0]:
            if time.monotonic() - start >= limits.MIGRATE / SECOND:
                raise StoreAway(
                    f"{place.url}: another `holdfast migrate` has been running for more than "
                    f"{limits.MIGRATE / SECOND:g} s"
                )
            await asyncio.sleep(PAUSE)
        # Also the last statement, as it must be one without a snapshot: an index in the making would wait for its end.
        await session.rows("SET LOCAL idle_in_transaction_session_timeout = 0")
        yield
