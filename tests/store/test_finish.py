"""The laws of finish."""

from typing import Any

import pytest

from holdfast.clock import HOUR, MINUTE, SECOND
from holdfast.job import (
    ERRORS_FIRST,
    ERRORS_LAST,
    TOMBSTONE,
    Attempt,
    Cancelled,
    Failed,
    Failure,
    Lost,
    Released,
    Snoozed,
    State,
    Succeeded,
    Terms,
    Verdict,
)
from holdfast.policy import decide
from holdfast.store import LEASE, Answer, Settled, Store
from tests.store.acts import (
    BOOM,
    FINAL_BOOM,
    LOSS,
    draft,
    ended,
    finish,
    hand,
    listing,
    now,
    record,
    running,
    steady_hand,
    stored,
)

ALL: dict[str, tuple[Verdict, State]] = {
    "success": (Succeeded(b'{"sent":true}'), State.SUCCEEDED),
    "failure with attempts left": (BOOM, State.SCHEDULED),
    "failure, again at once": (Failed(BOOM.error, after=0), State.QUEUED),
    "final failure": (FINAL_BOOM, State.DEAD),
    "snooze": (Snoozed(5 * SECOND, "too early"), State.SCHEDULED),
    "snooze for no time": (Snoozed(0), State.QUEUED),
    "cancel by the handler": (Cancelled("not wanted"), State.CANCELLED),
    "release": (Released("shutdown"), State.QUEUED),
    "release of an unknown task": (Released("unknown task", unknown=True), State.SCHEDULED),
    "loss in company": (Lost(LOSS), State.QUEUED),
    "loss of a job never begun": (Lost(LOSS._replace(begun=False)), State.QUEUED),
}
UNSUCCESSFUL = {name: verdict for name, (verdict, _) in ALL.items() if name != "success"}
every_verdict = pytest.mark.parametrize(("verdict", "becomes"), ALL.values(), ids=ALL)
every_failure = pytest.mark.parametrize("verdict", UNSUCCESSFUL.values(), ids=UNSUCCESSFUL)


# --- accepted


@every_verdict
async def test_an_accepted_outcome_is_written_as_it_says(store: Store, verdict: Verdict, becomes: State) -> None:
    worker = await hand(store)
    job = await running(store, worker)
    before = await record(store, job.id)
    store.shift += 1500
    outcome = decide(job, verdict)
    assert list(await store.finish([outcome])) == [Settled(Answer.ACCEPTED, becomes)]
    found = await record(store, job.id)
    assert found.state == becomes == outcome.state
    assert found.worker is None
    assert (found.attempt, found.fence) == (outcome.attempt, 1)
    assert (found.releases, found.losses, found.crashes) == (outcome.releases, outcome.losses, outcome.crashes)
    assert found.alone == outcome.alone
    assert (found.result, found.reason) == (outcome.result, outcome.reason)
    assert (found.settled_fence, found.settled_by, found.settled_state) == (1, worker.id, becomes)
    assert found.started_at == before.started_at
    final = becomes in {State.SUCCEEDED, State.DEAD, State.CANCELLED}
    assert found.finished_at == (await now(store) if final else None)
    assert (found.life, found.payload, found.terms, found.tags) == (
        1,
        before.payload,
        before.terms,
        before.tags,
    )


async def test_counters_and_alone_become_what_the_outcome_says(store: Store) -> None:
    worker = await hand(store)
    job = await running(store, worker)
    outcome = decide(job, Released())._replace(attempt=2, releases=3, losses=4, crashes=5, alone=True)
    await store.finish([outcome])
    found = await record(store, job.id)
    assert (found.attempt, found.releases, found.losses, found.crashes, found.alone) == (2, 3, 4, 5, True)
    again = await worker.take()
    assert (again.attempt, again.releases, again.losses, again.crashes, again.alone) == (3, 3, 4, 5, True)


