"""The store away, and its clock stepped: ten workers, none of which robs a healthy one; the truly dead are rescued.

The workers are embedded in the test's own process, each with a way to the store of its own that can be cut. Their
beats and sweeps go through one by one, when the test says so; time moves by the store's `shift` alone.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any
from uuid import UUID

import pytest

from holdfast import Holdfast, Retry, current_job
from holdfast.app import parts_of
from holdfast.clock import HOUR, SECOND, FakeClock
from holdfast.errors import StoreAway
from holdfast.job import Record, State
from holdfast.store import LEASE, Store, Where
from holdfast.task import Task
from holdfast.worker.crew import Crew, Departure
from tests.flows.conftest import Ledger
from tests.flows.shop import note
from tests.worker.rig import PATIENCE, fields, until

WORKERS, DEAD, EACH = 10, 2, 2  # EACH: jobs that run in each worker, which has no slot more
THIRD = LEASE // 3
ROUNDS_MOST = 9  # thirds of a lease until the dead are rescued: steady again, then leases cut, then those run out


class Turnstile:
    """Lets calls through one by one, when it is told to; they may come from any loop."""

    def __init__(self) -> None:
        self.open = False
        self.passed = 0  # calls that have ended
        self._allowed = 0
        self._waiting: deque[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = deque()

    async def turn(self) -> None:
        if self.open:
            return
        if self._allowed:
            self._allowed -= 1
            return
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        self._waiting.append((loop, waiter))
        await waiter

    def let(self) -> None:
        """Lets one call through, the next if none waits."""
        if not self._waiting:
            self._allowed += 1
            return
        loop, waiter = self._waiting.popleft()
        loop.call_soon_threadsafe(lambda: waiter.done() or waiter.set_result(None))

    def clear(self) -> None:
        """Lets all through that wait."""
        while self._waiting:
            self.let()

    def unhinge(self) -> None:
        """From now on nobody waits."""
        self.open = True
        self.clear()


class Way:
    """One worker's way to the store, for all of its loops: it can be cut, and has a turnstile for beats and sweeps."""

    def __init__(self, store: Store, root: Way | None = None) -> None:
        self._store = store
        self._root = root or self
        self.turnstiles = {"beat": Turnstile(), "reclaim": Turnstile()} if root is None else root.turnstiles
        self.cut = False
        self.failed = Counter[str]()  # calls that met the cut

    async def away(self) -> None:
        """From now on every call fails, and does nothing; returns when the worker has met that everywhere."""
        self.cut = True
        self.failed.clear()
        for turnstile in self.turnstiles.values():
            turnstile.clear()
        await until(
            lambda: {"beat", "mail", "reclaim", "promote"} <= self.failed.keys(), "the roles' notice of the cut"
        )

    def back(self) -> None:
        self.cut = False

    def twin(self) -> Way:
        return Way(self._store.twin(), self._root)

    @property
    def url(self) -> str:
        return self._store.url

    @property
    def shared(self) -> bool:
        return self._store.shared

    @property
    def unheard(self) -> str:
        return self._store.unheard

    def __getattr__(self, method: str) -> Any:
        inner = getattr(self._store, method)

        async def call(*args: Any, **options: Any) -> Any:
            turnstile = self.turnstiles.get(method)
            if turnstile is not None and not self._root.cut:
                await turnstile.turn()
            if self._root.cut and method != "close":
                self._root.failed[method] += 1
                raise StoreAway("away")
            try:
                return await inner(*args, **options)
            finally:
                if turnstile is not None:
                    turnstile.passed += 1

        return call


class Hand:
    """One worker of the fleet."""

    def __init__(self, app: Holdfast, tasks: dict[str, Task[..., Any]], clock: FakeClock) -> None:
        self.way = Way(parts_of(app).link.store.twin())
        self.worker = Crew(lambda: (self.way, tasks), concurrency=EACH, clock=clock)  # type: ignore[arg-type, return-value]

    @property
    def id(self) -> UUID:
        return self.worker.identity.id

    async def beat(self) -> None:
        await self._once("beat")

    async def sweep(self) -> None:
        await self._once("reclaim")

    async def _once(self, method: str) -> None:
        turnstile = self.way.turnstiles[method]
        before = turnstile.passed
        turnstile.let()
        await until(lambda: turnstile.passed > before, f"a {method}")


