"""Random histories on every store: the same answers as the memory store gives, and the invariants of the design.

A step asks the store, asks a MemoryStore that has lived through the same history, and compares; then it reads
every job back from both. For the memory store itself only the invariants speak. Time moves through `shift`.
"""

import asyncio
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from holdfast.clock import DAY, HOUR, MINUTE, SECOND, FakeClock, Instant
from holdfast.job import (
    ERRORS_FIRST,
    ERRORS_LAST,
    FINAL,
    TOMBSTONE,
    TRANSITIONS,
    Attempt,
    Cancelled,
    Claim,
    Draft,
    Event,
    Failed,
    Failure,
    Loss,
    Lost,
    Outcome,
    Record,
    Released,
    Snoozed,
    State,
    Succeeded,
    Terms,
    Transition,
    Verdict,
)
from holdfast.policy import COMPANY_LOSSES, decide
from holdfast.store import LEASE, Answer, Claims, Store, Where
from holdfast.stores.memory import MemoryStore
from tests.store.backends import BACKENDS

T = TypeVar("T")

ALL = 10_000
QUEUES = ["mail", "slow"]
S = State

# Written out once more, so that a change of the table in job.py is a decision and not a slip.
LEGAL: set[tuple[Event, State | None, State]] = {
    ("enqueue", None, S.SCHEDULED),
    ("enqueue", None, S.QUEUED),
    ("promote", S.SCHEDULED, S.QUEUED),
    ("claim", S.QUEUED, S.RUNNING),
    ("succeed", S.RUNNING, S.SUCCEEDED),
    ("fail", S.RUNNING, S.SCHEDULED),
    ("fail", S.RUNNING, S.QUEUED),
    ("fail", S.RUNNING, S.DEAD),
    ("snooze", S.RUNNING, S.SCHEDULED),
    ("snooze", S.RUNNING, S.QUEUED),
    ("release", S.RUNNING, S.QUEUED),
    ("release", S.RUNNING, S.SCHEDULED),
    ("lose", S.RUNNING, S.QUEUED),
    ("lose", S.RUNNING, S.SCHEDULED),
    ("lose", S.RUNNING, S.DEAD),
    ("cancel", S.SCHEDULED, S.CANCELLED),
    ("cancel", S.QUEUED, S.CANCELLED),
    ("cancel", S.RUNNING, S.CANCELLED),
    ("retry", S.DEAD, S.QUEUED),
    ("retry", S.CANCELLED, S.QUEUED),
}

EVENT_OF: dict[type[Verdict], Event] = {
    Succeeded: "succeed",
    Failed: "fail",
    Snoozed: "snooze",
    Cancelled: "cancel",
    Released: "release",
    Lost: "lose",
}

