"""Ticks on PostgreSQL beside transactions that are open elsewhere: nobody waits for a stranger, and nothing is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from holdfast.clock import MINUTE
from holdfast.job import Draft, Pause
from holdfast.store import Entry, Store, Tally, Tick
from tests.servers.places import Database
from tests.store.acts import bound, draft, hand, keyed, listing, now
from tests.stores.strangers import opened, stranger, through_the_door

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]


@pytest.fixture
async def store(postgres: Database) -> AsyncIterator[Store]:
    async with opened(postgres) as store:
        yield store


async def made(store: Store, name: str = "nightly") -> Entry:
    """An entry that is stored, due now."""
    assert list(await store.schedule([Entry(name, "mail", "{}", await now(store))])) == [True]
    [entry] = (await store.schedules([name])).entries
    return entry


def tick_of(entry: Entry, job: Draft | None) -> Tick:
    assert entry.next_at is not None
    return Tick(entry.name, entry.queue, entry.revision, entry.next_at, entry.next_at, entry.next_at + MINUTE, job)


async def test_a_tick_whose_key_a_stranger_decides_on_is_left_for_later(store: Store, postgres: Database) -> None:
    entry = await made(store)
    tick = tick_of(entry, keyed(queue="mail"))
    assert tick.draft is not None
    assert tick.draft.unique is not None
    async with stranger(postgres) as other:
        await through_the_door(other, {"task": "a", "queue": "mail", "unique": tick.draft.unique.text})
        assert list(await store.tick([tick])) == [None]
        assert list((await store.schedules()).entries) == [entry], "nothing is written"
        await other.rollback()
    [ticked] = await store.tick([tick])
    assert ticked is not None
    assert ticked.outcome == "made"


async def test_a_tick_whose_queues_row_a_stranger_has_is_left_for_later(store: Store, postgres: Database) -> None:
    await bound(store, 5)
    entry = await made(store)
    tick = tick_of(entry, draft(queue="mail"))
    async with stranger(postgres) as other:
        await other.execute("SELECT 1 FROM holdfast_queues FOR UPDATE")
        assert list(await store.tick([tick])) == [None]
        await other.rollback()
    [ticked] = await store.tick([tick])
    assert ticked is not None
    assert await listing(store)


async def test_a_schedule_that_another_settles_just_now_is_not_waited_for(store: Store, postgres: Database) -> None:
    entry, other_entry = await made(store), await made(store, "hourly")
    async with stranger(postgres) as other:
        await other.execute("SELECT 1 FROM holdfast_schedules WHERE name = 'nightly' FOR UPDATE")
        ticked = await store.tick([tick_of(entry, draft()), tick_of(other_entry, draft())])
        assert [each and each.outcome for each in ticked] == [None, "made"]


async def test_what_is_read_is_what_stands_there_whoever_wrote_it(store: Store, postgres: Database) -> None:
    """A pause that is over, of an entry and of a queue, holds nobody up."""
    entry = await made(store)
    over = Pause(entry.next_at or 0, (entry.next_at or 0) + 1, "a deploy")
    assert list(await store.schedule([entry._replace(pause=over)])) == [True]
    store.shift += 1000
    assert [each.name for each in (await store.due(10)).entries] == ["nightly"]
    [read] = (await store.schedules()).entries
    assert (await store.tick([tick_of(read, draft())]))[0] is not None


async def test_many_who_report_at_once_add_up(store: Store, postgres: Database) -> None:
    hands = [await hand(store) for _ in range(5)]
    some = [Tally(queue, "t", "succeeded", 1, (1,) * 12, (2,) * 12) for queue in ("b", "a", "c", "a")]

    async def report(number: int, reporter: int) -> None:
        async with opened(postgres) as other:
            tallies = some if reporter % 2 else some[::-1]
            assert await other.record(hands[reporter].id, number, tallies) == number

    for number in (1, 2):
        await asyncio.gather(*(report(number, reporter) for reporter in range(5)))
    at = await now(store)
    counted = [tally for minute in await store.history(0, at + MINUTE) for tally in minute.tallies]
    assert {queue: sum(each.count for each in counted if each.queue == queue) for queue in "abc"} == {
        "a": 20,
        "b": 10,
        "c": 10,
    }
    assert sum(each.ran[11] for each in counted) == 40
