"""Which queue a job is in: what this process knows of it, or else what the server says.

All keys of a queue lie together, so that a job is found by its queue. Producers and workers say ids alone: most of them
were enqueued or claimed here a moment ago.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from uuid import UUID

from holdfast.errors import StoreError
from holdfast.stores.redis.lane import Lane
from holdfast.stores.redis.place import Place, job_key, names_of, queue_keys
from holdfast.stores.redis.resp import Argument, Reply

AT_ONCE = 50  # jobs that one script is asked about
_ASKED_AT_ONCE = 1_000  # keys in one pipeline


async def located(lane: Lane, place: Place, ids: Sequence[UUID]) -> dict[UUID, str]:
    """The queues of these jobs, or of what is left of deleted ones. Nothing of an id that no queue has.

    What this process knows is not verified: it may be gone from there since.
    """
    found: dict[UUID, str] = {}
    unknown: dict[UUID, None] = {}
    for job in ids:
        if (queue := place.whereabouts.queue_of(job)) is None:
            unknown[job] = None
        else:
            found[job] = queue
    return found | await _asked(lane, place, list(unknown)) if unknown else found


async def moved(lane: Lane, place: Place, ids: Iterable[UUID], queues: Mapping[UUID, str]) -> dict[UUID, str]:
    """Where those of these jobs are that are not in `queues`, where this process knew them to be: each was deleted
    there, and enqueued in another queue since.
    """
    gone = [job for job in ids if job in queues]
    if not gone:
        return {}
    place.whereabouts.forget(gone)
    there = await _asked(lane, place, gone)
    return {job: queue for job, queue in there.items() if queue != queues[job]}


async def _asked(lane: Lane, place: Place, ids: Sequence[UUID]) -> dict[UUID, str]:
    """Every queue is asked about every id: the one that has it is anybody's guess."""
    queues = sorted(await known_queues(lane, place))
    found: dict[UUID, str] = {}
    some = max(1, _ASKED_AT_ONCE // max(1, len(queues)))
    for start in range(0, len(ids), some):
        asked = [(job, queue) for job in ids[start : start + some] for queue in queues]
        there = await lane.commands([("EXISTS", job_key(place, queue, job)) for job, queue in asked])
        found.update({job: queue for (job, queue), exists in zip(asked, there, strict=True) if exists})
    for queue, jobs in by_queue(found).items():
        place.whereabouts.learn(queue, jobs)
    return found


async def known_queues(lane: Lane, place: Place) -> set[str]:
    """The names of all queues, as the server has them now."""
    [names] = await lane.commands([("SMEMBERS", place.registry[2])])
    return names_of(names)


async def answers(
    lane: Lane, name: str, args: Sequence[Argument], ids: Sequence[UUID], queues: Mapping[UUID, str]
) -> list[Reply]:
    """What a script that takes ids as its last arguments says of each, in the order of the call; None: it is nowhere.

    The script answers for as many of them as it comes to, at least for one; it is asked about the rest again.
    """
    said: list[Reply] = [None] * len(ids)
    waiting: defaultdict[str, list[int]] = defaultdict(list)  # where in `ids`
    for position, job in enumerate(ids):
        if (queue := queues.get(job)) is not None:
            waiting[queue].append(position)
    while waiting:
        asked = [(queue, positions[:AT_ONCE]) for queue, positions in waiting.items()]
        calls = [
            (name, queue_keys(lane.place, queue), [*args, *(str(ids[position]) for position in positions)])
            for queue, positions in asked
        ]
        for (queue, positions), reply in zip(asked, await lane.scripts(calls), strict=True):
            if not reply or isinstance(reply, bytes | int):
                raise StoreError(f"{lane.place.url}: the server answered {reply!r} to {name}.lua; is it a Redis?")
            for position, answer in zip(positions, reply, strict=False):
                said[position] = answer
            del waiting[queue][: len(reply)]
            if not waiting[queue]:
                del waiting[queue]
    return said


def by_queue(found: Mapping[UUID, str]) -> dict[str, list[UUID]]:
    """The jobs of each queue, in the order in which they stand in `found`."""
    queues: defaultdict[str, list[UUID]] = defaultdict(list)
    for job, queue in found.items():
        queues[queue].append(job)
    return dict(queues)
