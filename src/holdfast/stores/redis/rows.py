"""Between replies and values: rows of held.lua as claims."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from functools import lru_cache
from typing import Any
from uuid import UUID, SafeUUID

from holdfast.clock import Instant
from holdfast.job import Claim
from holdfast.observe.logging import stores, tell
from holdfast.stores.columns import loss_of, storable, tags_of, terms_of
from holdfast.stores.redis.lane import Lane
from holdfast.stores.redis.place import Place, queue_keys
from holdfast.stores.unreadable import UNREADABLE, decoded

_new, _set, _SAFETY = object.__new__, object.__setattr__, SafeUUID.unknown


def uuid_of(text: bytes) -> UUID:
    """As UUID(text.decode()), in a third of the time; only for what a store of ours wrote."""
    one = _new(UUID)
    _set(one, "int", int(text.replace(b"-", b""), 16))
    _set(one, "is_safe", _SAFETY)
    return one


@lru_cache(maxsize=1024)
def text_of(data: bytes) -> str:
    """Of texts that repeat: names of tasks."""
    return data.decode()


@lru_cache(maxsize=1024)
def kind_of(text: bytes) -> tuple[str, tuple[str, ...], str, str]:
    """The terms, as a text for columns.terms_of; tags, headers and line."""
    terms, tags, headers, line = json.loads(text)
    if not (isinstance(headers, str) and isinstance(line, str)):
        raise ValueError(f"kind {text!r} has headers or a line that is no text")  # noqa: TRY004  # of a row
    return json.dumps(terms), tags_of(tags), headers, line


async def claims_of(
    lane: Lane, queue: str, worker: UUID, taken_at: Instant | None, rows: Sequence[Any]
) -> tuple[list[Claim], list[Claim]]:
    """The jobs of these rows, claimed just now (`taken_at`), or held since some claim (None). They are held here now;
    but for the second ones, whose ids are those of other queues' jobs that this process holds.

    What cannot be read is settled as dead, so that it is in nobody's way any more.
    """
    place = lane.place
    try:
        claims = _all_of(queue, worker, taken_at, rows)
        others = place.whereabouts.hold(queue, worker, [job.id for job in claims], map(_text_of_id, rows))
    except UNREADABLE:
        claims, unreadable = decoded(rows, lambda row: _all_of(queue, worker, taken_at, [row])[0])
        texts = [str(job.id).encode() for job in claims]
        others = place.whereabouts.hold(queue, worker, [job.id for job in claims], texts)
        await _bury(lane, queue, worker, unreadable)
    if not others:
        return claims, []
    twofold = [job for job in claims if job.id in others]
    for job in twofold:
        _tell_of_two(place, queue, job.id)
    return [job for job in claims if job.id not in others], twofold


def _tell_of_two(place: Place, queue: str, job: UUID) -> None:
    other = place.whereabouts.queue_of(job) or "another queue"
    if (queue, other) not in place.told_same_id:
        place.told_same_id.add((queue, other))
        text = (
            f"a job of queue {other} has the same id and runs in this process, which cannot hold both: that of {queue} "
            "waits; give every draft an id of its own"
        )
        tell(stores, logging.WARNING, "same-id", job=job, queue=queue, message=text)


async def _bury(lane: Lane, queue: str, worker: UUID, unreadable: Sequence[tuple[Any, str]]) -> None:
    keys = queue_keys(lane.place, queue)
    for row, why in unreadable:
        job = _text_of_id(row)
        if await lane.script("bury", keys, job, str(worker), storable(f"row cannot be read: {why}")):
            lane.place.told.buried([(_id_for_people(job), why)])


def _text_of_id(row: Sequence[Any]) -> bytes:
    id_text: bytes = row[5 if len(row) == 6 else 0]
    return id_text


def _all_of(queue: str, worker: UUID, taken_at: Instant | None, rows: Sequence[Any]) -> list[Claim]:
    claims: list[Claim] = []
    for row in rows:
        if len(row) != 6:
            claims.append(_of(queue, worker, taken_at, row))
            continue
        task, kind, payload, at, due, job = row  # it runs for the first time and has nothing odd: so do most
        if taken_at is None:
            raise ValueError("started_at is not there")
        terms, _, headers, _ = kind_of(kind)
        claims.append(
            Claim._make((
                uuid_of(job), 1, worker, text_of(task), queue, payload, terms_of(terms), 0, 1, 0, 0, 0, False,
                int(at), int(due), taken_at, None, headers, None, None,
            ))
        )  # fmt: skip
    return claims


def _of(queue: str, worker: UUID, taken_at: Instant | None, row: Sequence[Any]) -> Claim:
    job, task, kind, payload, at, due, fence, priority, alone, attempt, *counts, started, loss, saved, deadline = row
    releases, losses, crashes = counts
    terms, _, headers, _ = kind_of(kind)
    more = 0 if taken_at is None else 1
    return Claim(
        uuid_of(job),
        int(fence) + more,
        worker,
        text_of(task),
        queue,
        payload,
        terms_of(terms),
        int(priority),
        int(attempt) + more,
        int(releases),
        int(losses),
        int(crashes),
        alone == b"1",
        int(at),
        int(due),
        int(started) if taken_at is None else taken_at,
        loss_of(loss.decode()) if loss else None,
        headers,
        saved,
        int(deadline) if deadline else None,
    )


def _id_for_people(text: bytes) -> UUID:
    try:
        return uuid_of(text)
    except ValueError:
        return UUID(int=0)
