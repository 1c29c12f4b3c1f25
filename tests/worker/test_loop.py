"""The loop: signals, and steps that are repeated, never cut short, and outlive their errors."""

import asyncio
import logging
from collections.abc import Callable

import pytest

from holdfast.errors import StoreAway, StoreError
from holdfast.worker import loop as loops
from holdfast.worker.loop import BACKOFF_FIRST, BACKOFF_MOST, Signal, Trouble, repeat, unless
from tests.worker.rig import events, fields, soon, until

HOUR = 3600.0


@pytest.fixture
def no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loops, "BACKOFF_FIRST", 0.0)


# --- signals


async def test_a_signal_that_is_set_stays_set() -> None:
    signal = Signal()
    assert not signal
    signal.set()
    signal.set()
    assert signal
    assert [await signal.wait(None), await signal.wait(0), await signal.wait(HOUR)] == [True, True, True]


async def test_setting_a_signal_wakes_all_who_wait() -> None:
    signal = Signal()
    waiting = [asyncio.create_task(signal.wait(limit)) for limit in (None, None, HOUR)]
    await asyncio.sleep(0)
    signal.set()
    assert await soon(asyncio.gather(*waiting), "a waiter was not woken") == [True, True, True]


async def test_a_poke_wakes_those_who_wait_once_and_sets_nothing() -> None:
    signal = Signal()
    signal.poke()  # nobody waits: it is not kept for later
    waiting = [asyncio.create_task(signal.wait(None)) for _ in range(3)]
    await asyncio.sleep(0)
    assert not any(waiter.done() for waiter in waiting)
    signal.poke()
    signal.poke()
    assert await soon(asyncio.gather(*waiting), "a waiter was not woken") == [False, False, False]
    assert not signal


async def test_a_wait_ends_with_its_time() -> None:
    signal = Signal()
    assert await soon(signal.wait(0.001), "it waits beyond its time") is False
    for nothing in (0, -1):
        assert await soon(signal.wait(nothing), "it waits though there is no time") is False


@pytest.mark.parametrize("limit", [None, 0, HOUR])
async def test_a_wait_that_need_not_wait_lets_others_go_on(limit: float | None) -> None:
    signal = Signal()
    signal.set()
    others = 0

    async def other() -> None:
        nonlocal others
        others += 1

    task = asyncio.create_task(other())
    await signal.wait(limit)
    assert others == 1
    await task


async def test_a_waiter_that_leaves_is_forgotten() -> None:
    signal = Signal()
    leaving, staying = (asyncio.create_task(signal.wait(None)) for _ in range(2))
    await asyncio.sleep(0)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    signal.set()
    assert await soon(staying, "the other waiter was not woken") is True


# --- a hint that may be cut


async def test_a_hint_is_waited_for() -> None:
    async def hint() -> bool:
        await asyncio.sleep(0)
        return True

    assert await soon(unless(Signal(), hint()), "the hint is not heard") is True


