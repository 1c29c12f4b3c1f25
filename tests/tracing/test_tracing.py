"""Traces: a span for each enqueue, one for each attempt that is linked to it, and nothing where nobody traces."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import baggage, context, propagate, trace
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from holdfast import Holdfast, Job, QueueFull
from holdfast.headers import headers_of
from holdfast.job import HEADERS_LIMIT
from holdfast.observe import tracing
from tests.tracing import office

PATIENCE = 40  # seconds


class Spans:
    """The spans that have ended."""

    def __init__(self) -> None:
        self.kept = InMemorySpanExporter()

    def of(self, kind: SpanKind) -> list[ReadableSpan]:
        return [span for span in self.kept.get_finished_spans() if span.kind is kind]

    @property
    def enqueued(self) -> list[ReadableSpan]:
        return self.of(SpanKind.PRODUCER)

    @property
    def attempts(self) -> list[ReadableSpan]:
        return self.of(SpanKind.CONSUMER)


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Spans:
    """An SDK is set, which keeps what ends."""
    provider, it = TracerProvider(), Spans()
    provider.add_span_processor(SimpleSpanProcessor(it.kept))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    return it


def about(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def named(span: ReadableSpan) -> str:
    """As a handler tells its own."""
    made = span.get_span_context()
    assert made is not None
    return f"{made.trace_id:032x}-{made.span_id:016x}"


def linked(span: ReadableSpan) -> list[str]:
    return [f"{link.context.trace_id:032x}-{link.context.span_id:016x}" for link in span.links]


async def ended(*made: Job[Any], worker: Any = None) -> None:
    """Runs these jobs to their ends, in a worker that has left by then: its spans have ended, too."""
    async with worker or office.jobs.worker(), asyncio.timeout(PATIENCE):
        for job in made:
            while not (await job.astatus()).finished:  # noqa: ASYNC110  # a handle tells nobody of its end
                await asyncio.sleep(0.005)


# --- where somebody traces


async def test_an_attempt_is_the_root_of_a_trace_of_its_own_linked_to_the_span_of_its_enqueue(spans: Spans) -> None:
    with trace.get_tracer("web").start_as_current_span("request") as request:
        job = await office.on_loop.aenqueue()
    await ended(job)
    [enqueue], [attempt] = spans.enqueued, spans.attempts
    assert enqueue.parent is not None
    assert enqueue.parent.span_id == request.get_span_context().span_id
    assert linked(attempt) == [named(enqueue)]
    assert attempt.parent is None
    assert (await job.aresult())["span"] == named(attempt), "it is the current one in the handler"
    assert enqueue.name == f"enqueue {office.on_loop.name}"
    assert attempt.name == f"process {office.on_loop.name}"
    assert about(enqueue) == {
        "messaging.system": "holdfast",
        "messaging.operation.name": "enqueue",
        "messaging.operation.type": "send",
        "messaging.destination.name": "mail",
        "messaging.message.id": str(job.id),
        "messaging.message.body.size": len(b"[]"),
        "holdfast.task": office.on_loop.name,
    }
    said = about(attempt)
    assert len(said.pop("messaging.client.id")) == 36
    assert said == {
        "messaging.system": "holdfast",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "mail",
        "messaging.message.id": str(job.id),
        "messaging.message.body.size": len(b"[]"),
        "holdfast.task": office.on_loop.name,
        "holdfast.attempt": 1,
        "holdfast.fence": 1,
        "holdfast.outcome": "succeeded",
    }
    assert attempt.status.status_code is StatusCode.UNSET


async def test_a_handler_in_a_thread_is_traced_and_what_it_enqueues_is_its_child(spans: Spans) -> None:
    job = await office.chains.aenqueue()
    await ended(job)
    following = office.jobs.job(await job.aresult())
    await ended(following)
    made = {span.name.split()[0] + span.name.rpartition(".")[2]: span for span in spans.kept.get_finished_spans()}
    first, enqueue, second = made["processchains"], made["enqueueon_loop"], made["processon_loop"]
    assert linked(second) == [named(enqueue)]
    parent = enqueue.parent
    assert parent is not None
    assert f"{parent.span_id:016x}" in named(first)


@pytest.mark.timeout(120)
async def test_in_a_process_of_its_own_too(spans: Spans, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACES", str(tmp_path / "spans"))
    job = await office.in_process.aenqueue()
    await ended(job)
    [span] = map(json.loads, (tmp_path / "spans").read_text().splitlines())
    found = f"{span['context']['trace_id'][2:]}-{span['context']['span_id'][2:]}"
    assert (await job.aresult())["span"] == found
    assert [f"{link['context']['trace_id'][2:]}-{link['context']['span_id'][2:]}" for link in span["links"]] == [
        named(spans.enqueued[0])
    ]
    assert span["attributes"]["holdfast.outcome"] == "succeeded"
    assert spans.attempts == [], "and once only"


async def test_every_attempt_has_a_span_and_a_failed_one_says_why(spans: Spans) -> None:
    job = await office.fails_once.aenqueue()
    await ended(job)
    first, second = spans.attempts
    assert linked(first) == linked(second) == [named(spans.enqueued[0])]
    assert [about(span)["holdfast.attempt"] for span in (first, second)] == [1, 2]
    assert (about(first)["holdfast.outcome"], about(first)["error.type"]) == ("failed", "KeyError")
    assert (first.status.status_code, first.status.description) == (StatusCode.ERROR, "KeyError: 'sku'")
    [event] = first.events
    assert event.name == "exception"
    assert event.attributes is not None
    assert (event.attributes["exception.type"], event.attributes["exception.message"]) == ("KeyError", "'sku'")
    assert "in fails_once" in str(event.attributes["exception.stacktrace"])
    assert second.status.status_code is StatusCode.UNSET


@pytest.mark.parametrize(
    ("bound", "outcomes", "error"),
    [
        (lambda: office.says.bind("snooze"), ["snoozed", "succeeded"], None),
        (lambda: office.says.bind("cancel"), ["cancelled"], None),
        (office.sleeps.bind, ["failed"], "TimeoutError"),
        (office.unfit.bind, ["failed"], "PayloadError"),
    ],
)
async def test_what_became_of_it_is_said_and_only_a_failure_is_an_error(
    spans: Spans, bound: Callable[[], Any], outcomes: list[str], error: str | None
) -> None:
    await ended(*await office.jobs.aenqueue_many([bound()]))
    assert [about(span)["holdfast.outcome"] for span in spans.attempts] == outcomes
    assert about(spans.attempts[-1]).get("error.type") == error
    assert (spans.attempts[-1].status.status_code is StatusCode.ERROR) is (error is not None)


@pytest.mark.parametrize("asynchronous", [True, False])
async def test_jobs_that_are_enqueued_together_share_the_span_of_the_call(spans: Spans, asynchronous: bool) -> None:
    bound = [office.on_loop.bind(), office.in_thread.bind()]
    made = (
        await office.jobs.aenqueue_many(bound)
        if asynchronous
        else await asyncio.to_thread(office.jobs.enqueue_many, iter(bound))
    )
    await ended(*made)
    [enqueue] = spans.enqueued
    assert enqueue.name == "enqueue_many"
    assert about(enqueue)["messaging.batch.message_count"] == 2
    assert about(enqueue)["messaging.destination.name"] == "mail"
    assert [linked(attempt) for attempt in spans.attempts] == [[named(enqueue)]] * 2
    assert "holdfast-job" in (await made[1].aresult())["thread"]


async def test_baggage_travels(spans: Spans) -> None:
    token = context.attach(baggage.set_baggage("customer", "42"))
    try:
        job = await office.in_thread.aenqueue()
    finally:
        context.detach(token)
    await ended(job)
    assert (await job.aresult())["customer"] == "42"


async def test_hooks_run_within_the_span(spans: Spans) -> None:
    await ended(await office.hooked_task.aenqueue(), worker=office.hooked.worker())
    assert about(spans.attempts[0])["hook"] is True


async def test_a_worker_within_somebodys_span_does_not_hand_that_on(spans: Spans) -> None:
    job = await office.in_thread.aenqueue()
    with trace.get_tracer("test").start_as_current_span("outer"):
        await ended(job)
    [attempt] = spans.attempts
    assert attempt.parent is None


def test_a_refused_enqueue_is_an_error_of_its_span(spans: Spans) -> None:
    jobs = Holdfast("memory://")
    jobs.queue("small", max_size=1)
    task = jobs.task(name="shop.small", queue="small")(lambda: None)
    task.enqueue()
    with pytest.raises(QueueFull):
        task.enqueue()
    assert [span.status.status_code for span in spans.enqueued] == [StatusCode.UNSET, StatusCode.ERROR]
    assert about(spans.enqueued[1])["error.type"] == "QueueFull"
    assert trace.get_current_span() is trace.INVALID_SPAN
    jobs.close()


# --- headers


def headers(job: Any) -> dict[str, str]:
    return dict(headers_of(job.draft.headers))


def test_headers_of_the_users_own_stay_and_their_traceparent_wins(spans: Spans) -> None:
    own = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}
    first, second = office.on_loop.using(headers={"a": "1"}).bind(), office.on_loop.using(headers=own).bind()
    office.jobs.enqueue_many([first, second])
    assert headers(first).keys() == {"a", "traceparent"}
    assert headers(second) == own


def test_a_bound_job_that_is_enqueued_again_keeps_what_it_carries(spans: Spans) -> None:
    bound = office.on_loop.bind()
    office.jobs.enqueue_many([bound])
    before = headers(bound)
    assert not office.jobs.enqueue_many([bound])[0].created
    assert headers(bound) == before


def test_headers_that_would_be_too_large_go_without(spans: Spans) -> None:
    own = {"a": "x" * (HEADERS_LIMIT - 20)}
    bound = office.on_loop.using(headers=own).bind()
    office.jobs.enqueue_many([bound])
    assert headers(bound) == own


def test_the_name_of_a_carried_variable_is_left_to_it(spans: Spans) -> None:
    jobs = Holdfast("memory://", carry=[ContextVar[str]("traceparent")])
    bound = jobs.task(name="shop.send")(lambda: None).bind()
    jobs.enqueue_many([bound])
    assert headers(bound) == {}
    jobs.close()


def test_what_is_no_job_is_refused_as_ever(spans: Spans) -> None:
    with pytest.raises(TypeError, match="is no bound job"):
        office.jobs.enqueue_many([7])  # type: ignore[list-item]


# --- where nobody traces


class NoOpProvider(trace.NoOpTracerProvider):
    """As one is set to switch tracing off."""


@pytest.mark.parametrize("provider", [None, NoOpProvider()])
async def test_without_an_sdk_nothing_travels(provider: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    assert tracing.tracer() is None
    bound = office.on_loop.bind()
    [job] = await office.jobs.aenqueue_many([bound])
    await ended(job)
    assert bound.draft.headers == ""
    assert (await job.aresult())["span"] == f"{0:032x}-{0:016x}"


def test_the_api_is_not_even_imported() -> None:
    code = """
