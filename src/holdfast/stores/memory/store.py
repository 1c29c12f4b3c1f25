"""Jobs in dicts of this process: the plainest statement of what each method of the seam means.

Nothing here survives the process. Every method holds the lock from its first look to its last write and
never awaits inside, so all of them are atomic, from any thread and any event loop; only `wait` and `watch` suspend.
"""

from __future__ import annotations

import copy
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from heapq import nlargest
from uuid import UUID

from holdfast.clock import MINUTE, Clock, Instant, Span
from holdfast.errors import ConfigError
from holdfast.job import (
    FINAL,
    TOMBSTONE,
    Claim,
    Draft,
    LogLine,
    Loss,
    Note,
    Outcome,
    Pause,
    QueueTerms,
    Record,
    State,
    Until,
)
from holdfast.rulings import cancelling, clash, deleting, due, in_force, judge, paused, retrying, written
from holdfast.store import (
    LEASE,
    LEASE_RAN_OUT,
    Answer,
    Authority,
    Beat,
    Cancelling,
    Claims,
    Cursor,
    Deleting,
    Entry,
    Level,
    Line,
    Minutes,
    Over,
    Promoted,
    QueueSetup,
    QueueStats,
    Quota,
    Receipt,
    Registered,
    Retried,
    Roster,
    Schedules,
    Settled,
    Stats,
    Store,
    Tally,
    Tick,
    Ticked,
    Where,
)
from holdfast.stores.columns import storable
from holdfast.stores.memory.history import History
from holdfast.stores.memory.keys import Keys
from holdfast.stores.memory.lives import Life
from holdfast.stores.memory.queues import Queue
from holdfast.stores.memory.rows import Row, claim_of, fits, listing_order, record_of
from holdfast.stores.memory.schedules import Timetable
from holdfast.stores.memory.shelves import Shelves
from holdfast.stores.memory.waiters import Waiter, waiter

_QUEUED, _RUNNING, _DEAD = State.QUEUED, State.RUNNING, State.DEAD  # Python 3.11 is slow to look up a member
_ACCEPTED = Answer.ACCEPTED
_OWN = ("_clock", "_lock", "_waiters", "_watchers")  # of one store, not of the jobs in it


