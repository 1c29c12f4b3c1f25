"""Timeouts and cancels: of async functions, of threads that look, and of those that never do."""

import asyncio
import logging
import threading
from typing import Any

import pytest

from holdfast import ConfigError, JobCancelled, Pool, Retry, State, Stop, current_job
from holdfast.context import asked
from tests.pool.rig import PATIENCE, Gate, held, until

SHORT = 0.02  # seconds


def looking() -> None:
    """Goes on until it is told to end."""
    end = threading.Event()
    while not end.wait(0.002):
        current_job().check()


async def endless() -> None:
    await asyncio.sleep(10 * PATIENCE)


@pytest.fixture
def little_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.worker.pooled.timer.GRACE", 0.05)
    monkeypatch.setattr("holdfast.worker.pooled.tasks.GRACE", 0.05)


@pytest.mark.parametrize("fn", [looking, endless])
def test_what_takes_too_long_fails_with_a_timeout_error(fn: object) -> None:
    with Pool(1) as pool:
        job = pool.using(timeout=SHORT).submit(fn)  # type: ignore[arg-type]
        with pytest.raises(TimeoutError, match=r"ran longer than its timeout of 20 ms"):
            job.result(PATIENCE)
        assert job.state == State.DEAD
        assert pool.submit(lambda: 1).result(PATIENCE) == 1


@pytest.mark.parametrize("fn", [looking, endless])
def test_a_timeout_is_retried_as_any_failure(fn: object) -> None:
    with Pool(1, timeout=SHORT, retry=Retry(max_attempts=3, base_delay=0)) as pool:
        with pytest.raises(TimeoutError):
            pool.submit(fn).result(PATIENCE)  # type: ignore[arg-type]
        assert (pool.stats().retried, pool.stats().failed) == (2, 1)


def test_what_has_returned_within_the_grace_has_succeeded_as_in_a_worker(caplog: pytest.LogCaptureFixture) -> None:
    with Pool(1) as pool:
        released = threading.Event()

        def work() -> str:
            until(lambda: asked(current_job()) == "timeout", "its time is over")
            released.wait(PATIENCE)
            return "late"

        job = pool.using(timeout=SHORT, retry=Retry(max_attempts=3)).submit(work)
        released.set()
        assert job.result(PATIENCE) == "late"
        until(lambda: "event=succeeded" in caplog.text, "its end is told")
    told = [str(record.msg) for record in caplog.records if record.levelno == logging.WARNING]
    assert ["timeout" in told[0], "event=succeeded" in told[1], "after its timeout" in told[1]] == [True] * 3
    assert (pool.stats().succeeded, pool.stats().retried) == (1, 0)


def test_its_time_is_its_own_and_not_the_wait_for_a_slot() -> None:
    with Pool(1) as pool:
        gate, _ = held(pool)
        job = pool.using(timeout=30).submit(lambda: current_job().time_left)
        threading.Event().wait(0.05)
        gate.open()
        left = job.result(PATIENCE)
        assert left is not None
        assert 29.99 < left <= 30 or left > 20


@pytest.mark.usefixtures("little_grace")
def test_a_thread_that_never_looks_fails_its_job_and_keeps_its_slot(caplog: pytest.LogCaptureFixture) -> None:
    gate = Gate()
    with Pool(1, max_size=1, when_full="reject") as pool:
        job = pool.using(timeout=SHORT, retry=Retry(max_attempts=3)).submit(gate)
        with pytest.raises(TimeoutError, match=r"a plain function ends only where it looks.*keeps its thread"):
            job.result(PATIENCE)
        assert job.state == State.DEAD  # and is not tried again beside itself
        assert (pool.stats().running, pool.stats().queued, pool.stats().submitted) == (1, 0, 1)
        waiting = pool.submit(lambda: 1)  # its place is free
        assert waiting.state == State.QUEUED
        assert not pool.join(deadline=0)
        gate.open()
        assert waiting.result(PATIENCE) == 1
        until(lambda: "event=late" in caplog.text, "the late end is told")
    events = [str(record.msg).split()[0] for record in caplog.records if str(job.id) in str(record.msg)]
    assert events == ["event=started", "event=timeout", "event=failed", "event=late"]
    assert pool.stats().failed == 1
    assert gate.begun.acquire(blocking=False)
    assert not gate.begun.acquire(blocking=False)


