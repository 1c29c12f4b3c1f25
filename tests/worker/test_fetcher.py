"""The fetcher: it claims what there is room for, repeats a claim whose reply was lost, and gives strays back."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import pytest

from holdfast.clock import SECOND, FakeClock
from holdfast.errors import StoreAway
from holdfast.job import Claim, Released, State, Succeeded
from holdfast.policy import decide
from holdfast.store import LEASE, Claims, Where
from holdfast.worker.fetcher import Fetcher
from holdfast.worker.finisher import PENDING_MOST, Finisher
from holdfast.worker.identity import DOUBT, Identity
from holdfast.worker.loop import Signal
from holdfast.worker.runner import Run
from holdfast.worker.shares import Shares
from holdfast.worker.slots import WAIT_MOST, Slots
from tests.store.acts import Hand, draft, hand, steady_hand, stored
from tests.worker.rig import claim, events, memory, record, run_of, soon


class Desk:
    """A fetcher with its neighbours, on a flaky memory store whose clock is the worker's."""

    def __init__(self, concurrency: int = 10, queues: Sequence[str] | None = None) -> None:
        self.clock = FakeClock()
        self.store = memory(self.clock)
        self.started: list[Run] = []
        self.slots = Slots(concurrency, self._start, self.clock)
        self.allowance = 1000
        self.finisher = Finisher(self.store, lambda _: None, lambda _: None)
        self.stopping = Signal()
        self.lost: list[Identity] = []
        self.identity = Identity(self.clock)
        self.shares = Shares(queues)
        self.fetcher = Fetcher(
            self.store,
            lambda: self.identity,
            self.slots,
            self.finisher,
            queues,
            self.stopping,
            self.lost.append,
            lambda: self.allowance,
            shares=self.shares,
        )

    def _start(self, of: Claim, since: float) -> Run:
        self.started.append(run := run_of(of))
        return run

    async def register(self) -> None:
        sent = self.clock.monotonic()
        self.identity.beaten(sent, (await self.store.register(self.identity.id, None, {})).lease)

    async def beat(self) -> None:
        sent = self.clock.monotonic()
        beat = await self.store.beat([self.identity.id])
        assert not beat.gone
        self.identity.beaten(sent, beat.lease)

    async def step(self) -> float:
        return await soon(self.fetcher.step(), "a step does not end")

    async def jobs(self, number: int, **changes: Any) -> list[UUID]:
        return await stored(self.store.inner, *(draft(**changes) for _ in range(number)))

    async def states(self, ids: Sequence[UUID]) -> list[str]:
        return [str((await record(self.store, job)).state) for job in ids]

    @property
    def begun(self) -> list[UUID]:
        return [run.claim.id for run in self.started]

    @property
    def tickets(self) -> list[int]:
        return [args[1] for name, args in self.store.calls if name == "claim"]

    @property
    def asked(self) -> list[int]:
        """For how many jobs each claim asked."""
        return [args[3] for name, args in self.store.calls if name == "claim"]


@pytest.fixture
async def desk() -> Desk:
    it = Desk()
    await it.register()
    return it


async def test_it_claims_what_there_is_room_for_and_starts_it(desk: Desk) -> None:
    ids = await desk.jobs(15)
    assert await desk.step() == 0
    assert desk.asked == [10]
    assert desk.begun == ids[:10]
    assert await desk.states(ids) == ["running"] * 10 + ["queued"] * 5


async def test_tickets_count_up_with_each_claim_that_brings_jobs(desk: Desk) -> None:
    await desk.jobs(2)
    await desk.step()
    await desk.jobs(1)
    await desk.step()
    desk.store.hold("wait")
    waiting = asyncio.create_task(desk.fetcher.step())
    await asyncio.sleep(0.005)
    desk.stopping.set()
    await soon(waiting, "the wait for work is not left")
    assert desk.tickets == [1, 2, 3]
    assert desk.identity.ticket == 2, "an empty answer leaves its ticket unused"


async def test_without_room_nothing_is_claimed(desk: Desk) -> None:
    await desk.jobs(20)
    await desk.step()
    step = asyncio.create_task(desk.fetcher.step())
    await asyncio.sleep(0.005)
    assert not step.done()
    desk.slots.changed.poke()
    await soon(step, "it does not hear of a change")
    assert desk.asked == [10]


