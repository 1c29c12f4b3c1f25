"""Holdfast: a store and its tasks. Enqueue, find, cancel, retry, and make workers.

Building one opens nothing, reads nothing and starts nothing: web and worker import the same object.
"""

from __future__ import annotations

import asyncio
import functools
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ParamSpec, Self, TypeVar, Unpack, cast, overload
from uuid import UUID

from holdfast.around import Around
from holdfast.client.asking import Asking
from holdfast.client.declaring import Declarations
from holdfast.client.filters import Filter, which
from holdfast.client.link import Link
from holdfast.client.operating import Operating
from holdfast.client.producing import Producing
from holdfast.client.queues import Queues
from holdfast.client.registry import Registry
from holdfast.client.schedules import Edit, ScheduleStatus, Scheduling
from holdfast.client.staffing import Staffing
from holdfast.clock import Clock, Duration, SystemClock
from holdfast.context import CurrentJob
from holdfast.handles import Job, JobStatus, NewJob
from holdfast.headers import Carry
from holdfast.job import WhenFull
from holdfast.options import Plan, TaskOptions
from holdfast.policy import Retry
from holdfast.resource import PlainOpening, Resource, Resources
from holdfast.schedule.rule import Missed, Overlap, Rule, rule_of
from holdfast.task import AsyncTask, SyncTask, Task, TaskDecorator
from holdfast.worker.embedded import Worker

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


@dataclass(frozen=True)
class Parts:
    """What an app consists of; for the command line, and for code that stands in for users."""

    link: Link
    registry: Registry
    asking: Asking
    producing: Producing
    operating: Operating
    staffing: Staffing
    queues: Queues
    resources: Resources
    around: Around
    declarations: Declarations
    scheduling: Scheduling


