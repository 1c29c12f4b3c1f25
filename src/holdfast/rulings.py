"""What the laws of the seam say of single values, for every store that is written in Python: pure functions.

Who may settle a claim, what is written then, what a held key means for a draft, what an operator may do in which state,
whose word counts on a queue, what a tick leaves on its schedule, how the history adds up. A store finds the facts, asks
here, and writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import add
from typing import NamedTuple, Protocol
from uuid import UUID

from holdfast.clock import Instant
from holdfast.job import FINAL, Draft, Outcome, Pause, QueueTerms, State, Until
from holdfast.store import (
    TICKS_MOST,
    Answer,
    Authority,
    Cancelling,
    Deleting,
    Entry,
    Level,
    Receipt,
    Retried,
    Settled,
    Tally,
    Tick,
    Ticked,
)

_NO_TERMS = QueueTerms()
_RUNNING, _ACCEPTED = State.RUNNING, Answer.ACCEPTED  # Python 3.11 is slow to look up a member of an enum


class Holding(Protocol):
    """What of a job's row says who holds it and who settled it last."""

    @property
    def state(self) -> State: ...
    @property
    def fence(self) -> int: ...
    @property
    def worker(self) -> UUID | None: ...
    @property
    def cancel_requested_at(self) -> Instant | None: ...
    @property
    def reason(self) -> str: ...
    @property
    def settled_fence(self) -> int | None: ...
    @property
    def settled_by(self) -> UUID | None: ...
    @property
    def settled_state(self) -> State | None: ...


def judge(outcome: Outcome, row: Holding) -> Settled:
    """The fence: who may settle a job."""
    if row.state is _RUNNING and (row.fence, row.worker) == (outcome.fence, outcome.worker):
        cancelled = row.cancel_requested_at is not None and outcome.if_cancelled is not None
        return Settled(_ACCEPTED, State.CANCELLED if cancelled else outcome.state)
    if (row.settled_fence, row.settled_by) == (outcome.fence, outcome.worker):
        return Settled(Answer.REPLAYED, row.settled_state)
    return Settled(Answer.STALE)


def written(outcome: Outcome, row: Holding) -> Outcome:
    """What an accepted outcome writes: where a cancel was asked for, all but a success ends cancelled."""
    if row.cancel_requested_at is None or outcome.ended == "succeeded":
        return outcome
    branch = outcome.if_cancelled or outcome
    return branch._replace(reason=row.reason or branch.reason)


def due(draft: Draft, now: Instant) -> tuple[State, Instant]:
    """The state in which a draft begins, and when it is due."""
    due_at = now + draft.delay if draft.at is None else draft.at
    return (State.QUEUED if due_at <= now else State.SCHEDULED), due_at


def instant(until: Until | None, now: Instant) -> Instant | None:
    """`until` as an instant; None: none was named."""
    if until is None:
        return None
    return now + until.delay if until.at is None else until.at


def clash(draft: Draft, holder: UUID, *, alike: bool, unstarted: bool) -> Receipt:
    """What becomes of a draft whose key `holder` has, which is of the same task if `alike`: nothing is stored."""
    match draft.unique and draft.unique.on_clash:
        case "return" if alike:
            return Receipt(draft.id, "duplicate", created=False, holder=holder)
        case "replace" if alike and unstarted:
            return Receipt(draft.id, "replaced", created=False, holder=holder)
        case _:
            return Receipt(draft.id, "taken", created=False, holder=holder)


def one_success(outcomes: Sequence[Outcome]) -> Outcome:
    """What can be written in a caller's transaction. ValueError for anything else."""
    if len(outcomes) != 1 or outcomes[0].state is not State.SUCCEEDED:
        states = ", ".join(outcome.state for outcome in outcomes) or "nothing"
        raise ValueError(f"outcomes={states}: in a caller's transaction one success is written, and nothing else")
    return outcomes[0]


