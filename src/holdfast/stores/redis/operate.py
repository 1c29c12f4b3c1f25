"""What operators do to single jobs: cancel, retry, delete."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast
from uuid import UUID

from holdfast.job import WhenFull
from holdfast.store import Cancelling, Deleting, Retried, Room
from holdfast.stores.columns import storable
from holdfast.stores.redis.lane import Lane
from holdfast.stores.redis.resp import Argument, Reply
from holdfast.stores.redis.whereabouts import answers, located, moved

_DIGESTED = 2**20  # bytes of payloads that one script makes digests of: 1 MiB takes it 3 ms


async def cancel(lane: Lane, ids: Sequence[UUID], reason: str) -> list[Cancelling]:
    said = await _said(lane, "cancel", [storable(reason)], ids)
    return [cast("Cancelling", _text(answer)) for answer in said]


async def retry(lane: Lane, ids: Sequence[UUID]) -> list[Retried]:
    return [_retried_of(answer or [b"missing"]) for answer in await _said(lane, "retry", [], ids)]


def _retried_of(answer: Sequence[Reply]) -> Retried:
    match answer:
        case [b"taken", holder]:
            return Retried("taken", holder=UUID(holder.decode()))
        case [b"full", depth, bound, when_full, timeout]:
            terms = cast("WhenFull", when_full.decode()), int(timeout) if timeout else None
            return Retried("full", room=Room(int(depth), int(bound), *terms))
        case [word]:
            return Retried(word.decode())
        case _:
            raise AssertionError(answer)


async def delete(lane: Lane, ids: Sequence[UUID]) -> list[Deleting]:
    said = await _said(lane, "delete", [_DIGESTED], ids)
    return [cast("Deleting", _text(answer)) for answer in said]


async def _said(lane: Lane, name: str, args: Sequence[Argument], ids: Sequence[UUID]) -> list[Reply]:
    queues = await located(lane, lane.place, ids)
    said = await answers(lane, name, args, ids, queues)
    missing = [nth for nth, answer in enumerate(said) if answer in (b"missing", [b"missing"])]
    queues = await moved(lane, lane.place, [ids[nth] for nth in missing], queues)
    again = [nth for nth in missing if ids[nth] in queues]
    for nth, answer in zip(again, await answers(lane, name, args, [ids[nth] for nth in again], queues), strict=True):
        said[nth] = answer
    return said


def _text(answer: Reply) -> str:
    return "missing" if answer is None else str(answer.decode())
