"""The laws of retire and reclaim: whose jobs may be taken over, by whom, and what is written then."""

import pytest

from holdfast.clock import HOUR, MINUTE
from holdfast.job import Claim, Loss, Lost, Released, Snoozed, State, Succeeded, new_id
from holdfast.policy import decide
from holdfast.store import LEASE, LEASE_RAN_OUT, Store
from tests.store.acts import (
    LOSS,
    Hand,
    draft,
    finish,
    hand,
    keep_beating,
    listing,
    record,
    running,
    state,
    steady_hand,
    stored,
)

HALF = LEASE // 2
CULPRIT = Loss("SIGSEGV", culprit=True, company=True, stack='File "shop.py", line 3')
OVERDUE = Loss("stuck", on_purpose=True, overdue="final")


# --- retire


async def test_the_jobs_of_a_retired_worker_can_be_taken_at_once_by_anyone(store: Store) -> None:
    worker, sweeper = await hand(store), await hand(store)
    jobs = [await running(store, worker) for _ in range(3)]
    assert await sweeper.reclaim() == {}
    await worker.retire(LOSS)
    assert set(await sweeper.reclaim()) == {job.id for job in jobs}


async def test_retiring_ends_the_lease_for_good(store: Store) -> None:
    worker = await hand(store)
    await worker.retire()
    assert await worker.refusal() == "gone"
    assert not await worker.beat()
    store.shift -= HOUR
    assert not await worker.beat()
    assert await worker.refusal() == "gone"


async def test_retiring_twice_keeps_the_first_word(store: Store) -> None:
    worker, sweeper = await hand(store), await hand(store)
    job = await running(store, worker)
    await worker.retire(LOSS)
    await worker.retire(Loss("another story", on_purpose=True, begun=False, culprit=True))
    assert (await sweeper.reclaim())[job.id].loss == LOSS


async def test_a_loss_named_for_a_job_is_that_jobs_and_the_others_get_the_common_one(store: Store) -> None:
    worker, sweeper = await hand(store), await hand(store)
    jobs = [await running(store, worker) for _ in range(4)]
    named = {jobs[0].id: CULPRIT, jobs[2].id: OVERDUE}
    await worker.retire(LOSS, {(job.id, job.fence): named[job.id] for job in jobs if job.id in named})
    found = await sweeper.reclaim()
    assert {job.id: found[job.id].loss for job in jobs} == {job.id: named.get(job.id, LOSS) for job in jobs}


async def test_a_loss_can_be_named_for_a_job_where_the_worker_gave_none(store: Store) -> None:
    worker, sweeper = await hand(store), await hand(store)
    job, other = await running(store, worker), await running(store, worker)
    await worker.retire(jobs={(job.id, job.fence): OVERDUE})
    found = await sweeper.reclaim()
    assert (found[job.id].loss, found[other.id].loss) == (OVERDUE, LEASE_RAN_OUT)


async def test_many_losses_can_be_named_at_once(store: Store) -> None:
    ids = await stored(store, *(draft() for _ in range(300)))
    worker, sweeper = await hand(store), await hand(store)
    fences = {job.id: job.fence for job in await worker.claim(300)}
    named = {job_id: Loss(f"killed by the {number}th", company=True) for number, job_id in enumerate(ids[:290])}
    await worker.retire(LOSS, {(job_id, fences[job_id]): of_job for job_id, of_job in named.items()})
    found = await sweeper.reclaim(300)
    assert {job_id: found[job_id].loss for job_id in ids} == {job_id: named.get(job_id, LOSS) for job_id in ids}


async def test_a_worker_already_retired_gives_its_jobs_no_new_losses(store: Store) -> None:
    worker, sweeper = await hand(store), await hand(store)
    named, unnamed = await running(store, worker), await running(store, worker)
    await worker.retire(LOSS, {(named.id, named.fence): CULPRIT})
    await worker.retire(OVERDUE, {(job.id, job.fence): OVERDUE for job in (named, unnamed)})
    found = await sweeper.reclaim()
    assert (found[named.id].loss, found[unnamed.id].loss) == (CULPRIT, LOSS)


