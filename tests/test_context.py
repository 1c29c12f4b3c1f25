"""current_job(): where there is one, and how a handler learns that it must end."""

import asyncio
import contextvars
import threading
import time
from typing import get_args
from uuid import uuid4

import pytest

from holdfast import Stop, current_job
from holdfast.context import CurrentJob, current
from holdfast.errors import StopReason


def job(**options: object) -> CurrentJob:
    return CurrentJob(uuid4(), "shop.send", "mail", 2, 7, **options)


def test_outside_of_a_job_there_is_none() -> None:
    with pytest.raises(LookupError, match=r"not inside a job; threads you start yourself do not inherit it"):
        current_job()


def test_inside_of_a_job_it_says_which() -> None:
    mine = job()

    def handler() -> CurrentJob:
        current.set(mine)
        return current_job()

    assert contextvars.copy_context().run(handler) is mine
    assert (mine.task, mine.queue, mine.attempt, mine.fence) == ("shop.send", "mail", 2, 7)


async def test_tasks_that_a_handler_starts_are_inside_the_job_and_its_threads_are_not() -> None:
    mine = job()
    found: list[object] = []

    def thread() -> None:
        with pytest.raises(LookupError):
            current_job()
        found.append("none")

    async def child() -> None:
        found.append(current_job())

    async def handler() -> None:
        current.set(mine)
        await asyncio.gather(child(), asyncio.to_thread(lambda: found.append(current_job())))
        bare = threading.Thread(target=thread)
        bare.start()
        await asyncio.to_thread(bare.join, 30)

    await asyncio.wait_for(asyncio.create_task(handler()), 30)
    assert found == [mine, mine, "none"]


def test_a_job_that_may_go_on_is_not_stopped_by_a_check() -> None:
    mine = job()
    mine.check()
    assert (mine.stopped, mine.cancelled, mine.held) == (None, False, True)


@pytest.mark.parametrize("why", get_args(StopReason))
def test_a_check_raises_the_reason_to_stop(why: StopReason) -> None:
    mine = job()
    assert mine.stop(why)
    with pytest.raises(Stop) as stopped:
        mine.check()
    assert (stopped.value.why, mine.stopped) == (why, why)
    assert mine.cancelled is (why == "cancelled")
    assert mine.held is (why != "lost")


def test_the_first_reason_to_stop_stays() -> None:
    mine = job()
    assert [mine.stop("timeout"), mine.stop("cancelled"), mine.stop("timeout")] == [True, False, False]
    assert mine.stopped == "timeout"


def test_a_check_in_a_loop_raises_every_time() -> None:
    mine = job()
    mine.stop("shutdown")
    for _ in range(3):
        with pytest.raises(Stop, match="shutdown"):
            mine.check()


def test_held_asks_the_worker_each_time() -> None:
    answers = iter([True, False, True])
    mine = job(held=lambda: next(answers))
    assert [mine.held, mine.held, mine.held] == [True, False, True]


def test_without_a_timeout_no_time_is_told() -> None:
    assert job().time_left is None
    assert CurrentJob.detached("shop.send", "mail").time_left is None


def test_time_left_falls_and_ends_at_zero() -> None:
    mine = job(deadline=time.monotonic() + 1_000)
    first = mine.time_left
    assert first is not None
    assert 900 < first <= 1_000
    assert (mine.time_left or 0) <= first
    assert job(deadline=time.monotonic() - 5).time_left == 0


def test_a_detached_job_is_always_held_and_never_stopped() -> None:
    detached = CurrentJob.detached("shop.send", "mail")
    detached.check()
    assert (detached.attempt, detached.fence, detached.held, detached.cancelled) == (1, 0, True, False)
    assert detached.id.version == 7
