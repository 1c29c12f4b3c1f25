"""What is told: an event with its fields; as text it is key=value, bounded, and nothing in it is obeyed."""

from __future__ import annotations

import re
from typing import Any

LINE_LIMIT, VALUE_LIMIT = 4_000, 2_000  # bytes; of a line: a pipe takes so many at once or not at all
_MARK = 24  # bytes that say how much was cut
MESSAGE = "message"  # the event of a plain log record


class Told:
    """A log message that keeps its event and fields; as text it is key=value."""

    __slots__ = ("event", "fields")

    def __init__(self, event: str, fields: dict[str, Any]) -> None:
        self.event = event
        self.fields = fields

    def __getattr__(self, name: str) -> Any:
        return getattr(str(self), name)  # an application's filter takes a record's msg for a text

    def __contains__(self, part: str) -> bool:
        return part in str(self)

    def __str__(self) -> str:
        return " ".join([f"event={self.event}", *[f"{k}={quoted(v)}" for k, v in self.fields.items() if v is not None]])


_bare = re.compile(r"[!#-<>-\[\]-~]{1,100}").fullmatch  # ASCII that reads the same without quotes, the usual case
_special = re.compile(r'[ "=\\]').search


def quoted(value: object) -> str:
    """A value for key=value: bare where it can be, else in quotes with everything unprintable escaped."""
    if isinstance(value, float):
        return repr(round(value, 3))
    text = str(value)
    if _bare(text):
        return text
    text = within_bytes(text, VALUE_LIMIT)
    if not text.isprintable():
        return '"' + within_bytes("".join(map(_escaped, text)), VALUE_LIMIT) + '"'
    if text and not _special(text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    if character == "\n":
        return "\\n"
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def bytes_of(text: str) -> int:
    """The bytes that it is written as."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "backslashreplace"))


def within_bytes(text: str, limit: int) -> str:
    """`text`, cut so that it has at most `limit` bytes, which it then says."""
    if bytes_of(text) <= limit:
        return text
    kept = text.encode("utf-8", "backslashreplace")[: limit - _MARK].decode("utf-8", "ignore")
    return f"{kept}…[{max(1, len(text) - len(kept))} more]"


def within(text: str, limit: int) -> str:
    """`text`, cut after `limit` characters, which it then says."""
    return text if len(text) <= limit else f"{text[:limit]}…[{len(text) - limit} more]"
