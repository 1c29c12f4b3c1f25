"""The worker as a whole, on the memory store: how attempts end, how it stops, and how it gets over losses."""

import asyncio
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import holdfast.worker.fetcher as fetchers
import holdfast.worker.loop as loops
from holdfast import Cancel, ConfigError, Holdfast, Job, JobFailed, Permanent, Retry, Snooze, Stop, current_job
from holdfast.clock import MINUTE, SECOND, FakeClock
from holdfast.context import asked
from holdfast.errors import StoreAway, StoreError
from holdfast.job import Loss, State, Terms
from holdfast.store import LEASE, LEASE_RAN_OUT, Line
from holdfast.worker import crew as workers
from holdfast.worker import janitor
from holdfast.worker.embedded import Worker
from holdfast.worker.slots import Slots
from tests.store.acts import draft, hand, keep_beating, stored
from tests.worker.rig import PATIENCE, Shop, events, fields, levels, soon, until

ENDED = (State.SUCCEEDED, State.DEAD, State.CANCELLED)


class Gate:
    """A handler's doorstep: it says that it is there, and waits. For threads and coroutines alike."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()

    def pass_(self) -> None:
        self.reached.set()
        assert self.opened.wait(PATIENCE), "nobody opens the gate"

    async def apass(self) -> None:
        self.reached.set()
        await asyncio.to_thread(self.opened.wait, PATIENCE)

    async def arrival(self) -> None:
        assert await asyncio.to_thread(self.reached.wait, PATIENCE), "the handler does not begin"


@pytest.fixture
def gate() -> Iterator[Gate]:
    it = Gate()
    yield it
    it.opened.set()  # whatever a failed test has left waiting


@pytest.fixture(autouse=True)
def swift_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that was away is asked again within milliseconds: nothing here is about that pause."""
    monkeypatch.setattr(loops, "BACKOFF_FIRST", 0.005)
    monkeypatch.setattr(fetchers, "IDLE_MOST", 0.05)


@pytest.fixture
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """What gets two and five seconds in life gets a twentieth of a second here."""
    monkeypatch.setattr(workers, "GRACE", 0.05)
    monkeypatch.setattr(workers, "FLUSH", 0.05)


# --- what a worker is made with


@pytest.mark.parametrize("concurrency", [0, -1, 1.5, "10", None, True, 10_001])
def test_a_concurrency_that_makes_no_sense_is_refused(concurrency: Any) -> None:
    with pytest.raises(ConfigError, match=r"^concurrency=.*from 1 to 10000"):
        Holdfast("memory://").worker(concurrency=concurrency)


@pytest.mark.parametrize("queues", ["mail", [], ["two words"], [5], ()])
def test_queues_that_make_no_sense_are_refused(queues: Any) -> None:
    with pytest.raises(ConfigError, match=r"^queues="):
        Holdfast("memory://").worker(queues=queues)


@pytest.mark.parametrize("deadline", [-1, "soon", None, True, float("nan")])
def test_a_deadline_that_makes_no_sense_is_refused(deadline: Any) -> None:
    with pytest.raises(ConfigError, match=r"^deadline="):
        Holdfast("memory://").worker(deadline=deadline)


# --- attempts and how they end


async def test_an_async_and_a_plain_handler_run_and_succeed(shop: Shop) -> None:
    threads: dict[str, int] = {}

    @shop.task(name="a")
    async def on_loop(n: int) -> int:
        threads["async"] = threading.get_ident()
        return n + 1

    @shop.task(name="b")
    def in_thread(day: datetime) -> datetime:
        threads["plain"] = threading.get_ident()
        return day

    day = datetime(2030, 1, 1, tzinfo=UTC)
    await shop.started()
    one, two = await on_loop.aenqueue(1), await in_thread.aenqueue(day)
    assert await one.aresult(PATIENCE) == 2
    assert await two.aresult(PATIENCE) == day
    assert threads["async"] == threading.get_ident() != threads["plain"]


async def test_a_handler_sees_its_job(shop: Shop) -> None:
    seen: list[tuple[object, ...]] = []

    def look() -> None:
        job = current_job()
        left = job.time_left
        seen.append((job.id, job.task, job.queue, job.attempt, job.fence, job.held, job.cancelled, left))

    plain = shop.task(name="plain", queue="mail", timeout=60)(look)

    @shop.task(name="async", queue="mail")
    async def alook() -> None:
        look()

    await shop.started()
    jobs = [await plain.aenqueue(), await alook.aenqueue()]
    for job in jobs:
        await job.aresult(PATIENCE)
    assert sorted(entry[:-1] for entry in seen) == sorted(
        (job.id, name, "mail", 1, 1, True, False) for job, name in zip(jobs, ("plain", "async"), strict=True)
    )
    (timed,) = [entry[-1] for entry in seen if entry[1] == "plain"]
    assert isinstance(timed, float)
    assert 0 < timed <= 60


async def test_a_failure_is_tried_again_until_its_budget_is_spent(shop: Shop) -> None:
    attempts: list[tuple[int, int]] = []

    @shop.task(retry=Retry(max_attempts=3, base_delay=0))
    async def fail() -> None:
        attempts.append((current_job().attempt, current_job().fence))
        raise OSError("down")

    await shop.started()
    job = await fail.aenqueue()
    with pytest.raises(JobFailed) as failed:
        await job.aresult(PATIENCE)
    assert attempts == [(1, 1), (2, 2), (3, 3)]
    assert failed.value.error.attempt == 3
    assert len((await job.astatus()).errors) == 3


async def test_a_retry_waits_in_the_store_and_not_in_a_slot(shop: Shop) -> None:
    @shop.task(retry=Retry(max_attempts=2, base_delay="1h", max_delay="1h", jitter=0))
    async def fail() -> None:
        raise OSError("down")

    @shop.task(name="other")
    async def other() -> int:
        return 5

    worker = await shop.started(concurrency=1)
    job = await fail.aenqueue()
    found = await shop.state(job, State.SCHEDULED)
    assert timedelta(milliseconds=found.due_at - (found.started_at or 0)) >= timedelta(hours=1)
    assert await (await other.aenqueue()).aresult(PATIENCE) == 5
    assert len(worker._slots.running) == 0  # noqa: SLF001


