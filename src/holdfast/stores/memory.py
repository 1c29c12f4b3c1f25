"""Jobs in dicts of this process: the plainest statement of what each method of the seam means.

Nothing here survives the process. Every method holds the lock from its first look to its last write and
never awaits inside, so all of them are atomic, from any thread and any event loop; only `wait` suspends.
"""

from __future__ import annotations

import asyncio
import threading
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from heapq import nlargest
from uuid import UUID

from holdfast.clock import DAY, HOUR, Clock, Instant, Span
from holdfast.errors import ConfigError
from holdfast.job import (
    ERRORS_FIRST,
    ERRORS_LAST,
    FINAL,
    TOMBSTONE,
    Attempt,
    Claim,
    Draft,
    Loss,
    Outcome,
    Record,
    State,
)
from holdfast.store import (
    LEASE,
    LEASE_RAN_OUT,
    Answer,
    Beat,
    Cancelling,
    Claims,
    Cursor,
    Line,
    Promoted,
    Receipt,
    Registered,
    Retrying,
    Settled,
    Store,
    Where,
    judge,
)


@dataclass(slots=True, eq=False)
class _Row:
    """A stored job: what its producer wrote, and what has become of it."""

    draft: Draft
    state: State
    enqueued_at: Instant
    due_at: Instant
    alone: bool
    life: int = 1
    attempt: int = 0
    fence: int = 0
    releases: int = 0
    losses: int = 0
    crashes: int = 0
    started_at: Instant | None = None
    finished_at: Instant | None = None
    prunable_at: Instant | None = None
    worker: UUID | None = None  # who holds it; set while it runs
    ticket: int | None = None  # of the claim that took it; None when a sweeper did
    loss: Loss | None = None
    cancel_requested_at: Instant | None = None
    settled_fence: int | None = None
    settled_by: UUID | None = None
    settled_state: State | None = None
    result: bytes | None = None
    reason: str = ""
    history: list[Attempt] = field(default_factory=list)
    omitted: int = 0

    @property
    def id(self) -> UUID:
        return self.draft.id

    @property
    def queue(self) -> str:
        return self.draft.queue


@dataclass(slots=True, eq=False)
class _Life:
    """A worker's life, and its mailbox."""

    lease_until: Instant
    beat_at: Instant
    steady_since: Instant
    ticket: int = 0
    retired_at: Instant | None = None
    loss: Loss | None = None
    mail: list[Line] = field(default_factory=list)

    def live(self, now: Instant) -> bool:
        return self.retired_at is None and now < self.lease_until

    def steady(self, now: Instant) -> bool:
        """Its beats came without a pause for a whole lease: the store was there, others could beat too."""
        return 0 <= 2 * (now - self.beat_at) < LEASE and now - self.steady_since > LEASE

    def beat(self, now: Instant) -> None:
        if 2 * (now - self.beat_at) > LEASE or self.beat_at > now:
            self.steady_since = now
        self.beat_at = now
        self.lease_until = now + LEASE


class _Ordered:
    """Rows in the order of a key, which must not change while they are in; no two keys are equal."""

    def __init__(self, key: Callable[[_Row], tuple[int, ...]]) -> None:
        self._key = key
        self._keys: list[tuple[int, ...]] = []
        self._rows: list[_Row] = []

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[_Row]:
        return iter(self._rows)

    def add(self, row: _Row) -> None:
        place = bisect_left(self._keys, key := self._key(row))
        self._keys.insert(place, key)
        self._rows.insert(place, row)

    def remove(self, row: _Row) -> None:
        place = bisect_left(self._keys, self._key(row))
        del self._keys[place], self._rows[place]

    def take(self, limit: int, until: Instant | None = None) -> list[_Row]:
        """Removes up to `limit` of the first ones; with `until` only those whose time has come."""
        end = len(self._rows) if until is None else bisect_left(self._keys, (until + 1,))
        taken = self._rows[: (end := max(0, min(end, limit)))]
        del self._keys[:end], self._rows[:end]
        return taken


def _claim_order(row: _Row) -> tuple[int, ...]:
    return (-row.draft.priority, row.due_at, row.id.int)


def _due_order(row: _Row) -> tuple[int, ...]:
    return (row.due_at, row.id.int)


def _prune_order(row: _Row) -> tuple[int, ...]:
    return (row.prunable_at or 0, row.id.int)


