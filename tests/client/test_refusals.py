"""What producers hear of jobs that were not stored: which error, of which jobs, and that the rest is stored."""

import dataclasses
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from holdfast import Holdfast, IdConflict, NewJob, QueueFull, SyncTask, Unique, UniqueConflict
from holdfast.errors import HoldfastError, Refused


def other(job: NewJob[str], send: SyncTask[..., str]) -> NewJob[str]:
    """Another job with the id of `job`."""
    return NewJob(dataclasses.replace(send.bind("other").draft, id=job.id))


@pytest.fixture
def mixed(app: Holdfast, send: SyncTask[..., str]) -> dict[str, NewJob[str]]:
    """Bound jobs: one of each kind of refusal, and one that is accepted."""
    app.queue("full", max_size=1)
    strict = send.using(unique=Unique("k", on_clash="raise"))
    taken = send.bind("taken")
    app.enqueue_many([taken, send.using(queue="full").bind("first"), strict.bind("holder")])
    return {
        "full": send.using(queue="full").bind("late"),
        "unique": strict.bind("again"),
        "id": other(taken, send),
        "fine": send.bind("fine"),
    }


@pytest.mark.parametrize(
    ("kinds", "error", "told"),
    [
        (["full", "unique", "id", "fine"], IdConflict, r"1 of 4 jobs .*; 2 more were refused for other reasons; 1 are"),
        (["full", "fine", "unique"], UniqueConflict, r"holds the unique key 'k'.*; 1 more were refused .*; 1 are stor"),
        (["fine", "full"], QueueFull, r"queue full is full.*1 of 2 jobs are not stored"),
        (["full"], QueueFull, r"the job is not stored; ask again in 1 s$"),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, list) else None,
)
def test_one_error_tells_of_all_that_was_refused(
    app: Holdfast, mixed: dict[str, NewJob[str]], kinds: list[str], error: type[Refused], told: str
) -> None:
    jobs = [mixed[kind] for kind in kinds]
    with pytest.raises(Refused, match=told) as refused:
        app.enqueue_many(jobs)
    assert type(refused.value) is error
    assert refused.value.refused == [mixed[kind] for kind in kinds if kind != "fine"]
    assert [job.id for job in refused.value.accepted] == [mixed[kind].id for kind in kinds if kind == "fine"]
    for job in refused.value.accepted:
        assert job.status().state == "queued", "the rest of the call is stored"


async def test_the_twin_tells_the_same(app: Holdfast, send: SyncTask[..., str]) -> None:
    app.queue("mail", max_size=1)
    async with app:
        many = [send.bind(str(n)) for n in range(3)]
        with pytest.raises(QueueFull, match="2 of 3 jobs are not stored") as full:
            await app.aenqueue_many(many)
        assert full.value.refused == many[1:]
        assert [job.id for job in full.value.accepted] == [many[0].id]
        with pytest.raises(QueueFull):
            await send.aenqueue("late")


def test_what_was_refused_is_harmless_to_enqueue_once_more(app: Holdfast, mixed: dict[str, NewJob[str]]) -> None:
    with pytest.raises(QueueFull) as full:
        app.enqueue_many([mixed["fine"], mixed["full"]])
    app.cancel(queue="full")
    assert [job.created for job in app.enqueue_many([mixed["fine"], *full.value.refused])] == [False, True]


@pytest.mark.parametrize("kind", ["full", "unique", "id"])
def test_in_a_transaction_it_is_all_or_nothing(tmp_path: Path, kind: str) -> None:
    app = Holdfast(f"sqlite:///{tmp_path}/jobs.db?durability=normal")
    send: SyncTask[..., Any] = app.task(name="shop.send", queue="mail")(lambda to: to)
    app.queue("full", max_size=1)
    strict = send.using(unique=Unique("k", on_clash="raise"))
    with app:
        taken = send.bind("taken")
        app.enqueue_many([taken, send.using(queue="full").bind("first"), strict.bind("holder")])
        late, again = send.using(queue="full").bind("late"), strict.bind("again")
        wrong = {"full": late, "unique": again, "id": other(taken, send)}
        fine = send.bind("fine")
        connection = sqlite3.connect(tmp_path / "jobs.db", isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")
        told = {"full": "1 of 2 jobs are", "unique": "is not stored", "id": "1 of 2 jobs have"}[kind]
        with pytest.raises(Refused, match=rf"{told}.*all or nothing, and nothing was stored") as refused:
            app.enqueue_many([fine, wrong[kind]], connection=connection)
        assert refused.value.accepted == []
        assert refused.value.refused == [fine, wrong[kind]], "who enqueues these again later loses none"
        (kept,) = app.enqueue_many([send.bind("kept")], connection=connection)
        connection.execute("COMMIT")
        connection.close()
        assert kept.status().state == "queued", "the transaction goes on"
        assert fine.id not in {status.id for status in app.find(task="shop.send")}


def test_every_refusal_is_caught_by_one_name() -> None:
    assert all(issubclass(error, Refused) for error in (IdConflict, UniqueConflict, QueueFull))
    assert issubclass(Refused, HoldfastError)
