"""A PostgreSQL server's bad days: it stops, dies, throws everybody out, is full, moves; and strangers are in the way.

Whatever it is: nothing is lost, nothing runs twice, workers wait and go on by themselves, and their log says so once.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from holdfast import Holdfast
from holdfast.clock import SECOND
from tests.flows import outage, pids
from tests.flows.conftest import SHORT_LEASE, Ledger, until
from tests.flows.outage import Producer, Serve, away, effects, leaves, order, ran_once, started, told_once_each
from tests.flows.shop import held, work
from tools.servers import Postgres

CONNECTIONS, RESERVED = 50, 15
TABLES = "SELECT string_agg(quote_ident(tablename), ', ') FROM pg_tables WHERE tablename LIKE 'holdfast%'"


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with outage.own(max_connections=CONNECTIONS, superuser_reserved_connections=RESERVED) as server:
        outage.migrated(server)
        for role in ("app", "hog", "grim"):
            order(server.dsn, f"CREATE ROLE {role} LOGIN")
            order(server.dsn, f"GRANT pg_read_all_data, pg_write_all_data TO {role}")
        yield server


@pytest.fixture
def direct(server: Postgres) -> Iterator[str]:
    """A fresh store, as the server's superuser sees it."""
    with outage.store(server) as url:
        yield url


@pytest.fixture
def role() -> str:
    """Who the service and the producers are."""
    return "postgres"


@pytest.fixture
def url(direct: str, role: str) -> str:
    """The same store, as they see it."""
    return direct.replace("postgres@", f"{role}@")


@pytest.fixture
def short_lease(direct: str) -> None:
    outage.short_leases(direct, SHORT_LEASE)


# --- the server goes away


@pytest.mark.timeout(240)
def test_a_server_that_stops_and_one_that_crashes_lose_nothing_and_repeat_nothing(
    app: Holdfast, ledger: Ledger, serve: Serve, server: Postgres, direct: str
) -> None:
    service = started(serve)
    with Producer(app) as producer:
        effects(ledger, 10)
        server.stop()
        away(service)
        until(lambda: producer.errors, "an enqueue that met the stopped server")
        server.start()
        effects(ledger, 50)
        server.kill()
        server.start()
        effects(ledger, 80)
        jobs = producer.stop()
    ran_once(direct, jobs, ledger)
    leaves(service)
    told_once_each(service, 2)
    assert "holdfast migrate" not in service.text() + str(producer.errors)


@pytest.mark.timeout(240)
def test_sessions_that_are_ended_again_and_again_are_opened_again(
    app: Holdfast, ledger: Ledger, serve: Serve, direct: str
) -> None:
    service = started(serve)
    ended, rounds = 0, range(5, 65, 5)
    with Producer(app) as producer:
        for number in rounds:
            effects(ledger, number)
            ended += order(direct, outage.EVICT)
        jobs = producer.stop()
    ran_once(direct, jobs, ledger)
    leaves(service)
    assert ended >= 2 * len(rounds), f"only {ended} sessions were ended: nothing was proved"
    told_once_each(service, len(rounds))


@pytest.mark.soak
@pytest.mark.timeout(400)
def test_a_server_that_crashes_ten_times_loses_nothing_and_repeats_nothing(
    app: Holdfast, ledger: Ledger, serve: Serve, server: Postgres, direct: str
) -> None:
    service, other = started(serve), started(serve)
    with Producer(app) as producer:
        for crash in range(10):
            effects(ledger, 20 + crash * 40)
            (server.kill if crash % 2 else server.stop)()
            if crash % 3 == 0:
                seen = len(producer.errors)
                until(lambda seen=seen: len(producer.errors) > seen, "an enqueue that met it")
            server.start()
        jobs = producer.stop()
    ran_once(direct, jobs, ledger)
    for one in (service, other):
        leaves(one)
        told_once_each(one, 10)


