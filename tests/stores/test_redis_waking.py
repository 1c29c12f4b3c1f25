"""Waking on Redis: messages between processes, users who may not publish, connections that end, a server that is full.

Each store here is opened apart from the others, as in a process of its own: nothing but the server is shared.
"""
# ruff: noqa: SLF001

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from unittest.mock import AsyncMock
from urllib.parse import quote, urlsplit

import pytest
import redis.asyncio

from holdfast.job import Released
from holdfast.stores import hearing, open_store
from holdfast.stores.redis import listener, waking
from holdfast.stores.redis.lane import Lane
from holdfast.stores.redis.place import queue_keys
from holdfast.stores.redis.store import RedisStore
from tests import servers
from tests.flows.proxy import Proxy
from tests.servers.prefixes import Prefix
from tests.store.acts import PATIENCE, draft, finish, hand, running, stored

NEVER = 3600.0  # seconds


@pytest.fixture
def no_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits looks once, and then hears or does not."""
    for name in ("SELDOM", "OFTEN"):
        monkeypatch.setattr(waking, name, NEVER)


@pytest.fixture
def prefix() -> Iterator[Prefix]:
    with servers.valkey().bare() as prefix:
        yield prefix


@pytest.fixture
async def opened() -> AsyncIterator[Callable[[str], Awaitable[RedisStore]]]:
    async with AsyncExitStack() as stack:

        async def open_one(url: str) -> RedisStore:
            store = open_store(url)
            assert isinstance(store, RedisStore)
            await store.open()
            stack.push_async_callback(store.close)
            return store

        yield open_one


Opened = Callable[[str], Awaitable[RedisStore]]


def hears(store: RedisStore) -> bool:
    return store._opened().waking._listener.hearing.now


async def until(condition: Callable[[], object], what: str) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110  # it looks at what others do
            await asyncio.sleep(0.005)
    assert condition(), what


async def listening(store: RedisStore, *queues: str) -> asyncio.Task[bool]:
    """A wait that can be woken by a message: it is heard, and those who queue jobs are asked to send it."""
    waiting = asyncio.create_task(store.wait(queues or None, 10 * PATIENCE))
    await until(lambda: hears(store) or waiting.done(), "the listener does not hear")
    async with raw(store) as server:
        await all_idle(store, server, *queues)
    assert not waiting.done()
    return waiting


async def all_idle(store: RedisStore, server: Any, *queues: str) -> None:
    """Waits until it is asked to be rung for all of them."""
    async with asyncio.timeout(PATIENCE):
        for queue in queues:
            while not await server.exists(idle_key(store, queue)):  # noqa: ASYNC110  # it looks at what others do
                await asyncio.sleep(0.005)


def idle_key(store: RedisStore, queue: str) -> str:
    return f"{queue_keys(store._place, queue).base}idle"


async def woken(waiting: asyncio.Task[bool]) -> bool:
    async with asyncio.timeout(PATIENCE):
        return await waiting


@asynccontextmanager
async def raw(store: RedisStore) -> AsyncIterator[Any]:
    """A client that is not ours, to the same server."""
    address = store._place.address
    client: Any = redis.asyncio.Redis(host=address.host, port=address.port, db=address.db)
    try:
        yield client
    finally:
        await client.aclose()


@asynccontextmanager
async def overheard(store: RedisStore) -> AsyncIterator[list[str]]:
    """All that is rung for while this is entered."""
    rung: list[str] = []
    async with raw(store) as client, client.pubsub() as ear:
        await ear.subscribe(store._place.channel)
        await ear.get_message(timeout=PATIENCE)

        async def hear() -> None:
            async for message in ear.listen():
                rung.append(message["data"].decode())  # noqa: PERF401  # it never ends

        hearing_ = asyncio.create_task(hear())
        try:
            yield rung
        finally:
            hearing_.cancel()
            await asyncio.wait([hearing_])


def told(caplog: pytest.LogCaptureFixture) -> list[Any]:
    """What the log says of waking: of a server that keeps nothing it says so, too."""
    return [line.msg for line in caplog.records if line.levelno >= logging.WARNING and line.msg.event != "durability"]


@pytest.mark.usefixtures("no_looks")
@pytest.mark.parametrize("options", ["", "&protocol=2"], ids=["RESP3", "RESP2"])
async def test_a_job_of_another_process_is_heard_of(opened: Opened, prefix: Prefix, options: str) -> None:
    waiting = await listening(await opened(prefix.url + options), "mail")
    producer = await opened(prefix.url + options)
    await stored(producer, draft(queue="other"))
    assert not waiting.done()
    await stored(producer, draft())
    assert await woken(waiting)


@pytest.mark.usefixtures("no_looks")
async def test_whatever_queues_a_job_elsewhere_is_heard_of(opened: Opened, prefix: Prefix) -> None:
    worker, other = await opened(prefix.url), await opened(prefix.url)
    given_back = await running(other, await hand(other), queue="mail")
    waiting = await listening(worker, "mail")
    await finish(other, given_back, Released())
    assert await woken(waiting)


@pytest.mark.usefixtures("no_looks")
async def test_a_queue_that_nobody_knew_is_heard_of_where_all_are_waited_for(opened: Opened, prefix: Prefix) -> None:
    worker, producer = await opened(prefix.url), await opened(prefix.url)
    waiting = await listening(worker)
    await stored(producer, draft(queue="new"))
    assert await woken(waiting)


@pytest.mark.usefixtures("no_looks")
async def test_two_prefixes_on_a_server_do_not_wake_each_other(opened: Opened, prefix: Prefix) -> None:
    with servers.valkey().bare() as another:
        waiting = await listening(await opened(prefix.url), "mail")
        elsewhere = await opened(another.url)
        also = await listening(elsewhere, "mail")
        await stored(elsewhere, draft())
        assert await woken(also)
        assert not waiting.done()
        waiting.cancel()


async def test_one_message_is_sent_each_time_that_somebody_went_idle_and_none_under_load(
    opened: Opened, prefix: Prefix
) -> None:
    worker, producer = await opened(prefix.url), await opened(prefix.url)
    one = await hand(worker)
    await stored(producer, draft(), draft(queue="last"))  # a new queue is told of by itself
    assert len(await one.claim(100, ["mail", "last"])) == 2
    async with overheard(producer) as rung:
        for _ in range(2):
            waiting = await listening(worker, "mail", "last")
            rung.clear()
            for _ in range(30):
                await stored(producer, draft(), draft())
            assert await woken(waiting)
            await stored(producer, draft(queue="last"))
            await until(lambda: "last" in rung, f"rung for: {rung}")
            assert rung == ["mail", "last"]
            assert len(await one.claim(100, ["mail", "last"])) == 61


@pytest.mark.usefixtures("no_looks")
async def test_a_listener_whose_connection_is_ended_comes_back(
    opened: Opened, prefix: Prefix, caplog: pytest.LogCaptureFixture
) -> None:
    worker = await opened(prefix.url)
    waiting = await listening(worker, "mail")
    async with raw(worker) as server:
        ended = [
            await server.client_kill_filter(_id=client["id"])
            for client in await server.client_list()
            if client["name"] == "holdfast-listen" and int(client["sub"])
        ]
        assert ended, "nobody listens"
        await until(lambda: not hears(worker), "it has not noticed")
        await server.delete(idle_key(worker, "mail"))  # as if it was rung for meanwhile
        await until(lambda: hears(worker), "it does not come back")
        await all_idle(worker, server, "mail")
    await stored(await opened(prefix.url), draft())
    assert await woken(waiting)
    assert not told(caplog)


@pytest.mark.usefixtures("no_looks")
async def test_what_was_rung_for_while_nobody_listened_is_looked_for(
    opened: Opened, prefix: Prefix, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = asyncio.Event()
    listen = listener.Listener._listen

    async def later(self: listener.Listener) -> None:
        await free.wait()
        await listen(self)

    monkeypatch.setattr(listener.Listener, "_listen", later)
    worker = await opened(prefix.url)
    waiting = asyncio.create_task(worker.wait(["mail"], PATIENCE))
    await until(lambda: worker._opened().waking._listener._task, "it has not looked")
    await stored(await opened(prefix.url), draft())
    await asyncio.wait([waiting], timeout=0.05)
    assert not waiting.done()
    free.set()
    assert await woken(waiting)


@pytest.mark.usefixtures("no_looks")
async def test_a_connection_that_falls_silent_is_given_up(
    opened: Opened, prefix: Prefix, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "CHECK", 0.05)
    monkeypatch.setattr(listener, "LISTEN", 300)
    monkeypatch.setattr(listener.Listener, "_answers", AsyncMock(return_value=False))  # the other lanes wait longer
    server = urlsplit(prefix.url)
    with Proxy("127.0.0.1", server.port or 6379, _speaks()) as proxy:
        worker = await opened(server._replace(netloc=f"127.0.0.1:{proxy.port}").geturl())
        waiting = await listening(worker, "mail")
        proxy.deaf = True
        await until(lambda: not hears(worker), "it takes silence for an answer")
        proxy.deaf = False
        proxy.cut()
        await until(lambda: hears(worker), "it does not come back")
        await stored(await opened(prefix.url), draft())
        assert await woken(waiting)


def _speaks() -> Any:
    from tests.flows import resp

    return resp.RespSession


@pytest.mark.parametrize("without", ["resetchannels", "-publish", "-subscribe"])
async def test_who_may_not_hear_is_told_once_and_jobs_are_found_by_looking(
    without: str, opened: Opened, prefix: Prefix, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(hearing, "DEAF", 0.01)
    admin = await opened(prefix.url)
    name = f"quiet-{prefix.name.replace(' ', '-')}"
    async with raw(admin) as server:
        await server.execute_command("ACL", "SETUSER", name, "on", ">secret", "~*", "&*", "+@all", without)
        try:
            parts = urlsplit(prefix.url)
            url = parts._replace(netloc=f"{quote(name)}:secret@{parts.netloc}").geturl()
            worker, producer = await opened(url), await opened(url)
            for _ in range(2):
                waiting = asyncio.create_task(worker.wait(["mail"], PATIENCE))
                await until(lambda: any("deaf" in str(line.msg) for line in caplog.records), "it is not said")
                await asyncio.wait([waiting], timeout=0.1)
                assert not waiting.done()
                [job] = await stored(producer, draft())  # a script goes on where it may not ring
                assert await woken(waiting)
                assert [claim.id for claim in await (await hand(worker)).claim(10, ["mail"])] == [job]
        finally:
            await server.execute_command("ACL", "DELUSER", name)
    [deaf] = told(caplog)
    assert deaf.event == "deaf"
    assert worker._place.channel in str(deaf)
    assert "secret" not in str(deaf)


async def test_what_is_published_to_try_the_way_is_no_queue(opened: Opened, prefix: Prefix) -> None:
    worker, other = await opened(prefix.url), await opened(prefix.url)
    waiting = await listening(worker, "mail")
    hints = list[str]()
    worker._place.waiters.hint = hints.extend  # type: ignore[method-assign]
    also = await listening(other, "mail")  # its probe comes to the first, too
    async with raw(worker) as server:
        await server.publish(worker._place.channel, "nobody's")
    await until(lambda: hints, "the message")
    assert hints == ["nobody's"]
    assert worker._place.filled <= {"mail"}
    for it in (waiting, also):
        it.cancel()


@pytest.mark.usefixtures("no_looks")
async def test_a_wait_looks_once_where_nothing_comes(opened: Opened, prefix: Prefix) -> None:
    store = await opened(prefix.url)
    (await listening(store, "mail")).cancel()  # from here on nothing is news
    it = store._opened().waking
    looks = []

    class Look(Lane):
        async def each(self, steps: Any) -> Any:
            looks.append(steps)
            return await super().each(steps)

    it._look = Look("claim", store._place)
    try:
        assert await store.wait(["mail"], 0.2) is False
        assert len(looks) == 1
    finally:
        await it._look.close()


async def test_looks_grow_rare_as_time_goes_by_and_come_at_least_every_second(opened: Opened, prefix: Prefix) -> None:
    it = (await opened(prefix.url))._opened().waking
    it._listener.hearing.now = False
    it.found()
    assert it._pause() < 0.1
    for idle in (10.0, 1e9):
        it._found_at = asyncio.get_running_loop().time() - idle
        assert 0.8 <= it._pause() <= 1.0
    it._listener.hearing.now = True
    it.found()
    assert 0.8 <= it._pause() <= 1.0


async def test_a_wait_on_a_full_server_still_finds_jobs(opened: Opened) -> None:
    """It cannot ask to be rung for: that takes memory."""
    from tools.servers import Valkey

    with Valkey() as server:
        worker = await opened(server.url)
        waiting = await listening(worker, "mail")
        [job] = await stored(worker, draft())
        assert await woken(waiting)
        server.say("CONFIG", "SET", "maxmemory", "1mb")
        assert "OOM" in server.say("SET", "any", "thing")
        async with asyncio.timeout(PATIENCE):
            assert await worker.wait(["mail"], NEVER)
        assert [claim.id for claim in await (await hand(worker)).claim(10, ["mail"])] == [job]
        assert await worker.wait(["mail"], 0) is False


@pytest.mark.usefixtures("no_looks")
async def test_a_store_that_is_closed_ends_its_waits_and_leaves_nothing_behind(opened: Opened, prefix: Prefix) -> None:
    observer = await opened(prefix.url)
    before = asyncio.all_tasks()
    store = open_store(prefix.url)
    assert isinstance(store, RedisStore)
    await store.open()
    waiting = await listening(store, "mail")
    await store.close()
    assert await woken(waiting) is False
    assert asyncio.all_tasks() <= before
    async with raw(observer) as server:

        async def subscribers() -> int:
            [(_, number)] = await server.pubsub_numsub(observer._place.channel)
            return int(number)

        async with asyncio.timeout(PATIENCE):
            while await subscribers():  # noqa: ASYNC110  # it looks at what others do
                await asyncio.sleep(0.005)


async def test_nothing_is_written_by_those_who_stay_idle(opened: Opened, prefix: Prefix) -> None:
    """Asked once to be rung for, a queue stays so until it is rung."""
    worker = await opened(prefix.url)
    waiting = await listening(worker, "mail")
    waiting.cancel()
    async with raw(worker) as server:
        left = await server.pttl(idle_key(worker, "mail"))
        for _ in range(3):
            assert await worker.wait(["mail"], 0) is False
        assert await server.pttl(idle_key(worker, "mail")) <= left, "it was written again"
