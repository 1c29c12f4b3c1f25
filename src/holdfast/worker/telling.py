"""Telling: hands on what a worker has counted, a moment after it was counted and all at once.

A run that is settled keeps its place in the black box until it was told of. So whoever outlives the worker knows of
each run whether it was told of, whenever the worker dies.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from uuid import UUID

from holdfast.observe.tally import Counts, News
from holdfast.worker.blackbox import BlackBox

EVERY = 0.02  # seconds
UNTOLD_MOST = 500  # runs


class Telling:
    """Of one worker, on its loop. `hand_on` is given all news."""

    def __init__(self, counts: Counts, box: BlackBox, hand_on: Callable[[News], object]) -> None:
        self._counts = counts
        self._box = box
        self._hand_on = hand_on
        self._timer: asyncio.TimerHandle | None = None

    def settled(self, keys: Sequence[tuple[UUID, int]]) -> None:
        """Runs are on record."""
        if self._box.settled(keys, self._counts.number) >= UNTOLD_MOST:
            asyncio.get_running_loop().call_soon(self.now)  # once this batch is counted
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(EVERY, self.now)

    def now(self) -> None:
        """Tells of all that was counted."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        news = self._counts.take()
        try:
            if news is not None:
                self._hand_on(news)
        finally:
            self._box.told()
