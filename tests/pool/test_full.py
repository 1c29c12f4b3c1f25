"""A full pool: waits, refuses or drops; and never waits for itself."""

import asyncio
import threading
from typing import Any

import pytest

from holdfast import ConfigError, JobCancelled, Pool, PoolJob, QueueFull, Retry, State
from tests.pool.rig import PATIENCE, Gate, held, until


def double(number: int) -> int:
    return 2 * number


def test_block_waits_for_a_place() -> None:
    with Pool(1, max_size=2) as pool:
        gate, jobs = held(pool)
        jobs.append(pool.submit(double, 1))
        waiting = threading.Thread(target=lambda: jobs.append(pool.submit(double, 2)))
        waiting.start()
        until(lambda: len(pool._core.askers) == 1, "it waits")  # noqa: SLF001
        assert len(jobs) == 2
        gate.open()
        waiting.join(PATIENCE)
        assert [job.result(PATIENCE) for job in jobs] == [0, 2, 4]


def test_block_gives_up_after_its_timeout() -> None:
    with Pool(1, max_size=1, block_timeout=0.01) as pool:
        gate, _ = held(pool)
        with pytest.raises(QueueFull, match=r"the pool is full \(1 of 1 jobs\): no place within 0\.01 s") as full:
            pool.submit(double, 1)
        assert (full.value.depth, full.value.bound) == (1, 1)
        assert full.value.retry_after > 0
        assert not pool._core.askers  # noqa: SLF001
        gate.open()


async def test_asubmit_waits_without_holding_up_the_loop() -> None:
    async with Pool(1, max_size=1) as pool:
        gate, (first,) = held(pool)
        waiting = asyncio.create_task(pool.asubmit(double, 1))
        until_waiting = asyncio.get_running_loop().time() + PATIENCE
        while not pool._core.askers:  # noqa: SLF001
            assert asyncio.get_running_loop().time() < until_waiting
            await asyncio.sleep(0)
        gate.open()
        assert await (await asyncio.wait_for(waiting, PATIENCE)).aresult(PATIENCE) == 2
        assert first.state == State.SUCCEEDED


async def test_asubmit_gives_up_after_its_timeout_and_when_cancelled() -> None:
    async with Pool(1, max_size=1, block_timeout=0.01) as pool:
        gate, _ = held(pool)
        with pytest.raises(QueueFull, match=r"no place within 0\.01 s"):
            await pool.asubmit(double, 1)
        gate.open()
    async with Pool(1, max_size=1) as pool:
        gate, _ = held(pool)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(pool.asubmit(double, 1), 0.01)
        assert not pool._core.askers  # noqa: SLF001
        gate.open()
    assert pool.stats().submitted == 1


async def test_submit_on_the_pools_own_loop_does_not_hold_it_up() -> None:
    async with Pool(1, max_size=1) as pool:
        gate, _ = held(pool)
        with pytest.raises(QueueFull, match=r"await pool\.asubmit"):
            pool.submit(double, 1)
        gate.open()


def test_reject() -> None:
    with Pool(1, max_size=2, when_full="reject") as pool:
        gate, jobs = held(pool)
        jobs.append(pool.submit(double, 1))
        with pytest.raises(QueueFull, match=r"2 of 2 jobs") as full:
            pool.submit(double, 2)
        assert (full.value.queue, full.value.depth, full.value.bound) == ("(pool)", 2, 2)
        gate.open()
        assert [job.result(PATIENCE) for job in jobs] == [0, 2]
        assert pool.submit(double, 3).result(PATIENCE) == 6  # what is over has given its place back
        assert pool.stats().submitted == 3


def test_drop_newest() -> None:
    with Pool(1, max_size=1, when_full="drop_newest") as pool:
        gate, (first,) = held(pool)
        dropped = pool.submit(double, 1)
        assert dropped.state == State.CANCELLED
        with pytest.raises(JobCancelled, match=r"^dropped: the pool was full \(1 jobs\)"):
            dropped.result()
        assert isinstance(dropped.exception(), JobCancelled)
        assert not dropped.cancel()
        gate.open()
        assert first.result(PATIENCE) == 0
        stats = pool.stats()
        assert (stats.submitted, stats.dropped, stats.succeeded) == (2, 1, 1)


def test_drop_oldest_drops_what_was_never_begun() -> None:
    with Pool(1, max_size=3, when_full="drop_oldest") as pool:
        gate, (first,) = held(pool)
        jobs = [pool.submit(double, number) for number in range(5)]
        gate.open()
        states = []
        for job in jobs:
            job.exception(PATIENCE)
            states.append(job.state)
        assert states == ["cancelled"] * 3 + ["succeeded"] * 2
        with pytest.raises(JobCancelled, match=r"^dropped: the pool was full \(3 jobs\), and a newer one came"):
            jobs[0].result()
        assert first.result(PATIENCE) == 0
        assert pool.stats().dropped == 3


