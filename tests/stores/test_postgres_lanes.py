"""Lanes to a PostgreSQL server that goes away, falls silent, refuses and comes back: what a call does, and says."""

import asyncio
import os
import time
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from urllib.parse import urlsplit

import psycopg
import pytest

from holdfast.errors import StoreAway, StoreError
from holdfast.job import Draft, Terms, new_id
from holdfast.store import Where
from holdfast.stores import masked, open_store
from holdfast.stores.postgres import lane as lane_
from holdfast.stores.postgres import limits
from holdfast.stores.postgres.address import Place, address_of
from holdfast.stores.postgres.lane import Lane
from holdfast.stores.postgres.limits import Limit
from tests import servers
from tests.flows.proxy import Proxy
from tests.servers.places import Database
from tools.servers import Postgres

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

TERMS = Terms(max_attempts=3, base_delay=1000, max_delay=60_000, jitter=0.1, max_crashes=3, keep=60_000)
PID = "SELECT pg_backend_pid()"
# Says that it runs, waits for the lock to be let go, and counts how often it was run to its end.
SLOW = "INSERT INTO ran SELECT pg_advisory_xact_lock_shared(7) IS NULL"


def draft() -> Draft:
    return Draft(id=new_id(), task="t", queue="q", payload=b"{}", terms=TERMS)


@contextmanager
def operator(database: Database) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        yield connection


@asynccontextmanager
async def lane(url: str, name: str = "work") -> AsyncIterator[Lane]:
    lane = Lane(name, Place(address_of(urlsplit(url), masked)))
    try:
        yield lane
    finally:
        await lane.close()


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> Callable[[Limit], None]:
    """Shortens all limits."""

    def shorten(limit: Limit) -> None:
        monkeypatch.setattr(lane_, "limits", lambda _: dict.fromkeys(limits.limits(), limit))

    return shorten


async def backend(lane: Lane) -> int:
    [[pid]] = await lane.rows(PID)
    return int(pid)


async def until(connection: psycopg.Connection, question: str) -> None:
    async with asyncio.timeout(30):
        while not connection.execute(question.encode()).fetchall()[0][0]:  # noqa: ASYNC110  # the server's to say
            await asyncio.sleep(0.005)


def terminate(connection: psycopg.Connection, pid: int) -> None:
    assert connection.execute("SELECT pg_terminate_backend(%s, 10000)", [pid]).fetchone() == (True,)


@pytest.fixture
def slow(bare_postgres: Database) -> Iterator[tuple[Database, psycopg.Connection]]:
    """A place with the table `ran`, and the connection that holds what SLOW waits for."""
    with operator(bare_postgres) as holder:
        holder.execute("CREATE TABLE ran (it boolean)")
        holder.execute("SELECT pg_advisory_lock(7)")
        yield bare_postgres, holder


WAITING = "SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
FREED = "SELECT pg_advisory_unlock(7)"


# --- connections that are lost


async def test_a_connection_that_was_ended_meanwhile_is_replaced_unnoticed(bare_postgres: Database) -> None:
    async with lane(bare_postgres.url) as one:
        first = await backend(one)
        with operator(bare_postgres) as connection:
            terminate(connection, first)
        assert await backend(one) != first


async def test_a_call_whose_connection_is_ended_in_the_middle_is_asked_once_more(
    slow: tuple[Database, psycopg.Connection],
) -> None:
    place, holder = slow
    async with lane(place.url) as one:
        first = await backend(one)
        call = asyncio.create_task(one.rows(SLOW))
        await until(holder, WAITING)
        terminate(holder, first)
        await until(holder, WAITING)
        holder.execute(FREED)
        assert await asyncio.wait_for(call, 30) == []
        assert holder.execute("SELECT count(*) FROM ran").fetchone() == (1,)


