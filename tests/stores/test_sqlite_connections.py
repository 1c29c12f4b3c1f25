"""Enqueues in SQLAlchemy's transactions, in all its forms: what a program that has nothing else would notice."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import aiosqlite
import pytest
from sqlalchemy import Column, Engine, Integer, String, create_engine, event, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_scoped_session, async_sessionmaker
from sqlalchemy.ext.asyncio import create_async_engine as create_async
from sqlalchemy.orm import DeclarativeBase, Session, scoped_session, sessionmaker

from holdfast import (
    ConfigError,
    Holdfast,
    IdConflict,
    Job,
    NewJob,
    QueueFull,
    State,
    StoreError,
    Unique,
    UniqueConflict,
)
from holdfast.app import parts_of
from holdfast.errors import StoreAway
from holdfast.task import Task
from tests.flows.conftest import until
from tests.stores import payers

PAYERS = Path(payers.__file__)
PATIENCE = 30  # seconds, for whatever a test waits for
SYNC = ("Connection", "Session", "scoped_session")
ASYNC = ("AsyncConnection", "AsyncSession", "async_scoped_session")
SESSIONS = (*SYNC[1:], *ASYNC[1:])


class Tables(DeclarativeBase):
    pass


class Order(Tables):
    __tablename__ = "orders"
    id = Column(Integer, primary_key=True)
    name = Column(String)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "shop.db"


@pytest.fixture
def app(file: Path) -> Iterator[Holdfast]:
    with Holdfast(f"sqlite:///{file}") as app:
        yield app


@pytest.fixture
def send(app: Holdfast) -> Task[[int], None]:
    @app.task(name="send")
    def send(order: int) -> None: ...

    return send


@pytest.fixture
def engine(app: Holdfast, file: Path) -> Iterator[Engine]:
    engine = create_engine(f"sqlite:///{file}")
    Tables.metadata.create_all(engine)
    yield engine
    engine.dispose()


@asynccontextmanager
async def async_engine(file: Path, **options: Any) -> AsyncIterator[AsyncEngine]:
    engine = create_async(f"sqlite+aiosqlite:///{file}", **options)
    try:
        yield engine
    finally:
        await engine.dispose()


class Till:
    """What a program has of SQLAlchemy, of each kind: `lent` is what it hands to Holdfast."""

    def __init__(self, lent: Any) -> None:
        self.lent = lent

    async def execute(self, statement: str, **parameters: Any) -> Any:
        return await _maybe(self.lent.execute(text(statement), parameters))

    async def rows(self, statement: str) -> list[Any]:
        return [tuple(row) for row in (await self.execute(statement)).all()]

    async def commit(self) -> None:
        await _maybe(self.lent.commit())

    async def rollback(self) -> None:
        await _maybe(self.lent.rollback())


async def _maybe(value: Any) -> Any:
    return await value if isinstance(value, Awaitable) else value


@asynccontextmanager
async def a_till(kind: str, file: Path, **options: Any) -> AsyncIterator[Till]:
    """One of the kind on an engine of its own; closed as its owner would."""
    if kind in SYNC:
        engine = create_engine(f"sqlite:///{file}", **options)
        lent: Any = engine.connect() if kind == "Connection" else sessionmaker(engine)()
        try:
            yield Till(scoped_session(lambda: lent) if kind == "scoped_session" else lent)
        finally:
            lent.close()
            engine.dispose()
        return
    async with async_engine(file, **options) as engine:
        lent = await engine.connect() if kind == "AsyncConnection" else async_sessionmaker(engine)()
        try:
            scoped = kind == "async_scoped_session"
            yield Till(async_scoped_session(lambda: lent, asyncio.current_task) if scoped else lent)
        finally:
            await lent.close()


async def stored(app: Holdfast) -> set[Any]:
    return {status.id async for status in app.afind()}


every_kind = pytest.mark.parametrize("kind", [*SYNC, *ASYNC])


# --- part of the transaction


@every_kind
async def test_a_job_comes_with_the_commit(
    kind: str, app: Holdfast, send: Task[[int], None], engine: Engine, file: Path
) -> None:
    async with a_till(kind, file) as till:
        await till.execute("INSERT INTO orders (id) VALUES (1)")
        job = await send.using(connection=till.lent).aenqueue(1)
        assert job.created
        assert await stored(app) == set(), "visible before the commit"
        await till.commit()
        assert await stored(app) == {job.id}
        assert await till.rows("SELECT id FROM orders") == [(1,)]


@every_kind
async def test_a_rollback_takes_the_job_along(
    kind: str, app: Holdfast, send: Task[[int], None], engine: Engine, file: Path
) -> None:
    async with a_till(kind, file) as till:
        await till.execute("INSERT INTO orders (id) VALUES (1)")
        await send.using(connection=till.lent).aenqueue(1)
        await till.rollback()
        assert await till.rows("SELECT id FROM orders") == []
        assert await stored(app) == set()


@every_kind
async def test_a_transaction_may_begin_with_the_job(
    kind: str, app: Holdfast, send: Task[[int], None], engine: Engine, file: Path
) -> None:
    async with a_till(kind, file) as till:
        await send.using(connection=till.lent).aenqueue(1)
        await till.rollback()
        kept = await send.using(connection=till.lent).aenqueue(2)
        await till.execute("INSERT INTO orders (id) VALUES (2)")
        await till.commit()
        await send.using(connection=till.lent).aenqueue(3)  # never committed: gone when it is closed
    assert await stored(app) == {kept.id}


@every_kind
async def test_a_transaction_that_has_only_read_may_enqueue_after_others_wrote(
    kind: str, app: Holdfast, send: Task[[int], None], engine: Engine, file: Path
) -> None:
    async with a_till(kind, file) as till:
        assert await till.rows("SELECT id FROM orders") == []
        other = await send.aenqueue(0)
        job = await send.using(connection=till.lent).aenqueue(1)
        await till.commit()
        assert await stored(app) == {other.id, job.id}


@every_kind
async def test_several_jobs_are_one_with_the_transaction(
    kind: str, app: Holdfast, send: Task[[int], None], engine: Engine, file: Path
) -> None:
    async with a_till(kind, file) as till:
        jobs = await app.aenqueue_many((send.bind(n) for n in range(300)), connection=till.lent)
        assert await stored(app) == set()
        await till.commit()
        assert await stored(app) == {job.id for job in jobs}
        assert len(jobs) == 300


@every_kind
async def test_a_refused_job_leaves_the_transaction_as_it_was(
    kind: str, app: Holdfast, send: Task[[int], None], engine: Engine, file: Path
) -> None:
    @app.task(name="other")
    def other(order: int) -> None: ...

    known = await send.aenqueue(1)
    clash: NewJob[None] = other.bind(1)
    object.__setattr__(clash, "draft", _with_id(clash, known))
    async with a_till(kind, file) as till:
        with pytest.raises(IdConflict):  # the first statement of the transaction
            await app.aenqueue_many([send.bind(2), clash], connection=till.lent)
        await till.execute("INSERT INTO orders (id) VALUES (1)")
        with pytest.raises(IdConflict):  # and not the first
            await app.aenqueue_many([send.bind(3), clash], connection=till.lent)
        await till.commit()
        assert await till.rows("SELECT id FROM orders") == [(1,)]
        assert await stored(app) == {known.id}


def _with_id(job: NewJob[Any], known: Job[Any]) -> Any:
    from dataclasses import replace

    return replace(job.draft, id=known.id)


@pytest.mark.parametrize("kind", SESSIONS)
async def test_nothing_is_flushed(
    kind: str, app: Holdfast, send: Task[[int], None], engine: Engine, file: Path
) -> None:
    async with a_till(kind, file) as till:
        till.lent.add(Order(id=1))
        job = await send.using(connection=till.lent).aenqueue(1)
        assert len(till.lent.new) == 1, "the session was flushed"
        await till.commit()
        assert await till.rows("SELECT id FROM orders") == [(1,)]
        assert await stored(app) == {job.id}


@pytest.mark.parametrize("kind", SYNC)
async def test_sync_kinds_take_enqueue_as_well(
    kind: str, app: Holdfast, send: Task[[int], None], engine: Engine, file: Path
) -> None:
    async with a_till(kind, file) as till:
        await asyncio.to_thread(lambda: send.using(connection=till.lent).enqueue(1))
        await asyncio.to_thread(lambda: app.enqueue_many([send.bind(2)], connection=till.lent))
        await till.commit()
    assert len(await stored(app)) == 2


@pytest.mark.parametrize("kind", ASYNC)
async def test_async_kinds_name_the_twin_to_await(
    kind: str, app: Holdfast, send: Task[[int], None], engine: Engine, file: Path
) -> None:
    async with a_till(kind, file) as till:
        await till.execute("INSERT INTO orders (id) VALUES (1)")
        with pytest.raises(TypeError, match="aenqueue"):
            send.using(connection=till.lent).enqueue(1)
        with pytest.raises(TypeError, match="aenqueue_many"):
            app.enqueue_many([send.bind(1)], connection=till.lent)
        job = await send.using(connection=till.lent).aenqueue(2)  # and nothing is left of the attempts
        await till.commit()
    assert await stored(app) == {job.id}


async def test_the_inside_of_run_sync_is_sync(
    app: Holdfast, send: Task[[int], None], engine: Engine, file: Path
) -> None:
    async with a_till("AsyncSession", file) as till:

        def pay(session: Session) -> None:
            session.add(Order(id=1))
            send.using(connection=session).enqueue(1)

        await till.lent.run_sync(pay)
        assert await stored(app) == set()
        await till.commit()
        assert await till.rows("SELECT id FROM orders") == [(1,)]
    assert len(await stored(app)) == 1


async def test_a_subclass_is_what_it_derives_from(app: Holdfast, send: Task[[int], None], engine: Engine) -> None:
    class Ours(Session):
        pass

    with Ours(engine) as session, session.begin():
        job = send.using(connection=session).enqueue(1)
    assert await stored(app) == {job.id}


def test_a_session_within_an_outer_transaction_shares_its_fate(
    app: Holdfast, send: Task[[int], None], engine: Engine
) -> None:
    with engine.connect() as connection:
        outer = connection.begin()
        with Session(bind=connection, join_transaction_mode="rollback_only") as session:
            send.using(connection=session).enqueue(1)
            session.commit()
        outer.rollback()
    assert list(app.find()) == []


# --- how it begins


def begins_with(engine: Engine, statement: str) -> None:
    """The documented way to have SQLAlchemy begin SQLite's transactions, instead of the driver at its first write."""

    @event.listens_for(engine, "connect")
    def quiet(connection: Any, record: Any) -> None:
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql(statement)


