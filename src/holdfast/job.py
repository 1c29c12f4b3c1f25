"""The values that all layers share: states, the stored row, a claim, what ended an attempt, what is written then.

Instants and spans are whole milliseconds (see clock.py). The values that pass by the hundred (`Claim`,
`Outcome`) are named tuples, because making one costs a fifth of a frozen dataclass.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from hashlib import blake2b
from typing import Literal, NamedTuple, TypeAlias
from uuid import UUID

from holdfast.clock import DAY, SECOND, Instant, Span

ERRORS_FIRST, ERRORS_LAST = 2, 18  # attempts kept per job: the first ones and the newest
LOG_MOST = 200  # lines of a job's own log that are kept: the newest
SAVED_LIMIT = 2**20  # bytes that a handler may save
HEADERS_LIMIT = 16 * 1024  # bytes of a job's headers, as JSON
KEY_LIMIT = 200  # characters of a unique key
MESSAGE_LIMIT, TRACEBACK_LIMIT, REASON_LIMIT = 2_000, 16_000, 500  # characters
_NOTE_MOST = 50  # characters that say what was cut
TOMBSTONE: Span = 60 * SECOND  # a finished job stays at least this long, so that a repeated write is recognised


class State(StrEnum):
    """Where a job is in its life. `waiting` is reserved for jobs with parents."""

    SCHEDULED = "scheduled"
    WAITING = "waiting"
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    DEAD = "dead"
    CANCELLED = "cancelled"


FINAL = frozenset({State.SUCCEEDED, State.DEAD, State.CANCELLED})

Event: TypeAlias = Literal[
    "enqueue",
    "replace",
    "promote",
    "expire",
    "claim",
    "succeed",
    "fail",
    "snooze",
    "release",
    "lose",
    "cancel",
    "retry",
]


class Transition(NamedTuple):
    """One legal step of a job's life: what happens, from which state, to which."""

    event: Event
    source: State | None
    target: State


def _transitions() -> frozenset[Transition]:
    s = State
    life: dict[Event, list[tuple[State | None, State]]] = {
        "enqueue": [(None, s.SCHEDULED), (None, s.QUEUED)],
        "replace": [(s.SCHEDULED, s.QUEUED), (s.QUEUED, s.SCHEDULED)],
        "promote": [(s.SCHEDULED, s.QUEUED)],
        "expire": [(source, target) for source in (s.SCHEDULED, s.QUEUED) for target in (s.CANCELLED, s.DEAD)],
        "claim": [(s.QUEUED, s.RUNNING)],
        "succeed": [(s.RUNNING, s.SUCCEEDED)],
        "fail": [(s.RUNNING, s.SCHEDULED), (s.RUNNING, s.QUEUED), (s.RUNNING, s.DEAD)],
        "snooze": [(s.RUNNING, s.SCHEDULED), (s.RUNNING, s.QUEUED)],
        "release": [(s.RUNNING, s.QUEUED), (s.RUNNING, s.SCHEDULED)],
        "lose": [(s.RUNNING, s.QUEUED), (s.RUNNING, s.SCHEDULED), (s.RUNNING, s.DEAD)],
        "cancel": [(s.SCHEDULED, s.CANCELLED), (s.QUEUED, s.CANCELLED), (s.RUNNING, s.CANCELLED)],
        "retry": [(s.DEAD, s.QUEUED), (s.CANCELLED, s.QUEUED)],
    }
    return frozenset(Transition(event, *step) for event, steps in life.items() for step in steps)


TRANSITIONS = _transitions()


def _sources(event: Event) -> frozenset[State]:
    return frozenset(step.source for step in TRANSITIONS if step.event == event and step.source is not None)


# In which states an operator may do what: for the app and for the command line.
RETRYABLE, CANCELLABLE, DELETABLE = _sources("retry"), _sources("cancel"), frozenset(State) - {State.RUNNING}


class Terms(NamedTuple):
    """What the producer laid down for the job's whole life; it travels on the job and never changes."""

    max_attempts: int = 1
    base_delay: Span = SECOND
    max_delay: Span = 300 * SECOND
    jitter: float = 0.2
    max_crashes: int = 3
    timeout: Span | None = None
    keep: Span = DAY  # how long the finished job is kept; dead jobs are kept until someone decides


WhenFull: TypeAlias = Literal["block", "reject", "drop_oldest", "drop_newest"]


class QueueTerms(NamedTuple):
    """What is declared of a queue. `max_size`: how many admitted, unfinished jobs it may have; None: no bound.
    `weight`: its share of the jobs that workers start, against the other queues' weights.
    """

    max_size: int | None = None
    when_full: WhenFull = "reject"
    block_timeout: Span | None = None  # how long a producer waits for a place; None: as long as it takes
    weight: int = 1