async def test_a_second_loss_is_told_with_the_servers_words(slow: tuple[Database, psycopg.Connection]) -> None:
    place, holder = slow
    async with lane(place.url) as one:
        call = asyncio.create_task(one.rows(SLOW))
        for _ in range(2):
            await until(holder, WAITING)
            [[pid]] = holder.execute("SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND NOT granted").fetchall()
            terminate(holder, pid)
        with pytest.raises(StoreAway, match=r"the server ended the connection.*terminating connection.*57P01"):
            await asyncio.wait_for(call, 30)
        assert await backend(one) > 0


async def test_a_server_that_stops_is_away_and_back_as_soon_as_it_is() -> None:
    with Postgres() as server:
        async with lane(server.dsn) as one:
            await backend(one)
            server.stop()
            with pytest.raises(StoreAway, match=r"cannot be reached.*Connection refused"):
                await backend(one)
            server.start()
            assert await backend(one) > 0
            server.kill()
            server.start()
            assert await backend(one) > 0


@contextmanager
def proxied(database: Database) -> Iterator[tuple[str, Proxy]]:
    parts = urlsplit(database.dsn)
    with Proxy(parts.hostname or "", parts.port or 0) as proxy:
        yield parts._replace(netloc=f"{parts.username}@127.0.0.1:{proxy.port}").geturl(), proxy


async def test_a_connection_that_falls_silent_is_given_up_and_the_call_asked_on_another(
    bare_postgres: Database, hurried: Callable[[Limit], None]
) -> None:
    hurried(Limit(statement=5000, lock=0, answer=300))
    with proxied(bare_postgres) as (url, proxy):
        async with lane(url) as one:
            first = await backend(one)
            proxy.deaf = True
            call = asyncio.create_task(one.rows(PID))
            before = proxy.accepted
            async with asyncio.timeout(30):
                while proxy.accepted == before:  # noqa: ASYNC110  # another thread's
                    await asyncio.sleep(0.005)
            proxy.deaf = False
            [[second]] = await asyncio.wait_for(call, 30)
            assert second != first


async def test_a_network_that_swallows_everything_is_told_after_the_limits(
    bare_postgres: Database, hurried: Callable[[Limit], None]
) -> None:
    hurried(Limit(statement=5000, lock=0, answer=200))
    with proxied(bare_postgres) as (url, proxy):
        async with lane(f"{url}?connect_timeout=2") as one:
            await backend(one)
            proxy.deaf = True
            calls = [asyncio.create_task(one.rows(PID)) for _ in range(20)]
            start = time.monotonic()
            errors = await asyncio.gather(*calls, return_exceptions=True)
            assert {type(error) for error in errors} == {StoreAway}
            assert "cannot be reached" in str(errors[-1])
            assert time.monotonic() - start < 20, "those who waited tried to connect again, one after the other"
            proxy.deaf = False
            assert await backend(one) > 0


async def test_a_reply_that_is_lost_is_asked_for_again(
    bare_postgres: Database, hurried: Callable[[Limit], None]
) -> None:
    hurried(Limit(statement=5000, lock=0, answer=300))
    with operator(bare_postgres) as connection, proxied(bare_postgres) as (url, proxy):
        connection.execute("CREATE TABLE ran (number integer PRIMARY KEY)")
        async with lane(url) as one:
            for how in ("cut", "silent"):
                proxy.how, proxy.lose_every = how, 5
                for number in range(20):
                    again = "INSERT INTO ran VALUES (%b) ON CONFLICT DO NOTHING"
                    await one.rows(again, (number + (100 if how == "silent" else 0),))
            assert proxy.lost > 4
        assert connection.execute("SELECT count(*) FROM ran").fetchone() == (40,)


async def test_an_answer_that_waits_for_a_busy_loop_is_read_and_the_connection_kept(
    bare_postgres: Database, hurried: Callable[[Limit], None]
) -> None:
    hurried(Limit(statement=5000, lock=0, answer=100))
    async with lane(bare_postgres.url) as one:
        first = await backend(one)
        call = asyncio.create_task(one.rows(PID))
        for _ in range(3):
            await asyncio.sleep(0)
        time.sleep(0.3)  # noqa: ASYNC251  # a handler that blocks the loop
        assert await call == [(first,)]
        assert await backend(one) == first


