"""current_job().finish(connection): the store is asked what became of the handler's transaction, and its word stands.

The store here is the memory store, with transactions beside it that lock the rows they finish, as a server has them.
"""

import asyncio
import logging
import os
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from uuid import UUID

import pytest

from holdfast import ConfigError, Holdfast, Pool, Retry, Stop, current_job
from holdfast.app import parts_of
from holdfast.bridge import run_here
from holdfast.context import detached
from holdfast.errors import StoreAway, StoreError
from holdfast.job import Outcome, State, Succeeded
from holdfast.store import Answer, Settled, Store, Where
from holdfast.worker.confirms import Question
from holdfast.worker.crew import Crew
from holdfast.worker.fetcher import Fetcher
from holdfast.worker.finisher import PENDING_MOST, Finisher
from holdfast.worker.runner import Run
from tests.store.acts import hand
from tests.worker.rig import PATIENCE, Flaky, Shop, claim, events, fields, levels, memory, record, soon, until


class Transaction:
    """A caller's own; what it finished is written with its commit."""

    def __init__(self, store: "Transactional") -> None:
        self.outcomes: list[Outcome] = []
        self.fails: Exception | None = None  # what a finish in it raises
        self._store = store

    def commit(self) -> None:
        with self._store.lock:
            for outcome in self.outcomes:
                run_here(self._store.inner.finish([outcome]))
            self.roll_back()

    def roll_back(self) -> None:
        with self._store.lock:
            for outcome in self.outcomes:
                del self._store.locked[outcome.id]
            self.outcomes = []


class Transactional:
    """A store with callers' transactions: while one is open that has finished a job, others find that job busy."""

    def __init__(self, inner: Store) -> None:
        self.inner = inner
        self.lock = threading.RLock()
        self.locked: dict[UUID, Transaction] = {}
        self.asked: list[list[Outcome]] = []  # what came on the store's own connections
        self.answers, self.asking = asyncio.Event(), asyncio.Event()
        self.answers.set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def finish(self, outcomes: Sequence[Outcome], connection: Any = None) -> Sequence[Settled]:
        if connection is None:
            self.asking.set()
            await asyncio.wait_for(self.answers.wait(), PATIENCE)
        with self.lock:
            if connection is not None:
                return [await self._within(outcome, connection) for outcome in outcomes]
            self.asked.append(list(outcomes))
            return [
                Settled(Answer.BUSY) if outcome.id in self.locked else (await self.inner.finish([outcome]))[0]
                for outcome in outcomes
            ]

    async def _within(self, outcome: Outcome, transaction: Transaction) -> Settled:
        if transaction.fails is not None:
            raise transaction.fails
        holder = self.locked.get(outcome.id)
        if holder is not None:
            return Settled(Answer.REPLAYED, State.SUCCEEDED) if holder is transaction else Settled(Answer.BUSY)
        [now] = await self.inner.find(Where(ids=[outcome.id]), None, 1)
        if (now.state, now.fence, now.worker) != (State.RUNNING, outcome.fence, outcome.worker):
            return (await self.inner.finish([outcome]))[0]
        self.locked[outcome.id] = transaction
        transaction.outcomes.append(outcome)
        return Settled(Answer.ACCEPTED, State.SUCCEEDED)


class Till(Shop):
    """A shop whose handlers have transactions."""

    def __init__(self) -> None:
        super().__init__()
        self.base = Transactional(parts_of(self.jobs).link.store)
        self.store = Flaky(self.base)  # type: ignore[arg-type]

    def begin(self) -> Transaction:
        return Transaction(self.base)

    async def dead(self, job: Any) -> tuple[str, str]:
        """The error that the job died of, when it is."""
        found = await self.state(job, State.DEAD)
        error = found.history[-1].error
        assert error is not None
        return error.type, error.message

    async def result(self, job: Any) -> bytes | None:
        return (await self.state(job, State.SUCCEEDED)).result


@pytest.fixture
async def till(caplog: pytest.LogCaptureFixture) -> Any:
    caplog.set_level(logging.INFO, logger="holdfast")
    it = Till()
    yield it
    await it.stop()


def finisher_of(worker: Crew) -> Finisher:
    return worker._finisher  # noqa: SLF001


