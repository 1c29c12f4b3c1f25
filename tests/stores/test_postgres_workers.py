"""Workers and janitors on PostgreSQL, where a stranger's open transaction may hold a job's row: it holds up nobody."""

import asyncio
import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID, uuid4

import psycopg
import pytest

from holdfast.clock import HOUR, MINUTE, SECOND
from holdfast.job import TOMBSTONE, Claim, Failed, Failure, Loss, Note, State, Succeeded
from holdfast.policy import decide
from holdfast.store import LEASE, LEASE_RAN_OUT, Answer, Settled, Store
from holdfast.stores import open_store
from holdfast.stores import postgres as package
from tests.servers.places import Database
from tests.store.acts import (
    FINAL_BOOM,
    PATIENCE,
    admitted,
    bound,
    draft,
    ended,
    exists,
    finish,
    hand,
    keep_beating,
    record,
    running,
    state,
    steady_hand,
    stored,
)

DONE = Succeeded(b"null")
STRONGEST, FOREIGN_KEY = "FOR UPDATE", "FOR KEY SHARE"


@pytest.fixture
async def store(postgres: Database) -> AsyncIterator[Store]:
    store = open_store(postgres.url)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


class Strangers:
    def __init__(self, database: Database) -> None:
        self._database = database

    @asynccontextmanager
    async def hold(self, *ids: UUID, lock: str = STRONGEST) -> AsyncIterator[None]:
        """A transaction that has these jobs' rows locked, and is open as long as the block lasts."""
        async with await psycopg.AsyncConnection.connect(self._database.dsn) as connection:
            text = f"SELECT id FROM holdfast_jobs WHERE id = ANY(%s) {lock}"
            rows = await connection.execute(text.encode(), [list(ids)])
            assert len(await rows.fetchall()) == len(ids)
            yield
            await connection.rollback()


@pytest.fixture
def strangers(postgres: Database) -> Strangers:
    return Strangers(postgres)


async def test_a_claim_takes_the_jobs_behind_one_that_is_held(store: Store, strangers: Strangers) -> None:
    first, second, third = await stored(store, draft(), draft(), draft())
    worker = await hand(store)
    async with strangers.hold(first):
        assert [job.id for job in await worker.claim(1)] == [second]
        assert [job.id for job in await worker.claim(2)] == [third]
        assert await worker.claim(2) == []
    assert [job.id for job in await worker.claim(2)] == [first]


async def test_an_outcome_whose_job_is_held_is_busy_and_the_others_are_written(
    store: Store, strangers: Strangers
) -> None:
    worker = await hand(store)
    jobs = [await running(store, worker) for _ in range(4)]
    outcomes = [decide(job, verdict) for job, verdict in zip(jobs, [DONE, DONE, FINAL_BOOM, FINAL_BOOM], strict=True)]
    busy = Settled(Answer.BUSY)
    async with strangers.hold(jobs[1].id, jobs[3].id):
        assert list(await store.finish(outcomes)) == [
            Settled(Answer.ACCEPTED, State.SUCCEEDED),
            busy,
            Settled(Answer.ACCEPTED, State.DEAD),
            busy,
        ]
        assert [await state(store, job.id) for job in jobs] == ["succeeded", "running", "dead", "running"]
        assert (await record(store, jobs[3].id)).history == ()
    assert list(await store.finish(outcomes)) == [
        Settled(Answer.REPLAYED, State.SUCCEEDED),
        Settled(Answer.ACCEPTED, State.SUCCEEDED),
        Settled(Answer.REPLAYED, State.DEAD),
        Settled(Answer.ACCEPTED, State.DEAD),
    ]


async def test_what_is_settled_for_good_is_said_though_the_job_is_held(store: Store, strangers: Strangers) -> None:
    worker = await hand(store)
    job = await running(store, worker)
    await finish(store, job, DONE)
    async with strangers.hold(job.id):
        assert await finish(store, job, DONE) == Settled(Answer.REPLAYED, State.SUCCEEDED)
        assert await finish(store, job._replace(worker=uuid4()), DONE) == Settled(Answer.STALE)


async def test_a_foreign_key_of_the_users_to_a_job_is_in_nobodys_way(store: Store, strangers: Strangers) -> None:
    ids = await stored(store, draft(), draft(delay=SECOND))
    worker = await hand(store)
    async with strangers.hold(*ids, lock=FOREIGN_KEY):
        store.shift += SECOND
        assert (await store.promote(10)).moved == 1
        jobs = await worker.claim(2)
        assert len(jobs) == 2
        await worker.retire()
        assert len(await (await hand(store)).sweep()) == 2


async def test_a_sweeper_takes_the_jobs_that_nobody_holds(store: Store, strangers: Strangers) -> None:
    lost = await hand(store)
    held, free = await running(store, lost), await running(store, lost)
    sweeper = await steady_hand(store)
    async with strangers.hold(held.id):
        assert set(await sweeper.reclaim()) == {free.id}
        assert set(await sweeper.reclaim()) == {free.id}, "a repeat returns the same"
    assert set(await sweeper.reclaim()) == {held.id, free.id}
    lines = {(line.kind, line.job, line.fence) for line in await store.mail([lost.id])}
    assert lines == {("lost", job.id, job.fence) for job in (held, free)}