@pytest.mark.parametrize("kind", ["Session", "AsyncSession"])
async def test_a_transaction_that_sqlalchemy_begins(
    kind: str, app: Holdfast, send: Task[[int], None], engine: Engine, file: Path
) -> None:
    async with a_till(kind, file) as till:
        begins_with(till.lent.get_bind(), "BEGIN IMMEDIATE")
        await send.using(connection=till.lent).aenqueue(1)
        await till.rollback()
        assert await stored(app) == set()
        job = await send.using(connection=till.lent).aenqueue(2)
        nested = await _maybe(till.lent.begin_nested())
        await send.using(connection=till.lent).aenqueue(3)
        await _maybe(nested.rollback())
        await till.commit()
        assert await stored(app) == {job.id}


@pytest.mark.parametrize("kind", ["Session", "AsyncSession"])
async def test_an_old_snapshot_is_told_of_begin_immediate(
    kind: str, app: Holdfast, send: Task[[int], None], engine: Engine, file: Path
) -> None:
    async with a_till(kind, file) as till:
        begins_with(till.lent.get_bind(), "BEGIN")
        assert await till.rows("SELECT id FROM orders") == []
        other = await send.aenqueue(0)
        with pytest.raises(StoreAway, match=r'shop\.db.*BEGIN IMMEDIATE.*"begin" event'):
            await send.using(connection=till.lent).aenqueue(1)
        assert await till.rows("SELECT id FROM orders") == []
        await till.rollback()
        job = await send.using(connection=till.lent).aenqueue(2)
        await till.commit()
        assert await stored(app) == {other.id, job.id}


