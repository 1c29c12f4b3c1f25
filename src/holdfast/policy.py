"""What a verdict means for the job: every rule about retries, crashes and giving back, in pure functions.

`decide(job, verdict)` makes the Outcome and reads only what travels on the job. `Retry` is the user's policy;
its exception classes are judged by `verdict_of`, in the worker, where the classes exist.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, cast

from holdfast.clock import HOUR, MINUTE, SECOND, Duration, Span, moment, short, span
from holdfast.errors import Cancel, ConfigError, Permanent, RetryAfter, Snooze
from holdfast.fingerprint import LATE, LOST, OVERRAN, fingerprint
from holdfast.job import (
    MESSAGE_LIMIT,
    REASON_LIMIT,
    TRACEBACK_LIMIT,
    Cancelled,
    Claim,
    Failed,
    Failure,
    Loss,
    Lost,
    Outcome,
    Released,
    Snoozed,
    State,
    Succeeded,
    Terms,
    Verdict,
    cut,
)
from holdfast.observe.tracebacks import text_of, traceback_of

COMPANY_LOSSES = 2  # losses in company before the job runs alone
_SUCCEEDED = State.SUCCEEDED  # Python 3.11 takes a tenth of a microsecond to look up a member of an enum
DEADLINE = "deadline"  # why a job is dead whose time was over
UNCHARGED_MOST = 10  # losses beyond which any is charged: a job that ends its worker from its slot must not circle
UNKNOWN_FIRST, UNKNOWN_MOST = 1 * SECOND, 60 * SECOND


@dataclass(frozen=True)
class Retry:
    """How often and how soon a failed job is tried again.

    `max_attempts` counts all tries. The delay before try n+1 is `min(base_delay * 2**(n-1), max_delay)`, spread by
    ± `jitter` (a fraction). Exceptions of `never`, and those not of `on`, end the job at once. `max_crashes` is how
    often its process may die while the job ran alone; 0 means at most once. Raises ConfigError for values that make
    no sense, naming the parameter.
    """

    max_attempts: int = 12
    base_delay: Duration = 1.0
    max_delay: Duration = 300.0
    jitter: float = 0.2
    max_crashes: int = 3
    on: tuple[type[Exception], ...] = (Exception,)
    never: tuple[type[Exception], ...] = ()

    def __post_init__(self) -> None:
        _whole("max_attempts", self.max_attempts, least=1)
        _whole("max_crashes", self.max_crashes, least=0)
        base, longest = span(self.base_delay, "base_delay"), span(self.max_delay, "max_delay")
        if longest < base:
            raise ConfigError(
                f"base_delay={self.base_delay!r} is longer than max_delay={self.max_delay!r}: give max_delay= too"
            )
        if isinstance(self.jitter, bool) or not isinstance(self.jitter, (int, float)) or not 0 <= self.jitter <= 1:
            raise ConfigError(f"jitter={self.jitter!r}: a fraction from 0 to 1, for example 0.2")
        for name, classes in (("on", self.on), ("never", self.never)):
            _exceptions(name, classes)

    @staticmethod
    def after(delay: Duration, reason: str = "") -> Exception:
        """To be raised by a handler: this attempt failed; the next one comes after just this delay."""
        span(delay, "delay")
        return RetryAfter(delay, reason)

    def retries(self, error: BaseException) -> bool:
        """Whether an attempt that ended with `error` may be followed by another."""
        return isinstance(error, self.on) and not isinstance(error, self.never)

    def terms(self, timeout: Span | None, keep: Span) -> Terms:
        """What of this policy travels on the job."""
        return Terms(
            self.max_attempts,
            span(self.base_delay, "base_delay"),
            span(self.max_delay, "max_delay"),
            float(self.jitter),
            self.max_crashes,
            timeout,
            keep,
        )

    def __repr__(self) -> str:
        terms = self.terms(None, 0)
        total = sum(_nominal(terms, attempt) for attempt in range(1, min(self.max_attempts, 10_000)))
        attempts = "1 attempt" if self.max_attempts == 1 else f"{self.max_attempts} attempts over {_about(total)}"
        return f"<Retry {attempts}>"


def decide(job: Claim, verdict: Verdict) -> Outcome:
    """What is written when `job`'s claim ended with `verdict`."""
    match verdict:
        case Succeeded():
            return _success(job, verdict.result)
        case Failed():
            outcome = _after_failure(job, verdict)
        case Snoozed(delay, reason):
            outcome = _back(job, "snoozed", delay, reason)
        case Cancelled(reason):
            outcome = _outcome(job, "cancelled", State.CANCELLED, reason=reason)
        case Released(reason, _, True) if job.terms.max_crashes == 0:
            outcome = _after_loss(job, Loss(reason, on_purpose=True))
        case Released(reason, unknown):
            outcome = _after_release(job, reason, unknown=unknown)
        case Lost(loss):
            outcome = _after_loss(job, loss)
    if_cancelled = _if_cancelled(job, outcome)
    if outcome.state is State.DEAD:
        mark = fingerprint(job.task, outcome.error, outcome.reason)
        return outcome._replace(if_cancelled=if_cancelled, fingerprint=mark)
    return outcome._replace(if_cancelled=if_cancelled)


