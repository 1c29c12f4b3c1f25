"""An app that is traced: what its tests import, and the processes for single attempts that they have made."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from opentelemetry import baggage, trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

from holdfast import Cancel, CurrentJob, Holdfast, Retry, Snooze, current_job

jobs = Holdfast("memory://", retry=Retry(max_attempts=2, base_delay=0))
hooked = Holdfast("memory://")


class InFile(SpanExporter):
    """Writes each span as a line of JSON."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        with self._path.open("a") as file:
            file.writelines(span.to_json(indent=None) + "\n" for span in spans)
        return SpanExportResult.SUCCESS


if "TRACES" in os.environ and "pytest" not in sys.modules:  # in a process for single attempts
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(InFile(Path(os.environ["TRACES"]))))
    trace.set_tracer_provider(provider)


def seen() -> dict[str, str]:
    """What a handler sees of its trace."""
    span = trace.get_current_span().get_span_context()
    return {"span": f"{span.trace_id:032x}-{span.span_id:016x}", "customer": str(baggage.get_baggage("customer"))}


@jobs.task(queue="mail")
async def on_loop() -> dict[str, str]:
    await asyncio.sleep(0)
    return seen()


@jobs.task(queue="mail")
def in_thread() -> dict[str, str]:
    return seen() | {"thread": threading.current_thread().name}


@jobs.task(queue="mail", run_in="process")
def in_process() -> dict[str, str]:
    return seen() | {"pid": str(os.getpid())}


@jobs.task
async def fails_once() -> int:
    if current_job().attempt == 1:
        raise KeyError("sku")
    return 2


@jobs.task
def says(word: str) -> None:
    if word == "snooze" and current_job().fence == 1:
        raise Snooze(0)
    if word == "cancel":
        raise Cancel("not wanted")


@jobs.task(timeout=0.05, retry=Retry(max_attempts=1))
async def sleeps() -> None:
    await asyncio.sleep(3600)


@jobs.task(retry=Retry(max_attempts=1))
def unfit() -> object:
    return object()


@jobs.task
def chains() -> str:
    return str(on_loop.enqueue().id)


@hooked.around
def note(_: CurrentJob) -> Iterator[None]:
    trace.get_current_span().set_attribute("hook", True)
    yield


@hooked.task
def hooked_task() -> None:
    pass
