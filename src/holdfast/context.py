"""current_job(): what a handler can know, ask and say of the job it runs."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from datetime import datetime
from types import MappingProxyType
from typing import Protocol, TypeVar, cast
from uuid import UUID

from holdfast.errors import ConfigError, Stop, StopReason
from holdfast.headers import SCHEDULED_FOR, headers_of, without_ours
from holdfast.job import MESSAGE_LIMIT, REASON_LIMIT, SAVED_LIMIT, Note, cut, new_id
from holdfast.observe.tracebacks import text_of

T = TypeVar("T")

current: ContextVar[CurrentJob] = ContextVar("holdfast_current_job")
_NOBODY = UUID(int=0)


def current_job() -> CurrentJob:
    """The job that this code runs in. LookupError outside of one.

    A task called directly runs in a detached job, so that its tests need no worker. Threads that you start
    yourself do not inherit the job: pass it to them.
    """
    try:
        return current.get()
    except LookupError:
        raise LookupError("not inside a job; threads you start yourself do not inherit it") from None


class Notebook(Protocol):
    """Where goes what a handler says of its job; from any thread. False: its claim is not the job's any more."""

    def add(self, note: Note) -> None:
        """Takes it to be written soon; never waits."""
        ...

    def save(self, note: Note) -> bool:
        """Returns when it is stored: it may wait for the store. Raises StoreAway or StoreError if it is not."""
        ...

    async def asave(self, note: Note) -> bool:
        """As `save`, on any loop."""
        ...


class Finishing(Protocol):
    """What makes an attempt's success part of a transaction of its handler's. False: its claim is not the job's any
    more, and nothing was written.
    """

    def finish(self, connection: object, result: object, /) -> bool:
        """On a synchronous connection. Raises as `CurrentJob.finish`."""
        ...

    async def afinish(self, connection: object, result: object, /) -> bool:
        """On a connection of either kind."""
        ...