def _listing_order(row: _Row) -> tuple[int, int]:
    return (row.enqueued_at, row.id.int)


@dataclass(frozen=True, slots=True, eq=False)
class _Waiter:
    """One call of `wait`, on its own event loop."""

    loop: asyncio.AbstractEventLoop
    hint: asyncio.Event
    queues: Sequence[str] | None

    def wake(self) -> None:
        with suppress(RuntimeError):  # its loop may be closed by now
            self.loop.call_soon_threadsafe(self.hint.set)


class MemoryStore:
    """Jobs in dicts. `shift` moves its clock in tests, in milliseconds."""

    def __init__(self, clock: Clock) -> None:
        self.shift: Span = 0
        self._clock = clock
        self._lock = threading.Lock()
        self._rows: dict[UUID, _Row] = {}
        self._queued: dict[str, _Ordered] = {}  # per queue that has any; the one served last stands last
        self._scheduled = _Ordered(_due_order)
        self._prunable = _Ordered(_prune_order)
        self._held: defaultdict[UUID, dict[UUID, _Row]] = defaultdict(dict)  # per worker, what runs under it
        self._lives: dict[UUID, _Life] = {}  # per worker
        self._waiters: set[_Waiter] = set()

    @property
    def url(self) -> str:
        return "memory://"

    @property
    def shared(self) -> bool:
        return False

    def twin(self) -> Store:
        return self

    async def open(self, *, create: bool = True) -> None:
        pass

    async def migrate(self, *, dry_run: bool = False) -> Sequence[str]:  # noqa: ARG002  # there is no schema
        return []

    async def close(self) -> None:
        pass

    def _now(self) -> Instant:
        return self._clock.now() + self.shift

    # --- the producer's side

    async def enqueue(self, jobs: Sequence[Draft], connection: object = None) -> Sequence[Receipt]:
        if connection is not None:
            raise ConfigError(
                f"connection={type(connection).__qualname__}: jobs in memory:// live in this process, not in "
                "your database, so they cannot be part of its transaction. Enqueue after the commit, or write "
                "an outbox row within it and enqueue from that, or keep the jobs there (sqlite:///path)"
            )
        with self._lock:
            now = self._now()
            return [self._receive(draft, now) for draft in jobs]

    def _receive(self, draft: Draft, now: Instant) -> Receipt:
        if (row := self._rows.get(draft.id)) is not None:
            same = row.draft.content == draft.content
            return Receipt(draft.id, "accepted" if same else "conflict", created=False)
        due_at = now + draft.delay if draft.at is None else draft.at
        state = State.QUEUED if due_at <= now else State.SCHEDULED
        self._rows[draft.id] = row = _Row(draft, state, now, due_at, draft.alone)
        self._put_in(row)
        return Receipt(draft.id, "accepted")

    # --- the worker's side: lease

    async def register(
        self,
        worker: UUID,
        supervisor: UUID | None,  # noqa: ARG002  # for display
        facts: Mapping[str, object],  # noqa: ARG002  # for display
    ) -> Registered:
        with self._lock:
            now = self._now()
            if worker not in self._lives:
                self._lives[worker] = _Life(lease_until=now + LEASE, beat_at=now, steady_since=now)
            self._beat(worker, now)
            return Registered(LEASE, now)

    async def beat(self, workers: Sequence[UUID]) -> Beat:
        with self._lock:
            now = self._now()
            return Beat(LEASE, now, frozenset(worker for worker in workers if not self._beat(worker, now)))

    def _beat(self, worker: UUID, now: Instant) -> bool:
        life = self._lives.get(worker)
        if life is None or life.retired_at is not None:
            return False
        life.beat(now)
        return True

    async def retire(self, worker: UUID, loss: Loss | None = None, jobs: Mapping[tuple[UUID, int], Loss] = {}) -> None:
        with self._lock:
            me = self._lives.get(worker)
            if me is None or me.retired_at is not None:
                return
            for row in self._held[worker].values():
                row.loss = row.loss or jobs.get((row.id, row.fence))
            me.retired_at = me.lease_until = self._now()
            me.loss = loss
            me.mail = [line for line in me.mail if line.kind != "lost"]

    async def mail(self, workers: Sequence[UUID]) -> Sequence[Line]:
        with self._lock:
            return [line for worker in workers if worker in self._lives for line in self._lives[worker].mail]

    # --- the worker's side: jobs

    async def claim(self, worker: UUID, ticket: int, queues: Sequence[str] | None, limit: int) -> Claims:
        with self._lock:
            now = self._now()
            me = self._lives.get(worker)
            if me is None or me.retired_at is not None:
                return Claims([], "gone")
            if not me.live(now):
                return Claims([], "expired")
            if ticket == me.ticket:  # its reply was lost
                held = [_claim(row) for row in self._held[worker].values() if row.ticket == ticket]
                return Claims(held, None if held else "used")
            if ticket != me.ticket + 1:
                return Claims([], "ticket")
            rows = self._heads(queues, limit)
            if rows:
                me.ticket = ticket
            return Claims([self._start(row, worker, ticket, now) for row in rows])

    def _heads(self, queues: Sequence[str] | None, limit: int) -> list[_Row]:
        """Takes up to `limit` rows from the heads of queues; the queue served longest ago comes first."""
        rows: list[_Row] = []
        for name in [name for name in self._queued if queues is None or name in queues]:
            if len(rows) >= limit:
                break
            queued = self._queued.pop(name)
            rows += queued.take(limit - len(rows))
            if queued:
                self._queued[name] = queued
        return rows

    def _start(self, row: _Row, worker: UUID, ticket: int, now: Instant) -> Claim:
        row.state = State.RUNNING
        row.attempt += 1
        row.fence += 1
        row.started_at = now
        row.worker, row.ticket = worker, ticket
        self._put_in(row)
        return _claim(row)

    async def finish(self, outcomes: Sequence[Outcome]) -> Sequence[Settled]:
        with self._lock:
            now = self._now()
            return [self._settle(outcome, now) for outcome in outcomes]

    def _settle(self, outcome: Outcome, now: Instant) -> Settled:
        row = self._rows.get(outcome.id)
        if row is None:
            return Settled(Answer.GONE)
        settled = judge(outcome, row)
        if settled.answer is Answer.ACCEPTED:
            if row.cancel_requested_at is not None and outcome.ended != "succeeded":
                outcome = outcome.if_cancelled or outcome
                outcome = outcome._replace(reason=row.reason or outcome.reason)
            self._write(row, outcome, now)
        return settled

    def _write(self, row: _Row, outcome: Outcome, now: Instant) -> None:
        _remember(row, outcome, now)
        self._drop_lines(row)
        self._take_out(row)
        row.state = outcome.state
        row.attempt, row.releases = outcome.attempt, outcome.releases
        row.losses, row.crashes, row.alone = outcome.losses, outcome.crashes, outcome.alone
        row.result, row.reason = outcome.result, outcome.reason
        row.worker = row.ticket = row.loss = row.cancel_requested_at = None
        row.settled_fence, row.settled_by, row.settled_state = outcome.fence, outcome.worker, outcome.state
        if outcome.state in FINAL:
            row.finished_at = now
            row.prunable_at = _prunable_at(now, outcome.keep)
        elif outcome.delay is not None:
            row.due_at = now + outcome.delay
        self._put_in(row)

    async def wait(self, queues: Sequence[str] | None, timeout: float) -> bool:
        waiter = _Waiter(asyncio.get_running_loop(), asyncio.Event(), queues)
        with self._lock:
            if any(queues is None or name in queues for name in self._queued):
                return True
            self._waiters.add(waiter)
        try:
            await asyncio.wait_for(waiter.hint.wait(), timeout)
        except TimeoutError:
            return False
        else:
            return True
        finally:
            with self._lock:
                self._waiters.discard(waiter)

    # --- the janitor's side

    async def promote(self, limit: int) -> Promoted:
        with self._lock:
            now = self._now()
            due = self._scheduled.take(limit, until=now)
            for row in due:
                row.state = State.QUEUED
                self._put_in(row)
            following = next(iter(self._scheduled), None)
            return Promoted(len(due), None if following is None else max(0, following.due_at - now))

    async def reclaim(self, sweeper: UUID, limit: int) -> Sequence[Claim]:
        with self._lock:
            now = self._now()
            me = self._lives.get(sweeper)
            if me is None or not me.live(now):
                return []
            if steady := me.steady(now):
                self._cut_leases(now)
            mine = [row for row in self._held[sweeper].values() if row.ticket is None][: max(0, limit)]
            for row in self._orphans(now, expired=steady)[: max(0, limit - len(mine))]:
                self._rob(row, sweeper)
                mine.append(row)
            return [_claim(row) for row in mine]

    def _cut_leases(self, now: Instant) -> None:
        """After the clock was stepped back, leases given before lie too far ahead."""
        for life in self._lives.values():
            life.lease_until = min(life.lease_until, now + LEASE)

    def _orphans(self, now: Instant, *, expired: bool) -> list[_Row]:
        """Jobs of retired workers, then, if asked for, of those whose lease is over or who have no row."""
        retired: list[_Row] = []
        silent: list[_Row] = []
        for worker, held in self._held.items():
            life = self._lives.get(worker)
            if life is not None and life.retired_at is not None:
                retired += held.values()
            elif expired and (life is None or not life.live(now)):
                silent += held.values()
        return retired + silent

    def _rob(self, row: _Row, sweeper: UUID) -> None:
        holder = self._holder(row)
        self._drop_lines(row)
        if holder is not None and row.worker is not None and holder.retired_at is None:
            holder.mail.append(Line(row.worker, "lost", row.id, row.fence))
        self._take_out(row)
        row.fence += 1
        row.worker, row.ticket = sweeper, None
        row.loss = row.loss or (holder and holder.loss) or LEASE_RAN_OUT
        self._put_in(row)

    async def prune(self, limit: int) -> int:
        with self._lock:
            now = self._now()
            over = self._prunable.take(limit, until=now)
            for row in over:
                del self._rows[row.id]
            for worker in [worker for worker, life in self._lives.items() if _over(life, now)]:
                if not self._held[worker]:
                    del self._lives[worker], self._held[worker]
            return len(over)

    # --- the operator's side

    async def find(self, where: Where, after: Cursor | None = None, limit: int = 50) -> Sequence[Record]:
        with self._lock:
            ids = self._rows if where.ids is None else self._rows.keys() & set(where.ids)
            found = [row for job in ids if _fits(row := self._rows[job], where)]
            if after is not None:
                found = [row for row in found if _listing_order(row) < (after[0], after[1].int)]
            return [_record(row) for row in nlargest(limit, found, key=_listing_order)]

    async def cancel(self, ids: Sequence[UUID], reason: str = "") -> Sequence[Cancelling]:
        with self._lock:
            now = self._now()
            return [self._cancel(job, reason, now) for job in ids]

    def _cancel(self, id: UUID, reason: str, now: Instant) -> Cancelling:
        row = self._rows.get(id)
        if row is None:
            return "missing"
        if row.state in FINAL:
            return "final"
        if row.state is State.RUNNING:
            self._request_cancel(row, reason, now)
            return "requested"
        self._take_out(row)
        row.state, row.reason = State.CANCELLED, reason
        row.finished_at = now
        row.prunable_at = _prunable_at(now, row.draft.terms.keep)
        self._put_in(row)
        return "cancelled"

    def _request_cancel(self, row: _Row, reason: str, now: Instant) -> None:
        if row.cancel_requested_at is not None or row.worker is None:
            return
        row.cancel_requested_at, row.reason = now, reason
        if (holder := self._holder(row)) is not None:
            holder.mail.append(Line(row.worker, "cancel", row.id, row.fence))

    async def retry(self, ids: Sequence[UUID]) -> Sequence[Retrying]:
        with self._lock:
            now = self._now()
            return [self._retry(job, now) for job in ids]

    def _retry(self, id: UUID, now: Instant) -> Retrying:
        row = self._rows.get(id)
        if row is None:
            return "missing"
        if row.state is State.SUCCEEDED:
            return "succeeded"
        if row.state not in FINAL:
            return "unfinished"
        self._take_out(row)
        row.state, row.due_at = State.QUEUED, now
        row.life += 1
        row.attempt = row.releases = row.losses = row.crashes = 0
        row.alone = row.draft.alone
        row.result, row.reason = None, ""
        row.started_at = row.finished_at = row.prunable_at = None
        self._put_in(row)
        return "retried"

    # --- where a row stands: each state but the reserved one has its own index

    def _put_in(self, row: _Row) -> None:
        match row.state:
            case State.QUEUED:
                if row.queue not in self._queued:
                    self._queued[row.queue] = _Ordered(_claim_order)
                self._queued[row.queue].add(row)
                self._wake(row.queue)
            case State.SCHEDULED:
                self._scheduled.add(row)
            case State.RUNNING if row.worker is not None:
                self._held[row.worker][row.id] = row
            case _ if row.prunable_at is not None:
                self._prunable.add(row)
            case _:
                pass  # dead jobs stay until someone decides

    def _take_out(self, row: _Row) -> None:
        match row.state:
            case State.QUEUED:
                self._queued[row.queue].remove(row)
                if not self._queued[row.queue]:
                    del self._queued[row.queue]
            case State.SCHEDULED:
                self._scheduled.remove(row)
            case State.RUNNING if row.worker is not None:
                del self._held[row.worker][row.id]
            case _ if row.prunable_at is not None:
                self._prunable.remove(row)
            case _:
                pass

    def _wake(self, queue: str) -> None:
        for waiter in self._waiters:
            if waiter.queues is None or queue in waiter.queues:
                waiter.wake()

    def _drop_lines(self, row: _Row) -> None:
        """The claim under which `row` runs is over, and with it what was to be said about it."""
        holder = self._holder(row)
        if holder is not None and holder.mail:
            holder.mail = [line for line in holder.mail if (line.job, line.fence) != (row.id, row.fence)]

    def _holder(self, row: _Row) -> _Life | None:
        return None if row.worker is None else self._lives.get(row.worker)


