"""Async functions whose loop has a bad day: ended under the pool, without a thread, with tasks that cancel or exit."""

import asyncio
import sys
import threading
from typing import Any

import pytest

from holdfast import JobCancelled, Pool
from tests.pool.rig import PATIENCE, threads_of_pools, until


async def answer() -> int:
    await asyncio.sleep(0)
    return 42


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_a_child_task_that_exits_ends_its_own_job_alone(error: type[BaseException]) -> None:
    gate = threading.Event()

    async def leave() -> None:
        raise error

    async def work() -> None:
        await asyncio.create_task(leave())

    async def neighbour() -> int:
        await asyncio.to_thread(gate.wait, PATIENCE)
        return 7

    with Pool(3) as pool:
        beside, leaving = pool.submit(neighbour), pool.submit(work)
        assert isinstance(leaving.exception(PATIENCE), error)
        gate.set()
        assert beside.result(PATIENCE) == 7
        assert pool.submit(answer).result(PATIENCE) == 42


def test_a_task_that_is_cancelled_before_its_first_step_is_settled() -> None:
    held, go = threading.Event(), threading.Event()

    async def cancel_all() -> None:
        held.set()
        go.wait(PATIENCE)  # what is submitted meanwhile is made into tasks in one go
        await asyncio.sleep(0)

    async def cancel_others() -> None:
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    with Pool(10) as pool:
        first = pool.submit(cancel_all)
        assert held.wait(PATIENCE)
        jobs: list[Any] = [pool.submit(cancel_others), *(pool.submit(answer) for _ in range(5))]
        go.set()
        ends = [job.exception(PATIENCE) for job in jobs]
        assert isinstance(first.exception(PATIENCE), asyncio.CancelledError | None)
        assert [type(end) for end in ends[1:]] == [asyncio.CancelledError] * 5
        assert pool.submit(answer).result(PATIENCE) == 42
        until(lambda: pool.stats().running == 0, "no slot is lost")


def test_a_loop_that_ended_without_leaving_the_pool_fails_its_jobs() -> None:
    pool = Pool(2)

    async def main() -> int:
        await pool.__aenter__()
        return await (await pool.asubmit(answer)).aresult(PATIENCE)

    assert asyncio.run(main()) == 42
    ends: list[BaseException | None] = []

    def submit() -> None:
        ends.extend(pool.submit(answer).exception(PATIENCE) for _ in range(3))

    submit()
    other = threading.Thread(target=submit)
    other.start()
    other.join(PATIENCE)
    assert ["event loop does not run" in str(end) for end in ends] == [True] * 6
    assert pool.submit(abs, -3).result(PATIENCE) == 3
    pool.stop()
    assert pool.join(PATIENCE)
    assert (pool.stats().failed, pool.stats().queued) == (6, 0)


def test_a_loop_for_which_there_is_no_thread_is_tried_again_with_the_next_job(monkeypatch: pytest.MonkeyPatch) -> None:
    with Pool(2) as pool:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", _no_thread)
            ends = [pool.submit(fn).exception(PATIENCE) for fn in (answer, answer, bool)]
        assert ["can't start new thread" in str(end) for end in ends] == [True] * 3
        assert [pool.submit(fn).result(PATIENCE) for fn in (answer, answer, bool)] == [42, 42, False]


def _no_thread(_: object) -> None:
    raise RuntimeError("can't start new thread")


def test_slots_for_which_there_was_no_thread_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    both = threading.Barrier(2, timeout=PATIENCE)
    with Pool(2) as pool:
        pool.submit(bool).result(PATIENCE)
        until(lambda: len(pool._core.slots) == 2, "its slot is home")  # noqa: SLF001
        gate = threading.Event()
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", _no_thread)
            one, two = pool.submit(gate.wait), pool.submit(bool)
            until(lambda: pool._core.missing == 1, "there is no thread for the second")  # noqa: SLF001
            gate.set()
            assert (one.result(PATIENCE), two.result(PATIENCE)) == (True, False)
        jobs = [pool.submit(both.wait) for _ in range(2)]
        assert sorted(job.result(PATIENCE) for job in jobs) == [0, 1]  # both at a time


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
async def test_a_loop_with_eager_tasks() -> None:
    loop = asyncio.get_running_loop()
    loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined,unused-ignore]
    try:
        async with Pool(2) as pool:
            with pytest.raises(TimeoutError):
                await pool.using(timeout=0.05).submit(asyncio.sleep, PATIENCE).aresult(PATIENCE)
            job = pool.submit(asyncio.sleep, PATIENCE)
            await asyncio.sleep(0.01)
            assert job.cancel()
            with pytest.raises(JobCancelled):
                await job.aresult(PATIENCE)
            for many in [pool.submit(answer) for _ in range(990)]:
                assert await many.aresult(PATIENCE) == 42
    finally:
        loop.set_task_factory(None)
    assert threads_of_pools() == set()
