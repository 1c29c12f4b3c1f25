"""What handles ask of the store about one job: how it is, what came of it; and to cancel it or retry it."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping
from typing import Any, Never, TypeVar, cast
from uuid import UUID

from holdfast.client.link import Link
from holdfast.client.queues import full_text
from holdfast.client.reasons import asked_why
from holdfast.client.vigil import Waiting
from holdfast.clock import Duration, moment, short, span
from holdfast.errors import (
    ConfigError,
    JobCancelled,
    JobFailed,
    JobNotFound,
    QueueFull,
    Refused,
    StoreAway,
    StoreError,
    UniqueConflict,
)
from holdfast.fingerprint import LATE
from holdfast.handles import Job, JobStatus, as_id
from holdfast.job import FINAL, REASON_LIMIT, JobError, Record, State, cut
from holdfast.observe import logging as observed
from holdfast.policy import DEADLINE
from holdfast.store import Retried, Store
from holdfast.task import Task

R = TypeVar("R")

POLL_FIRST, POLL_MOST = 0.005, 1.0  # seconds between looks while waiting for a result
TOGETHER = 0.1  # seconds between the moments at which all of a process look that wait
AWAY_MOST, AWAY_PAUSE = 5.0, 0.1  # seconds that they ask again while the store is away; between two tries
_TOO_LATE = "its deadline passed before it was finished"
LONG = 10.0  # seconds after which somebody who waits is told why it may be in vain


class Asking:
    """Answers handles. `names`: the tasks that decode results; a job of an unknown one has plain JSON."""

    def __init__(self, link: Link, names: Mapping[str, Task[..., Any]]) -> None:
        self._link = link
        self._names = names

    def job(self, id: UUID | str) -> Job[Any]:
        """A handle; asks nothing yet."""
        return Job(self, as_id(id))

    def status(self, job: Job[R]) -> JobStatus[R]:
        return self.snapshot(self._link.blocking("astatus", self.record, job.id), job)

    async def astatus(self, job: Job[R]) -> JobStatus[R]:
        return self.snapshot(await self._link.arun(self.record, job.id), job)

    def result(self, job: Job[R], timeout: Duration | None) -> R:
        return cast("R", self._value(self._link.blocking("aresult", self._finished, job.id, timeout)))

    async def aresult(self, job: Job[R], timeout: Duration | None) -> R:
        return cast("R", self._value(await self._link.arun(self._finished, job.id, timeout)))

    def cancel(self, id: UUID, reason: str) -> bool:
        return self._link.blocking("acancel", self._cancel, id, reason)

    async def acancel(self, id: UUID, reason: str) -> bool:
        return await self._link.arun(self._cancel, id, reason)

    def retry(self, id: UUID) -> None:
        self._link.blocking("aretry", self._retry, id)

    async def aretry(self, id: UUID) -> None:
        await self._link.arun(self._retry, id)

    def delete(self, id: UUID) -> None:
        self._link.blocking("adelete", self._delete, id)

    async def adelete(self, id: UUID) -> None:
        await self._link.arun(self._delete, id)

    def snapshot(self, record: Record, job: Job[Any]) -> JobStatus[Any]:
        """What a stored row says to users."""
        waiting = record.state in (State.SCHEDULED, State.QUEUED)
        return JobStatus(
            record.id,
            record.task,
            record.queue,
            record.state,
            record.attempt,
            record.progress,
            record.text,
            moment(record.enqueued_at),
            moment(record.due_at) if waiting else None,
            moment(record.started_at) if record.started_at is not None else None,
            moment(record.finished_at) if record.finished_at is not None else None,
            _errors(record),
            record.tags,
            record.reason,
            job,
        )

    # --- on the bridge's loop

    async def record(self, id: UUID) -> Record:
        """The stored row. Raises JobNotFound."""
        (found,) = await (await self._link.opened()).see([id])
        return found or _missing(id)

    async def _finished(self, id: UUID, timeout: Duration | None) -> Record:
        end = None if timeout is None else time.monotonic() + span(timeout, "timeout") / 1000
        if (record := await self._read_if_back(id, end)).state in FINAL:
            return record
        with (await self._link.opened()).vigil.of(id) as waiting:
            return await self._awaited(record, waiting, timeout, end)

    async def _awaited(self, record: Record, waiting: Waiting, timeout: Duration | None, end: float | None) -> Record:
        """Looks whenever there is a hint that it has ended; and now and then, for hints may be lost."""
        pause, since = POLL_FIRST, time.monotonic()
        while record.state not in FINAL:
            if self._link.stood_in:
                raise self._link.stood_in.unfinished(record)
            if time.monotonic() - since >= LONG:
                await self._tell_of_waiting(record)
            if end is not None and time.monotonic() >= end:
                limit = short(span(timeout or 0, "timeout"))
                raise TimeoutError(f"job {record.id} of {record.task} is still {record.state} after {limit}")
            left = _to_the_next_look(pause)
            await waiting.hinted(left if end is None else min(left, max(0.0, end - time.monotonic())))
            pause = min(pause * 1.5, POLL_MOST)
            record = await self._read_if_back(record.id, end)
        return record

    async def _read_if_back(self, id: UUID, end: float | None) -> Record:
        """For one who waits anyway: a store that is away is asked again for AWAY_MOST seconds, until `end` at most."""
        until = time.monotonic() + AWAY_MOST
        while True:
            try:
                return await self.record(id)
            except StoreAway:
                if self._link.stood_in or time.monotonic() >= (until if end is None else min(until, end)):
                    raise
            await asyncio.sleep(AWAY_PAUSE)

    async def _tell_of_waiting(self, record: Record) -> None:
        """Once for a queue, and once for its jobs that are to be begun later: why nobody has begun the job."""
        if record.state not in {State.QUEUED, State.SCHEDULED}:
            return
        due = record.state is State.QUEUED or record.due_at <= self._link.clock.now()
        if self._link.first(f"waiting {record.queue} {due}"):
            observed.tell(
                observed.jobs,
                observed.WARNING,
                "waiting",
                job=record.id,
                task=record.task,
                queue=record.queue,
                message=f"result() waits, and no worker has begun the job: {await self._why(record)}",
            )

    async def _why(self, record: Record) -> str:
        store = (await self._link.opened()).store
        try:
            return await asked_why(store, record)
        except StoreError:  # it has just gone away: who waits is told of that
            return "does a worker run that serves this queue and has this task?"

    async def _cancel(self, id: UUID, reason: str) -> bool:
        if not isinstance(reason, str):
            raise ConfigError(f"reason={reason!r}: a text")
        reason = cut(reason, REASON_LIMIT)
        store = (await self._link.opened()).store
        (answer,) = await store.cancel([id], reason)
        if answer == "finishing":
            raise await _held(store, id, "cancelled", "it, and may be writing its end")
        return _missing(id) if answer == "missing" else answer in ("cancelled", "requested")

    async def _retry(self, id: UUID) -> None:
        store = (await self._link.opened()).store
        (retried,) = await store.retry([id])
        if retried.answer == "busy":
            raise await _held(store, id, "retried", "it, its unique key or its place in the queue")
        if retried.answer == "missing":
            _missing(id)
        if retried.answer in ("taken", "full"):
            raise self._refusal(await self.record(id), retried)
        if retried.answer != "retried":
            what = "has succeeded" if retried.answer == "succeeded" else "is not finished"
            raise StoreError(f"job {id} {what}; only dead and cancelled jobs can be retried")

    def _refusal(self, record: Record, retried: Retried) -> Refused:
        what = f"job {record.id} is not retried"
        if retried.room is not None:
            room, after = retried.room, self._link.fullness.retry_after(record.queue)
            return QueueFull(f"{what}: {full_text(record.queue, room)}", record.queue, room.depth, room.bound, after)
        key, holder = record.unique.text if record.unique else "", self.job(retried.holder or record.id)
        text = (
            f"{what}: job {holder.id} holds its unique key {key!r} in queue {record.queue} now; "
            "retry it when that one is finished"
        )
        return UniqueConflict(text, record.queue, key, holder)

    async def _delete(self, id: UUID) -> None:
        store = (await self._link.opened()).store
        (answer,) = await store.delete([id])
        if answer == "busy":
            raise await _held(store, id, "deleted", "it")
        if answer == "missing":
            _missing(id)
        if answer == "running":
            raise StoreError(f"job {id} is running; cancel it first, and delete it when it has ended")

    def _value(self, record: Record) -> Any:
        if record.state is State.CANCELLED:
            raise JobCancelled(f"job {record.id} of {record.task} was cancelled: {record.reason or 'no reason given'}")
        if record.state is State.DEAD:
            raise _failed(record)
        data = record.result if record.result is not None else b"null"
        task = self._names.get(record.task)
        if task is None:
            from holdfast.codec import from_json

            return from_json(data)
        return task.signature.decode_result(data)


def _to_the_next_look(pause: float) -> float:
    """Those who have waited a while look at the same moments, and so with one question to the store."""
    if pause < TOGETHER:
        return pause
    now = time.monotonic()
    return math.ceil((now + pause) / TOGETHER) * TOGETHER - now


def _errors(record: Record) -> tuple[JobError, ...]:
    return tuple(
        JobError(a.attempt, moment(a.ended_at), a.error.type, a.error.message, a.error.traceback)
        for a in record.history
        if a.error is not None
    )


def _failed(record: Record) -> JobFailed:
    errors = _errors(record)
    kind, text = ("TimeoutError", _TOO_LATE) if record.reason == DEADLINE else ("Unknown", "")
    last = errors[-1] if errors else JobError(record.attempt, moment(record.finished_at or 0), kind, text, "")
    if record.reason == DEADLINE and not last.message.startswith(LATE):
        before = f"; the last error before it was {last.type}: {last.message}" if errors else ""
        return JobFailed(f"job {record.id} of {record.task} is dead: {_TOO_LATE}{before}", last)
    return JobFailed(
        f"job {record.id} of {record.task} is dead after attempt {last.attempt}: {last.type}: {last.message}",
        last,
    )


async def _held(store: Store, id: UUID, done: str, what: str) -> StoreAway:
    who = await store.locker(id)
    return StoreAway(
        f"job {id} is not {done}: a transaction that is still open{who and f' ({who})'} holds {what}; "
        "ask again when that has ended"
    )


def _missing(id: UUID) -> Never:
    raise JobNotFound(f"no job {id}: never stored, not committed yet, deleted, or pruned after its time")
