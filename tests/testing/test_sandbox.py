"""Sandbox: what runs, when, in which order, on which thread and loop; and what it leaves behind."""

import asyncio
import gc
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import Mock
from uuid import UUID, uuid4

import pytest

from holdfast import (
    Cancel,
    ConfigError,
    Holdfast,
    JobCancelled,
    JobFailed,
    JobNotFound,
    JobStatus,
    QueueFull,
    ResourceError,
    Retry,
    Snooze,
    Unique,
    UniqueConflict,
    current_job,
)
from holdfast.app import parts_of
from holdfast.stores.memory import MemoryStore
from holdfast.testing import Sandbox, runs

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


class Shop:
    """An app with a few tasks, which note what they did."""

    def __init__(self, url: str | None = None) -> None:
        self.jobs = Holdfast(url)
        self.did: list[Any] = []
        self.send = self.jobs.task(name="shop.send")(self._send)
        retry = Retry(max_attempts=4, base_delay=10, jitter=0)
        self.flaky = self.jobs.task(name="shop.flaky", retry=retry)(self._flaky)
        self.asend = self.jobs.task(name="shop.asend")(self._asend)

    def _send(self, number: int, to: str = "ann") -> str:
        self.did.append(number)
        return f"{to} {number}"

    def _flaky(self, fails: int) -> int:
        job = current_job()
        self.did.append(job.attempt)
        if job.attempt <= fails:
            raise OSError("away")
        return job.attempt

    async def _asend(self, number: int) -> int:
        await asyncio.sleep(0)
        self.did.append(number)
        return number


@pytest.fixture
def shop() -> Shop:
    return Shop()


@pytest.fixture
def box(shop: Shop) -> Iterator[Sandbox]:
    with Sandbox(shop.jobs, now=NOON) as box:
        yield box


def states(statuses: list[JobStatus[Any]]) -> list[str]:
    return [str(status.state) for status in statuses]


# --- what runs, and when


def test_nothing_runs_by_itself(shop: Shop, box: Sandbox) -> None:
    job = shop.send.enqueue(42)
    assert job.created
    assert job.status().state == "queued"
    assert shop.did == []
    (status,) = box.run()
    assert (status.id, status.task, status.state, status.attempt) == (job.id, "shop.send", "succeeded", 1)
    assert job.result() == "ann 42"
    assert box.run() == []


def test_run_goes_on_until_nothing_is_due(shop: Shop, box: Sandbox) -> None:
    @shop.jobs.task(name="shop.chain")
    def chain(left: int) -> None:
        shop.did.append(left)
        if left:
            chain.enqueue(left - 1)

    chain.enqueue(3)
    assert len(box.run()) == 4
    assert shop.did == [3, 2, 1, 0]


def test_higher_priority_runs_first_then_the_order_of_enqueue(shop: Shop, box: Sandbox) -> None:
    for number, priority in ((1, 0), (2, 10), (3, 0), (4, 10)):
        shop.send.using(priority=priority).enqueue(number)
    box.run()
    assert shop.did == [2, 4, 1, 3]


def test_run_takes_a_limit(shop: Shop, box: Sandbox) -> None:
    for number in range(5):
        shop.send.enqueue(number)
    assert len(box.run(2)) == 2
    assert shop.did == [0, 1]
    assert len(box.run()) == 3


@pytest.mark.parametrize("limit", [0, -1, True, 1.5, "2"])
def test_a_limit_that_is_none_is_refused(box: Sandbox, limit: Any) -> None:
    with pytest.raises(ConfigError, match="limit="):
        box.run(limit)


def test_what_is_due_later_waits_for_its_time(shop: Shop, box: Sandbox) -> None:
    shop.send.using(delay="1h").enqueue(1)
    shop.send.using(at=NOON + timedelta(minutes=30)).enqueue(2)
    assert box.run() == []
    assert states(box.advance("29m")) == []
    assert shop.did == []
    assert states(box.advance("1m")) == ["succeeded"]
    assert shop.did == [2]
    assert states(box.advance("30m")) == ["succeeded"]
    assert shop.did == [2, 1]


