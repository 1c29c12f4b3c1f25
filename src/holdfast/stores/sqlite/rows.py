"""Between rows and values: what a row of a table is as a value of job.py, and the other way round."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any
from uuid import UUID

from holdfast.clock import Instant
from holdfast.job import Attempt, Claim, Draft, Failure, Loss, Record, State, Terms, UniqueKey
from holdfast.rulings import due
from holdfast.stores.sqlite.statements import Row

_LONGEST = 1 << 53  # milliseconds, and all else that a job's terms hold


def uuid_of(text: str) -> UUID:
    """As UUID(text), in two thirds of the time; only for text that this store wrote."""
    return UUID(int=int(text.replace("-", ""), 16))


text_of = lru_cache(maxsize=1024)(str)  # for ids that repeat: those of workers


def id_of(text: str) -> UUID:
    """A job's id as this store writes it: by another spelling it would not be found again."""
    job = uuid_of(text)
    if str(job) != text:
        raise ValueError(f"id {text!r} is not a UUID in lower case")
    return job


def plain_of(written: bytes) -> str:
    """A text of ASCII that was read as bytes, so that a caller's text_factory does not see it. In a database of
    UTF-16 every other byte is 0.
    """
    return bytes(written).replace(b"\0", b"").decode("ascii")


def texts_of(ids: Iterable[UUID]) -> str:
    """Ids as one parameter: a JSON array."""
    return json.dumps(list(map(str, ids)))


@lru_cache(maxsize=1024)
def text_of_terms(terms: Terms) -> str:
    return json.dumps(terms)


@lru_cache(maxsize=1024)
def terms_of(text: str) -> Terms:
    fields = _array_of(text)
    if len(fields) != len(Terms._fields):
        raise ValueError(f"terms {text!r} are not an array of {len(Terms._fields)}")
    terms = Terms._make(fields)
    spans = (terms.max_attempts, terms.base_delay, terms.max_delay, terms.max_crashes, terms.timeout or 0, terms.keep)
    if not (all(type(span) is int and abs(span) <= _LONGEST for span in spans) and _number(terms.jitter)):
        raise ValueError(f"terms {text!r} are not all numbers that a job can have")
    return terms


def _array_of(text: str) -> list[Any]:
    value: list[Any] | None = json.loads(text)
    if not isinstance(value, list):
        raise ValueError(f"{text!r} is not an array")  # noqa: TRY004  # of a row, not of an argument
    return value


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and abs(value) <= _LONGEST  # NaN is not


def text_of_loss(loss: Loss | None) -> str | None:
    return None if loss is None else json.dumps(loss)


def _loss_of(text: str) -> Loss:
    cause, *more = json.loads(text)
    if not isinstance(cause, str):
        raise ValueError(f"loss {text!r} has no cause")  # noqa: TRY004  # of a row, not of an argument
    flags: list[Any] = [bool(flag) for flag in more[:4]]
    loss = Loss(cause, *flags, *more[4:])  # older ones are shorter
    if not isinstance(loss.stack, str) or loss.overdue not in ("", "retry", "final"):
        raise ValueError(f"loss of cause {cause!r} has a stack or an overdue of another kind")
    return loss


def storable(text: str) -> str:
    """`text` with lone surrogates written out: an exception's message may hold some, and UTF-8 has none."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()
    return text


def row_of(draft: Draft, now: Instant) -> Row:
    """A new job, for enqueue.sql."""
    state, due_at = due(draft, now)
    return (
        str(draft.id),
        draft.task,
        draft.queue,
        draft.line,
        state.value,
        draft.priority,
        draft.alone,
        draft.alone,
        now,
        due_at,
        text_of_terms(draft.terms),
        json.dumps(draft.tags) if draft.tags else "[]",
        draft.payload,
    )


def whole_row_of(draft: Draft, now: Instant) -> Row:
    """A new job, for enqueue_whole.sql."""
    if draft.unique is None:
        return (*row_of(draft, now), draft.headers, None, None, 0, None)
    return (*row_of(draft, now), draft.headers, *draft.unique)


def claim_of(row: Row, worker: UUID) -> Claim:
    """What held.sql returns, of this worker: the fields of a Claim in their order, which is the quickest way."""
    *fields, _ = row
    if fields[15] is None:
        raise ValueError("started_at is NULL")
    fields[0], fields[2] = id_of(fields[0]), worker
    fields[6], fields[12] = terms_of(fields[6]), fields[12] == 1
    if fields[16] is not None:
        fields[16] = _loss_of(fields[16])
    return Claim(*fields)


def running_order(row: Row) -> tuple[int, int, str]:
    """Of rows as held.sql returns them: the order in which a queue's jobs are claimed."""
    return (-row[7], row[14], row[0])


def place_of(row: Row) -> tuple[int, int, str]:
    """Seq, fence and id of what held.sql returns."""
    return row[-1], row[1], row[0]


def record_of(row: Row, history: Sequence[Row], now: Instant) -> Record:
    """What find.sql returns, with what history.sql returned for this job."""
    (
        _, attempts, job, task, queue, line, state, payload, terms, priority, tags, life, attempt, fence, releases,
        losses, crashes, alone, enqueued_at, due_at, started_at, finished_at, worker, cancel_requested_at,
        settled_fence, settled_by, settled_state, result, reason,
        headers, key, until, hold, clash, over, progress, told,
    ) = row  # fmt: skip
    unique = _unique_of(key, until, hold, clash)
    holds_until = finished_at + hold if finished_at is not None and hold > 0 and not over else None
    holds = unique is not None and (until == "finished" or started_at is None)  # else a claim took the key away
    holds = holds and (finished_at is None or (holds_until is not None and now < holds_until))
    return Record(
        id=id_of(job),
        task=task,
        queue=queue,
        line=line,
        state=State(state),
        payload=payload,
        terms=terms_of(terms),
        priority=priority,
        tags=_tags_of(tags),
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
        worker=_maybe(worker),
        cancel_requested_at=cancel_requested_at,
        settled_fence=settled_fence,
        settled_by=_maybe(settled_by),
        settled_state=None if settled_state is None else State(settled_state),
        result=result,
        reason=reason,
        history=tuple(_attempt_of(ended) for ended in history),
        omitted=attempts - len(history),
        headers=headers,
        unique=unique,
        holds=holds,
        holds_until=holds_until if holds else None,
        progress=progress,
        text=told,
    )


def _tags_of(text: str) -> tuple[str, ...]:
    tags = _array_of(text)
    if not all(isinstance(tag, str) for tag in tags):
        raise ValueError(f"tags {text!r} are not an array of texts")
    return tuple(tags)


def _unique_of(key: str | None, until: Any, hold: Any, clash: Any) -> UniqueKey | None:
    if key is None:
        return None
    if until not in ("started", "finished") or clash not in ("return", "raise", "replace"):
        raise ValueError(f"unique key {key!r} is held until {until!r}, and on a clash: {clash!r}")
    return UniqueKey(key, until, hold, clash)


def _attempt_of(row: Row) -> Attempt:
    _, attempt, fence, worker, started_at, ended_at, ended, reason, *error = row
    failure = None if error[0] is None else Failure(*error)
    return Attempt(attempt, fence, uuid_of(worker), started_at, ended_at, ended, failure, reason)


def _maybe(text: str | None) -> UUID | None:
    return None if text is None else uuid_of(text)


def error_columns(error: Failure | None) -> tuple[Any, Any, Any]:
    """The three columns of an attempt's error."""
    if error is None:
        return (None, None, None)
    return (storable(error.type), storable(error.message), storable(error.traceback))
