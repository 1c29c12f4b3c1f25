"""A success in the caller's own transaction, on every store that takes one: fenced, all or nothing, and only once."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text

from holdfast.clock import MINUTE
from holdfast.errors import ConfigError, StoreAway
from holdfast.job import Claim, QueueTerms, Snoozed, State, Succeeded, Verdict, new_id
from holdfast.policy import decide
from holdfast.store import Answer, Settled, Store
from holdfast.stores import open_store
from tests import servers
from tests.flows.till import engine
from tests.store.acts import Hand, draft, hand, stored
from tests.worker.rig import record

DONE = Settled(Answer.ACCEPTED, State.SUCCEEDED)
AGAIN = Settled(Answer.REPLAYED, State.SUCCEEDED)


@contextlib.contextmanager
def _postgres(_: Path) -> Iterator[str]:
    with servers.postgres().ready() as database:
        yield database.url


PLACES: dict[str, Callable[[Path], AbstractContextManager[str]]] = {
    "sqlite": lambda folder: contextlib.nullcontext(f"sqlite:///{folder}/shop.db"),
    "postgres": _postgres,
}


@pytest.fixture(params=sorted(PLACES))
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    with PLACES[request.param](tmp_path) as url:
        yield url


@pytest.fixture
async def store(url: str) -> AsyncIterator[Store]:
    store = open_store(url)
    await store.open()
    yield store
    await store.close()


@pytest.fixture
async def worker(store: Store) -> Hand:
    return await hand(store)


@pytest.fixture
def connection(store: Store, url: str) -> Iterator[Connection]:
    """A caller's, with a row of his own in its transaction."""
    with engine(url).begin() as connection:
        connection.execute(text("CREATE TABLE receipts (number INTEGER)"))
    with engine(url).connect() as connection:
        connection.execute(text("INSERT INTO receipts VALUES (7)"))
        yield connection
    with engine(url).begin() as connection:
        connection.execute(text("DROP TABLE receipts"))


def receipts(connection: Connection) -> int:
    with connection.engine.connect() as other:
        return other.execute(text("SELECT count(*) FROM receipts")).scalar_one()


async def claimed(store: Store, worker: Hand, **changes: Any) -> Claim:
    await stored(store, draft(**changes))
    return await worker.take()


async def finished(store: Store, claim: Claim, connection: object, result: bytes = b"1") -> Settled:
    [settled] = await store.finish([decide(claim, Succeeded(result))], connection)
    return settled


@pytest.fixture
async def job(store: Store, worker: Hand) -> Claim:
    """Claimed before the caller's transaction, which may hold the only write lock, begins."""
    return await claimed(store, worker)


async def test_what_is_committed_is_there_as_any_success(store: Store, job: Claim, connection: Connection) -> None:
    assert await finished(store, job, connection, b'{"receipt":7}') == DONE
    assert (await record(store, job.id)).state is State.RUNNING, "for all others, until the commit"
    assert receipts(connection) == 0
    connection.commit()
    found = await record(store, job.id)
    assert (found.state, found.result, found.worker, found.history) == (State.SUCCEEDED, b'{"receipt":7}', None, ())
    assert found.finished_at is not None
    assert receipts(connection) == 1


async def test_what_is_rolled_back_has_never_been(store: Store, job: Claim, connection: Connection) -> None:
    before = await record(store, job.id)
    assert await finished(store, job, connection) == DONE
    connection.rollback()
    assert await record(store, job.id) == before
    assert (await store.finish([decide(job, Snoozed(0, "later"))]))[0].answer is Answer.ACCEPTED
    assert receipts(connection) == 0


async def test_the_next_finish_of_the_claim_is_told_of_it(store: Store, job: Claim, connection: Connection) -> None:
    await finished(store, job, connection)
    connection.commit()
    for _ in range(2):
        assert await store.finish([decide(job, Snoozed(0, "later"))]) == [AGAIN]
    assert (await record(store, job.id)).state is State.SUCCEEDED


async def test_a_second_one_is_told_in_the_transaction_and_after_it(
    store: Store, job: Claim, connection: Connection
) -> None:
    await finished(store, job, connection)
    assert await finished(store, job, connection, b"2") == AGAIN
    connection.commit()
    assert await finished(store, job, connection, b"3") == AGAIN
    connection.rollback()
    assert (await record(store, job.id)).result == b"1"


async def test_after_a_rollback_it_can_be_done_again(store: Store, job: Claim, connection: Connection) -> None:
    await finished(store, job, connection)
    connection.rollback()
    assert await finished(store, job, connection, b"2") == DONE
    connection.commit()
    assert (await record(store, job.id)).result == b"2"


@pytest.mark.parametrize("other", ["fence", "worker", "id"])
async def test_another_word_writes_nothing_and_leaves_the_transaction_as_it_was(
    store: Store, job: Claim, connection: Connection, other: str
) -> None:
    claim = job._replace(**{other: job.fence + 1 if other == "fence" else new_id()})
    assert (await finished(store, claim, connection)).answer is (Answer.GONE if other == "id" else Answer.STALE)
    connection.commit()
    assert (await record(store, job.id)).state is State.RUNNING
    assert receipts(connection) == 1, "the caller's own work is his"


