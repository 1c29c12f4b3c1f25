"""Lanes to a server that goes away, falls silent, refuses, forgets and comes back: what a call does, and says."""

import asyncio
import gc
import logging
import random
import socket
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import pytest

from holdfast.errors import StoreAway, StoreError
from holdfast.job import QueueTerms, State
from holdfast.store import LEASE, Authority, Store, Where
from holdfast.stores import open_store
from holdfast.stores.redis import lane as lane_
from holdfast.stores.redis import limits, scripts
from holdfast.stores.redis import resp as resp_
from holdfast.stores.redis.lane import Lane
from tests.flows.proxy import Proxy
from tests.flows.resp import frame, resp, words
from tests.servers.prefixes import Prefix, Prefixes
from tests.stores.redis_places import (
    draft,
    events,
    keys_of,
    lane,
    listening,
    opened,
    operator,
    place,
    run,
    said,
    saying,
)
from tools.servers import Valkey

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

ECHO = "return ARGV[2]"
COUNT = "return redis.call('HINCRBY', KEYS[4], ARGV[2], 1)"  # says how often it was run
WRONG = "return redis.call('LLEN', KEYS[4])"
BIG = "return { string.rep('x', tonumber(ARGV[2])), ARGV[2] }"


@pytest.fixture(autouse=True)
def texts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scripts of the tests' own."""
    for name, text in {"t_echo": ECHO, "t_count": COUNT, "t_wrong": WRONG, "t_big": BIG}.items():
        monkeypatch.setitem(scripts._texts, name, text)  # noqa: SLF001


@pytest.fixture(scope="module")
def own() -> Iterator[Valkey]:
    """A server whose settings may be changed, and whose connections cut."""
    with Valkey() as server:
        yield server


@pytest.fixture(scope="module")
def prefixes(own: Valkey) -> Iterator[Prefixes]:
    with Prefixes(own.url) as prefixes:
        yield prefixes


@pytest.fixture
def prefix(prefixes: Prefixes) -> Iterator[Prefix]:
    with prefixes.bare() as prefix:
        yield prefix


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that says nothing is given up soon."""
    monkeypatch.setattr(lane_, "silence", lambda *_: 1000)


@contextmanager
def between(prefix: Prefix) -> Iterator[tuple[Proxy, str]]:
    """A proxy before the server, and the place's URL through it."""
    parts = urlsplit(prefix.url)
    assert parts.hostname is not None
    assert parts.port is not None
    with resp(parts.hostname, parts.port) as proxy:
        yield proxy, parts._replace(netloc=f"127.0.0.1:{proxy.port}").geturl()


@asynccontextmanager
async def through_proxy(prefix: Prefix) -> AsyncIterator[tuple[Proxy, Lane]]:
    with between(prefix) as (proxy, url):
        async with lane(url) as it:
            yield proxy, it


def cut_all(prefix: Prefix) -> None:
    """The server ends the connections of others."""
    with operator(prefix.server) as connection:
        mine = connection.client_id()
        for client in connection.client_list(_type="normal"):
            if int(client["id"]) != mine and client["name"].startswith("holdfast-"):
                connection.client_kill_filter(_id=client["id"])


async def answers(lane: Lane) -> bool:
    try:
        return bool(await lane.script("t_count", keys_of(lane), "x"))
    except StoreAway:
        return False


# --- replies and those who wait for them


async def test_callers_at_once_get_each_their_own_reply_also_when_others_leave(prefix: Prefix) -> None:
    async with lane(prefix.url) as it:
        words = [f"word {n}" * random.randint(1, 50) for n in range(200)]
        calls = [asyncio.ensure_future(it.script("t_echo", keys_of(it), word)) for word in words]
        await asyncio.sleep(0)
        left = set(random.sample(range(200), 100))
        for n in left:
            calls[n].cancel()
        replies = await asyncio.gather(*calls, return_exceptions=True)
        for n, (word, reply) in enumerate(zip(words, replies, strict=True)):
            assert isinstance(reply, asyncio.CancelledError) if n in left else reply == word.encode()


