"""What a pool runs, where, and what its handles answer."""

import asyncio
import contextlib
import contextvars
import functools
import gc
import logging
import threading
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from holdfast import (
    Cancel,
    ConfigError,
    Holdfast,
    JobCancelled,
    Permanent,
    Pool,
    PoolJob,
    PoolStats,
    Retry,
    Snooze,
    State,
    current_job,
)
from holdfast.observe.human import Human
from tests.pool.rig import PATIENCE, Gate, held, threads_of_pools, until

app = Holdfast("memory://")


def double(number: int, *, plus: int = 0) -> int:
    return 2 * number + plus


async def adouble(number: int, *, plus: int = 0) -> int:
    await asyncio.sleep(0)
    return 2 * number + plus


@app.task
def task(number: int) -> int:
    return number + 1


@app.task
async def atask(number: int) -> int:
    return number + 1


class Doubler:
    def method(self, number: int) -> int:
        return 2 * number

    async def amethod(self, number: int) -> int:
        return 2 * number

    def __call__(self, number: int) -> int:
        return 2 * number


class AsyncDoubler:
    async def __call__(self, number: int) -> int:
        return 2 * number


@dataclass
class Answer:
    number: int


CALLS: list[tuple[Any, Any]] = [
    (double, 8),
    (adouble, 8),
    (functools.partial(double, plus=1), 9),
    (functools.partial(adouble, plus=1), 9),
    (Doubler().method, 8),
    (Doubler().amethod, 8),
    (Doubler(), 8),
    (AsyncDoubler(), 8),
    (abs, 4),
    (str, "4"),
    (Answer, Answer(4)),
    (functools.partial(Answer), Answer(4)),
    (task, 5),
    (atask, 5),
]


@pytest.mark.parametrize(("fn", "result"), CALLS)
def test_any_callable_runs(fn: Any, result: Any) -> None:
    with Pool(2) as pool:
        job = pool.submit(fn, 4)
        assert job.result(PATIENCE) == result
        assert job.exception() is None
        assert (job.args, job.state) == ((4,), State.SUCCEEDED)


async def test_on_the_callers_loop() -> None:
    async def where() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    async with Pool(2) as pool:
        assert await pool.submit(where).aresult(PATIENCE) is asyncio.get_running_loop()
        job = await pool.asubmit(double, 4, plus=1)
        assert await job.aresult(PATIENCE) == 9
    assert threads_of_pools() == set()


async def test_without_async_with_it_has_a_loop_of_its_own() -> None:
    async def where() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    pool = Pool(2)
    assert await pool.submit(where).aresult(PATIENCE) is not asyncio.get_running_loop()
    pool.stop()
    assert await pool.ajoin(PATIENCE)


def test_at_most_concurrency_run_at_a_time_of_all_kinds_together() -> None:
    running, most, lock = 0, 0, threading.Lock()

    def enter() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)

    def leave() -> None:
        nonlocal running
        with lock:
            running -= 1

    def plain() -> None:
        enter()
        threading.Event().wait(0.001)
        leave()

    async def on_loop() -> None:
        enter()
        await asyncio.sleep(0.001)
        leave()

    with Pool(3) as pool:
        for job in [pool.submit(fn) for _ in range(60) for fn in (plain, on_loop)]:
            job.result(PATIENCE)
    assert most == 3


def test_what_the_function_raises_is_what_result_raises() -> None:
    error = KeyError("no such key")

    def fail() -> None:
        raise error

    with Pool(1) as pool:
        job = pool.submit(fail)
        assert job.exception(PATIENCE) is error
        with pytest.raises(KeyError, match="no such key"):
            job.result()
        assert job.state == State.DEAD


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), asyncio.CancelledError()])
def test_no_exception_ends_a_thread(error: BaseException) -> None:
    def fail() -> None:
        raise error

    with Pool(1) as pool:
        assert pool.submit(fail).exception(PATIENCE) is error
        assert pool.submit(double, 4).result(PATIENCE) == 8


async def test_no_cancelled_error_of_its_own_is_taken_for_a_cancel() -> None:
    async def fail() -> None:
        raise asyncio.CancelledError

    async with Pool(1) as pool:
        job = pool.submit(fail)
        with pytest.raises(asyncio.CancelledError):
            await job.aresult(PATIENCE)
        assert job.state == State.DEAD