def test_advance_walks_through_retries_in_the_order_of_their_times(shop: Shop, box: Sandbox) -> None:
    job = shop.flaky.enqueue(3)
    shop.send.using(delay=25).enqueue(0)
    ran = box.advance("10m")
    # attempts at 0 s, 10 s, 30 s and 70 s; the other job at 25 s
    assert shop.did == [1, 2, 0, 3, 4]
    assert states(ran) == ["scheduled", "scheduled", "succeeded", "scheduled", "succeeded"]
    at = [status.started_at for status in ran]
    assert at == [NOON + timedelta(seconds=seconds) for seconds in (0, 10, 25, 30, 70)]
    assert [status.due_at for status in ran][:2] == [NOON + timedelta(seconds=s) for s in (10, 30)]
    assert job.result() == 4
    assert [error.message for error in job.status().errors] == ["away"] * 3


def test_a_job_that_fails_for_good_is_dead(shop: Shop, box: Sandbox) -> None:
    job = shop.flaky.enqueue(99)
    assert states(box.advance("1d"))[-1] == "dead"
    with pytest.raises(JobFailed, match="OSError: away"):
        job.result()
    job.retry()
    assert states(box.run()) == ["scheduled"]


def test_snoozes_are_walked_through_without_using_attempts(shop: Shop, box: Sandbox) -> None:
    @shop.jobs.task(name="shop.nap")
    def nap() -> None:
        shop.did.append(current_job().attempt)
        if len(shop.did) < 4:
            raise Snooze("15m", "bank closed")

    nap.enqueue()
    ran = box.advance("1h")
    assert states(ran) == ["scheduled"] * 3 + ["succeeded"]
    assert shop.did == [1, 1, 1, 1]
    assert ran[-1].started_at == NOON + timedelta(minutes=45)


def test_advance_runs_what_is_due_already_and_ends_where_it_should(shop: Shop, box: Sandbox) -> None:
    shop.send.enqueue(1)
    (status,) = box.advance("1h")
    assert status.started_at == NOON
    later = shop.send.enqueue(2)
    assert later.status().enqueued_at == NOON + timedelta(hours=1)


@pytest.mark.parametrize("by", [-1, "soon", None])
def test_advance_refuses_what_is_no_length_of_time(box: Sandbox, by: Any) -> None:
    with pytest.raises(ConfigError, match="by="):
        box.advance(by)


