"""Who holds which unique key: at most one job of a queue each."""

from __future__ import annotations

from holdfast.clock import Instant
from holdfast.job import Draft, UniqueKey
from holdfast.stores.memory.rows import Row


class Keys:
    """The last job that took each key. A hold that is over is nobody's, and is forgotten when another takes the key."""

    def __init__(self) -> None:
        self._takers: dict[tuple[str, str], Row] = {}  # by queue and key

    def holder(self, draft: Draft, now: Instant) -> Row | None:
        """The job that holds the key of `draft` now."""
        taker = None if draft.unique is None else self._takers.get((draft.queue, draft.unique.text))
        return None if taker is None or _over(taker, now) else taker

    def holds(self, row: Row, now: Instant) -> bool:
        return row.draft.unique is not None and self.holder(row.draft, now) is row

    def take(self, row: Row) -> None:
        if row.draft.unique is not None:
            self._takers[row.queue, row.draft.unique.text] = row

    def free(self, row: Row) -> None:
        if row.draft.unique is not None and self._took(row, row.draft.unique):
            del self._takers[row.queue, row.draft.unique.text]

    def start(self, row: Row) -> None:
        """A claim took the job."""
        if row.draft.unique is not None and row.draft.unique.until == "started":
            self.free(row)

    def end(self, row: Row, now: Instant) -> None:
        """The job is final: its key is free, or held for its time."""
        unique = row.draft.unique
        if unique is None or not self._took(row, unique):
            return
        if unique.hold:
            row.holds_until = now + unique.hold
        else:
            self.free(row)

    def _took(self, row: Row, unique: UniqueKey) -> bool:
        return self._takers.get((row.queue, unique.text)) is row


def _over(taker: Row, now: Instant) -> bool:
    return taker.holds_until is not None and now >= taker.holds_until
