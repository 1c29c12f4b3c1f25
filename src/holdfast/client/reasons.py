"""Why nobody has begun a job, as far as one look at the store's workers and queues can tell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from holdfast.clock import moment, short
from holdfast.job import Pause, Record, State
from holdfast.observe.visible import visible
from holdfast.store import QueueSetup, Roster, Store, WorkerRow

NAMED = 5  # queues or workers in a text


async def asked_why(store: Store, record: Record) -> str:
    """As `why_not_begun`, by what the store says now."""
    return why_not_begun(record, await store.workers(), await store.queues())


def why_not_begun(record: Record, roster: Roster, queues: Sequence[QueueSetup]) -> str:
    """The first reason that holds, for a job that is scheduled or queued; in words, with what would help."""
    if record.state is State.SCHEDULED and record.due_at > roster.now:
        return f"it is due in {short(record.due_at - roster.now)}, at {_utc(record.due_at)}"
    queue = visible(record.queue)
    pause = next((setup.pause for setup in queues if setup.name == record.queue), None)
    if pause is not None:
        return f"queue {queue} is paused {_times(pause)}"
    live = live_workers(roster)
    serving = [worker for worker in live if serves(worker, record.queue)]
    knowing = [worker for worker in serving if record.task in _names(worker, "tasks")]
    if not live:
        return "no worker is live: neither `holdfast worker` runs, nor a process that has a jobs.worker()"
    if not serving:
        served = sorted({name for worker in live for name in _names(worker, "queues")})
        return f"no live worker serves queue {queue}; those that live serve {_some(served)}"
    if not knowing:
        return (
            f"no live worker that serves queue {queue} knows task {visible(record.task)}; is its module imported by "
            "the app, or named in Holdfast(modules=[...])?"
        )
    who = _some([str(worker.facts.get("name", worker.id)) for worker in knowing])
    return f"live workers serve queue {queue} and know the task ({who}), and have not come to it yet"


def live_workers(roster: Roster) -> list[WorkerRow]:
    """Those that run jobs and whose lease has not run out; supervisors run none."""
    return [
        worker
        for worker in roster.workers
        if worker.retired_at is None and worker.lease_until > roster.now and "tasks" in worker.facts
    ]


def known_tasks(roster: Roster) -> frozenset[str] | None:
    """Every task that a live worker has; None where no worker is live."""
    live = live_workers(roster)
    return frozenset(task for worker in live for task in _names(worker, "tasks")) if live else None


def serves(worker: WorkerRow, queue: str) -> bool:
    """Whether it takes jobs of this queue."""
    return worker.facts.get("queues") is None or queue in _names(worker, "queues")


def _names(worker: WorkerRow, fact: str) -> Sequence[str]:
    names: Any = worker.facts.get(fact)
    return cast("Sequence[str]", names) if isinstance(names, (list, tuple)) else ()


def _times(pause: Pause) -> str:
    until = "until it is resumed" if pause.until is None else f"until {_utc(pause.until)}"
    reason = f" ({visible(pause.reason)})" if pause.reason else ""
    return f"since {_utc(pause.since)}, {until}{reason}"


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(visible(name) for name in names[:NAMED])
    return f"{shown} and {len(names) - NAMED} more" if len(names) > NAMED else shown


def _utc(at: int) -> str:
    return moment(at).strftime("%Y-%m-%d %H:%M:%S UTC")
