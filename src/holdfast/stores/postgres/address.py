"""Where a PostgreSQL store is: its URL taken apart into what libpq reads and what is ours."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import SplitResult, quote, unquote
from uuid import UUID

import psycopg
from psycopg.conninfo import conninfo_to_dict

from holdfast.clock import Span
from holdfast.store import LEASE
from holdfast.stores.postgres.unreadable import Told
from holdfast.stores.postgres.waiters import Waiters

LONGEST_NAME = 63  # bytes; the server cuts a longer one short
_OURS = ("schema", "listen_url")


@dataclass(frozen=True, slots=True)
class Address:
    """`conninfo` is for libpq and has secrets in it; `url` is for people and has none."""

    conninfo: str
    schema: str
    listen: str  # conninfo of the connection that listens
    url: str


@dataclass(slots=True)
class Place:
    """An address, with what all twins of a store share: the tests' clock, and which store was met there."""

    address: Address
    shift: Span = 0
    lease: Span = LEASE  # holdfast_meta.lease, once it was opened
    store: UUID | None = None  # holdfast_meta.store, once it was opened
    reserved: dict[UUID, float] = field(default_factory=dict[UUID, float])  # since when, by time.monotonic()
    held_up: set[UUID] = field(default_factory=set[UUID])  # jobs that were `busy` when they were enqueued last
    told: Told = field(default_factory=Told)
    waiters: Waiters = field(default_factory=Waiters)

    @property
    def schema(self) -> str:
        return self.address.schema

    @property
    def url(self) -> str:
        return self.address.url


def address_of(parts: SplitResult, hide: Callable[[str], str]) -> Address:
    """The address that a URL names; `hide` takes the secrets out of one. ValueError, with the reason, if it is none."""
    if parts.fragment:
        raise ValueError("a # in it is written %23")
    options = [option.partition("=") for option in parts.query.split("&") if option]
    ours = {unquote(key): unquote(value) for key, _, value in options if unquote(key) in _OURS}
    passed = "&".join(f"{key}={value}" for key, _, value in options if unquote(key) not in _OURS)
    schema = ours.get("schema", "public")
    _refuse_schema(schema)
    conninfo = _read_by_libpq(f"postgresql://{parts.netloc}{parts.path}{'?' if passed else ''}{passed}")
    listen = ours.get("listen_url", conninfo)
    if not listen.startswith(("postgresql://", "postgres://")):
        raise ValueError("listen_url is a postgresql:// URL too, percent-encoded")
    url = hide(conninfo)
    if schema != "public":
        url += f"{'&' if passed else '?'}schema={quote(schema, safe='')}"
    return Address(conninfo, schema, _read_by_libpq(listen), url)


def _refuse_schema(schema: str) -> None:
    if not schema or len(schema.encode()) > LONGEST_NAME:
        raise ValueError(f"schema={schema!r}: a name of 1 to {LONGEST_NAME} bytes in UTF-8")
    if schema.startswith("pg_") or schema == "information_schema":
        raise ValueError(f"schema={schema!r}: belongs to the server")
    if "%" in schema or "\0" in schema:
        raise ValueError(f"schema={schema!r}: a name without % and NUL")


def _read_by_libpq(conninfo: str) -> str:
    """Itself, if libpq can read it. What libpq says of it may have secrets in it, but for an option's name."""
    try:
        conninfo_to_dict(conninfo)
    except psycopg.Error as error:
        option = re.search(r'invalid URI query parameter: "(\w+)"', str(error))
        why = (
            f"there is no option {option[1]}" if option else "libpq cannot read it; encode signs such as % @ / : as %25"
        )
        raise ValueError(why) from None
    return conninfo
