"""Where a PostgreSQL store is: its URL taken apart into what libpq reads and what is ours.

What cannot be right is refused here, before anything is opened: so nobody waits for a server to come back.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import SplitResult, quote, unquote, urlsplit
from uuid import UUID

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from holdfast.clock import Span
from holdfast.store import LEASE
from holdfast.stores.unreadable import Told
from holdfast.stores.waiters import Waiters

LONGEST_NAME = 63  # bytes; the server cuts a longer one short
_OURS = ("schema", "listen_url")
_NUMBERS = (
    "connect_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "tcp_user_timeout",
)
_ENCODED = "in a password, signs such as @ / : ? # are written %40 %2F %3A %3F %23"
_HOST = re.compile(r"(\[[^]]*\]|[^][:]*)(:\d*)?")
_NOWHERE = "/nowhere/holdfast"  # as a host: a folder without a socket, so that libpq reaches nobody


@dataclass(frozen=True, slots=True)
class Address:
    """`conninfo` is for libpq and has secrets in it; `url` is for people and has none."""

    conninfo: str = field(repr=False)
    schema: str
    listen: str = field(repr=False)  # conninfo of the connection that listens
    url: str


@dataclass(slots=True)
class Place:
    """An address, with what all twins of a store share: the tests' clock, and which store was met there."""

    address: Address
    shift: Span = 0
    lease: Span = LEASE  # holdfast_meta.lease, once it was opened
    store: UUID | None = None  # holdfast_meta.store, once it was opened
    code: int = 0  # up to which version of the tables this code serves them, once it was opened
    held_up: set[UUID] = field(default_factory=set[UUID])  # jobs that were `busy` when they were enqueued last
    told: Told = field(default_factory=Told)
    waiters: Waiters = field(default_factory=Waiters)
    watchers: Waiters = field(default_factory=Waiters)  # for jobs to end: by the words that are rung then
    stopped: set[str] = field(default_factory=set[str])  # queues that were paused when it was looked at last
    backends: set[int] = field(default_factory=set[int])  # the server's processes that ring for it

    @property
    def schema(self) -> str:
        return self.address.schema

    @property
    def url(self) -> str:
        return self.address.url


def address_of(parts: SplitResult, hide: Callable[[str], str]) -> Address:
    """The address that a URL names; `hide` takes the secrets out of one. ValueError, with the reason, if it is none."""
    options = [option.partition("=") for option in parts.query.split("&") if option]
    ours = _ours([(unquote(key), unquote(value)) for key, _, value in options if unquote(key) in _OURS])
    passed = "&".join(f"{key}={value}" for key, _, value in options if unquote(key) not in _OURS)
    schema = ours.get("schema", "public")
    _refuse_schema(schema)
    conninfo = _read(parts._replace(scheme="postgresql", query=passed))
    url = hide(conninfo)
    if schema != "public":
        url += f"{'&' if passed else '?'}schema={quote(schema, safe='')}"
    return Address(conninfo, schema, _listen(ours.get("listen_url"), conninfo), url)


def _ours(options: list[tuple[str, str]]) -> dict[str, str]:
    for name, times in Counter(name for name, _ in options).items():
        if times > 1:
            raise ValueError(f"{name}= is given twice")
    return dict(options)


def _listen(url: str | None, conninfo: str) -> str:
    if url is None:
        return conninfo
    if not url.startswith(("postgresql://", "postgres://")):
        raise ValueError("listen_url is a postgresql:// URL too, percent-encoded")
    try:
        return _read(urlsplit(url))
    except ValueError as error:
        raise ValueError(f"listen_url: {error}") from None


def _refuse_schema(schema: str) -> None:
    if not schema or len(schema.encode()) > LONGEST_NAME:
        raise ValueError(f"schema={schema!r}: a name of 1 to {LONGEST_NAME} bytes in UTF-8")
    if schema.startswith("pg_") or schema == "information_schema":
        raise ValueError(f"schema={schema!r}: belongs to the server")
    if "%" in schema or "\0" in schema:
        raise ValueError(f"schema={schema!r}: a name without % and NUL")


def _read(parts: SplitResult) -> str:
    """The URL, for libpq, which understands it. ValueError, with nothing in it that may be a password's."""
    if parts.fragment:
        raise ValueError("a # in it is written %23")
    if "\0" in parts.geturl():
        raise ValueError("it has a NUL in it")
    beyond = parts.path or parts.query.partition("/")[0]  # libpq's password ends at the first @ before a slash
    if parts.netloc.count("@") > 1 or "@" in beyond:
        raise ValueError(f"it has an @ more, or behind a / or ?: {_ENCODED}")
    if not all(_HOST.fullmatch(host) for host in parts.netloc.rpartition("@")[2].split(",")):
        raise ValueError(f"its port is a number, and a host has none of : [ ] in it: {_ENCODED}")
    conninfo = f"postgresql://{parts.netloc}{parts.path}{'?' if parts.query else ''}{parts.query}"
    given = _options(conninfo)
    for name in _NUMBERS:
        value = given.get(name, os.environ.get("PGCONNECT_TIMEOUT", "") if name == "connect_timeout" else "")
        if not re.fullmatch(r"\s*-?\d*\s*", value):
            raise ValueError(f"{name}={value}: a whole number")
    if why := _refused_by_libpq(given):
        raise ValueError(why)
    return conninfo


def _options(conninfo: str) -> dict[str, str]:
    """What libpq says of one that it cannot read may have secrets in it, but for an option's name."""
    try:
        return {name: str(value) for name, value in conninfo_to_dict(conninfo).items() if value is not None}
    except psycopg.Error as error:
        option = re.search(r'invalid URI query parameter: "(\w+)"', str(error))
        why = (
            f"there is no option {option[1]}=; there are schema=, listen_url= and those of libpq, such as sslmode="
            if option
            else f"libpq cannot read it; {_ENCODED}"
        )
        raise ValueError(why) from None


def _refused_by_libpq(given: dict[str, str]) -> str:
    """What libpq says of the options' values, which it looks at before it reaches for a host; "" if nothing."""
    hosts, ports = given.get("host") or given.get("hostaddr") or "", given.get("port", "")
    nowhere = {
        "host": ",".join([_NOWHERE] * (hosts.count(",") + 1)),
        "hostaddr": "",  # not the environment's either
        "port": ports if hosts else ports.partition(",")[0],  # else they belong to hosts that are named elsewhere
    }
    connection = pq.PGconn.connect_start(make_conninfo(**given | nowhere).encode())
    said = connection.error_message.decode("utf-8", "replace").splitlines()
    connection.finish()
    return "; ".join(line for line in said if _NOWHERE not in line and not line.startswith("\t"))