class Until(NamedTuple):
    """A time by the store's clock: an instant that the user named, or `delay` from when the store reads this."""

    delay: Span = 0
    at: Instant | None = None


class Pause(NamedTuple):
    """Since when something is paused, until when (None: until somebody resumes it), and why, for people."""

    since: Instant
    until: Instant | None = None
    reason: str = ""


class UniqueKey(NamedTuple):
    """At most one job of a queue holds the key: until a claim takes it ("started") or until it is final and `hold` has
    passed ("finished"). `on_clash`: what becomes of a draft whose key is held (see Store.enqueue).
    """

    text: str
    until: Literal["started", "finished"] = "finished"
    hold: Span = 0
    on_clash: Literal["return", "raise", "replace"] = "return"


@dataclass(frozen=True, slots=True)
class Draft:
    """A job as its producer wrote it, not stored yet. `delay` is ours, `at` the user's; at most one is set.

    `headers`: a JSON object of texts, "" for none; stores keep it as it is.
    """

    id: UUID
    task: str
    queue: str
    payload: bytes
    terms: Terms
    priority: int = 0
    delay: Span = 0
    at: Instant | None = None
    tags: tuple[str, ...] = ()
    line: str = ""
    alone: bool = False
    unique: UniqueKey | None = None
    headers: str = ""
    expires: Until | None = None  # not started by then: cancelled, reason "expired"
    deadline: Until | None = None  # not finished by then: dead, reason "deadline"

    @property
    def content(self) -> str:
        """A digest of what makes the job what it is: two drafts of one id are the same job if these agree."""
        digest = blake2b(digest_size=16)
        digest.update(f"{self.task}\0{self.queue}\0".encode())
        digest.update(self.payload)
        return digest.hexdigest()


class Loss(NamedTuple):
    """How a run was lost with its worker, as the one who noticed saw it; written on the job once.

    `on_purpose`: the process was ended by us. `begun` is False for a job that was claimed but never started.
    `culprit`: this job is known to have ended the process. `company`: other runs were under way in the process that
    died, so not even a job that ran alone is to blame. `stack`: what its code did last, as text, cut
    to TRACEBACK_LIMIT by whoever makes it.
    `overdue`: the process was ended because this very run had passed its timeout, or its job's deadline, which is a
    failed attempt; "final": the task's Retry does not retry a TimeoutError.
    """

    cause: str
    on_purpose: bool = False
    begun: bool = True
    culprit: bool = False
    company: bool = False
    stack: str = ""
    overdue: Literal["", "retry", "final"] = ""


class Claim(NamedTuple):
    """A job as a worker (or a sweeper) holds it. (id, fence, worker) is the claim's word, which every write carries."""

    id: UUID
    fence: int
    worker: UUID
    task: str
    queue: str
    payload: bytes
    terms: Terms
    priority: int
    attempt: int  # this one counted
    releases: int  # times given back for an unknown task: the delay doubles with it
    losses: int
    crashes: int
    alone: bool
    enqueued_at: Instant
    due_at: Instant
    claimed_at: Instant
    loss: Loss | None = None
    headers: str = ""
    saved: bytes | None = None  # what the handler saved last, in this attempt or an earlier one
    deadline_at: Instant | None = None

    @property
    def left(self) -> Span | None:
        """How long it had to its deadline when it was claimed; None without one."""
        return None if self.deadline_at is None else max(0, self.deadline_at - self.claimed_at)


class Failure(NamedTuple):
    """An error as it is kept: texts, cut to MESSAGE_LIMIT and TRACEBACK_LIMIT with the cut visible."""

    type: str
    message: str
    traceback: str


# --- verdicts: what an attempt ended as, said by the runner or the sweeper


@dataclass(frozen=True, slots=True)
class Succeeded:
    result: bytes


@dataclass(frozen=True, slots=True)
class Failed:
    """`final`: no further attempt whatever the budget. `after`: the handler named the delay. `reason`: why the job is
    dead, if it is, beside the error.
    """

    error: Failure
    final: bool = False
    after: Span | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Snoozed:
    delay: Span
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Cancelled:
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Released:
    """Given back, uncharged. `unknown`: this worker does not know the task, so it comes back later, not at once.
    `killed`: its code was under way, and was ended by force.
    """

    reason: str = ""
    unknown: bool = False
    killed: bool = False


@dataclass(frozen=True, slots=True)
class Lost:
    loss: Loss


Verdict: TypeAlias = Succeeded | Failed | Snoozed | Cancelled | Released | Lost

Ended: TypeAlias = Literal["succeeded", "failed", "snoozed", "cancelled", "released", "lost"]


