"""Writes outcomes under their claims' words: successes by one statement, all else after `judge` has spoken."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from holdfast.clock import Instant, Span
from holdfast.job import ERRORS_FIRST, ERRORS_LAST, FINAL, TOMBSTONE, Outcome, State
from holdfast.rulings import judge, written
from holdfast.store import Answer, Settled
from holdfast.stores.columns import error_columns, storable
from holdfast.stores.sqlite.rows import text_of, texts_of, uuid_of
from holdfast.stores.sqlite.statements import Row, Sql

_SUCCEEDED = State.SUCCEEDED  # Python 3.11 is slow to look it up
_ACCEPTED = Settled(Answer.ACCEPTED, _SUCCEEDED)


@dataclass(slots=True)
class _Standing:
    """A job as holding.sql returns it, kept up to date while a batch is judged: a word may come twice in it."""

    seq: int
    id: UUID
    state: State
    fence: int
    worker: UUID | None
    cancel_requested_at: Instant | None
    settled_fence: int | None
    settled_by: UUID | None
    settled_state: State | None
    attempt: int
    started_at: Instant
    attempts: int
    reason: str
    deleted: bool


@dataclass(frozen=True, slots=True)
class Finishing:
    """A batch of outcomes, taken apart before it goes to the writer."""

    outcomes: Sequence[Outcome]
    quick: Sequence[bool]  # which of them are successes that one statement can write
    successes: Sequence[Row]  # those, for succeed.sql
    others: Sequence[Outcome]

    @classmethod
    def of(cls, outcomes: Sequence[Outcome]) -> Finishing:
        """Where a job comes twice the order counts, and nothing is quick."""
        if len({outcome.id.int for outcome in outcomes}) < len(outcomes):
            return cls(outcomes, [False] * len(outcomes), (), outcomes)
        rows = [_success(outcome) for outcome in outcomes]
        quick = [row is not None for row in rows]
        others = [outcome for outcome, row in zip(outcomes, rows, strict=True) if row is None]
        return cls(outcomes, quick, [row for row in rows if row is not None], others)

    @property
    def wakes(self) -> bool:
        """Whether jobs may be queued again."""
        return bool(self.others)

    def write(self, sql: Sql) -> list[Settled]:
        """The answers, in the order of the outcomes."""
        answers = self._write(sql)
        [[any_saved]] = sql.rows("any_saved")
        if any_saved:
            sql.write("drop_saved", texts_of(outcome.id for outcome in self.outcomes))
        return answers

    def _write(self, sql: Sql) -> list[Settled]:
        if not self._succeed(sql):
            return _judged(sql, self.outcomes)
        others = iter(_judged(sql, self.others))
        return [_ACCEPTED if so else next(others) for so in self.quick]

    def _succeed(self, sql: Sql) -> bool:
        """Writes the successes if each one's word holds, which is the first thing that `judge` asks; else nothing."""
        if not self.successes:
            return True
        now = sql.now()
        sql.run("SAVEPOINT successes")
        written = sql.spread("succeed", self.successes, now, now) == len(self.successes)
        if not written:
            sql.run("ROLLBACK TO successes")
        sql.run("RELEASE successes")
        return written


def _success(outcome: Outcome) -> Row | None:
    """The row for succeed.sql; None for an outcome that is more than a plain success."""
    (
        job, fence, worker, ended, state, attempt, releases, losses, crashes, alone, keep, _, result, _, reason, other,
        _,
    ) = outcome  # fmt: skip
    if ended != "succeeded" or state is not _SUCCEEDED or other is not None or reason:
        return None
    kept = _kept(keep)
    return (str(job), fence, text_of(worker), result, kept, attempt, releases, losses, crashes, alone)


def _kept(keep: Span | None) -> Span | None:
    return None if keep is None else max(keep, TOMBSTONE)


def _judged(sql: Sql, outcomes: Sequence[Outcome]) -> list[Settled]:
    if not outcomes:
        return []
    now = sql.now()
    [[found]] = sql.rows("holding", texts_of(outcome.id for outcome in outcomes))
    jobs = {job.id: job for job in map(_standing, json.loads(found))}
    settled: dict[int, Row] = {}
    attempts: list[Row] = []
    answers: list[Settled] = []
    for outcome in outcomes:
        job = jobs.get(outcome.id)
        answers.append(_answer(outcome, job))
        if job is not None and answers[-1].answer is Answer.ACCEPTED:
            last = written(outcome, job)
            attempts += _remembered(job, last, now)
            settled[job.seq] = _settle(job, last, now)
    _write(sql, list(settled.values()), attempts)
    return answers


def _answer(outcome: Outcome, job: _Standing | None) -> Settled:
    settled = Settled(Answer.GONE) if job is None else judge(outcome, job)
    return Settled(Answer.GONE) if job is not None and job.deleted and settled.answer is Answer.STALE else settled


def _standing(row: list[Any]) -> _Standing:
    seq, job, state, fence, worker, cancel, settled_fence, settled_by, settled_state, attempt, started, *rest = row
    return _Standing(
        seq,
        uuid_of(job),
        State(state),
        fence,
        worker and uuid_of(worker),
        cancel,
        settled_fence,
        settled_by and uuid_of(settled_by),
        settled_state and State(settled_state),
        attempt,
        started,
        *rest,
    )


def _remembered(job: _Standing, outcome: Outcome, now: Instant) -> list[Row]:
    """The row of the history for this end, for remember.sql; none for a success."""
    if outcome.ended == "succeeded":
        return []
    job.attempts += 1
    return [
        (
            job.seq,
            job.attempts,
            job.attempt,
            outcome.fence,
            text_of(outcome.worker),
            job.started_at,
            now,
            outcome.ended,
            storable(outcome.reason),
            *error_columns(outcome.error),
        )
    ]


def _settle(job: _Standing, outcome: Outcome, now: Instant) -> Row:
    """The job as the outcome says: in `job` for what follows in this batch, and as the row for settle.sql."""
    job.state = job.settled_state = outcome.state
    job.settled_fence, job.settled_by = outcome.fence, outcome.worker
    job.worker = job.cancel_requested_at = None
    final = outcome.state in FINAL
    keep = _kept(outcome.keep)
    return (
        job.seq,
        outcome.state.value,
        outcome.attempt,
        outcome.releases,
        outcome.losses,
        outcome.crashes,
        outcome.alone,
        None if final or outcome.delay is None else now + outcome.delay,
        now if final else None,
        now + keep if final and keep is not None else None,
        outcome.result,
        storable(outcome.reason),
        outcome.fence,
        text_of(outcome.worker),
        job.attempts,
        storable(outcome.fingerprint) if outcome.state is State.DEAD else "",
    )


def _write(sql: Sql, settled: Sequence[Row], attempts: Sequence[Row]) -> None:
    sql.spread("settle", settled)
    sql.spread("remember", attempts)
    kept = ERRORS_FIRST + ERRORS_LAST
    sql.spread("forget", [(job, number - ERRORS_LAST) for job, number, *_ in attempts if number > kept])
