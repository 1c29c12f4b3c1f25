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
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
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
from holdfast.worker.loop import Signal, Trouble, repeat

YOUNG = 10.0  # seconds: a child that dies younger is restarted later and later
RESTART_FIRST, RESTART_MOST = 0.1, 30.0
LEAVE = 3.0  # seconds beyond deadline, grace and flush that a draining child has to be gone
GROUP_GONE = 5.0
ECHO = 0.3  # seconds: who signals a process and its group sends the same signal twice
LAST_WORDS = 1.0  # seconds after its death in which what a child sent is still read
UNREAD_MOST = 4 * 1024 * 1024  # bytes that a child may leave unread before it counts as hung
REAP_EVERY = 1.0
SPAWN_FAILED, STORE_FAILED = 2, 3  # exit codes of a child that could not start: a restart would not help

BEGAN_ANEW = Loss("retired by someone else; the worker began anew", on_purpose=True)
AT_DEADLINE = Loss("ended by its supervisor at the shutdown deadline", on_purpose=True)


class Child:
    """One worker process as its supervisor sees it."""

    def __init__(self, process: subprocess.Popen[bytes], channel: Channel) -> None:
        self.process = process
        self.channel = channel
        self.worker: UUID | None = None
        self.forced: list[dict[str, Any]] = []
        self.leaving = False  # it said that it goes by itself, with outcomes that the store did not take
        self.sentence: Loss | None = None  # why its supervisor killed it

    def end(self, why: Loss) -> None:
        """Kills the child, for a reason that its jobs will tell."""
        self.sentence = self.sentence or why
        self.kill_group()

    def kill_group(self) -> None:
        """Kills the child and everything it started; works after the child's own death, too."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def loss(self, code: int) -> Loss:
        """What reclaim shall write on the jobs that this child held."""
        if self.sentence is not None:
            return self.sentence
        if self.forced:
            return AT_DEADLINE
        if self.leaving:
            return Loss("left with outcomes not recorded", on_purpose=True)
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
        if os.getpid() == 1:
            self._roles.append(asyncio.create_task(repeat("reap", self._reap_step, self._working)))
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
                code = await self._outlive(child)
                if self._stopping or self._hopeless(code):
                    return
                deaths = deaths + 1 if self._clock.monotonic() - born < YOUNG else 0
                pause = _pause(deaths)
                pid = child.process.pid
                tell(workers, logging.WARNING, "restart", pid=pid, ended=ending(code), restart_in=pause)
            await self._stopping.wait(pause)

    async def _spawn(self) -> Child:
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                process = subprocess.Popen(  # noqa: ASYNC220  # exec takes a millisecond, and fork from this one thread is safe
                    self._command(theirs.fileno(), self._id),
                    stdin=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,
                )
            except BaseException:
                ours.close()
                raise
        self._own.add(process.pid)
        child = Child(process, await Channel.over(ours))
        self._children.add(child)
        if self._stopping:
            child.channel.send("hurry" if self._hurried else "drain")
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
        try:
            while (message := await child.channel.receive()) is not None:
                self._heard(child, message)
        except Exception as error:  # noqa: BLE001  # a child that is not heard is not kept alive either
            pid = child.process.pid
            tell(workers, logging.ERROR, "not-heard", pid=pid, error=repr(error), message="it is killed and restarted")
            workers.error("a bug in hearing pid %s; please report it", pid, exc_info=error)
            child.end(Loss(f"ended by its supervisor, which could not understand it: {error!r}", on_purpose=True))

    def _heard(self, child: Child, message: dict[str, Any]) -> None:
        match message.pop("word"):
            case "ready":
                child.worker = UUID(message["worker"])
                self._keep(child)
                if self._opening is None:
                    self._opening = asyncio.create_task(self._open(message))
                    self._proven.poke()
            case "renamed":
                self._forget(child, BEGAN_ANEW)
                child.worker = UUID(message["worker"])
                self._keep(child)
            case "forced":
                child.forced = message["jobs"]
            case "leaving":
                child.leaving = True
            case _:
                pass

    def _forget(self, child: Child, loss: Loss) -> None:
        """Ends what is done for the child's worker, and has it buried."""
        if child.worker is None:
            return
        if self._keeper is not None:
            self._keeper.kept.pop(child.worker, None)
        self._funerals.append((child.worker, loss))
        self._buried.poke()
        child.worker = None

    def _keep(self, child: Child) -> None:
        if self._keeper is not None and child.worker is not None:
            self._keeper.kept[child.worker] = _Forward(child, child.worker)

    async def _bury(self, child: Child) -> int:
        """Confirms that nobody of the group is left, and only then has its jobs given back."""
        code = child.process.wait()
        self._own.discard(child.process.pid)
        await _in_thread(lambda: _await_group(child.process.pid), f"holdfast-group-{child.process.pid}")
        child.channel.close()
        self._children.discard(child)
        self._code = max(self._code, _exit_code(child, code) if self._stopping else 0)
        self._forget(child, child.loss(code))
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

    # --- the store

    async def _open(self, facts: dict[str, Any]) -> None:
        """Opens the children's store, however long that takes, and starts what needs it."""
        if not await self._insist("supervisor", lambda: self._connect(facts["url"])) or self._store is None:
            return
        self._keeper = Keeper(self._store, self._clock)
        self._keeper.kept[self._id] = _Own(self._retired)
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

    def _retired(self) -> None:
        """Someone retired the supervisor itself, whose sweeps count for nothing now."""
        tell(workers, logging.WARNING, "supervisor-gone", message="retired by someone else; it begins anew")
        self._roles.append(asyncio.create_task(self._begin_anew()))

    async def _begin_anew(self) -> None:
        store, keeper, fresh = self._store, self._keeper, uuid4()
        if store is None or keeper is None:
            return
        if await self._insist("register", lambda: self._register(store, fresh)):
            self._id = fresh
            keeper.kept[fresh] = _Own(self._retired)

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
            worker, loss = self._funerals[0]
            await self._store.retire(worker, loss)
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
        for child in self._children:
            tell(
                workers,
                logging.ERROR,
                "killed",
                pid=child.process.pid,
                message="it did not leave after its deadline",
            )
            child.end(AT_DEADLINE)


