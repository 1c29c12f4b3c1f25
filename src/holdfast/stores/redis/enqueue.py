"""Stores drafts: of each queue in scripts of some hundreds, of which the next is packed while the server works."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Sequence
from functools import lru_cache
from operator import attrgetter
from typing import Any, NamedTuple
from uuid import UUID

from holdfast.job import Draft, Terms
from holdfast.store import Receipt, Room
from holdfast.stores.columns import storable
from holdfast.stores.redis.lane import Lane, Step
from holdfast.stores.redis.place import job_key, queue_keys
from holdfast.stores.redis.queues import make_known, said_again, said_until
from holdfast.stores.redis.resp import Argument, Reply
from holdfast.stores.redis.slots import Slots

# Of one script, so that it holds up the server for a few milliseconds: drafts, those of admit.lua, and their payloads.
_DRAFTS, _ADMITTED, _BYTES = 200, 50, 1_000_000
_PIPELINED = 16  # queues that are asked at once: all that is said to them is in memory, more than once

# What a draft says but its id, payload and unique key: most drafts of a call say the same.
_kind_of = attrgetter("task", "priority", "delay", "at", "alone", "terms", "tags", "headers", "line")
_until_of = attrgetter("until", "hold", "on_clash")
_NO_KEY, _NO_END = ("", 0, ""), ("", "")
FEW = 50  # jobs of a queue beside those of a call: its name may have been taken out of the registry meanwhile
_BOUNDED = -1  # says enqueue.lua of a queue that is for admit.lua


async def enqueue(lane: Lane, jobs: Sequence[Draft]) -> list[Receipt]:
    receipts = [Receipt(draft.id, "accepted") for draft in jobs]
    first, again = _apart(jobs)
    first = await _without_conflicts(lane, jobs, first, receipts)
    queues: dict[str, list[int]] = {}
    for nth in first:
        queues.setdefault(jobs[nth].queue, []).append(nth)
    await make_known(lane, [name for name in queues if name not in lane.place.queues])
    await _store(lane, [_Queue(lane, name, jobs, nths, receipts) for name, nths in queues.items()])
    if again:
        for nth, receipt in zip(again, await enqueue(lane, [jobs[nth] for nth in again]), strict=True):
            receipts[nth] = receipt
    return receipts


def _apart(jobs: Sequence[Draft]) -> tuple[Sequence[int], Sequence[int]]:
    """Positions of drafts, then of those whose id an earlier one of them has in another queue."""
    if len(jobs) < 2 or len({draft.queue for draft in jobs}) < 2:
        return range(len(jobs)), ()
    home = {draft.id.int: draft.queue for draft in reversed(jobs)}
    again = [nth for nth, draft in enumerate(jobs) if home[draft.id.int] != draft.queue]
    return sorted(set(range(len(jobs))).difference(again)), again


async def _without_conflicts(
    lane: Lane, jobs: Sequence[Draft], nths: Sequence[int], receipts: list[Receipt]
) -> Sequence[int]:
    """Without drafts whose id is another queue's job, as far as this process knows: ids are a queue's own."""
    place = lane.place
    elsewhere = [
        (nth, queue)
        for nth in nths
        if (queue := place.whereabouts.queue_of(jobs[nth].id)) is not None and queue != jobs[nth].queue
    ]
    if not elsewhere:
        return nths
    there = await lane.commands([("EXISTS", job_key(place, queue, jobs[nth].id)) for nth, queue in elsewhere])
    conflicts = {nth for (nth, _), exists in zip(elsewhere, there, strict=True) if exists}
    for nth in conflicts:
        receipts[nth] = Receipt(jobs[nth].id, "conflict", created=False)
    return [nth for nth in nths if nth not in conflicts]


async def _store(lane: Lane, queues: Sequence[_Queue]) -> None:
    with Slots(lane) as slots:
        for start in range(0, len(queues), _PIPELINED):
            await _store_some(lane, slots, queues[start : start + _PIPELINED])
        await make_known(lane, [queue.name for queue in queues if queue.was_few])


async def _store_some(lane: Lane, slots: Slots, queues: Sequence[_Queue]) -> None:
    parts = [queue.part(0) for queue in queues]
    names = said_again(lane, [queue.name for queue in queues])
    while parts:
        asking: Awaitable[dict[_Queue, Reply]] = slots.ask({part.queue: part.step for part in parts}, names)
        names = []
        following: dict[_Queue, _Part] = {}
        if more := [part for part in parts if part.queue.goes_on(part.end)]:
            asking = asyncio.ensure_future(asking)
            await asyncio.sleep(0)  # it is sent, and the server works
            following = {part.queue: part.queue.part(part.end) for part in more}
        replies = await asking
        for part in parts:
            if part.queue not in replies:
                following.pop(part.queue, None)
            elif (decided := part.queue.note(part.start, replies[part.queue])) < part.end:
                following[part.queue] = part.queue.part(decided)
        parts = list(following.values())


class _Part(NamedTuple):
    """One script: the drafts of a queue from `start` to before `end`."""

    queue: _Queue
    start: int
    end: int
    step: Step


class _Queue:
    """The drafts of one queue, in their order, and what becomes of them."""

    def __init__(
        self, lane: Lane, name: str, jobs: Sequence[Draft], nths: Sequence[int], receipts: list[Receipt]
    ) -> None:
        self.name = name
        self.was_few = False
        self._lane = lane
        self._place = lane.place
        self._jobs = jobs
        self._nths = nths
        self._receipts = receipts

    def goes_on(self, start: int) -> bool:
        return start < len(self._nths)

    def part(self, start: int) -> _Part:
        """A script's worth of them, beginning with the one at `start`."""
        kinds: dict[tuple[Any, ...], int] = {}
        packed: list[Argument] = []
        size, end = 0, start
        admit = self.name in self._place.bounded
        for nth in self._nths[start : start + _DRAFTS]:
            draft = self._jobs[nth]
            plain = draft.unique is None and draft.expires is None and draft.deadline is None
            size += len(draft.payload)
            admit = admit or not plain
            if end > start and (size > _BYTES or (admit and end - start >= _ADMITTED)):
                break
            end += 1
            kind, key = ((_kind_of(draft), _NO_KEY, _NO_END), "") if plain else _kind_and_key(draft)
            number = kinds.get(kind)
            if number is None:
                number = kinds[kind] = len(kinds) + 1
            packed += (str(draft.id), draft.payload, number, key)
        said: list[Argument] = [len(kinds)]
        for kind in kinds:
            said += _said_of(*kind) if admit else _said_of(*kind)[:-2]
        script = "admit" if admit else "enqueue"
        return _Part(self, start, end, self._lane.step(script, queue_keys(self._place, self.name), said + packed))

    def note(self, start: int, reply: Reply) -> int:
        """Writes receipts of what was asked from `start` on; returns where the undecided begin."""
        if reply == _BOUNDED:
            self._place.bounded.add(self.name)
            return start
        before, decided, bounded = reply[:3]
        if before < len(self._nths) + FEW:
            self.was_few = True
        if not bounded:
            self._place.bounded.discard(self.name)
        for place, *answer in reply[3:]:
            nth = self._nths[start + int(place) - 1]
            self._receipts[nth] = _receipt_of(self._jobs[nth].id, answer)
        end = start + int(decided)
        receipts = [self._receipts[nth] for nth in self._nths[start:end]]
        self._place.whereabouts.learn(self.name, [receipt.id for receipt in receipts if receipt.created])
        return end


