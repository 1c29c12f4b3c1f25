"""What is special to the memory store: what it refuses, its threads, and that it stays quick when much is queued."""

import asyncio
import time

import pytest

from holdfast.clock import FakeClock
from holdfast.errors import ConfigError
from holdfast.job import Draft, QueueTerms, Terms, new_id
from holdfast.store import Where
from holdfast.stores.memory import MemoryStore


def _draft(priority: int = 0) -> Draft:
    return Draft(new_id(), "shop.send", "mail", b"[]", Terms(), priority=priority)


async def test_a_connection_is_refused_with_the_reason_and_a_way_out() -> None:
    class Session: ...

    store = MemoryStore(FakeClock())
    with pytest.raises(ConfigError, match=r"connection=.*Session.*in this process.*outbox.*sqlite:///path"):
        await store.enqueue([_draft()], connection=Session())
    assert await store.find(Where()) == []


def test_jobs_outlive_the_event_loop_that_stored_them() -> None:
    store = MemoryStore(FakeClock())
    draft = _draft()
    asyncio.run(store.enqueue([draft]))
    [found] = asyncio.run(store.find(Where()))
    assert found.id == draft.id


async def test_a_claim_does_not_sort_all_that_is_queued() -> None:
    """A claim of 100 from 40,000 must cost about what it costs from 400; sorting them all would be 100 times it."""
    took = {size: await _quickest_claim(size) for size in (400, 40_000)}
    assert took[40_000] < 20 * took[400], took


async def _quickest_claim(size: int) -> float:
    """The best of three: a garbage collection in one of them is nobody's fault."""
    store, worker = MemoryStore(FakeClock()), new_id()
    await store.enqueue([_draft(priority=n % 7) for n in range(size)])
    await store.register(worker, None, {})
    took = []
    for ticket in (1, 2, 3):
        begin = time.perf_counter()
        claims = await store.claim(worker, ticket, None, 100)
        took.append(time.perf_counter() - begin)
        assert len(claims.jobs) == 100
    return min(took)


async def test_a_drop_does_not_look_at_all_that_is_queued() -> None:
    """To drop the oldest of 50,000 jobs must cost about what it costs among 500."""
    took = {size: await _quickest_drop(size) for size in (500, 50_000)}
    assert took[50_000] < 20 * took[500], took


async def _quickest_drop(size: int) -> float:
    store = MemoryStore(FakeClock())
    await store.configure({"mail": QueueTerms(size, "drop_oldest")}, by="worker")
    await store.enqueue([_draft() for _ in range(size + 1)])  # the first drop may look at all
    took = []
    for _ in range(3):
        begin = time.perf_counter()
        receipts = await store.enqueue([_draft() for _ in range(100)])
        took.append(time.perf_counter() - begin)
        assert all(receipt.dropped for receipt in receipts)
    return min(took)
