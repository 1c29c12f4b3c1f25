"""A supervisor's standing in the store: its own registration and lease, the beats for its children, their burials."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple
from uuid import UUID, uuid4

from holdfast.clock import SECOND, Clock, Span
from holdfast.errors import StoreError
from holdfast.job import Loss
from holdfast.observe.logging import tell, workers
from holdfast.observe.tally import Counts, Totals
from holdfast.store import Line, Store
from holdfast.worker.accounts import Account, settled_under
from holdfast.worker.child import Child
from holdfast.worker.crew import FLUSH, LAST_TRY
from holdfast.worker.identity import doubt_from
from holdfast.worker.janitor import Janitor
from holdfast.worker.keeper import Keeper
from holdfast.worker.loop import Signal, Trouble, repeat
from holdfast.worker.measured import measured
from holdfast.worker.outage import Outage
from holdfast.worker.recorder import Recorder

UNREAD_MOST = 4 * 1024 * 1024  # bytes that a child may leave unread before it counts as hung


class Funeral(NamedTuple):
    """What is left to tell the store of a dead worker. `tidy`: it had settled all it held, and left by itself.
    `untold`: its runs of which nobody knows whether they are on record.
    """

    worker: UUID
    loss: Loss
    jobs: Mapping[tuple[UUID, int], Loss]
    tidy: bool
    untold: Sequence[tuple[UUID, int]] = ()


class Standing:
    """Begins with the first child that knows where the store is; until then, children and burials wait."""

    def __init__(self, open_store: Callable[[str], Store], clock: Clock) -> None:
        self.id = uuid4()
        self._open_store = open_store
        self._clock = clock
        self._over, self._buried = Signal(), Signal()
        self._outage = Outage()
        self._funerals: deque[Funeral] = deque()
        self._waiting: set[Child] = set()  # until there is a keeper
        self._store: Store | None = None
        self.counts, self.totals = Counts(), Totals()
        self.recorder: Recorder | None = None
        self.keeper: Keeper | None = None
        self._beaten_at, self._lease = 0.0, 0.0  # when the beat was sent that the store last took, and for how long
        self._answered_at = 0.0  # when it said so: a store that hung answers late. All in seconds
        self._roles: list[asyncio.Task[None]] = []

    async def begin(self, url: str) -> bool:
        """Opens the children's store, however long that takes, and starts what needs it; False if it ended first."""
        if not await self._insist("supervisor", lambda: self._connect(url)) or self._store is None:
            return False
        self.keeper = Keeper(self._store, self._clock, self._outage)
        self.keeper.kept[self.id] = _Own(self)
        for child in self._waiting:
            self.keep(child)
        self._janitor = Janitor(self._store, lambda: self.id, self.counts)
        self.recorder = Recorder(self._store, lambda: self.id, self.totals)
        self._roles += [
            asyncio.create_task(self.keeper.run(self._over)),
            asyncio.create_task(repeat("burial", self._burial_step, self._over, self._outage)),
            asyncio.create_task(repeat("reclaim", self._janitor.reclaim_step, self._over, self._outage)),
            asyncio.create_task(repeat("record", self.recorder.step, self._over, self._outage)),
        ]
        return True

    def keep(self, child: Child) -> None:
        """Beats for the child's worker from now on, and passes its mail on."""
        if self.keeper is None:
            self._waiting.add(child)
        elif child.worker is not None:
            self.keeper.kept[child.worker] = _Forward(child, child.worker)

    def bury(self, child: Child, loss: Loss, jobs: Mapping[tuple[UUID, int], Loss], *, tidy: bool = False) -> None:
        """Ends what is done for the child's worker, and has its jobs given back: `jobs` by (id, fence), else `loss`.

        `tidy`: it has left with nothing to give back.
        """
        self._waiting.discard(child)
        if child.worker is None:
            return
        if self.keeper is not None:
            self.keeper.kept.pop(child.worker, None)
        untold = [run.key for run in child.box.unheard(child.news)] if child.reaped else []
        self._funerals.append(Funeral(child.worker, loss, jobs, tidy, untold))
        self._buried.poke()
        child.worker = None

    def answers(self) -> bool:
        """Whether the store has taken a beat lately."""
        return self._clock.monotonic() - self._answered_at < self._lease / 2

    def held(self) -> bool:
        """Whether the supervisor's own lease is beyond doubt."""
        return self._clock.monotonic() < doubt_from(self._beaten_at, self._lease)

    @property
    def away(self) -> str:
        """Why the store does not answer; empty if it does, as far as is known."""
        return (self._outage.why or "it does not answer") if self._outage.goes_on else ""

    async def _connect(self, url: str) -> None:
        store = measured(self._open_store(url), self.counts)
        try:
            await store.open()
            await self._register(store, self.id)
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
        self._answered_at = self._clock.monotonic()

    def retired(self) -> None:
        """Someone retired the supervisor itself, whose sweeps count for nothing now."""
        tell(
            workers,
            logging.WARNING,
            "supervisor-gone",
            message="the store knows it no more: retired by someone else, or lost; it begins anew",
        )
        self._roles.append(asyncio.create_task(self._begin_anew()))

    async def _begin_anew(self) -> None:
        store, keeper, fresh = self._store, self.keeper, uuid4()
        if store is None or keeper is None:
            return
        if await self._insist("register", lambda: self._register(store, fresh)):
            self.id = fresh
            keeper.kept[fresh] = _Own(self)

    async def _insist(self, role: str, call: Callable[[], Awaitable[None]]) -> bool:
        """Until it is done or the service has ended; whether it is done."""
        trouble = Trouble(role, self._outage)
        while not self._over:
            try:
                await call()
            except Exception as error:  # noqa: BLE001  # without it nothing is kept alive
                await self._over.wait(trouble.again(error))
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
            try:
                await self._store.retire(*self._funerals[0][:3])
                while await self._janitor.reclaim_step() == 0:
                    pass
                await self._account(self._store, self._funerals[0])
            except BaseException:
                self._funerals.rotate(-1)  # one that the store refuses must not hold up the others
                raise
            self._funerals.popleft()
        return 0

    async def _account(self, store: Store, funeral: Funeral) -> None:
        """Counts what is on record under the dead worker's word, and what it could not tell of any more."""
        found: Sequence[Account] = await settled_under(store, funeral.worker, funeral.untold)
        for account in found:
            self.counts.ended(*account)

    async def end(self) -> bool:
        """The last burials, then the supervisor's own; whether all was told that others wait for."""
        end = self._clock.monotonic() + (LAST_TRY if self._outage.goes_on and not self._untidy() else FLUSH)
        while self._funerals and self._clock.monotonic() < end:
            self._buried.poke()
            await asyncio.sleep(0.01)
        if untidy := self._untidy():
            left = ", ".join(str(worker) for worker in untidy)
            text = "their jobs come back when the lease ends"
            tell(workers, logging.ERROR, "not-retired", workers=left, message=text)
        self._over.set()
        self._buried.poke()
        silent = bool(self._funerals) or self._outage.goes_on
        if self._roles:
            _, late = await asyncio.wait(self._roles, timeout=LAST_TRY if silent else FLUSH)
            silent = silent or bool(late)
            for role in late:
                role.cancel()
        self._outage.look(last=True)
        if self.recorder is not None and not silent:
            await self.recorder.last()
        await self._leave(LAST_TRY if silent else FLUSH)
        return not untidy

    def _untidy(self) -> list[UUID]:
        return [funeral.worker for funeral in self._funerals if not funeral.tidy]

    async def _leave(self, patience: float) -> None:
        if self._store is not None:
            with suppress(StoreError, TimeoutError):
                async with asyncio.timeout(patience):
                    await self._store.retire(self.id)
            with suppress(StoreError, TimeoutError):
                async with asyncio.timeout(patience):
                    await self._store.close()


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
        if unread > UNREAD_MOST and not self._child.condemned:
            pid = self._child.pid
            tell(workers, logging.ERROR, "hung", pid=pid, unread=unread, message="it reads nothing; killed")
            self._child.end(Loss(f"its process (pid {pid}) hung, and was killed"))


class _Own:
    """The supervisor's own lease, without which it may not sweep."""

    def __init__(self, standing: Standing) -> None:
        self._standing = standing

    def beaten(self, sent: float, lease: Span) -> None:
        self._standing.beaten(sent, lease)

    def gone(self) -> None:
        self._standing.retired()

    def line(self, line: Line) -> None:
        pass
