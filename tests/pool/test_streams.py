"""map, each and aeach: order, laziness, errors, and what is left when they are given up."""

import asyncio
import gc
import itertools
import threading
from collections.abc import Iterator

import pytest

from holdfast import ConfigError, Pool, State
from holdfast.job import WhenFull
from tests.pool.rig import PATIENCE, Gate, held, until

MODES: list[WhenFull] = ["block", "reject", "drop_oldest", "drop_newest"]


def double(number: int) -> int:
    return 2 * number


async def adouble(number: int) -> int:
    await asyncio.sleep(0)
    return 2 * number


def odd(number: int) -> int:
    if number % 2 == 0:
        raise ValueError(f"{number} is even")
    return number


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fn", [double, adouble])
def test_map_gives_results_in_order(mode: WhenFull, fn: object) -> None:
    with Pool(4, max_size=7, when_full=mode) as pool:
        assert list(pool.map(fn, range(300))) == [2 * number for number in range(300)]  # type: ignore[arg-type]
        assert pool.stats().dropped == 0


@pytest.mark.parametrize("mode", MODES)
def test_each_gives_every_job_once(mode: WhenFull) -> None:
    with Pool(4, max_size=7, when_full=mode) as pool:
        done = [(job.args[0], job.state) for job in pool.each(odd, range(300))]
    assert sorted(done) == [(n, State.SUCCEEDED if n % 2 else State.DEAD) for n in range(300)]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fn", [double, adouble])
async def test_aeach_gives_every_job_once(mode: WhenFull, fn: object) -> None:
    async with Pool(4, max_size=7, when_full=mode) as pool:
        results = [(job.args[0], await job.aresult()) async for job in pool.aeach(fn, range(300))]  # type: ignore[arg-type]
    assert sorted(results) == [(number, 2 * number) for number in range(300)]


def test_each_gives_first_what_ends_first() -> None:
    slow = Gate()

    def work(name: str) -> str:
        return str(slow(name)) if name == "slow" else name

    with Pool(2) as pool:
        each = pool.each(work, ["slow", "quick"])
        assert next(each).args == ("quick",)
        slow.open()
        assert next(each).args == ("slow",)
        assert next(each, None) is None


def counted(pulled: list[int]) -> Iterator[int]:
    for number in itertools.count():
        pulled.append(number)
        yield number


def test_nothing_is_pulled_before_the_first_step_and_at_most_max_size_ahead() -> None:
    with Pool(2, max_size=5) as pool:
        for stream in (pool.map, pool.each):
            pulled: list[int] = []
            results = stream(double, counted(pulled))
            assert pulled == []
            for taken in range(1, 30):
                next(results)
                assert len(pulled) <= taken + 5
            results.close()  # type: ignore[attr-defined]


def test_others_may_have_all_other_places() -> None:
    with Pool(1, max_size=2) as pool:
        gate, _ = held(pool)
        results: list[int] = []
        mapping = threading.Thread(target=lambda: results.extend(pool.map(double, range(20))))
        mapping.start()
        gate.open()
        mapping.join(PATIENCE)
        assert results == [2 * number for number in range(20)]


def test_map_raises_the_first_error_and_cancels_what_is_left() -> None:
    gate, pulled = Gate(), threading.Event()

    def items() -> Iterator[int]:
        yield from range(6)
        pulled.set()
        yield from range(6, 100)

    def work(number: int) -> int:
        if number == 0:
            assert pulled.wait(PATIENCE)
            raise ValueError("the first")
        return int(gate(number))

    with Pool(2, max_size=10) as pool:
        with pytest.raises(ValueError, match="the first"):
            list(pool.map(work, items()))
        assert pool.stats().queued == 0
        gate.open()
    assert pool.stats().cancelled >= 4


def test_a_stream_holds_its_pool() -> None:
    results = Pool(2, max_size=3).map(double, range(50))
    gc.collect()
    assert list(results) == [2 * number for number in range(50)]
    del results
    gc.collect()


def test_each_given_up_cancels_what_is_left() -> None:
    gate = Gate()
    with Pool(1, max_size=10) as pool:
        each = pool.each(lambda number: number and gate(number), range(100))
        next(each)
        each.close()  # type: ignore[attr-defined]
        assert pool.stats().queued == 0
        gate.open()


