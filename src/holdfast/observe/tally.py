"""Counts of what became of attempts, and how long things took.

1. `Counts` is what one process has counted and not handed on yet: plain numbers, told where a thing is known;
2. `News` is what it hands on: to its supervisor, or to the `Totals` of its own process;
3. `Totals` is what a service has counted, its dead processes included, for a bounded number of names.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from holdfast.clock import SECOND
from holdfast.job import Claim, Outcome, State
from holdfast.observe.visible import visible
from holdfast.store import BUCKETS, Settled, Tally, Ticked

# How an attempt, or a job without one, ended. failed: tried again; released: given back; expired: never started.
STATUSES = ("succeeded", "failed", "dead", "cancelled", "snoozed", "released", "lost", "expired")
# Where the buckets end, in seconds; the last one has no end. Of runs and waits, and of calls to the store.
BOUNDS = (0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0)
CALL_BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
TASKS_MOST, QUEUES_MOST, PAIRS_MOST = 200, 100, 1_000
NAME_MOST = 100  # characters of one
OTHER = "other"  # what all names beyond those are called
FADES = 0.98  # of what is known of a queue's pace, with each look: half of it is gone after three minutes
PACE_UNKNOWN = 1.0  # seconds that a job is taken to run while nothing is known of any

# Of a cell: how many attempts ended, the seconds that they ran and had waited, and both once more in buckets.
COUNT, RAN, WAITED, RAN_AT, WAITED_AT = 0, 1, 2, 3, 3 + BUCKETS
CELL = 3 + 2 * BUCKETS
Cell: TypeAlias = list[Any]  # of whole numbers, but for the seconds
Key: TypeAlias = tuple[str, str, str]  # queue, task, status
Lengths: TypeAlias = list[Any]  # their sum in seconds, then BUCKETS numbers

_SUCCEEDED, _DEAD, _CANCELLED = State.SUCCEEDED, State.DEAD, State.CANCELLED  # looked up once
_BOUNDS_MS = [int(bound * SECOND) for bound in BOUNDS]
_SHORT, _SHORT_MS = BOUNDS[0], _BOUNDS_MS[0]


class News(NamedTuple):
    """What was counted since the last: cells as [queue, task, status, …], events as [name, queue, how many], lengths of
    time as [kind, label, …].
    """

    number: int
    cells: Sequence[Sequence[Any]]
    events: Sequence[Sequence[Any]]
    lengths: Sequence[Sequence[Any]]


class Counts:
    """Of one process. To be told, and emptied, on one thread alone."""

    def __init__(self) -> None:
        self.number = 1  # of the news that are being gathered
        self._cells: dict[Key, Cell] = {}
        self._events: dict[tuple[str, str], int] = {}
        self._lengths: dict[tuple[str, str], Lengths] = {}

    def settled(self, claim: Claim, outcome: Outcome, settled: Settled, ran: float | None = None) -> None:
        """The store has accepted how a claim ended. `ran`: seconds, None if it was never begun, or nobody knows."""
        status = "succeeded" if settled.state is _SUCCEEDED else _status(outcome, settled.state)
        if status != "succeeded" and outcome.crashes > claim.crashes:
            self.event("crashes", claim.queue)
        if ran is None:
            self.ended(claim.queue, claim.task, status)
        else:
            self._ran(status, [(claim, ran)])

    def succeeded(self, runs: Iterable[tuple[Claim, float]]) -> None:
        """As `settled`, of many that succeeded, with the seconds that each ran."""
        self._ran("succeeded", runs)

    def _ran(self, status: str, runs: Iterable[tuple[Claim, float]]) -> None:
        """This is done for every job, and most are of the same task as the one before, and short."""
        queue = task = None
        cell: Cell = []
        for claim, ran in runs:
            if claim.task != task or claim.queue != queue:
                queue, task = claim.queue, claim.task
                cell = self._cell((queue, task, status))
            cell[0] += 1  # COUNT, and so on: a name costs a look-up
            cell[1] += ran
            cell[3 if ran <= _SHORT else 3 + bisect_left(BOUNDS, ran)] += 1
            if claim.losses or claim.crashes:  # how long it had waited is not known: it was being run for a while
                continue
            waited = claim.claimed_at - claim.due_at
            if waited > _SHORT_MS:
                cell[15 + bisect_left(_BOUNDS_MS, waited)] += 1
            else:
                cell[15] += 1
            if waited > 0:
                cell[2] += waited / SECOND

    def ended(self, queue: str, task: str, status: str, ran: float | None = None) -> None:
        """A job ended otherwise than by its own worker's word."""
        cell = self._cell((queue, task, status))
        cell[COUNT] += 1
        if ran is not None:
            cell[RAN] += ran
            cell[RAN_AT + bisect_left(BOUNDS, ran)] += 1

    def event(self, name: str, queue: str = "", count: int = 1) -> None:
        """Something happened that is only counted: "crashes", "rescued", "stale", or a tick's outcome."""
        key = (name, queue)
        self._events[key] = self._events.get(key, 0) + count

    def ticked(self, ticked: Ticked, late: float) -> None:
        """A schedule's tick was settled, so many seconds after its time."""
        self.event(f"tick-{ticked.outcome}", count=ticked.count)
        if ticked.outcome != "missed":
            self._length(("late", ""), late, BOUNDS)

    def called(self, method: str, seconds: float) -> None:
        """A call to the store was answered."""
        self._length(("store", method), seconds, CALL_BOUNDS)

    def _cell(self, key: Key) -> Cell:
        cell = self._cells.get(key)
        if cell is None:
            cell = self._cells[key] = [0, 0.0, 0.0, *[0] * (2 * BUCKETS)]
        return cell

    def _length(self, key: tuple[str, str], seconds: float, bounds: Sequence[float]) -> None:
        lengths = self._lengths.get(key)
        if lengths is None:
            lengths = self._lengths[key] = [0.0, *[0] * BUCKETS]
        lengths[0] += seconds
        lengths[1 + bisect_left(bounds, seconds)] += 1

    def take(self) -> News | None:
        """What there is to hand on, which is this object's no more; None: nothing."""
        if not (self._cells or self._events or self._lengths):
            return None
        news = News(
            self.number,
            [[*key, *cell] for key, cell in self._cells.items()],
            [[*key, count] for key, count in self._events.items()],
            [[*key, *lengths] for key, lengths in self._lengths.items()],
        )
        self._cells, self._events, self._lengths = {}, {}, {}
        self.number += 1
        return news