def test_work_without_an_end_is_an_error_that_names_it(
    shop: Shop, box: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    @shop.jobs.task(name="shop.naps")
    def naps() -> None:
        raise Snooze(0)

    @shop.jobs.task(name="shop.breeds")
    def breeds() -> None:
        breeds.enqueue()

    for task, most in ((naps, 10**9), (breeds, 3000)):
        monkeypatch.setattr(runs, "ENDLESS", most)
        with Sandbox(shop.jobs) as own:
            task.enqueue()
            assert len(own.run(7)) == 7
            with pytest.raises(RuntimeError, match=rf"there is no end, the last of job .* of {task.name}"):
                own.advance(1)
            with pytest.warns(RuntimeWarning, match="more is due"):
                assert len(own.run()) == 1000


def test_very_many_jobs_are_no_work_without_an_end(shop: Shop, box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "ENDLESS", 100)
    shop.jobs.enqueue_many(shop.send.bind(number) for number in range(1500))
    shop.jobs.enqueue_many(shop.send.using(delay=5).bind(number) for number in range(500))
    assert len(box.advance(4)) == 1500
    assert len(box.advance(1)) == 500
    assert box.run() == []


def test_time_passes_without_a_look_at_every_job(shop: Shop, box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a walk through n moments would take n times n steps."""
    stats = Mock(wraps=MemoryStore.stats)
    monkeypatch.setattr(MemoryStore, "stats", stats)
    shop.jobs.enqueue_many(shop.send.using(delay=number).bind(number) for number in range(50))
    assert len(box.advance(50)) == 50
    assert stats.call_count == 0


def test_what_has_ended_stays_to_be_looked_at(shop: Shop, box: Sandbox) -> None:
    job = shop.send.enqueue(1)
    box.advance("30d")
    assert job.status().state == "succeeded"


def test_an_enqueue_that_nothing_can_refuse_copies_nothing(
    shop: Shop, box: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("copy.deepcopy", Mock(side_effect=AssertionError("the store was copied")))
    shop.jobs.enqueue_many([shop.send.bind(1), shop.send.bind(2)], connection=object())
    shop.send.using(unique="one", connection=object()).enqueue(3)
    assert len(box.enqueued(shop.send)) == 3


def test_a_task_that_the_app_does_not_know_comes_back_uncharged(shop: Shop, box: Sandbox) -> None:
    other = Holdfast()

    @other.task(name="other.task")
    def unknown() -> None: ...

    shop.jobs.enqueue_many([unknown.bind()])
    (status,) = box.run()
    assert (status.state, status.attempt) == ("scheduled", 0)


def test_lots_of_time_passes_and_nothing_is_lost(shop: Shop, box: Sandbox) -> None:
    shop.send.using(delay="400d").enqueue(1)
    done = shop.send.enqueue(2)
    assert len(box.advance("500d")) == 2
    assert done.result() == "ann 2"


# --- the clock


def test_now_may_be_a_text(shop: Shop) -> None:
    with Sandbox(shop.jobs, now="2026-11-22T13:00:00+01:00"):
        assert shop.send.enqueue(1).status().enqueued_at == NOON


def test_without_now_it_is_the_machines_time(shop: Shop) -> None:
    before = datetime.now(UTC)
    with Sandbox(shop.jobs) as box:
        first = shop.send.enqueue(1).status().enqueued_at
        assert before - timedelta(seconds=1) <= first <= datetime.now(UTC)
        shop.send.using(at=datetime.now(UTC) + timedelta(hours=1)).enqueue(2)
        assert len(box.run()) == 1
        assert shop.send.enqueue(3).status().enqueued_at == first, "it stands still"


@pytest.mark.parametrize("now", ["2026-11-22T13:00:00", datetime(2026, 11, 22), "noon", 12])  # noqa: DTZ001
def test_a_now_that_is_none_is_refused(shop: Shop, now: Any) -> None:
    with pytest.raises(ConfigError, match="now="):
        Sandbox(shop.jobs, now=now)


# --- results


def test_result_says_what_to_do_instead_of_hanging(shop: Shop, box: Sandbox) -> None:
    with pytest.raises(TimeoutError, match=r"is queued: .*box\.run\(\)"):
        shop.send.enqueue(1).result()
    with pytest.raises(TimeoutError, match=r"is scheduled: .*box\.advance"):
        shop.send.using(delay=5).enqueue(1).result(timeout=60)


def test_a_handler_cannot_wait_for_another_job(shop: Shop, box: Sandbox) -> None:
    @shop.jobs.task(name="shop.waits")
    def waits() -> None:
        shop.send.enqueue(1).result()

    job = waits.enqueue()
    assert states(box.run()) == ["dead", "succeeded"]
    assert "box.run()" in job.status().errors[0].message


async def test_aresult_does_not_hang_either(shop: Shop) -> None:
    async with Sandbox(shop.jobs) as box:
        job = await shop.asend.aenqueue(1)
        with pytest.raises(TimeoutError, match=r"box\.run"):
            await job.aresult()
        await box.arun()
        assert await job.aresult() == 1


def test_cancel_delete_find_and_their_like_work(shop: Shop, box: Sandbox) -> None:
    jobs = [shop.send.enqueue(number) for number in range(3)]
    assert jobs[0].cancel("not wanted")
    assert shop.jobs.cancel(state="queued") == 2
    assert box.run() == []
    assert {status.id for status in shop.jobs.find(state="cancelled")} == {job.id for job in jobs}
    with pytest.raises(JobCancelled, match="not wanted"):
        jobs[0].result()
    assert shop.jobs.delete(state="cancelled") == 3
    with pytest.raises(JobNotFound):
        jobs[0].status()


# --- threads and loops


def test_plain_handlers_run_in_the_callers_thread(shop: Shop, box: Sandbox) -> None:
    @shop.jobs.task(name="shop.where")
    def where() -> None:
        shop.did += [threading.get_ident(), os.getpid()]

    where.enqueue()
    box.run()
    assert shop.did == [threading.get_ident(), os.getpid()]


def test_async_handlers_run_on_one_loop_of_the_sandboxs_own(shop: Shop, box: Sandbox) -> None:
    loops = []

    @shop.jobs.task(name="shop.where")
    async def where() -> None:
        await asyncio.sleep(0.001)
        loops.append(asyncio.get_running_loop())
        shop.did.append(threading.get_ident())

    for _ in range(2):
        where.enqueue()
        assert states(box.run()) == ["succeeded"]
    assert loops[0] is loops[1]
    assert shop.did == [threading.get_ident()] * 2


async def test_with_async_with_they_run_on_the_callers_loop(shop: Shop) -> None:
    loops = []

    @shop.jobs.task(name="shop.where")
    async def where() -> None:
        loops.append(asyncio.get_running_loop())

    async with Sandbox(shop.jobs) as box:
        await where.aenqueue()
        await where.using(delay=5).aenqueue()
        assert states(await box.arun()) == ["succeeded"]
        assert states(await box.aadvance(5)) == ["succeeded"]
    assert loops == [asyncio.get_running_loop()] * 2


async def test_a_plain_handler_finds_no_running_loop_there(shop: Shop) -> None:
    async def inner() -> int:
        return 7

    @shop.jobs.task(name="shop.plain")
    def plain() -> int:
        shop.did.append(threading.get_ident())
        shop.send.enqueue(1)  # a blocking call on a running loop would warn, and warnings are errors here
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()
        return asyncio.run(inner())

    async with Sandbox(shop.jobs) as box:
        job = await plain.aenqueue()
        task = asyncio.current_task()
        assert states(await box.arun()) == ["succeeded", "succeeded"]
        assert asyncio.current_task() is task
        await asyncio.sleep(0)
        assert await job.aresult() == 7
    assert shop.did == [threading.get_ident(), 1]


async def test_the_blocking_run_is_refused_on_a_loop(shop: Shop) -> None:
    async with Sandbox(shop.jobs) as box:
        with pytest.raises(RuntimeError, match=r"await box\.arun\(\)"):
            box.run()
        with pytest.raises(RuntimeError, match=r"await box\.aadvance\(\)"):
            box.advance(1)


async def test_arun_in_a_sandbox_of_plain_with_is_refused(shop: Shop) -> None:
    with Sandbox(shop.jobs) as box, pytest.raises(RuntimeError, match="async with"):
        await box.arun()


async def test_a_blocking_run_in_another_thread_uses_the_callers_loop(shop: Shop) -> None:
    async with Sandbox(shop.jobs) as box:
        job = await shop.asend.aenqueue(3)
        assert states(await asyncio.to_thread(box.run)) == ["succeeded"]
        assert await job.aresult() == 3


def test_code_under_test_may_have_loops_of_its_own(shop: Shop, box: Sandbox) -> None:
    async def view() -> UUID:
        return (await shop.asend.aenqueue(5)).id

    made = asyncio.run(view())
    assert [status.id for status in box.run()] == [made]


def test_threads_may_enqueue(shop: Shop, box: Sandbox) -> None:
    def produce() -> None:
        for number in range(50):
            shop.send.enqueue(number)

    threads = [threading.Thread(target=produce) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(box.run()) == 400
    assert sorted(shop.did) == sorted(list(range(50)) * 8)


def test_no_thread_and_no_loop_is_left_behind(shop: Shop) -> None:
    before = set(threading.enumerate())

    @shop.jobs.task(name="shop.threads", timeout=60)
    async def threads() -> None:
        await asyncio.to_thread(shop.did.append, 1)

    @shop.jobs.task(name="shop.timed", timeout=60)
    def timed() -> None:
        shop.did.append(2)

    for _ in range(20):
        with Sandbox(shop.jobs) as box:
            threads.enqueue()
            timed.enqueue()
            assert states(box.run()) == ["succeeded"] * 2
    gc.collect()  # a loop that is not closed would warn, and warnings are errors here
    assert shop.did == [1, 2] * 20
    assert set(threading.enumerate()) == before


# --- what is the test's own


@pytest.mark.parametrize("error", [KeyboardInterrupt, pytest.fail.Exception, pytest.skip.Exception])
@pytest.mark.parametrize("kind", ["plain", "async"])
def test_what_is_the_tests_own_leaves_run(shop: Shop, box: Sandbox, error: type[BaseException], kind: str) -> None:
    @shop.jobs.task(name="shop.plain")
    def plain() -> None:
        raise error("stop")

    @shop.jobs.task(name="shop.async")
    async def asynchronous() -> None:
        raise error("stop")

    job = (plain if kind == "plain" else asynchronous).enqueue()
    with pytest.raises(error):
        box.run()
    assert job.status().state == "dead"
    shop.send.enqueue(1)
    assert states(box.run()) == ["succeeded"], "the sandbox goes on"


def test_ctrl_c_ends_an_async_handler_and_gives_its_job_back(shop: Shop, box: Sandbox) -> None:
    @shop.jobs.task(name="shop.long")
    async def long() -> None:
        signal.raise_signal(signal.SIGINT)
        await asyncio.sleep(3600)

    job = long.enqueue()
    with pytest.raises(KeyboardInterrupt):
        box.run()
    assert job.status().state == "queued"


def test_sys_exit_is_the_jobs_failure(shop: Shop, box: Sandbox) -> None:
    @shop.jobs.task(name="shop.exits")
    def exits() -> None:
        raise SystemExit(3)

    exits.enqueue()
    assert states(box.run()) == ["dead"]


async def test_giving_up_on_arun_gives_the_job_back(shop: Shop) -> None:
    begun = asyncio.Event()

    @shop.jobs.task(name="shop.long")
    async def long() -> None:
        begun.set()
        await asyncio.sleep(3600)

    async with Sandbox(shop.jobs) as box:
        job = await long.aenqueue()
        running = asyncio.create_task(box.arun())
        await asyncio.wait_for(begun.wait(), 30)
        assert (await job.astatus()).state == "running"
        with pytest.raises(TimeoutError, match="one job at a time"):
            await job.aresult()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert ((await job.astatus()).state, (await job.astatus()).attempt) == ("queued", 0)


# --- being stopped


def test_a_plain_handler_that_is_cancelled_hears_of_it(shop: Shop, box: Sandbox) -> None:
    @shop.jobs.task(name="shop.cancels")
    def cancels() -> None:
        job = current_job()
        assert shop.jobs.job(job.id).cancel("enough")
        assert job.cancelled
        job.check()

    job = cancels.enqueue()
    assert states(box.run()) == ["cancelled"]
    assert job.status().reason == "enough"


async def test_an_async_handler_that_is_cancelled_ends(shop: Shop) -> None:
    begun = asyncio.Event()

    @shop.jobs.task(name="shop.long")
    async def long() -> None:
        begun.set()
        await asyncio.sleep(3600)

    async with Sandbox(shop.jobs) as box:
        job = await long.aenqueue()
        running = asyncio.create_task(box.arun())
        await asyncio.wait_for(begun.wait(), 30)
        await job.acancel("enough")
        assert states(await asyncio.wait_for(running, 30)) == ["cancelled"]


def test_a_handler_may_cancel_itself(shop: Shop, box: Sandbox) -> None:
    @shop.jobs.task(name="shop.unwanted")
    def unwanted() -> None:
        raise Cancel("test order")

    unwanted.enqueue()
    (status,) = box.run()
    assert (status.state, status.reason) == ("cancelled", "test order")


def test_a_timeout_ends_an_async_handler(shop: Shop, box: Sandbox) -> None:
    @shop.jobs.task(name="shop.long", timeout=0.05)
    async def long() -> None:
        await asyncio.sleep(3600)

    job = long.enqueue()
    assert states(box.run()) == ["dead"]
    assert job.status().errors[0].type == "TimeoutError"


def test_a_timeout_is_seen_by_a_plain_handler_that_looks(shop: Shop, box: Sandbox) -> None:
    @shop.jobs.task(name="shop.looks", timeout=0.05)
    def looks() -> None:
        patience = time.monotonic() + 30
        while time.monotonic() < patience:
            current_job().check()

    job = looks.enqueue()
    assert states(box.run()) == ["dead"]
    assert job.status().errors[0].type == "TimeoutError"


def test_time_that_is_only_let_pass_times_nothing_out(shop: Shop, box: Sandbox) -> None:
    @shop.jobs.task(name="shop.left", timeout=60)
    def left() -> float | None:
        return current_job().time_left

    job = left.using(delay="1h").enqueue()
    box.advance("2h")
    assert 0 < (job.result() or 0) <= 60


# --- sandboxes and their apps


def test_the_inner_sandbox_counts_while_it_is_open(shop: Shop) -> None:
    with Sandbox(shop.jobs) as outer:
        shop.send.enqueue(1)
        with Sandbox(shop.jobs, now=NOON) as inner:
            assert inner.enqueued(shop.send) == []
            shop.send.enqueue(2)
            assert len(inner.run()) == 1
            assert len(outer.enqueued(shop.send)) == 1, "the outer one's own jobs"
        assert len(outer.run()) == 1
    assert shop.did == [2, 1]


def test_each_sandbox_begins_empty(shop: Shop) -> None:
    for _ in range(50):
        with Sandbox(shop.jobs) as box:
            assert list(shop.jobs.find()) == []
            shop.send.enqueue(1)
            assert len(box.enqueued(shop.send)) == 1


def test_two_apps_have_a_sandbox_each() -> None:
    one, two = Shop(), Shop()
    with Sandbox(one.jobs) as first, Sandbox(two.jobs) as second:
        one.send.enqueue(1)
        assert second.run() == []
        assert len(first.run()) == 1


def test_the_real_store_is_untouched(tmp_path: Path) -> None:
    file = tmp_path / "shop.db"
    shop = Shop(f"sqlite:///{file}")
    with Sandbox(shop.jobs) as box:
        shop.send.enqueue(1)
        box.run()
    assert not file.exists()
    with shop.jobs:
        real = shop.send.enqueue(2)
        with Sandbox(shop.jobs) as box:
            with pytest.raises(JobNotFound):
                real.status()
            fake = shop.send.enqueue(3)
            assert len(box.run()) == 1
        assert real.status().state == "queued"
        with pytest.raises(JobNotFound):
            fake.status()
        assert [status.id for status in shop.jobs.find()] == [real.id]


def test_an_exception_in_the_block_puts_everything_back(shop: Shop) -> None:
    def fails() -> None:
        with Sandbox(shop.jobs) as box:
            shop.asend.enqueue(1)
            box.run()
            raise LookupError("of the test's own")

    with pytest.raises(LookupError, match="own"):
        fails()
    with pytest.raises(ConfigError, match="no store is chosen"):
        shop.send.enqueue(1)


def test_a_sandbox_that_is_not_open_says_so(shop: Shop) -> None:
    box = Sandbox(shop.jobs)
    for act in (box.run, lambda: box.advance(1), lambda: box.enqueued(shop.send)):
        with pytest.raises(RuntimeError, match="not open"):
            act()
    with box, pytest.raises(RuntimeError, match="open already"):
        box.__enter__()
    with pytest.raises(RuntimeError, match="not open"):
        box.run()
    with box:
        shop.send.enqueue(1)
        assert len(box.run()) == 1, "it may be opened again"


def test_what_is_no_app_is_refused() -> None:
    with pytest.raises(ConfigError, match="the app itself"):
        Sandbox("shop:jobs")  # type: ignore[arg-type]


def test_modules_of_the_app_are_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sandboxed_mail.py").write_text("raise RuntimeError('imported')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    jobs = Holdfast(modules=["sandboxed_mail"])
    with pytest.raises(RuntimeError, match="imported"), Sandbox(jobs):
        pass
    with pytest.raises(ConfigError, match="no_such_module"), Sandbox(Holdfast(modules=["no_such_module"])):
        pass


def test_a_worker_that_the_code_under_test_starts_finds_nothing_to_do(shop: Shop, box: Sandbox) -> None:
    with shop.jobs.worker():
        job = shop.send.enqueue(1)
        assert states(box.run()) == ["succeeded"]
        assert job.result() == "ann 1"
    assert shop.did == [1]


async def test_what_such_a_worker_sweeps_is_nothing(shop: Shop, box: Sandbox) -> None:
    job = await asyncio.to_thread(shop.send.enqueue, 1)
    idle = parts_of(shop.jobs).link.store.twin().twin()
    await idle.register(worker := uuid4(), None, {})
    assert (await idle.claim(worker, 1, None, 10)).jobs == []
    assert not await idle.wait(None, 0)
    await asyncio.to_thread(box.advance, "30d")
    assert await idle.prune(10) == 0
    assert await idle.reclaim(worker, 10) == []
    assert (await job.astatus()).state == "succeeded"


async def test_a_worker_in_a_lifespan_finds_nothing_to_do(shop: Shop) -> None:
    async with Sandbox(shop.jobs) as box, shop.jobs.worker():
        await shop.asend.aenqueue(1)
        await asyncio.sleep(0.1)
        assert shop.did == []
        assert states(await box.arun()) == ["succeeded"]


def test_the_app_may_be_opened_and_closed_inside(shop: Shop, box: Sandbox) -> None:
    with shop.jobs:
        shop.send.enqueue(1)
    assert states(box.run()) == ["succeeded"]


def test_any_connection_is_taken_and_the_job_recorded_at_once(shop: Shop, box: Sandbox) -> None:
    connection = object()
    shop.send.using(connection=connection).enqueue(1)
    shop.jobs.enqueue_many([shop.send.bind(2), shop.send.bind(3)], connection=connection)
    assert len(box.run()) == 3
    assert shop.did == [1, 2, 3]


def test_with_a_connection_a_call_is_all_or_nothing(shop: Shop, box: Sandbox) -> None:
    shop.jobs.queue("small", max_size=2)
    shop.jobs.queue("rolling", max_size=1, when_full="drop_oldest")
    old = shop.send.using(queue="rolling", tags=["old"]).enqueue(0)
    fits = [shop.send.using(queue=queue).bind(1) for queue in ("small", "rolling", "small")]
    with pytest.raises(QueueFull, match="it is all or nothing, and nothing was stored") as full:
        shop.jobs.enqueue_many([*fits, shop.send.using(queue="small").bind(2)], connection=object())
    assert (full.value.accepted, len(full.value.refused)) == ([], 4)
    assert [job.id for job in box.enqueued(shop.send)] == [old.id]
    assert old.status().state == "queued", "nothing is dropped for what is not stored"
    assert all(job.created for job in shop.jobs.enqueue_many(fits, connection=object())), "as if it had never been"
    assert states(box.run()) == ["succeeded"] * 3


def test_with_a_connection_a_clash_stores_nothing_of_the_call(shop: Shop, box: Sandbox) -> None:
    strict = shop.send.using(unique=Unique("one", on_clash="raise"))
    with pytest.raises(UniqueConflict):
        shop.jobs.enqueue_many([shop.send.bind(1), strict.bind(2), strict.bind(3)], connection=object())
    assert box.enqueued(shop.send) == []


def test_without_one_each_job_is_by_itself(shop: Shop, box: Sandbox) -> None:
    shop.jobs.queue("small", max_size=2)
    with pytest.raises(QueueFull) as full:
        shop.jobs.enqueue_many([shop.send.using(queue="small").bind(n) for n in range(3)])
    assert len(full.value.accepted) == len(box.enqueued(shop.send)) == 2


async def test_any_connection_is_taken_from_async_code(shop: Shop) -> None:
    async with Sandbox(shop.jobs) as box:
        await shop.asend.using(connection=object()).aenqueue(1)
        await shop.jobs.aenqueue_many([shop.asend.bind(2)], connection=object())
        assert len(await box.arun()) == 2


def test_a_resource_that_cannot_be_opened_leaves_run_and_its_job_waits(shop: Shop, box: Sandbox) -> None:
    broken = [True]

    @shop.jobs.resource
    def disk() -> Iterator[str]:
        if broken:
            raise OSError("no disk")
        yield "disk"

    job = shop.send.enqueue(1)
    with pytest.raises(ResourceError, match="disk"):
        box.run()
    assert (job.status().state, job.status().attempt, shop.did) == ("queued", 0, [])
    broken.clear()
    assert states(box.run()) == ["succeeded"]


@pytest.mark.parametrize("kind", ["plain", "async"])
async def test_a_resource_that_skips_the_test_does(shop: Shop, kind: str) -> None:
    if kind == "plain":

        @shop.jobs.resource
        def server() -> Iterator[str]:
            pytest.skip("no server here")
            yield "never"
    else:

        @shop.jobs.resource
        async def server() -> AsyncIterator[str]:
            pytest.skip("no server here")
            yield "never"

    async with Sandbox(shop.jobs) as box:
        await shop.asend.aenqueue(1)
        with pytest.raises(pytest.skip.Exception, match="no server here"):
            await asyncio.wait_for(box.arun(), 60)


async def test_a_worker_of_the_code_under_test_may_hold_the_same_resources(shop: Shop) -> None:
    @shop.jobs.resource
    async def client() -> AsyncIterator[str]:
        shop.did.append("opens")
        yield "client"
        shop.did.append("closes")

    @shop.jobs.task(name="shop.uses")
    async def uses() -> str:
        return client()

    async with Sandbox(shop.jobs) as box:
        async with shop.jobs.worker():
            job = await uses.aenqueue()
            await box.arun()
            assert await job.aresult() == "client"
        job = await uses.aenqueue()
        await box.arun()
        assert await job.aresult() == "client"
    assert shop.did.count("opens") == shop.did.count("closes")
    assert shop.did[-1] == "closes"


def test_bounds_are_declared_in_every_sandbox_and_in_the_real_store(tmp_path: Path) -> None:
    shop = Shop(f"sqlite:///{tmp_path}/shop.db")
    shop.jobs.queue("default", max_size=1)

    def is_bounded() -> None:
        shop.send.enqueue(1)
        with pytest.raises(QueueFull):
            shop.send.enqueue(2)

    with Sandbox(shop.jobs):
        is_bounded()
        with Sandbox(shop.jobs):
            is_bounded()
        with pytest.raises(QueueFull):
            shop.send.enqueue(2)
    with Sandbox(shop.jobs):
        is_bounded()
    with shop.jobs:
        is_bounded()
        with Sandbox(shop.jobs):
            is_bounded()


# --- a job's end in its own transaction


def finishing(shop: Shop, then: Callable[[], object]) -> Any:
    """A task that finishes in a transaction, does `then`, and returns something else."""

    def pay(receipt: object) -> str:
        current_job().finish(object(), receipt)
        then()
        return "what is returned"

    return shop.jobs.task(name="shop.pay")(pay)


def test_a_job_that_finishes_in_a_transaction_succeeds_with_that_result(shop: Shop, box: Sandbox) -> None:
    task = finishing(shop, lambda: None)
    job = task.enqueue("receipt 7")
    [status] = box.run()
    assert (status.state, job.result()) == ("succeeded", "receipt 7")


def test_what_is_raised_after_it_fails_the_job_as_if_it_had_been_rolled_back(shop: Shop, box: Sandbox) -> None:
    def refuse() -> None:
        raise ValueError("not paid")

    job = finishing(shop, refuse).enqueue("receipt 7")
    [status] = box.run()
    assert (status.state, [error.message for error in status.errors]) == ("dead", ["not paid"])
    with pytest.raises(JobFailed, match="not paid"):
        job.result()


def test_its_result_is_checked_as_any(shop: Shop, box: Sandbox) -> None:
    @shop.jobs.task(name="shop.apay")
    async def apay() -> None:
        await current_job().afinish(object(), object())

    apay.enqueue()
    [status] = box.run()
    assert (status.state, status.errors[-1].type) == ("dead", "PayloadError")
