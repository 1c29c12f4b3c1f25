"""The watchman of a supervisor: looks at the children's pulses, names who holds one up, and ends what is stuck.

A child that its supervisor can see keeps its lease for as long as it lives: what does not go on is killed, confirmed
dead and buried, never left to lapse.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Collection, Coroutine
from typing import Any

from holdfast.clock import Clock
from holdfast.job import Loss
from holdfast.observe.logging import place, tell, workers
from holdfast.worker.blackbox import Begun
from holdfast.worker.child import Child
from holdfast.worker.culprit import held_up, stack_of
from holdfast.worker.deaths import busy_threads, in_thread, is_stopped
from holdfast.worker.runner import GRACE
from holdfast.worker.watch import EVERY, LOOP, THREADS

FROZEN = 4.0  # seconds without a pulse after which a child's stacks are read; then at each doubling
BUSY_FOR = 0.25  # seconds over which the threads' use of the processor is compared


class Watchman:
    """Looks once a second. `store_answers`: while it does not, outcomes that wait are no child's fault."""

    def __init__(
        self,
        children: Collection[Child],
        stall_limit: float | None,
        clock: Clock,
        store_answers: Callable[[], bool],
    ) -> None:
        self._children = children
        self._stall_limit = stall_limit  # seconds; None: nothing is ever stuck
        self._clock = clock
        self._store_answers = store_answers
        self._looking: set[asyncio.Task[None]] = set()

    async def step(self) -> float:
        """One look at each child."""
        now = self._clock.monotonic()
        answers = self._store_answers()
        for child in list(self._children):
            child.watch.look(child.box.pulses, now, store_answers=answers)
            if child.condemned or child.worker is None:
                continue
            if which := child.watch.stuck(self._stall_limit):
                child.condemned = True
                self._look(self._end_stuck(child, which))
            elif self._worth_a_look(child, now):
                self._look(self._see_into(child))
        return EVERY

    def _worth_a_look(self, child: Child, now: float) -> bool:
        still, seen = child.watch.still[LOOP], child.seen_into
        if still < FROZEN:
            child.seen_into = 0.0
            return False
        late = any(run.deadline and run.deadline + GRACE < now for run in child.box.begun())
        if still < (seen + FROZEN if late else 2 * seen):
            return False
        child.seen_into = still
        return True

    def _look(self, looking: Coroutine[Any, Any, None]) -> None:
        async def looked() -> None:
            try:
                await looking
            except Exception as error:  # noqa: BLE001  # what is not seen now is looked for again
                workers.error("a bug in looking at a child; please report it", exc_info=error)

        task = asyncio.create_task(looked())
        self._looking.add(task)
        task.add_done_callback(self._looking.discard)

    async def _end_stuck(self, child: Child, which: str) -> None:
        """Names who holds it up, terminates it, and kills it: its lease never lapses while it lives."""
        still = max(child.watch.still)
        cause = f"ended by its supervisor: its {which} stood still for {still:.0f} s"
        try:
            who, at = await self._held_up(child)
            named = child.named(who) if who else {}
            tell(workers, logging.ERROR, "stuck", pid=child.pid, which=which, still=still, **named, at=at)
            child.condemn(Loss(cause, on_purpose=who is not None), who)
            child.signal(signal.SIGTERM)
            await asyncio.sleep(GRACE)
        finally:  # whatever could not be seen
            child.end(Loss(cause))

    async def _see_into(self, child: Child) -> None:
        """Names who holds up a child that cannot say so itself; ends it if that run's own time is over."""
        who, at = await self._held_up(child)
        now, still = self._clock.monotonic(), child.watch.still
        if still[THREADS] >= FROZEN / 2:  # else its own pulse tells
            named = child.named(who) if who else {}
            message = "it is stopped" if is_stopped(child.pid) else "one call of it lets no other thread run"
            message += "; its lease is kept"
            told = {"pid": child.pid, "still": still[THREADS], **named, "at": at, "message": message}
            tell(workers, logging.WARNING, "frozen", **told)
        if who is None or not who.deadline or now < who.deadline + GRACE or child.condemned:
            return
        message = "its timeout is over and nothing else can end it; the process is killed"
        tell(workers, logging.ERROR, "overdue", pid=child.pid, **child.named(who), at=at, message=message)
        child.overdue[who.key] = child.then(who)
        child.end(Loss("ended by its supervisor, for a run past its timeout", on_purpose=True))

    async def _held_up(self, child: Child) -> tuple[Begun | None, str | None]:
        """The run that holds a child up, as well as can be seen from outside, and where it is."""
        busy = await in_thread(lambda: busy_threads(child.pid, BUSY_FOR), f"holdfast-look-{child.pid}")
        stacks = await child.stacks.of(child.signal)
        who = held_up(stacks, child.box.begun(), child.box.loop_thread, busy, child.box.blocker())
        return who, place(stack_of(stacks, who.thread or child.box.loop_thread[0])) if who else None