@every_kind
async def test_behind_a_writer_it_gives_up_and_leaves_no_transaction(
    kind: str, app: Holdfast, send: Task[[int], None], engine: Engine, file: Path
) -> None:
    async with a_till(kind, file, connect_args={"timeout": 0.05}) as till:
        with engine.connect() as other:
            other.exec_driver_sql("BEGIN IMMEDIATE")
            with pytest.raises(StoreAway, match="write lock"):
                await send.using(connection=till.lent).aenqueue(1)
            assert await till.rows("SELECT id FROM orders") == []
            other.exec_driver_sql("INSERT INTO orders (id) VALUES (1)")
            other.exec_driver_sql("COMMIT")
        job = await send.using(connection=till.lent).aenqueue(2)
        assert await till.rows("SELECT id FROM orders") == [(1,)]
        await till.commit()
        assert await stored(app) == {job.id}


async def test_behind_a_writer_the_begin_event_gives_up(
    app: Holdfast, send: Task[[int], None], engine: Engine, file: Path
) -> None:
    async with a_till("Session", file, connect_args={"timeout": 0.05}) as till:
        begins_with(till.lent.get_bind(), "BEGIN IMMEDIATE")
        with engine.connect() as other:
            other.exec_driver_sql("BEGIN IMMEDIATE")
            with pytest.raises(StoreAway, match="write lock"):
                await send.using(connection=till.lent).aenqueue(1)


