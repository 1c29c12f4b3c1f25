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
import signal
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any
from uuid import UUID

from holdfast.clock import Clock
from holdfast.job import Loss, cut
from holdfast.observe.endpoint import Server
from holdfast.observe.logging import tell, workers
from holdfast.store import Store
from holdfast.worker.child import AT_DEADLINE, REPLACED, Child, Handed, Then
from holdfast.worker.crew import FLUSH
from holdfast.worker.culprit import FATAL
from holdfast.worker.deaths import await_death, await_group, ending, in_thread, reap_strangers, reaped
from holdfast.worker.loop import Signal, repeat
from holdfast.worker.outlook import Outlook
from holdfast.worker.runner import GRACE
from holdfast.worker.standing import Standing
from holdfast.worker.watchman import Watchman

YOUNG = 10.0  # seconds: a child that dies younger is restarted later and later
RESTART_FIRST, RESTART_MOST = 0.1, 30.0
LEAVE = 3.0  # seconds beyond deadline, grace and flush that a draining child has to be gone
ECHO = 0.3  # seconds: who signals a process and its group sends the same signal twice
LAST_WORDS = 1.0  # seconds after its death in which what a child sent is still read
REAP_EVERY = 1.0
STACKS_TOLD = 4_000  # characters
STALL_LIMIT = 300.0  # seconds that a child's pulse may stand still
SPAWN_FAILED, STORE_FAILED = 2, 3  # exit codes of a child that could not start: a restart would not help

BEGAN_ANEW = Loss("retired by someone else; the worker began anew", on_purpose=True)

