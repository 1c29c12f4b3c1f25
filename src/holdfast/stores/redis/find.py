"""Listings: which jobs of which indexes are looked at, newest first, some hundreds in one script.

Of each queue those indexes are walked that have the fewest other jobs in them; the walks are merged here. What a walk
has found is read in a second step, and left out where it fits no more by then.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from json import dumps
from typing import TypeAlias
from uuid import UUID

from holdfast.job import Record, State
from holdfast.store import Cursor, Where
from holdfast.stores.columns import storable
from holdfast.stores.redis.lane import Lane
from holdfast.stores.redis.place import queue_keys
from holdfast.stores.redis.records import read
from holdfast.stores.redis.resp import Argument, Reply
from holdfast.stores.redis.whereabouts import by_queue, known_queues, located, moved

FEW = 5_000  # unfinished jobs of a queue that are asked for by their ids
LOOKED_AT = 250  # jobs, in one script
LOOKED_INTO = 50  # where that is for their errors, which are longer
_JOBS, _DEAD, _CANCELLED = 2, 5, 6  # of a queue's KEYS: those in the order of a listing
_IN_ORDER = {State.DEAD: _DEAD, State.CANCELLED: _CANCELLED}
_UNFINISHED = {State.QUEUED, State.RUNNING, State.SCHEDULED}  # nothing ever waits yet
_PIPELINED = 20  # scripts, in one round trip

Entry: TypeAlias = tuple[int, str]  # (enqueued_at, id): a later one is listed first
_Behind: TypeAlias = tuple[Argument, str]
_FROM_THE_NEWEST: _Behind = ("", "")


@dataclass(slots=True)
class _Walk:
    """Along an index of a queue, or over a few jobs that are all found already."""

    queue: str
    index: int = _JOBS
    behind: _Behind = _FROM_THE_NEWEST  # where the next step goes on
    ahead: list[Entry] = field(default_factory=list[Entry])  # found and not listed yet, the next one last
    ended: bool = False


async def find(lane: Lane, where: Where, after: Cursor | None, limit: int) -> list[Record]:
    """A page is short only at the end of the listing."""
    found: list[Record] = []
    if limit <= 0:
        return found
    if where.ids is not None and len(where.ids) <= limit and where == Where(ids=where.ids):
        return await _named(lane, where.ids, after)
    walks = await _walks(lane, where, _newest(where, after))
    while wanted := limit - len(found):
        page = await _page(lane, where, walks, wanted)
        if not page:
            break
        records = await read(lane, {UUID(job): queue for job, queue in page.items()})
        found.extend(record for record in records if _fits_still(record, where))
    return found


async def _named(lane: Lane, ids: Sequence[UUID], after: Cursor | None) -> list[Record]:
    """Those of these jobs that are there: nothing else is to be looked at, as where somebody waits for one."""
    queues = await located(lane, lane.place, ids)
    records = await read(lane, queues)
    if len(records) < len(queues):
        there = {record.id for record in records}
        records += await read(lane, await moved(lane, lane.place, [job for job in queues if job not in there], queues))
    newest_first = sorted(records, key=_cursor_of, reverse=True)
    return [record for record in newest_first if after is None or _cursor_of(record) < after]


def _cursor_of(record: Record) -> Cursor:
    return record.enqueued_at, record.id


def _newest(where: Where, after: Cursor | None) -> Entry | None:
    """What is listed comes behind this; None: behind nothing."""
    limits: list[Entry] = [] if after is None else [(after[0], str(after[1]))]
    if where.before is not None:
        limits.append((where.before, ""))
    return min(limits, default=None)


def _fits_still(record: Record, where: Where) -> bool:
    """Of what may have changed since it was found, and of what a script only guesses."""
    return (
        (where.states is None or record.state in where.states)
        and (where.worker is None or record.worker == where.worker)
        and (where.tag is None or storable(where.tag) in record.tags)
    )


# --- which way to go


async def _walks(lane: Lane, where: Where, newest: Entry | None) -> list[_Walk]:
    if (ids := _ids(where)) is not None:
        found = by_queue(await located(lane, lane.place, ids))
        return await _sifted(lane, where, newest, {queue: list(map(str, found[queue])) for queue in _of(where, found)})
    queues = sorted(_of(where, await known_queues(lane, lane.place)))
    states = _states(where)
    if states is None or not states <= _UNFINISHED | _IN_ORDER.keys():
        return [_Walk(queue, _JOBS, newest or _FROM_THE_NEWEST) for queue in queues]
    # First, since jobs become final: one that does so meanwhile is found below, or fits as it is.
    few = await _few(lane, queues, states & _UNFINISHED, where.worker)
    walks = await _sifted(lane, where, newest, few)
    for queue in queues:
        indexes = [_IN_ORDER[state] for state in states & _IN_ORDER.keys()] if queue in few else [_JOBS]
        walks.extend(_Walk(queue, index, newest or _FROM_THE_NEWEST) for index in indexes)
    return walks


def _ids(where: Where) -> Sequence[UUID] | None:
    """The jobs, where it is they that are asked for."""
    if where.ids is None and where.starts is not None and len(where.starts) == len(str(UUID(int=0))):
        try:
            return [UUID(where.starts)]
        except ValueError:
            return []
    return where.ids if where.ids is None else list(dict.fromkeys(where.ids))


def _of(where: Where, queues: Iterable[str]) -> set[str]:
    return {queue for queue in queues if where.queue in (None, queue)}


def _states(where: Where) -> set[State] | None:
    states = None if where.states is None else set(where.states) - {State.WAITING}
    if where.worker is None:
        return states
    return {State.RUNNING} if states is None else states & {State.RUNNING}


async def _few(lane: Lane, queues: Sequence[str], states: set[State], worker: UUID | None) -> dict[str, list[str]]:
    """The jobs in these states of the queues that have few of them."""
    if not states:
        return {queue: [] for queue in queues}
    args: list[Argument] = [FEW, " ".join(state.value for state in states), "" if worker is None else str(worker)]
    replies = await lane.scripts([("few", queue_keys(lane.place, queue), args) for queue in queues])
    return {
        queue: [job.decode() for job in jobs] for queue, jobs in zip(queues, replies, strict=True) if jobs is not None
    }


async def _sifted(lane: Lane, where: Where, newest: Entry | None, jobs: Mapping[str, Sequence[str]]) -> list[_Walk]:
    """What fits of these jobs, per queue."""
    walks = {queue: _Walk(queue, ended=True) for queue in jobs}
    some = _at_once(where)
    steps = [
        (queue, [*_step(where, _JOBS, _FROM_THE_NEWEST, 0), *ids[start : start + some]])
        for queue, ids in jobs.items()
        for start in range(0, len(ids), some)
    ]
    for start in range(0, len(steps), _PIPELINED):
        asked = steps[start : start + _PIPELINED]
        replies = await lane.scripts([("find", queue_keys(lane.place, queue), args) for queue, args in asked])
        for (queue, _), reply in zip(asked, replies, strict=True):
            walks[queue].ahead.extend(entry for entry in _entries(reply) if _in_time(entry, where, newest))
    for walk in walks.values():
        walk.ahead.sort()
    return list(walks.values())


def _in_time(entry: Entry, where: Where, newest: Entry | None) -> bool:
    return (newest is None or entry < newest) and (where.since is None or where.since <= entry[0])


# --- step by step


async def _page(lane: Lane, where: Where, walks: Sequence[_Walk], wanted: int) -> dict[str, str]:
    """The next jobs of all walks together, and their queues."""
    page: dict[str, str] = {}
    while len(page) < wanted:
        while empty := [walk for walk in walks if not walk.ahead and not walk.ended]:
            await _go_on(lane, where, empty, wanted)
        first = max((walk for walk in walks if walk.ahead), key=lambda walk: walk.ahead[-1], default=None)
        if first is None:
            break
        page[first.ahead.pop()[1]] = first.queue
    return page


async def _go_on(lane: Lane, where: Where, walks: Sequence[_Walk], wanted: int) -> None:
    calls = [
        ("find", queue_keys(lane.place, walk.queue), _step(where, walk.index, walk.behind, wanted)) for walk in walks
    ]
    for walk, reply in zip(walks, await lane.scripts(calls), strict=True):
        walk.behind = (reply[0], reply[1].decode())
        walk.ended = not reply[0]
        walk.ahead = _entries(reply)[::-1]


def _entries(reply: Sequence[Reply]) -> list[Entry]:
    return [(int(at), job.decode()) for at, job in zip(reply[2::2], reply[3::2], strict=True)]


def _at_once(where: Where) -> int:
    return LOOKED_AT if where.error is None else LOOKED_INTO


def _step(where: Where, index: int, behind: _Behind, wanted: int) -> list[Argument]:
    """What find.lua takes."""
    return [
        index,
        *behind,
        wanted,
        _at_once(where),
        "" if where.since is None else where.since,
        "" if where.states is None else " ".join(where.states),
        *(
            "" if text is None else f"={text}"
            for text in (
                where.task and storable(where.task),
                None if where.tag is None else dumps(storable(where.tag)),
                where.error and storable(where.error),
                None if where.fingerprint is None else storable(where.fingerprint),
            )
        ),
        storable(where.starts or ""),
        storable(where.ends or ""),
        "" if where.worker is None else str(where.worker),
    ]
