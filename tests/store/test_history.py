"""The laws of the history of each minute: what is reported is added once, and is there for as long as it is kept."""

from uuid import uuid4

import pytest

from holdfast.clock import DAY, HOUR, MINUTE
from holdfast.store import BUCKETS, MINUTES_KEPT, TENS_KEPT, Level, Minutes, Store, Tally
from tests.store.acts import elsewhere, hand, now


def _buckets(*numbers: int) -> tuple[int, ...]:
    return (*numbers, *[0] * (BUCKETS - len(numbers)))


def _tally(count: int = 1, queue: str = "mail", task: str = "shop.send", outcome: str = "succeeded") -> Tally:
    return Tally(queue, task, outcome, count, _buckets(count, 2), _buckets(0, count))


async def _all(store: Store, *, tens: bool = False) -> list[Minutes]:
    steps = await store.history(0, await now(store) + 100 * DAY, tens=tens)
    return [Minutes(step.start, list(step.tallies), list(step.levels)) for step in steps]


async def test_what_is_reported_adds_up_in_its_minute_and_its_ten_minutes(store: Store) -> None:
    store.shift = -(await now(store) % (10 * MINUTE)) + 9 * MINUTE + 59_999
    at = await now(store)
    one, two = await hand(store), await hand(store)
    assert await store.record(one.id, 1, [_tally(3), _tally(1, outcome="dead")], [Level("mail", 5, 9)]) == 1
    assert await store.record(two.id, 7, [_tally(4), _tally(1, "a")], [Level("mail", 2, 70), Level("b", 1, 0)]) == 7
    store.shift += 1
    assert await store.record(one.id, 2, [_tally(1)]) == 2
    both = Tally("mail", "shop.send", "succeeded", 7, _buckets(7, 4), _buckets(0, 7))
    first = Minutes(
        at // MINUTE * MINUTE,
        [_tally(1, "a"), _tally(1, outcome="dead"), both],
        [Level("b", 1, 0), Level("mail", 5, 70)],
    )
    second = Minutes(at + 1, [_tally(1)], [])
    assert await _all(store) == [first, second]
    assert await _all(store, tens=True) == [first._replace(start=at // (10 * MINUTE) * 10 * MINUTE), second]
    for since, before, steps in [(first.start, second.start, [first]), (first.start + 1, at + MINUTE, [second])]:
        shown = await elsewhere(lambda twin, since=since, before=before: twin.history(since, before), store)  # type: ignore[misc]
        assert [Minutes(step.start, list(step.tallies), list(step.levels)) for step in shown] == steps
    assert list(await store.history(second.start + 1, at + HOUR)) == []


async def test_a_repeat_adds_nothing(store: Store) -> None:
    worker = await hand(store)
    assert await store.record(worker.id, 5, [_tally(1)], [Level("mail", 1, 1)]) == 5
    for number in (5, 4, 0, -1):
        assert await store.record(worker.id, number, [_tally(100)], [Level("mail", 100, 100)]) == 5
    assert await store.record(worker.id, 6, []) == 6
    assert await store.record(worker.id, 6, [_tally(100)]) == 6
    await store.register(worker.id, None, {})
    await worker.beat()
    assert await store.record(worker.id, 6, [_tally(100)]) == 6
    [step] = await _all(store)
    assert (list(step.tallies), list(step.levels)) == ([_tally(1)], [Level("mail", 1, 1)])


async def test_who_is_unknown_or_retired_reports_nothing(store: Store) -> None:
    worker = await hand(store)
    await store.record(worker.id, 1, [_tally(1)])
    await worker.retire()
    for reporter in (worker.id, uuid4()):
        assert await store.record(reporter, 2, [_tally(1)], [Level("mail", 1, 1)]) == 0
    [step] = await _all(store)
    assert list(step.tallies) == [_tally(1)]


async def test_an_expired_lease_is_no_reason_to_refuse_a_report(store: Store) -> None:
    worker = await hand(store)
    store.shift += HOUR
    assert await store.record(worker.id, 1, [_tally(1)]) == 1


@pytest.mark.parametrize(("tens", "kept"), [(False, MINUTES_KEPT), (True, TENS_KEPT)])
async def test_prune_drops_what_is_older_than_is_kept(store: Store, tens: bool, kept: int) -> None:
    worker = await hand(store)
    await store.record(worker.id, 1, [_tally(1)], [Level("mail", 1, 1)])
    store.shift += kept - 1
    await store.prune(10)
    assert len(await _all(store, tens=tens)) == 1
    fresh = await hand(store)
    await store.record(fresh.id, 1, [_tally(2)])
    store.shift += 10 * MINUTE + 1
    await store.prune(10)
    [step] = await _all(store, tens=tens)
    assert list(step.tallies) == [_tally(2)]


async def test_names_may_hold_anything_and_lists_may_be_long(store: Store) -> None:
    worker = await hand(store)
    tallies = [_tally(n + 1, queue="näïve: 'q' \t|", task=f"shop.{n:03}\U0001f980") for n in range(200)]
    assert await store.record(worker.id, 1, tallies, [Level("{näïve}", 2**40, 2**40)]) == 1
    [step] = await _all(store)
    assert (list(step.tallies), list(step.levels)) == (tallies, [Level("{näïve}", 2**40, 2**40)])
