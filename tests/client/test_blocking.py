"""Producers who wait for a place in a full queue, and those who must not."""

import asyncio
import subprocess
import sys
import textwrap
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from holdfast import Holdfast, JobCancelled, QueueFull, Stop, SyncTask
from holdfast.app import parts_of
from holdfast.client import patience
from holdfast.job import Draft, QueueTerms
from holdfast.store import Receipt, Room
from tests.client.acts import fill, terms_of

PATIENCE = 30


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting producers look again at once."""
    monkeypatch.setattr(patience, "MOST", 0.02)


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
    with pytest.raises(QueueFull, match=r"3 of 5 jobs are not stored; waited 50 ms for a place; 2 are stored") as full:
        fill(app, send, 5)
    assert (len(full.value.accepted), len(full.value.refused)) == (2, 3)


def test_the_timeout_is_for_a_place_and_not_for_the_whole_call(
    send: SyncTask[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(patience.time, "monotonic", lambda: now[0])
    draft = send.bind("late").draft
    full = Receipt(draft.id, "full", created=False, room=Room(1, 1, "block", 5_000))
    it = patience.Patience()
    assert it.waits(draft, full)
    for _ in range(5):
        now[0] += 4
        assert it.waits(draft, full)
        it.progress(draft.queue)
        assert it.waits(draft, full), "there was a place meanwhile: the next wait is a new one"
    now[0] += 5
    assert not it.waits(draft, full)
    assert it.why == "; waited 5.0 s for a place"


async def test_each_place_that_comes_begins_the_wait_anew(
    app: Holdfast, send: SyncTask[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    app.queue("mail", max_size=1, when_full="block", block_timeout=5)
    now, progress = [1000.0], list[str]()
    monkeypatch.setattr(patience, "time", SimpleNamespace(monotonic=lambda: now[0]))
    seen = patience.Patience.progress

    def noted(self: patience.Patience, queue: str) -> None:
        progress.append(queue)
        now[0] += 4
        seen(self, queue)

    monkeypatch.setattr(patience.Patience, "progress", noted)
    async with app, app.worker():
        jobs = await asyncio.wait_for(app.aenqueue_many([send.bind(str(n)) for n in range(5)]), PATIENCE)
    assert progress == ["mail"] * 4
    assert all(job.created for job in jobs)


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


def test_a_job_that_is_cancelled_while_it_waits_for_a_place_waits_no_longer(
    app: Holdfast, send: SyncTask[..., str]
) -> None:
    app.queue("mail", max_size=1, when_full="block")
    fill(app, send, 1)
    waiting, ended = threading.Event(), list[BaseException]()

    @app.task(name="shop.more", queue="other")
    def more() -> None:
        waiting.set()
        try:
            send.enqueue("late")
        except BaseException as error:
            ended.append(error)
            raise

    with app.worker(queues=["other"]):
        job = more.enqueue()
        assert waiting.wait(PATIENCE), "the job did not begin"
        job.cancel("not wanted")
        with pytest.raises(JobCancelled):
            job.result(PATIENCE)
    assert [repr(error) for error in ended] == ["Stop('cancelled')"]
    assert len(list(app.find(queue="mail"))) == 1


def test_a_worker_that_leaves_waits_for_no_job_that_waits_for_a_place(app: Holdfast, send: SyncTask[..., str]) -> None:
    app.queue("mail", max_size=1, when_full="block")
    fill(app, send, 1)
    waiting, stopped = threading.Event(), threading.Event()

    @app.task(name="shop.more", queue="other")
    def more() -> None:
        waiting.set()
        try:
            send.enqueue("late")
        except Stop:
            stopped.set()
            raise

    worker = app.worker(queues=["other"])
    worker.start()
    job = more.enqueue()
    assert waiting.wait(PATIENCE), "the job did not begin"
    worker.stop("1ms")
    assert stopped.wait(PATIENCE), "its thread goes on waiting"
    assert job.status().state == "queued"


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
        assert (full.value.accepted, len(full.value.refused)) == ([], 2)
        connection.execute("COMMIT")
        connection.close()
        assert [status.queue for status in app.find(task="shop.send")] == ["mail"]
        assert terms_of(app, "mail") == QueueTerms(1, "block")


def test_a_long_call_that_waits_asks_for_no_more_than_the_queue_holds(app: Holdfast, send: SyncTask[..., str]) -> None:
    app.queue("mail", max_size=2, when_full="block")
    place = parts_of(app).link.store
    enqueue, asked = place.enqueue, list[int]()

    async def counted(jobs: Sequence[Draft], *rest: Any) -> Sequence[Receipt]:
        asked.append(len(jobs))
        return await enqueue(jobs, *rest)

    place.enqueue = counted  # type: ignore[method-assign]
    with app.worker():
        assert len(fill(app, send, 20)) == 20
    assert asked[0] == 20
    assert set(asked[1:]) <= {1, 2}
    assert len(asked) > 2


def test_a_producer_in_a_process_of_its_own_does_not_wait_for_its_own_place_either(tmp_path: Path) -> None:
    program = tmp_path / "shop.py"
    program.write_text(
        textwrap.dedent(
            """
            from holdfast import Holdfast, QueueFull

            jobs = Holdfast("sqlite:///jobs.db?durability=normal")
            jobs.queue("mail", max_size=1, when_full="block")

            @jobs.task(queue="mail", run_in="process")
            def more() -> str:
                try:
                    more.enqueue()
                except QueueFull as error:
                    return str(error)
                return "it was stored"

            if __name__ == "__main__":
                with jobs, jobs.worker():
                    print(more.enqueue().result(30))
            """
        ),
        "utf-8",
    )
    done = subprocess.run(
        [sys.executable, program.name], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert "a job does not wait for a place in its own queue" in done.stdout, done.stderr