async def test_a_caller_that_leaves_lets_his_call_go_on_to_its_end(prefix: Prefix) -> None:
    async with lane(prefix.url) as it:
        assert await it.script("t_count", keys_of(it), "x") == 1
        call = asyncio.ensure_future(it.script("t_count", keys_of(it), "x"))
        await asyncio.sleep(0)
        call.cancel()
        assert await it.script("t_count", keys_of(it), "x") == 3


@pytest.mark.parametrize("protocol", [2, 3])
async def test_long_replies_come_whole(prefix: Prefix, protocol: int) -> None:
    async with lane(f"{prefix.url}&protocol={protocol}") as it:
        sizes = [5_000_000, 0, 1, 70_000]
        replies = await it.scripts([("t_big", keys_of(it), (size,)) for size in sizes])
        assert [(len(text), int(size)) for text, size in replies] == [(size, size) for size in sizes]


async def test_long_commands_go_whole_also_when_callers_leave_in_the_middle(prefix: Prefix) -> None:
    async with lane(prefix.url) as it:
        await it.script("t_echo", keys_of(it), "warm")
        words = [random.randbytes(3_000_000) for _ in range(6)]
        calls = [asyncio.ensure_future(it.script("t_echo", keys_of(it), word)) for word in words]
        await asyncio.sleep(0)
        for call in calls[::2]:
            call.cancel()
        assert await asyncio.gather(*calls[1::2]) == words[1::2]


async def test_short_and_long_commands_at_once_get_each_their_own_reply(prefix: Prefix) -> None:
    async with lane(prefix.url) as it:
        await it.script("t_echo", keys_of(it), "warm")
        words = [b"%d " % n + b"x" * random.choice([0, 70_000, 300_000]) for n in range(50)]
        assert await asyncio.gather(*(it.script("t_echo", keys_of(it), word) for word in words)) == words


