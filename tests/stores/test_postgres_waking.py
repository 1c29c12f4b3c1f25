"""Waking on PostgreSQL: notifications between processes, poolers that swallow them, connections that end.

Each store here is opened apart from the others, as in a process of its own: nothing but the database is shared.
"""
# ruff: noqa: SLF001

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from urllib.parse import quote, urlsplit

import psycopg
import pytest

from holdfast.errors import StoreAway
from holdfast.job import Released
from holdfast.stores import hearing, open_store
from holdfast.stores.postgres import bell, limits, listener, waking
from holdfast.stores.postgres import lane as lane_
from holdfast.stores.postgres.bell import Bell
from holdfast.stores.postgres.store import PostgresStore
from tests import servers
from tests.servers.places import Database
from tests.store.acts import PATIENCE, draft, finish, hand, running, stored

NEVER = 3600.0  # seconds


@pytest.fixture
def no_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits looks once, and then hears or does not."""
    for name in ("SELDOM", "SOON", "OFTEN"):
        monkeypatch.setattr(waking, name, NEVER)


@pytest.fixture
async def opened() -> AsyncIterator[Callable[[str], Awaitable[PostgresStore]]]:
    async with AsyncExitStack() as stack:

        async def open_one(url: str) -> PostgresStore:
            store = open_store(url)
            assert isinstance(store, PostgresStore)
            await store.open()
            stack.push_async_callback(store.close)
            return store

        yield open_one


Opened = Callable[[str], Awaitable[PostgresStore]]


def hears(store: PostgresStore) -> bool:
    return store._opened().waking.listener.hearing.now


async def until(condition: Callable[[], object], what: str) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110  # it looks at what others do
            await asyncio.sleep(0.005)
    assert condition(), what


async def listening(store: PostgresStore, *queues: str) -> asyncio.Task[bool]:
    """A wait that has looked, and can be woken by a notification."""
    waiting = asyncio.create_task(store.wait(queues or None, PATIENCE))
    await until(lambda: hears(store) or waiting.done(), "the listener does not hear")
    await asyncio.sleep(0)
    assert not waiting.done()
    return waiting


async def woken(waiting: asyncio.Task[bool]) -> bool:
    async with asyncio.timeout(PATIENCE):
        return await waiting


@asynccontextmanager
async def overheard(database: Database, schema: str = "public") -> AsyncIterator[list[str]]:
    """All that is rung for while this is entered."""
    rung: list[str] = []
    async with await psycopg.AsyncConnection.connect(database.dsn, autocommit=True) as ear:
        await ear.execute(psycopg.sql.SQL("LISTEN {}").format(psycopg.sql.Identifier(f"holdfast_{schema}")))

        async def hear() -> None:
            async for notification in ear.notifies():
                rung.append(notification.payload)  # noqa: PERF401  # it never ends

        hearing = asyncio.create_task(hear())
        try:
            yield rung
        finally:
            hearing.cancel()
            await asyncio.wait([hearing])


LONG = "x" * 63
ODD = 'Ring\'s "own" $$ {} $body$ $function$ $name$'


@pytest.mark.usefixtures("no_looks")
@pytest.mark.parametrize("schema", ["public", LONG, ODD])
async def test_a_job_of_another_process_is_heard_of(opened: Opened, schema: str) -> None:
    with servers.postgres().ready(schema) as database:
        waiting = await listening(await opened(database.url), "mail")
        producer = await opened(database.url)
        await stored(producer, draft(queue="other"))
        await stored(producer, draft())
        assert await woken(waiting)


@pytest.mark.usefixtures("no_looks")
async def test_whatever_queues_a_job_elsewhere_is_heard_of(opened: Opened, postgres: Database) -> None:
    worker, other = await opened(postgres.url), await opened(postgres.url)
    given_back = await running(other, await hand(other), queue="mail")
    waiting = await listening(worker, "mail")
    await finish(other, given_back, Released())
    assert await woken(waiting)


@pytest.mark.usefixtures("no_looks")
async def test_a_callers_transaction_rings_with_its_commit(opened: Opened, postgres: Database) -> None:
    waiting = await listening(await opened(postgres.url), "default")
    async with await psycopg.AsyncConnection.connect(postgres.dsn) as caller:
        await caller.execute("""SELECT holdfast_enqueue('[{"task": "shop.send", "args": [42]}]')""")
        await asyncio.wait([waiting], timeout=0.1)
        assert not waiting.done()
        await caller.commit()
        assert await woken(waiting)


async def test_what_is_rung_for_before_a_store_is_closed_is_heard(
    opened: Opened, postgres: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bell, "REST", NEVER)
    async with overheard(postgres) as rung:
        producer = await opened(postgres.url)
        for number in range(3):
            await stored(producer, draft(queue=f"mail-{number}"))
        await stored(producer, draft(queue="mail-1"))
        await producer.close()
        await until(lambda: len(rung) == 4, f"rung for: {rung}")
    assert rung == ["mail-0", "mail-1", "mail-2", "mail-1"]


async def test_a_store_that_is_closed_while_a_wait_looks_leaves_nothing_behind(
    postgres: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, free = asyncio.Event(), asyncio.Event()
    call = lane_.Lane.call

    async def slow(lane: lane_.Lane, function: str, *parameters: Any) -> Any:
        rows = await call(lane, function, *parameters)
        if function == "look":
            asked.set()
            await free.wait()
        return rows

    monkeypatch.setattr(lane_.Lane, "call", slow)
    store = open_store(postgres.url)
    await store.open()
    before = asyncio.all_tasks()
    waiting = asyncio.create_task(store.wait(["mail"], PATIENCE))
    await asked.wait()
    await store.close()
    free.set()
    assert await woken(waiting) is False
    assert asyncio.all_tasks() <= before
    ours = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'holdfast %'"
    with psycopg.connect(postgres.dsn, autocommit=True) as other:
        await until(lambda: not other.execute(ours).fetchall(), "connections that nobody has closed")


@pytest.mark.usefixtures("no_looks")
async def test_one_of_many_jobs_in_a_hurry_rings_and_so_does_the_last(
    opened: Opened, postgres: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bell, "REST", 0.5)
    producer, worker = await opened(postgres.url), await opened(postgres.url)
    async with overheard(postgres) as rung:
        for _ in range(30):
            await stored(producer, draft())
        hand_ = await hand(worker)
        assert len(await hand_.claim(100, ["mail"])) == 30
        waiting = await listening(worker, "mail")
        await stored(producer, draft())
        assert await woken(waiting)
    assert rung.count("mail") < 10


class Lane:
    """Counts what is rung on it."""

    def __init__(self, error: Exception | None = None) -> None:
        self.rung: list[list[str]] = []
        self._error = error

    async def call(self, name: str, queues: list[str]) -> None:
        assert name == "ring"
        self.rung.append(sorted(queues))
        if self._error:
            raise self._error


async def test_a_queue_is_rung_for_at_once_and_once_more_when_its_rest_is_over() -> None:
    lane: Any = Lane()
    it = Bell()
    for _ in range(100):
        it.ring({"mail"}, lane)
    await asyncio.sleep(0)
    assert lane.rung == [["mail"]]
    await until(lambda: len(lane.rung) == 2, "the last")
    it.ring({"other"}, lane)
    await it.close()
    assert lane.rung == [["mail"], ["mail"], ["other"]]


async def test_a_ring_that_fails_is_no_error() -> None:
    lane: Any = Lane(StoreAway("gone"))
    it = Bell()
    it.ring({"mail"}, lane)
    await it.close()
    assert lane.rung == [["mail"]]


async def test_of_many_open_transactions_two_ring(postgres: Database) -> None:
    """All of the same 50 ms; the others would each wait for the disk behind them, at their commit."""
    wake = "SELECT holdfast_wake(ARRAY['mail', 'other'], %s)"
    async with overheard(postgres) as rung, AsyncExitStack() as stack:
        callers = [
            await stack.enter_async_context(await psycopg.AsyncConnection.connect(postgres.dsn)) for _ in range(4)
        ]
        for caller in callers[:3]:
            await caller.execute(wake, [1_000_010])
        await callers[3].execute(wake, [1_000_060])
        for caller in callers:
            await caller.commit()
        await until(lambda: len(rung) >= 6, f"rung for: {rung}")
        await callers[0].execute(wake, [1_000_010])
        await callers[0].commit()
        await until(lambda: len(rung) >= 8, f"rung for: {rung}")
    assert sorted(rung) == ["mail"] * 4 + ["other"] * 4


LOCKS = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"


async def heard_of(caller: psycopg.AsyncConnection[Any], rung: list[str]) -> list[str]:
    """What the caller has rung for so far, with its commit."""
    await caller.commit()
    await caller.execute("SELECT holdfast_ring(ARRAY['over'], 0)")
    await caller.commit()
    await until(lambda: "over" in rung, f"rung for: {rung}")
    return rung[: rung.index("over")]


async def locks_of(caller: psycopg.AsyncConnection[Any]) -> int:
    [count] = await (await caller.execute(LOCKS)).fetchone() or (0,)
    return int(count)


async def test_a_transaction_that_lasts_rings_once_and_keeps_one_lock_for_each_queue(postgres: Database) -> None:
    async with overheard(postgres) as rung, await psycopg.AsyncConnection.connect(postgres.dsn) as caller:
        await caller.execute("SELECT holdfast_wake(ARRAY['mail', 'mail'], n * 50) FROM generate_series(1, 500) AS n")
        await caller.execute("SELECT holdfast_wake(ARRAY['mail', 'other'], n * 50) FROM generate_series(1, 500) AS n")
        assert await locks_of(caller) == 2
        assert sorted(await heard_of(caller, rung)) == ["mail", "other"]


async def test_one_that_left_the_ringing_to_others_rings_for_what_comes_later(postgres: Database) -> None:
    wake = "SELECT holdfast_wake(ARRAY['mail'], %s)"
    async with overheard(postgres) as rung, AsyncExitStack() as stack:
        one, two, three = [
            await stack.enter_async_context(await psycopg.AsyncConnection.connect(postgres.dsn)) for _ in range(3)
        ]
        for caller in (one, two, three):
            await caller.execute(wake, [1_000_010])
        assert await locks_of(three) == 0
        await three.execute(wake, [1_000_060])
        assert await heard_of(three, rung) == ["mail"]


async def test_a_transaction_with_jobs_for_many_queues_rings_for_all_at_once(postgres: Database) -> None:
    wake = "SELECT holdfast_wake(ARRAY(SELECT 'q' || n FROM generate_series(%s::int, %s::int) AS n), 0)"
    async with overheard(postgres) as rung, await psycopg.AsyncConnection.connect(postgres.dsn) as caller:
        for number in range(1, 101):
            await caller.execute(wake, [number, number])
        await caller.execute(wake, [101, 1000])
        assert await locks_of(caller) <= 64
        assert (await heard_of(caller, rung))[-2:] == ["q64", "*"]
        await caller.execute(wake, [1, 65])
        assert await locks_of(caller) == 0
        rung.clear()
        assert await heard_of(caller, rung) == ["*"]


@pytest.mark.usefixtures("no_looks")
async def test_who_waits_is_woken_where_it_is_rung_for_all_queues(opened: Opened, postgres: Database) -> None:
    waiting = await listening(await opened(postgres.url), "q500")
    jobs = [{"task": "shop.send", "queue": f"q{n}"} for n in range(450, 550)]
    async with await psycopg.AsyncConnection.connect(postgres.dsn) as caller:
        await caller.execute("SELECT holdfast_enqueue(%s)", [json.dumps(jobs)])
        await caller.commit()
    assert await woken(waiting)


async def test_what_is_rolled_back_to_a_savepoint_is_rung_for_when_it_comes_again(postgres: Database) -> None:
    wake = "SELECT holdfast_wake(ARRAY['mail'], 0)"
    async with overheard(postgres) as rung, await psycopg.AsyncConnection.connect(postgres.dsn) as caller:
        await caller.execute("SAVEPOINT before")
        await caller.execute(wake)
        await caller.execute("ROLLBACK TO before")
        await caller.execute(wake)
        assert await heard_of(caller, rung) == ["mail"]
        await caller.execute(wake)
        await until(lambda: rung[-1] == "over", "the last")
        rung.clear()
        assert await heard_of(caller, rung) == ["mail"], "the next transaction rings for itself"


async def test_a_transaction_that_says_so_rings_for_nothing(postgres: Database) -> None:
    async with overheard(postgres) as rung, await psycopg.AsyncConnection.connect(postgres.dsn) as caller:
        await caller.execute("SET LOCAL holdfast.notify = off")
        await caller.execute("""SELECT holdfast_enqueue('[{"task": "shop.send", "queue": "mail"}]')""")
        assert await locks_of(caller) == 0
        assert await heard_of(caller, rung) == []
        await caller.execute("""SELECT holdfast_enqueue('[{"task": "shop.send", "queue": "mail"}]')""")
        rung.clear()
        assert await heard_of(caller, rung) == ["mail"]


@pytest.mark.usefixtures("no_looks")
async def test_a_listener_whose_connection_is_ended_comes_back(
    opened: Opened, postgres: Database, caplog: pytest.LogCaptureFixture
) -> None:
    worker = await opened(postgres.url)
    waiting = await listening(worker, "mail")
    end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'holdfast listen'"
    async with await psycopg.AsyncConnection.connect(postgres.dsn, autocommit=True) as other:
        assert len(await (await other.execute(end + " AND datname = current_database()")).fetchall()) == 1
    await until(lambda: not hears(worker), "it has not noticed")
    await until(lambda: hears(worker), "it does not come back")
    await stored(await opened(postgres.url), draft())
    assert await woken(waiting)
    assert not [line for line in caplog.records if line.levelno >= logging.WARNING]


@pytest.mark.usefixtures("no_looks")
async def test_what_was_rung_for_while_nobody_listened_is_looked_for(
    opened: Opened, postgres: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = asyncio.Event()
    connected = listener.connected

    async def later(*parameters: Any) -> Any:
        await free.wait()
        return await connected(*parameters)

    monkeypatch.setattr(listener, "connected", later)
    worker = await opened(postgres.url)
    waiting = asyncio.create_task(worker.wait(["mail"], PATIENCE))
    await until(lambda: worker._opened().waking.listener._task, "it has not looked")
    await stored(await opened(postgres.url), draft())
    await asyncio.wait([waiting], timeout=0.05)
    assert not waiting.done()
    free.set()
    assert await woken(waiting)


@pytest.mark.parametrize("error", [psycopg.OperationalError("connection refused"), ValueError("connection refused")])
async def test_a_listener_that_cannot_connect_says_so_once_and_once_that_it_can(
    error: Exception,
    opened: Opened,
    postgres: Database,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    tries = 0
    connected = listener.connected

    async def refused(*parameters: Any) -> Any:
        nonlocal tries
        tries += 1
        if tries <= 4:
            raise error
        return await connected(*parameters)

    monkeypatch.setattr(listener, "connected", refused)
    monkeypatch.setattr(hearing, "BACKOFF_FIRST", 0.001)
    worker = await opened(postgres.url)
    waiting = asyncio.create_task(worker.wait(["mail"], PATIENCE))
    await until(lambda: hears(worker), "it does not connect")
    told = [line.msg for line in caplog.records if line.name == "holdfast.store"]
    assert [told_.event for told_ in told] == ["not-listening", "listening"]
    assert "connection refused" in str(told[0])
    await stored(await opened(postgres.url), draft())
    assert await woken(waiting)


# --- behind a pooler in transaction mode


async def test_behind_a_pooler_it_is_said_once_and_jobs_are_found_by_looking(
    opened: Opened, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(limits, "LISTEN_PROBE", 100)
    monkeypatch.setattr(hearing, "DEAF", 0.01)
    with servers.pooled().ready() as database:
        worker, producer = await opened(database.url), await opened(database.url)
        for _ in range(2):
            waiting = asyncio.create_task(worker.wait(["mail"], PATIENCE))
            await until(lambda: any("deaf" in str(line.msg) for line in caplog.records), "it is not said")
            await asyncio.wait([waiting], timeout=0.2)
            assert not waiting.done()
            await stored(producer, draft())
            assert await woken(waiting)
            assert len(await (await hand(worker)).claim(10, ["mail"])) == 1
    told = [line.msg for line in caplog.records if line.name == "holdfast.store"]
    assert [told_.event for told_ in told] == ["deaf"]
    assert "listen_url" in str(told[0])


@pytest.mark.usefixtures("no_looks")
async def test_listen_url_leads_past_the_pooler(opened: Opened, caplog: pytest.LogCaptureFixture) -> None:
    with servers.pooled().ready() as database:
        direct = urlsplit(servers.pooled().dsn)._replace(path=urlsplit(database.dsn).path).geturl()
        past = f"{database.url}?listen_url={quote(direct, safe='')}"
        waiting = await listening(await opened(past), "mail")
        await stored(await opened(database.url), draft())
        assert await woken(waiting)
    assert not [line for line in caplog.records if line.name == "holdfast.store"]


# --- looks


async def test_looks_grow_rare_as_time_goes_by_and_come_at_least_every_second(
    opened: Opened, postgres: Database
) -> None:
    it = (await opened(postgres.url))._opened().waking
    for heard in (False, True):
        it.listener.hearing.now = heard
        it._found_at = asyncio.get_running_loop().time()
        it._took = 0.001
        assert it._pause() < 0.1
        it._took = 0.02
        assert it._pause() >= 0.3
        it._took = 0.001
        pauses = []
        for idle in (0.1, 1.0, 10.0, 1e9):
            it._found_at = asyncio.get_running_loop().time() - idle
            pauses.append(it._pause())
        assert pauses[-1] <= 1.0
        assert 0.8 <= pauses[-2] <= 1.0


@pytest.mark.usefixtures("no_looks")
async def test_a_wait_after_an_empty_claim_finds_what_was_queued_meanwhile(opened: Opened, postgres: Database) -> None:
    """The claim was the look, but only for what it saw."""
    worker, producer = await opened(postgres.url), await opened(postgres.url)
    waiting = await listening(worker, "mail")
    await stored(producer, draft())
    assert await woken(waiting)
    mine = await hand(worker)
    assert len(await mine.claim(10, ["mail"])) == 1
    assert not await mine.claim(10, ["mail"])
    heard = worker._opened().waking.latest
    await stored(producer, draft())
    await until(lambda: worker._opened().waking.latest is not heard, "it was not heard")
    async with asyncio.timeout(PATIENCE):
        assert await worker.wait(["mail"], NEVER)


@pytest.mark.usefixtures("no_looks")
async def test_a_job_that_cannot_be_claimed_now_is_not_asked_for_without_end(
    opened: Opened, postgres: Database
) -> None:
    worker = await opened(postgres.url)
    waiting = await listening(worker, "mail")
    job = await stored(worker, draft())
    assert await woken(waiting)
    mine = await hand(worker)
    async with await psycopg.AsyncConnection.connect(postgres.dsn) as other:
        await other.execute("SELECT FROM holdfast_jobs FOR UPDATE")
        assert not await mine.claim(10, ["mail"])
        assert await worker.wait(["mail"], 0.05) is False
    assert [claim.id for claim in await mine.claim(10, ["mail"])] == job