def test_result_waits_at_most_its_timeout() -> None:
    with Pool(1) as pool:
        gate, (job,) = held(pool)
        with pytest.raises(TimeoutError, match=r"has not ended within 10 ms"):
            job.result(timeout="10ms")
        with pytest.raises(TimeoutError):
            job.exception(timeout=0.01)
        assert job.state == State.RUNNING
        gate.open()
        assert job.result(PATIENCE) == 0


async def test_aresult_waits_at_most_its_timeout() -> None:
    async with Pool(1) as pool:
        gate, (job,) = held(pool)
        with pytest.raises(TimeoutError, match=r"has not ended within 10 ms"):
            await job.aresult(timeout=0.01)
        gate.open()
        assert await job.aresult(PATIENCE) == 0


def test_many_wait_for_one_job() -> None:
    with Pool(1) as pool:
        gate, (job,) = held(pool)
        results: list[int] = []
        threads = [threading.Thread(target=lambda: results.append(job.result(PATIENCE))) for _ in range(8)]
        for thread in threads:
            thread.start()
        gate.open()
        for thread in threads:
            thread.join(PATIENCE)
        assert results == [0] * 8


async def test_waiting_on_the_loop_that_the_pool_runs_on_is_refused() -> None:
    async with Pool(1) as pool:
        gate, (job,) = held(pool)
        with pytest.raises(ConfigError, match=r"await job\.aresult\(\)"):
            job.result()
        with pytest.raises(ConfigError, match=r"await pool\.ajoin\(\)"):
            pool.join()
        with pytest.raises(ConfigError, match="aeach"):
            pool.map(double, [1])
        gate.open()


def test_jobs_run_in_order_of_priority_then_of_submission() -> None:
    order: list[str] = []
    with Pool(1) as pool:
        gate, _ = held(pool)
        for name, priority in (("a", 0), ("low", -5), ("b", 0), ("high", 7), ("c", 0)):
            pool.using(priority=priority).submit(order.append, name)
        gate.open()
    assert order == ["high", "a", "b", "c", "low"]


def test_context_variables_are_those_at_submission() -> None:
    tenant: contextvars.ContextVar[str] = contextvars.ContextVar("tenant")

    def plain() -> str:
        seen = tenant.get()
        tenant.set("changed inside")
        return seen

    async def on_loop() -> str:
        return plain()

    with Pool(1) as pool:
        tenant.set("one")
        first, second = pool.submit(plain), pool.submit(on_loop)
        tenant.set("two")
        assert [job.result(PATIENCE) for job in (first, second, pool.submit(plain))] == ["one", "one", "two"]
    assert tenant.get() == "two"


def test_current_job_works_inside() -> None:
    def look() -> tuple[Any, ...]:
        job = current_job()
        job.check()
        job.progress(1, 2, text="half")
        job.log("a line")
        job.save({"at": 3})
        return job.id, job.attempt, job.task, job.cancelled, job.time_left, job.saved(dict[str, int], {})

    async def alook() -> tuple[Any, ...]:
        return look()

    with Pool(1) as pool:
        for fn in (look, alook):
            job = pool.submit(fn)
            id, attempt, task, cancelled, left, saved = job.result(PATIENCE)  # noqa: A001
            assert id == job.id
            assert (attempt, cancelled, left, saved) == (1, False, None, {"at": 3})
            assert task.endswith(fn.__name__)
        assert pool.using(timeout=30).submit(look).result(PATIENCE)[4] == pytest.approx(30, abs=20)


def test_every_attempt_has_the_same_id_and_finds_what_was_saved() -> None:
    seen: list[tuple[Any, int, int]] = []

    def work() -> None:
        job = current_job()
        seen.append((job.id, job.attempt, job.saved(int, 0)))
        job.save(job.attempt)
        if job.attempt < 3:
            raise ValueError("again")

    with Pool(1) as pool:
        job = pool.using(retry=Retry(max_attempts=3, base_delay=0, jitter=0)).submit(work)
        job.result(PATIENCE)
        assert pool.stats().retried == 2
    assert seen == [(job.id, 1, 0), (job.id, 2, 1), (job.id, 3, 2)]