@asynccontextmanager
async def echoing(go: asyncio.Event, pieces: int = 1) -> AsyncIterator[str]:
    """Something that greets like a Redis, and reads on when it may; it answers with the last word, in pieces."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, EOFError):
            while True:
                name, *rest = words(await frame(reader))
                if name in (b"HELLO", b"CLIENT"):
                    writer.write(b"%0\r\n" if name == b"HELLO" else b"+OK\r\n")
                    continue
                await go.wait()
                answer = b"$%d\r\n%b\r\n" % (len(rest[-1]), rest[-1])
                size = -(-len(answer) // pieces)
                for start in range(0, len(answer), size):
                    writer.write(answer[start : start + size])
                    await asyncio.sleep(0.2 if pieces > 1 else 0)
        writer.close()

    async with listening(serve) as url:
        yield url


async def test_a_short_command_behind_a_full_socket_may_be_left_and_harms_no_other() -> None:
    go = asyncio.Event()
    async with echoing(go) as url, lane(url) as it:
        first = asyncio.ensure_future(it.commands([("ECHO", "first")]))
        long = [asyncio.ensure_future(it.commands([("ECHO", b"%d" % n * 6_000_000)])) for n in range(2)]
        short = asyncio.ensure_future(it.commands([("ECHO", "short")]))
        await asyncio.wait([first, *long, short], timeout=0.05)
        short.cancel()
        last = asyncio.ensure_future(it.commands([("ECHO", "last")]))
        await asyncio.wait([last, short], timeout=0.05)
        go.set()
        replies = await asyncio.gather(first, *long, last)
        assert [reply[:5] for [reply] in replies] == [b"first", b"00000", b"11111", b"last"]
        assert it.repeats == 0


@pytest.mark.usefixtures("hurried")
async def test_a_long_reply_on_a_slow_way_is_no_silence() -> None:
    go = asyncio.Event()
    go.set()
    async with echoing(go, pieces=8) as url, lane(url) as it:
        assert await it.commands([("ECHO", "x" * 800)]) == [b"x" * 800]
        assert it.repeats == 0, "1.6 s in all, and never 1 s of silence"


async def test_a_reply_that_cannot_be_read_ends_the_connection_and_the_call_is_away() -> None:
    async with saying(b"-MOVED x\r\n", to=(b"ECHO",)) as url, lane(url) as it:
        with pytest.raises(StoreAway, match="another protocol"):
            await it.commands([("ECHO", "x")])


async def test_one_that_is_refused_holds_up_no_other_and_stands_in_its_place(prefix: Prefix) -> None:
    async with lane(prefix.url) as it:
        await it.commands([("ZADD", keys_of(it)[4], 1, "x")])
        steps = [
            it.step("t_echo", keys_of(it), ("a",)),
            it.step("t_wrong", keys_of(it)),
            it.command("NOSUCH", "what a job was given"),
            it.step("t_echo", keys_of(it), ("b",)),
        ]
        first, wrong, unknown, last = await it.each(steps)
        assert (first, last) == (b"a", b"b")
        assert "another type than ours" in str(wrong)
        assert "NOSUCH" in str(unknown)
        assert "given" not in str(unknown), "it may be a secret"
        with pytest.raises(StoreError, match="another type"):
            await it.ask(steps)


# --- scripts that the server forgets


async def test_scripts_that_the_server_forgot_are_loaded_again(prefix: Prefix) -> None:
    async with lane(prefix.url) as it:
        with operator(prefix.server) as connection:
            for _ in range(3):
                assert await it.script("t_count", keys_of(it), "one") is not None
                connection.script_flush()
            names = [f"n{n}" for n in range(20)]
            await it.scripts([("t_count", keys_of(it), (name,)) for name in names])
            connection.script_flush()
            calls = [it.script("t_count", keys_of(it), name) for name in names]
            assert await asyncio.gather(*calls) == [2] * 20, "a script was run twice, or not at all"


# --- connections that are lost


@pytest.mark.parametrize("name", ["claim", "beat"])
def test_what_keeps_a_lease_is_told_again_before_the_lease_is_over(name: str) -> None:
    assert 2 * limits.silence(name, LEASE) < LEASE


@pytest.mark.parametrize("name", ["enqueue", "finish"])
def test_a_server_that_waits_for_its_replicas_is_not_given_up(name: str) -> None:
    where = place("redis://h?wait=1&wait_timeout=30000")
    assert lane_._silence(name, where) > 30_000 + lane_._silence(name, place("redis://h")) / 2  # noqa: SLF001


async def test_a_call_whose_connection_was_cut_is_asked_again_on_a_fresh_one(prefix: Prefix) -> None:
    async with lane(prefix.url) as it:
        assert await it.script("t_count", keys_of(it), "x") == 1
        cut_all(prefix)
        assert await it.script("t_count", keys_of(it), "x") == 2


async def test_a_call_whose_reply_is_lost_is_asked_again_once_and_may_have_been_done_twice(prefix: Prefix) -> None:
    async with through_proxy(prefix) as (proxy, it):
        assert await it.script("t_count", keys_of(it), "x") == 1
        proxy.lose_every = proxy.replies + 1
        assert await it.script("t_count", keys_of(it), "x") == 3


async def test_a_call_whose_reply_is_lost_twice_is_away_and_nobody_knows_whether_it_was_done(prefix: Prefix) -> None:
    async with through_proxy(prefix) as (proxy, it):
        assert await it.script("t_count", keys_of(it), "x") == 1
        proxy.lose_every = 1
        with pytest.raises(StoreAway) as away:
            await it.script("t_count", keys_of(it), "x")
        assert not away.value.certain
        proxy.lose_every = 0
        assert await it.script("t_count", keys_of(it), "x") == 4


async def test_nothing_was_done_where_there_was_no_connection(prefix: Prefix) -> None:
    async with through_proxy(prefix) as (proxy, it):
        proxy.refuses = True
        with pytest.raises(StoreAway) as away:
            await it.script("t_count", keys_of(it), "x")
        assert away.value.certain
        proxy.refuses = False
        assert await it.script("t_count", keys_of(it), "x") == 1


async def test_many_callers_find_out_together_that_the_server_is_away(prefix: Prefix) -> None:
    async with through_proxy(prefix) as (proxy, it):
        proxy.refuses = True
        calls = [it.script("t_count", keys_of(it), "x") for _ in range(100)]
        for answer in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(answer, StoreAway)
        assert proxy.accepted == 1


async def test_calls_that_a_silent_server_does_not_answer_are_asked_again_when_they_are_cut_off(prefix: Prefix) -> None:
    async with through_proxy(prefix) as (proxy, it):
        assert await it.script("t_count", keys_of(it), "x") == 1
        proxy.deaf = True
        calls = [asyncio.ensure_future(it.script("t_count", keys_of(it), "x")) for _ in range(3)]
        await asyncio.wait(calls, timeout=0.05)
        assert not any(call.done() for call in calls)
        proxy.deaf = False
        proxy.cut()
        replies = sorted(await asyncio.gather(*calls))
        assert replies == list(range(replies[0], replies[0] + 3))


@pytest.mark.usefixtures("hurried")
async def test_a_server_that_stays_silent_is_away(prefix: Prefix) -> None:
    with between(prefix) as (proxy, url):
        async with lane(f"{url}&connect_timeout=1") as it:
            assert await it.script("t_count", keys_of(it), "x") == 1
            proxy.deaf = True
            with pytest.raises(StoreAway, match=r"no answer within \d"):
                await it.script("t_count", keys_of(it), "x")
            proxy.deaf = False
            proxy.cut()
            async with asyncio.timeout(30):
                while not await answers(it):
                    pass


@pytest.mark.usefixtures("hurried")
async def test_an_answer_that_comes_piece_by_piece_is_waited_for(prefix: Prefix) -> None:
    async with through_proxy(prefix) as (proxy, it):
        await it.script("t_echo", keys_of(it), "warm")
        proxy.delay = 0.1
        replies = await it.scripts([("t_echo", keys_of(it), (n,)) for n in range(12)])
        assert replies == [b"%d" % n for n in range(12)]
        assert proxy.accepted == 1, "1.2 s in all, and never 1 s of silence"


# --- closing


async def test_a_lane_that_was_closed_opens_nothing_any_more(prefix: Prefix) -> None:
    async with lane(prefix.url) as it:
        await it.script("t_echo", keys_of(it), "x")
        await it.close()
        with pytest.raises(StoreError, match="was closed"):
            await it.script("t_echo", keys_of(it), "x")


def test_nothing_of_a_connection_that_was_still_being_made_outlives_the_close() -> None:
    async def close_after(steps: int, url: str) -> None:
        it = Lane("work", place(url))
        call = asyncio.ensure_future(it.commands([("PING",)]))
        for _ in range(steps):
            await asyncio.sleep(0)
        call.cancel()
        await asyncio.wait([call])
        await it.close()

    with socket.create_server(("127.0.0.1", 0)) as silent, warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("ignore")
        gc.collect()  # what others have left
        warnings.simplefilter("always")
        for steps in range(20):
            loop = asyncio.new_event_loop()
            loop.run_until_complete(close_after(steps, f"redis://127.0.0.1:{silent.getsockname()[1]}"))
            loop.close()
        gc.collect()
    assert not [str(warning.message) for warning in warned]


async def test_whoever_cancels_close_ends_the_calls_in_flight(prefix: Prefix) -> None:
    with between(prefix) as (proxy, url):
        store = open_store(url)
        await store.open()
        await store.enqueue([draft()])
        proxy.deaf = True
        calls = [asyncio.ensure_future(call) for call in (store.enqueue([draft()]), store.stats())]
        await asyncio.wait(calls, timeout=0.05)
        closing = asyncio.ensure_future(store.close())
        await asyncio.wait([closing], timeout=0.05)
        assert not closing.done(), "it waits for the calls in flight"
        closing.cancel()
        async with asyncio.timeout(30):
            for answer in await asyncio.gather(*calls, return_exceptions=True):
                assert isinstance(answer, StoreError)
            with pytest.raises(asyncio.CancelledError):
                await closing


# --- another server behind the name


async def test_a_server_that_became_a_replica_is_away_until_it_is_none_any_more(own: Valkey) -> None:
    async with opened(f"{own.url}?prefix=demoted") as store:
        await store.enqueue([draft()])
        said(own, "REPLICAOF", "127.0.0.1", 1)
        try:
            with pytest.raises(StoreAway, match="replica") as away:
                await store.enqueue([draft()])
            assert away.value.certain
        finally:
            said(own, "REPLICAOF", "NO", "ONE")
        [receipt] = await store.enqueue([draft()])
        assert receipt.created


async def test_a_full_server_is_away_and_says_so(own: Valkey) -> None:
    async with opened(f"{own.url}?prefix=filled") as store:
        await store.enqueue([draft()])
        said(own, "CONFIG", "SET", "maxmemory", "1")
        try:
            with pytest.raises(StoreAway, match=r"out of memory \(maxmemory\)") as away:
                await store.enqueue([draft()])
            assert (away.value.full, away.value.certain) == (True, True)
        finally:
            said(own, "CONFIG", "SET", "maxmemory", "0")
        assert len(await store.find(Where())) == 1


async def test_what_was_stored_in_part_is_not_said_to_be_nothing(own: Valkey) -> None:
    """Some of a call's jobs are stored, and others find a full server."""
    async with opened(f"{own.url}?prefix=partly") as store:
        await store.enqueue([draft()])
        room = int(said(own, "INFO", "memory").partition("used_memory:")[2].split()[0]) + 4_000_000
        said(own, "CONFIG", "SET", "maxmemory", room)
        try:
            with pytest.raises(StoreAway, match="out of memory") as away:
                await store.enqueue([replace(draft(), payload=b"x" * 400_000) for _ in range(40)])
            assert away.value.full
            assert not away.value.certain
        finally:
            said(own, "CONFIG", "SET", "maxmemory", "0")
        assert 1 < len(await store.find(Where())) < 41


