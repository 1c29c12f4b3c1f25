"""Prune: finished jobs whose time is over, rows of workers who are gone, names of queues of which nothing is left."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from holdfast.stores.redis.history import thin
from holdfast.stores.redis.lane import Lane
from holdfast.stores.redis.place import Place, names_of, queue_keys
from holdfast.stores.redis.slots import Slots
from holdfast.stores.redis.sweep import parts

_ROWS = 200  # of workers that one script looks at, about


async def prune(lane: Lane, limit: int) -> int:
    place = lane.place
    slots = Slots(lane)
    names, leaving = [
        names_of(reply) for reply in await lane.commands([("SMEMBERS", key) for key in _name_keys(place)])
    ]
    await _settle(lane, leaving)
    prunable, empty = await _tidy(slots, names)
    await _take_out(lane, empty)
    pruned = await _delete(slots, prunable, max(0, limit))
    if slots.error is None:
        await _forget(lane, names)
    await thin(lane)
    place.queues = names - empty
    return slots.told(pruned)


async def _delete(slots: Slots, prunable: Mapping[str, int], limit: int) -> int:
    deleted = 0
    for queue, count in prunable.items():
        for some in parts(min(count, limit - deleted)):
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