@pytest.mark.parametrize(
    ("change", "words"),
    [("store = gen_random_uuid()", "another store than the one"), ("oldest_code = 999", "upgrade this installation")],
)
async def test_a_fresh_connection_that_leads_elsewhere_is_not_used(
    bare_postgres: Database, change: str, words: str
) -> None:
    """As after a failover to a copy, or when a newer version has cut off this one."""
    store = open_store(bare_postgres.url)
    await store.migrate()
    await store.open()
    [receipt] = await store.enqueue([draft()])
    assert receipt.created
    with operator(bare_postgres) as connection:
        connection.execute("CREATE TABLE before AS SELECT * FROM holdfast_meta")
        connection.execute(f"UPDATE holdfast_meta SET {change}")
        assert (await store.enqueue([draft()]))[0].created, "on the connection that is open it is looked at once only"
        ours = "FROM pg_stat_activity WHERE application_name LIKE 'holdfast%' AND datname = current_database()"
        connection.execute(f"SELECT pg_terminate_backend(pid, 10000) {ours}")
        for _ in range(2):
            with pytest.raises(StoreAway, match=f"{words}.*nothing is done") as refused:
                await store.enqueue([draft()])
        assert refused.value.certain
        connection.execute("UPDATE holdfast_meta SET (store, oldest_code) = (SELECT store, oldest_code FROM before)")
    assert (await store.enqueue([draft()]))[0].created
    await store.close()


# --- callers that leave


async def test_a_cancelled_call_goes_on_to_its_end_and_the_next_comes_after_it(
    slow: tuple[Database, psycopg.Connection],
) -> None:
    place, holder = slow
    async with lane(place.url) as one:
        first = await backend(one)
        call = asyncio.create_task(one.rows(SLOW))
        await until(holder, WAITING)
        behind = asyncio.create_task(one.rows("INSERT INTO ran VALUES (false)"))
        next_one = asyncio.create_task(one.rows("SELECT it FROM ran"))
        await asyncio.sleep(0)
        call.cancel()
        behind.cancel()  # before its turn: it never runs
        with pytest.raises(asyncio.CancelledError):
            await call
        with pytest.raises(asyncio.CancelledError):
            await behind
        assert not next_one.done()
        holder.execute(FREED)
        assert await asyncio.wait_for(next_one, 30) == [(False,)]
        assert await backend(one) == first
        assert holder.execute("SELECT count(*) FROM ran").fetchone() == (1,)


async def test_closing_waits_for_calls_in_flight_also_those_left_behind(
    slow: tuple[Database, psycopg.Connection],
) -> None:
    place, holder = slow
    async with lane(place.url) as one:
        call = asyncio.create_task(one.rows(SLOW))
        await until(holder, WAITING)
        call.cancel()
        closing = asyncio.create_task(one.close())
        await asyncio.wait([closing], timeout=0.05)
        assert not closing.done()
        holder.execute(FREED)
        await asyncio.wait_for(closing, 30)
        assert holder.execute("SELECT count(*) FROM ran").fetchone() == (1,)


async def test_a_call_that_comes_after_the_end_is_refused_and_opens_nothing(bare_postgres: Database) -> None:
    with proxied(bare_postgres) as (url, proxy):
        async with lane(url) as one:
            await backend(one)
            before = proxy.accepted
            await one.close()
            with pytest.raises(StoreError, match="the store was closed"):
                await backend(one)
            assert proxy.accepted == before


