"""The laws of configure: who may declare a queue, and whose word counts."""

from collections.abc import Sequence

import pytest

from holdfast.clock import HOUR, SECOND
from holdfast.job import QueueTerms
from holdfast.store import Authority, Store
from tests.store.acts import answers, draft, elsewhere, receipt, stats_of, stored

ONE = QueueTerms(1, "reject")
TWO = QueueTerms(2, "block", 5 * SECOND)
TEN = QueueTerms(10, "drop_oldest")

Word = tuple[Authority, QueueTerms | None]


async def _say(store: Store, by: Authority, terms: QueueTerms | None) -> None:
    await store.configure({"mail": terms}, by)


@pytest.mark.parametrize(
    ("words", "counts", "edited"),
    [
        ([("producer", ONE)], ONE, False),
        ([("worker", ONE)], ONE, False),
        ([("operator", ONE)], ONE, True),
        ([("producer", ONE), ("producer", TWO)], ONE, False),
        ([("worker", ONE), ("producer", TWO)], ONE, False),
        ([("producer", ONE), ("worker", TWO)], TWO, False),
        ([("worker", ONE), ("worker", TWO)], TWO, False),
        ([("producer", ONE), ("operator", TWO)], TWO, True),
        ([("worker", ONE), ("operator", TWO), ("worker", TEN)], TWO, True),
        ([("operator", TWO), ("producer", ONE)], TWO, True),
        ([("operator", TWO), ("worker", ONE)], TWO, True),
        ([("operator", TWO), ("operator", TEN)], TEN, True),
        # what is beneath an operator's word is what code said last
        ([("worker", ONE), ("operator", TWO), ("operator", None)], ONE, False),
        ([("worker", ONE), ("operator", TWO), ("worker", TEN), ("operator", None)], TEN, False),
        ([("worker", ONE), ("operator", TWO), ("producer", TEN), ("operator", None)], ONE, False),
        ([("operator", TWO), ("producer", ONE), ("operator", None)], ONE, False),
        ([("operator", TWO), ("producer", ONE), ("producer", TEN), ("operator", None)], ONE, False),
        # None by others says nothing, and an operator's None takes back only his own
        ([("worker", ONE), ("worker", None), ("producer", None)], ONE, False),
        ([("operator", TWO), ("worker", None), ("producer", None)], TWO, True),
        ([("worker", ONE), ("operator", None)], ONE, False),
        ([("worker", ONE), ("operator", TWO), ("operator", None), ("operator", None)], ONE, False),
        # a declaration without a bound is one
        ([("producer", QueueTerms()), ("producer", ONE)], QueueTerms(), False),
        ([("worker", ONE), ("operator", QueueTerms())], QueueTerms(), True),
    ],
)
async def test_whose_word_counts(store: Store, words: Sequence[Word], counts: QueueTerms, edited: bool) -> None:
    for by, terms in words:
        await _say(store, by, terms)
        await _say(store, by, terms)  # said again it means the same
    stats = await stats_of(store)
    assert stats is not None
    assert (stats.terms, stats.edited) == (counts, edited)


@pytest.mark.parametrize(
    "words",
    [
        [("producer", None)],
        [("worker", None)],
        [("operator", None)],
        [("operator", ONE), ("operator", None)],
    ],
)
async def test_what_nobody_declares_is_no_queue(store: Store, words: Sequence[Word]) -> None:
    for by, terms in words:
        await _say(store, by, terms)
    assert await stats_of(store) is None
    assert await answers(store, [draft(), draft()]) == ["accepted", "accepted"]


async def test_a_forgotten_queue_forgets_what_it_dropped(store: Store) -> None:
    await _say(store, "operator", QueueTerms(1, "drop_newest"))
    assert await answers(store, [draft(), draft()]) == ["accepted", "dropped"]
    await _say(store, "operator", None)
    stats = await stats_of(store)
    assert stats is not None
    assert (stats.terms, stats.edited, stats.admitted, stats.dropped) == (QueueTerms(), False, None, 0)
    await _say(store, "producer", ONE)
    stats = await stats_of(store)
    assert stats is not None
    assert (stats.admitted, stats.dropped) == (1, 0)


async def test_what_was_dropped_is_counted_across_changes_of_terms(store: Store) -> None:
    await _say(store, "producer", QueueTerms(1, "drop_newest"))
    await answers(store, [draft(), draft()])
    await _say(store, "operator", QueueTerms(1, "drop_oldest"))
    await answers(store, [draft()])
    await _say(store, "worker", ONE)
    await _say(store, "operator", None)
    stats = await stats_of(store)
    assert stats is not None
    assert (stats.terms, stats.dropped) == (ONE, 2)


@pytest.mark.parametrize("by", ["producer", "worker", "operator"])
async def test_the_word_is_in_effect_at_once_and_for_twins(store: Store, by: Authority) -> None:
    await _say(store, by, ONE)

    async def enqueue(twin: Store) -> list[str]:
        return [(await receipt(twin, draft())).answer for _ in range(2)]

    assert await elsewhere(enqueue, store) == ["accepted", "full"]
    assert await answers(store, [draft()]) == ["full"]


async def test_an_operators_word_stands_against_a_starting_worker(store: Store) -> None:
    await _say(store, "worker", ONE)
    await _say(store, "operator", TEN)
    await _say(store, "worker", ONE)
    assert await answers(store, [draft(), draft()]) == ["accepted", "accepted"]


async def test_many_queues_in_one_call(store: Store) -> None:
    names = ["mail", "Mail", "naïve.1", "'; --", "slow%_*"]
    await store.configure({name: QueueTerms(n + 1, "block", None) for n, name in enumerate(names)}, by="producer")
    await store.configure({}, by="worker")
    assert {each.name: each.terms.max_size for each in (await store.stats()).queues} == {
        name: n + 1 for n, name in enumerate(names)
    }


@pytest.mark.parametrize("terms", [ONE, TWO, TEN, QueueTerms(10**9, "drop_newest", HOUR), QueueTerms(1, "block", 1)])
async def test_terms_are_kept_whole(store: Store, terms: QueueTerms) -> None:
    for by in ("producer", "operator"):
        await _say(store, by, terms)
        stats = await stats_of(store)
        assert stats is not None
        assert stats.terms == terms


async def test_a_declaration_changes_no_job(store: Store) -> None:
    await stored(store, draft(), draft())
    await _say(store, "worker", ONE)
    stats = await stats_of(store)
    assert stats is not None
    assert (stats.counts, stats.admitted, stats.dropped) == ({"queued": 2}, 2, 0)
