"""The recorder: what was counted is in the history once, whatever replies are lost; queues are looked at in measure."""

import asyncio
from uuid import UUID, uuid4

import pytest

from holdfast.clock import FakeClock
from holdfast.errors import StoreAway
from holdfast.job import State, Succeeded
from holdfast.observe.tally import Counts, Totals
from holdfast.policy import decide
from holdfast.store import Answer, Level, Settled, Stats
from holdfast.worker import recorder as recorders
from holdfast.worker.recorder import RECORD_EVERY, Looks, Recorder
from tests.store.acts import draft, stored
from tests.worker.rig import Flaky, claim, memory


class Desk:
    def __init__(self, store: Flaky) -> None:
        self.store, self.totals, self.counts = store, Totals(), Counts()
        self.me: UUID = uuid4()
        self.recorder = Recorder(store, lambda: self.me, self.totals)  # type: ignore[arg-type]

    def count(self, times: int = 1) -> None:
        for _ in range(times):
            of = claim()
            self.counts.settled(of, decide(of, Succeeded(b"")), Settled(Answer.ACCEPTED, State.SUCCEEDED), 0.2)
        news = self.counts.take()
        assert news is not None
        self.totals.add(news)

    async def recorded(self) -> tuple[int, list[Level]]:
        """How many ends the history has, and its levels."""
        minutes = await self.store.inner.history(0, 2**53)
        ends = sum(tally.count for minute in minutes for tally in minute.tallies)
        return ends, [level for minute in minutes for level in minute.levels]


@pytest.fixture
async def desk() -> Desk:
    desk = Desk(memory(FakeClock()))
    await desk.store.inner.open()
    await desk.store.inner.register(desk.me, None, {})
    return desk


async def test_what_was_counted_is_recorded_and_only_once(desk: Desk) -> None:
    desk.count(3)
    assert await desk.recorder.step() == RECORD_EVERY
    await desk.recorder.step()
    assert await desk.recorded() == (3, [])
    assert desk.store.times("record") == 1, "nothing is new, and it writes"


async def test_a_reply_that_is_lost_counts_nothing_twice(desk: Desk) -> None:
    desk.count(3)
    desk.store.drop("record")
    with pytest.raises(StoreAway):
        await desk.recorder.step()
    desk.count(2)
    await desk.recorder.step()
    assert await desk.recorded() == (3, []), "the repeat was added, or what came later goes under its number"
    await desk.recorder.step()
    assert await desk.recorded() == (5, [])


async def test_what_could_not_be_written_is_written_later(desk: Desk) -> None:
    desk.count(3)
    desk.store.fail("record")
    with pytest.raises(StoreAway):
        await desk.recorder.step()
    await desk.recorder.step()
    assert await desk.recorded() == (3, [])


async def test_a_worker_that_began_anew_records_under_its_new_name(desk: Desk) -> None:
    desk.count(3)
    await desk.store.inner.retire(desk.me)
    await desk.recorder.step()
    assert await desk.recorded() == (0, [])
    desk.me = uuid4()
    await desk.store.inner.register(desk.me, None, {})
    await desk.recorder.step()
    assert await desk.recorded() == (3, [])
    await desk.recorder.step()
    assert await desk.recorded() == (3, [])


async def test_how_full_the_queues_are_is_recorded_with_the_age_of_the_oldest(desk: Desk) -> None:
    await stored(desk.store.inner, draft(queue="mail"), draft(queue="mail"), draft(queue="later", delay=5000))
    desk.store.shift += 700
    await desk.recorder.step()
    assert await desk.recorded() == (0, [Level("mail", 2, 700)])


async def test_an_idle_service_looks_now_and_then_and_writes_nothing(desk: Desk) -> None:
    for _ in range(5):
        await desk.recorder.step()
    assert desk.store.times("stats") == 1
    assert desk.store.times("record") == 0


async def test_the_last_part_is_written_at_the_end_if_the_store_is_there(desk: Desk) -> None:
    desk.count()
    desk.store.away("record")
    await desk.recorder.last()
    desk.store.back()
    await desk.recorder.last()
    assert await desk.recorded() == (1, [])


# --- looks


class Asked:
    def __init__(self) -> None:
        self.times = 0
        self.error: Exception | None = None
        self.go: asyncio.Event | None = None

    async def __call__(self) -> Stats:
        self.times += 1
        if self.error:
            raise self.error
        if self.go:
            await self.go.wait()
        return Stats(self.times, [])


async def test_whoever_asks_sees_a_look_that_is_young_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    ask = Asked()
    looks = Looks(ask)
    assert await looks.asked() == await looks.asked() == Stats(1, [])
    monkeypatch.setattr(recorders, "FRESH", -1.0)
    monkeypatch.setattr(recorders, "ASKED_SHARE", 0)
    assert await looks.asked() == Stats(2, [])


async def test_a_look_that_takes_long_is_taken_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorders, "FRESH", 0.0)
    ask = Asked()
    looks = Looks(ask)
    looks._took = 1000.0  # noqa: SLF001
    await looks._look()  # noqa: SLF001
    looks._took = 1000.0  # noqa: SLF001
    assert await looks.asked() == Stats(1, [])
    assert await looks.due() is None


async def test_many_who_ask_at_once_are_one_look() -> None:
    ask = Asked()
    ask.go = asyncio.Event()
    looks = Looks(ask)
    asking = [asyncio.create_task(looks.asked()) for _ in range(5)]
    await asyncio.sleep(0)
    ask.go.set()
    assert await asyncio.gather(*asking) == [Stats(1, [])] * 5
    assert ask.times == 1


async def test_a_store_that_is_away_or_slow_has_no_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorders, "LOOK_LIMIT", 0.01)
    ask = Asked()
    looks = Looks(ask)
    ask.error = StoreAway("away")
    assert await looks.asked() is None
    ask.error, ask.go = None, asyncio.Event()
    assert await looks.asked() is None
    ask.go.set()
    await asyncio.sleep(0)
    assert (await looks.asked()) is not None