def test_a_retry_waits_in_the_pool_and_not_in_a_slot() -> None:
    def fail() -> None:
        raise ValueError("again")

    with Pool(1, max_size=2) as pool:
        job = pool.using(retry=Retry(max_attempts=2, base_delay="1h", max_delay="1h")).submit(fail)
        until(lambda: job.state == State.SCHEDULED, "the job waits for its next attempt")
        assert pool.submit(double, 4).result(PATIENCE) == 8
        assert (pool.stats().queued, pool.stats().running) == (1, 0)
        assert job.cancel()
        with pytest.raises(JobCancelled, match="before its next attempt"):
            job.result()


def test_no_more_attempts_than_allowed_nor_of_what_is_not_to_be_retried() -> None:
    calls: list[str] = []

    def fail(name: str, error: BaseException) -> None:
        calls.append(name)
        raise error

    never = Retry(max_attempts=3, base_delay=0, never=(KeyError,))
    with Pool(1, retry=Retry(max_attempts=3, base_delay=0)) as pool:
        jobs = [
            pool.submit(fail, "all", ValueError("x")),
            pool.submit(fail, "permanent", Permanent("x")),
            pool.using(retry=never).submit(fail, "never", KeyError("x")),
        ]
        assert [type(job.exception(PATIENCE)) for job in jobs] == [ValueError, Permanent, KeyError]
    assert sorted(calls) == ["all", "all", "all", "never", "permanent"]


def test_a_function_may_snooze_cancel_and_name_its_delay() -> None:
    runs: list[int] = []

    def work(what: Exception) -> str:
        runs.append(current_job().attempt)
        if len(runs) == 1:
            raise what
        return "done"

    with Pool(1) as pool:
        assert pool.submit(work, Snooze(0.01)).result(PATIENCE) == "done"
        assert runs == [1, 1]  # no attempt was used
        runs.clear()
        retried = pool.using(retry=Retry(max_attempts=2, base_delay="1h", max_delay="1h"))
        assert retried.submit(work, Retry.after(0.01)).result(PATIENCE) == "done"
        assert runs == [1, 2]
        runs.clear()
        with pytest.raises(JobCancelled, match="not wanted"):
            pool.submit(work, Cancel("not wanted")).result(PATIENCE)


def generator() -> Iterator[int]:
    yield 1


async def agenerator() -> Any:
    yield 1


BAD: list[tuple[Any, str]] = [
    (generator, "generator function"),
    (generator(), "fn=<generator object .*: a generator"),
    (agenerator, "generator function"),
    (functools.partial(generator), "generator function"),
    (3, "fn=3: cannot be called"),
    (None, "fn=None: cannot be called"),
]


@pytest.mark.parametrize(("fn", "text"), BAD)
def test_what_is_no_function_is_refused(fn: Any, text: str) -> None:
    with Pool(1) as pool:
        for call in (lambda: pool.submit(fn), lambda: pool.map(fn, [1]), lambda: pool.each(fn, [1])):
            with pytest.raises(ConfigError, match=text):
                call()
        assert pool.stats().submitted == 0


def test_a_coroutine_is_refused_and_leaves_no_warning() -> None:
    with Pool(1) as pool, pytest.raises(ConfigError, match=r"submit\(adouble, \.\.\.\)"):
        pool.submit(adouble(4))  # type: ignore[arg-type]


def test_a_plain_function_that_returns_a_coroutine_fails() -> None:
    with Pool(1) as pool, pytest.raises(TypeError, match="submit the async function itself"):
        pool.submit(lambda: adouble(4)).result(PATIENCE)


OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"concurrency": 0}, "concurrency=0: a whole number from 1"),
    ({"concurrency": True}, "concurrency=True"),
    ({"concurrency": 2.5}, "concurrency=2.5"),
    ({"max_size": 0}, "max_size=0"),
    ({"max_size": None}, "max_size=None"),
    ({"when_full": "explode"}, "when_full='explode': .*'block'"),
    ({"block_timeout": -1}, "block_timeout=-1"),
    ({"block_timeout": 0}, "block_timeout=0"),
    ({"block_timeout": 1, "when_full": "reject"}, "only when_full='block' waits"),
    ({"max_size": 2_000_000_000}, "max_size=2000000000"),
    ({"timeout": 0}, "timeout=0"),
    ({"timeout": "soon"}, "timeout='soon'"),
    ({"retry": 3}, "retry=3: a Retry"),
    ({"priority": 101}, "priority=101"),
    ({"run_in": "space"}, "run_in='space'"),
    ({"tiemout": 3}, "no option 'tiemout'; there are .*priority, retry, run_in, timeout"),
]