def test_an_error_of_the_items_passes_on() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise LookupError("no more items")

    with Pool(1) as pool:
        for stream in (pool.map, pool.each):
            with pytest.raises(LookupError, match="no more items"):
                list(stream(double, items()))
        assert pool.join(PATIENCE)  # the place of the item that never came is back


async def test_aeach_given_up_cancels_what_is_left() -> None:
    ended: list[int] = []

    async def work(number: int) -> None:
        if number:
            try:
                await asyncio.sleep(PATIENCE)
            finally:
                ended.append(number)

    async with Pool(2, max_size=5) as pool:
        stream = pool.aeach(work, range(100))
        async for job in stream:
            assert job.args == (0,)
            break
        await stream.aclose()  # type: ignore[attr-defined]
        assert await pool.ajoin(PATIENCE)
    assert len(ended) <= 2


def test_a_stopped_pool_has_no_streams() -> None:
    pool = Pool(1)
    pool.stop()
    for stream in (pool.map, pool.each, pool.aeach):
        with pytest.raises(ConfigError, match="this pool was stopped"):
            stream(double, [1])  # type: ignore[operator]


def test_a_pool_stopped_meanwhile_gives_what_it_had() -> None:
    pool = Pool(1, max_size=3)
    gate = Gate()
    each = pool.each(gate, itertools.count())
    threading.Timer(0, lambda: (gate.await_begun(), pool.stop(drain=False), gate.open())).start()
    states: list[State] = []
    with pytest.raises(ConfigError, match="this pool was stopped"):
        states.extend(job.state for job in each)
    assert states.count(State.SUCCEEDED) == 1
    assert states.count(State.CANCELLED) == len(states) - 1
    assert pool.join(PATIENCE)


def test_items_are_arguments_as_they_are() -> None:
    with Pool(2) as pool:
        assert list(pool.map(lambda pair: pair[0], [(1, 2), (3, 4)])) == [1, 3]
        assert list(pool.map(double, [])) == []
        with pytest.raises(TypeError):
            pool.map(double, 3)  # type: ignore[call-overload]


def test_items_that_use_their_own_pool_need_no_place_of_the_stream() -> None:
    def items() -> Iterator[int]:
        for number in range(4):
            yield pool.submit(double, number).result(PATIENCE)

    for size in (1, 2):
        with Pool(2, max_size=size) as pool:
            assert list(pool.map(double, items())) == [0, 4, 8, 12]
            nested = pool.map(double, pool.map(double, pool.map(double, range(5))))
            assert list(nested) == [8 * number for number in range(5)]


def test_who_joins_while_a_stream_waits_for_items_is_told() -> None:
    more, joined = threading.Event(), list[bool]()

    def items() -> Iterator[int]:
        yield 1
        assert more.wait(PATIENCE)

    pool, results = Pool(2), list[int]()
    reading = threading.Thread(target=lambda: results.extend(pool.map(double, items())))
    reading.start()
    until(lambda: pool.stats().succeeded == 1, "the first item is through")
    assert (pool.stats().submitted, pool.stats().queued) == (1, 0)  # an item that is not there yet is no job
    pool.stop()
    joining = threading.Thread(target=lambda: joined.append(pool.join(PATIENCE)))
    joining.start()
    more.set()
    for thread in (reading, joining):
        thread.join(PATIENCE)
    assert (results, joined) == ([2], [True])


async def test_many_items_do_not_hold_up_the_loop() -> None:
    beats = 0

    async def beat() -> None:
        nonlocal beats
        while True:
            await asyncio.sleep(0)
            beats += 1

    async with Pool(1, max_size=20_000) as pool:
        gate = Gate()
        pool.submit(gate)
        beating = asyncio.create_task(beat())
        jobs = pool.aeach(double, range(10_000))
        first = asyncio.ensure_future(anext(jobs))
        while pool.stats().submitted < 10_000 and beats < 10 * PATIENCE * 1000:  # noqa: ASYNC110  # it counts them
            await asyncio.sleep(0)
        assert pool.stats().submitted == 10_001
        assert beats >= 9
        gate.open()
        assert await (await first).aresult(PATIENCE) == 0
        beating.cancel()
        await jobs.aclose()  # type: ignore[attr-defined]