def _remember(row: _Row, outcome: Outcome, now: Instant) -> None:
    if outcome.ended == "succeeded" or row.started_at is None:
        return
    row.history.append(
        Attempt(
            row.attempt,
            outcome.fence,
            outcome.worker,
            row.started_at,
            now,
            outcome.ended,
            outcome.error,
            outcome.reason,
        )
    )
    if len(row.history) > ERRORS_FIRST + ERRORS_LAST:
        del row.history[ERRORS_FIRST]
        row.omitted += 1


def _prunable_at(finished_at: Instant, keep: Span | None) -> Instant | None:
    return None if keep is None else finished_at + max(keep, TOMBSTONE)


def _over(life: _Life, now: Instant) -> bool:
    return now >= (life.beat_at + DAY if life.retired_at is None else life.retired_at + HOUR)


def _fits(row: _Row, where: Where) -> bool:
    return (
        (where.starts is None or str(row.id).startswith(where.starts))
        and (where.ends is None or str(row.id).endswith(where.ends))
        and (where.states is None or row.state in where.states)
        and (where.queue is None or row.queue == where.queue)
        and (where.task is None or row.draft.task == where.task)
        and (where.tag is None or where.tag in row.draft.tags)
        and (where.error is None or where.error == _newest_error(row))
        and (where.worker is None or row.worker == where.worker)
        and (where.since is None or where.since <= row.enqueued_at)
        and (where.before is None or row.enqueued_at < where.before)
    )


