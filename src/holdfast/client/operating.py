"""Operating on many jobs: finding them by a filter; cancelling, retrying, deleting what is found."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple, TypeAlias
from uuid import UUID

from holdfast.client.asking import Asking
from holdfast.client.filters import with_states
from holdfast.client.link import CHUNK, Link
from holdfast.client.reasons import asked_why
from holdfast.clock import Duration, moment
from holdfast.errors import ConfigError
from holdfast.handles import Job, JobStatus
from holdfast.job import CANCELLABLE, DELETABLE, REASON_LIMIT, RETRYABLE, LogLine, QueueTerms, Record, State, cut
from holdfast.naming import named
from holdfast.observe import logging as observed
from holdfast.options import until as as_until
from holdfast.store import Cursor, Roster, Stats, Store, Where

PAGE = 100
_DONE = ("done", "retried", "cancelled", "requested", "deleted")
_HELD = ("busy", "finishing")

Act: TypeAlias = Callable[[Store, list[UUID]], Awaitable[Sequence[str]]]  # the answers, in order


class Acted(NamedTuple):
    """What was done to the jobs that matched. `held` of them are as they were, since an open transaction of somebody
    else holds them: `first`, for one, and it is the transaction of `locker`, where that can be seen.
    """

    done: int
    held: int = 0
    first: UUID | None = None
    locker: str = ""

    def told(self) -> int:
        """How many were acted on; the log has the others."""
        if self.held:
            observed.tell(
                observed.jobs,
                observed.WARNING,
                "left-alone",
                count=self.held,
                job=self.first,
                by=self.locker or None,
                message=f"{self.why}; the others are done",
            )
        return self.done

    @property
    def why(self) -> str:
        """What is held, and by whom."""
        who = f" ({self.locker})" if self.locker else ""
        jobs = f"job {self.first}" if self.held == 1 else f"{self.held:,} jobs, such as {self.first}"
        return f"a transaction that is still open{who} holds {jobs}, or what it needs"


class Operating:
    """Reads and acts page by page, from the newest job to older ones."""

    def __init__(self, link: Link, asking: Asking) -> None:
        self._link = link
        self._asking = asking

    def records(self, where: Where, after: Cursor | None = None) -> Iterator[Record]:
        """The stored rows that match, newest first; for the command line and the pages."""
        while page := self._link.blocking("afind", self._page, where, after, PAGE):
            yield from page
            after = _cursor(page)

    def find(self, where: Where) -> Iterator[JobStatus[Any]]:
        for record in self.records(where):
            yield self._asking.snapshot(record, Job(self._asking, record.id))

    async def afind(self, where: Where) -> AsyncIterator[JobStatus[Any]]:
        after = None
        while page := await self._link.arun(self._page, where, after, PAGE):
            for record in page:
                yield self._asking.snapshot(record, Job(self._asking, record.id))
            after = _cursor(page)

    def retry(self, where: Where, *, dry_run: bool) -> Acted:
        return self._link.blocking("aretry", self._each, where, RETRYABLE, _retry, dry_run)

    async def aretry(self, where: Where, *, dry_run: bool) -> Acted:
        return await self._link.arun(self._each, where, RETRYABLE, _retry, dry_run)

    def cancel(self, where: Where, *, dry_run: bool) -> Acted:
        return self._link.blocking("acancel", self._each, where, CANCELLABLE, _cancel, dry_run)

    async def acancel(self, where: Where, *, dry_run: bool) -> Acted:
        return await self._link.arun(self._each, where, CANCELLABLE, _cancel, dry_run)

    def delete(self, where: Where, *, dry_run: bool) -> Acted:
        return self._link.blocking("adelete", self._each, where, DELETABLE, _delete, dry_run)

    async def adelete(self, where: Where, *, dry_run: bool) -> Acted:
        return await self._link.arun(self._each, where, DELETABLE, _delete, dry_run)

    def stats(self) -> Stats:
        """Every queue as it is now."""
        return self._link.run(self._stats)

    def log(self, id: UUID) -> Sequence[LogLine]:
        """The kept lines of a job's own log."""
        return self._link.run(self._log, id)

    def record(self, id: UUID) -> Record:
        """The stored row. Raises JobNotFound."""
        return self._link.run(self._asking.record, id)

    def ended(self, id: UUID, timeout: float) -> bool:
        """Waits up to so many seconds for a hint that the job has ended or is gone."""
        return self._link.run(self._ended, id, timeout)

    def why_not_begun(self, record: Record) -> str:
        """Why no worker has begun a scheduled or queued job, as far as the store can tell."""
        return self._link.run(self._why, record)

    def workers(self) -> Roster:
        """Every worker that the store knows."""
        return self._link.run(self._workers)

    def set_queue(self, name: str, terms: QueueTerms | None) -> None:
        """Lays down a queue's terms, whatever code declares; None takes that back."""
        self._link.run(self._set_queue, name, terms)

    def pause(self, queue: str, until: Duration | datetime | None, reason: str) -> None:
        self._link.blocking("apause", self._pause, queue, until, reason)

    async def apause(self, queue: str, until: Duration | datetime | None, reason: str) -> None:
        await self._link.arun(self._pause, queue, until, reason)

    def resume(self, queue: str) -> bool:
        return self._link.blocking("aresume", self._resume, queue)

    async def aresume(self, queue: str) -> bool:
        return await self._link.arun(self._resume, queue)

    # --- on the bridge's loop

    async def _pause(self, queue: str, until: Duration | datetime | None, reason: str) -> None:
        name, end = named(queue, "queue"), None if until is None else as_until(until, "until")
        if not isinstance(reason, str):
            raise ConfigError(f"reason={reason!r}: a text")
        if end is not None and end.at is not None and end.at <= (now := self._link.clock.now()):
            said = f"until={moment(end.at).isoformat()}"
            raise ConfigError(f"{said}: that is over, it is {moment(now).isoformat()} now; give a later time")
        await (await self._link.opened()).store.pause(name, end, cut(reason, REASON_LIMIT))

    async def _resume(self, queue: str) -> bool:
        return await (await self._link.opened()).store.resume(named(queue, "queue"))

    async def _stats(self) -> Stats:
        return await (await self._link.opened()).store.stats()

    async def _log(self, id: UUID) -> Sequence[LogLine]:
        return await (await self._link.opened()).store.log(id)

    async def _ended(self, id: UUID, timeout: float) -> bool:
        return await (await self._link.opened()).store.watch([id], timeout)

    async def _why(self, record: Record) -> str:
        return await asked_why((await self._link.opened()).store, record)

    async def _workers(self) -> Roster:
        return await (await self._link.opened()).store.workers()

    async def _set_queue(self, name: str, terms: QueueTerms | None) -> None:
        await (await self._link.opened()).store.configure({name: terms}, by="operator")

    async def _page(self, where: Where, after: Cursor | None, limit: int) -> Sequence[Record]:
        store = (await self._link.opened()).store
        return await store.find(where, after, limit)

    async def _each(self, where: Where, among: frozenset[State], act: Act, dry_run: bool) -> Acted:
        """Acts on what matches now: pages go from the newest to older ones, so that later jobs are not touched."""
        if where == Where():
            raise ConfigError("no filter is given: name at least one, for example state='dead' or queue='mail'")
        states = among if where.states is None else among.intersection(where.states)
        done, held, after = 0, list[UUID](), None
        wanted, store = with_states(where, states), (await self._link.opened()).store
        while states and (page := await store.find(wanted, after, CHUNK)):
            ids = [record.id for record in page]
            answers = ["done"] * len(ids) if dry_run else await act(store, ids)
            done += sum(answer in _DONE for answer in answers)
            held += [job for job, answer in zip(ids, answers, strict=True) if answer in _HELD]
            after = _cursor(page)
        return Acted(done, len(held), held[0], await store.locker(held[0])) if held else Acted(done)


async def _retry(store: Store, ids: list[UUID]) -> Sequence[str]:
    return [retried.answer for retried in await store.retry(ids)]


async def _cancel(store: Store, ids: list[UUID]) -> Sequence[str]:
    return await store.cancel(ids)


async def _delete(store: Store, ids: list[UUID]) -> Sequence[str]:
    return await store.delete(ids)


def _cursor(page: Sequence[Record]) -> Cursor:
    return page[-1].enqueued_at, page[-1].id