@pytest.mark.parametrize(("options", "text"), OPTIONS)
def test_nonsense_is_refused_by_its_name(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        Pool(**options)
    if not options.keys() & {"concurrency", "max_size", "when_full", "block_timeout"}:
        with pytest.raises(ConfigError, match=text):
            Pool().using(**options)


def test_an_unknown_option_is_answered_by_all_that_there_are() -> None:
    with pytest.raises(
        ConfigError, match=r"no option 'max_workers'; there are concurrency, max_size, when_full, block_"
    ):
        Pool(max_workers=4)  # type: ignore[call-arg]
    with pytest.raises(ConfigError, match=r"concurrency= is of the whole pool"):
        Pool().using(concurrency=4)  # type: ignore[call-arg]


def test_an_option_among_the_arguments_is_answered_by_using() -> None:
    def takes_it(number: int, timeout: int) -> int:
        return number + timeout

    def takes_all(**options: Any) -> Any:
        return options

    with Pool(1) as pool:
        for call in (pool.submit, pool.using(timeout=3).submit):
            with pytest.raises(ConfigError, match=r"timeout=5: .*double takes no argument .*pool\.using\(timeout=5\)"):
                call(double, 4, timeout=5)  # type: ignore[call-arg]
        assert pool.submit(takes_it, 4, timeout=5).result(PATIENCE) == 9
        assert pool.submit(takes_all, retry=1).result(PATIENCE) == {"retry": 1}
        with pytest.raises(TypeError, match="another"):
            pool.submit(double, 4, another=5).result(PATIENCE)  # type: ignore[call-arg]
        assert pool.stats().submitted == 3


async def test_an_option_among_the_arguments_of_asubmit() -> None:
    async with Pool(1) as pool:
        with pytest.raises(ConfigError, match=r"pool\.using\(retry="):
            await pool.asubmit(adouble, 4, retry=Retry())  # type: ignore[call-arg]


def test_an_async_function_cannot_be_run_in_a_thread() -> None:
    with Pool(1, run_in="thread") as pool:
        assert pool.submit(double, 4).result(PATIENCE) == 8
        with pytest.raises(ConfigError, match=r"run_in='thread', but .*adouble is async"):
            pool.submit(adouble, 4)


def test_resize_lives() -> None:
    with Pool(1) as pool:
        gate, _ = held(pool)
        more = Gate()
        jobs = [pool.submit(more) for _ in range(3)]
        pool.resize(3)
        more.await_begun(2)
        assert pool.stats().running == 3
        pool.resize(1)
        gate.open()
        more.open()
        for job in jobs:
            job.result(PATIENCE)
        until(lambda: pool.stats().running == 0, "all slots are free")
        last, _ = held(pool)
        waiting = pool.submit(double, 1)
        assert pool.stats().running == 1
        assert waiting.state == State.QUEUED
        last.open()
        with pytest.raises(ConfigError, match="concurrency=0"):
            pool.resize(0)


def test_stats_are_a_frozen_snapshot() -> None:
    def fail() -> None:
        raise ValueError("x")

    with Pool(1) as pool:
        gate, _ = held(pool)
        waiting, unwanted = pool.submit(fail), pool.submit(double, 1)
        assert unwanted.cancel()
        assert not unwanted.cancel()
        before = pool.stats()
        assert (before.submitted, before.running, before.queued, before.cancelled) == (3, 1, 1, 1)
        gate.open()
        waiting.exception(PATIENCE)
        until(lambda: pool.stats().running == 0, "nothing runs any more")
        after = pool.stats()
    assert after == PoolStats(3, 0, 0, 1, 1, 0, 1, 0, after.latency_mean, after.latency_max)
    assert 0 < after.latency_mean <= after.latency_max
    with pytest.raises(AttributeError):
        after.running = 3  # type: ignore[misc]


def lines(caplog: pytest.LogCaptureFixture, job: PoolJob[Any]) -> list[str]:
    return [str(record.msg) for record in caplog.records if f"job={job.id}" in str(record.msg)]


def test_the_log_lines_are_a_workers(caplog: pytest.LogCaptureFixture) -> None:
    tries: list[int] = []

    def work() -> None:
        tries.append(1)
        if len(tries) == 1:
            raise ValueError("not yet")

    with Pool(1) as pool:
        job = pool.using(retry=Retry(max_attempts=2, base_delay=0)).submit(work)
        job.result(PATIENCE)
        until(lambda: len(lines(caplog, job)) == 4, "four lines")
    events = [line.split()[0].removeprefix("event=") for line in lines(caplog, job)]
    assert events == ["started", "failed", "started", "succeeded"]
    started, failed, _, succeeded = lines(caplog, job)
    assert "attempt=1/2" in started
    assert "waited=" in started
    assert "error=ValueError" in failed
    assert 'message="not yet"' in failed
    assert "ran=" in succeeded
    assert not any(word in line for line in lines(caplog, job) for word in ("queue=", "fence="))


def test_nothing_is_told_of_what_goes_well_below_info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "holdfast")
    with Pool(1) as pool:
        pool.submit(double, 1).result(PATIENCE)
    assert caplog.records == []


