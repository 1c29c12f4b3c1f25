"""The finisher: outcomes are written in batches, kept while the store is away, and one bad one holds up no other."""

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Any

import pytest

from holdfast.clock import FakeClock
from holdfast.errors import StoreAway, StoreError
from holdfast.job import Claim, Outcome, State, Succeeded
from holdfast.policy import decide
from holdfast.store import Answer, Settled
from holdfast.worker.finisher import BATCH_MOST, PENDING_MOST, Finisher
from holdfast.worker.loop import Signal, repeat
from tests.store.acts import BOOM, Hand, draft, hand, steady_hand, stored
from tests.worker.rig import Flaky, claim, events, fields, memory, record, soon


@pytest.fixture(autouse=True)
def refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Outcomes that the store refuses are recorded as failures the first time."""
    monkeypatch.setattr("holdfast.worker.finisher.REFUSALS", 1)


class Desk:
    """A finisher on a flaky memory store, with a worker's hand that claims."""

    def __init__(self, store: Flaky, worker: Hand) -> None:
        self.store = store
        self.worker = worker
        self.refused: list[Outcome] = []
        self.finisher = Finisher(store, self.refused.append, lambda _: None)

    async def claims(self, number: int, **changes: Any) -> list[Claim]:
        await stored(self.store.inner, *(draft(**changes) for _ in range(number)))
        return await self.worker.claim(number)

    async def step(self) -> float:
        return await soon(self.finisher.step(), "a step does not end")

    async def states(self, claims: Sequence[Claim]) -> list[str]:
        return [str((await record(self.store, job.id)).state) for job in claims]

    @property
    def batches(self) -> list[int]:
        """How many outcomes each write took."""
        return [len(args[0]) for name, args in self.store.calls if name == "finish"]

    def done(self, *claims: Claim) -> None:
        for job in claims:
            self.finisher.add(decide(job, Succeeded(b"1")))


@pytest.fixture
async def desk() -> Desk:
    store = memory(FakeClock())
    return Desk(store, await hand(store.inner))


async def test_outcomes_are_written_in_one_batch_in_order(desk: Desk) -> None:
    claims = await desk.claims(5)
    desk.done(*claims)
    assert await desk.step() == 0
    assert desk.batches == [5]
    assert [outcome.id for outcome in desk.store.calls[-1][1][0]] == [job.id for job in claims]
    assert await desk.states(claims) == ["succeeded"] * 5
    assert desk.finisher.pending == set()


async def test_a_batch_has_its_most(desk: Desk) -> None:
    desk.done(*await desk.claims(BATCH_MOST + 3))
    await desk.step()
    await desk.step()
    assert desk.batches == [BATCH_MOST, 3]


async def test_without_outcomes_it_waits_for_one(desk: Desk) -> None:
    waiting = asyncio.create_task(desk.finisher.step())
    await asyncio.sleep(0.005)
    assert not waiting.done()
    assert desk.batches == []
    (job,) = await desk.claims(1)
    desk.done(job)
    await soon(waiting, "it does not hear of an outcome")
    await desk.step()
    assert await desk.states([job]) == ["succeeded"]


async def test_what_arrives_during_a_write_goes_with_the_next(desk: Desk) -> None:
    claims = await desk.claims(4)
    made, go = desk.store.hold("finish")
    desk.done(claims[0])
    writing = asyncio.create_task(desk.finisher.step())
    await soon(made.wait(), "the write is not begun")
    desk.done(*claims[1:])
    assert desk.finisher.pending == {job.id for job in claims}, "what is being written is not settled yet"
    go.set()
    await soon(writing, "the write does not end")
    assert desk.finisher.pending == {job.id for job in claims[1:]}
    await desk.step()
    assert desk.batches == [1, 3]


async def test_outcomes_are_kept_while_the_store_is_away(desk: Desk) -> None:
    claims = await desk.claims(3)
    desk.done(*claims)
    desk.store.fail("finish", times=2)
    for _ in range(2):
        with pytest.raises(StoreAway):
            await desk.step()
        assert desk.finisher.pending == {job.id for job in claims}
    await desk.step()
    assert [outcome.id for outcome in desk.store.calls[-1][1][0]] == [job.id for job in claims], "their order stays"
    assert await desk.states(claims) == ["succeeded"] * 3


