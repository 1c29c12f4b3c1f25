"""A store of a test's own, in place of the app's: everything goes there, and afterwards nothing does."""

import asyncio
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from holdfast import Holdfast, QueueFull
from holdfast.app import parts_of
from holdfast.clock import FakeClock
from holdfast.job import Draft, Record
from holdfast.store import Receipt
from holdfast.stores.memory import MemoryStore


class HangsError(Exception):
    """What such a test gets instead of waiting for ever."""


def unfinished(record: Record) -> BaseException:
    return HangsError(f"{record.id} is {record.state}")


@pytest.fixture
def jobs(tmp_path: Path) -> Holdfast:
    """An app whose own store could not even be opened."""
    return Holdfast(f"sqlite:///{tmp_path}/no/such/folder/jobs.db")


async def opened(clock: FakeClock) -> MemoryStore:
    store = MemoryStore(clock)
    await store.open()
    return store


def test_everything_goes_to_the_stand_in_without_a_thread(jobs: Holdfast) -> None:
    clock = FakeClock()
    store = asyncio.run(opened(clock))
    send = jobs.task(name="shop.send")(lambda to: to)
    threads = threading.active_count()
    with parts_of(jobs).link.stand_in(store, clock, unfinished):
        job = send.enqueue("ann")
        assert job.status().state == "queued"
        assert [status.id for status in jobs.find(task="shop.send")] == [job.id]
        with pytest.raises(HangsError, match=f"{job.id} is queued"):
            job.result()
        assert job.cancel("not wanted")
        assert jobs.retry(task="shop.send") == 1
        assert parts_of(jobs).operating.stats().queues[0].counts == {"queued": 1}
        with jobs:
            assert jobs.delete(task="shop.send") == 1
        assert parts_of(jobs).link.clock is clock
        assert threading.active_count() == threads


async def test_the_twins_go_there_on_the_callers_loop(jobs: Holdfast) -> None:
    clock = FakeClock()
    store = await opened(clock)
    send = jobs.task(name="shop.send")(lambda to: to)
    with parts_of(jobs).link.stand_in(store, clock, unfinished):
        job = await send.aenqueue("ann")
        assert (await job.astatus()).state == "queued"
        assert [status.id async for status in jobs.afind(task="shop.send")] == [job.id]
        with pytest.raises(HangsError):
            await job.aresult()
        async with jobs:
            assert await jobs.adelete(task="shop.send") == 1


class Taking(MemoryStore):
    """Takes any connection, and remembers it."""

    taken: tuple[object, ...] = ()

    async def enqueue(self, jobs: Sequence[Draft], connection: object = None, *more: object) -> Sequence[Receipt]:
        self.taken += (connection,)
        return await super().enqueue(jobs)


async def test_a_connection_is_the_stand_ins_to_take(jobs: Holdfast) -> None:
    clock = FakeClock()
    store, connection = Taking(clock), object()
    send = jobs.task(name="shop.send")(lambda to: to)
    with parts_of(jobs).link.stand_in(store, clock, unfinished):
        assert (await send.using(connection=connection).aenqueue("ann")).created
        assert len(await jobs.aenqueue_many([send.bind("bob")], connection=connection)) == 1
        assert await asyncio.to_thread(send.using(connection=connection).enqueue, "cy")
        assert store.taken == (connection, connection, connection)


def test_what_was_before_is_afterwards_also_when_nested(tmp_path: Path) -> None:
    jobs = Holdfast("memory://")
    send = jobs.task(name="shop.send")(lambda to: to)
    clock = FakeClock()

    def count() -> int:
        return len(list(jobs.find(task="shop.send")))

    with jobs:
        send.enqueue("real")
        with parts_of(jobs).link.stand_in(asyncio.run(opened(clock)), clock, unfinished):
            assert count() == 0
            jobs.enqueue_many([send.bind("outer"), send.bind("outer")])
            inner = parts_of(jobs).link.stand_in(asyncio.run(opened(clock)), clock, unfinished)
            inner.__enter__()
            jobs.enqueue_many([send.bind(str(n)) for n in range(3)])
            assert count() == 3
            with suppress(ZeroDivisionError):
                inner.__exit__(ZeroDivisionError, ZeroDivisionError(), None)
            assert count() == 2, "it ends with an error as it ends without"
        assert count() == 1
        assert [status.enqueued_at.year for status in jobs.find(task="shop.send")] != [2027], "the real clock again"


def test_a_full_queue_of_a_stand_in_makes_nobody_wait(jobs: Holdfast) -> None:
    clock = FakeClock()
    send = jobs.task(name="shop.send", queue="mail")(lambda to: to)
    jobs.queue("mail", max_size=1, when_full="block")
    for _ in range(2):  # each is told of the declaration
        with parts_of(jobs).link.stand_in(asyncio.run(opened(clock)), clock, unfinished):
            send.enqueue("first")
            with pytest.raises(QueueFull, match="here nothing runs meanwhile"):
                send.enqueue("late")
