"""Attempts within spans, where somebody traces."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from sys import modules
from typing import TYPE_CHECKING, TypeAlias

from holdfast.job import Verdict
from holdfast.observe import tracing
from holdfast.observe.tracing import API, BY_ENVIRONMENT

if TYPE_CHECKING:
    from holdfast.worker.runner import Run

NEVER = not BY_ENVIRONMENT  # nobody traces while nobody has imported the API: asked here, it costs no call

Plain: TypeAlias = "Callable[[Run], Verdict | None]"
Async: TypeAlias = "Callable[[Run], Awaitable[Verdict | None]]"


def traced_plain(attempt: Plain) -> Plain:
    """The same, within a span of its own; where nobody traces that costs a look."""

    @functools.wraps(attempt)
    def begin(run: Run) -> Verdict | None:
        if (NEVER and API not in modules) or tracing.tracer() is None:
            return attempt(run)
        span = tracing.attempting(run.claim)
        if span is None:
            return attempt(run)
        verdict: Verdict | None = None
        try:
            verdict = attempt(run)
        finally:
            span.ended(verdict)
        return verdict

    return begin


def traced_async(attempt: Async) -> Async:
    """As `traced_plain`, for coroutines."""

    @functools.wraps(attempt)
    def begin(run: Run) -> Awaitable[Verdict | None]:
        if (NEVER and API not in modules) or tracing.tracer() is None:
            return attempt(run)
        return within(run)

    async def within(run: Run) -> Verdict | None:
        span = tracing.attempting(run.claim)
        if span is None:
            return await attempt(run)
        verdict: Verdict | None = None
        try:
            verdict = await attempt(run)
        finally:
            span.ended(verdict)
        return verdict

    return begin