async def test_a_retirement_waits_for_nobody_and_what_it_says_of_a_held_job_is_not_lost(
    store: Store, strangers: Strangers
) -> None:
    worker, sweeper = await hand(store), await hand(store)
    held, other = await running(store, worker), await running(store, worker)
    mine = Loss("segmentation fault\0", culprit=True, stack="in \udcff")
    async with strangers.hold(held.id):
        await worker.retire(Loss("it died"), {(held.id, held.fence): mine, (other.id, other.fence + 1): mine})
    found = await sweeper.reclaim()
    assert (found[held.id].loss, found[other.id].loss) == (mine, Loss("it died"))


async def test_what_was_said_of_a_claim_is_not_said_of_the_next(store: Store) -> None:
    worker = await hand(store)
    job = await running(store, worker)
    await worker.retire(None, {(job.id, job.fence): Loss("first")})
    second = await steady_hand(store)
    assert (await second.reclaim())[job.id].loss == Loss("first")
    await second.retire(None, {(job.id, job.fence + 1): Loss("second")})
    third = await hand(store)
    assert (await third.reclaim())[job.id].loss == Loss("first"), "written once"
    assert await finish(store, job._replace(fence=job.fence + 2, worker=third.id), Failed(BOOM)) == Settled(
        Answer.ACCEPTED, State.SCHEDULED
    )
    store.shift += HOUR
    await store.promote(1)
    fourth = await hand(store)
    again = await fourth.take()
    await keep_beating([sweeper := await hand(store)], LEASE + 1)
    assert (await sweeper.reclaim())[again.id].loss == LEASE_RAN_OUT


BOOM = Failure("ValueError", "no", "…")


async def test_a_job_that_is_due_but_held_does_not_keep_the_promoter_busy(store: Store, strangers: Strangers) -> None:
    held, free = await stored(store, draft(delay=SECOND), draft(delay=2 * SECOND))
    store.shift += MINUTE
    async with strangers.hold(held):
        promoted = await store.promote(10)
        assert promoted.moved == 1
        assert promoted.next_in is not None
        assert 0 < promoted.next_in <= SECOND
        assert await state(store, free) == "queued"
    assert (await store.promote(10)).moved == 1


async def test_what_is_over_but_held_is_deleted_later(store: Store, strangers: Strangers) -> None:
    worker = await hand(store)
    held, free = await ended(store, worker, DONE), await ended(store, worker, DONE)
    store.shift += HOUR
    async with strangers.hold(held):
        assert await store.prune(10) == 1
        assert (await exists(store, held), await exists(store, free)) == (True, False)
    assert await store.prune(10) == 1


# --- what a success in a caller's transaction leaves to do


@asynccontextmanager
async def succeeded_within(postgres: Database, store: Store, job: Claim) -> AsyncIterator[None]:
    """The job is settled in a caller's transaction, which is committed at the end of the block."""
    async with await psycopg.AsyncConnection.connect(postgres.dsn) as connection:
        await store.finish([decide(job, DONE)], connection)
        yield
        await connection.commit()


async def test_a_repeated_word_gives_back_once_what_the_callers_transaction_left(
    postgres: Database, store: Store
) -> None:
    await bound(store, 2)
    await stored(store, draft(), draft())
    job, _ = await (await hand(store)).claim(2)
    await store.note([Note(job.id, job.fence, job.worker, saved=b"half")])
    async with succeeded_within(postgres, store, job):
        assert await finish(store, job, DONE) == Settled(Answer.BUSY)
    for _ in range(2):
        assert await finish(store, job, DONE) == Settled(Answer.REPLAYED, State.SUCCEEDED)
        assert await admitted(store) == 1
    assert await rows_of(postgres, "saved") == 0