class CurrentJob:
    """The running job, seen from inside. Threads that a handler starts may use it when it is passed to them.

    `id` is the same for every attempt, so it is a good idempotency key. `fence` grows with every claim: a write
    of your own that says `WHERE fence < :fence` cannot be overtaken by an earlier run. `scheduled_for` is None for
    a job that no schedule made.
    """

    __slots__ = (
        "_deadline",
        "_finished",
        "_finishing",
        "_headers",
        "_held",
        "_notes",
        "_on_loop",
        "_over",
        "_saved",
        "_tick",
        "_why",
        "_worker",
        "attempt",
        "fence",
        "id",
        "queue",
        "task",
    )

    def __init__(  # noqa: PLR0917  # one per attempt: keywords cost a tenth of a microsecond
        self,
        id: UUID,  # the public name of the attribute
        task: str,
        queue: str,
        attempt: int,
        fence: int,
        deadline: float | None = None,
        held: Callable[[], bool] | None = None,
        headers: str = "",
        saved: bytes | None = None,
        worker: UUID = _NOBODY,
        notes: Notebook | None = None,
        on_loop: bool = False,
        finishing: Finishing | None = None,
    ) -> None:
        self.id = id
        self.task = task
        self.queue = queue
        self.attempt = attempt
        self.fence = fence
        self._deadline = deadline
        self._held = held
        self._headers: str | Mapping[str, str] = headers
        self._tick: datetime | None = None  # known once the headers are read
        self._saved = saved
        self._worker = worker
        self._notes = notes
        self._on_loop = on_loop  # its handler is async
        self._finishing = finishing
        self._finished = False  # its success is part of a transaction of its handler's
        self._over = False  # its handler has ended
        self._why: StopReason | None = None

    @property
    def headers(self) -> Mapping[str, str]:
        """What travelled with the job: `using(headers=...)`, and the app's `carry` variables as JSON."""
        if isinstance(self._headers, str):
            self._headers = MappingProxyType(self._read_headers(self._headers))
        return self._headers

    def _read_headers(self, text: str) -> Mapping[str, str]:
        headers = headers_of(text)
        if tick := headers.get(SCHEDULED_FOR):
            self._tick = datetime.fromisoformat(tick)
        return without_ours(headers)

    @property
    def scheduled_for(self) -> datetime | None:
        """The tick that this job was made for, in UTC; None for a job that no schedule made. A job that is late, or is
        due later by its schedule's jitter, has the tick's own time.
        """
        _ = self.headers
        return self._tick

    @property
    def cancelled(self) -> bool:
        """Whether someone asked for this job to be cancelled. A plain function looks here or calls `check()`."""
        return self._why == "cancelled"

    @property
    def held(self) -> bool:
        """False once the worker's lease is in doubt, so that another worker may soon run this job."""
        return self._why != "lost" and (self._held is None or self._held())

    @property
    def time_left(self) -> float | None:
        """Seconds until the timeout or the job's deadline, whichever is earlier, not below 0; None without either."""
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def check(self) -> None:
        """Raises Stop when this attempt must end; reads a flag, never blocks."""
        if self._why is not None:
            raise Stop(self._why)

    def _ended(self) -> bool:
        return self._over

    # --- what a handler says

    def progress(self, done: float, total: float = 1, *, text: str | None = None) -> None:
        """Says how far it is: `progress(0.3)` or `progress(30, 100, text="page 30")`; written soon, never blocks.

        What is over `total` counts as all, what is below 0 as nothing, and a `total` of 0 is done. `text` is cut to
        500 characters; None leaves the one before. ConfigError, naming the parameter, for what is no number.
        """
        share = _share(done, total)
        if text is not None:
            text = cut(text_of(text), REASON_LIMIT)
        if self._notes is not None:
            self._notes.add(Note(self.id, self.fence, self._worker, share, text))

    def log(self, text: str) -> None:
        """Adds a line to the job's own log, which `holdfast job ID` shows; written soon, never blocks.

        Cut to 2,000 characters; the newest 200 lines of a job are kept. What is no text, such as an exception, is
        written as `str()` has it.
        """
        line = cut(text_of(text), MESSAGE_LIMIT)
        if self._notes is not None:
            self._notes.add(Note(self.id, self.fence, self._worker, lines=((0, line),)))

    def saved(self, type: type[T], default: T) -> T:
        """What was saved last, in this attempt or an earlier one, as `type`; `default`, as it is, if nothing was.

        PayloadError if what was saved does not fit `type`, ConfigError if `type` cannot be stored as JSON.
        """
        if self._saved is None:
            return default
        from holdfast.codec import decode_value  # a handler runs, so it is imported; this module is before

        return cast("T", decode_value(self._saved, type, "saved", f"saved(type=…) in {self.task}"))

    def save(self, value: object) -> None:
        """Stores `value` (at most 1 MiB of JSON) for later attempts of this job, and returns when it is durable.

        While the store is away it waits and asks again, as long as the worker's lease is beyond doubt and nobody asked
        this attempt to end; then it raises StoreAway, and at once where the store is full.

        Raises Stop if this attempt must end; all but Stop("lost") come after the value was stored. PayloadError if it
        cannot be JSON or is too large, StoreAway or StoreError if it could not be stored. In an async handler:
        `await job.asave(...)`.
        """
        if self._on_loop and _running_loop():
            raise ConfigError("save() would hold up the event loop that it waits for: write `await job.asave(...)`")
        data = self._encoded(value)
        self._kept(data, held=self._notes is None or self._notes.save(self._saving(data)))

    async def asave(self, value: object) -> None:
        """As `save`."""
        data = self._encoded(value)
        self._kept(data, held=self._notes is None or await self._notes.asave(self._saving(data)))

    def finish(self, connection: object, result: object = None) -> None:
        """Makes the success of this job, with `result`, part of the transaction that is open on `connection`: what the
        handler has written there and the end of its job are committed together, or neither is.

        `connection` is what `using(connection=...)` takes. Nothing is committed here: commit before the handler ends.
        What it returns then is ignored, and what it raises after the commit is logged: the success stands. If the
        transaction was rolled back, or is still open 5 s after the handler's end, the attempt has failed
        (FinishRolledBack, TransactionLeftOpen).

        Raises Stop("lost") when another worker has the job: let it pass, so that your transaction is rolled back.
        PayloadError if `result` cannot be JSON or is too large, ConfigError for a connection that the job cannot be
        finished on and where it is finished already, StoreAway if the transaction cannot write now, TypeError for an
        asynchronous connection: `await job.afinish(...)`. In a task that is called directly it does nothing.
        """
        self._finish_told(held=self._may_finish().finish(connection, result))

    async def afinish(self, connection: object, result: object = None) -> None:
        """As `finish`, for asynchronous connections; it takes the others, too."""
        self._finish_told(held=await self._may_finish().afinish(connection, result))

    def _may_finish(self) -> Finishing:
        if self._finishing is None:
            raise ConfigError(
                f"finish() in {self.task}: a Pool's job is in no store, so its end cannot be part of a transaction: "
                "commit, and return"
            )
        if self._why == "lost":
            raise Stop("lost")
        return self._finishing

    def _finish_told(self, *, held: bool) -> None:
        if not held:
            ask_to_end(self, "lost")
            raise Stop("lost")
        self._finished = True

    def _encoded(self, value: object) -> bytes:
        from holdfast.codec import encode_value  # see above

        if self._finished:
            raise ConfigError(
                f"save() after finish() in {self.task}: what is saved is for a later attempt, and the job's success is "
                "part of your transaction; save before it"
            )
        data = encode_value(value, "value", f"save(value=…) in {self.task}", SAVED_LIMIT, "save")
        if self._why == "lost":
            raise Stop("lost")
        return data

    def _saving(self, data: bytes) -> Note:
        return Note(self.id, self.fence, self._worker, saved=data)

    def _kept(self, data: bytes, *, held: bool) -> None:
        if not held:
            ask_to_end(self, "lost")
            raise Stop("lost")
        self._saved = data
        self.check()


