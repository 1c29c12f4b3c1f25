"""Every script of the Redis store, with each thing that it relies on broken singly: an error leaves no trace.

Redis rolls nothing back. So a day of a store is taken down, script by script with the keyspace that each met, and every
script is played again: with a key of another type, another layout, a full server, bad arguments and so on. A script
that no call of the day reaches fails here by its name.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from holdfast.clock import HOUR, MINUTE, SECOND
from holdfast.errors import StoreAway, StoreError
from holdfast.job import Loss, Note, Pause, QueueTerms, Released, Snoozed, State, Succeeded, Until, held_as, new_id
from holdfast.policy import decide
from holdfast.store import BUCKETS, LEASE, RESERVED, TENS_KEPT, Entry, Level, Store, Tally, Tick, Where
from holdfast.stores import open_store
from holdfast.stores.redis import scripts
from tests.store.acts import (
    BOOM,
    FINAL_BOOM,
    LOSS,
    Hand,
    draft,
    finish,
    hand,
    keep_beating,
    keyed,
    stored,
)
from tests.store.backends import STANDS_STILL
from tests.stores.keyspace import Bench, Call, Played, recorded
from tools.servers import Valkey

pytestmark = pytest.mark.timeout(240)

SCRIPTS = scripts.names()
FOLDER = Path(str(resources.files("holdfast.stores.redis") / "scripts"))
FILES = sorted(path for path in FOLDER.iterdir() if path.suffix == ".lua")
PREFIX = "day"
# What others write must be written on a full server too: it must get less full, and workers must go on.
NEEDS_MEMORY = {"open", "upgrade", "enqueue", "admit", "configure", "note", "pause", "record"} | {
    "schedule",
    "arrive",
    "name",
    "tick",
}


# --- a day of a store


async def _day(store: Store, bench: Bench) -> None:
    """Calls every script, and most in several ways."""
    await store.migrate()
    await store.open()
    try:
        await _older(store, bench)
        await _queues(store)
        await _producers(store)
        await _schedules(store)
        await _mortals(store)
        worker = await _worker(store)
        await _operators(store, worker)
        await _sweepers(store)
        await _damaged(store, bench)
        await _end(store)
    finally:
        await store.close()


async def _older(store: Store, bench: Bench) -> None:
    """A place of the layout before this one."""
    bench.redis.hset(f"{{{PREFIX}}}:meta", "layout", "1")
    assert await store.migrate(dry_run=True) == await store.migrate() != []


async def _queues(store: Store) -> None:
    bounded = QueueTerms(3, "drop_oldest")
    await store.configure({"small": bounded, "strict": QueueTerms(2)}, by="producer")
    await store.configure({"small": bounded, "mail": QueueTerms(200, "block", MINUTE)}, by="worker")
    await store.configure({"mail": QueueTerms(100)}, by="operator")
    await store.configure({"strict": QueueTerms(1)}, by="operator")
    await store.configure({"strict": None}, by="operator")
    await store.stats()


async def _producers(store: Store) -> None:
    first = draft(queue="small", unique=keyed().unique)
    await store.reserve([first])
    await store.enqueue([first])
    await store.enqueue([first, replace(first, payload=b"other")])  # again, and a conflict
    for change in ({"on_clash": "return"}, {"on_clash": "raise"}, {"on_clash": "replace", "payload": b"new"}):
        await store.enqueue([keyed(queue="small", **change)])
    await store.enqueue([keyed(queue="small", on_clash="replace", delay=MINUTE)])  # now it is scheduled
    for _ in range(4):  # one of them is dropped for another
        await store.enqueue([draft(queue="small", delay=_ % 2 * SECOND)])
    await store.enqueue([draft(queue="strict") for _ in range(3)])  # one finds it full
    await store.enqueue([keyed(text="short", until="started", hold=0, headers='{"tenant":"7"}', tags=("a",))])
    await store.enqueue([keyed(text="long", hold=HOUR, alone=True)])
    await stored(store, *(draft(delay=n % 3 * SECOND, priority=n % 2) for n in range(12)))
    await store.stats()


async def _schedules(store: Store) -> None:
    at = (await store.stats()).now
    pause = Pause(at, at + MINUTE, "why")
    entries = [
        Entry("hourly", "mail", "{}", at),
        Entry("nightly", "strict", "{}", at, pause),
        Entry("never", "a", "", None),
    ]
    assert await store.schedule(entries) == [True] * 3
    assert await store.schedule(entries[:1]) == [False]
    for n, job in enumerate([draft(), keyed(text="short"), None, draft(queue="other"), keyed(expires=Until(HOUR))]):
        [entry] = (await store.schedules(["hourly"])).entries
        await store.due(10)
        due = entry.next_at or 0
        then = due + 1 if n < 4 else None
        await store.tick([Tick("hourly", "mail", entry.revision, due, due, then, job, n % 3, "nobody")])
    store.shift += MINUTE
    [nightly] = (await store.due(1)).entries
    bounded = Tick("nightly", "strict", 1, at, at, at + HOUR, draft(queue="strict"))
    assert [ticked and ticked.reason for ticked in await store.tick([bounded, bounded])] == ["full", None]
    was = nightly.revision + 1
    assert await store.schedule([nightly._replace(revision=was, queue="small")]) == [True]
    assert await store.schedule([nightly._replace(revision=was + 1, queue="strict", next_at=at, pause=None)]) == [True]
    dropping = nightly._replace(queue="small", revision=was + 2, next_at=at)
    assert await store.schedule([dropping]) == [True]
    [made] = await store.tick([Tick("nightly", "small", was + 3, at, at, at + HOUR, draft(queue="small"))])
    assert made
    assert made.outcome == "made"
    await store.schedules()
    assert await store.unschedule({"nightly": was + 4, "never": 7}) == [True, False]


async def _mortals(store: Store) -> None:
    """Jobs whose time is over one day, pauses, and who waits for an end."""
    worker = await hand(store)
    ends = [
        draft(queue="mortal", expires=Until(SECOND)),
        draft(queue="mortal", deadline=Until(2 * SECOND), delay=SECOND),
    ]
    ends += [draft(queue="mortal", expires=Until(SECOND * n), deadline=Until(HOUR)) for n in (1, 5)]
    ids = await stored(store, *ends, draft(queue="mortal", delay=3 * SECOND))
    await store.watch(ids, 0)
    await store.pause("mortal", Until(SECOND), "why")
    await store.pause("mortal")
    assert not await worker.claim(5, ["mortal"])
    await store.queues()
    await store.workers()
    assert await store.resume("mortal")
    assert not await store.resume("mortal")
    store.shift += SECOND
    assert len(await worker.claim(5, ["mortal"])) == 1
    assert len((await store.promote(10)).over) == 2
    store.shift += SECOND
    assert len((await store.promote(10)).over) == 1
    await store.watch(ids, 0)
    [job] = await store.find(Where(worker=worker.id))
    outcome = decide(held_as(job, worker.id), BOOM)
    await store.finish([outcome])
    store.shift += HOUR
    assert "deadline" in [over.reason for over in (await store.promote(10)).over]
    worker = await hand(store)
    tally = Tally("mail", "shop.send", "succeeded", 1, (1,) * BUCKETS, (2,) * BUCKETS)
    for number in (1, 1, 2):
        await store.record(worker.id, number, [tally], [Level("mail", 5, 9)])
    await store.record(worker.id, 3, [])
    await store.history(0, 2**42)
    await store.watch([ids[-1]], 0)
    [last] = await worker.claim(1, ["mortal"])
    await finish(store, last, Succeeded(b"1"))


async def _worker(store: Store) -> Hand:
    worker = await hand(store)
    await store.wait(["mail"], 0)
    await store.wait(["nothing here"], 0.01)
    await store.promote(10)
    store.shift += 5 * SECOND
    await store.promote(3)
    await store.promote(100)
    jobs = await worker.claim(8)
    again = await store.claim(worker.id, worker.ticket - 1, None, 8)
    assert {job.id for job in again.jobs} == {job.id for job in jobs}
    jobs += await worker.claim(4, ["mail", "small", "strict"])
    await store.note(
        [Note(job.id, job.fence, job.worker, 0.5, "half", ((SECOND, "a line"),), b"saved") for job in jobs[:3]]
    )
    await store.note([Note(jobs[0].id, 7, jobs[0].worker, 0.7)])  # not its word
    await store.log(jobs[0].id)
    await store.cancel([jobs[2].id, jobs[3].id], "why")
    await store.mail([worker.id])
    verdicts = [Succeeded(b"1"), BOOM, BOOM, Succeeded(b"2"), FINAL_BOOM, Snoozed(SECOND), Released(), Snoozed(0)]
    for job, verdict in zip(jobs, verdicts, strict=False):
        await finish(store, job, verdict)
    await finish(store, jobs[0], Succeeded(b"1"))  # again
    await finish(store, jobs[5]._replace(fence=9), Succeeded(b"1"))  # stale
    await finish(store, jobs[5]._replace(id=new_id()), Succeeded(b"1"))  # gone
    await worker.beat()
    return worker


async def _operators(store: Store, worker: Hand) -> None:
    every = [row.id for row in await store.find(Where(), None, 1000)]
    await store.find(Where(queue="mail", states=[State.QUEUED, State.SCHEDULED], task="shop.send", tag="a"))
    await store.find(Where(states=[State.DEAD], error="KeyError"))
    await store.find(Where(states=[State.RUNNING], worker=worker.id))
    await store.find(Where(starts=str(every[0])[:8], since=0, before=2**42))
    await store.find(Where(ids=[*every[:3], new_id()]))
    dead = [row.id for row in await store.find(Where(states=[State.DEAD]))]
    await store.retry([*dead, every[0], new_id()])
    queued = [row.id for row in await store.find(Where(states=[State.QUEUED, State.SCHEDULED]))]
    await store.cancel([*queued[:3], new_id()])
    await store.retry(queued[:1])
    await store.delete([*queued[:2], queued[-1], new_id()])
    await store.delete([row.id for row in await store.find(Where(states=[State.SUCCEEDED]))][:1])
    await store.locker(every[0])
    await store.stats()


async def _sweepers(store: Store) -> None:
    dying, silent, sweeper = await hand(store), await hand(store), await hand(store)
    await stored(store, *(draft(queue="swept", unique=keyed(text=str(n)).unique) for n in range(6)))
    held = await dying.claim(3, ["swept"])
    await silent.claim(2, ["swept"])
    await store.cancel([held[0].id])
    await dying.retire(LOSS, {(held[1].id, held[1].fence): Loss("its own fault", culprit=True)})
    await sweeper.reclaim()
    await sweeper.sweep()
    await keep_beating([sweeper], LEASE + SECOND)
    await sweeper.reclaim(1)
    await sweeper.sweep()
    await store.mail([silent.id, dying.id])
    await sweeper.claim(1, ["swept"])
    assert await silent.refusal() == "expired"
    await sweeper.retire()
    assert await sweeper.refusal() == "gone"


async def _damaged(store: Store, bench: Bench) -> None:
    """A job that nobody can read, as an older or a broken program may have written it; a key that somebody deleted."""
    worker = await hand(store)
    [job] = await stored(store, draft(queue="damaged"))
    assert bench.redis.hset(f"{{{PREFIX}:damaged}}:job:{job}", "kind", "?") == 0
    assert not await worker.claim(1, ["damaged"])
    await stored(store, draft(queue="damaged"))
    worker = await hand(store)
    assert await worker.claim(1, ["damaged"])
    assert bench.redis.delete(f"{{{PREFIX}:damaged}}:holders") == 1
    await store.prune(1)
    await store.reclaim(worker.id, 1)


async def _end(store: Store) -> None:
    await store.prune(1)
    store.shift += 2 * HOUR + RESERVED
    last = await hand(store)
    await store.reclaim(last.id, 10)
    await store.prune(2)
    await store.promote(100)
    store.shift += 48 * HOUR
    await store.prune(1000)
    store.shift += TENS_KEPT
    await store.prune(1000)
    await store.configure({"gone": QueueTerms(1)}, by="operator")
    await store.configure({"gone": None}, by="operator")
    await store.stats()


# --- what was taken down


class Taken(NamedTuple):
    """A call, and what becomes of it when nothing is broken."""

    call: Call
    plain: Played


class Book:
    """The calls of a day, by script: one for each set of keys that it changes in its own way."""

    def __init__(self, bench: Bench, calls: Sequence[Call]) -> None:
        self.bench = bench
        self.taken: dict[str, list[Taken]] = defaultdict(list)
        self._traces: dict[int, Sequence[tuple[str, list[bytes]]]] = {}
        named = {scripts.script(name, STANDS_STILL).sha.decode(): name for name in SCRIPTS}
        seen = set()
        for call in calls:
            name = named.get(call.sha)
            if name is None:  # none of ours, to see whether scripts may be called
                continue
            plain = bench.play(text(name), call)
            assert not plain.error, f"{name} played again fails: {plain.error}"
            if (shape := (name, plain.kinds)) not in seen:
                seen.add(shape)
                self.taken[name].append(Taken(call, plain))

    def of(self, name: str) -> list[Taken]:
        found = self.taken[name]
        assert found, f"no call of {name}.lua in the day that is taken down: nothing of it is tested"
        return found

    def play(self, name: str, call: Call, **how: Any) -> Played:
        """Plays it; an error must have left no trace."""
        played = self.bench.play(text(name), call, **how)
        assert not (played.error and played.changed), (
            f"{name}.lua left something half-written: {dict(played.changed)} and {played.error!r}"
        )
        return played

    def trace(self, name: str, call: Call) -> Sequence[tuple[str, list[bytes]]]:
        """The commands of a call, each with its keys; played once for all who ask."""
        shown = self._traces.get(id(call))
        if shown is None:
            shown = self._traces[id(call)] = self.bench.trace(text(name), call)
        return shown


def text(name: str) -> bytes:
    return scripts.script(name, STANDS_STILL).text


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with Valkey() as server, contextlib.closing(Bench(server)) as bench:
        yield bench


@pytest.fixture(scope="module")
def book(bench: Bench) -> Book:
    with recorded(bench) as (port, calls):
        store = open_store(f"redis://127.0.0.1:{port}/0?prefix={PREFIX}")
        store._place.clock = STANDS_STILL  # type: ignore[attr-defined]  # noqa: SLF001
        asyncio.run(_day(store, bench))
    return Book(bench, calls)


@pytest.fixture(params=SCRIPTS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# --- each thing broken


def _of_another_type(key: bytes) -> Callable[[Bench], AbstractContextManager[None]]:
    @contextlib.contextmanager
    def broken(bench: Bench) -> Iterator[None]:
        bench.redis.delete(key)
        bench.redis.xadd(key, {"a": "stranger's"})
        yield

    return broken


def test_a_key_of_another_type(name: str, book: Book) -> None:
    """What a script would have written to is refused; only what it deletes may be whatever it is.

    What it does not touch cannot break it.
    """
    for call, plain in book.of(name):
        for key in dict.fromkeys(key for _, keys in book.trace(name, call) for key in keys):
            played = book.play(name, call, broken=_of_another_type(key))
            if plain.changed.get(key, "deleted") != "deleted":
                assert played.error, f"{name}.lua overwrites {key.decode()}, whatever it is"


def _layout(key: bytes, value: str) -> Callable[[Bench], AbstractContextManager[None]]:
    @contextlib.contextmanager
    def broken(bench: Bench) -> Iterator[None]:
        bench.redis.hset(key, mapping={"layout": value, "oldest_code": value})
        yield

    return broken


def test_another_layout(name: str, book: Book) -> None:
    for call, plain in book.of(name):
        meta = call.keys[0]
        for layout in ["0", "99", "nonsense", ""] if meta in call.before else []:
            played = book.play(name, call, broken=_layout(meta, layout))
            assert played.error or not plain.changed, f"{name}.lua writes to a queue whose layout is {layout!r}"


def _configured(**settings: object) -> Callable[[Bench], AbstractContextManager[None]]:
    @contextlib.contextmanager
    def broken(bench: Bench) -> Iterator[None]:
        before = {name: bench.redis.config_get(name)[name] for name in settings}
        for name, value in settings.items():
            bench.redis.config_set(name, value)
        try:
            yield
        finally:
            for name, value in before.items():
                bench.redis.config_set(name, value)

    return broken


def test_a_full_server(name: str, book: Book) -> None:
    for call, plain in book.of(name):
        played = book.play(name, call, broken=_configured(maxmemory=1))
        assert played.error or played.changed == plain.changed
        assert "maxmemory" in played.error or not played.error, played.error
        if name not in NEEDS_MEMORY:
            assert not played.error, f"{name}.lua must go on where there is no memory left: {played.error}"
        if name in ("enqueue", "admit") and "created" in plain.changed.values():
            assert played.error, "a full server takes no more jobs"


def test_a_server_that_takes_no_writes_now(name: str, book: Book) -> None:
    for call, plain in book.of(name):
        played = book.play(name, call, broken=_configured(**{"min-replicas-to-write": 1}))
        assert played.error or not plain.changed, "it writes, and is not refused"


def test_arguments_that_are_none(name: str, book: Book) -> None:
    writes_most = sorted(book.of(name), key=lambda taken: -len(taken.plain.changed))
    for call, _ in writes_most[:2]:
        for number in range(len(call.args)):
            book.play(name, call, args=call.args[:number])
            for wrong in (b"", b"x", b"1e300"):
                book.play(name, call, args=[*call.args[:number], wrong, *call.args[number + 1 :]])
        for number in range(len(call.keys)):
            book.play(name, call, keys=call.keys[:number])


# --- what is to be seen in the texts


@pytest.fixture(scope="module")
def commands(bench: Bench) -> Mapping[str, Mapping[str, Any]]:
    """What the server says of its commands."""
    return {name.upper(): said for name, said in bench.redis.command().items()}


def test_what_is_written_was_read_before_the_first_write(
    name: str, book: Book, commands: Mapping[str, Mapping[str, Any]]
) -> None:
    """So a key that is elsewhere (a slot on its way to another server), or no key of ours, is met before any write."""
    for call, _ in book.of(name):
        given = book.trace(name, call)
        writes = [number for number, (command, _) in enumerate(given) if "write" in commands[command]["flags"]]
        if not writes:
            continue
        known = {key for _, keys in given[: writes[0]] for key in keys} | set(call.keys)
        for number in writes:
            command, keys = given[number]
            unread = [key.decode() for key in keys if key not in known]
            assert not unread, (
                f"{name}.lua writes {unread} ({command}), which it has not read before {given[writes[0]]}"
            )


def test_a_script_writes_nothing_while_its_slot_is_on_its_way_to_another_server(
    name: str, book: Book, commands: Mapping[str, Mapping[str, Any]]
) -> None:
    """The server refuses there what touches a key that is not there. So each looks for one first that never is: what it
    empties itself in its middle it could not touch again, and would end half-way.
    """
    for call, _ in book.of(name):
        given = book.trace(name, call)
        writes = [number for number, (command, _) in enumerate(given) if "write" in commands[command]["flags"]]
        looks = [
            ("EXISTS", [call.keys[0].rpartition(b"}:")[0] + b"}:never"]) == each for each in given[: sum(writes[:1])]
        ]
        assert any(looks) or not writes or name == "open", f"{name}.lua writes before it looked"


def test_a_script_gives_no_command_that_is_slow_or_younger_than_the_oldest_server(
    name: str, book: Book, commands: Mapping[str, Mapping[str, Any]]
) -> None:
    given = {command for call, _ in book.of(name) for command, _ in book.trace(name, call)}
    assert given, f"{name}.lua gives no command"
    assert not given & YOUNG, "not in Redis 6.2"
    slow = {command for command in given if "@dangerous" in commands[command]["acl_categories"]}
    assert not slow, f"{slow}: it holds up everybody"


YOUNG = {
    "LMPOP",
    "ZMPOP",
    "BLMPOP",
    "BZMPOP",
    "SINTERCARD",
    "ZINTERCARD",
    "HEXPIRE",
    "HPEXPIRE",
    "HSETEX",
    "EXPIRETIME",
}
FORBIDDEN = re.compile(
    r"'(KEYS|SCAN|FLUSHDB|FLUSHALL|SORT|SUNION|RANDOMKEY)'|setresp|replicate_commands|math\.random|os\.|loadstring"
)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_script_says_first_what_it_does_takes_and_returns(path: Path) -> None:
    lines = path.read_text().splitlines()
    head = []
    for line in lines:
        if not line.startswith("-- "):
            break
        head.append(line)
    assert head, "the first line says its role"
    if path.stem in SCRIPTS:
        said = " ".join(head)
        missing = [word for word in ("KEYS ", "ARGV ", "Returns ") if word not in said]
        assert not missing, f"its head says nothing of {missing}"
    assert not FORBIDDEN.search(path.read_text()), FORBIDDEN.search(path.read_text())
    asks_the_time = "'TIME'" in path.read_text()
    assert asks_the_time == (path.stem == "clock"), "only clock.lua looks at a clock"


# --- what the user may do: a script that is stopped in its middle has done half of its work


def _named_commands() -> list[str]:
    """The commands that are given in some script, but hints, which may fail."""
    given = {name for path in FILES for name in re.findall(r"\bcall\('([A-Z]+)'", path.read_text())}
    assert len(given) > 20, given
    return sorted(given)


@pytest.mark.parametrize("command", _named_commands())
def test_a_user_who_may_not_give_one_of_the_commands_is_told_so_before_anything_is_done(
    command: str, bench: Bench
) -> None:
    bench.redis.flushdb()
    bench.redis.execute_command("ACL", "SETUSER", "limited", "reset", "on", ">p", "~*", "&*", "+@all", f"-{command}")
    store = open_store(f"redis://limited:p@127.0.0.1:{bench.server.port}/0")
    with pytest.raises(StoreError, match=rf"(?i)\+{command}\b") as refused:
        asyncio.run(store.open())
    assert not isinstance(refused.value, StoreAway), "no repeat mends it"
    assert not bench.read()