async def test_a_loss_named_for_what_is_not_held_any_more_is_written_nowhere(store: Store) -> None:
    worker, other, sweeper = await hand(store), await hand(store), await hand(store)
    done, back, others = await running(store, worker), await running(store, worker), await running(store, other)
    await finish(store, done, Succeeded(b"1"))
    await finish(store, back, Lost(Loss("given back", begun=False)))
    before = [await record(store, job.id) for job in (done, back, others)]
    claims = [(job.id, job.fence) for job in (done, back, others)]
    await worker.retire(LOSS, dict.fromkeys([*claims, (new_id(), 1)], CULPRIT))
    assert [await record(store, job.id) for job in (done, back, others)] == before
    again = await other.claim(1, [back.queue])
    await other.retire()
    found = await sweeper.reclaim()
    assert [job.id for job in again] == [back.id]
    assert {job_id: job.loss for job_id, job in found.items()} == {others.id: LEASE_RAN_OUT, back.id: LEASE_RAN_OUT}


async def test_a_loss_named_for_an_earlier_claim_is_not_written_on_a_later_one(store: Store) -> None:
    worker, sweeper = await hand(store), await hand(store)
    first, kept = await running(store, worker), await running(store, worker)
    await finish(store, first, Released("interrupted by shutdown"))
    [again] = await worker.claim(1, [first.queue])
    assert (again.id, again.worker, again.fence) == (first.id, first.worker, first.fence + 1)
    await worker.retire(LOSS, {(first.id, first.fence): CULPRIT, (kept.id, kept.fence): OVERDUE})
    found = await sweeper.reclaim()
    assert (found[again.id].loss, found[kept.id].loss) == (LOSS, OVERDUE)


async def test_a_loss_that_was_written_before_stays_whatever_is_named_later(store: Store) -> None:
    worker, first, next_ = await hand(store), await hand(store), await hand(store)
    job = await running(store, worker)
    await worker.retire(LOSS)
    taken = (await first.reclaim())[job.id]
    await first.retire(OVERDUE, {(taken.id, taken.fence): CULPRIT})
    assert (await next_.reclaim())[job.id].loss == LOSS


async def test_a_claim_settled_after_its_worker_was_retired_leaves_no_loss_behind(store: Store) -> None:
    worker, sweeper = await hand(store), await hand(store)
    job = await running(store, worker)
    await worker.retire(LOSS, {(job.id, job.fence): CULPRIT})
    assert (await finish(store, job, Snoozed(0))).answer == "accepted"
    again = await sweeper.take()
    assert (again.id, again.loss) == (job.id, None)


async def test_retiring_an_unknown_worker_is_no_error(store: Store) -> None:
    stranger = Hand(store)
    await stranger.retire(LOSS, {(new_id(), 1): LOSS})
    await stranger.retire()
    assert await stranger.refusal() == "gone"


async def test_retiring_one_worker_leaves_the_others(store: Store) -> None:
    worker, other, sweeper = await hand(store), await hand(store), await hand(store)
    await running(store, other)
    await worker.retire()
    assert await other.refusal() is None
    assert await sweeper.reclaim() == {}


# --- what a reclaim writes


@pytest.mark.parametrize(
    "loss",
    [
        LOSS,
        Loss("restarted", on_purpose=True),
        Loss("killed by signal 9", begun=False),
        Loss("SIGSEGV in naïve 😀", culprit=True),
        Loss("killed by signal 9", company=True),
        Loss("stalled", stack='File "shop.py", line 3 in sp\u00e4t\n' + "x" * 20_000),
        Loss("stuck", on_purpose=True, overdue="retry"),
        Loss("stuck", True, True, True, True, "a stack", "final"),
    ],
)
async def test_a_reclaimed_job_is_the_sweepers_under_the_next_fence(store: Store, loss: Loss) -> None:
    worker, sweeper = await hand(store), await hand(store)
    job = await running(store, worker, headers='{"tenant":"7"}')
    before = await record(store, job.id)
    store.shift += 500
    await worker.retire(loss)
    assert await sweeper.reclaim() == {job.id: job._replace(fence=2, worker=sweeper.id, loss=loss)}
    found = await record(store, job.id)
    assert (found.state, found.worker, found.fence) == (State.RUNNING, sweeper.id, 2)
    assert (found.attempt, found.started_at, found.history) == (1, before.started_at, ())
    assert (found.settled_fence, found.losses, found.crashes) == (None, 0, 0)


