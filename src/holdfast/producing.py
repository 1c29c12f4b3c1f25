"""Enqueueing: drafts to the store, one or many, in the caller's transaction or not; receipts to handles."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar
from uuid import UUID

from holdfast.asking import Asking
from holdfast.bridge import run_here
from holdfast.errors import ConfigError, IdConflict, StoreAway, StoreError
from holdfast.handles import Job, NewJob
from holdfast.job import Draft
from holdfast.link import CHUNK, Link
from holdfast.observe import logging as observed
from holdfast.store import Receipt, Store

R = TypeVar("R")


class Producing:
    """Stores bound jobs."""

    def __init__(self, link: Link, asking: Asking) -> None:
        self._link = link
        self._asking = asking

    def store(self, job: NewJob[R], connection: object) -> Job[R]:
        if connection is not None:
            return self._within([job.draft], connection)[0]
        with _unclear([job.draft], ()):
            return self._one(self._link.blocking("aenqueue", self._put, [job.draft]))

    async def astore(self, job: NewJob[R], connection: object) -> Job[R]:
        if connection is not None:
            return (await self._awithin([job.draft], connection))[0]
        with _unclear([job.draft], ()):
            return self._one(await self._link.arun(self._put, [job.draft]))

    def store_many(self, jobs: Iterable[NewJob[R]], connection: object) -> list[Job[R]]:
        if connection is not None:
            return self._within([_draft(job) for job in jobs], connection)
        source, stored, refused = iter(jobs), list[Job[R]](), list[UUID]()
        while chunk := [_draft(job) for job in islice(source, CHUNK)]:
            with _unclear(chunk, stored):
                self._collect(self._link.blocking("aenqueue_many", self._put, chunk), stored, refused)
        return self._complete(stored, refused)

    async def astore_many(self, jobs: Iterable[NewJob[R]], connection: object) -> list[Job[R]]:
        if connection is not None:
            return await self._awithin([_draft(job) for job in jobs], connection)
        source, stored, refused = iter(jobs), list[Job[R]](), list[UUID]()
        while chunk := [_draft(job) for job in islice(source, CHUNK)]:
            with _unclear(chunk, stored):
                self._collect(await self._link.arun(self._put, chunk), stored, refused)
        return self._complete(stored, refused)

    def job(self, id: UUID | str) -> Job[Any]:
        return self._asking.job(id)

    async def _put(self, drafts: list[Draft]) -> Sequence[Receipt]:
        self._link.may_enqueue()
        place, batcher = await self._link.opened()
        if not self._link.workers and not place.shared and self._link.first("memory"):
            observed.tell(
                observed.stores,
                observed.WARNING,
                "lonely",
                store=place.url,
                message="only a worker in this very process can run these jobs, and there is none yet: jobs.worker()",
            )
        return await batcher.put(drafts)

    def _within(self, drafts: list[Draft], connection: object) -> list[Job[Any]]:
        place = self._link.run(self._link.opened).place
        return self._complete(*self._collect(run_here(self._enqueue_within(place, drafts, connection)), [], []))

    async def _awithin(self, drafts: list[Draft], connection: object) -> list[Job[Any]]:
        place = (await self._link.arun(self._link.opened)).place
        return self._complete(*self._collect(await self._enqueue_within(place, drafts, connection), [], []))

    async def _enqueue_within(self, place: Store, drafts: list[Draft], connection: object) -> Sequence[Receipt]:
        self._link.may_enqueue()
        return await place.enqueue(drafts, connection)

    def _one(self, receipts: Sequence[Receipt]) -> Job[Any]:
        return self._complete(*self._collect(receipts, [], []))[0]

    def _collect(
        self, receipts: Sequence[Receipt], stored: list[Job[Any]], refused: list[UUID]
    ) -> tuple[list[Job[Any]], list[UUID]]:
        for receipt in receipts:
            if receipt.answer == "conflict":
                refused.append(receipt.id)
            else:
                stored.append(Job(self._asking, receipt.id, created=receipt.created))
        return stored, refused

    def _complete(self, stored: list[Job[Any]], refused: list[UUID]) -> list[Job[Any]]:
        if refused:
            some = ", ".join(map(str, refused[:5])) + (", …" if len(refused) > 5 else "")
            raise IdConflict(
                f"{len(refused)} of {len(refused) + len(stored)} jobs have the id of a stored job with another task, "
                f"queue or arguments: {some}; bind() makes a new id for each job"
            )
        return stored


@contextmanager
def _unclear(drafts: Sequence[Draft], stored: Sequence[object]) -> Generator[None]:
    """Notes on an error what may have become of the jobs, so that the caller can find out: on all but those that say
    that nothing was stored, since a signal's handler may raise anything in the middle of a call.
    """
    try:
        yield
    except BaseException as error:
        if _refuses(error):
            raise
        ids = ", ".join(str(draft.id) for draft in drafts[:3]) + (", …" if len(drafts) > 3 else "")
        error.add_note(
            f"{len(stored)} jobs were stored before; {len(drafts)} may have been or not: {ids}. Look with "
            "jobs.job(id).status(), or enqueue the same bound jobs again: what is stored already is not stored twice"
        )
        raise


def _refuses(error: BaseException) -> bool:
    if isinstance(error, StoreAway):
        return False
    return isinstance(error, (ConfigError, StoreError, Warning))


def _draft(job: NewJob[Any]) -> Draft:
    if not isinstance(job, NewJob):
        raise TypeError(f"{job!r} is no bound job: make one with task.bind(...)")
    return job.draft
