"""What is said of queues, how they stand, and which there are."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from math import inf
from time import monotonic

from holdfast.job import Pause, QueueTerms, State, Until
from holdfast.store import Authority, QueueSetup, QueueStats, Stats
from holdfast.stores.columns import queue_terms_of, storable, text_of_queue_terms
from holdfast.stores.redis.lane import Lane, Step
from holdfast.stores.redis.place import names_of, queue_keys
from holdfast.stores.redis.resp import Reply
from holdfast.stores.redis.slots import Slots
from holdfast.stores.redis.whereabouts import known_queues
from holdfast.stores.unreadable import UNREADABLE

_COUNTED = (State.QUEUED, State.SCHEDULED, State.RUNNING, State.DEAD)
_AGAIN = 60.0  # seconds
_NO_TERMS = QueueTerms()


async def make_known(lane: Lane, names: Collection[str], *, quietly: bool = False) -> None:
    """The registry has these names from now on; this process remembers that it did so. `quietly`: nobody is woken."""
    if names:
        [added] = await lane.commands([("SADD", lane.place.registry[2], *names)])
        if added and any(name in lane.place.declared and name in lane.place.queues for name in names):
            lane.place.undeclared = True  # one that is declared is never taken out: it was lost
        lane.place.queues.update(names)
        lane.place.said.update(dict.fromkeys(names, monotonic()))
        if added and not quietly:  # who waits for jobs of every queue learns of a new one
            await lane.each([lane.command("PUBLISH", lane.place.channel, name) for name in names])


def said_again(lane: Lane, names: Collection[str]) -> list[Step]:
    """Steps for a pipeline in which these queues are used: their names once more, each once a minute at most. So the
    registry knows them again soon, where it has lost them, even if nobody else knows them.
    """
    place, moment = lane.place, monotonic()
    due = [name for name in names if moment - place.said.get(name, -inf) > _AGAIN]
    place.said.update(dict.fromkeys(due, moment))
    return [lane.command("SADD", place.registry[2], *due)] if due else []


async def configure(lane: Lane, queues: Mapping[str, QueueTerms | None], by: Authority) -> None:
    """The names are said before, as the process may end in between, and after, as a sweeper may have taken them out."""
    words = {
        name: (by, text_of_queue_terms(terms) or "")
        for name, terms in queues.items()
        if terms is not None or by == "operator"
    }
    declared = [name for name, terms in queues.items() if terms is not None]
    if by != "operator":
        lane.place.declared.update({name: (terms, by) for name, terms in queues.items() if terms is not None})
    await make_known(lane, declared)
    with Slots(lane) as slots:
        await slots.scripts("configure", words)
        await make_known(lane, declared)


async def declare_again(lane: Lane) -> None:
    """What this process declared, where the server has lost it."""
    place = lane.place
    place.undeclared = False
    try:
        for by in ("worker", "producer"):
            await configure(lane, {name: terms for name, (terms, who) in place.declared.items() if who == by}, by)
    except BaseException:
        place.undeclared = True
        raise


async def pause(lane: Lane, queue: str, until: Until | None, reason: str) -> None:
    """The name as in configure."""
    await make_known(lane, [queue], quietly=True)
    await lane.script("pause", queue_keys(lane.place, queue), said_until(until), storable(reason))
    await make_known(lane, [queue], quietly=True)


def said_until(until: Until | None) -> str:
    """As scripts take a time: an instant, or a delay from when they run; "" for none."""
    if until is None:
        return ""
    return f"d{until.delay}" if until.at is None else f"a{until.at}"


async def resume(lane: Lane, queue: str) -> bool:
    paused: int = await lane.script("resume", queue_keys(lane.place, queue))
    return paused == 1


async def queues(lane: Lane) -> list[QueueSetup]:
    known = sorted(await known_queues(lane, lane.place))
    replies = await lane.scripts([("setup", queue_keys(lane.place, name), ()) for name in known])
    setups: list[QueueSetup] = []
    for name, (declared, edited, paused) in zip(known, replies, strict=True):
        if declared or edited or paused:
            setups.append(
                QueueSetup(name, _terms_of(edited or declared), bool(edited), pause_of(paused) if paused else None)
            )
    return setups


def pause_of(text: bytes) -> Pause:
    """As pause.lua writes one."""
    since, until, reason = text.decode().split(" ", 2)
    return Pause(int(since), None if until == "-" else int(until), reason)


def _terms_of(text: bytes) -> QueueTerms:
    """What nobody of ours has written is none."""
    try:
        return queue_terms_of(text.decode()) if text else _NO_TERMS
    except UNREADABLE:
        return _NO_TERMS


async def stats(lane: Lane) -> Stats:
    """Each queue in one moment, all of them in one round trip."""
    now, names = await lane.script("queues", lane.place.registry)
    known = sorted(names_of(names))
    replies = await lane.scripts([("stats", queue_keys(lane.place, name), ()) for name in known])
    queues = [_stats_of(name, reply) for name, reply in zip(known, replies, strict=True)]
    return Stats(now, [queue for queue in queues if queue is not None])


def _stats_of(name: str, reply: Reply) -> QueueStats | None:
    """None for a queue that is not declared and has nothing to count."""
    numbers, (due, declared, edited, size, when_full, block_timeout, dropped, paused) = reply[:4], reply[4:]
    counts = {state: number for state, number in zip(_COUNTED, numbers, strict=True) if number}
    if not (counts or declared or edited or paused):
        return None
    terms = _NO_TERMS
    if declared or edited:
        weight = _terms_of(edited or declared).weight
        terms = QueueTerms(_number(size), when_full.decode(), _number(block_timeout), weight)
    return QueueStats(
        name,
        terms,
        bool(edited),
        counts,
        None if terms.max_size is None else sum(numbers[:3]),
        int(dropped or 0),
        _number(due),
        pause_of(paused) if paused else None,
    )


def _number(text: bytes) -> int | None:
    return int(text) if text else None
