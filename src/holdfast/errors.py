"""Every exception that Holdfast raises or understands.

What callers meet:

    HoldfastError
    ├── ConfigError          a setting, an option or a definition is wrong; nothing was done
    ├── PayloadError         (also ValueError) arguments or a result that cannot be stored as JSON
    ├── ArgumentsChanged     a stored call no longer fits the task's signature
    ├── StoreError           the store refused or failed
    │   └── StoreAway        the store cannot be reached just now; the same call may work later
    ├── ResourceError        a resource could not be opened, or is asked for where it is not open
    ├── JobNotFound          no job with this id
    ├── ScheduleNotFound     no schedule of this name
    ├── JobFailed            from result(): the job is dead; `error` has the last attempt's error
    ├── JobCancelled         from result(): the job was cancelled, expired or dropped, and why
    ├── FinishRolledBack     a job's error: finish(connection), and the handler's transaction was rolled back
    ├── TransactionLeftOpen  a job's error: likewise, and the transaction was still open 5 s after the handler's end
    └── Refused              from enqueue: some jobs are not stored; `accepted` and `refused` say which
        ├── IdConflict       the same id with other content
        ├── UniqueConflict   another job holds the unique key
        └── QueueFull        the queue, or the pool, has no place

What handlers raise, to say what shall happen (plain Exceptions, they may be subclassed):

    Permanent                dead now, no further attempt
    RetryAfter               made by Retry.after(delay): again after just this delay
    Snooze                   later, no attempt used
    Cancel                   cancelled, by the handler's own decision

What handlers meet:

    Stop (BaseException)     the attempt must end: cancelled, timeout, deadline, lost or shutdown
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast.clock import Duration
    from holdfast.handles import Job, NewJob
    from holdfast.job import JobError


class HoldfastError(Exception):
    """The root of what callers meet."""


class ConfigError(HoldfastError):
    """A setting, an option or a definition is wrong; the message names it, its value and what would work."""


class PayloadError(HoldfastError, ValueError):
    """Arguments or a result cannot be stored as JSON; the message names the path to the bad value."""


class ArgumentsChanged(HoldfastError):
    """A stored call no longer fits the task's signature, as after a deploy."""


class StoreError(HoldfastError):
    """The store refused or failed; the message says what was tried and what to do."""


class StoreAway(StoreError):
    """The store cannot be reached just now (locked, restarting, disk full); the same call may work later.

    `full`: it had no room for what this call writes; a smaller call may work now. `certain`: nothing of this call was
    done; else it may have been, and its answer be lost.
    """

    full = False
    certain = False


class ResourceError(HoldfastError):
    """A resource could not be opened, or is asked for where it is not open; the message says which and where."""


class JobNotFound(HoldfastError):
    """No job has this id: it was never stored, its transaction is not committed, it was pruned, or it is no id."""


class ScheduleNotFound(HoldfastError):
    """No schedule in the store has this name; the message has names that are near."""


class JobFailed(HoldfastError):
    """Raised by `result()` when the job is dead; `error` is the last attempt's `JobError`."""

    def __init__(self, message: str, error: JobError) -> None:
        super().__init__(message)
        self.error = error

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.args[0], self.error))


class JobCancelled(HoldfastError):
    """Raised by `result()` when the job was cancelled; the message says why."""


class FinishRolledBack(HoldfastError):
    """The error of an attempt whose handler called `finish(connection)`, and then the transaction was rolled back.

    It is raised nowhere, but stands in the job's errors, and may stand in `Retry(on=, never=)`.
    """


class TransactionLeftOpen(HoldfastError):
    """As FinishRolledBack, where the transaction was still open 5 s after the handler's end."""


class Refused(HoldfastError):
    """Some jobs of a call were not stored: `refused` as they were given, `accepted` as handles of all others. With
    `connection=`, where it is all or nothing, all of them are `refused`.

    To enqueue the same bound jobs again is harmless: what is stored already is not stored twice. In another process,
    where it came by pickle, its handles have nothing but their ids.
    """

    def __init__(self, message: str, accepted: Sequence[Job[Any]] = (), refused: Sequence[NewJob[Any]] = ()) -> None:
        super().__init__(message)
        self.accepted = accepted
        self.refused = refused

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.args[0], *self._facts(), _elsewhere(self.accepted), list(self.refused)))

    def _facts(self) -> tuple[Any, ...]:
        """What the constructor takes between the message and the jobs."""
        return ()


class IdConflict(Refused):
    """A job with this id is stored already, with another task, queue or arguments."""


class UniqueConflict(Refused):
    """Another job holds the unique key, and the draft said that this is an error. `job`: the holder's handle."""

    def __init__(
        self,
        message: str,
        queue: str,
        key: str,
        job: Job[Any],
        accepted: Sequence[Job[Any]] = (),
        refused: Sequence[NewJob[Any]] = (),
    ) -> None:
        super().__init__(message, accepted, refused)
        self.queue = queue
        self.key = key
        self.job = job

    def _facts(self) -> tuple[Any, ...]:
        return (self.queue, self.key, *_elsewhere([self.job]))


class QueueFull(Refused):
    """The queue (or Pool) has no place: `depth` unfinished jobs of `bound`. `retry_after`: seconds after which to ask
    again.
    """

    def __init__(
        self,
        message: str,
        queue: str,
        depth: int,
        bound: int,
        retry_after: float,
        accepted: Sequence[Job[Any]] = (),
        refused: Sequence[NewJob[Any]] = (),
    ) -> None:
        super().__init__(message, accepted, refused)
        self.queue = queue
        self.depth = depth
        self.bound = bound
        self.retry_after = retry_after

    def _facts(self) -> tuple[Any, ...]:
        return (self.queue, self.depth, self.bound, self.retry_after)


def _elsewhere(jobs: Sequence[Job[Any]]) -> list[Job[Any]]:
    from holdfast.handles import elsewhere  # which knows this module

    return [elsewhere(job) for job in jobs]


class Permanent(Exception):
    """Raised by a handler: this job can never succeed; dead now, kept to be looked at."""


class RetryAfter(Exception):
    """Made by `Retry.after`: the attempt failed, and the next one comes after just this delay."""

    def __init__(self, delay: Duration, reason: str = "") -> None:
        super().__init__(reason or f"retry after {delay}")
        self.delay = delay
        self.reason = reason


class Snooze(Exception):
    """Raised by a handler: not now; run again after `delay`, without using an attempt."""

    def __init__(self, delay: Duration, reason: str = "") -> None:
        super().__init__(reason or f"snoozed for {delay}")
        self.delay = delay
        self.reason = reason


class Cancel(Exception):
    """Raised by a handler: this job is not wanted after all; cancelled, with `reason`."""

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = reason


StopReason = Literal["cancelled", "timeout", "deadline", "lost", "shutdown"]


class Stop(BaseException):
    """Raised inside a handler that must end; a BaseException, so that `except Exception` cannot eat it.

    `why`: "cancelled" (someone asked), "timeout" (its own time is over), "deadline" (the job's time is over),
    "lost" (another worker may have the job now), "shutdown" (the worker leaves; the job is given back).
    """

    def __init__(self, why: StopReason) -> None:
        super().__init__(why)
        self.why: StopReason = why
