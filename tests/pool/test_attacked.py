"""What others do to a pool: close its loop, kill its idle process, cancel from the back, interrupt it anywhere."""

import asyncio
import os
import signal
import sys
import threading
from collections import deque
from typing import Any

import pytest

from holdfast import JobCancelled, Pool, PoolJob, Retry, State
from tests.pool.errands import pid
from tests.pool.rig import PATIENCE, held, until


def double(number: int) -> int:
    return 2 * number


async def answer() -> int:
    await asyncio.sleep(0)
    return 42


async def endless() -> None:
    await asyncio.sleep(10 * PATIENCE)


# --- stopped before its loop has begun what it was given


async def test_stop_without_drain_drops_what_the_loop_has_not_begun() -> None:
    async with Pool(2, max_size=10) as pool:
        jobs = [pool.submit(answer) for _ in range(4)]
        assert pool.stop(drain=False) == jobs
        for job in jobs:
            with pytest.raises(JobCancelled, match=r"^dropped: the pool was stopped"):
                await job.aresult()
        assert await pool.ajoin(PATIENCE)
    assert (pool.stats().dropped, pool.stats().submitted) == (4, 4)


@pytest.mark.parametrize("fn", [double, answer])
def test_what_begins_while_the_pool_is_left_does_not(fn: Any) -> None:
    with Pool(1, retry=Retry(max_attempts=3, base_delay=0)) as pool:
        pool._core.leaving = True  # noqa: SLF001  # it was with nobody when all that ran was told to end
        job = pool.submit(fn, *([1] if fn is double else []))
        with pytest.raises(JobCancelled, match="cancelled before it began"):
            job.result(PATIENCE)
        assert job.state == State.CANCELLED


# --- a loop that is closed under it


def test_what_was_on_a_loop_that_is_closed_fails_when_the_pool_is_stopped() -> None:
    loop = asyncio.new_event_loop()
    pool = Pool(2, max_size=10)
    loop.run_until_complete(pool.__aenter__())
    running = loop.run_until_complete(_begun(pool))
    unseen = [pool.submit(answer) for _ in range(4)]  # one of them is with the loop, which never looks again
    loop.close()
    pool.stop()
    for job in (running, *unseen):
        assert "event loop does not run: it was closed" in str(job.exception(PATIENCE))
    assert pool.join(PATIENCE)
    assert (pool.stats().failed, pool.stats().queued, pool.stats().running) == (5, 0, 0)


async def _begun(pool: Pool) -> Any:
    job = pool.submit(endless)
    while job.state != State.RUNNING:  # noqa: ASYNC110  # nobody tells
        await asyncio.sleep(0)
    return job


@pytest.mark.parametrize("how", ["submit", "cancel"])
def test_whoever_comes_next_finds_out_that_the_loop_was_closed(how: str) -> None:
    loop = asyncio.new_event_loop()
    pool = Pool(3)
    loop.run_until_complete(pool.__aenter__())
    running = loop.run_until_complete(_begun(pool))
    unseen = pool.submit(answer)
    loop.close()
    if how == "submit":
        assert "it was closed" in str(pool.submit(answer).exception(PATIENCE))
    else:
        running.cancel()
    assert "it was closed" in str(unseen.exception(PATIENCE))
    assert isinstance(running.exception(PATIENCE), RuntimeError | JobCancelled | asyncio.CancelledError)
    assert pool.submit(double, 4).result(PATIENCE) == 8
    pool.stop()
    assert pool.join(PATIENCE)


def test_tasks_that_were_left_behind_and_exit_keep_no_other_from_its_end() -> None:
    ended: list[int] = []
    tasks: set[asyncio.Task[None]] = set()

    async def left(number: int) -> None:
        try:
            await endless()
        finally:
            ended.append(number)
            if number % 2 == 0:
                sys.exit(number)

    async def leave_behind() -> None:
        tasks.update(asyncio.create_task(left(number)) for number in range(6))
        await asyncio.sleep(0)

    with Pool(1) as pool:
        pool.submit(leave_behind).result(PATIENCE)
    assert sorted(ended) == list(range(6))
    assert all(task.done() for task in tasks)
    for task in tasks:
        assert task.cancelled() or isinstance(task.exception(), SystemExit)


# --- processes


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes of their own need POSIX")
def test_a_process_that_died_while_it_was_idle_is_no_jobs_fault() -> None:
    with Pool(1, run_in="process") as pool:
        idle = pool.submit(pid).result(PATIENCE)
        os.kill(idle, signal.SIGKILL)
        os.waitid(os.P_PID, idle, os.WEXITED | os.WNOWAIT)
        assert pool.submit(pid).result(PATIENCE) != idle
        assert pool.stats().failed == 0


# --- many that wait


class Searched(deque[Any]):
    """A lane that counts how often it is searched."""

    searches = 0

    def remove(self, value: Any) -> None:
        self.searches += 1
        super().remove(value)


