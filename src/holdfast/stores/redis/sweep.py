"""What janitors do: promote, reclaim, prune. All queues are looked at at once, then those with something to do."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from heapq import merge
from itertools import islice
from typing import Any
from uuid import UUID

from holdfast.clock import Span
from holdfast.job import Claim
from holdfast.store import LEASE_RAN_OUT, Promoted
from holdfast.stores.columns import text_of_loss
from holdfast.stores.redis.lane import Lane
from holdfast.stores.redis.lives import Standing, joined, standing
from holdfast.stores.redis.place import Place, queue_keys
from holdfast.stores.redis.resp import Argument
from holdfast.stores.redis.rows import claims_of
from holdfast.stores.redis.slots import Slots, names_of
from holdfast.stores.redis.whereabouts import known_queues

_AT_ONCE = 100  # jobs that one script moves or deletes: a millisecond or two
_BYTES = 4_000_000  # of payloads that one script returns
_ROWS = 200  # of workers that one script looks at, about


# --- promote


async def promote(lane: Lane, limit: int) -> Promoted:
    place = lane.place
    names = place.queues = await known_queues(lane, place)
    with Slots(lane) as slots:
        looks = await slots.scripts("promote", dict.fromkeys(names, (0,)))
        moved = 0
        if any(due for _, _, due, _ in looks.values()):
            for queue, count in (await _earliest(slots, lane, looks, max(0, limit))).items():
                for some in _parts(count):
                    answer = await slots.scripts("promote", {queue: (some,)})
                    looks |= answer
                    moved += sum(each[0] for each in answer.values())
    return Promoted(moved, _next_in(list(looks.values())))


def _parts(count: int) -> list[int]:
    """`count` in portions for one script each."""
    return [min(_AT_ONCE, count - start) for start in range(0, count, _AT_ONCE)]


async def _earliest(slots: Slots, lane: Lane, looks: Mapping[str, Sequence[Any]], limit: int) -> dict[str, int]:
    """How many to promote in each queue: of all that are due, the earliest."""
    due = {queue: min(look[2], limit) for queue, look in looks.items() if look[2]}
    if sum(due.values()) <= limit or len(due) == 1:
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
    nexts = [(at, now) for _, now, _, at in looks if at is not None]
    return max(0, min(at for at, _ in nexts) - max(now for _, now in nexts)) if nexts else None


# --- reclaim


async def reclaim(lane: Lane, sweeper: UUID, limit: int) -> list[Claim]:
    stands = await standing(lane, sweeper, sweeps=True)
    if stands.state != "live":
        return []
    sweep = _Sweep(lane, sweeper, stands, max(0, limit))
    with sweep.slots:
        await sweep.look()
        for which in ("mine", "retired", "silent"):
            await sweep.take(which)
    return sweep.claims


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
            answers = await joined(self._lane, self._sweeper, strangers, self._stands)
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
                args = self._args(which, min(self._left, _AT_ONCE), after)
                rows = (await self.slots.scripts("reclaim", {queue: args})).get(queue)
                claims = await claims_of(self._lane, queue, self._sweeper, None, rows or [])
                if not claims:
                    break
                self._lane.place.whereabouts.hold(queue, [claim.id for claim in claims])
                self.claims += claims
                after = str(claims[-1].id)
                counts[which] -= len(claims)
                self._left -= len(claims)


# --- prune


async def prune(lane: Lane, limit: int) -> int:
    """What a queue refuses is raised when all others are done."""
    place = lane.place
    with Slots(lane) as slots:
        names, leaving = [
            names_of(reply) for reply in await lane.commands([("SMEMBERS", key) for key in _name_keys(place)])
        ]
        await _settle(lane, leaving)
        prunable, empty = await _tidy(slots, names)
        await _take_out(lane, empty)
        pruned = await _delete(slots, prunable, max(0, limit))
        if slots.error is None:
            await _forget(lane, names)
    place.queues = names - empty
    return pruned


async def _delete(slots: Slots, prunable: Mapping[str, int], limit: int) -> int:
    deleted = 0
    for queue, count in prunable.items():
        for some in _parts(min(count, limit - deleted)):
            deleted += (await slots.scripts("prune", {queue: (some,)})).get(queue, 0)
    return deleted


async def _tidy(slots: Slots, names: Collection[str]) -> tuple[dict[str, int], set[str]]:
    """Takes workers out of the slots. Returns how many jobs of each queue can be pruned, and which queues are gone."""
    prunable = dict[str, int]()
    cursors: dict[str, tuple[bytes, bytes]] = dict.fromkeys(names, (b"0", b"0"))
    empty = set[str]()
    while cursors:
        answers = await slots.scripts("tidy", {queue: (*both, _ROWS) for queue, both in cursors.items()})
        cursors = {}
        for queue, (count, working, losses, gone) in answers.items():
            prunable[queue] = count
            if gone:
                empty.add(queue)
            elif working or losses:
                cursors[queue] = (working, losses)
    return prunable, empty


def _name_keys(place: Place) -> tuple[str, str]:
    """Of the set of names, and of those that are about to be taken out of it."""
    return place.registry[2], f"{place.registry.base}leaving"


async def _take_out(lane: Lane, names: Collection[str]) -> None:
    """Names of queues that are gone. Who makes one anew says its name after it; who made one before this is seen."""
    if names:
        known, aside = _name_keys(lane.place)
        await lane.commands([("SADD", aside, *names), ("SREM", known, *names)])
        await _settle(lane, names)


async def _settle(lane: Lane, leaving: Collection[str]) -> None:
    """Out with them, or back where there is something again. Who dies before this leaves them to the next prune."""
    place = lane.place
    known, aside = _name_keys(place)
    there = await lane.commands([("EXISTS", *queue_keys(place, name).names[:2]) for name in leaving])
    back = [name for name, keys in zip(leaving, there, strict=True) if keys]
    if back:
        await lane.commands([("SADD", known, *back)])
    if leaving:
        await lane.commands([("SREM", aside, *leaving)])


async def _forget(lane: Lane, queues: Collection[str]) -> None:
    """Takes workers' rows out of the registry that are over, where no queue has jobs under them."""
    place = lane.place
    cursor = b"0"
    while True:
        cursor, over = await lane.script("over", place.registry, cursor, _ROWS)
        holders = [(queue_keys(place, queue)[11], worker) for queue in queues for worker in over]
        held = await lane.commands([("HEXISTS", *holder) for holder in holders])
        holding = {worker for (_, worker), holds in zip(holders, held, strict=True) if holds}
        if gone := [worker for worker in over if worker not in holding]:
            await lane.script("forget", place.registry, *gone)
        if cursor == b"0":
            return
