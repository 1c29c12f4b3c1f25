"""Weights on each store: what a worker starts by its shares is 6/3/1, and what is paused takes no part in it."""

from collections import Counter
from collections.abc import Sequence
from itertools import cycle

import pytest

from holdfast.job import QueueTerms, Succeeded
from holdfast.policy import decide
from holdfast.store import Store
from holdfast.worker.shares import Shares, Strict
from tests.store.acts import Hand, draft, hand, stored

WEIGHTS = {"big": 6, "middle": 3, "small": 1}


async def _weighed(store: Store, served: Sequence[str] | None = None) -> Shares:
    await store.configure({name: QueueTerms(weight=weight) for name, weight in WEIGHTS.items()}, by="worker")
    shares = Shares(served)
    shares.weigh(await store.queues())
    assert shares.used
    return shares


async def _fill(store: Store, jobs: int) -> None:
    """As many jobs in each queue as `jobs` that are started by weight could take."""
    total = sum(WEIGHTS.values())
    for name, weight in WEIGHTS.items():
        await stored(store, *(draft(queue=name) for _ in range(jobs * weight // total + jobs // 10)))


async def _started(worker: Hand, shares: Shares | Strict, jobs: int, limits: Sequence[int]) -> list[str]:
    """The queues of what a worker starts, and ends at once, that has so much room each time."""
    queues: list[str] = []
    for limit in cycle(limits):
        quotas = shares.quotas(limit)
        claims = shares.took(limit, quotas, await worker.claim(limit, None, quotas))
        assert claims, f"nothing was claimed after {len(queues)} jobs"
        await worker.store.finish([decide(claim, Succeeded(b"1")) for claim in claims])
        queues += [claim.queue for claim in claims]
        if len(queues) >= jobs:
            break
    return queues


def _assert_by_weight(queues: Sequence[str], within: float = 0.05) -> None:
    counts, total = Counter(queues), sum(WEIGHTS.values())
    for name, weight in WEIGHTS.items():
        assert counts[name] == pytest.approx(len(queues) * weight / total, rel=within), counts


@pytest.mark.parametrize("served", [None, tuple(WEIGHTS)], ids=["every queue", "named queues"])
async def test_what_is_started_is_by_weight(store: Store, served: Sequence[str] | None) -> None:
    shares = await _weighed(store, served)
    await _fill(store, 600)
    queues = await _started(await hand(store), shares, 600, [1, 7, 40, 10, 64])
    _assert_by_weight(queues)
    for at in range(0, 500, 50):
        assert queues[at : at + 100].count("small") >= 6, f"nearly nothing of it between {at} and {at + 100}"


async def test_ten_thousand_jobs_are_started_by_weight(store: Store) -> None:
    shares = await _weighed(store)
    await _fill(store, 10_000)
    queues = await _started(await hand(store), shares, 10_000, [100, 3, 250, 10])
    _assert_by_weight(queues)
    for at in range(0, 10_000, 1_000):
        _assert_by_weight(queues[at : at + 1_000], within=0.15)


async def test_several_workers_together_start_by_weight(store: Store) -> None:
    await _fill(store, 400)
    queues: list[str] = []
    crew = [(await hand(store), await _weighed(store)) for _ in range(3)]
    for worker, shares in crew * 10:
        queues += await _started(worker, shares, 12, [5, 1, 6])
    _assert_by_weight(queues, within=0.1)


async def test_the_share_of_a_queue_that_is_paused_goes_to_the_others_until_it_is_resumed(store: Store) -> None:
    shares, worker = await _weighed(store), await hand(store)
    await _fill(store, 600)
    await store.pause("big", reason="the provider is down")
    counts = Counter(await _started(worker, shares, 120, [10]))
    assert counts["big"] == 0
    assert counts["middle"] == pytest.approx(3 * counts["small"], rel=0.35)
    assert await store.resume("big")
    assert Counter(await _started(worker, shares, 60, [10]))["big"] == pytest.approx(36, abs=4)


async def test_strictly_a_queue_waits_for_those_before_it(store: Store) -> None:
    await stored(store, *(draft(queue=name) for name in ("small", "middle", "big") for _ in range(15)))
    worker, strict = await hand(store), Strict(["big", "middle", "small"])
    queues: list[str] = []
    for limit in (7, 7, 7, 7, 7, 7, 7):
        quotas = strict.quotas(limit)
        claims = await worker.claim(limit, ["big", "middle", "small"], quotas)
        queues += [claim.queue for claim in strict.took(limit, quotas, claims)]
    assert queues == ["big"] * 15 + ["middle"] * 15 + ["small"] * 15
