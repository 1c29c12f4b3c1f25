"""Random histories on every store: the same answers as the memory store gives, and the invariants of the design.

A step asks the store, asks a MemoryStore that has lived through the same history, and compares; then it reads
every job back from both. For the memory store itself only the invariants speak. Time moves through `shift`.
"""

import asyncio
import sys
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import ExitStack
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal, TypeVar
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

from holdfast.clock import DAY, HOUR, MINUTE, SECOND, FakeClock
from holdfast.job import (
    FINAL,
    TOMBSTONE,
    TRANSITIONS,
    Cancelled,
    Claim,
    Draft,
    Event,
    Failed,
    Failure,
    Loss,
    Lost,
    Note,
    Outcome,
    Pause,
    QueueTerms,
    Record,
    Released,
    Snoozed,
    State,
    Succeeded,
    Terms,
    UniqueKey,
    Until,
    Verdict,
)
from holdfast.policy import decide
from holdfast.store import LEASE, LEASE_RAN_OUT, Authority, Claims, Entry, Promoted, Quota, Store, Tick, Where
from holdfast.stores.memory import MemoryStore
from tests.store.backends import BACKENDS, HISTORIES, Make
from tests.store.witness import QUEUES, Witness

T = TypeVar("T")

ALL = 10_000
S = State

