"""docs/postgres.md is true: its set-up is enough for all that the store does, its queries name who is in the way."""

import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from uuid import UUID

import psycopg
import pytest
from click.testing import CliRunner

from holdfast import Holdfast
from holdfast.cli.shell import shell
from holdfast.errors import StoreAway, StoreError
from holdfast.store import LEASE, Store
from holdfast.stores import open_store
from holdfast.stores.postgres.limits import limits
from tests import servers
from tests.servers.places import Database
from tests.store.acts import draft, stored
from tests.store.everything import all_that_a_store_does

PAGE = (Path(__file__).parent.parent / "docs" / "postgres.md").read_text("utf-8")
SQL = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = [line[2:] for block in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
PASSWORDS = {"shop_owner": "change me", "shop_app": "change me too"}


class Place(NamedTuple):
    """A server on which the page is followed, with names that are nobody else's."""

    admin: str  # how its administrator connects
    mark: str

    def own(self, text: str) -> str:
        """The page's text, with its example names made ours."""
        server = urlsplit(self.admin)
        text = text.replace("db.example:5432", f"{server.hostname}:{server.port}")
        for role, password in PASSWORDS.items():
            text = text.replace(f"//{role}@", f"//{role}:{password.replace(' ', '%20')}@")
        return re.sub(r"\b(shop|shop_owner|shop_app)\b(?!:jobs)", rf"\1_{self.mark}", text)

    def url(self, role: str) -> str:
        return self.own(f"postgresql://{role}@db.example:5432/shop?schema=jobs")

    def run(self, statements: str, *, by: str = "") -> list[tuple[Any, ...]]:
        """Rows of the last statement; without `by`, as the administrator, in the database that the page makes."""
        admin = urlsplit(self.admin)._replace(path=self.own("/shop")).geturl()
        with psycopg.connect(self.url(by).partition("?")[0] if by else admin, autocommit=True) as session:
            cursor = session.execute(self.own(statements).encode())
            return cursor.fetchall() if cursor.description else []


def block(begins: str) -> str:
    [found] = [text for text in SQL if text.startswith(begins)]
    return found


def _holdfast(place: Place, command: str) -> str:
    words = place.own(command).split()
    assert words[0] == "holdfast"
    ran = CliRunner().invoke(shell, words[1:])
    assert ran.exit_code == 0, f"{command}\n{ran.output}"
    return ran.output


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    """What the page's section on the set-up makes."""
    place = Place(servers.postgres().dsn, secrets.token_hex(4))
    with psycopg.connect(place.admin, autocommit=True) as admin:
        try:
            for statement in place.own(block("CREATE ROLE")).splitlines():
                admin.execute(statement.encode())
            assert [word.split()[1] for word in COMMANDS] == ["migrate", "migrate", "queues"]
            assert "CREATE TABLE" in _holdfast(place, COMMANDS[0])
            assert "migrated" in _holdfast(place, COMMANDS[1])
            yield place
        finally:
            admin.execute(place.own("DROP DATABASE IF EXISTS shop WITH (FORCE)").encode())
            for role in PASSWORDS:
                admin.execute(place.own(f"DROP ROLE IF EXISTS {role}").encode())


@contextmanager
def _without(place: Place, statement: str) -> Iterator[None]:
    """A grant of the page is taken back."""
    place.run(statement.replace("GRANT", "REVOKE").replace(" TO ", " FROM "), by="shop_owner")
    try:
        yield
    finally:
        place.run(statement, by="shop_owner")


@pytest.fixture
def store(place: Place) -> Store:
    for statement in block("GRANT USAGE").splitlines():
        place.run(statement, by="shop_owner")
    return open_store(place.url("shop_app"))


async def test_what_the_page_grants_is_enough_forall_that_a_store_does(place: Place, store: Store) -> None:
    place.run("REVOKE INSERT, UPDATE, DELETE ON jobs.holdfast_meta FROM shop_app", by="shop_owner")
    await store.open()
    try:
        await all_that_a_store_does(store)
        async with await psycopg.AsyncConnection.connect(place.url("shop_app").partition("?")[0]) as callers:
            [receipt] = await store.enqueue([draft(queue="within")], callers)
            assert receipt.created
    finally:
        await store.close()
    with pytest.raises(StoreError, match="CREATE"):
        await open_store(place.own("postgresql://shop_app@db.example:5432/shop?schema=more")).migrate()


@pytest.mark.parametrize("grant", block("GRANT USAGE").splitlines()[:2])
async def test_no_grant_of_the_page_is_too_much(place: Place, store: Store, grant: str) -> None:
    with _without(place, grant):
        with pytest.raises(StoreError, match=r"lacks (USAGE|SELECT) on"):
            await store.open()
        await store.close()


@pytest.mark.parametrize("privilege", ["INSERT", "UPDATE", "DELETE"])
async def test_no_privilege_of_the_page_is_too_much(place: Place, store: Store, privilege: str) -> None:
    with _without(place, f"GRANT {privilege} ON ALL TABLES IN SCHEMA jobs TO shop_app"):
        await store.open()
        try:
            with pytest.raises(StoreAway, match=privilege):
                await all_that_a_store_does(store)
        finally:
            await store.close()


def test_who_merely_looks_needs_select_alone(place: Place, store: Store) -> None:
    everything = "GRANT INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA jobs TO shop_app"
    with _without(place, everything):
        _holdfast(place, COMMANDS[2])
        _holdfast(place, COMMANDS[2].replace("queues", "jobs"))


def test_a_process_has_as_many_connections_as_the_page_says(postgres: Database) -> None:
    assert "at most nine connections" in PAGE
    app = Holdfast(postgres.url)

    @app.task(name="shop.count")
    def count() -> dict[str, int]:
        count.using(delay=60).enqueue().cancel()
        return seen()

    def seen() -> dict[str, int]:
        with psycopg.connect(postgres.dsn) as session:
            found = session.execute(
                "SELECT application_name, count(*) FROM pg_stat_activity WHERE datname = current_database() GROUP BY 1"
            ).fetchall()
        return {name.removeprefix("holdfast "): number for name, number in found if name.startswith("holdfast ")}

    full = {"enqueue": 1, "claim": 1, "finish": 1, "listen": 2, "beat": 2, "work": 2}
    with app, app.worker():
        assert count.enqueue().result(timeout=60).keys() <= full.keys()
        with pytest.raises(TimeoutError):
            count.using(delay=60).enqueue().result(timeout=0.5)
        end = time.monotonic() + 60
        while (found := seen()) != full:
            assert all(found[name] <= most for name, most in full.items() if name in found), found
            assert found.keys() <= full.keys()
            assert time.monotonic() < end, found
            time.sleep(0.05)
        assert sum(found.values()) == 9


# --- who is in the way


@contextmanager
def _session(place: Place) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(place.url("shop_app").partition("?")[0], application_name="a report") as session:
        yield session
        session.rollback()


async def _job(store: Store) -> UUID:
    await store.open()
    try:
        [job] = await stored(store, draft(queue="apart"))
    finally:
        await store.close()
    return job


async def test_who_holds_a_job_is_named(place: Place, store: Store) -> None:
    job = await _job(store)
    query = re.sub(r"'[0-9a-f-]{36}'", f"'{job}'", block("-- holds a job"))
    assert str(job) in query
    with _session(place) as session:
        session.execute("SELECT FROM jobs.holdfast_jobs")
        assert place.run(query) == [], "who merely reads holds no job"
        session.execute("SELECT FROM jobs.holdfast_jobs WHERE id = %s FOR UPDATE", [job])
        [(pid, name, state, _)] = place.run(query)
        assert (pid, name, state) == (session.info.backend_pid, "a report", "idle in transaction")
    assert place.run(query) == []


def test_whose_transactions_are_open_on_the_tables_is_named(place: Place, store: Store) -> None:
    with _session(place) as session:
        session.execute("SELECT FROM jobs.holdfast_jobs")
        [(pid, _, _, _, holds)] = place.run(block("-- is open on the tables"))
        assert pid == session.info.backend_pid
        assert "jobs.holdfast_jobs AccessShareLock" in holds
    assert place.run(block("-- is open on the tables")) == []


def test_who_holds_back_vacuum_is_named(place: Place, store: Store) -> None:
    query = block("-- holds back vacuum")
    with _session(place) as session:
        session.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        session.execute("SELECT FROM jobs.holdfast_jobs")
        pid = session.info.backend_pid
        assert (pid, "a report", "idle in transaction") in [row[:3] for row in place.run(query)]
    assert pid not in [row[0] for row in place.run(query)]


# --- the rest


def test_every_statement_of_the_page_runs(place: Place, store: Store) -> None:
    known = ("CREATE ROLE", "GRANT USAGE", "-- holds a job", "-- is open on the tables", "-- holds back vacuum")
    others = [text for text in SQL if not text.startswith(known)]
    assert len(others) == 3
    for text in others:
        place.run(text, by="shop_owner")
    [room] = [place.run(text, by="shop_owner") for text in others if text.startswith("-- takes this much room")]
    assert "holdfast_jobs" in [row[0] for row in room]


def test_the_time_outs_are_those_of_the_store() -> None:
    rows = re.findall(r"^\| (\w+) \| (\d+) \| (\d+) \| (\d+) \|$", PAGE, re.MULTILINE)
    told = {name: (int(statement), int(lock), int(answer)) for name, statement, lock, answer in rows}
    assert told == {name: tuple(limit) for name, limit in limits(LEASE).items() if name != "migrate"}