@pytest.mark.parametrize("kind", ["Connection", "Session", "AsyncConnection", "AsyncSession"])
async def test_without_transactions_there_is_nothing_to_be_part_of(
    kind: str, app: Holdfast, send: Task[[int], None], engine: Engine, file: Path
) -> None:
    async with a_till(kind, file, isolation_level="AUTOCOMMIT") as till:
        with pytest.raises(ConfigError, match=rf"{kind}: it commits every statement by itself.*BEGIN IMMEDIATE"):
            await send.using(connection=till.lent).aenqueue(1)
        await till.execute("BEGIN IMMEDIATE")
        job = await send.using(connection=till.lent).aenqueue(2)
        await till.execute("COMMIT")
        assert await stored(app) == {job.id}


@pytest.mark.skipif(sys.version_info < (3, 12), reason="sqlite3 has `autocommit` since Python 3.12")
@pytest.mark.parametrize("kind", ["Session", "AsyncSession"])
async def test_with_the_drivers_new_transactions(
    kind: str, app: Holdfast, send: Task[[int], None], engine: Engine, file: Path
) -> None:
    async with a_till(kind, file, connect_args={"autocommit": False}) as till:
        await send.using(connection=till.lent).aenqueue(1)
        await till.rollback()
        job = await send.using(connection=till.lent).aenqueue(2)
        await till.commit()
        assert await stored(app) == {job.id}
    async with a_till(kind, file, connect_args={"autocommit": True}) as till:
        with pytest.raises(ConfigError, match="commits every statement by itself"):
            await send.using(connection=till.lent).aenqueue(3)


