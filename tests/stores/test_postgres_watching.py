"""Who waits for jobs to end on PostgreSQL: told by other processes, or by looks, and at no cost where nobody waits."""

# ruff: noqa: SLF001

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from secrets import token_hex
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import psycopg
import pytest

from holdfast.job import State, Succeeded, Until
from holdfast.policy import decide
from holdfast.store import Answer, Settled, Store
from holdfast.stores import open_store
from holdfast.stores.postgres import waking, watching
from holdfast.stores.postgres.store import PostgresStore
from tests import servers
from tests.servers.places import Database
from tests.store.acts import ENDS, PATIENCE, Way, bound, draft, finish, hand, running, stored

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]

NEVER = 3600.0  # seconds

Opened = Callable[[str], Awaitable[PostgresStore]]


@pytest.fixture
def no_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits looks once, and then hears or does not."""
    for module in (waking, watching):
        for name in ("SELDOM", "SOON", "OFTEN"):
            monkeypatch.setattr(module, name, NEVER)


@pytest.fixture
async def opened() -> AsyncIterator[Opened]:
    async with AsyncExitStack() as stack:

        async def open_one(url: str) -> PostgresStore:
            store = open_store(url)
            assert isinstance(store, PostgresStore)
            await store.open()
            stack.push_async_callback(store.close)
            return store

        yield open_one


async def until(condition: Callable[[], object], what: str) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110  # it looks at what others do
            await asyncio.sleep(0.005)
    assert condition(), what


async def watched(store: PostgresStore, *ids: UUID) -> asyncio.Task[bool]:
    """A watch that has looked, and can be woken by a notification."""
    waiting = asyncio.create_task(store.watch(ids, PATIENCE))
    hearing = store._opened().waking.listener.hearing
    await until(lambda: hearing.now or waiting.done(), "the listener does not hear")
    await asyncio.sleep(0)
    assert not waiting.done()
    return waiting


async def woken(waiting: asyncio.Task[bool]) -> bool:
    async with asyncio.timeout(PATIENCE):
        return await waiting


@pytest.mark.usefixtures("no_looks")
@pytest.mark.parametrize("way", ENDS.values(), ids=ENDS)
async def test_the_end_of_a_job_elsewhere_is_heard_of(opened: Opened, postgres: Database, way: Way) -> None:
    client, other = await opened(postgres.url), await opened(postgres.url)
    [job] = await stored(other, draft())
    waiting = await watched(client, job)
    await way(other, job)
    assert await woken(waiting) is True


async def _expires(store: Store, _: UUID) -> None:
    store.shift += 10_000
    assert len((await store.promote(10)).over) == 1


async def _is_dropped(store: Store, _: UUID) -> None:
    await bound(store, 1, "drop_oldest")
    await stored(store, draft())


async def _is_deleted(store: Store, job: UUID) -> None:
    await store.delete([job])


@pytest.mark.usefixtures("no_looks")
@pytest.mark.parametrize("way", [_expires, _is_dropped, _is_deleted])
async def test_an_end_that_is_no_workers_is_heard_of_too(
    opened: Opened, postgres: Database, way: Callable[[Store, UUID], Awaitable[None]]
) -> None:
    client, other = await opened(postgres.url), await opened(postgres.url)
    [job] = await stored(other, draft(expires=Until(5_000)))
    waiting = await watched(client, job)
    await way(other, job)
    assert await woken(waiting) is True


@pytest.mark.usefixtures("no_looks")
async def test_an_end_in_a_callers_transaction_is_told_by_the_worker_that_asks_how_it_ended(
    opened: Opened, postgres: Database
) -> None:
    """The caller's own commit notifies nobody: it may be prepared."""
    client, other = await opened(postgres.url), await opened(postgres.url)
    job = await running(other, await hand(other))
    waiting = await watched(client, job.id)
    async with await psycopg.AsyncConnection.connect(postgres.dsn) as caller:
        [settled] = await other.finish([decide(job, Succeeded(b"1"))], caller)
        assert settled.answer == "accepted"
        await caller.commit()
    await asyncio.wait([waiting], timeout=0.1)
    assert not waiting.done()
    assert await finish(other, job, Succeeded(b"1")) == Settled(Answer.REPLAYED, State.SUCCEEDED)
    assert await woken(waiting) is True


@pytest.mark.usefixtures("no_looks")
async def test_an_end_in_this_very_process_is_heard_of(opened: Opened, postgres: Database) -> None:
    store = await opened(postgres.url)
    for way in (ENDS["succeeds"], ENDS["is cancelled before it runs"]):
        [job] = await stored(store, draft())
        waiting = await watched(store, job)
        await way(store, job)
        assert await woken(waiting) is True


async def test_where_nobody_watches_nobody_is_told_and_what_is_told_is_told_once(
    opened: Opened, postgres: Database
) -> None:
    client, other = await opened(postgres.url), await opened(postgres.url)
    worker = await hand(other)
    rung: list[str] = []
    async with await psycopg.AsyncConnection.connect(postgres.dsn, autocommit=True) as ear:
        await ear.execute("LISTEN holdfast_public")
        await finish(other, await running(other, worker), Succeeded(b"1"))
        job = await running(other, worker)
        waiting = await watched(client, job.id)
        await finish(other, job, Succeeded(b"1"))
        assert await woken(waiting) is True
        cursor = await ear.execute("SELECT count(*) FROM holdfast_watched")
        assert await cursor.fetchone() == (0,)
        await ear.execute("SELECT pg_notify('holdfast_public', 'end')")
        async for notification in ear.notifies(timeout=PATIENCE):
            rung.append(notification.payload)
            if notification.payload == "end":
                break
    assert [word for word in rung if word.startswith("!")] == [f"!{job.id}"]


