"""What is told of an attempt: that it starts, and how it ended badly, by its worker or by the sweeper that found it."""

from __future__ import annotations

import json
import logging
from typing import Any

from holdfast.clock import SECOND
from holdfast.job import Cancelled, Claim, Failed, Failure, Lost, Outcome, Released, Snoozed, State, Verdict
from holdfast.observe.logging import jobs, shown, tell, tell_attempt, tell_usual
from holdfast.observe.places import place
from holdfast.observe.visible import visible
from holdfast.store import Over

ARGUMENTS_MOST = 500  # characters of a line
PAYLOAD_MOST = 2**16  # bytes that are read for it


def tell_of(claim: Claim, level: int, event: str, **fields: Any) -> None:
    """One line about an attempt."""
    tell_attempt(level, event, claim, fields)


def tell_started(claim: Claim, *, waited: float | None) -> None:
    """An attempt begins, which was due for `waited` seconds. Its arguments are told where somebody asked for them."""
    if "arguments" in shown:
        tell_of(claim, logging.INFO, "started", waited=waited, arguments=arguments_of(claim.payload) or None)
    else:
        tell_usual("started", claim, "waited", waited)


def arguments_of(payload: bytes) -> str:
    """The arguments of a job as a call would have them, as plain text of at most ARGUMENTS_MOST characters."""
    if len(payload) > PAYLOAD_MOST:
        return f"… {len(payload):,} bytes"
    try:
        call = json.loads(payload)
        texts = [_json(value) for value in call.get("args", [])]
        texts += [f"{name}={_json(value)}" for name, value in call.get("kwargs", {}).items()]
    except (ValueError, AttributeError, RecursionError):  # whatever another program has stored
        return "… not readable"
    text = visible(", ".join(texts))
    return text if len(text) <= ARGUMENTS_MOST else f"{text[:ARGUMENTS_MOST]}… {len(text) - ARGUMENTS_MOST:,} more"


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


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
        at=place(error.traceback, claim.task, error.message),
        retry_in=None if dead else again,
        hint="no retry= set" if dead and not final and claim.terms.max_attempts == 1 else None,
    )


def tell_over(over: Over) -> None:
    """A job was ended because its time was over while it waited."""
    dead = over.reason == "deadline"
    tell(
        jobs,
        logging.ERROR if dead else logging.WARNING,
        "dead" if dead else "expired",
        task=over.task,
        job=over.id,
        queue=over.queue,
        message="its deadline passed before it was finished" if dead else "its time was over before it was started",
    )


def tell_after_finish(claim: Claim, verdict: Verdict | None, *, ran: float) -> None:
    """A handler ended badly after its success was committed: nowhere but here is that told."""
    text = "its success was committed, and stands"
    error = verdict.error if isinstance(verdict, Failed) else None
    match verdict:
        case Failed(said):
            text = f"{text}; the handler ended after it with: {said.message}"
        case Lost(loss):
            text = f"{text}; then {loss.cause}"
        case Snoozed(_, reason) | Cancelled(reason) | Released(reason):
            text = f"{text}; after it: {reason or type(verdict).__name__.lower()}"
        case _:
            text = f"{text}; after it the worker lost its claim"
    tell_of(
        claim,
        logging.WARNING,
        "ended-after-finish",
        ran=ran,
        error=error and error.type,
        message=text,
        at=error and place(error.traceback, claim.task, error.message),
        traceback=(error and error.traceback) or None,
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
        at=place(outcome.error.traceback, claim.task, outcome.error.message) if outcome.error else None,
        losses=outcome.losses or None,
        crashes=f"{outcome.crashes}/{claim.terms.max_crashes}" if charged else None,
    )
