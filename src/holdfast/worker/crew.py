"""Crew: wires the roles of one worker together. start -> claim, run, finish -> stop.

It stops claims, jobs, outcomes and lease, in this order. The roles, a file each: fetcher, slots, attempts, runner,
executors, finisher, notes, keeper, janitor, pulse; loop repeats their steps.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any
from uuid import UUID

from holdfast.around import Around
from holdfast.clock import SECOND, Clock, Duration, Instant, Span, moment, span
from holdfast.errors import ConfigError, Stop, StoreError
from holdfast.job import Loss, Note, Outcome, QueueTerms
from holdfast.naming import named
from holdfast.observe.health import Vitals
from holdfast.observe.logging import jobs, tell, workers
from holdfast.observe.tally import Counts, News, Totals
from holdfast.resource import Opening, Resources
from holdfast.store import Line, Store
from holdfast.task import Task
from holdfast.worker.attempts import Attempts
from holdfast.worker.blackbox import BlackBox
from holdfast.worker.fetcher import Fetcher
from holdfast.worker.finisher import Finisher
from holdfast.worker.identity import Identity
from holdfast.worker.janitor import Janitor
from holdfast.worker.keeper import KeeperThread
from holdfast.worker.keeper import OnLoop as ToLoop
from holdfast.worker.loop import Signal, Trouble, repeat
from holdfast.worker.measured import measured
from holdfast.worker.notes import Notes
from holdfast.worker.outage import Outage
from holdfast.worker.processes.launch import Launch
from holdfast.worker.pulse import Pulse
from holdfast.worker.recorder import Recorder
from holdfast.worker.runner import GRACE, Run
from holdfast.worker.shares import Shares, Strict
from holdfast.worker.slots import Slots
from holdfast.worker.telling import Telling
from holdfast.worker.ticker import Ticker
from holdfast.worker.vitals import resident, vitals
from holdfast.worker.within import Within

FLUSH = 5.0  # seconds that the store has for the last outcomes, and for each other call that is under way at a stop
LAST_TRY = 0.5  # seconds that it has for all that comes after, once it has not answered within FLUSH
NOTES_FLUSH = 1.0  # and then for what handlers said of themselves
RELIEF = 1.0  # seconds that a worn worker waits to be replaced before it goes on claiming
MIB = 2**20
CONCURRENCY_MOST = 10_000

_FORCED = "still running after the deadline; given back once its code has ended"
_OVERDUE = "still running after its time was over; a failed attempt once its code has ended"
_UNRECORDED = "done, not recorded: will run again"
_UNCONFIRMED = "finished in a transaction of its own, which is not known to be committed: will run again if it is not"

Supply = Callable[[], tuple[Store, Mapping[str, Task[..., Any]]]]


@dataclass
class Departure:
    """How a worker left: what had to be forced, and what the store did not take."""

    refused: int = 0  # late outcomes, under a stale fence
    forced: list[Run] = field(default_factory=list)
    unsettled: Sequence[Outcome] = ()

    @property
    def exit_code(self) -> int:
        """0 drained, 1 something was forced and is given back, 3 outcomes that the store did not take."""
        if self.unsettled:
            return 3
        return 1 if self.forced else 0


class Crew:
    """Claims jobs and runs them, on the loop that starts it."""

    def __init__(
        self,
        supply: Supply,
        *,
        queues: Sequence[str] | None = None,
        strict: bool = False,
        concurrency: int = 10,
        deadline: Duration = 10,
        clock: Clock,
        supervisor: UUID | None = None,
        box: BlackBox | None = None,
        max_jobs: int | None = None,
        max_memory: int | None = None,
        launch: Callable[[], Launch | None] = lambda: None,
        resources: Resources | None = None,
        around: Around | None = None,
        declared: Mapping[str, QueueTerms] = MappingProxyType({}),
        reconcile: Callable[[Store], Awaitable[Mapping[str, Instant | None]]] | None = None,
        declares: bool = True,
        totals: Totals | None = None,
    ) -> None:
        self._supply = supply
        self._queues = _queues(queues)
        self._shares = _strict(self._queues) if strict else Shares(self._queues)
        self._concurrency = _concurrency(concurrency)
        self.deadline = span(deadline, "deadline") / SECOND  # seconds
        self._clock = clock
        self._supervisor = supervisor
        self._given = box
        self._max_jobs = max_jobs
        self._max_memory = max_memory  # bytes
        self._launch = launch
        self._resources = resources or Resources()
        self._around = around
        self._declared = declared  # what the app's code says of queues
        self._reconcile = reconcile  # brings what it says of schedules
        self._declares = declares  # whether it does so at its start
        self._schedules: Mapping[str, Instant | None] = {}  # and their next ticks, when it started
        self._opening: Opening | None = None
        self._to_open: asyncio.Task[Opening] | None = None
        self._unwanted = False  # since before it had started
        self.identity = Identity(clock)
        self.number = 0  # its place among those in this process
        self.counts, self.totals = Counts(), totals or Totals()  # the latter perhaps together with others
        self.hand_on: Callable[[News], object] = self.totals.add  # is told what was counted
        self._hurry = Signal()
        self._main: asyncio.Task[None] | None = None
        self._keeping = threading.Lock()
        self._told_small = False
        self._worn_at = 0.0  # when it first asked to be replaced
        self.patient = False  # whether a stop waits for running jobs however long they take
        self._again: asyncio.Task[None] | None = None
        self._stopping: asyncio.Task[Departure] | None = None
        self.renamed: Callable[[UUID], object] | None = None  # told the id of a new incarnation
        self.worn: Callable[[str], object] | None = None  # told why this process should be replaced, until it is
        self.overdue: Callable[[Run, str], object] | None = None  # told of a run that only this process's end ends

    # --- the life of a worker, on its loop

    async def astart(self) -> None:
        """Opens the store and the resources, registers, and starts claiming.

        Raises StoreError, ResourceError or ConfigError if it cannot, Stop("shutdown") if it was told to `give_up`.
        """
        if self._main is not None:
            raise ConfigError("this worker runs already")
        store, self._tasks = self._supply()
        self.totals.know(self.queue_names, self._tasks)
        self._store = measured(store, self.counts)
        launch = self._launch()
        if launch is None:
            _refuse_processes(self._tasks)
        self.identity = Identity(self._clock)  # never one that was retired
        await self._store.open()
        try:
            if self._declared:
                await self._store.configure(self._declared, by="worker")
            if self._reconcile is not None and self._declares:
                self._schedules = await self._reconcile(self._store)
            self._opening = await self._opened()
            self._wire(launch)
            await self._register()
            await self._fetcher.weights_step()
        except BaseException:
            await self._close_resources()
            await self._store.close()
            raise
        if self._supervisor is None:
            self.keep()
        self._pulse.start()
        self._main, self._stopping = asyncio.create_task(self._run()), None
        tell(
            workers,
            logging.INFO,
            "started",
            worker=self.identity.id,
            slots=self._concurrency,
            store=self._store.url,
        )

    async def _opened(self) -> Opening:
        """The only part of a start that may take for ever: the resources' own code."""
        self._to_open = asyncio.create_task(self._resources.aopen())
        if self._unwanted:
            self._to_open.cancel()
        try:
            return await self._to_open
        except asyncio.CancelledError:
            if self._unwanted:
                raise Stop("shutdown") from None
            raise
        finally:
            self._to_open = None

    def give_up(self) -> None:
        """Does not start, if it has not: what is being opened is given up. `astop` is for one that has started."""
        self._unwanted = True
        if self._to_open is not None:
            self._to_open.cancel()

    @property
    def started(self) -> bool:
        """Whether it has started, and not yet stopped."""
        return self._main is not None

    def _wire(self, launch: Launch | None) -> None:
        self._loop = asyncio.get_running_loop()
        self._box = self._given or BlackBox.made(self._concurrency)
        self._claiming, self._working = Signal(), Signal()
        self._outage = Outage()
        self._silent = False  # whether the store has left a step under way without an answer for too long
        self._departure = Departure()
        self._keeper: KeeperThread | None = None
        self._telling = Telling(self.counts, self._box, self.hand_on)
        outlived = self._supervisor is not None  # else nobody asks for what was not told, and each look tells
        settled = self._telling.settled if outlived else self._box.end_each
        self._finisher = Finisher(self._store, self._stale, settled, self.counts)
        self._notes = Notes(self._store, self._outage, self._goes_on)
        self._attempts = Attempts(
            self._tasks,
            self._finisher,
            self._box,
            self._clock,
            self._concurrency,
            lambda: self.identity,
            self._freed,
            notes=self._notes,
            around=self._around,
            within=Within(lambda: self._store, self._its_store),
        )
        self._attempts.overdue = self._overdue
        if launch is not None:
            self._attempts.may_spawn(launch, max_jobs=self._max_jobs, max_memory=self._max_memory)
        self._slots = Slots(self._concurrency, self._attempts.begin, self._clock, quietly=launch is None)
        self._pulse = Pulse(
            self._box,
            self._slots.running.values,
            lambda: self._finisher.unsent_since,
            self._mind_the_lease,
            self._mind_the_wear,
        )
        self._fetcher = Fetcher(
            self._store,
            lambda: self.identity,
            self._slots,
            self._finisher,
            self._queues,
            self._claiming,
            self.lost,
            self._allowance,
            shares=self._shares,
        )
        self._ticker = Ticker(self._store, self.counts)
        self._janitor = Janitor(self._store, lambda: self.identity.id, self.counts)
        self.recorder = Recorder(self._store, lambda: self.identity.id, self.totals)

    async def _its_store(self) -> Store:
        return self._store

    async def _register(self) -> None:
        sent = self._clock.monotonic()
        registered = await self._store.register(self.identity.id, self._supervisor, self.facts())
        self.beaten(self.identity, sent, registered.lease)

    def beaten(self, identity: Identity, sent: float, lease: Span) -> None:
        """A beat for `identity` that was sent at `sent` (monotonic seconds) was accepted."""
        identity.beaten(sent, lease)
        self._box.beat(sent, lease / SECOND, identity.held_until)

    def facts(self) -> dict[str, object]:
        """What others may know of this worker."""
        import platform
        from importlib import metadata  # these two cost what the rest of the package costs, and only workers need them

        return {
            "name": f"{platform.node()}:{os.getpid()}",
            "pid": os.getpid(),
            "queues": self._queues,
            "tasks": sorted(self._tasks),
            "slots": self._concurrency,
            "python": platform.python_version(),
            "version": metadata.version("holdfast"),
        }

    @property
    def queue_names(self) -> list[str]:
        """The queues that it serves by name, that the app declares, and that its tasks go to."""
        return sorted({*(self._queues or ()), *self._declared, *(task.queue for task in self._tasks.values())})

    @property
    def schedules(self) -> dict[str, str | None]:
        """The schedules that the app declares, and when each was to tick next at the start, as ISO 8601."""
        return {name: moment(at).isoformat() if at else None for name, at in self._schedules.items()}

    def keep(self) -> None:
        """Starts a heartbeat of the worker's own: an embedded worker's, or a child's whose supervisor is silent."""
        with self._keeping:
            if self._keeper is None and not self._working:
                keeper = KeeperThread(self._store.twin(), self._clock, self._outage)
                keeper.start()  # it may be that there is no thread just now
                self._keeper = keeper
                self._listen()

    def _mind_the_lease(self) -> None:
        """At each pulse, in its thread: a supervisor whose beats stay away may be stopped, or cut off."""
        beaten, lease = self._box.beaten
        if self._keeper is None and self._clock.monotonic() - beaten > lease / 2:
            if not self._outage.goes_on:  # else they stay away for a reason that has been told
                text = "it beats for itself from now on"
                tell(workers, logging.WARNING, "beats-stay-away", worker=self.identity.id, message=text)
            self.keep()

    def _listen(self) -> None:
        if self._keeper is not None:
            heard = Heard(self, self.identity)
            self._keeper.keeper.kept[self.identity.id] = ToLoop(self._loop, heard)

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            fetching = group.create_task(repeat("fetcher", self._fetcher.step, self._claiming, self._outage))
            roles = [
                group.create_task(repeat(role, step, self._working, self._outage))
                for role, step in (
                    ("finisher", self._finisher.step),
                    ("confirms", self._finisher.confirms.step),
                    ("notes", self._notes.step),
                    ("promote", self._told_after(self._janitor.promote_step)),
                    ("reclaim", self._told_after(self._janitor.reclaim_step)),
                    ("prune", self._janitor.prune_step),
                    ("tick", self._told_after(self._ticker.step)),
                    ("strays", self._fetcher.strays_step),
                    ("weights", self._fetcher.weights_step),
                    ("look", self._look_step),
                    *([("record", self.recorder.step)] if self._supervisor is None else []),
                )
            ]
            await self._claiming.wait(None)
            await self._drain(group.create_task(self._ended(fetching)))
            self._working.set()
            self._finisher.arrived.poke()
            self._finisher.confirms.arrived.poke()
            self._notes.wake()
            self._silent |= bool(self._departure.unsettled)
            await self._ended(*roles)
            self._telling.now()
            if self._supervisor is None and not self._silent:
                await self.recorder.last()
        self._outage.look(last=True)

    async def _ended(self, *roles: asyncio.Task[None]) -> None:
        """Waits for steps under way. What the store does not answer within FLUSH seconds does not end by itself: it is
        cut. What such a claim takes comes back when the worker is retired, or when its lease ends.
        """
        patience = LAST_TRY if self._outage.goes_on else FLUSH
        _, late = await asyncio.wait(roles, timeout=0 if self._silent else patience)
        for role in late:
            self._silent = True
            role.cancel()

    async def astop(self, deadline: Duration | None = None) -> Departure:
        """Stops in order: claims, prefetched jobs given back, running jobs until the deadline, outcomes, lease."""
        if self._main is None:
            return Departure()
        if deadline is not None:
            self.deadline = span(deadline, "deadline") / SECOND
        self._claiming.set()
        self._slots.changed.poke()
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._stop(self._main))
        return await asyncio.shield(self._stopping)  # who no longer waits for it has not stopped the stop

    async def _stop(self, main: asyncio.Task[None]) -> Departure:
        try:
            await main
            if self._again is not None:
                await self._again
        except BaseException:  # the roles were cut, as when the loop ends: what runs keeps its jobs until it is over
            self._departure.forced = list(self._slots.running.values())
            self.linger()
            raise
        finally:
            self._pulse.stop()
            self._attempts.in_threads.close()  # busy ones end after their handler
            self._notes.close()
            await self._close_resources()
        self._main = None
        if self._departure.forced:
            self.linger()
            await self._let_go(self._store.close())
        else:
            await self._retire()
        return self._departure

    def hurry(self) -> None:
        """Skips to the deadline, as a second signal asks."""
        self._hurry.set()
        self._stir()

    async def _drain(self, fetched: asyncio.Task[None]) -> None:
        prefetched = self._slots.take()
        tell(
            workers,
            logging.INFO,
            "stopping",
            worker=self.identity.id,
            running=len(self._slots.running),
            deadline=None if self.patient else self.deadline,
            given_back=len(prefetched),
        )
        self._fetcher.give_back(prefetched, "given back at shutdown, never begun")
        await self._until_idle(self.deadline, self._hurry)
        for run in list(self._slots.running.values()):
            run.stop("shutdown")
        await self._until_idle(GRACE, None)
        await self._attempts.end_processes()
        self._departure.forced = list(self._slots.running.values())
        await fetched  # what it has claimed meanwhile is given back with the outcomes
        self._departure.unsettled = await self._finisher.flush(FLUSH, self._clock.monotonic)
        await self._flush_notes()
        self._tell_departure()

    async def _until_idle(self, seconds: float, hurry: Signal | None) -> None:
        end = None
        while not hurry and not all(run.overdue for run in self._slots.running.values()):
            if self.patient:
                await self._slots.changed.wait(None)
                continue
            end = end or self._clock.monotonic() + seconds
            left = end - self._clock.monotonic()
            if left <= 0:
                return
            await self._slots.changed.wait(left)

    async def _flush_notes(self) -> None:
        lost = await self._notes.flush(0 if self._departure.unsettled else NOTES_FLUSH)
        if lost:
            text = "progress and lines of this many attempts were not written"
            tell(workers, logging.WARNING, "notes-lost", worker=self.identity.id, attempts=lost, message=text)

    async def _close_resources(self) -> None:
        opening, self._opening = self._opening, None
        if opening is not None:
            await opening.aclose()

    def insist(self) -> None:
        """Ends the patience of a stop under way: its deadline counts from now."""
        self.patient = False
        self._stir()

    def _stir(self) -> None:
        if self._main is not None:
            self._slots.changed.poke()

    def _tell_departure(self) -> None:
        now = self._clock.monotonic()
        for run in self._departure.forced:
            tell(
                jobs,
                logging.ERROR,
                "forced",
                task=run.claim.task,
                job=run.claim.id,
                fence=run.claim.fence,
                ran=now - run.started,
                message=_FORCED if not run.overdue else _OVERDUE,
            )
        unconfirmed = self._finisher.confirms.pending
        for outcome in self._departure.unsettled:
            tell(
                jobs,
                logging.ERROR,
                "not-recorded",
                job=outcome.id,
                fence=outcome.fence,
                ended=outcome.ended,
                message=_UNCONFIRMED if outcome.id in unconfirmed else _UNRECORDED,
            )
        tell(
            workers,
            logging.INFO,
            "stopped",
            worker=self.identity.id,
            finished=self._attempts.finished,
            refused=self._departure.refused,
            forced=len(self._departure.forced),
            not_recorded=len(self._departure.unsettled),
        )

    async def _retire(self) -> None:
        if self._keeper is not None:
            await self._keeper.stop(self._patience)
        loss = Loss("left with outcomes not recorded", on_purpose=True) if self._departure.unsettled else None
        why = await self._let_go(self._store.retire(self.identity.id, loss))
        if why:
            text = f"its lease ends by itself; {why}"
            tell(workers, logging.WARNING, "not-retired", worker=self.identity.id, message=text)
        await self._let_go(self._store.close())

    async def _let_go(self, last: Coroutine[Any, Any, None]) -> str:
        """Why it could not be done; empty if it is done."""
        try:
            async with asyncio.timeout(self._patience):
                await last
        except TimeoutError:
            self._silent = True
            return "the store did not answer in time"
        except StoreError as error:
            return str(error)
        return ""

    @property
    def _patience(self) -> float:
        return LAST_TRY if self._silent else FLUSH

    def linger(self) -> None:
        """Code of ours still runs in this process: keep its jobs from others until it has ended."""
        if self._keeper is not None:
            runs = self._departure.forced
            self._keeper.linger(self.identity.id, lambda: all(run.over for run in runs))

    # --- attempts

    def _freed(self, run: Run) -> None:
        """An attempt has ended: fill its slot."""
        self._slots.ended(run)
        if not self._claiming and self.identity.held():
            self._slots.fill()
        self._slots.changed.poke()

    def _mind_the_wear(self) -> None:
        """At each pulse, on the loop: asks to be replaced once it has done enough."""
        if self.worn is None or self._claiming:
            return
        if self._max_jobs is not None and (taken := self._taken()) >= self._max_jobs:
            self._worn_at = self._worn_at or self._clock.monotonic()
            self.worn(f"it has taken {taken} jobs")
        elif self._max_memory is not None and (memory := resident()) > self._max_memory:
            self._outgrown(memory)

    def _outgrown(self, memory: int) -> None:
        held, most = memory // MIB, (self._max_memory or 0) // MIB
        if self._attempts.finished and self.worn is not None:
            self.worn(f"it holds {held} MiB of memory")
        elif not self._slots.running and not self._told_small:  # a fresh one would be no smaller
            self._told_small = True
            text = f"it holds {held} MiB before its first job, and --max-memory allows {most}"
            tell(workers, logging.WARNING, "max-memory-too-small", worker=self.identity.id, message=text)

    def _allowance(self) -> int:
        """How many more jobs it may claim; any number again if nobody replaces it."""
        if self._max_jobs is None or self.worn is None:
            return CONCURRENCY_MOST
        if self._worn_at and self._clock.monotonic() - self._worn_at > RELIEF:
            return CONCURRENCY_MOST
        left = self._max_jobs - self._taken()
        if left <= 0:
            self._mind_the_wear()
        return left

    def _taken(self) -> int:
        return self._attempts.finished + len(self._slots.running) + len(self._slots.waiting)

    def _overdue(self, run: Run, stack: str) -> None:
        if self.overdue is not None:
            self.overdue(run, stack)

    def _told_after(self, step: Callable[[], Awaitable[float]]) -> Callable[[], Awaitable[float]]:
        """`step`, and what it has counted handed on at once: no run in the black box says it of a process that dies."""

        async def stepped() -> float:
            pause = await step()
            self._telling.now()
            return pause

        return stepped

    async def _look_step(self) -> float:
        self._telling.now()
        self._box.claims(self._fetcher.went_on, unheard=bool(self._store.unheard))
        return self._attempts.look(list(self._slots.running.values()))

    def _goes_on(self, note: Note) -> bool:
        """Whether the attempt that said this is under way, not asked to end, and surely nobody else's."""
        run = self._slots.running.get((note.id, note.fence))
        return run is not None and run.claim.worker == note.worker and run.asked is None and run.job.held

    def _stale(self, outcome: Outcome) -> None:
        self._departure.refused += 1
        tell(
            jobs,
            logging.WARNING,
            "refused",
            job=outcome.id,
            fence=outcome.fence,
            ended=outcome.ended,
            message="a late outcome: the job was given to another worker meanwhile; nothing was written",
        )

    def vitals(self) -> Vitals:
        """How it is now, but for its memory, which it may share with others. From any thread."""
        return vitals(self._box, self.number, self._concurrency, 0, self._clock.monotonic())

    @property
    def away(self) -> str:
        """Why its store does not answer; empty if it does, as far as is known."""
        return (self._outage.why or "it does not answer") if self._outage.goes_on else ""

    @property
    def stopping(self) -> bool:
        """Whether it claims nothing more."""
        return bool(self._claiming)

    # --- what the keeper hears

    def told(self, line: Line) -> None:
        """A line of mail: stop that attempt, if it is still the one."""
        run = self._slots.running.get((line.job, line.fence))
        if run is not None and line.worker == run.claim.worker:
            run.stop("cancelled" if line.kind == "cancel" else "lost")

    def lost(self, identity: Identity) -> None:
        """This incarnation was retired: its jobs are others' now. Stop them, and begin anew."""
        if identity is not self.identity or self._claiming:
            return
        identity.lost = True
        if self._keeper is not None:
            self._keeper.keeper.kept.pop(identity.id, None)
        text = "the store knows it no more: retired by someone else, or lost; its jobs are not its own now"
        tell(workers, logging.WARNING, "worker-gone", worker=identity.id, message=text)
        self._slots.take()
        for run in list(self._slots.running.values()):
            run.stop("lost")
        self.identity = Identity(self._clock)
        self._again = asyncio.create_task(self._begin_anew())

    async def _begin_anew(self) -> None:
        """Registers the new incarnation, however long the store takes."""
        trouble = Trouble("register", self._outage)
        while not self._claiming:
            try:
                await self._register()
                await self._bring_back()
            except Exception as error:  # noqa: BLE001  # without a registered life the worker does nothing
                await self._claiming.wait(trouble.again(error))
            else:
                trouble.over()
                self._renamed()
                return

    async def _bring_back(self) -> None:
        """Schedules that went with a store which lost all that it had; else what is there is somebody's last word."""
        if self._reconcile is not None and not (await self._store.schedules()).entries:
            await self._reconcile(self._store)

    def _renamed(self) -> None:
        self._listen()
        if self.renamed is not None:
            self.renamed(self.identity.id)
        tell(workers, logging.WARNING, "began-anew", worker=self.identity.id)


