"""One watch for all who wait: begun anew for newcomers, paused in proportion, gone with the last of them."""

import asyncio
from collections.abc import Sequence
from contextlib import ExitStack
from uuid import UUID, uuid4

import pytest

from holdfast.client import vigil
from holdfast.client.vigil import Vigil
from holdfast.errors import StoreAway

PATIENCE = 30


class Watched:
    """A store that keeps who watches for what, and hints when it is told to."""

    def __init__(self) -> None:
        self.watches: list[frozenset[UUID]] = []
        self.now = 0  # watches that go on
        self.hint = asyncio.Event()
        self.changed = asyncio.Event()

    async def watch(self, ids: Sequence[UUID], timeout: float) -> bool:
        assert len(set(ids)) == len(ids)
        self.watches.append(frozenset(ids))
        self.now += 1
        self.changed.set()
        try:
            await asyncio.wait_for(self.hint.wait(), timeout)
        finally:
            self.now -= 1
            self.changed.set()
        self.hint.clear()
        return True

    async def watching(self, ids: set[UUID]) -> None:
        """Returns when just these are watched for."""
        async with asyncio.timeout(PATIENCE):
            while (self.watches[-1] if self.now else set()) != ids:
                self.changed.clear()
                await self.changed.wait()


async def test_all_share_one_watch_and_wake_together() -> None:
    store = Watched()
    kept = Vigil(store)
    one, two = uuid4(), uuid4()
    with kept.of(one) as first, kept.of(two) as second, kept.of(one) as third:
        hinted = [asyncio.create_task(waiting.hinted(PATIENCE)) for waiting in (first, second, third)]
        await store.watching({one, two})
        assert store.now == 1
        store.hint.set()
        assert await asyncio.gather(*hinted) == [True, True, True]
    await kept.close()


async def test_a_newcomer_is_watched_for_at_once_and_who_has_left_is_not() -> None:
    store = Watched()
    kept = Vigil(store)
    one, two = uuid4(), uuid4()
    with kept.of(one) as first:
        waits = asyncio.create_task(first.hinted(PATIENCE))
        await store.watching({one})
        with kept.of(two) as second:
            comes = asyncio.create_task(second.hinted(PATIENCE))
            await store.watching({one, two})
            comes.cancel()
        store.hint.set()
        assert await waits is True
        waits = asyncio.create_task(first.hinted(PATIENCE))
        await store.watching({one})
        waits.cancel()
    await store.watching(set())
    await kept.close()


async def test_a_hint_that_comes_while_one_looks_is_not_lost() -> None:
    store = Watched()
    kept = Vigil(store)
    one = uuid4()
    with kept.of(one) as waiting:
        assert await waiting.hinted(0.01) is False
        await store.watching({one})  # it looks now
        store.hint.set()
        assert await waiting.hinted(PATIENCE) is True
    await kept.close()


async def test_who_waits_needs_no_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    class Away(Watched):
        async def watch(self, ids: Sequence[UUID], timeout: float) -> bool:
            self.watches.append(frozenset(ids))
            raise StoreAway("away")

    monkeypatch.setattr(vigil, "AWAY_PAUSE", 0.0)
    store = Away()
    kept = Vigil(store)
    with kept.of(uuid4()) as waiting:
        for _ in range(3):
            assert await waiting.hinted(0.05) is False
    assert len(store.watches) >= 2, "it does not try again"
    await kept.close()


async def test_many_who_wait_pause_between_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def paused(seconds: float) -> None:
        pauses.append(seconds)
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", paused)
    store = Watched()
    kept = Vigil(store)
    with ExitStack() as stack:
        entered = [stack.enter_context(kept.of(uuid4())) for _ in range(200)]
        waits = [asyncio.create_task(one.hinted(PATIENCE)) for one in entered]
        await store.watching({one.id for one in entered})
        store.hint.set()
        assert all(await asyncio.gather(*waits))
    await kept.close()
    assert max(pauses) == pytest.approx(200 * vigil.EACH)
