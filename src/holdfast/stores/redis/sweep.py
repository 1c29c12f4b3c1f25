"""What janitors do: promote and reclaim. All queues are looked at at once, then those that have something to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from heapq import merge
from itertools import islice
from typing import Any
from uuid import UUID

from holdfast.clock import Instant, Span
from holdfast.job import Claim
from holdfast.store import LEASE_RAN_OUT, Over, Promoted
from holdfast.stores.columns import text_of_loss
from holdfast.stores.redis.lane import Lane
from holdfast.stores.redis.lives import Standing, joined, standing
from holdfast.stores.redis.place import queue_keys
from holdfast.stores.redis.resp import Argument
from holdfast.stores.redis.rows import claims_of
from holdfast.stores.redis.slots import Slots
from holdfast.stores.redis.whereabouts import known_queues

AT_ONCE = 100  # jobs that one script moves or deletes: a millisecond or two
_BYTES = 4_000_000  # of payloads that one script returns


# --- promote


async def promote(lane: Lane, limit: int) -> Promoted:
    place = lane.place
    names = place.queues = await known_queues(lane, place)
    slots = Slots(lane)
    looks = await slots.scripts("promote", dict.fromkeys(names, (0,)))
    over = await _end_over(slots, looks, limit)
    moved = 0
    for queue, count in (await _earliest(slots, lane, looks, max(0, limit))).items():
        for some in parts(count):
            answer = await slots.scripts("promote", {queue: (some,)})
            looks |= answer
            moved += sum(each[0] for each in answer.values())
    if not over:
        slots.told(moved)
    return Promoted(moved, _next_in(list(looks.values())), tuple(over))


async def _end_over(slots: Slots, looks: dict[str, Any], limit: int) -> list[Over]:
    """Ends the jobs whose time is over; `looks` is as it is then."""
    over: list[tuple[Instant, Over]] = []
    mortal = {queue: look[4] for queue, look in looks.items() if look[4]}
    for queue, count in mortal.items():
        for some in parts(min(count, limit - len(over))):
            ended = (await slots.scripts("expire", {queue: (some,)})).get(queue, [])
            over += [(at, Over(UUID(job.decode()), task.decode(), queue, why.decode())) for at, job, task, why in ended]
    if mortal:
        looks |= await slots.scripts("promote", dict.fromkeys(mortal, (0,)))
    return [each for _, each in sorted(over)]


def parts(count: int) -> list[int]:
    """`count` in portions for one script each."""
    return [min(AT_ONCE, count - start) for start in range(0, count, AT_ONCE)]


async def _earliest(slots: Slots, lane: Lane, looks: Mapping[str, Sequence[Any]], limit: int) -> dict[str, int]:
    """How many to promote in each queue: of all that are due, the earliest."""
    due = {queue: min(look[2], limit) for queue, look in looks.items() if look[2]}
    if len(due) < 2 or sum(due.values()) <= limit:
        return due
    place = lane.place
    firsts = await slots.ask(
        {
            queue: lane.command("ZRANGE", queue_keys(place, queue)[4], 0, count - 1, "WITHSCORES")
            for queue, count in due.items()
        }
    )
    merged = merge(*([(at, job, queue) for job, at in _scored(reply)] for queue, reply in firsts.items()))
    counts = dict.fromkeys(due, 0)
    for _, _, queue in islice(merged, limit):
        counts[queue] += 1
    return counts


def _scored(reply: Sequence[Any]) -> list[tuple[bytes, float]]:
    """Members and scores: RESP2 has them in a row, RESP3 in pairs."""
    pairs = reply if reply and isinstance(reply[0], list) else zip(reply[::2], reply[1::2], strict=True)
    return [(member, float(score)) for member, score in pairs]


def _next_in(looks: Sequence[Sequence[Any]]) -> Span | None:
    nexts = [(at, now) for _, now, _, *times in looks for at in times[::2] if at is not None]
    return max(0, min(at for at, _ in nexts) - max(now for _, now in nexts)) if nexts else None


# --- reclaim


async def reclaim(lane: Lane, sweeper: UUID, limit: int) -> list[Claim]:
    stands = await standing(lane, sweeper, sweeps=True)
    if stands.state != "live":
        return []
    sweep = _Sweep(lane, sweeper, stands, max(0, limit))
    await sweep.look()
    for which in ("mine", "retired", "silent"):
        await sweep.take(which)
    return sweep.slots.told(sweep.claims)


class _Sweep:
    """One reclaim over all queues."""

    def __init__(self, lane: Lane, sweeper: UUID, stands: Standing, limit: int) -> None:
        self.slots = Slots(lane)
        self.claims: list[Claim] = []
        self._lane = lane
        self._sweeper = sweeper
        self._stands = stands
        self._left = limit
        self._there: dict[str, dict[str, int]] = {}  # jobs by queue, then by whose they are

    def _args(self, which: str, most: int, after: str = "") -> tuple[Argument, ...]:
        return (self._stands.lease, str(self._sweeper), most, which, _BYTES, text_of_loss(LEASE_RAN_OUT) or "", after)

    async def look(self) -> None:
        """Joins the slots where there is something to do."""
        strangers = await self._look(self._stands.queues)
        if strangers:
            answers = await joined(self._lane, self.slots, self._sweeper, strangers, self._stands)
            await self._look({queue for queue, answer in answers.items() if answer == "joined"})

    async def _look(self, queues: set[str]) -> set[str]:
        strangers = set[str]()
        looks = await self.slots.scripts("reclaim", dict.fromkeys(queues, self._args("look", 0)))
        for queue, (state, *counts) in looks.items():
            if state == b"stranger":
                strangers.add(queue)
            elif any(counts):
                self._there[queue] = dict(zip(("mine", "retired", "silent"), counts, strict=True))
        return strangers

    async def take(self, which: str) -> None:
        """The jobs of one kind, from queue to queue until there are enough."""
        for queue, counts in self._there.items():
            after = ""
            while self._left > 0 and counts[which] > 0:
                args = self._args(which, min(self._left, AT_ONCE), after)
                rows = (await self.slots.scripts("reclaim", {queue: args})).get(queue)
                claims, twofold = await claims_of(self._lane, queue, self._sweeper, None, rows or [])
                if not (claims or twofold):
                    break
                self.claims += claims  # twofold ones are the sweeper's too: they wait until the others are settled
                after = max(str(job.id) for job in (*claims, *twofold))
                counts[which] -= len(claims) + len(twofold)
                self._left -= len(claims)