def test_what_fails_for_good_has_failed_and_is_not_kept(caplog: pytest.LogCaptureFixture) -> None:
    with Pool(1) as pool:
        job = pool.submit(lambda: 1 / 0)
        assert isinstance(job.exception(PATIENCE), ZeroDivisionError)
        until(lambda: "event=failed" in caplog.text, "its end is told")
    (record,) = [record for record in caplog.records if "event=failed" in str(record.msg)]
    assert record.levelno == logging.WARNING
    assert not any(word in str(record.msg) for word in ("queue=", "fence=", "hint="))
    text = Human().format(record)
    assert "attempt 1 of 1 failed" in text
    assert str(job.id) in text
    assert "holdfast retry" not in text


@pytest.mark.parametrize("stream", ["map", "each"])
def test_what_fails_in_its_consumers_hands_is_no_warning(stream: str, caplog: pytest.LogCaptureFixture) -> None:
    with Pool(2, retry=Retry(max_attempts=2, base_delay=0)) as pool:
        with contextlib.suppress(ZeroDivisionError):
            list(getattr(pool, stream)(lambda number: 1 / number, [0]))
        until(lambda: caplog.text.count("event=failed") == 2, "both attempts are told")
    assert {record.levelno for record in caplog.records} == {logging.INFO}


async def _afail(thing: object) -> None:
    raise ZeroDivisionError


@pytest.mark.parametrize("fn", [lambda thing: None, lambda thing: 1 / 0, _afail])
def test_what_is_over_is_kept_by_its_handle_alone(fn: Any) -> None:
    class Thing:
        pass

    with Pool(1) as pool:
        pool.submit(double, 1).result(PATIENCE)
        gc.disable()  # it must not need a search for cycles
        try:
            thing = Thing()
            gone = weakref.ref(thing)
            job = pool.submit(fn, thing)
            with contextlib.suppress(ZeroDivisionError):
                job.result(PATIENCE)
            del job, thing
            pool.submit(double, 1).result(PATIENCE)
            until(lambda: gone() is None, "it is let go")
        finally:
            gc.enable()


def test_what_was_tried_again_or_ran_too_long_is_let_go() -> None:
    class Thing:
        pass

    def fail(thing: object) -> None:
        raise ZeroDivisionError

    async def endless(thing: object) -> None:
        await asyncio.get_running_loop().create_future()

    again = Retry(max_attempts=2, base_delay=0.01)
    with Pool(1) as pool:
        for face, fn in (
            (pool.using(retry=again), fail),
            (pool.using(retry=again), _afail),
            (pool.using(timeout=0.01), endless),
        ):
            gc.disable()
            try:
                thing = Thing()
                gone = weakref.ref(thing)
                job: PoolJob[Any] = face.submit(fn, thing)
                assert isinstance(job.exception(PATIENCE), ZeroDivisionError | TimeoutError)
                del job, thing
                until(lambda gone=gone: gone() is None, "it is let go")  # type: ignore[misc]
            finally:
                gc.enable()
