"""Stores drafts on a connection of ours, and takes places for those of callers' transactions."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from operator import attrgetter
from typing import Any, NamedTuple
from uuid import UUID

from holdfast.clock import Instant, Span
from holdfast.job import Draft, QueueTerms, Terms, UniqueKey, Until
from holdfast.store import Receipt, Room
from holdfast.stores.columns import storable, text_of_terms
from holdfast.stores.postgres import limits
from holdfast.stores.postgres.address import Place
from holdfast.stores.postgres.lane import Lane
from holdfast.stores.postgres.packed import byteas, integers, uuids

_HELD_UP_MOST = 10_000


class _Kind(NamedTuple):
    """What a draft says but its id and payload: most drafts of a call say the same."""

    task: str
    queue: str
    line: str
    priority: int
    alone: bool
    terms: Terms
    tags: tuple[str, ...]
    headers: str
    unique: UniqueKey | None
    delay: Span
    at: Instant | None
    expires: Until | None
    deadline: Until | None


_kind_of = attrgetter(*_Kind._fields)  # as a plain tuple, which is quicker


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
    return [receipt._replace(created=False) for receipt in await _take(lane, jobs, "reserve", place)]


async def _take(lane: Lane, jobs: Sequence[Draft], way: str, place: Place) -> list[Receipt]:
    if not jobs:
        return []
    kinds = dict[tuple[Any, ...], int]()
    kind = [kinds.setdefault(_kind_of(draft), len(kinds) + 1) for draft in jobs]
    said = json.dumps([_said(_Kind._make(one)) for one in kinds])
    ids = [draft.id for draft in jobs]
    patience = limits.ENQUEUE_AGAIN if place.held_up and not place.held_up.isdisjoint(ids) else limits.ENQUEUE
    payloads = byteas([draft.payload for draft in jobs])
    rows = await lane.call("take", uuids(ids), integers(kind), payloads, said, way, patience)
    receipts = [Receipt(draft.id, "accepted") for draft in jobs]
    for row in rows:
        nth: int = row[0] - 1
        receipts[nth] = _receipt_of(jobs[nth].id, row[1:])
    if rows or place.held_up:
        _remember(place, receipts)
    return receipts


def _remember(place: Place, receipts: Sequence[Receipt]) -> None:
    busy = {receipt.id for receipt in receipts if receipt.answer == "busy"}
    place.held_up.difference_update(receipt.id for receipt in receipts)
    if len(place.held_up) > _HELD_UP_MOST:  # of callers that did not come again
        place.held_up.clear()
    place.held_up.update(busy)


def _receipt_of(job: UUID, row: Sequence[Any]) -> Receipt:
    answer, created, holder, dropped, depth, bound, when_full, block_timeout = row
    room = None if bound is None else Room(depth, bound, when_full, block_timeout)
    return Receipt(job, answer, created, holder, dropped, room)


def _said(kind: _Kind) -> dict[str, Any]:
    """By the names of the columns."""
    said: dict[str, Any] = {
        "task": kind.task,
        "queue": kind.queue,
        "line": storable(kind.line),
        "priority": kind.priority,
        "alone": kind.alone,
        "terms": text_of_terms(kind.terms),
        "tags": [storable(tag) for tag in kind.tags],
        "headers": storable(kind.headers),
        "delay": kind.delay,
        "at": kind.at,
    }
    for name, until in (("expires", kind.expires), ("deadline", kind.deadline)):
        if until is not None:
            said |= {f"{name}_in": until.delay} if until.at is None else {f"{name}_at": until.at}
    if (unique := kind.unique) is not None:
        said |= {
            "unique_key": storable(unique.text),
            "unique_until": unique.until,
            "unique_hold": unique.hold,
            "unique_clash": unique.on_clash,
        }
    return said


def one_text(draft: Draft) -> str:
    """The JSON array of one draft, as holdfast_put takes it."""
    return json.dumps([_said(_Kind._make(_kind_of(draft)))])


def within_text(place: Place, jobs: Sequence[Draft], declared: Mapping[str, QueueTerms]) -> str:
    """The one parameter of holdfast_enqueue for a call in a caller's transaction; ASCII, whatever the drafts hold."""
    return json.dumps(
        {
            "jobs": [
                _said(_Kind._make(_kind_of(draft))) | {"id": str(draft.id), "payload": draft.payload.hex()}
                for draft in jobs
            ],
            "declared": [name for name, terms in declared.items() if terms.max_size is not None],
            "store": None if place.store is None else str(place.store),
            "shift": place.shift,
        }
    )