# --- for workers


class _NothingToFinish:
    """In a direct call no store knows the job."""

    def finish(self, *_: object) -> bool:
        return True

    async def afinish(self, *_: object) -> bool:
        return True


_detached = _NothingToFinish()


def detached(task: str, queue: str, *, on_loop: bool = False) -> CurrentJob:
    """What a direct call runs in: a fresh id, attempt 1, fence 0, never stopped; what it says stays in memory."""
    return CurrentJob(new_id(), task, queue, 1, 0, on_loop=on_loop, finishing=_detached)


def ask_to_end(job: CurrentJob, why: StopReason) -> bool:
    """Asks the handler to end. The first reason stays: False if there was one."""
    if job._why is not None:  # noqa: SLF001  # not a handler's to set: it would show in its editor
        return False
    job._why = why  # noqa: SLF001
    return True


def ends_at(job: CurrentJob, deadline: float | None) -> None:
    """When the attempt has to end, in monotonic seconds."""
    job._deadline = deadline  # noqa: SLF001


def asked(job: CurrentJob) -> StopReason | None:
    """Why the worker asked this attempt to end, if it did."""
    return job._why  # noqa: SLF001


def finished(job: CurrentJob) -> bool:
    """Whether its success is part of a transaction of its handler's, committed or not."""
    return job._finished  # noqa: SLF001


def note_end(job: CurrentJob) -> None:
    """Its handler has ended, in another process."""
    job._over = True  # noqa: SLF001


def ended(job: CurrentJob) -> bool:
    """Whether its handler has ended."""
    return job._ended()  # noqa: SLF001


def writing() -> CurrentJob | None:
    """The job whose code writes a log line. What a handler has left behind, as a connection's task, is no job's."""
    job = current.get(None)
    return None if job is None or ended(job) else job


def note_finish(job: CurrentJob) -> None:
    """Its handler called finish() in another process."""
    job._finished = True  # noqa: SLF001


def _share(done: float, total: float) -> float:
    if _number(total, "total") < 0:
        raise ConfigError(f"progress(total={total!r}): how much there is to do, 0 or more")
    if _number(done, "done") >= total:
        return 1.0
    return float(done) / float(total) if done > 0 else 0.0


def _number(value: float, parameter: str) -> float:
    try:
        if math.isfinite(value):
            return value
    except (TypeError, ValueError, OverflowError):
        pass
    raise ConfigError(f"progress({parameter}={value!r}): a finite number, as in progress(30, 100)")


def _running_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
