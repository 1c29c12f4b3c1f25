"""What handles ask: status, result, cancel, retry of one job; from sync and async code."""

import asyncio
import dataclasses
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from holdfast import (
    Cancel,
    ConfigError,
    Holdfast,
    JobCancelled,
    JobFailed,
    JobNotFound,
    Retry,
    State,
    StoreError,
    SyncTask,
    current_job,
)
from holdfast.app import parts_of
from holdfast.client import asking
from holdfast.errors import StoreAway
from holdfast.store import Where

PATIENCE = 30


@contextmanager
def working(app: Holdfast, **options: Any) -> Iterator[None]:
    with app.worker(**options):
        yield


# --- enqueue, status, result


def test_a_job_is_stored_when_enqueue_returns(app: Holdfast, send: SyncTask[..., str]) -> None:
    before = datetime.now(UTC) - timedelta(milliseconds=1)
    job = send.using(priority=5, tags=["eu"]).enqueue("ann", html=True)
    status = job.status()
    assert (status.id, status.task, status.queue, status.state) == (job.id, "shop.send", "mail", State.QUEUED)
    assert (status.attempt, status.errors, status.tags, status.finished) == (0, (), ("eu",), False)
    assert before <= status.enqueued_at <= datetime.now(UTC)
    assert status.due_at == status.enqueued_at
    assert (status.started_at, status.finished_at) == (None, None)
    assert job.created
    assert status.job == job
    with pytest.raises(dataclasses.FrozenInstanceError):
        status.state = State.DEAD


def test_delay_and_at_schedule_a_job(app: Holdfast, send: SyncTask[..., str]) -> None:
    status = send.using(delay="1h").enqueue("ann").status()
    assert status.state == "scheduled"
    assert status.due_at is not None
    assert status.due_at - status.enqueued_at == timedelta(hours=1)
    due = datetime(2999, 1, 1, tzinfo=UTC)
    assert send.using(at=due).enqueue("ann").status().due_at == due
    assert send.using(at=datetime(2000, 1, 1, tzinfo=UTC)).enqueue("ann").status().state == "queued"
    last = send.using(at=datetime.max.replace(tzinfo=UTC)).enqueue("ann").status().due_at
    assert last is not None
    assert last.year == 9999


def test_a_result_is_what_the_handler_returned(app: Holdfast, send: SyncTask[..., str]) -> None:
    @app.task(name="shop.when")
    def when() -> dict[str, datetime]:
        return {"day": datetime(2030, 1, 1, tzinfo=UTC)}

    @app.task(name="shop.nothing")
    def nothing() -> None: ...

    with working(app):
        one, two, three = send.enqueue("ann", html=True), when.enqueue(), nothing.enqueue()
        assert one.result(PATIENCE) == "<ann>"
        assert two.result(timeout=f"{PATIENCE}s") == {"day": datetime(2030, 1, 1, tzinfo=UTC)}
        assert three.result(timeout=timedelta(seconds=PATIENCE)) is None
    status = one.status()
    assert (status.state, status.attempt, status.finished, status.due_at) == (State.SUCCEEDED, 1, True, None)
    assert status.started_at is not None
    assert status.finished_at is not None
    assert status.enqueued_at <= status.started_at <= status.finished_at


async def test_the_twins_say_the_same(app: Holdfast, send: SyncTask[..., str]) -> None:
    async with app.worker():
        job = await send.aenqueue("ann")
        assert await job.aresult(PATIENCE) == "ann"
        assert (await job.astatus()).state == "succeeded"
        assert [status.id async for status in app.afind(task="shop.send")] == [job.id]
        assert await job.acancel() is False
        many = await app.aenqueue_many(send.bind(f"{n}") for n in range(3))
        assert [await one.aresult(PATIENCE) for one in many] == ["0", "1", "2"]
    await asyncio.to_thread(app.close)


