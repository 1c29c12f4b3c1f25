"""Stores drafts on a connection of ours, and takes places for those of callers' transactions."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any
from uuid import UUID

from holdfast.clock import SECOND, Span
from holdfast.job import Draft, QueueTerms
from holdfast.store import RESERVED, Receipt, Room
from holdfast.stores.columns import storable, text_of_terms
from holdfast.stores.postgres.address import Place
from holdfast.stores.postgres.lanes import Lane

# How long one call waits for what another transaction holds: most are over in a few ms. What was held longer than that
# once is a stranger's, and is only looked at when it comes again.
PATIENCE: Span = 150
LOOK: Span = 5
_HELD_UP_MOST = 10_000
_KNOWN = 0.9 * RESERVED / SECOND  # seconds that a reservation is certainly there


async def enqueue(
    lane: Lane, jobs: Sequence[Draft], place: Place, ring: Callable[[Collection[str]], object]
) -> list[Receipt]:
    receipts = await _take(lane, jobs, "own", place)
    if queues := {
        draft.queue
        for draft, receipt in zip(jobs, receipts, strict=True)
        if not draft.delay and (receipt.created or receipt.answer == "replaced")
    }:
        ring(queues)
    return receipts


async def reserve(lane: Lane, jobs: Sequence[Draft], place: Place) -> list[Receipt]:
    """Also notes in `place` what was reserved: a transaction whose snapshot is older cannot see it."""
    since = time.monotonic()
    receipts = [receipt._replace(created=False) for receipt in await _take(lane, jobs, "reserve", place)]
    for job in [job for job, then in place.reserved.copy().items() if then < since - _KNOWN]:
        place.reserved.pop(job, None)
    place.reserved.update({receipt.id: since for receipt in receipts if receipt.answer == "accepted"})
    return receipts


async def _take(lane: Lane, jobs: Sequence[Draft], way: str, place: Place) -> list[Receipt]:
    if not jobs:
        return []
    numbers = dict[object, int]()
    kinds = list[dict[str, Any]]()
    kind = list[int]()
    for draft in jobs:
        said = (
            draft.task, draft.queue, draft.line, draft.priority, draft.alone, draft.terms, draft.tags, draft.headers,
            draft.unique, draft.delay, draft.at,
        )  # fmt: skip
        number = numbers.get(said)
        if number is None:
            kinds.append(_said(draft))
            number = numbers[said] = len(kinds)
        kind.append(number)
    ids, payloads = [draft.id for draft in jobs], [draft.payload for draft in jobs]
    patience = LOOK if place.held_up and not place.held_up.isdisjoint(ids) else PATIENCE
    rows = await lane.call("take", ids, kind, payloads, json.dumps(kinds), way, patience)
    receipts = [Receipt(draft.id, "accepted") for draft in jobs]
    for nth, *row in rows:
        receipts[nth - 1] = receipt_of(jobs[nth - 1].id, row)
    if rows or place.held_up:
        _remember(place, receipts)
    return receipts


def _remember(place: Place, receipts: Sequence[Receipt]) -> None:
    busy = {receipt.id for receipt in receipts if receipt.answer == "busy"}
    place.held_up.difference_update(receipt.id for receipt in receipts)
    if len(place.held_up) > _HELD_UP_MOST:  # of callers that did not come again
        place.held_up.clear()
    place.held_up.update(busy)


def receipt_of(job: UUID, row: Sequence[Any]) -> Receipt:
    answer, created, holder, dropped, depth, bound, when_full, block_timeout = row
    room = None if bound is None else Room(depth, bound, when_full, block_timeout)
    return Receipt(job, answer, created, holder, dropped, room)


def _said(draft: Draft) -> dict[str, Any]:
    """What a producer says of a job but its id and payload, by the names of the columns."""
    said: dict[str, Any] = {
        "task": draft.task,
        "queue": draft.queue,
        "line": storable(draft.line),
        "priority": draft.priority,
        "alone": draft.alone,
        "terms": text_of_terms(draft.terms),
        "tags": [storable(tag) for tag in draft.tags],
        "headers": storable(draft.headers),
        "delay": draft.delay,
        "at": draft.at,
    }
    if draft.unique is not None:
        said |= {
            "unique_key": storable(draft.unique.text),
            "unique_until": draft.unique.until,
            "unique_hold": draft.unique.hold,
            "unique_clash": draft.unique.on_clash,
        }
    return said


def within_text(place: Place, jobs: Sequence[Draft], declared: Mapping[str, QueueTerms]) -> str:
    """The one parameter of holdfast_enqueue for a call in a caller's transaction; ASCII, whatever the drafts hold."""
    fresh = time.monotonic() - _KNOWN
    return json.dumps(
        {
            "jobs": [
                _said(draft)
                | {
                    "id": str(draft.id),
                    "payload": draft.payload.hex(),
                    "reserved": place.reserved.get(draft.id, 0.0) > fresh,
                }
                for draft in jobs
            ],
            "declared": [name for name, terms in declared.items() if terms.max_size is not None],
            "store": None if place.store is None else str(place.store),
            "shift": place.shift,
        }
    )
