"""The witness of a random history: from what the store answers it keeps its own account, and objects to what cannot be.

It knows the invariants of the design (I1 to I7, I10), who may claim and who may rob, and what one step may do to a
job. It computes no full model: what a store must answer to the letter is compared with the memory store. Only what
finds places and keys, an enqueue or a retry, is foreseen whole.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from uuid import UUID

from holdfast.clock import DAY, HOUR, Instant
from holdfast.job import (
    ERRORS_FIRST,
    ERRORS_LAST,
    FINAL,
    TOMBSTONE,
    TRANSITIONS,
    Attempt,
    Claim,
    Draft,
    Event,
    Loss,
    Note,
    Outcome,
    QueueTerms,
    Record,
    State,
    Transition,
    Until,
)
from holdfast.policy import COMPANY_LOSSES
from holdfast.store import (
    LEASE,
    LEASE_RAN_OUT,
    Answer,
    Authority,
    Beat,
    Claims,
    Line,
    Over,
    Promoted,
    Quota,
    Receipt,
    Registered,
    Retried,
    Room,
    Settled,
    Stats,
    Tick,
    Ticked,
)
from tests.store.ledger import Keys, Queues, Sayings, Timetable

QUEUES = ["mail", "slow"]


@dataclass
class Life:
    """A worker's life as the rules of lease and steadiness make it."""

    lease_until: Instant
    beat_at: Instant
    steady_since: Instant
    ticket: int = 0  # the last one used
    took: Sequence[Claim] = field(default_factory=list)  # by that ticket
    retired_at: Instant | None = None
    loss: Loss | None = None

    def live(self, now: Instant) -> bool:
        return self.retired_at is None and now < self.lease_until

    def steady(self, now: Instant) -> bool:
        return 0 <= now - self.beat_at < LEASE / 2 and now - self.steady_since > LEASE

    def beat(self, now: Instant) -> None:
        if not 0 <= now - self.beat_at <= LEASE / 2:
            self.steady_since = now
        self.beat_at, self.lease_until = now, now + LEASE

    def over(self, now: Instant) -> bool:
        return now >= (self.beat_at + DAY if self.retired_at is None else self.retired_at + HOUR)