@pytest.mark.parametrize("kind", ["async", "plain"])
async def test_what_a_handler_says_by_an_exception(shop: Shop, kind: str) -> None:
    says: dict[str, BaseException] = {
        "snooze": Snooze("1h", "the bank is closed"),
        "after": Retry.after("2h", "they said so"),
        "permanent": Permanent("no such order"),
        "cancel": Cancel("already paid"),
        "never": ValueError("never again"),
    }

    def say(what: str) -> None:
        raise says[what]

    async def asay(what: str) -> None:
        raise says[what]

    retry = Retry(max_attempts=5, base_delay="3h", max_delay="3h", jitter=0, never=(ValueError,))
    task = shop.task(name="shop.say", retry=retry)(asay if kind == "async" else say)
    await shop.started()
    jobs = {what: await task.aenqueue(what) for what in says}
    found = {what: await shop.state(job, State.SCHEDULED, *ENDED) for what, job in jobs.items()}
    assert {what: (r.state, r.attempt) for what, r in found.items()} == {
        "snooze": (State.SCHEDULED, 0),
        "after": (State.SCHEDULED, 1),
        "permanent": (State.DEAD, 1),
        "cancel": (State.CANCELLED, 1),
        "never": (State.DEAD, 1),
    }
    wait = {what: r.due_at - r.history[-1].ended_at for what, r in found.items() if r.state == State.SCHEDULED}
    assert wait == {"snooze": 60 * MINUTE, "after": 120 * MINUTE}
    assert (found["snooze"].reason, found["cancel"].reason) == ("the bank is closed", "already paid")


@pytest.mark.parametrize("kind", ["async", "plain"])
async def test_a_snooze_of_nonsense_is_a_failure_and_the_worker_goes_on(shop: Shop, kind: str) -> None:
    def say() -> None:
        raise Snooze("soon")

    async def asay() -> None:
        raise Snooze("soon")

    task = shop.task(name="shop.say")(asay if kind == "async" else say)
    await shop.started(concurrency=1)
    for _ in range(2):
        with pytest.raises(JobFailed, match=r"Snooze\.delay='soon'"):
            await (await task.aenqueue()).aresult(PATIENCE)


@pytest.mark.parametrize(
    "error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), asyncio.CancelledError(), Stop("lost")]
)
@pytest.mark.parametrize("kind", ["async", "plain"])
async def test_a_handler_that_wants_to_end_the_program_ends_its_own_attempt(
    shop: Shop, kind: str, error: BaseException
) -> None:
    def leave() -> None:
        raise error

    async def aleave() -> None:
        raise error

    task = shop.task(name="shop.leave")(aleave if kind == "async" else leave)
    ok = shop.task(name="shop.ok")(lambda: 5)
    await shop.started(concurrency=1)
    job = await task.aenqueue()
    with pytest.raises(JobFailed, match=type(error).__name__):
        await job.aresult(PATIENCE)
    assert await (await ok.aenqueue()).aresult(PATIENCE) == 5


@pytest.mark.parametrize("kind", ["async", "plain"])
async def test_a_result_that_cannot_be_stored_is_the_jobs_own_failure(shop: Shop, kind: str) -> None:
    def give(what: str) -> Any:
        return {"object": object(), "large": "x" * (1024 * 1024 + 1)}[what]

    async def agive(what: str) -> Any:
        return give(what)

    task = shop.task(name="shop.give")(agive if kind == "async" else give)
    await shop.started()
    for what in ("object", "large"):
        job = await task.aenqueue(what)
        with pytest.raises(JobFailed, match=r"PayloadError.*result"):
            await job.aresult(PATIENCE)


async def test_arguments_that_no_longer_fit_are_an_ordinary_failure(shop: Shop) -> None:
    calls: list[str] = []

    @shop.task(name="shop.send")
    def send(to: str) -> None:
        calls.append(to)

    await shop.started()
    terms = Terms(max_attempts=2, base_delay=3_600_000)
    (stored_id,) = await stored(shop.store.inner, draft(payload=b'{"args":["ann","bob"]}', terms=terms))
    job: Job[Any] = shop.jobs.job(stored_id)
    found = await shop.state(job, State.SCHEDULED, *ENDED)
    assert found.state == State.SCHEDULED, "it outlives a deploy"
    error = found.history[-1].error
    assert error is not None
    assert error.type == "ArgumentsChanged"
    assert calls == []


async def test_a_payload_that_is_no_call_is_the_jobs_own_failure(shop: Shop) -> None:
    shop.task(name="shop.send")(lambda: None)
    await shop.started()
    (stored_id,) = await stored(shop.store.inner, draft(payload=b"\xff not JSON", terms=Terms(max_attempts=1)))
    found = await shop.state(shop.jobs.job(stored_id), *ENDED)
    assert found.state == State.DEAD


async def test_an_unknown_task_is_given_back_for_later_uncharged(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "holdfast"):
        await shop.started(concurrency=1)
        (stored_id,) = await stored(shop.store.inner, draft(task="shop.unheard_of"))
        found = await shop.state(shop.jobs.job(stored_id), State.SCHEDULED, *ENDED)
    assert (found.state, found.attempt, found.releases, found.losses) == (State.SCHEDULED, 0, 1, 0)
    assert found.due_at - (found.started_at or 0) >= SECOND
    assert [told["task"] for told in fields(caplog, "unknown-task")] == ["shop.unheard_of"]


async def test_an_alias_is_a_name_as_good_as_the_other(shop: Shop) -> None:
    @shop.task(name="shop.send", aliases=("shop.old_send",))
    def send() -> str:
        return current_job().task

    await shop.started()
    (stored_id,) = await stored(shop.store.inner, draft(task="shop.old_send", payload=b"{}"))
    assert await shop.jobs.job(stored_id).aresult(PATIENCE) == "shop.old_send"
    assert send.name == "shop.send"


# --- time limits


async def test_an_async_handler_past_its_timeout_is_cancelled_and_may_be_tried_again(shop: Shop) -> None:
    cleaned: list[int] = []

    @shop.task(timeout=0.02, retry=Retry(max_attempts=2, base_delay=0))
    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.append(current_job().attempt)

    await shop.started()
    job = await hang.aenqueue()
    with pytest.raises(JobFailed, match=r"TimeoutError: ran longer than its timeout of 20 ms"):
        await job.aresult(PATIENCE)
    assert cleaned == [1, 2]


