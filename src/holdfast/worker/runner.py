"""One job, one attempt: decode, call, time out, and say what happened as a Verdict."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Literal

from holdfast.around import Around
from holdfast.clock import SECOND, short
from holdfast.context import CurrentJob, Finishing, Notebook, ask_to_end, asked, current, ended, ends_at, finished
from holdfast.errors import ArgumentsChanged, Stop, StopReason
from holdfast.fingerprint import OVERRAN
from holdfast.job import Cancelled, Claim, Failed, Failure, Released, Succeeded, Verdict
from holdfast.observe.logging import jobs, tell
from holdfast.policy import failure, past_deadline, verdict_of
from holdfast.task import Task
from holdfast.worker.blackbox import BlackBox, code_of
from holdfast.worker.forked import end_if_copy
from holdfast.worker.traced import traced_async, traced_plain

GRACE = 2.0  # seconds between asking running code to end and ending its process, or leaving without it
SLOW = 600.0  # seconds of running before that is told; then at each doubling
_TIME_OVER = ("timeout", "deadline")
IN_DOUBT = Released("its worker's lease came into doubt before it began")


class Run:
    """An attempt under way. The first reason to stop it wins; an async one is cancelled, a thread only flagged."""

    __slots__ = (
        "apart",
        "around",
        "box",
        "claim",
        "deadline",
        "ends",
        "entered",
        "handle",
        "job",
        "key",
        "limit",
        "overdue",
        "pid",
        "slow_at",
        "started",
        "task",
        "thread",
        "timer",
    )

    def __init__(
        self,
        claim: Claim,
        task: Task[..., Any],
        job: CurrentJob,
        started: float,
        box: BlackBox | None,
        around: Around | None = None,
        ends: float | None = None,
        pid: int | None = None,
    ) -> None:
        self.claim = claim
        self.key = (claim.id, claim.fence)  # which claim this is, within one worker
        self.task = task
        self.job = job
        self.started = started  # by the monotonic clock, in seconds
        self.ends = ends  # when its job's own time is over, by the same; None: it has all the time
        self.deadline: float | None = None  # when it has to end, by the same
        self.limit: StopReason = "timeout"  # why it has to
        self.box = box
        self.around = around  # None: nothing is put round it
        self.pid = os.getpid() if pid is None else pid  # of the process that it began in
        self.handle: asyncio.Task[None] | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.apart = False  # it runs in a slot process
        self.thread = 0  # the number of the thread that a plain handler runs in
        self.entered = False  # its code runs: a task that is cancelled before would never say how it ended
        self.overdue = False  # a plain function that goes on after its timeout and a grace: its process has to end
        self.slow_at = SLOW  # seconds of running after which that is told

    def timed(self, now: float) -> None:
        """Its timeout begins `now` (monotonic seconds); if its time is over, it is asked to end."""
        timeout = self.claim.terms.timeout
        self.deadline, self.limit = None if timeout is None else now + timeout / SECOND, "timeout"
        if self.ends is not None and (self.deadline is None or self.ends <= self.deadline):
            self.deadline, self.limit = self.ends, "deadline"
        ends_at(self.job, self.deadline)
        if self.deadline is not None and self.deadline <= now:
            ask_to_end(self.job, self.limit)

    @property
    def asked(self) -> StopReason | None:
        """Why it was asked to end, if it was."""
        return asked(self.job)

    def stop(self, why: StopReason) -> None:
        """Asks the attempt to end."""
        if ask_to_end(self.job, why) and self.handle is not None and self.entered:
            self.handle.cancel()

    @property
    def over(self) -> bool:
        """Whether its code has ended."""
        return ended(self.job)

    @property
    def in_doubt(self) -> bool:
        """Whether it may not begin any more, because others may soon have its job."""
        return not self.job.held and self.asked is None

    def enter(self, *, on_loop: bool) -> None:
        """The attempt's first step. Raises Stop if it was asked to end before it began."""
        self.entered = True
        self.job.check()
        if not on_loop:
            self.thread = threading.get_ident()
        if self.box is not None:
            self.box.begin(self.key, self.deadline, code_of(self.task.fn), time.monotonic(), on_loop=on_loop)

    def ended(self) -> None:
        """Its code has ended."""
        self.job._over = True  # noqa: SLF001  # once per attempt: note_end() would be one more call
        if self.box is not None:
            self.box.over(self.key)

    def settled(self) -> None:
        """The attempt has ended: its timer must not reach another."""
        if self.timer is not None:
            self.timer.cancel()


def timed_out(run: Run) -> None:
    """The attempt's time is over. A plain function cannot be stopped from outside: it is told, and so is the reader."""
    run.stop(run.limit)
    if run.handle is None and run.asked == run.limit:
        tell(
            jobs,
            logging.WARNING,
            run.limit,
            task=run.claim.task,
            job=run.claim.id,
            fence=run.claim.fence,
            after=(run.deadline or run.started) - run.started,
            message="still running: a plain function ends only where it looks, at current_job().check()",
        )