class Witness:
    """What was acknowledged, who holds what, which words were accepted. Each method hears of one call."""

    def __init__(self, now: Instant) -> None:
        self.now = now
        self.met: Counter[str] = Counter()  # what was answered, by what was asked
        self.jobs: dict[UUID, Record] = {}  # as last seen
        self.lives: dict[UUID, Life] = {}
        self.robbed: set[tuple[UUID, UUID, int]] = set()  # (worker, job, fence) of claims that a sweeper ended
        self.queues = Queues()
        self.sayings = Sayings()
        self.timetable = Timetable()
        self._keys = Keys()
        self._drafts: dict[UUID, Draft] = {}  # acknowledged, and neither pruned nor deleted
        self._tombs: dict[UUID, tuple[Draft, Instant]] = {}  # of deleted jobs, and when they may be forgotten
        self._births: Counter[UUID] = Counter()  # how often a job of this id was stored (anew after pruning)
        self._holders: dict[tuple[UUID, int, int], UUID] = {}  # (job, birth, fence) -> who was given it
        self._swept: set[tuple[UUID, int, int]] = set()  # of those, the ones that a reclaim gave
        self._losses: dict[tuple[UUID, int, int], Loss] = {}  # written on the job that runs under this fence
        self._settled: dict[tuple[UUID, int], tuple[int, UUID, State]] = {}  # (job, birth) -> the last accepted word
        self._accepted: set[tuple[UUID, int, int]] = set()
        self._written: dict[UUID, Outcome] = {}  # accepted in this step
        self._foreseen: dict[UUID, Record] = {}  # the jobs as this step must leave them, where that is known
        self._events: set[Event] = set()  # what this step may do to a job

    def _word(self, job: Claim | Outcome | Record) -> tuple[UUID, int, int]:
        return (job.id, self._births[job.id], job.fence)

    def running(self) -> list[Record]:
        return [row for row in self.jobs.values() if row.state is State.RUNNING]

    def ended(self) -> list[Record]:
        return [row for row in self.jobs.values() if row.state in (State.DEAD, State.CANCELLED)]

    def keyed(self) -> list[Record]:
        """Jobs with a key, first those that hold it now."""
        return sorted((row for row in self.jobs.values() if row.unique is not None), key=lambda row: not row.holds)

    def draft(self, job: UUID) -> Draft:
        """As it was enqueued."""
        return self._drafts[job]

    # --- producers and operators

    def enqueued(self, drafts: Sequence[Draft], receipts: Sequence[Receipt]) -> None:
        self._events = {"enqueue", "replace", "cancel"}
        self._foreseen = dict(self.jobs)
        for draft, receipt in zip(drafts, receipts, strict=True):
            assert receipt == self._receive(draft)
            self.met[f"enqueue: {receipt.answer}{', another is dropped' if receipt.dropped else ''}"] += 1

    def _receive(self, draft: Draft) -> Receipt:
        """The receipt that a draft must get; what becomes of it, and of others by it, is foreseen."""
        known = self._drafts.get(draft.id) or self._tombs.get(draft.id, (None,))[0]
        if known is not None:
            same = known.content == draft.content
            return Receipt(draft.id, "accepted" if same else "conflict", created=False)
        holder = self._keys.holder(draft.queue, draft.unique, self.now)
        if holder is not None:
            return self._clash(draft, holder)
        dropped = None
        room = self._crowded(draft.queue)
        if room is not None:
            if room.when_full == "drop_newest":
                self.queues.drops(draft.queue)
                return Receipt(draft.id, "dropped", created=False, room=room)
            droppable = sorted(
                (row.enqueued_at, row.id) for row in self._unfinished(draft.queue) if row.started_at is None
            )
            if room.when_full != "drop_oldest" or not droppable:
                return Receipt(draft.id, "full", created=False, room=room)
            dropped = self._drop(droppable[0][1])
        self._add(draft)
        return Receipt(draft.id, "accepted", dropped=dropped)

    def _clash(self, draft: Draft, holder: UUID) -> Receipt:
        row = self._foreseen[holder]
        on_clash = None if draft.unique is None else draft.unique.on_clash
        if on_clash == "return" and row.task == draft.task:
            return Receipt(draft.id, "duplicate", created=False, holder=holder)
        unstarted = row.state in (State.SCHEDULED, State.QUEUED) and row.started_at is None
        if on_clash != "replace" or row.task != draft.task or not unstarted:
            return Receipt(draft.id, "taken", created=False, holder=holder)
        state, due_at = _begins(draft, self.now)
        self._foreseen[holder] = replace(
            row,
            payload=draft.payload,
            state=state,
            due_at=due_at,
            expires_at=_instant(draft.expires, self.now),
            deadline_at=_instant(draft.deadline, self.now),
        )
        return Receipt(draft.id, "replaced", created=False, holder=holder)

    def _crowded(self, queue: str) -> Room | None:
        terms, depth = self.queues.terms(queue), len(self._unfinished(queue))
        if terms.max_size is None or depth < terms.max_size:
            return None
        return Room(depth, terms.max_size, terms.when_full, terms.block_timeout)

    def _unfinished(self, queue: str) -> list[Record]:
        return [row for row in self._foreseen.values() if row.queue == queue and row.state not in FINAL]

    def _drop(self, job: UUID) -> UUID:
        row = self._foreseen[job]
        self._foreseen[job] = replace(row, state=State.CANCELLED, reason="dropped", finished_at=self.now)
        self._keys.ends(row, self.now)
        self.queues.drops(row.queue)
        return job

    def _add(self, draft: Draft) -> None:
        state, due_at = _begins(draft, self.now)
        self._drafts[draft.id] = draft
        self._births[draft.id] += 1
        self._foreseen[draft.id] = _born(draft, state, self.now, due_at)
        self._keys.begins(draft.id, draft.queue, draft.unique)

    def cancelled(self, ids: Sequence[UUID], answers: Sequence[str]) -> None:
        self._events = {"cancel"}
        for job_id, answer in zip(ids, answers, strict=True):
            row = self.jobs.get(job_id)
            if row is None:
                assert answer == "missing"
            elif row.state is State.RUNNING:
                assert answer == "requested"
            elif row.state in FINAL:
                assert answer == "final"
            else:
                assert answer == "cancelled"
                self._keys.ends(row, self.now)

    def retried(self, ids: Sequence[UUID], answers: Sequence[Retried]) -> None:
        self._events = {"retry"}
        self._foreseen = dict(self.jobs)
        for job_id, answer in zip(ids, answers, strict=True):
            assert answer == self._retry(self._foreseen.get(job_id))
            self.met[f"retry: {answer.answer}"] += 1

    def _retry(self, row: Record | None) -> Retried:
        if row is None:
            return Retried("missing")
        if row.state not in FINAL:
            return Retried("unfinished")
        if row.state is State.SUCCEEDED:
            return Retried("succeeded")
        holder = self._keys.holder(row.queue, row.unique, self.now)
        if holder not in (None, row.id):
            return Retried("taken", holder=holder)
        if (room := self._crowded(row.queue)) is not None:
            return Retried("full", room=room)
        self._keys.begins(row.id, row.queue, row.unique)
        self._foreseen[row.id] = replace(
            row,
            state=State.QUEUED,
            due_at=self.now,
            life=row.life + 1,
            attempt=0,
            releases=0,
            losses=0,
            crashes=0,
            alone=self._drafts[row.id].alone,
            result=None,
            reason="",
            started_at=None,
            finished_at=None,
            expires_at=None,
            deadline_at=None,
            fingerprint="",
        )
        return Retried("retried")

    def deleted(self, ids: Sequence[UUID], answers: Sequence[str]) -> None:
        self._events = set()
        for job_id, answer in zip(ids, answers, strict=True):
            self.met[f"delete: {answer}"] += 1
            row = self.jobs.get(job_id)
            if row is None:
                assert answer == "missing"
            elif row.state is State.RUNNING:
                assert answer == "running"
            else:
                assert answer == "deleted"
                ended_at = self.now if row.finished_at is None else row.finished_at
                self._tombs[job_id] = (self._drafts[job_id], ended_at + TOMBSTONE)
                self._forget(row)

    def _forget(self, row: Record) -> None:
        self._keys.goes(row)
        self.sayings.goes(row.id)
        del self._drafts[row.id], self.jobs[row.id]

    def configured(self, queues: Mapping[str, QueueTerms | None], by: Authority) -> None:
        self._events = set()
        self.queues.configured(queues, by)

    def noted(self, notes: Sequence[Note], answers: Sequence[bool]) -> None:
        self._events = set()
        assert list(answers) == [self.sayings.noted(note, self.jobs.get(note.id), self.now) for note in notes]
        self.met.update(f"note: {answer}" for answer in answers)

    def ticked(self, ticks: Sequence[Tick], answers: Sequence[Ticked | None]) -> None:
        """Each makes its job as an enqueue would, or writes nothing."""
        self._events = {"enqueue", "replace", "cancel"}
        self._foreseen = dict(self.jobs)
        assert list(answers) == [self.timetable.ticked(tick, self._receive, self.now) for tick in ticks]
        self.met.update(f"tick: {'none' if answer is None else answer.outcome}" for answer in answers)

    # --- workers' lives

    def registered(self, worker: UUID, answer: Registered) -> None:
        assert answer == Registered(LEASE, self.now)
        if worker not in self.lives:
            self.lives[worker] = Life(self.now + LEASE, self.now, self.now)
        elif self.lives[worker].retired_at is None:
            self.lives[worker].beat(self.now)

    def beaten(self, workers: Sequence[UUID], beat: Beat) -> None:
        known = {worker for worker in workers if worker in self.lives and self.lives[worker].retired_at is None}
        assert beat == Beat(LEASE, self.now, frozenset(workers) - known)
        for worker in known:
            self.lives[worker].beat(self.now)

    def retired(self, worker: UUID, loss: Loss | None, jobs: Mapping[tuple[UUID, int], Loss]) -> None:
        life = self.lives.get(worker)
        if life is not None and life.retired_at is None:
            life.retired_at, life.loss = self.now, loss
            for row in self.running():
                if row.worker == worker and (row.id, row.fence) in jobs:
                    self._losses.setdefault(self._word(row), jobs[row.id, row.fence])

    # --- claims

    def claimed(
        self,
        worker: UUID,
        ticket: int,
        queues: Sequence[str] | None,
        limit: int,
        claims: Claims,
        quotas: Sequence[Quota] = (),
    ) -> None:
        self._events = {"claim"}
        jobs, refused = self._due(worker, ticket, queues, limit, quotas)
        assert claims.refused == refused
        assert sorted(job.id for job in claims.jobs) == sorted(jobs), "not the jobs at the heads, or not those held"
        if claims.jobs and ticket == self.lives[worker].ticket + 1:
            self._check_fresh(claims.jobs)
            self.lives[worker].ticket, self.lives[worker].took = ticket, claims.jobs
        for job in claims.jobs:
            assert job.worker == worker
            self._handed_out(job)

    def _due(
        self, worker: UUID, ticket: int, queues: Sequence[str] | None, limit: int, quotas: Sequence[Quota]
    ) -> tuple[list[UUID], str | None]:
        """The jobs that a claim must take or return, or why it must be refused."""
        life = self.lives.get(worker)
        if life is None or life.retired_at is not None:
            return [], "gone"
        if not life.live(self.now):
            return [], "expired"
        if ticket == life.ticket:
            held = {(row.id, row.fence) for row in self.running() if row.worker == worker}
            jobs = [job.id for job in life.took if (job.id, job.fence) in held]
            return jobs, None if jobs else "used"
        if ticket != life.ticket + 1:
            return [], "ticket"
        jobs = list[UUID]()
        for queue, most in quotas:
            jobs += self._heads(queue, min(most, limit - len(jobs)), jobs)
        rest = limit - len(jobs)
        names = QUEUES if queues is None else queues
        return jobs + [job for name in names for job in self._heads(name, rest, jobs)], None

    def _heads(self, queue: str, limit: int, taken: Sequence[UUID] = ()) -> list[UUID]:
        if self.queues.pause(queue, self.now) is not None:
            return []
        rows = [row for row in self.jobs.values() if row.state is State.QUEUED and row.queue == queue]
        rows = [row for row in rows if row.id not in taken and self.over(row) is None]
        rows.sort(key=lambda row: (-row.priority, row.due_at, row.id))
        return [row.id for row in rows[:limit]]

    def over(self, row: Record) -> str | None:
        """Why promote must end the job; None: it must not."""
        if row.state not in (State.SCHEDULED, State.QUEUED):
            return None
        if row.deadline_at is not None and row.deadline_at <= self.now:
            return "deadline"
        expired = row.expires_at is not None and row.expires_at <= self.now and row.started_at is None
        return "expired" if expired else None

    def _check_fresh(self, jobs: Sequence[Claim]) -> None:
        for queue in QUEUES:
            ids = [job.id for job in jobs if job.queue == queue]
            assert ids == self._heads(queue, len(ids)), "the order within a queue"
        for job in jobs:
            row = self.jobs[job.id]
            assert (job.attempt, job.fence, job.loss) == (row.attempt + 1, row.fence + 1, None)
            assert (job.claimed_at, job.payload, job.headers) == (self.now, row.payload, row.headers)
            assert job.deadline_at == row.deadline_at
            self._keys.starts(row)

    def _handed_out(self, job: Claim) -> None:
        """I3: a fence is given to one worker."""
        self.sayings.check_claim(job)
        assert self._holders.setdefault(self._word(job), job.worker) == job.worker

    def settled(self, outcomes: Sequence[Outcome], answers: Sequence[Settled], events: Iterable[Event]) -> None:
        """I6, and I3's other half: only the word of the running claim is accepted, and once."""
        self._events = {*events, "cancel"}
        for outcome, answer in zip(outcomes, answers, strict=True):
            key, word = self._word(outcome)[:2], (outcome.fence, outcome.worker)
            row, last = self.jobs.get(outcome.id), self._settled.get(self._word(outcome)[:2])
            self.met[f"finish: {answer.answer}{', though it is deleted' if outcome.id in self._tombs else ''}"] += 1
            if row is None:
                replayed = outcome.id in self._tombs and last is not None and last[:2] == word
                assert answer == (Settled(Answer.REPLAYED, last and last[2]) if replayed else Settled(Answer.GONE))
            elif outcome.id not in self._written and (row.fence, row.worker) == word:
                written = _as_written(outcome, row)
                assert answer == Settled(Answer.ACCEPTED, written.state)
                assert self._word(outcome) not in self._accepted
                self._accepted.add(self._word(outcome))
                self._settled[key] = (*word, written.state)
                self._written[outcome.id] = written
                if written.state in FINAL:
                    self._keys.ends(row, self.now)
            elif last is not None and last[:2] == word:
                assert answer == Settled(Answer.REPLAYED, last[2])
            else:
                assert answer == Settled(Answer.STALE)

    # --- janitors

    def reclaimed(self, sweeper: UUID, claims: Sequence[Claim]) -> None:
        self._events = set()
        assert {job.id for job in claims} == {row.id for row in self._takable(sweeper)}
        for job in claims:
            row = self.jobs[job.id]
            assert (job.worker, job.attempt, job.claimed_at) == (sweeper, row.attempt, row.started_at)
            assert job.deadline_at == row.deadline_at
            assert job.loss == self._loss(row)
            self._losses[self._word(job)] = self._loss(row)
            if row.worker is not None and row.worker != sweeper:
                assert job.fence == row.fence + 1
                self.robbed.add((row.worker, row.id, row.fence))
                self._swept.add(self._word(job))
            self._handed_out(job)

    def _loss(self, row: Record) -> Loss:
        """What a sweeper must be told of this claim's loss: the first word about it."""
        holder = None if row.worker is None else self.lives.get(row.worker)
        return self._losses.get(self._word(row)) or (holder and holder.loss) or LEASE_RAN_OUT

    def _takable(self, sweeper: UUID) -> list[Record]:
        """Cuts leases, as a steady sweeper does, and tells what it must get."""
        me = self.lives.get(sweeper)
        if me is None or not me.live(self.now):
            return []
        steady = me.steady(self.now)
        if steady:
            for life in self.lives.values():
                life.lease_until = min(life.lease_until, self.now + LEASE)
        return [row for row in self.running() if self._may_take(row, sweeper, steady=steady)]

    def _may_take(self, row: Record, sweeper: UUID, *, steady: bool) -> bool:
        if row.worker == sweeper:
            return self._word(row) in self._swept
        holder = None if row.worker is None else self.lives.get(row.worker)
        assert holder is not None, "a worker's row was pruned while a job ran under it"
        return holder.retired_at is not None or (steady and not holder.live(self.now))

    def promoted(self, limit: int, answer: Promoted) -> None:
        self._events = {"promote", "expire"}
        ended = [self._time_out(over) for over in answer.over]
        assert len(set(ended)) == len(ended) == min(limit, self.count_over())
        waiting = [row for row in self.jobs.values() if row.state in (State.SCHEDULED, State.QUEUED)]
        waiting = [row for row in waiting if row.id not in ended]
        scheduled = sorted(row.due_at for row in waiting if row.state is State.SCHEDULED)
        moved = min(limit, sum(due_at <= self.now for due_at in scheduled))
        times = [*scheduled[moved:], *(time for row in waiting for time in _limits(row))]
        assert (answer.moved, answer.next_in) == (moved, max(0, min(times) - self.now) if times else None)

    def count_over(self) -> int:
        return sum(self.over(row) is not None for row in self.jobs.values())

    def _time_out(self, over: Over) -> UUID:
        row = self.jobs[over.id]
        assert over == Over(row.id, row.task, row.queue, self.over(row))  # type: ignore[arg-type]
        self.met[f"promote: {over.reason}"] += 1
        state = State.DEAD if over.reason == "deadline" else State.CANCELLED
        self._foreseen[row.id] = replace(row, state=state, reason=over.reason, finished_at=self.now)
        self._keys.ends(row, self.now)
        return row.id

    def pruned(self, count: int) -> None:
        """I1: what is pruned had ended, and its time was over."""
        self._events = set()
        over = [row for row in self.jobs.values() if self._is_over(row)]
        tombs = [job for job, (_, until) in self._tombs.items() if self.now >= until]
        assert count == len(over) + len(tombs)
        for row in over:
            self._forget(row)
        for job in tombs:
            del self._tombs[job]
        gone = {*tombs, *(row.id for row in over)}
        self.robbed = {word for word in self.robbed if word[1] not in gone}
        held = {row.worker for row in self.running()}
        for worker in [worker for worker, life in self.lives.items() if life.over(self.now) and worker not in held]:
            del self.lives[worker]

    def _is_over(self, row: Record) -> bool:
        if row.finished_at is None or row.state is State.DEAD:
            return False
        kept_until = row.finished_at + max(row.terms.keep, TOMBSTONE)
        return self.now >= max(kept_until, self._keys.held_until(row.id))

    # --- what must hold after every step

    def hears(self, lines: Sequence[Line]) -> None:
        """What a worker must be told, it is told, and nothing about claims that are over or still held."""
        held = {(row.worker, row.id, row.fence): row for row in self.running()}
        flagged = {word for word, row in held.items() if row.cancel_requested_at is not None}
        cancels = {(line.worker, line.job, line.fence) for line in lines if line.kind == "cancel"}
        lost = {(line.worker, line.job, line.fence) for line in lines if line.kind == "lost"}
        assert len(lines) == len(cancels) + len(lost)
        assert cancels <= flagged, "told to cancel what is over, or what nobody wants cancelled"
        by_sweepers = {(row.worker, row.id, row.fence) for row in self.running() if self._word(row) in self._swept}
        assert flagged - cancels <= by_sweepers, "not told of a cancel"
        assert lost == {word for word in self.robbed if self._listens(word[0])}

    def _listens(self, worker: UUID) -> bool:
        return worker in self.lives and self.lives[worker].retired_at is None

    def sees(self, records: Sequence[Record]) -> None:
        """All jobs, read back after a step."""
        order = [(record.enqueued_at, record.id) for record in records]
        assert order == sorted(order, reverse=True)
        assert {record.id for record in records} == self._drafts.keys(), "I1, I2: lost, or from nowhere"
        for record in records:
            self._check_step(self.jobs.get(record.id), record)
            self._check_record(record)
        self._keys.check(records, self.now)
        self.met["a key is held after the end"] += any(record.holds_until for record in records)
        self.queues.check(records)
        self.jobs = {record.id: record for record in records}
        self._events, self._written, self._foreseen = set(), {}, {}

    def counts(self, stats: Stats) -> None:
        """The queues, read after the jobs."""
        self.queues.check_stats(stats, list(self.jobs.values()), self.now)

    def _check_step(self, old: Record | None, new: Record) -> None:
        if new.id in self._foreseen:
            assert _bare(new) == _bare(self._foreseen[new.id])
        if old is None:
            assert new.id in self._foreseen
            return
        if old.state is not new.state:
            steps = {Transition(event, old.state, new.state) for event in self._events}
            assert steps & TRANSITIONS, f"{old.state} -> {new.state} by {self._events}"
        if new.id in self._written:
            assert _bare(new) == _bare(_after(old, self._written[new.id], self.now))
        elif new.id not in self._foreseen:
            assert (new.history, new.payload, new.life) == (old.history, old.payload, old.life)
            if old.state in FINAL:  # I4
                assert _bare(old) == _bare(new)
        assert new.fence - old.fence in (0, 1)

    def _check_record(self, record: Record) -> None:
        draft = self._drafts[record.id]
        for name in ("task", "queue", "terms", "priority", "tags", "line", "headers", "unique"):
            assert getattr(record, name) == getattr(draft, name), name
        self.sayings.check(record)
        assert (record.worker is not None) == (record.state is State.RUNNING)
        assert (record.finished_at is not None) == (record.state in FINAL)
        assert record.cancel_requested_at is None or record.state is State.RUNNING
        assert record.result is None or record.state is State.SUCCEEDED
        assert record.attempt <= record.terms.max_attempts  # I5
        assert record.crashes <= max(1, record.terms.max_crashes)
        assert record.losses < COMPANY_LOSSES or record.alone, "after two losses in company every run is alone"
        fences = [attempt.fence for attempt in record.history]
        assert fences == sorted(set(fences))
        last = self._settled.get(self._word(record)[:2])
        assert (record.settled_fence, record.settled_by, record.settled_state) == (last or (None, None, None))


