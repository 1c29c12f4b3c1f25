"""The laws of register and beat."""

from uuid import uuid4

import pytest

from holdfast.clock import HOUR
from holdfast.store import LEASE, Beat, Registered, Store
from tests.store.acts import Hand, draft, hand, now, stored


async def test_register_tells_the_lease_and_the_stores_time(store: Store) -> None:
    store.shift = 4321
    supervisor = uuid4()
    assert await store.register(supervisor, None, {}) == Registered(LEASE, await now(store))
    facts = {"host": "naïve", "pid": 7, "queues": ["a"], "started": None}
    assert await store.register(uuid4(), supervisor, facts) == Registered(LEASE, await now(store))


async def test_a_registered_worker_has_a_live_lease_for_its_length(store: Store) -> None:
    worker = await hand(store)
    store.shift += LEASE - 1
    assert await worker.refusal() is None
    store.shift += 1
    assert await worker.refusal() == "expired"


async def test_registering_again_is_a_beat(store: Store) -> None:
    worker = await hand(store)
    store.shift += LEASE // 2
    await store.register(worker.id, None, {})
    store.shift += LEASE - 1
    assert await worker.refusal() is None


async def test_registering_again_keeps_the_tickets(store: Store) -> None:
    await stored(store, draft(), draft())
    worker = await hand(store)
    first = await worker.take()
    await store.register(worker.id, None, {})
    assert list((await store.claim(worker.id, 1, None, 1)).jobs) == [first]
    assert len((await store.claim(worker.id, 2, None, 1)).jobs) == 1


async def test_registering_again_does_not_revive_a_retired_worker(store: Store) -> None:
    worker = await hand(store)
    await worker.retire()
    assert await store.register(worker.id, None, {}) == Registered(LEASE, await now(store))
    assert await worker.refusal() == "gone"
    assert not await worker.beat()


async def test_a_beat_tells_the_lease_and_the_stores_time(store: Store) -> None:
    worker = await hand(store)
    store.shift += 100
    assert await store.beat([worker.id]) == Beat(LEASE, await now(store), frozenset())


@pytest.mark.parametrize("after", [0, 1, LEASE // 2, LEASE - 1])
async def test_a_beat_renews_the_lease_from_now(store: Store, after: int) -> None:
    worker = await hand(store)
    store.shift += after
    assert await worker.beat()
    store.shift += LEASE - 1
    assert await worker.refusal() is None
    store.shift += 1
    assert await worker.refusal() == "expired"


@pytest.mark.parametrize("after", [LEASE, 10 * LEASE, 10 * HOUR])
async def test_a_lease_that_ran_out_revives(store: Store, after: int) -> None:
    await stored(store, draft(), draft())
    worker = await hand(store)
    held = await worker.take()
    store.shift += after
    assert await worker.beat()
    assert list((await store.claim(worker.id, 1, None, 1)).jobs) == [held]
    assert len(await worker.claim()) == 1


async def test_one_beat_renews_many_and_names_the_gone(store: Store) -> None:
    one, two, silent, retired = [await hand(store) for _ in range(4)]
    unknown = uuid4()
    await retired.retire()
    store.shift += LEASE - 1
    beat = await store.beat([one.id, unknown, retired.id, two.id])
    assert beat.gone == {unknown, retired.id}
    store.shift += 1
    assert [await worker.refusal() for worker in (one, two, silent, retired)] == [
        None,
        None,
        "expired",
        "gone",
    ]


async def test_a_beat_for_nobody_tells_the_time(store: Store) -> None:
    start = (await store.beat([])).now
    store.shift += 9
    assert await store.beat([]) == Beat(LEASE, start + 9, frozenset())


async def test_a_beat_does_not_register(store: Store) -> None:
    stranger = Hand(store)
    assert not await stranger.beat()
    assert await stranger.refusal() == "gone"


async def test_after_the_clock_stepped_back_a_beat_sets_the_lease_from_now(store: Store) -> None:
    worker = await hand(store)
    store.shift -= HOUR
    assert await worker.beat()
    store.shift += LEASE
    assert await worker.refusal() == "expired"
