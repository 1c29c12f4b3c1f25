"""One app, any number of event loops and threads: one after another and at once, with a worker beside them."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID

import pytest

from holdfast import Holdfast, SyncTask

PATIENCE = 60


async def by_twins(app: Holdfast, send: SyncTask[..., str], name: str) -> list[UUID]:
    """All that a program does on a loop; the ids of its jobs."""
    jobs = list(await asyncio.gather(*(send.aenqueue(f"{name}-{n}") for n in range(4))))
    jobs += await app.aenqueue_many([send.bind(f"{name}-{n}") for n in range(4, 6)])
    told = await asyncio.gather(*(job.aresult(PATIENCE) for job in jobs))
    assert told == [f"{name}-{n}" for n in range(6)], "an answer went to another caller"
    assert (await jobs[0].astatus()).state == "succeeded"
    assert await jobs[0].acancel() is False
    found = {status.id async for status in app.afind(task="shop.send")}
    assert {job.id for job in jobs} <= found
    return [job.id for job in jobs]


def by_calls(app: Holdfast, send: SyncTask[..., str], name: str) -> list[UUID]:
    """The same in a thread without a loop."""
    jobs = [send.enqueue(f"{name}-{n}") for n in range(4)]
    jobs += app.enqueue_many([send.bind(f"{name}-{n}") for n in range(4, 6)])
    assert [job.result(PATIENCE) for job in jobs] == [f"{name}-{n}" for n in range(6)]
    assert {job.id for job in jobs} <= {status.id for status in app.find(task="shop.send")}
    return [job.id for job in jobs]


def test_loops_and_threads_at_once_and_in_turn(app: Holdfast, send: SyncTask[..., str]) -> None:
    def loops(name: str) -> list[UUID]:
        return [one for turn in range(3) for one in asyncio.run(by_twins(app, send, f"{name}.{turn}"))]

    def calls(name: str) -> list[UUID]:
        return [one for turn in range(3) for one in by_calls(app, send, f"{name}.{turn}")]

    with app.worker(), ThreadPoolExecutor(6) as pool:
        ways: list[Callable[[str], list[UUID]]] = [loops, calls] * 3
        running = [pool.submit(way, f"{place}") for place, way in enumerate(ways)]
        made = [one for each in running for one in each.result(PATIENCE)]
    assert len(set(made)) == len(made) == 6 * 3 * 6
    assert {status.id for status in app.find(task="shop.send")} == set(made)


async def test_workers_on_the_callers_loop_and_on_others(app: Holdfast, send: SyncTask[..., str]) -> None:
    """`async with` here, `async with` on a loop in another thread, `with` in a third: all serve one store."""
    leaving = threading.Event()

    async def elsewhere(ready: threading.Event) -> None:
        async with app.worker(concurrency=2):
            ready.set()
            await asyncio.to_thread(leaving.wait, PATIENCE)

    def blocking(ready: threading.Event) -> None:
        with app.worker(concurrency=2):
            ready.set()
            leaving.wait(PATIENCE)

    starts: list[Callable[[threading.Event], Any]] = [lambda ready: asyncio.run(elsewhere(ready)), blocking]
    with ThreadPoolExecutor(2) as pool:
        async with AsyncExitStack() as stack:
            stack.callback(leaving.set)
            for start in starts:
                ready = threading.Event()
                pool.submit(start, ready)
                assert await asyncio.to_thread(ready.wait, PATIENCE), "a worker does not start"
            await stack.enter_async_context(app.worker(concurrency=2))
            made = await asyncio.gather(*(by_twins(app, send, f"{n}") for n in range(4)))
    assert len({one for ids in made for one in ids}) == 24
    await asyncio.to_thread(app.close)


@pytest.mark.parametrize("times", [5])
def test_a_loop_for_each_test_that_opens_and_closes_the_app(
    app: Holdfast, send: SyncTask[..., str], times: int
) -> None:
    """As a test suite does, with a fixture that is `async with jobs`."""

    async def one(n: int) -> int:
        async with app:
            await send.aenqueue(str(n))
            return len([status async for status in app.afind(task="shop.send")])

    assert [asyncio.run(one(n)) for n in range(times)] == list(range(1, times + 1))


def test_a_loop_that_ends_in_the_middle_of_a_call_harms_no_other(app: Holdfast, send: SyncTask[..., str]) -> None:
    async def left() -> None:
        asyncio.get_running_loop().create_task(send.aenqueue("left"))  # nobody waits for it
        await asyncio.sleep(0)

    for _ in range(5):
        asyncio.run(left())
    with app.worker():
        assert asyncio.run(by_twins(app, send, "after"))
