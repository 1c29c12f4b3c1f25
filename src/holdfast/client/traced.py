"""The span of a call that enqueues: begun with it, current while it lasts, and carried by its jobs in their headers."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from holdfast.handles import NewJob
from holdfast.headers import OURS, Headers, headers_of, with_more
from holdfast.observe import tracing
from holdfast.policy import failure

R = TypeVar("R")


class Span(Protocol):
    """What is entered for the length of a call."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None, /
    ) -> None: ...

    def marked(self, jobs: Iterable[NewJob[R]]) -> Iterable[NewJob[R]]:
        """The same jobs, which carry the span from when they are taken."""
        ...


def one(job: NewJob[Any], kept: Collection[str]) -> Span:
    """For a call with this job. `kept`: names of headers that are not ours to set."""
    if tracing.tracer() is None:
        return _nobody
    draft = job.draft
    about: tracing.About = {
        "messaging.destination.name": draft.queue,
        "messaging.message.id": str(draft.id),
        "messaging.message.body.size": len(draft.payload),
        "holdfast.task": draft.task,
    }
    made = tracing.enqueuing(f"enqueue {draft.task}", about)
    return _nobody if made is None else _Call(made, kept, job)


def many(kept: Collection[str]) -> Span:
    """As `one`, for a call with any number of jobs."""
    made = tracing.enqueuing("enqueue_many", {})
    return _nobody if made is None else _Call(made, kept)


class _Nobody:
    """Where nobody traces."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def marked(self, jobs: Iterable[NewJob[R]]) -> Iterable[NewJob[R]]:
        return jobs


_nobody = _Nobody()


class _Call:
    def __init__(self, span: tracing.Traced, kept: Collection[str], job: NewJob[Any] | None = None) -> None:
        self._span = span
        self._carried: Headers = {
            name: text for name, text in span.carried.items() if name not in kept and _is_header(name, text)
        }
        self._count = 0
        self._queues = set[str]()
        self._alone = job is not None
        if job is not None:
            self._mark(job)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if not self._alone:
            self._span.note({"messaging.batch.message_count": self._count})
            if len(self._queues) == 1:
                self._span.note({"messaging.destination.name": self._queues.pop()})
        if isinstance(error, Exception):
            self._span.failed(failure(error))
        self._span.end()

    def marked(self, jobs: Iterable[NewJob[R]]) -> Iterator[NewJob[R]]:
        for job in jobs:
            if isinstance(job, NewJob):  # else it is refused where all are looked at
                self._mark(job)
            yield job

    def _mark(self, job: NewJob[Any]) -> None:
        draft = job.draft
        self._count += 1
        self._queues.add(draft.queue)
        if self._carried.keys().isdisjoint(headers_of(draft.headers)):
            job.draft = replace(draft, headers=with_more(draft.headers, self._carried))


def _is_header(name: Any, text: Any) -> bool:
    """Whether a job can carry it: a propagator injects what it likes, and that is no job's affair."""
    if not (isinstance(name, str) and isinstance(text, str)) or name.startswith(OURS):
        return False
    try:
        (name + text).encode()
    except UnicodeEncodeError:
        return False
    return True