@pytest.mark.parametrize(
    "over", [TOMBSTONE, HOUR, -HOUR], ids=["the job is kept", "the job is pruned at once", "the clock was set back"]
)
async def test_what_nobody_asked_about_is_given_back_by_a_janitor(postgres: Database, store: Store, over: int) -> None:
    await bound(store, 2)
    await stored(store, draft(), draft())
    job, _ = await (await hand(store)).claim(2)
    await store.note([Note(job.id, job.fence, job.worker, saved=b"half")])
    async with succeeded_within(postgres, store, job):
        pass
    for store.shift in (0, TOMBSTONE // 2):
        await store.prune(10)
        assert await rows_of(postgres, "saved") == 1, "its worker may still come"
    store.shift = over
    await store.prune(10)
    assert await admitted(store) == 1
    assert await rows_of(postgres, "saved") == 0


async def rows_of(postgres: Database, table: str) -> int:
    async with await psycopg.AsyncConnection.connect(postgres.dsn) as connection:
        rows = await connection.execute(f"SELECT count(*) FROM holdfast_{table}".encode())
        [[number]] = await rows.fetchall()
    return int(number)


# --- rows that somebody else has written


async def test_a_claimed_row_that_cannot_be_read_is_dead_and_gives_its_place_back(
    postgres: Database, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    await bound(store, 2)
    bad, good = await stored(store, draft(), draft())
    async with await psycopg.AsyncConnection.connect(postgres.dsn) as connection:
        await connection.execute("UPDATE holdfast_jobs SET terms = '[1]' WHERE id = %s", [bad])
    worker = await hand(store)
    with caplog.at_level(logging.ERROR, "holdfast"):
        assert [job.id for job in await worker.claim(10)] == [good]
    assert f"{bad}" in caplog.text
    async with await psycopg.AsyncConnection.connect(postgres.dsn) as connection:
        rows = await connection.execute("SELECT state, reason, worker FROM holdfast_jobs WHERE id = %s", [bad])
        [(became, reason, holder)] = await rows.fetchall()
    assert (became, holder) == ("dead", None)
    assert reason.startswith("row cannot be read: ValueError: terms '[1]'")
    [stats] = (await store.stats()).queues
    assert stats.admitted == 1


async def test_a_failure_that_meets_a_cancel_is_written_once_and_later(store: Store, postgres: Database) -> None:
    """The row changes after the statement that writes has begun, and before it comes to the row."""
    worker = await hand(store)
    failed = Failed(Failure("ValueError", "no", "t" * 50_000), final=True)
    busy: list[UUID] = []
    async with asyncio.timeout(PATIENCE), await psycopg.AsyncConnection.connect(postgres.dsn, autocommit=True) as other:
        for tries in range(1000):
            await stored(store, *(draft() for _ in range(50)))
            outcomes = [decide(job, failed) for job in await worker.claim(50)]
            ids = [outcome.id for outcome in outcomes]

            async def cancel(ids: list[UUID] = ids, pause: float = tries % 10 * 0.004) -> None:
                await asyncio.sleep(pause)
                await other.execute("SELECT holdfast_cancel(%s, 'why', 60000, 0)", [ids])

            settled, _ = await asyncio.gather(store.finish(outcomes), cancel())
            if busy := [outcome.id for outcome, met in zip(outcomes, settled, strict=True) if met.answer == "busy"]:
                break
    assert busy, "no failure met a cancel"
    again = await store.finish([outcome for outcome in outcomes if outcome.id in busy])
    assert {met.answer for met in again} == {"accepted"}
    assert [len((await record(store, job)).history) for job in busy] == [1] * len(busy)


async def test_a_job_that_a_users_table_refers_to_stays_and_all_others_are_pruned(
    store: Store, postgres: Database
) -> None:
    worker = await hand(store)
    kept, *gone = [await ended(store, worker, DONE) for _ in range(3)]
    async with await psycopg.AsyncConnection.connect(postgres.dsn, autocommit=True) as owner:
        await owner.execute("CREATE TABLE bills (job uuid REFERENCES holdfast_jobs (id))")
        await owner.execute("INSERT INTO bills VALUES (%s)", [kept])
        try:
            store.shift += HOUR
            assert await store.prune(10) == len(gone)
            assert [await exists(store, job) for job in (kept, *gone)] == [True, False, False]
            assert await store.prune(10) == 0
        finally:
            await owner.execute("DROP TABLE bills")
    store.shift += 2 * HOUR
    assert await store.prune(10) == 1


CALLED = {
    name
    for path in Path(package.__file__).parent.glob("*.py")
    for name in re.findall(r'\.call\(\s*"(\w+)"', path.read_text())
}

HIJACK = """
CREATE FUNCTION public.cardinality(uuid[]) RETURNS integer LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'somebody else runs as %', current_user; END $$
"""


async def test_functions_of_others_on_the_search_path_are_not_called(store: Store, postgres: Database) -> None:
    async with await psycopg.AsyncConnection.connect(postgres.dsn, autocommit=True) as other:
        await other.execute(HIJACK)
        try:
            with pytest.raises(psycopg.Error, match="somebody else runs as"):
                await other.execute("SELECT cardinality(ARRAY[gen_random_uuid()])")
            await ended(store, await hand(store), DONE)
            await ended(store, await hand(store), FINAL_BOOM)
            await other.execute("""SELECT * FROM holdfast_enqueue('[{"task": "shop.send"}]')""")
            called = await other.execute(
                "SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace"
                " AND array_to_string(proconfig, ' ') LIKE '%search_path=pg_catalog, pg_temp%'"
            )
            guarded = {name for (name,) in await called.fetchall()}
        finally:
            await other.execute("DROP FUNCTION public.cardinality(uuid[])")
    assert guarded >= {f"holdfast_{name}" for name in CALLED | {"enqueue", "finish_within"}}
