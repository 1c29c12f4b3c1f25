"""The supervisor: N worker processes. It runs no user code.

1. spawns each child by exec, as a process group of its own, with a channel to it;
2. beats for the children and passes their mail on;
3. watches their pulses: who is stuck is named, killed, confirmed dead;
4. when a child dies: kills its group, confirms, retires the worker, takes its jobs over and has them queued again;
5. restarts children, later and later while they die young; replaces those that ask for it;
6. passes SIGTERM and SIGINT on: the first drains, the second skips to the deadline.
"""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import signal
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any
from uuid import UUID, uuid4

from holdfast.clock import SECOND, Clock, Span
from holdfast.errors import StoreError
from holdfast.job import Loss
from holdfast.observe.logging import place, tell, workers
from holdfast.store import Line, Store
from holdfast.worker import FLUSH
from holdfast.worker.attempts import GRACE
from holdfast.worker.blackbox import Begun
from holdfast.worker.child import AT_DEADLINE, Child, Handed, Then, reaped
from holdfast.worker.culprit import held_up, stack_of
from holdfast.worker.deaths import await_death, busy_threads, ending, in_thread, is_stopped, reap_strangers
from holdfast.worker.identity import doubt_from
from holdfast.worker.janitor import Janitor
from holdfast.worker.keeper import Keeper
from holdfast.worker.loop import Signal, Trouble, repeat
from holdfast.worker.watch import EVERY, LOOP, THREADS

YOUNG = 10.0  # seconds: a child that dies younger is restarted later and later
RESTART_FIRST, RESTART_MOST = 0.1, 30.0
LEAVE = 3.0  # seconds beyond deadline, grace and flush that a draining child has to be gone
ECHO = 0.3  # seconds: who signals a process and its group sends the same signal twice
LAST_WORDS = 1.0  # seconds after its death in which what a child sent is still read
UNREAD_MOST = 4 * 1024 * 1024  # bytes that a child may leave unread before it counts as hung
REAP_EVERY = 1.0
STALL_LIMIT = 300.0  # seconds that a child's pulse may stand still
FROZEN = 4.0  # seconds without a pulse after which a child's stacks are read; then at each doubling
BUSY_FOR = 0.25  # seconds over which the threads' use of the processor is compared
SPAWN_FAILED, STORE_FAILED = 2, 3  # exit codes of a child that could not start: a restart would not help

BEGAN_ANEW = Loss("retired by someone else; the worker began anew", on_purpose=True)

Command = Callable[[Handed, UUID], Sequence[str]]
Funeral = tuple[UUID, Loss, Mapping[UUID, Loss]]


