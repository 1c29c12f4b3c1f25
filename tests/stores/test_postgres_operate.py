"""Operators and handlers' notes on PostgreSQL, where a stranger's open transaction may hold a job's row."""

import asyncio
import json
import logging
import math
import re
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeAlias, cast
from uuid import UUID

import psycopg
import pytest
from click.testing import CliRunner

from holdfast import Holdfast
from holdfast.cli.shell import shell
from holdfast.client import operating
from holdfast.clock import HOUR, SECOND
from holdfast.errors import StoreAway
from holdfast.job import Draft, Note, State, Succeeded
from holdfast.policy import decide
from holdfast.store import Retried, Store, Where
from holdfast.stores import open_store
from holdfast.stores.postgres import find, limits
from holdfast.stores.postgres.lane import Lane
from holdfast.stores.unreadable import Told
from tests.servers.places import Database
from tests.store.acts import PATIENCE, bound, draft, hand, keyed, listing, record, retried, running, state, stored
from tests.worker.rig import fields

Open: TypeAlias = Callable[..., AbstractAsyncContextManager[psycopg.AsyncConnection[Any]]]

LOCK = "SELECT 1 FROM holdfast_jobs WHERE id = %s FOR UPDATE"


@pytest.fixture
async def store(postgres: Database) -> AsyncIterator[Store]:
    store = open_store(postgres.url)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture
