"""How an attempt ended, and what comes of that: success, another attempt, or the end. What few jobs meet is slow."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import UUID

from holdfast.clock import SECOND, short
from holdfast.errors import PayloadError, Stop
from holdfast.job import FINAL, Cancelled, Claim, Failed, Failure, Outcome, Snoozed, State, Verdict
from holdfast.observe.logging import POOL, jobs
from holdfast.policy import decide, failure, verdict_of
from holdfast.worker.pooled.inside import Inside
from holdfast.worker.pooled.kinds import LOOP, PROCESS, THREAD
from holdfast.worker.pooled.report import tell_end, tell_of

if TYPE_CHECKING:
    from holdfast.worker.pooled.core import Core
    from holdfast.worker.pooled.tallies import Tally
    from holdfast.worker.pooled.work import Work

NOBODY = UUID(int=0)
LOOKS = "a plain function ends only where it looks, at current_job().check()"
STAYS = {
    THREAD: f"and goes on: {LOOKS}; until it does, it keeps its thread and its slot",
    LOOP: "and goes on, although it was cancelled; until it ends, it keeps its slot",
    PROCESS: "and its process could not be ended in time; until it is, it keeps its thread and its slot",
}
AFTER = "after its timeout"
DROPPED = "dropped: the pool was stopped without draining it"
_succeeded = State.SUCCEEDED


def tell_started(run: Inside) -> None:
    tell_of(claim_of(run), logging.INFO, "started", waited=run.began - run.job.submitted)


def returned(core: Core, tally: Tally, job: Work, value: object) -> None:
    """The usual end; `tally` belongs to the calling thread."""
    now = time.monotonic()
    tally.succeeded += 1
    took = now - job.submitted
    tally.latency += took
    tally.longest = max(tally.longest, took)
    run = job.run
    core.over(job, _succeeded, value, None)
    if run is not None and jobs.isEnabledFor(logging.INFO):
        tell_of(claim_of(run), logging.INFO, "succeeded", ran=now - run.began)


def returned_in_time(core: Core, tally: Tally, run: Inside, value: object) -> None:
    """As `returned`, for a run with a timeout: what has returned has succeeded, unless its job was given up before."""
    if not _first(run):
        _tell_late(run)
        return
    returned(core, tally, run.job, value)
    if run.why == "timeout":
        tell_of(claim_of(run), logging.WARNING, "succeeded", ran=time.monotonic() - run.began, message=AFTER)


def never_awaited(core: Core, run: Inside, coroutine: Any) -> None:
    """A plain function that gave back a coroutine."""
    coroutine.close()
    text = f"{run.job.task} returned a coroutine, which nobody awaits: submit the async function itself"
    raised(core, run, TypeError(text))


def raised(core: Core, run: Inside, error: BaseException) -> None:
    """The function raised: the job is tried again, failed or cancelled."""
    if not _first(run):
        _tell_late(run)
        return
    if error.__traceback__ is not None:  # our own frames, which hold the job
        error.__traceback__ = None if run.job.kind is PROCESS else error.__traceback__.tb_next
    verdict, error = _judged(run, error)
    if core.dropping and not run.job.asked:
        verdict = _last(verdict)
    claim = claim_of(run)
    outcome = decide(claim, verdict)
    ran = time.monotonic() - run.began
    _settle(core, run, outcome, error)
    tell_end(claim, verdict, outcome, ran=ran, level=run.job.plan.level)


def overdue(core: Core, run: Inside) -> None:
    """A function goes on although its time and a grace are over: its job has failed, and waits for it no more."""
    if not _first(run):
        return
    run.given_up = True
    error = TimeoutError(f"{_overran(run)}, {STAYS[run.job.kind]}")
    claim, verdict = claim_of(run), Failed(failure(error), final=True)
    outcome = decide(claim, verdict)
    _settle(core, run, outcome, error)
    tell_end(claim, verdict, outcome, ran=time.monotonic() - run.began, level=run.job.plan.level)


def tell_flagged(run: Inside) -> None:
    """The time of a plain function is over: it is told, and so is the reader."""
    after = (run.job.plan.timeout or 0) / SECOND
    tell_of(claim_of(run), logging.WARNING, "timeout", after=after, message=f"still running: {LOOKS}")


def claim_of(run: Inside) -> Claim:
    """The attempt as policy and log lines know one."""
    job = run.job
    now = time.time() - time.monotonic()
    submitted, began = round((now + job.submitted) * SECOND), round((now + run.began) * SECOND)
    return Claim(
        job.id,
        job.runs,
        NOBODY,
        job.task,
        POOL,
        b"",
        job.plan.terms,
        job.plan.priority,
        job.attempt,
        0,
        0,
        0,
        False,  # alone
        submitted,
        submitted,
        began,
    )


def _first(run: Inside) -> bool:
    """Whether nobody has said yet how the attempt ended."""
    if run.only is None:
        return True
    try:
        run.only.pop()
    except IndexError:
        return False
    return True


def _judged(run: Inside, error: BaseException) -> tuple[Verdict, BaseException]:
    """The verdict, and what `result()` shall raise."""
    try:
        return _said(run, error)
    except BaseException as broken:  # noqa: BLE001  # whatever the exception's own methods do, an attempt ends
        text = f"the error cannot be read: reading it raised {type(broken).__name__}"
        return Failed(Failure(type(error).__name__, text, ""), final=True), error


def _said(run: Inside, error: BaseException) -> tuple[Verdict, BaseException]:
    job = run.job
    stopped = isinstance(error, (asyncio.CancelledError, Stop))
    if run.why == "timeout":
        late = TimeoutError(_overran(run))
        late.__cause__ = None if stopped else error
        return verdict_of(late, job.plan.retry), late
    if run.why == "cancelled" or job.asked:
        return Cancelled("cancelled before it began" if _unbegun(run, error) else "cancelled while running"), error
    if stopped:
        return Failed(failure(error)), error
    if job.kind is PROCESS and isinstance(error, PayloadError):  # to do it again would not make it fit
        return Failed(failure(error), final=True), error
    return verdict_of(error, job.plan.retry), error


def _last(verdict: Verdict) -> Verdict:
    """The same of a pool that tries nothing again."""
    if isinstance(verdict, Failed):
        return replace(verdict, final=True)
    return Cancelled(DROPPED) if isinstance(verdict, Snoozed) else verdict


def _unbegun(run: Inside, error: BaseException) -> bool:
    """Whether the error is our own, made in place of a call; that of a process has no traceback here in any case."""
    return error.__traceback__ is None and run.job.kind is not PROCESS


def _overran(run: Inside) -> str:
    return f"{run.job.task} ran longer than its timeout of {short(run.job.plan.timeout or 0)}"


def _settle(core: Core, run: Inside, outcome: Outcome, error: BaseException) -> None:
    job = run.job
    failed = outcome.ended == "failed"
    if outcome.state not in FINAL:
        with core.lock:
            core.tally.retried += failed
        run.leave_saved()
        job.attempt, job.runs, job.run = outcome.attempt + 1, job.runs + 1, None
        core.put_off(job, (outcome.delay or 0) / SECOND)
    elif failed:
        with core.lock:
            core.tally.failed += 1
            core.tally.took(time.monotonic() - job.submitted)
        core.over(job, State.DEAD, None, error)
    else:
        core.cancelled(job, outcome.reason or "cancelled", dropped=outcome.reason == DROPPED)


def _tell_late(run: Inside) -> None:
    message = "it ended after its job had failed with a TimeoutError; what it returned or raised is lost"
    tell_of(claim_of(run), logging.WARNING, "late", ran=time.monotonic() - run.began, message=message)
