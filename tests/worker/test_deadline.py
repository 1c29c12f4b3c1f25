"""What a job's deadline and expiry mean to its worker: it ends what runs past it, begins nothing, and tells of it."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from holdfast import Retry, Stop, current_job
from holdfast.clock import SECOND, FakeClock
from holdfast.errors import StopReason
from holdfast.job import Claim, Failed, Loss, Lost, State, Succeeded, Terms, Until
from holdfast.policy import decide
from holdfast.worker.janitor import Janitor
from holdfast.worker.runner import begun, run_async, run_plain
from tests.store.acts import draft, hand, stored
from tests.worker.rig import PATIENCE, Shop, claim, events, fields, memory, task_of, until

ENDED = (State.SUCCEEDED, State.DEAD, State.CANCELLED)
RETRY = Retry(max_attempts=5, base_delay=0)


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    """Its clock stands still, so that a job has all of its time when it is claimed, however busy the machine is."""
    it = Shop(FakeClock())
    yield it
    await it.stop()


async def test_an_async_handler_is_ended_by_its_jobs_deadline_and_not_tried_again(shop: Shop) -> None:
    begins: list[int] = []

    @shop.task(retry=RETRY)
    async def hang() -> None:
        begins.append(current_job().attempt)
        await asyncio.Event().wait()

    await shop.started()
    found = await shop.state(await hang.using(deadline=0.05).aenqueue(), *ENDED)
    assert (found.state, found.reason, begins) == ("dead", "deadline", [1])
    error = found.history[-1].error
    assert error is not None
    assert (error.type, error.message[:21]) == ("TimeoutError", "ran past its deadline")
    assert "in hang" in error.traceback


async def test_a_plain_handler_hears_of_it_where_it_looks(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    heard: list[StopReason] = []

    @shop.task(retry=RETRY)
    def look() -> None:
        try:
            while True:
                current_job().check()
        except Stop as stop:
            heard.append(stop.why)
            raise

    await shop.started()
    with caplog.at_level(logging.WARNING, "holdfast"):
        found = await shop.state(await look.using(deadline=0.05).aenqueue(), *ENDED)
    assert (found.state, found.reason, heard) == ("dead", "deadline", ["deadline"])
    assert "dead" in events(caplog)


async def test_what_returns_after_its_deadline_has_succeeded(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    @shop.task
    def late() -> str:
        try:
            while True:
                current_job().check()
        except Stop as stop:
            return stop.why

    await shop.started()
    with caplog.at_level(logging.WARNING, "holdfast"):
        found = await shop.state(await late.using(deadline=0.05).aenqueue(), *ENDED)
    assert (found.state, found.result) == ("succeeded", b'"deadline"')
    assert [told["message"] for told in fields(caplog, "succeeded")] == ["after its deadline"]


@pytest.mark.parametrize(
    ("timeout", "deadline", "reason", "attempts"), [("20ms", "1h", "", 2), ("1h", "20ms", "deadline", 1)]
)
async def test_of_timeout_and_deadline_the_earlier_one_counts(
    shop: Shop, timeout: str, deadline: str, reason: str, attempts: int
) -> None:
    begins: list[int] = []

    @shop.task(retry=Retry(max_attempts=2, base_delay=0), timeout=timeout)
    async def hang() -> None:
        begins.append(current_job().attempt)
        await asyncio.Event().wait()

    await shop.started()
    found = await shop.state(await hang.using(deadline=deadline).aenqueue(), *ENDED)
    assert (found.state, found.reason, len(begins)) == ("dead", reason, attempts)


@pytest.mark.parametrize(
    ("timeout", "deadline", "most"), [(None, "1h", 3600), ("30m", "1h", 1800), ("1h", "30m", 1800), ("30m", None, 1800)]
)
async def test_a_handler_sees_how_much_time_it_has_left(timeout: Any, deadline: str | None, most: int) -> None:
    shop = Shop()

    @shop.task(timeout=timeout)
    async def send() -> float | None:
        return current_job().time_left

    await shop.started()
    try:
        ends = {} if deadline is None else {"deadline": deadline, "expires": "20m"}
        found = await shop.state(await send.using(**ends).aenqueue(), *ENDED)
    finally:
        await shop.stop()
    assert found.state == "succeeded"
    assert most - 300 < float(found.result or b"0") <= most


# --- what waited too long in the worker itself


def _plain() -> None:
    pytest.fail("it began")


async def _async() -> None:
    pytest.fail("it began")


@pytest.mark.parametrize("fn", [_plain, _async])
async def test_what_waited_for_a_slot_past_its_deadline_does_not_begin(fn: Callable[..., Any]) -> None:
    late = claim(deadline_at=90, claimed_at=10)
    run = begun(late, task_of(fn), lambda: True, 10.0, ends=9.9)
    verdict = await run_async(run) if fn is _async else run_plain(run)
    assert isinstance(verdict, Failed)
    assert (verdict.final, verdict.reason) == (True, "deadline")
    assert decide(late, verdict).state is State.DEAD


async def test_the_time_that_a_claim_waited_for_a_slot_counts(shop: Shop) -> None:
    """Its neighbour has the only slot; by the worker's clock its time passes meanwhile."""
    gate = asyncio.Event()

    @shop.task
    async def hold() -> None:
        await asyncio.wait_for(gate.wait(), PATIENCE)

    ran: list[str] = []

    @shop.task
    async def send() -> None:
        ran.append("send")

    worker = await shop.started(concurrency=1)
    first = await hold.aenqueue()
    await shop.state(first, State.RUNNING)
    mortal = Claim(*claim(task="send", deadline_at=10 * SECOND, claimed_at=5 * SECOND))
    worker._slots.add([mortal])  # noqa: SLF001  # prefetched, as under load
    assert shop.clock is not None
    shop.clock.advance(6 * SECOND)  # type: ignore[attr-defined]
    gate.set()
    await shop.state(first, State.SUCCEEDED)
    await until(lambda: worker._attempts.finished == 2, "the other does not end")  # noqa: SLF001
    assert ran == []


