"""Rows that cannot be decoded: the log is told of each once."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from uuid import UUID

from holdfast.observe.logging import stores, tell


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