@traced_async
async def run_async(run: Run) -> Verdict | None:
    """Runs an async handler in the current asyncio task. None: the claim was lost, nothing may be written."""
    try:
        if run.in_doubt:
            return IN_DOUBT
        run.enter(on_loop=True)
        if run.around is not None:
            return _returned(run, await _async_within(run, run.around))
        args, kwargs = run.task.signature.decode(run.claim.payload)
        return _returned(run, await run.task.fn(*args, **kwargs))
    except BaseException as error:  # noqa: BLE001  # whatever leaves a handler is its verdict
        return judged(run, error)
    finally:
        run.ended()


@traced_plain
def run_plain(run: Run) -> Verdict | None:
    """Runs a plain handler in the current thread. None: the claim was lost, nothing may be written."""
    current.set(run.job)
    try:
        if run.in_doubt:
            return IN_DOUBT
        run.enter(on_loop=False)
        if run.around is not None:
            return _returned(run, _plain_within(run, run.around))
        args, kwargs = run.task.signature.decode(run.claim.payload)
        return _returned(run, run.task.fn(*args, **kwargs))
    except BaseException as error:  # noqa: BLE001  # whatever leaves a handler is its verdict
        return judged(run, error)
    finally:
        run.ended()


async def _async_within(run: Run, around: Around) -> object:
    with around.enter(run.job):
        try:
            args, kwargs = run.task.signature.decode(run.claim.payload)
            return await run.task.fn(*args, **kwargs)
        finally:
            end_if_copy(run.pid, sys.exception())  # before the hooks, which are the worker's


def _plain_within(run: Run, around: Around) -> object:
    with around.enter(run.job):
        try:
            args, kwargs = run.task.signature.decode(run.claim.payload)
            return run.task.fn(*args, **kwargs)
        finally:
            end_if_copy(run.pid, sys.exception())


def _returned(run: Run, value: object) -> Verdict | None:
    end_if_copy(run.pid)
    why = run.asked
    if why == "lost":
        return None
    if finished(run.job):  # with its result; whether that was committed, the store is asked
        return Succeeded(b"")
    try:
        return Succeeded(run.task.signature.encode_result(value))
    except Exception as error:  # noqa: BLE001  # the work is done; to do it again would not make its result fit
        return Failed(failure(error), final=True)


def judged(run: Run, error: BaseException) -> Verdict | None:
    """As `_raised`, whatever the exception's own `__class__` or `__str__` do: an attempt always ends."""
    end_if_copy(run.pid, error)
    try:
        return _raised(run, error)
    except BaseException as broken:  # noqa: BLE001  # see above
        text = f"the error cannot be read: reading it raised {type(broken).__name__}"
        return Failed(Failure(type(error).__name__, text, ""))


def _raised(run: Run, error: BaseException) -> Verdict | None:
    why = run.asked
    asked = why is not None and isinstance(error, (asyncio.CancelledError, Stop))
    if why == "lost":
        return None
    if why in _TIME_OVER:
        return overran(run, failure(error).traceback)
    if why == "shutdown":
        return Released("interrupted, as its worker was leaving")
    if asked:
        return Cancelled("cancelled while running")
    if isinstance(error, (ArgumentsChanged, asyncio.CancelledError, Stop)):
        return Failed(failure(error))
    return verdict_of(error, run.task.retry)


def overran(run: Run, traceback: str) -> Verdict:
    """What an attempt is that was asked to end because its time was over."""
    if run.asked == "deadline":
        return past_deadline(run.claim, traceback)
    text = f"{OVERRAN} {short(run.claim.terms.timeout or 0)}"
    return Failed(Failure("TimeoutError", text, traceback), final=then(run.task) == "final")


def then(task: Task[..., Any]) -> Literal["retry", "final"]:
    """What a TimeoutError means to a task."""
    return "retry" if task.retry.retries(TimeoutError()) else "final"


def begun(
    claim: Claim,
    task: Task[..., Any],
    held: Any,
    now: float,
    box: BlackBox | None = None,
    notes: Notebook | None = None,
    around: Around | None = None,
    finishing: Callable[[Claim, Task[..., Any]], Finishing] | None = None,
    *,
    ends: float | None = None,
    pid: int | None = None,
) -> Run:
    """An attempt that starts now (monotonic seconds). Without `notes` what it says of itself stays in memory; without
    `finishing` it cannot be part of a transaction. `ends`: when its job's own time is over; it does not begin then.
    `pid`: this process, where it is known: to ask the system takes a third of a microsecond.
    """
    job = CurrentJob(
        claim.id,
        claim.task,
        claim.queue,
        claim.attempt,
        claim.fence,
        None,
        held,
        claim.headers,
        claim.saved,
        claim.worker,
        notes,
        task.is_async,
        None if finishing is None else finishing(claim, task),
    )
    run = Run(claim, task, job, now, box, around, ends, pid)
    if claim.terms.timeout is not None or ends is not None:
        run.timed(now)
    return run


def waited(claim: Claim) -> float | None:
    """Seconds that the job was due before it was claimed; None if they are not known: it was being run for a while."""
    if claim.losses or claim.crashes:
        return None
    return max(0, claim.claimed_at - claim.due_at) / SECOND
