"""Which jobs are meant: a Filter as users and flags write it, and as the store reads it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import TypedDict

from holdfast.clock import instant
from holdfast.errors import ConfigError
from holdfast.fingerprint import as_fingerprint
from holdfast.job import State
from holdfast.store import Where


class Filter(TypedDict, total=False):
    """Which jobs; all that is given must hold. `since` and `before` are about the time of enqueue.

    `state` may name several, separated by commas. `error` is the type of the last error, such as "TimeoutError".
    `fingerprint`: dead jobs whose errors people would call the same; `holdfast dead` shows it.
    """

    state: State | str
    queue: str
    task: str
    tag: str
    error: str
    fingerprint: str
    before: datetime
    since: datetime


def which(where: Filter) -> Where:
    """A Filter as the store reads it. ConfigError naming the field that makes no sense."""
    unknown = sorted(where.keys() - Filter.__annotations__.keys())
    if unknown:
        raise ConfigError(f"no filter {unknown[0]!r}; there are {', '.join(Filter.__annotations__)}")
    since, before = where.get("since"), where.get("before")
    return Where(
        states=_states(where["state"]) if "state" in where else None,
        queue=where.get("queue"),
        task=where.get("task"),
        tag=where.get("tag"),
        error=where.get("error"),
        fingerprint=as_fingerprint(where["fingerprint"]) if "fingerprint" in where else None,
        since=None if since is None else instant(since, "since"),
        before=None if before is None else instant(before, "before"),
    )


def _states(text: str) -> tuple[State, ...]:
    try:
        return tuple(State(word.strip()) for word in text.split(","))
    except (AttributeError, ValueError):
        raise ConfigError(f"state={text!r}: there are {', '.join(State)}") from None


def with_states(where: Where, states: frozenset[State]) -> Where:
    """The same, for jobs in these states alone."""
    return replace(where, states=tuple(states))
