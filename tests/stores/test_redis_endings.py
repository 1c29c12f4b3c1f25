"""On Redis: jobs whose time is over, queues that are paused, and those who wait for the end of a job."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis import Redis

from holdfast.clock import DAY, HOUR, MINUTE, SECOND
from holdfast.job import Succeeded, Until
from holdfast.store import Store
from holdfast.stores import open_store
from tests import servers
from tests.servers.prefixes import Prefix
from tests.store.acts import PATIENCE, draft, finish, hand, running, stored
from tests.store.backends import STANDS_STILL
from tests.stores.indexes import wrongs

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]


@pytest.fixture
def prefix() -> Iterator[Prefix]:
    with servers.valkey().bare() as prefix:
        yield prefix
        assert wrongs(prefix) == []


@asynccontextmanager
async def process(prefix: Prefix) -> AsyncIterator[Store]:
    store = open_store(prefix.url)
    store._place.clock = STANDS_STILL  # type: ignore[attr-defined]  # noqa: SLF001
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def _until(holds: Callable[[], Any]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not holds():  # noqa: ASYNC110  # another process's doing
            await asyncio.sleep(0.01)


def keys(prefix: Prefix) -> set[str]:
    """Of the queue mail, without what stands before their names."""
    with Redis.from_url(prefix.server, decode_responses=True) as redis:
        base = f"{{{prefix.name}:mail}}:"
        return {key.removeprefix(base) for key in redis.scan_iter(f"{base}*", count=1000)}


@pytest.mark.parametrize(("over", "limit"), [(90, 2), (700, 2), (700, 250)])
async def test_behind_jobs_whose_time_is_over_others_are_found(prefix: Prefix, over: int, limit: int) -> None:
    """At once, where they are some hundreds; else when the next promote has ended them."""
    async with process(prefix) as store:
        worker = await hand(store)
        await stored(store, *(draft(expires=Until(SECOND), priority=1) for _ in range(over)))
        ids = await stored(store, draft(), draft(deadline=Until(HOUR)))
        store.shift += SECOND
        jobs = await worker.claim(limit, ["mail"])
        assert [job.id for job in jobs] == (ids if over < 500 else [])
        assert (len((await store.promote(1000)).over), (await store.promote(10)).next_in) == (
            over,
            None if jobs else HOUR - SECOND,
        )
        assert len(jobs + await worker.claim(limit, ["mail"])) == 2


async def test_what_an_older_program_leaves_in_the_index_of_ends_goes_and_ends_nothing(prefix: Prefix) -> None:
    async with process(prefix) as store:
        worker = await hand(store)
        job = await running(store, worker, queue="mail")
        [later] = await stored(store, draft(deadline=Until(HOUR)))
        with Redis.from_url(prefix.server) as redis:
            ends = f"{{{prefix.name}:mail}}:ends"
            redis.zadd(ends, {str(job.id): 0, "nobody": 0, str(later): 5})
            promoted = await store.promote(10)
            assert (promoted.moved, list(promoted.over)) == (0, [])
            assert [member for member, _ in redis.zrange(ends, 0, -1, withscores=True)] == [str(later).encode()]
        assert (await store.promote(10)).next_in == HOUR


async def test_the_name_of_a_paused_queue_is_kept_until_the_pause_is_over(prefix: Prefix) -> None:
    async with process(prefix) as store:
        await store.pause("mail", Until(2 * DAY))
        await store.prune(10)
        assert [queue.name for queue in await store.queues()] == ["mail"]
        store.shift += 3 * DAY
        await store.prune(10)
        assert list(await store.queues()) == []
        assert keys(prefix) == set(), "nothing is left of it"


async def test_a_queue_that_is_paused_rings_for_nobody_and_a_resume_for_all(prefix: Prefix) -> None:
    async with process(prefix) as store, process(prefix) as other:
        await store.pause("mail")
        waiting = asyncio.create_task(other.wait(["mail"], PATIENCE))
        with Redis.from_url(prefix.server, decode_responses=True) as redis, redis.pubsub() as heard:
            heard.subscribe(f"{{{prefix.name}}}:wake")
            assert heard.get_message(timeout=PATIENCE)
            await _until(lambda: redis.exists(f"{{{prefix.name}:mail}}:idle"))
            await stored(store, draft())
            assert not waiting.done()
            assert await store.resume("mail")
            async with asyncio.timeout(PATIENCE):
                assert await waiting is True
            messages = []
            while message := heard.get_message(timeout=0.05):
                messages.append(message["data"])
        assert [message for message in messages if not message.startswith("?")] == ["mail"], "one, for the resume"


async def test_who_ends_a_job_tells_of_it_where_somebody_watches_and_else_looks_at_nothing(prefix: Prefix) -> None:
    async with process(prefix) as store, process(prefix) as other:
        worker = await hand(store)
        first, second, third = [await running(store, worker, queue="mail") for _ in range(3)]
        watching = asyncio.create_task(other.watch([first.id, second.id], PATIENCE))
        with Redis.from_url(prefix.server, decode_responses=True) as redis:
            watched = f"{{{prefix.name}:mail}}:watched"
            await _until(lambda: redis.zcard(watched))
            await finish(store, third, Succeeded(b"1"))
            assert not watching.done()
            await finish(store, first, Succeeded(b"1"))
            async with asyncio.timeout(PATIENCE):
                assert await watching is True
            assert redis.zrange(watched, 0, -1) == [str(second.id)], "who has ended is on the list no more"
            store.shift += MINUTE
            await finish(store, second, Succeeded(b"1"))
            assert redis.zcard(watched) == 1, "nobody watches any more, and nobody looks at the list"
        store.shift += 3 * DAY
        await store.prune(10)
        await store.prune(10)
        assert keys(prefix) == set(), "nothing is left of it"


async def test_who_watches_later_is_told_when_the_first_ones_time_is_over(prefix: Prefix) -> None:
    async with process(prefix) as store, process(prefix) as other:
        job = await running(store, await hand(store), queue="mail")
        for _ in range(2):
            assert await other.watch([job.id], 0) is False  # for five seconds somebody is told
            other.shift += 4 * SECOND
        store.shift += 7 * SECOND
        await finish(store, job, Succeeded(b"1"))
        with Redis.from_url(prefix.server) as redis:
            assert redis.zcard(f"{{{prefix.name}:mail}}:watched") == 0, "nobody was told"