async def test_a_worker_that_gave_no_loss_lets_its_lease_speak(store: Store) -> None:
    worker, sweeper = await hand(store), await hand(store)
    job = await running(store, worker)
    await worker.retire()
    assert (await sweeper.reclaim())[job.id].loss == LEASE_RAN_OUT


async def test_a_lease_that_ran_out_is_the_loss(store: Store) -> None:
    job = await running(store, await hand(store))
    sweeper = await steady_hand(store)
    assert (await sweeper.reclaim())[job.id].loss == LEASE_RAN_OUT


async def test_the_sweepers_claim_can_be_settled_and_the_robbed_one_not(store: Store) -> None:
    worker, sweeper = await hand(store), await hand(store)
    job = await running(store, worker)
    await worker.retire(LOSS)
    [claim] = (await sweeper.reclaim()).values()
    assert (await finish(store, job, Succeeded(b"late"))).answer == "stale"
    assert (await finish(store, claim, Lost(LOSS))).answer == "accepted"
    assert (await finish(store, claim, Lost(LOSS))).answer == "replayed"
    found = await record(store, job.id)
    assert (found.state, found.attempt, found.losses, found.worker) == ("queued", 0, 1, None)
    [attempt] = found.history
    assert (attempt.attempt, attempt.fence, attempt.worker) == (1, 2, sweeper.id)
    assert (attempt.started_at, attempt.ended, attempt.reason) == (job.claimed_at, "lost", LOSS.cause)


async def test_the_next_claim_knows_nothing_of_an_older_loss(store: Store) -> None:
    worker, sweeper = await hand(store), await hand(store)
    job = await running(store, worker)
    await worker.retire(LOSS._replace(begun=False))
    await sweeper.sweep()
    again = await sweeper.take()
    assert (again.id, again.fence, again.attempt, again.loss) == (job.id, 3, 1, None)
    await sweeper.retire(Loss("a new story"))
    other = await hand(store)
    assert (await other.reclaim())[job.id].loss == Loss("a new story")


async def test_finished_jobs_are_not_taken(store: Store) -> None:
    worker, sweeper = await hand(store), await hand(store)
    job = await running(store, worker)
    await finish(store, job, Succeeded(b"1"))
    await worker.retire(LOSS)
    assert await sweeper.reclaim() == {}
    assert await state(store, job.id) == "succeeded"


async def test_a_supervisor_that_never_claims_can_sweep(store: Store) -> None:
    supervisor = await hand(store)
    child = Hand(store)
    await store.register(child.id, supervisor.id, {"slots": 10})
    job = await running(store, child)
    await child.retire(LOSS)
    assert await supervisor.sweep() == [job.id]


# --- repeats, limits, sweepers that die


async def test_a_repeat_returns_the_same_claims(store: Store) -> None:
    worker, sweeper = await hand(store), await hand(store)
    for _ in range(3):
        await running(store, worker)
    await worker.retire(LOSS)
    first = await sweeper.reclaim()
    store.shift += 5
    assert await sweeper.reclaim() == first
    assert len(first) == 3
    assert {claim.fence for claim in first.values()} == {2}


async def test_never_more_than_the_limit_and_what_is_held_already_comes_first(store: Store) -> None:
    worker, sweeper = await hand(store), await hand(store)
    for _ in range(5):
        await running(store, worker)
    await worker.retire(LOSS)
    assert await sweeper.reclaim(0) == {}
    first = await sweeper.reclaim(2)
    assert len(first) == 2
    assert await sweeper.reclaim(2) == first
    more = await sweeper.reclaim(4)
    assert len(more) == 4
    assert first.items() <= more.items()
    held = [r for r in await listing(store) if r.worker == sweeper.id]
    assert {r.id for r in held} == set(more)


async def test_batch_after_batch_every_job_is_given_back(store: Store) -> None:
    ids = await stored(store, *(draft() for _ in range(120)))
    worker, sweeper = await hand(store), await hand(store)
    assert len(await worker.claim(120)) == 120
    await worker.retire(LOSS)
    returned = []
    while jobs := list((await sweeper.reclaim(50)).values()):
        assert len(jobs) <= 50
        await store.finish([decide(job, Lost(LOSS)) for job in jobs])
        returned += [job.id for job in jobs]
    assert sorted(returned) == sorted(ids)