class Heard:
    """What is heard about one incarnation of a worker, and about no other."""

    def __init__(self, worker: Crew, identity: Identity) -> None:
        self.identity = identity
        self._worker = worker

    def beaten(self, sent: float, lease: Span) -> None:
        self._worker.beaten(self.identity, sent, lease)

    def gone(self) -> None:
        self._worker.lost(self.identity)

    def line(self, line: Line) -> None:
        self._worker.told(line)


def _refuse_processes(tasks: Mapping[str, Task[..., Any]]) -> None:
    names = sorted({task.name for task in tasks.values() if task.in_process})
    if names:
        raise ConfigError(
            f"run_in='process' on {', '.join(names[:3])}: another process cannot find the app; "
            "make it at the top of a module (jobs = Holdfast(...)), not in a function or an interactive session"
        )


def _queues(queues: Sequence[str] | None) -> tuple[str, ...] | None:
    if queues is None:
        return None
    if isinstance(queues, str) or not queues:
        raise ConfigError(f"queues={queues!r}: a list of queue names, or None for every queue")
    return tuple(named(queue, "queues") for queue in queues)


def _strict(queues: Sequence[str] | None) -> Strict:
    if queues is None:
        raise ConfigError("strict=True: in which order? Name the queues, as in queues=['urgent', 'mail'], strict=True")
    return Strict(queues)


def _concurrency(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= CONCURRENCY_MOST:
        return value
    raise ConfigError(f"concurrency={value!r}: a whole number from 1 to {CONCURRENCY_MOST}")