class Holdfast:
    """An app: tasks, and the store that keeps their jobs.

    `url` picks the store; without one, HOLDFAST_URL or [tool.holdfast] do, at first use. `modules` are imported by
    workers, so that tasks defined elsewhere exist there (a package means its submodules too). `retry`, `timeout` and
    `keep` (how long finished jobs are kept) are defaults for all tasks. `carry`: context variables whose values travel
    with each job, from where it is enqueued to its handler. Use it as a context manager to open the store now and
    fail now.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        modules: Sequence[str] = (),
        retry: Retry = Retry(max_attempts=1),  # noqa: B008  # frozen
        timeout: Duration | None = None,
        keep: Duration = "24h",
        carry: Sequence[ContextVar[Any]] = (),
        clock: Clock | None = None,
    ) -> None:
        options = {"retry": retry, "timeout": timeout, "keep": keep}
        defaults = Plan().changed(options, "Holdfast()", frozenset(options))
        queues, declarations = Queues(), Declarations()
        link, registry = Link(url, clock or SystemClock(), queues), Registry(modules, defaults)
        asking = Asking(link, registry.names)
        carrying, resources = Carry(carry), Resources()
        around = Around(carrying)
        self._entered: list[PlainOpening] = []
        producing = Producing(link, asking, carrying, queues)
        self._parts = Parts(
            link,
            registry,
            asking,
            producing,
            Operating(link, asking),
            Staffing(self, link, registry, queues, declarations, resources, around),
            queues,
            resources,
            around,
            declarations,
            Scheduling(link, producing),
        )

    # --- the store

    def configure(self, url: str | None = None) -> None:
        """Sets the store's URL after construction, as app factories need. ConfigError once the store is in use."""
        self._parts.link.configure(url)

    def close(self) -> None:
        """Gives calls in flight a moment and closes the store; a later call opens it again."""
        self._parts.link.close()

    def __enter__(self) -> Self:
        self._parts.link.run(self._parts.link.opened)
        self._entered.append(self._parts.resources.open())
        return self

    def __exit__(self, *exc: object) -> None:
        self._entered.pop().close()
        self.close()

    async def __aenter__(self) -> Self:
        await self._parts.link.arun(self._parts.link.opened)
        await self._parts.resources.aopen()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._parts.resources.aclose()
        await asyncio.to_thread(self.close)

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
        define = functools.partial(self._parts.registry.define, self._parts.producing, options=options)
        return define if fn is None else define(fn)

    def queue(
        self,
        name: str,
        *,
        max_size: int | None = None,
        when_full: WhenFull = "reject",
        block_timeout: Duration | None = None,
        weight: int = 1,
    ) -> None:
        """Declares a queue: `max_size` is how many unfinished jobs it may have, running and waiting ones included.
        `weight`, from 1 to 1000, is its share of the jobs that workers start, against the weights of the other queues
        that have jobs: with 6, 3 and 1 there are 6, 3 and 1 of every 10.

        `when_full`: what an enqueue does then. "reject": raises QueueFull; "block": waits for a place, up to
        `block_timeout` (in a transaction, inside a job of the same queue, in a blocking call on a running event loop
        and in a Sandbox it raises QueueFull at once, as it might wait for itself);
        "drop_oldest": the oldest job that was never started is cancelled for the new one; "drop_newest": drops what
        was just given, whose handle says so.

        The store keeps the declaration: the first enqueue into the queue lays it down, a worker that starts renews
        it, and an operator's word (`holdfast queues set`) stands above both. ConfigError naming the parameter that
        makes no sense, and for a queue that is declared otherwise already.
        """
        self._parts.queues.declare(name, max_size, when_full, block_timeout, weight)

    def pause(self, queue: str, *, until: Duration | datetime | None = None, reason: str = "") -> None:
        """Has workers start nothing more of a queue, until the time given or until it is resumed; what runs goes on.

        Everybody who looks at the queue sees the reason. Again: the new `until` and `reason` hold. Jobs may be
        enqueued meanwhile, and a queue may be paused that has none. ConfigError for an `until` that is over.
        """
        self._parts.operating.pause(queue, until, reason)

    async def apause(self, queue: str, *, until: Duration | datetime | None = None, reason: str = "") -> None:
        """As `pause`."""
        await self._parts.operating.apause(queue, until, reason)

    def resume(self, queue: str) -> bool:
        """Ends a queue's pause now. False if it was not paused."""
        return self._parts.operating.resume(queue)

    async def aresume(self, queue: str) -> bool:
        """As `resume`."""
        return await self._parts.operating.aresume(queue)

    # --- schedules

    def cron(
        self,
        cron: str,
        *,
        tz: str = "UTC",
        missed: Missed = "once",
        overlap: Overlap | None = None,
        jitter: Duration = 0,
        name: str | None = None,
    ) -> TaskDecorator:
        """Runs a function at the times of a cron text: `@jobs.cron("0 9 * * MON-FRI", tz="Europe/Amsterdam")`, on a
        plain function or above `@jobs.task(...)`. It is called without arguments.

        `cron`: minute, hour, day of month, month, day of week (six fields: seconds first), or @daily and its kin.
        `missed`: what becomes of ticks that nobody made in time, as no worker ran: "skip": nothing; "once": the latest
        makes one job; "all": each of the last 100 does. `overlap`: "skip" makes no job while the last is unfinished,
        "allow" does; it is "skip" unless missed="all". `jitter`: each job is due up to so much later. `name`: the
        schedule's own, by default its task's.

        Starting workers bring schedules to the store, under their names. ConfigError naming the parameter that makes no
        sense, for a function with a required parameter, and for two schedules of one name.
        """
        rule = rule_of(cron=cron, tz=tz, missed=missed, overlap=overlap, jitter=jitter)
        return cast("TaskDecorator", functools.partial(self._scheduled, rule, name))

    def every(
        self,
        interval: Duration,
        *,
        missed: Missed = "once",
        overlap: Overlap | None = None,
        jitter: Duration = 0,
        name: str | None = None,
    ) -> TaskDecorator:
        """Runs a function at an interval, of a second or more: `@jobs.every("5m")`, else as `cron`.

        Its ticks are counted from 1970, not from the start of a process: "5m" ticks at :00, :05, :10.
        """
        rule = rule_of(every=interval, missed=missed, overlap=overlap, jitter=jitter)
        return cast("TaskDecorator", functools.partial(self._scheduled, rule, name))

    def schedule(
        self,
        name: str,
        job: NewJob[Any],
        *,
        cron: str | None = None,
        every: Duration | None = None,
        tz: str = "UTC",
        missed: Missed = "once",
        overlap: Overlap | None = None,
        jitter: Duration = 0,
    ) -> None:
        """Declares a schedule of a bound job, for arguments and several zones:
        `jobs.schedule("nightly-us", nightly.bind("us"), cron="0 0 * * *", tz="America/New_York")`; else as `cron`.
        """
        rule = rule_of(cron=cron, every=every, tz=tz, missed=missed, overlap=overlap, jitter=jitter)
        module = str(sys._getframe(1).f_globals.get("__name__", "__main__"))  # noqa: SLF001  # as warnings finds it
        self._parts.declarations.bound(name, job, rule, self._parts.registry, module)

    def _scheduled(self, rule: Rule, name: str | None, fn: Any) -> Task[..., Any]:
        parts = self._parts
        mine = isinstance(fn, Task)
        task = cast("Task[..., Any]", fn) if mine else parts.registry.define(parts.producing, fn, {})
        self._parts.declarations.task(task, name, rule, self._parts.registry)
        return task

    def schedules(self) -> list[ScheduleStatus]:
        """Every schedule in the store, by name: those that workers brought there from code, and operators' own."""
        return self._parts.scheduling.all()

    async def aschedules(self) -> list[ScheduleStatus]:
        """As `schedules`."""
        return await self._parts.scheduling.aall()

    def add_schedule(
        self,
        name: str,
        job: NewJob[Any],
        *,
        cron: str | None = None,
        every: Duration | None = None,
        tz: str = "UTC",
        missed: Missed = "once",
        overlap: Overlap | None = None,
        jitter: Duration = 0,
    ) -> None:
        """Adds a schedule to the store, that no code declares; workers notice it within 5 s. Parameters as `cron`.

        ConfigError naming the parameter that makes no sense, StoreError if there is a schedule of this name.
        """
        rule = rule_of(cron=cron, every=every, tz=tz, missed=missed, overlap=overlap, jitter=jitter)
        self._parts.scheduling.add(name, job, rule)

    async def aadd_schedule(
        self,
        name: str,
        job: NewJob[Any],
        *,
        cron: str | None = None,
        every: Duration | None = None,
        tz: str = "UTC",
        missed: Missed = "once",
        overlap: Overlap | None = None,
        jitter: Duration = 0,
    ) -> None:
        """As `add_schedule`."""
        rule = rule_of(cron=cron, every=every, tz=tz, missed=missed, overlap=overlap, jitter=jitter)
        await self._parts.scheduling.aadd(name, job, rule)

    def change_schedule(
        self,
        name: str,
        *,
        job: NewJob[Any] | None = None,
        cron: str | None = None,
        every: Duration | None = None,
        tz: str | None = None,
        missed: Missed | None = None,
        overlap: Overlap | None = None,
        jitter: Duration | None = None,
    ) -> None:
        """Changes a schedule, whatever code declares, until `reset_schedule`; what is not given stays as it is.

        Other times count from now on. ConfigError naming the parameter that makes no sense, ScheduleNotFound.
        """
        self._parts.scheduling.change(name, Edit(cron, every, tz, missed, overlap, jitter), job)

    async def achange_schedule(
        self,
        name: str,
        *,
        job: NewJob[Any] | None = None,
        cron: str | None = None,
        every: Duration | None = None,
        tz: str | None = None,
        missed: Missed | None = None,
        overlap: Overlap | None = None,
        jitter: Duration | None = None,
    ) -> None:
        """As `change_schedule`."""
        await self._parts.scheduling.achange(name, Edit(cron, every, tz, missed, overlap, jitter), job)

    def reset_schedule(self, name: str) -> bool:
        """Gives a schedule back to its code; False if there was nothing to take back. Raises ScheduleNotFound;
        StoreError if no code declares it.
        """
        return self._parts.scheduling.reset(name)

    async def areset_schedule(self, name: str) -> bool:
        """As `reset_schedule`."""
        return await self._parts.scheduling.areset(name)

    def pause_schedule(self, name: str, *, until: Duration | datetime | None = None, reason: str = "") -> None:
        """No tick makes a job, until the time given (from now, or an aware datetime), or until it is resumed; what the
        pause covers is not made up for. Raises ScheduleNotFound; ConfigError for a time that is over.
        """
        self._parts.scheduling.pause(name, until, reason)

    async def apause_schedule(self, name: str, *, until: Duration | datetime | None = None, reason: str = "") -> None:
        """As `pause_schedule`."""
        await self._parts.scheduling.apause(name, until, reason)

    def resume_schedule(self, name: str) -> bool:
        """Ends a pause now; False if there was none. Raises ScheduleNotFound."""
        return self._parts.scheduling.resume(name)

    async def aresume_schedule(self, name: str) -> bool:
        """As `resume_schedule`."""
        return await self._parts.scheduling.aresume(name)

    def trigger_schedule(self, name: str) -> Job[Any]:
        """Enqueues the job of a schedule now, beside its ticks, also while it is paused. With overlap="skip" it is the
        handle of the last one (`created` is False), if that is unfinished. Raises ScheduleNotFound, and as `enqueue`.
        """
        return self._parts.scheduling.trigger(name)

    async def atrigger_schedule(self, name: str) -> Job[Any]:
        """As `trigger_schedule`."""
        return await self._parts.scheduling.atrigger(name)

    def delete_schedule(self, name: str) -> None:
        """Deletes a schedule that no code declares. Raises ScheduleNotFound; StoreError if code declares it."""
        self._parts.scheduling.delete(name)

    async def adelete_schedule(self, name: str) -> None:
        """As `delete_schedule`."""
        await self._parts.scheduling.adelete(name)

    # --- what surrounds handlers

    @overload
    def resource(self, fn: Callable[[], AsyncIterator[T]], /) -> Resource[T]: ...
    @overload
    def resource(self, fn: Callable[[], Iterator[T]], /) -> Resource[T]: ...
    def resource(self, fn: Callable[[], Any], /) -> Resource[Any]:
        """Makes a resource of a generator function: what it yields is open while a worker runs, for all its handlers.

        Plain ones are shared by the whole process, async ones are for the code on the worker's event loop. `with jobs:`
        opens the plain ones without a worker, `async with jobs:` both. They are opened in order of definition,
        so one may call an earlier one. ConfigError for what is no generator function without parameters.
        """
        return self._parts.resources.define(fn)

    def around(self, fn: Callable[[CurrentJob], Iterator[None]], /) -> Callable[[CurrentJob], Iterator[None]]:
        """Puts a generator with one `yield` round every attempt, in the handler's own context; the first is the
        outermost. The handler's error is raised at the `yield`. Direct calls of a task run without.

        ConfigError for what is no generator function of one parameter.
        """
        return self._parts.around.define(fn)

    # --- jobs

    def enqueue_many(self, jobs: Iterable[NewJob[R]], *, connection: object = None) -> list[Job[R]]:
        """Stores bound jobs, each atomic by itself; with `connection`, all in the caller's own transaction.

        Repeating the call with the same bound jobs is harmless. Raises IdConflict, UniqueConflict or QueueFull with
        the handles of the jobs that were accepted, and those that were refused, after all others were stored (with
        `connection`: nothing is stored then).
        """
        return self._parts.producing.store_many(jobs, connection)

    async def aenqueue_many(self, jobs: Iterable[NewJob[R]], *, connection: object = None) -> list[Job[R]]:
        """As `enqueue_many`."""
        return await self._parts.producing.astore_many(jobs, connection)

    def job(self, id: UUID | str) -> Job[Any]:
        """A handle for a known id; asks nothing yet. JobNotFound for a text that is no id."""
        return self._parts.asking.job(id)

    def find(self, **where: Unpack[Filter]) -> Iterator[JobStatus[Any]]:
        """The jobs that match, newest first, read page by page."""
        return self._parts.operating.find(which(where))

    def afind(self, **where: Unpack[Filter]) -> AsyncIterator[JobStatus[Any]]:
        """As `find`."""
        return self._parts.operating.afind(which(where))

    def retry(self, *, dry_run: bool = False, **where: Unpack[Filter]) -> int:
        """Retries all dead or cancelled jobs that match, and tells how many (`dry_run`: would be).

        A job whose unique key is another's now, or whose queue is full, stays as it is; so does one that a transaction
        which is still open holds (a warning, `left-alone`).
        """
        return self._parts.operating.retry(which(where), dry_run=dry_run).told()

    async def aretry(self, *, dry_run: bool = False, **where: Unpack[Filter]) -> int:
        """As `retry`."""
        return (await self._parts.operating.aretry(which(where), dry_run=dry_run)).told()

    def cancel(self, *, dry_run: bool = False, **where: Unpack[Filter]) -> int:
        """Cancels all unfinished jobs that match, and tells how many (`dry_run`: would be).

        A job that a transaction which is still open holds, as to write its end, stays as it is (a warning,
        `left-alone`).
        """
        return self._parts.operating.cancel(which(where), dry_run=dry_run).told()

    async def acancel(self, *, dry_run: bool = False, **where: Unpack[Filter]) -> int:
        """As `cancel`."""
        return (await self._parts.operating.acancel(which(where), dry_run=dry_run)).told()

    def delete(self, *, dry_run: bool = False, **where: Unpack[Filter]) -> int:
        """Deletes all jobs that match and do not run, and tells how many (`dry_run`: would be).

        A job that a transaction which is still open holds stays as it is (a warning, `left-alone`).
        """
        return self._parts.operating.delete(which(where), dry_run=dry_run).told()

    async def adelete(self, *, dry_run: bool = False, **where: Unpack[Filter]) -> int:
        """As `delete`."""
        return (await self._parts.operating.adelete(which(where), dry_run=dry_run)).told()

    # --- workers

    def worker(
        self,
        *,
        queues: Sequence[str] | None = None,
        concurrency: int = 10,
        deadline: Duration = 10,
        strict: bool = False,
    ) -> Worker:
        """A worker in this process: `async with` runs async handlers on the caller's loop, `with` on one of its own.

        `queues`: which to serve, None for every queue in the store. `concurrency`: jobs at a time. `deadline`: how
        long running jobs may go on when it stops. `strict`: nothing of a queue is started while one that stands before
        it in `queues` has jobs; else queues share by their weights. Such a worker does not survive a handler that holds
        the interpreter longer than the lease, nor the end of the process; `holdfast worker` does.
        """
        return self._parts.staffing.embedded(queues=queues, concurrency=concurrency, deadline=deadline, strict=strict)


def parts_of(app: Holdfast) -> Parts:
    """What the app consists of."""
    return app._parts  # noqa: SLF001  # what users see of an app is its public names alone