class Supervisor:
    """Runs `command` as N children until a signal; the exit code: 0 drained, 1 forced, 3 outcomes not recorded."""

    def __init__(
        self,
        command: Command,
        open_store: Callable[[str], Store],
        *,
        processes: int,
        concurrency: int,
        deadline: float,
        stall_limit: float | None,
        clock: Clock,
        ready: Callable[[dict[str, Any]], None],
    ) -> None:
        self._command = command
        self._open_store = open_store
        self._processes = processes
        self._concurrency = concurrency
        self._stall_limit = stall_limit  # seconds
        self._deadline = deadline
        self._clock = clock
        self._ready = ready
        self._id = uuid4()
        self._children: set[Child] = set()
        self._stopping, self._working = Signal(), Signal()
        self._buried, self._proven = Signal(), Signal()
        self._funerals: deque[Funeral] = deque()
        self._lives: set[asyncio.Task[int]] = set()
        self._looking: set[asyncio.Task[None]] = set()
        self._beaten_at = 0.0  # when the store last took a beat
        self._lease = 0.0
        self._store: Store | None = None
        self._keeper: Keeper | None = None
        self._opening: asyncio.Task[None] | None = None  # from the first child's "ready" on
        self._own: set[int] = set()  # pids that are awaited one by one
        self._asked = 0.0
        self._hurried = False
        self._code = 0
        self._roles: list[asyncio.Task[None]] = []

    async def run(self) -> int:
        """From the first spawn to the last burial."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled, signal.Signals(number).name)
        self._roles.append(asyncio.create_task(repeat("watch", self._watch_step, self._working)))
        if os.getpid() == 1:
            self._roles.append(asyncio.create_task(repeat("reap", self._reap_step, self._working)))
        try:
            await asyncio.gather(self._tend(), *(self._tend_once_proven() for _ in range(self._processes - 1)))
            await asyncio.gather(*self._lives)
            await self._close()
        finally:
            for child in self._children:
                child.kill()
        return self._code

    # --- a child's life

    async def _tend_once_proven(self) -> None:
        """The first child shows that the app and the store can be opened; if not, one error is enough."""
        while self._opening is None and not self._stopping:
            await self._proven.wait(None)
        await self._tend()

    async def _tend(self) -> None:
        """Keeps one place filled, until asked to stop."""
        deaths = 0
        while not self._stopping:
            born = self._clock.monotonic()
            try:
                child = await self._spawn()
            except OSError as error:  # too many processes, no memory, no descriptors: that passes
                deaths += 1
                pause = _pause(deaths)
                tell(workers, logging.ERROR, "spawn-failed", error=str(error), retry_in=pause)
            else:
                code = await self._outlived_or_relieved(child)
                if self._stopping or (code is not None and self._hopeless(code)):
                    return
                if code is None:
                    continue
                if not child.blamed:  # what a job did is that job's affair, and it runs alone from now on
                    deaths = deaths + 1 if self._clock.monotonic() - born < YOUNG else 0
                pause = _pause(deaths)
                tell(workers, logging.WARNING, "restart", pid=child.pid, ended=ending(code), restart_in=pause)
            await self._stopping.wait(pause)

    async def _spawn(self) -> Child:
        child = await Child.spawned(lambda handed: self._command(handed, self._id), self._concurrency)
        self._own.add(child.pid)
        self._children.add(child)
        if self._stopping:
            child.channel.send("hurry" if self._hurried else "drain")
        return child

    async def _outlived_or_relieved(self, child: Child) -> int | None:
        """The exit code of a child that died, or None for one that leaves by itself and is to be replaced now."""
        life = asyncio.create_task(self._outlive(child))
        self._lives.add(life)
        life.add_done_callback(self._lives.discard)
        relieved = asyncio.create_task(child.relieved.wait(None))
        await asyncio.wait((life, relieved), return_when=asyncio.FIRST_COMPLETED)
        relieved.cancel()
        return life.result() if life.done() else None

    async def _outlive(self, child: Child) -> int:
        """Listens to a child until its death, kills what is left of it, and buries it; returns its exit code."""
        hearing = asyncio.create_task(self._hear(child))
        await in_thread(lambda: await_death(child.process), f"holdfast-child-{child.pid}")
        child.kill()
        await asyncio.wait({hearing}, timeout=LAST_WORDS)
        hearing.cancel()
        return await self._bury(child)

    async def _hear(self, child: Child) -> None:
        try:
            while (message := await child.channel.receive()) is not None:
                self._heard(child, message)
        except Exception as error:  # noqa: BLE001  # a child that is not heard is not kept alive either
            pid = child.pid
            tell(workers, logging.ERROR, "not-heard", pid=pid, error=repr(error), message="it is killed and restarted")
            workers.error("a bug in hearing pid %s; please report it", pid, exc_info=error)
            child.end(Loss(f"ended by its supervisor, which could not understand it: {error!r}", on_purpose=True))

    def _heard(self, child: Child, message: dict[str, Any]) -> None:
        match message.pop("word"):
            case "ready":
                child.worker = UUID(message["worker"])
                child.tasks = {int(code): task for code, task in message.pop("codes", {}).items()}
                self._keep(child)
                if self._opening is None:
                    self._opening = asyncio.create_task(self._open(message))
                    self._proven.poke()
            case "renamed":
                self._forget(child, BEGAN_ANEW, {})
                child.worker = UUID(message["worker"])
                self._keep(child)
            case "forced":
                child.forced = message["jobs"]
            case "leaving":
                child.leaving = True
            case "worn":
                self._relieve(child, message["why"], patiently=True)
            case "overdue":
                self._overdue(child, (UUID(message["job"]), message["fence"]), message["then"])
            case _:
                pass

    def _relieve(self, child: Child, why: str, *, patiently: bool) -> None:
        """Has a child drain and leave, and another take its place at once.

        `patiently`: however long its jobs take; not while another that was relieved so is still there, lest old
        children pile up.
        """
        if self._stopping or (patiently and any(other.relieved for other in self._children)):
            return
        if not child.relieved:
            tell(workers, logging.INFO, "relieved", pid=child.pid, why=why, message="another takes its place")
            child.relieved.set()
        child.channel.send("relieve" if patiently else "drain")

    def _overdue(self, child: Child, run: tuple[UUID, int], then: Then) -> None:
        """A plain function goes on past its timeout, and only the end of its process can end it."""
        child.overdue[run] = then
        self._relieve(child, f"job {run[0]} goes on past its timeout", patiently=False)
        limit = self._deadline + GRACE + FLUSH + LEAVE
        asyncio.get_running_loop().call_later(limit, self._end_late, child)

    def _end_late(self, child: Child) -> None:
        if child in self._children:
            tell(workers, logging.ERROR, "killed", pid=child.pid, message="it did not leave after its deadline")
            child.end(AT_DEADLINE)

    def _forget(self, child: Child, loss: Loss, jobs: Mapping[UUID, Loss]) -> None:
        """Ends what is done for the child's worker, and has it buried."""
        if child.worker is None:
            return
        if self._keeper is not None:
            self._keeper.kept.pop(child.worker, None)
        self._funerals.append((child.worker, loss, jobs))
        self._buried.poke()
        child.worker = None

    def _keep(self, child: Child) -> None:
        if self._keeper is not None and child.worker is not None:
            self._keeper.kept[child.worker] = _Forward(child, child.worker)

    async def _bury(self, child: Child) -> int:
        """Confirms that nothing of it runs any more, and only then has its jobs given back."""
        code, peak = reaped(child.process)
        self._own.discard(child.pid)
        await in_thread(child.await_groups, f"holdfast-group-{child.pid}")
        child.close()
        self._children.discard(child)
        self._code = max(self._code, _exit_code(child, code) if self._stopping else 0)
        loss, jobs = child.losses(code, peak)
        child.blamed = any(one.culprit for one in jobs.values())
        self._forget(child, loss, jobs)
        return code

    async def _reap_step(self) -> float:
        reap_strangers(self._own)
        return REAP_EVERY

    def _hopeless(self, code: int) -> bool:
        """A child that could not even start says why itself; the same would befall the next."""
        if self._opening is None and code in (SPAWN_FAILED, STORE_FAILED):
            self._code = code
            self._stopping.set()
            self._proven.poke()
            return True
        return False

    # --- pulses

    async def _watch_step(self) -> float:
        now = self._clock.monotonic()
        answers = now - self._beaten_at < self._lease / 2
        for child in list(self._children):
            child.watch.look(child.box.pulses, now, store_answers=answers)
            if child.sentence is not None or child.worker is None:
                continue
            if which := child.watch.stuck(self._stall_limit):
                child.sentence = Loss(f"ended by its supervisor: its {which} stood still", on_purpose=False)
                self._look(self._end_stuck(child, which))
            elif self._worth_a_look(child, now):
                self._look(self._see_into(child))
        return EVERY

    def _worth_a_look(self, child: Child, now: float) -> bool:
        still, seen = child.watch.still[LOOP], child.seen_into
        if still < FROZEN:
            child.seen_into = 0.0
            return False
        late = any(run.deadline and run.deadline + GRACE < now for run in child.box.begun())
        if still < (seen + FROZEN if late else 2 * seen):
            return False
        child.seen_into = still
        return True

    def _look(self, looking: Coroutine[Any, Any, None]) -> None:
        async def looked() -> None:
            try:
                await looking
            except Exception as error:  # noqa: BLE001  # what is not seen now is looked for again
                workers.error("a bug in looking at a child; please report it", exc_info=error)

        task = asyncio.create_task(looked())
        self._looking.add(task)
        task.add_done_callback(self._looking.discard)

    async def _end_stuck(self, child: Child, which: str) -> None:
        """Names who holds it up, terminates it, and kills it: its lease never lapses while it lives."""
        who, at = await self._held_up(child)
        still = max(child.watch.still)
        named = child.named(who) if who else {}
        tell(workers, logging.ERROR, "stuck", pid=child.pid, which=which, still=still, **named, at=at)
        cause = f"ended by its supervisor: its {which} stood still for {still:.0f} s"
        child.sentence = Loss(cause, on_purpose=who is not None)
        child.culprit = who.key if who else None
        with suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGTERM)
        await asyncio.sleep(GRACE)
        child.kill()

    async def _see_into(self, child: Child) -> None:
        """Names who holds up a child that cannot say so itself; ends it if that run's own time is over."""
        who, at = await self._held_up(child)
        now, still = self._clock.monotonic(), child.watch.still
        if still[THREADS] >= FROZEN / 2:  # else its own pulse tells
            named = child.named(who) if who else {}
            message = "it is stopped" if is_stopped(child.pid) else "one call of it lets no other thread run"
            message += "; its lease is kept"
            told = {"pid": child.pid, "still": still[THREADS], **named, "at": at, "message": message}
            tell(workers, logging.WARNING, "frozen", **told)
        if who is None or not who.deadline or now < who.deadline + GRACE or child.sentence is not None:
            return
        message = "its timeout is over and nothing else can end it; the process is killed"
        tell(workers, logging.ERROR, "overdue", pid=child.pid, **child.named(who), at=at, message=message)
        child.overdue[who.key] = child.then(who)
        child.end(Loss("ended by its supervisor, for a run past its timeout", on_purpose=True))

    async def _held_up(self, child: Child) -> tuple[Begun | None, str | None]:
        """The run that holds a child up, as well as can be seen from outside, and where it is."""
        busy: set[int] = set()
        await in_thread(lambda: busy.update(busy_threads(child.pid, BUSY_FOR)), f"holdfast-look-{child.pid}")
        stacks = await child.stacks.of(child.pid)
        who = held_up(stacks, child.box.begun(), child.box.loop_thread, busy, child.box.blocker())
        return who, place(stack_of(stacks, who.thread or child.box.loop_thread[0])) if who else None

    # --- the store

    async def _open(self, facts: dict[str, Any]) -> None:
        """Opens the children's store, however long that takes, and starts what needs it."""
        if not await self._insist("supervisor", lambda: self._connect(facts["url"])) or self._store is None:
            return
        self._keeper = Keeper(self._store, self._clock)
        self._keeper.kept[self._id] = _Own(self)
        for child in self._children:
            self._keep(child)
        self._janitor = Janitor(self._store, lambda: self._id)
        self._roles += [
            asyncio.create_task(self._keeper.run(self._working)),
            asyncio.create_task(repeat("burial", self._burial_step, self._working)),
            asyncio.create_task(repeat("reclaim", self._janitor.reclaim_step, self._working)),
        ]
        try:
            self._ready(facts)
        except Exception as error:  # noqa: BLE001  # nobody to read it is no reason not to work
            tell(workers, logging.WARNING, "banner-failed", error=repr(error))

    async def _connect(self, url: str) -> None:
        store = self._open_store(url)
        try:
            await store.open()
            await self._register(store, self._id)
        except BaseException:
            with suppress(Exception):
                await store.close()
            raise
        self._store = store

    async def _register(self, store: Store, id: UUID) -> None:
        await store.register(id, None, {"name": f"{platform.node()}:{os.getpid()}", "slots": 0})

    def beaten(self, sent: float, lease: Span) -> None:
        """The store took the supervisor's own beat."""
        self._beaten_at, self._lease = sent, lease / SECOND

    def retired(self) -> None:
        """Someone retired the supervisor itself, whose sweeps count for nothing now."""
        tell(workers, logging.WARNING, "supervisor-gone", message="retired by someone else; it begins anew")
        self._roles.append(asyncio.create_task(self._begin_anew()))

    async def _begin_anew(self) -> None:
        store, keeper, fresh = self._store, self._keeper, uuid4()
        if store is None or keeper is None:
            return
        if await self._insist("register", lambda: self._register(store, fresh)):
            self._id = fresh
            keeper.kept[fresh] = _Own(self)

    async def _insist(self, role: str, call: Callable[[], Awaitable[None]]) -> bool:
        """Until it is done or the service has ended; whether it is done."""
        trouble = Trouble(role)
        while not self._working:
            try:
                await call()
            except Exception as error:  # noqa: BLE001  # without it nothing is kept alive
                await self._working.wait(trouble.again(error))
            else:
                trouble.over()
                return True
        return False

    async def _burial_step(self) -> float:
        """Retires dead workers, and has their jobs queued again at once."""
        if not self._funerals:
            await self._buried.wait(60)
            return 0
        if self._store is not None:
            await self._store.retire(*self._funerals[0])
            while await self._janitor.reclaim_step() == 0:
                pass
            self._funerals.popleft()
        return 0

    async def _close(self) -> None:
        """The last burials, then the supervisor's own."""
        end = self._clock.monotonic() + FLUSH
        while self._funerals and self._clock.monotonic() < end:
            self._buried.poke()
            await asyncio.sleep(0.01)
        if self._funerals:
            left = ", ".join(str(worker) for worker, *_ in self._funerals)
            tell(
                workers,
                logging.ERROR,
                "not-retired",
                workers=left,
                message="their jobs come back when the lease ends",
            )
            self._code = max(self._code, 1)
        self._working.set()
        self._buried.poke()
        if self._opening is not None:
            await asyncio.wait({self._opening}, timeout=FLUSH)
            self._opening.cancel()
        if self._roles:
            await asyncio.wait(self._roles, timeout=FLUSH)
        if self._store is None:
            return
        with suppress(StoreError, TimeoutError):
            async with asyncio.timeout(FLUSH):
                await self._store.retire(self._id)
                await self._store.close()

    # --- signals

    def _signalled(self, name: str) -> None:
        now = self._clock.monotonic()
        if self._stopping and now - self._asked < ECHO:
            return
        self._asked = now
        word = "hurry" if self._stopping else "drain"
        tell(workers, logging.INFO, "signal", signal=name, processes=len(self._children), then=word)
        limit = GRACE + FLUSH + LEAVE
        if not self._stopping:
            self._stopping.set()
            self._proven.poke()
            asyncio.get_running_loop().call_later(self._deadline + limit, self._kill_all)
        elif not self._hurried:
            self._hurried = True
            asyncio.get_running_loop().call_later(limit, self._kill_all)
        for child in self._children:
            child.channel.send(word)

    def _kill_all(self) -> None:
        for child in list(self._children):
            self._end_late(child)


