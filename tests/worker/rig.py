"""What the tests of the worker are made of: a store whose replies get lost, claims, and waiting without sleeping."""

import asyncio
import logging
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from uuid import UUID, uuid4

import pytest

from holdfast import Holdfast
from holdfast.app import parts_of
from holdfast.clock import Clock, FakeClock, Span
from holdfast.errors import StoreAway
from holdfast.job import Claim, Record, State, Terms, new_id
from holdfast.store import Store, Where
from holdfast.stores import open_store
from holdfast.task import Task
from holdfast.worker.crew import Crew
from holdfast.worker.runner import Run, begun

PATIENCE = 40  # seconds, for whatever a test waits for


Call = Callable[[], Awaitable[Any]]


async def _none(call: Call) -> Any:
    return await call()


class Flaky:
    """A store whose calls can be made to fail, to lose their reply, or to wait. It notes every call."""

    def __init__(self, inner: Store) -> None:
        self.inner = inner
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.done: list[str] = []
        self.open_count = 0
        self._faults: defaultdict[str, deque[Callable[[Call], Awaitable[Any]]]] = defaultdict(deque)
        self._lasting: dict[str, Exception] = {}

    def fail(self, method: str, error: Exception | None = None, *, times: int = 1) -> None:
        """The next calls fail, and do nothing."""

        async def failing(_: Call) -> Any:
            raise error or StoreAway("away")

        self._faults[method].extend([failing] * times)

    def drop(self, method: str, error: Exception | None = None, *, times: int = 1) -> None:
        """The next calls are done, and their replies lost."""

        async def dropped(call: Call) -> Any:
            await call()
            raise error or StoreAway("the connection was lost")

        self._faults[method].extend([dropped] * times)

    def hold(self, method: str) -> tuple[asyncio.Event, asyncio.Event]:
        """The next call waits before it is done: the first event says that it was made, the second lets it go on."""
        made, go = asyncio.Event(), asyncio.Event()

        async def held(call: Call) -> Any:
            made.set()
            await asyncio.wait_for(go.wait(), PATIENCE)
            return await call()

        self._faults[method].append(held)
        return made, go

    def away(self, *methods: str) -> None:
        """From now on these fail."""
        self._lasting |= dict.fromkeys(methods, StoreAway("away"))

    def back(self) -> None:
        """Nothing fails any more."""
        self._lasting.clear()
        self._faults.clear()

    def times(self, method: str) -> int:
        return sum(name == method for name, _ in self.calls)

    @property
    def shift(self) -> Span:
        return self.inner.shift

    @shift.setter
    def shift(self, shift: Span) -> None:
        self.inner.shift = shift

    @property
    def url(self) -> str:
        return self.inner.url

    @property
    def shared(self) -> bool:
        return self.inner.shared

    @property
    def unheard(self) -> str:
        return self.inner.unheard

    def twin(self) -> Store:
        return self  # the memory store serves every loop

    def __getattr__(self, method: str) -> Any:
        inner = getattr(self.inner, method)

        async def call(*args: Any, **options: Any) -> Any:
            self.calls.append((method, args))
            if method in self._lasting:
                raise self._lasting[method]
            faults = self._faults[method]
            fault = faults.popleft() if faults else _none
            answer = await fault(lambda: inner(*args, **options))
            self.done.append(method)
            return answer

        return call


def memory(clock: Clock | None = None) -> Flaky:
    return Flaky(open_store("memory://", clock or FakeClock()))


def claim(**changes: Any) -> Claim:
    """A claim as a worker gets it, of a job that no store knows."""
    fields: dict[str, Any] = {
        "id": new_id(),
        "fence": 1,
        "worker": uuid4(),
        "task": "shop.send",
        "queue": "mail",
        "payload": b"{}",
        "terms": Terms(max_attempts=3),
        "priority": 0,
        "attempt": 1,
        "releases": 0,
        "losses": 0,
        "crashes": 0,
        "alone": False,
        "enqueued_at": 1,
        "due_at": 1,
        "claimed_at": 1,
    }
    return Claim(**fields | changes)