def _newest_error(row: _Row) -> str | None:
    return next((attempt.error.type for attempt in reversed(row.history) if attempt.error is not None), None)


def _claim(row: _Row) -> Claim:
    draft = row.draft
    if row.worker is None or row.started_at is None:
        raise AssertionError(f"job {row.id} is {row.state} and held by nobody")
    return Claim(
        draft.id,
        row.fence,
        row.worker,
        draft.task,
        draft.queue,
        draft.payload,
        draft.terms,
        draft.priority,
        row.attempt,
        row.releases,
        row.losses,
        row.crashes,
        row.alone,
        row.enqueued_at,
        row.due_at,
        row.started_at,
        row.loss,
    )


def _record(row: _Row) -> Record:
    draft = row.draft
    return Record(
        id=draft.id,
        task=draft.task,
        queue=draft.queue,
        line=draft.line,
        state=row.state,
        payload=draft.payload,
        terms=draft.terms,
        priority=draft.priority,
        tags=draft.tags,
        life=row.life,
        attempt=row.attempt,
        fence=row.fence,
        releases=row.releases,
        losses=row.losses,
        crashes=row.crashes,
        alone=row.alone,
        enqueued_at=row.enqueued_at,
        due_at=row.due_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        worker=row.worker,
        cancel_requested_at=row.cancel_requested_at,
        settled_fence=row.settled_fence,
        settled_by=row.settled_by,
        settled_state=row.settled_state,
        result=row.result,
        reason=row.reason,
        history=tuple(row.history),
        omitted=row.omitted,
    )
