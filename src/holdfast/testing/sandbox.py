"""Sandbox: an app in a test, on a store in memory and a clock that stands still, where nothing runs by itself."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from contextlib import ExitStack
from datetime import datetime
from typing import Any, ParamSpec, Self, TypeVar, cast

from holdfast.app import Holdfast, parts_of
from holdfast.bridge import run_here
from holdfast.clock import Duration, FakeClock, Instant, SystemClock, instant, span
from holdfast.errors import ConfigError
from holdfast.handles import Job, JobStatus
from holdfast.job import Record
from holdfast.store import Store, Where
from holdfast.stores.memory import MemoryStore
from holdfast.task import Task
from holdfast.testing.calls import Call, missing
from holdfast.testing.loops import Loops, loop_here
from holdfast.testing.runs import MOST, Runs, unfinished
from holdfast.testing.stage import Stage

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

PAGE = 500


class Sandbox:
    """An app in a test: while it is open, all that the app does goes to a memory store of the sandbox's own.

        with Sandbox(jobs) as box:
            place_order(42)                              # the code under test, which enqueues
            box.assert_enqueued(send_invoice, 42)
            [status] = box.run()
            assert status.state == "succeeded"

    Nothing runs by itself: `run()` runs what is due now, `advance("2h")` lets time pass, and the app's schedules tick
    on the way. Plain handlers run in the thread that calls these, async ones on a loop of the sandbox's own; with
    `async with`, `arun()` and `aadvance()`, on the caller's loop. No process is started, for `run_in="process"`
    neither, and no thread stays.

    `now`: what time it is, an aware datetime or ISO 8601 text with a zone; without it, the machine's time when the
    sandbox opens. The clock stands still but for `advance()`; a `timeout=` is measured by the machine's own.
    `inline=True`: an enqueue returns when the job has run, if it is due at once; what its handler raises is the job's
    error, and what it enqueues runs at once, too.

    Handlers have what they have in a worker: `current_job()`, `around`, carried variables and no others of the test's,
    resources (opened for the first job, but those that `override()` replaces then). Bounds and unique keys hold.
    Any `connection=` is accepted and its jobs recorded at once, all or none: a rollback is not simulated. For
    `current_job().finish(connection, result)` likewise: the job has succeeded if its handler returns then. What would
    wait does not: a queue that is full raises QueueFull, also with when_full="block", and `result()` of a job that has
    not ended raises TimeoutError. A `jobs.worker()` that the code under test starts runs, and finds nothing to do.

    What has ended stays, to be looked at, however much time passes: `keep=` deletes nothing here.

    Sandboxes may be nested (the inner one counts) and follow each other; each begins empty, and the app's real store
    is neither opened nor changed. Raises ConfigError for a `now` that is none, or a module of the app's that cannot be
    imported.
    """

    def __init__(self, app: Holdfast, *, now: datetime | str | None = None, inline: bool = False) -> None:
        if not isinstance(app, Holdfast):
            raise ConfigError(f"Sandbox({app!r}): the app itself, such as Sandbox(jobs)")
        self._app = app
        self._parts = parts_of(app)
        self._now = None if now is None else _instant(now)
        self._inline = inline
        self._world: _World | None = None

    # --- opening

    def __enter__(self) -> Self:
        self._open(Loops(None))
        return self

    def __exit__(self, *exc: object) -> None:
        world = self._closing()
        try:
            world.runs.openings.close()
        finally:
            world.leave()

    async def __aenter__(self) -> Self:
        self._open(Loops(loop_here()))
        return self

    async def __aexit__(self, *exc: object) -> None:
        world = self._closing()
        try:
            await world.runs.openings.aclose()
        finally:
            world.leave()

    def _open(self, loops: Loops) -> None:
        if self._world is not None:
            raise RuntimeError("this sandbox is open already; make another one: Sandbox(jobs)")
        self._parts.registry.load()
        self._world = _World(self._app, FakeClock(SystemClock().now() if self._now is None else self._now), loops)
        run_here(self._parts.staffing.reconcile(cast("Store", self._world.store)))
        if self._inline:
            self._world.stage.stored = self._world.runs.at_once

    def _closing(self) -> _World:
        world, self._world = self._here, None
        return world

    @property
    def _here(self) -> _World:
        if self._world is None:
            raise RuntimeError("this sandbox is not open: use it inside of `with Sandbox(jobs) as box:`")
        return self._world

    # --- running

    def run(self, limit: int = MOST) -> list[JobStatus[Any]]:
        """Runs what is due now, and what that enqueues, until nothing is due; at most `limit` attempts, and if that is
        1000 or more and more is due, a RuntimeWarning says so.

        Returns one status for each attempt, in order, as the attempt left its job. Raises what is the test's own, such
        as KeyboardInterrupt or pytest.fail() in a handler; errors are the job's.
        """
        return self._ran("run", self._here.runs.due(_checked(limit)))

    async def arun(self, limit: int = MOST) -> list[JobStatus[Any]]:
        """As `run`, with async handlers on this loop."""
        return await self._aran("run", self._here.runs.due(_checked(limit)))

    def advance(self, by: Duration) -> list[JobStatus[Any]]:
        """Lets time pass: runs what is due now, then goes from due moment to due moment and runs what is due at each.

        Returns as `run`; a job that was retried meanwhile is there once for each attempt. RuntimeError if there is no
        end to what is due at one moment.
        """
        return self._ran("advance", self._here.runs.walk(span(by, "by")))

    async def aadvance(self, by: Duration) -> list[JobStatus[Any]]:
        """As `advance`, with async handlers on this loop."""
        return await self._aran("advance", self._here.runs.walk(span(by, "by")))

    def _ran(self, name: str, going: Coroutine[Any, Any, list[Record]]) -> list[JobStatus[Any]]:
        if loop_here() is not None:
            going.close()
            raise RuntimeError(
                f"box.{name}() would hold up the event loop that runs here: "
                f"open the sandbox with `async with`, and `await box.a{name}()`"
            )
        return self._shown(run_here(going))

    async def _aran(self, name: str, going: Coroutine[Any, Any, list[Record]]) -> list[JobStatus[Any]]:
        home = self._here.loops.caller
        if home is not loop_here():
            going.close()
            where = "with `with`" if home is None else "on another event loop"
            raise RuntimeError(f"box.a{name}(): this sandbox was opened {where}; open it here, with `async with`")
        return self._shown(await going)

    def _shown(self, records: Sequence[Record]) -> list[JobStatus[Any]]:
        asking = self._parts.asking
        return [asking.snapshot(record, asking.job(record.id)) for record in records]

    # --- what was enqueued

    def assert_enqueued(self, task: Task[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """The newest job of `task` with these arguments, whatever became of it; how they are passed is no matter.

        AssertionError, showing what was enqueued instead, if there is none. Other options are not compared: look at
        `job.status()`. Raises as `task.bind` for arguments that do not fit.
        """
        __tracebackhide__ = True
        self._must_be_ours(task)
        wanted = Call(task, task.signature.encode(args, kwargs))
        records = self._records(Where())
        for record in records:
            if record.task == task.name and wanted.same(Call(task, record.payload)):
                return cast("Job[R]", self._parts.asking.job(record.id))
        raise AssertionError(missing(wanted, task, records))

    def enqueued(self, task: Task[P, R], /) -> list[Job[R]]:
        """All jobs of `task`, whatever became of them, the oldest first."""
        self._must_be_ours(task)
        found = self._records(Where(task=task.name))
        return [cast("Job[R]", self._parts.asking.job(record.id)) for record in reversed(found)]

    def _must_be_ours(self, task: Task[..., Any]) -> None:
        known = self._parts.registry.names.get(task.name)
        if known is None:
            raise ConfigError(f"{task.name} is not a task of this sandbox's app")
        if task.plan != known.plan:
            raise ConfigError(f"{task.name}.using(...): options are not compared; give the task itself")

    def _records(self, where: Where) -> list[Record]:
        store, records = self._here.store, list[Record]()
        while page := run_here(store.find(where, (records[-1].enqueued_at, records[-1].id) if records else None, PAGE)):
            records += page
        return records


class _World:
    """A sandbox that is open: its store, its clock, its loops, and what runs its jobs."""

    def __init__(self, app: Holdfast, clock: FakeClock, loops: Loops) -> None:
        self.store = MemoryStore(clock)
        self.loops = loops
        self.runs = Runs(parts_of(app), self.store, clock, loops)
        self.stage = Stage(self.store, self.runs.asked_to_end)
        self._standing = ExitStack()
        self._standing.enter_context(parts_of(app).link.stand_in(cast("Store", self.stage), clock, unfinished))

    def leave(self) -> None:
        try:
            self.loops.close()
        finally:
            self._standing.close()


def _instant(now: object) -> Instant:
    if isinstance(now, str):
        try:
            now = datetime.fromisoformat(now)
        except ValueError:
            raise ConfigError(f"now={now!r}: not a time such as '2026-11-22T09:00:00+01:00'") from None
    return instant(cast("datetime", now), "now")


def _checked(limit: object) -> int:
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise ConfigError(f"limit={limit!r}: a whole number of 1 or more")
    return limit
