"""Runs the jobs of a sandbox: what is due, one at a time, right here, as a worker with one slot would."""

from __future__ import annotations

import logging
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

from holdfast.app import Parts
from holdfast.bridge import run_here
from holdfast.clock import SECOND, FakeClock, Span
from holdfast.job import Claim, Failed, Note, Outcome, Record, Released, State, Succeeded, Verdict
from holdfast.policy import decide
from holdfast.store import Store, Where
from holdfast.task import Task
from holdfast.testing.attempts import Attempts, watched
from holdfast.testing.loops import Loops
from holdfast.testing.openings import Openings
from holdfast.worker.report import tell_failed, tell_of, tell_over
from holdfast.worker.runner import Run, begun
from holdfast.worker.ticker import Ticker

MOST = 1000  # attempts of one call of run(), and of one job at one moment
ENDLESS = 20_000  # attempts at one moment, beyond those that are due when so many ran
DEPTH = 20  # inline enqueues within each other's jobs


class Runs:
    """One job after the other; a handler's own words about it are kept at once."""

    def __init__(self, parts: Parts, store: Store, clock: FakeClock, loops: Loops) -> None:
        self._parts = parts
        self._store = store
        self._clock = clock
        self._notes = Notes(store)
        self._under_way: dict[UUID, Run] = {}
        self.openings = Openings(parts.resources, loops)
        self._attempts = Attempts(loops, self.openings)
        self._ticker = Ticker(store)

    async def due(self, limit: int) -> list[Record]:
        """Runs what is due now, until nothing is, at most `limit` attempts; each row as its attempt left it."""
        ran = list[Record]()
        while len(ran) < limit and (record := await self._next()) is not None:
            ran.append(record)
        if len(ran) == limit >= MOST and await self._more():
            warnings.warn(f"{limit:,} attempts ran, and more is due: give run() a larger limit", RuntimeWarning, 2)
        return ran

    async def walk(self, by: Span) -> list[Record]:
        """Moves the clock on by `by`, from due moment to due moment, and runs what is due at each."""
        end = self._clock.now() + by
        ran = await self._all_due()
        while (wait := await self._promoted()) is not None and self._clock.now() + wait <= end:
            self._clock.advance(wait)
            ran += await self._all_due()
        self._clock.advance(end - self._clock.now())
        return ran

    async def at_once(self, ids: Sequence[UUID]) -> None:
        """Runs what is due until none of these is."""
        if len(self._under_way) > DEPTH:
            raise RuntimeError(f"inline=True: {DEPTH} jobs enqueue each other without an end; use box.run() instead")
        while await self._more(ids) and await self._next() is not None:  # else their queue is paused
            pass

    def asked_to_end(self, id: UUID) -> None:
        """The job is cancelled while it runs: its handler hears of it."""
        if id in self._under_way:
            self._under_way[id].stop("cancelled")

    async def _all_due(self) -> list[Record]:
        """Runs what is due at this moment; RuntimeError if that has no end."""
        ran, times = list[Record](), Counter[UUID]()
        most = ENDLESS
        while (record := await self._next()) is not None:
            ran.append(record)
            times[record.id] += 1
            if len(ran) == ENDLESS:  # asked so late, since it counts every job
                most += sum(queue.counts.get(State.QUEUED, 0) for queue in (await self._store.stats()).queues)
            if times[record.id] > MOST or len(ran) > most:
                raise RuntimeError(
                    f"{len(ran):,} attempts ran at one moment and there is no end, the last of job {record.id} of "
                    f"{record.task}; do jobs snooze, retry or enqueue each other without a delay?"
                )
        return ran

    async def _promoted(self) -> Span | None:
        """Makes due what is due, schedules' ticks first, and ends what is over; how long until the next tick or job is
        due, or a pause ends.
        """
        next_tick = await self._ticker.all()
        while True:
            promoted = await self._store.promote(MOST)
            for over in promoted.over:
                tell_over(over)
            if promoted.next_in != 0:
                break
        pauses = [queue.pause for queue in await self._store.queues() if queue.pause is not None]
        ends = [pause.until - self._clock.now() for pause in pauses if pause.until is not None]
        return min((wait for wait in (promoted.next_in, next_tick, *ends) if wait is not None), default=None)

    async def _more(self, ids: Sequence[UUID] | None = None) -> bool:
        """Whether any of these is due, or any job at all."""
        return bool(await self._store.find(Where(ids=ids, states=(State.QUEUED,)), None, 1))

    async def _next(self) -> Record | None:
        await self._promoted()
        claim = await self._claimed()
        if claim is None:
            return None
        task = self._parts.registry.names.get(claim.task)
        if task is None:
            verdict: Verdict | None = Released(f"no task {claim.task!r} in this app", unknown=True)
            tell_of(claim, logging.WARNING, "unknown-task", message="given back for later")
            await self._settle(claim, verdict)
        else:
            await self._attempt(claim, task)
        found = await self._store.find(Where(ids=(claim.id,)), None, 1)
        return found[0] if found else await self._next()  # deleted by someone as soon as it had ended

    async def _claimed(self) -> Claim | None:
        worker = uuid4()  # one for each claim: leases and tickets are no matter then
        await self._store.register(worker, None, {})
        claims = await self._store.claim(worker, 1, None, 1)
        return claims.jobs[0] if claims.jobs else None

    # --- one attempt

    async def _attempt(self, claim: Claim, task: Task[..., Any]) -> None:
        watching, escaped = watched(task)
        around, within = self._parts.around or None, Pretended(task)
        now = time.monotonic()
        ends = None if claim.left is None else now + claim.left / SECOND  # by the machine's clock, as a timeout is
        run = begun(claim, watching, None, now, None, self._notes, around, within.of, ends=ends)
        self._under_way[claim.id] = run
        verdict: Verdict | None = Released("interrupted")
        try:
            verdict = await self._attempts.carried_out(run)
        finally:
            del self._under_way[claim.id]
            await self._settle(claim, within.instead_of(verdict))
        if escaped:
            raise escaped[0]

    async def _settle(self, claim: Claim, verdict: Verdict | None) -> None:
        if verdict is None:
            return
        outcome = decide(claim, verdict)
        await self._store.finish([outcome])
        _tell(claim, verdict, outcome)


