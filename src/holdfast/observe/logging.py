"""Log lines: every one is an event with fields, shown for people or as key=value; the job's id is on each line about a job."""

from __future__ import annotations

import logging
from typing import Any

WARNING = logging.WARNING

jobs = logging.getLogger("holdfast.job")
workers = logging.getLogger("holdfast.worker")
stores = logging.getLogger("holdfast.store")


class Told:
    """A log message that keeps its event and fields; as text it is key=value."""

    __slots__ = ("event", "fields")

    def __init__(self, event: str, fields: dict[str, Any]) -> None:
        self.event = event
        self.fields = fields

    def __str__(self) -> str:
        return " ".join([f"event={self.event}", *(f"{k}={quoted(v)}" for k, v in self.fields.items() if v is not None)])


def tell(logger: logging.Logger, level: int, event: str, /, **fields: Any) -> None:
    """Logs one event. Costs one comparison when the level is off."""
    if logger.isEnabledFor(level):
        logger.log(level, Told(event, fields))


def quoted(value: object) -> str:
    """A value for key=value: bare where it can be, else in quotes with everything unprintable escaped."""
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    if text and all(c.isprintable() and c not in " \"=\\" for c in text):
        return text
    return '"' + "".join(_escaped(c) for c in text) + '"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    if character == "\n":
        return "\\n"
    return character if character.isprintable() else f"\\u{ord(character):04x}"
