"""Schedules on Redis: the registry knows where each is, the queue's slot has it; who dies between is made up for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis import Redis

from holdfast.clock import MINUTE
from holdfast.errors import StoreAway
from holdfast.store import Entry, Store, Tick, Ticked
from holdfast.stores import open_store
from holdfast.stores.redis.lane import Lane
from tests import servers
from tests.servers.prefixes import Prefix
from tests.store.acts import draft, listing, now
from tests.store.backends import STANDS_STILL

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

Change = Callable[[Store], Awaitable[Any]]


@pytest.fixture
def prefix() -> Iterator[Prefix]:
    with servers.valkey().bare() as prefix:
        yield prefix


@asynccontextmanager
async def process(prefix: Prefix) -> AsyncIterator[Store]:
    """The store as one more process has it: it shares no memory with the others. Its time stands still."""
    store = open_store(prefix.url)
    store._place.clock = STANDS_STILL  # type: ignore[attr-defined]  # noqa: SLF001
    await store.open()
    try:
        yield store
    finally:
        await store.close()


def kept(prefix: Prefix) -> set[str]:
    """The keys that schedules have, without the prefix."""
    with Redis.from_url(prefix.server, decode_responses=True) as redis:
        names = [key for what in ("schedule", "tick") for key in redis.scan_iter(f"{{{prefix.name}[:}}]*{what}*")]
        return {name.removeprefix(f"{{{prefix.name}") for name in names}


async def _made(store: Store, queue: str = "mail") -> Entry:
    assert list(await store.schedule([Entry("nightly", queue, "{}", await now(store))])) == [True]
    [entry] = (await store.schedules(["nightly"])).entries
    return entry


async def _ticked(store: Store, entry: Entry) -> Ticked | None:
    due = entry.next_at or 0
    tick = Tick(entry.name, entry.queue, entry.revision, due, due, due + MINUTE, draft(queue=entry.queue))
    [ticked] = await store.tick([tick])
    return ticked


async def _dies_after(steps: int, store: Store, change: Change, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the change was cut off, after so many of its scripts."""
    script, asked = Lane.script, 0

    async def and_die(lane: Lane, name: str, *words: Any) -> Any:
        nonlocal asked
        if asked == steps:
            raise StoreAway("the process is gone")
        asked += name != "queues"  # which only looks at the time
        return await script(lane, name, *words)

    with monkeypatch.context() as patched:
        patched.setattr(Lane, "script", and_die)
        try:
            await change(store)
        except StoreAway:
            return True
    return False


