"""What the functions of a worker and a janitor read on PostgreSQL: as much as they return, whatever lies about and
whatever the planner believes of it.
"""

import asyncio
from collections.abc import Iterator
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import psycopg
import pytest

from holdfast.clock import HOUR, Span
from holdfast.stores import open_store
from holdfast.stores.postgres.statements import statement
from tests.servers.places import Database

MANY = pytest.param(20_000, 2_000, id="thousands")
MILLION = pytest.param(1_000_000, 100_000, id="a million", marks=[pytest.mark.soak, pytest.mark.timeout(600)])

FILL = """
INSERT INTO holdfast_jobs (
    id, enqueued_at, due_at, started_at, finished_at, prune_at, fence, worker, ticket, priority, attempt,
    alone, born_alone, state, task, queue, terms, payload
)
SELECT
    gen_random_uuid(), moment, moment + CASE WHEN state = 'scheduled' THEN 3600000 ELSE 0 END, moment, moment,
    CASE WHEN state = 'succeeded' THEN moment + 3600000 END,
    0, NULL, NULL, 0, 1,
    false, false, state, 'shop.send', 'mail', '[1, 1000, 300000, 0.2, 3, null, 86400000]', '[42]'
FROM (
    SELECT %(state)s AS state, holdfast_now() + %(later)s + n AS moment FROM generate_series(1, %(number)s) AS n
) AS job
"""


class Read(NamedTuple):
    rows: int
    pages: int  # each time that one was looked at