async def test_a_cancel_that_was_asked_for_does_not_undo_it(
    store: Store, worker: Hand, job: Claim, request: pytest.FixtureRequest
) -> None:
    assert await store.cancel([job.id]) == ["requested"]
    connection: Connection = request.getfixturevalue("connection")
    assert await finished(store, job, connection) == DONE
    connection.commit()
    assert (await record(store, job.id)).state is State.SUCCEEDED


async def test_its_place_is_free_after_the_next_finish_and_only_once(
    store: Store, worker: Hand, request: pytest.FixtureRequest
) -> None:
    await store.configure({"narrow": QueueTerms(max_size=1)}, by="operator")
    job = await claimed(store, worker, queue="narrow")
    connection: Connection = request.getfixturevalue("connection")
    await finished(store, job, connection)
    connection.commit()
    for _ in range(2):
        assert await store.finish([decide(job, Snoozed(0, "later"))]) == [AGAIN]
    answers = [receipt.answer for receipt in await store.enqueue([draft(queue="narrow"), draft(queue="narrow")])]
    assert answers == ["accepted", "full"]


async def test_its_place_is_free_in_the_end_though_its_worker_died_before_the_next(
    store: Store, worker: Hand, request: pytest.FixtureRequest
) -> None:
    await store.configure({"narrow": QueueTerms(max_size=1)}, by="operator")
    job = await claimed(store, worker, queue="narrow")
    connection: Connection = request.getfixturevalue("connection")
    await finished(store, job, connection)
    connection.commit()
    sweeper = await hand(store)
    assert await store.reclaim(sweeper.id, 10) == []
    store.shift += 2 * MINUTE  # until then its worker might still come and ask
    await store.prune(10)
    answers = [receipt.answer for receipt in await store.enqueue([draft(queue="narrow"), draft(queue="narrow")])]
    assert answers == ["accepted", "full"]


async def test_its_place_is_free_at_once_where_its_worker_is_retired(
    store: Store, worker: Hand, request: pytest.FixtureRequest
) -> None:
    await store.configure({"narrow": QueueTerms(max_size=1)}, by="operator")
    job = await claimed(store, worker, queue="narrow")
    connection: Connection = request.getfixturevalue("connection")
    await finished(store, job, connection)
    connection.commit()
    await store.retire(worker.id)
    answers = [receipt.answer for receipt in await store.enqueue([draft(queue="narrow"), draft(queue="narrow")])]
    assert answers == ["accepted", "full"]


@pytest.mark.parametrize("verdicts", [[], [Snoozed(5)], [Succeeded(b"1"), Succeeded(b"1")]], ids=len)
async def test_anything_but_one_success_is_refused_and_nothing_of_it_written(
    store: Store, job: Claim, connection: Connection, verdicts: list[Verdict]
) -> None:
    with pytest.raises(ValueError, match="one success is written, and nothing else"):
        await store.finish([decide(job, verdict) for verdict in verdicts], connection)
    connection.commit()
    assert (await record(store, job.id)).state is State.RUNNING


async def test_without_a_transaction_it_is_refused(store: Store, job: Claim, url: str) -> None:
    alone = engine(url).connect().execution_options(isolation_level="AUTOCOMMIT")
    with alone, pytest.raises(ConfigError, match="transaction"):
        await finished(store, job, alone)
    assert (await record(store, job.id)).state is State.RUNNING


async def test_what_is_no_connection_is_refused(store: Store, job: Claim) -> None:
    with pytest.raises(ConfigError, match=r"builtins\.object"):
        await finished(store, job, object())


# --- SQLite's own


async def test_whatever_the_owner_of_a_connection_has_set_on_it(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/shop.db")
    await store.open()
    worker = await hand(store)
    job = await claimed(store, worker)
    with contextlib.closing(sqlite3.connect(tmp_path / "shop.db")) as connection:
        connection.text_factory = lambda data: 1 / 0
        connection.row_factory = lambda cursor, row: 1 / 0
        assert await finished(store, job._replace(fence=9), connection) == Settled(Answer.STALE)
        assert await finished(store, job, connection) == DONE
        assert await finished(store, job, connection) == AGAIN
        connection.commit()
    assert (await record(store, job.id)).state is State.SUCCEEDED
    await store.close()


async def test_a_transaction_with_an_old_snapshot_is_told_to_begin_immediately(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/shop.db")
    await store.open()
    worker = await hand(store)
    job = await claimed(store, worker)
    with contextlib.closing(sqlite3.connect(tmp_path / "shop.db", isolation_level=None, timeout=0)) as connection:
        connection.execute("BEGIN")
        connection.execute("SELECT * FROM holdfast_meta").fetchall()
        await stored(store, draft())
        with pytest.raises(StoreAway, match="BEGIN IMMEDIATE"):
            await finished(store, job, connection)
        connection.execute("ROLLBACK")
    assert (await record(store, job.id)).state is State.RUNNING
    await store.close()