def test_drop_oldest_with_nothing_to_drop() -> None:
    with Pool(1, max_size=2, when_full="drop_oldest") as pool:
        gate, _ = held(pool)
        begun = Retry(max_attempts=2, base_delay="1h", max_delay="1h")
        pool.resize(2)
        waiting = pool.using(retry=begun).submit(lambda: 1 / 0)
        until(lambda: waiting.state == State.SCHEDULED, "it waits for its next attempt")
        with pytest.raises(QueueFull, match="no job that was never begun"):
            pool.submit(double, 1)
        waiting.cancel()
        gate.open()


def test_a_place_is_kept_while_a_job_waits_for_its_next_attempt() -> None:
    with Pool(1, max_size=1, when_full="reject") as pool:
        later = Retry(max_attempts=2, base_delay="1h", max_delay="1h")
        job = pool.using(retry=later).submit(lambda: 1 / 0)
        until(lambda: job.state == State.SCHEDULED, "it waits for its next attempt")
        with pytest.raises(QueueFull, match="1 of 1 jobs"):
            pool.submit(double, 1)
        job.cancel()
        assert pool.submit(double, 1).result(PATIENCE) == 2


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_job_that_submits_to_its_own_full_pool_is_told(asynchronous: bool) -> None:
    with Pool(1, max_size=1) as pool:

        def inner() -> None:
            pool.submit(double, 1)

        async def ainner() -> None:
            await pool.asubmit(double, 1)

        with pytest.raises(QueueFull, match="inside a job of the same pool"):
            pool.submit(ainner if asynchronous else inner).result(PATIENCE)


def test_also_by_way_of_another_pool() -> None:
    with Pool(1, max_size=1) as one, Pool(1, max_size=1) as other:

        def back() -> None:
            one.submit(double, 1)

        def over() -> Any:
            return other.submit(back).exception(PATIENCE)

        error = one.submit(over).result(PATIENCE)
        assert isinstance(error, QueueFull)
        assert "or of one whose jobs it submits" in str(error)


def test_pools_may_be_nested_and_wait_for_each_other() -> None:
    with Pool(2, max_size=2) as outer, Pool(2, max_size=2) as inner:

        def fan_out(number: int) -> int:
            return sum(inner.map(double, range(number)))

        assert list(outer.map(fan_out, range(20))) == [number * (number - 1) for number in range(20)]


def test_a_job_may_submit_to_its_own_pool_while_there_is_room() -> None:
    found: list[PoolJob[int]] = []
    with Pool(1, max_size=10) as pool:
        pool.submit(lambda: found.append(pool.submit(double, 4))).result(PATIENCE)
        assert found[0].result(PATIENCE) == 8


def test_who_waits_for_a_place_is_told_when_the_pool_is_stopped() -> None:
    errors: list[BaseException] = []

    def submit() -> None:
        try:
            pool.submit(double, 1)
        except ConfigError as error:
            errors.append(error)

    with Pool(1, max_size=1) as pool:
        gate, _ = held(pool)
        threads = [threading.Thread(target=submit) for _ in range(5)]
        for thread in threads:
            thread.start()
        until(lambda: len(pool._core.askers) == 5, "all wait")  # noqa: SLF001
        pool.stop()
        for thread in threads:
            thread.join(PATIENCE)
        assert len(errors) == 5
        gate.open()


def test_a_cancelled_job_gives_its_place_back() -> None:
    with Pool(1, max_size=2, when_full="reject") as pool:
        gate, _ = held(pool)
        for _ in range(50):
            job = pool.submit(Gate())
            assert job.cancel()
            with pytest.raises(JobCancelled, match="before it began"):
                job.result()
        assert pool.stats().cancelled == 50
        gate.open()


def test_drop_oldest_looks_at_all_priorities() -> None:
    with Pool(1, max_size=4, when_full="drop_oldest") as pool:
        gate, _ = held(pool)
        oldest = pool.using(priority=-5).submit(double, 1)
        urgent = pool.using(priority=5).submit(double, 2)
        usual = pool.submit(double, 3)
        newest = pool.submit(double, 4)
        assert [job.state.value for job in (oldest, urgent, usual, newest)] == ["cancelled", *["queued"] * 3]
        gate.open()


async def test_whoever_waits_for_a_place_gets_it_in_turn() -> None:
    taken = [0] * 32
    async with Pool(2, max_size=2) as pool:

        async def submit(who: int) -> None:
            while sum(taken) < 320:
                await pool.asubmit(asyncio.sleep, 0)
                taken[who] += 1

        await asyncio.wait_for(asyncio.gather(*map(submit, range(32))), PATIENCE)
    assert min(taken) >= 5, taken