class Names:
    """The app's own names, and the first others that come, so many of them, as they can be shown; the rest are OTHER.
    Whoever enqueues may call a task whatever he likes.
    """

    def __init__(self, most: int) -> None:
        self.most = most  # beside the app's own
        self._own: dict[str, str] = {}
        self._others: dict[str, str] = {}

    def own(self, names: Iterable[str]) -> None:
        """These have their place, whatever others came or come."""
        for name in names:
            self._own[name] = self._others.pop(name, "") or _shown(name)

    def owns(self, name: str) -> bool:
        """Whether it is one of the app's own."""
        return name in self._own

    def of(self, name: str) -> str:
        """The name under which `name` is counted."""
        shown = self._own.get(name) or self._others.get(name)
        if shown is None:
            if len(self._others) >= self.most:
                return OTHER
            shown = self._others[name] = _shown(name)
        return shown

    def known(self) -> list[str]:
        """All of them, as they are shown."""
        return [*self._own.values(), *self._others.values()]


def _shown(name: str) -> str:
    return visible(name if len(name) <= NAME_MOST else f"{name[: NAME_MOST - 1]}…")


class Totals:
    """Of one service. For any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pace: dict[str, list[float]] = {}  # per queue: runs, and the seconds that they took
        self.cells: dict[Key, Cell] = {}
        self.events: dict[tuple[str, str], int] = {}
        self.lengths: dict[tuple[str, str], Lengths] = {}
        self.queues, self._tasks = Names(QUEUES_MOST), Names(TASKS_MOST)
        self._pairs: set[tuple[str, str]] = set()
        self._fresh: dict[Key, Cell] = {}  # since `fresh` was asked for last

    def know(self, queues: Iterable[str], tasks: Iterable[str]) -> None:
        """The names that the app has: they are counted as themselves. From now on no other task is."""
        with self._lock:
            self.queues.own(queues)
            self._tasks.own(tasks)
            self._tasks.most = 0

    def add(self, news: News) -> None:
        """Counts what a process handed on."""
        with self._lock:
            self._add(news)

    def _add(self, news: News) -> None:
        for queue, task, status, *numbers in news.cells:
            key = (*self._pair(queue, task), status)
            piled(self.cells, key, numbers)
            piled(self._fresh, key, numbers)
            piled(self._pace, key[0], [sum(numbers[RAN_AT:WAITED_AT]), numbers[RAN]])
        for name, queue, count in news.events:
            place = (name, self.queues.of(queue) if queue else "")
            self.events[place] = self.events.get(place, 0) + count
        for kind, label, *numbers in news.lengths:
            piled(self.lengths, (kind, label), numbers)

    def _pair(self, queue: str, task: str) -> tuple[str, str]:
        pair = (self.queues.of(queue), self._tasks.of(task))
        if self.queues.owns(queue) and self._tasks.owns(task):
            return pair
        if pair not in self._pairs:
            if len(self._pairs) >= PAIRS_MOST:
                return pair[0], OTHER
            self._pairs.add(pair)
        return pair

    def fresh(self) -> list[Tally]:
        """What was added since this was asked for last, for the history."""
        with self._lock:
            fresh, self._fresh = self._fresh, {}
            self._pace = {queue: [FADES * number for number in pace] for queue, pace in self._pace.items()}
        return [tally(key, cell) for key, cell in fresh.items()]

    def pace(self, queue: str) -> float:
        """How many seconds a job of the queue runs, on the average of the last minutes; of all, where it had none."""
        paces = dict(self._pace)
        runs, seconds = paces.get(queue, (0.0, 0.0))
        if not runs:
            runs, seconds = (sum(pace[which] for pace in paces.values()) for which in (0, 1))
        return seconds / runs if runs else PACE_UNKNOWN

    def by_status(self) -> Mapping[tuple[str, str], int]:
        """How many ended, by queue and status."""
        found: dict[tuple[str, str], int] = {}
        for (queue, _, status), cell in list(self.cells.items()):
            found[queue, status] = found.get((queue, status), 0) + cell[COUNT]
        return found


def _status(outcome: Outcome, state: State | None) -> str:
    return "dead" if state is _DEAD else "cancelled" if state is _CANCELLED else outcome.ended


def tally(key: Key, cell: Cell) -> Tally:
    """A cell as the history keeps it."""
    queue, task, status = key
    ran, waited = tuple(cell[RAN_AT:WAITED_AT]), tuple(cell[WAITED_AT:CELL])
    return Tally(queue, task, status, cell[COUNT], ran, waited)


def piled(to: dict[Any, list[Any]], key: Any, numbers: Sequence[Any]) -> None:
    """Adds numbers to those under a key, one by one, in a list that is new: others may be reading the old one."""
    there = to.get(key)
    to[key] = list(numbers) if there is None else [a + b for a, b in zip(there, numbers, strict=True)]
