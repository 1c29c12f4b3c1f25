"""Shares: whatever a worker has room for, what it starts of each queue that has jobs follows the queues' weights."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.job import Claim, Pause, QueueTerms
from holdfast.store import QueueSetup, Quota
from holdfast.worker.shares import PROBES_MOST, Shares, Strict
from tests.worker.rig import claim

WEIGHTS = {"big": 6, "middle": 3, "small": 1}
PLENTY = 1_000_000


def setups(weights: Mapping[str, int]) -> list[QueueSetup]:
    return [QueueSetup(name, QueueTerms(weight=weight), False, None) for name, weight in weights.items()]


class Shelf:
    """A store's claim, by the law of the seam: quotas first, then the queue that was served longest ago."""

    def __init__(self, jobs: Mapping[str, int], served: Sequence[str] | None = None) -> None:
        self.served = served
        self._left = dict(jobs)
        self._jobs: dict[str, Claim] = {}
        self.asked: list[Sequence[Quota]] = []

    def add(self, queue: str, jobs: int) -> None:
        self._left[queue] = self._left.get(queue, 0) + jobs

    def claim(self, limit: int, quotas: Sequence[Quota]) -> list[Claim]:
        self.asked.append(quotas)
        taken: list[Claim] = []
        for name, most in quotas:
            taken += self._head(name, min(most, limit - len(taken)))
        for name in [name for name in self._left if self.served is None or name in self.served]:
            taken += self._head(name, limit - len(taken))
        return taken

    def _head(self, name: str, most: int) -> list[Claim]:
        if most <= 0 or name not in self._left:
            return []
        left = self._left.pop(name)
        count = min(left, most)
        if left > count:
            self._left[name] = left - count
        return [self._jobs.setdefault(name, claim(queue=name))] * count


def started(shares: Shares | Strict, store: Shelf, jobs: int, limits: Iterable[int]) -> list[str]:
    """The queues of the next jobs that a worker starts which claims by these limits."""
    queues: list[str] = []
    for limit in limits:
        quotas = shares.quotas(limit)
        queues += [one.queue for one in shares.took(limit, quotas, store.claim(limit, quotas))]
        if len(queues) >= jobs:
            break
    return queues


def weighed(weights: Mapping[str, int] = WEIGHTS, served: Sequence[str] | None = None) -> Shares:
    shares = Shares(served)
    shares.weigh(setups(weights))
    return shares


def off(queues: Sequence[str], weights: Mapping[str, int], window: int) -> float:
    """How many jobs of a window some queue is off its share, at the worst."""
    total = sum(weights.values())
    return max(
        abs(queues[at : at + window].count(name) - window * weight / total)
        for at in range(0, len(queues) - window, max(1, window // 3))
        for name, weight in weights.items()
    )


@pytest.mark.parametrize("served", [None, ("big", "middle", "small")])
@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 64, 500])
def test_six_three_one_is_just_that_over_any_window(limit: int, served: Sequence[str] | None) -> None:
    queues = started(weighed(served=served), Shelf(dict.fromkeys(WEIGHTS, PLENTY), served), 3_000, cycle([limit]))
    assert off(queues, WEIGHTS, 20) <= 4
    assert off(queues, WEIGHTS, 100) <= 4
    assert off(queues, WEIGHTS, 1_000) <= 6


def test_room_that_changes_all_the_time_changes_nothing() -> None:
    limits = cycle([1, 500, 2, 3, 40, 1, 1, 9])
    queues = started(weighed(), Shelf(dict.fromkeys(WEIGHTS, PLENTY)), 6_000, limits)
    assert off(queues, WEIGHTS, 100) <= 4


@pytest.mark.parametrize("limit", [1, 8])
@pytest.mark.parametrize(
    "weights",
    [
        {"heavy": 1_000, "light": 5, "least": 1},
        {**{f"heavy{n}": 100 for n in range(11)}, "light": 1},
        {**{f"many{n}": 10 for n in range(120)}, "light": 1, "lighter": 2},
    ],
    ids=["one heavy", "eleven heavy", "many"],
)
def test_none_starves_however_large_the_weights_are(weights: dict[str, int], limit: int) -> None:
    """Also where the sum of the weights is beyond AHEAD_MOST."""
    window = 4 * sum(weights.values())
    counts = Counter(started(weighed(weights), Shelf(dict.fromkeys(weights, PLENTY)), window, cycle([limit])))
    for name, weight in weights.items():
        assert abs(counts[name] - 4 * weight) <= limit + 1, name


