"""The pulse: proves that loop and threads go on, and names the handler that blocks the loop."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from holdfast.app import parts_of
from holdfast.clock import SystemClock
from holdfast.worker.blackbox import BlackBox
from tests.worker.rig import Shop, fields, until


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    it = Shop(SystemClock())
    yield it
    await it.stop()


async def test_both_pulses_go_on_while_the_worker_lives(shop: Shop) -> None:
    worker = await shop.started()
    box: BlackBox = worker._box  # noqa: SLF001
    first = box.pulses
    await until(lambda: all(now > then for now, then in zip(box.pulses[:2], first, strict=False)), "no pulse")
    assert box.pulses[2] == 0.0, "nothing waits to be written"


async def test_an_outcome_that_cannot_be_written_is_seen_to_wait(shop: Shop) -> None:
    @shop.task
    async def send() -> None: ...

    worker = await shop.started()
    shop.store.away("finish")
    await send.aenqueue()
    await until(lambda: worker._box.pulses[2], "its waiting is not to be seen")  # noqa: SLF001
    shop.store.back()
    await until(lambda: not worker._box.pulses[2], "it waits no more")  # noqa: SLF001


async def test_a_handler_that_blocks_the_loop_is_named_with_its_place(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[object] = []

    @shop.task
    async def send() -> None:
        end = time.monotonic() + 15
        while not told and time.monotonic() < end:  # blocks until it was named
            time.sleep(0.01)  # noqa: ASYNC251
            told.extend(fields(caplog, "loop-blocked"))

    await shop.started()
    job = await send.aenqueue()
    await job.aresult(timeout=15)
    (line, *_) = fields(caplog, "loop-blocked")
    assert line["job"] == job.id
    assert line["task"] == "send"
    assert "test_pulse.py" in line["at"]
    assert line["blocked"] >= 1
    await until(lambda: fields(caplog, "loop-goes-on"), "its end is not told")


async def test_a_loop_that_waits_is_not_blocked(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    @shop.task
    async def send() -> None:
        await asyncio.sleep(2.5)

    await shop.started()
    await (await send.aenqueue()).aresult(timeout=15)
    assert fields(caplog, "loop-blocked") == []


async def test_a_child_whose_supervisor_is_silent_beats_for_itself(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    from uuid import uuid4

    box = BlackBox.made(10)
    worker = await shop.started(supervisor=uuid4(), box=box)
    assert worker._keeper is None  # noqa: SLF001
    lease = box.beaten[1]
    before = shop.store.times("beat")
    worker._clock = _Later(parts_of(shop.jobs).link.clock, lease / 2 + 1)  # type: ignore[assignment]  # noqa: SLF001
    await until(lambda: shop.store.times("beat") > before, "it does not beat")
    assert fields(caplog, "beats-stay-away")


class _Later:
    """A clock that is ahead."""

    def __init__(self, clock: object, seconds: float) -> None:
        self._clock = clock
        self._seconds = seconds

    def monotonic(self) -> float:
        return time.monotonic() + self._seconds

    def __getattr__(self, name: str) -> object:
        return getattr(self._clock, name)


async def test_a_pulse_outlives_whatever_it_meets(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    worker = await shop.started()
    met: list[int] = []

    def broken() -> None:
        met.append(1)
        raise RuntimeError("can't start new thread")

    worker._pulse._each = broken  # noqa: SLF001
    await until(lambda: len(met) > 1, "it has ended")
    assert caplog.text.count("a bug in the pulse") == 1, "it is told once"
    before = worker._box.pulses  # noqa: SLF001
    await until(lambda: min(worker._box.pulses[:2]) > max(before[:2]), "no pulse any more")  # noqa: SLF001
