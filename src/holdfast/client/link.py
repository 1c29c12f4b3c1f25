"""The app's link to its store: chosen late, opened at first use on the bridge's loop, closed at exit."""

from __future__ import annotations

import asyncio
import inspect
import threading
import warnings
from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

from holdfast.bridge import Bridge, at_exit, run_here
from holdfast.client.queues import Fullness, Queues, Told
from holdfast.client.vigil import Vigil
from holdfast.clock import Clock
from holdfast.config import store_url
from holdfast.errors import ConfigError
from holdfast.job import Draft, Record
from holdfast.store import Receipt, Store, Where
from holdfast.stores import open_store
from holdfast.worker.batcher import Batcher
from holdfast.worker.processes.beginning import loading

T = TypeVar("T")

CHUNK = 500  # jobs per write, and ids per operator's step
LOOKS = 100  # jobs per look of those who wait for them: their payloads come along


class Opened(NamedTuple):
    """What lives on one loop of the bridge: the store, what joins concurrent enqueues and looks at jobs, what it was
    told of queues, and those who wait for results.
    """

    store: Store
    put: Callable[[Sequence[Draft]], Awaitable[Sequence[Receipt]]]
    see: Callable[[Sequence[UUID]], Awaitable[Sequence[Record | None]]]  # None: no such job
    told: Told
    vigil: Vigil


class StandIn(NamedTuple):
    """A store of a test's own, in place of the app's: it never suspends, and is called where its caller is.

    `unfinished` is what waiting for the result of such a job raises.
    """

    opened: Opened
    clock: Clock
    unfinished: Callable[[Record], BaseException]
    fullness: Fullness

    @property
    def store(self) -> Store:
        return self.opened.store