async def test_a_timeout_that_shall_not_be_retried_is_dead(shop: Shop) -> None:
    @shop.task(timeout=0.02, retry=Retry(max_attempts=5, base_delay=0, never=(TimeoutError,)))
    async def hang() -> None:
        await asyncio.Event().wait()

    await shop.started()
    job = await hang.aenqueue()
    with pytest.raises(JobFailed) as failed:
        await job.aresult(PATIENCE)
    assert failed.value.error.attempt == 1


async def test_a_plain_handler_past_its_timeout_is_told_and_settled_when_its_code_has_ended(
    shop: Shop, gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    stopped = threading.Event()

    @shop.task(timeout=0.02)
    def hang() -> str:
        job = current_job()
        while not job._why:  # noqa: SLF001  # a handler that looks for itself when it is late
            pass
        stopped.set()
        gate.pass_()
        return "too late"

    worker = await shop.started(concurrency=1)
    job = await hang.aenqueue()
    await gate.arrival()
    assert stopped.is_set()
    await asyncio.sleep(0.05)
    assert (await job.astatus()).state == "running", "its code still runs: the next attempt would overlap"
    assert len(worker._slots.running) == 1  # noqa: SLF001  # and it keeps its slot
    assert [told["job"] for told in fields(caplog, "timeout")] == [job.id]
    gate.opened.set()
    assert await job.aresult(PATIENCE) == "too late", "what has returned is done, however late"


async def test_a_plain_handler_that_looks_is_ended_by_its_timeout(shop: Shop) -> None:
    @shop.task(timeout=0.02)
    def hang() -> None:
        while True:
            current_job().check()

    await shop.started(concurrency=1)
    with pytest.raises(JobFailed, match="TimeoutError"):
        await (await hang.aenqueue()).aresult(PATIENCE)


async def test_a_handler_that_ends_in_time_is_not_hit_by_its_timer_later(shop: Shop, gate: Gate) -> None:
    @shop.task(name="short", timeout=0.05)
    async def short() -> str:
        return "in time"

    @shop.task(name="long")
    async def long() -> str:
        await gate.apass()
        return "undisturbed"

    await shop.started(concurrency=1)
    first = await short.aenqueue()
    second = await long.aenqueue()
    assert await first.aresult(PATIENCE) == "in time"
    await gate.arrival()
    await asyncio.sleep(0.06)  # beyond the first one's time
    gate.opened.set()
    assert await second.aresult(PATIENCE) == "undisturbed"


# --- cancels


async def test_a_running_async_job_is_cancelled(shop: Shop, gate: Gate) -> None:
    @shop.task
    async def hang() -> None:
        gate.reached.set()
        await asyncio.Event().wait()

    await shop.started()
    job = await hang.aenqueue()
    await gate.arrival()
    assert await job.acancel("the customer left") is True
    found = await shop.state(job, *ENDED)
    assert (found.state, found.reason) == (State.CANCELLED, "the customer left")


async def test_a_running_plain_job_is_flagged_and_ends_cancelled_at_its_next_check(shop: Shop) -> None:
    checking = threading.Event()

    @shop.task
    def check_and_check() -> None:
        while True:
            checking.set()
            current_job().check()
            checking.wait(0.001)

    await shop.started()
    job = await check_and_check.aenqueue()
    assert await asyncio.to_thread(checking.wait, PATIENCE)
    await job.acancel()
    assert (await shop.state(job, *ENDED)).state == State.CANCELLED


async def test_a_plain_job_that_never_looks_stays_running_and_its_success_stays_a_success(
    shop: Shop, gate: Gate
) -> None:
    @shop.task
    def busy() -> str:
        gate.pass_()
        return "done"

    worker = await shop.started()
    job = await busy.aenqueue()
    await gate.arrival()
    assert await job.acancel() is True
    (run,) = worker._slots.running.values()  # noqa: SLF001
    await until(lambda: run.job.cancelled, "the cancel is not heard")
    assert (await job.astatus()).state == "running", "never cancelled while its code runs"
    gate.opened.set()
    assert await job.aresult(PATIENCE) == "done"


async def test_a_plain_job_that_fails_after_a_cancel_was_asked_for_ends_cancelled(shop: Shop, gate: Gate) -> None:
    @shop.task(retry=Retry(max_attempts=5, base_delay=0))
    def busy() -> None:
        gate.pass_()
        raise OSError("down")

    worker = await shop.started()
    job = await busy.aenqueue()
    await gate.arrival()
    await job.acancel("the customer left")
    (run,) = worker._slots.running.values()  # noqa: SLF001
    await until(lambda: run.job.cancelled, "the cancel is not heard")
    gate.opened.set()
    found = await shop.state(job, *ENDED)
    assert (found.state, found.reason) == (State.CANCELLED, "the customer left")


async def test_an_async_handler_that_swallows_the_cancel_and_returns_has_succeeded(shop: Shop, gate: Gate) -> None:
    @shop.task
    async def stubborn() -> str:
        gate.reached.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "finished all the same"
        return "never"

    await shop.started()
    job = await stubborn.aenqueue()
    await gate.arrival()
    await job.acancel()
    assert await job.aresult(PATIENCE) == "finished all the same"


async def test_a_handler_that_cleans_up_after_a_cancel_is_given_the_time(shop: Shop, gate: Gate) -> None:
    @shop.task
    async def tidy() -> None:
        try:
            gate.reached.set()
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.02)
            cleaned.append("clean")

    cleaned: list[str] = []
    await shop.started()
    job = await tidy.aenqueue()
    await gate.arrival()
    await job.acancel()
    await shop.state(job, State.CANCELLED)
    assert cleaned == ["clean"]


async def test_a_cancel_reaches_one_job_and_not_its_neighbours(shop: Shop) -> None:
    begun: list[int] = []
    go = asyncio.Event()

    @shop.task
    async def wait(n: int) -> int:
        begun.append(n)
        await go.wait()
        return n

    await shop.started()
    jobs = [await wait.aenqueue(n) for n in range(4)]
    await until(lambda: len(begun) == 4, "not all begin")
    await jobs[2].acancel()
    await shop.state(jobs[2], State.CANCELLED)
    go.set()
    assert [await job.aresult(PATIENCE) for job in (jobs[0], jobs[1], jobs[3])] == [0, 1, 3]


