"""The loop: signals, and steps that are repeated, never cut short, and outlive their errors."""

import asyncio
import logging
from collections.abc import Callable

import pytest

from holdfast.errors import StoreAway, StoreError
from holdfast.worker import loop as loops
from holdfast.worker import outage as outages
from holdfast.worker.loop import BACKOFF_FIRST, BACKOFF_MOST, Signal, Trouble, repeat, unless
from holdfast.worker.outage import Outage
from tests.worker.rig import events, fields, soon, until

HOUR = 3600.0


@pytest.fixture
def no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loops, "BACKOFF_FIRST", 0.0)


@pytest.fixture
def no_calm(monkeypatch: pytest.MonkeyPatch) -> None:
    """An outage is over with the first answer."""
    monkeypatch.setattr(outages, "CALM_FIRST", 0.0)


class _Clock:
    now = 1_000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> _Clock:
    it = _Clock()
    monkeypatch.setattr(outages, "time", it)
    return it


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


@pytest.mark.usefixtures("no_backoff", "no_calm")
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
    assert [told["role"] for told in fields(caplog, "store-away")] == ["fetcher"] * 2
    assert [told["roles"] for told in fields(caplog, "store-back")] == ["fetcher"] * 2


def test_an_outage_is_told_once_for_all_roles_and_once_when_none_is_in_trouble_any_more(
    clock: _Clock, caplog: pytest.LogCaptureFixture
) -> None:
    outage = Outage()
    roles = [Trouble(role, outage) for role in ("mail", "fetcher", "prune", "mail")]
    caplog.set_level(logging.WARNING, "holdfast")
    for _ in range(3):
        for role in roles:
            role.again(StoreAway("away"))
    clock.now += 20
    for role in roles:
        assert events(caplog) == ["store-away"]
        role.over()
    roles[0].over()
    assert events(caplog) == ["store-away"], "one answer of each does not show yet that it is over"
    clock.now += outages.CALM_FIRST
    for role in roles:
        role.over()
    assert events(caplog) == ["store-away", "store-back"]
    [back] = fields(caplog, "store-back")
    assert (back["roles"], back["tries"], back["away"]) == ("mail, fetcher, prune", 12, 20.0)


def test_single_replies_that_are_lost_do_not_fill_the_log(clock: _Clock, caplog: pytest.LogCaptureFixture) -> None:
    outage = Outage()
    roles = [Trouble(role, outage) for role in ("mail", "fetcher", "beat")]
    caplog.set_level(logging.WARNING, "holdfast")
    for number in range(1_000):  # one of nine calls in 2 s, for half an hour
        roles[number % 3].again(StoreAway("a reply was lost"))
        for _ in range(9):
            clock.now += 0.2
            for role in roles:
                role.over()
    assert events(caplog).count("store-away") <= 8, "it says so again and again"
    clock.now += outages.CALM_MOST
    roles[0].over()
    assert events(caplog)[-1] == "store-back"
    assert events(caplog).count("store-back") == events(caplog).count("store-away")


def test_a_second_outage_is_told_too(clock: _Clock, caplog: pytest.LogCaptureFixture) -> None:
    outage = Outage()
    role = Trouble("fetcher", outage)
    caplog.set_level(logging.WARNING, "holdfast")
    for _ in range(3):
        role.again(StoreAway("away"))
        role.over()
        clock.now += 10 * outages.CALM_FIRST
        role.over()
    assert events(caplog) == ["store-away", "store-back"] * 3


def test_a_full_disk_amid_an_outage_is_told_by_itself(caplog: pytest.LogCaptureFixture) -> None:
    outage = Outage()
    fetcher, finisher = Trouble("fetcher", outage), Trouble("finisher", outage)
    caplog.set_level(logging.WARNING, "holdfast")
    full = StoreAway("the disk is full")
    full.full = True
    for _ in range(2):
        fetcher.again(StoreAway("away"))
        finisher.again(full)
    assert [told["error"] for told in fields(caplog, "store-away")] == ["away", "the disk is full"]


def test_who_stops_asking_says_that_it_is_over_if_it_is(clock: _Clock, caplog: pytest.LogCaptureFixture) -> None:
    outage = Outage()
    roles = Trouble("fetcher", outage), Trouble("mail", outage)
    caplog.set_level(logging.WARNING, "holdfast")
    outage.look(last=True)
    for role in roles:
        role.again(StoreAway("away"))
    roles[0].over()
    outage.look(last=True)
    assert events(caplog) == ["store-away"]
    roles[1].over()
    outage.look(last=True)
    assert events(caplog) == ["store-away", "store-back"]


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
        trouble = Trouble("fetcher", Outage())
        for tries in range(40):
            pause = trouble.again(StoreAway("away"))
            nominal = min(BACKOFF_FIRST * 2**tries, BACKOFF_MOST)
            assert nominal / 2 <= pause <= nominal
    assert BACKOFF_MOST <= 5


def test_after_a_good_step_the_pauses_begin_anew() -> None:
    trouble = Trouble("fetcher", Outage())
    for _ in range(10):
        trouble.again(StoreAway("away"))
    trouble.over()
    assert trouble.again(StoreAway("away")) <= BACKOFF_FIRST