@pytest.mark.soak
@pytest.mark.timeout(400)
def test_a_server_that_is_gone_for_longer_than_the_lease_has_nobody_robbed(
    app: Holdfast, ledger: Ledger, serve: Serve, server: Postgres, direct: str, short_lease: None
) -> None:
    services = [started(serve) for _ in range(3)]
    slow = [held.enqueue("back").id for _ in range(16)]  # of 24 slots
    until(lambda: ledger.count("begin") >= len(slow), f"{len(slow)} jobs that run")
    with Producer(app) as producer:
        effects(ledger, 10)
        server.stop()
        for service in services:
            away(service)
        over = time.monotonic() + 3 * SHORT_LEASE / SECOND
        until(lambda: time.monotonic() > over, "three leases")
        server.start()
        effects(ledger, 50)
        jobs = producer.stop()
    _healthy_again(direct)
    ledger.path.with_name("back").touch()
    ran_once(direct, jobs + slow, ledger)
    for service in services:
        leaves(service)
        told_once_each(service, 1)


def _healthy_again(direct: str) -> None:
    """Everybody has a lease, and has had one for longer than a lease: whoever wanted to rob could have."""
    asked = (
        "SELECT bool_and(lease_until > holdfast_now() AND holdfast_now() - steady_since > 2 * lease) "
        "FROM holdfast_workers, holdfast_meta WHERE retired_at IS NULL"
    )
    until(lambda: order(direct, asked), "steady workers")


@pytest.mark.soak
@pytest.mark.timeout(400)
@pytest.mark.parametrize("how", ["stopped", "silent"])
def test_who_is_told_to_leave_while_the_server_is_away_leaves_and_names_what_is_not_recorded(
    how: str, app: Holdfast, ledger: Ledger, serve: Serve, server: Postgres, direct: str
) -> None:
    service = started(serve)
    job = held.enqueue("back")
    until(lambda: ledger.count("begin"), "a job that runs")
    with contextlib.ExitStack() as absence:
        if how == "stopped":
            server.stop()
        else:
            absence.enter_context(_standing_still([server.pid, *pids.children(server.pid)]))
        ledger.path.with_name("back").touch()
        until(lambda: ledger.count("effect"), "its effect")
        assert service.stop() == 3, service.text()[-3000:]
        assert f"event=not-recorded job={job.id}" in service.text()
    outage.runs_again(server)
    serve("--processes", "1")
    assert job.result(timeout=90) == "back"
    assert ledger.count("effect") == 2


# --- the server is there, and takes nothing


@pytest.mark.soak
@pytest.mark.timeout(240)
def test_a_server_that_was_made_read_only_is_away_until_it_takes_writes(
    app: Holdfast, ledger: Ledger, serve: Serve, direct: str
) -> None:
    service = started(serve)
    with Producer(app) as producer:
        effects(ledger, 10)
        with _read_only(direct):
            late = serve("--processes", "1")
            away(service, "takes no writes")
            until(lambda: producer.errors, "an enqueue that was refused")
            assert late.process.wait(40) == 3
            assert "takes no writes" in late.text()
        effects(ledger, ledger.count("effect") + 20)
        jobs = producer.stop()
    assert "takes no writes" in str(producer.errors[0])
    ran_once(direct, jobs, ledger)
    leaves(service)
    told_once_each(service, 1)


@contextlib.contextmanager
def _read_only(direct: str) -> Iterator[None]:
    order(direct, "ALTER SYSTEM SET default_transaction_read_only = on")
    order(direct, "SELECT pg_reload_conf()")
    try:
        yield
    finally:
        order(direct, "ALTER SYSTEM RESET default_transaction_read_only")
        order(direct, "SELECT pg_reload_conf()")


@contextlib.contextmanager
def _everything_taken(direct: str) -> Iterator[None]:
    """Ends our sessions, and takes every connection that ordinary roles may have, until none of ours is left."""
    with contextlib.ExitStack() as stack, psycopg.connect(direct, autocommit=True) as watch:

        def fill() -> bool:
            with contextlib.suppress(psycopg.OperationalError):
                while True:
                    stack.enter_context(psycopg.connect(direct.replace("postgres@", "hog@")))
            ours = watch.execute("SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'")
            return ours.fetchone() == (0,)

        def take() -> bool:
            watch.execute(outage.EVICT)
            return fill() and fill()  # those who were ended may have left their connections only after the first

        until(take, "all connections are others'")
        yield


