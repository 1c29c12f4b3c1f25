"""TLS as a URL's options say it: they are redis-py's, and are tried before anything is opened."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from redis.asyncio.connection import SSLConnection

OPTIONS = (
    "ssl_ca_certs",
    "ssl_ca_path",
    "ssl_certfile",
    "ssl_keyfile",
    "ssl_password",
    "ssl_cert_reqs",
    "ssl_check_hostname",
)
_MODES = ("required", "optional", "none")
_TRUSTED = ("ssl_ca_certs", "ssl_ca_path")
_SHOWN = ("ssl_certfile", "ssl_keyfile", "ssl_password")


def tls_of(options: Mapping[str, str]) -> Mapping[str, Any]:
    """What an SSLConnection takes. ValueError, with the option and no secret, for what cannot be used."""
    mode = options.get("ssl_cert_reqs", "required")
    if mode not in _MODES:
        raise ValueError(f"ssl_cert_reqs={mode}: required, optional or none")
    check = options.get("ssl_check_hostname", "true")
    if check not in ("true", "false"):
        raise ValueError(f"ssl_check_hostname={check}: true or false")
    if "ssl_certfile" not in options and (lone := [name for name in _SHOWN if name in options]):
        raise ValueError(f"{lone[0]}: it belongs to ssl_certfile=, which is not given")
    tls: dict[str, Any] = {
        **options,
        "ssl_cert_reqs": mode,
        "ssl_check_hostname": check == "true" and mode == "required",
    }
    if "ssl_certfile" in options:
        tls.setdefault("ssl_password", "")  # else a key that has one asks for it at the terminal
    _try(tls, _SHOWN)
    _try(tls, _TRUSTED)
    return tls


def _try(tls: Mapping[str, Any], names: tuple[str, ...]) -> None:
    given = {name: tls[name] for name in names if name in tls}
    try:
        SSLConnection(**given).ssl_context.get()  # pyright: ignore[reportUnknownMemberType]
    except (OSError, ValueError) as error:
        told = " ".join(f"{name}={text}" for name, text in given.items() if name != "ssl_password")
        raise ValueError(f"{told}: {getattr(error, 'strerror', None) or error}") from None
