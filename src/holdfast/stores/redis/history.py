"""The history of each minute, and of each ten, in hashes of the registry: what workers report is added up there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from holdfast.clock import Instant
from holdfast.store import BUCKETS, MINUTES_KEPT, TENS_KEPT, Level, Minutes, Tally
from holdfast.stores.redis.lane import Lane
from holdfast.stores.redis.resp import Argument, pairs_of

_AT_ONCE = 50  # tallies that one script adds: a millisecond or two
_PARTS = 1000  # of one report
_PIPELINED = 50  # steps that are read at once
_DROPPED = 200  # steps, in one script


async def record(lane: Lane, reporter: UUID, number: int, tallies: Sequence[Tally], levels: Sequence[Level]) -> int:
    """In as many scripts as it takes: a repeat adds those parts that are not there yet."""
    words = [(json.dumps(tally[:3]), _numbers(tally)) for tally in tallies]
    highest = [(json.dumps([level.queue]), f"{level.depth} {level.oldest}") for level in levels]
    parts = [(words[start : start + _AT_ONCE], list[Any]()) for start in range(0, len(words), _AT_ONCE)]
    parts += [(list[Any](), highest[start : start + _AT_ONCE]) for start in range(0, len(highest), _AT_ONCE)]
    last = 0
    for part, (added, raised) in enumerate(parts or [([], [])]):
        args: list[Argument] = [str(reporter), number * _PARTS + min(part, _PARTS - 1), len(added)]
        args += [word for pair in (*added, *raised) for word in pair]
        last = await lane.script("record", lane.place.registry, *args)
    return last // _PARTS


def _numbers(tally: Tally) -> str:
    return " ".join(map(str, (tally.count, *tally.ran, *tally.waited)))


async def history(lane: Lane, since: Instant, before: Instant, *, tens: bool) -> list[Minutes]:
    base = f"{lane.place.registry.base}{'tens' if tens else 'minutes'}"
    [starts] = await lane.commands([("ZRANGEBYSCORE", base, since, f"({before}")])
    steps: list[Minutes] = []
    for first in range(0, len(starts), _PIPELINED):
        some = starts[first : first + _PIPELINED]
        replies = await lane.commands([("HGETALL", f"{base}:{start.decode()}") for start in some])
        steps += [_step_of(int(start), pairs_of(each)) for start, each in zip(some, replies, strict=True) if each]
    return steps


def _step_of(start: Instant, pairs: Sequence[tuple[bytes, bytes]]) -> Minutes:
    tallies, levels = list[Tally](), list[Level]()
    for of, text in pairs:
        names, numbers = json.loads(of), tuple(map(int, text.split()))
        if len(names) == 1:
            levels.append(Level(*names, *numbers))
        else:
            queue, task, outcome = names
            ran, waited = numbers[1 : 1 + BUCKETS], numbers[1 + BUCKETS :]
            tallies.append(Tally(queue, task, outcome, numbers[0], ran, waited))
    return Minutes(start, sorted(tallies), sorted(levels))


async def thin(lane: Lane) -> None:
    """Drops what is older than it is kept."""
    dropped = _DROPPED
    while dropped >= _DROPPED:
        dropped = await lane.script("thin", lane.place.registry, MINUTES_KEPT, TENS_KEPT, _DROPPED)
