"""The laws of wait: a hint that something can be claimed, from whatever thread it comes."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from holdfast.clock import MINUTE
from holdfast.job import Released, Until
from holdfast.store import Store
from tests.store.acts import FINAL_BOOM, PATIENCE, answer, draft, elsewhere, ended, finish, hand, keyed, running, stored

Act = Callable[[Store], Awaitable[object]]


async def _enqueue(_: Store) -> Act:
    return lambda store: stored(store, draft())


async def _promote(store: Store) -> Act:
    await stored(store, draft(delay=MINUTE))
    store.shift += MINUTE
    return lambda store: store.promote(10)


async def _release(store: Store) -> Act:
    job = await running(store, await hand(store), queue="mail")
    return lambda store: finish(store, job, Released())


async def _retry(store: Store) -> Act:
    job_id = await ended(store, await hand(store), FINAL_BOOM, queue="mail")
    return lambda store: store.retry([job_id])


async def _replace(store: Store) -> Act:
    await stored(store, keyed(delay=MINUTE))
    return lambda store: answer(store, keyed(on_clash="replace"))


async def _resume(store: Store) -> Act:
    await store.pause("mail")
    await stored(store, draft())
    return lambda store: store.resume("mail")


ACTS = {
    "enqueue": _enqueue,
    "promote": _promote,
    "release": _release,
    "retry": _retry,
    "replace": _replace,
    "resume": _resume,
}
every_act = pytest.mark.parametrize("prepare", ACTS.values(), ids=ACTS)


async def _begun(store: Store, queues: list[str] | None) -> asyncio.Task[bool]:
    """A wait that has looked and found nothing."""
    waiting = asyncio.create_task(store.wait(queues, PATIENCE))
    done, _ = await asyncio.wait([waiting], timeout=0.05)
    assert not done, f"wait returned {waiting.result()} though nothing was queued"
    return waiting


async def _woken(waiting: asyncio.Task[bool]) -> bool:
    async with asyncio.timeout(PATIENCE):
        return await waiting


@pytest.mark.parametrize("timeout", [0, 0.01])
async def test_without_a_hint_it_ends_with_its_timeout(store: Store, timeout: float) -> None:
    async with asyncio.timeout(PATIENCE):
        assert await store.wait(None, timeout) is False
        assert await store.wait(["mail"], timeout) is False


@pytest.mark.parametrize("queues", [None, ["mail"], ["other", "mail"]])
async def test_what_is_queued_already_is_a_hint_at_once(store: Store, queues: list[str] | None) -> None:
    """Else a job that came between an empty claim and the wait would lie for the whole of it."""
    await stored(store, draft())
    async with asyncio.timeout(PATIENCE):
        assert await store.wait(queues, 10 * PATIENCE) is True


@pytest.mark.parametrize("queues", [None, ["other", "mail"]])
async def test_what_is_queued_in_a_paused_queue_is_no_hint(store: Store, queues: list[str] | None) -> None:
    """Else a worker would claim in vain without end."""
    await stored(store, draft())
    await store.pause("mail", Until(5))
    async with asyncio.timeout(PATIENCE):
        assert await store.wait(queues, 0.05) is False
        store.shift += 5
        assert await store.wait(queues, 10 * PATIENCE) is True
        await store.pause("mail")
        [fast] = await stored(store, draft(queue="fast"))
        assert await store.wait(queues, 0) is (queues is None)
        assert [job.id for job in await (await hand(store)).claim()] == [fast]


@every_act
@pytest.mark.parametrize("queues", [None, ["other", "mail"]])
async def test_whatever_queues_a_job_wakes_a_waiter(
    store: Store, prepare: Callable[[Store], Awaitable[Act]], queues: list[str] | None
) -> None:
    act = await prepare(store)
    waiting = await _begun(store, queues)
    await act(store)
    assert await _woken(waiting)


@every_act
async def test_it_is_heard_from_another_thread_and_loop(
    store: Store, prepare: Callable[[Store], Awaitable[Act]]
) -> None:
    act = await prepare(store)
    waiting = await _begun(store, None)
    await elsewhere(act, store)
    assert await _woken(waiting)


async def test_a_twin_on_another_loop_hears_what_happens_here(store: Store) -> None:
    waiting = asyncio.create_task(elsewhere(lambda twin: twin.wait(["mail"], PATIENCE), store))
    await stored(store, draft())
    assert await _woken(waiting)


async def test_all_waiters_of_a_queue_are_woken(store: Store) -> None:
    waiting = [await _begun(store, ["mail"]) for _ in range(3)]
    await stored(store, draft())
    assert [await _woken(task) for task in waiting] == [True] * 3


async def test_a_cancelled_wait_leaves_the_others(store: Store) -> None:
    gone, waiting = await _begun(store, None), await _begun(store, None)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    await stored(store, draft())
    assert await _woken(waiting)


async def test_a_waiter_whose_loop_is_gone_disturbs_nobody(store: Store) -> None:
    async def give_up(twin: Store) -> None:
        waiting = asyncio.create_task(twin.wait(None, PATIENCE))
        await asyncio.wait([waiting], timeout=0.01)
        waiting.cancel()

    await elsewhere(give_up, store)
    waiting = await _begun(store, None)
    await stored(store, draft())
    assert await _woken(waiting)


async def test_calls_go_on_while_one_waits(store: Store) -> None:
    waiting = await _begun(store, ["mail"])
    async with asyncio.timeout(PATIENCE):
        await stored(store, draft(queue="other"))
        assert len(await (await hand(store)).claim(1, ["other"])) == 1
    await stored(store, draft())
    assert await _woken(waiting)