@pytest.mark.parametrize("reader", ["schedules", "due"])
async def test_a_move_that_was_cut_off_anywhere_is_ended_by_who_meets_it(
    prefix: Prefix, reader: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps, cut = 0, True
    while cut:
        async with process(prefix) as mover, process(prefix) as other:
            entry = await _made(mover)
            await _ticked(mover, entry)
            [read] = (await mover.schedules()).entries
            mover.shift = other.shift = MINUTE
            cut = await _dies_after(
                steps, mover, lambda store, read=read: store.schedule([read._replace(queue="slow")]), monkeypatch
            )
            if reader == "due":
                for _ in range(2):  # the first may find it on its way, and sees to that
                    found = (await other.due(10)).entries
                assert len(found) == 1
            [entry] = (await other.schedules()).entries
            assert (entry.queue, entry.revision) in {("slow", 3), ("mail", 2)}, f"cut off after {steps}"
            assert (entry.made, len(entry.ticks), entry.next_at) == (1, 1, read.next_at)
            assert [each.name for each in (await other.due(10)).entries] == ["nightly"]
            if entry.revision == 3:
                assert await _ticked(other, read) is None, "as it was before it moved"
            assert await _ticked(other, entry) is not None
            assert await _ticked(mover, entry) is None
            assert (await other.due(10)).entries == []
            [entry] = (await other.schedules()).entries
            assert list(await other.unschedule({"nightly": entry.revision})) == [True]
            assert kept(prefix) == set(), f"cut off after {steps}"
            assert (await mover.schedules()).entries == []
        steps += 1
    assert steps > 4, "a move has several steps"


async def test_on_its_way_to_another_queue_it_ticks_nowhere(prefix: Prefix, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even for one who knows all that the entry says, and where it was a moment ago."""
    async with process(prefix) as mover, process(prefix) as other:
        entry = await _made(mover)
        moved = entry._replace(queue="slow")
        assert await _dies_after(1, mover, lambda store: store.schedule([moved]), monkeypatch)
        frozen = entry._replace(revision=entry.revision + 1)
        assert await _ticked(other, frozen) is None
        assert await listing(other) == []
        [arrived] = (await other.schedules()).entries
        assert (arrived.queue, arrived.revision) == ("slow", frozen.revision)
        assert await _ticked(other, arrived) is not None


async def test_ticks_that_cannot_be_read_are_in_no_schedules_way(prefix: Prefix) -> None:
    async with process(prefix) as store:
        entry = await _made(store)
        ticked = await _ticked(store, entry)
        with Redis.from_url(prefix.server) as redis:
            job = str(draft().id).encode()
            for text in (b"rubbish", b"1 2 made 1 no-id ", b"1 x made 1 - ", b"1 2 lost 1 " + job + b" ", b"\xff"):
                redis.rpush(f"{{{prefix.name}:mail}}:ticked:nightly", text)
        assert [list(each.ticks) for each in (await store.schedules()).entries] == [[ticked]]
        assert list((await store.due(9)).entries) == []


async def test_an_entry_that_was_half_deleted_is_gone_or_there_and_can_be_made_anew(
    prefix: Prefix, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps, cut = 0, True
    while cut:
        async with process(prefix) as deleter, process(prefix) as other:
            entry = await _made(deleter)
            cut = await _dies_after(
                steps, deleter, lambda store, entry=entry: store.unschedule({"nightly": entry.revision}), monkeypatch
            )
            there = (await other.schedules()).entries
            assert list(there) in ([], [entry])
            assert len((await other.due(10)).entries) == len(there)
            if there:
                assert list(await other.unschedule({"nightly": 1})) == [True]
            fresh = await _made(other, "slow")
            assert (fresh.revision, fresh.queue) == (1, "slow")
            assert list(await deleter.unschedule({"nightly": 1})) == [True]
            assert (await other.schedules()).entries == []
        steps += 1
    assert steps > 2


@pytest.mark.parametrize("queue", ["mail", "slow"])
async def test_an_entry_that_is_made_anew_while_another_is_deleted_stays(
    prefix: Prefix, queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = Lane.script
    async with process(prefix) as deleter, process(prefix) as other:
        await _made(deleter)
        made: list[bool] = []

        async def and_wait(lane: Lane, name: str, *words: Any) -> Any:
            if name == "name" and words[-1] == "" and not made:  # the entry is gone, and its name is about to go
                made.append(True)
                made.extend(await other.schedule([Entry("nightly", queue, "new", 5)]))
            return await script(lane, name, *words)

        monkeypatch.setattr(Lane, "script", and_wait)
        assert list(await deleter.unschedule({"nightly": 1})) == [True]
        monkeypatch.undo()
        assert made == [True, True]
        [entry] = (await other.schedules()).entries
        assert (entry.queue, entry.text, entry.revision) == (queue, "new", 1)


async def test_whoever_died_before_he_had_made_an_entry_is_in_nobodys_way(
    prefix: Prefix, monkeypatch: pytest.MonkeyPatch
) -> None:
    for steps in (0, 1):
        async with process(prefix) as maker, process(prefix) as other:
            assert await _dies_after(
                steps, maker, lambda store: store.schedule([Entry("nightly", "mail", "{}", 5)]), monkeypatch
            )
            assert (await other.schedules()).entries == []
            assert (await other.due(10)).entries == []
            assert (await _made(other, "slow")).queue == "slow"
            assert list(await other.unschedule({"nightly": 1})) == [True]


async def test_of_two_who_make_an_entry_in_different_queues_one_does(prefix: Prefix) -> None:
    async with process(prefix) as one, process(prefix) as other:
        for n in range(5):
            made = await asyncio.gather(
                one.schedule([Entry(f"s{n}", "mail", "one", 5)]), other.schedule([Entry(f"s{n}", "slow", "other", 5)])
            )
            assert sorted(answer for [answer] in made) == [False, True]
            [entry] = (await one.schedules([f"s{n}"])).entries
            assert entry.text == ("one" if made[0] == [True] else "other")
            assert entry.revision == 1


async def test_what_a_slow_helper_leaves_behind_makes_no_job_and_goes(prefix: Prefix) -> None:
    async with process(prefix) as store, process(prefix) as other:
        entry = await _made(store)
        await _made_in("other", store)
        with Redis.from_url(prefix.server) as redis:
            left = redis.dump(f"{{{prefix.name}:mail}}:schedule:nightly")
            assert list(await store.schedule([entry._replace(queue="slow")])) == [True]
            redis.restore(f"{{{prefix.name}:mail}}:schedule:nightly", 0, left)
            redis.zadd(f"{{{prefix.name}:mail}}:ticks", {"nightly": 0})
        assert await _ticked(other, entry) is None
        assert sorted((each.name, each.queue) for each in (await other.due(10)).entries) == [
            ("nightly", "slow"),
            ("of other", "mail"),
        ]
        assert not {key for key in kept(prefix) if "mail}:schedule:nightly" in key}
        assert await listing(store) == []


async def _made_in(name: str, store: Store) -> None:
    assert list(await store.schedule([Entry(f"of {name}", "mail", "{}", await now(store))])) == [True]


async def test_nothing_is_left_of_schedules_that_are_gone(prefix: Prefix) -> None:
    async with process(prefix) as store:
        for queue in ("mail", "slow"):
            entry = await _made(store, queue)
            await _ticked(store, entry)
            moved = (await store.schedules()).entries[0]._replace(queue="elsewhere")
            assert list(await store.schedule([moved])) == [True]
            assert list(await store.unschedule({"nightly": 3})) == [True]
    assert kept(prefix) == set()
