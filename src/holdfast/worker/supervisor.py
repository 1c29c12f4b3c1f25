"""The supervisor: N worker processes. It runs no user code.

1. spawns each child by exec, as a process group of its own, with a channel to it;
2. beats for the children and passes their mail on;
3. when a child dies: kills its group, confirms, retires the worker, takes its jobs over and has them queued again;
4. restarts children, later and later while they die young;
5. passes SIGTERM and SIGINT on: the first drains, the second skips to the deadline.
"""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import signal
import socket
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any
from uuid import UUID, uuid4

from holdfast.clock import Clock, Span
from holdfast.errors import StoreError
from holdfast.job import Loss
from holdfast.observe.logging import tell, workers
from holdfast.store import Line, Store
from holdfast.worker import FLUSH, GRACE
from holdfast.worker.channel import Channel
from holdfast.worker.janitor import Janitor
from holdfast.worker.keeper import Keeper
from holdfast.worker.loop import Signal, repeat

YOUNG = 10.0  # seconds: a child that dies younger is restarted later and later
RESTART_FIRST, RESTART_MOST = 0.1, 30.0
LEAVE = 3.0  # seconds beyond deadline, grace and flush that a draining child has to be gone
GROUP_GONE = 5.0
ECHO = 0.3  # seconds: who signals a process and its group sends the same signal twice
LAST_WORDS = 1.0  # seconds after its death in which what a child sent is still read
SPAWN_FAILED, STORE_FAILED = 2, 3  # exit codes of a child that could not start: a restart would not help