def opened(postgres: Database) -> Open:
    """A transaction of a stranger, with one statement run in it; it is rolled back at the end."""

    @asynccontextmanager
    async def opened(statement: str, *parameters: object) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        async with await psycopg.AsyncConnection.connect(postgres.dsn, application_name="a stranger") as stranger:
            await stranger.execute(statement.encode(), parameters)
            yield stranger
            await stranger.rollback()

    return opened


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is held is not asked for again."""
    monkeypatch.setattr(limits, "OPERATE", 0)


async def _cancelled(store: Store, *jobs: Draft) -> list[UUID]:
    ids = await stored(store, *jobs)
    assert list(await store.cancel(ids)) == ["cancelled"] * len(ids)
    return ids


# --- cancel


@pytest.mark.usefixtures("hasty")
async def test_a_job_that_a_transaction_holds_is_finishing_and_the_others_are_cancelled(
    store: Store, opened: Open
) -> None:
    held, free = await stored(store, draft(), draft())
    async with opened(LOCK, held):
        assert list(await store.cancel([held, free, held])) == ["finishing", "cancelled", "finishing"]
        assert (await state(store, held), await state(store, free)) == ("queued", "cancelled")
    assert list(await store.cancel([held])) == ["cancelled"]


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize(("commits", "then"), [(True, "final"), (False, "requested")])
async def test_a_job_whose_success_is_in_an_open_transaction_is_finishing(
    postgres: Database, store: Store, commits: bool, then: str
) -> None:
    job = await running(store, await hand(store))
    async with await psycopg.AsyncConnection.connect(postgres.dsn) as handlers:
        [settled] = await store.finish([decide(job, Succeeded(b"1"))], handlers)
        assert settled.answer == "accepted"
        assert list(await store.cancel([job.id], "too late?")) == ["finishing"]
        assert (await record(store, job.id)).cancel_requested_at is None
        await (handlers.commit() if commits else handlers.rollback())
    assert list(await store.cancel([job.id], "too late?")) == [then]
    assert (await record(store, job.id)).state == ("succeeded" if commits else "running")


async def test_a_held_job_is_asked_for_again_while_other_calls_go_on(store: Store, opened: Open) -> None:
    [held] = await stored(store, draft())
    async with asyncio.timeout(PATIENCE), opened(LOCK, held) as stranger:
        began = time.monotonic()
        asked = asyncio.create_task(store.cancel([held]))
        while time.monotonic() < began + limits.OPERATE / SECOND / 4:
            assert await state(store, held) == "queued", "a read by the same lane waits for nobody"
        await stranger.rollback()
        assert list(await asked) == ["cancelled"]


async def test_patience_has_an_end(store: Store, opened: Open) -> None:
    [held] = await stored(store, draft())
    async with asyncio.timeout(PATIENCE), opened(LOCK, held):
        began = time.monotonic()
        assert list(await store.cancel([held])) == ["finishing"]
        assert time.monotonic() >= began + limits.OPERATE / SECOND


async def test_a_foreign_key_of_the_users_to_a_job_is_in_nobodys_way(store: Store, opened: Open) -> None:
    one, two = await stored(store, draft(), draft())
    async with opened("SELECT 1 FROM holdfast_jobs FOR KEY SHARE"):
        assert list(await store.cancel([one])) == ["cancelled"]
        assert await retried(store, one) == ["retried"]
        assert list(await store.delete([one, two])) == ["deleted", "deleted"]


@pytest.mark.usefixtures("hasty")
async def test_the_user_is_told_that_the_job_is_held(postgres: Database, store: Store, opened: Open) -> None:
    [held] = await stored(store, draft())
    async with opened(LOCK, held) as stranger, Holdfast(postgres.url) as app:
        who = rf"\(pid {stranger.info.backend_pid}, a stranger, idle in transaction, open for \d+ s\)"
        told = f"job {held} is not cancelled: a transaction that is still open {who} holds it"
        with pytest.raises(StoreAway, match=told):
            await app.job(held).acancel()
        assert await app.acancel(queue="mail") == 0
        assert await state(store, held) == "queued"


@pytest.mark.usefixtures("hasty")
async def test_the_command_line_says_it_too(postgres: Database, store: Store, opened: Open) -> None:
    held, free = await stored(store, draft(), draft())

    async def said(*words: str) -> tuple[int, str]:
        ran = await asyncio.to_thread(CliRunner().invoke, shell, ["cancel", *words, "--url", postgres.url])
        return ran.exit_code, ran.output

    async with opened(LOCK, held):
        code, output = await said(str(held))
        assert code == 5
        assert "left as it is" in output
        assert "a transaction that is still open (pid " in output
        code, output = await said("--queue", "mail", "--yes")
        assert code == 0
        assert "cancelled 1 job\n" in output
        assert f"holds job {held}, or what it needs; try again when that has ended" in output
        assert output.count("left as they are") == 1
        assert "event=" not in output, "said once"
    assert await state(store, free) == "cancelled"


# --- retry and delete


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize(("act", "done"), [("retry", "retried"), ("delete", "deleted")])
async def test_what_holds_a_job_is_named_and_the_others_are_done(
    postgres: Database, store: Store, opened: Open, act: str, done: str
) -> None:
    held, free = await _cancelled(store, draft(), draft())
    before = await record(store, held)
    async with opened(LOCK, held) as stranger, Holdfast(postgres.url) as app:
        assert _words(await getattr(store, act)([held, free])) == ["busy", done]
        who = rf"pid {stranger.info.backend_pid}, a stranger, idle in transaction, open for \d+ s"
        assert re.fullmatch(who, await store.locker(held))
        with pytest.raises(StoreAway, match=rf"job {held} is not {done}: a transaction .* open \({who}\) holds it"):
            await getattr(app.job(held), f"a{act}")()
    assert await record(store, held) == before
    assert [row.state for row in await listing(store) if row.id == free] == ([] if act == "delete" else ["queued"])
    assert _words(await getattr(store, act)([held])) == [done]


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("act", ["retry", "delete", "cancel"])
async def test_of_many_those_that_are_held_are_left_and_the_log_says_it_at_the_end(
    postgres: Database,
    store: Store,
    opened: Open,
    act: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Also where they are on the first of several pages."""
    monkeypatch.setattr(operating, "CHUNK", 2)
    jobs = [draft() for _ in range(5)]
    ids = await (stored if act == "cancel" else _cancelled)(store, *jobs)
    async with opened(LOCK, ids[-1]) as stranger, Holdfast(postgres.url) as app:
        pid = stranger.info.backend_pid
        with caplog.at_level(logging.WARNING, "holdfast"):
            assert await getattr(app, f"a{act}")(queue="mail") == 4
        [told] = fields(caplog, "left-alone")
    assert (told["count"], told["job"]) == (1, ids[-1])
    assert f"pid {pid}, a stranger" in told["by"]
    untouched = {"retry": "cancelled", "delete": "cancelled", "cancel": "queued"}[act]
    assert [row.id for row in await listing(store) if row.state == untouched] == [ids[-1]]


def _words(answers: Sequence[Retried | str]) -> list[str]:
    return [answer if isinstance(answer, str) else answer.answer for answer in answers]


@pytest.mark.usefixtures("hasty")
async def test_a_retry_does_not_wait_for_who_may_get_its_key(postgres: Database, store: Store) -> None:
    job, rival = keyed(), keyed()
    await _cancelled(store, job)
    async with await psycopg.AsyncConnection.connect(postgres.dsn) as stranger:
        [receipt] = await store.enqueue([rival], stranger)
        assert receipt.created
        assert await retried(store, job.id) == ["busy"]
        await stranger.commit()
    assert list(await store.retry([job.id])) == [Retried("taken", holder=rival.id)]


