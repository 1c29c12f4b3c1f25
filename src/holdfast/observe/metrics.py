"""What Prometheus scrapes: the totals of a service, how it is now, and its store's queues, as families of metrics.

Names of queues and tasks come from whoever enqueued: `Totals` has them as text that can be shown, so many and no more.
Needs prometheus-client.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from holdfast.clock import SECOND
from holdfast.job import State
from holdfast.observe.health import Seen, ready, well
from holdfast.observe.tally import (
    BOUNDS,
    CALL_BOUNDS,
    CELL,
    RAN,
    RAN_AT,
    WAITED,
    WAITED_AT,
    Totals,
    piled,
)
from holdfast.store import QueueStats, Stats

try:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
    from prometheus_client.exposition import choose_encoder
    from prometheus_client.registry import Collector
except ImportError as error:
    raise ImportError("/metrics needs prometheus-client: pip install 'holdfast[metrics]'") from error


OPENMETRICS = "application/openmetrics-text"


class Shown(NamedTuple):
    """All that is shown. `stats` None: the queues could not be looked at."""

    totals: Totals
    seen: Seen
    stats: Stats | None
    version: str


class _Once(Collector):
    """As many families as there are now."""

    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def wants_openmetrics(accept: str) -> bool:
    """Whether a scraper says so in its header Accept; what more it says is passed over: it may be a stranger's."""
    return any(part.partition(";")[0].strip() == OPENMETRICS for part in accept.split(","))


def exposition(shown: Shown, *, openmetrics: bool = False) -> tuple[str, bytes]:
    """The content type and the text: Prometheus' own, or OpenMetrics."""
    encoder, content_type = choose_encoder(f"{OPENMETRICS}; version=1.0.0" if openmetrics else "")
    text: bytes = encoder(_Once(list(families(shown))))
    return content_type, text


def families(shown: Shown) -> Iterator[Metric]:
    """All families, in the order in which they are shown."""
    yield from _jobs(shown.totals)
    yield from _events(shown.totals)
    if shown.stats is not None:
        yield from _queues(shown.stats, shown.totals)
    yield from _processes(shown.seen)
    yield from _schedules(shown.totals)
    info = GaugeMetricFamily("worker_info", "What runs: always 1", labels=["version", "python"])
    info.add_metric([shown.version, platform.python_version()], 1)
    yield info


# --- what was counted


def _jobs(totals: Totals) -> Iterator[Metric]:
    ended = CounterMetricFamily(
        "worker_jobs_total",
        "Attempts that ended and are on record, by how; and jobs that ended without one",
        labels=["queue", "status"],
    )
    retries = CounterMetricFamily(
        "worker_job_retries_total", "Attempts that failed and are followed by another", labels=["queue"]
    )
    for (queue, status), count in sorted(totals.by_status().items()):
        ended.add_metric([queue, status], count)
        if status == "failed":
            retries.add_metric([queue], count)
    yield ended
    yield retries
    ran, waited = dict[str, list[Any]](), dict[str, list[Any]]()
    for (queue, task, _), cell in sorted(totals.cells.items()):
        if any(cell[RAN_AT:WAITED_AT]):
            piled(ran, task, [cell[RAN], *cell[RAN_AT:WAITED_AT]])
        if any(cell[WAITED_AT:CELL]):
            piled(waited, queue, [cell[WAITED], *cell[WAITED_AT:CELL]])
    yield _histogram("worker_job_duration_seconds", "How long attempts ran", "task_type", ran, BOUNDS)
    text = "How long jobs that were due waited for their attempt to be claimed"
    yield _histogram("worker_job_wait_seconds", text, "queue", waited, BOUNDS)


_EVENTS = (
    ("crashes", "worker_job_crashes_total", "Attempts whose process died of them"),
    ("rescued", "worker_jobs_rescued_total", "Jobs that were taken over from lost workers"),
    ("stale", "worker_stale_outcomes_total", "Late outcomes that were refused: the job was another's meanwhile"),
)


def _events(totals: Totals) -> Iterator[Metric]:
    events = sorted(totals.events.items())
    for event, name, text in _EVENTS:
        family = CounterMetricFamily(name, text, labels=["queue"])
        for (which, queue), count in events:
            if which == event:
                family.add_metric([queue], count)
        yield family
    calls = {method: lengths for (kind, method), lengths in list(totals.lengths.items()) if kind == "store"}
    text = "How long the store took to answer, by what it was asked"
    yield _histogram("worker_store_call_seconds", text, "call", calls, CALL_BOUNDS)


