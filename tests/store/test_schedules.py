"""The laws of schedules: entries are changed by who has read them, and each tick is settled once."""

import asyncio
from collections import Counter
from functools import partial
from typing import Any

import pytest

from holdfast.clock import HOUR, MINUTE
from holdfast.job import Draft, Pause, State, Until
from holdfast.store import SCHEDULE_LIMIT, TICKS_MOST, Entry, Schedules, Store, Tick, Ticked
from tests.store.acts import (
    answer,
    bound,
    draft,
    elsewhere,
    exists,
    hand,
    keyed,
    listing,
    now,
    record,
    running,
    stats_of,
    stored,
)


async def _made(store: Store, name: str = "nightly", **changes: Any) -> Entry:
    """An entry that is stored, due now."""
    entry = Entry(name, "mail", '{"declared": null}', await now(store))._replace(**changes)
    assert list(await store.schedule([entry])) == [True]
    return await _read(store, name)


async def _read(store: Store, name: str = "nightly") -> Entry:
    [entry] = (await store.schedules([name])).entries
    return entry


def _tick(entry: Entry, job: Draft | None, **changes: Any) -> Tick:
    """The step of an entry that is due, to the next minute."""
    assert entry.next_at is not None
    due = entry.next_at
    return Tick(entry.name, entry.queue, entry.revision, due, due, due + MINUTE, job)._replace(**changes)


async def _settled(store: Store, tick: Tick) -> Ticked | None:
    [ticked] = await store.tick([tick])
    return ticked


# --- entries


async def test_an_entry_is_read_as_it_was_stored(store: Store) -> None:
    text = '{"edited": "näïve \\u0000 \U0001f980 \'quoted\' {}:"}'
    pause = Pause(await now(store), await now(store) + HOUR, "why")
    first = Entry("z: 'odd' {name}", "mail", text, 5, pause, ticks=(Ticked(1, 2, "made"),), made=9, skipped=9, missed=9)
    second = Entry("a", "another queue", "x" * SCHEDULE_LIMIT, None)
    assert list(await store.schedule([first, second])) == [True, True]
    kept = first._replace(revision=1, ticks=(), made=0, skipped=0, missed=0)
    shown = await elsewhere(lambda twin: twin.schedules(), store)
    assert (shown.now, shown.next_in) == (await now(store), None)
    assert list(map(_plain, shown.entries)) == [second._replace(revision=1), kept]
    assert list(map(_plain, (await store.schedules(["nobody", first.name])).entries)) == [kept]
    assert list((await store.schedules([])).entries) == []


def _plain(entry: Entry) -> Entry:
    return entry._replace(ticks=tuple(entry.ticks))


async def test_only_who_has_read_the_newest_may_change_it(store: Store) -> None:
    entry = await _made(store)
    assert entry.revision == 1
    for revision in (0, 2, -1):
        assert list(await store.schedule([entry._replace(revision=revision, text="other")])) == [False]
    assert await _read(store) == entry
    changed = entry._replace(text="new", next_at=7)
    assert list(await store.schedule([changed, changed])) == [True, False]
    assert _plain(await _read(store)) == changed._replace(revision=2)
    assert list(await store.schedule([Entry("unknown", "mail", "", None, revision=1)])) == [False]
    assert [each.name for each in (await store.schedules()).entries] == ["nightly"]


async def test_a_change_leaves_the_ticks_and_the_counts(store: Store) -> None:
    entry = await _made(store)
    await _settled(store, _tick(entry, draft(), missed=2))
    read = await _read(store)
    assert (len(read.ticks), read.made, read.missed) == (2, 1, 2)
    assert list(await store.schedule([read._replace(ticks=(), made=7, skipped=7, missed=7, text="new")])) == [True]
    assert _plain(await _read(store)) == _plain(read._replace(text="new", revision=3))


@pytest.mark.parametrize("makes", [True, False])
async def test_what_was_read_before_a_tick_changes_nothing_after_it(store: Store, makes: bool) -> None:
    """Else it puts the next tick back, and one is settled twice."""
    entry = await _made(store)
    assert await _settled(store, _tick(entry, draft() if makes else None, missed=1)) is not None
    ticked = await _read(store)
    assert ticked.revision == entry.revision + 1
    assert list(await store.schedule([entry._replace(pause=Pause(1)), entry._replace(queue="slow")])) == [False, False]
    assert list(await store.unschedule({"nightly": entry.revision})) == [False]
    assert await _read(store) == ticked
    assert list(await store.schedule([ticked._replace(pause=Pause(1))])) == [True]
    assert (await _read(store)).next_at == ticked.next_at


