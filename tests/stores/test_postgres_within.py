"""Successes that are written in callers' own transactions on PostgreSQL: what holds for them, and what follows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from holdfast import State
from holdfast.bridge import run_here
from holdfast.clock import HOUR
from holdfast.job import TOMBSTONE, Claim, Note, Outcome, Succeeded
from holdfast.policy import decide
from holdfast.store import Answer, Store
from holdfast.stores import open_store
from tests import servers
from tests.servers.places import Database
from tests.store.acts import BOOM, bound, draft, finish, hand, receipt, record, running, state
from tests.stores.tills import EVERY, a_till

PATIENCE = 30  # seconds, for whatever a test waits for
every_kind = pytest.mark.parametrize("kind", EVERY)


@pytest.fixture(scope="module")
def place() -> Iterator[Database]:
    with servers.postgres().ready() as database:
        yield database


@pytest.fixture
async def store(place: Database) -> AsyncIterator[Store]:
    store = open_store(place.url)
    await store.open()
    yield store
    await store.close()


@pytest.fixture(autouse=True)
def on_any_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Django's connection may be used in the same tests as all others."""
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")


def success(claim: Claim, result: bytes = b'"done"', **changes: Any) -> Outcome:
    return decide(claim, Succeeded(result))._replace(**changes)


# --- part of the transaction


@every_kind
async def test_a_success_is_part_of_the_transaction(kind: str, place: Database, store: Store) -> None:
    claim = await running(store, await hand(store))
    async with a_till(kind, place.dsn) as till:
        assert (await store.finish([success(claim)], till.lent))[0].answer == "accepted"
        await till.rollback()
        assert await state(store, claim.id) == "running"
        assert await store.finish([success(claim)], till.lent) == [(Answer.ACCEPTED, State.SUCCEEDED)]
        assert await state(store, claim.id) == "running", "visible before the commit"
        assert (await store.finish([decide(claim, BOOM)]))[0].answer == "busy"
        await till.commit()
        assert await store.finish([success(claim)], till.lent) == [(Answer.REPLAYED, State.SUCCEEDED)]
    assert await store.finish([decide(claim, BOOM)]) == [(Answer.REPLAYED, State.SUCCEEDED)]
    found = await record(store, claim.id)
    assert (found.state, found.result, found.worker, found.attempt) == ("succeeded", b'"done"', None, 1)
    assert (found.settled_fence, found.settled_by) == (claim.fence, claim.worker)


async def test_after_a_rollback_another_outcome_is_written(place: Database, store: Store) -> None:
    claim = await running(store, await hand(store))
    async with a_till("psycopg", place.dsn) as till:
        await store.finish([success(claim)], till.lent)
        await till.rollback()
    assert (await store.finish([decide(claim, BOOM)]))[0].answer == "accepted"
    assert await state(store, claim.id) == "scheduled"


async def test_a_word_that_does_not_hold_writes_nothing(place: Database, store: Store) -> None:
    worker = await hand(store)
    claim = await running(store, worker)
    async with a_till("psycopg", place.dsn) as till:
        for word in (success(claim, fence=claim.fence + 1), success(claim, worker=uuid4())):
            assert (await store.finish([word], till.lent))[0].answer == "stale"
        assert (await store.finish([success(claim, id=uuid4())], till.lent))[0].answer == "gone"
        await till.commit()
    assert await state(store, claim.id) == "running"
    await finish(store, claim, BOOM)
    async with a_till("psycopg", place.dsn) as till:
        assert await store.finish([success(claim)], till.lent) == [(Answer.REPLAYED, State.SCHEDULED)]
        await till.commit()
    assert (await record(store, claim.id)).result is None


async def test_of_a_deleted_job_only_its_own_word_is_known(place: Database, store: Store) -> None:
    claim = await running(store, await hand(store))
    await finish(store, claim, Succeeded(b"1"))
    assert await store.delete([claim.id]) == ["deleted"]
    async with a_till("psycopg", place.dsn) as till:
        assert (await store.finish([success(claim)], till.lent))[0].answer == "replayed"
        assert (await store.finish([success(claim, fence=9)], till.lent))[0].answer == "gone"


async def test_a_success_stays_one_where_a_cancel_was_asked_for(place: Database, store: Store) -> None:
    claim = await running(store, await hand(store))
    assert await store.cancel([claim.id], "too late") == ["requested"]
    async with a_till("psycopg", place.dsn) as till:
        assert (await store.finish([success(claim)], till.lent))[0].answer == "accepted"
        assert await store.cancel([claim.id]) == ["finishing"]
        await till.commit()
    found = await record(store, claim.id)
    assert (found.state, found.cancel_requested_at, found.reason) == ("succeeded", None, "")
    assert await store.cancel([claim.id]) == ["final"]