class Link:
    """Runs calls to the store, from sync and async code, from any thread and any number of loops."""

    def __init__(self, url: str | None, clock: Clock, queues: Queues) -> None:
        self._url = url
        self._clock = clock
        self._queues = queues
        self._fullness = Fullness()
        self._stand_ins: list[StandIn] = []
        self.stood_in: StandIn | None = None
        self._lock = threading.RLock()
        self._place: Store | None = None
        self._bridge = Bridge(self._forget, self._close_here)
        self._openings: dict[asyncio.AbstractEventLoop, asyncio.Task[Opened]] = {}  # while one closes, the next opens
        self._warned: set[str] = set()
        self.creates = True  # whether a store that is not there yet is made at first use; operators only look
        self.workers = 0
        self.in_slot = False
        at_exit(self.close)

    def configure(self, url: str | None) -> None:
        """ConfigError once the store is in use."""
        with self._lock:
            if self._place is not None and (self._openings or self.workers):
                raise ConfigError(f"configure(): the store is in use already ({self._place.url}); configure before")
            self._url, self._place = url, None

    @property
    def store(self) -> Store:
        """The store, perhaps not open yet; what workers make their twins of."""
        if self.stood_in:
            return self.stood_in.store
        with self._lock:
            if self._place is None:
                self._place = open_store(store_url(self._url), self._clock)
            return self._place

    @property
    def url(self) -> str:
        """The store's URL as chosen now, secrets included. ConfigError if none is."""
        return self.stood_in.store.url if self.stood_in else store_url(self._url)

    def enter_slot(self, url: str | None) -> None:
        """For a slot process: this app stands for its worker's, whose store is at `url`."""
        self.in_slot = True
        if url is not None and not self._openings:
            self.configure(url)

    def close(self) -> None:
        """Gives calls in flight a moment and closes the store; a later call opens it again."""
        with self._lock:
            if self._place is not None and self._place.shared:  # one that lives in this process keeps its jobs
                self._place = None
        self._bridge.close()

    async def _close_here(self) -> None:
        self._fullness.flush()
        opening = self._openings.pop(asyncio.get_running_loop(), None)
        if opening is not None:
            opened = await opening
            await opened.vigil.close()
            await opened.store.close()

    async def opened(self) -> Opened:
        """On the bridge's loop: opens the store once, and the batcher before it."""
        if self.stood_in:
            return self.stood_in.opened
        loop = asyncio.get_running_loop()
        opening = self._openings.get(loop)
        if opening is None or (opening.done() and (opening.cancelled() or opening.exception())):
            opening = self._openings[loop] = asyncio.create_task(self._open())
        return await asyncio.shield(opening)

    async def _open(self) -> Opened:
        store = self.store
        await store.open(create=self.creates)
        put, see = Batcher(store.enqueue, CHUNK).put, Batcher(_seeing(store), LOOKS).put
        return Opened(store, put, see, Told(self._queues, store), Vigil(store))

    def _forget(self) -> object:
        left = (self._place, self._openings)
        self._lock = threading.RLock()
        self._place, self._openings = None, {}
        self.workers = 0
        return left

    # --- a store of a test's own

    @contextmanager
    def stand_in(self, store: Store, clock: Clock, unfinished: Callable[[Record], BaseException]) -> Generator[None]:
        """All goes to `store` while this is entered; what was before is after."""
        opened = Opened(store, store.enqueue, _seeing(store), Told(self._queues, store), Vigil(store))
        it = StandIn(opened, clock, unfinished, Fullness())
        self._stand_ins.append(it)
        self.stood_in = it
        try:
            yield
        finally:
            self._stand_ins.remove(it)
            self.stood_in = self._stand_ins[-1] if self._stand_ins else None

    @property
    def fullness(self) -> Fullness:
        return self.stood_in.fullness if self.stood_in else self._fullness

    @property
    def clock(self) -> Clock:
        return self.stood_in.clock if self.stood_in else self._clock

    # --- calls

    def run(self, call: Callable[..., Coroutine[Any, Any, T]], *args: Any) -> T:
        """Calls it on the bridge's loop and waits here."""
        return run_here(call(*args)) if self.stood_in else self._bridge.run(call(*args))

    async def arun(self, call: Callable[..., Coroutine[Any, Any, T]], *args: Any) -> T:
        """Calls it on the bridge's loop and awaits it on the caller's."""
        return await (call(*args) if self.stood_in else self._bridge.arun(call(*args)))

    def blocking(self, twin: str, call: Callable[..., Coroutine[Any, Any, T]], *args: Any) -> T:
        """As `run`, for users; on a running loop it warns once, naming the `twin` to await."""
        if on_a_loop() and self.first(twin):
            warnings.warn(
                f"a blocking call on a running event loop holds up everything else on it: use `await ….{twin}()`",
                RuntimeWarning,
                stacklevel=_outside(),
            )
        return self.run(call, *args)

    def first(self, warning: str) -> bool:
        """Whether this has not been warned of yet; from now on it has."""
        first = warning not in self._warned
        self._warned.add(warning)
        return first

    # --- who may use it now

    def may_enqueue(self) -> None:
        """ConfigError in a process in which enqueueing could not work, or would never end."""
        not_while_loading()
        if self.in_slot and not self.store.shared:
            raise ConfigError(
                f"{self.store.url} lives in the worker's process alone: a handler with run_in='process' cannot enqueue "
                "to it; use a store such as sqlite:///jobs.db"
            )


def _seeing(store: Store) -> Callable[[Sequence[UUID]], Awaitable[Sequence[Record | None]]]:
    async def see(ids: Sequence[UUID]) -> Sequence[Record | None]:
        wanted = tuple(dict.fromkeys(ids))
        found = {record.id: record for record in await store.find(Where(ids=wanted), None, len(wanted))}
        return [found.get(id) for id in ids]  # noqa: A001

    return see


def not_while_loading() -> None:
    """ConfigError while a slot process imports the script that its worker was started by."""
    if script := loading():
        raise ConfigError(
            f"{script} enqueues jobs or starts a worker while it is imported, as a process of its own does for "
            "run_in='process': it would start itself for ever; put that under `if __name__ == \"__main__\":`"
        )


def _outside() -> int:
    """How many frames above its caller the first one is that is not ours: where a warning belongs."""
    level, frame = 0, inspect.currentframe()
    while frame is not None and str(frame.f_globals.get("__name__")).partition(".")[0] == "holdfast":
        level, frame = level + 1, frame.f_back
    return level


def on_a_loop() -> bool:
    """Whether the caller's thread runs an event loop now."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
