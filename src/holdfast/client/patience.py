"""Whether one enqueue waits: for places in full queues, and for transactions of others that are open; for how long."""

from __future__ import annotations

import random
import time

from holdfast.clock import SECOND, short
from holdfast.context import current
from holdfast.job import Draft
from holdfast.store import Receipt

FIRST, MOST = 0.01, 0.25  # seconds between two tries; a place comes free without telling
OPEN_MOST, OPEN_LEAST = 5.0, 0.25  # seconds that a call waits for others' transactions; where nothing else would run


class Patience:
    """One call's. It is made where the caller is, since it must know which job it is in: one that must end waits no
    longer. `refuses`: why this call waits for nothing, if it does not.
    """

    def __init__(self, refuses: str = "") -> None:
        inside = current.get(None)
        self._inside = inside if inside is not None and inside.fence else None  # a detached one has no place
        self._refuses = refuses
        self._since: dict[str, float] = {}
        self._open_since: float | None = None
        self._pause = FIRST
        self.why = ""

    def waits(self, draft: Draft, receipt: Receipt) -> bool:
        """Whether to try this draft again. If not although its queue has producers wait, `why` says so.

        Raises Stop when the job that the caller is in must end.
        """
        if receipt.answer == "busy":
            return self._waits_for_others()
        room, queue = receipt.room, draft.queue
        if receipt.answer != "full" or room is None or room.when_full != "block":
            return False
        if self._refuses:
            self.why = f"; {self._refuses}"
        elif self._inside is not None and queue == self._inside.queue:
            self.why = "; a job does not wait for a place in its own queue, where it may hold the last one itself"
        elif room.block_timeout is None or self._waited(queue) < room.block_timeout / SECOND:
            if self._inside is not None:
                self._inside.check()
            return True
        else:
            self.why = f"; waited {short(room.block_timeout)} for a place"
        return False

    def _waits_for_others(self) -> bool:
        """Nearly always they are gone in a moment: what a user's transaction holds for long, the error tells."""
        now = time.monotonic()
        if self._open_since is None:
            self._open_since = now
        if self._inside is not None:
            self._inside.check()
        return now - self._open_since < (OPEN_LEAST if self._refuses else OPEN_MOST)

    def pause(self, queue: str, receipt: Receipt) -> float:
        """Seconds until the next try."""
        timeout = receipt.room and receipt.room.block_timeout
        pause, self._pause = self._pause * random.uniform(0.5, 1), min(self._pause * 1.5, MOST)
        return pause if timeout is None else min(pause, max(0.0, timeout / SECOND - self._waited(queue)))

    def progress(self, queue: str) -> None:
        """There was a place: the next wait is a new one."""
        self._since.pop(queue, None)
        self._pause = FIRST

    def _waited(self, queue: str) -> float:
        return time.monotonic() - self._since.setdefault(queue, time.monotonic())