import sys
from holdfast import Holdfast
jobs = Holdfast("memory://")
task = jobs.task(name="shop.send")(lambda: None)
with jobs.worker():
    assert task.enqueue().result(timeout=40) is None
assert not [name for name in sys.modules if name.startswith("opentelemetry")]
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_an_sdk_that_the_environment_names_is_found(tmp_path: Path) -> None:
    code = """
from holdfast.observe.tracing import tracer
assert tracer() is not None
assert tracer() is tracer()
"""
    named = {"OTEL_PYTHON_TRACER_PROVIDER": "sdk_tracer_provider"}
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, env=named)


# --- an SDK that raises


class Broken(SpanProcessor):
    """A user's own, with a bug."""

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        raise RuntimeError("no room")


class BrokenAtEnd(SpanProcessor):
    def on_end(self, span: Any) -> None:
        raise RuntimeError("no room")


class Rude(TextMapPropagator):
    """Injects what no header can be."""

    def inject(self, carrier: Any, context: Any = None, setter: Any = None) -> None:
        carrier |= {"x": b"1", "y": "\ud800", "holdfast.schedule": "forged", 5: "z", "traceparent": "kept"}

    def extract(self, carrier: Any, context: Any = None, getter: Any = None) -> Any:
        return context

    @property
    def fields(self) -> set[str]:
        return set()


async def test_what_a_propagator_injects_that_is_no_header_is_left_out(
    spans: Spans, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(propagate, "_HTTP_TEXT_FORMAT", Rude())
    bound = office.on_loop.bind()
    await office.jobs.aenqueue_many([bound])
    assert headers_of(bound.draft.headers) == {"traceparent": "kept"}
    assert len(spans.enqueued) == 1
    assert trace.get_current_span() is trace.INVALID_SPAN


@pytest.mark.parametrize("processor", [Broken(), BrokenAtEnd()])
async def test_an_sdk_that_raises_touches_no_job_and_is_told_of_once(
    processor: SpanProcessor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    provider = TracerProvider()
    provider.add_span_processor(processor)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    monkeypatch.setattr(tracing, "_told", False)
    with caplog.at_level(logging.WARNING, "holdfast"):
        made = [await office.on_loop.aenqueue(), await office.in_thread.aenqueue()]
        await ended(*made)
    assert [(await job.astatus()).state for job in made] == ["succeeded", "succeeded"]
    told = [line for line in caplog.messages if "event=tracing-failed" in line]
    assert len(told) == 1
    assert "no room" in told[0]
    assert trace.get_current_span() is trace.INVALID_SPAN
