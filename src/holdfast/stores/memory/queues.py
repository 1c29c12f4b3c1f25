"""What is declared of queues, how many places are taken in each, and whose place is given up first."""

from __future__ import annotations

from collections.abc import Mapping
from heapq import heapify, heappop, heappush
from uuid import UUID

from holdfast.clock import Instant
from holdfast.job import QueueTerms
from holdfast.rulings import Said
from holdfast.store import Authority, Room
from holdfast.stores.memory.rows import Row

_SLACK = 64  # entries that a queue's heap may hold beside twice its jobs, before it is made anew


class Queue:
    """`admitted`: its unfinished jobs, `dropped`: those dropped since it was declared."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.said = Said()
        self.admitted = 0
        self.dropped = 0
        # A heap of all that may be dropped, made when it is first needed; what was started since is still in it.
        self._oldest: list[tuple[Instant, UUID]] | None = None

    @property
    def terms(self) -> QueueTerms:
        return self.said.terms

    @property
    def known(self) -> bool:
        return self.said != Said()

    def declare(self, terms: QueueTerms | None, by: Authority) -> None:
        self.said = self.said.after(terms, by)
        if not self.known:
            self.dropped = 0

    def crowded(self) -> Room | None:
        """The queue as it is met, if it has no place left."""
        size, when_full, block_timeout, _ = self.terms
        return None if size is None or self.admitted < size else Room(self.admitted, size, when_full, block_timeout)

    def admit(self, row: Row) -> None:
        self.admitted += 1
        if self._oldest is not None:
            heappush(self._oldest, (row.enqueued_at, row.id))
            if len(self._oldest) > 2 * self.admitted + _SLACK:
                self._oldest = None

    def oldest_unstarted(self, rows: Mapping[UUID, Row]) -> Row | None:
        """Of its jobs among `rows`, the one that is dropped first."""
        if self._oldest is None:
            mine = (row for row in rows.values() if row.queue == self.name and row.unstarted)
            self._oldest = [(row.enqueued_at, row.id) for row in mine]
            heapify(self._oldest)
        while self._oldest:
            enqueued_at, job = self._oldest[0]
            row = rows.get(job)
            if row is not None and row.unstarted and row.enqueued_at == enqueued_at:
                return row
            heappop(self._oldest)
        return None
