"""The handle of a pool's job: what its submitter may ask of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast
from uuid import UUID

from holdfast.clock import Duration
from holdfast.job import State

if TYPE_CHECKING:
    from holdfast.worker.pooled.work import Work

R_co = TypeVar("R_co", covariant=True)


class PoolJob(Generic[R_co]):
    """A job of a `Pool`. Two handles of one job are equal."""

    __slots__ = ("_work",)

    def __init__(self, work: Work) -> None:
        self._work = work

    @property
    def id(self) -> UUID:
        """The job's id, as log lines and `current_job().id` have it."""
        return self._work.id

    @property
    def args(self) -> tuple[Any, ...]:
        """The positional arguments that it was submitted with."""
        return self._work.args

    @property
    def state(self) -> State:
        """Where the job is: queued, running, scheduled (it waits for its next attempt), succeeded, dead, cancelled."""
        return self._work.state

    def result(self, timeout: Duration | None = None) -> R_co:
        """What the function returned; waits for it, at most `timeout`.

        Raises what the function raised; TimeoutError if the job ran longer than its own timeout, or has not ended
        within this one; JobCancelled if it was cancelled or dropped. ConfigError inside another job of a pool, where
        waiting would be for ever: all slots that could run this one are held by jobs that wait.
        """
        work = self._work
        if not work.done:
            work.wait("result()", timeout)
        error = work.error
        if error is None:
            return cast("R_co", work.value)
        try:
            raise error.with_traceback(work.traceback)
        finally:
            del error, work, self  # or this frame, which the error's traceback names, would name them

    async def aresult(self, timeout: Duration | None = None) -> R_co:
        """As `result`, for async code."""
        if not self._work.done:
            await self._work.await_("aresult()", timeout)
        return self.result()

    def exception(self, timeout: Duration | None = None) -> BaseException | None:
        """What `result` would raise of the job's own, or None if it succeeded; waits for its end, at most `timeout`.

        Raises TimeoutError only if it has not ended within `timeout`, and ConfigError as `result` does.
        """
        work = self._work
        if not work.done:
            work.wait("exception()", timeout)
        return work.error

    def cancel(self) -> bool:
        """Asks for the job to be cancelled; False if it has ended.

        One that has not begun, or waits for its next attempt, is cancelled at once. An async function gets a
        CancelledError, a process is ended. A plain function is only told, by `current_job().check()` or `.cancelled`,
        and runs on until it looks; if it returns a value, the job has succeeded.
        """
        return self._work.core.cancel(self._work)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PoolJob) and other._work is self._work

    def __hash__(self) -> int:
        return hash(self._work)

    def __repr__(self) -> str:
        return repr(self._work)
