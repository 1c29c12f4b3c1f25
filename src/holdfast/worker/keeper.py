"""The keeper: the heartbeat. Keeps leases, and hears of cancels and lost claims.

One keeper serves any number of workers: a supervisor's its children, an embedded worker's itself, from a thread
and a connection of its own, so that a blocked loop does not lose the lease.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Protocol
from uuid import UUID

from holdfast.clock import SECOND, Clock, Span
from holdfast.errors import StoreError
from holdfast.job import Loss
from holdfast.store import Line, Store
from holdfast.worker.loop import Signal, Trouble, repeat
from holdfast.worker.outage import Outage

MAIL_EVERY = 1.0
BEATS_PER_LEASE = 3


class Listener(Protocol):
    """Who is told what the keeper hears about one worker."""

    def beaten(self, sent: float, lease: Span) -> None: ...
    def gone(self) -> None: ...
    def line(self, line: Line) -> None: ...


class Keeper:
    """Beats for the workers in `kept` and reads their mail."""

    def __init__(self, store: Store, clock: Clock, outage: Outage | None = None) -> None:
        self.kept: dict[UUID, Listener] = {}
        self._store = store
        self._clock = clock
        self._outage = outage

    async def beat_step(self) -> float:
        """Renews every lease in one write, three times per lease; at once where the answer came late."""
        kept = dict(self.kept)
        if not kept:
            return MAIL_EVERY
        sent = self._clock.monotonic()
        beat = await self._store.beat(list(kept))
        for worker, listener in kept.items():
            if worker in beat.gone:
                self.kept.pop(worker, None)
                listener.gone()
            else:
                listener.beaten(sent, beat.lease)
        return max(0.0, sent + beat.lease / SECOND / BEATS_PER_LEASE - self._clock.monotonic())

    async def mail_step(self) -> float:
        """Reads every mailbox in one look; lines come again until their claim has settled."""
        kept = dict(self.kept)
        if kept:
            for line in await self._store.mail(list(kept)):
                kept[line.worker].line(line)
        return MAIL_EVERY

    async def run(self, stopping: Signal) -> None:
        """Both steps, until `stopping`."""
        async with asyncio.TaskGroup() as group:
            group.create_task(repeat("beat", self.beat_step, stopping, self._outage))
            group.create_task(repeat("mail", self.mail_step, stopping, self._outage))


class KeeperThread:
    """A keeper with a thread, a loop and a store of its own. `stop` may be called from any thread."""

    def __init__(self, store: Store, clock: Clock, outage: Outage | None = None) -> None:
        self._outage = Outage() if outage is None else outage
        self.keeper = Keeper(store, clock, self._outage)
        self._store = store
        self._stopping: Signal | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._serve, name="holdfast-keeper", daemon=True)

    def start(self) -> None:
        """Starts beating."""
        self._thread.start()

    async def stop(self, seconds: float = 5.0) -> None:
        """Ends the thread; returns when it has ended, or after `seconds`."""
        end = time.monotonic() + seconds
        asked = False
        while self._thread.is_alive() and time.monotonic() < end:
            if not asked and self._loop is not None and self._stopping is not None:
                self._loop.call_soon_threadsafe(self._stopping.set)
                asked = True
            await asyncio.sleep(0.002)  # looked at, not joined: at interpreter exit there is no executor to join in

    def linger(self, worker: UUID, over: Callable[[], bool]) -> None:
        """Beats on until `over()`, then retires the worker and ends: its code runs longer than it."""
        if self._loop is not None:
            asyncio.run_coroutine_threadsafe(self._linger(worker, over), self._loop)

    async def _linger(self, worker: UUID, over: Callable[[], bool]) -> None:
        while not over():  # noqa: ASYNC110  # a thread of the user's says nothing when it ends
            await asyncio.sleep(MAIL_EVERY / 4)
        loss = Loss("still running after the shutdown deadline; its code has ended since", on_purpose=True)
        await self._insist("retire", lambda: self._store.retire(worker, loss))
        if self._stopping is not None:
            self._stopping.set()

    def _serve(self) -> None:
        asyncio.run(self._main())

    async def _main(self) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), Signal()
        await self._insist("keeper", self._store.open)
        try:
            await self.keeper.run(self._stopping)
        finally:
            await self._store.close()

    async def _insist(self, what: str, call: Callable[[], Awaitable[None]]) -> None:
        """Until it is done, or nobody needs it any more: the store may be away just now."""
        trouble = Trouble(what, self._outage)
        while self._stopping is not None and not self._stopping:
            try:
                await call()
            except StoreError as error:
                await self._stopping.wait(trouble.again(error))
            else:
                trouble.over()
                return


class OnLoop:
    """Passes what a keeper's thread hears on to a listener's own loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, listener: Listener) -> None:
        self._loop = loop
        self._listener = listener

    def beaten(self, sent: float, lease: Span) -> None:
        self._listener.beaten(sent, lease)  # at once: a blocked loop must not make its own lease look doubtful

    def gone(self) -> None:
        self._call(self._listener.gone)

    def line(self, line: Line) -> None:
        self._call(lambda: self._listener.line(line))

    def _call(self, call: Callable[[], None]) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(call)
