"""What is said of queues, and how they stand."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from holdfast.clock import Instant
from holdfast.job import QueueTerms, State
from holdfast.store import Authority, QueueStats, Stats
from holdfast.stores.postgres.lane import Lane

_UNSAID = (*QueueTerms(), False, 0, 0)


async def configure(lane: Lane, queues: Mapping[str, QueueTerms | None], by: Authority) -> None:
    if queues:
        await lane.call("configure", json.dumps(queues), by)


async def stats(lane: Lane) -> Stats:
    rows = await lane.read("stats", lane.shift)
    counts: defaultdict[str, dict[State, int]] = defaultdict(dict)
    due: dict[str, Instant] = {}
    said: dict[str, Sequence[Any]] = {}
    for _, queue, state, number, first_due, *terms in rows:
        if queue is None:
            continue
        if state is None:
            said[queue] = terms
            continue
        counts[queue][State(state)] = number
        if first_due is not None:
            due[queue] = first_due
    names = sorted(counts.keys() | said.keys())
    return Stats(rows[0][0], [_stats_of(name, said.get(name, _UNSAID), counts[name], due.get(name)) for name in names])


def _stats_of(name: str, said: Sequence[Any], counts: dict[State, int], due: Instant | None) -> QueueStats:
    max_size, when_full, block_timeout, edited, taken, dropped = said
    terms = QueueTerms(max_size, when_full, block_timeout)
    return QueueStats(name, terms, edited, counts, None if max_size is None else taken, dropped, due)
