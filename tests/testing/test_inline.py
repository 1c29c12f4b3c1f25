"""inline=True: an enqueue returns when its job has run."""

import asyncio
import threading
from collections.abc import Iterator

import pytest

from holdfast import Holdfast, JobFailed, Retry, Unique
from holdfast.testing import Sandbox

jobs = Holdfast()
did: list[object] = []


@jobs.task(name="shop.send")
def send(number: int) -> int:
    did.append(number)
    return number


@jobs.task(name="shop.asend")
async def asend(number: int) -> int:
    await asyncio.sleep(0)
    did.append(number)
    return number


@jobs.task(name="shop.chain")
def chain(left: int) -> int:
    if left == 0:
        return 0
    did.append(left)
    return chain.enqueue(left - 1).result() + 1


@jobs.task(name="shop.fails", retry=Retry(max_attempts=2, base_delay=10, jitter=0))
def fails() -> None:
    did.append("failed")
    raise ValueError("no")


@jobs.task(name="shop.endless")
def endless() -> None:
    did.append("again")
    endless.enqueue()


@pytest.fixture
def box() -> Iterator[Sandbox]:
    did.clear()
    with Sandbox(jobs, inline=True) as box:
        yield box


def test_it_has_run_when_enqueue_returns(box: Sandbox) -> None:
    assert send.enqueue(42).result() == 42
    assert asend.enqueue(43).result() == 43
    assert did == [42, 43]
    assert box.run() == []
    assert box.assert_enqueued(send, 42).status().state == "succeeded"


def test_many_at_once_run_in_their_order(box: Sandbox) -> None:
    made = jobs.enqueue_many([send.bind(1), asend.bind(2), send.bind(3)])
    assert did == [1, 2, 3]
    assert [job.result() for job in made] == [1, 2, 3]


def test_what_a_handler_enqueues_has_run_too(box: Sandbox) -> None:
    assert chain.enqueue(5).result() == 5
    assert did == [5, 4, 3, 2, 1]


def test_the_same_bound_job_again_does_not_run_again(box: Sandbox) -> None:
    bound = send.bind(1)
    jobs.enqueue_many([bound])
    jobs.enqueue_many([bound])
    assert did == [1]


def test_a_job_that_is_replaced_and_due_now_has_run(box: Sandbox) -> None:
    unique = Unique("one", on_clash="replace")
    job = send.using(unique=unique, delay="1h").enqueue(1)
    again = send.using(unique=unique).enqueue(2)
    assert (again, again.created) == (job, False)
    assert job.result() == 2
    assert did == [2]


def test_what_is_due_later_waits_for_its_time(box: Sandbox) -> None:
    job = send.using(delay="1h").enqueue(1)
    assert did == []
    assert len(box.advance("1h")) == 1
    assert job.result() == 1


def test_an_error_is_the_jobs_and_its_retry_waits(box: Sandbox) -> None:
    job = fails.enqueue()
    assert job.status().state == "scheduled"
    (status,) = box.advance(10)
    assert status.state == "dead"
    with pytest.raises(JobFailed, match="ValueError: no"):
        job.result()


def test_jobs_that_enqueue_each_other_without_an_end_are_stopped(box: Sandbox) -> None:
    endless.enqueue()
    errors = [status.errors[0].message for status in jobs.find(state="dead")]
    assert len(errors) == 1
    assert "inline=True" in errors[0]
    assert 10 < len(did) < 100


def test_with_a_connection_too(box: Sandbox) -> None:
    assert send.using(connection=object()).enqueue(1).result() == 1


def test_in_code_that_runs_a_loop_of_its_own(box: Sandbox) -> None:
    async def view() -> int:
        await send.aenqueue(1)
        return await (await asend.aenqueue(2)).aresult()

    assert asyncio.run(view()) == 2
    assert did == [1, 2]


async def test_on_the_callers_loop() -> None:
    did.clear()
    async with Sandbox(jobs, inline=True):
        assert await (await asend.aenqueue(1)).aresult() == 1
        assert await (await send.aenqueue(2)).aresult() == 2
        assert [await job.aresult() for job in await jobs.aenqueue_many([asend.bind(3), send.bind(4)])] == [3, 4]
    assert did == [1, 2, 3, 4]


async def test_from_threads_beside_the_callers_loop() -> None:
    """As a web framework runs plain routes."""
    async with Sandbox(jobs, inline=True):
        assert await asyncio.to_thread(lambda: asend.enqueue(1).result()) == 1
        assert await asyncio.to_thread(lambda: send.enqueue(2).result()) == 2


async def test_an_async_job_cannot_run_inside_of_a_blocking_call_and_that_is_said() -> None:
    did.clear()
    async with Sandbox(jobs, inline=True) as box:
        with (
            pytest.warns(RuntimeWarning, match="aenqueue"),
            pytest.raises(RuntimeError, match=r"blocks the event loop.*aenqueue"),
        ):
            asend.enqueue(1)
        assert did == []
        assert len(await box.arun()) == 1, "it is stored"


async def test_a_blocking_call_cannot_open_resources_there_and_that_is_said() -> None:
    app = Holdfast()

    @app.resource
    def disk() -> Iterator[str]:
        yield "disk"

    @app.task(name="shop.uses")
    def uses() -> str:
        return disk()

    async with Sandbox(app, inline=True):
        with (
            pytest.warns(RuntimeWarning, match="aenqueue"),
            pytest.raises(RuntimeError, match=r"blocks the event loop.*aenqueue"),
        ):
            uses.enqueue()
        assert await (await uses.aenqueue()).aresult() == "disk"


def test_a_thread_that_an_async_handler_waits_for_may_enqueue(box: Sandbox) -> None:
    @jobs.task(name="shop.outer")
    async def outer() -> int:
        return await asyncio.to_thread(lambda: asend.enqueue(1).result() + send.enqueue(2).result())

    assert outer.enqueue().result() == 3
    assert did == [1, 2]


def test_threads_do_not_wait_for_each_other(box: Sandbox) -> None:
    meeting = threading.Barrier(2, timeout=30)

    @jobs.task(name="shop.meets")
    def meets() -> None:
        meeting.wait()

    threads = [threading.Thread(target=meets.enqueue) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert {str(status.state) for status in jobs.find()} == {"succeeded"}