class Child:
    """One worker process as its supervisor sees it."""

    def __init__(self, process: subprocess.Popen[bytes], channel: Channel) -> None:
        self.process = process
        self.channel = channel
        self.worker: UUID | None = None
        self.forced: list[dict[str, Any]] = []
        self.killed = False

    def kill_group(self) -> None:
        """Kills the child and everything it started; works after the child's own death, too."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def loss(self, code: int) -> Loss:
        """What reclaim shall write on the jobs that this child held."""
        if self.killed or self.forced:
            return Loss("ended by its supervisor at the shutdown deadline", on_purpose=True)
        return Loss(f"its process (pid {self.process.pid}) ended: {ending(code)}")


class Supervisor:
    """Runs `command` as N children until a signal; the exit code: 0 drained, 1 forced, 3 outcomes not recorded."""

    def __init__(
        self,
        command: Callable[[int, UUID], Sequence[str]],
        open_store: Callable[[str], Store],
        *,
        processes: int,
        deadline: float,
        clock: Clock,
        ready: Callable[[dict[str, Any]], None],
    ) -> None:
        self._command = command
        self._open_store = open_store
        self._processes = processes
        self._deadline = deadline
        self._clock = clock
        self._ready = ready
        self._id = uuid4()
        self._children: set[Child] = set()
        self._stopping, self._working = Signal(), Signal()
        self._buried, self._proven = Signal(), Signal()
        self._funerals: deque[tuple[UUID, Loss]] = deque()
        self._store: Store | None = None
        self._keeper: Keeper | None = None
        self._opened = asyncio.Lock()
        self._asked = 0.0
        self._code = 0
        self._roles: list[asyncio.Task[None]] = []

    async def run(self) -> int:
        """From the first spawn to the last burial."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled, signal.Signals(number).name)
        try:
            await asyncio.gather(self._tend(), *(self._tend_once_proven() for _ in range(self._processes - 1)))
            await self._close()
        finally:
            for child in self._children:
                child.kill_group()
        return self._code

    # --- a child's life

    async def _tend_once_proven(self) -> None:
        """The first child shows that the app and the store can be opened; if not, one error is enough."""
        while self._store is None and not self._stopping:
            await self._proven.wait(None)
        await self._tend()

    async def _tend(self) -> None:
        """Keeps one place filled, until asked to stop."""
        deaths = 0
        while not self._stopping:
            born = self._clock.monotonic()
            child = await self._spawn()
            if self._stopping:
                child.channel.send("drain")
            code = await self._outlive(child)
            if self._stopping or self._hopeless(child, code):
                return
            deaths = deaths + 1 if self._clock.monotonic() - born < YOUNG else 0
            pause = min(RESTART_FIRST * 2**deaths, RESTART_MOST) if deaths else 0.0
            tell(
                workers,
                logging.WARNING,
                "restart",
                pid=child.process.pid,
                ended=ending(code),
                restart_in=pause,
            )
            await self._stopping.wait(pause)

    async def _spawn(self) -> Child:
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(  # noqa: ASYNC220  # exec takes a millisecond, and fork from this one thread is safe
                self._command(theirs.fileno(), self._id),
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        child = Child(process, await Channel.over(ours))
        self._children.add(child)
        return child

    async def _outlive(self, child: Child) -> int:
        """Listens to a child until its death, kills what is left of its group, and buries it; returns its exit code."""
        hearing = asyncio.create_task(self._hear(child))
        await _in_thread(lambda: _await_death(child.process), f"holdfast-child-{child.process.pid}")
        child.kill_group()
        await asyncio.wait({hearing}, timeout=LAST_WORDS)
        hearing.cancel()
        return await self._bury(child)

    async def _hear(self, child: Child) -> None:
        while (message := await child.channel.receive()) is not None:
            await self._heard(child, message)

    async def _heard(self, child: Child, message: dict[str, Any]) -> None:
        match message.pop("word"):
            case "ready":
                child.worker = UUID(message["worker"])
                await self._open(message)
                self._keep(child)
            case "renamed":
                child.worker = UUID(message["worker"])
                self._keep(child)
            case "forced":
                child.forced = message["jobs"]
            case _:
                pass

    def _keep(self, child: Child) -> None:
        if self._keeper is not None and child.worker is not None:
            self._keeper.kept[child.worker] = _Forward(child.channel, child.worker)

    async def _bury(self, child: Child) -> int:
        """Confirms that nobody of the group is left, and only then has its jobs given back."""
        code = child.process.wait()
        await _in_thread(lambda: _await_group(child.process.pid), f"holdfast-group-{child.process.pid}")
        child.channel.close()
        self._children.discard(child)
        self._code = max(self._code, _exit_code(child, code) if self._stopping else 0)
        if child.worker is not None:
            if self._keeper is not None:
                self._keeper.kept.pop(child.worker, None)
            self._funerals.append((child.worker, child.loss(code)))
            self._buried.poke()
        return code

    def _hopeless(self, child: Child, code: int) -> bool:
        """A child that could not even start says why itself; the same would befall the next."""
        if child.worker is None and self._store is None and code in (SPAWN_FAILED, STORE_FAILED):
            self._code = code
            self._stopping.set()
            self._proven.poke()
            return True
        return False

    # --- the store

    async def _open(self, facts: dict[str, Any]) -> None:
        async with self._opened:
            if self._store is not None:
                return
            store = self._open_store(facts["url"])
            await store.open()
            await store.register(self._id, None, {"name": f"{platform.node()}:{os.getpid()}", "slots": 0})
            self._store = store
            self._keeper = Keeper(store, self._clock)
            self._keeper.kept[self._id] = _Own(self)
            self._janitor = Janitor(store, lambda: self._id)
            self._roles = [
                asyncio.create_task(self._keeper.run(self._working)),
                asyncio.create_task(repeat("burial", self._burial_step, self._working)),
                asyncio.create_task(repeat("reclaim", self._janitor.reclaim_step, self._working)),
            ]
            self._ready(facts)
            self._proven.poke()

    async def _burial_step(self) -> float:
        """Retires dead workers, and has their jobs queued again at once."""
        if not self._funerals:
            await self._buried.wait(60)
            return 0
        if self._store is not None:
            worker, loss = self._funerals[0]
            await self._store.retire(worker, loss)
            while await self._janitor.reclaim_step() == 0:
                pass
            self._funerals.popleft()
        return 0

    async def _close(self) -> None:
        """The last burials, then the supervisor's own."""
        if self._store is None:
            return
        end = self._clock.monotonic() + FLUSH
        while self._funerals and self._clock.monotonic() < end:
            self._buried.poke()
            await asyncio.sleep(0.01)
        if self._funerals:
            left = ", ".join(str(worker) for worker, _ in self._funerals)
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
        await asyncio.wait(self._roles, timeout=FLUSH)
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
        if not self._stopping:
            self._stopping.set()
            self._proven.poke()
            limit = self._deadline + GRACE + FLUSH + LEAVE
            asyncio.get_running_loop().call_later(limit, self._kill_all)
        for child in self._children:
            child.channel.send(word)

    def _kill_all(self) -> None:
        for child in self._children:
            tell(
                workers,
                logging.ERROR,
                "killed",
                pid=child.process.pid,
                message="it did not leave after its deadline",
            )
            child.killed = True
            child.kill_group()


class _Forward:
    """Passes on to a child what is heard about its worker."""

    def __init__(self, channel: Channel, worker: UUID) -> None:
        self._channel = channel
        self._worker = worker

    def beaten(self, sent: float, lease: Span) -> None:
        self._channel.send("beaten", worker=self._worker, sent=sent, lease=lease)

    def gone(self) -> None:
        self._channel.send("gone", worker=self._worker)

    def line(self, line: Line) -> None:
        self._channel.send("line", worker=line.worker, kind=line.kind, job=line.job, fence=line.fence)


class _Own:
    """The supervisor's own lease; were it retired by someone, it could only not sweep."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    def beaten(self, sent: float, lease: Span) -> None:
        pass

    def gone(self) -> None:
        tell(workers, logging.ERROR, "supervisor-retired", message="it goes on, but rescues nothing by lease")

    def line(self, line: Line) -> None:
        pass


def ending(code: int) -> str:
    """How a process ended, from its return code, for people."""
    if code >= 0:
        return f"exit code {code}"
    with suppress(ValueError):
        return f"killed by signal {-code} ({signal.Signals(-code).name})"
    return f"killed by signal {-code}"


def _exit_code(child: Child, code: int) -> int:
    if child.killed or child.forced or code < 0:
        return 1
    return code if code in (0, 1, 3) else 1


async def _in_thread(call: Callable[[], object], name: str) -> None:
    """Waits for `call()` in a thread of its own: each child needs one all its life, and a pool has only a few."""
    loop = asyncio.get_running_loop()
    over = asyncio.Event()

    def wait() -> None:
        call()
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(over.set)

    threading.Thread(target=wait, name=name, daemon=True).start()
    await over.wait()


def _await_death(process: subprocess.Popen[bytes]) -> None:
    """Waits until the child is dead, leaving it unreaped: so neither its pid nor its group can be another's yet."""
    if not hasattr(os, "waitid"):  # macOS before Python 3.13: reaped at once
        process.wait()
        return
    with suppress(ChildProcessError):
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)


def _await_group(group: int) -> None:
    """Waits until nobody of a killed group is left."""
    end = time.monotonic() + GROUP_GONE
    while time.monotonic() < end:
        try:
            os.killpg(group, 0)
        except (ProcessLookupError, PermissionError):
            return
        time.sleep(0.001)
    tell(
        workers,
        logging.ERROR,
        "group-stays",
        group=group,
        message="killed, but something of it is still there",
    )
