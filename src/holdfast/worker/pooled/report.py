"""What a pool tells of its jobs: a worker's lines without what only a store has (queue, fence, dead jobs)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from holdfast.clock import SECOND
from holdfast.job import Claim, Failed, Outcome, Verdict
from holdfast.observe.logging import jobs, tell
from holdfast.observe.places import place

if TYPE_CHECKING:
    from holdfast.worker.pooled.core import Core


def tell_of(claim: Claim, level: int, event: str, **fields: Any) -> None:
    """One line about an attempt."""
    attempt = f"{claim.attempt}/{claim.terms.max_attempts}"
    tell(jobs, level, event, task=claim.task, job=claim.id, attempt=attempt, **fields)


def tell_end(claim: Claim, verdict: Verdict, outcome: Outcome, *, ran: float, level: int) -> None:
    """An attempt ended otherwise than by a value; `ran` in seconds, `level` for failures."""
    if not isinstance(verdict, Failed):
        tell_of(claim, logging.INFO, outcome.ended, ran=ran, reason=outcome.reason)
    elif jobs.isEnabledFor(level):
        error, again = verdict.error, None if outcome.delay is None else outcome.delay / SECOND
        at = place(error.traceback, claim.task, error.message)
        tell_of(claim, level, "failed", ran=ran, error=error.type, message=error.message, at=at, retry_in=again)


def tell_dropped(count: int, message: str) -> None:
    """Jobs were dropped as their pool was left."""
    if count:
        tell(jobs, logging.WARNING, "dropped", count=count, message=message)


def tell_leaving(core: Core, message: str) -> None:
    """Names the threads that still run something, if there are any."""
    if running := core.stuck():
        tell(jobs, logging.WARNING, "leaving", threads=", ".join(running), message=message)


def tell_stuck(core: Core, message: str) -> None:
    """As `tell_leaving`, of those that are not waited for any longer."""
    if running := core.stuck():
        tell(jobs, logging.WARNING, "stuck", threads=", ".join(running), message=message)
