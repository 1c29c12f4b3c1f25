"""The ticker: makes the jobs of schedules whose time has come. Safe for every worker to run: the store lets one win."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol, TypeAlias

from holdfast.clock import LATEST, SECOND, Instant, Span, moment
from holdfast.errors import ConfigError, StoreAway, StoreError
from holdfast.observe.logging import tell, workers
from holdfast.schedule.entry import read, tick_id
from holdfast.schedule.rule import LATE, plan
from holdfast.store import Entry, Schedules, Store, Tick, Ticked

DUE_MOST = 100  # schedules of one step
LOOKED_MOST = 64 * DUE_MOST  # of one that looks past those which nobody here can settle
LOOK_EVERY = 5.0  # seconds, for those that are new or changed
AGAIN = 0.2  # seconds after which it looks again at what was somebody else's, or busy; then twice as many, and so on


class Counted(Protocol):
    """Who counts ticks."""

    def ticked(self, ticked: Ticked, late: float, /) -> None:
        """What became of a tick, and how many seconds after its time."""
        ...


class Ticker:
    """A step for `repeat`. Schedules that it cannot settle stay due: it looks past them, for those behind them."""

    def __init__(self, store: Store, counted: Counted | None = None) -> None:
        self._store = store
        self._counted = counted
        self._most = DUE_MOST
        self._told: set[tuple[str, int]] = set()  # the entries that cannot be understood, or settled, here
        self._later: dict[_Step, _Later] = {}  # what was not settled when it was tried

    async def step(self) -> float:
        """One tick of each schedule that is due; in how many seconds to look again."""
        found = await self._look()
        if await self._settled(found) or self._looks_further(found):
            return 0.0
        waits = [later.at - found.now for later in self._later.values()]
        return max(0, min(round(LOOK_EVERY * SECOND), found.next_in or LATEST, *waits)) / SECOND

    async def all(self) -> Span | None:
        """Settles every tick that is due; how long until the next one."""
        while await self._settled(found := await self._look()) or self._looks_further(found):
            pass
        return found.next_in or None

    async def _look(self) -> Schedules:
        found = await self._store.due(self._most)
        if not found.entries:
            self._most = DUE_MOST
        return found

    def _looks_further(self, found: Schedules) -> bool:
        """Whether others are due, behind those that were found and could not be settled."""
        if found.next_in != 0 or self._most >= LOOKED_MOST:
            return False
        self._most *= 2
        return True

    async def _settled(self, found: Schedules) -> bool:
        now, before = found.now, self._later
        known = {step: before[step] for entry in found.entries if (step := _step_of(entry)) in before}
        waiting = {step: later for step, later in known.items() if later.holds(now)}
        tried = [entry for entry in found.entries if _step_of(entry) not in waiting]
        tried.sort(key=lambda entry: _step_of(entry) in known)  # others first, since a busy one takes its time
        ticks = [tick for entry in tried if (tick := self._planned(entry, now)) is not None]
        answers = await self._answers(ticks) if ticks else ()
        left = [_step_of(tick) for tick, ticked in zip(ticks, answers, strict=True) if ticked is None]
        self._later = waiting | {step: _Later.after(known.get(step), now) for step in left}
        return self._tell(ticks, answers)

    async def _answers(self, ticks: Sequence[Tick]) -> Sequence[Ticked | None]:
        try:
            return await self._store.tick(ticks)
        except StoreAway:
            raise
        except Exception:  # noqa: BLE001  # whatever the store met in one of them: the others are not to wait for it
            return [await self._answer(tick) for tick in ticks]

    async def _answer(self, tick: Tick) -> Ticked | None:
        try:
            return (await self._store.tick([tick]))[0]
        except StoreAway:
            raise
        except Exception as error:  # noqa: BLE001
            if self._is_new(tick):
                text = f"{type(error).__name__}: {error}"
                tell(workers, logging.WARNING, "tick-failed", schedule=tick.name, message=text)
            return None

    def _planned(self, entry: Entry, now: Instant) -> Tick | None:
        """What to do about an entry that is due; None, told once, where this worker cannot know."""
        try:
            return tick_of(entry, now)
        except Exception as error:  # noqa: BLE001  # whatever it is: one entry is not to stop the others
            if self._is_new(entry):
                known = isinstance(error, (ConfigError, StoreError))
                text = str(error) if known else f"{type(error).__name__}: {error}"
                tell(workers, logging.WARNING, "schedule-unreadable", schedule=entry.name, message=text)
            return None

    def _is_new(self, what: Entry | Tick) -> bool:
        """Whether nothing was told of it yet."""
        told, self._told = self._told, self._told | {(what.name, what.revision)}
        return told != self._told

    def _tell(self, ticks: Sequence[Tick], answers: Sequence[Ticked | None]) -> bool:
        """Tells and counts what this worker has settled; whether that is any."""
        settled = [(tick, ticked) for tick, ticked in zip(ticks, answers, strict=True) if ticked is not None]
        for tick, ticked in settled:
            for one in _parts(tick, ticked):
                if self._counted is not None:
                    self._counted.ticked(one, max(0, one.at - one.due) / SECOND)
                _tell_of(tick.name, one)
        return bool(settled)


def tick_of(entry: Entry, now: Instant) -> Tick:
    """The step that an entry which is due needs at `now`, by the store's clock.

    Raises StoreError where the entry cannot be read, ConfigError where its rule means nothing here, as without a zone.
    """
    definition = read(entry.text, entry.name).effective
    if definition is None or entry.next_at is None:
        raise StoreError(f"schedule {entry.name}: its entry in the store says nothing: delete it")
    if definition.job.queue != entry.queue or not 0 <= entry.next_at <= LATEST:
        raise StoreError(
            f"schedule {entry.name}: its entry in the store contradicts itself (queue {entry.queue}, and "
            f"{definition.job.queue} for its job; next tick {entry.next_at}): delete the schedule, and add it anew"
        )
    step = plan(definition.rule, entry.next_at, now)
    draft = definition.made(entry.name, tick_id(entry.name, step.at), step.at) if step.makes else None
    reason = f'nobody ticked in time (missed="{definition.rule.missed}")' if step.missed else ""
    return Tick(
        entry.name, entry.queue, entry.revision, entry.next_at, step.at, step.next_at, draft, step.missed, reason
    )


_Step: TypeAlias = tuple[str, int, Instant | None]


def _step_of(what: Entry | Tick) -> _Step:
    return what.name, what.revision, what.next_at if isinstance(what, Entry) else what.due


class _Later(NamedTuple):
    """When a step that was somebody else's, or busy, is tried again: after pauses that double."""

    at: Instant
    pause: Span

    @classmethod
    def after(cls, before: _Later | None, now: Instant) -> _Later:
        most = round(LOOK_EVERY * SECOND)
        pause = round(AGAIN * SECOND) if before is None else min(2 * before.pause, most)
        return cls(now + pause, pause)

    def holds(self, now: Instant) -> bool:
        return 0 < self.at - now <= self.pause  # more, where the clock was set back


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
