"""Where a PostgreSQL store is: its URL taken apart into what libpq reads and what is ours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import SplitResult, unquote, urlunsplit
from uuid import UUID

from holdfast.clock import Span

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
    store: UUID | None = None  # holdfast_meta.store, once it was opened

    @property
    def schema(self) -> str:
        return self.address.schema

    @property
    def url(self) -> str:
        return self.address.url


def address_of(parts: SplitResult, hide: Callable[[str], str]) -> Address:
    """The address that a URL names; `hide` takes the secrets out of one. ValueError, with the reason, if it is none."""
    options = [option for option in parts.query.split("&") if option]
    ours = {key: unquote(value) for key, _, value in (option.partition("=") for option in options) if key in _OURS}
    passed = "&".join(option for option in options if option.partition("=")[0] not in _OURS)
    conninfo = urlunsplit(("postgresql", parts.netloc, parts.path, passed, ""))
    schema = ours.get("schema", "public")
    url = hide(conninfo) + ("" if schema == "public" else ("&" if passed else "?") + f"schema={schema}")
    return Address(conninfo, schema, ours.get("listen_url", conninfo), url)
