"""The laws of watch: a hint that one of some jobs has ended, from whatever thread it comes."""

import asyncio
from uuid import UUID, uuid4

import pytest

from holdfast.clock import MINUTE
from holdfast.job import Until
from holdfast.store import Store
from tests.store.acts import BOOM, ENDS, PATIENCE, Way, bound, draft, elsewhere, finish, hand, running, stored


async def _begun(store: Store, ids: list[UUID]) -> asyncio.Task[bool]:
    """A watch that has looked and found that nothing has ended."""
    waiting = asyncio.create_task(store.watch(ids, PATIENCE))
    done, _ = await asyncio.wait([waiting], timeout=0.05)
    assert not done, f"watch returned {waiting.result()} though no job had ended"
    return waiting


async def _woken(waiting: asyncio.Task[bool]) -> bool:
    async with asyncio.timeout(PATIENCE):
        return await waiting


@pytest.mark.parametrize("timeout", [0, 0.01])
async def test_without_a_hint_it_ends_with_its_timeout(store: Store, timeout: float) -> None:
    [queued] = await stored(store, draft())
    job = await running(store, await hand(store))
    async with asyncio.timeout(PATIENCE):
        assert await store.watch([queued, job.id], timeout) is False
        assert await store.watch([], timeout) is False


@pytest.mark.parametrize("way", ENDS.values(), ids=ENDS)
async def test_every_end_is_a_hint_and_what_has_ended_is_one_at_once(store: Store, way: Way) -> None:
    [job_id, other] = await stored(store, draft(), draft(queue="other"))
    waiting = await _begun(store, [other, job_id])
    stranger = await _begun(store, [other])
    await elsewhere(lambda twin: way(twin, job_id), store)
    assert await _woken(waiting) is True
    async with asyncio.timeout(PATIENCE):
        assert await store.watch([other, job_id], 10 * PATIENCE) is True
    stranger.cancel()


async def test_an_end_by_its_time_and_a_drop_are_hints(store: Store) -> None:
    await bound(store, 2, "drop_oldest")
    [dropped, mortal] = await stored(store, draft(), draft(expires=Until(5)))
    waiting = [await _begun(store, [job]) for job in (dropped, mortal)]
    await stored(store, draft())
    assert await _woken(waiting[0]) is True
    store.shift += MINUTE
    await store.promote(10)
    assert await _woken(waiting[1]) is True


async def test_what_is_gone_is_a_hint(store: Store) -> None:
    [job_id, kept] = await stored(store, draft(), draft())
    waiting = await _begun(store, [kept, job_id])
    await store.delete([job_id])
    assert await _woken(waiting) is True
    async with asyncio.timeout(PATIENCE):
        assert await store.watch([kept, job_id], 10 * PATIENCE) is True
        assert await store.watch([uuid4()], 10 * PATIENCE) is True


async def test_a_job_that_goes_on_is_watched_until_it_ends(store: Store) -> None:
    worker = await hand(store)
    job = await running(store, worker)
    waiting = await _begun(store, [job.id])
    await finish(store, job, BOOM)
    again = await _begun(store, [job.id])
    await store.cancel([job.id])
    assert [await _woken(each) for each in (waiting, again)] == [True, True]


async def test_many_watch_one_job_and_one_who_gave_up_is_forgotten(store: Store) -> None:
    [job_id, other] = await stored(store, draft(), draft())
    waiting = [await _begun(store, [job_id, other] if n else [job_id]) for n in range(3)]
    gone = await _begun(store, [job_id])
    gone.cancel()
    await asyncio.wait([gone], timeout=PATIENCE)
    await store.cancel([job_id])
    assert [await _woken(each) for each in waiting] == [True] * 3
    assert await store.watch([other], 0.01) is False
