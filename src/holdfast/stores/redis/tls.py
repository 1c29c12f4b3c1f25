"""TLS as a URL's options say it: their names are those of redis-py."""

from __future__ import annotations

import ssl
from collections.abc import Mapping

OPTIONS = (
    "ssl_ca_certs",
    "ssl_ca_path",
    "ssl_certfile",
    "ssl_keyfile",
    "ssl_password",
    "ssl_cert_reqs",
    "ssl_check_hostname",
)
_MODES = {"required": ssl.CERT_REQUIRED, "optional": ssl.CERT_OPTIONAL, "none": ssl.CERT_NONE}


def context_of(options: Mapping[str, str]) -> ssl.SSLContext:
    """ValueError, with the option and no secret, for what cannot be used."""
    mode = options.get("ssl_cert_reqs", "required")
    if mode not in _MODES:
        raise ValueError(f"ssl_cert_reqs={mode}: required, optional or none")
    check = options.get("ssl_check_hostname", "true")
    if check not in ("true", "false"):
        raise ValueError(f"ssl_check_hostname={check}: true or false")
    context = _trusting(options)
    context.check_hostname = check == "true" and mode == "required"
    context.verify_mode = _MODES[mode]
    _show(context, options)
    return context


def _trusting(options: Mapping[str, str]) -> ssl.SSLContext:
    file, folder = options.get("ssl_ca_certs"), options.get("ssl_ca_path")
    try:
        return ssl.create_default_context(cafile=file, capath=folder)
    except (OSError, ValueError) as error:
        given = " ".join(f"{name}={options[name]}" for name in ("ssl_ca_certs", "ssl_ca_path") if name in options)
        raise ValueError(f"{given}: {_words(error)}") from None


def _show(context: ssl.SSLContext, options: Mapping[str, str]) -> None:
    """What the client shows of itself."""
    if "ssl_certfile" not in options:
        if lone := [name for name in ("ssl_keyfile", "ssl_password") if name in options]:
            raise ValueError(f"{lone[0]}: it belongs to ssl_certfile=, which is not given")
        return
    file, key = options["ssl_certfile"], options.get("ssl_keyfile")
    try:
        context.load_cert_chain(file, key, options.get("ssl_password", ""))
    except (OSError, ValueError) as error:
        raise ValueError(f"ssl_certfile={file}{f' ssl_keyfile={key}' if key else ''}: {_words(error)}") from None


def _words(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
