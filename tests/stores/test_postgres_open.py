"""Opening a place in PostgreSQL: what is refused, with which words; and bringing its schema to this version."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from secrets import token_hex
from typing import Any
from urllib.parse import quote, urlsplit

import psycopg
import pytest
from psycopg import sql

from holdfast.errors import ConfigError, StoreAway, StoreError
from holdfast.job import Draft, Terms, new_id
from holdfast.store import Store, Where
from holdfast.stores import masked, open_store
from holdfast.stores.postgres import limits, migrating, opening, statements
from holdfast.stores.postgres.address import Place, address_of
from tests.servers.places import Database
from tools.servers import Postgres

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

TERMS = Terms(max_attempts=3, base_delay=1000, max_delay=60_000, jitter=0.1, max_crashes=3, keep=60_000)


def draft() -> Draft:
    return Draft(id=new_id(), task="t", queue="q", payload=b"{}", terms=TERMS)


@contextmanager
def operator(database: Database) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        yield connection


@contextmanager
def role(database: Database, *options: str) -> Iterator[tuple[str, str]]:
    """A role of its own and the store's URL for it."""
    name = f"app_{token_hex(4)}"
    parts = urlsplit(database.url)
    url = parts._replace(netloc=f"{name}@{parts.hostname}:{parts.port}").geturl()
    with operator(database) as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN " + " ".join(options)).format(sql.Identifier(name)))
        connection.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
        try:
            yield name, url
        finally:
            connection.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(name)))
            connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Store]:
    store = open_store(url)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def refusal(url: str, kind: type[StoreError] = StoreError) -> str:
    """What open() says; it must be just this kind, and say where."""
    with pytest.raises(StoreError) as refused:
        async with opened(url):
            pass
    assert type(refused.value) is kind, refused.value
    message = str(refused.value)
    assert message.startswith("postgresql://"), message
    return message


# --- the server does not let us in


@pytest.fixture(scope="module")
def own_server() -> Iterator[Postgres]:
    """One whose settings may be changed."""
    with Postgres() as server:
        yield server


def test_a_wrong_password_is_named_and_not_shown(own_server: Postgres) -> None:
    with psycopg.connect(own_server.dsn, autocommit=True) as connection:
        connection.execute("CREATE ROLE kept_out LOGIN PASSWORD 'right'")
        connection.execute("CREATE ROLE barred LOGIN")
        [[path]] = connection.execute("SHOW hba_file").fetchall()
        rules = ["host all kept_out all scram-sha-256", "host all barred all reject", "host all all all trust"]
        lines = ", ".join(f"('{line}')" for line in rules)
        connection.execute(f"COPY (SELECT * FROM (VALUES {lines}) AS rules) TO '{path}'")
        connection.execute("SELECT pg_reload_conf()")
    place = f"127.0.0.1:{own_server.port}/postgres"
    for password in (":wr0ng", ""):
        message = asyncio.run(refusal(f"postgresql://kept_out{password}@{place}"))
        assert "refuses the password, or was given none" in message
        assert "wr0ng" not in message
    assert "pg_hba.conf" in asyncio.run(refusal(f"postgresql://barred@{place}"))


async def test_an_unknown_database_and_role_are_refused_and_named(postgres: Database) -> None:
    parts = urlsplit(postgres.dsn)
    message = await refusal(parts._replace(path="/nowhere").geturl())
    assert "no such database" in message
    assert '"nowhere"' in message
    assert "CREATE DATABASE" in message
    message = await refusal(parts._replace(netloc=f"nobody_here@{parts.hostname}:{parts.port}").geturl())
    assert "does not let this role in" in message
    assert '"nobody_here"' in message


async def test_where_nothing_listens_the_store_is_away() -> None:
    message = await refusal("postgresql://app:s3cret@127.0.0.1:1/jobs", StoreAway)
    assert "cannot be reached" in message
    assert "Connection refused" in message
    assert "s3cret" not in message


async def test_without_a_connection_left_the_store_is_away_and_says_what_would_help(postgres: Database) -> None:
    with role(postgres, "CONNECTION LIMIT 0") as (_, url):
        message = await refusal(url, StoreAway)
    assert "no connection left" in message
    assert "max_connections" in message