@pytest.mark.parametrize("how", [Signal.set, Signal.poke])
async def test_a_hint_is_left_when_the_worker_stops(how: Callable[[Signal], None]) -> None:
    stopping, left, before = Signal(), asyncio.Event(), asyncio.all_tasks()

    async def hint() -> bool:
        try:
            await asyncio.Event().wait()
        finally:
            left.set()
        return True

    waiting = asyncio.create_task(unless(stopping, hint()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    how(stopping)
    assert await soon(waiting, "the hint is not left") is False
    assert left.is_set()
    assert asyncio.all_tasks() == before, "something is left behind"


async def test_a_hint_that_fails_says_so() -> None:
    before = asyncio.all_tasks()

    async def hint() -> bool:
        raise StoreAway("away")

    with pytest.raises(StoreAway):
        await soon(unless(Signal(), hint()), "it waits for a hint that has failed")
    assert asyncio.all_tasks() == before, "something is left behind"


async def test_a_hint_that_fails_while_it_is_left_is_of_no_interest() -> None:
    stopping = Signal()

    async def hint() -> bool:
        try:
            await asyncio.Event().wait()
        finally:
            raise StoreAway("closed in my face")

    waiting = asyncio.create_task(unless(stopping, hint()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    stopping.set()
    assert await soon(waiting, "it does not leave") is False


# --- repeating


async def test_a_step_is_repeated_after_the_delay_that_it_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    stopping, delays = Signal(), [0.5, 0.0, 7.0]
    waited: list[float | None] = []

    async def wait(self: Signal, seconds: float | None) -> bool:
        waited.append(seconds)
        if len(waited) == 3:
            stopping.set()
        return bool(self)

    async def step() -> float:
        return delays[len(waited)]

    monkeypatch.setattr(Signal, "wait", wait)
    await soon(repeat("role", step, stopping), "it goes on for ever")
    assert waited == delays


async def test_a_delay_is_cut_when_the_worker_stops() -> None:
    stopping, steps = Signal(), 0

    async def step() -> float:
        nonlocal steps
        steps += 1
        return HOUR

    running = asyncio.create_task(repeat("role", step, stopping))
    await until(lambda: steps, "the first step is not made")
    stopping.set()
    await soon(running, "it waits for the end of the delay")
    assert steps == 1


async def test_a_step_is_never_cut_short() -> None:
    stopping, begun, go, ended = Signal(), asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def step() -> float:
        begun.set()
        await go.wait()
        ended.set()
        return HOUR

    running = asyncio.create_task(repeat("role", step, stopping))
    await soon(begun.wait(), "the step does not begin")
    stopping.set()
    for _ in range(20):
        await asyncio.sleep(0)
    assert not running.done()
    go.set()
    await soon(running, "it does not end after its step")
    assert ended.is_set()


async def test_nothing_is_begun_once_the_worker_stops() -> None:
    stopping = Signal()
    stopping.set()

    async def step() -> float:
        pytest.fail("a step was begun")

    await soon(repeat("role", step, stopping), "it does not end")


@pytest.mark.usefixtures("no_backoff")
async def test_a_store_that_is_away_is_told_once_and_told_again_when_it_is_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stopping, steps = Signal(), 0

    async def step() -> float:
        nonlocal steps
        steps += 1
        if steps in (2, 3, 4, 7):
            raise StoreAway(f"cannot reach the store: {steps}")
        if steps == 9:
            stopping.set()
        return 0

    with caplog.at_level(logging.WARNING, "holdfast"):
        await soon(repeat("fetcher", step, stopping), "it goes on for ever")
    assert events(caplog) == ["store-away", "store-back", "store-away", "store-back"]
    assert [told["error"] for told in fields(caplog, "store-away")] == [
        "cannot reach the store: 2",
        "cannot reach the store: 7",
    ]
    assert [told["tries"] for told in fields(caplog, "store-back")] == [3, 1]
    assert {told["role"] for event in ("store-away", "store-back") for told in fields(caplog, event)} == {"fetcher"}


@pytest.mark.usefixtures("no_backoff")
@pytest.mark.parametrize("error", [KeyError("a bug of ours"), StoreError("the store refused")])
async def test_a_role_outlives_whatever_its_step_meets(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    stopping, steps = Signal(), 0

    async def step() -> float:
        nonlocal steps
        steps += 1
        if steps == 5:
            stopping.set()
            return 0
        raise error

    with caplog.at_level(logging.WARNING, "holdfast"):
        await soon(repeat("fetcher", step, stopping), "it goes on for ever")
    assert steps == 5
    assert events(caplog, "step-failed") == ["step-failed"]
    assert [record.exc_info[1] for record in caplog.records if record.exc_info] == [error], "the traceback is missing"


async def test_a_cancelled_loop_ends() -> None:
    async def step() -> float:
        await asyncio.Event().wait()
        return 0

    running = asyncio.create_task(repeat("role", step, Signal()))
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


def test_the_pauses_after_errors_double_up_to_a_third_of_the_lease() -> None:
    for _ in range(20):
        trouble = Trouble("fetcher")
        for tries in range(40):
            pause = trouble.again(StoreAway("away"))
            nominal = min(BACKOFF_FIRST * 2**tries, BACKOFF_MOST)
            assert nominal / 2 <= pause <= nominal
    assert BACKOFF_MOST <= 5


def test_after_a_good_step_the_pauses_begin_anew() -> None:
    trouble = Trouble("fetcher")
    for _ in range(10):
        trouble.again(StoreAway("away"))
    trouble.over()
    assert trouble.again(StoreAway("away")) <= BACKOFF_FIRST