async def test_what_a_sweeper_claimed_to_run_it_does_not_get_from_reclaim(store: Store) -> None:
    sweeper = await hand(store)
    job = await running(store, sweeper)
    assert await sweeper.reclaim() == {}
    await keep_beating([sweeper], 2 * LEASE)
    assert await sweeper.reclaim() == {}
    assert (await record(store, job.id)).fence == 1


@pytest.mark.parametrize("second", [LOSS._replace(cause="the sweeper died too", culprit=True), None])
async def test_when_a_sweeper_dies_the_next_reads_the_same_loss(store: Store, second: Loss | None) -> None:
    worker, first, next_ = await hand(store), await hand(store), await hand(store)
    job = await running(store, worker)
    await worker.retire(LOSS)
    assert (await first.reclaim())[job.id].loss == LOSS
    await first.retire(second)
    assert await next_.reclaim() == {job.id: job._replace(fence=3, worker=next_.id, loss=LOSS)}


async def test_however_many_sweepers_die_in_a_row_the_loss_is_charged_once(store: Store) -> None:
    worker = await hand(store)
    job = await running(store, worker)
    await worker.retire(LOSS)
    for _ in range(3):
        sweeper = await hand(store)
        assert (await sweeper.reclaim())[job.id].loss == LOSS
        await sweeper.retire(Loss("the sweeper died too", culprit=True))
    last = await hand(store)
    assert await last.sweep() == [job.id]
    found = await record(store, job.id)
    assert (found.attempt, found.fence, found.losses, found.crashes) == (0, 5, 1, 0)
    assert [attempt.reason for attempt in found.history] == [LOSS.cause]


async def test_a_silent_sweeper_is_robbed_like_anyone(store: Store) -> None:
    worker, first = await hand(store), await hand(store)
    job = await running(store, worker)
    await worker.retire(LOSS)
    await first.reclaim()
    second = await steady_hand(store)
    assert (await second.reclaim())[job.id].loss == LOSS
    assert await first.beat()
    assert await first.reclaim() == {}


# --- who may sweep


async def _retired_with_a_job(store: Store) -> Claim:
    worker = await hand(store)
    job = await running(store, worker)
    await worker.retire(LOSS)
    return job


async def test_an_unknown_sweeper_gets_nothing(store: Store) -> None:
    job = await _retired_with_a_job(store)
    assert await Hand(store).reclaim() == {}
    assert (await record(store, job.id)).fence == 1


@pytest.mark.parametrize("held", [False, True])
async def test_a_retired_sweeper_gets_nothing(store: Store, held: bool) -> None:
    sweeper = await hand(store)
    job = await _retired_with_a_job(store)
    if held:
        assert job.id in await sweeper.reclaim()
    await sweeper.retire()
    assert await sweeper.reclaim() == {}
    assert (await record(store, job.id)).fence == 1 + held


@pytest.mark.parametrize("held", [False, True])
async def test_a_sweeper_whose_lease_is_over_gets_nothing(store: Store, held: bool) -> None:
    sweeper = await hand(store)
    job = await _retired_with_a_job(store)
    if held:
        assert job.id in await sweeper.reclaim()
    store.shift += LEASE
    assert await sweeper.reclaim() == {}
    assert (await record(store, job.id)).fence == 1 + held
    await sweeper.beat()
    assert job.id in await sweeper.reclaim()


# --- only the steady rob by expiry


async def test_the_jobs_of_a_live_worker_are_never_taken(store: Store) -> None:
    worker = await hand(store)
    await running(store, worker)
    sweeper = await hand(store)
    await keep_beating([worker, sweeper], 3 * LEASE)
    assert await sweeper.reclaim() == {}
    await keep_beating([sweeper], LEASE - 1)
    assert await sweeper.reclaim() == {}, "the lease has a millisecond left"
    await keep_beating([sweeper], 1)
    assert len(await sweeper.reclaim()) == 1


async def test_a_sweeper_must_have_been_beating_for_longer_than_a_lease(store: Store) -> None:
    await running(store, await hand(store))
    sweeper = await hand(store)
    await keep_beating([sweeper], LEASE)
    assert await sweeper.reclaim() == {}
    await keep_beating([sweeper], 1)
    assert len(await sweeper.reclaim()) == 1