async def test_with_too_many_outcomes_pending_nothing_is_claimed(desk: Desk) -> None:
    await desk.jobs(1)
    for _ in range(PENDING_MOST):
        desk.fetcher.give_back([claim()], "for the test")
    await desk.step()
    assert desk.asked == []


async def test_only_its_own_queues_are_served() -> None:
    desk = Desk(queues=("mail", "pdf"))
    await desk.register()
    others = await desk.jobs(1, queue="slow")
    mine = [*await desk.jobs(1, queue="mail"), *await desk.jobs(1, queue="pdf")]
    await desk.step()
    assert sorted(desk.begun) == sorted(mine)
    assert await desk.states(others) == ["queued"]


# --- lost replies


@pytest.mark.parametrize("times", [1, 3])
async def test_a_claim_whose_reply_was_lost_is_asked_for_again_and_strands_nothing(desk: Desk, times: int) -> None:
    ids = await desk.jobs(15)
    desk.store.drop("claim", times=times)
    for _ in range(times):
        with pytest.raises(StoreAway):
            await desk.step()
    assert desk.begun == []
    assert await desk.states(ids[:10]) == ["running"] * 10, "the store has done it"
    await desk.step()
    assert sorted(desk.begun) == sorted(ids[:10]), "the same jobs, and no others"
    assert desk.tickets == [1] * (times + 1)
    assert (await record(desk.store, ids[0])).fence == 1


async def test_a_claim_that_never_arrived_is_asked_for_again_with_the_same_ticket(desk: Desk) -> None:
    ids = await desk.jobs(3)
    desk.store.fail("claim", times=2)
    for _ in range(2):
        with pytest.raises(StoreAway):
            await desk.step()
    await desk.step()
    assert desk.begun == ids
    assert desk.tickets == [1, 1, 1]


async def test_the_repeat_of_a_claim_takes_no_more_than_was_claimed(desk: Desk) -> None:
    ids = await desk.jobs(3)
    desk.store.drop("claim")
    with pytest.raises(StoreAway):
        await desk.step()
    more = await desk.jobs(3)
    await desk.step()
    assert desk.begun == ids
    await desk.step()
    assert desk.begun == ids + more
    assert desk.tickets == [1, 1, 2]


async def test_after_a_lost_claim_whose_jobs_others_have_rescued_it_claims_again(desk: Desk) -> None:
    ids = await desk.jobs(3)
    desk.store.drop("claim")
    with pytest.raises(StoreAway):
        await desk.step()
    sweeper = await steady_hand(desk.store.inner)  # the worker was silent for more than a lease
    assert sorted(await sweeper.sweep()) == sorted(ids)
    desk.clock.advance(1)
    await desk.beat()
    for _ in range(3):
        desk.stopping.poke()
        step = asyncio.create_task(desk.fetcher.step())
        await asyncio.sleep(0.005)
        desk.stopping.poke()
        await soon(step, "a step does not end")
    assert desk.lost == [], "its lease was revived: it is no lost worker"
    assert sorted(desk.begun) == sorted(ids), "it asks for a used ticket for ever and never claims again"


async def test_what_a_lost_reply_held_back_is_given_back_when_the_worker_stops_meanwhile(desk: Desk) -> None:
    """The belt for it is `retire`, after which every sweeper may take the jobs over."""
    ids = await desk.jobs(2)
    desk.store.drop("claim")
    with pytest.raises(StoreAway):
        await desk.step()
    await desk.store.retire(desk.identity.id)
    other = await hand(desk.store.inner)
    assert sorted(await other.reclaim()) == sorted(ids)


# --- refusals


