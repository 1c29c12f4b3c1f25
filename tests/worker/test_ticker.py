"""The ticker: one job for each tick, however many workers tick, die, stand still, and lose replies."""

import asyncio
import logging
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import takewhile
from uuid import UUID

import pytest

from holdfast import Holdfast, current_job
from holdfast.app import parts_of
from holdfast.client.declaring import without_an_id
from holdfast.clock import HOUR, MINUTE, SECOND, FakeClock, Instant, instant
from holdfast.errors import StoreAway
from holdfast.headers import SCHEDULED_FOR, headers_of
from holdfast.job import QueueTerms, Record, State
from holdfast.schedule.entry import Definition, Text
from holdfast.schedule.rule import Missed, Rule, Step, plan, rule_of
from holdfast.store import Entry, Schedules, Store, Tick, Ticked, Where
from holdfast.stores.memory import MemoryStore
from holdfast.worker.ticker import AGAIN, LOOK_EVERY, Ticker
from tests.worker.rig import Flaky, Shop, events, fields, memory, soon, until

START = 1_800_000_000_000


def definition(rule: Rule, queue: str = "default", priority: int = 0) -> Definition:
    jobs = Holdfast("memory://")
    task = jobs.task(name="shop.report")(lambda: None)
    return Definition(rule, without_an_id(task.using(queue=queue, priority=priority).bind().draft))


async def add(store: Store | Flaky, name: str, rule: Rule, queue: str = "default") -> None:
    made = definition(rule, queue)
    now = (await store.schedules()).now
    entry = Entry(name, queue, Text(edited=made).written(), rule.next(now))
    assert await store.schedule([entry]) == [True]


async def entry(store: Store | Flaky, name: str) -> Entry:
    (found,) = (await store.schedules([name])).entries
    return found


async def jobs(store: Store | Flaky) -> list[Record]:
    """By their ticks."""
    return sorted(await store.find(Where(), None, 100_000), key=tick_of)


def tick_of(record: Record) -> Instant:
    return instant(datetime.fromisoformat(headers_of(record.headers)[SCHEDULED_FOR]), "tick")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(START)


@pytest.fixture
async def store(clock: FakeClock) -> AsyncIterator[Flaky]:
    made = memory(clock)
    await made.open()
    yield made
    await made.close()


async def run(ticker: Ticker) -> float:
    """Lets it tick until there is nothing to do; when it would look again."""
    while not (pause := await ticker.step()):
        pass
    return pause


# --- one step


async def test_it_ticks_in_time_and_says_when_to_look_again(store: Flaky, clock: FakeClock) -> None:
    ticker = Ticker(store)
    assert await ticker.step() == LOOK_EVERY, "no schedule yet"
    await add(store, "flush", rule_of(every=2))
    assert await ticker.step() == 2.0
    clock.advance(1500)
    assert await ticker.step() == 0.5
    assert await jobs(store) == []
    clock.advance(500)
    assert await ticker.step() == 0.0, "perhaps there is more"
    assert await ticker.step() == 2.0
    (job,) = await jobs(store)
    assert (job.task, job.state, tick_of(job), job.due_at) == ("shop.report", State.QUEUED, START + 2000, START + 2000)


async def test_it_looks_for_new_schedules_although_none_is_due_soon(store: Flaky) -> None:
    await add(store, "yearly", rule_of(cron="@yearly"))
    assert await Ticker(store).step() == LOOK_EVERY


async def test_jitter_delays_the_job_and_not_the_tick(store: Flaky, clock: FakeClock) -> None:
    await add(store, "flush", rule_of(every="10m", jitter="5m"))
    clock.advance(10 * MINUTE)
    await run(Ticker(store))
    (job,) = await jobs(store)
    assert tick_of(job) % (10 * MINUTE) == 0
    assert tick_of(job) < job.due_at <= tick_of(job) + 5 * MINUTE
    assert job.state is State.SCHEDULED


