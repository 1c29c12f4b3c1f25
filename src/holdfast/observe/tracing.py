"""Traces, for apps that have an OpenTelemetry SDK set: a span for each enqueue, and one for each attempt, linked to it.

The context travels in the job's headers, as the propagators that are set write it ("traceparent", by default). Only
the API is used. Where no SDK is set, or the package is absent, nothing is made and nothing travels; to know that costs
a look into `sys.modules`. An SDK that raises is told of once, and never touches a job.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias

from holdfast.headers import Headers, headers_of
from holdfast.job import Cancelled, Claim, Failed, Failure, Lost, Released, Snoozed, Succeeded, Verdict
from holdfast.observe.logging import tell, workers

if TYPE_CHECKING:
    from contextvars import Token

    from opentelemetry.context import Context
    from opentelemetry.trace import Link, Span, SpanKind, Tracer

About: TypeAlias = Mapping[str, str | int | bool]

API = "opentelemetry.trace"
BY_ENVIRONMENT = "OTEL_PYTHON_TRACER_PROVIDER" in os.environ  # the one way to set an SDK without importing the API
_SYSTEM = {"messaging.system": "holdfast"}
_OUTCOMES: dict[type[Verdict], str] = {
    Succeeded: "succeeded",
    Failed: "failed",
    Snoozed: "snoozed",
    Cancelled: "cancelled",
    Released: "released",
    Lost: "lost",
}

_known: tuple[object, Tracer | None] = (None, None)  # the provider that was seen last, and what it makes
_told = False


def tracer() -> Tracer | None:
    """What makes spans; None where no SDK is set."""
    api = sys.modules.get(API)
    if api is None and not BY_ENVIRONMENT:
        return None
    # Its own variable where it has one, since its function looks into the environment each time, which is slow.
    provider = getattr(api, "_TRACER_PROVIDER", _known) if not BY_ENVIRONMENT else _known
    if provider is None:
        return None
    return _known[1] if provider is _known[0] else _asked_for()


def enqueuing(what: str, about: About) -> Traced | None:
    """Begins the span of a call that enqueues, as the current one. None where nobody traces."""
    made = tracer()
    if made is None:
        return None
    try:
        from opentelemetry.trace import SpanKind

        about = {"messaging.operation.name": "enqueue", "messaging.operation.type": "send", **about}
        return Traced(made, what, SpanKind.PRODUCER, about)
    except Exception as error:  # noqa: BLE001  # a processor or sampler of the user's
        _tell(error)
        return None


def attempting(claim: Claim) -> Traced | None:
    """Begins the span of an attempt, as the current one: the root of a trace of its own. None where nobody traces."""
    made = tracer()
    if made is None:
        return None
    try:
        from opentelemetry import propagate, trace

        sent = propagate.extract(dict(headers_of(claim.headers)))  # with the baggage that travelled
        link = trace.get_current_span(sent).get_span_context()
        return Traced(
            made,
            f"process {claim.task}",
            trace.SpanKind.CONSUMER,
            _about(claim),
            trace.set_span_in_context(trace.INVALID_SPAN, sent),
            [trace.Link(link)] if link.is_valid else [],
        )
    except Exception as error:  # noqa: BLE001  # as above
        _tell(error)
        return None


class Traced:
    """A span that is the current one until its end. `carried`: the headers that make jobs' attempts link to it."""

    def __init__(
        self,
        tracer: Tracer,
        name: str,
        kind: SpanKind,
        about: About,
        parent: Context | None = None,
        links: list[Link] | None = None,
    ) -> None:
        from opentelemetry import context, trace

        self._span: Span = tracer.start_span(name, parent, kind, {**_SYSTEM, **about}, links)
        self._token: Token[Context] = context.attach(trace.set_span_in_context(self._span, parent))

    @property
    def carried(self) -> Headers:
        carried: dict[str, str] = {}
        try:
            from opentelemetry import propagate

            propagate.inject(carried)
        except Exception as error:  # noqa: BLE001  # as above
            _tell(error)
        return carried

    def note(self, about: About) -> None:
        """What is known only now."""
        try:
            self._span.set_attributes(about)
        except Exception as error:  # noqa: BLE001  # as above
            _tell(error)

    def ended(self, verdict: Verdict | None) -> None:
        """Ends the span of an attempt; None: its claim was lost while it ran."""
        self.note({"holdfast.outcome": "lost" if verdict is None else _OUTCOMES[type(verdict)]})
        if isinstance(verdict, Failed):
            self.failed(verdict.error)
        elif verdict is None:
            self.failed(Failure("Lost", "the claim was lost while it ran", ""))
        self.end()

    def failed(self, error: Failure) -> None:
        """Records an error, as the conventions for exceptions have it."""
        try:
            from opentelemetry.trace import Status, StatusCode

            about = {"exception.type": error.type, "exception.message": error.message}
            self._span.add_event("exception", {**about, "exception.stacktrace": error.traceback})
            self._span.set_attribute("error.type", error.type)
            self._span.set_status(Status(StatusCode.ERROR, f"{error.type}: {error.message}"))
        except Exception as broken:  # noqa: BLE001  # as above
            _tell(broken)

    def end(self) -> None:
        from opentelemetry import context

        context.detach(self._token)
        try:
            self._span.end()
        except Exception as error:  # noqa: BLE001  # as above
            _tell(error)


def _about(claim: Claim) -> About:
    return {
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": claim.queue,
        "messaging.message.id": str(claim.id),
        "messaging.message.body.size": len(claim.payload),
        "messaging.client.id": str(claim.worker),
        "holdfast.task": claim.task,
        "holdfast.attempt": claim.attempt,
        "holdfast.fence": claim.fence,
    }


def _asked_for() -> Tracer | None:
    global _known  # noqa: PLW0603  # an SDK is set for the whole process
    try:
        from opentelemetry import trace

        provider = trace.get_tracer_provider()
        if provider is not _known[0]:
            none = isinstance(provider, (trace.ProxyTracerProvider, trace.NoOpTracerProvider))
            made = None if none else trace.get_tracer("holdfast", tracer_provider=provider)
            _known = (provider, None if isinstance(made, trace.NoOpTracer) else made)
    except Exception as error:  # noqa: BLE001  # it is named in the environment, but absent; or another thread imports it
        _tell(error)
        return None
    return _known[1]


def _tell(error: Exception) -> None:
    global _told  # noqa: PLW0603  # once for the process
    if not _told:
        _told = True
        tell(workers, logging.WARNING, "tracing-failed", error=repr(error), message="jobs run on without those spans")