class Reader:
    """A session in which functions are called, and what they read is counted; nothing that they do stays."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def fill(self, state: str, number: int, later: Span = 0) -> None:
        self._connection.execute(FILL, {"state": state, "number": number, "later": later})

    def run(self, text: str) -> list[Any]:
        cursor = self._connection.execute(text.encode())
        return cursor.fetchall() if cursor.description else []

    def reads(self, call: str, *parameters: object) -> Read:
        """Counted at the second call: the first one plans, and looks into the catalogue."""
        for _ in range(2):
            with self._connection.transaction(force_rollback=True):
                text = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT * FROM {call}"
                row = self._connection.execute(text.encode(), parameters).fetchone()
        assert row is not None
        plan = row[0][0]["Plan"]
        return Read(plan["Actual Rows"], plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


@pytest.fixture
def reader(bare_postgres: Database) -> Iterator[Reader]:
    asyncio.run(_migrated(bare_postgres))
    with psycopg.connect(bare_postgres.dsn, autocommit=True) as connection:
        reader = Reader(connection)
        # Statistics and dead rows are as the test makes them.
        reader.run("ALTER TABLE holdfast_jobs SET (autovacuum_enabled = off)")
        yield reader


async def _migrated(database: Database) -> None:
    await open_store(database.url).migrate()


@pytest.fixture(params=["never counted", "counted when it was empty", "counted when all was queued"])
def believed(request: pytest.FixtureRequest, reader: Reader) -> None:
    """What the planner believes of the table of jobs."""
    match request.param:
        case "counted when it was empty":
            reader.run("ANALYZE holdfast_jobs")
        case "counted when all was queued":
            reader.fill("queued", 2_000)
            reader.run("ANALYZE holdfast_jobs")
            reader.run("DELETE FROM holdfast_jobs")
            reader.run("VACUUM (TRUNCATE off) holdfast_jobs")
        case _:
            pass


def a_worker(reader: Reader) -> UUID:
    worker = uuid4()
    reader.run(f"SELECT holdfast_register('{worker}', NULL, '{{}}', 0)")
    return worker


def words(reader: Reader, worker: UUID, number: int) -> tuple[object, ...]:
    """The parameters of holdfast_finish for jobs that the worker holds."""
    ids = [
        row[0] for row in reader.run(f"SELECT id FROM holdfast_claim_2('{worker}', 1, NULL, {number}, NULL, NULL, 0)")
    ]
    some = [1] * number
    return (ids, some, [worker] * number, [b"null"] * number, some, some, some, some, some, [False] * number)


FINISH = (
    "holdfast_finish(%s, %s::bigint[], %s, %s, %s::bigint[], %s::integer[], %s::integer[], %s::integer[],"
    " %s::integer[], %s, NULL, 0)"
)


@pytest.mark.usefixtures("believed")
@pytest.mark.parametrize(("finished", "scheduled"), [MANY, MILLION])
def test_all_reads_are_in_proportion_to_what_is_asked_for(reader: Reader, finished: int, scheduled: int) -> None:
    reader.fill("succeeded", finished)
    reader.fill("scheduled", scheduled)
    reader.fill("queued", 400)
    worker = a_worker(reader)
    assert reader.run("SELECT count(*) FROM holdfast_jobs WHERE state = 'succeeded'") == [(finished,)]

    most = {0: 60, 1: 60 + 40, 100: 60 + 100 * 40}  # pages, by limit; a job has a handful of indexes to be written in
    for limit, pages in most.items():
        for queues in (None, ["mail"], ["other", "mail"]):
            read = reader.reads("holdfast_claim_2(%s, 1, %s, %s, NULL, NULL, 0)", worker, queues, limit)
            assert read.rows == limit
            assert read.pages <= pages, f"claiming {limit} of {queues}"
        shared = reader.reads("holdfast_claim_2(%s, 1, NULL, %s, '{other,mail}', '{50,50}', 0)", worker, limit)
        assert shared.rows == limit
        assert shared.pages <= pages, f"claiming {limit} by shares"

    finishing = words(reader, worker, 100)
    assert reader.reads(FINISH, *finishing) <= Read(0, most[100]), "all are accepted"
    strange = (finishing[0], [7] * 100, *finishing[2:])
    assert reader.reads(FINISH, *strange).rows == 100, "all are refused"
    assert reader.reads(FINISH, *strange).pages <= most[100]
    assert reader.reads("holdfast_mail(%s, 0)", [worker]).pages <= most[0]
    assert reader.reads("holdfast_promote_2(100, 0)").pages <= most[0], "none is due"
    assert reader.reads("holdfast_promote_2(100, %s)", 2 * HOUR).pages <= most[100]
    assert reader.reads("holdfast_prune(100, 0)").pages <= most[0], "none is over"
    assert reader.reads("holdfast_prune(100, %s)", 2 * HOUR).pages <= most[100]

    sweeper = a_worker(reader)
    assert reader.reads("holdfast_reclaim_2(%s, 100, 0)", sweeper).rows == 0
    assert reader.reads("holdfast_reclaim_2(%s, 100, 0)", sweeper).pages <= most[0], "nobody is gone"
    reader.run(f"SELECT holdfast_retire('{worker}', NULL, NULL, 0)")
    reclaimed = reader.reads("holdfast_reclaim_2(%s, 100, 0)", sweeper)
    assert reclaimed.rows == 100
    assert reclaimed.pages <= most[100]


@pytest.mark.usefixtures("believed")
@pytest.mark.parametrize(("finished", "scheduled"), [MANY])
def test_what_ends_jobs_reads_those_that_are_over(reader: Reader, finished: int, scheduled: int) -> None:
    reader.fill("succeeded", finished)
    reader.fill("scheduled", scheduled)
    reader.run("UPDATE holdfast_jobs SET deadline_at = holdfast_now() + 36000000, started_at = NULL")
    reader.fill("queued", 400)
    assert reader.reads("holdfast_promote_2(100, 0)").pages <= 60, "none is over"
    reader.run("UPDATE holdfast_jobs SET expires_at = 1, started_at = NULL WHERE state = 'queued'")
    worker = a_worker(reader)
    assert reader.reads("holdfast_claim_2(%s, 1, NULL, 0, NULL, NULL, 0)", worker).pages <= 60
    assert reader.reads("holdfast_promote_2(100, 0)").pages <= 60 + 100 * 40
    [[ended]] = reader.run("SELECT json_array_length(over::json) FROM holdfast_promote_2(100, 0)")
    assert ended == 100


@pytest.mark.usefixtures("believed")
def test_a_paused_queue_is_not_read(reader: Reader) -> None:
    reader.fill("queued", 5_000)
    reader.run("SELECT holdfast_pause('mail', NULL, NULL, '', 0)")
    worker = a_worker(reader)
    for queues in (None, ["mail"]):
        read = reader.reads("holdfast_claim_2(%s, 1, %s, 100, '{mail}', '{100}', 0)", worker, queues)
        assert read.rows == 0
        assert read.pages <= 60, f"claiming of {queues}"
        assert reader.reads("holdfast_look(%s, 0)", queues).pages <= 60


@pytest.mark.usefixtures("believed")
def test_deaths_of_one_kind_are_found_without_all_others(reader: Reader) -> None:
    reader.fill("dead", 20_000)
    reader.run("UPDATE holdfast_jobs SET fingerprint = md5(id::text)")
    [[one]] = reader.run("SELECT fingerprint FROM holdfast_jobs LIMIT 1")
    text = statement("find", "public").replace("{conditions}", "job.fingerprint = %s").replace("%b", "%s")
    read = reader.reads(f"({text}) AS page", 0, one, 50)
    assert read.rows == 1
    assert read.pages <= 60


@pytest.mark.usefixtures("believed")
def test_schedules_that_are_not_due_are_not_read(reader: Reader) -> None:
    reader.run(
        "INSERT INTO holdfast_schedules (name, queue, text, next_at, revision)"
        " SELECT 's' || n, 'mail', repeat('x', 500), holdfast_now() + n * 1000, 1 FROM generate_series(-9, 9990) AS n"
    )
    read = reader.reads("holdfast_due(100, 0)")
    assert read.rows == 10
    assert read.pages <= 100
    [[due]] = reader.run("SELECT next_at FROM holdfast_schedules WHERE name = 's0'")
    call = "holdfast_tick('s0', 1, %s, %s, %s, 1, '', NULL, NULL, NULL, NULL, 100, 20, 0)"
    assert reader.reads(call, due, due, due + HOUR).pages <= 60


@pytest.fixture
def old_transaction(bare_postgres: Database, reader: Reader) -> Iterator[None]:
    """It has begun before there were rows, so that none of them can be cleared away."""
    with psycopg.connect(bare_postgres.dsn) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.execute("SELECT 1 FROM holdfast_jobs")
        yield
        connection.rollback()


def passed(reader: Reader, number: int) -> UUID:
    """A worker whose claim has passed so many dead entries, with jobs queued behind them; its tickets begin at 2."""
    reader.fill("queued", number)
    reader.run("UPDATE holdfast_jobs SET state = 'succeeded' WHERE state = 'queued'")
    reader.fill("queued", 200, later=HOUR)
    worker = a_worker(reader)
    assert reader.reads("holdfast_claim_2(%s, 1, NULL, 1, NULL, NULL, 0)", worker).pages > 500, "a look from the head"
    assert len(reader.run(f"SELECT id FROM holdfast_claim_2('{worker}', 1, NULL, 1, NULL, NULL, 0)")) == 1
    return worker


def urgent(reader: Reader) -> None:
    """One job before all others, with priority 9."""
    reader.fill("queued", 1, later=2 * HOUR)
    [[newest]] = reader.run("SELECT id FROM holdfast_jobs ORDER BY enqueued_at DESC LIMIT 1")
    reader.run(f"UPDATE holdfast_jobs SET priority = 9 WHERE id = '{newest}'")


def priorities(reader: Reader, worker: UUID, most: int, shift: Span) -> list[int]:
    """Of the jobs that the worker's next claim takes, the highest first."""
    rows = reader.run(f"SELECT priority FROM holdfast_claim_2('{worker}', 2, NULL, {most}, NULL, NULL, {shift})")
    return sorted((row[0] for row in rows), reverse=True)


