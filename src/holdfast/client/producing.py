"""Enqueueing: bound jobs to the store, one or many, in the caller's transaction or not."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from typing import Any, Literal, NamedTuple, TypeVar
from uuid import UUID

from holdfast.bridge import run_here
from holdfast.client import traced
from holdfast.client.asking import Asking
from holdfast.client.link import CHUNK, Link, Opened, on_a_loop
from holdfast.client.patience import Patience
from holdfast.client.queues import Queues
from holdfast.client.refusals import Answered, Answers
from holdfast.clock import Instant
from holdfast.errors import ConfigError, StoreAway, StoreError
from holdfast.handles import Job, NewJob
from holdfast.headers import Carry
from holdfast.job import Draft, Record
from holdfast.observe import logging as observed
from holdfast.store import Receipt, Where

R = TypeVar("R")

_ON_A_LOOP = "a blocking call on a running event loop does not wait for a place, as nothing else would run: await {}()"
_STOOD_IN = "here nothing runs meanwhile, so that no place would come free"


class Producing:
    """Stores bound jobs. Calls are split into chunks; each job is atomic by itself."""

    def __init__(self, link: Link, asking: Asking, carry: Carry, queues: Queues) -> None:
        self._link = link
        self._asking = asking
        self._queues = queues
        self._carried = carry.variables
        self.headers = carry.text

    def now(self) -> Instant:
        return self._link.clock.now()

    def job(self, id: UUID | str) -> Job[Any]:
        return self._asking.job(id)

    def store(self, job: NewJob[R], connection: object) -> Job[R]:
        with traced.one(job, self._carried):
            if connection is not None:
                return self._within([job], connection)[0]
            drafts, patience = [job.draft], self._patience("aenqueue")
            with _unclear(drafts, ()):
                answered = self._link.blocking("aenqueue", self._put, drafts, patience)
            return self._one(job, answered, patience)

    async def astore(self, job: NewJob[R], connection: object) -> Job[R]:
        with traced.one(job, self._carried):
            if connection is not None:
                return (await self._awithin([job], connection))[0]
            drafts, patience = [job.draft], self._patience()
            with _unclear(drafts, ()):
                answered = await self._link.arun(self._put, drafts, patience)
            return self._one(job, answered, patience)

    def _one(self, job: NewJob[R], answered: Answered, patience: Patience) -> Job[R]:
        """The handle of the one job of a call: the way that most take, so it is short."""
        [receipt] = answered.receipts
        if receipt.answer == "accepted":
            return Job(self._asking, receipt.id, created=receipt.created)
        answers = self._answers()
        answers.take([job], *answered)
        return answers.all_accepted(patience.why)[0]

    async def astore_many(self, jobs: Iterable[NewJob[R]], connection: object) -> list[Job[R]]:
        with traced.many(self._carried) as span:
            return await self._astore_many(span.marked(jobs), connection)

    def store_many(self, jobs: Iterable[NewJob[R]], connection: object) -> list[Job[R]]:
        with traced.many(self._carried) as span:
            return self._store_many(span.marked(jobs), connection)

    async def _astore_many(self, jobs: Iterable[NewJob[R]], connection: object) -> list[Job[R]]:
        if connection is not None:
            return await self._awithin(list(jobs), connection)
        source, answers, patience = iter(jobs), self._answers(), self._patience()
        while chunk := list(islice(source, CHUNK)):
            drafts = _drafts(chunk)
            with _unclear(drafts, answers.accepted):
                answers.take(chunk, *await self._link.arun(self._put, drafts, patience))
        return answers.all_accepted(patience.why)

    def _store_many(self, jobs: Iterable[NewJob[R]], connection: object) -> list[Job[R]]:
        if connection is not None:
            return self._within(list(jobs), connection)
        source, answers, patience = iter(jobs), self._answers(), self._patience("aenqueue_many")
        while chunk := list(islice(source, CHUNK)):
            drafts = _drafts(chunk)
            with _unclear(drafts, answers.accepted):
                answers.take(chunk, *self._link.blocking("aenqueue_many", self._put, drafts, patience))
        return answers.all_accepted(patience.why)

    def _answers(self) -> Answers:
        return Answers(self._asking, self._link.fullness.retry_after)

    def _patience(self, twin: str | None = None) -> Patience:
        if self._link.stood_in:
            return Patience(_STOOD_IN)
        return Patience(_ON_A_LOOP.format(twin) if twin and on_a_loop() else "")

    # --- on the bridge's loop

    async def _put(self, drafts: list[Draft], patience: Patience) -> Answered:
        self._link.may_enqueue()
        with _stored(None):
            opened = await self._link.opened()
            self._warn_if_lonely(opened)
            if self._queues.terms:
                await opened.told.before(drafts)
        receipts = await opened.put(drafts)
        if self._link.fullness.no_news(receipts):
            return Answered(receipts)
        receipts = await self._until_there_is_room(opened, drafts, receipts, patience)
        return Answered(receipts, await self._holder(opened, receipts))

    async def _until_there_is_room(
        self, opened: Opened, drafts: list[Draft], met: Sequence[Receipt], patience: Patience
    ) -> list[Receipt]:
        receipts = self._seen(drafts, met)
        while waiting := [n for n, receipt in enumerate(receipts) if patience.waits(drafts[n], receipt)]:
            await asyncio.sleep(patience.pause(drafts[waiting[0]].queue, receipts[waiting[0]]))
            some = _that_could_fit(waiting, drafts, receipts)
            again = [drafts[n] for n in some]
            # What hangs on a stranger's transaction goes alone: it would hold up whoever is in the same batch.
            held_up = any(receipts[n].answer == "busy" for n in some)
            with _stored("some"):
                answers = await (opened.store.enqueue(again) if held_up else opened.put(again))
            for n, receipt in zip(some, self._seen(again, answers), strict=True):
                receipts[n] = receipt
                if receipt.answer not in ("full", "busy"):
                    patience.progress(drafts[n].queue)
        return receipts

    async def _holder(self, opened: Opened, receipts: Sequence[Receipt]) -> Record | None:
        """The job that keeps the first of the refused from its key, for the text of the error."""
        met = [receipt.holder for receipt in receipts if receipt.answer == "taken" and receipt.holder]
        with suppress(StoreError):
            if met and (found := await opened.store.find(Where(ids=(met[0],)), None, 1)):
                return found[0]
        return None

    def _seen(self, drafts: Sequence[Draft], receipts: Sequence[Receipt]) -> list[Receipt]:
        for draft, receipt in zip(drafts, receipts, strict=True):
            self._link.fullness.seen(draft, receipt)
        return list(receipts)

    def _warn_if_lonely(self, opened: Opened) -> None:
        alone = not (self._link.workers or self._link.stood_in or opened.store.shared)
        if alone and self._link.first("memory"):
            observed.tell(
                observed.stores,
                observed.WARNING,
                "lonely",
                store=opened.store.url,
                message="only a worker in this very process can run these jobs, and there is none: with jobs.worker():",
            )

    # --- in the caller's transaction, on his own thread or loop

    def _within(self, jobs: list[NewJob[Any]], connection: object) -> list[Job[Any]]:
        drafts, opened = _drafts(jobs), self._link.run(self._link.opened)
        receipts = run_here(self._enqueue_within(opened, drafts, connection))
        if _unreserved(receipts):
            kept = self._link.run(self._reserve, opened, drafts, receipts)
            receipts = kept.receipts
            if kept.drafts:
                receipts = kept.with_answers(run_here(self._enqueue_within(opened, kept.drafts, connection)))
        return self._all_or_nothing(jobs, Answered(receipts, self._link.run(self._holder, opened, receipts)))

    async def _awithin(self, jobs: list[NewJob[Any]], connection: object) -> list[Job[Any]]:
        drafts, opened = _drafts(jobs), await self._link.arun(self._link.opened)
        receipts = await self._enqueue_within(opened, drafts, connection)
        if _unreserved(receipts):
            kept = await self._link.arun(self._reserve, opened, drafts, receipts)
            receipts = kept.receipts
            if kept.drafts:
                receipts = kept.with_answers(await self._enqueue_within(opened, kept.drafts, connection))
        return self._all_or_nothing(jobs, Answered(receipts, await self._link.arun(self._holder, opened, receipts)))

    async def _enqueue_within(self, opened: Opened, drafts: list[Draft], connection: object) -> Sequence[Receipt]:
        self._link.may_enqueue()
        return await opened.store.enqueue(drafts, connection, self._queues.of(drafts))

    async def _reserve(self, opened: Opened, drafts: list[Draft], met: Sequence[Receipt]) -> Kept:
        """On the bridge's loop: places for drafts of a caller's transaction, which keeps its locks meanwhile."""
        await opened.told.before(drafts)
        patience = Patience("it keeps its locks")
        receipts = [Receipt(draft.id, "accepted", created=False) for draft in drafts]  # the others need none
        asked: list[int] = [n for n, receipt in enumerate(met) if receipt.answer == "unreserved"]
        while asked:
            for n, receipt in zip(asked, await opened.store.reserve([drafts[n] for n in asked]), strict=True):
                receipts[n] = receipt
            asked = [n for n in asked if receipts[n].answer == "busy"]
            if not asked or not patience.waits(drafts[asked[0]], receipts[asked[0]]):
                break
            await asyncio.sleep(patience.pause(drafts[asked[0]].queue, receipts[asked[0]]))
        return Kept.of(drafts, receipts)

    def _all_or_nothing(self, jobs: list[NewJob[Any]], answered: Answered) -> list[Job[Any]]:
        answers, patience = self._answers(), Patience("with connection= nobody waits for a place: it keeps its locks")
        for job, receipt in zip(jobs, self._seen(_drafts(jobs), answered.receipts), strict=True):
            patience.waits(job.draft, receipt)
        answers.take(jobs, *answered)
        return answers.all_accepted(patience.why, all_or_nothing=True)


class Kept(NamedTuple):
    """The places that were kept for a caller's transaction. `drafts`: what it can store with them, if none is refused;
    a draft that was dropped is not stored, and keeps nobody from it.
    """

    receipts: Sequence[Receipt]
    drafts: list[Draft]

    @classmethod
    def of(cls, drafts: Sequence[Draft], receipts: Sequence[Receipt]) -> Kept:
        if any(receipt.refused for receipt in receipts):
            return cls([receipt._replace(dropped=None) for receipt in receipts], [])
        return cls(receipts, [d for d, receipt in zip(drafts, receipts, strict=True) if receipt.answer == "accepted"])

    def with_answers(self, answers: Sequence[Receipt]) -> list[Receipt]:
        """All receipts, in order: those of the transaction, and those of the drafts that were dropped."""
        left = iter(answers)
        return [
            next(left)._replace(dropped=kept.dropped) if kept.answer == "accepted" else kept for kept in self.receipts
        ]


def _unreserved(receipts: Sequence[Receipt]) -> bool:
    return any(receipt.answer == "unreserved" for receipt in receipts)


def _that_could_fit(waiting: list[int], drafts: list[Draft], receipts: list[Receipt]) -> list[int]:
    """Of each queue no more than it has places: a long call does not ask for all of its jobs again and again."""
    asked, some = Counter[str](), list[int]()
    for n in waiting:
        room, queue = receipts[n].room, drafts[n].queue
        if room is None or asked[queue] < room.bound:
            asked[queue] += 1
            some.append(n)
    return some


@contextmanager
def _unclear(drafts: Sequence[Draft], stored: Sequence[object]) -> Generator[None]:
    """Notes on an error what may have become of the jobs, so that the caller can find out: on all but those that say
    that nothing was stored, since a signal's handler may raise anything in the middle of a call.
    """
    try:
        yield
    except BaseException as error:
        if _refuses(error):
            if stored and isinstance(error, StoreAway):
                error.add_note(f"{len(stored)} jobs of this call were stored before, the others were not")
            raise
        ids = ", ".join(str(draft.id) for draft in drafts[:3]) + (", …" if len(drafts) > 3 else "")
        error.add_note(
            f"{len(stored)} jobs were stored before; {len(drafts)} may have been or not: {ids}. Look with "
            "jobs.job(id).status(), or enqueue the same bound jobs again: what is stored already is not stored twice"
        )
        raise


@contextmanager
def _stored(what: Literal["some"] | None) -> Generator[None]:
    """Where the store is away here, this is what is stored of the chunk by then."""
    try:
        yield
    except StoreAway as error:
        error.certain = what is None
        raise


def _refuses(error: BaseException) -> bool:
    if isinstance(error, StoreAway):
        return error.certain
    return isinstance(error, (ConfigError, StoreError, Warning))


def _drafts(jobs: Sequence[NewJob[Any]]) -> list[Draft]:
    for job in jobs:
        if not isinstance(job, NewJob):
            raise TypeError(f"{job!r} is no bound job: make one with task.bind(...)")
    return [job.draft for job in jobs]