# --- what a process had to be ended for


@pytest.mark.parametrize(
    ("timeout", "left", "reason"),
    [(None, 500, "deadline"), (2 * SECOND, 500, "deadline"), (2 * SECOND, 5 * SECOND, ""), (2 * SECOND, None, "")],
)
def test_a_run_that_only_the_end_of_its_process_could_end(timeout: int | None, left: int | None, reason: str) -> None:
    terms = Terms(max_attempts=5, timeout=timeout)
    mortal = claim(terms=terms, claimed_at=1_000, deadline_at=None if left is None else 1_000 + left)
    outcome = decide(mortal, Lost(Loss("its process was ended", on_purpose=True, overdue="retry", stack="Stack: …")))
    assert outcome.reason == reason
    assert outcome.state is (State.DEAD if reason else State.SCHEDULED)
    assert outcome.error is not None
    assert outcome.error.traceback == "Stack: …"


def test_a_cancel_goes_before_the_deadline() -> None:
    outcome = decide(
        claim(deadline_at=5), Failed(decide(claim(), Failed(_error())).error or _error(), True, None, "deadline")
    )
    assert outcome.if_cancelled is not None
    assert (outcome.if_cancelled.state, outcome.if_cancelled.reason) == ("cancelled", "cancelled while running")


def _error() -> Any:
    from holdfast.policy import failure

    return failure(ValueError("no"))


def test_a_success_has_no_reason() -> None:
    assert decide(claim(deadline_at=5), Succeeded(b"1")).reason == ""


# --- what ends in the store


async def test_the_janitor_tells_of_what_it_ended(caplog: pytest.LogCaptureFixture) -> None:
    store = memory(FakeClock())
    sweeper = await hand(store.inner)
    janitor = Janitor(store, lambda: sweeper.id)
    late, slow = await stored(store.inner, draft(expires=Until(SECOND)), draft(queue="pdf", deadline=Until(SECOND)))
    with caplog.at_level(logging.WARNING, "holdfast"):
        assert await janitor.promote_step() > 0
        assert events(caplog) == []
        store.shift += SECOND
        await janitor.promote_step()
        await janitor.promote_step()
    assert sorted(events(caplog)) == ["dead", "expired"]
    assert [(told["job"], told["queue"]) for told in fields(caplog, "expired")] == [(late, "mail")]
    assert [(told["job"], told["queue"]) for told in fields(caplog, "dead")] == [(slow, "pdf")]
    assert "deadline" in fields(caplog, "dead")[0]["message"]
