"""The ticker: makes the jobs of schedules whose time has come. Safe for every worker to run: the store lets one win."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Protocol

from holdfast.clock import SECOND, Instant, moment
from holdfast.errors import ConfigError, StoreError
from holdfast.observe.logging import tell, workers
from holdfast.schedule.entry import read, tick_id
from holdfast.schedule.rule import LATE, plan
from holdfast.store import Entry, Schedules, Store, Tick, Ticked

DUE_MOST = 100  # schedules of one step
LOOK_EVERY = 5.0  # seconds, for those that are new or changed
AGAIN = 0.2  # seconds after which it looks again where all was somebody else's, or busy


class Counted(Protocol):
    """Who counts ticks."""

    def ticked(self, ticked: Ticked, late: float, /) -> None:
        """What became of a tick, and how many seconds after its time."""
        ...


class Ticker:
    """A step for `repeat`."""

    def __init__(self, store: Store, counted: Counted | None = None) -> None:
        self._store = store
        self._counted = counted
        self._told: set[tuple[str, int]] = set()  # the entries that cannot be understood here

    async def step(self) -> float:
        """One tick of each schedule that is due; in how many seconds to look again."""
        found = await self._store.due(DUE_MOST)
        if await self._settled(found):
            return 0.0
        pause = LOOK_EVERY if found.next_in is None else min(LOOK_EVERY, found.next_in / SECOND)
        return min(AGAIN, pause) if found.entries else pause

    async def settled(self) -> bool:
        """Settles one tick of each schedule that is due; whether there was any."""
        return await self._settled(await self._store.due(DUE_MOST))

    async def _settled(self, found: Schedules) -> bool:
        ticks = [tick for entry in found.entries if (tick := self._planned(entry, found.now)) is not None]
        return bool(ticks) and self._tell(ticks, await self._store.tick(ticks))

    def _planned(self, entry: Entry, now: Instant) -> Tick | None:
        """What to do about an entry that is due; None, told once, where this worker cannot know."""
        try:
            return tick_of(entry, now)
        except (ConfigError, StoreError) as error:
            if (entry.name, entry.revision) not in self._told:
                self._told.add((entry.name, entry.revision))
                tell(workers, logging.WARNING, "schedule-unreadable", schedule=entry.name, message=str(error))
            return None

    def _tell(self, ticks: Sequence[Tick], answers: Sequence[Ticked | None]) -> bool:
        """Tells and counts what this worker has settled; whether that is any."""
        settled = [(tick, ticked) for tick, ticked in zip(ticks, answers, strict=True) if ticked is not None]
        for tick, ticked in settled:
            for one in _parts(tick, ticked):
                if self._counted is not None:
                    self._counted.ticked(one, max(0, one.at - one.due) / SECOND)
                _tell_of(tick.name, one)
        return bool(settled)


def tick_of(entry: Entry, now: Instant) -> Tick | None:
    """The step that an entry which is due needs at `now`, by the store's clock.

    Raises StoreError where the entry cannot be read, ConfigError where its rule means nothing here, as without a zone.
    """
    definition = read(entry.text, entry.name).effective
    if definition is None or entry.next_at is None:
        return None
    step = plan(definition.rule, entry.next_at, now)
    draft = definition.made(entry.name, tick_id(entry.name, step.at), step.at) if step.makes else None
    reason = f'nobody ticked in time (missed="{definition.rule.missed}")' if step.missed else ""
    return Tick(
        entry.name, entry.queue, entry.revision, entry.next_at, step.at, step.next_at, draft, step.missed, reason
    )


def _parts(tick: Tick, ticked: Ticked) -> Iterable[Ticked]:
    """What was passed over with it is not in the answer of a tick that made a job."""
    if tick.draft is not None and tick.missed:
        yield Ticked(tick.due, ticked.at, "missed", reason=tick.reason, count=tick.missed)
    yield ticked


def _tell_of(name: str, ticked: Ticked) -> None:
    late = ticked.at - ticked.due
    facts = {
        "schedule": name,
        "tick": moment(ticked.due).isoformat(timespec="seconds"),
        "count": ticked.count if ticked.count > 1 else None,
        "late": late / SECOND if late > LATE else None,
        "job": ticked.job,
        "reason": ticked.reason or None,
    }
    if ticked.outcome == "made":
        tell(workers, logging.DEBUG, "tick-made", **facts)
    elif ticked.outcome == "missed":
        tell(workers, logging.WARNING, "tick-missed", **facts)
    elif ticked.reason == "duplicate":  # its last job goes on, and overlap="skip" is for that
        tell(workers, logging.INFO, "tick-skipped", **facts)
    else:
        tell(workers, logging.WARNING, "tick-skipped", **facts)