@pytest.mark.usefixtures("hasty")
async def test_a_retry_waits_for_its_first_key_as_long_as_it_may(
    postgres: Database, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "RETRY", PATIENCE * SECOND)
    job, rival = keyed(), keyed()
    await _cancelled(store, job)
    waiting = (
        "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%holdfast_retry%'"
        " AND clock_timestamp() > query_start + interval '0.1 s'"
    )
    async with (
        asyncio.timeout(PATIENCE),
        await psycopg.AsyncConnection.connect(postgres.dsn) as stranger,
        await psycopg.AsyncConnection.connect(postgres.dsn, autocommit=True) as looking,
    ):
        await store.enqueue([rival], stranger)
        asked = asyncio.create_task(store.retry([job.id]))
        while not (await looking.execute(waiting)).rowcount:
            assert not asked.done(), "it has not waited"
        await stranger.commit()
        assert list(await asked) == [Retried("busy")], "it has met the rival, and would say so when asked again"
    assert await retried(store, job.id) == ["taken"]


@pytest.mark.usefixtures("hasty")
async def test_a_retry_does_not_wait_for_who_holds_its_queue(store: Store, opened: Open) -> None:
    await bound(store, 5)
    free, held = await _cancelled(store, draft(queue="free"), draft())
    async with opened("SELECT 1 FROM holdfast_queues FOR UPDATE") as stranger:
        assert await retried(store, held, free) == ["busy", "retried"]
        assert f"pid {stranger.info.backend_pid}, a stranger" in await store.locker(held)
        assert (await state(store, held), await state(store, free)) == ("cancelled", "queued")
    assert await retried(store, held) == ["retried"]


# --- what reads and notes meet


