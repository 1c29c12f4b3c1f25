"""What a worker has counted is handed on soon, whole, and once; the black box knows what was not told."""

import asyncio
import logging
from typing import Any
from uuid import UUID, uuid4

import pytest

from holdfast.job import Loss, State
from holdfast.observe.tally import Counts, News, Totals
from holdfast.worker import telling
from holdfast.worker.attempts import Attempts
from holdfast.worker.blackbox import BlackBox
from holdfast.worker.janitor import Janitor
from holdfast.worker.telling import UNTOLD_MOST, Telling
from holdfast.worker.ticker import Ticker
from tests.worker.rig import Shop, until

Key = tuple[UUID, int]


class Desk:
    def __init__(self) -> None:
        self.counts, self.box = Counts(), BlackBox.made(10)
        self.news: list[News] = []
        self.telling = Telling(self.counts, self.box, self.news.append)

    def begun(self, number: int) -> list[Key]:
        keys = [(uuid4(), n) for n in range(number)]
        for key in keys:
            self.box.begin(key, None, 0, 1.0, on_loop=True)
        return keys

    def settle(self, key: Key) -> None:
        self.telling.settled([key])
        self.counts.event("x")


async def test_what_is_settled_is_told_soon_and_together() -> None:
    desk = Desk()
    for key in desk.begun(5):
        desk.settle(key)
    assert desk.news == []
    await until(lambda: desk.news, "it is not told")
    assert [news.events for news in desk.news] == [[["x", "", 5]]]
    assert desk.box.unheard(1) == []


async def test_a_run_that_was_not_told_of_can_be_found_until_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever outlives the worker has heard the news up to a number: what is on record beyond them, it finds."""
    monkeypatch.setattr(telling, "EVERY", 3600.0)
    desk = Desk()
    first, second, running, over = desk.begun(4)
    desk.settle(first)
    desk.telling.now()
    desk.settle(second)
    desk.box.over(over)
    assert {run.key for run in desk.box.unheard(1)} == {second, running, over}
    assert {run.key for run in desk.box.unheard(0)} == {first, second, running, over}, "news 1 were not heard"
    assert {run.key for run in desk.box.unheard(2)} == {running, over}
    assert {run.key for run in desk.box.begun()} == {running, over}, "what is settled is no run any more"
    desk.telling.now()


async def test_a_place_is_free_only_once_it_was_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telling, "EVERY", 3600.0)
    desk = Desk()
    (first,) = desk.begun(1)
    desk.settle(first)
    (second,) = desk.begun(1)
    assert {run.key for run in desk.box.unheard(0)} == {first, second}, "its place was another's before it was told"
    desk.telling.now()
    (third,) = desk.begun(1)
    assert {run.key for run in desk.box.unheard(0)} == {second, third}
    desk.telling.now()


async def test_when_much_is_settled_it_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telling, "EVERY", 3600.0)
    desk = Desk()
    for key in desk.begun(UNTOLD_MOST + 1):
        desk.settle(key)
    await until(lambda: desk.news, "it waits for its time")
    assert desk.news[0].events == [["x", "", UNTOLD_MOST + 1]], "the rest of the batch is told apart"


async def test_news_that_nobody_takes_free_the_places_all_the_same() -> None:
    def refuse(_: News) -> None:
        raise ZeroDivisionError

    desk = Desk()
    desk.telling = Telling(desk.counts, desk.box, refuse)
    (key,) = desk.begun(1)
    desk.settle(key)
    with pytest.raises(ZeroDivisionError):
        desk.telling.now()
    assert desk.box.settled([(uuid4(), 1)], 9) == 0


# --- of a whole worker


def ends(totals: Totals) -> dict[str, int]:
    return {status: count for (_, status), count in totals.by_status().items()}


async def test_a_worker_counts_what_became_of_its_attempts(shop: Shop) -> None:
    @shop.task
    async def works() -> None: ...

    @shop.task
    def breaks() -> None:
        raise ValueError("no")

    worker = await shop.started()
    jobs = [await works.aenqueue(), await works.aenqueue(), await breaks.aenqueue()]
    for job in jobs:
        await shop.state(job, State.SUCCEEDED, State.DEAD)
    await until(lambda: ends(worker.totals) == {"succeeded": 2, "dead": 1}, f"it counted {ends(worker.totals)}")
    await until(lambda: ("store", "finish") in worker.totals.lengths, "no call to the store was timed")
    vitals = worker.vitals()
    assert (vitals.slots, vitals.running, vitals.unheard) == (10, 0, False)
    assert vitals.memory == 0, "it is the whole process's, which may have more workers"


async def test_an_outcome_whose_reply_was_lost_counts_once(shop: Shop) -> None:
    @shop.task
    async def works() -> None: ...

    worker = await shop.started()
    shop.store.drop("finish", times=2)
    job = await works.aenqueue()
    await shop.state(job, State.SUCCEEDED)
    await until(lambda: shop.store.times("finish") == 3, "it is not written again")
    await until(lambda: ends(worker.totals) == {"succeeded": 1}, f"it counted {ends(worker.totals)}")


async def test_a_late_outcome_is_counted_as_refused_and_as_nothing_else(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    go = asyncio.Event()

    @shop.task
    async def waits() -> None:
        await go.wait()

    worker = await shop.started()
    job = await waits.aenqueue()
    await shop.state(job, State.RUNNING)
    other = uuid4()
    await shop.store.inner.register(other, None, {})
    await shop.store.inner.retire(worker.identity.id, Loss("robbed"))
    worker.identity.beaten(shop_now(worker), 3_600_000)
    assert len(await shop.store.inner.reclaim(other, 10)) == 1
    go.set()
    await until(lambda: worker.totals.events.get(("stale", "default")), "nothing was refused")
    assert "succeeded" not in ends(worker.totals)


def shop_now(worker: Any) -> float:
    return worker._clock.monotonic()  # noqa: SLF001


async def test_what_a_child_hands_on_is_what_it_counted(shop: Shop) -> None:
    """As a supervisor hears it: in news whose numbers follow each other."""

    @shop.task
    async def works() -> None: ...

    worker = shop.worker(supervisor=uuid4())
    heard: list[News] = []
    worker.hand_on = heard.append
    await worker.astart()
    job = await works.aenqueue()
    await shop.state(job, State.SUCCEEDED)
    await worker.astop()
    totals = Totals()
    for news in heard:
        totals.add(news)
    assert ends(totals) == {"succeeded": 1}
    assert [news.number for news in heard] == list(range(1, len(heard) + 1))
    assert ends(worker.totals) == {}


async def test_what_ended_without_a_run_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The black box says nothing of it: what a process had counted and not told would be counted by nobody."""

    async def quiet(_: object) -> float:
        return 3600.0

    monkeypatch.setattr(Attempts, "look", lambda *_: 3600.0)  # whose step tells now and then, as do these
    monkeypatch.setattr(Janitor, "reclaim_step", quiet)
    monkeypatch.setattr(Ticker, "step", quiet)
    shop, news = Shop(), list[News]()
    late = shop.task(lambda: None, name="late")
    await shop.jobs.apause("default")
    worker = shop.worker()
    worker.hand_on = news.append
    await worker.astart()
    try:
        await late.using(expires=0.001).aenqueue()
        expired = ["default", "late", "expired"]
        await until(lambda: expired in [cell[:3] for one in news for cell in one.cells], "it is not told")
    finally:
        await shop.stop()