def unrecordable(outcome: Outcome, error: Exception) -> Outcome:
    """What is written instead of an outcome that the store cannot take: dead, with the reason as its error."""
    why = failure(error)
    return outcome._replace(
        ended="failed",
        state=State.DEAD,
        keep=None,
        delay=None,
        result=None,
        reason="",
        error=why,
        fingerprint=fingerprint("", why),
    )


def _after_failure(job: Claim, verdict: Failed) -> Outcome:
    if verdict.final or job.attempt >= job.terms.max_attempts:
        return _outcome(job, "failed", State.DEAD, error=verdict.error, reason=verdict.reason)
    delay = backoff(job) if verdict.after is None else verdict.after
    return _outcome(job, "failed", _later(delay), delay=delay, error=verdict.error)


def _after_release(job: Claim, reason: str, *, unknown: bool) -> Outcome:
    if not unknown:
        return _back(job, "released", None, reason)
    delay = min(UNKNOWN_FIRST << min(job.releases, 16), UNKNOWN_MOST)
    return _back(job, "released", delay, reason)._replace(releases=job.releases + 1)


def _after_loss(job: Claim, loss: Loss) -> Outcome:
    """Losses in company are not charged; two of them make the next run alone; a loss alone is a crash."""
    back = _back(job, "lost", None, loss.cause)
    if not loss.begun:
        return back
    if loss.overdue:
        return _after_failure(job, _overdue(job, loss))
    evidence = Failure(LOST, cut(loss.cause, MESSAGE_LIMIT), cut(loss.stack, TRACEBACK_LIMIT))
    if job.terms.max_crashes == 0:  # at most once, whoever ended it
        crashes = job.crashes + (not loss.on_purpose)
        return back._replace(state=State.DEAD, keep=None, crashes=crashes, attempt=job.attempt, error=evidence)
    if loss.on_purpose:
        return back
    back = back._replace(error=evidence)
    if loss.culprit or (job.alone and not (loss.company and job.losses < UNCHARGED_MOST)):
        crashes = job.crashes + 1
        state = State.DEAD if crashes >= job.terms.max_crashes else State.QUEUED
        return back._replace(state=state, crashes=crashes, alone=True, keep=_keep(job, state))
    losses = job.losses + 1
    return back._replace(losses=losses, alone=job.alone or losses >= COMPANY_LOSSES)


def _overdue(job: Claim, loss: Loss) -> Failed:
    if deadline_first(job):
        return past_deadline(job, loss.stack, "; its process was ended")
    text = f"{OVERRAN} {short(job.terms.timeout or 0)}; its process was ended"
    return Failed(Failure("TimeoutError", text, cut(loss.stack, TRACEBACK_LIMIT)), final=loss.overdue == "final")


def deadline_first(job: Claim) -> bool:
    """Whether a run of the job meets its deadline before its timeout."""
    return job.left is not None and (job.terms.timeout is None or job.left <= job.terms.timeout)


def past_deadline(job: Claim, traceback: str, more: str = "") -> Failed:
    """What a run is that its job's deadline has ended."""
    text = f"{LATE} of {moment(job.deadline_at or 0).isoformat(' ', 'seconds')}{more}"
    return Failed(Failure("TimeoutError", text, cut(traceback, TRACEBACK_LIMIT)), final=True, reason=DEADLINE)


