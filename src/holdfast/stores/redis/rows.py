"""Between replies and values: rows of held.lua as claims, and attempts as they stand in a history."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any
from uuid import UUID, SafeUUID

from holdfast.clock import Instant
from holdfast.job import Attempt, Claim, Failure, Terms
from holdfast.stores.columns import loss_of, storable, terms_of
from holdfast.stores.redis.lane import Lane
from holdfast.stores.redis.place import queue_keys
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
def kind_of(text: bytes) -> tuple[Terms, tuple[str, ...], str, str]:
    """Terms, tags, headers and line."""
    terms, tags, headers, line = json.loads(text)
    if not (isinstance(headers, str) and isinstance(line, str) and all(isinstance(tag, str) for tag in tags)):
        raise ValueError(f"kind {text!r} has tags, headers or a line that are no texts")
    return terms_of(json.dumps(terms)), tuple(tags), headers, line


async def claims_of(lane: Lane, queue: str, worker: UUID, taken_at: Instant | None, rows: Sequence[Any]) -> list[Claim]:
    """The jobs of these rows, claimed just now (`taken_at`), or held since some claim (None). They are held here now.

    What cannot be read is settled as dead, so that it is in nobody's way any more.
    """
    whereabouts = lane.place.whereabouts
    try:
        claims = _all_of(queue, worker, taken_at, rows)
        whereabouts.hold_named(queue, [job.id for job in claims], map(_text_of_id, rows))
    except UNREADABLE:
        claims, unreadable = decoded(rows, lambda row: _all_of(queue, worker, taken_at, [row])[0])
        whereabouts.hold(queue, [job.id for job in claims])
        await _bury(lane, queue, worker, unreadable)
    return claims


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
                uuid_of(job), 1, worker, text_of(task), queue, payload, terms, 0, 1, 0, 0, 0, False,
                int(at), int(due), taken_at, None, headers, None,
            ))
        )  # fmt: skip
    return claims


def _of(queue: str, worker: UUID, taken_at: Instant | None, row: Sequence[Any]) -> Claim:
    job, task, kind, payload, at, due, fence, priority, alone, attempt, *counts, started, loss, saved = row
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
        terms,
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
    )


def _id_for_people(text: bytes) -> UUID:
    try:
        return uuid_of(text)
    except ValueError:
        return UUID(int=0)


def attempt_of(text: bytes) -> Attempt:
    """Of an entry of a history, as finish.lua wrote it."""
    attempt, fence, worker, started, ended_at, ended, reason_size, type_size, message_size, texts = text.split(b" ", 9)
    end = int(reason_size)
    reason, error = texts[:end].decode(), None
    if type_size != b"-":
        message = end + int(type_size)
        traceback = message + int(message_size)
        error = Failure(texts[end:message].decode(), texts[message:traceback].decode(), texts[traceback:].decode())
    how: Any = ended.decode()
    return Attempt(int(attempt), int(fence), uuid_of(worker), int(started), int(ended_at), how, error, reason)
