"""Finding jobs by a filter, and acting on all that are found."""

import asyncio
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any
from uuid import UUID

import pytest

from holdfast import (
    ConfigError,
    Holdfast,
    Job,
    State,
    SyncTask,
)

PATIENCE = 30


@pytest.fixture
def stock(app: Holdfast, send: SyncTask[..., str]) -> list[Job[str]]:
    """Five queued jobs, two of them tagged; two cancelled; one scheduled. Oldest first."""
    fixed = [send.enqueue(str(n)) for n in range(3)]
    tagged = [send.using(tags=["eu", "b2b"], queue="slow").enqueue(str(n)) for n in range(2)]
    cancelled = [send.enqueue("cancelled") for _ in range(2)]
    for job in cancelled:
        job.cancel("not wanted")
    return [*fixed, *tagged, *cancelled, send.using(delay="1h").enqueue("later")]


def ids(found: Any) -> list[UUID]:
    return [status.id for status in found]


def test_find_yields_the_newest_first(app: Holdfast, stock: list[Job[str]]) -> None:
    found = list(app.find(task="shop.send"))
    assert sorted(ids(found)) == sorted(job.id for job in stock)
    assert all(newer.enqueued_at >= older.enqueued_at for newer, older in pairwise(found))


@pytest.mark.parametrize(
    ("where", "which"),
    [
        ({}, range(8)),
        ({"queue": "mail"}, [0, 1, 2, 5, 6, 7]),
        ({"queue": "nowhere"}, []),
        ({"task": "shop.send"}, range(8)),
        ({"task": "shop"}, []),
        ({"tag": "eu"}, [3, 4]),
        ({"state": "queued"}, range(5)),
        ({"state": State.CANCELLED}, [5, 6]),
        ({"state": "cancelled, scheduled"}, [5, 6, 7]),
        ({"state": "queued", "tag": "b2b", "queue": "slow"}, [3, 4]),
        ({"state": "dead"}, []),
        ({"error": "OSError"}, []),
        ({"since": datetime(2000, 1, 1, tzinfo=UTC)}, range(8)),
        ({"before": datetime(2000, 1, 1, tzinfo=UTC)}, []),
        ({"since": datetime(2999, 1, 1, tzinfo=UTC)}, []),
    ],
    ids=lambda value: repr(value)[:50],
)
def test_find_by(app: Holdfast, stock: list[Job[str]], where: Any, which: Any) -> None:
    assert sorted(ids(app.find(**where))) == sorted(stock[n].id for n in which)


def test_find_reads_page_by_page(app: Holdfast, send: SyncTask[..., str]) -> None:
    jobs = app.enqueue_many(send.bind(str(n)) for n in range(250))
    found = app.find(task="shop.send")
    first = next(found)
    for job in jobs:
        job.cancel()
    rest = list(found)
    assert sorted([first.id, *ids(rest)]) == sorted(job.id for job in jobs)
    assert {status.state for status in rest[150:]} == {State.CANCELLED}, "later pages are read later"


@pytest.mark.parametrize(
    ("where", "named"),
    [
        ({"quee": "mail"}, r"no filter 'quee'; there are state, queue, task"),
        ({"state": "running,lost"}, r"state='running,lost': there are .*scheduled"),
        ({"state": ""}, r"state=''"),
        ({"state": None}, r"state=None"),
        ({"state": 5}, r"state=5"),
        ({"since": datetime(2030, 1, 1)}, r"since=.*no time zone"),  # noqa: DTZ001  # naive on purpose
        ({"before": "2030-01-01"}, r"before='2030-01-01'"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_filter_that_makes_no_sense_is_refused(app: Holdfast, where: Any, named: str) -> None:
    for act in (lambda: list(app.find(**where)), lambda: app.cancel(**where), lambda: app.retry(**where)):
        with pytest.raises(ConfigError, match=named):
            act()


def test_acting_on_everything_must_be_meant(app: Holdfast, stock: list[Job[str]]) -> None:
    for act in (app.cancel, app.retry):
        for where in ({}, {"dry_run": True}, {"queue": None}):
            with pytest.raises(ConfigError, match=r"no filter is given: name at least one"):
                act(**where)
    assert [job.status().state for job in stock[:5]] == ["queued"] * 5


def test_cancel_all_that_match(app: Holdfast, stock: list[Job[str]]) -> None:
    assert app.cancel(dry_run=True, queue="mail") == 4
    assert [job.status().state for job in stock[:3]] == ["queued"] * 3, "a dry run changes nothing"
    assert app.cancel(queue="mail") == 4
    assert [job.status().state for job in stock] == ["cancelled"] * 3 + ["queued"] * 2 + ["cancelled"] * 3
    assert app.cancel(queue="mail") == 0
    assert app.cancel(state="succeeded", queue="slow") == 0


def test_retry_all_that_match(app: Holdfast, stock: list[Job[str]]) -> None:
    assert app.retry(dry_run=True, task="shop.send") == 2
    assert app.retry(state="dead", task="shop.send") == 0
    assert app.retry(task="shop.send") == 2
    assert [job.status().state for job in stock[5:7]] == ["queued"] * 2


async def test_the_twins_of_the_bulk_acts(app: Holdfast, send: SyncTask[..., str]) -> None:
    await app.aenqueue_many(send.bind(str(n)) for n in range(3))
    assert await app.acancel(dry_run=True, queue="mail") == 3
    assert await app.acancel(queue="mail") == 3
    assert await app.aretry(queue="mail") == 3
    with pytest.raises(ConfigError, match="no filter is given"):
        await app.acancel()
    await asyncio.to_thread(app.close)


def test_bulk_acts_go_through_more_than_one_step(app: Holdfast, send: SyncTask[..., str]) -> None:
    app.enqueue_many(send.bind(str(n)) for n in range(1_200))
    assert app.cancel(dry_run=True, queue="mail") == 1_200
    assert app.cancel(queue="mail") == 1_200
    assert app.retry(queue="mail") == 1_200
    assert {status.state for status in app.find(queue="mail")} == {State.QUEUED}
