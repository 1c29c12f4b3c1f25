"""The history of each minute: what reporters add to it, and what it tells."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import reduce
from itertools import groupby
from operator import itemgetter
from uuid import UUID

from holdfast.clock import Instant
from holdfast.rulings import added, higher
from holdfast.store import Level, Minutes, Tally
from holdfast.stores.postgres.lane import Lane
from holdfast.stores.postgres.session import Row

_OF_TALLY, _OF_LEVEL = itemgetter(0, 1, 2), itemgetter(0)  # what tells one from another


async def record(lane: Lane, reporter: UUID, number: int, tallies: Sequence[Tally], levels: Sequence[Level]) -> int:
    alike = [reduce(added, group) for _, group in groupby(sorted(tallies, key=_OF_TALLY), _OF_TALLY)]
    highest = [reduce(higher, group) for _, group in groupby(sorted(levels, key=_OF_LEVEL), _OF_LEVEL)]
    [[last]] = await lane.call("record", reporter, number, json.dumps(alike), json.dumps(highest))
    return int(last)


async def history(lane: Lane, since: Instant, before: Instant, *, tens: bool) -> list[Minutes]:
    asked = (tens, since, before)
    rows = await lane.read("history", *asked, *asked)
    return [_minutes_of(start, list(of_one)) for start, of_one in groupby(rows, itemgetter(0))]


def _minutes_of(start: Instant, rows: Sequence[Row]) -> Minutes:
    tallies = [
        Tally(queue, task, outcome, count, tuple(ran), tuple(waited))
        for _, queue, task, outcome, count, ran, waited, _, _ in rows
        if task is not None
    ]
    levels = [Level(row[1], row[-2], row[-1]) for row in rows if row[2] is None]
    return Minutes(start, tallies, levels)