# Written out once more, so that a change of the table in job.py is a decision and not a slip.
LEGAL: set[tuple[Event, State | None, State]] = {
    ("enqueue", None, S.SCHEDULED),
    ("enqueue", None, S.QUEUED),
    ("replace", S.SCHEDULED, S.QUEUED),
    ("replace", S.QUEUED, S.SCHEDULED),
    ("promote", S.SCHEDULED, S.QUEUED),
    ("expire", S.SCHEDULED, S.CANCELLED),
    ("expire", S.SCHEDULED, S.DEAD),
    ("expire", S.QUEUED, S.CANCELLED),
    ("expire", S.QUEUED, S.DEAD),
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
        "headers": '{"tenant":"7"}' if tags else "",
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
    company=st.booleans(),
    stack=st.sampled_from(["", "…"]),
    overdue=st.sampled_from(["", "", "retry", "final"]),
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
UNIQUE = [
    UniqueKey(text, until, hold, on_clash)
    for text in ("a", "a", "b")
    for until, hold in [("finished", 0), ("started", 0), ("finished", 5 * SECOND), ("finished", HOUR)]
    for on_clash in ("return", "raise", "replace", "replace")
]
uniques = st.none() | st.sampled_from(UNIQUE)
OnClash = Literal["return", "raise", "replace"]
clashes: st.SearchStrategy[OnClash] = st.sampled_from(["return", "return", "raise", "replace", "replace"])
terms = st.none() | st.builds(
    QueueTerms,
    st.sampled_from([3, 1, 2, 4, None]),
    st.sampled_from(["drop_oldest", "reject", "drop_oldest", "drop_newest", "block"]),
    st.sampled_from([None, MINUTE]),
    st.sampled_from([1, 1, 6]),
)
authorities = st.sampled_from(["producer", "worker", "operator"])
lines = st.lists(st.tuples(st.sampled_from([0, 1, MINUTE]), st.sampled_from(["", "page 1"])), max_size=3).map(tuple)
reasons = st.sampled_from(["", "why"])
picks = st.integers(0, 7)
LIMITS: list[dict[str, Any]] = [
    {},
    {"expires": Until(SECOND)},
    {"deadline": Until(LEASE)},
    {"expires": Until(MINUTE), "deadline": Until(HOUR)},
    {"expires": Until(HOUR), "deadline": Until(SECOND)},
    {"expires": Until()},
]
limits = st.sampled_from(LIMITS)
untils = st.sampled_from([None, None, Until(SECOND), Until(MINUTE), Until()])
quotas = st.lists(st.builds(Quota, st.sampled_from(QUEUES), st.integers(0, 3)), min_size=1, max_size=3)
schedule_names = st.sampled_from(["nightly", "hourly"])
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

    def __init__(self, make: Make, met: Counter[str] | None = None) -> None:
        super().__init__()
        self._met = Counter[str]() if met is None else met
        clock = FakeClock()
        self._place = ExitStack()
        folder = self._place.enter_context(tempfile.TemporaryDirectory(prefix="holdfast-"))
        self._loop = asyncio.Runner()
        first = self._place.enter_context(make(Path(folder), clock))
        self._handles = [first, first.twin()]  # used in turn: nothing may be remembered in one instance only
        for handle in self._handles:
            self._run(handle.open())
        self._model = None if isinstance(first, MemoryStore) else MemoryStore(clock)
        self._ids = 0
        self._calls = 0
        self._unheard: set[UUID] = set()  # workers that do not know of their last claim: its reply was lost
        self._known: dict[UUID, Claim] = {}  # per job, its last claim
        self.witness = Witness(clock.now())

    # --- asking both

    def _run(self, call: Awaitable[T]) -> T:
        async def bounded() -> T:
            async with asyncio.timeout(30):
                return await call

        return self._loop.run(bounded())

    def _ask(self, call: Callable[[Store], Awaitable[T]], same: Callable[[T], object] = lambda answer: answer) -> T:
        """The store's answer, which must be the model's; `same` takes away what the laws leave open."""
        self._calls += 1
        answer = self._run(call(self._handles[self._calls % 2]))
        if self._model is not None:
            expected = self._run(call(self._model))
            assert same(answer) == same(expected), f"the store says {answer}, the model {expected}"
        return answer

    def _move(self, by: int) -> None:
        if by < 0:  # whether a pause that was over is one again is no law
            for queue in self.witness.queues.outlived(self.witness.now):
                self._resume(queue)
        self._handles[0].shift += by
        if self._model is not None:
            self._model.shift += by
        self.witness.now += by

    def _fresh_id(self) -> UUID:
        """Made here, so that store and model have the same; scattered, so that id order is not time order."""
        self._ids += 1
        return UUID(bytes=blake2b(self._ids.to_bytes(4, "big"), digest_size=16).digest())

    # --- the world that every history begins with

    @initialize(target=workers)
    def two_workers(self) -> Any:
        return multiple(self.register(), self.register())

    @initialize(target=drafts, options=st.lists(options, min_size=3, max_size=8), terms=terms, unique=uniques)
    def some_jobs(self, options: list[dict[str, Any]], terms: QueueTerms | None, unique: UniqueKey | None) -> Any:
        self._configure("mail", terms and terms._replace(max_size=4), "worker")
        return self._enqueue_new([*options[:2], *(each | {"unique": unique} for each in options[2:4]), *options[4:]])

    # --- producers

    @rule(target=drafts, options=st.lists(options, min_size=1, max_size=4), delay=delays, at=instants, unique=uniques)
    def enqueue(self, options: list[dict[str, Any]], delay: int, at: int | None, unique: UniqueKey | None) -> Any:
        due = {"delay": delay} if at is None else {"at": self.witness.now + at}
        return self._enqueue_new([options[0] | due | {"unique": unique}, *options[1:]])

    @rule(
        target=drafts,
        options=st.lists(options, min_size=1, max_size=3),
        limits=limits,
        delay=delays,
        unique=uniques,
        after=st.sampled_from([0, 0, 1, SECOND, LEASE]),
    )
    def enqueue_what_is_over_one_day(
        self, options: list[dict[str, Any]], limits: dict[str, Any], delay: int, unique: UniqueKey | None, after: int
    ) -> Any:
        made = self._enqueue_new([options[0] | limits | {"delay": delay, "unique": unique}, *options[1:]])
        self._check()
        self._move(after)
        self._promote(1 if after == 1 else ALL)
        return made

    @precondition(lambda history: history.witness.keyed())
    @rule(target=drafts, pick=picks, options=options, delay=delays, on_clash=clashes, twice=st.booleans())
    def enqueue_under_a_known_key(
        self,
        pick: int,
        options: dict[str, Any],
        delay: int,
        on_clash: OnClash,
        twice: bool,
    ) -> Any:
        """Most often it is held, most often by a job of the same task."""
        row = chosen(self.witness.keyed(), pick)
        assert row.unique is not None
        task = row.task if delay < HOUR else "shop.print"
        unique = row.unique._replace(on_clash=on_clash)
        draft = options | {"queue": row.queue, "task": task, "delay": delay, "unique": unique}
        return self._enqueue_new([draft] * (1 + twice))

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
        self.witness.enqueued(drafts, self._ask(lambda store: store.enqueue(drafts), list))

    # --- workers' lives

    @rule(target=workers)
    def register(self) -> UUID:
        worker = self._fresh_id()
        self._register(worker)
        return worker

    def _register(self, worker: UUID) -> None:
        self.witness.registered(worker, self._ask(lambda store: store.register(worker, None, {"pid": 1})))

    @rule(some=st.lists(workers, min_size=1, max_size=4), registers=st.booleans())
    def beat(self, some: list[UUID], registers: bool) -> None:
        self._beat(some)
        if registers and some[0] in self.witness.lives:  # an id whose row is gone is never used again
            self._register(some[0])

    def _beat(self, some: list[UUID]) -> None:
        self.witness.beaten(some, self._ask(lambda store: store.beat(some)))

    # --- claims and outcomes

    @rule(target=claims, worker=workers, queues=wanted, limit=st.integers(1, 4), heard=st.booleans())
    def claim(self, worker: UUID, queues: list[str] | None, limit: int, heard: bool) -> Any:
        return multiple(*self._claim(worker, queues, limit, heard=heard))

    @rule(
        target=spoken,
        worker=workers,
        queues=wanted,
        limit=st.integers(1, 4),
        verdict=verdicts,
        saved=st.none() | st.sampled_from([b"1", b"2"]),
    )
    def work(self, worker: UUID, queues: list[str] | None, limit: int, verdict: Verdict, saved: bytes | None) -> Any:
        """What a worker does all day: it is well, claims, says how far it is, and finishes."""
        self._beat([worker])
        self._promote()
        self._check()
        jobs = self._claim(worker, queues, limit)
        self._check()
        if saved is not None:
            self._note([Note(job.id, job.fence, job.worker, 0.5, "half", ((1, "line"),), saved) for job in jobs])
            self._check()
        return multiple(*self._settle(jobs, verdict))

    @rule(target=claims, worker=workers, quotas=quotas, queues=wanted, limit=st.integers(1, 6))
    def claim_by_quotas(self, worker: UUID, quotas: list[Quota], queues: list[str] | None, limit: int) -> Any:
        self._beat([worker])
        return multiple(*self._claim(worker, queues, limit, quotas=quotas))

    @rule(worker=workers, skew=st.sampled_from([-2, -1, 1, 2]))
    def claim_with_another_ticket(self, worker: UUID, skew: int) -> None:
        """The last ticket used is a repeat; any other but the next is refused."""
        if (ticket := self._next_ticket(worker) + skew) >= 1:
            self._claim_with(worker, ticket, QUEUES, ALL)

    def _claim(
        self,
        worker: UUID,
        queues: list[str] | None,
        limit: int,
        *,
        heard: bool = True,
        quotas: Sequence[Quota] = (),
    ) -> list[Claim]:
        """As a fetcher does it: the same ticket until it is answered, then the next one."""
        if queues is None or len(queues) > 1:
            limit = ALL  # over several queues only the set of jobs is law, so it is all of them
        repeat = worker in self._unheard
        jobs = self._claim_with(worker, self._next_ticket(worker) - repeat, queues, limit, quotas)
        if heard:
            self._unheard.discard(worker)
            return jobs
        if jobs:
            self._unheard.add(worker)
        return []

    def _claim_with(
        self, worker: UUID, ticket: int, queues: list[str] | None, limit: int, quotas: Sequence[Quota] = ()
    ) -> list[Claim]:
        fresh = ticket == self._next_ticket(worker)
        ordered = fresh and queues is not None and len(queues) == 1 and not quotas
        claims = self._ask(
            lambda store: store.claim(worker, ticket, queues, limit, quotas), _exact if ordered else _unordered
        )
        self.witness.claimed(worker, ticket, queues, limit, claims, quotas)
        self._known.update({job.id: job for job in claims.jobs})
        return list(claims.jobs)

    def _next_ticket(self, worker: UUID) -> int:
        life = self.witness.lives.get(worker)
        return 1 if life is None else life.ticket + 1

    @rule(target=spoken, jobs=st.lists(consumes(claims), min_size=1, max_size=4), verdict=verdicts)
    def finish(self, jobs: list[Claim], verdict: Verdict) -> Any:
        return multiple(*self._settle(jobs, verdict))

    @rule(target=spoken, job=claims, verdict=verdicts)
    def finish_and_forget(self, job: Claim, verdict: Verdict) -> Any:
        """The claim stays in the hand, so that another verdict may follow under the same word."""
        return multiple(*self._settle([job], verdict))

    @rule(outcomes=st.lists(spoken, min_size=1, max_size=3))
    def finish_again(self, outcomes: list[Outcome]) -> None:
        self._finish(outcomes, EVENT_OF.values())

    @precondition(lambda history: history.witness.running())
    @rule(pick=picks, fence=st.sampled_from([-1, 0, 0, 1]), stranger=workers, verdict=verdicts)
    def finish_with_a_forged_word(self, pick: int, fence: int, stranger: UUID, verdict: Verdict) -> None:
        """Either the fence is another one or the worker, or both; now and then the word is right after all."""
        job = self._known[chosen(self.witness.running(), pick).id]
        worker = stranger if fence == 0 else job.worker
        self._settle([job._replace(fence=job.fence + fence, worker=worker)], verdict)

    def _settle(self, jobs: Sequence[Claim], verdict: Verdict) -> list[Outcome]:
        outcomes = [decide(job, verdict) for job in jobs]
        self._finish(outcomes, [EVENT_OF[type(verdict)]])
        return outcomes

    def _finish(self, outcomes: Sequence[Outcome], events: Iterable[Event]) -> None:
        self.witness.settled(outcomes, self._ask(lambda store: store.finish(outcomes), list), events)

    # --- what handlers say

    @rule(
        jobs=st.lists(claims, min_size=1, max_size=3),
        progress=st.none() | st.sampled_from([0.0, 0.5]),
        text=st.none() | st.just("half"),
        lines=lines,
        saved=st.none() | st.sampled_from([b"1", b"2"]),
    )
    def note(
        self,
        jobs: list[Claim],
        progress: float | None,
        text: str | None,
        lines: tuple[tuple[int, str], ...],
        saved: bytes | None,
    ) -> None:
        self._note([Note(job.id, job.fence, job.worker, progress, text, lines, saved) for job in jobs])

    @precondition(lambda history: history.witness.jobs)
    @rule(pick=picks, fence=st.sampled_from([-1, 0, 0, 0, 0]), late=st.booleans(), stranger=st.none() | workers)
    def note_of_what_runs_or_has_just_ended(self, pick: int, fence: int, late: bool, stranger: UUID | None) -> None:
        jobs = [job for job in self.witness.jobs.values() if job.settled_by is not None] if late else []
        rows = jobs or self.witness.running() or list(self.witness.jobs.values())
        row = chosen(rows, pick)
        worker = stranger or (row.settled_by if late else row.worker) or self._fresh_id()
        self._note([Note(row.id, row.fence + fence, worker, 0.25, None, ((0, "late"),), b"3")])

    def _note(self, notes: Sequence[Note]) -> None:
        self.witness.noted(notes, self._ask(lambda store: store.note(notes), list))
        for job in {note.id for note in notes}:
            self.witness.sayings.check_log(job, self._ask(lambda store, job=job: store.log(job), list))

    # --- janitors

    @precondition(lambda history: sum(life.retired_at is None for life in history.witness.lives.values()) > 1)
    @rule(
        target=claims,
        worker=workers,
        queues=wanted,
        loss=st.none() | losses,
        named=st.lists(st.tuples(picks, st.integers(0, 1), losses), max_size=2),
        sweeper=workers,
        dies=st.booleans(),
    )
    def a_busy_worker_dies_and_another_sweeps(
        self,
        worker: UUID,
        queues: list[str] | None,
        loss: Loss | None,
        named: list[tuple[int, int, Loss]],
        sweeper: UUID,
        dies: bool,
    ) -> Any:
        self._claim(worker, queues, 2)
        self._check()
        running = self.witness.running()  # anybody's: what is named for a job that others hold counts for nothing
        rows = [(chosen(running, pick), back, of_job) for pick, back, of_job in named if running]
        jobs = {(row.id, row.fence - back): of_job for row, back, of_job in rows}  # nor does an earlier claim's
        self._ask(lambda store: store.retire(worker, loss, jobs))
        self.witness.retired(worker, loss, jobs)
        self._check()
        return multiple(*self._sweep(sweeper, dies=dies))

    @rule(target=claims, well=st.lists(workers, min_size=1, max_size=2, unique=True), dies=st.booleans())
    def others_fall_silent_and_a_steady_one_sweeps(self, well: list[UUID], dies: bool) -> Any:
        for _ in range(4):
            self._move(LEASE // 3)
            self._beat(well)
        return multiple(*self._sweep(well[0], dies=dies))

    @rule(target=claims, sweeper=workers, well=st.booleans())
    def sweep_and_die(self, sweeper: UUID, well: bool) -> Any:
        if well:
            self._beat([sweeper])
        return multiple(*self._sweep(sweeper, dies=True))

    def _sweep(self, sweeper: UUID, *, dies: bool) -> list[Claim]:
        """A sweeper may die between the reclaim and the finish; its claims are still in somebody's hand then."""
        taken = _by_id(self._ask(lambda store: store.reclaim(sweeper, ALL), _by_id))
        self.witness.reclaimed(sweeper, taken)
        self._known.update({job.id: job for job in taken})
        if dies:
            return taken
        for job in taken:
            self._check()
            self._settle([job], Lost(job.loss or LEASE_RAN_OUT))
        return []

    @rule(limit=st.sampled_from([1, 2, ALL]), after=st.sampled_from([0, 1, 5 * SECOND]))
    def promote(self, limit: int, after: int) -> None:
        self._move(after)
        self._promote(limit)

    def _promote(self, limit: int = ALL) -> int | None:
        if self.witness.count_over() > limit:
            limit = ALL  # which ones are ended first is no law
        promoted = self._ask(lambda store: store.promote(limit), _ended)
        self.witness.promoted(limit, promoted)
        return promoted.next_in

    @rule(after=st.sampled_from([0, TOMBSTONE, HOUR]), back=st.lists(workers, min_size=1, max_size=3))
    def prune(self, after: int, back: list[UUID]) -> None:
        self._move(after)
        self._beat(back)
        self.witness.pruned(self._ask(lambda store: store.prune(ALL)))

    # --- operators

    @rule(some=st.lists(drafts, min_size=1, max_size=3, unique_by=lambda draft: draft.id), reason=reasons)
    def cancel(self, some: list[Draft], reason: str) -> None:
        self._cancel([draft.id for draft in some], reason)

    @precondition(lambda history: history.witness.running())
    @rule(pick=picks, reason=reasons)
    def cancel_what_runs(self, pick: int, reason: str) -> None:
        self._cancel([chosen(self.witness.running(), pick).id], reason)

    def _cancel(self, ids: list[UUID], reason: str) -> None:
        self.witness.cancelled(ids, self._ask(lambda store: store.cancel(ids, reason), list))

    @rule(some=st.lists(drafts, min_size=1, max_size=5, unique_by=lambda draft: draft.id))
    def retry(self, some: list[Draft]) -> None:
        self._retry([draft.id for draft in some])

    @precondition(lambda history: history.witness.jobs)
    @rule(target=drafts, pick=picks, keyed=st.booleans(), rival=st.none() | options, some=st.lists(picks, max_size=2))
    def cancel_and_retry(self, pick: int, keyed: bool, rival: dict[str, Any] | None, some: list[int]) -> Any:
        """In between a rival may have asked for the key and the place."""
        row = chosen((keyed and self.witness.keyed()) or list(self.witness.jobs.values()), pick)
        made: Any = multiple()
        self._cancel([row.id], "")
        self._check()
        if rival is not None:
            made = self._enqueue_new([rival | {"queue": row.queue, "unique": row.unique}])
            self._check()
        ended = self.witness.ended()
        self._retry([row.id, *(chosen(ended, pick).id for pick in some if ended)])
        return made

    def _retry(self, ids: Sequence[UUID]) -> None:
        self.witness.retried(ids, self._ask(lambda store: store.retry(ids), list))

    @precondition(lambda history: history.witness.jobs)
    @rule(some=st.lists(picks, min_size=1, max_size=2), stranger=st.none() | drafts, again=st.booleans())
    def delete(self, some: list[int], stranger: Draft | None, again: bool) -> None:
        """What was deleted may be enqueued or finished again at once, by who repeats himself or was robbed."""
        rows = list(self.witness.jobs.values())
        ids = [chosen(rows, pick).id for pick in some] + ([] if stranger is None else [stranger.id])
        known = [self.witness.draft(job) for job in dict.fromkeys(ids) if job in self.witness.jobs]
        self.witness.deleted(ids, self._ask(lambda store: store.delete(ids), list))
        self._check()
        if again:
            self._enqueue(known)
            self._check()
            for job in [self._known[draft.id] for draft in known if draft.id in self._known]:
                self._settle([job, job._replace(fence=job.fence + 1)], Succeeded(b"1"))

    @rule(queue=st.sampled_from(QUEUES), terms=terms, by=authorities)
    def configure(self, queue: str, terms: QueueTerms | None, by: Authority) -> None:
        self._configure(queue, terms, by)

    @rule(target=drafts, terms=terms, places=st.integers(0, 2), options=st.lists(options, min_size=3, max_size=5))
    def crowd(self, terms: QueueTerms | None, places: int, options: list[dict[str, Any]]) -> Any:
        """More than find a place at once, in a queue that has just been bounded."""
        queue = options[0]["queue"]
        unfinished = [row for row in self.witness.jobs.values() if row.queue == queue and row.state not in FINAL]
        terms = (terms or QueueTerms())._replace(max_size=max(1, len(unfinished) + places))
        self._configure(queue, terms, "operator")
        return self._enqueue_new([each | {"queue": queue} for each in options])

    def _configure(self, queue: str, terms: QueueTerms | None, by: Authority) -> None:
        self._ask(lambda store: store.configure({queue: terms}, by))
        self.witness.configured({queue: terms}, by)

    @rule(queue=st.sampled_from(QUEUES), until=untils, reason=reasons, worker=workers)
    def pause(self, queue: str, until: Until | None, reason: str, worker: UUID) -> None:
        """And somebody claims: what would have been taken is not."""
        self._ask(lambda store: store.pause(queue, until, reason))
        self.witness.queues.paused(queue, until, reason, self.witness.now)
        self._check_setups()
        self._beat([worker])
        self._claim(worker, None, ALL)

    @precondition(lambda history: any(history.witness.queues.pause(queue, history.witness.now) for queue in QUEUES))
    @rule(queue=st.sampled_from(QUEUES))
    def resume(self, queue: str) -> None:
        self._resume(queue)

    def _resume(self, queue: str) -> None:
        resumed = self._ask(lambda store: store.resume(queue))
        assert resumed == self.witness.queues.resumed(queue, self.witness.now)
        self._check_setups()

    def _check_setups(self) -> None:
        self.witness.queues.check_setups(self._ask(lambda store: store.queues(), list), self.witness.now)

    # --- schedules

    @rule(
        name=schedule_names,
        queue=st.sampled_from(QUEUES),
        after=st.sampled_from([None, 0, 0, SECOND, -MINUTE]),
        until=st.sampled_from([None, None, Until(), Until(SECOND)]),
        stale=st.sampled_from([0, 0, 0, 1, -1]),
        goes=st.sampled_from([False, False, False, True]),
    )
    def schedule(self, name: str, queue: str, after: int | None, until: Until | None, stale: int, goes: bool) -> None:
        """Made, changed, moved to another queue, paused, deleted; now and then by one who has not read the newest."""
        now = self.witness.now
        known = self.witness.timetable.entries.get(name)
        revision = (0 if known is None else known.revision) + stale
        if goes:
            gone = self._ask(lambda store: store.unschedule({name: revision}), list)
            assert gone == [self.witness.timetable.unscheduled(name, revision)]
        else:
            pause = None if until is None else Pause(now, None if until == Until() else now + until.delay, "why")
            entry = Entry(name, queue, f"of {queue}", None, pause, revision)
            self._schedule(entry, None if after is None else now + after)
        self._check_schedules()

    @rule(
        target=drafts,
        name=schedule_names,
        options=options,
        unique=uniques,
        limits=limits,
        missed=st.sampled_from([0, 0, 2]),
        stale=st.sampled_from([0, 0, 0, 0, 1]),
        bare=st.sampled_from([False, False, False, True]),
    )
    def tick(
        self,
        name: str,
        options: dict[str, Any],
        unique: UniqueKey | None,
        limits: dict[str, Any],
        missed: int,
        stale: int,
        bare: bool,
    ) -> Any:
        """Twice at once, as two workers do it. Often it is not due yet: that is asked of nobody."""
        known = self.witness.timetable.entries.get(name)
        if known is None or known.next_at is None:
            self._schedule(known or Entry(name, options["queue"], "text", None), self.witness.now)
        entry = self.witness.timetable.entries[name]
        due = entry.next_at or 0
        made = Draft(id=self._fresh_id(), **options | limits | {"queue": entry.queue, "unique": unique})
        revision, draft = entry.revision + stale, None if bare else made
        tick = Tick(name, entry.queue, revision, due, due, self.witness.now + SECOND, draft, missed, "late")
        self.witness.ticked([tick, tick], self._ask(lambda store: store.tick([tick, tick]), list))
        self._check()
        self._check_schedules()
        return multiple() if bare else multiple(made)

    def _schedule(self, entry: Entry, next_at: int | None) -> None:
        entry = entry._replace(next_at=next_at)
        stored = self._ask(lambda store: store.schedule([entry]), list)
        assert stored == [self.witness.timetable.scheduled(entry)]

    def _check_schedules(self) -> None:
        entries, now = self.witness.timetable.entries, self.witness.now
        shown = self._ask(lambda store: store.schedules(), lambda each: (each.now, _whole(each.entries)))
        assert _whole(shown.entries) == [entries[name] for name in sorted(entries)]
        due = self._ask(lambda store: store.due(ALL), lambda each: (each.now, _whole(each.entries), each.next_in))
        assert (due.now, _whole(due.entries)) == (now, self.witness.timetable.due(now))

    @rule(where=filters, limit=st.integers(1, 5), draft=st.none() | drafts)
    def find(self, where: Where, limit: int, draft: Draft | None) -> None:
        row = None if draft is None else self.witness.jobs.get(draft.id)
        cursor = None if row is None else (row.enqueued_at, row.id)
        self._ask(lambda store: store.find(where, cursor, limit), list)

    # --- time

    @rule(by=moves)
    def move_the_clock(self, by: int) -> None:
        self._move(by)

    @rule(by=leaps, back=st.lists(workers, min_size=1, max_size=4))
    def be_away(self, by: int, back: list[UUID]) -> None:
        """The store was away, or the machine slept, or its clock was set; then some are back at once."""
        self._move(by)
        self._beat(back)

    # --- after every step, and at the end

    @invariant()
    def everything_is_where_it_should_be(self) -> None:
        self._check()

    def _check(self) -> None:
        self.witness.sees(self._ask(lambda store: store.find(Where(), None, ALL), list))
        workers = list(self.witness.lives)
        self.witness.hears(self._ask(lambda store: store.mail(workers), sorted))
        self.witness.counts(self._ask(lambda store: store.stats()))

    def teardown(self) -> None:
        try:
            if sys.exc_info()[0] is None:
                self._heal()
                self._met.update(self.witness.met)
        finally:
            self._close()

    def _heal(self) -> None:
        """I8: with one healthy worker from now on, every job ends, in a bounded number of rounds."""
        worker = self.register()
        for queue in QUEUES:
            self._resume(queue)
        rounds = 10 + 2 * len(self.witness.jobs)
        for _ in range(rounds):
            self._check()
            if all(row.state in FINAL for row in self.witness.jobs.values()):
                return
            self._move(LEASE // 3)
            self._beat([worker])
            self._sweep(worker, dies=False)
            self._check()
            next_in = self._promote()
            self._check()
            jobs = self._claim(worker, None, ALL)
            self._check()
            self._settle(jobs, Succeeded(b"1"))
            if next_in and not jobs and not self.witness.running():
                self._move(next_in)
                self._beat([worker])
        left = [row for row in self.witness.jobs.values() if row.state not in FINAL]
        raise AssertionError(f"I8: after {rounds} rounds these have not ended: {left}")

    def _close(self) -> None:
        try:
            for handle in self._handles:
                self._run(handle.close())
        finally:
            self._loop.close()
            self._place.close()


def chosen(rows: Sequence[Record], pick: int) -> Record:
    return rows[pick % len(rows)]


def _by_id(claims: Sequence[Claim]) -> list[Claim]:
    return sorted(claims, key=lambda job: job.id)


def _ended(promoted: Promoted) -> object:
    return promoted._replace(over=sorted(promoted.over))


def _whole(entries: Sequence[Entry]) -> list[Entry]:
    return [entry._replace(ticks=tuple(entry.ticks)) for entry in entries]


def _exact(claims: Claims) -> object:
    return (list(claims.jobs), claims.refused)


def _unordered(claims: Claims) -> object:
    return (_by_id(claims.jobs), claims.refused)


# What the histories must have met, or they would show nothing of it. What comes a few times only is not asked for.
MET = {
    *(f"enqueue: {answer}" for answer in ("accepted", "duplicate", "replaced", "taken", "full", "dropped", "conflict")),
    "enqueue: accepted, another is dropped",
    *(f"retry: {answer}" for answer in ("retried", "unfinished", "missing")),
    *(f"delete: {answer}" for answer in ("deleted", "missing")),
    *(f"finish: {answer}" for answer in ("accepted", "replayed", "stale")),
    "note: True",
    "note: False",
    *(f"promote: {reason}" for reason in ("expired", "deadline")),
    *(f"tick: {outcome}" for outcome in ("made", "skipped", "missed", "none")),
    "a key is held after the end",
}

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
    met: Counter[str] = Counter()
    _, make, histories = BACKENDS[backend]
    run_state_machine_as_test(lambda: History(make, met), settings=settings(CALM, max_examples=histories))
    if histories < HISTORIES:  # too few to meet everything
        return
    for _ in range(5):  # what hypothesis draws depends on the modules that happen to be loaded
        if all(met[what] for what in MET):
            break
        more = settings(CALM, derandomize=False, max_examples=30)
        run_state_machine_as_test(lambda: History(make, met), settings=more)
    assert {what for what in MET if not met[what]} == set(), f"never met, so not tested: {met}"


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("backend", BACKENDS)
def test_many_long_random_histories(backend: str) -> None:
    soak = settings(CALM, derandomize=False, max_examples=1500, stateful_step_count=100)
    run_state_machine_as_test(lambda: History(BACKENDS[backend].ready), settings=soak)