def cancelling(state: State | None) -> Cancelling:
    """The answer to a cancel; None: there is no such job."""
    if state is None:
        return "missing"
    if state in FINAL:
        return "final"
    return "requested" if state is State.RUNNING else "cancelled"


def deleting(state: State | None) -> Deleting:
    """The answer to a delete; None: there is no such job."""
    if state is None:
        return "missing"
    return "running" if state is State.RUNNING else "deleted"


def retrying(state: State | None) -> Retried | None:
    """The answer to a retry where the state forbids it; None where it is dead or cancelled. No state: no such job."""
    if state is None:
        return Retried("missing")
    if state is State.SUCCEEDED:
        return Retried("succeeded")
    return None if state in FINAL else Retried("unfinished")


class Said(NamedTuple):
    """What is said of a queue: by code, and by an operator, whose word goes before."""

    declared: QueueTerms | None = None
    edited: QueueTerms | None = None

    @property
    def terms(self) -> QueueTerms:
        """What is in effect."""
        return self.edited or self.declared or _NO_TERMS

    def after(self, terms: QueueTerms | None, by: Authority) -> Said:
        """After one more word."""
        if by == "operator":
            return self._replace(edited=terms)
        if terms is not None and (by == "worker" or self.declared is None):
            return self._replace(declared=terms)
        return self


# --- pauses


def in_force(pause: Pause | None, now: Instant) -> bool:
    return pause is not None and (pause.until is None or now < pause.until)


def paused(before: Pause | None, until: Until | None, reason: str, now: Instant) -> Pause:
    """The pause that holds after one more word; one that is over began anew."""
    since = before.since if before is not None and in_force(before, now) else now
    return Pause(since, instant(until, now), reason)


# --- schedules


def ready_at(entry: Entry, now: Instant) -> Instant | None:
    """When the entry's next tick can be settled; None: not before somebody changes it."""
    if entry.next_at is None or entry.pause is None or not in_force(entry.pause, now):
        return entry.next_at
    return None if entry.pause.until is None else max(entry.next_at, entry.pause.until)


def steps(entry: Entry | None, tick: Tick, now: Instant) -> bool:
    """Whether the entry is still as whoever made `tick` saw it."""
    return (
        entry is not None
        and (entry.revision, entry.next_at) == (tick.revision, tick.due)
        and not in_force(entry.pause, now)
        and (tick.draft is None or tick.draft.queue == entry.queue)
    )


def stepped(entry: Entry, tick: Tick, receipt: Receipt | None, now: Instant) -> tuple[Entry, Ticked]:
    """The entry after `tick`, and what is answered. `receipt` is of its draft, if it has one."""
    missed = Ticked(tick.due, now, "missed", reason=tick.reason, count=tick.missed)
    new = [missed] if tick.missed else []
    if receipt is not None:
        new.append(_drawn(tick, receipt, now))
    outcomes = [ticked.outcome for ticked in new]
    entry = entry._replace(
        next_at=tick.next_at,
        revision=entry.revision + 1,
        ticks=(*entry.ticks, *new)[-TICKS_MOST:],
        made=entry.made + outcomes.count("made"),
        skipped=entry.skipped + outcomes.count("skipped"),
        missed=entry.missed + tick.missed,
    )
    return entry, new[-1] if new else missed


def _drawn(tick: Tick, receipt: Receipt, now: Instant) -> Ticked:
    if receipt.answer == "accepted":
        return Ticked(tick.at, now, "made", receipt.id)
    return Ticked(tick.at, now, "skipped", receipt.holder, receipt.answer)


# --- the history of each minute


def added(one: Tally, other: Tally) -> Tally:
    """Both of the same queue, task and outcome, as one."""
    return one._replace(
        count=one.count + other.count,
        ran=tuple(map(add, one.ran, other.ran)),
        waited=tuple(map(add, one.waited, other.waited)),
    )


def higher(one: Level, other: Level) -> Level:
    """Both of the same queue, as one."""
    return one._replace(depth=max(one.depth, other.depth), oldest=max(one.oldest, other.oldest))
