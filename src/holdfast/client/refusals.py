"""From receipts to what producers get: handles of what is stored, and one error for what is not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Never

from holdfast.client.queues import full_text
from holdfast.errors import IdConflict, JobCancelled, JobNotFound, QueueFull, Refused, StoreAway, UniqueConflict
from holdfast.handles import Asked, Job, NewJob
from holdfast.job import Draft, Record
from holdfast.store import Receipt, Room

SHOWN = 5  # ids in a message


class Answered(NamedTuple):
    """The receipts of one call; `holder` is the job that has the first unique key that was found taken."""

    receipts: Sequence[Receipt]
    holder: Record | None = None


class Refusal(NamedTuple):
    job: NewJob[Any]
    receipt: Receipt


class Answers:
    """What became of the jobs of one call."""

    def __init__(self, asked: Asked, retry_after: Callable[[str], float]) -> None:
        self._asked = asked
        self._retry_after = retry_after
        self.accepted: list[Job[Any]] = []
        self._given: list[NewJob[Any]] = []
        self._refused: list[Refusal] = []
        self._holder: Record | None = None

    def take(self, jobs: Sequence[NewJob[Any]], receipts: Sequence[Receipt], holder: Record | None) -> None:
        self._holder = self._holder or holder
        self._given += jobs
        for job, receipt in zip(jobs, receipts, strict=True):
            if receipt.refused:
                self._refused.append(Refusal(job, receipt))
            else:
                self.accepted.append(self._handle(job, receipt))

    def all_accepted(self, why: str = "", *, all_or_nothing: bool = False) -> list[Job[Any]]:
        """The handles. Raises IdConflict, UniqueConflict or QueueFull, in this order, if any job was refused; `why`:
        what kept the call from waiting for a place. StoreAway where transactions of others kept jobs out.
        """
        if not self._refused:
            return self.accepted
        jobs = [refusal.job for refusal in self._refused]
        if all_or_nothing:
            self.accepted, jobs = [], self._given
        for answer, error in (("conflict", self._conflict), ("taken", self._taken), ("full", self._full)):
            met = [refusal for refusal in self._refused if refusal.receipt.answer == answer]
            if met:
                raise error(met, jobs, self._rest(len(met), all_or_nothing=all_or_nothing), why)
        raise self._undecided(all_or_nothing=all_or_nothing)

    def _handle(self, job: NewJob[Any], receipt: Receipt) -> Job[Any]:
        if receipt.answer == "accepted":
            return Job(self._asked, receipt.id, created=receipt.created)
        if receipt.answer == "dropped":
            return Job(_NeverStored(job, receipt.room), receipt.id, created=False)
        return Job(self._asked, receipt.holder or receipt.id, created=False)

    def _conflict(self, met: list[Refusal], jobs: list[NewJob[Any]], rest: str, why: str) -> Refused:
        del why
        some = ", ".join(str(job.id) for job, _ in met[:SHOWN]) + (", …" if len(met) > SHOWN else "")
        return IdConflict(
            f"{len(met)} of {len(self._given)} jobs have the id of a stored job with another task, queue or arguments: "
            f"{some}; bind() makes a new id for each job{rest}",
            self.accepted,
            jobs,
        )

    def _taken(self, met: list[Refusal], jobs: list[NewJob[Any]], rest: str, why: str) -> Refused:
        del why
        draft, receipt = met[0].job.draft, met[0].receipt
        key = draft.unique.text if draft.unique else ""
        holder = receipt.holder or receipt.id
        found = self._holder if self._holder and self._holder.id == holder else None
        who = f"{holder} of {found.task}" if found else f"{holder}"
        others = f" (and {len(met) - 1} more such jobs)" if len(met) > 1 else ""
        return UniqueConflict(
            f"job {draft.id} of {draft.task} is not stored: job {who} holds the unique key {key!r} in queue "
            f"{draft.queue}{_why_taken(draft, found)}{others}{rest}",
            draft.queue,
            key,
            Job(self._asked, holder, created=False),
            self.accepted,
            jobs,
        )

    def _full(self, met: list[Refusal], jobs: list[NewJob[Any]], rest: str, why: str) -> Refused:
        draft, receipt = met[0].job.draft, met[0].receipt
        room = receipt.room or Room(0, 0, "reject", None)
        after = self._retry_after(draft.queue)
        some = "the job is" if len(self._given) == 1 else f"{len(met)} of {len(self._given)} jobs are"
        advice = why or f"; ask again in {after:.0f} s"
        return QueueFull(
            f"{full_text(draft.queue, room)}; {some} not stored{advice}{rest}",
            draft.queue,
            room.depth,
            room.bound,
            after,
            self.accepted,
            jobs,
        )

    def _undecided(self, *, all_or_nothing: bool) -> StoreAway:
        job, receipt = self._refused[0]
        others = f" (and {len(self._refused) - 1} more such jobs)" if len(self._refused) > 1 else ""
        return StoreAway(
            f"job {job.id} of {job.draft.task} is not stored: {_held_up(job.draft, receipt)}{others}"
            f"{self._rest(len(self._refused), all_or_nothing=all_or_nothing)}; enqueue the same bound jobs again later"
        )

    def _rest(self, told: int, *, all_or_nothing: bool) -> str:
        """What else became of the call."""
        others = len(self._refused) - told
        more = f"; {others} more were refused for other reasons" if others else ""
        if all_or_nothing:
            return f"{more}; with connection= it is all or nothing, and nothing was stored"
        return more + (f"; {len(self.accepted)} are stored" if self.accepted else "")


def _why_taken(draft: Draft, holder: Record | None) -> str:
    """What the producer can do about it, where that is not plain."""
    on_clash = draft.unique.on_clash if draft.unique else ""
    if on_clash == "return" or (holder and holder.task != draft.task):
        return "; a key is one for all tasks of its queue: put into its text what the job does"
    if on_clash == "replace":
        return ", and was started already" if holder else ", and was started already or is of another task"
    return ""


def _held_up(draft: Draft, receipt: Receipt) -> str:
    if receipt.answer == "unreserved":
        return f"no place could be kept for it in queue {draft.queue}"
    key = f", its unique key {draft.unique.text!r}" if draft.unique else ""
    return (
        f"another transaction that is still open decides on its id{key}, its place in queue {draft.queue} or a whole "
        "table (docs/postgres.md has queries that name its session); if it is one of your own, enqueue in it: "
        "using(connection=...)"
    )


class _NeverStored:
    """What the handle of a dropped job asks: nobody."""

    def __init__(self, job: NewJob[Any], room: Room | None) -> None:
        places = f"its queue {job.draft.queue} was full" + (f" ({room.depth:,} of {room.bound:,})" if room else "")
        self._text = f"job {job.id} of {job.draft.task} was dropped: {places}, so it was never stored"

    def status(self, *_: object) -> Never:
        raise JobNotFound(self._text)

    async def astatus(self, *_: object) -> Never:
        raise JobNotFound(self._text)

    def result(self, *_: object) -> Never:
        raise JobCancelled(self._text)

    async def aresult(self, *_: object) -> Never:
        raise JobCancelled(self._text)

    cancel = retry = delete = status
    acancel = aretry = adelete = astatus
