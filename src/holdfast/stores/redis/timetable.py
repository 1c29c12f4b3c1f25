"""Where each schedule is: its entry lies in the slot of the queue that its jobs go to, with which it may be moved.

The registry has of each name a token, made with the entry, and the queue. What lies elsewhere, or has another token, is
left over from somebody who died half-way, or was slow. A move is begun in the slot that it leaves (there it is frozen,
with the queue to which it goes), told to the registry, and ended by anybody who finds it so.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple
from uuid import uuid4

from holdfast.clock import Instant
from holdfast.store import Entry, Ticked
from holdfast.stores.columns import storable, ticked
from holdfast.stores.redis.lane import Lane
from holdfast.stores.redis.place import queue_keys
from holdfast.stores.redis.queues import make_known, pause_of
from holdfast.stores.redis.resp import Reply, pairs_of
from holdfast.stores.redis.rows import uuid_of
from holdfast.stores.unreadable import UNREADABLE, decoded

_BYTES = 2**20  # of entries, after which a script reads no further one
_NAMES = 50  # that one script is asked about


class Home(NamedTuple):
    """What the registry says of a name. `origin`: the queue from which it comes, "" once it is here."""

    token: str
    queue: str
    origin: str = ""

    @property
    def text(self) -> str:
        return json.dumps(self if self.origin else self[:2])


@dataclass(frozen=True, slots=True)
class Stored:
    """An entry as it lies in a slot, with its ticks as texts."""

    name: str
    queue: str
    fields: Mapping[str, bytes]
    ticks: Sequence[bytes] = ()

    @property
    def to(self) -> str:
        """The queue to which it is on its way."""
        return self.text("to")

    @property
    def revision(self) -> int:
        return int(self.fields["revision"])

    def is_of(self, home: Home | None) -> bool:
        """Whether it is the one that the registry means."""
        return home is not None and (self.text("token"), self.queue) == home[:2] and not self.text("gone")

    def text(self, field: str) -> str:
        return self.fields.get(field, b"").decode()

    def entry(self) -> Entry:
        next_at, pause = self.text("next"), self.fields.get("pause", b"")
        return Entry(
            self.name,
            self.queue,
            self.text("text"),
            int(next_at) if next_at else None,
            pause_of(pause) if pause else None,
            self.revision,
            tuple(decoded(self.ticks, ticked_of)[0]),  # what cannot be read must be in no tick's way
            *(int(self.text(count) or 0) for count in ("made", "skipped", "missed")),
        )


def stored_of(name: str, queue: str, pairs: Sequence[Reply], ticks: Sequence[bytes] = ()) -> Stored:
    fields = {field.decode(): value for field, value in zip(pairs[::2], pairs[1::2], strict=True)}
    return Stored(name, queue, fields, ticks)


def ticked_of(text: bytes) -> Ticked:
    """As tick.lua writes one."""
    due, at, outcome, count, job, reason = text.split(b" ", 5)
    found = None if job == b"-" else uuid_of(job)
    return ticked(int(due), int(at), outcome.decode(), found, reason.decode(), int(count))


# --- where they are


async def homes(lane: Lane, names: Sequence[str] | None = None) -> tuple[Instant, dict[str, Home]]:
    """The time, and where the schedules of these names are, or all; moves that are under way are ended."""
    place = lane.place
    key = f"{place.registry.base}schedules"
    names = names if names is None else [storable(name) for name in dict.fromkeys(names)]
    if names == []:
        return (await lane.script("queues", place.registry))[0], {}
    asked = lane.command("HGETALL", key) if names is None else lane.command("HMGET", key, *names)
    [(now, _), reply] = await lane.ask([lane.step("queues", place.registry), asked])
    if names is None:
        pairs = [(name.decode(), text) for name, text in pairs_of(reply)]
    else:
        pairs = list(zip(names, reply, strict=True))
    found = {name: home for name, text in pairs if text and (home := home_of(text)) is not None}
    for name, home in [each for each in found.items() if each[1].origin]:
        settled = await arrive(lane, name, home)
        if settled is None:
            del found[name]
        else:
            found[name] = settled
    return now, found


def home_of(text: bytes) -> Home | None:
    """None for what nobody of ours has written."""
    try:
        return Home(*json.loads(text))
    except UNREADABLE:
        return None


async def said(lane: Lane, name: str, before: Home | None, after: Home | None) -> Home | None:
    """Says where a schedule is, if the registry says `before`. Returns what it says now."""
    words = ["" if home is None else home.text for home in (before, after)]
    text = await lane.script("name", lane.place.registry, name, *words)
    return home_of(text) if text else None


def new_home(queue: str) -> Home:
    return Home(str(uuid4()), queue)


async def stored(lane: Lane, places: Mapping[str, Iterable[str]]) -> list[Stored]:
    """The entries of these names, by queue, that lie there."""
    found: list[Stored] = []
    for queue, names in places.items():
        left = list(names)
        while left:
            some = list(islice(left, _NAMES))
            shown = await lane.script("entries", queue_keys(lane.place, queue), _BYTES, *some)
            found += [stored_of(name, queue, *each) for name, each in zip(some, shown, strict=False) if each[0]]
            del left[: len(shown)]
    return found


# --- from queue to queue


async def leave(lane: Lane, entry: Stored) -> None:
    """Carries an entry to the queue to which it is on its way."""
    here = Home(entry.text("token"), entry.queue)
    there = Home(here.token, entry.to, here.queue)
    if await said(lane, entry.name, here, there) == there:
        await arrive(lane, entry.name, there)


async def arrive(lane: Lane, name: str, home: Home) -> Home | None:
    """The same, of one that the registry knows to be on its way. Returns where it is."""
    place = lane.place
    here = home._replace(origin="")
    for entry in await stored(lane, {home.origin: [name]}):
        if entry.text("token") == home.token and entry.to == home.queue:
            await make_known(lane, [home.queue], quietly=True)
            words = [entry.fields.get(field, b"") for field in ("text", "next", "pause")]
            counts = [entry.fields.get(count, b"0") for count in ("made", "skipped", "missed")]
            keys, revision = queue_keys(place, home.queue), entry.revision
            await lane.script("arrive", keys, name, home.token, revision, *words, *counts, *entry.ticks)
            await lane.script("depart", queue_keys(place, home.origin), name, home.token, revision, "")
    return await said(lane, name, home, here)