class Fleet:
    """Ten workers on one store, and the handlers that they run, which end when the test says so."""

    def __init__(self, url: str, ledger: Ledger) -> None:
        self.app = Holdfast(url, clock=FakeClock(), retry=Retry(max_attempts=3))
        self.ledger = ledger
        self.free: dict[tuple[UUID, int], asyncio.Event] = {}
        self.all_free = False
        self.clock = FakeClock()  # the workers' own measured time

        @self.app.task(name="hold")
        async def hold() -> None:
            note("begin")
            await self._freed(current_job().id, current_job().fence)
            note("effect")

        self.hold = hold
        self.hands = [Hand(self.app, parts_of(self.app).registry.names, self.clock) for _ in range(WORKERS)]
        self.store = parts_of(self.app).link.store.twin()

    async def _freed(self, id: UUID, fence: int) -> None:
        if not self.all_free:
            await self.free.setdefault((id, fence), asyncio.Event()).wait()

    async def start(self) -> None:
        """Every worker runs its two jobs, and is steady."""
        await self.store.open()
        for hand in self.hands:
            await hand.worker.astart()
        await self.app.aenqueue_many(self.hold.bind() for _ in range(WORKERS * EACH))
        await until(lambda: self.ledger.count("begin") == WORKERS * EACH, "every job's start")
        for _ in range(4):
            await self.third(self.hands)

    async def third(self, alive: Sequence[Hand]) -> None:
        """A third of a lease goes by, after which all that live beat and sweep at once."""
        self.let_pass(THIRD)
        await asyncio.gather(*(hand.beat() for hand in alive))
        await asyncio.gather(*(hand.sweep() for hand in alive))

    def let_pass(self, span: int) -> None:
        self.store.shift += span
        self.clock.advance(span)

    async def records(self, *of: Hand) -> list[Record]:
        """The jobs that these workers hold."""
        return [record for hand in of for record in await self.store.find(Where(worker=hand.id), None, 100)]

    async def stop(self) -> list[Departure]:
        self.all_free = True
        for event in self.free.values():
            event.set()
        for hand in self.hands:
            hand.way.back()
            for turnstile in hand.way.turnstiles.values():
                turnstile.unhinge()
        async with asyncio.timeout(PATIENCE):
            departures = await asyncio.gather(*(hand.worker.astop() for hand in self.hands))
        await self.store.close()
        await self.app.__aexit__()
        return departures


@pytest.fixture
def frozen() -> bool:
    return True


@pytest.fixture
async def fleet(url: str, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Fleet]:
    monkeypatch.setenv("LEDGER", str(ledger.path))
    # Beats and sweeps are always at their turnstile, and a store that is back is noticed at once.
    monkeypatch.setattr("holdfast.worker.keeper.BEATS_PER_LEASE", LEASE / SECOND / 0.005)
    monkeypatch.setattr("holdfast.worker.keeper.MAIL_EVERY", 0.05)
    monkeypatch.setattr("holdfast.worker.janitor.RECLAIM_EVERY", 0.005)
    monkeypatch.setattr("holdfast.worker.janitor.PROMOTE_EVERY", 0.05)
    monkeypatch.setattr("holdfast.worker.loop.BACKOFF_MOST", 0.1)
    it = Fleet(url, ledger)
    try:
        await it.start()
        yield it
    finally:
        await it.stop()


async def away(fleet: Fleet, alive: Sequence[Hand]) -> None:
    """Nobody reaches the store for three leases."""
    await asyncio.gather(*(hand.way.away() for hand in alive))
    fleet.let_pass(3 * LEASE)
    for hand in alive:
        hand.way.back()


async def forward(fleet: Fleet, _: Sequence[Hand]) -> None:
    """The store's clock alone steps an hour on."""
    fleet.store.shift += HOUR


async def back(fleet: Fleet, _: Sequence[Hand]) -> None:
    """The store's clock alone steps an hour back: every lease now ends in an hour."""
    fleet.store.shift -= HOUR


