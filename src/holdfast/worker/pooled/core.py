"""A pool's core: who may come in, who runs next, and when all is over.

A job that simply succeeds takes no lock on its way. Locks that are taken by every job become a queue of threads that
wait for the interpreter in turn; instead, each step is one operation of a deque, which is atomic by itself:

- a *place* is one of `bound`; a job takes one to come in, and gives it back when it is over;
- a *lane* holds what waits, one for each priority; whoever takes a job out of it, owns it;
- a *slot* is one of `concurrency`; whoever holds one takes the next job out of the lanes, runs it, takes the next.
  A slot comes home when nothing waits; whoever brings work or a slot looks for the other (`fill`).
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
import weakref
from bisect import insort
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import count, repeat

from holdfast.context import current
from holdfast.errors import ConfigError, JobCancelled
from holdfast.job import State
from holdfast.worker.pooled import inside, settle, waits, work
from holdfast.worker.pooled.inside import Inside
from holdfast.worker.pooled.kinds import LOOP
from holdfast.worker.pooled.tallies import Tally
from holdfast.worker.pooled.tasks import Tasks
from holdfast.worker.pooled.threads import Threads
from holdfast.worker.pooled.timer import Timer
from holdfast.worker.pooled.work import Work

MINTED = 64  # places that are made at once
DROPPED = "dropped: "

Lane = deque[Work]
Watcher = tuple[Callable[[], bool], Callable[[], object]]  # what is waited for, and how to tell

cores: weakref.WeakSet[Core] = weakref.WeakSet()


class Core:
    """What all faces of one pool share (`using` makes a face)."""

    def __init__(self, concurrency: int, bound: int) -> None:
        self.concurrency = concurrency
        self.bound = bound
        self.closed = False
        self.entered = False
        self.left = False  # at once, and what would not end was told
        self.leaving = False  # what begins now shall not
        self.dropping = False  # closed without draining: what fails is not tried again
        self.lock = threading.RLock()  # of a finalizer, too: for what is not on the way of a job that simply succeeds
        self.lanes: list[Lane] = []  # the highest priority first
        self._lane_of: dict[int, Lane] = {}
        self._priorities: list[int] = []
        self.places: deque[None] = deque()
        self._minted = 0
        self._entries = count(1)  # each job that comes in takes a number, and so does each look at the next one
        self._no_entries = 0  # of looks, and of jobs that were refused
        self.slots: deque[None] = deque(repeat(None, concurrency))
        self.surplus = 0  # slots to be given up, after `resize`
        self.missing = 0  # slots for which there was no thread
        self.askers: deque[Callable[[], object]] = deque()  # who waits for a place: each is called once
        self.watchers: list[Watcher] = []
        self.tally = Tally()  # of everything but successes, under the lock
        self.threads = Threads(self)
        self.tasks = Tasks(self)
        self.timer = Timer(self)
        self.ended = False
        cores.add(self)

    # --- coming in

    def lane(self, priority: int) -> Lane:
        """The lane of a priority."""
        with self.lock:
            if priority not in self._lane_of:
                self._lane_of[priority] = deque()
                insort(self._priorities, priority, key=lambda each: -each)
                self.lanes = [self._lane_of[each] for each in self._priorities]
            return self._lane_of[priority]

    def take_place(self) -> bool:
        """Takes a place if there is one."""
        try:
            self.places.pop()
        except IndexError:
            return self._mint()
        return True

    def _mint(self) -> bool:
        with self.lock:
            more = min(self.bound - self._minted, MINTED)
            if more > 0:
                self.places.extend(repeat(None, more - 1))
                self._minted += more
                return True
        try:
            self.places.pop()
        except IndexError:
            return False
        return True

    def give_place(self) -> None:
        """Gives a place back, and wakes who waits for one."""
        self.places.append(None)
        if self.askers:
            self.wake_asker()
        if self.watchers:
            self.look()

    def wake_asker(self) -> None:
        with suppress(IndexError):
            self.askers.popleft()()

    def enter(self, job: Work) -> None:
        """A job that has its place goes in. ConfigError if the pool was stopped meanwhile."""
        lane = job.plan.lane
        next(self._entries)
        lane.append(job)
        if self.closed and _take_out(lane, job):
            with self.lock:
                self._no_entries += 1
            self.give_place()
            raise self.refusal()
        if self.slots:
            if not (self.threads.rung and job.kind is not LOOP):
                self.fill()
        elif self.missing:
            self.try_missing()

    def refusal(self) -> ConfigError:
        return ConfigError("this pool was stopped, and takes no more jobs: make another Pool")

    @property
    def submitted(self) -> int:
        """How many jobs it ever had."""
        with self.lock:
            number = next(self._entries) - 1 - self._no_entries
            self._no_entries += 1
            return number

    @property
    def depth(self) -> int:
        """How many admitted jobs are not over."""
        with self.lock:
            return self._minted - len(self.places)

    def pools_outside(self) -> tuple[Core, ...]:
        """The pools whose jobs the calling code runs in."""
        outer = current.get(None)
        return outer.pools() if isinstance(outer, Inside) else ()

    # --- slots

    def fill(self) -> None:
        """Has waiting jobs run while there are slots: async ones all, for others one thread is rung.

        That thread rings the next one, if there is still need when it has woken up. To wake all for jobs that one could
        do in the same time would cost more than the jobs.
        """
        while True:
            try:
                self.slots.pop()
            except IndexError:
                return
            if self.surplus and self.give_up():
                continue
            job = self.take()
            if job is not None:
                self.start(job)
                if job.kind is LOOP or not (self.threads.rung or self.missing):  # or failed, as there is no thread
                    continue
                return
            self.slots.append(None)
            if not any(self.lanes):  # what came in before the slot was back, found none
                return

    def take(self) -> Work | None:
        """The next job, for whoever holds a slot."""
        for lane in self.lanes:
            try:
                return lane.popleft()
            except IndexError:
                pass
        return None

    def home(self) -> None:
        """A slot comes home, because nothing waits."""
        self.slots.append(None)
        if self.missing:
            self.try_missing()
        elif any(self.lanes):  # what came in before the slot was back, found none
            self.fill()

    def try_missing(self) -> None:
        """Perhaps there are threads again for the slots that had none."""
        with self.lock:
            self.slots.extend(repeat(None, self.missing))
            self.missing = 0
        self.fill()

    def start(self, job: Work) -> None:
        """Has a job run by who can; the slot goes with it."""
        if job.kind is LOOP:
            self.tasks.start(job)
        else:
            self.threads.start(job)

    def not_started(self, job: Work, error: RuntimeError) -> None:
        """The system gives no further thread: the job waits for one that there is, or, if there is none, fails."""
        if self.threads.seats:
            job.plan.lane.appendleft(job)
            with self.lock:
                self.missing += 1
            if self.threads.parked:  # since just now, and found nothing to do
                self.fill()
            return
        run = Inside(job, time.monotonic())
        settle.raised(self, run, error)
        self.slots.append(None)

    def put_back(self, job: Work) -> None:
        """Who had it begin was interrupted: whoever comes next, finds the job and its slot."""
        job.plan.lane.appendleft(job)
        self.slots.append(None)

    def give_up(self) -> bool:
        with self.lock:
            if not self.surplus:
                return False
            self.surplus -= 1
        return True

    def resize(self, concurrency: int) -> None:
        """From now on so many run at a time; what runs already is not interrupted."""
        with self.lock:
            more = concurrency - self.concurrency - self.surplus
            self.concurrency = concurrency
            self.surplus = max(0, -more)
            self.slots.extend(repeat(None, max(0, more)))
        self.fill()

    # --- leaving

    def over(self, job: Work, state: State, value: object, error: BaseException | None) -> None:
        """A job is over: counted already, its place comes back, and whoever waits is told."""
        self.places.append(None)
        if self.askers:
            self.wake_asker()
        job.ended(state, value, error)
        if self.watchers:
            self.look()

    def cancelled(self, job: Work, why: str, *, dropped: bool = False) -> None:
        """A job that does not run is over."""
        with self.lock:
            if dropped:
                self.tally.dropped += 1
            else:
                self.tally.cancelled += 1
        self.over(job, State.CANCELLED, None, JobCancelled(why))

    def cancel(self, job: Work) -> bool:
        """False if it is over."""
        job.asked = True  # first: whoever starts it or puts it off looks at that afterwards
        if job.done:
            return False
        if self._take_last(job) or _take_out(job.plan.lane, job) or self.timer.take_out(job):
            self.cancelled(job, "cancelled before it began" if job.runs == 1 else "cancelled before its next attempt")
            return True
        run = job.run
        if run is not None:
            self.interrupt(run)
            return True
        return not job.done

    def _take_last(self, job: Work) -> bool:
        """Takes a job out if it is the newest: who cancels many may begin with that, and a lane is searched slowly."""
        lane = job.plan.lane
        with suppress(IndexError):
            if lane[-1] is job:
                last = lane.pop()
                if last is job:
                    return True
                lane.append(last)  # it came in between
                self.still_wanted(last)
                self.fill()
        return False

    def again(self, job: Work) -> None:
        """A job has its next attempt: it goes to the end of its lane."""
        job.state = State.QUEUED
        job.plan.lane.append(job)
        self.still_wanted(job)
        self.fill()

    def put_off(self, job: Work, seconds: float) -> None:
        """A job is to be tried again, after so long; it keeps its place, but no slot."""
        if seconds <= 0:
            self.again(job)
            return
        try:
            self.timer.later(seconds, job)
        except RuntimeError:  # no thread for the timer just now: rather too soon than never
            self.again(job)
            return
        self.still_wanted(job)

    def still_wanted(self, job: Work) -> None:
        """A job was put off; what was said meanwhile to one that was neither here nor there holds now."""
        if job.asked:
            self.cancel(job)
        elif self.dropping and (_take_out(job.plan.lane, job) or self.timer.take_out(job)):
            self.cancelled(job, f"{DROPPED}the pool was stopped without draining it", dropped=True)

    def interrupt(self, run: Inside) -> None:
        """Asks an attempt to end, because it is cancelled."""
        if run.stop("cancelled"):
            if run.job.kind is LOOP:
                self.tasks.interrupt(run)
            else:
                self.threads.interrupt(run)

    def drop_oldest(self) -> bool:
        """Ends the oldest job that was never begun, and keeps its place for another; False if there is none."""
        while True:
            found = [job for job in map(_oldest_unbegun, self.lanes) if job is not None]
            if not found:
                return False
            oldest = min(found, key=lambda job: job.submitted)
            if _take_out(oldest.plan.lane, oldest):
                with self.lock:
                    self.tally.dropped += 1
                why = f"{DROPPED}the pool was full ({self.bound} jobs), and a newer one came"
                oldest.ended(State.CANCELLED, None, JobCancelled(why))
                return True

    def drop_newest(self, job: Work) -> None:
        """Ends a job that never had a place."""
        next(self._entries)
        with self.lock:
            self.tally.dropped += 1
        why = f"{DROPPED}the pool was full ({self.bound} jobs)"
        job.ended(State.CANCELLED, None, JobCancelled(why))

    def close(self, *, drain: bool, why: str = "the pool was stopped without draining it") -> list[Work]:
        """Takes no more jobs; without `drain` ends those that wait, and returns them."""
        self.closed = True
        while self.askers:  # they see that it is closed
            self.wake_asker()
        dropped: list[Work] = []
        self.tasks.fail_stranded()
        if not drain:
            self.dropping = True
            while (job := self.take()) is not None:
                dropped.append(job)
            dropped += self.timer.take_all()
            for job in self.tasks.take_waiting():
                dropped.append(job)
                self.slots.append(None)
            dropped.sort(key=lambda job: job.submitted)
            for job in dropped:
                self.cancelled(job, DROPPED + why, dropped=True)
        self.fill()  # what was put back
        self.watch(self._may_end, self.end)
        return dropped

    def _may_end(self) -> bool:
        """Whether nothing is left. Where all that waited was dropped, the places do not count: one may be lost for
        ever, as a Ctrl-C comes between any two steps of a `submit`.
        """
        return self.depth == 0 or (self.dropping and not any(self.lanes) and self.threads.idle and self.tasks.idle)

    def interrupt_all(self) -> None:
        """Asks all that runs to end, and what is about to run not to begin."""
        self.leaving = True
        for run in (*self.threads.runs(), *self.tasks.runs()):
            run.job.asked = True
            self.interrupt(run)

    # --- being counted

    def tallied(self) -> Tally:
        """What was counted up to now."""
        total = Tally()
        with self.lock:
            total.add(self.tally)
            for seat in self.threads.seats:
                total.add(seat.tally)
            total.add(self.tasks.tally)
        return total

    def running(self) -> tuple[int, int]:
        """How many jobs run, and how many more were given up while their code goes on (see `settle.overdue`)."""
        runs = [*self.threads.runs(), *self.tasks.runs()]
        return sum(not run.job.done for run in runs), sum(run.given_up for run in runs)

    def runs_in_all_slots(self) -> list[Inside]:
        """The attempts under way, if there is one in each slot; else nothing."""
        runs = [*self.threads.runs(), *self.tasks.runs()]
        with self.lock:
            slots = self.concurrency + self.surplus - self.missing
        return runs if len(runs) >= slots else []

    # --- being over

    def watch(self, what: Callable[[], bool], tell: Callable[[], object]) -> None:
        """Calls `tell` once, when `what` holds."""
        watcher = (what, tell)
        with self.lock:
            self.watchers.append(watcher)
        self.look()

    def unwatch(self, tell: Callable[[], object]) -> None:
        with self.lock:
            self.watchers[:] = [watcher for watcher in self.watchers if watcher[1] is not tell]

    def look(self) -> None:
        """Tells the watchers whose time has come."""
        for watcher in list(self.watchers):
            if watcher[0]():
                with self.lock:
                    if watcher not in self.watchers:
                        continue
                    self.watchers.remove(watcher)
                watcher[1]()

    def end(self) -> None:
        """Lets all threads end, each when it has nothing to do."""
        self.ended = True
        self.timer.end()
        self.threads.end()
        self.tasks.end()

    def is_gone(self) -> bool:
        """Whether no thread and no task is left."""
        return self.ended and self.threads.gone and self.tasks.gone and self.timer.gone

    def finished(self) -> bool:
        """Whether nothing is left to wait for: of a pool that was stopped, its threads neither."""
        return self.is_gone() if self.closed else self.depth == 0

    def may_wait(self, what: str, instead: str) -> None:
        """ConfigError where waiting for this pool would be waiting for oneself."""
        if self.tasks.runs_here():
            raise ConfigError(f"{what} would hold up the event loop that the pool runs on: write `{instead}`")

    def wait(self, what: Callable[[], bool], seconds: float | None) -> bool:
        """Waits until `what` holds; False if it does not within `seconds`."""
        bell = threading.Lock()
        bell.acquire()
        ring = bell.release
        self.watch(what, ring)
        try:
            most = threading.TIMEOUT_MAX
            return bell.acquire(timeout=-1 if seconds is None else min(max(0.0, seconds), most))
        finally:
            self.unwatch(ring)

    async def await_(self, what: Callable[[], bool], seconds: float | None) -> bool:
        """As `wait`, without holding up the loop."""
        loop = asyncio.get_running_loop()
        bell: asyncio.Future[None] = loop.create_future()

        def ring() -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(_ring, bell)

        self.watch(what, ring)
        try:
            await asyncio.wait({bell}, timeout=seconds)
        finally:
            self.unwatch(ring)
        return bell.done()

    @property
    def used(self) -> bool:
        """Whether there is anything to leave: jobs, or threads."""
        return not (self.threads.gone and self.tasks.gone and self.timer.gone) or self.depth > 0

    def stuck(self) -> list[str]:
        """The threads that still run something, and what that is."""
        threads = [f"{seat.thread.name} ({seat.run.job.task})" for seat in self.threads.stuck() if seat.run]
        return threads + [f"the loop ({run.job.task})" for run in self.tasks.runs()]

    def is_inside(self) -> bool:
        """Whether the calling code is one of its jobs."""
        outer = current.get(None)
        return isinstance(outer, Inside) and outer.job.core is self

    def join_threads(self, end: float | None) -> bool:
        """For a pool that is gone: its threads have nothing left to do but to end."""
        for thread in (*self.threads.left, *self.tasks.left, *self.timer.left):
            if thread is not threading.current_thread() and thread.is_alive():
                thread.join(None if end is None else max(0.0, end - time.monotonic()))
                if thread.is_alive():
                    return False
        return True

    # --- forks

    def forget(self) -> None:
        """In a forked child: none of the threads is here. What was under way goes on in the parent, and not here."""
        unfinished = [job for lane in self.lanes for job in lane] + self.timer.all()
        unfinished += [run.job for run in (*self.threads.runs(), *self.tasks.runs())]
        self.lock = threading.RLock()
        self.watchers = []
        self.askers = deque()
        for lane in self.lanes:
            lane.clear()
        self.places.clear()
        self._minted = self.surplus = self.missing = 0
        self._entries, self._no_entries = count(1), 0
        self.slots = deque(repeat(None, self.concurrency))
        self.tally = Tally()
        self.threads, self.tasks, self.timer = Threads(self), Tasks(self), Timer(self)
        if self.closed:
            self.end()
        for job in unfinished:
            job.waiters = None
            job.ended(State.CANCELLED, None, JobCancelled("it belongs to the process that this one was forked from"))


def _oldest_unbegun(lane: Lane) -> Work | None:
    with suppress(IndexError):  # empty by now
        first = lane[0]
        if first.runs == 1:
            return first
    return next((job for job in list(lane) if job.runs == 1), None)


def _take_out(lane: Lane, job: Work) -> bool:
    try:
        lane.remove(job)
    except (ValueError, IndexError):  # IndexError: somebody else changed the lane meanwhile
        return False
    return True


def _ring(bell: asyncio.Future[None]) -> None:
    if not bell.done():
        bell.set_result(None)


def _after_fork() -> None:
    waits.forget()
    work.forget()
    inside.forget()
    for core in list(cores):
        core.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
