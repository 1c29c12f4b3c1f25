"""The laws of workers: what is known of each worker's life, for people."""

from uuid import uuid4

from holdfast.clock import HOUR, MINUTE
from holdfast.store import LEASE, Roster, Store, WorkerRow
from tests.store.acts import elsewhere, hand, keep_beating, now, running

FACTS = {"host": "naïve", "pid": 7, "queues": ["a", "b"], "tasks": [], "started": None, "deep": {"x": 1.5}}


async def test_every_worker_is_shown_as_it_was_registered_and_as_it_beats(store: Store) -> None:
    assert list((await store.workers()).workers) == []
    supervisor = uuid4()
    at = await now(store)
    ids = sorted([uuid4(), uuid4(), supervisor])
    for each in ids:
        await store.register(each, None if each == supervisor else supervisor, FACTS)
    store.shift += LEASE // 3
    await store.beat([supervisor])
    roster = await elsewhere(lambda twin: twin.workers(), store)
    assert roster == Roster(
        at + LEASE // 3,
        [
            WorkerRow(
                each,
                None if each == supervisor else supervisor,
                FACTS,
                beat_at=at + (LEASE // 3 if each == supervisor else 0),
                steady_since=at,
                lease_until=at + LEASE + (LEASE // 3 if each == supervisor else 0),
                retired_at=None,
            )
            for each in ids
        ],
    )


async def test_a_silent_one_and_a_retired_one_are_shown_until_they_are_pruned(store: Store) -> None:
    silent, retired, well = [await hand(store) for _ in range(3)]
    await running(store, silent)
    store.shift += MINUTE
    at = await now(store)
    await retired.retire()
    await keep_beating([well], LEASE)
    rows = {row.id: row for row in (await store.workers()).workers}
    assert rows.keys() == {silent.id, retired.id, well.id}
    assert (rows[silent.id].retired_at, rows[silent.id].lease_until) == (None, at - MINUTE + LEASE)
    assert (rows[retired.id].retired_at, rows[retired.id].lease_until) == (at, at)
    assert rows[well.id].beat_at == await now(store)
    assert rows[well.id].steady_since == at + LEASE // 3, "it was away for a minute"
    store.shift += HOUR
    await store.prune(10)
    assert {row.id for row in (await store.workers()).workers} == {silent.id, well.id}