class MemoryStore:
    """Jobs in dicts. `shift` moves its clock in tests, in milliseconds."""

    def __init__(self, clock: Clock) -> None:
        self.shift: Span = 0
        self._clock = clock
        self._lock = threading.Lock()
        self._rows: dict[UUID, Row] = {}
        self._deleted: dict[UUID, Row] = {}  # kept a while, so that a repeated write is recognised
        self._shelves = Shelves()
        self._keys = Keys()
        self._queues: dict[str, Queue] = {}  # those declared, and those that have unfinished jobs
        self._pauses: dict[str, Pause] = {}  # per queue; some are over
        self._lives: dict[UUID, Life] = {}  # per worker
        self._timetable = Timetable()
        self._history = History()
        self._waiters: set[Waiter] = set()
        self._watchers: dict[UUID, set[Waiter]] = {}  # per job

    @property
    def url(self) -> str:
        return "memory://"

    @property
    def shared(self) -> bool:
        return False

    @property
    def unheard(self) -> str:
        return ""

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

    async def enqueue(
        self,
        jobs: Sequence[Draft],
        connection: object = None,
        declared: Mapping[str, QueueTerms] = {},  # noqa: ARG002  # goes with a connection
    ) -> Sequence[Receipt]:
        if connection is not None:
            raise ConfigError(
                f"connection={type(connection).__qualname__}: jobs in memory:// live in this process, not in "
                "your database, so they cannot be part of its transaction. Enqueue after the commit, or write "
                "an outbox row within it and enqueue from that, or keep the jobs there (sqlite:///path)"
            )
        with self._lock:
            now = self._now()
            return [self._receive(draft, now) for draft in jobs]

    async def reserve(self, jobs: Sequence[Draft]) -> Sequence[Receipt]:
        return [Receipt(draft.id, "accepted", created=False) for draft in jobs]

    async def enqueue_all(self, jobs: Sequence[Draft]) -> Sequence[Receipt]:
        """As `enqueue` in a transaction, for tests without one: where a job is refused, nothing is stored."""
        with self._lock:
            now = self._now()
            if len(jobs) > 1 and any(draft.unique or self._bounded(draft.queue) for draft in jobs):
                alike = self._alike()
                receipts = [alike._receive(draft, now) for draft in jobs]  # noqa: SLF001  # its lock is nobody's
                if any(receipt.refused for receipt in receipts):
                    return [receipt._replace(created=False, dropped=None) for receipt in receipts]
            return [self._receive(draft, now) for draft in jobs]

    def _alike(self) -> MemoryStore:
        """A store that has the same jobs now, to try there what a call would do here."""
        alike = MemoryStore(self._clock)
        ours = {name: value for name, value in vars(self).items() if name not in _OWN}
        vars(alike).update(copy.deepcopy(ours))
        return alike

    def _bounded(self, queue: str) -> bool:
        return queue in self._queues and self._queues[queue].terms.max_size is not None

    def _receive(self, draft: Draft, now: Instant) -> Receipt:
        if (row := self._rows.get(draft.id) or self._deleted.get(draft.id)) is not None:
            same = row.draft.content == draft.content
            return Receipt(draft.id, "accepted" if same else "conflict", created=False)
        if (holder := self._keys.holder(draft, now)) is not None:
            return self._clash(draft, holder, now)
        dropped = None
        queue = self._queue(draft.queue)
        if (room := queue.crowded()) is not None:
            if room.when_full == "drop_newest":
                queue.dropped += 1
                return Receipt(draft.id, "dropped", created=False, room=room)
            oldest = queue.oldest_unstarted(self._rows) if room.when_full == "drop_oldest" else None
            if oldest is None:
                return Receipt(draft.id, "full", created=False, room=room)
            dropped = self._drop(oldest, queue, now)
        self._add(draft, now)
        return Receipt(draft.id, "accepted", dropped=dropped)

    def _clash(self, draft: Draft, holder: Row, now: Instant) -> Receipt:
        """The key of `draft` is held: what becomes of it."""
        receipt = clash(draft, holder.id, alike=holder.draft.task == draft.task, unstarted=holder.unstarted)
        if receipt.answer == "replaced":
            self._take_out(holder)
            holder.payload = draft.payload
            holder.state, holder.due_at = due(draft, now)
            holder.limit(draft, now)
            self._put_in(holder)
        return receipt

    def _drop(self, row: Row, queue: Queue, now: Instant) -> UUID:
        self._end_unstarted(row, "dropped", now)
        queue.dropped += 1
        return row.id

    def _add(self, draft: Draft, now: Instant) -> None:
        state, due_at = due(draft, now)
        self._rows[draft.id] = row = Row(draft, state, now, due_at, draft.alone, draft.payload)
        if draft.expires is not None or draft.deadline is not None:
            row.limit(draft, now)
        self._admit(row)
        self._put_in(row)

    # --- the worker's side: lease

    async def register(self, worker: UUID, supervisor: UUID | None, facts: Mapping[str, object]) -> Registered:
        with self._lock:
            now = self._now()
            if worker not in self._lives:
                life = Life(now + LEASE, beat_at=now, steady_since=now, supervisor=supervisor, facts=dict(facts))
                self._lives[worker] = life
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
            for row in self._shelves.held[worker].values():
                row.loss = row.loss or jobs.get((row.id, row.fence))
            me.retired_at = me.lease_until = self._now()
            me.loss = loss
            me.mail = [line for line in me.mail if line.kind != "lost"]

    async def mail(self, workers: Sequence[UUID]) -> Sequence[Line]:
        with self._lock:
            return [line for worker in workers if worker in self._lives for line in self._lives[worker].mail]

    # --- the worker's side: jobs

    async def claim(
        self, worker: UUID, ticket: int, queues: Sequence[str] | None, limit: int, quotas: Sequence[Quota] = ()
    ) -> Claims:
        with self._lock:
            now = self._now()
            me = self._lives.get(worker)
            if me is None or me.retired_at is not None:
                return Claims([], "gone")
            if not me.live(now):
                return Claims([], "expired")
            if ticket == me.ticket:  # its reply was lost
                held = [claim_of(row) for row in self._shelves.held[worker].values() if row.ticket == ticket]
                return Claims(held, None if held else "used")
            if ticket != me.ticket + 1:
                return Claims([], "ticket")
            rows = self._shelves.heads(queues, limit, now, self._paused(now), quotas)
            if rows:
                me.ticket = ticket
            return Claims([self._start(row, worker, ticket, now) for row in rows])

    def _start(self, row: Row, worker: UUID, ticket: int, now: Instant) -> Claim:
        row.state = _RUNNING
        row.attempt += 1
        row.fence += 1
        row.started_at = now
        row.worker, row.ticket = worker, ticket
        self._keys.start(row)
        self._put_in(row)
        return claim_of(row)

    async def finish(self, outcomes: Sequence[Outcome], connection: object = None) -> Sequence[Settled]:
        if connection is not None:
            raise ConfigError(
                f"connection={type(connection).__qualname__}: jobs in memory:// live in this process, not in "
                "your database, so their end cannot be part of its transaction. Write a row with the job's id within "
                "it (an outbox the other way round), by which a second run sees that the work is done, then commit and "
                "return; or keep the jobs there (sqlite:///path)"
            )
        with self._lock:
            now = self._now()
            return [self._settle(outcome, now) for outcome in outcomes]

    def _settle(self, outcome: Outcome, now: Instant) -> Settled:
        row = self._rows.get(outcome.id)
        if row is None:
            return self._replay(outcome)
        settled = judge(outcome, row)
        if settled.answer is _ACCEPTED:
            self._write(row, written(outcome, row), now)
        return settled

    def _replay(self, outcome: Outcome) -> Settled:
        """The answer where there is no such job, or none any more."""
        deleted = self._deleted.get(outcome.id)
        settled = Settled(Answer.GONE) if deleted is None else judge(outcome, deleted)
        return settled if settled.answer is Answer.REPLAYED else Settled(Answer.GONE)

    def _write(self, row: Row, outcome: Outcome, now: Instant) -> None:
        row.remember(outcome, now)
        self._drop_lines(row)
        self._take_out(row)
        row.state = outcome.state
        row.attempt, row.releases = outcome.attempt, outcome.releases
        row.losses, row.crashes, row.alone = outcome.losses, outcome.crashes, outcome.alone
        row.result, row.reason = outcome.result, storable(outcome.reason)
        row.fingerprint = storable(outcome.fingerprint) if outcome.state is _DEAD else ""
        row.worker = row.ticket = row.loss = row.cancel_requested_at = None
        row.settled_fence, row.settled_by, row.settled_state = outcome.fence, outcome.worker, outcome.state
        if outcome.ended == "succeeded" and row.told is not None:
            row.told.saved = None
        if outcome.state in FINAL:
            self._end(row, now, outcome.keep)
        elif outcome.delay is not None:
            row.due_at = now + outcome.delay
        self._put_in(row)

    async def wait(self, queues: Sequence[str] | None, timeout: float) -> bool:
        mine = waiter(queues)
        with self._lock:
            stopped = self._paused(self._now())
            if any((queues is None or name in queues) and name not in stopped for name in self._shelves.queued):
                return True
            self._waiters.add(mine)
        try:
            return await mine.woken(timeout)
        finally:
            with self._lock:
                self._waiters.discard(mine)

    # --- the janitor's side

    async def promote(self, limit: int) -> Promoted:
        with self._lock:
            now = self._now()
            over = tuple(self._time_out(row, now) for row in self._shelves.mortal.peek(limit, until=now))
            due = self._shelves.due(limit, now)
            for row in due:
                row.state = State.QUEUED
                self._put_in(row)
            return Promoted(len(due), self._next_in(now), over)

    def _time_out(self, row: Row, now: Instant) -> Over:
        reason = row.over(now) or "expired"
        self._end_unstarted(row, reason, now, dead=reason == "deadline")
        return Over(row.id, row.draft.task, row.queue, reason)

    def _next_in(self, now: Instant) -> Span | None:
        due = next((row.due_at for row in self._shelves.scheduled), None)
        over = next((row.ends_at for row in self._shelves.mortal), None)
        following = min((time for time in (due, over) if time is not None), default=None)
        return None if following is None else max(0, following - now)

    async def reclaim(self, sweeper: UUID, limit: int) -> Sequence[Claim]:
        with self._lock:
            now = self._now()
            me = self._lives.get(sweeper)
            if me is None or not me.live(now):
                return []
            if steady := me.steady(now):
                self._cut_leases(now)
            mine = [row for row in self._shelves.held[sweeper].values() if row.ticket is None][: max(0, limit)]
            for row in self._orphans(now, expired=steady)[: max(0, limit - len(mine))]:
                self._rob(row, sweeper)
                mine.append(row)
            return [claim_of(row) for row in mine]

    def _cut_leases(self, now: Instant) -> None:
        """After the clock was stepped back, leases given before lie too far ahead."""
        for life in self._lives.values():
            life.lease_until = min(life.lease_until, now + LEASE)

    def _orphans(self, now: Instant, *, expired: bool) -> list[Row]:
        """Jobs of retired workers, then, if asked for, of those whose lease is over or who have no row."""
        retired: list[Row] = []
        silent: list[Row] = []
        for worker, held in self._shelves.held.items():
            life = self._lives.get(worker)
            if life is not None and life.retired_at is not None:
                retired += held.values()
            elif expired and (life is None or not life.live(now)):
                silent += held.values()
        return retired + silent

    def _rob(self, row: Row, sweeper: UUID) -> None:
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
            over = self._shelves.prunable.take(limit, until=now)
            for row in over:
                if self._deleted.pop(row.id, None) is None:
                    self._keys.free(self._rows.pop(row.id))
            if pruned := {row.id for row in over}:
                for life in self._lives.values():
                    life.mail = [line for line in life.mail if line.job not in pruned]
            for worker in [worker for worker, life in self._lives.items() if life.over(now)]:
                if not self._shelves.held[worker]:
                    del self._lives[worker], self._shelves.held[worker]
            self._history.prune(now)
            self._pauses = self._paused(now)
            return len(over)

    # --- the operator's side

    async def find(self, where: Where, after: Cursor | None = None, limit: int = 50) -> Sequence[Record]:
        with self._lock:
            now = self._now()
            ids = self._rows if where.ids is None else self._rows.keys() & set(where.ids)
            found = [row for job in ids if fits(row := self._rows[job], where)]
            if after is not None:
                found = [row for row in found if listing_order(row) < (after[0], after[1].int)]
            page = nlargest(limit, found, key=listing_order)
            return [record_of(row, holds=self._keys.holds(row, now)) for row in page]

    async def cancel(self, ids: Sequence[UUID], reason: str = "") -> Sequence[Cancelling]:
        with self._lock:
            now = self._now()
            return [self._cancel(job, storable(reason), now) for job in ids]

    def _cancel(self, id: UUID, reason: str, now: Instant) -> Cancelling:
        row = self._rows.get(id)
        answer = cancelling(None if row is None else row.state)
        if row is not None and answer == "requested":
            self._request_cancel(row, reason, now)
        if row is not None and answer == "cancelled":
            self._end_unstarted(row, reason, now)
        return answer

    def _request_cancel(self, row: Row, reason: str, now: Instant) -> None:
        if row.cancel_requested_at is not None or row.worker is None:
            return
        row.cancel_requested_at, row.reason = now, reason
        if (holder := self._holder(row)) is not None:
            holder.mail.append(Line(row.worker, "cancel", row.id, row.fence))

    async def retry(self, ids: Sequence[UUID]) -> Sequence[Retried]:
        with self._lock:
            now = self._now()
            return [self._retry(job, now) for job in ids]

    def _retry(self, id: UUID, now: Instant) -> Retried:
        row = self._rows.get(id)
        answer = retrying(None if row is None else row.state)
        if row is None or answer is not None:
            return answer or Retried("missing")
        holder = self._keys.holder(row.draft, now)
        if holder is not None and holder is not row:
            return Retried("taken", holder=holder.id)
        if (room := self._queue(row.queue).crowded()) is not None:
            return Retried("full", room=room)
        self._revive(row, now)
        return Retried("retried")

    def _revive(self, row: Row, now: Instant) -> None:
        self._take_out(row)
        row.state, row.due_at = State.QUEUED, now
        row.life += 1
        row.attempt = row.releases = row.losses = row.crashes = 0
        row.alone = row.draft.alone
        row.result, row.reason, row.fingerprint = None, "", ""
        row.expires_at = row.deadline_at = None
        row.started_at = row.finished_at = row.prunable_at = row.holds_until = None
        self._admit(row)
        self._put_in(row)

    async def delete(self, ids: Sequence[UUID]) -> Sequence[Deleting]:
        with self._lock:
            now = self._now()
            return [self._delete(job, now) for job in ids]

    async def locker(self, id: UUID) -> str:  # noqa: ARG002  # the seam's
        return ""

    def _delete(self, id: UUID, now: Instant) -> Deleting:
        row = self._rows.get(id)
        answer = deleting(None if row is None else row.state)
        if row is None or answer != "deleted":
            return answer
        self._take_out(row)
        if row.state not in FINAL:
            row.state = State.CANCELLED
            self._end(row, now, keep=None)
        self._keys.free(row)
        row.told = None
        row.history.clear()
        row.prunable_at = (row.finished_at or now) + TOMBSTONE
        self._deleted[id] = self._rows.pop(id)
        self._put_in(row)
        return answer

    async def configure(self, queues: Mapping[str, QueueTerms | None], by: Authority) -> None:
        with self._lock:
            for name, terms in queues.items():
                queue = self._queue(name)
                queue.declare(terms, by)
                self._forget_idle(queue)

    async def pause(self, queue: str, until: Until | None = None, reason: str = "") -> None:
        with self._lock:
            self._pauses[queue] = paused(self._pauses.get(queue), until, storable(reason), self._now())

    async def resume(self, queue: str) -> bool:
        with self._lock:
            stopped = in_force(self._pauses.pop(queue, None), self._now())
            if queue in self._shelves.queued:
                self._hint(queue)
            return stopped

    async def queues(self) -> Sequence[QueueSetup]:
        with self._lock:
            stopped = self._paused(self._now())
            names = {queue.name for queue in self._queues.values() if queue.known} | stopped.keys()
            return [self._setup_of(name, stopped.get(name)) for name in sorted(names)]

    def _setup_of(self, name: str, pause: Pause | None) -> QueueSetup:
        queue = self._queues.get(name) or Queue(name)
        return QueueSetup(name, queue.terms, queue.said.edited is not None, pause)

    async def workers(self) -> Roster:
        with self._lock:
            return Roster(self._now(), [self._lives[worker].shown(worker) for worker in sorted(self._lives)])

    async def stats(self) -> Stats:
        with self._lock:
            now = self._now()
            counts = Counter((row.queue, row.state) for row in self._rows.values())
            names = {queue.name for queue in self._queues.values() if queue.known or queue.admitted}
            stopped = self._paused(now)
            names |= {name for name, state in counts if state is State.DEAD} | stopped.keys()
            return Stats(now, [self._stats_of(name, counts, stopped.get(name)) for name in sorted(names)])

    def _stats_of(self, name: str, counts: Mapping[tuple[str, State], int], pause: Pause | None) -> QueueStats:
        queue = self._queues.get(name) or Queue(name)
        shown = [state for state in State if state is State.DEAD or state not in FINAL]
        queued = self._shelves.queued.get(name, ())
        return QueueStats(
            name,
            queue.terms,
            queue.said.edited is not None,
            {state: counts[name, state] for state in shown if (name, state) in counts},
            None if queue.terms.max_size is None else queue.admitted,
            queue.dropped,
            min((row.due_at for row in queued), default=None),
            pause,
        )

    def _paused(self, now: Instant) -> dict[str, Pause]:
        """The queues that are paused now."""
        return {name: pause for name, pause in self._pauses.items() if in_force(pause, now)} if self._pauses else {}

    # --- schedules

    async def schedules(self, names: Sequence[str] | None = None) -> Schedules:
        with self._lock:
            return self._timetable.shown(names, self._now())

    async def due(self, limit: int) -> Schedules:
        with self._lock:
            return self._timetable.due(limit, self._now())

    async def schedule(self, entries: Sequence[Entry]) -> Sequence[bool]:
        with self._lock:
            return [self._timetable.put(entry) for entry in entries]

    async def unschedule(self, names: Mapping[str, int]) -> Sequence[bool]:
        with self._lock:
            return [self._timetable.drop(name, revision) for name, revision in names.items()]

    async def tick(self, ticks: Sequence[Tick]) -> Sequence[Ticked | None]:
        with self._lock:
            now = self._now()
            return [self._tick(tick, now) for tick in ticks]

    def _tick(self, tick: Tick, now: Instant) -> Ticked | None:
        if not self._timetable.waits_for(tick, now):
            return None
        receipt = None if tick.draft is None else self._receive(tick.draft, now)
        return self._timetable.step(tick, receipt, now)

    # --- the history of each minute

    async def record(self, reporter: UUID, number: int, tallies: Sequence[Tally], levels: Sequence[Level] = ()) -> int:
        with self._lock:
            life = self._lives.get(reporter)
            if life is None or life.retired_at is not None:
                return 0
            if number > life.reported:
                life.reported = number
                self._history.add(tallies, levels, self._now())
            return life.reported

    async def history(self, since: Instant, before: Instant, *, tens: bool = False) -> Sequence[Minutes]:
        with self._lock:
            return self._history.shown(since, before, 10 * MINUTE if tens else MINUTE)

    # --- a handler's side

    async def note(self, notes: Sequence[Note]) -> Sequence[bool]:
        with self._lock:
            now = self._now()
            return [(row := self._rows.get(note.id)) is not None and row.hear(note, now) for note in notes]

    async def log(self, id: UUID) -> Sequence[LogLine]:
        with self._lock:
            row = self._rows.get(id)
            return [] if row is None or row.told is None else list(row.told.lines)

    # --- who waits for a result

    async def watch(self, ids: Sequence[UUID], timeout: float) -> bool:
        mine = waiter()
        with self._lock:
            if any((row := self._rows.get(job)) is None or row.state in FINAL for job in ids):
                return True
            for job in ids:
                self._watchers.setdefault(job, set()).add(mine)
        try:
            return await mine.woken(timeout)
        finally:
            with self._lock:
                self._unwatch(ids, mine)

    def _unwatch(self, ids: Sequence[UUID], mine: Waiter) -> None:
        for job in ids:
            watchers = self._watchers.get(job, set())
            watchers.discard(mine)
            if not watchers:
                self._watchers.pop(job, None)

    def _tell_watchers(self, job: UUID) -> None:
        for watcher in self._watchers.get(job, ()):
            watcher.wake()

    # --- places and keys: taken by what begins a life, given back by what ends it

    def _queue(self, name: str) -> Queue:
        if name not in self._queues:
            self._queues[name] = Queue(name)
        return self._queues[name]

    def _forget_idle(self, queue: Queue) -> None:
        if not queue.known and not queue.admitted:
            del self._queues[queue.name]

    def _admit(self, row: Row) -> None:
        self._keys.take(row)
        self._queue(row.queue).admit(row)

    def _end(self, row: Row, now: Instant, keep: Span | None) -> None:
        """`row` has a final state from now on."""
        row.finished_at = now
        if self._watchers:
            self._tell_watchers(row.id)
        queue = self._queue(row.queue)
        queue.admitted -= 1
        self._forget_idle(queue)
        self._keys.end(row, now)
        hold = 0 if row.holds_until is None else row.holds_until - now
        row.prunable_at = None if keep is None else now + max(keep, TOMBSTONE, hold)

    def _end_unstarted(self, row: Row, reason: str, now: Instant, *, dead: bool = False) -> None:
        self._take_out(row)
        row.state, row.reason = State.DEAD if dead else State.CANCELLED, reason
        self._end(row, now, None if dead else row.draft.terms.keep)
        self._put_in(row)

    # --- where a row stands

    def _put_in(self, row: Row) -> None:
        self._shelves.put_in(row)
        if self._waiters and row.state is _QUEUED and row.queue not in self._paused(self._now()):
            self._hint(row.queue)

    def _hint(self, queue: str) -> None:
        for mine in self._waiters:
            if mine.queues is None or queue in mine.queues:
                mine.wake()

    def _take_out(self, row: Row) -> None:
        self._shelves.take_out(row)

    def _drop_lines(self, row: Row) -> None:
        """The claim under which `row` runs is over, and with it what was to be said about it."""
        holder = self._holder(row)
        if holder is not None and holder.mail:
            holder.mail = [line for line in holder.mail if (line.job, line.fence) != (row.id, row.fence)]

    def _holder(self, row: Row) -> Life | None:
        return None if row.worker is None else self._lives.get(row.worker)
