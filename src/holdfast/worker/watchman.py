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
from holdfast.observe.logging import tell, workers
from holdfast.observe.places import place
from holdfast.worker.blackbox import Begun
from holdfast.worker.child import Child
from holdfast.worker.culprit import held_up, stack_of
from holdfast.worker.deaths import busy_threads, in_thread, is_stopped
from holdfast.worker.runner import GRACE
from holdfast.worker.watch import EVERY, LOOP, THREADS

FROZEN = 4.0  # seconds without a pulse after which a child's stacks are read; then at each doubling
_FOR = "ended by its supervisor, for"
BUSY_FOR = 0.5  # seconds over which the threads' use of the processor is compared


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
            child.seen_into = child.told_frozen = 0.0
            return False
        if still < (seen + FROZEN if child.overran(now, GRACE) else 2 * seen):
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
        what = "it was stopped" if is_stopped(child.pid) else f"its {which} stood still"
        cause = f"ended by its supervisor: {what} for {still:.0f} s"
        try:
            who, stack = await self._held_up(child)
            named = child.named(who) if who else {}
            tell(workers, logging.ERROR, "stuck", pid=child.pid, which=which, still=still, **named, at=place(stack))
            child.condemn(Loss(cause, on_purpose=who is not None, stack=stack), who)
            child.signal(signal.SIGTERM)
            await asyncio.sleep(GRACE)
        finally:  # whatever could not be seen
            child.end(Loss(cause))

    async def _see_into(self, child: Child) -> None:
        """Names who holds up a child that cannot say so itself; ends it if that run's own time is over."""
        who, stack = await self._held_up(child)
        frozen = child.watch.still[THREADS] >= FROZEN / 2  # else its own pulse tells
        stopped = is_stopped(child.pid)
        if frozen:
            self._tell_frozen(child, who, stack, stopped=stopped)
        late = child.overran(self._clock.monotonic(), GRACE)
        if child.condemned or stopped:
            return
        if who is not None and who in late:
            self._end_overdue(child, [who], Loss(f"{_FOR} a run whose time was over", on_purpose=True), stack)
        elif late and who is None and frozen:  # nothing of it goes on, and nobody can say because of whom
            self._end_overdue(child, late, Loss(f"{_FOR} runs whose time was over; it was frozen"), "")

    def _tell_frozen(self, child: Child, who: Begun | None, stack: str, *, stopped: bool) -> None:
        still = child.watch.still[THREADS]
        if still < 2 * child.told_frozen:
            return
        child.told_frozen = still
        named = child.named(who) if who else {}
        message = "it is stopped" if stopped else "one call of it lets no other thread run"
        message += "; its lease is kept"
        told = {"pid": child.pid, "still": still, **named, "at": place(stack), "message": message}
        tell(workers, logging.WARNING, "frozen", **told)

    def _end_overdue(self, child: Child, late: Collection[Begun], why: Loss, stack: str) -> None:
        message = "its time is over and nothing else can end it; the process is killed"
        for run in late:
            tell(workers, logging.ERROR, "overdue", pid=child.pid, **child.named(run), at=place(stack), message=message)
            child.overdue[run.key] = child.then(run), stack
        child.end(why)

    async def _held_up(self, child: Child) -> tuple[Begun | None, str]:
        """The run that holds a child up, as well as can be seen from outside, and its stack."""
        busy = None
        if child.watch.still[THREADS] >= FROZEN / 2:
            busy = await in_thread(lambda: busy_threads(child.pid, BUSY_FOR), f"holdfast-look-{child.pid}")
        stacks = await child.stacks.of(child.signal)
        box = child.box
        who = held_up(stacks, box.begun(), box.loop_thread, busy=busy, blocker=box.blocker())
        return who, stack_of(stacks, who.thread or child.box.loop_thread[0]) if who else ""