class _Forward:
    """Passes on to a child what is heard about its worker."""

    def __init__(self, child: Child, worker: UUID) -> None:
        self._child = child
        self._worker = worker

    def beaten(self, sent: float, lease: Span) -> None:
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
            pid = self._child.process.pid
            tell(workers, logging.ERROR, "hung", pid=pid, unread=unread, message="it reads nothing; killed")
            self._child.end(Loss(f"its process (pid {pid}) hung, and was killed"))


class _Own:
    """The supervisor's own lease, without which it may not sweep."""

    def __init__(self, retired: Callable[[], None]) -> None:
        self._retired = retired

    def beaten(self, sent: float, lease: Span) -> None:
        pass

    def gone(self) -> None:
        self._retired()

    def line(self, line: Line) -> None:
        pass


def _pause(deaths: int) -> float:
    return min(RESTART_FIRST * 2.0 ** min(deaths, 16), RESTART_MOST) if deaths else 0.0


def ending(code: int) -> str:
    """How a process ended, from its return code, for people."""
    if code >= 0:
        return f"exit code {code}"
    with suppress(ValueError):
        return f"killed by signal {-code} ({signal.Signals(-code).name})"
    return f"killed by signal {-code}"


def _exit_code(child: Child, code: int) -> int:
    if child.sentence is not None or child.forced or code < 0:
        return 1
    return code if code in (0, 1, 3) else 1


async def _in_thread(call: Callable[[], object], name: str) -> None:
    """Waits for `call()` in a thread of its own: each child needs one all its life, and a pool has only a few."""
    loop = asyncio.get_running_loop()
    over = asyncio.Event()

    def wait() -> None:
        try:
            call()
        finally:
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(over.set)

    while True:
        try:
            threading.Thread(target=wait, name=name, daemon=True).start()
            break
        except RuntimeError:  # no more threads just now
            await asyncio.sleep(0.1)
    await over.wait()


def _await_death(process: subprocess.Popen[bytes]) -> None:
    """Waits until the child is dead, leaving it unreaped: so neither its pid nor its group can be another's yet."""
    if not hasattr(os, "waitid"):  # macOS before Python 3.13: reaped at once
        process.wait()
        return
    with suppress(ChildProcessError):
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)


def _await_group(group: int) -> None:
    """Waits until nobody of a killed group is left; its leader is reaped already."""
    end = time.monotonic() + GROUP_GONE
    while _runs(group):
        if time.monotonic() > end:
            message = "killed, but something of it is still there"
            tell(workers, logging.ERROR, "group-stays", group=group, message=message)
            return
        time.sleep(0.001)


def _runs(group: int) -> bool:
    """Whether any process of the group still runs; a zombie does not, whoever has to reap it."""
    with suppress(ChildProcessError):
        while os.waitpid(-group, os.WNOHANG)[0]:  # as PID 1 or subreaper, the orphans are this process's own
            pass
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    try:
        seen = [path / "stat" for path in Path("/proc").iterdir() if path.name.isdigit()]
    except OSError:
        return True
    return not seen or any(_runs_in(stat, group) for stat in seen)


def _runs_in(stat: Path, group: int) -> bool:
    try:
        fields = stat.read_bytes().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError, PermissionError):  # gone, or nobody's whom this process could kill
        return False
    except OSError:  # no descriptors just now: not known to be gone
        return True
    state, members, threads = fields[0], int(fields[2]), int(fields[17])
    return members == group and (state not in {b"Z", b"X"} or threads > 1)  # the first thread may end before others


def reap_strangers(own: set[int]) -> None:
    """As PID 1: reaps what was orphaned; leaves the pids in `own`, whose exit codes are waited for elsewhere."""
    if not hasattr(os, "waitid"):
        return
    with suppress(ChildProcessError):
        while (dead := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
            if dead.si_pid in own:  # seen first until it is reaped, which is soon
                return
            os.waitpid(dead.si_pid, os.WNOHANG)