@pytest.mark.parametrize("limit", [1, 2, 4, 10, 500])
@pytest.mark.parametrize("missing", WEIGHTS)
def test_an_empty_queues_share_goes_to_the_others_by_their_weights(limit: int, missing: str) -> None:
    others = {name: weight for name, weight in WEIGHTS.items() if name != missing}
    queues = started(weighed(), Shelf(dict.fromkeys(others, PLENTY)), 5 * limit + 2_000, cycle([limit]))
    assert off(queues[5 * limit :], others, 100) <= 4
    assert off(queues, others, 1_000) <= limit, "the first claim cannot know yet that a queue is empty"


@pytest.mark.parametrize("limit", [1, 4, 10, 500])
def test_an_empty_queue_saves_nothing_up_and_has_its_share_again_at_once(limit: int) -> None:
    shares, store = weighed(), Shelf({"middle": PLENTY, "small": PLENTY})
    started(shares, store, 3_000, cycle([limit]))
    store.add("big", PLENTY)
    queues = started(shares, store, 1_000, cycle([limit]))
    assert queues[:20].count("big") >= 10, "it waits for a share that it has from the first job on"
    assert off(queues, WEIGHTS, 100) <= 5 + limit / 8, "one claim may come short for others by what it had not known of"


def test_who_had_the_worker_alone_owes_nothing_for_it() -> None:
    shares, store = weighed(), Shelf({"small": PLENTY})
    started(shares, store, 5_000, cycle([10]))
    for name in ("big", "middle"):
        store.add(name, PLENTY)
    queues = started(shares, store, 1_000, cycle([10]))
    assert off(queues[20:], WEIGHTS, 100) <= 5


def test_a_light_load_leaves_no_debts() -> None:
    shares, store = weighed(), Shelf({})
    for _ in range(1_000):
        store.add("big", 3)
        assert len(started(shares, store, 1, [10])) == 3
    for name in WEIGHTS:
        store.add(name, PLENTY)
    assert off(started(shares, store, 1_000, cycle([10])), WEIGHTS, 100) <= 4


def test_a_queue_that_has_a_job_now_and_then_gets_no_more_than_its_share() -> None:
    shares, store = weighed(), Shelf({"big": PLENTY, "middle": PLENTY})
    queues: list[str] = []
    for turn in range(5_000):
        if turn % 5 == 0:
            store.add("small", 1)
        queues += started(shares, store, 1, [1])
    assert Counter(queues) == {"big": 3_000, "middle": 1_500, "small": 500}


@pytest.mark.parametrize("limit", [1, 10, 500])
def test_queues_that_nobody_declared_weigh_one(limit: int) -> None:
    others = [f"new-{n}" for n in range(5)]
    store = Shelf(dict.fromkeys([*WEIGHTS, *others], PLENTY))
    shares = weighed()
    started(shares, store, 20 * limit + 300, cycle([limit]))  # until it has met them all
    queues = started(shares, store, 5_000, cycle([limit]))
    assert off(queues, WEIGHTS | dict.fromkeys(others, 1), 1_000) <= 10


def test_it_asks_for_few_queues_at_a_time_however_many_are_declared() -> None:
    weights = {f"queue-{n}": 1 + n % 7 for n in range(500)}
    busy = {name: weights[name] for name in ("queue-6", "queue-5", "queue-0", "queue-13", "queue-20")}
    shares, store = weighed(weights), Shelf(dict.fromkeys(busy, PLENTY))
    started(shares, store, 3_000, cycle([10]))
    store.asked.clear()
    queues = started(shares, store, 3_000, cycle([10]))
    assert max(len(quotas) for quotas in store.asked) <= PROBES_MOST + len(busy)
    assert off(queues, busy, 300) <= 5
    named = {quota.queue for quotas in store.asked for quota in quotas}
    assert len(named) == 500, "a queue that got jobs meanwhile would never be asked for"


def test_it_asks_for_no_more_of_those_that_have_jobs_than_it_could_need() -> None:
    weights = {f"queue-{n}": 1 + n % 7 for n in range(200)}
    shares, store = weighed(weights), Shelf(dict.fromkeys(weights, PLENTY))
    queues = started(shares, store, 4_000, cycle([4]))
    assert max(len(quotas) for quotas in store.asked) <= 8
    assert set(queues[:800]) == set(weights)
    assert off(queues[800:], weights, 3_000) <= 6


def test_who_had_too_much_is_not_put_off_for_ever() -> None:
    """Where a claim finds that others are empty, it fills its room from whatever queue there is."""
    weights = {"heavy": 1000, "gone": 1000, "light": 1}
    shares, store = weighed(weights, [*weights]), Shelf({"heavy": PLENTY, "light": PLENTY}, [*weights])
    shares.took(500, shares.quotas(500), [claim(queue="heavy")] * 250 + [claim(queue="light")] * 250)
    assert "light" in started(shares, store, 3_000, cycle([10]))


