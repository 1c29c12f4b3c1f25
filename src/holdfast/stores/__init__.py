"""From a URL to a store: the only place that names a concrete one, each imported when it is asked for."""

from __future__ import annotations

# redis-py wants it, maybe for the first time when the main thread has ended: it cannot be imported then.
import concurrent.futures.thread  # noqa: F401  # pyright: ignore[reportUnusedImport]
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Literal
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from holdfast.clock import Clock, SystemClock
from holdfast.errors import ConfigError

if TYPE_CHECKING:
    from holdfast.store import Store

SCHEMES = ("memory://", "sqlite:///path", "postgresql://user@host/database", "redis://user@host/0")


def open_store(url: str, clock: Clock | None = None) -> Store:
    """The store that `url` names; nothing is opened yet.

    `memory://`, `sqlite:///relative.db`, `sqlite:////absolute.db`; options as a query, such as
    `?durability=normal`. `postgresql://user:password@host:5432/database`, with libpq's options and two of ours:
    `?schema=jobs` (default public), `?listen_url=…` (percent-encoded; where a pooler stands between, the direct way to
    the server, for notifications). `redis://user:password@host:6379/0` (`valkey://` is the same; with TLS `rediss://`,
    `valkeys://`; a socket `unix:///path`), with `?prefix=jobs` (default holdfast), `?wait=1` and others: see
    docs/redis.md.
    Raises ConfigError for any other URL.
    """
    parts = _parts(url)
    clock = clock or SystemClock()
    match parts.scheme:
        case "memory":
            return _memory(url, clock)
        case "sqlite":
            return _sqlite(url, parts, clock)
        case "postgresql" | "postgres":
            return _postgres(url, parts)
        case "redis" | "rediss" | "valkey" | "valkeys" | "unix":
            return _redis(url, parts)
        case "":
            raise _refusal(url, "it has no scheme")
        case _:
            raise _refusal(url, f"there is no store for {parts.scheme}://")


def _parts(url: str) -> SplitResult:
    with suppress(ValueError):
        return urlsplit(url)
    # Its own error, and what it is the context of, may have the password in it.
    raise _refusal(
        url,
        "it cannot be taken apart: [ ] stand around an IPv6 address; in a password, signs such as @ / : ? # [ ] are "
        "written %40 %2F %3A %3F %23 %5B %5D",
    )


def _memory(url: str, clock: Clock) -> Store:
    from holdfast.stores.memory import MemoryStore

    if url[len("memory") :] != "://":
        raise _refusal(url, "memory:// takes no host, path or options")
    return MemoryStore(clock)


def _sqlite(url: str, parts: SplitResult, clock: Clock) -> Store:
    from holdfast.stores.sqlite import SqliteStore

    if parts.netloc or not url[len("sqlite") :].startswith(":///"):
        raise _refusal(url, "a path follows three slashes: sqlite:///relative.db or sqlite:////absolute.db")
    if parts.fragment:
        raise _refusal(url, "a # in the path is written %23")
    path = unquote(parts.path[1:])
    if not path or path.endswith("/"):
        raise _refusal(url, "it names no file")
    if path == ":memory:":
        raise _refusal(url, "a database in memory belongs to one connection; for jobs in memory use memory://")
    return SqliteStore(path, durability=_durability(url, parts.query), clock=clock)


def _postgres(url: str, parts: SplitResult) -> Store:
    try:
        from holdfast.stores.postgres import PostgresStore
        from holdfast.stores.postgres.address import address_of
    except ImportError as error:
        if error.name and error.name.partition(".")[0] == "holdfast":
            raise
        raise _refusal(url, f"it needs psycopg, and: {error}: pip install 'holdfast[postgres]'") from error
    if not url.lstrip()[len(parts.scheme) :].startswith("://"):
        raise _refusal(url, f"two slashes follow: {parts.scheme}://user@host/database")
    try:
        return PostgresStore(address_of(parts, masked))
    except ValueError as error:
        raise _refusal(url, str(error)) from None


def _redis(url: str, parts: SplitResult) -> Store:
    try:
        from holdfast.stores.redis import RedisStore
        from holdfast.stores.redis.address import address_of
    except ImportError as error:
        if error.name and error.name.partition(".")[0] == "holdfast":
            raise
        raise _refusal(url, f"it needs redis-py, and: {error}: pip install 'holdfast[redis]'") from error
    if not url.lstrip()[len(parts.scheme) :].startswith("://"):
        raise _refusal(url, f"two slashes follow: {parts.scheme}://user@host/0")
    try:
        return RedisStore(address_of(parts))
    except ValueError as error:
        raise _refusal(url, str(error)) from None


def _durability(url: str, query: str) -> Literal["full", "normal"]:
    options = dict(parse_qsl(query, keep_blank_values=True))
    durability = options.pop("durability", "full")
    if options:
        raise _refusal(url, f"unknown option {', '.join(options)}; there is: durability")
    match durability:
        case "full" | "normal":
            return durability
        case _:
            raise _refusal(url, f"durability={durability}: full or normal")


def _refusal(url: str, why: str) -> ConfigError:
    return ConfigError(f"store URL {masked(url)!r}: {why}. Schemes: {', '.join(SCHEMES)}")


# Also where slashes, or the scheme, were forgotten: what stands before the last @ is no better known then.
_PASSWORD = re.compile(r"(://[^/:@]*:|^[^/:@]*:/?[^/:@]*:|^[^/:@]*:(?!/)).*@", re.DOTALL)
_WORD = re.compile(r"(\b\w*(?:passw|secret|scram)\w*\s*=\s*)('(?:[^'\\]|\\.)*'|[^\s&#]+)", re.IGNORECASE)


def masked(url: str) -> str:
    """`url`, or what was taken for one, with every password and secret in it replaced by ***."""
    url = _PASSWORD.sub(r"\1***@", url)
    url = _WORD.sub(r"\1***", url)
    return re.sub(
        r"([?&]([^=&#]*)=)([^&#]+)", lambda option: option[1] + ("***" if _secret(option[2]) else option[3]), url
    )


def _secret(option: str) -> bool:
    name = unquote(option).lower()
    return name == "listen_url" or any(word in name for word in ("passw", "secret", "scram"))
