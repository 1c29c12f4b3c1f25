"""Rows that cannot be decoded: told once each and left out of answers; where a worker holds one, it is settled."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeVar

from holdfast.observe.logging import stores, tell
from holdfast.stores import unreadable
from holdfast.stores.columns import storable
from holdfast.stores.sqlite.statements import Row, Sql

R = TypeVar("R")


class Unreadable(NamedTuple):
    """One such row: `job` is its id as it stands there."""

    seq: int
    fence: int
    job: str
    why: str


def decoded(
    rows: Iterable[Row], decode: Callable[[Row], R], place: Callable[[Row], tuple[int, int, str]]
) -> tuple[list[R], list[Unreadable]]:
    """The values of the rows that can be read, and the others; `place` finds a row's seq, fence and id."""
    values, others = unreadable.decoded(rows, decode)
    return values, [Unreadable(*place(row), why) for row, why in others]


def bury(sql: Sql, rows: Sequence[Unreadable]) -> list[Unreadable]:
    """Settles them as dead, under the fence with which they were read; returns those that it met as they were."""
    now = sql.now()
    return [row for row in rows if sql.write("bury", now, storable(_reason(row)), row.seq, row.fence) > 0]


def _reason(row: Unreadable) -> str:
    return f"row cannot be read: {row.why}"


class Told:
    """Which unreadable rows of a store the log has been told of."""

    def __init__(self) -> None:
        self._seqs = set[int]()

    def buried(self, rows: Iterable[Unreadable]) -> None:
        """They are dead now."""
        for row in rows:
            self._seqs.add(row.seq)
            self._tell(row, "it is dead now")

    def left_out(self, rows: Iterable[Unreadable]) -> None:
        """They are missing in a listing."""
        for row in rows:
            if row.seq not in self._seqs:
                self._seqs.add(row.seq)
                self._tell(row, "listings leave it out")

    def _tell(self, row: Unreadable, then: str) -> None:
        tell(stores, logging.ERROR, "unreadable-row", job=row.job, seq=row.seq, message=f"{_reason(row)}; {then}")
