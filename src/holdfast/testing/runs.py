"""Runs the jobs of a sandbox: what is due, one at a time, right here, as a worker with one slot would."""

from __future__ import annotations

import asyncio
import copy
import functools
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID, uuid4

from holdfast.app import Parts
from holdfast.bridge import run_here
from holdfast.clock import SECOND, FakeClock, Span
from holdfast.context import current
from holdfast.errors import Stop
from holdfast.job import Claim, Failed, Note, Outcome, Record, Released, State, Succeeded, Verdict
from holdfast.policy import decide
from holdfast.store import Store, Where
from holdfast.task import Task
from holdfast.testing.loops import Loops, fresh, loop_here, off_loop
from holdfast.testing.openings import Openings
from holdfast.worker.report import tell_failed, tell_of
from holdfast.worker.runner import Run, begun, run_async, run_plain, timed_out

MOST = 1000  # attempts at one moment
DEPTH = 20  # inline enqueues within each other's jobs


class Runs:
    """One job after the other; a handler's own words about it are kept at once."""

    def __init__(self, parts: Parts, store: Store, clock: FakeClock, loops: Loops) -> None:
        self._parts = parts
        self._store = store
        self._clock = clock
        self._loops = loops
        self._notes = Notes(store)
        self._under_way: dict[UUID, Run] = {}
        self.openings = Openings(parts.resources, loops)

    async def due(self, limit: int) -> list[Record]:
        """Runs what is due now, until nothing is, at most `limit` attempts; each row as its attempt left it."""
        ran = list[Record]()
        while len(ran) < limit and (record := await self._next()) is not None:
            ran.append(record)
        return ran

    async def walk(self, by: Span) -> list[Record]:
        """Moves the clock on by `by`, from due moment to due moment, and runs what is due at each."""
        end = self._clock.now() + by
        ran = await self._all_due()
        while (wait := (await self._store.promote(MOST)).next_in) is not None and self._clock.now() + wait <= end:
            self._clock.advance(wait)
            ran += await self._all_due()
        self._clock.advance(end - self._clock.now())
        return ran

    async def at_once(self, ids: Sequence[UUID]) -> None:
        """Runs what is due until none of these is."""
        if len(self._under_way) > DEPTH:
            raise RuntimeError(f"inline=True: {DEPTH} jobs enqueue each other without an end; use box.run() instead")
        while await self._store.find(Where(ids=ids, states=(State.QUEUED,)), None, 1):
            await self._next()

    def asked_to_end(self, id: UUID) -> None:
        """The job is cancelled while it runs: its handler hears of it."""
        if id in self._under_way:
            self._under_way[id].stop("cancelled")

    async def _all_due(self) -> list[Record]:
        ran = await self.due(MOST)
        if len(ran) == MOST and (left := await self._store.find(Where(states=(State.QUEUED,)), None, 1)):
            raise RuntimeError(
                f"{MOST} attempts ran at one moment and there is no end: job {left[0].id} of {left[0].task} "
                "is due again at once; does it snooze or enqueue without a delay?"
            )
        return ran

    async def _next(self) -> Record | None:
        await self._store.promote(MOST)
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
        watched, escaped = _watched(task)
        run = begun(claim, watched, None, time.monotonic(), None, notes=self._notes, around=self._parts.around or None)
        self._under_way[claim.id] = run
        verdict: Verdict | None = Released("interrupted")
        try:
            verdict = await self._carried_out(run)
        finally:
            del self._under_way[claim.id]
            await self._settle(claim, verdict)
        if escaped:
            raise escaped[0]

    async def _carried_out(self, run: Run) -> Verdict | None:
        here = loop_here()
        if run.task.is_async:
            return self._loops.run(lambda: self._on_loop(run)) if here is None else await self._on_loop(run)
        if self._loops.at_home:
            await self.openings.aopen()
        with off_loop():
            self.openings.open()
            return _plain(run)

    async def _on_loop(self, run: Run) -> Verdict | None:
        await _awaitable()
        if self._loops.at_home:
            await self.openings.aopen()
        loop = asyncio.get_running_loop()
        ended: list[Verdict | None] = []
        run.handle = handle = loop.create_task(_alone(run, ended), context=fresh())
        if run.claim.terms.timeout is not None:
            run.timer = loop.call_later(run.claim.terms.timeout / SECOND, timed_out, run)
        try:
            await asyncio.wait({handle})
        except asyncio.CancelledError:  # the test gives up, or Ctrl-C
            run.stop("shutdown")
            await asyncio.wait({handle})
            raise
        finally:
            run.settled()
        return ended[0]

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


async def _awaitable() -> None:
    """RuntimeError where a blocking call drives this on a running loop, which can run no handler meanwhile."""
    try:
        await asyncio.sleep(0)
    except GeneratorExit:
        raise RuntimeError(
            "inline=True: this enqueue() blocks the event loop that the job's async handler would run on: "
            "use `await ….aenqueue()`"
        ) from None


async def _alone(run: Run, ended: list[Verdict | None]) -> None:
    current.set(run.job)
    ended.append(await run_async(run))


def _plain(run: Run) -> Verdict | None:
    """Runs it in this thread; a timer flags it when its time is over, as a worker does."""
    timeout = run.claim.terms.timeout
    if timeout is None:
        return fresh().run(run_plain, run)
    timer = threading.Timer(timeout / SECOND, timed_out, [run])
    timer.daemon = True
    timer.start()
    try:
        return fresh().run(run_plain, run)
    finally:
        timer.cancel()
        timer.join()


def _watched(task: Task[..., Any]) -> tuple[Task[..., Any], list[BaseException]]:
    """The task, and what leaves its handler that is the test's and not the job's: Ctrl-C, pytest.fail()."""
    escaped = list[BaseException]()

    def note(error: BaseException) -> None:
        if not isinstance(error, (Exception, Stop, asyncio.CancelledError, SystemExit)):
            escaped.append(error)

    twin = copy.copy(task)
    twin.fn = _noting_async(task.fn, note) if task.is_async else _noting(task.fn, note)
    return twin, escaped


def _noting(fn: Callable[..., Any], note: Callable[[BaseException], None]) -> Callable[..., Any]:
    @functools.wraps(fn)
    def watched(*args: Any, **kwargs: Any) -> Any:
        try:
            return fn(*args, **kwargs)
        except BaseException as error:
            note(error)
            raise

    return watched


def _noting_async(fn: Callable[..., Any], note: Callable[[BaseException], None]) -> Callable[..., Any]:
    @functools.wraps(fn)
    async def watched(*args: Any, **kwargs: Any) -> Any:
        try:
            return await fn(*args, **kwargs)
        except BaseException as error:
            note(error)
            raise

    return watched


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
