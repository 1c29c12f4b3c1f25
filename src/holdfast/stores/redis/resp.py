"""Commands as they are sent, and the server's refusals."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeAlias, cast

from redis import exceptions

Argument: TypeAlias = bytes | str | int
Reply: TypeAlias = Any  # bytes, int, None, lists of these; of RESP3 also float, bool and dict


class Refusal(Exception):
    """What the server said instead of an answer: `NOSCRIPT …`. It stands where the reply would."""

    @property
    def code(self) -> str:
        """Its first word."""
        return str(self).partition(" ")[0]


# redis-py takes the first word away where it has a class for it, and tells it since version 8 alone.
_CODES: Mapping[type[exceptions.RedisError], str] = {
    exceptions.AskError: "ASK",
    exceptions.BusyLoadingError: "LOADING",
    exceptions.ClusterCrossSlotError: "CROSSSLOT",
    exceptions.ClusterDownError: "CLUSTERDOWN",
    exceptions.ExecAbortError: "EXECABORT",
    exceptions.MasterDownError: "MASTERDOWN",
    exceptions.MovedError: "MOVED",
    exceptions.NoPermissionError: "NOPERM",
    exceptions.NoScriptError: "NOSCRIPT",
    exceptions.OutOfMemoryError: "OOM",
    exceptions.ReadOnlyError: "READONLY",
    exceptions.TryAgainError: "TRYAGAIN",
}

_ECHO = re.compile(r",? with args beginning with:.*", re.DOTALL)
_NO_PASSWORD = ("Authentication required", "HELLO must be called with")  # where one is wanted


def refusal_of(error: exceptions.RedisError) -> Refusal | None:
    """What the server said, in its own words but for an "ERR " before them; None: it said nothing.

    Of what it was asked it repeats the command at most: an argument may be a password, or a job's.
    """
    words = _ECHO.sub("", str(error))
    if isinstance(error, exceptions.AuthenticationError):
        code = "NOAUTH" if words.startswith(_NO_PASSWORD) else "WRONGPASS"
    elif not isinstance(error, (exceptions.ResponseError, exceptions.BusyLoadingError)):
        return Refusal(words) if words.startswith("max number of clients") else None
    else:
        code = _CODES.get(type(error), "")
    return Refusal(f"{code} {words}" if code else words.removeprefix("ERR "))


# Some µs for each of the hundreds of arguments of a batch are what redis-py's own packing takes, so it is not used.
def _packer() -> Callable[[tuple[Argument, ...]], bytes] | None:
    try:
        import hiredis
    except ImportError:
        return None
    return cast("Callable[[tuple[Argument, ...]], bytes]", hiredis.pack_command)


_pack = _packer()


def packed(arguments: Sequence[Argument]) -> bytes:
    """The arguments as they stand in a command, without their count before them."""
    if _pack is not None:
        with suppress(TypeError):  # it takes no bool
            whole = _pack(tuple(arguments))
            return whole[whole.index(b"\n") + 1 :]
    return _plainly_packed(arguments)


def _plainly_packed(arguments: Sequence[Argument]) -> bytes:
    parts = list[bytes]()
    for argument in arguments:
        if isinstance(argument, str):
            word = argument.encode()
        else:
            word = argument if isinstance(argument, bytes) else b"%d" % argument
        parts.append(b"$%d\r\n%b\r\n" % (len(word), word))
    return b"".join(parts)


def command(*arguments: Argument) -> bytes:
    """A whole command."""
    return b"*%d\r\n%b" % (len(arguments), packed(arguments))


def pairs_of(reply: Reply) -> list[tuple[bytes, bytes]]:
    """Fields and values of a hash: RESP2 has them in a row, RESP3 as a map."""
    if isinstance(reply, dict):
        return list(cast("dict[bytes, bytes]", reply).items())
    return list(zip(reply[::2], reply[1::2], strict=True))
