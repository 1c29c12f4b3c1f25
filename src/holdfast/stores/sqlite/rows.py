"""Between rows and values: what a row of a table is as a value of job.py, and the other way round."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from uuid import UUID

from holdfast.clock import Instant
from holdfast.job import Attempt, Claim, Draft, Record
from holdfast.rulings import due, instant
from holdfast.stores import columns
from holdfast.stores.columns import loss_of, terms_of, text_of_terms
from holdfast.stores.sqlite.statements import Row


def uuid_of(text: str) -> UUID:
    """As UUID(text), in two thirds of the time; only for text that this store wrote."""
    return UUID(int=int(text.replace("-", ""), 16))


text_of = lru_cache(maxsize=1024)(str)  # for ids that repeat: those of workers


# As str() writes an id; to write it anew and compare takes four times as long.
_as_written = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}").fullmatch


def id_of(text: str) -> UUID:
    """A job's id as this store writes it: by another spelling it would not be found again."""
    if not _as_written(text):
        raise ValueError(f"id {text!r} is not a UUID in lower case")
    return uuid_of(text)


def plain_of(written: bytes) -> str:
    """A text of ASCII that was read as bytes, so that a caller's text_factory does not see it. In a database of
    UTF-16 every other byte is 0.
    """
    return bytes(written).replace(b"\0", b"").decode("ascii")


def texts_of(ids: Iterable[UUID]) -> str:
    """Ids as one parameter: a JSON array."""
    return json.dumps(list(map(str, ids)))


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
    unique = draft.unique or (None, None, 0, None)
    return (*row_of(draft, now), draft.headers, *unique, instant(draft.expires, now), instant(draft.deadline, now))


def claim_of(row: Row, worker: UUID) -> Claim:
    """What held.sql returns, of this worker: the fields of a Claim in their order, which is the quickest way."""
    *fields, _ = row
    if fields[15] is None:
        raise ValueError("started_at is NULL")
    fields[0], fields[2] = id_of(fields[0]), worker
    fields[6], fields[12] = terms_of(fields[6]), fields[12] == 1
    if fields[16] is not None:
        fields[16] = loss_of(fields[16])
    return Claim(*fields)


def running_order(row: Row) -> tuple[int, int, str]:
    """Of rows as held.sql returns them: the order in which a queue's jobs are claimed."""
    return (-row[7], row[14], row[0])


def place_of(row: Row) -> tuple[int, int, str]:
    """Seq, fence and id of what held.sql returns."""
    return row[-1], row[1], row[0]


def record_of(row: Row, history: Sequence[Row], now: Instant) -> Record:
    """What find.sql returns, with what history.sql returned for this job."""
    _, *fields = row
    fields[1], fields[9] = id_of(fields[1]), columns.tags_of(columns.array_of(fields[9]))
    fields[21], fields[24] = _maybe(fields[21]), _maybe(fields[24])
    return columns.record_of(fields, [_attempt_of(ended) for ended in history], now)


def _attempt_of(row: Row) -> Attempt:
    _, attempt, fence, worker, *ended = row
    return columns.attempt_of((attempt, fence, uuid_of(worker), *ended))


def _maybe(text: str | None) -> UUID | None:
    return None if text is None else uuid_of(text)
