"""What is told of an attempt that ended badly, by its worker or by the sweeper that found it."""

from __future__ import annotations

import logging
from typing import Any

from holdfast.clock import SECOND
from holdfast.job import Claim, Failure, Outcome, State
from holdfast.observe.logging import jobs, place, tell


def tell_of(claim: Claim, level: int, event: str, **fields: Any) -> None:
    """One line about an attempt."""
    attempt = f"{claim.attempt}/{claim.terms.max_attempts}"
    tell(
        jobs,
        level,
        event,
        task=claim.task,
        job=claim.id,
        queue=claim.queue,
        attempt=attempt,
        fence=claim.fence,
        **fields,
    )


def tell_failed(claim: Claim, outcome: Outcome, *, ran: float | None = None, final: bool = False) -> None:
    """An attempt failed; `ran` in seconds, if known; `final`: no further attempt whatever the budget."""
    error = outcome.error or Failure("Unknown", "", "")
    dead = outcome.state is State.DEAD
    again = None if outcome.delay is None else outcome.delay / SECOND
    tell_of(
        claim,
        logging.ERROR if dead else logging.WARNING,
        "dead" if dead else "failed",
        ran=ran,
        error=error.type,
        message=error.message,
        at=place(error.traceback),
        retry_in=None if dead else again,
        hint="no retry= set" if dead and not final and claim.terms.max_attempts == 1 else None,
    )


def tell_lost(claim: Claim, outcome: Outcome, event: str, *, cause: str, ran: float | None = None) -> None:
    """A run was lost: `event` if it runs again. Crashes are those that its job is charged with."""
    dead = outcome.state is State.DEAD
    charged = outcome.crashes > claim.crashes
    tell_of(
        claim,
        logging.ERROR if dead else logging.WARNING,
        "dead" if dead else event,
        ran=ran,
        error=outcome.error.type if outcome.error else None,
        message=cause,
        at=place(outcome.error.traceback) if outcome.error else None,
        losses=outcome.losses or None,
        crashes=f"{outcome.crashes}/{claim.terms.max_crashes}" if charged else None,
    )