async def test_a_repeated_write_whose_reply_was_lost_is_no_refusal(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    claims = await desk.claims(3)
    desk.done(*claims)
    desk.store.drop("finish")
    with caplog.at_level(logging.WARNING, "holdfast"):
        with pytest.raises(StoreAway):
            await desk.step()
        await desk.step()
    assert await desk.states(claims) == ["succeeded"] * 3
    assert (desk.refused, events(caplog)) == ([], [])
    assert desk.finisher.pending == set()


async def test_a_locked_job_comes_back_and_holds_up_no_other(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    claims = await desk.claims(3)
    locked, finish = {claims[1].id}, desk.store.inner.finish

    async def finish_unlocked(outcomes: Sequence[Outcome]) -> Sequence[Settled]:
        free = [outcome for outcome in outcomes if outcome.id not in locked]
        settled = dict(zip([outcome.id for outcome in free], await finish(free), strict=True))
        return [settled.get(outcome.id, Settled(Answer.BUSY)) for outcome in outcomes]

    monkeypatch.setattr(desk.store.inner, "finish", finish_unlocked)
    desk.done(*claims)
    await desk.step()
    assert await desk.states(claims) == ["succeeded", "running", "succeeded"]
    assert desk.finisher.pending == {claims[1].id}
    await desk.step()
    locked.clear()
    await desk.step()
    assert await desk.states(claims) == ["succeeded"] * 3
    assert desk.batches == [3, 1, 1]
    assert desk.refused == []


async def test_a_job_that_stays_locked_is_not_asked_for_without_a_pause(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    (job,) = await desk.claims(1)

    async def locked(outcomes: Sequence[Outcome]) -> Sequence[Settled]:
        return [Settled(Answer.BUSY) for _ in outcomes]

    monkeypatch.setattr(desk.store.inner, "finish", locked)
    desk.done(job)
    stopping = Signal()
    writing = asyncio.create_task(repeat("finisher", desk.finisher.step, stopping))
    await asyncio.sleep(0.2)
    stopping.set()
    desk.finisher.arrived.poke()
    await soon(writing, "the finisher does not end")
    assert desk.finisher.pending == {job.id}
    assert len(desk.batches) < 200, "thousands of writes within a fifth of a second"


async def test_that_a_job_stays_locked_is_told_once_with_who_has_locked_it(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    claims, finish = await desk.claims(3), desk.store.inner.finish

    async def locked(outcomes: Sequence[Outcome]) -> Sequence[Settled]:
        return [Settled(Answer.BUSY) for _ in outcomes]

    async def locker(_: Any) -> str:
        return "pid 7, a stranger"

    monkeypatch.setattr(desk.store.inner, "finish", locked)
    monkeypatch.setattr(desk.store.inner, "locker", locker)
    desk.done(*claims)
    with caplog.at_level(logging.WARNING, "holdfast"):
        await desk.step()
        assert events(caplog) == [], "most are free in a moment"
        monkeypatch.setattr("holdfast.worker.finisher.HELD_UP", 0)
        await desk.step()
        await desk.step()
        monkeypatch.setattr(desk.store.inner, "finish", finish)
        await desk.step()
    [told] = fields(caplog, "held-up")
    assert (told["job"], told["count"], told["by"]) == (claims[0].id, 3, "pid 7, a stranger")
    assert await desk.states(claims) == ["succeeded"] * 3


async def test_what_a_full_disk_keeps_out_is_not_told_as_locked(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("holdfast.worker.finisher.HELD_UP", 0)
    claims, finish = await desk.claims(2), desk.store.inner.finish

    async def full(outcomes: Sequence[Outcome]) -> Sequence[Settled]:
        if claims[0].id in {outcome.id for outcome in outcomes}:
            raise StoreAway("the disk is full", full=True)
        return await finish(outcomes)

    monkeypatch.setattr(desk.store.inner, "finish", full)
    desk.done(*claims)
    with caplog.at_level(logging.WARNING, "holdfast"):
        await desk.step()
    assert await desk.states(claims) == ["running", "succeeded"]
    assert fields(caplog, "held-up") == []


async def test_a_late_outcome_is_told_once_and_forgotten(desk: Desk) -> None:
    (job,) = await desk.claims(1)
    await desk.worker.retire()
    other = await steady_hand(desk.store.inner)
    assert await other.sweep() == [job.id]
    outcome = decide(job, Succeeded(b"1"))
    desk.finisher.add(outcome)
    await desk.step()
    assert desk.refused == [outcome]
    assert desk.finisher.pending == set()
    assert await desk.states([job]) == ["queued"], "nothing was written"


async def test_an_outcome_of_a_job_that_is_gone_is_told(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    unknown = claim()
    with caplog.at_level(logging.WARNING, "holdfast"):
        desk.done(unknown)
        await desk.step()
    assert [told["job"] for told in fields(caplog, "gone")] == [unknown.id]
    assert desk.refused == []
    assert desk.finisher.pending == set()


class Picky:
    """Makes a store refuse what it is told to, as one batch, as a real one does."""

    def __init__(self, desk: Desk, poison: Sequence[Claim], error: Exception) -> None:
        self.finish = desk.store.inner.finish
        self.poison = {job.id for job in poison}
        self.error = error

    async def __call__(self, outcomes: Sequence[Outcome]) -> Sequence[Settled]:
        if any(outcome.id in self.poison and outcome.result is not None for outcome in outcomes):
            raise self.error
        return await self.finish(outcomes)


@pytest.mark.parametrize("place", [0, 1, 2])
async def test_an_outcome_that_the_store_cannot_take_becomes_a_failure_and_its_neighbours_pass(
    desk: Desk, place: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    claims = await desk.claims(3)
    picky = Picky(desk, [claims[place]], UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed"))
    monkeypatch.setattr(desk.store.inner, "finish", picky)
    desk.done(*claims)
    with caplog.at_level(logging.ERROR, "holdfast"):
        await desk.step()
    expected = ["succeeded"] * 3
    expected[place] = "dead"
    assert await desk.states(claims) == expected
    found = await record(desk.store, claims[place].id)
    assert found.history[-1].error is not None
    assert found.history[-1].error.type == "UnicodeEncodeError"
    assert found.result is None
    assert [told["job"] for told in fields(caplog, "outcome-refused")] == [claims[place].id]
    assert desk.finisher.pending == set()


async def test_an_outcome_that_cannot_be_taken_while_a_cancel_was_asked_for_ends_cancelled(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    (job,) = await desk.claims(1)
    await desk.store.inner.cancel([job.id], "the customer left")
    monkeypatch.setattr(desk.store.inner, "finish", Picky(desk, [job], StoreError("too long")))
    desk.done(job)
    await desk.step()
    assert (await desk.states([job]))[0] in ("cancelled", "dead")
    assert desk.finisher.pending == set()


async def test_a_store_that_goes_away_amid_single_writes_loses_nothing(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    claims = await desk.claims(4)
    picky = Picky(desk, [claims[1]], StoreError("too long"))
    monkeypatch.setattr(desk.store.inner, "finish", picky)
    desk.done(*claims)
    lost = 0

    async def sometimes(outcomes: Sequence[Outcome]) -> Sequence[Settled]:
        nonlocal lost
        if len(outcomes) == 1 and outcomes[0].id == claims[2].id and lost < 2:
            lost += 1
            raise StoreAway("away")
        return await picky(outcomes)

    monkeypatch.setattr(desk.store.inner, "finish", sometimes)
    for _ in range(2):
        with pytest.raises(StoreAway):
            await desk.step()
    await desk.step()
    assert await desk.states(claims) == ["succeeded", "dead", "succeeded", "succeeded"]
    assert desk.refused == []
    assert desk.finisher.pending == set()


async def test_one_outcome_that_can_never_be_written_does_not_hold_up_the_others_for_ever(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    claims = await desk.claims(3)
    finish = desk.store.inner.finish

    async def hopeless(outcomes: Sequence[Outcome]) -> Sequence[Settled]:
        if any(outcome.id == claims[1].id for outcome in outcomes):
            raise StoreError("this row is broken")
        return await finish(outcomes)

    monkeypatch.setattr(desk.store.inner, "finish", hopeless)
    desk.done(*claims)
    for _ in range(5):
        try:
            await desk.step()
        except StoreError:
            continue
    assert await desk.states(claims) == ["succeeded", "running", "succeeded"]


async def test_it_says_when_the_worker_should_claim_nothing(desk: Desk) -> None:
    for _ in range(PENDING_MOST - 1):
        desk.done(claim())
    assert not desk.finisher.full
    desk.done(claim())
    assert desk.finisher.full


async def test_a_write_that_is_cut_keeps_its_outcomes(desk: Desk) -> None:
    claims = await desk.claims(2)
    made, _ = desk.store.hold("finish")
    desk.done(*claims)
    writing = asyncio.create_task(desk.finisher.step())
    await soon(made.wait(), "the write is not begun")
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert desk.finisher.pending == {job.id for job in claims}
    await desk.step()
    assert await desk.states(claims) == ["succeeded"] * 2


# --- the last outcomes


async def test_a_flush_waits_until_everything_is_written(desk: Desk) -> None:
    claims = await desk.claims(3)
    stopping = Signal()
    writing = asyncio.create_task(repeat("finisher", desk.finisher.step, stopping))
    made, go = desk.store.hold("finish")
    desk.done(*claims[:1])
    await soon(made.wait(), "the write is not begun")
    desk.done(*claims[1:])
    flushing = asyncio.create_task(desk.finisher.flush(60, time.monotonic))
    await asyncio.sleep(0.005)
    assert not flushing.done()
    go.set()
    assert await soon(flushing, "the flush does not end") == []
    assert await desk.states(claims) == ["succeeded"] * 3
    stopping.set()
    desk.finisher.arrived.poke()
    await soon(writing, "the finisher does not end")


async def test_a_flush_gives_up_in_time_and_says_what_is_not_written(desk: Desk) -> None:
    claims = await desk.claims(3)
    stopping = Signal()
    desk.store.away("finish")
    desk.done(*claims)
    writing = asyncio.create_task(repeat("finisher", desk.finisher.step, stopping))
    left = await soon(desk.finisher.flush(0.05, time.monotonic), "the flush does not give up")
    assert sorted(outcome.id for outcome in left) == sorted(job.id for job in claims)
    stopping.set()
    await soon(writing, "the finisher does not end")


async def test_a_flush_counts_what_is_being_written_as_not_written(desk: Desk) -> None:
    claims = await desk.claims(2)
    made, go = desk.store.hold("finish")
    desk.done(*claims)
    writing = asyncio.create_task(desk.finisher.step())
    await soon(made.wait(), "the write is not begun")
    left = await soon(desk.finisher.flush(0.01, time.monotonic), "the flush does not give up")
    assert [outcome.id for outcome in left] == [job.id for job in claims]
    go.set()
    await soon(writing, "the write does not end")


async def test_with_nothing_to_write_a_flush_ends_at_once(desk: Desk) -> None:
    assert await soon(desk.finisher.flush(60, time.monotonic), "the flush does not end") == []


async def test_a_failure_and_a_success_go_in_one_batch(desk: Desk) -> None:
    claims = await desk.claims(2)
    desk.finisher.add(decide(claims[0], BOOM))
    desk.done(claims[1])
    await desk.step()
    assert desk.batches == [2]
    assert await desk.states(claims) == [State.SCHEDULED, State.SUCCEEDED]


async def test_a_refusal_that_passes_costs_no_success(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("holdfast.worker.finisher.REFUSALS", 5)
    (job,) = await desk.claims(1)
    finish, refusals = desk.store.inner.finish, 0

    async def refuses_thrice(outcomes: Sequence[Outcome]) -> Sequence[Settled]:
        nonlocal refusals
        refusals += 1
        if refusals <= 3:
            raise StoreError("out of memory, say")
        return await finish(outcomes)

    monkeypatch.setattr(desk.store.inner, "finish", refuses_thrice)
    desk.done(job)
    with caplog.at_level(logging.ERROR, "holdfast"):
        pauses = [await desk.step() for _ in range(4)]
    assert await desk.states([job]) == ["succeeded"]
    assert all(pause > 0 for pause in pauses[:3]), "it is not asked again at once"
    assert len(fields(caplog, "outcome-refused")) == 1