async def test_what_nobody_waits_for_any_more_is_forgotten(opened: Opened, postgres: Database) -> None:
    store = await opened(postgres.url)
    [job] = await stored(store, draft())
    assert await store.watch([job], 0.01) is False
    with psycopg.connect(postgres.dsn, autocommit=True) as look:
        assert look.execute("SELECT count(*) FROM holdfast_watched").fetchone() == (1,)
        store.shift += 60_000
        await store.prune(10)
        assert look.execute("SELECT count(*) FROM holdfast_watched").fetchone() == (0,)


async def test_without_notifications_the_end_is_looked_for(opened: Opened) -> None:
    with servers.pooled().ready() as database:
        client, other = await opened(database.url), await opened(database.url)
        job = await running(other, await hand(other))
        waiting = asyncio.create_task(client.watch([job.id], PATIENCE))
        await asyncio.wait([waiting], timeout=0.1)
        assert not waiting.done()
        await finish(other, job, Succeeded(b"1"))
        assert await woken(waiting) is True


async def test_a_role_that_may_only_read_looks_for_the_end(opened: Opened, postgres: Database) -> None:
    name, other = f"reader_{token_hex(4)}", await opened(postgres.url)
    parts = urlsplit(postgres.url)
    job = await running(other, await hand(other))
    with psycopg.connect(postgres.dsn, autocommit=True) as operator:
        operator.execute(
            f"CREATE ROLE {name} LOGIN; GRANT USAGE ON SCHEMA public TO {name};"
            f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {name}".encode()
        )
        try:
            client = await opened(parts._replace(netloc=f"{name}@{parts.hostname}:{parts.port}").geturl())
            waiting = await watched(client, job.id)
            await finish(other, job, Succeeded(b"1"))
            assert await woken(waiting) is True
            await client.close()
        finally:
            operator.execute(f"DROP OWNED BY {name}; DROP ROLE {name}".encode())


async def test_who_ends_a_job_just_as_the_watch_begins_is_found_by_a_look(opened: Opened, postgres: Database) -> None:
    """His look whether anybody waits was before it, and his commit is behind it."""
    client = await opened(postgres.url)
    job = await running(client, await hand(client))
    async with await psycopg.AsyncConnection.connect(postgres.dsn) as other:
        await other.execute(
            "UPDATE holdfast_jobs SET state = 'dead', finished_at = 1, worker = NULL WHERE id = %s", [job.id]
        )
        waiting = await watched(client, job.id)
        await other.commit()
        assert await woken(waiting) is True


async def test_a_store_that_is_closed_ends_its_watches(opened: Opened, postgres: Database) -> None:
    store = await opened(postgres.url)
    [job] = await stored(store, draft())
    waiting = await watched(store, job)
    await store.close()
    assert await woken(waiting) is False


# --- paused queues


@pytest.mark.usefixtures("no_looks")
async def test_for_a_paused_queue_nobody_is_woken_until_it_is_resumed_elsewhere(
    opened: Opened, postgres: Database
) -> None:
    worker, other = await opened(postgres.url), await opened(postgres.url)
    await other.pause("mail")
    waiting = asyncio.create_task(worker.wait(["mail"], PATIENCE))
    hearing = worker._opened().waking.listener.hearing
    await until(lambda: hearing.now or waiting.done(), "the listener does not hear")
    await stored(other, draft())  # of another process
    await stored(worker, draft())  # of this one
    async with await psycopg.AsyncConnection.connect(postgres.dsn, autocommit=True) as caller:
        await caller.execute("""SELECT holdfast_enqueue('[{"task": "shop.send", "queue": "mail"}]')""")
    await asyncio.wait([waiting], timeout=0.2)
    assert not waiting.done()
    assert await other.resume("mail") is True
    assert await woken(waiting) is True


@pytest.mark.parametrize("hears", [True, False])
def test_looks_grow_rarer_with_the_time_waited_and_are_never_dear_nor_too_seldom(*, hears: bool) -> None:
    listener: Any = SimpleNamespace(hearing=SimpleNamespace(now=hears))
    nobody: Any = None
    watching_one = watching.Watching(nobody, nobody, listener)

    def pauses(waited: float, look: float) -> float:
        """The longest of some: none is shorter by more than a fifth."""
        watching_one._took = look
        some = [watching_one._pause(waited) for _ in range(50)]
        assert min(some) >= 0.8 * max(some)
        return max(some)

    first = watching.SOON if hears else watching.OFTEN
    grown = 0.2 * (watching.SLOWER if hears else watching.STEADY)
    for waited, look, longest in ((0, 0, first), (0.2, 0, grown), (0, 0.03, 0.6), (900, 0, 1.0), (0, 900, 1.0)):
        assert 0.9 * longest < pauses(waited, look) <= longest
