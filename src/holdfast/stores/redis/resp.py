"""Commands as they are sent, and what comes back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias

Argument: TypeAlias = bytes | str | int
Reply: TypeAlias = Any  # bytes, int, None, lists of these; of RESP3 also float, bool and dict


class Refusal(Exception):
    """What the server said instead of an answer: `NOSCRIPT …`. It stands where the reply would."""

    @property
    def code(self) -> str:
        """Its first word."""
        return str(self).partition(" ")[0]


def packed(arguments: Iterable[Argument]) -> bytes:
    """The arguments as they stand in a command, without their count before them."""
    parts = list[bytes]()
    for argument in arguments:
        if isinstance(argument, str):
            argument = argument.encode()  # noqa: PLW2901  # the same in bytes
        elif isinstance(argument, int):
            argument = b"%d" % argument  # noqa: PLW2901
        parts.append(b"$%d\r\n%b\r\n" % (len(argument), argument))
    return b"".join(parts)


def command(*arguments: Argument) -> bytes:
    """A whole command."""
    return b"*%d\r\n%b" % (len(arguments), packed(arguments))
