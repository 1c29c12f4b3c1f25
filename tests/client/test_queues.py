"""Bounded queues as producers use them: declared where, by whose word, and what each way of being full does."""

import asyncio
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from holdfast import ConfigError, Holdfast, Job, JobCancelled, JobNotFound, QueueFull, StoreError, SyncTask
from holdfast.app import parts_of
from holdfast.client import patience, queues
from holdfast.job import QueueTerms
from holdfast.store import Receipt

PATIENCE = 30


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting producers look again at once."""
    monkeypatch.setattr(patience, "MOST", 0.02)


def terms_of(app: Holdfast, name: str) -> QueueTerms | None:
    stats = parts_of(app).operating.stats()
    return next((queue.terms for queue in stats.queues if queue.name == name), None)


def fill(app: Holdfast, send: SyncTask[..., str], count: int) -> list[Job[str]]:
    return app.enqueue_many([send.bind(str(n)) for n in range(count)])


def states(jobs: list[Job[str]]) -> list[str]:
    return [str(job.status().state) for job in jobs]


# --- the declaration


def test_the_first_enqueue_into_a_queue_lays_down_what_is_declared(app: Holdfast, send: SyncTask[..., str]) -> None:
    app.queue("mail", max_size=7, when_full="block", block_timeout="5s")
    assert terms_of(app, "mail") is None, "declaring reaches no store"
    send.using(queue="other").enqueue("ann")
    assert terms_of(app, "mail") is None
    send.enqueue("ann")
    assert terms_of(app, "mail") == QueueTerms(7, "block", 5_000)


def test_a_queue_may_be_declared_after_others_were_used(app: Holdfast, send: SyncTask[..., str]) -> None:
    app.queue("other", max_size=1)
    send.using(queue="other").enqueue("ann")
    app.queue("mail", max_size=2)
    fill(app, send, 2)
    with pytest.raises(QueueFull):
        send.enqueue("ann")


async def test_the_twins_lay_it_down_too(app: Holdfast, send: SyncTask[..., str]) -> None:
    app.queue("mail", max_size=2)
    async with app:
        await app.aenqueue_many([send.bind("a"), send.bind("b")])
        with pytest.raises(QueueFull):
            await send.aenqueue("c")


def test_each_opened_store_is_told_anew(tmp_path: Path) -> None:
    app = Holdfast()
    app.queue("mail", max_size=1)
    send = app.task(name="shop.send", queue="mail")(lambda: None)
    for name in ("one", "two"):
        app.configure(f"sqlite:///{tmp_path}/{name}.db?durability=normal")
        with app:
            send.enqueue()
            with pytest.raises(QueueFull):
                send.enqueue()


def two_apps(folder: Path, one: dict[str, Any], other: dict[str, Any]) -> list[Holdfast]:
    """Two programs on one store, each with its own idea of the queue `mail`."""
    apps = [Holdfast(f"sqlite:///{folder}/jobs.db?durability=normal") for _ in range(2)]
    for app, options in zip(apps, (one, other), strict=True):
        app.queue("mail", **options)
        app.task(name="shop.send", queue="mail")(lambda: None)
    return apps


def test_a_worker_that_starts_renews_the_declaration(tmp_path: Path) -> None:
    before, after = two_apps(tmp_path, {"max_size": 1}, {"max_size": 9, "when_full": "drop_newest"})
    with before, after:
        before.tasks["shop.send"].enqueue()
        assert terms_of(after, "mail") == QueueTerms(1)
        with after.worker(queues=["other"]):
            assert terms_of(after, "mail") == QueueTerms(9, "drop_newest")


def test_a_producer_changes_nothing_that_is_declared_already(tmp_path: Path) -> None:
    first, second = two_apps(tmp_path, {"max_size": 1}, {"max_size": 9})
    with first, second:
        first.tasks["shop.send"].enqueue()
        with pytest.raises(QueueFull, match="it has 1 places"):
            second.tasks["shop.send"].enqueue()


def test_the_operators_word_stands_above_what_code_says(app: Holdfast, send: SyncTask[..., str]) -> None:
    app.queue("mail", max_size=2)
    fill(app, send, 2)
    parts_of(app).operating.set_queue("mail", QueueTerms(3))
    send.enqueue("ann")
    with pytest.raises(QueueFull, match="it has 3 places"):
        send.enqueue("ann")
    with app.worker(queues=["other"]):
        assert terms_of(app, "mail") == QueueTerms(3)
    parts_of(app).operating.set_queue("mail", None)
    assert terms_of(app, "mail") == QueueTerms(2)


def test_the_same_declaration_twice_is_fine_and_another_names_both(app: Holdfast) -> None:
    for _ in range(2):
        app.queue("mail", max_size=7, when_full="block", block_timeout="5s")
    with pytest.raises(
        ConfigError,
        match=r"queue 'mail' is declared twice: max_size=7, when_full='block', block_timeout=5, "
        r"and max_size=8, when_full='reject'",
    ):
        app.queue("mail", max_size=8)
    app.queue("mail", max_size=7, when_full="block", block_timeout=5)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"max_size": 0}, r"^max_size=0: a whole number from 1"),
        ({"max_size": -1}, r"^max_size=-1"),
        ({"max_size": 1.5}, r"^max_size=1\.5"),
        ({"max_size": True}, r"^max_size=True"),
        ({"max_size": "10"}, r"^max_size='10'"),
        ({"max_size": 10**10}, r"^max_size=10000000000"),
        ({"max_size": float("inf")}, r"^max_size=inf"),
        ({"max_size": 5, "when_full": "wait"}, r"^when_full='wait': 'block', 'reject', 'drop_oldest', 'drop_newest'"),
        ({"max_size": 5, "when_full": None}, r"^when_full=None"),
        ({"max_size": 5, "when_full": ["block"]}, r"^when_full=\['block'\]"),
        ({"when_full": "block"}, r"^when_full='block': a queue without max_size= is never full"),
        ({"max_size": 5, "block_timeout": 5}, r"^block_timeout=5: only when_full='block' waits"),
        ({"max_size": 5, "when_full": "block", "block_timeout": 0}, r"^block_timeout=0"),
        ({"max_size": 5, "when_full": "block", "block_timeout": "soon"}, r"^block_timeout='soon'"),
        ({"max_size": 5, "when_full": "block", "block_timeout": -1}, r"^block_timeout=-1"),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_a_declaration_that_makes_no_sense_names_the_parameter(app: Holdfast, options: Any, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        app.queue("mail", **options)
    app.queue("mail", max_size=1)  # nothing of it was kept


@pytest.mark.parametrize("name", ["", "a b", None, 5, "x" * 101])
def test_a_queue_has_a_name_that_needs_no_escaping(app: Holdfast, name: Any) -> None:
    with pytest.raises(ConfigError, match=r"^name="):
        app.queue(name, max_size=1)


# --- reject


def test_a_full_queue_refuses_and_says_how_full_it_is(app: Holdfast, send: SyncTask[..., str]) -> None:
    app.queue("mail", max_size=3)
    jobs = fill(app, send, 3)
    with pytest.raises(QueueFull, match=r"queue mail is full: 3 unfinished jobs, and it has 3 places") as full:
        send.enqueue("late")
    error = full.value
    assert (error.queue, error.depth, error.bound, error.retry_after) == ("mail", 3, 3, 1.0)
    assert (error.accepted, [new.draft.payload for new in error.refused]) == ([], [b'{"args":["late"]}'])
    assert len(list(app.find(queue="mail"))) == 3
    jobs[0].cancel()
    (late,) = app.enqueue_many(error.refused)
    assert late.created, "a job that ended gives its place up"
    assert send.using(queue="other").enqueue("ann").created, "other queues are as they were"


def test_a_finished_job_gives_its_place_up(app: Holdfast, send: SyncTask[..., str]) -> None:
    app.queue("mail", max_size=1)
    with app.worker():
        for n in range(3):
            assert send.enqueue(str(n)).result(PATIENCE) == str(n)


def test_what_fits_of_many_is_stored_and_repeating_the_call_is_harmless(
    app: Holdfast, send: SyncTask[..., str]
) -> None:
    app.queue("mail", max_size=3)
    many = [send.bind(str(n)) for n in range(5)]
    with pytest.raises(QueueFull, match=r"2 of 5 jobs are not stored.*; 3 are stored") as full:
        app.enqueue_many(many)
    assert [job.id for job in full.value.accepted] == [new.id for new in many[:3]]
    assert all(job.created for job in full.value.accepted)
    assert list(full.value.refused) == many[3:]
    full.value.accepted[0].cancel()
    with pytest.raises(QueueFull, match="1 of 5") as full:
        app.enqueue_many(many)
    assert [job.created for job in full.value.accepted] == [False, False, False, True]
    assert len(list(app.find(queue="mail"))) == 4


def test_a_long_call_goes_on_after_a_refusal(app: Holdfast, send: SyncTask[..., str]) -> None:
    app.queue("small", max_size=1)
    small = send.using(queue="small")
    with pytest.raises(QueueFull, match=r"599 of 1,?200 jobs") as full:
        app.enqueue_many((send if n % 2 else small).bind(str(n)) for n in range(1_200))
    assert len(full.value.accepted) == 601


def test_retry_after_grows_while_the_queue_stays_full(
    app: Holdfast, send: SyncTask[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(queues.time, "monotonic", lambda: now[0])
    app.queue("mail", max_size=1)
    (job,) = fill(app, send, 1)

    def refused() -> float:
        with pytest.raises(QueueFull) as full:
            send.enqueue("late")
        return full.value.retry_after

    assert refused() == 1.0
    now[0] += 12.5
    assert refused() == 12.5
    now[0] += 1000
    assert refused() == 60.0
    job.cancel()
    send.enqueue("in")
    assert refused() == 1.0, "a success begins it anew"


def test_a_retry_asks_for_a_place_like_an_enqueue(app: Holdfast, send: SyncTask[..., str]) -> None:
    app.queue("mail", max_size=1)
    (job,) = fill(app, send, 1)
    job.cancel()
    (other,) = fill(app, send, 1)
    with pytest.raises(QueueFull, match=rf"job {job.id} is not retried: queue mail is full: 1 unfinished") as full:
        job.retry()
    assert (full.value.queue, full.value.depth, full.value.bound, full.value.retry_after) == ("mail", 1, 1, 1.0)
    assert app.retry(queue="mail") == 0, "of many it is left out"
    other.cancel()
    assert app.retry(queue="mail") == 1, "there is one place for two"


# --- block


def test_a_producer_waits_for_a_place(app: Holdfast, send: SyncTask[..., str]) -> None:
    app.queue("mail", max_size=1, when_full="block")
    (job,) = fill(app, send, 1)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(send.enqueue, "late")
        with pytest.raises(TimeoutError):
            waiting.result(0.1)
        job.cancel()
        assert waiting.result(PATIENCE).created
    assert sorted(status.state for status in app.find(queue="mail")) == ["cancelled", "queued"]


async def test_a_producer_waits_for_a_place_on_his_own_loop(app: Holdfast, send: SyncTask[..., str]) -> None:
    app.queue("mail", max_size=1, when_full="block")
    async with app:
        job = await send.aenqueue("first")
        waiting = asyncio.create_task(send.aenqueue("late"))
        done, _ = await asyncio.wait([waiting], timeout=0.1)
        assert not done, "the loop must go on, and the producer wait"
        await job.acancel()
        assert (await asyncio.wait_for(waiting, PATIENCE)).created


def test_more_jobs_than_there_are_places_go_in_as_workers_make_room(app: Holdfast, send: SyncTask[..., str]) -> None:
    app.queue("mail", max_size=2, when_full="block")
    depths: list[int] = []

    @app.task(name="shop.look", queue="mail")
    def look() -> None:
        stats = parts_of(app).operating.stats()
        depths.append(next(queue.admitted or 0 for queue in stats.queues if queue.name == "mail"))

    with app.worker():
        jobs = app.enqueue_many(look.bind() for _ in range(30))
        assert [job.created for job in jobs] == [True] * 30
        for job in jobs:
            job.result(PATIENCE)
    assert 1 <= min(depths) <= max(depths) <= 2


def test_the_wait_ends_at_its_timeout(app: Holdfast, send: SyncTask[..., str]) -> None:
    app.queue("mail", max_size=2, when_full="block", block_timeout="50ms")
    with pytest.raises(QueueFull, match=r"3 of 5 jobs are not stored; .*; waited 50 ms for a place; 2 are st") as full:
        fill(app, send, 5)
    assert (len(full.value.accepted), len(full.value.refused)) == (2, 3)


def test_a_call_that_waited_in_vain_does_not_wait_once_more_for_each_chunk(
    app: Holdfast, send: SyncTask[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.client.producing.CHUNK", 2)
    app.queue("mail", max_size=1, when_full="block", block_timeout="50ms")
    waited_for: set[UUID] = set()
    pause = patience.Patience.pause

    def noted(self: patience.Patience, queue: str, receipt: Receipt) -> float:
        waited_for.add(receipt.id)
        return pause(self, queue, receipt)

    monkeypatch.setattr(patience.Patience, "pause", noted)
    many = [send.bind(str(n)) for n in range(20)]
    with pytest.raises(QueueFull, match="19 of 20"):
        app.enqueue_many(many)
    assert waited_for == {many[1].id}


def test_a_waiting_producer_may_leave(app: Holdfast, send: SyncTask[..., str]) -> None:
    app.queue("mail", max_size=1, when_full="block")
    fill(app, send, 1)

    async def leave() -> None:
        async with asyncio.timeout(0.1):
            await send.aenqueue("late")

    with pytest.raises(TimeoutError):
        asyncio.run(leave())
    assert len(list(app.find(queue="mail"))) == 1


def test_a_job_does_not_wait_for_a_place_in_its_own_queue(app: Holdfast) -> None:
    app.queue("mail", max_size=1, when_full="block")

    @app.task(name="shop.more", queue="mail")
    def more() -> str:
        try:
            more.enqueue()
        except QueueFull as error:
            return str(error)
        return "it was stored"

    @app.task(name="shop.amore", queue="mail")
    async def amore() -> str:
        try:
            await more.aenqueue()
        except QueueFull as error:
            return str(error)
        return "it was stored"

    with app.worker():
        for task in (more, amore):
            told = task.enqueue().result(PATIENCE)
            assert "a job does not wait for a place in its own queue" in told


def test_a_direct_call_is_no_job_and_waits(app: Holdfast) -> None:
    app.queue("mail", max_size=1, when_full="block", block_timeout="50ms")

    @app.task(name="shop.more", queue="mail")
    def more() -> None:
        more.enqueue()

    more()
    with pytest.raises(QueueFull, match="waited 50 ms"):
        more()


async def test_a_blocking_call_on_a_running_loop_does_not_wait(app: Holdfast, send: SyncTask[..., str]) -> None:
    app.queue("mail", max_size=1, when_full="block")
    async with app:
        await send.aenqueue("first")
        with pytest.warns(RuntimeWarning), pytest.raises(QueueFull, match=r"running event loop.*await aenqueue\(\)"):
            send.enqueue("late")


def test_with_a_connection_nobody_waits(tmp_path: Path) -> None:
    import sqlite3

    app = Holdfast(f"sqlite:///{tmp_path}/jobs.db?durability=normal")
    app.queue("mail", max_size=1, when_full="block")
    send = app.task(name="shop.send", queue="mail")(lambda: None)
    with app:
        connection = sqlite3.connect(tmp_path / "jobs.db", isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")
        assert send.using(connection=connection).enqueue().created
        with pytest.raises(QueueFull, match=r"with connection= nobody waits.*nothing was stored") as full:
            app.enqueue_many([send.bind(), send.using(queue="other").bind()], connection=connection)
        assert (full.value.accepted, len(full.value.refused)) == ([], 1)
        connection.execute("COMMIT")
        connection.close()
        assert [status.queue for status in app.find(task="shop.send")] == ["mail"]
        assert terms_of(app, "mail") == QueueTerms(1, "block")


# --- drop


def events(caplog: pytest.LogCaptureFixture) -> list[tuple[str, int]]:
    told = [record.msg for record in caplog.records if getattr(record.msg, "event", None) == "dropped"]
    return [(each.fields["when_full"], each.fields["count"]) for each in told]


def test_drop_newest_drops_what_was_just_given(app: Holdfast, send: SyncTask[..., str]) -> None:
    app.queue("mail", max_size=2, when_full="drop_newest")
    jobs = fill(app, send, 3)
    assert [job.created for job in jobs] == [True, True, False]
    assert states(jobs[:2]) == ["queued", "queued"]
    with pytest.raises(JobCancelled, match=rf"job {jobs[2].id} of shop\.send was dropped: its queue mail was full"):
        jobs[2].result(PATIENCE)
    for ask in (jobs[2].status, jobs[2].cancel, jobs[2].retry, jobs[2].delete):
        with pytest.raises(JobNotFound, match=r"was dropped: its queue mail was full .* never stored"):
            ask()
    assert len(list(app.find(queue="mail"))) == 2
    (queue,) = parts_of(app).operating.stats().queues
    assert queue.dropped == 1


async def test_the_twins_of_a_dropped_jobs_handle_say_the_same(app: Holdfast, send: SyncTask[..., str]) -> None:
    app.queue("mail", max_size=1, when_full="drop_newest")
    async with app:
        await send.aenqueue("first")
        job = await send.aenqueue("late")
        with pytest.raises(JobCancelled, match="was dropped"):
            await job.aresult()
        for ask in (job.astatus, job.acancel, job.aretry, job.adelete):
            with pytest.raises(JobNotFound, match="was dropped"):
                await ask()


def test_drop_oldest_cancels_the_oldest_for_the_new_one(app: Holdfast, send: SyncTask[..., str]) -> None:
    app.queue("mail", max_size=2, when_full="drop_oldest")
    jobs = fill(app, send, 3)
    assert [job.created for job in jobs] == [True, True, True]
    assert states(jobs) == ["cancelled", "queued", "queued"]
    with pytest.raises(JobCancelled, match="dropped"):
        jobs[0].result(PATIENCE)


@pytest.mark.parametrize("when_full", ["drop_oldest", "drop_newest"])
def test_drops_are_told_once_a_second_with_their_number(
    app: Holdfast, send: SyncTask[..., str], caplog: pytest.LogCaptureFixture, when_full: Any
) -> None:
    app.queue("mail", max_size=1, when_full=when_full)
    with caplog.at_level(logging.WARNING, "holdfast"):
        fill(app, send, 12)
        assert events(caplog) == [(when_full, 1)]
        app.close()  # what was not told yet is told then at the latest
        assert [count for _, count in events(caplog)] == [1, 10]


def test_the_rest_is_told_when_the_second_is_over(
    app: Holdfast, send: SyncTask[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queues, "QUIET", 0.05)
    app.queue("mail", max_size=1, when_full="drop_oldest")
    counts: list[int] = []
    all_told = threading.Event()

    class Heard(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if getattr(record.msg, "event", None) == "dropped":
                counts.append(record.msg.fields["count"])  # type: ignore[attr-defined]
                if sum(counts) == 11:
                    all_told.set()

    logging.getLogger("holdfast").addHandler(heard := Heard())
    try:
        fill(app, send, 12)
        assert all_told.wait(PATIENCE), f"told of {counts}, and 11 were dropped"
    finally:
        logging.getLogger("holdfast").removeHandler(heard)
    assert len(counts) > 1


# --- many producers


@pytest.mark.parametrize("when_full", ["reject", "drop_newest"])
def test_a_bound_is_never_exceeded_by_many_producers(app: Holdfast, send: SyncTask[..., str], when_full: Any) -> None:
    app.queue("mail", max_size=10, when_full=when_full)

    def produce(n: int) -> int:
        made = 0
        for k in range(10):
            with suppress(QueueFull):
                made += send.enqueue(f"{n}-{k}").created
        return made

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(produce, range(8), timeout=PATIENCE)) == 10
    assert len(list(app.find(queue="mail"))) == 10


# --- deleting


def test_a_deleted_job_is_gone_and_its_place_is_free(app: Holdfast, send: SyncTask[..., str]) -> None:
    app.queue("mail", max_size=1)
    (job,) = fill(app, send, 1)
    job.delete()
    for ask in (job.status, job.delete, job.cancel):
        with pytest.raises(JobNotFound, match=str(job.id)):
            ask()
    assert send.enqueue("next").created


def test_a_running_job_is_not_deleted(app: Holdfast) -> None:
    go, running = threading.Event(), threading.Event()

    @app.task(name="shop.slow")
    def slow() -> None:
        running.set()
        assert go.wait(PATIENCE), "nobody lets it go on"

    with app.worker():
        job = slow.enqueue()
        assert running.wait(PATIENCE), "it is never started"
        with pytest.raises(StoreError, match=rf"job {job.id} is running; cancel it first"):
            job.delete()
        assert app.delete(task="shop.slow") == 0
        go.set()
        job.result(PATIENCE)
    job.delete()
    with pytest.raises(JobNotFound):
        job.status()


def test_delete_all_that_match(app: Holdfast, send: SyncTask[..., str]) -> None:
    jobs = fill(app, send, 3)
    jobs[0].cancel()
    assert app.delete(dry_run=True, queue="mail") == 3
    assert app.delete(state="cancelled", queue="mail") == 1
    assert states(jobs[1:]) == ["queued", "queued"]
    assert app.delete(queue="mail") == 2
    assert list(app.find(queue="mail")) == []
    with pytest.raises(ConfigError, match="no filter is given"):
        app.delete()


async def test_the_twins_delete_too(app: Holdfast, send: SyncTask[..., str]) -> None:
    async with app:
        one, two = await app.aenqueue_many([send.bind("a"), send.bind("b")])
        await one.adelete()
        with pytest.raises(JobNotFound):
            await one.astatus()
        assert await app.adelete(dry_run=True, queue="mail") == 1
        assert await app.adelete(queue="mail") == 1
        assert two.created