@pytest.mark.parametrize("made", [{}, {"made": 1_700_000_000_000}, {"made": "x"}], ids=["undated", "older", "damaged"])
async def test_another_store_behind_the_name_is_left_alone(prefix: Prefix, made: dict[str, str]) -> None:
    async with opened(prefix.url) as store:
        await store.enqueue([draft()])
        with operator(prefix.server) as connection:
            connection.hdel(f"{{{prefix.name}}}:meta", "made")
            connection.hset(f"{{{prefix.name}}}:meta", mapping={"store": str(uuid4()), **made})
            cut_all(prefix)
            before = connection.keys(f"{{{prefix.name}[:}}]*")
            words = "another program's" if made.get("made") == "x" else "another store than the one that was opened"
            with pytest.raises(StoreAway, match=words):
                await store.enqueue([draft()])
            assert sorted(connection.keys(f"{{{prefix.name}[:}}]*")) == sorted(before)


async def test_a_store_that_only_newer_code_can_serve_by_now_is_left_alone(prefix: Prefix) -> None:
    async with opened(prefix.url) as store:
        with operator(prefix.server) as connection:
            connection.hset(f"{{{prefix.name}}}:meta", mapping={"layout": 4, "oldest_code": 3})
        cut_all(prefix)
        with pytest.raises(StoreAway, match="newer Holdfast"):
            await store.enqueue([draft()])