ODD = '"\\u0000é 𝄞 %s $1 : \' \\"'.encode()


@pytest.mark.parametrize("result", [None, b"", b"null", b"\x00\xff", ODD, b"x" * 2**20], ids=range(6))
async def test_any_result_is_stored_as_it_is(result: bytes | None, place: Database, store: Store) -> None:
    claim = await running(store, await hand(store))
    async with a_till("psycopg2", place.dsn) as till:
        await store.finish([success(claim)._replace(result=result)], till.lent)
        await till.commit()
    assert (await record(store, claim.id)).result == result


async def test_it_is_kept_as_long_as_any_success(place: Database, store: Store) -> None:
    worker = await hand(store)
    lengths = {}
    for keep in (None, 0, HOUR):
        within, plain = await running(store, worker), await running(store, worker)
        async with a_till("psycopg", place.dsn) as till:
            await store.finish([success(within, keep=keep)], till.lent)
            await till.commit()
        await store.finish([success(plain, keep=keep)])
        with psycopg.connect(place.dsn) as connection:
            rows = connection.execute(
                "SELECT prune_at - finished_at FROM holdfast_jobs WHERE id = ANY (%s)", [[within.id, plain.id]]
            ).fetchall()
        lengths[keep] = {length for (length,) in rows}
    assert lengths == {None: {None}, 0: {TOMBSTONE}, HOUR: {HOUR}}


async def test_nothing_but_the_jobs_own_row_is_locked(place: Database, store: Store) -> None:
    """A bounded queue, what was saved and a line of mail would hold up others until the commit."""
    queue = f"bounded-{uuid4().hex}"
    await bound(store, 2, queue=queue)
    worker = await hand(store)
    claim, neighbour = [await running(store, worker, queue=queue) for _ in range(2)]
    await store.note([Note(job.id, job.fence, job.worker, saved=b"7") for job in (claim, neighbour)])
    async with a_till("psycopg", place.dsn) as till, asyncio.timeout(PATIENCE):
        await store.finish([success(claim)], till.lent)
        assert (await finish(store, neighbour, Succeeded(b"1"))).answer == "accepted"
        assert (await receipt(store, draft(queue=queue))).answer == "accepted"
        assert (await receipt(store, draft(queue=queue))).answer == "full", "the place is free before the commit"
        await till.commit()
        for _ in range(2):  # what follows from it comes with the finish after it, once
            assert await store.finish([success(claim)]) == [(Answer.REPLAYED, State.SUCCEEDED)]
        assert (await receipt(store, draft(queue=queue))).answer == "accepted"
        assert (await receipt(store, draft(queue=queue))).answer == "full"
    with psycopg.connect(place.dsn) as connection:
        assert not connection.execute("SELECT FROM holdfast_saved WHERE job = %s", [claim.id]).fetchall()


async def test_who_finishes_on_two_connections_is_told(place: Database, store: Store) -> None:
    claim = await running(store, await hand(store))
    async with a_till("psycopg", place.dsn) as one, a_till("psycopg", place.dsn) as two, asyncio.timeout(PATIENCE):
        await store.finish([success(claim)], one.lent)
        assert (await store.finish([success(claim)], two.lent))[0].answer == "busy"
        await one.commit()
        assert (await store.finish([success(claim)], two.lent))[0].answer == "replayed"


async def test_only_one_success_is_written_within(place: Database, store: Store) -> None:
    claim = await running(store, await hand(store))
    async with a_till("psycopg", place.dsn) as till:
        with pytest.raises(ValueError, match="one success is written"):
            await store.finish([decide(claim, BOOM)], till.lent)


async def test_it_works_where_the_store_is_not_open(place: Database, store: Store) -> None:
    """As in a process that runs one job and has no connection but the handler's."""
    claim = await running(store, await hand(store))
    closed, job = open_store(place.url), draft()
    async with a_till("psycopg", place.dsn) as till:
        assert run_here(closed.finish([success(claim)], till.lent))[0].answer == "accepted"
        assert run_here(closed.enqueue([job], till.lent))[0].answer == "accepted"
        await till.commit()
    assert await state(store, claim.id) == "succeeded"
    assert await state(store, job.id) == "queued"
