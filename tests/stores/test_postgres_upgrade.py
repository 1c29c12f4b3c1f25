"""From version 1 of the tables to this one: what is there stays, and code of version 1 goes on beside newer code."""

from __future__ import annotations

import asyncio
from secrets import token_hex
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from holdfast.clock import HOUR
from holdfast.errors import StoreError
from holdfast.job import QueueTerms, Until, new_id
from holdfast.store import Where
from holdfast.stores import open_store
from holdfast.stores.postgres import migrating, opening, statements
from tests.servers.places import Database
from tests.store.acts import draft, hand, stored
from tests.stores.strangers import opened

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]

# What code of version 1 reads, by place.
CLAIM = (
    "id fence task queue payload terms priority attempt releases losses crashes alone enqueued_at due_at started_at"
    " loss headers saved"
)
OLD_JOB = """
INSERT INTO holdfast_jobs (id, enqueued_at, due_at, priority, alone, born_alone, state, task, queue, terms, payload)
VALUES (%s, 1, 1, 0, false, false, %s, 'shop.send', 'mail', '[1, 1000, 300000, 0.2, 3, null, 86400000]', '[42]')
"""


@pytest.fixture
def version_1(monkeypatch: pytest.MonkeyPatch, bare_postgres: Database) -> Database:
    """A place whose tables are of version 1."""
    first = {name: text for name, text in statements.migrations().items() if name.startswith("0001")}
    with monkeypatch.context() as patch:
        for module in (migrating, opening):
            patch.setattr(module, "migrations", lambda: first)
        asyncio.run(_migrated(bare_postgres))
    return bare_postgres


async def _migrated(database: Database) -> None:
    await open_store(database.url).migrate()


async def test_what_is_there_stays_and_the_indexes_are_made_beside_it(version_1: Database) -> None:
    queued, dead = new_id(), new_id()
    with psycopg.connect(version_1.dsn, autocommit=True) as operator:
        for job, state in ((queued, "queued"), (dead, "dead")):
            operator.execute(OLD_JOB, [job, state])
        operator.execute(
            "INSERT INTO holdfast_queues (name, declared, max_size, when_full) VALUES ('mail', %s, 7, 'reject')",
            ['[7, "reject", null]'],
        )
        with pytest.raises(StoreError, match="version 1, this code needs 2: run `holdfast migrate`"):
            await open_store(version_1.url).open()
        ran = await open_store(version_1.url).migrate()
        assert len([text for text in ran if "CREATE INDEX CONCURRENTLY" in text]) == 2
        assert operator.execute("SELECT bool_and(indisvalid) FROM pg_index").fetchone() == (True,)
        assert operator.execute("SELECT version, oldest_code FROM holdfast_meta").fetchone() == (2, 1)
    async with opened(version_1) as store:
        found = {each.id: each for each in await store.find(Where())}
        assert found.keys() == {queued, dead}
        assert {(each.expires_at, each.deadline_at, each.fingerprint) for each in found.values()} == {(None, None, "")}
        [setup] = await store.queues()
        assert (setup.name, setup.terms) == ("mail", QueueTerms(7, "reject", None, 1))
        assert [job.id for job in await (await hand(store)).claim()] == [queued]


async def test_who_could_use_the_jobs_can_use_what_is_new(version_1: Database) -> None:
    name = f"app_{token_hex(4)}"
    with psycopg.connect(version_1.dsn, autocommit=True) as operator:
        operator.execute(f"CREATE ROLE {name}".encode())
        try:
            operator.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {name}".encode())
            await _migrated(version_1)
            lacks = operator.execute(
                "SELECT relname, privilege"
                " FROM pg_class, unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS privilege"
                " WHERE relkind = 'r' AND relname LIKE 'holdfast_%%' AND NOT has_table_privilege(%s, oid, privilege)",
                [name],
            ).fetchall()
            assert lacks == []
        finally:
            operator.execute(f"DROP OWNED BY {name}".encode())
            operator.execute(f"DROP ROLE {name}".encode())


async def test_a_place_that_is_new_waits_for_no_open_transaction(bare_postgres: Database) -> None:
    """An index that is made CONCURRENTLY waits for every one that has a snapshot."""
    with psycopg.connect(bare_postgres.dsn) as user:
        user.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        user.execute("SELECT 1")
        ran = await asyncio.wait_for(open_store(bare_postgres.url).migrate(), 30)
        assert not any("CONCURRENTLY" in text.partition("(")[0] for text in ran if not text.startswith("--"))


def asked(
    connection: psycopg.Connection[Any], call: str, *parameters: object
) -> tuple[list[str], list[tuple[Any, ...]]]:
    """The names of the columns, and the rows."""
    cursor = connection.execute(f"SELECT * FROM {call}".encode(), parameters)
    return [column.name for column in cursor.description or ()], cursor.fetchall()


async def test_code_of_version_1_gets_what_it_got(postgres: Database) -> None:
    async with opened(postgres) as store:
        jobs = await stored(
            store,
            draft(),
            draft(queue="stopped"),
            draft(delay=HOUR),
            draft(expires=Until(HOUR)),
            draft(deadline=Until(1)),
        )
        await store.pause("stopped")
        worker, sweeper = uuid4(), uuid4()
        for each in (worker, sweeper):
            await store.register(each, None, {})
        with psycopg.connect(postgres.dsn, autocommit=True) as old:
            assert asked(old, "holdfast_any_queued(NULL, 0)")[1] == [(True,)]
            assert asked(old, "holdfast_any_queued('{stopped}', 0)")[1] == [(False,)]
            names, rows = asked(old, "holdfast_promote(10, %s)", 10)
            assert names == ["moved", "next_in", "filled"]
            assert rows[0][0] == 0
            assert rows[0][1] > 0
            names, rows = asked(old, "holdfast_claim(%s, 1, NULL, 10, 10)", worker)
            assert " ".join(names) == f"{CLAIM} refused"
            assert {row[0] for row in rows} == {jobs[0], jobs[3]}
            assert asked(old, "holdfast_claim(%s, 1, NULL, 10, 10)", worker) == (names, rows), "the same ticket again"
            old.execute("SELECT holdfast_retire(%s, NULL, NULL, 10)", [worker])
            names, rows = asked(old, "holdfast_reclaim(%s, 10, 10)", sweeper)
            assert " ".join(names) == CLAIM
            assert {row[0] for row in rows} == {jobs[0], jobs[3]}
            old.execute("""SELECT holdfast_configure('{"mail": [7, "reject", null]}', 'worker', 0)""")
        assert [(each.name, each.terms.weight) for each in await store.queues()] == [("mail", 1), ("stopped", 1)]