def floor_of(reader: Reader) -> tuple[Span, Span]:
    """How long the worker's claims begin at the floor still; and how long those that find less than they asked for."""
    [[until, soon]] = reader.run(
        "SELECT (floors #>> '{mail,2}')::bigint - holdfast_now(), (floors #>> '{mail,3}')::bigint - holdfast_now()"
        " FROM holdfast_workers"
    )
    return until, soon


@pytest.mark.usefixtures("old_transaction")
@pytest.mark.parametrize("number", [20_000, pytest.param(100_000, marks=pytest.mark.soak)])
def test_what_an_old_transaction_holds_back_is_not_walked_over_by_every_claim(reader: Reader, number: int) -> None:
    worker = passed(reader, number)
    for queues in (None, ["mail"]):
        read = reader.reads("holdfast_claim_2(%s, 2, %s, 1, NULL, NULL, 0)", worker, queues)
        assert read.rows == 1
        assert read.pages <= 60 + 40, "the second claim begins where the first ended"
    # What came with a higher priority meanwhile is found by the next look from the head.
    urgent(reader)
    until, soon = floor_of(reader)
    assert soon < until <= 2000
    assert priorities(reader, worker, 1, until + 1) == [9]


@pytest.mark.usefixtures("old_transaction")
def test_a_worker_with_hands_free_soon_looks_at_all_again(reader: Reader) -> None:
    worker = passed(reader, 20_000)
    urgent(reader)
    until, soon = floor_of(reader)
    assert until - soon > 200
    assert priorities(reader, worker, 1, until - 100) == [0], "as many as it asked for were behind the floor"
    reader.run(f"UPDATE holdfast_workers SET ticket = 1 WHERE id = '{worker}'")
    assert 9 in priorities(reader, worker, 500, until - 100)


@pytest.mark.usefixtures("old_transaction")
def test_a_clock_that_is_set_back_leaves_no_job_behind_a_floor(reader: Reader) -> None:
    worker = passed(reader, 20_000)
    urgent(reader)
    assert priorities(reader, worker, 1, -HOUR) == [9]
