"""Options of `@task` and `using()`: what may be given, checked and merged into a Plan."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple, TypedDict, cast

from holdfast.clock import Duration, Instant, Span, instant, moment, short, span
from holdfast.errors import ConfigError
from holdfast.headers import Headers, own_headers
from holdfast.job import Terms, Until
from holdfast.naming import named
from holdfast.policy import Retry
from holdfast.unique import Unique, as_unique

PRIORITY_MOST = 100
TAGS_MOST, TAG_LENGTH_MOST = 20, 100


class EnqueueOptions(TypedDict, total=False):
    """Options for `@task` and for `using()`; "not given" differs from None."""

    queue: str
    priority: int  # -100..100, higher first
    retry: Retry
    timeout: Duration | None
    keep: Duration
    tags: Sequence[str]


class TaskOptions(EnqueueOptions, total=False):
    """Options for `@task` alone."""

    name: str  # default: module.qualname, __main__ resolved to the real module
    aliases: Sequence[str]  # names that old jobs may still carry
    run_in: Literal["thread", "process"]  # default: a thread for a plain function, the loop for an async one
    unique: Unique | Callable[..., str] | None  # a function: of the task's own arguments, at enqueue


class JobOptions(EnqueueOptions, total=False):
    """Options for `using()` alone: about one job, not about the task."""

    delay: Duration
    at: datetime  # aware
    expires: Duration | datetime  # not started by then: cancelled, reason "expired"
    deadline: Duration | datetime  # not finished by then: dead, reason "deadline"
    unique: str | Unique | Callable[..., str] | None  # in place of what the task says; None: no key
    headers: Mapping[str, str]  # read by the handler as current_job().headers
    connection: object


class Plan(NamedTuple):
    """Options, checked and merged: how the next job of a task will be."""

    queue: str = "default"
    priority: int = 0
    retry: Retry = Retry(max_attempts=1)
    timeout: Span | None = None
    keep: Span = 0
    tags: tuple[str, ...] = ()
    delay: Span = 0
    at: Instant | None = None
    expires: Until | None = None
    deadline: Until | None = None
    unique: Unique | None = None
    headers: Headers | None = None
    connection: object = None

    @property
    def terms(self) -> Terms:
        return self.retry.terms(self.timeout, self.keep)

    def changed(
        self, options: Mapping[str, Any], where: str, known: frozenset[str], beside: frozenset[str] = frozenset()
    ) -> Plan:
        """This plan with `options` over it. ConfigError naming the option, its value and what would work.

        `known`: the options that there are here; `beside`: those that were taken out before.
        """
        unknown = sorted(options.keys() - known)
        if unknown:
            raise ConfigError(f"{where}: no option {unknown[0]!r}; there are {', '.join(sorted(known | beside))}")
        plan = self._replace(**{name: _CHECKS[name](value, name) for name, value in options.items()})
        if plan.delay and plan.at is not None:
            raise ConfigError(f"{where}: delay= and at= exclude each other")
        plan.check_ends(where)
        return plan

    @property
    def ends(self) -> bool:
        """Whether its jobs have an end, be they finished or not."""
        return self.expires is not None or self.deadline is not None

    def check_ends(self, where: str, now: Instant | None = None) -> None:
        """ConfigError for a job that would be over before it is due; without `now`, as far as that can be told."""
        for name, end in (("expires", self.expires), ("deadline", self.deadline)):
            if end is not None and (now is not None or (end.at is None) == (self.at is None)):
                _check_end(f"{where}: {name}", end, self.delay, self.at, now or 0)


def until(value: Duration | datetime, parameter: str) -> Until:
    """A time to come: a duration from now, or an instant. ConfigError naming `parameter` for what is neither."""
    if isinstance(value, datetime):
        return Until(at=instant(value, parameter))
    try:
        return Until(span(value, parameter, positive=True))
    except ConfigError as error:
        raise ConfigError(f"{error}; or an aware datetime") from None


def _check_end(what: str, end: Until, delay: Span, at: Instant | None, now: Instant) -> None:
    over = now + end.delay if end.at is None else end.at
    due = now + delay if at is None else max(at, now)
    if over > due:
        return
    said = short(end.delay) if end.at is None else moment(end.at).isoformat()
    if due == now:
        raise ConfigError(f"{what}={said}: that is over, it is {moment(now).isoformat()} now; give a later time")
    when = f"in {short(delay)}" if at is None else f"at {moment(at).isoformat()}"
    raise ConfigError(f"{what}={said}: the job is not due before that, but {when}; give a later time")


def _priority(value: object, parameter: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and -PRIORITY_MOST <= value <= PRIORITY_MOST:
        return value
    raise ConfigError(f"{parameter}={value!r}: a whole number from -100 to 100, higher first")


def _retry(value: object, parameter: str) -> Retry:
    if isinstance(value, Retry):
        return value
    raise ConfigError(f"{parameter}={value!r}: a Retry, for example Retry(max_attempts=5)")


def _timeout(value: Duration | None, parameter: str) -> Span | None:
    return None if value is None else span(value, parameter, positive=True)


def _tags(value: Any, parameter: str) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, (list, tuple)):
        raise ConfigError(f"{parameter}={value!r}: a list of texts, for example ['eu', 'invoice']")
    tags = list(cast("Iterable[Any]", value))
    if len(tags) > TAGS_MOST or not all(isinstance(t, str) and 0 < len(t) <= TAG_LENGTH_MOST for t in tags):
        raise ConfigError(f"{parameter}={value!r}: at most {TAGS_MOST} texts of 1 to {TAG_LENGTH_MOST} characters")
    return tuple(dict.fromkeys(tags))


def _as_is(value: object, parameter: str) -> object:
    del parameter
    return value


_CHECKS: dict[str, Callable[[Any, str], Any]] = {
    "queue": named,
    "priority": _priority,
    "retry": _retry,
    "timeout": _timeout,
    "keep": span,
    "tags": _tags,
    "delay": span,
    "at": instant,
    "expires": until,
    "deadline": until,
    "unique": as_unique,
    "headers": own_headers,
    "connection": _as_is,
}
ENQUEUE = frozenset(EnqueueOptions.__annotations__)
TASK = ENQUEUE | frozenset(TaskOptions.__annotations__)
USING = ENQUEUE | frozenset(JobOptions.__annotations__)