class Notes:
    """What handlers say goes to the store at once."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def add(self, note: Note) -> None:
        run_here(self._store.note([note]))

    def save(self, note: Note) -> bool:
        return run_here(self._store.note([note]))[0]

    async def asave(self, note: Note) -> bool:
        return (await self._store.note([note]))[0]


class Pretended:
    """A job's `Finishing`: takes any connection and touches none. Without a transaction to look at, who returns has
    committed, and who raises has rolled back.
    """

    def __init__(self, task: Task[..., Any]) -> None:
        self._task = task
        self._result: bytes | None = None

    def of(self, *_: object) -> Pretended:
        """What the attempt finishes by."""
        return self

    def finish(self, connection: object, result: object) -> bool:  # noqa: ARG002  # see above
        self._result = self._task.signature.encode_result(result)
        return True

    async def afinish(self, connection: object, result: object) -> bool:
        return self.finish(connection, result)

    def instead_of(self, verdict: Verdict | None) -> Verdict | None:
        """What the attempt ended as."""
        return verdict if self._result is None or not isinstance(verdict, Succeeded) else Succeeded(self._result)


def _tell(claim: Claim, verdict: Verdict, outcome: Outcome) -> None:
    """One line of the log, as a worker has it, so that a test that fails shows what its jobs did."""
    match verdict:
        case Succeeded():
            tell_of(claim, logging.INFO, "succeeded")
        case Failed(_, final):
            tell_failed(claim, outcome, final=final)
        case _:
            tell_of(claim, logging.INFO, outcome.ended, reason=outcome.reason)


def unfinished(record: Record) -> TimeoutError:
    """What waiting for a result raises, since it would never come."""
    if record.state is State.RUNNING:
        why = "it runs just now, and the sandbox runs one job at a time: a handler cannot wait for it"
    elif record.state is State.SCHEDULED:
        why = 'nothing runs by itself in a sandbox: call box.advance("1h") to come to the time at which it is due'
    else:
        why = "nothing runs by itself in a sandbox: call box.run() before result()"
    return TimeoutError(f"job {record.id} of {record.task} is {record.state}: {why}")