# --- slots


async def test_the_concurrency_is_never_exceeded(shop: Shop) -> None:
    lock, at_once, most = threading.Lock(), 0, 0

    def count(by: int) -> None:
        nonlocal at_once, most
        with lock:
            at_once += by
            most = max(most, at_once)

    @shop.task(name="a")
    async def on_loop() -> None:
        count(1)
        await asyncio.sleep(0)
        count(-1)

    @shop.task(name="b")
    def in_thread() -> None:
        count(1)
        count(-1)

    await shop.started(concurrency=3)
    jobs = await shop.jobs.aenqueue_many([task.bind() for _ in range(100) for task in (on_loop, in_thread)])
    for job in jobs:
        await job.aresult(PATIENCE)
    assert 2 <= most <= 3


async def test_a_job_that_must_run_alone_has_the_worker_to_itself(shop: Shop) -> None:
    at_once: dict[str, int] = {}
    present: set[str] = set()

    @shop.task(name="shop.send")
    async def send() -> None:
        name = str(current_job().id)
        present.add(name)
        for _ in range(5):
            await asyncio.sleep(0)
            at_once[name] = max(at_once.get(name, 0), len(present))
        present.discard(name)

    ids = await stored(shop.store.inner, *(draft(payload=b"{}", alone=n % 5 == 4, terms=Terms()) for n in range(20)))
    await shop.started(concurrency=4)
    for job in map(shop.jobs.job, ids):
        await shop.state(job, State.SUCCEEDED)
    assert {at_once[str(one)] for one in ids[4::5]} == {1}
    assert max(at_once.values()) > 1


async def test_only_the_queues_of_the_worker_are_served(shop: Shop) -> None:
    task = shop.task(name="a")(lambda: current_job().queue)
    await shop.started(queues=["mail"])
    other = await task.using(queue="slow").aenqueue()
    assert await (await task.using(queue="mail").aenqueue()).aresult(PATIENCE) == "mail"
    assert (await other.astatus()).state == "queued"


async def test_lost_replies_run_nothing_twice_and_strand_nothing(shop: Shop) -> None:
    runs: list[int] = []

    @shop.task
    async def note(n: int) -> int:
        runs.append(n)
        return n

    shop.store.drop("claim", times=3)
    shop.store.drop("finish", times=3)
    shop.store.fail("claim", times=2)
    shop.store.fail("finish", times=2)
    await shop.started(concurrency=5)
    jobs = await shop.jobs.aenqueue_many(note.bind(n) for n in range(100))
    assert [await job.aresult(PATIENCE) for job in jobs] == list(range(100))
    assert sorted(runs) == list(range(100))


# --- what is told