async def after_the_blow(alive: Sequence[Hand], seed: int) -> None:
    """Each sweeps, beats and sweeps again: first a worker that changes with the seed, then the others, mixed."""
    shuffled = random.Random(seed)
    first = alive[seed % len(alive)]
    for act in (first.sweep, first.beat, first.sweep):
        await act()
    acts = {hand.id: deque([hand.sweep, hand.beat, hand.sweep]) for hand in alive if hand is not first}
    while acts:
        whose = shuffled.choice(list(acts))
        await acts[whose].popleft()()
        if not acts[whose]:
            del acts[whose]
    await asyncio.gather(*(hand.sweep() for hand in alive))


@pytest.mark.every_store
@pytest.mark.timeout(180)
@pytest.mark.parametrize("blow", [away, forward, back], ids=["away", "forward", "back"])
async def test_no_healthy_worker_is_robbed_whoever_sweeps_first_and_the_dead_are_rescued(
    blow: Callable[[Fleet, Sequence[Hand]], Awaitable[None]], fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    dead, alive = fleet.hands[:DEAD], fleet.hands[DEAD:]
    healthy = {(record.id, record.worker) for record in await fleet.records(*alive)}
    orphans = [record.id for record in await fleet.records(*dead)]
    assert (len(healthy), len(orphans)) == (len(alive) * EACH, DEAD * EACH)

    async def robbed() -> set[tuple[UUID, UUID | None]]:
        held = await fleet.records(*alive)
        return healthy - {(record.id, record.worker) for record in held if record.fence == 1}

    await asyncio.gather(*(hand.way.away() for hand in dead))  # for good
    for seed in range(len(alive)):
        await blow(fleet, alive)
        await after_the_blow(alive, seed)
        assert not await robbed(), f"robbed at once, when worker {seed} swept first"
        rounds = 0
        while not all([await _rescued(fleet.store, id) for id in orphans]):  # noqa: A001
            assert rounds < ROUNDS_MOST, f"{rounds} thirds of a lease later the dead's jobs are not rescued"
            await fleet.third(alive)
            rounds += 1
        for _ in range(5 - min(rounds, 5)):
            await fleet.third(alive)  # steady again before the next blow
        assert not await robbed(), f"robbed later, after worker {seed} had swept first"

    await _settle(fleet, dead, alive, orphans, caplog)


async def _rescued(store: Store, id: UUID) -> bool:
    (record,) = await store.find(Where(ids=[id]), None, 1)
    return record.state is not State.RUNNING


async def _settle(
    fleet: Fleet, dead: Sequence[Hand], alive: Sequence[Hand], orphans: Sequence[UUID], caplog: pytest.LogCaptureFixture
) -> None:
    """All handlers end, the dead's first, unheard; what comes of their late words, and how often each job began."""
    mine = {(id, 1) for id in orphans}  # noqa: A001
    for key in mine:
        fleet.free[key].set()
    await until(lambda: fleet.ledger.count("effect") == len(orphans), "the end of the dead's handlers")
    fleet.all_free = True
    for event in fleet.free.values():
        event.set()
    jobs = WORKERS * EACH
    await until(lambda: fleet.ledger.count("effect") == jobs + len(orphans), "every job's end, the rescued ones' again")
    for hand in dead:
        hand.way.back()
    departures = await fleet.stop()
    assert [departure.refused for departure in departures] == [EACH] * DEAD + [0] * len(alive)
    refused = [field["job"] for field in fields(caplog, "refused")]
    assert sorted(refused) == sorted(orphans), "each late word is told"
    await fleet.store.open()
    found = await fleet.store.find(Where(), None, 100)
    await fleet.store.close()
    assert [record.state for record in found] == [State.SUCCEEDED] * jobs
    begun = Counter(line["job"] for line in fleet.ledger.lines("begin"))
    assert begun == {str(record.id): 2 if record.id in orphans else 1 for record in found}
    settled = {record.id: (record.settled_fence, record.settled_by) for record in found}
    assert all(settled[id][0] == 3 and settled[id][1] not in {hand.id for hand in dead} for id in orphans)  # noqa: A001
    assert all(fence == 1 for id, (fence, _) in settled.items() if id not in orphans)  # noqa: A001