@pytest.mark.parametrize("cut", [True, False], ids=["restarted", "emptied"])
async def test_a_server_that_lost_everything_is_gone_on_with(
    prefix: Prefix, cut: bool, caplog: pytest.LogCaptureFixture
) -> None:
    worker = uuid4()
    async with opened(prefix.url) as store, opened(prefix.url) as other:
        await store.enqueue([draft()])
        await store.register(worker, None, {})
        with operator(prefix.server) as connection:
            known = connection.hget(f"{{{prefix.name}}}:meta", "store")
            empty(prefix, cut=cut)
            with caplog.at_level(logging.ERROR, "holdfast.store"):
                assert (await store.beat([worker])).gone == {worker}
                assert (await other.beat([worker])).gone == {worker}
                await store.find(Where())
            assert connection.hget(f"{{{prefix.name}}}:meta", "store") == known, "the same store, as all others know it"
        for _, fields in events(caplog, "store-lost"):
            assert "lost" in str(fields["message"])
        assert len(events(caplog, "store-lost")) == 2, "each that connects anew says it, once"
        await goes_on(store, other, worker)


def empty(prefix: Prefix, *, cut: bool) -> None:
    with operator(prefix.server) as connection:
        connection.delete(*connection.keys(f"{{{prefix.name}[:}}]*"))
    if cut:
        cut_all(prefix)


async def goes_on(producer: Store, consumer: Store, worker: UUID) -> None:
    await consumer.register(worker, None, {})
    [receipt] = await producer.enqueue([draft()])
    [claim] = (await consumer.claim(worker, 1, None, 10)).jobs
    assert claim.id == receipt.id