async def test_a_standby_is_refused_by_name(own_server: Postgres) -> None:
    with psycopg.connect(own_server.dsn, autocommit=True) as connection:
        [[folder]] = connection.execute("SHOW data_directory").fetchall()
        connection.execute(f"COPY (SELECT '') TO '{folder}/standby.signal'")
    own_server.stop()
    own_server.start()
    message = await refusal(own_server.dsn, StoreAway)
    assert "standby" in message
    assert "target_session_attrs=read-write" in message
    with pytest.raises(StoreError, match="standby"):
        await open_store(own_server.dsn).migrate()


async def test_a_database_that_takes_no_writes_is_refused(postgres: Database) -> None:
    with role(postgres) as (name, url), operator(postgres) as connection:
        connection.execute(sql.SQL("ALTER ROLE {} SET default_transaction_read_only = on").format(sql.Identifier(name)))
        assert "takes no writes" in await refusal(url, StoreAway)


async def test_an_old_server_is_refused_with_both_versions(postgres: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "OLDEST_SERVER", 99)
    message = await refusal(postgres.url)
    assert "needs 99 or newer" in message
    assert "the server is PostgreSQL 1" in message


async def test_a_database_in_another_encoding_is_refused(postgres: Database) -> None:
    name = f"latin_{token_hex(4)}"
    url = urlsplit(postgres.dsn)._replace(path=f"/{name}").geturl()
    with operator(postgres) as connection:
        connection.execute(f"CREATE DATABASE {name} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
        try:
            message = await refusal(url)
            with pytest.raises(StoreError, match="LATIN1"):
                await open_store(url).migrate()
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    assert "LATIN1" in message
    assert "ENCODING 'UTF8'" in message


# --- the schema


async def test_without_a_schema_or_tables_the_command_is_named_and_nothing_is_made(bare_postgres: Database) -> None:
    for url in (bare_postgres.dsn, f"{bare_postgres.dsn}?schema=jobs"):
        for create in (True, False):
            with pytest.raises(StoreError, match="holdfast migrate"):
                await open_store(url).open(create=create)
    with operator(bare_postgres) as connection:
        assert connection.execute("SELECT count(*) FROM pg_class WHERE relname LIKE 'holdfast%'").fetchone() == (0,)
        assert connection.execute("SELECT count(*) FROM pg_namespace WHERE nspname = 'jobs'").fetchone() == (0,)


@pytest.mark.parametrize(
    ("version", "oldest_code", "words"),
    [(0, 0, "run `holdfast migrate`"), (999, 999, "upgrade this installation"), (999, 1, "")],
)
async def test_a_schema_is_opened_if_this_code_can_serve_it(
    bare_postgres: Database, version: int, oldest_code: int, words: str
) -> None:
    await open_store(bare_postgres.url).migrate()
    with operator(bare_postgres) as connection:
        connection.execute("UPDATE holdfast_meta SET version = %s, oldest_code = %s", (version, oldest_code))
    if words:
        message = await refusal(bare_postgres.url)
        assert words in message
        assert f"version {version}" in message
    else:
        async with opened(bare_postgres.url) as store:
            assert await store.find(Where()) == []


async def test_tables_of_another_kind_under_our_names_are_left_alone(bare_postgres: Database) -> None:
    with operator(bare_postgres) as connection:
        connection.execute("CREATE TABLE holdfast_jobs (mine integer)")
    for call in (open_store(bare_postgres.url).open, open_store(bare_postgres.url).migrate):
        with pytest.raises(StoreError, match="does not say of which version"):
            await call()
    with operator(bare_postgres) as connection:
        assert connection.execute("SELECT * FROM holdfast_jobs").fetchall() == []


async def test_a_missing_privilege_is_named_with_the_grant_that_mends_it(bare_postgres: Database) -> None:
    url = f"{bare_postgres.dsn}?schema=jobs"
    await open_store(url).migrate()
    with role(bare_postgres) as (name, theirs), operator(bare_postgres) as connection:
        place = f"{theirs}?schema=jobs"
        message = await refusal(place)
        assert f"{name} lacks USAGE" in message
        connection.execute(message.partition(": ")[2].partition(": ")[2])
        message = await refusal(place)
        assert f"{name} lacks SELECT on holdfast_meta, SELECT on holdfast_jobs" in message
        connection.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA jobs TO {name}")
        async with opened(place) as store:
            assert await store.find(Where()) == []
            with pytest.raises(StoreAway) as refused:
                await store.enqueue([draft()])
            told = str(refused.value)
            assert (
                f"{name} lacks INSERT, UPDATE, DELETE on holdfast_attempts, holdfast_jobs, holdfast_left and " in told
            )
            assert message.rpartition(": ")[2] in told
            assert len(told) < 500
            assert "EXECUTE" not in told
            connection.execute(message.rpartition(": ")[2])
            [receipt] = await store.enqueue([draft()])
            assert receipt.created


async def test_functions_that_may_not_be_used_are_told_with_the_grant_that_mends_it(bare_postgres: Database) -> None:
    url = f"{bare_postgres.dsn}?schema=jobs"
    await open_store(url).migrate()
    with role(bare_postgres) as (name, theirs), operator(bare_postgres) as connection:
        connection.execute(f"GRANT USAGE ON SCHEMA jobs TO {name}")
        connection.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA jobs TO {name}")
        connection.execute("REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA jobs FROM PUBLIC")
        async with opened(f"{theirs}?schema=jobs") as store:
            with pytest.raises(
                StoreAway, match=f"{name} lacks EXECUTE on holdfast_.* more functions; as the ow"
            ) as told:
                await store.enqueue([draft()])
            assert "TABLES" not in str(told.value)
            connection.execute(str(told.value).partition("as the owner: ")[2].partition(" (permission")[0])
            [receipt] = await store.enqueue([draft()])
            assert receipt.created


# --- migrating


async def test_who_may_not_create_is_told_what_migrating_needs(bare_postgres: Database) -> None:
    with role(bare_postgres) as (_, url):
        with pytest.raises(StoreError, match='CREATE on schema "public"'):
            await open_store(url).migrate()
        with pytest.raises(StoreError, match='CREATE on schema "jobs"'):
            await open_store(f"{url}?schema=jobs").migrate()


async def test_migrating_runs_what_a_dry_run_shows_and_nothing_the_second_time(bare_postgres: Database) -> None:
    store = open_store(f"{bare_postgres.dsn}?schema={quote('its own', safe='')}")
    shown = await store.migrate(dry_run=True)
    assert any('"its own".holdfast_jobs' in statement for statement in shown)
    with pytest.raises(StoreError):
        await store.open()
    assert await store.migrate() == shown
    assert await store.migrate() == []
    assert await store.migrate(dry_run=True) == []
    await store.open()
    await store.close()


async def test_many_migrate_at_once_and_one_does_it(bare_postgres: Database) -> None:
    done = await asyncio.gather(*(open_store(bare_postgres.url).migrate() for _ in range(6)))
    assert sorted(bool(statements) for statements in done) == [False] * 5 + [True]
    with operator(bare_postgres) as connection:
        assert connection.execute("SELECT count(*) FROM holdfast_meta").fetchone() == (1,)


def holdfast(*arguments: str) -> str:
    command = [sys.executable, "-m", "holdfast", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env={**os.environ})
    assert done.returncode == 0, done.stderr
    return done.stdout


async def test_what_the_command_prints_can_be_run_by_hand(bare_postgres: Database) -> None:
    script = await asyncio.to_thread(holdfast, "migrate", "--sql", "--url", bare_postgres.url)
    with operator(bare_postgres) as connection:
        connection.execute(script.encode())
    async with opened(bare_postgres.url) as store:
        assert await store.find(Where()) == []
    assert await asyncio.to_thread(holdfast, "migrate", "--sql", "--url", bare_postgres.url) == ""


async def test_a_function_that_differs_is_made_anew_alone(
    bare_postgres: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(bare_postgres.url)
    await store.migrate()
    other = {**statements.functions(), "now": statements.functions()["now"].replace("1000", "1000.0")}
    monkeypatch.setattr(migrating, "functions", lambda: other)
    monkeypatch.setattr(migrating, "digest", lambda: "another")
    ran = await store.migrate()
    assert any("1000.0" in statement for statement in ran)
    assert not any("CREATE TABLE" in statement for statement in ran)
    assert await store.migrate() == []


async def test_a_function_that_is_gone_is_made_anew(bare_postgres: Database) -> None:
    store = open_store(bare_postgres.url)
    await store.migrate()
    with operator(bare_postgres) as connection:
        connection.execute("DROP FUNCTION holdfast_leave")
        assert any("holdfast_leave" in statement for statement in await store.migrate())
        connection.execute("SELECT holdfast_leave('{}')")
    assert await store.migrate() == []


async def test_older_code_that_migrates_leaves_the_functions_of_newer_code_alone(bare_postgres: Database) -> None:
    """In a rolling deploy an old pod may start once more, and migrate first."""
    store = open_store(bare_postgres.url)
    await store.migrate()
    arguments = "(shift bigint DEFAULT 0) RETURNS text LANGUAGE sql"
    with operator(bare_postgres) as connection:
        connection.execute(f"CREATE OR REPLACE FUNCTION holdfast_channel{arguments} AS $$ SELECT 'newer' $$")
        connection.execute("UPDATE holdfast_meta SET version = 999, functions = 'newer'")
        assert await store.migrate(dry_run=True) == []
        assert await store.migrate() == []
        said = connection.execute("SELECT holdfast_channel(), version, functions FROM holdfast_meta").fetchall()
    assert said == [("newer", 999, "newer")]


# By version: the digest of the functions in the first release of it. Nothing is released yet.
RELEASED: dict[int, str] = {}


def test_functions_that_changed_since_a_release_have_a_number_of_their_own() -> None:
    """Else older code would put its own over them."""
    number = opening.newest()
    assert RELEASED.get(number, statements.digest()) == statements.digest(), f"add a migration {number + 1:04}_….sql"


APART = """-- apart
-- A comment; with a semicolon.
DROP INDEX CONCURRENTLY IF EXISTS {schema}.holdfast_extra;
CREATE INDEX CONCURRENTLY holdfast_extra ON {schema}.holdfast_jobs (task);
UPDATE {schema}.holdfast_meta SET version = version + 1;
"""


def with_one_more(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """A migration to the version after the newest."""
    number = int(max(statements.migrations())[:4]) + 1
    more = {**statements.migrations(), f"{number:04}_more": text}
    for module in (migrating, opening):
        monkeypatch.setattr(module, "migrations", lambda: more)


async def test_an_index_is_made_beside_work_that_goes_on(
    bare_postgres: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it waits, as it must, for a transaction that has written, jobs come in."""
    await open_store(bare_postgres.url).migrate()
    async with opened(bare_postgres.url) as store:
        with_one_more(monkeypatch, APART)
        with psycopg.connect(bare_postgres.dsn) as user, operator(bare_postgres) as looking:
            user.execute("LOCK TABLE holdfast_jobs IN ROW EXCLUSIVE MODE")  # as a write does
            migration = asyncio.create_task(open_store(bare_postgres.url).migrate())
            await until(looking, "SELECT count(*) > 0 FROM pg_stat_progress_create_index", migration)
            [receipt] = await store.enqueue([draft()])
            assert receipt.created
            assert not migration.done()
            user.commit()
            ran = await asyncio.wait_for(migration, 60)
            assert len([statement for statement in ran if "CONCURRENTLY" in statement]) == 2
            found = looking.execute("SELECT indisvalid FROM pg_index WHERE indexrelid = 'holdfast_extra'::regclass")
            assert found.fetchone() == (True,)


async def until(connection: psycopg.Connection, question: str, task: asyncio.Task[Any] | None = None) -> None:
    """Asks until the answer is yes, or the task ends."""
    async with asyncio.timeout(30):
        while not connection.execute(question.encode()).fetchall()[0][0]:
            assert task is None or not task.done(), task.result()
            await asyncio.sleep(0.01)


async def test_a_migration_that_breaks_is_begun_again_where_it_was(
    bare_postgres: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(bare_postgres.url)
    await store.migrate()
    with_one_more(monkeypatch, APART.replace("UPDATE", "SELECT 1 / 0;\nUPDATE"))
    with pytest.raises(StoreError, match="division by zero"):
        await store.migrate()
    assert f"version {opening.newest() - 1}," in await refusal(bare_postgres.url)
    with_one_more(monkeypatch, APART)
    assert await store.migrate()
    assert await store.migrate() == []


async def test_a_lock_that_others_hold_is_waited_for_without_holding_up_their_followers(
    bare_postgres: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(bare_postgres.url)
    await store.migrate()
    more = "ALTER TABLE {schema}.holdfast_jobs ADD COLUMN extra text;"
    with_one_more(monkeypatch, f"{more}\nUPDATE {{schema}}.holdfast_meta SET version = version + 1;")
    monkeypatch.setattr(migrating, "_BEGIN", ("BEGIN;", "SET LOCAL lock_timeout = '50ms';"))
    with psycopg.connect(bare_postgres.dsn) as user, operator(bare_postgres) as other:
        user.execute("SELECT count(*) FROM holdfast_jobs")
        migration = asyncio.create_task(store.migrate())
        await until(other, "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted", migration)
        other.execute("SET lock_timeout = '10s'")
        other.execute("SELECT count(*) FROM holdfast_jobs")  # it stands behind for a moment only
        assert not migration.done()
        user.commit()
        assert await asyncio.wait_for(migration, 60)


async def test_a_lock_on_what_is_looked_at_first_is_named_too(
    bare_postgres: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(bare_postgres.url)
    await store.migrate()
    monkeypatch.setattr(migrating, "_BEGIN", ("BEGIN;", "SET LOCAL lock_timeout = '20ms';"))
    monkeypatch.setattr(limits, "MIGRATE", 200)
    with psycopg.connect(bare_postgres.dsn) as user:
        user.execute("LOCK TABLE holdfast_meta IN ACCESS EXCLUSIVE MODE")
        for dry_run in (True, False):
            with pytest.raises(StoreAway, match="lock on a table of Holdfast that another transaction holds"):
                await asyncio.wait_for(store.migrate(dry_run=dry_run), 30)
    assert await store.migrate() == []


async def test_a_lock_that_is_never_let_go_is_named(bare_postgres: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(bare_postgres.url)
    await store.migrate()
    with_one_more(monkeypatch, "ALTER TABLE {schema}.holdfast_jobs ADD COLUMN extra text;")
    monkeypatch.setattr(migrating, "_BEGIN", ("BEGIN;", "SET LOCAL lock_timeout = '20ms';"))
    monkeypatch.setattr(limits, "MIGRATE", 200)
    with psycopg.connect(bare_postgres.dsn) as user:
        user.execute("SELECT count(*) FROM holdfast_jobs")
        with pytest.raises(StoreAway, match="lock on a table of Holdfast that another transaction holds"):
            await store.migrate()


# --- its URL


def test_the_url_for_people_has_no_secrets_and_names_the_schema() -> None:
    listen = quote("postgresql://app:s3cret@direct/jobs", safe="")
    url = f"postgres://app:s3cret@db.example:6432/jobs?sslmode=require&listen_url={listen}&schema=my%20jobs"
    assert open_store(url).url == "postgresql://app:***@db.example:6432/jobs?sslmode=require&schema=my%20jobs"
    assert (
        open_store("postgresql:///jobs?host=/run&sslpassword=s3cret").url
        == "postgresql:///jobs?host=/run&sslpassword=***"
    )


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("postgresql://db/jobs?shema=x", "no option shema"),
        ("postgresql://app:s3cret%@db/jobs", "libpq cannot read it"),
        ("postgresql://app:s3cret@db/jobs#1", "%23"),
        ("postgresql://app:s3cret@S3CRET@db/jobs", "%40"),
        ("postgresql://app:12/s3cret@db/jobs", "%40"),
        ("postgresql://app:12?s3cret@db/jobs", "%40"),
        ("postgresql://app:12#s3cret@db/jobs", "%23"),
        ("postgresql://app:s3cret\0@db/jobs", "NUL"),
        ("postgresql:/app:s3cret@db/jobs", "two slashes"),
        ("postgresql:app:s3cret@db/jobs", "two slashes"),
        ("postgresql://db:port/jobs", "its port"),
        ("postgresql://db:70000/jobs", "invalid port number"),
        ("postgresql://db:1,other:x/jobs", "its port"),
        ("postgresql://db,other/jobs?port=1,2,3", "3 port numbers to 2 hosts"),
        ("postgresql://db/jobs?connect_timeout=5s", "connect_timeout=5s: a whole number"),
        ("postgresql://db/jobs?sslmode=requird", 'invalid sslmode value: "requird"'),
        ("postgresql://db/jobs?target_session_attrs=primry", 'value: "primry"'),
        ("postgresql://db/jobs?listen_url=postgresql://db:x/jobs", "listen_url: its port"),
        ("postgresql://db/jobs?schemas=x", "schema=, listen_url= and those of libpq"),
        ("postgresql://db/jobs?schema=x&schema=y", "schema= is given twice"),
        ("postgresql://db/jobs?schema=", "1 to 63 bytes"),
        (f"postgresql://db/jobs?schema={'x' * 64}", "1 to 63 bytes"),
        ("postgresql://db/jobs?schema=pg_temp", "belongs to the server"),
        ("postgresql://db/jobs?listen_url=direct:5432", "listen_url"),
    ],
)
def test_a_url_that_makes_no_sense_is_refused_with_the_reason(url: str, why: str) -> None:
    with pytest.raises(ConfigError) as refused:
        open_store(url)
    assert why in str(refused.value)
    assert "s3cret" not in str(refused.value)
    assert "S3CRET" not in str(refused.value)


def test_a_setting_of_the_environment_that_makes_no_sense_is_refused_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGCONNECT_TIMEOUT", "soon")
    with pytest.raises(ConfigError, match="connect_timeout=soon: a whole number"):
        open_store("postgresql://db/jobs")


@pytest.mark.parametrize(
    ("url", "environment"),
    [
        ("postgresql:///jobs", {"PGHOST": "a,b", "PGPORT": "1,2"}),
        ("postgresql:///jobs?port=1,2", {"PGHOST": "a,b"}),
        ("postgresql://db/jobs", {"PGHOSTADDR": "127.0.0.1"}),
        ("postgresql://a:1,[::1]:2,%2Frun/jobs?user=me@corp", {}),
        ("postgresql://me:p%40s%2Fs@:5432/jobs", {}),
        ("postgresql://", {}),
    ],
)
def test_a_url_that_libpq_understands_is_not_refused(
    url: str, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert open_store(url).shared


def test_the_place_shows_no_secrets_in_a_traceback_with_values() -> None:
    listen = quote("postgresql://app:s3cret@direct/jobs", safe="")
    place = Place(address_of(urlsplit(f"postgresql://app:s3cret@db/jobs?listen_url={listen}"), masked))
    assert "s3cret" not in repr(place)
    assert "postgresql://app:***@db/jobs" in repr(place)


# --- twins


async def test_a_twin_sees_the_same_jobs_and_clock_on_another_loop(postgres: Database) -> None:
    async with opened(postgres.url) as store:
        twin = store.twin()
        store.shift = 5000
        assert twin.shift == 5000
        [receipt] = await store.enqueue([draft()])

        async def elsewhere() -> list[object]:
            await twin.open()
            try:
                return [record.id for record in await twin.find(Where())]
            finally:
                await twin.close()

        assert await asyncio.to_thread(asyncio.run, elsewhere()) == [receipt.id]


async def test_a_closed_store_says_so_and_opens_again(postgres: Database) -> None:
    store = open_store(postgres.url)
    with pytest.raises(StoreError, match="not open"):
        await store.find(Where())
    for _ in range(2):
        await store.open()
        await store.open()
        assert await store.find(Where()) == []
        await store.close()
        await store.close()
    with operator(postgres) as connection:
        ours = "FROM pg_stat_activity WHERE application_name LIKE 'holdfast%' AND datname = current_database()"
        await until(connection, f"SELECT count(*) = 0 {ours}")