async def test_a_sweeper_whose_own_beat_is_old_takes_nothing_by_expiry(store: Store) -> None:
    await running(store, await hand(store))
    sweeper = await steady_hand(store)
    store.shift += HALF
    assert await sweeper.reclaim() == {}
    store.shift -= 1
    assert len(await sweeper.reclaim()) == 1


@pytest.mark.parametrize(("pause", "taken"), [(HALF, 1), (HALF + 1, 0), (LEASE - 1, 0), (MINUTE, 0)])
async def test_a_pause_of_more_than_half_a_lease_ends_steadiness(store: Store, pause: int, taken: int) -> None:
    await running(store, await hand(store))
    sweeper = await steady_hand(store)
    store.shift += pause
    assert await sweeper.beat()
    assert len(await sweeper.reclaim()) == taken
    await keep_beating([sweeper], LEASE + 1)
    assert len(await sweeper.reclaim()) == 1


async def test_registering_again_after_a_pause_ends_steadiness_like_a_beat(store: Store) -> None:
    await running(store, await hand(store))
    sweeper = await steady_hand(store)
    store.shift += HALF + 1
    await store.register(sweeper.id, None, {})
    assert await sweeper.reclaim() == {}


async def test_a_worker_that_revived_in_time_keeps_its_jobs(store: Store) -> None:
    worker = await hand(store)
    job = await running(store, worker)
    sweeper = await steady_hand(store)
    assert await worker.beat()
    assert await sweeper.reclaim() == {}
    assert (await finish(store, job, Succeeded(b"1"))).answer == "accepted"


@pytest.mark.parametrize("away", [LEASE, MINUTE, 24 * HOUR])
async def test_after_the_store_was_away_nobody_robs_anybody(store: Store, away: int) -> None:
    """All have been cut off for longer than their leases; whoever is back first must not rescue the healthy."""
    one, two = await hand(store), await hand(store)
    await running(store, one)
    await running(store, two)
    await keep_beating([one, two], 2 * LEASE)
    store.shift += away
    assert await one.beat()
    assert await one.reclaim() == {}
    store.shift += LEASE // 3
    assert await one.beat()
    assert await one.reclaim() == {}
    assert await two.beat()
    for _ in range(9):
        await keep_beating([one, two], LEASE // 3)
        assert await one.reclaim() == {}
        assert await two.reclaim() == {}


@pytest.mark.parametrize("back", [1, HALF + 1, LEASE + 1, HOUR])
async def test_after_the_clock_stepped_back_nobody_is_steady_at_first(store: Store, back: int) -> None:
    await running(store, await hand(store))
    sweeper = await steady_hand(store)
    store.shift -= back
    assert await sweeper.reclaim() == {}, "its beat lies in the future"
    assert await sweeper.beat()
    assert await sweeper.reclaim() == {}, "it is steady only since now"


async def test_a_lease_too_far_in_the_future_is_cut_by_a_steady_sweeper(store: Store) -> None:
    """Else the jobs of a worker that died before the clock was stepped back would wait for an hour."""
    dead, sweeper = await hand(store), await hand(store)
    job = await running(store, dead)
    store.shift -= HOUR
    await keep_beating([sweeper], LEASE)
    assert await sweeper.reclaim() == {}
    await keep_beating([sweeper], LEASE)
    assert await sweeper.reclaim() == {}, "not steady yet a lease ago: the cut comes only now"
    await keep_beating([sweeper], LEASE - 1)
    assert await sweeper.reclaim() == {}, "the cut lease has its whole length"
    await keep_beating([sweeper], 1)
    assert list(await sweeper.reclaim()) == [job.id]


async def test_a_lease_is_not_cut_by_an_unsteady_sweeper(store: Store) -> None:
    worker, sweeper = await hand(store), await hand(store)
    store.shift -= HOUR
    await sweeper.beat()
    assert await sweeper.reclaim() == {}
    store.shift += HOUR
    assert await worker.refusal() is None


async def test_the_retireds_jobs_come_before_the_silents(store: Store) -> None:
    silent = [await hand(store) for _ in range(3)]
    for worker in silent:
        await running(store, worker)
    sweeper = await steady_hand(store)
    retired = await hand(store)
    first = await running(store, retired)
    await retired.retire(LOSS)
    assert list(await sweeper.reclaim(1)) == [first.id]
    assert len(await sweeper.reclaim(10)) == 4