def _kind_and_key(draft: Draft) -> tuple[tuple[Any, ...], str]:
    unique = draft.unique
    ends = (said_until(draft.expires), said_until(draft.deadline))
    if unique is None:
        return (_kind_of(draft), _NO_KEY, ends), ""
    return (_kind_of(draft), _until_of(unique), ends), storable(unique.text)


def said_of_draft(draft: Draft) -> list[Argument]:
    """What tick.lua takes of one: its kind, its id, its payload, its unique key."""
    kind, key = _kind_and_key(draft)
    return [*_said_of(*kind), str(draft.id), draft.payload, key]


def _said_of(kind: tuple[Any, ...], until: tuple[Argument, ...], ends: tuple[str, str]) -> tuple[Argument, ...]:
    """The twelve arguments of a kind that admission.lua takes; enqueue.lua takes but the first ten."""
    task, priority, delay, at, alone, terms, tags, headers, line = kind
    text = _text_of(terms, tags, headers, line)
    return (task, text, priority, delay, "" if at is None else at, terms.keep, "1" if alone else "", *until, *ends)


@lru_cache(maxsize=1024)
def _text_of(terms: Terms, tags: tuple[str, ...], headers: str, line: str) -> str:
    """What scripts only keep, and read back as one."""
    return json.dumps(
        [terms, [storable(tag) for tag in tags], storable(headers), storable(line)], separators=(",", ":")
    )


def _receipt_of(job: UUID, answer: Sequence[Any]) -> Receipt:
    says, created, *more = answer
    holder, dropped, *room = more or (b"", b"") if len(more) != 1 else (*more, b"")
    return Receipt(job, says.decode(), created == 1, _id_of(holder), _id_of(dropped), _room_of(room))


def _id_of(text: bytes) -> UUID | None:
    return UUID(text.decode()) if text else None


def _room_of(said: Sequence[Any]) -> Room | None:
    if not said:
        return None
    depth, size, when_full, block_timeout = said
    return Room(depth, size, when_full.decode(), int(block_timeout) if block_timeout else None)