class Outcome(NamedTuple):
    """What is written when a claim ends. The store writes `if_cancelled` instead when a cancel was asked for.

    `delay`: None keeps the due time that the job had; otherwise it is due that long from now.
    `attempt`, `releases`, `losses`, `crashes` and `alone` are the job's new values.
    """

    id: UUID
    fence: int
    worker: UUID
    ended: Ended
    state: State
    attempt: int
    releases: int
    losses: int
    crashes: int
    alone: bool
    keep: Span | None  # None: kept until someone decides
    delay: Span | None = None
    result: bytes | None = None
    error: Failure | None = None
    reason: str = ""
    if_cancelled: Outcome | None = None
    fingerprint: str = ""  # of a death: the same for errors that people would call the same


class Attempt(NamedTuple):
    """One run of the history of a job that did not simply succeed at once."""

    attempt: int
    fence: int
    worker: UUID
    started_at: Instant
    ended_at: Instant
    ended: Ended
    error: Failure | None
    reason: str


class Note(NamedTuple):
    """What a running handler says of itself, under its claim's word; None and () say nothing new.

    `lines`: of its own log, each with its age when the note is written. `saved`: what the next attempt shall find.
    """

    id: UUID
    fence: int
    worker: UUID
    progress: float | None = None  # 0 to 1
    text: str | None = None
    lines: tuple[tuple[Span, str], ...] = ()
    saved: bytes | None = None


class LogLine(NamedTuple):
    """A line of a job's own log."""

    at: Instant
    fence: int
    text: str


@dataclass(frozen=True, slots=True)
class Record:
    """The stored row of a job with its history: at most ERRORS_FIRST + ERRORS_LAST attempts; `omitted` are not kept.

    `holds`: it holds its unique key now, a final one until `holds_until`. `progress` and `text` are of its last claim.
    """

    id: UUID
    task: str
    queue: str
    line: str
    state: State
    payload: bytes
    terms: Terms
    priority: int
    tags: tuple[str, ...]
    life: int
    attempt: int
    fence: int
    releases: int
    losses: int
    crashes: int
    alone: bool
    enqueued_at: Instant
    due_at: Instant
    started_at: Instant | None
    finished_at: Instant | None
    worker: UUID | None
    cancel_requested_at: Instant | None
    settled_fence: int | None
    settled_by: UUID | None
    settled_state: State | None
    result: bytes | None
    reason: str
    history: tuple[Attempt, ...] = ()
    omitted: int = 0
    headers: str = ""
    unique: UniqueKey | None = None
    holds: bool = False
    holds_until: Instant | None = None
    progress: float | None = None
    text: str | None = None
    expires_at: Instant | None = None
    deadline_at: Instant | None = None
    fingerprint: str = ""  # of the death that its state tells of


def held_as(record: Record, worker: UUID) -> Claim:
    """A running record as the claim that `worker` holds it by."""
    return Claim(
        record.id,
        record.fence,
        worker,
        record.task,
        record.queue,
        record.payload,
        record.terms,
        record.priority,
        record.attempt,
        record.releases,
        record.losses,
        record.crashes,
        record.alone,
        record.enqueued_at,
        record.due_at,
        record.started_at or record.due_at,
        deadline_at=record.deadline_at,
    )


@dataclass(frozen=True)
class JobError:
    """What ended one attempt of a job: its number, when, and the error's type, message and traceback (cut to size)."""

    attempt: int
    at: datetime
    type: str
    message: str
    traceback: str


def cut(text: str, limit: int) -> str:
    """`text` in at most `limit` characters and a note that says what was left out; half from either end.

    A text that is longer by no more than such a note stays whole: what was cut once is not cut again.
    What no store can write as UTF-8 (half a surrogate pair, as in an undecodable file name) is spelt out.
    """
    if len(text) <= limit + _NOTE_MOST:
        text = _writable(text)
    left_out, half = len(text) - limit, limit // 2
    if left_out <= _NOTE_MOST:
        return text
    return f"{_writable(text[:half])[:half]}\n… {left_out} characters left out …\n{_writable(text[-half:])[-half:]}"


def _writable(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


# --- ids

_last = 0


def new_id() -> UUID:
    """A UUIDv7 (RFC 9562 §5.7): milliseconds, then 12 bits that count within the millisecond, then 62 random bits.

    The random part is the operating system's: a forked `random` would give two processes the same ids.
    """
    global _last  # noqa: PLW0603  # the counter belongs to the process; a lost race costs order, not uniqueness
    stamp = time.time_ns() * 4096 // 1_000_000  # milliseconds with 12 bits of fraction
    _last = stamp = stamp if stamp > _last else _last + 1
    random = int.from_bytes(os.urandom(8), "big") >> 2
    return UUID(int=(stamp >> 12) << 80 | 7 << 76 | (stamp & 0xFFF) << 64 | 2 << 62 | random)
