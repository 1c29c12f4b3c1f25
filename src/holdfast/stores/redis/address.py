"""Where a store on Redis or Valkey is: its URL taken apart.

What cannot be right is refused here, before anything is opened: so nobody waits for a server to come back.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import SplitResult, parse_qsl, quote, unquote

from holdfast.clock import SECOND, Span
from holdfast.stores.redis.limits import CONNECT, WAIT
from holdfast.stores.redis.tls import OPTIONS as TLS_OPTIONS
from holdfast.stores.redis.tls import tls_of

_OURS = ("prefix", "wait", "wait_timeout", "allow_eviction", "protocol", "connect_timeout", "db")
_PREFIX = re.compile(r"[A-Za-z0-9_. -]{1,64}")  # no { } :, which part the names of keys
_POLICY = re.compile(r"(allkeys|volatile)-[a-z]+")
_ENCODED = "in a password, signs such as @ / : ? # are written %40 %2F %3A %3F %23"


@dataclass(frozen=True)
class Address:
    """`url` is for people and has no secrets in it. Of `host` and `path` (a unix socket) one is empty."""

    url: str
    host: str = "localhost"
    port: int = 6379
    path: str = ""
    db: int = 0
    user: str = ""
    password: str | None = field(default=None, repr=False)
    prefix: str = "holdfast"
    wait: int = 0  # replicas
    wait_timeout: Span = WAIT
    allow_eviction: str = ""
    protocol: Literal[2, 3] = 3
    connect_timeout: Span = CONNECT
    tls: Mapping[str, Any] | None = field(default=None, repr=False)  # what an SSLConnection takes; None: no TLS


def address_of(parts: SplitResult) -> Address:
    """The address that a URL names. ValueError, with the reason and no secret, if it is none."""
    if parts.fragment or parts.netloc.count("@") > 1 or "@" in parts.path or "@" in parts.query:
        raise ValueError(f"it has a #, or an @ more, or one behind a / or ?: {_ENCODED}")
    options = _options(parts)
    user, password = _login(parts)
    host, port, path = _end(parts)
    db = _number("the database", options.pop("db", "") or ("" if path else parts.path.strip("/")), 0, 1 << 30)
    secure = parts.scheme in ("rediss", "valkeys")
    tls = {name: options.pop(name) for name in TLS_OPTIONS if name in options}
    if tls and not secure:
        raise ValueError(f"{', '.join(tls)}: TLS is spoken with rediss:// or valkeys://")
    prefix = options.get("prefix", "holdfast")
    if not _PREFIX.fullmatch(prefix):
        raise ValueError(f"prefix={prefix!r}: 1 to 64 letters, digits, blanks, _ . -")
    eviction = options.get("allow_eviction", "")
    if eviction and not _POLICY.fullmatch(eviction):
        raise ValueError(f"allow_eviction={eviction}: the server's maxmemory-policy, such as allkeys-lru")
    protocol = options.get("protocol", "3")
    if protocol not in ("2", "3"):
        raise ValueError(f"protocol={protocol}: 2 or 3")
    return Address(
        url=_shown(parts, user, host, port, path, db, prefix),
        host=host,
        port=port,
        path=path,
        db=db,
        user=user,
        password=password,
        prefix=prefix,
        wait=_number("wait", options.get("wait", ""), 0, 100),
        wait_timeout=_number(
            "wait_timeout", options.get("wait_timeout", ""), WAIT, 60 * SECOND, least=1, of=" of milliseconds"
        ),
        allow_eviction=eviction,
        protocol=2 if protocol == "2" else 3,
        connect_timeout=SECOND
        * _number(
            "connect_timeout", options.get("connect_timeout", ""), CONNECT // SECOND, 3600, least=1, of=" of seconds"
        ),
        tls=tls_of(tls) if secure else None,
    )


def _options(parts: SplitResult) -> dict[str, str]:
    options = dict[str, str]()
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name not in _OURS and name not in TLS_OPTIONS:
            raise ValueError(f"there is no option {name}=; there are {', '.join((*_OURS, *TLS_OPTIONS))}")
        if name in options:
            raise ValueError(f"{name}= is given twice")
        options[name] = value
    return options


def _login(parts: SplitResult) -> tuple[str, str | None]:
    user, password = unquote(parts.username or ""), parts.password
    return user, None if password is None else unquote(password)


def _end(parts: SplitResult) -> tuple[str, int, str]:
    if parts.scheme == "unix":
        if parts.hostname or not parts.path.strip("/"):
            raise ValueError("the path of the socket follows three slashes: unix:///run/redis.sock")
        return "", 0, unquote(parts.path)
    try:
        port = parts.port
    except ValueError:
        raise ValueError(f"its port is a number up to 65535: {_ENCODED}") from None
    return parts.hostname or "localhost", 6379 if port is None else port, ""


def _number(name: str, text: str, default: int, most: int, least: int = 0, of: str = "") -> int:
    if not text:
        return default
    if not re.fullmatch(r"[0-9]{1,12}", text) or not least <= int(text) <= most:
        raise ValueError(f"{name}={text}: a whole number{of} from {least} to {most}")
    return int(text)


def _shown(parts: SplitResult, user: str, host: str, port: int, path: str, db: int, prefix: str) -> str:
    login = f"{quote(user, safe='')}@" if user else ""
    place = path or (f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    end = f"?db={db}" if path and db else f"/{db}" if db else ""
    if prefix != "holdfast":
        end += f"{'&' if '?' in end else '?'}prefix={quote(prefix)}"
    return f"{parts.scheme}://{login}{place}{end}"