@pytest.mark.parametrize("by", ["worker", "producer"])
@pytest.mark.parametrize("cut", [True, False], ids=["restarted", "emptied"])
async def test_what_a_process_declared_is_declared_again_where_the_server_has_lost_it(
    prefix: Prefix, cut: bool, by: Authority
) -> None:
    bound = QueueTerms(2, "reject")
    async with opened(prefix.url) as store:
        await store.configure({"q": bound}, by)
        for _ in range(2):
            answers = [(await store.enqueue([draft()]))[0].answer for _ in range(4)]
            assert answers == ["accepted", "accepted", "full", "full"]
            if cut:
                empty(prefix, cut=cut)
                receipts = await store.enqueue([draft() for _ in range(4)])  # on the connection that finds it empty
                assert [receipt.answer for receipt in receipts] == ["accepted", "accepted", "full", "full"]
            [queue] = (await store.stats()).queues
            assert queue.terms == bound
            empty(prefix, cut=cut)


async def test_a_worker_declares_again_where_the_server_has_lost_it(prefix: Prefix) -> None:
    worker = uuid4()
    async with opened(prefix.url) as store:
        await store.configure({"q": QueueTerms(2, "reject")}, "worker")
        await store.register(worker, None, {})
        empty(prefix, cut=True)
        assert (await store.beat([worker])).gone == {worker}
        await store.register(uuid4(), None, {})
        async with opened(prefix.url) as other:
            answers = [(await other.enqueue([draft()]))[0].answer for _ in range(3)]
            assert answers == ["accepted", "accepted", "full"]


async def test_a_server_that_lost_everything_and_was_begun_anew_by_another_process_is_gone_on_with(
    prefix: Prefix, caplog: pytest.LogCaptureFixture
) -> None:
    worker = uuid4()
    async with opened(prefix.url) as producer, opened(prefix.url) as consumer:
        await producer.enqueue([draft()])
        await consumer.register(worker, None, {})
        for _ in range(2):  # it may happen again
            caplog.clear()
            empty(prefix, cut=True)
            async with opened(prefix.url):
                pass  # it never saw the old one, and is the first to come
            with caplog.at_level(logging.ERROR, "holdfast.store"):
                assert (await consumer.beat([worker])).gone == {worker}
                assert await consumer.find(Where()) == []
                await goes_on(producer, consumer, worker)
            assert len(events(caplog, "store-lost")) == 2, "each of the two says it, once"
        twin = consumer.twin()
        await twin.open()
        assert len(await twin.find(Where())) == 1
        await twin.close()


# --- forks

FORKED = """
    import asyncio, os, sys
    from holdfast.stores import open_store
    from tests.stores.redis_places import draft

    async def main(store, forks):
        await store.open()
        await store.enqueue([draft()])
        if forks:
            child = os.fork()
            if not child:
                asyncio._set_running_loop(None)
                asyncio.run(store.close())  # which is its parent's
                asyncio.run(main(store.twin(), False))
                sys.stdout.flush()
                os._exit(0)
            _, status = os.waitpid(child, 0)
            assert status == 0, status
            await asyncio.gather(*(store.enqueue([draft()]) for _ in range(20)))
            await store.stats()
        await store.close()

    asyncio.run(main(open_store(sys.argv[1]), True))
"""


async def test_a_forked_child_uses_the_store_and_leaves_its_parents_connections_alone(prefix: Prefix) -> None:
    await run(FORKED, prefix.url)
    async with opened(prefix.url) as store:
        assert len(await store.find(Where(), limit=50)) == 22


# --- what is sent


def test_commands_are_the_same_with_and_without_hiredis() -> None:
    for arguments in ([], ["x", 7, b"y"], [True, False], ["\u00e4" * 3, -5, 2**53, b"", ""], [State.SUCCEEDED]):
        assert resp_.packed(arguments) == resp_._plainly_packed(arguments)  # noqa: SLF001


def test_a_script_takes_along_only_what_it_needs_of_the_parts() -> None:
    """The server makes each function anew at each call."""
    text = scripts.script("queues").text.decode()
    assert "local function now" in text
    assert "READY" not in text, "a script of the registry has no keys of a queue"
    for name in scripts.names():
        script = place("redis://h").script(name)
        assert script.text.decode().count("local function now(") <= 1, name
        assert "-- KEYS" not in script.text.decode(), "comments stay here"