def _begins(draft: Draft, now: Instant) -> tuple[State, Instant]:
    due_at = now + draft.delay if draft.at is None else draft.at
    return (State.QUEUED if due_at <= now else State.SCHEDULED), due_at


def _born(draft: Draft, state: State, now: Instant, due_at: Instant) -> Record:
    """A job that was just stored."""
    return Record(
        id=draft.id,
        task=draft.task,
        queue=draft.queue,
        line=draft.line,
        state=state,
        payload=draft.payload,
        terms=draft.terms,
        priority=draft.priority,
        tags=draft.tags,
        life=1,
        attempt=0,
        fence=0,
        releases=0,
        losses=0,
        crashes=0,
        alone=draft.alone,
        enqueued_at=now,
        due_at=due_at,
        started_at=None,
        finished_at=None,
        worker=None,
        cancel_requested_at=None,
        settled_fence=None,
        settled_by=None,
        settled_state=None,
        result=None,
        reason="",
        headers=draft.headers,
        unique=draft.unique,
        expires_at=_instant(draft.expires, now),
        deadline_at=_instant(draft.deadline, now),
    )


def _instant(until: Until | None, now: Instant) -> Instant | None:
    return None if until is None else now + until.delay if until.at is None else until.at


def _limits(row: Record) -> list[Instant]:
    """The times at which its time may be over."""
    times = [row.deadline_at, row.expires_at if row.started_at is None else None]
    return [time for time in times if time is not None]


