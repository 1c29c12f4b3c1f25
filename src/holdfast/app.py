"""Holdfast: a store and its tasks. Enqueue, find, cancel, retry, and make workers.

Building one opens nothing, reads nothing and starts nothing: web and worker import the same object.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import inspect
import os
import threading
import time
import warnings
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import islice
from typing import Any, NamedTuple, Never, ParamSpec, Self, TypedDict, TypeVar, Unpack, cast, overload
from uuid import UUID

from holdfast.bridge import Bridge, at_exit, run_here
from holdfast.clock import Clock, Duration, SystemClock, instant, moment, short, span
from holdfast.config import store_url
from holdfast.errors import ConfigError, IdConflict, JobCancelled, JobFailed, JobNotFound, StoreAway, StoreError
from holdfast.job import FINAL, REASON_LIMIT, Draft, JobError, Record, State, cut
from holdfast.observe import logging as observed
from holdfast.policy import Retry
from holdfast.store import Cursor, Receipt, Store, Where
from holdfast.stores import open_store
from holdfast.task import (
    AsyncTask,
    Job,
    JobStatus,
    NewJob,
    Plan,
    SyncTask,
    Task,
    TaskDecorator,
    TaskOptions,
    as_id,
    define,
)
from holdfast.worker import Crew
from holdfast.worker.batcher import Batcher
from holdfast.worker.blackbox import BlackBox
from holdfast.worker.embedded import Worker
from holdfast.worker.processes.launch import Launch, launch_of

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

CHUNK = 500  # jobs per write, and ids per operator's step
PAGE = 100
LOADING = "_HOLDFAST_LOADING"  # in the environment while a slot process loads the worker's __main__, by its real name
POLL_FIRST, POLL_MOST = 0.005, 1.0  # seconds between looks while waiting for a result


class Filter(TypedDict, total=False):
    """Which jobs; all that is given must hold. `since` and `before` are about the time of enqueue.

    `state` may name several, separated by commas. `error` is the type of the last error, such as "TimeoutError".
    """

    state: State | str
    queue: str
    task: str
    tag: str
    error: str
    before: datetime
    since: datetime


class Holdfast:
    """An app: tasks, and the store that keeps their jobs.

    `url` picks the store; without one, HOLDFAST_URL or [tool.holdfast] do, at first use. `modules` are imported by
    workers, so that tasks defined elsewhere exist there (a package means its submodules too). `retry`, `timeout` and
    `keep` (how long finished jobs are kept) are defaults for all tasks. Use it as a context manager to open the
    store now and fail now.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        modules: Sequence[str] = (),
        retry: Retry = Retry(max_attempts=1),  # noqa: B008  # frozen
        timeout: Duration | None = None,
        keep: Duration = "24h",
        clock: Clock | None = None,
    ) -> None:
        if isinstance(modules, str):
            raise ConfigError(f"modules={modules!r}: a list of module names, for example modules=['shop.mail']")
        options = {"retry": retry, "timeout": timeout, "keep": keep}
        self._url = url
        self._modules = tuple(modules)
        self._defaults = Plan().changed(options, "Holdfast()", frozenset(options))
        self._clock = clock or SystemClock()
        self._tasks: dict[str, Task[..., Any]] = {}
        self._names: dict[str, Task[..., Any]] = {}
        self._lock = threading.RLock()
        self._place: Store | None = None
        self._bridge = Bridge(self._forget, self._close_here)
        self._openings: dict[asyncio.AbstractEventLoop, asyncio.Task[_Opened]] = {}  # while one closes, the next opens
        self._warned: set[str] = set()
        self.creates = True  # whether a store that is not there yet is made at first use; operators only look
        self._workers = 0
        self._in_slot = False
        at_exit(self.close)

    # --- the store

    def configure(self, url: str | None = None) -> None:
        """Sets the store's URL after construction, as app factories need. ConfigError once the store is in use."""
        with self._lock:
            if self._place is not None and (self._openings or self._workers):
                raise ConfigError(f"configure(): the store is in use already ({self._place.url}); configure before")
            self._url, self._place = url, None

    @property
    def place(self) -> Store:
        """The store, perhaps not open yet; what workers make their twins of."""
        with self._lock:
            if self._place is None:
                self._place = open_store(store_url(self._url), self._clock)
            return self._place

    @property
    def url(self) -> str:
        """The store's URL as chosen now, secrets included. ConfigError if none is."""
        return store_url(self._url)

    def close(self) -> None:
        """Gives calls in flight a moment and closes the store; a later call opens it again."""
        with self._lock:
            if self._place is not None and self._place.shared:  # one that lives in this process keeps its jobs
                self._place = None
        self._bridge.close()

    async def _close_here(self) -> None:
        opening = self._openings.pop(asyncio.get_running_loop(), None)
        if opening is not None:
            await (await opening).place.close()

    def __enter__(self) -> Self:
        self._bridge.run(self._opened())
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        await self._bridge.arun(self._opened())
        return self

    async def __aexit__(self, *exc: object) -> None:
        await asyncio.to_thread(self.close)

    async def _opened(self) -> _Opened:
        """On the bridge's loop: opens the store once, and the batcher before it."""
        loop = asyncio.get_running_loop()
        opening = self._openings.get(loop)
        if opening is None or (opening.done() and (opening.cancelled() or opening.exception())):
            opening = self._openings[loop] = asyncio.create_task(self._open())
        return await asyncio.shield(opening)

    async def _open(self) -> _Opened:
        place = self.place
        await place.open(create=self.creates)
        return _Opened(place, Batcher(place.enqueue, CHUNK))

    def _forget(self) -> object:
        left = (self._place, self._openings)
        self._lock = threading.RLock()
        self._place, self._openings = None, {}
        self._workers = 0
        return left

    def _sync(self, twin: str, call: Callable[..., Coroutine[Any, Any, T]], *args: Any) -> T:
        if twin not in self._warned and _on_a_loop():
            self._warned.add(twin)
            warnings.warn(
                f"a blocking call on a running event loop holds up everything else on it: use `await ….{twin}()`",
                RuntimeWarning,
                stacklevel=_outside(),
            )
        return self._bridge.run(call(*args))

    async def _async(self, call: Callable[..., Coroutine[Any, Any, T]], *args: Any) -> T:
        return await self._bridge.arun(call(*args))

    # --- tasks

    @overload
    def task(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...  # type: ignore[overload-overlap]  # pyright: ignore[reportOverlappingOverload]  # the sync/async overlap of API.md
    @overload
    def task(self, fn: Callable[P, R], /) -> SyncTask[P, R]: ...
    @overload
    def task(self, fn: None = None, /, **options: Unpack[TaskOptions]) -> TaskDecorator: ...
    def task(self, fn: Callable[..., Any] | None = None, /, **options: Any) -> Any:
        """Makes a task of a function: `@jobs.task` or `@jobs.task(queue="mail", retry=Retry(), timeout=30)`.

        Raises ConfigError for options that make no sense, naming the parameter, and for a name that is taken.
        """
        if fn is None:
            return functools.partial(self._define, options=options)
        return self._define(fn, options)

    def _define(self, fn: Callable[..., Any], options: dict[str, Any]) -> Task[..., Any]:
        task = define(self, fn, self._defaults, options)
        for name in (task.name, *task.aliases):
            taken = self._names.get(name)
            if taken is not None and not _redefinition(taken.fn, task.fn):
                raise ConfigError(f"two tasks are named {name!r}: {taken.fn!r} and {task.fn!r}; give one of them name=")
        for name in (task.name, *task.aliases):
            self._names[name] = task
        self._tasks[task.name] = task
        return task

    def load(self) -> None:
        """Imports `modules`, so that their tasks exist. ConfigError naming the module that cannot be imported."""
        for name in self._modules:
            for module in (name, *_submodules(_import(name))):
                _import(module)

    @property
    def tasks(self) -> dict[str, Task[..., Any]]:
        """Every task by every name that it answers to, aliases included."""
        return dict(self._names)

    # --- enqueue

    def enqueue_many(self, jobs: Iterable[NewJob[R]], *, connection: object = None) -> list[Job[R]]:
        """Stores bound jobs, each atomic by itself; with `connection`, all in the caller's own transaction.

        Repeating the call with the same bound jobs is harmless. Raises IdConflict naming the jobs that were refused,
        after all others were stored (with `connection`: nothing is stored then).
        """
        if connection is not None:
            return self._within([_draft(job) for job in jobs], connection)
        source, stored, refused = iter(jobs), list[Job[R]](), list[UUID]()
        while chunk := [_draft(job) for job in islice(source, CHUNK)]:
            with _unclear(chunk, stored):
                self._collect(self._sync("aenqueue_many", self._put, chunk), stored, refused)
        return self._complete(stored, refused)

    async def aenqueue_many(self, jobs: Iterable[NewJob[R]], *, connection: object = None) -> list[Job[R]]:
        """As `enqueue_many`."""
        if connection is not None:
            return await self._awithin([_draft(job) for job in jobs], connection)
        source, stored, refused = iter(jobs), list[Job[R]](), list[UUID]()
        while chunk := [_draft(job) for job in islice(source, CHUNK)]:
            with _unclear(chunk, stored):
                self._collect(await self._async(self._put, chunk), stored, refused)
        return self._complete(stored, refused)

    def store_one(self, job: NewJob[R], connection: object) -> Job[R]:
        """For Task.enqueue."""
        if connection is not None:
            return self._within([job.draft], connection)[0]
        with _unclear([job.draft], ()):
            return self._one(self._sync("aenqueue", self._put, [job.draft]))

    async def astore_one(self, job: NewJob[R], connection: object) -> Job[R]:
        """For Task.aenqueue."""
        if connection is not None:
            return (await self._awithin([job.draft], connection))[0]
        with _unclear([job.draft], ()):
            return self._one(await self._async(self._put, [job.draft]))

    async def _put(self, drafts: list[Draft]) -> Sequence[Receipt]:
        self._may_enqueue()
        place, batcher = await self._opened()
        if not self._workers and not place.shared and "memory" not in self._warned:
            self._warned.add("memory")
            observed.tell(
                observed.stores,
                observed.WARNING,
                "lonely",
                store=place.url,
                message="only a worker in this very process can run these jobs, and there is none yet: jobs.worker()",
            )
        return await batcher.put(drafts)

    def _may_enqueue(self) -> None:
        _not_while_loading()
        if self._in_slot and not self.place.shared:
            raise ConfigError(
                f"{self.place.url} lives in the worker's process alone: a handler with run_in='process' cannot enqueue "
                "to it; use a store such as sqlite:///jobs.db"
            )

    def enter_slot(self, url: str | None) -> None:
        """For a slot process: this app stands for its worker's, whose store is at `url`."""
        self._in_slot = True
        if url is not None and not self._openings:
            self.configure(url)

    def _within(self, drafts: list[Draft], connection: object) -> list[Job[Any]]:
        place = self._bridge.run(self._opened()).place
        return self._complete(*self._collect(run_here(self._enqueue_within(place, drafts, connection)), [], []))

    async def _awithin(self, drafts: list[Draft], connection: object) -> list[Job[Any]]:
        place = (await self._bridge.arun(self._opened())).place
        return self._complete(*self._collect(await self._enqueue_within(place, drafts, connection), [], []))

    async def _enqueue_within(self, place: Store, drafts: list[Draft], connection: object) -> Sequence[Receipt]:
        self._may_enqueue()
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
                stored.append(Job(self, receipt.id, created=receipt.created))
        return stored, refused

    def _complete(self, stored: list[Job[Any]], refused: list[UUID]) -> list[Job[Any]]:
        if refused:
            some = ", ".join(map(str, refused[:5])) + (", …" if len(refused) > 5 else "")
            raise IdConflict(
                f"{len(refused)} of {len(refused) + len(stored)} jobs have the id of a stored job with another task, "
                f"queue or arguments: {some}; bind() makes a new id for each job"
            )
        return stored

    # --- one job

    def job(self, id: UUID | str) -> Job[Any]:
        """A handle for a known id; asks nothing yet."""
        return Job(self, as_id(id))

    def status(self, job: Job[R]) -> JobStatus[R]:
        """For Job.status."""
        return self._snapshot(self._sync("astatus", self._read, job.id), job)

    async def astatus(self, job: Job[R]) -> JobStatus[R]:
        """For Job.astatus."""
        return self._snapshot(await self._async(self._read, job.id), job)

    def result(self, job: Job[R], timeout: Duration | None) -> R:
        """For Job.result."""
        return cast("R", self._value(self._sync("aresult", self._finished, job.id, timeout)))

    async def aresult(self, job: Job[R], timeout: Duration | None) -> R:
        """For Job.aresult."""
        return cast("R", self._value(await self._async(self._finished, job.id, timeout)))

    def cancel_one(self, id: UUID, reason: str) -> bool:
        """For Job.cancel."""
        return self._sync("acancel", self._cancel_one, id, reason)

    async def acancel_one(self, id: UUID, reason: str) -> bool:
        """For Job.acancel."""
        return await self._async(self._cancel_one, id, reason)

    def retry_one(self, id: UUID) -> None:
        """For Job.retry."""
        self._sync("aretry", self._retry_one, id)

    async def aretry_one(self, id: UUID) -> None:
        """For Job.aretry."""
        await self._async(self._retry_one, id)

    async def _read(self, id: UUID) -> Record:
        place = (await self._opened()).place
        found = await place.find(Where(ids=(id,)), None, 1)
        return found[0] if found else _missing(id)

    async def _finished(self, id: UUID, timeout: Duration | None) -> Record:
        end = None if timeout is None else time.monotonic() + span(timeout, "timeout") / 1000
        pause = POLL_FIRST
        while (record := await self._read(id)).state not in FINAL:
            if end is not None and time.monotonic() >= end:
                raise TimeoutError(
                    f"job {id} of {record.task} is still {record.state} after {short(span(timeout or 0, 'timeout'))}"
                )
            left = pause if end is None else min(pause, max(0.0, end - time.monotonic()))
            await asyncio.sleep(left)
            pause = min(pause * 1.5, POLL_MOST)
        return record

    async def _cancel_one(self, id: UUID, reason: str) -> bool:
        if not isinstance(reason, str):
            raise ConfigError(f"reason={reason!r}: a text")
        reason = cut(reason, REASON_LIMIT)
        place = (await self._opened()).place
        (answer,) = await place.cancel([id], reason)
        return _missing(id) if answer == "missing" else answer in ("cancelled", "requested")

    async def _retry_one(self, id: UUID) -> None:
        place = (await self._opened()).place
        (answer,) = await place.retry([id])
        if answer == "missing":
            _missing(id)
        if answer != "retried":
            what = "has succeeded" if answer == "succeeded" else "is not finished"
            raise StoreError(f"job {id} {what}; only dead and cancelled jobs can be retried")

    def _snapshot(self, record: Record, job: Job[Any]) -> JobStatus[Any]:
        waiting = record.state in (State.SCHEDULED, State.QUEUED)
        return JobStatus(
            record.id,
            record.task,
            record.queue,
            record.state,
            record.attempt,
            moment(record.enqueued_at),
            moment(record.due_at) if waiting else None,
            moment(record.started_at) if record.started_at is not None else None,
            moment(record.finished_at) if record.finished_at is not None else None,
            _errors(record),
            record.tags,
            record.reason,
            job,
        )

    def _value(self, record: Record) -> Any:
        if record.state is State.CANCELLED:
            raise JobCancelled(f"job {record.id} of {record.task} was cancelled: {record.reason or 'no reason given'}")
        if record.state is State.DEAD:
            raise _failed(record)
        data = record.result if record.result is not None else b"null"
        task = self._names.get(record.task)
        if task is None:
            from holdfast.codec import from_json

            return from_json(data)
        return task.signature.decode_result(data)

    # --- many jobs

    def find(self, **where: Unpack[Filter]) -> Iterator[JobStatus[Any]]:
        """The jobs that match, newest first, read page by page."""
        for record in self.records(which(where)):
            yield self._snapshot(record, Job(self, record.id))

    async def afind(self, **where: Unpack[Filter]) -> AsyncIterator[JobStatus[Any]]:
        """As `find`."""
        wanted, after = which(where), None
        while page := await self._async(self._page, wanted, after, PAGE):
            for record in page:
                yield self._snapshot(record, Job(self, record.id))
            after = _cursor(page)

    def records(self, where: Where, after: Cursor | None = None) -> Iterator[Record]:
        """The stored rows that match, newest first; for the command line and the pages."""
        while page := self._sync("afind", self._page, where, after, PAGE):
            yield from page
            after = _cursor(page)

    def retry(self, *, dry_run: bool = False, **where: Unpack[Filter]) -> int:
        """Retries all dead or cancelled jobs that match, and tells how many (`dry_run`: would be)."""
        return self._sync("aretry", self._each, which(where), _RETRIED, self._retry_ids, dry_run)

    async def aretry(self, *, dry_run: bool = False, **where: Unpack[Filter]) -> int:
        """As `retry`."""
        return await self._async(self._each, which(where), _RETRIED, self._retry_ids, dry_run)

    def cancel(self, *, dry_run: bool = False, **where: Unpack[Filter]) -> int:
        """Cancels all unfinished jobs that match, and tells how many (`dry_run`: would be)."""
        return self._sync("acancel", self._each, which(where), _CANCELLED, self._cancel_ids, dry_run)

    async def acancel(self, *, dry_run: bool = False, **where: Unpack[Filter]) -> int:
        """As `cancel`."""
        return await self._async(self._each, which(where), _CANCELLED, self._cancel_ids, dry_run)

    async def _page(self, where: Where, after: Cursor | None, limit: int) -> Sequence[Record]:
        place = (await self._opened()).place
        return await place.find(where, after, limit)

    async def _each(
        self,
        where: Where,
        among: frozenset[State],
        act: Callable[[list[UUID]], Coroutine[Any, Any, int]],
        dry_run: bool,
    ) -> int:
        """Acts on what matches now: pages go from the newest to older ones, so that later jobs are not touched."""
        if where == Where():
            raise ConfigError("no filter is given: name at least one, for example state='dead' or queue='mail'")
        states = among if where.states is None else among.intersection(where.states)
        done, after = 0, None
        wanted = _with_states(where, states)
        while states and (page := await self._page(wanted, after, CHUNK)):
            done += len(page) if dry_run else await act([record.id for record in page])
            after = _cursor(page)
        return done

    async def _retry_ids(self, ids: list[UUID]) -> int:
        place = (await self._opened()).place
        return sum(answer == "retried" for answer in await place.retry(ids))

    async def _cancel_ids(self, ids: list[UUID]) -> int:
        place = (await self._opened()).place
        return sum(answer in ("cancelled", "requested") for answer in await place.cancel(ids))

    # --- workers

    def worker(self, *, queues: Sequence[str] | None = None, concurrency: int = 10, deadline: Duration = 10) -> Worker:
        """A worker in this process: `async with` runs async handlers on the caller's loop, `with` on one of its own.

        `queues`: which to serve, None for every queue in the store. `concurrency`: jobs at a time. `deadline`: how
        long running jobs may go on when it stops. Such a worker does not survive a handler that holds the
        interpreter longer than the lease, nor the end of the process; `holdfast worker` does.
        """
        crew = Crew(
            self._for_worker,
            queues=queues,
            concurrency=concurrency,
            deadline=deadline,
            clock=self._clock,
            launch=lambda: launch_of(self, self._tasks.values(), self.url),
        )
        return Worker(crew)

    def supervised_worker(self, options: Mapping[str, Any], supervisor: UUID, box: BlackBox) -> Crew:
        """A worker whose lease `supervisor` keeps, which reads its black box; for the command line."""
        return Crew(
            self._for_worker,
            queues=options["queues"],
            concurrency=options["concurrency"],
            deadline=options["deadline"],
            clock=self._clock,
            supervisor=supervisor,
            box=box,
            max_jobs=options["max_jobs"],
            max_memory=options["max_memory"],
            launch=lambda: Launch(options["app"], self.url, options["style"], options["level"]),
        )

    def _for_worker(self) -> tuple[Store, dict[str, Task[..., Any]]]:
        _not_while_loading()
        self.load()
        self._workers += 1
        return self.place.twin(), self._names


_RETRIED = frozenset({State.DEAD, State.CANCELLED})
_CANCELLED = frozenset({State.SCHEDULED, State.QUEUED, State.RUNNING})


class _Opened(NamedTuple):
    """What lives on one loop of the bridge."""

    place: Store
    batcher: Batcher[Draft, Receipt]


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


def which(where: Filter) -> Where:
    """A Filter as the store reads it. ConfigError naming the field that makes no sense."""
    unknown = sorted(where.keys() - Filter.__annotations__.keys())
    if unknown:
        raise ConfigError(f"no filter {unknown[0]!r}; there are {', '.join(Filter.__annotations__)}")
    since, before = where.get("since"), where.get("before")
    return Where(
        states=_states(where["state"]) if "state" in where else None,
        queue=where.get("queue"),
        task=where.get("task"),
        tag=where.get("tag"),
        error=where.get("error"),
        since=None if since is None else instant(since, "since"),
        before=None if before is None else instant(before, "before"),
    )


def _states(text: str) -> tuple[State, ...]:
    try:
        return tuple(State(word.strip()) for word in text.split(","))
    except (AttributeError, ValueError):
        raise ConfigError(f"state={text!r}: there are {', '.join(State)}") from None


def _with_states(where: Where, states: frozenset[State]) -> Where:
    return Where(
        states=tuple(states),
        queue=where.queue,
        task=where.task,
        tag=where.tag,
        error=where.error,
        since=where.since,
        before=where.before,
    )


def _cursor(page: Sequence[Record]) -> Cursor:
    return page[-1].enqueued_at, page[-1].id


def _errors(record: Record) -> tuple[JobError, ...]:
    return tuple(
        JobError(a.attempt, moment(a.ended_at), a.error.type, a.error.message, a.error.traceback)
        for a in record.history
        if a.error is not None
    )


def _failed(record: Record) -> JobFailed:
    errors = _errors(record)
    last = errors[-1] if errors else JobError(record.attempt, moment(record.finished_at or 0), "Unknown", "", "")
    return JobFailed(
        f"job {record.id} of {record.task} is dead after attempt {last.attempt}: {last.type}: {last.message}",
        last,
    )


def _missing(id: UUID) -> Never:
    raise JobNotFound(f"no job {id}: never stored, not committed yet, or pruned after its time")


def _draft(job: NewJob[Any]) -> Draft:
    if not isinstance(job, NewJob):
        raise TypeError(f"{job!r} is no bound job: make one with task.bind(...)")
    return job.draft


def _outside() -> int:
    """How many frames above its caller the first one is that is not ours: where a warning belongs."""
    level, frame = 0, inspect.currentframe()
    while frame is not None and str(frame.f_globals.get("__name__")).partition(".")[0] == "holdfast":
        level, frame = level + 1, frame.f_back
    return level


def _on_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _redefinition(old: Callable[..., Any], new: Callable[..., Any]) -> bool:
    """Whether `new` is `old` loaded once more, as by importlib.reload or as __main__ and by its name."""
    return _origin(old) == _origin(new) and getattr(old, "__code__", None) is not getattr(new, "__code__", None)


def _origin(fn: Callable[..., Any]) -> tuple[object, ...]:
    code = getattr(inspect.unwrap(fn), "__code__", None)
    return (code.co_filename, code.co_firstlineno, code.co_qualname) if code is not None else (fn,)


def _not_while_loading() -> None:
    loading = os.environ.get(LOADING)
    if loading is not None:
        raise ConfigError(
            f"{loading} enqueues jobs or starts a worker while it is imported, as a process of its own does for "
            "run_in='process': it would start itself for ever; put that under `if __name__ == \"__main__\":`"
        )


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(f"modules: {name!r} cannot be imported: {error}") from error


def _submodules(package: Any) -> list[str]:
    import pkgutil

    path = getattr(package, "__path__", None)
    if path is None:
        return []
    return [found.name for found in pkgutil.walk_packages(path, package.__name__ + ".")]