_app = Holdfast("memory://")


def task_of(fn: Callable[..., Any]) -> Task[..., Any]:
    """`fn` as a task, of an app that is never used."""
    parts_of(_app).registry.names.clear()  # the names do not matter here
    return _app.task(name="shop.send")(fn)


def run_of(of: Claim, fn: Callable[..., Any] = lambda: None) -> Run:
    return begun(of, task_of(fn), lambda: True, 0.0)


async def until(holds: Callable[[], object], what: str) -> None:
    """Lets the loop go on until `holds()`; fails with `what` if it never does."""
    try:
        async with asyncio.timeout(PATIENCE):
            while not holds():  # noqa: ASYNC110  # what is waited for tells nobody
                await asyncio.sleep(0.002)
    except TimeoutError:
        pytest.fail(what)


async def soon(awaitable: Awaitable[Any], what: str) -> Any:
    """The result of `awaitable`; fails with `what` if it does not come."""
    try:
        return await asyncio.wait_for(awaitable, PATIENCE)
    except TimeoutError:
        pytest.fail(what)


async def record(store: Store, id: UUID) -> Record:
    (found,) = await store.find(Where(ids=[id]), None, 1)
    return found


async def until_state(store: Store, id: UUID, *states: State) -> Record:
    """Waits until the job is in one of `states`."""
    found = await record(store, id)
    try:
        async with asyncio.timeout(PATIENCE):
            while found.state not in states:
                await asyncio.sleep(0.002)
                found = await record(store, id)
    except TimeoutError:
        pytest.fail(f"the job is {found.state} and never {' or '.join(states)}")
    return found


def events(caplog: pytest.LogCaptureFixture, *which: str) -> list[str]:
    """The events that were told, all or only `which`."""
    told = [getattr(entry.msg, "event", None) or str(entry.msg) for entry in caplog.records]
    return [event for event in told if not which or event in which]


def fields(caplog: pytest.LogCaptureFixture, event: str) -> list[dict[str, Any]]:
    """What was told with each `event`."""
    return [entry.msg.fields for entry in caplog.records if getattr(entry.msg, "event", None) == event]


def levels(caplog: pytest.LogCaptureFixture, event: str) -> list[str]:
    return [logging.getLevelName(e.levelno) for e in caplog.records if getattr(e.msg, "event", None) == event]


class Shop:
    """An app on a flaky store, with the workers that a test makes; all are stopped at its end."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = clock
        self.jobs = Holdfast("memory://", clock=clock, keep="1h")
        self.store = Flaky(parts_of(self.jobs).link.store)
        self.workers: list[Crew] = []

    def task(self, fn: Callable[..., Any] | None = None, **options: Any) -> Any:
        """As `jobs.task`, named for the function alone."""
        if fn is None:
            return lambda fn: self.task(fn, **options)
        return self.jobs.task(**{"name": fn.__name__} | options)(fn)

    def worker(self, **options: Any) -> Crew:
        tasks = parts_of(self.jobs).registry.names
        made = Crew(
            lambda: (self.store, tasks),
            clock=options.pop("clock", None) or parts_of(self.jobs).link.clock,
            resources=parts_of(self.jobs).resources,
            around=parts_of(self.jobs).around,
            reconcile=parts_of(self.jobs).staffing.reconcile,
            **options,
        )
        self.workers.append(made)
        return made

    async def started(self, **options: Any) -> Crew:
        made = self.worker(**options)
        await soon(made.astart(), "the worker does not start")
        return made

    async def stop(self) -> None:
        self.store.back()
        for made in self.workers:
            await soon(made.astop(0), "a worker does not stop")

    async def state(self, job: Any, *states: State) -> Record:
        return await until_state(self.store, job.id, *states)


def answers(settled: Sequence[Any]) -> list[str]:
    return [str(one.answer) for one in settled]
