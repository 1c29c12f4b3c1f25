"""Ticks on PostgreSQL beside transactions that are open elsewhere: nobody waits for a stranger, and nothing is lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from holdfast.clock import MINUTE
from holdfast.job import Draft, Pause
from holdfast.store import Entry, Store, Tally, Tick
from holdfast.stores.postgres import limits
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


async def test_ticks_that_cannot_be_read_are_in_no_schedules_way(store: Store, postgres: Database) -> None:
    entry = await made(store)
    await made(store, "sound")
    async with stranger(postgres) as other:
        for text in ('{"x": 1}', "5", "[1]", '[[1, 2, "made", "no id", "", 1]]', '[[1, 2, "lost", null, "", 1]]'):
            await other.execute("UPDATE holdfast_schedules SET ticks = %s WHERE name = 'nightly'", [text])
            await other.commit()
            assert [(each.name, each.ticks) for each in (await store.schedules()).entries] == [
                ("nightly", ()),
                ("sound", ()),
            ]
            assert len((await store.due(9)).entries) == 2
    [ticked] = await store.tick([tick_of(entry, draft())])
    assert [list(each.ticks) for each in (await store.schedules(["nightly"])).entries] == [[ticked]]


async def test_one_stranger_is_waited_for_once_by_all_the_ticks_of_a_call(
    store: Store, postgres: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else one open transaction holds up the schedules behind those that need what it has."""
    monkeypatch.setattr(limits, "ENQUEUE", 1000)
    entries = [await made(store, f"s{n}") for n in range(5)]
    ticks = [tick_of(entry, keyed(queue="mail", text="theirs")) for entry in entries[:4]] + [
        tick_of(entries[4], draft())
    ]
    async with stranger(postgres) as other:
        await through_the_door(other, {"task": "a", "queue": "mail", "unique": "theirs"})
        begun = time.monotonic()
        ticked = await store.tick(ticks)
        took = time.monotonic() - begun
        assert [each and each.outcome for each in ticked] == [None] * 4 + ["made"]
        assert took > 0.9, "nobody waited for the stranger at all"
        begun = time.monotonic()
        await store.tick(ticks[:1])
        assert took < 3 * (time.monotonic() - begun), "each of the four has waited as long as one alone does"


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