def with_lane(pool: Pool, lane: deque[Any]) -> None:
    pool._plan = pool._plan._replace(lane=lane)  # noqa: SLF001
    pool._core.lanes = [lane]  # noqa: SLF001


def test_many_are_cancelled_from_the_newest_on_without_a_search_for_each() -> None:
    with Pool(1) as pool:
        gate, _ = held(pool)
        lane = Searched()
        with_lane(pool, lane)
        jobs = [pool.submit(double, number) for number in range(100)]
        for job in reversed(jobs):
            assert job.cancel()
        assert [job.state for job in jobs] == [State.CANCELLED] * 100
        assert lane.searches == 0
        gate.open()


def test_a_job_that_comes_while_the_newest_is_cancelled_stays() -> None:
    later: list[Any] = []

    class Joined(deque[Any]):
        """A lane into which somebody submits just before its newest job is taken out."""

        def pop(self, *_: Any) -> Any:
            if not later:
                later.append(pool.submit(double, 4))
            return super().pop()

    with Pool(1) as pool:
        gate, _ = held(pool)
        with_lane(pool, Joined())
        job = pool.submit(double, 1)
        assert job.cancel()
        assert job.state == State.CANCELLED
        gate.open()
        assert later[0].result(PATIENCE) == 8


# --- threads that cannot be had


def test_a_thread_that_is_parked_meanwhile_takes_what_no_new_thread_could(monkeypatch: pytest.MonkeyPatch) -> None:
    with Pool(2) as pool:
        gate, (first,) = held(pool)
        core = pool._core  # noqa: SLF001

        def start(_: threading.Thread) -> None:
            gate.open()
            first.result(PATIENCE)
            until(lambda: core.threads.parked and bool(core.slots), "its thread is parked, and its slot home")
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", start)
            assert pool.submit(double, 2).result(PATIENCE) == 4


def test_all_that_wait_are_told_that_there_is_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def wait() -> None:
        await asyncio.to_thread(gate.wait, PATIENCE)

    gate = threading.Event()
    with Pool(1) as pool:
        holding = pool.submit(wait)
        until(lambda: holding.state == State.RUNNING, "it holds the only slot")
        loop_runs = threading.Event()
        pool._core.tasks._loop.call_soon_threadsafe(loop_runs.set)  # type: ignore[union-attr]  # noqa: SLF001
        assert loop_runs.wait(PATIENCE)  # and so does the thread that waits there
        jobs = [pool.submit(double, number) for number in range(500)]
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", start)
            gate.set()
            assert {str(job.exception(PATIENCE)) for job in jobs} == {"can't start new thread"}
        assert pool.submit(double, 4).result(PATIENCE) == 8


def test_a_slot_without_a_thread_is_tried_again_with_the_next_job(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with Pool(2) as pool:
        gate, _ = held(pool)
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", start)
            waiting = pool.submit(double, 1)
            assert waiting.state == State.QUEUED
        assert pool.submit(double, 2).result(PATIENCE) == 4  # beside the one that holds the other slot
        assert waiting.result(PATIENCE) == 2
        gate.open()


# --- Ctrl-C between two steps


def interrupted(_: threading.Thread) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("fn", [double, answer])
def test_ctrl_c_while_a_thread_is_started_costs_neither_slot_nor_job(fn: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    args = [4] if fn is double else []
    with Pool(1) as pool:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", interrupted)
            with pytest.raises(KeyboardInterrupt):
                pool.submit(fn, *args)
        assert pool.submit(double, 4).result(PATIENCE) == 8
        assert pool.submit(fn, *args).result(PATIENCE) in {8, 42}
        assert pool.join(PATIENCE)
    assert (pool.stats().succeeded, pool.stats().queued) == (3, 0)


@pytest.mark.parametrize("fn", [double, answer])
def test_a_last_submit_that_ctrl_c_broke_into_lets_the_pool_end(fn: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Pool(1)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pool.submit(fn, *([4] if fn is double else []))
    pool.stop()
    assert pool.join(PATIENCE), "the job that was submitted is still there"
    assert pool.stats().succeeded == 1


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_place_that_ctrl_c_cost_keeps_nobody_from_leaving(asynchronous: bool) -> None:
    gate = threading.Event()

    async def wait() -> None:
        await asyncio.to_thread(gate.wait, PATIENCE)

    pool = Pool(1)
    assert pool._core.take_place()  # noqa: SLF001  # as a submit that went no further
    running: PoolJob[Any] = pool.submit(wait) if asynchronous else pool.submit(gate.wait, PATIENCE)
    until(lambda: running.state == State.RUNNING, "it runs")
    pool.stop(drain=False)
    assert not pool.join(0.01)
    gate.set()
    assert pool.join(PATIENCE), "it waits for a job that never was"
    assert running.state == State.SUCCEEDED