def _if_cancelled(job: Claim, outcome: Outcome) -> Outcome:
    return outcome._replace(
        ended="cancelled",
        state=State.CANCELLED,
        delay=None,
        keep=job.terms.keep,
        losses=job.losses,
        crashes=job.crashes,
        reason=outcome.reason if outcome.ended == "cancelled" and outcome.reason else "cancelled while running",
    )


def _back(job: Claim, ended: str, delay: Span | None, reason: str) -> Outcome:
    """Queued or scheduled again, the attempt given back."""
    state = State.QUEUED if delay is None else _later(delay)
    outcome = _outcome(job, ended, state, delay=delay, reason=reason)
    return outcome._replace(attempt=job.attempt - 1)


def _success(job: Claim, result: bytes) -> Outcome:
    """As `_outcome`, in a third of the time: nearly all outcomes are made here."""
    return Outcome(
        job.id,
        job.fence,
        job.worker,
        "succeeded",
        _SUCCEEDED,
        job.attempt,
        job.releases,
        job.losses,
        job.crashes,
        job.alone,
        job.terms.keep,
        None,
        result,
    )


def _outcome(
    job: Claim,
    ended: str,
    state: State,
    *,
    delay: Span | None = None,
    error: Failure | None = None,
    reason: str = "",
) -> Outcome:
    return Outcome(
        job.id,
        job.fence,
        job.worker,
        ended,  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        state,
        job.attempt,
        job.releases,
        job.losses,
        job.crashes,
        job.alone,
        _keep(job, state),
        delay,
        None,
        error,
        reason and cut(reason, REASON_LIMIT),
    )


def _keep(job: Claim, state: State) -> Span | None:
    return None if state is State.DEAD else job.terms.keep


def _later(delay: Span) -> State:
    return State.SCHEDULED if delay > 0 else State.QUEUED


def backoff(job: Claim) -> Span:
    """The delay before the next attempt: exponential, capped, spread by jitter that (job, fence) alone decide."""
    spread = 1 + job.terms.jitter * (2 * _fraction(job) - 1)
    return round(_nominal(job.terms, job.attempt) * spread)


def _nominal(terms: Terms, attempt: int) -> Span:
    return min(terms.base_delay << min(attempt - 1, 64), terms.max_delay)


def _fraction(job: Claim) -> float:
    digest = blake2b(job.id.bytes + job.fence.to_bytes(8, "big"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def _about(length: Span) -> str:
    for unit, name in ((HOUR, "h"), (MINUTE, "min")):
        if length >= 2 * unit:
            return f"{length // unit} {name}"
    return short(length)


# --- from an exception to a verdict


def verdict_of(error: BaseException, retry: Retry) -> Verdict:
    """What an exception that left a handler says about its attempt. One that says nonsense is a failure, too."""
    try:
        return _said(error, retry)
    except Exception as nonsense:  # noqa: BLE001  # such as Snooze("soon"): the handler's own mistake
        return Failed(failure(nonsense), final=not retry.retries(nonsense))


def _said(error: BaseException, retry: Retry) -> Verdict:
    match error:
        case Snooze():
            return Snoozed(span(error.delay, "Snooze.delay"), cut(error.reason, REASON_LIMIT))
        case Cancel():
            return Cancelled(cut(error.reason, REASON_LIMIT))
        case RetryAfter():
            return Failed(failure(error), after=span(error.delay, "Retry.after"))
        case Permanent():
            return Failed(failure(error), final=True)
        case _:
            return Failed(failure(error), final=not retry.retries(error))


def failure(error: BaseException) -> Failure:
    """An exception as texts of bounded size; never raises, whatever the exception's own methods do."""
    text = text_of(error)
    return Failure(
        cut(type(error).__qualname__, 200),
        cut(text, MESSAGE_LIMIT),
        cut(traceback_of(error, text), TRACEBACK_LIMIT),
    )


# --- checks at definition


def _whole(name: str, value: object, *, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least or value > 2**31 - 1:
        raise ConfigError(f"{name}={value!r}: a whole number of {least} or more")


def _exceptions(name: str, classes: Any) -> None:
    if not isinstance(classes, tuple) or not all(map(_is_exception, cast("tuple[object, ...]", classes))):
        raise ConfigError(f"{name}={classes!r}: a tuple of exception classes, for example {name}=(ValueError,)")


def _is_exception(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, Exception)