async def test_a_close_that_is_cancelled_cuts_what_a_silent_server_keeps_waiting(postgres: Database) -> None:
    before = asyncio.all_tasks()
    with proxied(postgres) as (url, proxy):
        store = open_store(url)
        await store.open()
        listening = asyncio.create_task(store.wait(["q"], 60))
        await asyncio.wait_for(store.wait(["other"], 0.1), 30)
        proxy.deaf = True
        calls = [asyncio.create_task(call) for call in (store.find(Where()), store.stats(), store.enqueue([draft()]))]
        await asyncio.sleep(0)
        closing = asyncio.create_task(store.close())
        await asyncio.wait([closing, *calls], timeout=0.2)
        assert not closing.done()
        assert not any(call.done() for call in calls)
        closing.cancel()
        await asyncio.wait([closing, listening, *calls], timeout=5)
        assert closing.cancelled()
        assert [type(call.exception()) for call in calls[::2]] == [StoreAway, StoreAway]
        assert isinstance(calls[1].exception(), StoreError)
        assert listening.result() is False
        assert asyncio.all_tasks() <= before


# --- what the server says


@pytest.mark.parametrize("name", ["enqueue", "claim", "finish", "beat", "work"])
async def test_every_lane_has_its_time_outs_on_the_server(bare_postgres: Database, name: str) -> None:
    limit = limits.limits()[name]
    async with lane(bare_postgres.url, name) as one:
        asked = "SELECT setting FROM pg_settings WHERE name = ANY(%b) ORDER BY name DESC"
        found = await one.rows(asked, (["statement_timeout", "lock_timeout"],))
        assert [int(setting) for (setting,) in found] == [limit.statement, limit.lock]
        assert 0 < limit.statement < limit.answer
        [[isolation, program]] = await one.rows(
            "SELECT current_setting('transaction_isolation'), current_setting('application_name')"
        )
        assert (isolation, program) == ("read committed", f"holdfast {name}")


def test_claims_and_beats_are_cut_off_within_a_third_of_the_lease() -> None:
    for lease in (15_000, 3_000, 60_000):
        for name in ("claim", "beat"):
            assert limits.limits(lease)[name].answer <= lease / 3


async def test_a_statement_that_takes_too_long_is_away_and_says_which_time_out(
    slow: tuple[Database, psycopg.Connection], hurried: Callable[[Limit], None]
) -> None:
    place, holder = slow
    hurried(Limit(statement=100, lock=0, answer=20_000))
    async with lane(place.url) as one:
        first = await backend(one)
        with pytest.raises(StoreAway, match=r"took longer than its statement_timeout.*57014"):
            await one.rows(SLOW)
        assert await backend(one) == first
    hurried(Limit(statement=20_000, lock=100, answer=30_000))
    async with lane(place.url) as one:
        with pytest.raises(StoreAway, match=r"another transaction holds a lock.*55P03"):
            await one.rows(SLOW)
    assert holder.execute("SELECT count(*) FROM ran").fetchone() == (0,)


RAISES = """
CREATE FUNCTION raises(state text, times integer) RETURNS integer LANGUAGE plpgsql AS $function$
BEGIN
    PERFORM nextval('tries');
    IF currval('tries') <= times THEN
        RAISE EXCEPTION 'as if' USING ERRCODE = state;
    END IF;
    RETURN currval('tries');
END $function$
"""


@pytest.fixture
def raising(bare_postgres: Database) -> Database:
    with operator(bare_postgres) as connection:
        connection.execute("CREATE SEQUENCE tries")
        connection.execute(RAISES)
    return bare_postgres


@pytest.mark.parametrize("state", ["40001", "40P01"])
async def test_what_another_transaction_has_spoilt_is_tried_again_at_once(raising: Database, state: str) -> None:
    async with lane(raising.url) as one:
        assert await one.rows("SELECT raises(%b, 2)", (state,)) == [(3,)]
        with pytest.raises(StoreAway, match=f"several times over.*{state}"):
            await one.rows("SELECT raises(%b, 99)", (state,))