async def test_an_entry_goes_for_who_has_read_the_newest(store: Store) -> None:
    await _made(store)
    await _made(store, "hourly")
    assert list(await store.unschedule({"nightly": 0, "unknown": 1, "hourly": 2})) == [False, False, False]
    assert list(await store.unschedule({"nightly": 1, "hourly": 1})) == [True, True]
    assert list(await store.unschedule({"nightly": 1})) == [False]
    assert list((await store.schedules()).entries) == []
    assert await store.due(10) == Schedules(await now(store), [], None)
    fresh = await _made(store)
    assert (fresh.revision, fresh.made, list(fresh.ticks)) == (1, 0, [])


async def test_an_entry_moves_to_another_queue_with_all_that_it_has(store: Store) -> None:
    entry = await _made(store)
    await _settled(store, _tick(entry, draft(), missed=1))
    read = await _read(store)
    assert list(await store.schedule([read._replace(queue="slow")])) == [True]
    moved = await _read(store)
    assert _plain(moved) == _plain(read._replace(queue="slow", revision=3))
    assert len((await store.schedules()).entries) == 1
    store.shift += MINUTE
    assert [each.queue for each in (await store.due(10)).entries] == ["slow"]
    assert await _settled(store, _tick(read, draft())) is None, "as it was read before it moved"
    assert await _settled(store, _tick(moved, draft())) is None, "its job is of the queue that it was in"
    assert (await _settled(store, _tick(moved, draft(queue="slow")))) is not None
    assert list(await store.schedule([(await _read(store))._replace(queue="mail")])) == [True]  # and back
    back = await _read(store)
    assert (back.queue, back.revision, back.made, len(back.ticks)) == ("mail", 5, 2, 3)
    assert list(await store.unschedule({"nightly": 5})) == [True]
    assert list((await store.schedules()).entries) == []


# --- due


async def test_due_tells_the_longest_overdue_first_and_when_the_next_one_comes(store: Store) -> None:
    at = await now(store)
    times = {"c": at - 5, "b": at - 5, "a": at, "later": at + 7, "never": None}
    for name, time in times.items():
        await _made(store, name, next_at=time, queue=f"queue of {name}")
    every = await store.due(10)
    assert ([each.name for each in every.entries], every.next_in, every.now) == (["b", "c", "a"], 7, at)
    some = await store.due(2)
    assert ([each.name for each in some.entries], some.next_in) == (["b", "c"], 0)
    assert await store.due(0) == Schedules(at, [], 0)
    store.shift += 7
    assert [each.name for each in (await store.due(10)).entries] == ["b", "c", "a", "later"]
    assert (await store.due(10)).next_in is None


async def test_a_paused_entry_is_not_due_before_its_pause_is_over(store: Store) -> None:
    at = await now(store)
    await _made(store, "for ever", pause=Pause(at))
    await _made(store, "a while", pause=Pause(at, at + 10))
    assert await store.due(10) == Schedules(at, [], 10)
    store.shift += 9
    entry = await _read(store, "a while")
    assert entry.pause == Pause(at, at + 10)
    assert await _settled(store, _tick(entry, draft())) is None
    store.shift += 1
    assert [each.name for each in (await store.due(10)).entries] == ["a while"]
    assert await _settled(store, _tick(await _read(store, "for ever"), draft())) is None
    assert await _settled(store, _tick(entry, draft())) is not None


async def test_a_pause_that_is_over_before_the_next_tick_brings_it_no_nearer(store: Store) -> None:
    at = await now(store)
    await _made(store, next_at=at + 20, pause=Pause(at, at + 10))
    assert await store.due(10) == Schedules(at, [], 20)


async def test_due_leaves_the_ticks_away_and_keeps_the_counts(store: Store) -> None:
    entry = await _made(store)
    await _settled(store, _tick(entry, draft()))
    store.shift += MINUTE
    [due] = (await store.due(1)).entries
    assert _plain(due) == (await _read(store))._replace(ticks=())
    assert due.made == 1


# --- tick


async def test_a_tick_is_settled_once_and_makes_one_job(store: Store) -> None:
    at = await now(store)
    entry = await _made(store)
    jobs = [draft(), draft()]
    store.shift += 3
    made = Ticked(at, at + 3, "made", jobs[0].id)
    assert list(await store.tick([_tick(entry, job) for job in jobs])) == [made, None]
    assert await _settled(store, _tick(entry, jobs[0])) is None
    assert [found.id for found in await listing(store)] == [jobs[0].id]
    assert _plain(await _read(store)) == entry._replace(next_at=at + MINUTE, ticks=(made,), made=1, revision=2)
    assert [job.id for job in await (await hand(store)).claim()] == [jobs[0].id]