async def test_the_last_job_is_not_finished(store: Flaky, clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    await add(store, "flush", rule_of(every="10m"))
    for _ in range(3):
        clock.advance(10 * MINUTE)
        await run(Ticker(store))
    (job,) = await jobs(store)
    found = await entry(store, "flush")
    assert (found.made, found.skipped, found.missed) == (1, 2, 0)
    assert [(one.outcome, one.job) for one in found.ticks] == [
        ("made", job.id),
        ("skipped", job.id),
        ("skipped", job.id),
    ]
    assert len(fields(caplog, "tick-skipped")) == 2


async def test_a_full_queue_skips_the_tick_with_its_reason(store: Flaky, clock: FakeClock) -> None:
    await store.configure({"mail": QueueTerms(1)}, by="worker")
    await add(store, "flush", rule_of(every="10m", overlap="allow"), "mail")
    for _ in range(2):
        clock.advance(10 * MINUTE)
        await run(Ticker(store))
    found = await entry(store, "flush")
    assert [(one.outcome, one.reason) for one in found.ticks] == [("made", ""), ("skipped", "full")]
    assert found.next_at == START + 30 * MINUTE


@pytest.mark.parametrize(("missed", "made", "passed"), [("skip", 0, 3), ("once", 1, 2), ("all", 3, 0)])
async def test_an_outage(store: Flaky, clock: FakeClock, missed: Missed, made: int, passed: int) -> None:
    await add(store, "flush", rule_of(every="10m", missed=missed, overlap="allow"))
    clock.advance(35 * MINUTE)
    await run(Ticker(store))
    found = await entry(store, "flush")
    assert (found.made, found.missed) == (made, passed)
    ticks = [START + n * 10 * MINUTE for n in (1, 2, 3)]
    assert [tick_of(job) for job in await jobs(store)] == ticks[3 - made :]
    assert not passed or "nobody ticked in time" in found.ticks[0].reason
    clock.advance(5 * MINUTE)
    await run(Ticker(store))
    assert (await entry(store, "flush")).made == made + 1, "and the next one as ever"


async def test_ticks_are_counted_whatever_became_of_them(store: Flaky, clock: FakeClock) -> None:
    class Counts:
        def __init__(self) -> None:
            self.seen = list[tuple[str, int, float]]()

        def ticked(self, ticked: Ticked, late: float, /) -> None:
            self.seen.append((ticked.outcome, ticked.count, late))

    counts = Counts()
    await add(store, "flush", rule_of(every="10m"))
    clock.advance(35 * MINUTE)
    await run(Ticker(store, counts))
    clock.advance(5 * MINUTE + 1500)
    await run(Ticker(store, counts))
    assert counts.seen == [("missed", 2, 1500.0), ("made", 1, 300.0), ("skipped", 1, 1.5)]


async def test_a_clock_stepped_back_fires_nothing_twice(store: Flaky, clock: FakeClock) -> None:
    await add(store, "flush", rule_of(every="10m", overlap="allow"))
    for by in (10 * MINUTE, -HOUR, HOUR, 10 * MINUTE):
        clock.step(by)
        await run(Ticker(store))
    assert [tick_of(job) for job in await jobs(store)] == [START + 10 * MINUTE, START + 20 * MINUTE]


async def test_a_lost_reply_makes_no_second_job(store: Flaky, clock: FakeClock) -> None:
    await add(store, "flush", rule_of(every="10m", overlap="allow"))
    clock.advance(10 * MINUTE)
    store.drop("tick")
    ticker = Ticker(store)
    with pytest.raises(StoreAway):
        await ticker.step()
    await run(ticker)
    assert len(await jobs(store)) == 1


async def test_what_cannot_be_read_is_told_once_and_holds_nobody_up(
    store: Flaky, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    await add(store, "flush", rule_of(every="10m"))
    broken = Rule(cron="@daily", tz="Nowhere/Here")
    text = Text(edited=definition(broken)).written()
    assert await store.schedule([Entry("a", "default", "{", START), Entry("b", "default", text, START)]) == [True, True]
    clock.advance(10 * MINUTE)
    ticker = Ticker(store)
    for _ in range(3):
        await run(ticker)
    assert len(await jobs(store)) == 1
    told = fields(caplog, "schedule-unreadable")
    assert [one["schedule"] for one in told] == ["a", "b"]
    assert "Nowhere/Here" in told[1]["message"]


async def test_an_entry_that_breaks_the_ticker_stops_no_other(
    store: Flaky, clock: FakeClock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is wrong with it: here, what no check of its values has thought of."""

    def broken(rule: Rule, next_at: Instant, now: Instant) -> Step:
        if rule.jitter:
            raise ZeroDivisionError("nobody knows")
        return plan(rule, next_at, now)

    await add(store, "bad", rule_of(every="10m", jitter=1))
    await add(store, "flush", rule_of(every="10m"))
    monkeypatch.setattr("holdfast.worker.ticker.plan", broken)
    clock.advance(10 * MINUTE)
    ticker = Ticker(store)
    for _ in range(3):
        await run(ticker)
    assert len(await jobs(store)) == 1
    (told,) = fields(caplog, "schedule-unreadable")
    assert (told["schedule"], told["message"]) == ("bad", "ZeroDivisionError: nobody knows")


@pytest.mark.parametrize("next_at", [-(10**17), -1, 10**17])
async def test_a_next_tick_that_is_no_time(
    store: Flaky, clock: FakeClock, caplog: pytest.LogCaptureFixture, next_at: Instant
) -> None:
    await add(store, "flush", rule_of(every="10m"))
    text = Text(edited=definition(rule_of(cron="* * * * *"))).written()
    assert await store.schedule([Entry("bad", "default", text, next_at)]) == [True]
    clock.advance(10 * MINUTE)
    await run(Ticker(store))
    assert len(await jobs(store)) == 1
    assert [told["schedule"] for told in fields(caplog, "schedule-unreadable")] == ["bad"] * (next_at < 0)


async def test_a_text_of_another_queue_than_its_entry(
    store: Flaky, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    text = Text(edited=definition(rule_of(every=1), "mail")).written()
    assert await store.schedule([Entry("bad", "default", text, START)]) == [True]
    assert await run(Ticker(store)) == LOOK_EVERY
    assert "mail" in fields(caplog, "schedule-unreadable")[0]["message"]


@pytest.mark.parametrize("number", [100, 101, 350])
async def test_entries_that_nobody_can_settle_hide_no_other(store: Flaky, clock: FakeClock, number: int) -> None:
    await add(store, "flush", rule_of(every="10m", overlap="allow"))
    assert all(await store.schedule([Entry(f"bad{n}", "default", "{", START) for n in range(number)]))
    ticker = Ticker(store)
    for made in (1, 2):
        clock.advance(10 * MINUTE)
        assert await run(ticker) == LOOK_EVERY, "it asks without an end"
        assert len(await jobs(store)) == made
    assert await Ticker(store).all() == 10 * MINUTE


async def test_a_store_that_shows_few_at_once_hides_none(
    store: Flaky, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Redis does with large ones: one, and another for each hundred more that are asked for."""
    due = store.due

    async def sparing(limit: int) -> Schedules:
        return await due(limit // 100)

    monkeypatch.setattr(store, "due", sparing, raising=False)
    await add(store, "flush", rule_of(every="10m"))
    assert all(await store.schedule([Entry(f"bad{n}", "default", "{", START) for n in range(3)]))
    clock.advance(10 * MINUTE)
    assert await run(Ticker(store)) == LOOK_EVERY
    assert len(await jobs(store)) == 1


async def test_more_broken_entries_than_it_looks_past(
    store: Flaky, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.worker.ticker.LOOKED_MOST", 200)
    assert all(await store.schedule([Entry(f"bad{n}", "default", "{", START) for n in range(201)]))
    assert await run(Ticker(store)) == LOOK_EVERY
    assert await Ticker(store).all() is None
    assert max(arguments[0] for name, arguments in store.calls if name == "due") == 200


async def test_what_the_store_refuses_is_asked_for_more_and_more_seldom(
    store: Flaky, clock: FakeClock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    tick, bad = store.tick, True

    async def picky(ticks: Sequence[Tick]) -> Sequence[Ticked | None]:
        if bad and any(one.name == "bad" for one in ticks):
            raise OverflowError("too large an integer")
        return await tick(ticks)

    monkeypatch.setattr(store, "tick", picky, raising=False)
    await add(store, "bad", rule_of(every="10m"))
    await add(store, "flush", rule_of(every="10m"))
    clock.advance(10 * MINUTE)
    ticker = Ticker(store)
    pauses = list[float]()
    for _ in range(8):
        pauses.append(await run(ticker))
        clock.advance(1)
        assert await ticker.step() == pytest.approx(pauses[-1] - 0.001), "not before that"
        clock.advance(round(pauses[-1] * SECOND) - 1)
    assert len(await jobs(store)) == 1, "the other one"
    assert pauses == [AGAIN, 2 * AGAIN, 4 * AGAIN, 8 * AGAIN, 16 * AGAIN, LOOK_EVERY, LOOK_EVERY, LOOK_EVERY]
    assert [told["message"] for told in fields(caplog, "tick-failed")] == ["OverflowError: too large an integer"]
    bad = False
    clock.step(-6 * SECOND)
    await run(ticker)
    assert len(await jobs(store)) == 2, "it works again"


# --- many workers


class Moody:
    """The store as one worker sees it, which may be killed or stopped between any two of its steps."""

    def __init__(self, store: MemoryStore, chance: random.Random) -> None:
        self._store = store
        self._chance = chance
        self.held: list[Sequence[Tick]] = []  # what it was about to write when it was stopped

    async def due(self, limit: int) -> object:
        return await self._store.due(limit)

    async def tick(self, ticks: Sequence[Tick]) -> Sequence[Ticked | None]:
        fate = self._chance.random()
        if fate < 0.02:
            raise StoreAway("killed before it wrote")
        if fate < 0.06:
            self.held.append(ticks)
            raise StoreAway("stopped before it wrote")
        answers = await self._store.tick(ticks)
        if fate < 0.1:
            raise StoreAway("killed after it wrote")
        return answers

    async def go_on(self) -> None:
        """What was stopped writes what it knows of old."""
        held, self.held = self.held, []
        for ticks in held:
            await self._store.tick(ticks)


@pytest.mark.parametrize("seed", [0, *(pytest.param(n, marks=pytest.mark.soak) for n in range(1, 9))])
async def test_a_thousand_hours_of_five_workers(seed: int) -> None:
    clock, chance = FakeClock(START), random.Random(seed)
    store = MemoryStore(clock)
    rules = {
        "all": rule_of(every="10m", missed="all"),
        "once": rule_of(cron="*/15 * * * *", tz="Australia/Lord_Howe", overlap="allow"),
        "skip": rule_of(cron="0,30 * * * *", tz="Europe/Amsterdam", missed="skip", overlap="allow"),
        "skip-all": rule_of(every="20m", missed="all", overlap="skip"),
    }
    for name, rule in rules.items():
        await add(store, name, rule)
    moods = [Moody(store, chance) for _ in range(5)]
    end = START + 1000 * HOUR
    while clock.now() < end:
        clock.advance(chance.choice([MINUTE, 5 * MINUTE, 10 * MINUTE, HOUR // 3, 3 * HOUR]))
        if chance.random() < 0.05:
            clock.step(-chance.randrange(20 * MINUTE))
        for mood in chance.sample(moods, chance.randrange(6)):
            await (mood.go_on() if mood.held and chance.random() < 0.5 else _a_while(Ticker(mood)))  # type: ignore[arg-type]
    for mood in moods:
        await mood.go_on()
    await run(Ticker(store))

    made: dict[str, Counter[Instant]] = {name: Counter() for name in rules}
    for job in await jobs(store):
        made[headers_of(job.headers)["holdfast.schedule"]][tick_of(job)] += 1
    for name, rule in rules.items():
        found = await entry(store, name)
        ticks = list(takewhile(lambda at: at < (found.next_at or 0), rule.coming(START)))  # noqa: B023  # called here
        assert set(made[name]) <= set(ticks), f"{name}: a job of no tick"
        assert set(made[name].values()) == {1}, f"{name}: two jobs of one tick"
        assert found.made == len(made[name])
        assert found.made + found.skipped + found.missed == len(ticks), f"{name}: a tick that nobody speaks of"
    assert list(made["all"]) == list(takewhile(lambda at: at <= clock.now(), rules["all"].coming(START))), "each one"
    assert (await entry(store, "once")).missed > 0 < (await entry(store, "skip")).missed, "the workers were too good"
    assert len(made["skip-all"]) == 1, "its first job was never finished"


async def _a_while(ticker: Ticker) -> None:
    with suppress(StoreAway):
        await run(ticker)


# --- in a worker


@pytest.fixture
async def shop(clock: FakeClock) -> AsyncIterator[Shop]:
    made = Shop(clock)
    yield made
    await made.stop()


async def test_a_worker_ticks_and_runs_what_that_makes(shop: Shop, clock: FakeClock) -> None:
    seen = list[tuple[datetime | None, dict[str, str], UUID]]()

    @shop.jobs.every(1, name="beat")
    @shop.jobs.task(name="beat")
    async def beat() -> None:
        job = current_job()
        seen.append((job.scheduled_for, dict(job.headers), job.id))

    await shop.started()
    (found,) = (await shop.store.schedules()).entries
    assert (found.name, found.next_at) == ("beat", START + SECOND)
    first = next(n for n, (name, _) in enumerate(shop.store.calls) if name == "claim")
    assert "schedule" in [name for name, _ in shop.store.calls[:first]], "reconciled before it claims"
    clock.advance(SECOND)
    await until(lambda: seen, "the tick's job does not run")
    (job,) = await jobs(shop.store)
    assert seen == [(datetime.fromisoformat("2027-01-15T08:00:01+00:00"), {}, job.id)]


async def test_a_store_that_came_back_empty_has_its_schedules_again(shop: Shop) -> None:
    shop.jobs.every(60, name="beat")(shop.task(lambda: None, name="beat"))
    worker = await shop.started()
    told: list[object] = []
    worker.renamed = told.append
    (found,) = (await shop.store.schedules()).entries
    assert await shop.store.unschedule({"beat": found.revision}) == [True]
    await shop.store.retire(worker.identity.id)
    await until(lambda: told, "it does not begin anew")
    assert [entry.name for entry in (await shop.store.schedules()).entries] == ["beat"]


async def test_who_begins_anew_changes_no_schedule(shop: Shop) -> None:
    """Others are there: a newer version may have brought them since."""
    shop.jobs.every(60, name="old")(shop.task(lambda: None, name="beat"))
    worker = await shop.started()
    told: list[object] = []
    worker.renamed = told.append
    (found,) = (await shop.store.schedules()).entries
    assert await shop.store.unschedule({"old": found.revision}) == [True]
    await add(shop.store, "new", rule_of(every=60))
    await shop.store.retire(worker.identity.id)
    await until(lambda: told, "it does not begin anew")
    assert [entry.name for entry in (await shop.store.schedules()).entries] == ["new"]


async def test_starting_workers_do_not_hinder_each_other(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    shop.jobs.every(60, name="beat")(shop.task(lambda: None, name="beat"))
    made, go = shop.store.hold("schedule")
    first = shop.worker()
    starting = asyncio.create_task(first.astart())
    await soon(made.wait(), "the first does not reconcile")
    await shop.started()
    go.set()
    await soon(starting, "the first does not start")
    assert events(caplog, "schedule-added", "schedules-contended") == ["schedule-added"]


async def test_a_job_that_no_schedule_made(shop: Shop) -> None:
    seen = list[datetime | None]()
    shop.task(lambda: seen.append(current_job().scheduled_for), name="plain")
    await shop.started()
    await shop.store.enqueue([parts_of(shop.jobs).registry.names["plain"].bind().draft])
    await until(lambda: seen, "the job does not run")
    assert seen == [None]