class _Forward:
    """Passes on to a child what is heard about its worker."""

    def __init__(self, child: Child, worker: UUID) -> None:
        self._child = child
        self._worker = worker

    def beaten(self, sent: float, lease: Span) -> None:
        self._child.box.beat(sent, lease / SECOND, doubt_from(sent, lease / SECOND))
        self._send("beaten", worker=self._worker, sent=sent, lease=lease)

    def gone(self) -> None:
        self._send("gone", worker=self._worker)

    def line(self, line: Line) -> None:
        if not self._child.channel.unread:  # else left out: the keeper brings it again until its claim has settled
            self._send("line", worker=line.worker, kind=line.kind, job=line.job, fence=line.fence)

    def _send(self, word: str, **values: Any) -> None:
        self._child.channel.send(word, **values)
        unread = self._child.channel.unread
        if unread > UNREAD_MOST and self._child.sentence is None:
            pid = self._child.pid
            tell(workers, logging.ERROR, "hung", pid=pid, unread=unread, message="it reads nothing; killed")
            self._child.end(Loss(f"its process (pid {pid}) hung, and was killed"))


class _Own:
    """The supervisor's own lease, without which it may not sweep."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    def beaten(self, sent: float, lease: Span) -> None:
        self._supervisor.beaten(sent, lease)

    def gone(self) -> None:
        self._supervisor.retired()

    def line(self, line: Line) -> None:
        pass


def _pause(deaths: int) -> float:
    return min(RESTART_FIRST * 2.0 ** min(deaths, 16), RESTART_MOST) if deaths else 0.0


def _exit_code(child: Child, code: int) -> int:
    if child.sentence is not None or child.forced or code < 0:
        return 1
    return code if code in (0, 1, 3) else 1