async def test_an_attempt_is_told_when_it_begins_and_when_it_ends(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    ok = shop.task(name="ok")(lambda: 5)
    with caplog.at_level(logging.INFO, "holdfast.job"):
        await shop.started()
        job = await ok.aenqueue()
        await job.aresult(PATIENCE)
    assert events(caplog, "started", "succeeded") == ["started", "succeeded"]
    (told,) = fields(caplog, "succeeded")
    assert (told["job"], told["task"], told["attempt"], told["fence"]) == (job.id, "ok", "1/1", 1)


async def test_a_dead_job_without_a_retry_says_that_it_had_none(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise OSError("down")

    once = shop.task(name="once")(fail)
    twice = shop.task(name="twice", retry=Retry(max_attempts=2, base_delay=0))(fail)
    with caplog.at_level(logging.WARNING, "holdfast.job"):
        await shop.started()
        for task in (once, twice):
            with pytest.raises(JobFailed):
                await (await task.aenqueue()).aresult(PATIENCE)
    assert [(told["task"], told["hint"]) for told in fields(caplog, "dead")] == [
        ("once", "no retry= set"),
        ("twice", None),
    ]
    assert levels(caplog, "dead") == ["ERROR", "ERROR"]
    assert levels(caplog, "failed") == ["WARNING"]


# --- stopping


async def test_a_worker_without_jobs_stops_at_once(shop: Shop) -> None:
    worker = await shop.started()
    departure = await soon(worker.astop(), "it does not stop")
    assert (departure.exit_code, departure.forced, list(departure.unsettled)) == (0, [], [])


@pytest.mark.parametrize("kind", ["async", "plain"])
async def test_a_drain_lets_running_jobs_finish_and_claims_no_more(shop: Shop, gate: Gate, kind: str) -> None:
    def plain() -> str:
        gate.pass_()
        return "finished"

    async def on_loop() -> str:
        await gate.apass()
        return "finished"

    task = shop.task(name="slow")(on_loop if kind == "async" else plain)
    worker = await shop.started(concurrency=1)
    running = await task.aenqueue()
    await gate.arrival()
    queued = await task.aenqueue()
    stopping = asyncio.create_task(worker.astop(60))
    await asyncio.sleep(0.01)
    assert not stopping.done()
    gate.opened.set()
    departure = await soon(stopping, "it does not stop")
    assert departure.exit_code == 0
    assert (await shop.state(running, *ENDED)).state == State.SUCCEEDED
    left = await shop.state(queued, State.QUEUED)
    assert (left.attempt, left.history) == (0, ())


@pytest.mark.usefixtures("short_grace")
async def test_at_the_deadline_an_async_handler_is_interrupted_and_given_back_uncharged(shop: Shop, gate: Gate) -> None:
    @shop.task
    async def hang() -> None:
        gate.reached.set()
        await asyncio.Event().wait()

    worker = await shop.started()
    job = await hang.aenqueue()
    await gate.arrival()
    departure = await soon(worker.astop(0), "it does not stop")
    assert departure.exit_code == 0
    found = await shop.state(job, State.QUEUED)
    assert (found.attempt, found.losses, found.crashes, found.fence) == (0, 0, 0, 1)
    assert found.history[-1].ended == "released"


@pytest.mark.usefixtures("short_grace")
async def test_at_the_deadline_a_plain_handler_that_looks_leaves_and_is_given_back(shop: Shop) -> None:
    begun, why = threading.Event(), list[str]()

    @shop.task
    def look() -> None:
        begun.set()
        try:
            while True:
                current_job().check()
        except Stop as stop:
            why.append(stop.why)
            raise

    worker = await shop.started()
    job = await look.aenqueue()
    assert await asyncio.to_thread(begun.wait, PATIENCE)
    departure = await soon(worker.astop(0), "it does not stop")
    assert (departure.exit_code, why) == (0, ["shutdown"])
    assert (await shop.state(job, State.QUEUED)).attempt == 0


@pytest.mark.usefixtures("short_grace")
async def test_code_that_runs_past_the_deadline_keeps_its_job_until_it_has_ended(
    shop: Shop, gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    @shop.task
    def stuck() -> str:
        gate.pass_()
        return "much too late"

    worker = await shop.started()
    job = await stuck.aenqueue()
    await gate.arrival()
    with caplog.at_level(logging.ERROR, "holdfast"):
        departure = await soon(worker.astop(0), "it does not stop")
    assert departure.exit_code == 1
    assert [run.claim.id for run in departure.forced] == [job.id]
    assert [told["job"] for told in fields(caplog, "forced")] == [job.id]
    other = await hand(shop.store.inner)
    assert await other.reclaim() == {}, "never given back while its code runs"
    gate.opened.set()
    await until(lambda: "retire" in shop.store.done, "its lease is kept for ever")
    claims = await other.reclaim()
    assert set(claims) == {job.id}
    loss = claims[job.id].loss
    assert loss is not None
    assert loss.on_purpose, "the worker left on purpose: the job is not to be charged for it"


async def test_a_second_signal_skips_to_the_deadline(shop: Shop, gate: Gate) -> None:
    @shop.task
    async def hang() -> None:
        gate.reached.set()
        await asyncio.Event().wait()

    worker = await shop.started()
    job = await hang.aenqueue()
    await gate.arrival()
    stopping = asyncio.create_task(worker.astop("1h"))
    await asyncio.sleep(0.01)
    assert not stopping.done()
    worker.hurry()
    departure = await soon(stopping, "it waits for the deadline")
    assert departure.exit_code == 0
    assert (await shop.state(job, State.QUEUED)).attempt == 0


@pytest.fixture
def room_for_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """One more job is claimed than there are slots, as when jobs end quickly."""
    monkeypatch.setattr(Slots, "room", lambda slots: 2 - len(slots.running) - len(slots.waiting))


@pytest.mark.usefixtures("room_for_two")
async def test_prefetched_jobs_are_given_back_uncharged_and_never_begun(shop: Shop, gate: Gate) -> None:
    begun: list[str] = []

    @shop.task(name="shop.send")
    async def send() -> None:
        begun.append(str(current_job().id))
        await gate.apass()

    ids = await stored(
        shop.store.inner, draft(payload=b"{}", priority=1, terms=Terms()), draft(payload=b"{}", terms=Terms())
    )
    worker = await shop.started(concurrency=1)
    await gate.arrival()
    await until(lambda: len(worker._slots.waiting) == 1, "the second job is not claimed")  # noqa: SLF001
    stopping = asyncio.create_task(worker.astop(60))
    found = await shop.state(shop.jobs.job(ids[1]), State.QUEUED)
    assert (found.attempt, found.losses, found.history[-1].ended) == (0, 0, "released")
    gate.opened.set()
    await soon(stopping, "it does not stop")
    assert begun == [str(ids[0])]


async def test_jobs_that_must_run_alone_never_wait_in_a_worker(shop: Shop) -> None:
    begun: list[str] = []
    together: list[int] = []

    @shop.task(name="shop.send")
    async def send() -> None:
        begun.append(str(current_job().id))
        together.append(len(worker._slots.running) + len(worker._slots.waiting))  # noqa: SLF001
        assert not worker._finisher.pending, "what ended before is on record"  # noqa: SLF001
        await asyncio.sleep(0)

    ids = await stored(shop.store.inner, *(draft(payload=b"{}", alone=True, terms=Terms()) for _ in range(4)))
    worker = await shop.started(concurrency=4)
    for id in ids:  # noqa: A001
        await shop.state(shop.jobs.job(id), State.SUCCEEDED)
    assert sorted(begun) == sorted(map(str, ids))
    assert together in ([0, 0, 0, 0], [1, 1, 1, 1]), "nothing was held beside the one that ran"


async def test_jobs_that_a_claim_brings_while_the_worker_stops_are_given_back(shop: Shop) -> None:
    begun: list[str] = []
    task = shop.task(name="shop.send")(lambda: begun.append("it ran"))
    job = await task.aenqueue()
    made, go = shop.store.hold("claim")
    worker = await shop.started()
    await soon(made.wait(), "it does not claim")
    stopping = asyncio.create_task(worker.astop(60))
    await asyncio.sleep(0.01)
    go.set()
    await soon(stopping, "it does not stop")
    found = await shop.state(job, State.QUEUED, *ENDED)
    assert (found.state, found.attempt, begun) == (State.QUEUED, 0, [])


@pytest.mark.usefixtures("short_grace")
async def test_outcomes_that_the_store_does_not_take_are_told_by_id_and_in_the_exit_code(
    shop: Shop, gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    @shop.task
    async def slow() -> None:
        await gate.apass()

    worker = await shop.started()
    job = await slow.aenqueue()
    await gate.arrival()
    shop.store.away("finish", "retire", "claim", "beat", "promote", "reclaim", "mail")
    gate.opened.set()
    with caplog.at_level(logging.WARNING, "holdfast"):
        departure = await soon(worker.astop(), "it does not stop")
    assert departure.exit_code == 3
    assert [outcome.id for outcome in departure.unsettled] == [job.id]
    assert [told["job"] for told in fields(caplog, "not-recorded")] == [job.id]


@pytest.mark.parametrize("silent", [("claim", "retire"), ("promote", "retire"), ("retire",)])
async def test_a_store_that_falls_silent_does_not_hold_up_an_idle_worker_that_leaves(
    silent: tuple[str, ...], shop: Shop, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "FLUSH", 0.2)
    monkeypatch.setattr(janitor, "PROMOTE_EVERY", 0.01)
    worker = await shop.started()
    held = [shop.store.hold(method) for method in silent]
    await until(lambda: silent[0] == "retire" or held[0][0].is_set(), "the store is not asked")
    with caplog.at_level(logging.WARNING, "holdfast"):
        async with asyncio.timeout(PATIENCE / 2):  # the store is silent for longer
            departure = await worker.astop()
    assert departure.exit_code == 0
    assert events(caplog) == ["not-retired"], "the store was not silent"


@pytest.mark.usefixtures("short_grace")
async def test_a_store_that_is_away_at_the_end_does_not_make_an_embedded_worker_raise(shop: Shop) -> None:
    worker = shop.worker()
    async with Worker(worker):
        shop.store.away("retire", "claim", "beat", "promote", "reclaim", "mail", "finish")
    shop.store.back()


async def test_stopping_twice_and_stopping_what_never_ran_is_harmless(shop: Shop) -> None:
    never = shop.worker()
    assert (await never.astop()).exit_code == 0
    Worker(never).stop()
    worker = await shop.started()
    await soon(asyncio.gather(worker.astop(), worker.astop()), "it does not stop")
    assert (await worker.astop()).exit_code == 0


async def test_after_its_stop_nothing_of_a_worker_is_left(shop: Shop) -> None:
    tasks, before = asyncio.all_tasks(), set(threading.enumerate())

    def left() -> set[str]:
        return {t.name for t in set(threading.enumerate()) - before if t.name.startswith("holdfast-")}

    ok = shop.task(name="ok")(lambda: 5)
    worker = await shop.started()
    await (await ok.aenqueue()).aresult(PATIENCE)
    await soon(worker.astop(), "it does not stop")
    assert asyncio.all_tasks() == tasks
    await until(lambda: left() <= {"holdfast-io"}, "a thread of the worker is left")
    assert shop.store.done.count("close") == 2, "its own store and its keeper's"


# --- starting


async def test_a_worker_that_runs_is_not_started_again(shop: Shop) -> None:
    worker = await shop.started()
    with pytest.raises(ConfigError, match="runs already"):
        await worker.astart()


@pytest.mark.parametrize("method", ["open", "register"])
async def test_a_store_that_is_away_at_the_start_is_an_error_of_the_start(shop: Shop, method: str) -> None:
    worker = shop.worker()
    shop.store.fail(method)
    with pytest.raises(StoreAway):
        await worker.astart()
    assert shop.store.done.count("open") == shop.store.done.count("close"), "the store is left open"
    ok = shop.task(name="ok")(lambda: 5)
    shop.workers.remove(worker)
    await shop.started()
    assert await (await ok.aenqueue()).aresult(PATIENCE) == 5


def test_with_runs_async_handlers_on_a_loop_of_the_workers_own() -> None:
    jobs = Holdfast("memory://")
    threads: list[int] = []

    @jobs.task(name="a")
    async def on_loop() -> str:
        threads.append(threading.get_ident())
        return "done"

    @jobs.task(name="b")
    def in_thread() -> str:
        threads.append(threading.get_ident())
        return "done"

    with jobs.worker() as worker:
        assert isinstance(worker, Worker)
        assert [task.enqueue().result(PATIENCE) for task in (on_loop, in_thread)] == ["done", "done"]
    assert threading.get_ident() not in threads
    assert len(set(threads)) == 2
    jobs.close()


async def test_async_with_runs_async_handlers_on_the_callers_loop() -> None:
    jobs = Holdfast("memory://")

    @jobs.task(name="a")
    async def on_loop() -> bool:
        return asyncio.get_running_loop() is here

    here = asyncio.get_running_loop()
    async with jobs.worker() as worker:
        assert isinstance(worker, Worker)
        assert await (await on_loop.aenqueue()).aresult(PATIENCE) is True
    await asyncio.to_thread(jobs.close)


def test_start_and_stop_may_be_called_from_different_threads() -> None:
    jobs = Holdfast("memory://")
    task = jobs.task(name="a")(lambda: 5)
    worker = jobs.worker()
    for act in (worker.start, lambda: task.enqueue().result(PATIENCE), lambda: worker.stop(deadline=5), worker.stop):
        thread = threading.Thread(target=act)
        thread.start()
        thread.join(PATIENCE)
        assert not thread.is_alive(), "it hangs"
    late = task.enqueue()
    assert late.status().state == "queued", "it has stopped"
    jobs.close()


def test_a_worker_may_be_started_again_after_its_stop(caplog: pytest.LogCaptureFixture) -> None:
    jobs = Holdfast("memory://")
    task = jobs.task(name="a")(lambda: 5)
    worker = jobs.worker()
    incarnations = set()
    with caplog.at_level(logging.WARNING, "holdfast"):
        for _ in range(3):
            worker.start()
            incarnations.add(worker._crew.identity.id)  # noqa: SLF001
            with pytest.raises(ConfigError, match="runs already"):
                worker.start()
            assert task.enqueue().result(PATIENCE) == 5
            worker.stop()
    assert len(incarnations) == 3, "an id is never used again"
    assert events(caplog) == []
    jobs.close()


def test_a_start_that_fails_says_so_to_the_one_who_called_it() -> None:
    jobs = Holdfast("memory://", modules=["no_such_module_of_ours"])
    worker = jobs.worker()
    for _ in range(2):
        with pytest.raises(ConfigError, match="no_such_module_of_ours"):
            worker.start()
    worker.stop()


@pytest.mark.parametrize("deadline", [-1, "soon"])
def test_a_stop_with_a_nonsense_deadline_is_refused_and_the_worker_goes_on(deadline: Any) -> None:
    jobs = Holdfast("memory://")
    task = jobs.task(name="a")(lambda: 5)
    with jobs.worker() as worker:
        with pytest.raises(ConfigError, match=r"^deadline="):
            worker.stop(deadline)
        assert task.enqueue().result(PATIENCE) == 5
    jobs.close()


@pytest.mark.usefixtures("short_grace")
def test_a_handler_that_ignores_its_cancel_does_not_hold_up_the_stop() -> None:
    jobs = Holdfast("memory://")
    begun, go = threading.Event(), threading.Event()

    @jobs.task(name="stubborn")
    async def stubborn() -> None:
        begun.set()
        while not go.is_set():
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0.01)

    worker = jobs.worker()
    stubborn.enqueue()  # the app's own thread stays until it is closed
    before = set(threading.enumerate())
    worker.start()
    assert begun.wait(PATIENCE)
    stopping = threading.Thread(target=worker.stop, args=(0,))
    stopping.start()
    stopping.join(PATIENCE / 3)
    stopped = not stopping.is_alive()
    go.set()
    for thread in [stopping, *(set(threading.enumerate()) - before)]:
        thread.join(PATIENCE)
        assert not thread.is_alive(), f"{thread.name} lives on after the handler has ended"
    jobs.close()
    assert stopped, "deadline and grace are over, and stop() still waits"


def test_a_program_that_never_stops_its_worker_still_ends() -> None:
    program = """
from holdfast import Holdfast

jobs = Holdfast("memory://")

@jobs.task(name="shop.send")
def send() -> int:
    return 5

jobs.worker().start()
print(send.enqueue().result(30))
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "5\n", "")


def test_an_exception_inside_with_stops_the_worker_and_goes_on() -> None:
    jobs = Holdfast("memory://")
    with pytest.raises(KeyError, match="mine"), jobs.worker():
        raise KeyError("mine")
    assert not [t for t in threading.enumerate() if t.name == "holdfast-worker"]
    jobs.close()


# --- losses


async def test_a_worker_that_is_gone_stops_its_jobs_and_begins_anew(
    shop: Shop, gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    stopped: list[str] = []

    @shop.task(name="hang")
    async def hang() -> None:
        gate.reached.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            stopped.append(asked(current_job()) or "?")
            raise

    ok = shop.task(name="ok")(lambda: 5)
    with caplog.at_level(logging.WARNING, "holdfast"):
        worker = await shop.started()
        first = worker.identity.id
        job = await hang.aenqueue()
        await gate.arrival()
        await shop.store.retire(first, Loss("taken for dead", on_purpose=True))
        assert await (await ok.aenqueue()).aresult(PATIENCE) == 5
    assert worker.identity.id != first
    assert stopped == ["lost"]
    assert [told["job"] for told in fields(caplog, "lost")] == [job.id]
    found = await shop.state(job, State.RUNNING)
    assert (found.worker, found.history) == (first, ()), "nothing is written about a lost claim"
    other = await hand(shop.store.inner)
    assert await other.sweep() == [job.id]


async def test_a_keeper_that_hears_late_of_the_old_incarnation_leaves_the_new_one_alone(shop: Shop, gate: Gate) -> None:
    @shop.task(name="slow")
    async def slow() -> str:
        await gate.apass()
        return "undisturbed"

    ok = shop.task(name="ok")(lambda: 5)
    worker = await shop.started()
    keeper = worker._keeper  # noqa: SLF001  # its next beat would come in five seconds
    assert keeper is not None
    await until(lambda: shop.store.done.count("beat"), "it does not beat")
    first = worker.identity.id
    listener = keeper.keeper.kept[first]
    await shop.store.retire(first)
    await (await ok.aenqueue()).aresult(PATIENCE)  # by now the fetcher has noticed, and the worker begun anew
    second = worker.identity
    job = await slow.aenqueue()
    await gate.arrival()
    await keeper.keeper.beat_step()
    listener.gone()  # as a beat says that was under way
    await asyncio.sleep(0.01)
    assert worker.identity is second, "the beat of the first one has ended the second"
    gate.opened.set()
    assert await job.aresult(PATIENCE) == "undisturbed"
    await keeper.keeper.beat_step()
    assert first not in keeper.keeper.kept


async def test_a_beat_of_the_old_incarnation_says_nothing_about_the_new_one(shop: Shop) -> None:
    ok = shop.task(name="ok")(lambda: 5)
    worker = await shop.started()
    keeper = worker._keeper  # noqa: SLF001
    assert keeper is not None
    await until(lambda: shop.store.done.count("beat"), "it does not beat")
    shop.store.fail("register", times=10_000)
    listener = keeper.keeper.kept[worker.identity.id]
    await shop.store.retire(worker.identity.id)
    before = worker.identity
    await until(lambda: worker.identity is not before, "it does not notice")
    listener.beaten(10.0**9, LEASE)  # the answer to a beat that was sent for the old one
    assert not worker.identity.held(), "it is not even registered"
    shop.store.back()
    assert await (await ok.aenqueue()).aresult(PATIENCE) == 5


@pytest.mark.parametrize("error", [StoreAway("away"), StoreError("refused"), KeyError("a bug of ours")])
async def test_a_new_incarnation_is_registered_however_long_the_store_takes(shop: Shop, error: Exception) -> None:
    ok = shop.task(name="ok")(lambda: 5)
    worker = await shop.started()
    told: list[object] = []
    worker.renamed = told.append
    shop.store.fail("register", error, times=3)
    await shop.store.retire(worker.identity.id)
    assert await (await ok.aenqueue()).aresult(PATIENCE) == 5
    assert told == [worker.identity.id]


async def test_a_worker_that_is_stopped_while_it_begins_anew_stops(shop: Shop) -> None:
    worker = await shop.started()
    before = worker.identity
    shop.store.away("register")
    await shop.store.retire(worker.identity.id)
    await until(lambda: worker.identity is not before, "it does not notice")
    await soon(worker.astop(), "it tries for ever")


async def test_a_claim_that_was_robbed_is_stopped_and_writes_nothing(
    shop: Shop, gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    @shop.task
    async def hang() -> None:
        gate.reached.set()
        await asyncio.Event().wait()

    with caplog.at_level(logging.WARNING, "holdfast"):
        worker = await shop.started()
        job = await hang.aenqueue()
        await gate.arrival()
        shop.store.away("beat")
        sweeper = await hand(shop.store.inner)
        await keep_beating([sweeper], LEASE + SECOND)  # the worker is silent: its lease is over
        assert set(await sweeper.reclaim()) == {job.id}
        await until(lambda: not worker._slots.running, "the robbed attempt is not stopped")  # noqa: SLF001
    assert events(caplog, "lost", "refused") == ["lost"]
    assert (await shop.state(job, State.RUNNING)).worker == sweeper.id


async def test_a_late_outcome_is_refused_and_told(shop: Shop, gate: Gate, caplog: pytest.LogCaptureFixture) -> None:
    @shop.task
    def late() -> str:
        gate.pass_()
        return "late"

    with caplog.at_level(logging.WARNING, "holdfast"):
        await shop.started()
        job = await late.aenqueue()
        await gate.arrival()
        shop.store.away("beat", "mail")  # the worker is cut off, as when its process is stopped
        sweeper = await hand(shop.store.inner)
        await keep_beating([sweeper], LEASE + SECOND)
        (claim,) = (await sweeper.reclaim()).values()
        assert claim.loss == LEASE_RAN_OUT
        gate.opened.set()
        await until(lambda: events(caplog, "refused"), "the late outcome is not told")
    (told,) = fields(caplog, "refused")
    assert (told["job"], told["fence"], told["ended"]) == (job.id, 1, "succeeded")
    found = await shop.state(job, State.RUNNING)
    assert (found.fence, found.worker, found.result) == (2, sweeper.id, None)


@pytest.mark.usefixtures("room_for_two")
async def test_while_its_lease_is_in_doubt_a_worker_starts_nothing_it_had_prefetched(gate: Gate) -> None:
    clock = FakeClock()
    shop = Shop(clock)
    begun: list[str] = []

    @shop.task(name="shop.send")
    async def send() -> None:
        begun.append(str(current_job().id))
        if len(begun) == 1:
            await gate.apass()

    ids = await stored(
        shop.store.inner, draft(payload=b"{}", priority=1, terms=Terms()), draft(payload=b"{}", terms=Terms())
    )
    worker = await shop.started(concurrency=1)
    try:
        await gate.arrival()
        await until(lambda: len(worker._slots.waiting) == 1, "the second job is not claimed")  # noqa: SLF001
        await until(lambda: shop.store.done.count("beat"), "it does not beat")
        shop.store.away("beat", "claim")
        clock.advance(LEASE)
        gate.opened.set()
        await shop.state(shop.jobs.job(ids[0]), State.SUCCEEDED)
        await asyncio.sleep(0.02)
        assert begun == [str(ids[0])], "another worker may have the second one by now"
    finally:
        await shop.stop()


async def test_a_line_about_another_claim_stops_nobody(shop: Shop, gate: Gate) -> None:
    @shop.task
    async def slow() -> str:
        await gate.apass()
        return "undisturbed"

    worker = await shop.started()
    job = await slow.aenqueue()
    await gate.arrival()
    other = (await hand(shop.store.inner)).id
    for line in (
        Line(worker.identity.id, "cancel", job.id, 7),
        Line(other, "cancel", job.id, 1),
        Line(worker.identity.id, "lost", shop.jobs.job(other).id, 1),
    ):
        worker.told(line)
    gate.opened.set()
    assert await job.aresult(PATIENCE) == "undisturbed"


async def test_two_workers_share_the_jobs_and_run_each_once(shop: Shop) -> None:
    runs: list[int] = []

    @shop.task
    async def note(n: int) -> None:
        await asyncio.sleep(0)
        runs.append(n)

    await shop.started(concurrency=5)
    await shop.started(concurrency=5)
    jobs = await shop.jobs.aenqueue_many(note.bind(n) for n in range(200))
    for job in jobs:
        await job.aresult(PATIENCE)
    assert sorted(runs) == list(range(200))


async def test_a_store_that_is_away_for_a_while_loses_nothing(shop: Shop) -> None:
    runs: list[int] = []

    @shop.task
    async def note(n: int) -> int:
        runs.append(n)
        return n

    await shop.started(concurrency=2)
    jobs = await shop.jobs.aenqueue_many(note.bind(n) for n in range(20))
    shop.store.away("claim", "finish", "wait", "beat", "mail", "promote", "reclaim", "prune", "find")
    await asyncio.sleep(0.05)
    shop.store.back()
    assert [await job.aresult(PATIENCE) for job in jobs] == list(range(20))
    assert sorted(runs) == list(range(20))


# --- what an application does to its worker


async def test_a_log_filter_that_raises_leaks_no_slot(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    def broken(record: logging.LogRecord) -> bool:
        raise RuntimeError(f"a filter of the application's: {record.name}")

    ok = shop.task(name="ok")(lambda: 5)
    logger = logging.getLogger("holdfast.job")
    logger.addFilter(broken)
    try:
        with caplog.at_level(logging.INFO, "holdfast"):
            worker = await shop.started(concurrency=1)
            for _ in range(3):
                assert await (await ok.aenqueue()).aresult(PATIENCE) == 5
    finally:
        logger.removeFilter(broken)
    assert not worker._slots.running  # noqa: SLF001


class _Hostile(Exception):
    @property  # type: ignore[misc]
    def __class__(self) -> type:  # pyright: ignore[reportIncompatibleMethodOverride]
        raise ValueError("no class")


@pytest.mark.parametrize("kind", ["async", "plain"])
async def test_an_exception_that_cannot_be_read_ends_its_attempt_all_the_same(shop: Shop, kind: str) -> None:
    def plain() -> None:
        raise _Hostile

    async def asynchronous() -> None:
        raise _Hostile

    bad = shop.task(name="bad")(plain if kind == "plain" else asynchronous)
    ok = shop.task(name="ok")(lambda: 5)
    worker = await shop.started(concurrency=1)
    with pytest.raises(JobFailed, match="cannot be read"):
        await (await bad.aenqueue()).aresult(PATIENCE)
    assert await (await ok.aenqueue()).aresult(PATIENCE) == 5
    assert not worker._slots.running  # noqa: SLF001


async def test_where_the_system_has_no_thread_to_give_the_job_comes_back_later(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    start, refusals = threading.Thread.start, 2

    def sparing(thread: threading.Thread) -> None:
        nonlocal refusals
        if thread.name.startswith("holdfast-job") and refusals:
            refusals -= 1
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", sparing)
    ok = shop.task(name="ok")(lambda: 5)
    await shop.started(concurrency=2)
    jobs = [await ok.aenqueue() for _ in range(3)]
    assert [await job.aresult(PATIENCE) for job in jobs] == [5, 5, 5]
    assert events(caplog, "not-started")


async def test_who_stops_waiting_for_the_stop_does_not_stop_it(shop: Shop, gate: Gate) -> None:
    @shop.task
    async def slow() -> str:
        await gate.apass()
        return "done"

    worker = await shop.started()
    job = await slow.aenqueue()
    await gate.arrival()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await worker.astop(60)
    gate.opened.set()
    departure = await soon(worker.astop(), "it does not stop")
    assert departure.exit_code == 0
    assert await job.aresult(PATIENCE) == "done"