@pytest.mark.parametrize(
    ("state", "kind", "words"),
    [
        ("53100", StoreAway, "disk is full"),
        ("53200", StoreAway, "out of memory"),
        ("53300", StoreAway, "no connection left"),
        ("25006", StoreAway, "takes no writes"),
        ("58030", StoreAway, "server's log says more"),
        ("42P01", StoreAway, "holdfast migrate"),
        ("22P05", StoreError, "refused a statement"),
        ("XX000", StoreError, "refused a statement"),
    ],
)
async def test_what_may_work_later_is_away_and_what_never_will_is_refused(
    raising: Database, state: str, kind: type[StoreError], words: str
) -> None:
    async with lane(raising.url) as one:
        with pytest.raises(StoreError, match=words) as refused:
            await one.rows("SELECT raises(%b, 99)", (state,))
        assert type(refused.value) is kind
        assert "as if" in str(refused.value)
        assert state in str(refused.value)
        assert getattr(refused.value, "full", False) is (state == "53100")
        assert getattr(refused.value, "certain", False) is (kind is StoreAway)


async def test_an_error_says_whether_something_may_have_been_done(slow: tuple[Database, psycopg.Connection]) -> None:
    place, holder = slow
    with proxied(place) as (url, proxy):
        async with lane(url) as one:
            for in_the_middle in (False, True):
                if in_the_middle:
                    call = asyncio.create_task(one.rows(SLOW))
                    await until(holder, WAITING)
                else:
                    call = asyncio.create_task(one.rows(PID))
                proxy.refuses = True
                proxy.cut()
                with pytest.raises(StoreAway) as away:
                    await asyncio.wait_for(call, 30)
                assert away.value.certain is not in_the_middle
                proxy.refuses = False


async def test_a_server_that_takes_no_writes_any_more_is_looked_for_on_a_fresh_connection(raising: Database) -> None:
    """As after a failover: the connection leads to what is a standby now, a new one to the primary."""
    async with lane(raising.url) as one:
        first = await backend(one)
        assert await one.rows("SELECT raises('25006', 1), pg_backend_pid() <> %b", (first,)) == [(2, True)]


# --- behind a pooler


async def test_behind_a_pooler_that_refuses_our_settings_the_time_outs_hold_all_the_same(
    hurried: Callable[[Limit], None],
) -> None:
    hurried(Limit(statement=200, lock=150, answer=20_000))
    with servers.pooled().bare() as place:
        async with lane(place.url) as one:
            for _ in range(3):
                assert await one.rows("SELECT current_setting('statement_timeout'), %b + 1", (1,)) == [("200ms", 2)]
                with pytest.raises(StoreAway, match="57014"):
                    await one.rows("SELECT pg_sleep(60)")
        with psycopg.connect(place.dsn, autocommit=True, prepare_threshold=None) as stranger:
            assert stranger.execute("SHOW statement_timeout").fetchone() == ("0",)


async def test_the_users_own_options_are_kept(bare_postgres: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = "SELECT current_setting('work_mem'), current_setting('statement_timeout')"
    own = "options=-c%20work_mem%3D5MB%20-c%20statement_timeout%3D7s"
    async with lane(f"{bare_postgres.url}?{own}") as one:
        assert await one.rows(asked) == [("5MB", "15s")]
    monkeypatch.setenv("PGOPTIONS", "-c work_mem=6MB")
    async with lane(bare_postgres.url) as one:
        assert await one.rows(asked) == [("6MB", "15s")]


# --- forks


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
async def test_a_forked_child_that_closes_its_store_leaves_the_parents_connection_alone(
    bare_postgres: Database,
) -> None:
    async with lane(bare_postgres.url) as one:
        first = await backend(one)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # from Python 3.12 on, a fork beside threads warns
            child = os.fork()
        if child == 0:
            try:
                one.close().send(None)
            except StopIteration:
                os._exit(0)
            finally:
                os._exit(1)
        _, status = await asyncio.to_thread(os.waitpid, child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert await backend(one) == first


# --- how many connections


async def test_who_only_enqueues_needs_one_connection(postgres: Database) -> None:
    store = open_store(postgres.url)
    await store.open()
    await store.reserve([])
    await store.enqueue([draft()])
    with operator(postgres) as connection:
        asked = """
            SELECT application_name FROM pg_stat_activity
            WHERE application_name LIKE 'holdfast%' AND datname = current_database()
        """
        assert connection.execute(asked).fetchall() == [("holdfast enqueue",)]
    await store.close()