@pytest.mark.parametrize("change", [{"revision": 0}, {"revision": 2}, {"due": 5}, {"name": "unknown"}])
async def test_a_tick_of_what_is_so_no_more_writes_nothing(store: Store, change: dict[str, Any]) -> None:
    entry = await _made(store)
    job = draft()
    assert await _settled(store, _tick(entry, job)._replace(**change)) is None
    assert await _read(store) == entry
    assert not await exists(store, job.id)


async def test_a_tick_stores_its_job_as_an_enqueue_would(store: Store) -> None:
    entry = await _made(store)
    job = keyed(
        headers='{"holdfast.schedule":"nightly"}',
        tags=("a",),
        priority=7,
        at=await now(store) + HOUR,
        expires=Until(2 * HOUR),
        deadline=Until(3 * HOUR),
    )
    await _settled(store, _tick(entry, job))
    found = await record(store, job.id)
    assert (found.state, found.priority, found.tags, found.headers) == (State.SCHEDULED, 7, ("a",), job.headers)
    assert (found.holds, found.due_at) == (True, job.at)
    assert (found.expires_at, found.deadline_at) == (found.enqueued_at + 2 * HOUR, found.enqueued_at + 3 * HOUR)
    assert await answer(store, job) == "accepted"


@pytest.mark.parametrize("on_clash", ["return", "raise", "replace"])
async def test_a_tick_whose_key_is_held_is_skipped(store: Store, on_clash: str) -> None:
    entry = await _made(store)
    [holder] = await stored(store, keyed(delay=HOUR))
    job = keyed(on_clash=on_clash, payload=b"new")
    reason = {"return": "duplicate", "raise": "taken", "replace": "replaced"}[on_clash]
    skipped = Ticked(entry.next_at or 0, await now(store), "skipped", holder, reason)
    assert await _settled(store, _tick(entry, job)) == skipped
    assert not await exists(store, job.id)
    assert ((await record(store, holder)).payload == b"new") == (on_clash == "replace")
    read = await _read(store)
    assert (read.made, read.skipped, list(read.ticks)) == (0, 1, [skipped])
    assert read.next_at == (entry.next_at or 0) + MINUTE, "a tick that was skipped is not asked for again"


@pytest.mark.parametrize("when_full", ["reject", "block", "drop_newest", "drop_oldest"])
async def test_a_tick_never_waits_for_a_place(store: Store, when_full: Any) -> None:
    entry = await _made(store)
    await bound(store, 1, when_full)
    [first] = await stored(store, draft())
    job = draft()
    ticked = await _settled(store, _tick(entry, job))
    assert ticked is not None
    expected = {"drop_newest": ("skipped", None, "dropped"), "drop_oldest": ("made", job.id, "")}
    assert (ticked.outcome, ticked.job, ticked.reason) == expected.get(when_full, ("skipped", None, "full"))
    read, stats = await _read(store), await stats_of(store)
    assert (read.made, read.skipped) == (when_full == "drop_oldest", when_full != "drop_oldest")
    assert stats is not None
    assert (stats.admitted, stats.dropped) == (1, when_full.startswith("drop"))
    assert [found.id for found in await listing(store) if found.state is State.QUEUED] == [
        job.id if when_full == "drop_oldest" else first
    ]


async def test_a_known_job_is_made_again_and_another_of_its_id_is_skipped(store: Store) -> None:
    entry = await _made(store)
    job = draft()
    await stored(store, job)
    made = await _settled(store, _tick(entry, job))
    assert made is not None
    assert (made.outcome, made.job) == ("made", job.id)
    store.shift += MINUTE
    skipped = await _settled(store, _tick(await _read(store), draft(id=job.id, payload=b"other")))
    assert skipped is not None
    assert (skipped.outcome, skipped.job, skipped.reason) == ("skipped", None, "conflict")
    assert len(await listing(store)) == 1


async def test_what_was_missed_is_kept_and_counted_with_a_job_and_without(store: Store) -> None:
    at = await now(store)
    entry = await _made(store)
    store.shift += 5 * MINUTE
    job = draft()
    due = at + 3 * MINUTE
    ticked = await _settled(
        store, _tick(entry, job, at=due, next_at=at + 6 * MINUTE, missed=3, reason="nobody was there")
    )
    missed = Ticked(at, at + 5 * MINUTE, "missed", None, "nobody was there", 3)
    assert ticked == Ticked(due, at + 5 * MINUTE, "made", job.id)
    read = await _read(store)
    assert (list(read.ticks), read.made, read.missed) == ([missed, ticked], 1, 3)
    store.shift += 5 * MINUTE
    alone = await _settled(store, _tick(read, None, next_at=None, missed=2))
    assert alone == Ticked(at + 6 * MINUTE, at + 10 * MINUTE, "missed", count=2)
    read = await _read(store)
    assert (list(read.ticks), read.missed, read.next_at) == ([missed, ticked, alone], 5, None)
    assert len(await listing(store)) == 1
    assert await store.due(10) == Schedules(await now(store), [], None)


