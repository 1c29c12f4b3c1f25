"""What the columns of a job's row hold, for every store in SQL: between texts of JSON and values of job.py.

A row that somebody else has written may hold anything: what reads one raises ValueError, TypeError and the like for
what no job can be.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, TypeAlias
from uuid import UUID

from holdfast.clock import Instant
from holdfast.job import Attempt, Failure, Loss, QueueTerms, Record, State, Terms, UniqueKey
from holdfast.store import Ticked
from holdfast.stores.unreadable import UNREADABLE, decoded

Row: TypeAlias = Sequence[Any]

_LONGEST = 1 << 53  # milliseconds, and all else that a job's terms hold


def storable(text: str) -> str:
    r"""`text` as every store can hold it: NUL and lone surrogates are written out, as \x00 and \udc80.

    An exception's message may hold some; UTF-8 has no lone surrogates, and PostgreSQL's texts no NUL.
    """
    if "\0" in text:
        text = text.replace("\0", "\\x00")
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def storable_error(error: Failure) -> Failure:
    return Failure(storable(error.type), storable(error.message), storable(error.traceback))


def error_columns(error: Failure | None) -> tuple[str | None, str | None, str | None]:
    """The three columns of an attempt's error."""
    return (None, None, None) if error is None else storable_error(error)


@lru_cache(maxsize=1024)
def text_of_terms(terms: Terms) -> str:
    return json.dumps(terms)


@lru_cache(maxsize=1024)
def terms_of(text: str) -> Terms:
    fields = array_of(text)
    if len(fields) != len(Terms._fields):
        raise ValueError(f"terms {text!r} are not an array of {len(Terms._fields)}")
    terms = Terms._make(fields)
    spans = (terms.max_attempts, terms.base_delay, terms.max_delay, terms.max_crashes, terms.timeout or 0, terms.keep)
    if not (all(type(span) is int and abs(span) <= _LONGEST for span in spans) and _number(terms.jitter)):
        raise ValueError(f"terms {text!r} are not all numbers that a job can have")
    return terms


def array_of(text: str) -> list[Any]:
    value: list[Any] | None = json.loads(text)
    if not isinstance(value, list):
        raise ValueError(f"{text!r} is not an array")  # noqa: TRY004  # of a row, not of an argument
    return value


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and abs(value) <= _LONGEST  # NaN is not


def text_of_queue_terms(terms: QueueTerms | None) -> str | None:
    """A weight of 1 is not written: code that knows no weights can read it."""
    return None if terms is None else json.dumps(terms[:3] if terms.weight == 1 else terms)


def queue_terms_of(text: str) -> QueueTerms:
    fields = array_of(text)
    if len(fields) not in (3, 4):
        raise ValueError(f"a queue's terms {text!r} are not an array of 3 or 4")
    return QueueTerms(*fields)


def text_of_ticks(ticks: Sequence[Ticked]) -> str:
    return json.dumps([[due, at, outcome, job and str(job), *more] for due, at, outcome, job, *more in ticks])


def ticks_of(text: str) -> tuple[Ticked, ...]:
    """Of arrays of due, at, outcome, job, reason, count; without those that somebody's hand has made unreadable: they
    are for people, and must be in no tick's way.
    """
    try:
        rows = array_of(text)
    except UNREADABLE:
        return ()
    return tuple(decoded(rows, _ticked_of)[0])


def _ticked_of(row: Sequence[Any]) -> Ticked:
    due, at, outcome, job, reason, count = row
    return ticked(int(due), int(at), outcome, job and UUID(job), str(reason), int(count))


def ticked(due: Instant, at: Instant, outcome: str, job: UUID | None, reason: str, count: int) -> Ticked:
    """As it was kept. ValueError for an outcome that there is not."""
    match outcome:
        case "made" | "skipped" | "missed":
            return Ticked(due, at, outcome, job, reason, count)
        case _:
            raise ValueError(f"a tick cannot be {outcome!r}")


def text_of_loss(loss: Loss | None) -> str | None:
    return None if loss is None else json.dumps(loss)


def loss_of(text: str) -> Loss:
    cause, *more = json.loads(text)
    if not isinstance(cause, str):
        raise ValueError(f"loss {text!r} has no cause")  # noqa: TRY004  # of a row, not of an argument
    flags: list[Any] = [bool(flag) for flag in more[:4]]
    loss = Loss(cause, *flags, *more[4:])  # older ones are shorter
    if not isinstance(loss.stack, str) or loss.overdue not in ("", "retry", "final"):
        raise ValueError(f"loss of cause {cause!r} has a stack or an overdue of another kind")
    return loss


def unique_of(key: str | None, until: Any, hold: Any, clash: Any) -> UniqueKey | None:
    if key is None:
        return None
    if until not in ("started", "finished") or clash not in ("return", "raise", "replace"):
        raise ValueError(f"unique key {key!r} is held until {until!r}, and on a clash: {clash!r}")
    return UniqueKey(key, until, hold, clash)


def attempt_of(row: Row) -> Attempt:
    """Of attempt, fence, worker, started_at, ended_at, ended, reason, and the error's type, message and traceback."""
    attempt, fence, worker, started_at, ended_at, ended, reason, *error = row
    failure = None if error[0] is None else Failure(*error)
    return Attempt(attempt, fence, worker, started_at, ended_at, ended, failure, reason)


def record_of(row: Row, history: Sequence[Attempt], now: Instant) -> Record:
    """Of the columns in just the order in which they are taken apart here, ids being UUIDs and tags a tuple."""
    (
        attempts, job, task, queue, line, state, payload, terms, priority, tags, life, attempt, fence, releases,
        losses, crashes, alone, enqueued_at, due_at, started_at, finished_at, worker, cancel_requested_at,
        settled_fence, settled_by, settled_state, result, reason,
        headers, key, until, hold, clash, over, progress, told, *limits,
    ) = row  # fmt: skip
    expires_at, deadline_at, fingerprint = limits or (None, None, "")
    unique = unique_of(key, until, hold, clash)
    holds_until = finished_at + hold if finished_at is not None and hold > 0 and not over else None
    holds = unique is not None and (until == "finished" or started_at is None)  # else a claim took the key away
    holds = holds and (finished_at is None or (holds_until is not None and now < holds_until))
    return Record(
        id=job,
        task=task,
        queue=queue,
        line=line,
        state=State(state),
        payload=payload,
        terms=terms_of(terms),
        priority=priority,
        tags=tags,
        life=life,
        attempt=attempt,
        fence=fence,
        releases=releases,
        losses=losses,
        crashes=crashes,
        alone=alone == 1,
        enqueued_at=enqueued_at,
        due_at=due_at,
        started_at=started_at,
        finished_at=finished_at,
        worker=worker,
        cancel_requested_at=cancel_requested_at,
        settled_fence=settled_fence,
        settled_by=settled_by,
        settled_state=None if settled_state is None else State(settled_state),
        result=result,
        reason=reason,
        history=tuple(history),
        omitted=attempts - len(history),
        headers=headers,
        unique=unique,
        holds=holds,
        holds_until=holds_until if holds else None,
        progress=progress,
        text=told,
        expires_at=expires_at,
        deadline_at=deadline_at,
        fingerprint=fingerprint,
    )


def tags_of(tags: Sequence[Any]) -> tuple[str, ...]:
    if not all(isinstance(tag, str) for tag in tags):
        raise ValueError(f"tags {tags!r} are not all texts")
    return tuple(tags)
