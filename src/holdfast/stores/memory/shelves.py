"""Where rows stand: each state but the reserved one has an index of its own."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import islice
from uuid import UUID

from holdfast.clock import Instant
from holdfast.job import State
from holdfast.store import Quota
from holdfast.stores.memory.rows import Row

_QUEUED, _SCHEDULED, _RUNNING = State.QUEUED, State.SCHEDULED, State.RUNNING  # Python 3.11 is slow to look them up


class Ordered:
    """Rows in the order of a key, which must not change while they are in; no two keys are equal."""

    def __init__(self, key: Callable[[Row], tuple[int, ...]]) -> None:
        self._key = key
        self._keys: list[tuple[int, ...]] = []
        self._rows: list[Row] = []

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows)

    def add(self, row: Row) -> None:
        place = bisect_left(self._keys, key := self._key(row))
        self._keys.insert(place, key)
        self._rows.insert(place, row)

    def remove(self, row: Row) -> None:
        place = bisect_left(self._keys, self._key(row))
        del self._keys[place], self._rows[place]

    def take(self, limit: int, until: Instant | None = None) -> list[Row]:
        """Removes up to `limit` of the first ones; with `until` only those whose time has come."""
        end = len(self._rows) if until is None else bisect_left(self._keys, (until + 1,))
        taken = self._rows[: (end := max(0, min(end, limit)))]
        del self._keys[:end], self._rows[:end]
        return taken

    def peek(self, limit: int, until: Instant) -> list[Row]:
        """Up to `limit` of the first ones whose time has come."""
        return self._rows[: max(0, min(bisect_left(self._keys, (until + 1,)), limit))]

    def startable(self, limit: int, now: Instant) -> list[Row]:
        """Removes up to `limit` of the first ones whose time is not over."""
        rows = list(islice((row for row in self._rows if row.over(now) is None), max(0, limit)))
        for row in rows:
            self.remove(row)
        return rows


def _claim_order(row: Row) -> tuple[int, ...]:
    return (-row.draft.priority, row.due_at, row.id.int)


def _due_order(row: Row) -> tuple[int, ...]:
    return (row.due_at, row.id.int)


def _end_order(row: Row) -> tuple[int, ...]:
    return (row.ends_at or 0, row.id.int)


def _prune_order(row: Row) -> tuple[int, ...]:
    return (row.prunable_at or 0, row.id.int)


class Shelves:
    """All rows by what is to be done with them next."""

    def __init__(self) -> None:
        self.queued: dict[str, Ordered] = {}  # per queue that has any; the one served last stands last
        self.scheduled = Ordered(_due_order)
        self.mortal = Ordered(_end_order)  # those scheduled or queued whose time will be over
        self.prunable = Ordered(_prune_order)
        self.held: defaultdict[UUID, dict[UUID, Row]] = defaultdict(dict)  # per worker, what runs under it

    def put_in(self, row: Row) -> None:
        if row.limited and _mortal(row):
            self.mortal.add(row)
        if row.state is _RUNNING:
            if row.worker is not None:
                self.held[row.worker][row.id] = row
        elif row.state is _QUEUED:
            if row.queue not in self.queued:
                self.queued[row.queue] = Ordered(_claim_order)
            self.queued[row.queue].add(row)
        elif row.state is _SCHEDULED:
            self.scheduled.add(row)
        elif row.prunable_at is not None:  # dead jobs stay until someone decides
            self.prunable.add(row)

    def take_out(self, row: Row) -> None:
        if row.limited and _mortal(row):
            self.mortal.remove(row)
        if row.state is _RUNNING:
            if row.worker is not None:
                del self.held[row.worker][row.id]
        elif row.state is _QUEUED:
            self.queued[row.queue].remove(row)
            if not self.queued[row.queue]:
                del self.queued[row.queue]
        elif row.state is _SCHEDULED:
            self.scheduled.remove(row)
        elif row.prunable_at is not None:
            self.prunable.remove(row)

    def due(self, limit: int, now: Instant) -> list[Row]:
        """Takes up to `limit` scheduled rows whose time has come."""
        return self._forget(self.scheduled.take(limit, until=now))

    def heads(
        self,
        queues: Sequence[str] | None,
        limit: int,
        now: Instant,
        paused: Collection[str] = (),
        quotas: Sequence[Quota] = (),
    ) -> list[Row]:
        """Takes up to `limit` rows: by the quotas first, then from the heads of queues; the queue that was served
        longest ago comes first.
        """
        rows: list[Row] = []
        for queue, most in quotas:
            if queue in self.queued and queue not in paused:
                rows += self._head(queue, min(most, limit - len(rows)), now)
        for name in [name for name in self.queued if (queues is None or name in queues) and name not in paused]:
            if len(rows) >= limit:
                break
            rows += self._head(name, limit - len(rows), now)
        return rows

    def _head(self, name: str, limit: int, now: Instant) -> list[Row]:
        if limit <= 0:
            return []
        queued = self.queued.pop(name)
        rows = queued.startable(limit, now) if self.mortal else queued.take(limit)
        if queued:
            self.queued[name] = queued
        return self._forget(rows)

    def _forget(self, rows: list[Row]) -> list[Row]:
        for row in rows if self.mortal else ():
            if row.ends_at is not None:
                self.mortal.remove(row)
        return rows


def _mortal(row: Row) -> bool:
    return row.ends_at is not None and row.state in (State.QUEUED, State.SCHEDULED)
