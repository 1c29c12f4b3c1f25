"""Rows that cannot be decoded, because somebody else has written them; the log is told of each once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import TypeVar
from uuid import UUID

from holdfast.observe.logging import stores, tell

T = TypeVar("T")
R = TypeVar("R")

UNREADABLE = (ArithmeticError, LookupError, RecursionError, TypeError, ValueError)  # what decoding raises


def decoded(rows: Iterable[T], decode: Callable[[T], R]) -> tuple[list[R], list[tuple[T, str]]]:
    """The values of the rows that can be read, and the others, each with the reason."""
    values: list[R] = []
    others: list[tuple[T, str]] = []
    for row in rows:
        try:
            values.append(decode(row))
        except UNREADABLE as error:
            others.append((row, f"{type(error).__name__}: {error}"))
    return values, others


class Told:
    """Which unreadable rows of a store the log has been told of. Rows: (id, why)."""

    def __init__(self) -> None:
        self._ids = set[UUID]()

    def buried(self, rows: Iterable[tuple[UUID, str]]) -> None:
        """They are dead now."""
        for job, why in rows:
            self._ids.add(job)
            self._tell(job, why, "it is dead now")

    def left_out(self, rows: Iterable[tuple[UUID, str]]) -> None:
        """They are missing in a listing."""
        for job, why in rows:
            if job not in self._ids:
                self._ids.add(job)
                self._tell(job, why, "listings leave it out")

    def _tell(self, job: UUID, why: str, then: str) -> None:
        tell(stores, logging.ERROR, "unreadable-row", job=job, message=f"row cannot be read: {why}; {then}")