def test_weights_that_are_alike_cost_nothing() -> None:
    for shares in (weighed({}), weighed({"mail": 1, "pdf": 1}), weighed({"mail": 7}, ["mail"])):
        assert not shares.used
    assert weighed({"mail": 7}, ["mail", "pdf"]).used
    assert not weighed({"mail": 7}, ["pdf", "slow"]).used, "the weights of queues that it does not serve"


def test_what_an_operator_changes_counts_from_the_next_claim_on() -> None:
    shares, store = weighed(), Shelf(dict.fromkeys(WEIGHTS, PLENTY))
    started(shares, store, 1_000, cycle([10]))
    changed = {"big": 1, "middle": 3, "small": 6}
    shares.weigh(setups(changed))
    assert off(started(shares, store, 1_000, cycle([10])), changed, 100) <= 4
    shares.weigh(setups(dict.fromkeys(WEIGHTS, 1)))
    assert not shares.used
    shares.weigh(setups(WEIGHTS))
    assert off(started(shares, store, 1_000, cycle([10])), WEIGHTS, 100) <= 4


def test_a_paused_queue_is_an_empty_one() -> None:
    shares = Shares()
    shares.weigh([*setups({"big": 6, "small": 1}), QueueSetup("idle", QueueTerms(weight=50), False, Pause(0))])
    queues = started(shares, Shelf({"big": PLENTY, "small": PLENTY}), 1_000, cycle([10]))
    assert off(queues[10:], {"big": 6, "small": 1}, 70) <= 4


def test_weights_that_are_read_anew_while_a_claim_is_under_way_do_no_harm() -> None:
    shares, store = weighed(), Shelf({"big": 5})
    quotas = shares.quotas(10)
    shares.weigh(setups({"other": 2}))
    assert len(shares.took(10, quotas, store.claim(10, quotas))) == 5


# --- strictly


def test_strictly_the_first_queue_with_jobs_comes_first() -> None:
    strict, store = (
        Strict(["urgent", "mail", "slow"]),
        Shelf({"slow": 9, "mail": 3, "urgent": 2}, ["urgent", "mail", "slow"]),
    )
    assert started(strict, store, 14, cycle([4])) == ["urgent"] * 2 + ["mail"] * 3 + ["slow"] * 9
    store.add("slow", 5)
    store.add("urgent", 3)
    assert started(strict, store, 1, [1]) == ["urgent"]
    assert started(strict, store, 1, [4]) == ["urgent", "urgent", "slow", "slow"]


# --- any weights, any room


@settings(max_examples=25, deadline=None)
@given(
    weights=st.lists(st.integers(1, 1000), min_size=2, max_size=6),
    limits=st.lists(st.integers(1, 500), min_size=1, max_size=5),
)
def test_queues_that_always_have_jobs_never_part_by_more_than_a_few_jobs(weights: list[int], limits: list[int]) -> None:
    named = {f"queue-{n}": weight for n, weight in enumerate(weights)}
    if len(set(weights)) == 1:
        named["queue-0"] += 1
    shares, store = weighed(named, list(named)), Shelf(dict.fromkeys(named, PLENTY), list(named))
    so_far = dict.fromkeys(named, 0)
    for queue in started(shares, store, 500, cycle(limits)):
        so_far[queue] += 1
        served = {name: count / named[name] for name, count in so_far.items()}
        first, last = max(served, key=served.__getitem__), min(served, key=served.__getitem__)
        assert served[first] - served[last] <= 2 / named[first] + (len(named) + 1) / named[last]


@settings(max_examples=25, deadline=None)
@given(
    weights=st.lists(st.integers(1, 50), min_size=2, max_size=5),
    served=st.booleans(),
    turns=st.lists(st.tuples(st.integers(1, 40), st.lists(st.integers(0, 30), min_size=5, max_size=5)), max_size=60),
)
def test_whatever_comes_and_goes_each_claim_fills_its_room_if_there_are_jobs(
    weights: list[int], served: bool, turns: list[tuple[int, list[int]]]
) -> None:
    named = {f"queue-{n}": weight for n, weight in enumerate(weights)} | {"queue-0": 60}
    names = list(named) if served else None
    shares, store, left = weighed(named, names), Shelf({}, names), Counter[str]()
    for limit, arrivals in turns:
        for name, jobs in zip(named, arrivals, strict=False):
            store.add(name, jobs)
            left[name] += jobs
        quotas = shares.quotas(limit)
        claims = store.claim(limit, quotas)
        woven = shares.took(limit, quotas, claims)
        assert len(claims) == min(limit, left.total())
        assert Counter(id(one) for one in woven) == Counter(id(one) for one in claims)
        assert all(0 < quota.most <= limit for quota in quotas)
        left.subtract(Counter(one.queue for one in claims))