Command = Callable[[Handed, UUID, bool], Sequence[str]]  # the last: whether it declares what its code says of schedules


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
        endpoint: Server | None = None,
    ) -> None:
        self._command = command
        self._processes = processes
        self._concurrency = concurrency
        self._deadline = deadline
        self._clock = clock
        self._ready = ready
        self._children: set[Child] = set()
        self._standing = Standing(open_store, clock)
        self._watchman = Watchman(self._children, stall_limit, clock, self._standing.answers)
        self._stopping, self._over, self._proven = Signal(), Signal(), Signal()
        stopping = self._stopping.__bool__
        self._outlook = Outlook(self._children, self._standing, concurrency, clock, stopping, endpoint)
        self._lives: set[asyncio.Task[int]] = set()
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
        await self._outlook.begin()
        self._roles.append(asyncio.create_task(repeat("watch", self._watchman.step, self._over)))
        self._roles.append(asyncio.create_task(repeat("outlook", self._outlook.step, self._over)))
        if os.getpid() == 1:
            self._roles.append(asyncio.create_task(repeat("reap", self._reap_step, self._over)))
        try:
            await asyncio.gather(self._tend(), *(self._tend_once_proven() for _ in range(self._processes - 1)))
            await asyncio.gather(*self._lives)
            await self._end()
        finally:
            for child in self._children:
                child.kill()
            await self._outlook.end()
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
                how, why = ending(code), child.trouble
                tell(workers, logging.WARNING, "restart", pid=child.pid, ended=how, error=why, restart_in=pause)
            await self._stopping.wait(pause)

    async def _spawn(self) -> Child:
        declares = self._opening is None  # not by code of long ago: a newer version may have begun meanwhile
        child = await Child.spawned(
            lambda handed: self._command(handed, self._standing.id, declares), self._concurrency
        )
        self._own.add(child.pid)
        taken = {other.number for other in self._children}
        child.number = next(number for number in count() if number not in taken)
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
                self._standing.keep(child)
                self._outlook.totals.know(message.get("queues", ()), message.get("tasks", ()))
                if self._opening is None:
                    self._opening = asyncio.create_task(self._open(message))
                    self._proven.poke()
            case "unstarted":
                child.trouble = message["error"]
            case "renamed":
                self._standing.bury(child, BEGAN_ANEW, {})
                child.worker = UUID(message["worker"])
                self._standing.keep(child)
            case "counts":
                self._outlook.heard(child, message)
            case "forced":
                child.forced = message["jobs"]
            case "leaving":
                child.leaving = True
            case "worn":
                self._relieve(child, message["why"], patiently=True)
            case "overdue":
                self._overdue(child, (UUID(message["job"]), message["fence"]), message["then"], message["stack"])
            case _:
                pass

    def _relieve(self, child: Child, why: str, *, patiently: bool) -> None:
        """Has a child drain and leave, and another take its place at once.

        `patiently`: however long its jobs take; not while as many relieved ones are still there as there are places,
        lest old children pile up.
        """
        leaving = sum(bool(other.relieved) for other in self._children)
        if self._stopping or (patiently and leaving >= self._processes):
            return
        if not child.relieved:
            tell(workers, logging.INFO, "relieved", pid=child.pid, why=why, message="another takes its place")
            child.relieved.set()
        child.channel.send("relieve" if patiently else "drain")

    def _overdue(self, child: Child, run: tuple[UUID, int], then: Then, stack: str) -> None:
        """A plain function goes on past its timeout or deadline, and only the end of its process can end it."""
        child.overdue[run] = then, stack
        self._relieve(child, f"job {run[0]} goes on though its time is over", patiently=False)
        limit = self._deadline + GRACE + FLUSH + LEAVE
        asyncio.get_running_loop().call_later(limit, self._end_late, child)

    def _end_late(self, child: Child) -> None:
        if child in self._children:
            tell(workers, logging.ERROR, "killed", pid=child.pid, message="it did not leave after its deadline")
            child.end(AT_DEADLINE if self._stopping else REPLACED)

    async def _bury(self, child: Child) -> int:
        """Confirms that nothing of it runs any more, and only then has its jobs given back."""
        groups = child.groups()
        child.reaped = True
        code, peak = reaped(child.process)
        self._own.discard(child.pid)
        await self._confirm(child, groups)
        child.close()
        self._children.discard(child)
        try:
            loss, jobs = child.losses(code, peak)
        except Exception as error:  # noqa: BLE001  # whatever it left cannot be read: it is buried all the same
            workers.error("a bug in judging the losses of pid %s; please report it", child.pid, exc_info=error)
            loss, jobs = Loss(f"its process (pid {child.pid}) ended: {ending(code)}"), {}
        code = 1 if code is None else code
        self._outlook.deaths += code < 0 or child.sentence is not None
        self._code = max(self._code, _exit_code(child, code) if self._stopping else 0)
        child.blamed = any(one.culprit for one in jobs.values())
        if FATAL in (stacks := child.stacks.read()) and not child.blamed:
            workers.error("the stacks of pid %s when it crashed:\n%s", child.pid, cut(stacks, STACKS_TOLD))
        self._standing.bury(child, loss, jobs, tidy=code == 0)
        return code

    async def _confirm(self, child: Child, groups: Sequence[int]) -> None:
        def gone() -> None:
            for group in groups:
                await_group(group)

        try:
            await in_thread(gone, f"holdfast-group-{child.pid}")
        except Exception as error:  # noqa: BLE001  # all that could be done is done: it was killed
            message = "killed, but nobody could see that it is gone"
            tell(workers, logging.ERROR, "group-stays", group=child.pid, error=repr(error), message=message)

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

    async def _open(self, facts: dict[str, Any]) -> None:
        if not await self._standing.begin(facts["url"]):
            return
        self._outlook.started()
        try:
            self._ready(facts)
        except Exception as error:  # noqa: BLE001  # nobody to read it is no reason not to work
            tell(workers, logging.WARNING, "banner-failed", error=repr(error))

    async def _end(self) -> None:
        if not await self._standing.end():
            self._code = max(self._code, 1)
        self._over.set()
        if self._opening is not None:
            await asyncio.wait({self._opening}, timeout=FLUSH)
            self._opening.cancel()
        await asyncio.wait(self._roles, timeout=FLUSH)

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
            self._outlook.stops()
            self._proven.poke()
            asyncio.get_running_loop().call_later(self._deadline + limit, self._kill_all)
            asyncio.get_running_loop().call_later(limit, self._kill_unstarted)
        elif not self._hurried:
            self._hurried = True
            asyncio.get_running_loop().call_later(limit, self._kill_all)
        for child in self._children:
            child.channel.send(word)

    def _kill_unstarted(self) -> None:
        for child in list(self._children):
            if child.worker is None:
                text = "it was still starting, and heard nothing; it had no jobs"
                tell(workers, logging.WARNING, "killed", pid=child.pid, message=text)
                child.end(AT_DEADLINE)

    def _kill_all(self) -> None:
        for child in list(self._children):
            self._end_late(child)


def _pause(deaths: int) -> float:
    return min(RESTART_FIRST * 2.0 ** min(deaths, 16), RESTART_MOST) if deaths else 0.0


def _exit_code(child: Child, code: int) -> int:
    if child.worker is None and child.condemned:  # it had not even started
        return 0
    if child.sentence is not None or child.forced or code < 0:
        return 1
    return code if code in (0, 1, 3) else 1
