"""Queues by weight, strictly, and paused, as a whole worker serves them; and that it asks for nothing new without."""

from collections import Counter
from collections.abc import AsyncIterator

import pytest

import holdfast.worker.fetcher as fetchers
from holdfast import current_job
from holdfast.job import QueueTerms
from holdfast.store import Quota
from tests.store.acts import draft, stored
from tests.worker.rig import Shop, until

WEIGHTS = {"big": 6, "middle": 3, "small": 1}


@pytest.fixture
async def shop(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Shop]:
    monkeypatch.setattr(fetchers, "WEIGHTS_EVERY", 0.01)
    it = Shop()
    yield it
    await it.stop()


class Line:
    """Notes the queue of each job that is started, in order."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.queues: list[str] = []

        @shop.task(name="shop.send")
        async def send() -> None:
            self.queues.append(current_job().queue)

    async def fill(self, *queues: str, each: int) -> None:
        for name in queues:
            await stored(self.shop.store.inner, *(draft(queue=name, payload=b"{}") for _ in range(each)))

    async def weigh(self, **weights: int) -> None:
        terms = {name: QueueTerms(weight=weight) for name, weight in weights.items()}
        await self.shop.store.configure(terms, "operator")

    async def after(self, jobs: int) -> Counter[str]:
        await until(lambda: len(self.queues) >= jobs, f"{jobs} jobs are not started")
        return Counter(self.queues[:jobs])

    @property
    def asked(self) -> list[int]:
        """How many quotas each claim had."""
        return [len(args[4]) if len(args) > 4 else 0 for name, args in self.shop.store.calls if name == "claim"]


@pytest.fixture
def line(shop: Shop) -> Line:
    return Line(shop)


@pytest.mark.parametrize("concurrency", [1, 10, 300])
async def test_what_is_started_is_by_weight(shop: Shop, line: Line, concurrency: int) -> None:
    await line.weigh(**WEIGHTS)
    await line.fill(*WEIGHTS, each=600)
    await shop.started(concurrency=concurrency)
    counts = await line.after(1_000)
    assert {name: counts[name] for name in WEIGHTS} == {
        name: pytest.approx(100 * weight, rel=0.1) for name, weight in WEIGHTS.items()
    }


async def test_without_weights_no_claim_has_quotas(shop: Shop, line: Line) -> None:
    await line.weigh(big=1, middle=1)
    await line.fill(*WEIGHTS, each=20)
    await shop.started()
    await line.after(60)
    assert set(line.asked) == {0}


async def test_a_worker_of_one_queue_does_not_even_look_at_weights(shop: Shop, line: Line) -> None:
    await line.weigh(**WEIGHTS)
    await line.fill(*WEIGHTS, each=20)
    await shop.started(queues=["big"])
    assert await line.after(20) == {"big": 20}
    assert set(line.asked) == {0}
    assert shop.store.times("queues") == 0


async def test_what_an_operator_says_reaches_workers_that_run(shop: Shop, line: Line) -> None:
    await shop.started(concurrency=5)
    looks = shop.store.times("queues")
    await line.weigh(**WEIGHTS)
    await until(lambda: shop.store.times("queues") > looks + 1, "it does not look again")
    await line.fill("small", "middle", "big", each=400)
    counts = await line.after(500)
    assert counts["big"] == pytest.approx(300, abs=60)


async def test_a_paused_queue_starts_nothing_until_it_is_resumed(shop: Shop, line: Line) -> None:
    await shop.store.pause("mail")
    await line.fill("mail", "pdf", each=50)
    await shop.started()
    assert await line.after(50) == {"pdf": 50}
    idle = shop.store.times("wait")
    await until(lambda: shop.store.times("wait") > idle, "it does not wait")
    claims = shop.store.times("claim")
    await until(lambda: shop.store.times("wait") > idle + 1, "it does not wait again")
    assert shop.store.times("claim") - claims <= 3, "it claims again and again what is paused"
    assert len(line.queues) == 50
    await shop.store.resume("mail")
    assert (await line.after(100))["mail"] == 50


async def test_a_queue_that_is_paused_while_it_runs_lets_that_run_go_on(shop: Shop, line: Line) -> None:
    await line.fill("mail", each=20)
    await shop.started(concurrency=1)
    await until(lambda: line.queues, "nothing is started")
    await shop.store.pause("mail")
    await until(lambda: not shop.workers[0]._slots.held, "what it has claimed does not end")  # noqa: SLF001
    started = len(line.queues)
    waits = shop.store.times("wait")
    await until(lambda: shop.store.times("wait") > waits, "it does not wait")
    assert len(line.queues) == started


async def test_strictly_one_queue_after_the_other(shop: Shop, line: Line) -> None:
    await line.fill("slow", "mail", "urgent", each=30)
    await shop.started(concurrency=4, queues=["urgent", "mail", "slow"], strict=True)
    await line.after(90)
    assert line.queues == ["urgent"] * 30 + ["mail"] * 30 + ["slow"] * 30


async def test_a_lost_reply_of_a_claim_with_quotas_starts_nothing_twice(shop: Shop, line: Line) -> None:
    await line.weigh(**WEIGHTS)
    await line.fill(*WEIGHTS, each=40)
    shop.store.drop("claim", times=3)
    await shop.started(concurrency=7)
    assert await line.after(120) == dict.fromkeys(WEIGHTS, 40)
    claims = [args for name, args in shop.store.calls if name == "claim"]
    assert all(isinstance(quota, Quota) for args in claims for quota in args[4])