async def test_a_row_that_cannot_be_read_is_left_out_and_told_once(
    postgres: Database, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    ids = await stored(store, *(draft() for _ in range(5)))
    async with await psycopg.AsyncConnection.connect(postgres.dsn) as hand:
        await hand.execute("UPDATE holdfast_jobs SET terms = '[3, oops' WHERE id = %s", [ids[2]])
    with caplog.at_level(logging.ERROR, "holdfast"):
        for _ in range(2):
            assert {row.id for row in await listing(store)} == {*ids} - {ids[2]}
    assert [str(ids[2]) in line for line in caplog.messages] == [True]
    assert list(await store.cancel([ids[2]])) == ["cancelled"]
    assert list(await store.delete([ids[2]])) == ["deleted"]


async def test_a_page_is_filled_in_the_place_of_rows_that_cannot_be_read(postgres: Database, store: Store) -> None:
    ids = await stored(store, *(draft() for _ in range(6)))
    async with await psycopg.AsyncConnection.connect(postgres.dsn) as hand:
        await hand.execute("UPDATE holdfast_jobs SET terms = '' WHERE id = ANY (%s)", [ids[3:5]])
    newest = [row.id for row in await store.find(Where(), None, 3)]
    assert newest == [ids[5], ids[2], ids[1]]


# --- notes


async def test_a_note_waits_for_nobody_who_holds_the_jobs_row(store: Store, opened: Open) -> None:
    """As the handler itself may, by finish(connection)."""
    job = await running(store, await hand(store))
    note = Note(job.id, job.fence, job.worker, 0.5, "half", ((0, "line"),), b"1")
    async with asyncio.timeout(PATIENCE), opened(LOCK, job.id):
        assert list(await store.note([note])) == [True]
        assert (await record(store, job.id)).progress == 0.5
        assert [line.text for line in await store.log(job.id)] == ["line"]


async def test_what_two_say_of_one_job_at_once_is_kept_in_full(store: Store) -> None:
    worker = await hand(store)
    job, other = await running(store, worker), await running(store, worker)
    twins = [store.twin() for _ in range(4)]
    for twin in twins:
        await twin.open()
    try:
        for said in range(5):
            notes = [Note(each.id, each.fence, worker.id, said / 5, None, ((0, str(said)),)) for each in (job, other)]
            async with asyncio.timeout(PATIENCE):
                told = await asyncio.gather(
                    *(twin.note(notes[::turn]) for twin, turn in zip(twins, [1, -1] * 2, strict=True))
                )
            assert told == [[True, True]] * 4
    finally:
        for twin in twins:
            await twin.close()
    for each in (job, other):
        assert sorted(line.text for line in await store.log(each.id)) == sorted("01234" * 4)


async def test_an_older_claim_never_writes_over_what_a_newer_one_saved(postgres: Database, store: Store) -> None:
    """However late its word arrives: the job's row is not locked meanwhile."""
    job = await running(store, await hand(store))
    note = Note(job.id, job.fence, job.worker, saved=b"old")
    await store.note([note])
    async with await psycopg.AsyncConnection.connect(postgres.dsn) as newer:
        await newer.execute("UPDATE holdfast_saved SET fence = fence + 1, saved = 'new'")
    await store.note([note])
    [again] = (await store.claim(job.worker, 1, None, 1)).jobs
    assert again.saved == b"new"


# --- how much is read

FINISHED = 5_000  # jobs that nobody asks about; the statistics are of the time before there were any
FILL = """
INSERT INTO holdfast_jobs (id, enqueued_at, due_at, finished_at, prune_at, priority, alone, born_alone, state, task,
    queue, terms, payload)
SELECT gen_random_uuid(), n, n, n, n, 0, false, false, 'succeeded', 'shop.send', 'mail', '[1]', '[]'
FROM generate_series(1, %s) AS n
"""
READ = """
SELECT coalesce(sum(seq_tup_read + idx_tup_fetch), 0)::bigint
FROM pg_stat_xact_user_tables WHERE relname = 'holdfast_jobs'
"""


async def _read(session: psycopg.AsyncConnection[Any]) -> int:
    """How many rows of jobs its transaction has read so far, whether or not they were wanted."""
    row = await (await session.execute(READ)).fetchone()
    assert row is not None
    return int(row[0])


@pytest.fixture
async def session(postgres: Database) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    """Of a server that believes that there are no jobs."""
    async with await psycopg.AsyncConnection.connect(postgres.dsn, autocommit=True) as session:
        await session.execute("TRUNCATE holdfast_jobs")
        await session.execute("ANALYZE holdfast_jobs")
        await session.execute(FILL, [FINISHED])
        yield session
        await session.execute("TRUNCATE holdfast_jobs")


async def test_what_is_done_to_jobs_reads_no_others(store: Store, session: psycopg.AsyncConnection[Any]) -> None:
    ids, ended = await stored(store, *_twenty()), await _cancelled(store, *_twenty())
    words = json.dumps([[str(job), 0, str(job), 0.5, "half", [], None] for job in ids])
    calls: list[tuple[str, Any]] = [
        ("cancel(%s, '', 60000, 0)", ids),
        ("retry(%s, 20, 0)", ended),
        ("delete(%s, 60000, 0)", ended),
        ("note(%s, 200, 0)", words),
    ]
    for call, about in calls:
        for _ in range(7):  # from the sixth on the server may plan once for all
            async with session.transaction(force_rollback=True):
                said = await session.execute(f"SELECT * FROM holdfast_{call}".encode(), [about])
                assert len(await said.fetchall()) == len(ids)
                assert len(ids) <= await _read(session) < FINISHED / 2, call


def _twenty() -> list[Draft]:
    return [draft(delay=HOUR) for _ in range(20)]


async def test_a_page_reads_no_more_than_it_shows(store: Store, session: psycopg.AsyncConnection[Any]) -> None:
    ids = await stored(store, *_twenty())
    pages = [
        Where(),
        Where(ids=ids),
        Where(starts=str(ids[0])[:20]),
        Where(states=[State.SCHEDULED]),
        Where(since=2 * FINISHED),
    ]
    for where in pages:
        lane = _Spy(session)
        assert await find.find(cast("Lane", lane), where, None, 10, Told())
        assert 0 < lane.read < FINISHED / 5, where


@pytest.mark.parametrize(("most", "reads"), [(find.FEW, FINISHED / 5), (5, math.inf)], ids=["few", "many"])
async def test_the_unfinished_are_not_looked_for_among_all_that_are_finished(
    store: Store, session: psycopg.AsyncConnection[Any], monkeypatch: pytest.MonkeyPatch, most: int, reads: float
) -> None:
    """Unless they are many: then a page of them is full soon. Either way it shows the same."""
    monkeypatch.setattr(find, "FEW", most)
    ids = await stored(store, *_twenty(), draft(queue="other"))
    job = await running(store, await hand(store))
    unfinished = [State.QUEUED, State.RUNNING, State.WAITING, State.SCHEDULED]
    for where, wanted in (
        (Where(states=unfinished), {*ids, job.id}),
        (Where(states=unfinished, queue="mail"), {*ids[:-1]}),
        (Where(states=[State.QUEUED]), {ids[-1]}),
        (Where(states=[State.RUNNING], queue="mail"), set[UUID]()),
    ):
        lane = _Spy(session)
        page = await find.find(cast("Lane", lane), where, None, 50, Told())
        assert {row.id for row in page} == wanted
        assert 0 < lane.read < reads, where


class _Spy:
    """A lane that counts the rows that its statements read."""

    schema, shift, read = "public", 0, 0

    def __init__(self, session: psycopg.AsyncConnection[Any]) -> None:
        self._session = session

    async def call(self, function: str, *parameters: Any) -> list[Any]:
        places = ", ".join(["%b"] * len(parameters))
        return await self.rows(f"SELECT * FROM holdfast_{function}({places}, 0)", parameters)

    async def rows(self, text: str, parameters: Sequence[Any]) -> list[Any]:
        async with self._session.transaction(), self._session.cursor(binary=True) as cursor:
            await cursor.execute(text.encode(), parameters)
            rows = await cursor.fetchall()
            self.read += await _read(self._session)
            return rows
