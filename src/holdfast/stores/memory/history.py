"""The history of each minute, and of each ten minutes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from holdfast.clock import MINUTE, Instant
from holdfast.rulings import added, higher
from holdfast.store import MINUTES_KEPT, TENS_KEPT, Level, Minutes, Tally


@dataclass(slots=True)
class _Step:
    tallies: dict[tuple[str, str, str], Tally] = field(default_factory=dict[tuple[str, str, str], Tally])
    levels: dict[str, Level] = field(default_factory=dict[str, Level])

    def add(self, tallies: Sequence[Tally], levels: Sequence[Level]) -> None:
        for tally in tallies:
            before = self.tallies.get(tally[:3])
            self.tallies[tally[:3]] = tally if before is None else added(before, tally)
        for level in levels:
            self.levels[level.queue] = higher(self.levels.get(level.queue, level), level)

    def shown(self, start: Instant) -> Minutes:
        return Minutes(
            start,
            [self.tallies[key] for key in sorted(self.tallies)],
            [self.levels[key] for key in sorted(self.levels)],
        )


class History:
    """Steps by their start, per length."""

    def __init__(self) -> None:
        self._steps: dict[int, dict[Instant, _Step]] = {MINUTE: {}, 10 * MINUTE: {}}

    def add(self, tallies: Sequence[Tally], levels: Sequence[Level], now: Instant) -> None:
        if not tallies and not levels:
            return
        for length, steps in self._steps.items():
            steps.setdefault(now - now % length, _Step()).add(tallies, levels)

    def shown(self, since: Instant, before: Instant, length: int) -> list[Minutes]:
        steps = self._steps[length]
        return [steps[start].shown(start) for start in sorted(steps) if since <= start < before]

    def prune(self, now: Instant) -> None:
        for (_, steps), kept in zip(self._steps.items(), (MINUTES_KEPT, TENS_KEPT), strict=True):
            for start in [start for start in steps if start < now - kept]:
                del steps[start]
