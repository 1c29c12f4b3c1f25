"""The SQL door: what psql, triggers and other languages can say, what they get back, and that docs/sql.md is right."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from holdfast.clock import DAY, HOUR, LONGEST, MINUTE, SECOND, moment
from holdfast.codec import PAYLOAD_LIMIT
from holdfast.job import HEADERS_LIMIT, KEY_LIMIT, TOMBSTONE, QueueTerms, State, Terms, UniqueKey
from holdfast.options import PRIORITY_MOST, TAG_LENGTH_MOST, TAGS_MOST
from holdfast.store import RESERVED, Store
from tests.servers.places import Database
from tests.store.acts import (
    PATIENCE,
    admitted,
    bound,
    draft,
    exists,
    heard,
    keyed,
    listing,
    now,
    record,
    stats_of,
    stored,
)
from tests.stores.strangers import opened, stranger, through_the_door, waits

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]

PAGE = (Path(__file__).parents[2] / "docs" / "sql.md").read_text(encoding="utf-8")


@pytest.fixture
async def store(postgres: Database) -> AsyncIterator[Store]:
    async with opened(postgres) as store:
        yield store


@pytest.fixture
def psql(postgres: Database) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(postgres.dsn, autocommit=True, row_factory=psycopg.rows.dict_row) as connection:
        yield connection


def enqueued(psql: psycopg.Connection[Any], *jobs: object) -> list[dict[str, Any]]:
    return psql.execute("SELECT * FROM holdfast_enqueue(%s)", [json.dumps(jobs)]).fetchall()


async def test_a_job_is_stored_as_it_is_said(store: Store, psql: psycopg.Connection[Any]) -> None:
    said = {
        "task": "shop.send",
        "args": [7, "naïve 🎲"],
        "kwargs": {"copy": True},
        "queue": "mail",
        "priority": -3,
        "delay": "5m",
        "expires": "10m",
        "deadline": "2035-01-31T09:00:00+01:00",
        "tags": ["eu", "invoice"],
        "headers": {"tenant": "7"},
        "unique": {"key": "order 7", "hold": "1h", "on_clash": "replace"},
        "retry": {"max_attempts": 5, "base_delay": 2, "max_delay": "10m", "jitter": 0.5, "max_crashes": 1},
        "timeout": 30,
        "keep": "7d",
    }
    [receipt] = enqueued(psql, said)
    assert (receipt["answer"], receipt["created"]) == ("accepted", True)
    found = await record(store, receipt["id"])
    assert json.loads(found.payload) == {"args": said["args"], "kwargs": said["kwargs"]}
    assert (found.task, found.queue, found.state, found.priority) == ("shop.send", "mail", State.SCHEDULED, -3)
    assert found.due_at - found.enqueued_at == 5 * MINUTE
    assert found.expires_at == found.enqueued_at + 10 * MINUTE
    assert moment(found.deadline_at or 0) == datetime(2035, 1, 31, 8, tzinfo=UTC)
    assert found.terms == Terms(5, 2000, 10 * MINUTE, 0.5, 1, 30_000, 7 * DAY)
    assert (found.tags, json.loads(found.headers)) == (("eu", "invoice"), {"tenant": "7"})
    assert found.unique == UniqueKey("order 7", "finished", HOUR, "replace")


async def test_what_is_not_said_is_as_for_a_task_without_options(store: Store, psql: psycopg.Connection[Any]) -> None:
    [receipt] = enqueued(psql, {"task": "shop.send", "args": [], "kwargs": None, "delay": None})
    found = await record(store, receipt["id"])
    assert (found.payload, found.queue, found.state, found.terms) == (b"{}", "default", State.QUEUED, Terms())
    assert (found.tags, found.headers, found.unique, found.alone) == ((), "", None, False)
    assert found.id.version == 7
    assert abs(found.enqueued_at - await now(store)) < HOUR


async def test_receipts_come_in_order_and_say_why(store: Store, psql: psycopg.Connection[Any]) -> None:
    await bound(store, 1, "reject", "small")
    old = draft(task="shop.send", queue="default", payload=b'{"args":[1]}')
    await stored(store, old)
    key = {"task": "shop.send", "unique": "k"}
    receipts = enqueued(
        psql,
        {"task": "shop.send", "queue": "small"},
        {"task": "shop.send", "queue": "small"},
        {"task": "shop.send", "args": [1], "id": str(old.id)},
        {"task": "shop.send", "args": [2], "id": str(old.id)},
        key,
        key,
        key | {"task": "shop.print"},
    )
    assert [(met["answer"], met["created"]) for met in receipts] == [
        ("accepted", True),
        ("full", False),
        ("accepted", False),
        ("conflict", False),
        ("accepted", True),
        ("duplicate", False),
        ("taken", False),
    ]
    assert (receipts[1]["depth"], receipts[1]["bound"], receipts[1]["when_full"]) == (1, 1, "reject")
    assert receipts[5]["holder"] == receipts[6]["holder"] == receipts[4]["id"]
    assert len(await listing(store)) == 3


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ([{"tsk": "a"}], 'tsk="a": there is no such field; there are task,'),
        ([{}], "task: missing"),
        ([5], "a job is a JSON object .* not 5"),
        ({}, "takes a JSON array of jobs"),
        (7, "takes a JSON array of jobs"),
        ([{"task": "a b"}], 'task="a b": a name has 1 to 100 letters'),
        ([{"task": 7}], "task=7: a name has"),
        ([{"task": "a", "queue": ""}], 'queue="": a name has'),
        ([{"task": "a", "args": {}}], r"args=\{\}: a JSON array"),
        ([{"task": "a", "kwargs": [1]}], r"kwargs=\[1\]: a JSON object"),
        ([{"task": "a", "id": "7"}], 'id="7": a UUID'),
        ([{"task": "a", "priority": 101}], "priority=101: a whole number from -100 to 100"),
        ([{"task": "a", "priority": 1.5}], "priority=1.5: a whole number"),
        ([{"task": "a", "delay": -1}], "delay: -1 is no length of time"),
        ([{"task": "a", "delay": "soon"}], 'delay: "soon" is no length of time'),
        ([{"task": "a", "delay": 1e300}], "delay: .* is no length of time"),
        ([{"task": "a", "timeout": True}], "timeout: true is no length of time"),
        ([{"task": "a", "at": "2030-01-31T09:00:00"}], 'at="2030-01-31T09:00:00": a time with its zone'),
        ([{"task": "a", "at": "2030-01-31"}], "a time with its zone"),
        ([{"task": "a", "delay": 1, "at": "2030-01-31T09:00:00Z"}], "exclude each other"),
        ([{"task": "a", "tags": [1]}], r"tags=\[1\]: at most 20 texts"),
        ([{"task": "a", "tags": ["x"] * 21}], "at most 20 texts"),
        ([{"task": "a", "headers": {"a": 1}}], "a JSON object of texts"),
        ([{"task": "a", "unique": ""}], "unique=.* a text of 1 to 200 characters"),
        ([{"task": "a", "unique": {"key": "k", "until": "started", "hold": 1}}], "unique="),
        ([{"task": "a", "unique": {"key": "k", "on_clash": "explode"}}], "unique="),
        ([{"task": "a", "retry": {"max_attempts": 0}}], "retry=.*1 or more"),
        ([{"task": "a", "retry": {"jitter": 2}}], "retry="),
        ([{"task": "a", "retry": {"attempts": 2}}], "retry="),
        ([{"task": "a", "args": ["x" * 2**20]}], "more than 1 MiB"),
        ([{"task": "a", "at": "01/02/2031 09:00:00Z"}], "a time with its zone"),
        ([{"task": "a", "at": "yesterday 10:00:00Z"}], "a time with its zone"),
        ([{"task": "a", "at": "2030-02-30T09:00:00Z"}], "at=.*that month has no such day"),
        ([{"task": "a", "at": "2100-02-29T09:00:00Z"}], "that month has no such day"),
        ([{"task": "a", "at": "2030-11-31T09:00:00Z"}], "that month has no such day"),
        ([{"task": "a", "at": "0000-02-20T09:00:00Z"}], "a time with its zone"),
        ([{"task": "a", "timeout": 0}], "timeout=0: it must be more than zero"),
        ([{"task": "a", "timeout": "0s"}], 'timeout="0s": it must be more than zero'),
        ([{"task": "a", "retry": {"base_delay": "10m"}}], "base_delay is longer than max_delay"),
        ([{"task": "a", "headers": {"holdfast.schedule": "x"}}], "begin with holdfast. are the library's own"),
        ([{"task": "a", "expires": "soon"}], 'expires: "soon" is no length of time'),
        ([{"task": "a", "deadline": "2030-01-31T09:00:00"}], 'deadline="2030-01-31T09:00:00": a time with its zone'),
        (
            [{"task": "a", "expires": "2020-01-31T09:00:00Z"}],
            'expires="2020-01-31T09:00:00Z": the job is not due before',
        ),
        ([{"task": "a", "delay": "1h", "expires": "1m"}], 'expires="1m": the job is not due before that; give a later'),
        ([{"task": "a", "retry": {"max_attempts": "5"}}], "retry="),
        ([{"task": "a", "retry": {"jitter": "0.5"}}], "retry="),
        ([{"task": "a", "run_in": ["process"]}], "run_in="),
        ([{"task": "a", "id": 7}], "id=7: a UUID"),
        ([{"task": "a", "args": ["a\0b"]}], r"a text holds \\u0000, .*a\\u0000b"),
        ([{"task": "a", "headers": {"a\0": "b"}}], r"a text holds \\u0000"),
        ([{"task": "a", "args": ["\ud800"]}], "invalid input syntax for type json .JSON data, line 1: .*ud800"),
        ([{"task": "a"}, {"task": 8}], "job 3 of 3: task=8: a name has"),
        ([{}, {"task": "a"}], "job 2 of 3: task: missing"),
    ],
)
async def test_a_wrong_field_is_named_with_what_would_work_and_nothing_is_stored(
    store: Store, psql: psycopg.Connection[Any], said: Any, told: str
) -> None:
    good = {"task": "shop.send"}
    jobs = [good, *said] if isinstance(said, list) else said
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=told):
        psql.execute("SELECT * FROM holdfast_enqueue(%s)", [json.dumps(jobs)])
    assert not await listing(store)


async def test_what_is_no_json_is_told(psql: psycopg.Connection[Any]) -> None:
    for said, told in (
        ("shop.send", "invalid input syntax for type json"),
        ('[{"delay": 1e200000}]', "delay: 1e200000 is"),
    ):
        with pytest.raises(psycopg.errors.InvalidParameterValue, match=told):
            psql.execute("SELECT * FROM holdfast_enqueue(%s)", [said.replace("[{", '[{"task": "a", ')])


async def test_what_only_looks_like_a_nul_is_kept(store: Store, psql: psycopg.Connection[Any]) -> None:
    [receipt] = enqueued(psql, {"task": "shop.send", "args": ["\\u0000"]})
    assert json.loads((await record(store, receipt["id"])).payload) == {"args": ["\\u0000"]}


def sized(size: int) -> dict[str, Any]:
    """A job whose payload is so many bytes."""
    return {"task": "a", "args": ["x" * (size - len(b'{"args":[""]}'))]}


@pytest.mark.parametrize(
    ("job", "beyond"),
    [
        (sized(PAYLOAD_LIMIT), sized(PAYLOAD_LIMIT + 1)),
        ({"tags": ["x" * TAG_LENGTH_MOST] * TAGS_MOST}, {"tags": ["x"] * (TAGS_MOST + 1)}),
        ({"tags": ["x" * TAG_LENGTH_MOST]}, {"tags": ["x" * (TAG_LENGTH_MOST + 1)]}),
        ({"unique": "x" * KEY_LIMIT}, {"unique": "x" * (KEY_LIMIT + 1)}),
        ({"task": "x" * 100, "queue": "x" * 100}, {"queue": "x" * 101}),
        ({"task": "x" * 100}, {"task": "x" * 101}),
        ({"priority": PRIORITY_MOST}, {"priority": PRIORITY_MOST + 1}),
        ({"priority": -PRIORITY_MOST}, {"priority": -PRIORITY_MOST - 1}),
        ({"keep": LONGEST // SECOND}, {"keep": LONGEST // SECOND + 1}),
        ({"delay": "36500d"}, {"delay": "36501d"}),
        ({"headers": {"a": "x" * (HEADERS_LIMIT - 9)}}, {"headers": {"a": "x" * (HEADERS_LIMIT - 8)}}),
        ({"retry": {"jitter": 1, "max_crashes": 0}}, {"retry": {"jitter": 1.01}}),
        ({"retry": {"jitter": 1e-05}}, {"retry": {"jitter": -1e-05}}),
        ({"timeout": 0.001}, {"timeout": 0}),
        ({"expires": 0.001}, {"expires": 0}),
        ({"delay": "1h", "deadline": "61m"}, {"delay": "1h", "deadline": "1h"}),
        (
            {"at": "2035-01-31T09:00:00Z", "expires": "2035-01-31T09:00:01Z"},
            {"at": "2035-01-31T09:00:00Z", "expires": "1m"},
        ),
    ],
)
async def test_a_job_at_a_limit_is_stored_and_one_beyond_it_is_not(
    psql: psycopg.Connection[Any], job: dict[str, Any], beyond: dict[str, Any]
) -> None:
    assert [met["answer"] for met in enqueued(psql, {"task": "a"} | job)] == ["accepted"]
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        enqueued(psql, {"task": "a"} | beyond)


async def test_the_spans_that_sql_says_once_more_are_pythons(psql: psycopg.Connection[Any]) -> None:
    cursor = psql.execute("SELECT holdfast_tombstone() AS tombstone, holdfast_reserved() AS reserved")
    assert cursor.fetchone() == {"tombstone": TOMBSTONE, "reserved": RESERVED}


@pytest.mark.parametrize("at", ["9999-12-31T23:59:59.999Z", "0001-01-01T00:00:00+00", "1969-12-31T23:59:59.9995Z"])
async def test_the_first_and_the_last_times_are_kept(store: Store, psql: psycopg.Connection[Any], at: str) -> None:
    [receipt] = enqueued(psql, {"task": "shop.send", "at": at})
    cursor = psql.execute("SELECT floor(extract(epoch FROM %s::timestamptz) * 1000)::bigint AS ms", [at])
    assert (await record(store, receipt["id"])).due_at == (cursor.fetchone() or {})["ms"]


async def test_no_jobs_are_no_receipts(psql: psycopg.Connection[Any]) -> None:
    assert enqueued(psql) == []


async def test_what_is_rolled_back_was_never_there(
    store: Store, postgres: Database, psql: psycopg.Connection[Any]
) -> None:
    with psycopg.connect(postgres.dsn, row_factory=psycopg.rows.dict_row) as connection:
        [receipt] = enqueued(connection, {"task": "shop.send"})
        connection.rollback()
        assert not await exists(store, receipt["id"])
        [receipt] = enqueued(connection, {"task": "shop.send"})
        connection.commit()
    assert await exists(store, receipt["id"])


async def test_workers_are_woken_by_the_commit(store: Store, psql: psycopg.Connection[Any]) -> None:
    channel = (psql.execute("SELECT holdfast_channel() AS name").fetchone() or {})["name"]
    psql.execute(psycopg.sql.SQL("LISTEN {}").format(psycopg.sql.Identifier(channel)))
    enqueued(psql, {"task": "shop.send", "queue": "late", "delay": 60})
    enqueued(psql, {"task": "shop.send", "queue": "mail"}, {"task": "shop.send", "queue": "mail"})
    heard = [notice.payload for notice in psql.notifies(timeout=10, stop_after=1)]
    assert heard == ["mail"]


async def test_the_page_on_sql_is_right(store: Store, psql: psycopg.Connection[Any]) -> None:
    blocks = re.findall(r"```sql\n(.*?)```\n\n```text\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 2
    for statements, shown in blocks:
        cursor = psql.execute(statements)
        while cursor.nextset():
            pass
        rows = cursor.fetchall()
        names, _, *lines = shown.splitlines()
        assert [name.strip() for name in names.split("|")] == list(rows[0])
        told = [[cell.strip() for cell in line.split("|")] for line in lines]
        met = [["t" if value is True else str(value) for value in row.values()] for row in rows]
        assert [row[-2:] for row in met] == [row[-2:] for row in told]


async def test_every_field_and_answer_of_the_page_is_one_and_none_is_missing(psql: psycopg.Connection[Any]) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue) as caught:
        enqueued(psql, {"task": "a", "nonsense": 1})
    there = set(re.findall(r"\w+", str(caught.value).partition("there are")[2].partition("\n")[0]))
    table = PAGE.partition("## What a job says")[2].partition("A length of time")[0]
    assert (
        set(re.findall(r"`(\w+)`", "\n".join(row.split("|")[1] for row in table.splitlines() if "|" in row))) == there
    )


async def test_a_place_is_asked_for_like_anywhere(store: Store, psql: psycopg.Connection[Any]) -> None:
    await store.configure({"mail": QueueTerms(1, "block", 7000)}, by="worker")
    met = enqueued(psql, {"task": "a", "queue": "mail"}, {"task": "a", "queue": "mail"})
    assert [each["answer"] for each in met] == ["accepted", "full"]
    assert (met[1]["when_full"], met[1]["block_timeout"]) == ("block", 7000)


# --- beside other transactions


@pytest.mark.parametrize("first", ["through the door", "with connection="])
async def test_nothing_is_dropped_for_what_turns_out_to_be_a_duplicate(
    store: Store, postgres: Database, first: str
) -> None:
    await bound(store, 2, "drop_oldest")
    await stored(store, draft(), draft())
    said = {"task": "shop.send", "queue": "mail", "unique": "k"}
    async with stranger(postgres) as one, stranger(postgres) as two, asyncio.timeout(PATIENCE):
        if first == "through the door":
            [met] = await through_the_door(one, said)
            assert met["dropped"]
        else:
            job = keyed()
            assert [each.answer for each in await store.reserve([job])] == ["accepted"]
            assert [each.answer for each in await store.enqueue([job], one)] == ["accepted"]
        second = asyncio.create_task(through_the_door(two, said))
        await waits(postgres, two)
        await one.commit()
        [met] = await second
        assert (met["answer"], met["dropped"]) == ("duplicate", None)
        await two.commit()
    assert await admitted(store) == 2
    assert (await stats_of(store)).dropped == 1  # type: ignore[union-attr]


async def test_what_a_call_waits_for_it_takes_in_one_order(store: Store, postgres: Database) -> None:
    """So that no two calls wait for each other: while it waits for one key it has taken none that comes after it."""
    key = {"task": "shop.send", "unique": {"key": "a", "on_clash": "replace"}}
    async with stranger(postgres) as one, stranger(postgres) as two, stranger(postgres) as three:
        async with asyncio.timeout(PATIENCE):
            await stored(store, keyed(text="a", queue="default"))
            await one.execute("SELECT FROM holdfast_jobs FOR UPDATE")
            second = asyncio.create_task(through_the_door(two, {"task": "shop.send", "unique": "b"}, key))
            await waits(postgres, two)
            assert [met["answer"] for met in await through_the_door(three, key | {"unique": "b"})] == ["accepted"]
            await three.commit()
            await one.commit()
            assert [met["answer"] for met in await second] == ["duplicate", "replaced"]


async def test_a_duplicate_is_not_counted_as_dropped(store: Store, postgres: Database) -> None:
    await bound(store, 1, "drop_newest")
    said = {"task": "shop.send", "queue": "mail", "unique": "k"}
    async with stranger(postgres) as one, stranger(postgres) as two, asyncio.timeout(PATIENCE):
        assert [met["answer"] for met in await through_the_door(one, said)] == ["accepted"]
        second = asyncio.create_task(through_the_door(two, said))
        await waits(postgres, two)
        await one.commit()
        assert [met["answer"] for met in await second] == ["duplicate"]
        await two.commit()
    assert (await stats_of(store)).dropped == 0  # type: ignore[union-attr]


@pytest.mark.parametrize("known", [False, True])
async def test_a_bound_that_a_snapshot_does_not_show_is_a_serialization_error(
    store: Store, postgres: Database, known: bool
) -> None:
    if known:
        await bound(store, None)
    said = {"task": "shop.send", "queue": "mail"}
    async with stranger(postgres, "REPEATABLE READ") as connection:
        await bound(store, 1)
        for _ in range(2):
            await heard(store, [draft()])
        with pytest.raises(psycopg.errors.SerializationFailure):
            await through_the_door(connection, said)
        await connection.rollback()
        assert [met["answer"] for met in await through_the_door(connection, said)] == ["full"]
        await connection.rollback()
        free = said | {"queue": "free"}
        assert [met["answer"] for met in await through_the_door(connection, free, free)] == ["accepted"] * 2
        await connection.commit()
    assert await admitted(store) == 1
    assert len(await listing(store)) == 3
