"""Watches the pulses of one worker process: how long each has stood still while the watcher itself was awake."""

from __future__ import annotations

from collections.abc import Sequence

EVERY = 1.0  # seconds between looks

LOOP, THREADS, OUTCOMES = range(3)
OUTCOMES_LEAST = 30.0  # seconds: that the store is away is noticed by a beat that does not come
NAMES = ("loop", "threads", "outcomes")


class Watch:
    """Of one child. A pulse that never beat is not judged: the child is still starting."""

    def __init__(self) -> None:
        self.still = [0.0, 0.0, 0.0]  # seconds, of the loop, of threads, and of the oldest outcome
        self._seen: Sequence[float] = (0.0, 0.0, 0.0)
        self._looked: float | None = None

    def look(self, pulses: Sequence[float], now: float, *, store_answers: bool) -> None:
        """Notes what a look at `now` found. While the store does not answer, outcomes cannot leave.

        Between two looks no more than twice their distance counts: if the watcher was stopped, so was the child.
        """
        step = 0.0 if self._looked is None else min(now - self._looked, 2 * EVERY)
        for which, (before, pulse) in enumerate(zip(self._seen, pulses, strict=True)):
            goes_on = not pulse or pulse != before or (which == OUTCOMES and not store_answers)
            self.still[which] = 0.0 if goes_on else self.still[which] + step
        self._seen, self._looked = pulses, now

    def stuck(self, limit: float | None) -> str | None:
        """Which pulse has stood still for `limit` seconds, if any has; None: nothing is ever stuck."""
        if limit is None:
            return None
        limits = (limit, limit, max(limit, OUTCOMES_LEAST))
        return next((name for name, still, most in zip(NAMES, self.still, limits, strict=True) if still >= most), None)
