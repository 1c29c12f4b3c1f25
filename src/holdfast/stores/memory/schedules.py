"""The schedules, and which of them are due."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.clock import Instant
from holdfast.rulings import ready_at, stepped, steps
from holdfast.store import Entry, Receipt, Schedules, Tick, Ticked


class Timetable:
    """Every schedule by its name."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}

    def shown(self, names: Sequence[str] | None, now: Instant) -> Schedules:
        chosen = sorted(self._entries if names is None else self._entries.keys() & set(names))
        return Schedules(now, [self._entries[name] for name in chosen])

    def due(self, limit: int, now: Instant) -> Schedules:
        coming = [(at, name) for name, entry in self._entries.items() if (at := ready_at(entry, now)) is not None]
        over = [name for at, name in sorted(coming) if at <= now]
        over.sort(key=lambda name: (self._entries[name].next_at or 0, name))
        chosen = over[: max(0, limit)]
        following = min((at for at, name in coming if name not in chosen), default=None)
        entries = [self._entries[name]._replace(ticks=()) for name in chosen]
        return Schedules(now, entries, None if following is None else max(0, following - now))

    def put(self, entry: Entry) -> bool:
        stored = self._entries.get(entry.name) or Entry(entry.name, "", "", None)
        if stored.revision != entry.revision:
            return False
        self._entries[entry.name] = entry._replace(
            revision=entry.revision + 1,
            ticks=stored.ticks,
            made=stored.made,
            skipped=stored.skipped,
            missed=stored.missed,
        )
        return True

    def drop(self, name: str, revision: int) -> bool:
        if name not in self._entries or self._entries[name].revision != revision:
            return False
        del self._entries[name]
        return True

    def waits_for(self, tick: Tick, now: Instant) -> bool:
        """Whether nobody has settled the tick yet."""
        return steps(self._entries.get(tick.name), tick, now)

    def step(self, tick: Tick, receipt: Receipt | None, now: Instant) -> Ticked:
        self._entries[tick.name], answer = stepped(self._entries[tick.name], tick, receipt, now)
        return answer