@pytest.mark.usefixtures("little_grace")
def test_an_async_function_that_swallows_its_cancel_fails_its_job_and_keeps_its_slot() -> None:
    let_go = threading.Event()

    async def work() -> None:
        while not let_go.is_set():
            try:
                await asyncio.sleep(0.002)
            except asyncio.CancelledError:
                continue

    with Pool(1) as pool:
        job = pool.using(timeout=SHORT).submit(work)
        with pytest.raises(TimeoutError, match="although it was cancelled"):
            job.result(PATIENCE)
        assert pool.stats().running == 1
        let_go.set()
        assert pool.submit(lambda: 1).result(PATIENCE) == 1


@pytest.mark.usefixtures("little_grace")
def test_the_earliest_timeout_is_seen_first() -> None:
    with Pool(3) as pool:
        long = pool.using(timeout="1h").submit(looking)
        until(lambda: long.state == State.RUNNING, "it runs")
        with pytest.raises(TimeoutError):
            pool.using(timeout=SHORT).submit(looking).result(PATIENCE)
        with pytest.raises(TimeoutError):
            pool.using(timeout=SHORT).submit(looking).result(PATIENCE)
        long.cancel()


def test_an_async_function_may_clean_up() -> None:
    cleaned = threading.Event()

    async def work() -> None:
        try:
            await endless()
        finally:
            await asyncio.sleep(0)
            cleaned.set()

    with Pool(1) as pool, pytest.raises(TimeoutError):
        pool.using(timeout=SHORT).submit(work).result(PATIENCE)
    assert cleaned.is_set()


def test_an_error_after_the_timeout_is_its_cause() -> None:
    async def work() -> None:
        try:
            await endless()
        except asyncio.CancelledError:
            raise KeyError("cleaning up failed") from None

    with Pool(1) as pool:
        error = pool.using(timeout=SHORT).submit(work).exception(PATIENCE)
    assert isinstance(error, TimeoutError)
    assert isinstance(error.__cause__, KeyError)


@pytest.mark.parametrize("fn", [looking, endless])
def test_cancel_of_what_runs(fn: Any) -> None:
    begun = threading.Event()

    def plain() -> None:
        begun.set()
        fn()

    async def on_loop() -> None:
        begun.set()
        await fn()

    with Pool(1, retry=Retry(max_attempts=5, base_delay=0)) as pool:
        job = pool.submit(plain if fn is looking else on_loop)
        assert begun.wait(PATIENCE)
        assert job.state == State.RUNNING
        assert job.cancel()
        with pytest.raises(JobCancelled, match="cancelled while running"):
            job.result(PATIENCE)
        assert (job.state, job.cancel()) == (State.CANCELLED, False)
        assert pool.stats().cancelled == 1


def test_cancel_of_what_waits_is_at_once() -> None:
    calls: list[int] = []
    with Pool(1) as pool:
        gate, _ = held(pool)
        job = pool.submit(calls.append, 1)
        assert job.cancel()
        assert job.state == State.CANCELLED
        gate.open()
    assert calls == []


def test_what_returns_although_cancelled_has_succeeded() -> None:
    begun = threading.Event()

    def work() -> str:
        begun.set()
        until(lambda: current_job().cancelled, "the cancel is seen")
        return "done all the same"

    with Pool(1) as pool:
        job = pool.submit(work)
        assert begun.wait(PATIENCE)
        assert job.cancel()
        assert job.result(PATIENCE) == "done all the same"


async def test_a_cancel_before_the_first_step_of_a_task() -> None:
    calls: list[int] = []

    async def work() -> None:
        calls.append(1)

    async with Pool(1) as pool:
        job = pool.submit(work)
        assert job.cancel()
        with pytest.raises(JobCancelled):
            await job.aresult(PATIENCE)
    assert calls == []


def test_stop_is_no_exception_that_is_caught_by_chance() -> None:
    def work() -> None:
        while True:
            try:
                looking()
            except Exception:  # noqa: BLE001
                continue

    with Pool(1) as pool:
        error = pool.using(timeout=SHORT).submit(work).exception(PATIENCE)
        assert isinstance(error, TimeoutError)
    with pytest.raises(Stop):
        raise Stop("timeout")


def test_joining_from_inside_is_refused() -> None:
    with Pool(2) as pool:
        with pytest.raises(ConfigError, match=r"join\(\) inside a job of the same pool"):
            pool.submit(pool.join).result(PATIENCE)

        async def wait() -> None:
            await pool.ajoin()

        with pytest.raises(ConfigError, match=r"ajoin\(\) inside a job of the same pool"):
            pool.submit(wait).result(PATIENCE)