async def test_the_newest_ticks_are_kept_and_all_are_counted(store: Store) -> None:
    await _made(store)
    rounds = TICKS_MOST + 3
    for _ in range(rounds):
        entry = await _read(store)
        assert await _settled(store, _tick(entry, draft())) is not None
        store.shift += MINUTE
    read = await _read(store)
    assert (read.made, read.revision, len(read.ticks)) == (rounds, 1 + rounds, TICKS_MOST)
    assert [ticked.due for ticked in read.ticks] == [(read.next_at or 0) - MINUTE * n for n in range(TICKS_MOST, 0, -1)]


async def test_a_ticks_job_is_queued_for_those_who_wait(store: Store) -> None:
    entry = await _made(store)
    waiting = asyncio.create_task(store.wait(["mail"], 30))
    await asyncio.sleep(0)
    await _settled(store, _tick(entry, draft()))
    async with asyncio.timeout(30):
        assert await waiting is True


async def test_ticks_of_one_call_are_settled_each_by_itself(store: Store) -> None:
    entries = [await _made(store, f"every {n}", queue=f"queue {n % 2}") for n in range(4)]
    ticks = [_tick(entry, draft(queue=entry.queue)) for entry in entries]
    ticks[1] = ticks[1]._replace(revision=9)
    assert [ticked is None for ticked in await store.tick(ticks)] == [False, True, False, False]
    assert len(await listing(store)) == 3
    assert list(await store.tick([])) == []


async def test_of_many_who_tick_at_once_one_makes_the_job(store: Store) -> None:
    entry = await _made(store, unrelated := "busy")
    worker = await hand(store)
    await running(store, worker)
    jobs = [draft() for _ in range(6)]

    async def ticks(twin: Store, job: Draft) -> int:
        answers = [await twin.tick([_tick(entry, job)]) for _ in range(3)]
        return sum(ticked is not None for [ticked] in answers)

    won = await asyncio.gather(*(elsewhere(lambda twin, job=job: ticks(twin, job), store) for job in jobs))  # type: ignore[misc]
    assert Counter(won) == {0: len(jobs) - 1, 1: 1}
    assert sum([await exists(store, job.id) for job in jobs]) == 1
    read = await _read(store, unrelated)
    assert (read.made, len(read.ticks)) == (1, 1)


@pytest.mark.parametrize("what", ["change", "unschedule"])
async def test_a_tick_and_a_change_at_once_are_one_after_the_other(store: Store, what: str) -> None:
    """Whoever is first, the other hears that it is not as he has read it."""
    for n in range(4):
        entry = await _made(store, f"s{n}")
        job = draft()

        async def change(twin: Store, entry: Entry = entry) -> bool:
            if what == "unschedule":
                return list(await twin.unschedule({entry.name: entry.revision})) == [True]
            return list(await twin.schedule([entry._replace(text="new")])) == [True]

        async def ticks(twin: Store, entry: Entry = entry, job: Draft = job) -> bool:
            return list(await twin.tick([_tick(entry, job)])) != [None]

        changed, ticked = await asyncio.gather(elsewhere(change, store), elsewhere(ticks, store))
        assert changed != ticked
        assert await exists(store, job.id) == ticked
        if what == "change" or ticked:
            read = await _read(store, entry.name)
            assert (read.revision, read.text == "new", read.made) == (2, changed, int(ticked))


async def test_a_tick_and_an_enqueue_of_one_key_at_once_make_one_job(store: Store) -> None:
    for n in range(4):
        entry = await _made(store, f"s{n}")
        scheduled, other = keyed(text=f"k{n}"), keyed(text=f"k{n}")

        async def ticks(twin: Store, tick: Tick) -> Ticked | None:
            return await _settled(twin, tick)

        async def enqueues(twin: Store, job: Draft = other) -> str:
            return await answer(twin, job)

        tick = _tick(entry, scheduled)
        outcome, answered = await asyncio.gather(
            elsewhere(partial(ticks, tick=tick), store), elsewhere(enqueues, store)
        )
        made = [await exists(store, job.id) for job in (scheduled, other)]
        if outcome is None:  # the key was being decided on: nothing was written, so it is asked again
            outcome = await _settled(store, tick)
        assert outcome is not None
        assert made == [outcome.outcome == "made", answered == "accepted"]
        assert sum(made) == 1