# A few presets rather than free combinations: each draw costs entropy, and a history needs many steps.
TERMS = [
    Terms(max_attempts=1, keep=0),
    Terms(max_attempts=2, jitter=0.0, max_crashes=1, keep=TOMBSTONE + 1),
    Terms(max_attempts=3, base_delay=MINUTE, max_crashes=2, timeout=5 * SECOND, keep=HOUR),
    Terms(max_attempts=3, max_crashes=0, keep=0),
]
OPTIONS: list[dict[str, Any]] = [
    {
        "task": task,
        "queue": queue,
        "payload": payload,
        "terms": terms,
        "priority": priority,
        "tags": tags,
        "alone": payload == b"1",
    }
    for task, tags in [("shop.send", ("a", "b")), ("shop.print", ())]
    for queue, priority in [("mail", 0), ("mail", 1), ("slow", 0)]
    for terms, payload in zip(TERMS, [b"[]", b"\x00\xff", b"", b"1"], strict=True)
]
options = st.sampled_from(OPTIONS)
delays = st.sampled_from([0, 0, 0, 1, 5 * SECOND, HOUR])
instants = st.none() | st.sampled_from([-MINUTE, 0, 1, MINUTE])
failures = st.builds(Failure, st.sampled_from(["ValueError", "OSError"]), st.text(max_size=5), st.just("…"))
losses = st.builds(
    Loss,
    cause=st.sampled_from(["killed by signal 9", "stalled"]),
    on_purpose=st.booleans(),
    begun=st.booleans(),
    culprit=st.booleans(),
)
verdicts: st.SearchStrategy[Verdict] = st.one_of(
    st.builds(Succeeded, st.sampled_from([b"null", b"1"])),
    st.just(Succeeded(b"2")),
    st.builds(Failed, failures, after=st.sampled_from([None, 0, SECOND])),
    st.builds(Failed, failures, final=st.just(True)),
    st.builds(Snoozed, st.sampled_from([0, 1, MINUTE]), st.sampled_from(["", "later"])),
    st.builds(Cancelled, st.sampled_from(["", "not wanted"])),
    st.builds(Released, st.sampled_from(["", "shutdown"]), unknown=st.booleans()),
    st.builds(Lost, losses),
)
moves = st.sampled_from([1, SECOND, LEASE // 3, LEASE // 2, LEASE // 2 + 1, LEASE - 1, LEASE, -1, -SECOND, -LEASE])
leaps = st.sampled_from([LEASE + 1, MINUTE, HOUR, DAY, -HOUR])
wanted = st.sampled_from([["mail"], ["mail"], ["slow"], QUEUES, None])
filters = st.builds(
    Where,
    states=st.none() | st.lists(st.sampled_from(State), max_size=3),
    queue=st.none() | st.sampled_from(QUEUES),
    task=st.none() | st.just("shop.send"),
    tag=st.none() | st.sampled_from(["a", "b"]),
    error=st.none() | st.just("ValueError"),
)


class History(RuleBasedStateMachine):
    """One random history of a store, beside the same history of the model."""

    drafts: Bundle[Draft] = Bundle("drafts")
    workers: Bundle[UUID] = Bundle("workers")
    claims: Bundle[Claim] = Bundle("claims")
    spoken: Bundle[Outcome] = Bundle("spoken")  # outcomes that were sent already

    def __init__(self, make: Callable[[Path, FakeClock], Store]) -> None:
        super().__init__()
        clock = FakeClock()
        self._folder = tempfile.TemporaryDirectory(prefix="holdfast-")
        self._loop = asyncio.Runner()
        first = make(Path(self._folder.name), clock)
        self._run(first.migrate())
        self._handles = [first, first.twin()]  # used in turn: nothing may be remembered in one instance only
        for handle in self._handles:
            self._run(handle.open())
        self._model = None if isinstance(first, MemoryStore) else MemoryStore(clock)
        self._clock = clock
        self._count = 0
        self._turn = 0

        self.before: dict[UUID, Record] = {}  # all jobs, as they were before this step
        self.events: set[Event] = set()  # what this step may do to a job
        self.acknowledged: dict[UUID, Draft] = {}
        self.births: dict[UUID, int] = {}  # how often a job of this id was stored (anew after pruning)
        self.lease_until: dict[UUID, Instant] = {}  # per worker that is not retired, as it was told
        self.sure_until: dict[UUID, Instant] = {}  # the same, where a steady sweeper may have cut it
        self.tickets: dict[UUID, int] = {}  # per worker, the next one to use
        self.last: dict[UUID, list[Claim]] = {}  # per worker, what its last used ticket took
        self.unheard: set[UUID] = set()  # workers that do not know of their last claim: its reply was lost
        self.holders: dict[tuple[UUID, int, int], UUID] = {}  # (job, birth, fence) -> who was given it
        self.settled: dict[tuple[UUID, int], tuple[int, UUID, State]] = {}  # (job, birth) -> the last accepted word
        self.accepted: set[tuple[UUID, int, int]] = set()
        self.sweepers: set[UUID] = set()  # who took over jobs, perhaps with a cancel asked for already
        self.robbed: set[tuple[UUID, UUID, int]] = set()  # (worker, job, fence) of claims that a sweeper ended

    # --- asking both

    def _run(self, call: Awaitable[T]) -> T:
        async def bounded() -> T:
            async with asyncio.timeout(30):
                return await call

        return self._loop.run(bounded())

    def ask(self, call: Callable[[Store], Awaitable[T]], same: Callable[[T], object] = lambda answer: answer) -> T:
        """The store's answer, which must be the model's; `same` takes away what the laws leave open."""
        self._turn += 1
        answer = self._run(call(self._handles[self._turn % 2]))
        if self._model is not None:
            expected = self._run(call(self._model))
            assert same(answer) == same(expected), f"the store says {answer}, the model {expected}"
        return answer

    @property
    def now(self) -> Instant:
        return self._clock.now() + self._handles[0].shift

    def _move(self, by: int) -> None:
        self._handles[0].shift += by
        if self._model is not None:
            self._model.shift += by

    def _fresh_id(self) -> UUID:
        """Made here, so that store and model have the same; scattered, so that id order is not time order."""
        self._count += 1
        return UUID(bytes=blake2b(self._count.to_bytes(4, "big"), digest_size=16).digest())

    def _word(self, job: Claim | Outcome) -> tuple[UUID, int, int]:
        return (job.id, self.births.get(job.id, 0), job.fence)

    # --- the world that every history begins with

    @initialize(target=workers)
    def two_workers(self) -> Any:
        return multiple(self.register(), self.register())

    @initialize(target=drafts, options=st.lists(options, min_size=3, max_size=8))
    def some_jobs(self, options: list[dict[str, Any]]) -> Any:
        return self._enqueue_new(options)

    # --- producers

    @rule(target=drafts, options=st.lists(options, min_size=1, max_size=4), delay=delays, at=instants)
    def enqueue(self, options: list[dict[str, Any]], delay: int, at: int | None) -> Any:
        due = {"delay": delay} if at is None else {"at": self.now + at}
        return self._enqueue_new([options[0] | due, *options[1:]])

    def _enqueue_new(self, options: list[dict[str, Any]]) -> Any:
        made = [Draft(id=self._fresh_id(), **each) for each in options]
        self._enqueue(made)
        return multiple(*made)

    @rule(known=st.lists(drafts, min_size=1, max_size=3), change=st.booleans(), twice=st.booleans())
    def enqueue_again(self, known: list[Draft], change: bool, twice: bool) -> None:
        if change:
            known = [Draft(d.id, d.task, d.queue, d.payload + b" ", d.terms, delay=5) for d in known]
        self._enqueue(known * (1 + twice))

    def _enqueue(self, drafts: Sequence[Draft]) -> None:
        receipts = self.ask(lambda store: store.enqueue(drafts), list)
        self.events = {"enqueue"}
        for draft, receipt in zip(drafts, receipts, strict=True):
            known = self.acknowledged.get(draft.id)
            same = known is None or known.content == draft.content
            answer = ("accepted" if same else "conflict", known is None)
            assert (receipt.id, receipt.answer, receipt.created) == (draft.id, *answer)
            if known is None:
                self.acknowledged[draft.id] = draft
                self.births[draft.id] = self.births.get(draft.id, 0) + 1

    # --- workers' lives

    @rule(target=workers)
    def register(self) -> UUID:
        worker = self._fresh_id()
        self._register(worker)
        self.tickets[worker] = 1
        return worker

    def _register(self, worker: UUID) -> None:
        registered = self.ask(lambda store: store.register(worker, None, {"pid": 1}))
        assert registered == (LEASE, self.now)
        self.lease_until[worker] = self.sure_until[worker] = self.now + LEASE

    @rule(some=st.lists(workers, min_size=1, max_size=4), registers=st.booleans())
    def beat(self, some: list[UUID], registers: bool) -> None:
        self._beat(some)
        if registers and some[0] in self.lease_until:  # registering again is a beat
            self._register(some[0])

    def _beat(self, some: list[UUID]) -> None:
        beat = self.ask(lambda store: store.beat(some))
        assert beat.now == self.now
        for worker in set(some) - beat.gone:
            assert worker in self.lease_until, "a retired worker was given a lease"
            self.lease_until[worker] = self.sure_until[worker] = self.now + LEASE
        for worker in beat.gone:  # retired, or silent for a day and pruned
            self._end(worker)

    def _retire(self, worker: UUID, loss: Loss | None) -> None:
        self.ask(lambda store: store.retire(worker, loss))
        self._end(worker)

    def _end(self, worker: UUID) -> None:
        self.lease_until.pop(worker, None)
        self.sure_until.pop(worker, None)

    # --- claims

    @rule(target=claims, worker=workers, queues=wanted, limit=st.integers(1, 4), heard=st.booleans())
    def claim(self, worker: UUID, queues: list[str] | None, limit: int, heard: bool) -> Any:
        return multiple(*self._claim(worker, queues, limit, heard=heard))

    @rule(target=spoken, worker=workers, queues=wanted, limit=st.integers(1, 4), verdict=verdicts)
    def work(self, worker: UUID, queues: list[str] | None, limit: int, verdict: Verdict) -> Any:
        """What a worker does all day: it is well, claims, and finishes."""
        self._beat([worker])
        self._promote()
        self._check()
        jobs = self._claim(worker, queues, limit)
        self._check()
        outcomes = [decide(job, verdict) for job in jobs]
        self._finish(outcomes, [EVENT_OF[type(verdict)]])
        return multiple(*outcomes)

    @rule(worker=workers, skew=st.sampled_from([-2, -1, 1, 2]))
    def claim_with_another_ticket(self, worker: UUID, skew: int) -> None:
        """The last ticket used is a repeat; any other but the next is refused."""
        if (ticket := self.tickets[worker] + skew) < 1:
            return
        claims = self.ask(lambda store: store.claim(worker, ticket, None, ALL), _unordered)
        self._served(worker, claims, *self._repeated(worker) if skew == -1 else ([], "ticket"))

    def _claim(self, worker: UUID, queues: list[str] | None, limit: int, *, heard: bool = True) -> list[Claim]:
        """As a fetcher does it: the same ticket until it is answered, then the next one."""
        repeat = worker in self.unheard
        ticket = self.tickets[worker] - repeat
        if queues is None or len(queues) > 1:
            limit = ALL  # over several queues only the set of jobs is law, so it is all of them
        ordered = queues is not None and len(queues) == 1 and not repeat
        claims = self.ask(lambda store: store.claim(worker, ticket, queues, limit), _exact if ordered else _unordered)
        self.events = {"claim"}
        wanted = self._repeated(worker) if repeat else (self._heads(queues, limit), None)
        if not self._served(worker, claims, *wanted):
            return []
        if not repeat and claims.jobs:
            self._check_fresh(worker, claims.jobs)
            self.tickets[worker] += 1
            self.last[worker] = list(claims.jobs)
        if heard:
            self.unheard.discard(worker)
            return list(claims.jobs)
        if claims.jobs:
            self.unheard.add(worker)
        return []

    def _served(self, worker: UUID, claims: Claims, jobs: Sequence[UUID], refused: str | None) -> bool:
        """Whether the claim was dealt with, and then as it should be; False if the worker may not claim at all."""
        if claims.refused in {"gone", "expired"}:
            assert not claims.jobs
            assert self.now >= self.sure_until.get(worker, self.now), "a live worker was refused"
            return False
        assert self.now < self.lease_until.get(worker, self.now), "a claim by a worker whose lease is over"
        assert claims.refused == refused
        assert sorted(job.id for job in claims.jobs) == sorted(jobs)
        return True

    def _repeated(self, worker: UUID) -> tuple[list[UUID], str | None]:
        """What a claim with the last used ticket must answer."""
        held = {(r.id, r.fence) for r in self.before.values() if r.worker == worker}
        jobs = [job.id for job in self.last.get(worker, []) if (job.id, job.fence) in held]
        return jobs, None if jobs else "used"

    def _heads(self, queues: list[str] | None, limit: int) -> list[UUID]:
        """What a fresh claim must take."""
        heads = []
        for queue in QUEUES if queues is None else queues:
            rows = [r for r in self.before.values() if r.state is S.QUEUED and r.queue == queue]
            rows.sort(key=lambda r: (-r.priority, r.due_at, r.id))
            heads += [r.id for r in rows[:limit]]
        return heads

    def _check_fresh(self, worker: UUID, jobs: Sequence[Claim]) -> None:
        for queue in {job.queue for job in jobs}:
            ids = [job.id for job in jobs if job.queue == queue]
            assert ids == self._heads([queue], len(ids)), "the order within a queue"
        for job in jobs:
            row = self.before[job.id]
            assert (job.attempt, job.fence, job.loss) == (row.attempt + 1, row.fence + 1, None)
            assert job.claimed_at == self.now
            self._handed_out(job, worker)

    def _handed_out(self, job: Claim, worker: UUID) -> None:
        """I3: a fence is given to one worker."""
        assert job.worker == worker
        assert self.holders.setdefault(self._word(job), worker) == worker

    # --- outcomes

    @rule(target=spoken, jobs=st.lists(consumes(claims), min_size=1, max_size=4), verdict=verdicts)
    def finish(self, jobs: list[Claim], verdict: Verdict) -> Any:
        outcomes = [decide(job, verdict) for job in jobs]
        self._finish(outcomes, [EVENT_OF[type(verdict)]])
        return multiple(*outcomes)

    @rule(target=spoken, job=claims, verdict=verdicts)
    def finish_and_forget(self, job: Claim, verdict: Verdict) -> Outcome:
        """The claim stays in the hand, so that another verdict may follow under the same word."""
        outcome = decide(job, verdict)
        self._finish([outcome], [EVENT_OF[type(verdict)]])
        return outcome

    @rule(outcomes=st.lists(spoken, min_size=1, max_size=3))
    def finish_again(self, outcomes: list[Outcome]) -> None:
        self._finish(outcomes, list(EVENT_OF.values()))

    @rule(job=claims, verdict=verdicts, fence=st.integers(-2, 2), stranger=workers)
    def finish_with_a_forged_word(self, job: Claim, verdict: Verdict, fence: int, stranger: UUID) -> None:
        forged = decide(job, verdict)._replace(fence=job.fence + fence, worker=stranger)
        self._finish([forged], [EVENT_OF[type(verdict)]])

    def _finish(self, outcomes: Sequence[Outcome], events: Iterable[Event]) -> None:
        """I6, and I3's other half: only the word of the running claim is accepted, and once."""
        answers = self.ask(lambda store: store.finish(outcomes), list)
        self.events = {*events, "cancel"}
        running = {job_id: (r.fence, r.worker) for job_id, r in self.before.items() if r.state is S.RUNNING}
        for outcome, answer in zip(outcomes, answers, strict=True):
            key = (outcome.id, self.births.get(outcome.id, 0))
            word = (outcome.fence, outcome.worker)
            last = self.settled.get(key)
            if outcome.id not in self.before:
                assert answer == (Answer.GONE, None)
            elif running.get(outcome.id) == word:
                flagged = self.before[outcome.id].cancel_requested_at is not None
                cancelled = flagged and outcome.state is not S.SUCCEEDED
                written = S.CANCELLED if cancelled else outcome.state
                assert answer == (Answer.ACCEPTED, written)
                assert self._word(outcome) not in self.accepted
                self.accepted.add(self._word(outcome))
                self.settled[key] = (*word, written)
                del running[outcome.id]
            elif last is not None and last[:2] == word:
                assert answer == (Answer.REPLAYED, last[2])
            else:
                assert answer == (Answer.STALE, None)

    # --- janitors

    @precondition(lambda history: len(history.lease_until) > 1)
    @rule(
        target=claims,
        worker=workers,
        queues=wanted,
        loss=st.none() | losses,
        sweeper=workers,
        dies=st.booleans(),
    )
    def a_busy_worker_dies_and_another_sweeps(
        self, worker: UUID, queues: list[str] | None, loss: Loss | None, sweeper: UUID, dies: bool
    ) -> Any:
        self._claim(worker, queues, 2)
        self._check()
        self._retire(worker, loss)
        self._check()
        return multiple(*self._sweep(sweeper, dies=dies))

    @rule(target=claims, well=st.lists(workers, min_size=1, max_size=2, unique=True), dies=st.booleans())
    def others_fall_silent_and_a_steady_one_sweeps(self, well: list[UUID], dies: bool) -> Any:
        for _ in range(4):
            self._move(LEASE // 3)
            self._beat(well)
            self._check()
        return multiple(*self._sweep(well[0], dies=dies))

    def _sweep(self, sweeper: UUID, *, dies: bool) -> list[Claim]:
        """A sweeper may die between the reclaim and the finish; its claims are still in somebody's hand then."""
        taken = self._reclaim(sweeper)
        if dies:
            return taken
        for job in taken:
            assert job.loss is not None
            self._check()
            self._finish([decide(job, Lost(job.loss))], ["lose"])
        return []

    def _reclaim(self, sweeper: UUID) -> list[Claim]:
        def by_id(claims: Sequence[Claim]) -> list[Claim]:
            return sorted(claims, key=lambda claim: claim.id)

        taken = by_id(self.ask(lambda store: store.reclaim(sweeper, ALL), by_id))
        self.events = set()
        for job in taken:
            row = self.before[job.id]
            assert row.state is S.RUNNING
            assert (job.attempt, job.claimed_at) == (row.attempt, row.started_at)
            if row.worker != sweeper:
                self.sweepers.add(sweeper)
                self.robbed.add((row.worker or sweeper, row.id, row.fence))
                assert job.fence == row.fence + 1
                assert self.now >= self.sure_until.get(row.worker or sweeper, 0), "a live worker was robbed"
            self._handed_out(job, sweeper)
        if taken:
            assert self.now < self.lease_until[sweeper]
        if self.now < self.lease_until.get(sweeper, self.now):
            for worker, until in self.sure_until.items():
                self.sure_until[worker] = min(until, self.now + LEASE)
        return taken

    @rule(limit=st.sampled_from([1, 2, ALL]), after=st.sampled_from([0, 1, 5 * SECOND]))
    def promote(self, limit: int, after: int) -> None:
        self._move(after)
        self._promote(limit)

    def _promote(self, limit: int = ALL) -> int | None:
        promoted = self.ask(lambda store: store.promote(limit))
        self.events = {"promote"}
        scheduled = sorted(r.due_at for r in self.before.values() if r.state is S.SCHEDULED)
        due = sum(due_at <= self.now for due_at in scheduled)
        assert promoted.moved == min(due, limit)
        left = scheduled[promoted.moved :]
        assert promoted.next_in == (max(0, left[0] - self.now) if left else None)
        return promoted.next_in

    @rule(after=st.sampled_from([0, TOMBSTONE, HOUR]), back=st.lists(workers, min_size=1, max_size=3))
    def prune(self, after: int, back: list[UUID]) -> None:
        """I1: what is pruned had ended, and its time was over."""
        self._move(after)
        self._beat(back)
        count = self.ask(lambda store: store.prune(ALL))
        self.events = set()
        gone = [r for r in self.before.values() if self._is_over(r)]
        assert count == len(gone)
        for row in gone:
            del self.acknowledged[row.id]
            del self.before[row.id]

    def _is_over(self, row: Record) -> bool:
        if row.finished_at is None or row.state is S.DEAD:
            return False
        return self.now >= row.finished_at + max(row.terms.keep, TOMBSTONE)

    # --- operators

    @rule(some=st.lists(drafts, min_size=1, max_size=3, unique_by=lambda d: d.id), reason=st.sampled_from(["", "why"]))
    def cancel(self, some: list[Draft], reason: str) -> None:
        self._cancel([draft.id for draft in some], reason)

    @rule(job=claims, reason=st.sampled_from(["", "why"]))
    def cancel_what_may_be_running(self, job: Claim, reason: str) -> None:
        self._cancel([job.id], reason)

    def _cancel(self, ids: list[UUID], reason: str) -> None:
        answers = self.ask(lambda store: store.cancel(ids, reason), list)
        self.events = {"cancel"}
        for job_id, answer in zip(ids, answers, strict=True):
            row = self.before.get(job_id)
            if row is None:
                assert answer == "missing"
            elif row.state is S.RUNNING:
                assert answer == "requested"
            else:
                assert answer == ("final" if row.state in FINAL else "cancelled")

    @rule(outcomes=st.lists(spoken, min_size=1, max_size=3, unique_by=lambda outcome: outcome.id))
    def retry(self, outcomes: list[Outcome]) -> None:
        ids = [outcome.id for outcome in outcomes]
        answers = self.ask(lambda store: store.retry(ids), list)
        self.events = {"retry"}
        for job_id, answer in zip(ids, answers, strict=True):
            row = self.before.get(job_id)
            expected = "missing" if row is None else "unfinished"
            if row is not None and row.state in FINAL:
                expected = "succeeded" if row.state is S.SUCCEEDED else "retried"
            assert answer == expected

    @rule(where=filters, limit=st.integers(1, 5), draft=st.none() | drafts)
    def find(self, where: Where, limit: int, draft: Draft | None) -> None:
        row = None if draft is None else self.before.get(draft.id)
        cursor = None if row is None else (row.enqueued_at, row.id)
        self.ask(lambda store: store.find(where, cursor, limit), list)

    # --- time

    @rule(by=moves)
    def move_the_clock(self, by: int) -> None:
        self._move(by)

    @rule(by=leaps, back=st.lists(workers, min_size=1, max_size=4))
    def be_away(self, by: int, back: list[UUID]) -> None:
        """The store was away, or the machine slept, or its clock was set; then some are back at once."""
        self._move(by)
        self._beat(back)

    # --- what must hold after every step

    @invariant()
    def every_job_is_where_it_should_be(self) -> None:
        self._check()

    def _check(self) -> None:
        records = self.ask(lambda store: store.find(Where(), None, ALL), list)
        assert [(r.enqueued_at, r.id) for r in records] == sorted(
            ((r.enqueued_at, r.id) for r in records), reverse=True
        )
        after = {record.id: record for record in records}
        assert after.keys() == self.acknowledged.keys(), "I1, I2: a job was lost, or appeared from nowhere"
        for job_id, record in after.items():
            self._check_step(self.before.get(job_id), record)
            self._check_record(record)
        self.before = after
        self.events = set()
        self._check_mail()

    def _check_mail(self) -> None:
        """What a worker must be told, it is told, and nothing else about claims that are over or still held."""
        lines = self.ask(lambda store: store.mail(list(self.tickets)), sorted)
        held = {(r.worker, r.id, r.fence): r for r in self.before.values() if r.worker is not None}
        flagged = {word for word, row in held.items() if row.cancel_requested_at is not None}
        cancels = {(line.worker, line.job, line.fence) for line in lines if line.kind == "cancel"}
        lost = {(line.worker, line.job, line.fence) for line in lines if line.kind == "lost"}
        assert len(lines) == len(cancels) + len(lost)
        assert cancels <= flagged
        assert flagged - cancels <= {word for word in held if word[0] in self.sweepers}, "not told of a cancel"
        assert not lost & held.keys(), "told that a claim is lost which is held"
        assert {word for word in self.robbed if word[0] in self.lease_until} == lost

    def _check_step(self, old: Record | None, new: Record) -> None:
        source = None if old is None else old.state
        if source != new.state:
            steps = {Transition(event, source, new.state) for event in self.events}
            assert steps & TRANSITIONS, f"{source} -> {new.state} by {self.events}"
        if old is None:
            return
        if old.state in FINAL and new.state in FINAL:  # I4
            assert old == new
        assert new.fence - old.fence in (0, 1)
        assert new.life - old.life == (source in FINAL and new.state is S.QUEUED)
        assert len(new.history) + new.omitted >= len(old.history) + old.omitted

    def _check_record(self, record: Record) -> None:
        draft = self.acknowledged[record.id]
        assert (record.task, record.queue, record.payload, record.terms, record.priority, record.tags) == (
            draft.task,
            draft.queue,
            draft.payload,
            draft.terms,
            draft.priority,
            draft.tags,
        )
        assert (record.worker is not None) == (record.state is S.RUNNING)
        assert (record.finished_at is not None) == (record.state in FINAL)
        assert record.cancel_requested_at is None or record.state is S.RUNNING
        assert record.result is None or record.state is S.SUCCEEDED
        assert record.attempt <= record.terms.max_attempts  # I5
        assert record.crashes <= max(1, record.terms.max_crashes)
        assert record.losses <= COMPANY_LOSSES
        assert len(record.history) <= ERRORS_FIRST + ERRORS_LAST
        fences = [attempt.fence for attempt in record.history]
        assert fences == sorted(set(fences))
        assert all(_is_sound(attempt, record) for attempt in record.history)
        last = self.settled.get((record.id, self.births[record.id]))
        assert (record.settled_fence, record.settled_by, record.settled_state) == (last or (None, None, None))

    # --- the end of a history

    def teardown(self) -> None:
        try:
            if sys.exc_info()[0] is None:
                self._heal()
        finally:
            self._close()

    def _heal(self) -> None:
        """I8: with one healthy worker from now on, every job ends, in a bounded number of rounds."""
        worker = self.register()
        rounds = 10 + 2 * len(self.before)
        for _ in range(rounds):
            self._check()
            if all(record.state in FINAL for record in self.before.values()):
                return
            self._move(LEASE // 3)
            self._beat([worker])
            self._sweep(worker, dies=False)
            self._check()
            next_in = self._promote()
            self._check()
            jobs = self._claim(worker, None, ALL)
            self._check()
            self._finish([decide(job, Succeeded(b"1")) for job in jobs], ["succeed"])
            if next_in and not jobs and not any(r.state is S.RUNNING for r in self.before.values()):
                self._move(next_in)
                self._beat([worker])
        left = [record for record in self.before.values() if record.state not in FINAL]
        raise AssertionError(f"I8: after {rounds} rounds these have not ended: {left}")

    def _close(self) -> None:
        try:
            for handle in self._handles:
                self._run(handle.close())
        finally:
            self._loop.close()
            self._folder.cleanup()


def _exact(claims: Claims) -> object:
    return (list(claims.jobs), claims.refused)


def _unordered(claims: Claims) -> object:
    return (sorted(claims.jobs, key=lambda job: job.id), claims.refused)


def _is_sound(attempt: Attempt, record: Record) -> bool:
    return 1 <= attempt.fence <= record.fence and attempt.ended != "succeeded" and attempt.attempt >= 1


CALM = settings(
    derandomize=True,
    database=None,
    deadline=None,
    print_blob=True,
    stateful_step_count=50,
    suppress_health_check=list(HealthCheck),
)


def test_the_table_of_transitions_is_the_one_that_was_decided() -> None:
    assert {tuple(transition) for transition in TRANSITIONS} == LEGAL


@pytest.mark.timeout(300)
@pytest.mark.parametrize("backend", BACKENDS)
def test_random_histories(backend: str) -> None:
    run_state_machine_as_test(lambda: History(BACKENDS[backend]), settings=settings(CALM, max_examples=120))


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("backend", BACKENDS)
def test_many_long_random_histories(backend: str) -> None:
    soak = settings(CALM, derandomize=False, max_examples=1500, stateful_step_count=100)
    run_state_machine_as_test(lambda: History(BACKENDS[backend]), settings=soak)
