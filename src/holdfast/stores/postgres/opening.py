"""Opens a place: is it a server that we can use, are the tables there, are they ours to serve?"""

from __future__ import annotations

from typing import NamedTuple
from uuid import UUID

import psycopg

from holdfast.clock import Span
from holdfast.errors import StoreAway, StoreError
from holdfast.stores.postgres.address import Place
from holdfast.stores.postgres.lanes import Lanes
from holdfast.stores.postgres.limits import limits
from holdfast.stores.postgres.privileges import grant
from holdfast.stores.postgres.session import Session
from holdfast.stores.postgres.statements import migrations, quoted, statement
from holdfast.stores.postgres.trouble import READ_ONLY, refused

OLDEST_SERVER = 14


class Found(NamedTuple):
    """What there is at a place, as check.sql says it."""

    encoding: str
    standby: bool
    read_only: bool
    role: str
    schema: bool
    usable: bool
    tables: int
    meta: bool
    missing: list[str]


class Version(NamedTuple):
    """The row of holdfast_meta."""

    number: int
    oldest_code: int
    lease: Span
    store: UUID
    functions: str


async def opened(place: Place) -> Lanes:
    """Lanes of a place whose tables this code can serve. Writes nothing. StoreError, StoreAway."""
    limit = limits()["open"]
    try:
        session = await Session.opened(place.address.conninfo, "open", limit)
        try:
            version = await _served(session, place)
        except BaseException:
            await session.close()
            raise
    except psycopg.Error as error:
        raise refused(error, place.url, place.schema) from error
    place.lease, place.store, place.code = version.lease, version.store, newest()
    return Lanes(place, session)


async def _served(session: Session, place: Place) -> Version:
    found = await look(session, place)
    if not found.schema:
        raise StoreError(f"{place.url}: there is no schema {quoted(place.schema)} yet: run `holdfast migrate`")
    if not found.usable:
        raise StoreError(
            f"{place.url}: the role {found.role} lacks USAGE on schema {quoted(place.schema)}: "
            f"{grant('schema', place.schema, found.role)}"
        )
    if found.missing:
        raise StoreError(
            f"{place.url}: the role {found.role} lacks {', '.join(found.missing)}: "
            f"{grant('tables', place.schema, found.role)}"
        )
    version = await version_of(session, place, found)
    if version is None:
        raise StoreError(f"{place.url}: has no tables of Holdfast yet: run `holdfast migrate`")
    if version.number < newest():
        raise StoreError(
            f"{place.url}: its tables are of version {version.number}, this code needs {newest()}: run "
            "`holdfast migrate`"
        )
    return version


async def look(session: Session, place: Place) -> Found:
    """StoreError for a server that cannot be used, whatever is in the schema; StoreAway for one that takes no writes,
    as it may in the middle of a failover.
    """
    server = session.connection.info.server_version
    if server < OLDEST_SERVER * 10000:
        raise StoreError(
            f"{place.url}: the server is PostgreSQL {server // 10000}, and Holdfast needs {OLDEST_SERVER} or newer"
        )
    [row] = await session.rows(statement("check", place.schema), (place.schema,))
    found = Found(*row)
    if found.encoding != "UTF8":
        raise StoreError(
            f"{place.url}: the database's encoding is {found.encoding}, in which not every text can be written; make "
            "one with CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0"
        )
    if found.standby or found.read_only:
        raise StoreAway(f"{place.url}: {READ_ONLY}")
    return found


async def version_of(session: Session, place: Place, found: Found) -> Version | None:
    """None: no tables of ours. StoreError where they are of a newer code that this one cannot serve."""
    if not found.tables:
        return None
    rows = await session.rows(statement("version", place.schema)) if found.meta else []
    if not rows:
        raise StoreError(
            f"{place.url}: has tables whose names begin with holdfast_, but holdfast_meta does not say of which version"
        )
    version = Version(*rows[0])
    if version.oldest_code > newest():
        raise StoreError(
            f"{place.url}: its tables are of version {version.number} and need a newer Holdfast (this one serves up to "
            f"version {newest()}): upgrade this installation"
        )
    return version


def newest() -> int:
    """The version of the schema that this code is written for."""
    return max(int(name.partition("_")[0]) for name in migrations())