@pytest.mark.parametrize("size", [0, 1, 2**20])
async def test_a_result_is_kept_byte_for_byte(store: Store, size: int) -> None:
    result = (bytes(range(256)) * (size // 256 + 1))[:size]
    job_id = await ended(store, await hand(store), Succeeded(result))
    assert (await record(store, job_id)).result == result


@pytest.mark.parametrize(("delay", "becomes"), [(0, State.QUEUED), (1, State.SCHEDULED), (HOUR, State.SCHEDULED)])
async def test_an_outcome_with_a_delay_is_due_that_long_from_now(store: Store, delay: int, becomes: State) -> None:
    worker = await hand(store)
    job = await running(store, worker)
    store.shift += 777
    await finish(store, job, Snoozed(delay))
    found = await record(store, job.id)
    assert (found.state, found.due_at) == (becomes, await now(store) + delay)


async def test_a_queued_outcome_without_delay_keeps_its_due_time(store: Store) -> None:
    [first, second] = await stored(store, draft(), draft())
    worker = await hand(store)
    job = await worker.take()
    assert job.id == first
    store.shift += MINUTE
    await finish(store, job, Released())
    assert (await record(store, first)).due_at == job.due_at
    await worker.beat()
    assert [j.id for j in await worker.claim()] == [first, second]


async def test_a_final_outcome_keeps_the_due_time(store: Store) -> None:
    worker = await hand(store)
    job = await running(store, worker)
    store.shift += 5
    await finish(store, job, Succeeded(b"1"))
    assert (await record(store, job.id)).due_at == job.due_at


# --- the other answers


@every_verdict
async def test_a_repeated_outcome_is_replayed_and_writes_nothing(
    store: Store, verdict: Verdict, becomes: State
) -> None:
    job = await running(store, await hand(store))
    await finish(store, job, verdict)
    before = await record(store, job.id)
    store.shift += 5
    assert await finish(store, job, verdict) == Settled(Answer.REPLAYED, becomes)
    assert await record(store, job.id) == before


@every_verdict
async def test_another_outcome_under_a_settled_word_is_replayed_with_what_was_recorded(
    store: Store, verdict: Verdict, becomes: State
) -> None:
    job = await running(store, await hand(store))
    await finish(store, job, verdict)
    before = await record(store, job.id)
    other = Succeeded(b"2") if becomes != "succeeded" else FINAL_BOOM
    assert await finish(store, job, other) == Settled(Answer.REPLAYED, becomes)
    assert await record(store, job.id) == before


async def test_a_settled_word_is_replayed_even_when_the_job_runs_again(store: Store) -> None:
    worker, other = await hand(store), await hand(store)
    job = await running(store, worker)
    await finish(store, job, Released())
    again = await other.take()
    assert again.id == job.id
    assert await finish(store, job, Released()) == Settled(Answer.REPLAYED, State.QUEUED)
    assert (await record(store, job.id)).worker == other.id
    assert (await finish(store, again, Succeeded(b"1"))).answer == "accepted"
    assert await finish(store, job, Released()) == Settled(Answer.STALE)


async def test_a_word_twice_in_one_call_is_accepted_then_replayed(store: Store) -> None:
    job = await running(store, await hand(store))
    answers = await store.finish([decide(job, BOOM), decide(job, Succeeded(b"1"))])
    assert list(answers) == [
        Settled(Answer.ACCEPTED, State.SCHEDULED),
        Settled(Answer.REPLAYED, State.SCHEDULED),
    ]
    assert (await record(store, job.id)).result is None


async def test_after_a_robbery_the_old_word_is_stale(store: Store) -> None:
    worker = await hand(store)
    job = await running(store, worker)
    sweeper = await steady_hand(store)
    assert job.id in await sweeper.reclaim()
    before = await listing(store)
    assert await finish(store, job, Succeeded(b"late")) == Settled(Answer.STALE)
    assert await listing(store) == before


@pytest.mark.parametrize("verdict", [Succeeded(b"1"), FINAL_BOOM, BOOM])
async def test_after_the_sweeper_has_settled_the_old_word_is_stale(store: Store, verdict: Verdict) -> None:
    worker = await hand(store)
    job = await running(store, worker)
    sweeper = await steady_hand(store)
    await sweeper.sweep()
    before = await listing(store)
    assert await finish(store, job, verdict) == Settled(Answer.STALE)
    assert await listing(store) == before


@pytest.mark.parametrize("fence", [0, 1, 3, 2**40])
async def test_the_right_worker_with_another_fence_is_stale(store: Store, fence: int) -> None:
    worker = await hand(store)
    await finish(store, await running(store, worker), Released())
    job = await worker.take()
    assert job.fence == 2
    forged = decide(job, Succeeded(b"1"))._replace(fence=fence)
    before = await record(store, job.id)
    [settled] = await store.finish([forged])
    assert settled.answer == ("replayed" if fence == 1 else "stale")
    assert await record(store, job.id) == before


async def test_the_right_fence_with_another_worker_is_stale(store: Store) -> None:
    worker, other = await hand(store), await hand(store)
    job = await running(store, worker)
    before = await record(store, job.id)
    for stranger in (other.id, job.id):
        forged = decide(job, Succeeded(b"1"))._replace(worker=stranger)
        assert list(await store.finish([forged])) == [Settled(Answer.STALE)]
    assert await record(store, job.id) == before
    assert (await finish(store, job, Succeeded(b"1"))).answer == "accepted"
    assert list(await store.finish([forged])) == [Settled(Answer.STALE)], "settled by another worker"


@pytest.mark.parametrize("verdict", [Succeeded(b"1"), FINAL_BOOM, Cancelled()])
async def test_a_final_job_refuses_all_but_its_own_word(store: Store, verdict: Verdict) -> None:
    worker = await hand(store)
    first = await running(store, worker)
    await finish(store, first, Released())
    last = await worker.take()
    await finish(store, last, verdict)
    before = await record(store, first.id)
    for late in (Succeeded(b"2"), BOOM, Snoozed(5), Released()):
        assert await finish(store, first, late) == Settled(Answer.STALE)
        assert await finish(store, last, late) == Settled(Answer.REPLAYED, before.state)
    assert await record(store, first.id) == before


async def test_a_job_that_is_not_there_is_gone(store: Store) -> None:
    worker = await hand(store)
    job = await running(store, worker, terms=Terms(keep=0))
    await finish(store, job, Succeeded(b"1"))
    store.shift += TOMBSTONE
    assert await store.prune(10) == 1
    assert await finish(store, job, Succeeded(b"1")) == Settled(Answer.GONE)


async def test_finish_never_looks_at_the_lease(store: Store) -> None:
    worker = await hand(store)
    late, later = await running(store, worker), await running(store, worker)
    store.shift += 100 * LEASE
    assert (await finish(store, late, Succeeded(b"1"))).answer == "accepted"
    await worker.retire(LOSS)
    assert (await finish(store, later, BOOM)).answer == "accepted"


async def test_answers_come_in_the_order_of_the_call(store: Store) -> None:
    worker = await hand(store)
    held, done, failed = [await running(store, worker) for _ in range(3)]
    await finish(store, done, Succeeded(b"1"))
    missing = decide(held, Succeeded(b"1"))._replace(id=worker.id)
    outcomes = [
        decide(failed, BOOM),
        missing,
        decide(done, Succeeded(b"1")),
        decide(held, Succeeded(b"1"))._replace(fence=9),
        decide(held, Succeeded(b"1")),
        decide(failed, BOOM),
    ]
    assert list(await store.finish(outcomes)) == [
        Settled(Answer.ACCEPTED, State.SCHEDULED),
        Settled(Answer.GONE),
        Settled(Answer.REPLAYED, State.SUCCEEDED),
        Settled(Answer.STALE),
        Settled(Answer.ACCEPTED, State.SUCCEEDED),
        Settled(Answer.REPLAYED, State.SCHEDULED),
    ]


async def test_finishing_nothing_answers_nothing(store: Store) -> None:
    assert list(await store.finish([])) == []


async def test_hundreds_in_one_call(store: Store) -> None:
    await stored(store, *(draft() for _ in range(1200)))
    jobs = await (await hand(store)).claim(1200)
    verdicts: list[Verdict] = [Succeeded(b"1"), BOOM, Snoozed(5), Released()]
    outcomes = [decide(job, verdicts[n % 4]) for n, job in enumerate(jobs)]
    settled = await store.finish(outcomes)
    assert [(s.answer, s.state) for s in settled] == [("accepted", o.state) for o in outcomes]
    assert {r.id: r.state for r in await listing(store)} == {o.id: o.state for o in outcomes}


# --- cancel asked for


@every_failure
async def test_a_flagged_job_ends_cancelled_whatever_but_success(store: Store, verdict: Verdict) -> None:
    worker = await hand(store)
    job = await running(store, worker)
    await store.cancel([job.id], "customer left")
    outcome = decide(job, verdict)
    assert list(await store.finish([outcome])) == [Settled(Answer.ACCEPTED, State.CANCELLED)]
    found = await record(store, job.id)
    expected = outcome.if_cancelled or outcome
    assert (found.state, found.settled_state, found.worker) == (State.CANCELLED, State.CANCELLED, None)
    assert found.finished_at == await now(store)
    assert (found.attempt, found.losses, found.crashes) == (expected.attempt, expected.losses, expected.crashes)
    assert found.reason == "customer left"
    assert found.history[-1].ended == "cancelled"
    assert found.history[-1].error == expected.error
    assert await finish(store, job, verdict) == Settled(Answer.REPLAYED, State.CANCELLED)


@pytest.mark.parametrize("reason", ["", "customer left"])
async def test_the_reason_given_with_the_cancel_wins_over_the_outcomes(store: Store, reason: str) -> None:
    worker = await hand(store)
    job = await running(store, worker)
    await finish(store, job, Snoozed(0, "an older reason"))
    job = await worker.take()
    await store.cancel([job.id], reason)
    outcome = decide(job, Snoozed(5, "not yet"))
    assert outcome.if_cancelled is not None
    await store.finish([outcome])
    found = await record(store, job.id)
    assert found.reason == (reason or outcome.if_cancelled.reason)
    assert found.history[-1].reason == found.reason


async def test_a_success_stays_a_success_though_cancel_was_asked_for(store: Store) -> None:
    job = await running(store, await hand(store))
    await store.cancel([job.id], "too late")
    assert await finish(store, job, Succeeded(b"1")) == Settled(Answer.ACCEPTED, State.SUCCEEDED)
    found = await record(store, job.id)
    assert (found.state, found.result, found.reason) == (State.SUCCEEDED, b"1", "")


@every_verdict
async def test_the_cancel_flag_is_cleared_when_the_job_is_not_running_any_more(
    store: Store, verdict: Verdict, becomes: State
) -> None:
    job = await running(store, await hand(store))
    await store.cancel([job.id])
    await finish(store, job, verdict)
    assert (await record(store, job.id)).cancel_requested_at is None


# --- history


async def _fail(store: Store, times: int, **changes: Any) -> tuple[Any, list[Attempt]]:
    """A job that failed `times` times with an error of its own each, and what its history would be uncapped."""
    worker = await hand(store)
    job = await running(store, worker, terms=Terms(max_attempts=1000, jitter=0.0), **changes)
    attempts = []
    for n in range(times):
        if n:
            job = await worker.take()
        store.shift += 7
        error = Failure("ValueError", f"no {n} 😀 ' \" \\ \n", f"Traceback {n}")
        await finish(store, job, Failed(error, after=0))
        attempts.append(Attempt(n + 1, n + 1, worker.id, job.claimed_at, job.claimed_at + 7, "failed", error, ""))
    return worker, attempts


async def test_every_end_but_success_appends_an_attempt(store: Store) -> None:
    _, attempts = await _fail(store, 3)
    [found] = await listing(store)
    assert list(found.history) == attempts
    assert found.omitted == 0


async def test_a_success_clears_no_history_and_adds_none(store: Store) -> None:
    worker, attempts = await _fail(store, 2)
    await finish(store, await worker.take(), Succeeded(b"1"))
    [found] = await listing(store)
    assert (found.state, list(found.history)) == (State.SUCCEEDED, attempts)


async def test_the_history_keeps_the_first_and_the_newest_and_counts_the_rest(store: Store) -> None:
    kept = ERRORS_FIRST + ERRORS_LAST
    worker, attempts = await _fail(store, kept)
    [found] = await listing(store)
    assert (list(found.history), found.omitted) == (attempts, 0)
    for n in range(1, 4):
        job = await worker.take()
        await finish(store, job, Snoozed(0, f"later {n}"))
        attempts.append(
            Attempt(
                job.attempt,
                job.fence,
                worker.id,
                job.claimed_at,
                job.claimed_at,
                "snoozed",
                None,
                f"later {n}",
            )
        )
    [found] = await listing(store)
    assert list(found.history) == attempts[:ERRORS_FIRST] + attempts[-ERRORS_LAST:]
    assert found.omitted == 3


@every_failure
async def test_an_attempt_says_what_was_written_and_by_whom(store: Store, verdict: Verdict) -> None:
    worker = await hand(store)
    job = await running(store, worker)
    store.shift += 3 * SECOND
    outcome = decide(job, verdict)
    await store.finish([outcome])
    assert (await record(store, job.id)).history == (
        Attempt(
            attempt=1,  # as it ran, though it may be given back
            fence=1,
            worker=worker.id,
            started_at=job.claimed_at,
            ended_at=job.claimed_at + 3 * SECOND,
            ended=outcome.ended,
            error=outcome.error,
            reason=outcome.reason,
        ),
    )


async def test_a_refused_outcome_leaves_no_attempt(store: Store) -> None:
    job = await running(store, await hand(store))
    await store.finish([decide(job, BOOM)._replace(fence=9)])
    assert (await record(store, job.id)).history == ()


async def test_what_no_text_of_a_database_can_hold_is_written_out(store: Store) -> None:
    worker = await hand(store)
    job = await running(store, worker, terms=Terms(max_attempts=1))
    boom = Failed(Failure("OS\0Error", "no file \udcff\0.txt", "…\udcff"))
    assert await finish(store, job, boom) == Settled(Answer.ACCEPTED, State.DEAD)
    error = (await record(store, job.id)).history[0].error
    assert error == Failure(r"OS\x00Error", r"no file \udcff\x00.txt", r"…\udcff")
    job = await running(store, worker)
    await finish(store, job, Snoozed(SECOND, "later\0 \ud800"))
    found = await record(store, job.id)
    assert (found.reason, found.history[0].reason) == (r"later\x00 \ud800",) * 2
