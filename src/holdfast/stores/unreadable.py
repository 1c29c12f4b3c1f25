"""Rows that cannot be decoded, because somebody else has written them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

_UNREADABLE = (ArithmeticError, LookupError, RecursionError, TypeError, ValueError)  # what decoding raises


def decoded(rows: Iterable[T], decode: Callable[[T], R]) -> tuple[list[R], list[tuple[T, str]]]:
    """The values of the rows that can be read, and the others, each with the reason."""
    values: list[R] = []
    others: list[tuple[T, str]] = []
    for row in rows:
        try:
            values.append(decode(row))
        except _UNREADABLE as error:
            others.append((row, f"{type(error).__name__}: {error}"))
    return values, others