@pytest.mark.parametrize("kind", ["AsyncConnection", "AsyncSession"])
async def test_who_is_cancelled_in_the_middle_stores_nothing(
    kind: str, app: Holdfast, send: Task[[int], None], engine: Engine, file: Path
) -> None:
    async with a_till(kind, file) as till, asyncio.timeout(PATIENCE):
        with engine.connect() as other:
            other.exec_driver_sql("BEGIN IMMEDIATE")
            waiting = asyncio.ensure_future(send.using(connection=till.lent).aenqueue(1))
            await asyncio.sleep(0.1)
            assert not waiting.done()
            waiting.cancel()
            other.exec_driver_sql("ROLLBACK")
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await till.rollback()
        job = await send.using(connection=till.lent).aenqueue(2)
        await till.commit()
        assert await stored(app) == {job.id}


# --- what cannot be used


@every_kind
async def test_another_file_is_refused(
    kind: str, app: Holdfast, send: Task[[int], None], engine: Engine, tmp_path: Path
) -> None:
    async with a_till(kind, tmp_path / "other.db") as till:
        with pytest.raises(ConfigError, match=rf"{kind}.*other\.db.*in another file.*AsyncSession.*shop\.db"):
            await send.using(connection=till.lent).aenqueue(1)


@pytest.mark.parametrize("kind", ["Session", "AsyncSession"])
async def test_a_database_in_memory_is_refused(
    kind: str, app: Holdfast, send: Task[[int], None], engine: Engine
) -> None:
    async with a_till(kind, Path(":memory:")) as till:
        with pytest.raises(ConfigError, match=r"a database in memory.*in another file.*shop\.db"):
            await send.using(connection=till.lent).aenqueue(1)


def test_another_kind_of_database_is_refused_untouched(
    app: Holdfast, send: Task[[int], None], engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine.dialect, "name", "postgresql")
    sent: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *call: sent.append(call[2]))
    with Session(engine) as session, pytest.raises(ConfigError, match=r"Session on postgresql: .*shop\.db"):
        send.using(connection=session).enqueue(1)
    assert sent == []


@pytest.mark.parametrize("kind", ["Connection", "AsyncConnection"])
async def test_a_closed_connection_is_refused(
    kind: str, app: Holdfast, send: Task[[int], None], engine: Engine, file: Path
) -> None:
    async with a_till(kind, file) as till:
        await _maybe(till.lent.close())
        with pytest.raises(ConfigError, match=rf"{kind}: cannot be used here: .*closed"):
            await send.using(connection=till.lent).aenqueue(1)


async def test_a_session_that_is_no_more_or_not_yet_is_refused(
    app: Holdfast, send: Task[[int], None], engine: Engine, file: Path
) -> None:
    closed = Session(engine, close_resets_only=False)
    closed.close()
    for session, why in ((closed, "permanently closed"), (Session(), "not bound"), (AsyncSession(), "not bound")):
        with pytest.raises(ConfigError, match=rf"Session: cannot be used here: .*{why}"):
            await send.using(connection=session).aenqueue(1)
    async with async_engine(file) as other:
        with pytest.raises(ConfigError, match=r"AsyncConnection: cannot be used here: .*started"):
            await send.using(connection=other.connect()).aenqueue(1)
    assert await stored(app) == set()


def test_a_session_whose_transaction_has_failed_is_refused(
    app: Holdfast, send: Task[[int], None], engine: Engine
) -> None:
    with Session(engine) as session:
        session.add_all([Order(id=1), Order(id=1)])
        with pytest.raises(IntegrityError):
            session.flush()
        with pytest.raises(ConfigError, match="rollback"):
            send.using(connection=session).enqueue(1)
        session.rollback()
        job = send.using(connection=session).enqueue(2)
        session.commit()
    assert [status.id for status in app.find()] == [job.id]


def test_what_makes_connections_is_none(app: Holdfast, send: Task[[int], None], engine: Engine) -> None:
    for maker in (engine, sessionmaker(engine), engine.url):
        with pytest.raises(ConfigError, match=r"connection=sqlalchemy\..*accepted are .*Session, Connection"):
            send.using(connection=maker).enqueue(1)


