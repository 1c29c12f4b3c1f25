"""The handles of a job: NewJob (bound, not stored), Job (its identity), JobStatus (what one read found)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, Never, Protocol, TypeVar
from uuid import UUID

from holdfast.clock import Duration
from holdfast.errors import ConfigError, JobNotFound
from holdfast.job import FINAL, Draft, JobError, State

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class Asked(Protocol):
    """What a handle asks of its app."""

    def status(self, job: Job[R], /) -> JobStatus[R]: ...
    async def astatus(self, job: Job[R], /) -> JobStatus[R]: ...
    def result(self, job: Job[R], timeout: Duration | None, /) -> R: ...
    async def aresult(self, job: Job[R], timeout: Duration | None, /) -> R: ...
    def cancel(self, id: UUID, reason: str, /) -> bool: ...
    async def acancel(self, id: UUID, reason: str, /) -> bool: ...
    def retry(self, id: UUID, /) -> None: ...
    async def aretry(self, id: UUID, /) -> None: ...
    def delete(self, id: UUID, /) -> None: ...
    async def adelete(self, id: UUID, /) -> None: ...


@dataclass(frozen=True)
class JobStatus(Generic[R_co]):
    """What one read found at one moment; it never changes. `errors` holds the kept errors, the oldest first.

    `progress`, from 0 to 1, and `text` are what the last attempt said of itself.
    """

    id: UUID
    task: str
    queue: str
    state: State
    attempt: int
    progress: float | None
    text: str | None
    enqueued_at: datetime
    due_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    errors: Sequence[JobError]
    tags: Sequence[str]
    reason: str
    _job: Job[R_co]

    @property
    def finished(self) -> bool:
        """Whether the state is final: succeeded, dead or cancelled."""
        return self.state in FINAL

    @property
    def job(self) -> Job[R_co]:
        """The handle, to ask again."""
        return self._job


class NewJob(Generic[R_co]):
    """A bound job: its arguments are checked, it has its id, it is not stored yet. Storing it twice stores it once."""

    __slots__ = ("draft",)

    def __init__(self, draft: Draft) -> None:
        self.draft = draft

    @property
    def id(self) -> UUID:
        """The id that the job will have."""
        return self.draft.id

    def __repr__(self) -> str:
        return f"<NewJob {self.draft.task} {self.id}>"


class Job(Generic[R_co]):
    """A handle to a stored job: its identity and nothing else; every method asks the store."""

    __slots__ = ("_asked", "created", "id")

    def __init__(self, asked: Asked, id: UUID, *, created: bool = True) -> None:
        self._asked = asked
        self.id = id
        self.created = created

    def status(self) -> JobStatus[R_co]:
        """The job as it is now. Raises JobNotFound."""
        return self._asked.status(self)

    async def astatus(self) -> JobStatus[R_co]:
        """As `status`."""
        return await self._asked.astatus(self)

    def result(self, timeout: Duration | None = None) -> R_co:
        """Waits for the end and returns what the handler returned.

        Raises JobFailed (dead), JobCancelled, JobNotFound, or TimeoutError when `timeout` passes first; StoreAway where
        the store stays away for 5 s, or for what is left of `timeout`.
        """
        return self._asked.result(self, timeout)

    async def aresult(self, timeout: Duration | None = None) -> R_co:
        """As `result`."""
        return await self._asked.aresult(self, timeout)

    def cancel(self, reason: str = "") -> bool:
        """Cancels the job: at once if it is not running, else by asking its worker, within about a second.

        An async handler is cancelled then; a plain function stops only where it looks (`current_job().check()`), and
        one that returns all the same has succeeded. True if the job is cancelled or was asked to stop, False if it
        had ended already. Raises JobNotFound; StoreAway if a transaction that is still open holds the job, as that of
        a handler that called `finish(connection)`: nothing is changed then.
        """
        return self._asked.cancel(self.id, reason)

    async def acancel(self, reason: str = "") -> bool:
        """As `cancel`."""
        return await self._asked.acancel(self.id, reason)

    def retry(self) -> None:
        """Gives a dead or cancelled job a new life: same id, attempts from 0, its history kept.

        Raises JobNotFound; StoreError if the job is in another state; UniqueConflict if its unique key is another job's
        now, which is the error's `job`; QueueFull if its queue has no place; StoreAway as `cancel` does.
        """
        self._asked.retry(self.id)

    async def aretry(self) -> None:
        """As `retry`."""
        await self._asked.aretry(self.id)

    def delete(self) -> None:
        """Deletes the job, with its history and result. Raises JobNotFound; StoreError if it is running; StoreAway as
        `cancel` does.
        """
        self._asked.delete(self.id)

    async def adelete(self) -> None:
        """As `delete`."""
        await self._asked.adelete(self.id)

    def __repr__(self) -> str:
        return f"<Job {self.id}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Job) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)


class _Elsewhere:
    """What a handle asks in another process than its own: nobody."""

    def ask(self, *_: object) -> Never:
        raise ConfigError("this handle came from another process and knows its id alone: use jobs.job(handle.id)")

    async def aask(self, *_: object) -> Never:
        self.ask()

    status = result = cancel = retry = delete = ask
    astatus = aresult = acancel = aretry = adelete = aask


def elsewhere(job: Job[R]) -> Job[R]:
    """The handle as it may leave its process."""
    return Job(_Elsewhere(), job.id, created=job.created)


def as_id(id: UUID | str) -> UUID:
    """A job's id from its text. JobNotFound for a text that is none, ConfigError for what is no text."""
    if isinstance(id, UUID):
        return id
    no_id = f"id={id!r}: not a job id, such as 0197a1b2-…: 32 hexadecimal digits"
    if not isinstance(id, str):
        raise ConfigError(no_id)
    try:
        return UUID(id)
    except ValueError:
        raise JobNotFound(no_id) from None