def _bare(record: Record) -> Record:
    """Without what the keys and the sayings say of it."""
    return replace(record, holds=False, holds_until=None, progress=None, text=None)


def _as_written(outcome: Outcome, row: Record) -> Outcome:
    """The branch that must be written, with the reason that must stand."""
    if row.cancel_requested_at is None or outcome.state is State.SUCCEEDED:
        return outcome
    outcome = outcome.if_cancelled or outcome
    assert outcome.state is State.CANCELLED, "policy gave no branch for a cancel"
    return outcome._replace(reason=row.reason or outcome.reason)


def _after(old: Record, written: Outcome, now: Instant) -> Record:
    """A running job once `written` is."""
    assert old.started_at is not None
    due_at = old.due_at if written.state in FINAL or written.delay is None else now + written.delay
    history = list(old.history)
    if written.ended != "succeeded":
        what = (old.attempt, written.fence, written.worker, old.started_at, now)
        history.append(Attempt(*what, written.ended, written.error, written.reason))
    too_many = len(history) > ERRORS_FIRST + ERRORS_LAST
    if too_many:
        del history[ERRORS_FIRST]
    return replace(
        old,
        state=written.state,
        attempt=written.attempt,
        releases=written.releases,
        losses=written.losses,
        crashes=written.crashes,
        alone=written.alone,
        due_at=due_at,
        finished_at=now if written.state in FINAL else None,
        worker=None,
        cancel_requested_at=None,
        settled_fence=written.fence,
        settled_by=written.worker,
        settled_state=written.state,
        result=written.result,
        reason=written.reason,
        history=tuple(history),
        omitted=old.omitted + too_many,
        fingerprint=written.fingerprint if written.state is State.DEAD else "",
    )
