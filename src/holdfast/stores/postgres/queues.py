"""What is said of queues, and how they stand."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from holdfast.clock import Instant
from holdfast.job import Pause, QueueTerms, State, Until
from holdfast.store import Authority, QueueSetup, QueueStats, Stats
from holdfast.stores.columns import storable, text_of_queue_terms
from holdfast.stores.postgres.lane import Lane

_UNSAID = (*QueueTerms(), False, 0, 0, None, None, None)


async def configure(lane: Lane, queues: Mapping[str, QueueTerms | None], by: Authority) -> None:
    if queues:
        said = ", ".join(
            f"{json.dumps(name)}: {text_of_queue_terms(terms) or 'null'}" for name, terms in queues.items()
        )
        await lane.call("configure", f"{{{said}}}", by)


async def pause(lane: Lane, queue: str, until: Until | None, reason: str) -> None:
    at, delay = (None, None) if until is None else (until.at, until.delay)
    await lane.call("pause", queue, at, delay, storable(reason))


async def resume(lane: Lane, queue: str, ring: Callable[[Collection[str]], None]) -> bool:
    [[resumed]] = await lane.call("resume", queue)
    ring([queue])
    return bool(resumed)


async def queues(lane: Lane) -> list[QueueSetup]:
    return [_setup_of(*row) for row in await lane.read("queues", lane.shift)]


def _setup_of(name: str, max_size: Any, when_full: Any, block_timeout: Any, weight: int, *more: Any) -> QueueSetup:
    edited, *paused = more
    return QueueSetup(name, QueueTerms(max_size, when_full, block_timeout, weight), edited, pause_of(*paused))


def pause_of(since: Instant | None, until: Instant | None, reason: str | None) -> Pause | None:
    return None if since is None else Pause(since, until, reason or "")


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
    max_size, when_full, block_timeout, weight, edited, taken, dropped, *paused = said
    terms = QueueTerms(max_size, when_full, block_timeout, weight)
    admitted = None if max_size is None else taken
    return QueueStats(name, terms, edited, counts, admitted, dropped, due, pause_of(*paused))
