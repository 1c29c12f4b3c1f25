"""Jobs that wait for jobs of their own pool: fine while something goes on, refused where nothing ever could."""

import asyncio
import threading
from typing import Any

import pytest

from holdfast import ConfigError, Pool, PoolJob, Retry, State
from tests.pool.rig import PATIENCE, Gate, until


def double(number: int) -> int:
    return 2 * number


async def adouble(number: int) -> int:
    await asyncio.sleep(0)
    return 2 * number


def test_a_recursion_that_needs_more_slots_than_there_are_is_refused() -> None:
    with Pool(2) as pool:

        def nested(depth: int) -> int:
            return int(pool.submit(nested, depth - 1).result()) + 1 if depth else 0

        assert pool.submit(nested, 1).result(PATIENCE) == 1
        text = r"result\(\) inside .*nested would wait for ever: .*held by jobs that wait, too.*larger"
        with pytest.raises(ConfigError, match=text):
            pool.submit(nested, 3).result(PATIENCE)
        assert pool.join(PATIENCE)
        assert pool.submit(nested, 1).result(PATIENCE) == 1  # nothing stayed behind
    with Pool(4) as pool:
        assert pool.submit(nested, 3).result(PATIENCE) == 3


@pytest.mark.parametrize("how", ["exception", "map", "each"])
def test_each_way_to_wait_is_noticed(how: str) -> None:
    with Pool(1) as pool:

        def work() -> Any:
            if how == "exception":
                return pool.submit(double, 4).exception()
            return list(getattr(pool, how)(double, [4]))

        with pytest.raises(ConfigError, match="would wait for ever"):
            pool.submit(work).result(PATIENCE)


@pytest.mark.parametrize("how", ["aresult", "gather", "aeach"])
async def test_each_way_to_await_is_noticed(how: str) -> None:
    async with Pool(1) as pool:

        async def work() -> Any:
            if how == "aresult":
                return await pool.submit(adouble, 4).aresult()
            if how == "gather":
                return await asyncio.gather(*(pool.submit(adouble, number).aresult() for number in range(3)))
            return [job async for job in pool.aeach(adouble, [4])]

        with pytest.raises(ConfigError, match="would wait for ever"):
            await pool.submit(work).aresult(PATIENCE)


def test_a_job_that_waits_for_itself_is_refused() -> None:
    found: list[PoolJob[Any]] = []
    known = threading.Event()
    with Pool(3) as pool:

        def work() -> Any:
            known.wait(PATIENCE)
            return found[0].result()

        found.append(pool.submit(work))
        known.set()
        with pytest.raises(ConfigError, match="would wait for ever"):
            found[0].result(PATIENCE)


def test_two_pools_that_wait_for_each_other_are_noticed() -> None:
    with Pool(1) as one, Pool(1) as other:

        def back() -> int:
            return one.submit(double, 4).result()

        def over() -> Any:
            return other.submit(back).exception()

        job = one.submit(over)
        error = job.exception(PATIENCE) or job.result()  # whichever began to wait last is told
        assert isinstance(error, ConfigError)
        assert "would wait for ever" in str(error)


def test_a_pool_inside_a_job_that_waits_for_the_outer_one_is_noticed() -> None:
    with Pool(1) as outer:

        def back() -> int:
            return outer.submit(double, 4).result()

        def over() -> Any:
            with Pool(1) as inner:
                return inner.submit(back)

        job = outer.submit(over)
        error = job.exception(PATIENCE) or job.result().exception(PATIENCE)
        assert isinstance(error, ConfigError)


def test_a_submit_that_waits_for_a_place_whose_holders_wait_for_it_is_noticed() -> None:
    ready = threading.Event()
    with Pool(1) as one, Pool(1, max_size=1) as other:

        def holder() -> Any:
            ready.wait(PATIENCE)
            return one.submit(double, 4).result()

        def over() -> Any:
            held = other.submit(holder)
            ready.set()
            other.submit(double, 4)
            return held

        errors = [one.submit(over).exception(PATIENCE), other.submit(double, 4).exception(PATIENCE)]
        assert isinstance(errors[0], ConfigError) or errors[0] is None
        assert one.join(PATIENCE)
        assert other.join(PATIENCE)


def test_while_one_slot_goes_on_all_others_may_wait() -> None:
    gate = Gate()
    with Pool(3) as pool:

        def waiting(job: PoolJob[Any]) -> Any:
            return job.result()

        busy = pool.submit(gate, 7)
        gate.await_begun()
        later = [pool.submit(waiting, busy) for _ in range(2)]
        until(lambda: all(job.state == State.RUNNING for job in later), "both wait")
        queued = pool.submit(double, 4)
        gate.open()
        assert [job.result(PATIENCE) for job in (*later, queued)] == [7, 7, 8]


def test_a_free_slot_is_enough() -> None:
    with Pool(2, retry=Retry(max_attempts=2, base_delay=0)) as pool:
        for _ in range(300):
            assert pool.submit(lambda: pool.submit(double, 4).result()).result(PATIENCE) == 8
        assert pool.stats().retried == 0


def test_a_wait_with_a_limit_ends_by_itself() -> None:
    with Pool(1) as pool:

        def work() -> int:
            job = pool.submit(double, 4)
            with pytest.raises(TimeoutError):
                job.result(timeout=0.01)
            return 5

        assert pool.submit(work).result(PATIENCE) == 5


async def test_an_async_job_with_a_timeout_of_its_own_ends_by_itself() -> None:
    async with Pool(1) as pool:

        async def work() -> int:
            return await pool.submit(adouble, 4).aresult()

        with pytest.raises(TimeoutError, match="ran longer than its timeout"):
            await pool.using(timeout=0.05).submit(work).aresult(PATIENCE)