def test_a_job_of_a_task_that_is_not_known_here_still_has_its_result(app: Holdfast, send: SyncTask[..., str]) -> None:
    with working(app):
        job = send.enqueue("ann")
        job.result(PATIENCE)
    parts_of(app).registry.names.clear()  # as in a process that has the store and not the code
    assert app.job(job.id).result(PATIENCE) == "ann"


def test_who_waits_long_for_what_nobody_begins_is_told_once(
    app: Holdfast, send: SyncTask[..., str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(asking, "LONG", 0.02)
    monkeypatch.setattr(asking, "POLL_MOST", 0.01)
    caplog.set_level("WARNING", "holdfast")
    for _ in range(2):
        with pytest.raises(TimeoutError):
            send.enqueue("ann").result("100ms")
    with pytest.raises(TimeoutError):
        send.using(delay="1h", queue="later").enqueue("ann").result("100ms")
    told = [record.getMessage() for record in caplog.records if "event=waiting" in record.getMessage()]
    assert len(told) == 2, "once for a queue, and once for its jobs that are not due"
    assert "queue=mail" in told[0]
    assert "no worker is live" in told[0]
    assert "queue=later" in told[1]
    assert "it is due in 59 m" in told[1]


async def test_who_waits_for_a_result_is_woken_by_its_end(
    app: Holdfast, send: SyncTask[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "POLL_FIRST", 10 * PATIENCE)
    monkeypatch.setattr(asking, "POLL_MOST", 10 * PATIENCE)
    ran, cancelled = await send.aenqueue("ann"), await send.using(delay="1h").aenqueue("eve")
    waiting = [asyncio.create_task(job.aresult(10 * PATIENCE)) for job in (ran, cancelled, ran, cancelled)]
    async with asyncio.timeout(PATIENCE), app.worker():
        assert [await task for task in waiting[::2]] == ["ann", "ann"]
        await cancelled.acancel("not any more")
        found = await asyncio.gather(*waiting[1::2], return_exceptions=True)
    assert [type(end) for end in found] == [JobCancelled, JobCancelled]
    await asyncio.to_thread(app.close)


async def test_all_who_wait_for_results_ask_the_store_together(
    app: Holdfast, send: SyncTask[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "POLL_FIRST", asking.TOGETHER)
    wanted = [await send.aenqueue(str(number)) for number in range(100)]
    store, looks, loop = parts_of(app).link.store, [], asyncio.get_running_loop()
    find, enough = store.find, asyncio.Event()

    async def counted(where: Where, *rest: Any) -> Any:
        looks.append(len(where.ids or ()))
        if sum(looks) >= 5 * len(wanted):
            loop.call_soon_threadsafe(enough.set)
        return await find(where, *rest)

    monkeypatch.setattr(store, "find", counted)
    waiting = [asyncio.create_task(job.aresult(PATIENCE)) for job in (*wanted, *wanted)]
    async with asyncio.timeout(PATIENCE):
        await enough.wait()
    assert len(looks) * 10 < sum(looks), f"{len(looks)} questions for {sum(looks)} looks"
    with working(app):
        async with asyncio.timeout(PATIENCE):
            assert await asyncio.gather(*waiting) == [str(number) for number in range(100)] * 2
    await asyncio.to_thread(app.close)


def test_those_who_have_waited_a_while_look_at_the_same_moments(monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock:
        now = 1_000.0

        def monotonic(self) -> float:
            return self.now

    clock = Clock()
    monkeypatch.setattr(asking, "time", clock)
    moments = set()
    for step in range(40):
        clock.now = 1_000.0 + step * asking.TOGETHER / 40
        left = asking._to_the_next_look(asking.POLL_MOST)  # noqa: SLF001
        assert asking.POLL_MOST <= left + 1e-6 <= asking.POLL_MOST + 1.01 * asking.TOGETHER
        moments.add(round(clock.now + left, 6))
        assert asking._to_the_next_look(asking.POLL_FIRST) == asking.POLL_FIRST  # noqa: SLF001  # a quick job is not kept waiting
    assert len(moments) <= 2


def away(app: Holdfast, times: float) -> list[str]:
    """The store is away for its next looks at jobs; what is returned grows with each."""
    store, met = parts_of(app).link.store, list[str]()
    real = store.find

    async def find(*args: Any) -> Any:
        if len(met) < times:
            met.append("away")
            raise StoreAway("away")
        return await real(*args)

    store.find = find  # type: ignore[method-assign]
    return met


def test_who_waits_for_a_result_asks_again_while_the_store_is_away(app: Holdfast, send: SyncTask[..., str]) -> None:
    job = send.enqueue("ann")
    with working(app):
        assert job.result(PATIENCE) == "ann"
    met = away(app, 3)
    assert job.result(PATIENCE) == "ann"
    assert len(met) == 3
    met = away(app, 1)
    with pytest.raises(StoreAway, match="away"):
        job.status()


@pytest.mark.parametrize("timeout", [0, "50ms", None])
def test_a_store_that_stays_away_is_told_to_who_waits_for_a_result(
    app: Holdfast, send: SyncTask[..., str], monkeypatch: pytest.MonkeyPatch, timeout: Any
) -> None:
    monkeypatch.setattr(asking, "AWAY_MOST", 0.2 if timeout is None else 10 * PATIENCE)
    monkeypatch.setattr(asking, "AWAY_PAUSE", 0.01)
    job = send.enqueue("ann")
    met = away(app, float("inf"))
    with pytest.raises(StoreAway, match="away"):
        job.result(timeout)
    assert (len(met) == 1) == (timeout == 0)


async def test_one_who_waits_for_a_job_that_is_not_there_disturbs_no_other(
    app: Holdfast, send: SyncTask[..., str]
) -> None:
    job, nowhere = await send.aenqueue("ann"), app.job(uuid4())
    waiting = [asyncio.create_task(it.aresult(PATIENCE)) for it in (nowhere, job, nowhere)]
    with working(app):
        ends = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(end) for end in ends] == [JobNotFound, str, JobNotFound]
    await asyncio.to_thread(app.close)


def test_a_result_that_does_not_come_in_time_is_a_time_out_naming_the_state(
    app: Holdfast, send: SyncTask[..., str]
) -> None:
    job = send.enqueue("ann")
    for timeout in (0, 0.02, "20ms"):
        with pytest.raises(TimeoutError, match=rf"{job.id} of shop\.send is still queued after"):
            job.result(timeout)


@pytest.mark.parametrize("timeout", [-1, "soon", float("nan")])
def test_a_nonsense_timeout_is_refused(app: Holdfast, send: SyncTask[..., str], timeout: Any) -> None:
    with pytest.raises(ConfigError, match=r"^timeout="):
        send.enqueue("ann").result(timeout)


def test_a_result_waits_for_a_job_that_ends_later(app: Holdfast) -> None:
    go = threading.Event()

    @app.task(name="shop.slow")
    def slow() -> str:
        assert go.wait(PATIENCE), "nobody lets it go on"
        return "late"

    with working(app), ThreadPoolExecutor(1) as pool:
        job = slow.enqueue()
        waiting = pool.submit(job.result, PATIENCE)
        with pytest.raises(TimeoutError):
            job.result(0.05)
        assert not waiting.done()
        go.set()
        assert waiting.result(PATIENCE) == "late"


def test_a_dead_job_raises_its_last_error(app: Holdfast) -> None:
    @app.task(name="shop.fail", retry=Retry(max_attempts=2, base_delay=0))
    def fail() -> None:
        raise OSError(f"attempt {current_job().attempt}: no such address")

    with working(app):
        job = fail.enqueue()
        with pytest.raises(JobFailed) as failed:
            job.result(PATIENCE)
    error = failed.value.error
    assert (error.attempt, error.type, error.message) == (2, "OSError", "attempt 2: no such address")
    assert "raise OSError" in error.traceback
    assert f"{job.id} of shop.fail is dead after attempt 2: OSError: attempt 2" in str(failed.value)
    status = job.status()
    assert [(e.attempt, e.message) for e in status.errors] == [
        (1, "attempt 1: no such address"),
        (2, "attempt 2: no such address"),
    ]
    assert status.state == "dead"
    assert all(e.at.tzinfo is not None for e in status.errors)


def test_no_job_with_this_id(app: Holdfast) -> None:
    unknown = app.job(uuid4())
    for ask in (unknown.status, unknown.result, unknown.cancel, unknown.retry):
        with pytest.raises(JobNotFound, match=str(unknown.id)):
            ask()


# --- cancel and retry


def test_a_job_that_does_not_run_is_cancelled_at_once(app: Holdfast, send: SyncTask[..., str]) -> None:
    for job in (send.enqueue("ann"), send.using(delay="1h").enqueue("ann")):
        assert job.cancel("the customer left") is True
        assert job.status().state == "cancelled"
        assert job.status().reason == "the customer left"
        with pytest.raises(JobCancelled, match=rf"{job.id} of shop\.send was cancelled: the customer left"):
            job.result(PATIENCE)
        assert job.cancel() is False


def test_a_job_cancelled_without_a_reason_says_so(app: Holdfast, send: SyncTask[..., str]) -> None:
    job = send.enqueue("ann")
    job.cancel()
    with pytest.raises(JobCancelled, match="no reason given"):
        job.result(PATIENCE)


def test_a_running_job_is_cancelled_with_the_reason_that_was_given(app: Holdfast) -> None:
    running = threading.Event()

    @app.task(name="shop.endless")
    async def endless() -> None:
        running.set()
        await asyncio.Event().wait()

    with working(app):
        job = endless.enqueue()
        assert running.wait(PATIENCE)
        assert job.cancel("the customer left") is True
        with pytest.raises(JobCancelled, match="the customer left"):
            job.result(PATIENCE)
    assert job.status().state == "cancelled"


def test_a_handler_may_cancel_its_own_job(app: Holdfast) -> None:
    @app.task(name="shop.unwanted")
    def unwanted() -> None:
        raise Cancel("already paid")

    with working(app):
        job = unwanted.enqueue()
        with pytest.raises(JobCancelled, match="already paid"):
            job.result(PATIENCE)


def test_a_finished_job_gets_a_new_life_by_an_operators_retry(app: Holdfast) -> None:
    healed = threading.Event()

    @app.task(name="shop.fail")
    def fail() -> int:
        if not healed.is_set():
            raise OSError("down")
        return current_job().attempt

    with working(app):
        job = fail.enqueue()
        with pytest.raises(JobFailed):
            job.result(PATIENCE)
        healed.set()
        job.retry()
        assert job.result(PATIENCE) == 1, "attempts start again"
    assert [error.message for error in job.status().errors] == ["down"], "the history is kept"


def test_only_dead_and_cancelled_jobs_can_be_retried(app: Holdfast, send: SyncTask[..., str]) -> None:
    job = send.enqueue("ann")
    with pytest.raises(StoreError, match=rf"{job.id} is not finished; only dead and cancelled"):
        job.retry()
    job.cancel()
    job.retry()
    with working(app):
        job.result(PATIENCE)
    with pytest.raises(StoreError, match=rf"{job.id} has succeeded; only dead and cancelled"):
        job.retry()


def test_a_status_says_how_far_the_last_attempt_came(app: Holdfast) -> None:
    @app.task(name="shop.render")
    def render() -> None:
        current_job().progress(3, 4, text="three of four pages")

    with working(app):
        job = render.enqueue()
        before = app.job(job.id)
        job.result(PATIENCE)
    status = before.status()  # a worker that has left has written all that was said
    assert (status.progress, status.text) == (0.75, "three of four pages")
    queued = render.enqueue().status()
    assert (queued.progress, queued.text) == (None, None)
