"""Schedules: read, changed by who has read the newest, due, and their ticks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from holdfast.clock import Instant
from holdfast.errors import StoreAway
from holdfast.job import Pause
from holdfast.store import TICKS_MOST, Entry, Schedules, Tick, Ticked
from holdfast.stores.columns import storable
from holdfast.stores.redis.enqueue import FEW, said_of_draft
from holdfast.stores.redis.lane import Lane, Step
from holdfast.stores.redis.place import queue_keys
from holdfast.stores.redis.queues import make_known
from holdfast.stores.redis.resp import Argument
from holdfast.stores.redis.slots import Slots
from holdfast.stores.redis.timetable import Home, Stored, homes, leave, new_home, said, stored, stored_of, ticked_of

_BYTES = 2**20  # of entries, for each 100 that are asked for, after which a script reads no further one
_TRIES = 20  # at an entry that others change at the same time
_PIPELINED = 16  # ticks


async def schedules(lane: Lane, names: Sequence[str] | None) -> Schedules:
    now, entries = await _entries(lane, names)
    return Schedules(now, [entries[name].entry() for name in sorted(entries)])


async def _entries(lane: Lane, names: Sequence[str] | None) -> tuple[Instant, dict[str, Stored]]:
    for _ in range(_TRIES):
        now, known = await homes(lane, names)
        places: defaultdict[str, list[str]] = defaultdict(list)
        for name, home in known.items():
            places[home.queue].append(name)
        found = [entry for entry in await stored(lane, places) if entry.is_of(known[entry.name])]
        leaving = [entry for entry in found if entry.to]
        if not leaving:
            return now, {entry.name: entry for entry in found}
        for entry in leaving:
            await leave(lane, entry)
    raise _busy(lane, "schedules")


def _busy(lane: Lane, what: str) -> StoreAway:
    return StoreAway(f"{lane.place.url}: {what}: others change it all the time; ask again")


# --- changes


async def schedule(lane: Lane, entries: Sequence[Entry]) -> list[bool]:
    return [await _change(lane, entry) for entry in entries]


async def _change(lane: Lane, entry: Entry) -> bool:
    name = storable(entry.name)
    said_of_it: list[Argument] = [storable(entry.text), "" if entry.next_at is None else entry.next_at]
    said_of_it.append(_said_pause(entry.pause))
    await make_known(lane, [queue for queue in [entry.queue] if queue not in lane.place.queues], quietly=True)
    for _ in range(_TRIES):
        home = (await homes(lane, [name]))[1].get(name)
        if home is None:
            if entry.revision != 0:
                return False
            home = await said(lane, name, None, new_home(entry.queue))
        if home is None or home.origin:
            continue
        to = "" if home.queue == entry.queue else entry.queue
        keys = queue_keys(lane.place, home.queue)
        word = await lane.script("schedule", keys, name, home.token, entry.revision, to, *said_of_it)
        if word == b"other":
            return False
        if word == b"gone":
            await said(lane, name, home, None)
            continue
        for leaving in await stored(lane, {home.queue: [name]}) if to or word == b"moving" else []:
            if leaving.is_of(home) and leaving.to:
                await leave(lane, leaving)
        if word == b"stored":
            return True
    raise _busy(lane, f"schedule {entry.name!r}")


def _said_pause(pause: Pause | None) -> str:
    """As pause.lua writes one."""
    if pause is None:
        return ""
    return f"{pause.since} {'-' if pause.until is None else pause.until} {storable(pause.reason)}"


async def unschedule(lane: Lane, names: Mapping[str, int]) -> list[bool]:
    return [await _take_away(lane, storable(name), revision) for name, revision in names.items()]


async def _take_away(lane: Lane, name: str, revision: int) -> bool:
    _, entries = await _entries(lane, [name])
    if name not in entries or entries[name].revision != revision:
        return False
    entry = entries[name]
    home, keys = Home(entry.text("token"), entry.queue), queue_keys(lane.place, entry.queue)
    if not await lane.script("depart", keys, name, home.token, revision, "1"):
        return False
    await said(lane, name, home, None)
    await lane.script("depart", keys, name, home.token, revision, "")  # the mark, which nobody meets any more
    return True


# --- ticks


async def due(lane: Lane, limit: int) -> Schedules:
    """Of the queues that have schedules. What is left over from others' moves is taken away."""
    now, known = await homes(lane)
    slots = Slots(lane)
    queues = {home.queue for home in known.values()}
    replies = await slots.scripts("due", dict.fromkeys(queues, (max(0, limit), _BYTES * max(1, limit // 100))))
    found: list[Stored] = []
    more, nexts = 0, list[float]()
    for queue, (now, others, coming, *rows) in replies.items():
        more += others
        nexts += [float(coming) - now] if coming else []
        found += [stored_of(name.decode(), queue, pairs) for name, *pairs in rows]
    mine = [entry for entry in found if entry.is_of(known.get(entry.name)) and not entry.to]
    for entry in found:
        if entry not in mine:
            await _settle(lane, entry)
    if not mine:  # else they are not to wait for a queue that refuses
        slots.told(None)
    mine.sort(key=lambda entry: (int(entry.text("next")), entry.name))
    next_in = 0 if more or len(mine) > limit else max(0, int(min(nexts))) if nexts else None
    return Schedules(now, [entry.entry() for entry in mine[: max(0, limit)]], next_in)


async def _settle(lane: Lane, entry: Stored) -> None:
    """One that is on its way goes there; one that the registry does not mean is taken away."""
    home = (await homes(lane, [entry.name]))[1].get(entry.name)  # it may have come since it was read
    if not entry.is_of(home):
        keys = queue_keys(lane.place, entry.queue)
        await lane.script("depart", keys, entry.name, entry.text("token"), entry.text("revision"), "")
    elif entry.to:
        await leave(lane, entry)


async def tick(lane: Lane, ticks: Sequence[Tick]) -> list[Ticked | None]:
    answers: list[Ticked | None] = []
    for start in range(0, len(ticks), _PIPELINED):
        answers += await _tick_some(lane, ticks[start : start + _PIPELINED])
    return answers


async def _tick_some(lane: Lane, ticks: Sequence[Tick]) -> list[Ticked | None]:
    answers: list[Ticked | None] = [None] * len(ticks)
    _, known = await homes(lane, [tick.name for tick in ticks])
    left = [
        nth
        for nth, tick in enumerate(ticks)
        if (home := known.get(storable(tick.name))) is not None
        and tick.queue == home.queue
        and (tick.draft is None or tick.draft.queue == home.queue)
    ]
    drawn = {draft.queue for nth in left if (draft := ticks[nth].draft) is not None}
    await make_known(lane, [queue for queue in drawn if queue not in lane.place.queues])
    few = set[str]()
    while left:
        replies = await lane.ask([_step(lane, ticks[nth], known[storable(ticks[nth].name)]) for nth in left])
        again: list[int] = []
        for nth, reply in zip(left, replies, strict=True):
            if reply == [b"again"]:
                again.append(nth)
            elif reply:
                answers[nth] = _answered(lane, ticks[nth], reply)
                few |= {ticks[nth].queue} & drawn if reply[1] < FEW else set()
        left = again
    await make_known(lane, few)
    return answers


def _step(lane: Lane, tick: Tick, home: Home) -> Step:
    words: list[Argument] = [
        storable(tick.name),
        home.token,
        tick.revision,
        tick.due,
        tick.at,
        "" if tick.next_at is None else tick.next_at,
        tick.missed,
        storable(tick.reason),
        TICKS_MOST,
        "" if tick.draft is None else "1",
    ]
    if tick.draft is not None:
        words += said_of_draft(tick.draft)
    return lane.step("tick", queue_keys(lane.place, tick.queue), words)


def _answered(lane: Lane, tick: Tick, reply: Sequence[Any]) -> Ticked:
    ticked = ticked_of(reply[0])
    if ticked.outcome == "made" and tick.draft is not None:
        job: UUID = tick.draft.id
        lane.place.whereabouts.learn(tick.queue, [job])
    return ticked