async def test_a_worker_that_the_store_has_retired_is_lost(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    await desk.jobs(1)
    await desk.store.retire(desk.identity.id)
    with caplog.at_level(logging.WARNING, "holdfast"):
        assert await desk.step() > 0
    assert desk.lost == [desk.identity]
    assert events(caplog) == ["claim-refused"]
    assert desk.begun == []


async def test_a_worker_that_the_store_does_not_know_is_lost() -> None:
    desk = Desk()
    desk.identity.beaten(0, LEASE)
    await desk.step()
    assert desk.lost == [desk.identity]


async def test_a_number_that_the_store_does_not_expect_is_lost(desk: Desk) -> None:
    await desk.jobs(1)
    desk.identity.ticket = 7
    await desk.step()
    assert desk.lost == [desk.identity]


async def test_a_lease_that_is_over_is_waited_out_until_a_beat_revives_it(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    ids = await desk.jobs(1)
    desk.store.shift += LEASE + 1  # the store's clock; the worker has not noticed
    with caplog.at_level(logging.WARNING, "holdfast"):
        assert await desk.step() > 0
    assert (desk.lost, desk.begun, events(caplog)) == ([], [], [])
    await desk.beat()
    await desk.step()
    assert desk.begun == ids


async def test_while_its_lease_is_in_doubt_it_claims_nothing(desk: Desk) -> None:
    ids = await desk.jobs(1)
    desk.clock.advance(LEASE - LEASE // DOUBT)
    await desk.step()
    assert desk.asked == []
    await desk.beat()
    await desk.step()
    assert desk.begun == ids


async def test_jobs_that_arrive_for_a_worker_that_was_lost_meanwhile_are_given_back(desk: Desk) -> None:
    ids = await desk.jobs(2)
    made, go = desk.store.hold("claim")
    step = asyncio.create_task(desk.fetcher.step())
    await soon(made.wait(), "it does not claim")
    desk.identity.lost = True
    go.set()
    await soon(step, "the step does not end")
    assert desk.begun == []
    assert desk.finisher.pending == set(ids)


async def test_a_store_that_is_away_reaches_the_loop(desk: Desk) -> None:
    desk.store.away("claim")
    with pytest.raises(StoreAway):
        await desk.step()
    desk.store.back()
    desk.store.away("wait")
    with pytest.raises(StoreAway):
        await desk.step()


# --- giving back


async def test_what_waits_too_long_for_a_slot_is_given_back_uncharged(desk: Desk) -> None:
    blocker, waiting = claim(), (await desk.jobs(1))[0]
    hand_ = Hand(desk.store.inner)
    hand_.id = desk.identity.id
    (held,) = await hand_.claim()
    desk.slots.add([blocker, held._replace(alone=True)])
    assert desk.begun == [blocker.id]
    desk.clock.advance(round(WAIT_MOST * SECOND) + 1)
    desk.stopping.set()
    await desk.step()
    await soon(desk.finisher.step(), "the finisher does not write")
    found = await record(desk.store, waiting)
    assert (found.state, found.attempt, found.losses) == (State.QUEUED, 0, 0)
    assert found.history[-1].ended == "released"


# --- what it has already, given out once more by a store that was put back to an earlier state


async def given_out(desk: Desk, *claims: Claim) -> None:
    """The next claim's answer is this."""

    async def answer(*_: Any) -> Claims:
        return Claims(claims)

    real, desk.store.inner.claim = desk.store.inner.claim, answer  # type: ignore[method-assign]
    try:
        await desk.step()
    finally:
        desk.store.inner.claim = real  # type: ignore[method-assign]


@pytest.mark.parametrize("leaving", [False, True])
async def test_what_it_runs_or_waits_for_is_not_started_again_under_the_same_word(
    desk: Desk, caplog: pytest.LogCaptureFixture, *, leaving: bool
) -> None:
    ids = await desk.jobs(2)
    await desk.step()
    waits = claim()
    desk.slots.concurrency = 2
    desk.slots.add([waits])
    again = [run.claim for run in desk.started] + [waits]
    desk.slots.room = lambda: 5  # type: ignore[method-assign]
    if leaving:
        desk.stopping.set()
    with caplog.at_level(logging.WARNING, "holdfast"):
        await given_out(desk, *again)
    assert desk.begun == ids, "a job runs twice at once"
    assert len(desk.slots.running) == 2
    assert [held for _, held in desk.slots.waiting] == [waits]
    assert desk.finisher.pending == set(), "the claim of a run under way is given back"
    assert events(caplog) == ["claimed-twice"] * 3


async def test_what_has_ended_and_is_being_written_is_not_started_again_under_the_same_word(desk: Desk) -> None:
    (job,) = await desk.jobs(1)
    await desk.step()
    (run,) = desk.started
    desk.finisher.add(decide(run.claim, Succeeded(b"1")))
    desk.slots.ended(run)
    await given_out(desk, run.claim)
    assert desk.begun == [job]
    await soon(desk.finisher.step(), "the finisher does not write")
    assert (await record(desk.store, job)).state == State.SUCCEEDED


@pytest.mark.parametrize("fence", [1, 3])
async def test_what_it_still_runs_by_another_claim_is_given_back_for_later(desk: Desk, fence: int) -> None:
    """Also where only the worker differs: what runs is of an earlier incarnation."""
    runs = claim(fence=1)
    desk.slots.add([runs])
    await given_out(desk, runs._replace(fence=fence, worker=desk.identity.id))
    assert desk.begun == [runs.id]
    assert list(desk.slots.running) == [(runs.id, 1)]
    ((outcome, *_),) = desk.finisher._ended  # noqa: SLF001
    assert (outcome.ended, outcome.fence, outcome.worker) == ("released", fence, desk.identity.id)
    assert outcome.delay, "it comes back at once, again and again"


async def test_a_later_claim_of_a_job_whose_outcome_is_being_written_runs(desk: Desk) -> None:
    """The store has written it, and the reply is on its way; a retry without a pause is claimed meanwhile."""
    runs = claim(fence=1)
    desk.slots.add([runs])
    desk.finisher.add(decide(runs, Released()))
    desk.slots.ended(desk.started[0])
    await given_out(desk, runs._replace(fence=2))
    assert [run.claim.fence for run in desk.started] == [1, 2]


async def test_what_has_ended_or_was_given_back_may_be_claimed_again(desk: Desk) -> None:
    desk.slots.concurrency = 1
    given = [claim(), claim()]
    desk.slots.add(given)
    assert desk.slots.take() == given[1:]
    desk.slots.ended(desk.started[0])
    await given_out(desk, *given)
    assert desk.begun == [given[0].id, given[0].id]
    assert [held for _, held in desk.slots.waiting] == given[1:]


async def test_what_could_not_be_started_may_be_claimed_again(desk: Desk) -> None:
    given = claim()
    start, desk.slots._start = desk.slots._start, lambda *_: None  # noqa: SLF001
    desk.slots.add([given])
    desk.slots._start = start  # noqa: SLF001
    await given_out(desk, given)
    assert desk.begun == [given.id]


# --- strays


async def test_what_the_store_says_it_holds_and_it_does_not_know_is_given_back_when_seen_twice(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    (job,) = await desk.jobs(1)
    forgetful = Hand(desk.store.inner)
    forgetful.id = desk.identity.id
    await forgetful.take()
    with caplog.at_level(logging.WARNING, "holdfast"):
        delay = await desk.fetcher.strays_step()
        assert desk.finisher.pending == set(), "it may be on its way"
        await desk.fetcher.strays_step()
    assert delay > 10
    await soon(desk.finisher.step(), "the finisher does not write")
    found = await record(desk.store, job)
    assert (found.state, found.attempt, found.fence) == (State.QUEUED, 0, 1)
    assert events(caplog) == ["stray"]


async def test_what_runs_waits_or_is_being_written_is_no_stray(desk: Desk) -> None:
    ids = await desk.jobs(3)
    await desk.step()
    desk.slots.ended(desk.started[0])
    desk.fetcher.give_back([desk.started[0].claim], "its outcome waits")
    desk.slots.ended(desk.started[1])
    desk.slots.concurrency = 1
    desk.slots.add([desk.started[1].claim])
    assert desk.slots.waiting
    for _ in range(3):
        await desk.fetcher.strays_step()
    assert desk.finisher.pending == {ids[0]}


async def test_a_stray_of_another_fence_is_seen_anew(desk: Desk) -> None:
    (job,) = await desk.jobs(1)
    forgetful = Hand(desk.store.inner)
    forgetful.id = desk.identity.id
    held = await forgetful.take()
    await desk.fetcher.strays_step()
    await desk.store.inner.finish([decide(held, Released())])
    await forgetful.take()  # the same job, under another fence
    await desk.fetcher.strays_step()
    assert desk.finisher.pending == set(), "this claim was seen once"
    await desk.fetcher.strays_step()
    assert desk.finisher.pending == {job}


async def test_it_asks_only_for_what_runs_under_itself(desk: Desk) -> None:
    other = await hand(desk.store.inner)
    await desk.jobs(2)
    await other.claim()
    for _ in range(2):
        await desk.fetcher.strays_step()
    assert desk.finisher.pending == set()
    assert {args[0] for name, args in desk.store.calls if name == "find"} == {Where(worker=desk.identity.id)}


async def test_a_worker_that_is_full_goes_on() -> None:
    """Its readiness hangs on this: with long jobs there is no claim for hours."""
    desk = Desk()
    await desk.register()
    assert desk.fetcher.went_on == 0.0
    desk.allowance = 0
    await desk.step()
    assert desk.fetcher.went_on > 0.0