async def test_aiosqlite_alone_is_none(app: Holdfast, send: Task[[int], None], file: Path) -> None:
    async with aiosqlite.connect(file) as connection:
        with pytest.raises(ConfigError, match=r"aiosqlite\.core\.Connection: .*through SQLAlchemy.*AsyncConnection"):
            await send.using(connection=connection).aenqueue(1)


def test_a_file_without_tables_is_told_to_migrate(file: Path) -> None:
    from holdfast.bridge import run_here
    from holdfast.clock import SystemClock
    from holdfast.stores.sqlite import SqliteStore

    engine = create_engine(f"sqlite:///{file}")
    with Session(engine) as session, pytest.raises(StoreError, match="holdfast migrate"):
        run_here(SqliteStore(str(file), clock=SystemClock()).enqueue([], connection=session))
    engine.dispose()


def test_sqlalchemy_is_not_imported_for_it(tmp_path: Path) -> None:
    program = f"""
import sqlite3, sys
from holdfast import Holdfast
app = Holdfast("sqlite:///{tmp_path}/shop.db")
@app.task(name="send")
def send(order: int) -> None: ...
with app:
    shop = sqlite3.connect("{tmp_path}/shop.db")
    send.using(connection=shop).enqueue(1)
    shop.commit()
    shop.close()
    print([status.state for status in app.find()], "sqlalchemy" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.strip() == f"{[State.QUEUED]} False", done.stderr


# --- keys and places, in the caller's transaction


@pytest.fixture
def mail(app: Holdfast) -> Task[[int], None]:
    """A task whose queue is bounded, but nobody has told the store so yet."""
    app.queue("mail", max_size=3)

    @app.task(name="mail", queue="mail", unique=lambda order: f"order:{order}" if order else "none")
    def mail(order: int) -> None: ...

    return mail


@asynccontextmanager
async def writing(kind: str, file: Path) -> AsyncIterator[Till]:
    """One of the kind, with a transaction that has the write lock."""
    async with a_till(kind, file) as till:
        await till.execute("INSERT INTO orders (name) VALUES ('ann')")
        yield till


async def places(app: Holdfast, queue: str = "mail") -> tuple[int | None, int | None]:
    [found] = [found for found in (await asyncio.to_thread(stats, app)).queues if found.name == queue]
    return found.admitted, found.terms.max_size


def stats(app: Holdfast) -> Any:
    return parts_of(app).operating.stats()


@every_kind
async def test_a_bound_holds_within_a_transaction_that_declares_it_itself(
    kind: str, app: Holdfast, mail: Task[[int], None], engine: Engine, file: Path
) -> None:
    async with writing(kind, file) as till:  # whoever declared the queue on another connection would wait for this one
        with pytest.raises(QueueFull) as full:
            await app.aenqueue_many([mail.bind(n) for n in range(4)], connection=till.lent)
        assert (full.value.depth, full.value.bound, list(full.value.accepted)) == (3, 3, [])
        jobs = await app.aenqueue_many([mail.bind(n) for n in range(1, 4)], connection=till.lent)
        with pytest.raises(QueueFull):
            await mail.using(connection=till.lent).aenqueue(4)
        await till.commit()
        assert await stored(app) == {job.id for job in jobs}
        assert await places(app) == (3, 3)


async def test_a_rollback_takes_declaration_and_places_back(
    app: Holdfast, mail: Task[[int], None], engine: Engine, file: Path
) -> None:
    async with writing("Session", file) as till:
        await mail.using(connection=till.lent).aenqueue(1)
        await till.rollback()
    jobs = [await mail.aenqueue(n) for n in (1, 2, 3)]
    assert all(job.created for job in jobs)
    assert await places(app) == (3, 3)
    with pytest.raises(QueueFull):
        await mail.aenqueue(4)


@every_kind
async def test_a_key_holds_within_a_transaction(
    kind: str, app: Holdfast, mail: Task[[int], None], engine: Engine, file: Path
) -> None:
    holder = await mail.aenqueue(1)
    async with writing(kind, file) as till:
        again = await mail.using(connection=till.lent).aenqueue(1)
        assert (again.id, again.created) == (holder.id, False)
        strict = mail.using(unique=Unique("order:1", on_clash="raise"))
        with pytest.raises(UniqueConflict) as clash:
            await app.aenqueue_many([mail.bind(2), strict.bind(1)], connection=till.lent)
        assert clash.value.job.id == holder.id
        new = await mail.using(connection=till.lent).aenqueue(3)
        assert new.created
        assert (await mail.using(connection=till.lent).aenqueue(3)).id == new.id
        await till.commit()
        assert await stored(app) == {holder.id, new.id}


@pytest.mark.parametrize("commits", [True, False])
async def test_what_replaces_or_drops_a_job_does_it_with_the_commit(
    commits: bool, app: Holdfast, mail: Task[[int], None], engine: Engine, file: Path
) -> None:
    app.queue("news", max_size=1, when_full="drop_oldest")
    held, oldest = await mail.aenqueue(1), await mail.using(queue="news").aenqueue(2)
    due = (await held.astatus()).due_at
    async with writing("AsyncSession", file) as till:
        replacing = mail.using(unique=Unique("order:1", on_clash="replace"), delay="1h", connection=till.lent)
        assert (await replacing.aenqueue(1)).id == held.id
        assert (await mail.using(queue="news", connection=till.lent).aenqueue(3)).created
        strict = mail.using(queue="news", unique=Unique("order:4", on_clash="raise"))
        with pytest.raises(UniqueConflict):  # it drops one, and then meets the other
            await app.aenqueue_many([mail.using(queue="news").bind(4), strict.bind(4)], connection=till.lent)
        await (till.commit() if commits else till.rollback())
    assert ((await held.astatus()).due_at != due) is commits
    assert (await oldest.astatus()).state == (State.CANCELLED if commits else State.QUEUED)
    assert await places(app, "news") == (1, 1)


async def test_transactions_of_many_threads_fill_a_queue_exactly(app: Holdfast, engine: Engine, file: Path) -> None:
    app.queue("mail", max_size=30)

    @app.task(name="mail", queue="mail")
    def mail(order: int) -> None: ...

    def fill(thread: int) -> list[Any]:
        ids = []
        for order in range(20):
            with Session(engine) as session, suppress(QueueFull):
                session.add(Order(name=f"{thread}"))
                session.flush()
                ids.append(mail.using(connection=session).enqueue(order).id)
                session.commit()
        return ids

    ids = await asyncio.gather(*(asyncio.to_thread(fill, thread) for thread in range(4)))
    assert await stored(app) == set().union(*ids)
    assert await places(app) == (30, 30)
    with Session(engine) as session:
        assert session.query(Order).count() == 30


@pytest.mark.timeout(120)
def test_orders_and_their_jobs_are_one_whenever_the_process_is_killed(
    app: Holdfast, engine: Engine, file: Path
) -> None:
    luck, chance = count(1), random.Random(7)
    paying = [subprocess.Popen([sys.executable, PAYERS, file, str(next(luck))]) for _ in range(2)]
    try:
        for _ in range(3):
            paid = len(orders(engine))
            until(lambda paid=paid: len(orders(engine)) > paid + 5, "more orders before a kill")
            victim = chance.randrange(2)
            paying[victim].kill()
            paying[victim].wait(PATIENCE)
            paying[victim] = subprocess.Popen([sys.executable, PAYERS, file, str(next(luck))])
        assert [process.wait(60) for process in paying] == [0, 0], "they end when the queue is full"
    finally:
        for process in paying:
            process.kill()
            process.wait(PATIENCE)
    assert sorted(orders(engine)) == sorted(str(status.id) for status in app.find())
    assert len(orders(engine)) == payers.BOUND


def orders(engine: Engine) -> list[str]:
    with Session(engine) as session:
        return [name for [name] in session.execute(text("SELECT name FROM orders"))]