@pytest.mark.timeout(240)
@pytest.mark.parametrize("role", ["app"])
def test_while_others_hold_all_connections_workers_wait_and_producers_are_told(
    app: Holdfast, ledger: Ledger, serve: Serve, direct: str
) -> None:
    service = started(serve)
    with Producer(app) as producer:
        effects(ledger, 10)
        with _everything_taken(direct):
            late = serve("--processes", "1")
            away(service, "raise max_connections")
            until(lambda: producer.errors, "an enqueue that was refused")
            assert late.process.wait(40) == 3
            assert "raise max_connections" in late.text()
        effects(ledger, ledger.count("effect") + 20)
        jobs = producer.stop()
    assert "raise max_connections" in str(producer.errors[-1])
    ran_once(direct, jobs, ledger)
    leaves(service)
    told_once_each(service, 1)


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of a few MiB, where any user may go."""
    place = Path(tempfile.mkdtemp(prefix="holdfast-disk-"))
    tried = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m,mode=777", "tmpfs", place], capture_output=True, text=True, check=False
    )
    if tried.returncode:
        place.rmdir()
        pytest.skip(f"no small file system can be made here, to be filled: {tried.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)
        place.rmdir()


@pytest.fixture
def on_small_disk(server: Postgres, direct: str, small_disk: Path) -> Iterator[Path]:
    """The store is moved to the small disk, with nobody in it yet."""
    name = urlsplit(direct).path.removeprefix("/")
    home = small_disk / "tablespace"
    home.mkdir()
    user = server.log.parent.stat()
    os.chown(home, user.st_uid, user.st_gid)
    order(server.dsn, f"CREATE TABLESPACE small LOCATION '{home}'")
    try:
        order(server.dsn, f"ALTER DATABASE {name} SET TABLESPACE small")
        yield small_disk
    finally:
        order(server.dsn, f"DROP DATABASE {name} WITH (FORCE)")
        order(server.dsn, "DROP TABLESPACE small")
        order(server.dsn, f"CREATE DATABASE {name}")  # which whoever lent it drops


@contextlib.contextmanager
def _filled(place: Path) -> Iterator[None]:
    filler = place / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"x" * 4096):
            pass
    try:
        yield
    finally:
        filler.unlink()


@pytest.mark.soak
@pytest.mark.timeout(400)
def test_a_full_disk_stops_workers_and_producers_and_they_go_on_when_there_is_room(
    on_small_disk: Path, app: Holdfast, ledger: Ledger, serve: Serve, direct: str
) -> None:
    service = started(serve)
    jobs = [job.id for job in app.enqueue_many(work.bind(n, seconds=0.1) for n in range(200))]
    with Producer(app, seconds=0) as producer:
        with _filled(on_small_disk):
            until(lambda: producer.errors, "an enqueue that found the disk full")
            away(service, "disk is full")
        jobs += producer.stop()
    assert "disk is full" in str(producer.errors[0])
    ran_once(direct, jobs, ledger)
    leaves(service)


# --- others are in the way


@pytest.mark.timeout(240)
def test_a_strangers_transaction_on_rows_delays_those_jobs_alone(
    app: Holdfast, ledger: Ledger, serve: Serve, direct: str
) -> None:
    service = started(serve)
    order(direct, "SELECT holdfast_configure('{\"bounded\": [100, \"raise\", null]}', 'operator', 0)")
    mine = [held.using(queue="bounded").enqueue("go").id for _ in range(2)]
    other = held.using(queue="bounded").enqueue("go")
    until(lambda: ledger.count("begin") >= 3, "three jobs that run")
    with psycopg.connect(direct) as stranger:
        queued = [work.using(delay=0.5).enqueue(n, seconds=0.01).id for n in range(5)]
        stranger.execute("SELECT FROM holdfast_jobs WHERE id = ANY (%s) FOR UPDATE", [mine + queued])
        stranger.execute("SELECT FROM holdfast_meta FOR UPDATE")
        assert stranger.execute("SELECT FROM holdfast_queues FOR UPDATE").rowcount == 1
        ledger.path.with_name("go").touch()
        until(lambda: ledger.count("effect") >= 3, "the end of the three")
        assert other.result(timeout=30) == "go"
        others = [work.enqueue(n, seconds=0.01) for n in range(60)]
        assert [job.result(timeout=30) for job in others] == list(range(60))
        held_up = order(direct, "SELECT count(*) FROM holdfast_jobs WHERE state <> 'succeeded'")
        assert held_up == len(mine + queued)
    ran_once(direct, [*mine, *queued, other.id, *(job.id for job in others)], ledger)
    leaves(service)
    told_once_each(service, 0)


@pytest.mark.soak
@pytest.mark.timeout(400)
@pytest.mark.parametrize("which", ["holdfast_jobs", "holdfast_workers", "holdfast_meta", "all"])
def test_a_table_that_is_locked_for_longer_than_the_lease_robs_nobody(
    which: str, app: Holdfast, ledger: Ledger, serve: Serve, direct: str, short_lease: None
) -> None:
    services = [started(serve) for _ in range(2)]
    slow = [held.enqueue("back").id for _ in range(8)]
    until(lambda: ledger.count("begin") >= len(slow), f"{len(slow)} jobs that run")
    _healthy_again(direct)
    with Producer(app) as producer:
        effects(ledger, 10)
        with psycopg.connect(direct) as stranger:
            tables = order(direct, TABLES) if which == "all" else which
            stranger.execute(f"LOCK TABLE {tables} IN ACCESS EXCLUSIVE MODE".encode())
            over = time.monotonic() + 3 * SHORT_LEASE / SECOND
            until(lambda: time.monotonic() > over, "three leases")
            for service in services:
                away(service)
        effects(ledger, ledger.count("effect") + 20)
        jobs = producer.stop()
    _healthy_again(direct)
    ledger.path.with_name("back").touch()
    ran_once(direct, jobs + slow, ledger)
    for service in services:
        leaves(service)
        told_once_each(service, 3)


@pytest.mark.soak
@pytest.mark.timeout(400)
def test_a_strangers_hold_of_one_workers_row_does_not_cost_its_neighbours_their_lease(
    app: Holdfast, ledger: Ledger, serve: Serve, direct: str, short_lease: None
) -> None:
    services = [started(serve) for _ in range(2)]
    slow = [held.enqueue("back").id for _ in range(12)]
    until(lambda: ledger.count("begin") >= len(slow), f"{len(slow)} jobs that run")
    _healthy_again(direct)
    with psycopg.connect(direct) as stranger:
        row = stranger.execute(
            "SELECT id FROM holdfast_workers WHERE id IN (SELECT worker FROM holdfast_jobs) LIMIT 1 FOR UPDATE"
        ).fetchone()
        assert row
        over = time.monotonic() + 3 * SHORT_LEASE / SECOND
        until(lambda: time.monotonic() > over, "three leases")
        late = order(
            direct,
            "SELECT count(*) FROM holdfast_workers "
            "WHERE id IN (SELECT worker FROM holdfast_jobs) AND lease_until < holdfast_now() AND id <> %s",
            row[0],
        )
        assert late == 0, f"{late} other workers have no lease"
        assert order(direct, "SELECT lease_until < holdfast_now() FROM holdfast_workers WHERE id = %s", row[0])
    ledger.path.with_name("back").touch()
    ran_once(direct, slow, ledger)
    for service in services:
        leaves(service)


@pytest.mark.soak
@pytest.mark.timeout(400)
def test_maintenance_in_the_middle_of_work_loses_and_repeats_nothing(
    app: Holdfast, ledger: Ledger, serve: Serve, direct: str
) -> None:
    service = started(serve)
    chores = ("VACUUM FULL {}", "REINDEX TABLE {}", "REINDEX TABLE CONCURRENTLY {}", "VACUUM ANALYZE {}", "ANALYZE {}")
    with Producer(app) as producer:
        for number in range(10, 200, 10):
            effects(ledger, number)
            for table in ("holdfast_jobs", "holdfast_workers", "holdfast_queues", "holdfast_meta"):
                with contextlib.suppress(psycopg.errors.DeadlockDetected):  # then the chore was the one that ended
                    order(direct, random.choice(chores).format(table))
        jobs = producer.stop()
    ran_once(direct, jobs, ledger)
    leaves(service)
    told_once_each(service, 0)


@pytest.mark.soak
@pytest.mark.timeout(500)
def test_a_backend_that_stands_still_is_given_up_and_the_work_goes_on(
    app: Holdfast, ledger: Ledger, serve: Serve, direct: str, short_lease: None
) -> None:
    service = started(serve)
    went_on = 0
    with Producer(app) as producer:
        for lane in ("claim", "beat", "finish", "work", "enqueue", "listen"):
            effects(ledger, ledger.count("effect") + 10)
            backends = order(direct, BACKENDS, f"holdfast {lane}")
            assert backends, f"no connection for {lane}"
            with _standing_still(backends):
                goal, end = ledger.count("effect") + 40, time.monotonic() + 25
                until(lambda goal=goal, end=end: ledger.count("effect") >= goal or time.monotonic() > end, "work")
                went_on += ledger.count("effect") >= goal
        jobs = producer.stop()
    assert went_on >= 5, f"work went on in {went_on} of 6 cases"  # one may have stood still with a lock of all
    ran_once(direct, jobs, ledger)
    leaves(service)


BACKENDS = """
SELECT array_agg(pid) FROM pg_stat_activity WHERE datname = current_database() AND application_name = %s
"""


@contextlib.contextmanager
def _standing_still(processes: list[int]) -> Iterator[None]:
    for pid in processes:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


# --- the role, the server and its copies


GRIM = {
    "statement_timeout": "1ms",
    "lock_timeout": "1ms",
    "idle_session_timeout": "200ms",
    "idle_in_transaction_session_timeout": "1ms",
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "search_path": "nowhere",
    "standard_conforming_strings": "off",
    "DateStyle": "German, DMY",
    "IntervalStyle": "sql_standard",
    "TimeZone": "Asia/Kathmandu",
    "client_encoding": "LATIN1",
    "bytea_output": "escape",
    "extra_float_digits": "-15",
    "array_nulls": "off",
    "transform_null_equals": "on",
    "quote_all_identifiers": "on",
    "enable_indexscan": "off",
    "plan_cache_mode": "force_custom_plan",
    "plpgsql.variable_conflict": "use_column",
    "client_min_messages": "debug1",
}


@pytest.fixture
def grim(server: Postgres) -> str:
    """A role whose settings are against us."""
    for name, value in GRIM.items():
        order(server.dsn, f"ALTER ROLE grim SET {name} = '{value}'")
    return "grim"


@pytest.mark.timeout(240)
@pytest.mark.parametrize("role", ["grim"])
def test_whatever_settings_the_role_has_the_work_is_done(
    grim: str, app: Holdfast, ledger: Ledger, serve: Serve, direct: str, url: str
) -> None:
    service = started(serve)
    with Producer(app) as producer:
        jobs = [work.enqueue(n, fails_first=True, seconds=0).id for n in range(5)]
        with psycopg.connect(url, options=IN_PEACE) as theirs:
            jobs += [work.using(connection=theirs).enqueue(n, seconds=0).id for n in range(5)]
            later, soon = theirs.execute("SELECT id FROM public.holdfast_enqueue(%s)", [DOOR]).fetchall()
        effects(ledger, 25)
        jobs += producer.stop()
    assert app.job(later[0]).cancel()
    kept = order(direct, "SELECT prune_at - finished_at FROM holdfast_jobs WHERE id = %s", later[0])
    assert kept == 3_600_000
    assert app.job(soon[0]).result(timeout=60) == 7
    for job in jobs:
        app.job(job).result(timeout=60)
    leaves(service)
    told_once_each(service, 0)
    assert not producer.errors
    assert "event=deaf" not in service.text()
    assert "event=not-listening" not in service.text()


IN_PEACE = "-c statement_timeout=0 -c idle_session_timeout=0 -c idle_in_transaction_session_timeout=0"
DOOR = """[
    {"task": "tests.flows.shop.work", "args": [6], "delay": "5m", "keep": "1h", "retry": {"jitter": 0.5}},
    {"task": "tests.flows.shop.work", "args": [7], "delay": "10ms"}
]"""
