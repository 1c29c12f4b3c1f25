"""Attempts in slot processes: each has one to itself, so that it can be ended, and dies without company.

1. takes an idle process, or spawns one; while such jobs come, one spare is kept warm;
2. hands the attempt over, and waits for the answer, for a request to stop, or for the death of the process;
3. asks before it kills, and says how an attempt ended only when its code is known to be gone.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

from holdfast.context import note_finish
from holdfast.errors import Stop
from holdfast.job import Failed, Failure, Released, Succeeded, Verdict
from holdfast.observe.logging import jobs, tell
from holdfast.worker.blackbox import BlackBox
from holdfast.worker.deaths import GROUP_GONE
from holdfast.worker.notes import Notes
from holdfast.worker.processes.launch import Launch
from holdfast.worker.processes.spawned import Reply, Spawned
from holdfast.worker.processes.verdicts import botched, lost, never_begun, no_process, stopped
from holdfast.worker.runner import GRACE, Run, timed_out

Ended = Callable[[Run, Verdict | None], None]

START_MOST = 60.0  # seconds for a process to load the app
IDLE_MOST = 60.0  # seconds that an idle process is kept
LEAVING = "interrupted, and its process ended, as its worker was leaving"
DUMP = 0.2  # seconds for its stacks to be written before it is killed


class InProcesses:
    """As many slot processes as attempts need. One over `max_jobs` or `max_memory` (bytes) is replaced."""

    def __init__(
        self,
        ended: Ended,
        launch: Launch,
        box: BlackBox,
        notes: Notes,
        *,
        max_jobs: int | None = None,
        max_memory: int | None = None,
    ) -> None:
        self._ended = ended
        self._launch = launch
        self._box = box
        self._notes = notes
        self._max_jobs = max_jobs
        self._max_memory = max_memory
        self._idle: list[Spawned] = []
        self._slots: set[Spawned] = set()
        self._attempts: set[asyncio.Task[None]] = set()
        self._used = 0.0  # when an attempt was handed over last
        self._closed = False

    def start(self, run: Run) -> None:
        run.handle = asyncio.get_running_loop().create_task(self._attempt(run))
        self._attempts.add(run.handle)
        run.handle.add_done_callback(self._attempts.discard)

    async def close(self) -> None:
        """Ends all processes, kills those that are busy, and waits until they are gone and their attempts settled."""
        self._closed = True
        idle, self._idle = self._idle, []
        for slot in self._slots.copy():
            if slot in idle and slot.ready.done():
                slot.leave(GRACE)
            else:
                slot.kill()
        waiting: list[asyncio.Future[Any]] = [*self._attempts, *(slot.gone for slot in self._slots)]
        if waiting:
            await asyncio.wait(waiting, timeout=GRACE + GROUP_GONE)

    # --- one attempt

    async def _attempt(self, run: Run) -> None:
        run.entered = run.apart = True
        run.settled()  # its timeout begins when its process begins it
        if run.limit == "deadline":
            _time(run)
        try:
            verdict = await self._verdict(run)
        except Exception as error:  # noqa: BLE001  # a bug must keep neither the job nor its place in this worker
            verdict = botched(run, error)
        run.ended()
        self._ended(run, verdict)

    async def _verdict(self, run: Run) -> Verdict | None:
        if _asked(run):
            return never_begun(run)
        try:
            slot = self._take()
        except RuntimeError as error:  # no more threads just now
            return no_process(run, str(error))
        try:
            return await self._verdict_of(slot, run)
        except Exception:
            slot.kill()
            await _confirmed(slot)
            raise

    async def _verdict_of(self, slot: Spawned, run: Run) -> Verdict | None:
        try:
            await asyncio.wait({slot.ready}, timeout=START_MOST)
        except asyncio.CancelledError:
            self._rest(slot)
            if not _asked(run):
                raise
            return never_begun(run)
        unready = slot.ready.result() if slot.ready.done() else None
        if not slot.ready.done():
            slot.kill()
            return Failed(Failure("StartFailed", f"{self._launch.app} was not loaded within {START_MOST:g} s", ""))
        if unready is not None:
            slot.leave(GRACE)  # it ends by itself, unless the app has started something that keeps it
            if self._closed:
                return Released(LEAVING, killed=True)
            return no_process(run, unready.reason) if unready.failure is None else Failed(unready.failure)
        return await self._run_in(slot, run)

    async def _run_in(self, slot: Spawned, run: Run) -> Verdict | None:
        _time(run)
        try:
            run.enter(on_loop=True)
        except Stop:
            self._rest(slot)
            return never_begun(run)
        if not slot.gone.done():  # else the number may be another's by now
            self._box.in_group(run.key, slot.group)
        answer = slot.ask(run)
        self._keep_a_spare()
        try:
            await _first(answer, slot.gone)
            if not answer.done():
                return lost(slot.jobs, slot.gone.result()) if not self._closed else Released(LEAVING, killed=True)
            await self._after(slot, run, answer.result())
        except asyncio.CancelledError:
            if not answer.done():
                return await self._stop(slot, run, answer)
            slot.kill()
            await _confirmed(slot)
        finally:
            if _finished_within(slot, answer):
                note_finish(run.job)
        return answer.result().verdict

    async def _stop(self, slot: Spawned, run: Run, answer: asyncio.Future[Reply]) -> Verdict | None:
        why = run.asked
        try:
            if why is not None:
                slot.stop(why)
                await _first(answer, slot.gone, within=GRACE)
            if not answer.done():
                slot.dump()
                await asyncio.wait({slot.gone}, timeout=DUMP)
        finally:
            slot.kill()
            await _confirmed(slot)
        if why is None:  # not asked for by the worker: its loop is ending
            raise asyncio.CancelledError
        said = answer.result().verdict if answer.done() else None
        return stopped(run, slot.gone.result(), said)

    async def _after(self, slot: Spawned, run: Run, reply: Reply) -> None:
        """Whoever may run the job again must not meet what this attempt left behind: that ends first."""
        if reply.left and not isinstance(reply.verdict, Succeeded):
            slot.kill()
            await asyncio.wait({slot.gone})
        elif self._worn(slot, reply) or run.claim.losses or run.claim.crashes:  # what a suspect leaves harms no other
            slot.leave(GRACE)
        else:
            self._rest(slot)

    def _worn(self, slot: Spawned, reply: Reply) -> bool:
        if self._max_jobs is not None and slot.jobs >= self._max_jobs:
            return True
        return self._max_memory is not None and reply.memory > self._max_memory

    # --- the processes

    def _take(self) -> Spawned:
        while self._idle:
            slot = self._idle.pop()
            if slot.timer is not None:
                slot.timer.cancel()
            if not slot.leaving and not slot.gone.done():
                return slot
        return self._spawned()

    def _spawned(self) -> Spawned:
        slot = Spawned(self._launch, self._box, self._notes)
        self._slots.add(slot)
        slot.gone.add_done_callback(lambda _: self._forget(slot))
        return slot

    def _forget(self, slot: Spawned) -> None:
        self._box.group_gone(slot.group)  # outcomes of its jobs may still wait, for hours if the store is away
        self._slots.discard(slot)
        if slot in self._idle:
            self._idle.remove(slot)

    def _keep_a_spare(self) -> None:
        self._used = time.monotonic()
        if not self._idle and not self._closed:
            try:
                self._rest(self._spawned())
            except RuntimeError as error:  # no more threads just now; the next attempt will say so
                tell(jobs, logging.WARNING, "no-spare", error=str(error))

    def _rest(self, slot: Spawned) -> None:
        if self._closed or slot.leaving:
            slot.leave(GRACE)
            return
        self._idle.append(slot)
        slot.timer = asyncio.get_running_loop().call_later(IDLE_MOST, self._expire, slot)

    def _expire(self, slot: Spawned) -> None:
        """Ends a process that was idle for long, but not the spare while such jobs come."""
        if slot not in self._idle:  # it has died, or the worker is leaving
            return
        self._idle.remove(slot)
        if self._idle or time.monotonic() - self._used >= IDLE_MOST:
            slot.leave(GRACE)
        else:
            self._rest(slot)


def _finished_within(slot: Spawned, answer: asyncio.Future[Reply]) -> bool:
    """What it said, or what it left behind."""
    if answer.done():
        return answer.result().finished
    return slot.gone.done() and slot.gone.result().finished == slot.jobs


def _time(run: Run) -> None:
    run.settled()
    run.timed(now := time.monotonic())
    if run.deadline is not None:
        run.timer = asyncio.get_running_loop().call_later(run.deadline - now, timed_out, run)


def _asked(run: Run) -> bool:
    return run.asked is not None


async def _first(*futures: asyncio.Future[Any], within: float | None = None) -> None:
    await asyncio.wait(futures, timeout=within, return_when=asyncio.FIRST_COMPLETED)


async def _confirmed(slot: Spawned) -> None:
    """Waits until the process is gone, which takes moments; who cancels that wants it to be over sooner."""
    while not slot.gone.done():
        try:
            await asyncio.wait({slot.gone})
        except asyncio.CancelledError:
            slot.kill()