def _schedules(totals: Totals) -> Iterator[Metric]:
    ticks = CounterMetricFamily(
        "worker_schedule_ticks_total", "Ticks of schedules that were settled here, by how", labels=["outcome"]
    )
    for (event, _), count in sorted(totals.events.items()):
        if event.startswith("tick-"):
            ticks.add_metric([event.removeprefix("tick-")], count)
    yield ticks
    late = HistogramMetricFamily("worker_schedule_lateness_seconds", "How long after their time ticks were settled")
    lengths = totals.lengths.get(("late", ""))
    if lengths is not None:
        late.add_metric([], _buckets(lengths[1:], BOUNDS), lengths[0])
    yield late


# --- how it is now


def _queues(stats: Stats, totals: Totals) -> Iterator[Metric]:
    piles = {name: [0.0] * len(_LEVELS) for name in totals.queues.known()}  # those that are empty now have no stats
    for queue in stats.queues:
        name = totals.queues.of(queue.name)
        _level(piles.setdefault(name, [0.0] * len(_LEVELS)), queue, stats, totals.pace(name))
    for at, (name, text, kind) in enumerate(_LEVELS):
        family = kind(name, text, labels=["queue"])
        for shown, pile in sorted(piles.items()):
            family.add_metric([shown], pile[at])
        yield family


_LEVELS: Sequence[tuple[str, str, type[CounterMetricFamily | GaugeMetricFamily]]] = (
    ("worker_queue_depth", "Jobs that are due and not started", GaugeMetricFamily),
    ("worker_queue_scheduled", "Jobs that are due later", GaugeMetricFamily),
    ("worker_queue_running", "Jobs that run, under any worker", GaugeMetricFamily),
    ("worker_queue_dead", "Jobs that are dead, and nobody has decided about", GaugeMetricFamily),
    ("worker_queue_oldest_seconds", "How long the oldest job has waited that is due", GaugeMetricFamily),
    ("worker_queue_backlog_seconds", "How long one slot would need for the jobs that are due", GaugeMetricFamily),
    ("worker_queue_paused", "Whether the queue is paused", GaugeMetricFamily),
    ("worker_jobs_dropped_total", "Jobs that a full queue has dropped, as its store counts them", CounterMetricFamily),
)


def _level(pile: list[float], queue: QueueStats, stats: Stats, pace: float) -> None:
    depth = queue.counts.get(State.QUEUED, 0)
    pile[0] += depth
    pile[1] += queue.counts.get(State.SCHEDULED, 0)
    pile[2] += queue.counts.get(State.RUNNING, 0)
    pile[3] += queue.counts.get(State.DEAD, 0)
    pile[4] = max(pile[4], queue.waited(stats.now) / SECOND)
    pile[5] += depth * pace
    pile[6] = max(pile[6], queue.pause is not None)
    pile[7] += queue.dropped


def _processes(seen: Seen) -> Iterator[Metric]:
    processes = seen.processes
    checks = {check.check: check for check in ready(seen)}
    notifier = checks.get("notifier")
    for name, text, value in (
        ("worker_jobs_in_flight", "Attempts that run in this service", sum(one.running for one in processes)),
        ("worker_slots", "Attempts that can run in it at a time", sum(one.slots for one in processes)),
        ("worker_processes", "Its worker processes", len(processes)),
        ("worker_store_up", "Whether its store has answered lately", seen.answers),
        ("worker_notifier_up", "Whether hints of new jobs arrive", notifier is not None and not notifier.degraded),
        ("worker_ready", "Whether it is ready, as /ready says", well(checks.values())),
    ):
        yield GaugeMetricFamily(name, text, value=float(value))
    text = "Worker processes that died, or had to be ended"
    yield CounterMetricFamily("worker_process_deaths_total", text, value=seen.deaths)
    lag = GaugeMetricFamily(
        "worker_event_loop_lag_seconds",
        "How long the event loop took to answer, or has not answered",
        labels=["process"],
    )
    memory = GaugeMetricFamily("worker_memory_bytes", "Memory that it holds (resident)", labels=["process"])
    for one in processes:
        lag.add_metric([str(one.number)], max(one.lag, one.still - 1) if one.still > 1 else one.lag)
        if seen.supervised:
            memory.add_metric([str(one.number)], one.memory)
    if seen.works:
        memory.add_metric(["supervisor" if seen.supervised else "own"], seen.memory)
    yield lag
    yield memory


# --- parts


def _histogram(
    name: str, text: str, label: str, piles: Mapping[str, Sequence[Any]], bounds: Sequence[float]
) -> HistogramMetricFamily:
    family = HistogramMetricFamily(name, text, labels=[label])
    for value, (total, *counts) in sorted(piles.items()):
        family.add_metric([value], _buckets(counts, bounds), total)
    return family


def _buckets(counts: Sequence[int], bounds: Sequence[float]) -> list[tuple[str, float]]:
    """Each with all that is below it, as Prometheus counts."""
    found, below = list[tuple[str, float]](), 0
    for bound, count in zip((*bounds, None), counts, strict=True):
        below += count
        found.append(("+Inf" if bound is None else repr(float(bound)), below))
    return found
