"""A stored job: what its producer wrote, what has become of it, and how it is shown to others."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Literal
from uuid import UUID

from holdfast.clock import Instant
from holdfast.job import (
    ERRORS_FIRST,
    ERRORS_LAST,
    LOG_MOST,
    Attempt,
    Claim,
    Draft,
    LogLine,
    Loss,
    Note,
    Outcome,
    Record,
    State,
)
from holdfast.rulings import instant
from holdfast.store import Where
from holdfast.stores.columns import storable, storable_error


@dataclass(slots=True, eq=False)
class Told:
    """What a job's handlers said of themselves."""

    fence: int = 0  # of the claim that progress and text are of
    progress: float | None = None
    text: str | None = None
    lines: deque[LogLine] = field(default_factory=lambda: deque[LogLine](maxlen=LOG_MOST))
    saved: bytes | None = None


@dataclass(slots=True, eq=False)
class Row:
    """A stored job: what its producer wrote, and what has become of it."""

    draft: Draft
    state: State
    enqueued_at: Instant
    due_at: Instant
    alone: bool
    payload: bytes
    life: int = 1
    attempt: int = 0
    fence: int = 0
    releases: int = 0
    losses: int = 0
    crashes: int = 0
    started_at: Instant | None = None
    finished_at: Instant | None = None
    prunable_at: Instant | None = None
    holds_until: Instant | None = None  # its unique key; set when it ends with a hold
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
    told: Told | None = None
    limited: bool = False  # whether its draft had such a time; false of almost all
    expires_at: Instant | None = None
    deadline_at: Instant | None = None
    fingerprint: str = ""

    @property
    def id(self) -> UUID:
        return self.draft.id

    @property
    def queue(self) -> str:
        return self.draft.queue

    @property
    def unstarted(self) -> bool:
        """Scheduled or queued, and not started in this life."""
        return self.state in (State.SCHEDULED, State.QUEUED) and self.started_at is None

    @property
    def ends_at(self) -> Instant | None:
        """When its time is over, unless it is started or finished before."""
        if self.started_at is not None or self.expires_at is None:
            return self.deadline_at
        return self.expires_at if self.deadline_at is None else min(self.expires_at, self.deadline_at)

    def limit(self, draft: Draft, now: Instant) -> None:
        """The times of `draft` are its own."""
        self.expires_at, self.deadline_at = instant(draft.expires, now), instant(draft.deadline, now)
        self.limited = draft.expires is not None or draft.deadline is not None

    def over(self, now: Instant) -> Literal["expired", "deadline"] | None:
        """Why it may not be started any more."""
        if self.deadline_at is not None and self.deadline_at <= now:
            return "deadline"
        expired = self.expires_at is not None and self.started_at is None and self.expires_at <= now
        return "expired" if expired else None

    def remember(self, outcome: Outcome, now: Instant) -> None:
        """Appends the run that ends with `outcome` to the history."""
        if outcome.ended == "succeeded" or self.started_at is None:
            return
        self.history.append(
            Attempt(
                self.attempt,
                outcome.fence,
                outcome.worker,
                self.started_at,
                now,
                outcome.ended,
                outcome.error and storable_error(outcome.error),
                storable(outcome.reason),
            )
        )
        if len(self.history) > ERRORS_FIRST + ERRORS_LAST:
            del self.history[ERRORS_FIRST]
            self.omitted += 1

    def hear(self, note: Note, now: Instant) -> bool:
        """True if the job runs under the note's word. What settled it last may still say how far it came."""
        word = (note.fence, note.worker)
        runs = self.state is State.RUNNING and (self.fence, self.worker) == word
        if not runs and (note.fence != self.fence or (self.settled_fence, self.settled_by) != word):
            return False
        told = self.told = self.told or Told()
        if told.fence != note.fence:
            told.fence, told.progress, told.text = note.fence, None, None
        if note.progress is not None:
            told.progress = note.progress
        if note.text is not None:
            told.text = storable(note.text)
        told.lines.extend(LogLine(now - age, note.fence, storable(line)) for age, line in note.lines)
        if runs and note.saved is not None:
            told.saved = note.saved
        return runs


def listing_order(row: Row) -> tuple[int, int]:
    return (row.enqueued_at, row.id.int)


def fits(row: Row, where: Where) -> bool:
    return (
        (where.starts is None or str(row.id).startswith(where.starts))
        and (where.ends is None or str(row.id).endswith(where.ends))
        and (where.states is None or row.state in where.states)
        and (where.queue is None or row.queue == where.queue)
        and (where.task is None or row.draft.task == where.task)
        and (where.tag is None or where.tag in row.draft.tags)
        and (where.error is None or where.error == _newest_error(row))
        and (where.fingerprint is None or row.fingerprint == where.fingerprint)
        and (where.worker is None or row.worker == where.worker)
        and (where.since is None or where.since <= row.enqueued_at)
        and (where.before is None or row.enqueued_at < where.before)
    )


def _newest_error(row: Row) -> str | None:
    return next((attempt.error.type for attempt in reversed(row.history) if attempt.error is not None), None)


def claim_of(row: Row) -> Claim:
    draft = row.draft
    if row.worker is None or row.started_at is None:
        raise AssertionError(f"job {row.id} is {row.state} and held by nobody")
    return Claim(
        draft.id,
        row.fence,
        row.worker,
        draft.task,
        draft.queue,
        row.payload,
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
        draft.headers,
        None if row.told is None else row.told.saved,
        row.deadline_at,
    )


def record_of(row: Row, *, holds: bool) -> Record:
    draft = row.draft
    told = row.told if row.told is not None and row.told.fence == row.fence else None
    return Record(
        id=draft.id,
        task=draft.task,
        queue=draft.queue,
        line=draft.line,
        state=row.state,
        payload=row.payload,
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
        headers=draft.headers,
        unique=draft.unique,
        holds=holds,
        holds_until=row.holds_until if holds else None,
        progress=None if told is None else told.progress,
        text=None if told is None else told.text,
        expires_at=row.expires_at,
        deadline_at=row.deadline_at,
        fingerprint=row.fingerprint,
    )