def fetcher_of(worker: Crew) -> Fetcher:
    return worker._fetcher  # noqa: SLF001


def run_of(worker: Crew, job: Any) -> Run:
    return worker._slots.running[job.id, 1]  # noqa: SLF001


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A transaction may stay open for a moment only."""
    monkeypatch.setattr("holdfast.worker.confirms.OPEN_MOST", 0.05)
    monkeypatch.setattr("holdfast.worker.confirms.BUSY_PAUSE", 0.002)


Body = Callable[[Any, Transaction], object]


def handlers(till: Till, kind: str, body: Callable[[], Awaitable[object] | object]) -> Any:
    """A task of a kind whose handler does what `body` does, or awaits it."""
    if kind == "thread":
        return till.task(body, name=f"till.{kind}")

    async def handler() -> object:
        done = body()
        return await done if isinstance(done, Awaitable) else done

    return till.task(handler, name=f"till.{kind}")


KINDS = pytest.mark.parametrize("kind", ["thread", "loop"])


# --- committed


@KINDS
async def test_what_was_committed_has_succeeded_with_the_result_that_it_was_finished_with(
    till: Till, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    def pay() -> object:
        transaction = till.begin()
        current_job().finish(transaction, {"receipt": 7})
        transaction.commit()
        return object()  # no JSON, and nobody's business any more

    task = handlers(till, kind, pay)
    worker = await till.started()
    job = await task.aenqueue()
    assert await till.result(job) == b'{"receipt":7}'
    await until(lambda: events(caplog, "succeeded", "ended-after-finish"), "it is not confirmed")
    await until(lambda: not finisher_of(worker).pending, "it is not settled")
    assert (await record(till.store, job.id)).history == ()
    assert events(caplog, "succeeded", "ended-after-finish") == ["succeeded"]


async def test_an_async_handler_awaits_its_twin(till: Till) -> None:
    @till.task
    async def pay() -> None:
        transaction = till.begin()
        await current_job().afinish(transaction, "paid")
        transaction.commit()

    await till.started()
    assert await till.result(await pay.aenqueue()) == b'"paid"'


async def test_it_is_told_as_a_success_once_the_store_has_said_so(till: Till, caplog: pytest.LogCaptureFixture) -> None:
    @till.task
    def pay() -> None:
        transaction = till.begin()
        current_job().finish(transaction)
        transaction.commit()

    till.base.answers.clear()
    await till.started()
    job = await pay.aenqueue()
    await soon(till.base.asking.wait(), "the store is not asked")
    assert events(caplog, "succeeded") == []
    till.base.answers.set()
    await until(lambda: events(caplog, "succeeded"), "the success is not told")
    assert fields(caplog, "succeeded")[0]["job"] == job.id


async def test_questions_are_asked_apart_from_all_other_outcomes(till: Till) -> None:
    @till.task
    def pay() -> None:
        transaction = till.begin()
        current_job().finish(transaction)
        transaction.commit()

    @till.task
    def plain() -> None: ...

    jobs = [await task.aenqueue() for _ in range(10) for task in (pay, plain)]
    await till.started()
    for job in jobs:
        await till.state(job, State.SUCCEEDED)
    ours = {job.id for job in jobs[::2]}
    await until(
        lambda: sum(outcome.id in ours for call in till.base.asked for outcome in call) >= len(ours),
        "not all are asked",
    )
    assert [call for call in till.base.asked if 0 < sum(outcome.id in ours for outcome in call) < len(call)] == []


async def test_those_that_pile_up_are_asked_in_one_call_and_none_is_called_open_for_that(
    till: Till, caplog: pytest.LogCaptureFixture
) -> None:
    """However late the store is asked: what was committed was committed."""

    @till.task
    def pay(rolls_back: bool) -> None:
        transaction = till.begin()
        current_job().finish(transaction)
        (transaction.roll_back if rolls_back else transaction.commit)()

    worker = await till.started(concurrency=20)
    till.base.answers.clear()
    jobs = [await pay.aenqueue(n == 0) for n in range(20)]
    await until(lambda: len(finisher_of(worker).confirms) == len(jobs), "they do not end")
    confirms = finisher_of(worker).confirms
    for question in confirms._questions:  # noqa: SLF001
        question.since -= 60  # seconds
    till.base.asked.clear()
    till.base.answers.set()
    await until(lambda: not confirms.pending, "they are not answered")
    assert len(till.base.asked) <= 2, "those that came while the first were asked, and those"
    assert (await till.dead(jobs[0]))[0] == "FinishRolledBack"
    assert events(caplog, "left-open") == []


# --- not committed


@KINDS
async def test_what_was_rolled_back_is_a_failure_with_its_own_name(
    till: Till, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    def pay() -> str:
        transaction = till.begin()
        current_job().finish(transaction, 7)
        transaction.roll_back()
        return "as if all were well"

    task = handlers(till, kind, pay)
    await till.started()
    name, text = await till.dead(await task.aenqueue())
    assert name == "FinishRolledBack"
    assert "commit before you return" in text
    assert [told["error"] for told in fields(caplog, "dead")] == ["FinishRolledBack"]
    assert events(caplog, "succeeded") == []


async def test_it_is_tried_again_as_the_policy_says(till: Till) -> None:
    @till.task(retry=Retry(max_attempts=2, base_delay=0))
    def pay() -> None:
        transaction = till.begin()
        current_job().finish(transaction, current_job().attempt)
        (transaction.roll_back if current_job().attempt == 1 else transaction.commit)()

    await till.started()
    job = await pay.aenqueue()
    assert await till.result(job) == b"2"
    history = (await record(till.store, job.id)).history
    assert [attempt.error and attempt.error.type for attempt in history] == ["FinishRolledBack"]


@pytest.mark.usefixtures("impatient")
async def test_what_stays_open_is_told_and_is_a_failure_with_its_own_name_when_it_is_rolled_back(
    till: Till, caplog: pytest.LogCaptureFixture
) -> None:
    transaction = till.begin()

    @till.task
    def pay() -> None:
        current_job().finish(transaction)

    await till.started()
    job = await pay.aenqueue()
    await until(lambda: events(caplog, "left-open"), "it is not told")
    assert (await record(till.store, job.id)).state is State.RUNNING, "nobody knows yet"
    transaction.roll_back()
    assert (await till.dead(job))[0] == "TransactionLeftOpen"
    assert events(caplog, "left-open") == ["left-open"], "told more than once"


@pytest.mark.usefixtures("impatient")
async def test_what_is_committed_late_has_succeeded_all_the_same(till: Till, caplog: pytest.LogCaptureFixture) -> None:
    transaction = till.begin()

    @till.task
    def pay() -> None:
        current_job().finish(transaction, "late")

    worker = await till.started()
    job = await pay.aenqueue()
    await until(lambda: events(caplog, "left-open"), "it is not told")
    transaction.commit()
    assert await till.result(job) == b'"late"'
    await until(lambda: not finisher_of(worker).pending, "it is not confirmed")
    assert events(caplog, "succeeded", "dead") == ["succeeded"]


async def test_a_job_that_waits_for_its_transaction_holds_up_no_other(till: Till) -> None:
    transaction = till.begin()

    @till.task
    def pay() -> None:
        current_job().finish(transaction)

    @till.task
    def plain() -> None: ...

    await till.started(concurrency=1)
    job = await pay.aenqueue()
    for _ in range(3):
        await till.state(await plain.aenqueue(), State.SUCCEEDED)
    assert (await record(till.store, job.id)).state is State.RUNNING
    transaction.commit()
    await till.state(job, State.SUCCEEDED)


async def test_nobody_takes_it_for_a_stray_meanwhile(till: Till) -> None:
    transaction = till.begin()

    @till.task
    def pay() -> None:
        current_job().finish(transaction)

    worker = await till.started()
    job = await pay.aenqueue()
    await until(lambda: job.id in finisher_of(worker).pending, "its end is not pending")
    for _ in range(2):
        await fetcher_of(worker).strays_step()
    transaction.commit()
    await till.state(job, State.SUCCEEDED)
    assert all(outcome.ended != "released" for call in till.base.asked for outcome in call)


# --- raised


class Refusal(Exception):
    pass


@KINDS
@pytest.mark.parametrize("committed", [True, False])
async def test_what_is_raised_after_it_counts_only_if_it_was_not_committed(
    till: Till, kind: str, committed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def pay() -> None:
        transaction = till.begin()
        current_job().finish(transaction, 7)
        (transaction.commit if committed else transaction.roll_back)()
        raise Refusal("too late")

    task = handlers(till, kind, pay)
    await till.started()
    job = await task.aenqueue()
    if committed:
        assert await till.result(job) == b"7"
        await until(lambda: events(caplog, "succeeded"), "the success is not told")
        [told] = fields(caplog, "ended-after-finish")
        assert (told["error"], "too late" in told["message"]) == ("Refusal", True)
        assert "raise Refusal" in told["traceback"], "nowhere else is it kept"
        assert events(caplog, "dead", "succeeded") == ["succeeded"]
    else:
        assert await till.dead(job) == ("Refusal", "too late")
        assert events(caplog, "ended-after-finish", "succeeded") == []


async def test_a_commit_whose_reply_was_lost_is_a_success(till: Till) -> None:
    @till.task
    def pay() -> None:
        transaction = till.begin()
        current_job().finish(transaction, 7)
        transaction.commit()
        raise ConnectionError("the server closed the connection unexpectedly")

    await till.started()
    assert await till.result(await pay.aenqueue()) == b"7"


@pytest.mark.parametrize("committed", [True, False])
async def test_a_timeout_after_it_counts_only_if_it_was_not_committed(
    till: Till, committed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    @till.task(timeout=0.05)
    async def pay() -> None:
        transaction = till.begin()
        await current_job().afinish(transaction, 7)
        try:
            if committed:
                transaction.commit()
            await asyncio.sleep(PATIENCE)
        finally:
            if not committed:
                transaction.roll_back()

    await till.started()
    job = await pay.aenqueue()
    if committed:
        assert await till.result(job) == b"7"
        await until(lambda: events(caplog, "succeeded"), "the success is not told")
        assert levels(caplog, "ended-after-finish") == ["WARNING"]
        assert events(caplog, "dead") == []
    else:
        assert (await till.dead(job))[0] == "TimeoutError"


@pytest.mark.parametrize("committed", [True, False])
async def test_a_cancel_after_it_counts_only_if_it_was_not_committed(till: Till, committed: bool) -> None:
    finished = asyncio.Event()

    @till.task
    async def pay() -> None:
        transaction = till.begin()
        await current_job().afinish(transaction, 7)
        if committed:
            transaction.commit()
        finished.set()
        try:
            await asyncio.sleep(PATIENCE)
        finally:
            transaction.roll_back()

    worker = await till.started()
    job = await pay.aenqueue()
    await soon(finished.wait(), "the handler does not run")
    if committed:  # the flag of a job that has ended cannot be set: its worker may have read the line a moment before
        run_of(worker, job).stop("cancelled")
    else:
        assert await job.acancel()
    await till.state(job, State.SUCCEEDED if committed else State.CANCELLED)


async def test_a_success_is_a_success_though_a_cancel_was_asked_for(till: Till) -> None:
    asked, go = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    @till.task
    def pay() -> None:
        loop.call_soon_threadsafe(asked.set)
        assert go.wait(PATIENCE)
        transaction = till.begin()
        current_job().finish(transaction, current_job().cancelled)
        transaction.commit()

    worker = await till.started()
    job = await pay.aenqueue()
    await soon(asked.wait(), "the handler does not run")
    await job.acancel()
    await until(lambda: run_of(worker, job).asked, "the cancel is not heard")
    go.set()
    assert await till.result(job) == b"true"


# --- refused


async def test_a_lost_claim_stops_the_handler_before_it_can_commit(
    till: Till, caplog: pytest.LogCaptureFixture
) -> None:
    met: list[object] = []
    begun, go = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    @till.task
    def pay() -> None:
        if current_job().fence > 1:
            return
        loop.call_soon_threadsafe(begun.set)
        assert go.wait(PATIENCE)
        transaction = till.begin()
        for _ in range(2):
            with pytest.raises(Stop) as stopped:
                current_job().finish(transaction)
            met.append(stopped.value.why)
        met.extend(transaction.outcomes)
        current_job().check()

    worker = await till.started()
    job = await pay.aenqueue()
    await soon(begun.wait(), "the handler does not run")
    await till.store.inner.retire(worker.identity.id)
    sweeper = await hand(till.store.inner)
    assert [claim.id for claim in await till.store.inner.reclaim(sweeper.id, 10)] == [job.id]
    go.set()
    await until(lambda: events(caplog, "lost"), "it is not told")
    assert met == ["lost", "lost"]
    assert (await record(till.store, job.id)).state is State.RUNNING, "it is the sweeper's"


@pytest.mark.parametrize("committed", [True, False])
async def test_to_finish_twice_is_refused(till: Till, committed: bool) -> None:
    @till.task
    def pay() -> None:
        transaction = till.begin()
        current_job().finish(transaction, 7)
        if committed:
            transaction.commit()
        try:
            with pytest.raises(ConfigError, match=r"finish\(\) twice in pay: .* once"):
                current_job().finish(transaction)
        finally:
            transaction.commit()

    await till.started()
    assert await till.result(await pay.aenqueue()) == b"7"


async def test_to_finish_on_a_second_connection_while_the_first_is_open_is_told(till: Till) -> None:
    @till.task
    def pay() -> None:
        first, second = till.begin(), till.begin()
        current_job().finish(first, 1)
        with pytest.raises(StoreAway, match="another transaction, still open"):
            current_job().finish(second, 2)
        first.commit()

    await till.started()
    assert await till.result(await pay.aenqueue()) == b"1"


async def test_what_was_rolled_back_may_be_finished_again(till: Till) -> None:
    @till.task
    def pay() -> None:
        for once_more in (True, False):
            transaction = till.begin()
            current_job().finish(transaction, once_more)
            (transaction.roll_back if once_more else transaction.commit)()  # as after a serialization failure

    await till.started()
    assert await till.result(await pay.aenqueue()) == b"false"


async def test_a_finish_that_failed_is_as_if_it_had_not_been_called(till: Till) -> None:
    @till.task
    def pay() -> str:
        transaction = till.begin()
        transaction.fails = StoreAway("locked")
        with pytest.raises(StoreAway, match="locked"):
            current_job().finish(transaction)
        return "by the ordinary way"

    await till.started()
    assert await till.result(await pay.aenqueue()) == b'"by the ordinary way"'


async def test_a_result_that_cannot_be_stored_is_refused_before_anything_is_written(till: Till) -> None:
    seen: list[int] = []

    @till.task
    def pay() -> None:
        transaction = till.begin()
        try:
            current_job().finish(transaction, object())
        finally:
            seen.append(len(transaction.outcomes))

    await till.started()
    name, text = await till.dead(await pay.aenqueue())
    assert (name, "result of pay" in text, seen) == ("PayloadError", True, [0])


async def test_saving_after_it_is_refused(till: Till) -> None:
    @till.task
    def pay() -> None:
        transaction = till.begin()
        current_job().finish(transaction)
        with pytest.raises(ConfigError, match=r"save\(\) after finish\(\)"):
            current_job().save(1)
        transaction.commit()

    await till.started()
    await till.state(await pay.aenqueue(), State.SUCCEEDED)


async def test_a_process_that_the_handler_forked_cannot_finish_its_job(till: Till) -> None:
    @till.task
    def pay() -> int:
        job, transaction = current_job(), till.begin()
        child = os.fork()
        if not child:
            try:
                job.finish(transaction)
            except RuntimeError as error:
                os._exit(7 if "forked" in str(error) else 8)
            os._exit(9)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    await till.started()
    assert await till.result(await pay.aenqueue()) == b"7"


async def test_memory_refuses_and_names_the_outbox(shop: Shop) -> None:
    @shop.task
    def pay() -> None:
        current_job().finish(object())

    await shop.started()
    found = await shop.state(await pay.aenqueue(), State.DEAD)
    error = found.history[-1].error
    assert error is not None
    assert (error.type, "outbox" in error.message) == ("ConfigError", True)


def test_a_pools_job_has_no_end_to_be_written() -> None:
    def pay() -> None:
        current_job().finish(object())

    with Pool(1) as pool, pytest.raises(ConfigError, match="a Pool's job is in no store"):
        pool.submit(pay).result(PATIENCE)


async def test_in_a_direct_call_it_does_nothing() -> None:
    jobs = Holdfast("memory://")

    @jobs.task
    def pay() -> str:
        current_job().finish(object(), "receipt")
        return "receipt"

    assert pay() == "receipt"
    alone = detached("shop.pay", "default")
    await alone.afinish(object())


# --- the store is away, the worker leaves


async def test_a_question_is_kept_while_the_store_is_away(till: Till, caplog: pytest.LogCaptureFixture) -> None:
    finished = asyncio.Event()
    loop = asyncio.get_running_loop()

    @till.task
    def pay() -> None:
        transaction = till.begin()
        current_job().finish(transaction, 7)
        till.store.away("finish")
        transaction.commit()
        loop.call_soon_threadsafe(finished.set)

    worker = await till.started()
    job = await pay.aenqueue()
    await soon(finished.wait(), "the handler does not run")
    await until(lambda: till.store.times("finish") > 3, "it is not asked again")
    assert job.id in finisher_of(worker).pending
    assert finisher_of(worker).unsent_since > 0
    till.store.back()
    await until(lambda: not finisher_of(worker).pending, "it is not confirmed")
    assert events(caplog, "succeeded") == ["succeeded"]
    assert finisher_of(worker).unsent_since == 0


async def test_a_failure_whose_reply_was_lost_is_told_as_one(till: Till, caplog: pytest.LogCaptureFixture) -> None:
    @till.task
    def pay() -> None:
        transaction = till.begin()
        current_job().finish(transaction)
        till.store.drop("finish")
        transaction.roll_back()

    worker = await till.started()
    await till.dead(await pay.aenqueue())
    await until(lambda: not finisher_of(worker).pending, "it is not settled")
    assert events(caplog, "dead", "succeeded", "refused") == ["dead"]


async def test_a_failure_that_the_store_cannot_take_ends_the_job_all_the_same(
    till: Till, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("holdfast.worker.finisher.REFUSALS", 2)
    monkeypatch.setattr("holdfast.worker.confirms.BUSY_PAUSE", 0.002)

    @till.task(retry=Retry(max_attempts=3))
    def pay() -> None:
        transaction = till.begin()
        current_job().finish(transaction)
        till.store.fail("finish", StoreError("no such word"), times=2)
        transaction.roll_back()

    await till.started()
    name, text = await till.dead(await pay.aenqueue())
    assert (name, text) == ("StoreError", "no such word")
    assert events(caplog, "outcome-refused") == ["outcome-refused"]


async def test_a_stop_waits_for_the_answer(till: Till, caplog: pytest.LogCaptureFixture) -> None:
    @till.task
    def pay() -> None:
        transaction = till.begin()
        current_job().finish(transaction, 7)
        transaction.commit()

    worker = await till.started()
    till.base.answers.clear()
    job = await pay.aenqueue()
    await soon(till.base.asking.wait(), "the store is not asked")
    stopping = asyncio.create_task(worker.astop(5))
    await until(lambda: events(caplog, "stopping"), "it does not begin to leave")
    assert not stopping.done()
    till.base.answers.set()
    departure = await soon(stopping, "it does not stop")
    assert (departure.exit_code, departure.unsettled) == (0, [])
    assert (await record(till.store, job.id)).state is State.SUCCEEDED


async def test_who_leaves_without_the_answer_says_so(
    till: Till, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("holdfast.worker.crew.FLUSH", 0.05)
    transaction = till.begin()

    @till.task
    def pay() -> None:
        current_job().finish(transaction)

    worker = await till.started()
    job = await pay.aenqueue()
    await until(lambda: job.id in finisher_of(worker).pending, "its end is not pending")
    departure = await soon(worker.astop(0.01), "it does not stop")
    assert (departure.exit_code, [outcome.id for outcome in departure.unsettled]) == (3, [job.id])
    [told] = fields(caplog, "not-recorded")
    assert "not known to be committed" in told["message"]


async def test_a_worker_with_too_many_open_questions_claims_nothing() -> None:
    store = memory()
    finisher = Finisher(store, lambda _: None, lambda _: None)
    for left in range(PENDING_MOST, 0, -1):
        assert not finisher.full, left
        question = Question(claim(), Succeeded(b""), Succeeded(b""), lambda *_: None)
        finisher.confirms.add(question)
    assert finisher.full
    assert len(finisher.pending) == PENDING_MOST
