"""What a verdict means for a job: retries, crash budget, giving back, cancels; and which verdict an exception is."""

import asyncio
import subprocess
import sys
from typing import Any, Literal
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.clock import DAY, HOUR, LONGEST, MINUTE, SECOND
from holdfast.errors import Cancel, ConfigError, Permanent, RetryAfter, Snooze, Stop
from holdfast.job import (
    FINAL,
    MESSAGE_LIMIT,
    REASON_LIMIT,
    TRACEBACK_LIMIT,
    TRANSITIONS,
    Cancelled,
    Claim,
    Event,
    Failed,
    Failure,
    Loss,
    Lost,
    Outcome,
    Released,
    Snoozed,
    State,
    Succeeded,
    Terms,
    Verdict,
    cut,
    new_id,
)
from holdfast.policy import Retry, backoff, decide, failure, verdict_of

BOOM = Failure("ValueError", "no such order", "Traceback: …")
NOTE = " characters left out …"


def claim(**changes: Any) -> Claim:
    """A job in its second attempt, of five, after one loss in company."""
    fields: dict[str, Any] = {
        "id": new_id(),
        "fence": 3,
        "worker": uuid4(),
        "task": "shop.send",
        "queue": "mail",
        "payload": b"[42]",
        "terms": Terms(max_attempts=5, base_delay=SECOND, max_delay=HOUR, jitter=0.2, max_crashes=3, keep=2 * DAY),
        "priority": 0,
        "attempt": 2,
        "releases": 0,
        "losses": 0,
        "crashes": 0,
        "alone": False,
        "enqueued_at": 1_000,
        "due_at": 1_000,
        "claimed_at": 2_000,
    }
    return Claim(**fields | changes)


def terms(**changes: Any) -> Terms:
    return claim().terms._replace(**changes)


def counts(outcome: Outcome) -> tuple[int, int, int, int]:
    return outcome.attempt, outcome.releases, outcome.losses, outcome.crashes


ids = st.builds(lambda n: UUID(int=n), st.integers(0, 2**128 - 1))
fences = st.integers(1, 2**40)
some_terms = st.builds(
    Terms,
    max_attempts=st.integers(1, 40),
    base_delay=st.integers(0, HOUR),
    max_delay=st.integers(HOUR, LONGEST),
    jitter=st.floats(0, 1),
    max_crashes=st.integers(0, 4),
    keep=st.integers(0, DAY),
)
claims = st.builds(
    claim,
    id=ids,
    fence=fences,
    terms=some_terms,
    attempt=st.integers(1, 45),
    releases=st.integers(0, 100),
    losses=st.integers(0, 5),
    crashes=st.integers(0, 5),
    alone=st.booleans(),
)
losses = st.builds(
    Loss,
    st.text(max_size=20),
    on_purpose=st.booleans(),
    begun=st.booleans(),
    culprit=st.booleans(),
    company=st.booleans(),
    stack=st.text(max_size=5),
    overdue=st.sampled_from(["", "", "retry", "final"]),
)
verdicts: st.SearchStrategy[Verdict] = st.one_of(
    st.builds(Succeeded, st.binary(max_size=5)),
    st.builds(Failed, st.just(BOOM), st.booleans(), st.none() | st.integers(0, HOUR)),
    st.builds(Snoozed, st.integers(0, HOUR), st.text(max_size=5)),
    st.builds(Cancelled, st.text(max_size=5)),
    st.builds(Released, st.text(max_size=5), st.booleans()),
    st.builds(Lost, losses),
)
EVENTS: dict[str, Event] = {
    "succeeded": "succeed",
    "failed": "fail",
    "snoozed": "snooze",
    "cancelled": "cancel",
    "released": "release",
    "lost": "lose",
}


# --- what holds for every outcome


@given(claims, verdicts)
def test_an_outcome_carries_the_claims_word_and_takes_a_legal_step(job: Claim, verdict: Verdict) -> None:
    outcome = decide(job, verdict)
    for written in filter(None, (outcome, outcome.if_cancelled)):
        assert (written.id, written.fence, written.worker) == (job.id, job.fence, job.worker)
        assert (EVENTS[written.ended], State.RUNNING, written.state) in TRANSITIONS
        assert min(counts(written)) >= 0
        assert (written.state is State.SCHEDULED) == bool(written.delay and written.delay > 0)
        assert written.state not in FINAL or written.delay is None
        assert written.keep == (None if written.state is State.DEAD else job.terms.keep)


@given(claims, verdicts)
def test_the_same_verdict_on_the_same_claim_is_the_same_outcome(job: Claim, verdict: Verdict) -> None:
    assert decide(job, verdict) == decide(job, verdict)


@given(claims, verdicts)
def test_every_end_but_a_success_says_what_is_written_if_a_cancel_was_asked_for(job: Claim, verdict: Verdict) -> None:
    outcome = decide(job, verdict)
    branch = outcome.if_cancelled
    if isinstance(verdict, Succeeded):
        assert branch is None
        return
    assert branch is not None
    assert (branch.ended, branch.state, branch.delay, branch.result) == ("cancelled", State.CANCELLED, None, None)
    assert (branch.losses, branch.crashes) == (job.losses, job.crashes), "a cancelled job is charged nothing"
    assert branch.if_cancelled is None
    assert branch.reason


@pytest.mark.parametrize(
    "verdict",
    [Snoozed(5, "closed"), Released("given back at shutdown"), Lost(Loss("killed by signal 9")), Failed(BOOM)],
)
def test_a_cancel_without_a_reason_is_not_given_that_of_the_end_it_replaced(verdict: Verdict) -> None:
    branch = decide(claim(), verdict).if_cancelled
    assert branch is not None
    assert branch.reason == "cancelled while running"
    own = decide(claim(), Cancelled("already paid")).if_cancelled
    assert own is not None
    assert own.reason == "already paid"


@given(claims, verdicts)
def test_only_a_failure_uses_up_an_attempt(job: Claim, verdict: Verdict) -> None:
    outcome = decide(job, verdict)
    given_back = outcome.ended in ("snoozed", "released", "lost") and outcome.state is not State.DEAD
    if given_back:
        assert outcome.attempt == job.attempt - 1
    if isinstance(verdict, (Succeeded, Failed, Cancelled)):
        assert outcome.attempt == job.attempt


# --- success, and the handler's own decisions


def test_a_success_keeps_its_result() -> None:
    outcome = decide(job := claim(), Succeeded(b'"ok"'))
    assert (outcome.ended, outcome.state, outcome.result, outcome.error) == (
        "succeeded",
        State.SUCCEEDED,
        b'"ok"',
        None,
    )
    assert outcome.keep == job.terms.keep
    assert counts(outcome) == (2, 0, 0, 0)


def test_a_snooze_comes_again_after_its_delay_without_an_attempt() -> None:
    outcome = decide(claim(), Snoozed(5_000, "the bank is closed"))
    assert (outcome.ended, outcome.state, outcome.delay) == ("snoozed", State.SCHEDULED, 5_000)
    assert (outcome.reason, outcome.error) == ("the bank is closed", None)
    assert counts(outcome) == (1, 0, 0, 0)


def test_a_snooze_of_no_length_is_queued_at_once() -> None:
    outcome = decide(claim(), Snoozed(0))
    assert (outcome.state, outcome.delay) == (State.QUEUED, 0)


def test_a_cancel_of_the_handlers_own_is_final_with_its_reason() -> None:
    outcome = decide(claim(), Cancelled("the order was withdrawn"))
    assert (outcome.ended, outcome.state, outcome.reason) == ("cancelled", State.CANCELLED, "the order was withdrawn")


def test_a_release_is_queued_again_at_the_place_it_had() -> None:
    outcome = decide(claim(releases=4), Released("shutdown"))
    assert (outcome.ended, outcome.state, outcome.delay, outcome.reason) == ("released", State.QUEUED, None, "shutdown")
    assert counts(outcome) == (1, 4, 0, 0)


def test_a_long_reason_is_cut_with_a_note() -> None:
    for verdict in (Cancelled("x" * 10_000), Released("x" * 10_000), Snoozed(1, "x" * 10_000)):
        reason = decide(claim(), verdict).reason
        assert len(reason) < REASON_LIMIT + 50
        assert NOTE in reason


def test_what_was_cut_once_stays_as_it_is_and_says_how_much_is_missing() -> None:
    verdict = verdict_of(Cancel("x" * 10_000), Retry())
    assert f"… {10_000 - REASON_LIMIT}{NOTE}" in decide(claim(), verdict).reason


@given(st.text(st.sampled_from("aä😀\udcff\n")), st.integers(1, 40), st.integers(2, 100))
def test_cutting_twice_is_cutting_once(text: str, times: int, limit: int) -> None:
    once = cut(text * times, limit)
    assert len(once) <= limit + 50
    assert cut(once, limit) == once


# --- unknown tasks


def test_an_unknown_task_comes_back_after_one_second_doubling_to_sixty() -> None:
    job, delays = claim(), []
    for _ in range(9):
        outcome = decide(job, Released("no task 'shop.send' in this worker", unknown=True))
        assert outcome.state is State.SCHEDULED
        delays.append(outcome.delay)
        job = job._replace(releases=outcome.releases)
        assert outcome.attempt == job.attempt - 1
    assert delays == [n * SECOND for n in (1, 2, 4, 8, 16, 32, 60, 60, 60)]


def test_an_unknown_task_may_come_back_for_ever() -> None:
    outcome = decide(claim(releases=10**9), Released(unknown=True))
    assert (outcome.delay, outcome.releases) == (60 * SECOND, 10**9 + 1)


# --- failures and backoff


def test_a_failure_is_tried_again_later_and_its_error_is_kept() -> None:
    outcome = decide(claim(terms=terms(jitter=0.0)), Failed(BOOM))
    assert (outcome.ended, outcome.state, outcome.delay, outcome.error) == ("failed", State.SCHEDULED, 2_000, BOOM)


def test_the_last_attempt_and_a_final_failure_are_dead_and_kept() -> None:
    for job, verdict in [(claim(attempt=5), Failed(BOOM)), (claim(), Failed(BOOM, final=True))]:
        outcome = decide(job, verdict)
        assert (outcome.state, outcome.delay, outcome.keep, outcome.error) == (State.DEAD, None, None, BOOM)


def test_a_delay_that_the_handler_named_is_taken_as_it_is() -> None:
    assert decide(claim(), Failed(BOOM, after=77_000)).delay == 77_000
    at_once = decide(claim(), Failed(BOOM, after=0))
    assert (at_once.state, at_once.delay) == (State.QUEUED, 0)


def test_a_named_delay_does_not_lengthen_the_budget() -> None:
    assert decide(claim(attempt=5), Failed(BOOM, after=1_000)).state is State.DEAD


def test_the_retry_budget_is_never_exceeded() -> None:
    for budget in (1, 2, 7):
        job, runs = claim(terms=terms(max_attempts=budget), attempt=0), 0
        while True:
            runs += 1
            outcome = decide(job := job._replace(attempt=job.attempt + 1, fence=job.fence + 1), Failed(BOOM))
            if outcome.state in FINAL:
                break
            job = job._replace(attempt=outcome.attempt)
        assert (runs, outcome.state) == (budget, State.DEAD)


@pytest.mark.parametrize(
    ("attempt", "delay"),
    [(1, 500), (2, 1_000), (3, 2_000), (4, 4_000), (5, 8_000), (6, 10_000), (7, 10_000), (60, 10_000)],
)
def test_the_delay_doubles_up_to_the_longest(attempt: int, delay: int) -> None:
    assert backoff(claim(attempt=attempt, terms=Terms(99, 500, 10_000, jitter=0.0))) == delay


@given(claims)
def test_the_delay_stays_within_the_jitter_of_the_formula(job: Claim) -> None:
    t = job.terms
    nominal = min(t.base_delay * 2 ** (job.attempt - 1), t.max_delay)
    assert nominal * (1 - t.jitter) - 1 <= backoff(job) <= nominal * (1 + t.jitter) + 1


@pytest.mark.parametrize("attempt", [65, 1_000, 2**31 - 1, 2**63])
def test_a_huge_number_of_attempts_overflows_nothing(attempt: int) -> None:
    t = Terms(2**63, 1, LONGEST, jitter=1.0)
    assert 0 <= backoff(claim(attempt=attempt, terms=t)) <= 2 * LONGEST


def test_no_base_delay_means_at_once_however_often() -> None:
    outcome = decide(claim(attempt=200, terms=Terms(10_000, 0, HOUR)), Failed(BOOM))
    assert (outcome.state, outcome.delay) == (State.QUEUED, 0)


@given(ids, fences)
def test_jitter_is_decided_by_the_job_and_its_fence_alone(id: UUID, fence: int) -> None:
    one = claim(id=id, fence=fence)
    other = claim(id=id, fence=fence, worker=uuid4(), queue="other", payload=b"", enqueued_at=9, crashes=1)
    assert backoff(one) == backoff(other)


def test_jitter_is_the_same_in_every_process() -> None:
    job = claim(id=UUID(int=1), worker=UUID(int=2))
    fields = (*job[:6], Terms(*job.terms), *job[7:])
    program = f"""
from uuid import UUID
from holdfast.job import Claim, Terms
from holdfast.policy import backoff
print(backoff(Claim(*{fields!r})))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    assert int(done.stdout) == backoff(job)


def test_jitter_spreads_evenly_over_its_whole_range() -> None:
    t = Terms(5, 10_000, HOUR, jitter=0.5)
    delays = [backoff(claim(attempt=1, fence=fence, terms=t)) for fence in range(1, 2_001)]
    assert min(delays) < 5_200
    assert max(delays) > 14_800
    assert 9_700 < sum(delays) / len(delays) < 10_300
    assert len(set(delays)) > 1_500


def test_the_fences_of_one_job_spread_too() -> None:
    job = claim()
    assert len({backoff(job._replace(fence=fence)) for fence in range(1, 101)}) > 80


# --- losses: the table of SEMANTICS B(b)


def test_a_process_that_we_ended_on_purpose_charges_nothing() -> None:
    outcome = decide(claim(losses=1), Lost(Loss("recycled", on_purpose=True)))
    assert (outcome.ended, outcome.state, outcome.alone) == ("lost", State.QUEUED, False)
    assert counts(outcome) == (1, 0, 1, 0)


def test_even_a_job_that_ran_alone_is_not_charged_for_what_we_did_on_purpose() -> None:
    outcome = decide(claim(alone=True, losses=2, crashes=2), Lost(Loss("deadline", on_purpose=True)))
    assert (outcome.state, outcome.alone, counts(outcome)) == (State.QUEUED, True, (1, 0, 2, 2))
    assert outcome.error is None


@pytest.mark.parametrize("max_crashes", [0, 3])
def test_a_job_that_was_never_begun_goes_back_uncharged(max_crashes: int) -> None:
    job = claim(losses=1, terms=terms(max_crashes=max_crashes))
    outcome = decide(job, Lost(Loss("killed by signal 9", begun=False)))
    assert (outcome.state, outcome.alone) == (State.QUEUED, False)
    assert counts(outcome) == (1, 0, 1, 0)


def test_the_named_culprit_is_charged_a_crash_and_runs_alone_next() -> None:
    outcome = decide(claim(), Lost(Loss("segmentation fault", culprit=True)))
    assert (outcome.state, outcome.alone) == (State.QUEUED, True)
    assert counts(outcome) == (1, 0, 0, 1)


def test_a_loss_in_company_is_not_charged_and_keeps_its_place() -> None:
    outcome = decide(claim(), Lost(Loss("killed by signal 9")))
    assert counts(outcome) == (1, 0, 1, 0)
    assert (outcome.state, outcome.delay, outcome.alone) == (State.QUEUED, None, False), "its due time stays"


def test_two_losses_in_company_make_the_next_run_alone() -> None:
    outcome = decide(claim(losses=1), Lost(Loss("killed by signal 9")))
    assert (outcome.alone, counts(outcome)) == (True, (1, 0, 2, 0))


def test_a_run_alone_is_not_charged_when_others_ran_in_the_process_that_died() -> None:
    """It had a slot process of its own, but its worker's process died, and its slot with it."""
    outcome = decide(claim(alone=True, losses=2, crashes=2), Lost(Loss("killed by signal 9", company=True)))
    assert (outcome.state, outcome.alone, counts(outcome)) == (State.QUEUED, True, (1, 0, 3, 2))


def test_a_job_that_takes_its_worker_along_again_and_again_is_charged_in_the_end() -> None:
    company = Lost(Loss("killed by signal 9", company=True))
    assert decide(claim(alone=True, losses=9), company).crashes == 0
    assert decide(claim(alone=True, losses=10), company).crashes == 1


def test_a_job_that_was_born_alone_stays_alone_after_a_loss_in_company() -> None:
    outcome = decide(claim(alone=True), Lost(Loss("killed by signal 9", company=True)))
    assert (outcome.state, outcome.alone, counts(outcome)) == (State.QUEUED, True, (1, 0, 1, 0))


@pytest.mark.parametrize("company", [False, True])
@pytest.mark.parametrize("alone", [False, True])
def test_the_named_culprit_is_charged_whatever_its_company(alone: bool, company: bool) -> None:
    outcome = decide(claim(alone=alone, crashes=2), Lost(Loss("SIGSEGV", culprit=True, company=company)))
    assert (outcome.state, outcome.alone, counts(outcome)) == (State.DEAD, True, (1, 0, 0, 3))


def test_a_loss_alone_is_a_crash_whatever_the_cause() -> None:
    outcome = decide(claim(alone=True, losses=2), Lost(Loss("the worker's lease ran out")))
    assert (outcome.state, outcome.alone) == (State.QUEUED, True)
    assert counts(outcome) == (1, 0, 2, 1)


def test_a_spent_crash_budget_is_dead_with_the_cause_as_its_error() -> None:
    outcome = decide(claim(alone=True, crashes=2), Lost(Loss("killed by signal 11")))
    assert (outcome.state, outcome.keep, outcome.delay) == (State.DEAD, None, None)
    assert outcome.crashes == 3
    assert outcome.error is not None
    assert outcome.error.message == "killed by signal 11"


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("culprit", [False, True])
def test_without_a_crash_budget_the_first_loss_of_a_begun_run_is_the_last(alone: bool, culprit: bool) -> None:
    job = claim(alone=alone, terms=terms(max_crashes=0, max_attempts=12))
    outcome = decide(job, Lost(Loss("killed by signal 9", culprit=culprit)))
    assert (outcome.state, outcome.keep, outcome.delay) == (State.DEAD, None, None)
    assert outcome.error is not None


@pytest.mark.parametrize("company", [False, True])
@pytest.mark.parametrize(("on_purpose", "crashes"), [(False, 1), (True, 0)])
def test_at_most_once_holds_whoever_ended_the_process(on_purpose: bool, company: bool, crashes: int) -> None:
    loss = Loss("ended at the shutdown deadline", on_purpose=on_purpose, company=company, stack="File …")
    outcome = decide(claim(terms=terms(max_crashes=0)), Lost(loss))
    assert (outcome.ended, outcome.state, outcome.keep) == ("lost", State.DEAD, None)
    assert counts(outcome) == (2, 0, 0, crashes), "the attempt was made"
    assert outcome.error == Failure("Lost", "ended at the shutdown deadline", "File …")


def test_a_job_with_one_attempt_runs_again_after_a_crash() -> None:
    outcome = decide(claim(attempt=1, terms=Terms(max_attempts=1)), Lost(Loss("killed by signal 9")))
    assert outcome.state in (State.QUEUED, State.SCHEDULED)
    assert outcome.attempt == 0


def test_a_poison_job_takes_down_two_processes_with_company_then_three_alone() -> None:
    job, company, lone = claim(attempt=1), 0, 0
    while True:
        company, lone = company + (not job.alone), lone + job.alone
        outcome = decide(job, Lost(Loss("killed by signal 9")))
        if outcome.state in FINAL:
            break
        job = job._replace(losses=outcome.losses, crashes=outcome.crashes, alone=outcome.alone, fence=job.fence + 1)
        assert company + lone < 20, "it circles for ever"
    assert (company, lone, outcome.state) == (2, 3, State.DEAD)


@given(st.lists(losses.map(lambda loss: loss._replace(culprit=False, overdue="")), max_size=30))
def test_an_innocent_is_never_dead_by_company(company: list[Loss]) -> None:
    job = claim()
    for loss in company:
        outcome = decide(job, Lost(loss))
        assert outcome.state not in FINAL
        if outcome.alone:  # from here on it has no company, and survives
            break
        job = job._replace(losses=outcome.losses, crashes=outcome.crashes, fence=job.fence + 1)
    assert (job.losses <= 2, job.crashes) == (True, 0)


@given(claims, losses)
def test_a_lost_job_whose_cancel_was_asked_for_ends_cancelled_and_uncharged(job: Claim, loss: Loss) -> None:
    branch = decide(job, Lost(loss)).if_cancelled
    assert branch is not None
    assert (branch.state, branch.losses, branch.crashes) == (State.CANCELLED, job.losses, job.crashes)


@pytest.mark.parametrize("overdue", ["", "retry"])
def test_a_huge_cause_and_a_huge_stack_are_cut(overdue: Literal["", "retry"]) -> None:
    error = decide(claim(), Lost(Loss("x" * 10_000_000, stack="y" * 10_000_000, overdue=overdue))).error
    assert error is not None
    assert len(error.message) < MESSAGE_LIMIT + 50
    assert TRACEBACK_LIMIT < len(error.traceback) < TRACEBACK_LIMIT + 50


@pytest.mark.parametrize("overdue", ["", "retry"])
def test_a_stack_that_was_cut_where_it_was_read_is_kept_as_it_is(overdue: Literal["", "retry"]) -> None:
    stack = cut("y" * 60_000, TRACEBACK_LIMIT)
    error = decide(claim(), Lost(Loss("killed by signal 11", stack=stack, overdue=overdue))).error
    assert error is not None
    assert error.traceback == stack
    assert f"… {60_000 - TRACEBACK_LIMIT}{NOTE}" in stack


@pytest.mark.parametrize(
    ("job", "loss"),
    [
        (claim(), Loss("killed by signal 11", stack="Fatal Python error: …")),
        (claim(alone=True), Loss("killed by signal 11", stack="Fatal Python error: …")),
        (claim(), Loss("killed by signal 11", culprit=True, stack="Fatal Python error: …")),
    ],
)
def test_the_last_stack_is_the_traceback_of_the_error(job: Claim, loss: Loss) -> None:
    assert decide(job, Lost(loss)).error == Failure("Lost", "killed by signal 11", "Fatal Python error: …")


# --- losses: a run past its timeout, whose process had to be ended


def overdue(word: Literal["retry", "final"] = "retry", **changes: Any) -> Lost:
    loss = Loss("ended by its supervisor", on_purpose=True, culprit=True, stack='File "shop.py", line 3', overdue=word)
    return Lost(loss._replace(**changes))


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("max_crashes", [0, 3])
def test_a_run_that_was_overdue_is_a_failed_attempt_and_no_crash(alone: bool, max_crashes: int) -> None:
    job = claim(alone=alone, losses=1, crashes=2, terms=terms(timeout=30 * SECOND, max_crashes=max_crashes))
    outcome = decide(job, overdue())
    assert (outcome.ended, outcome.state, outcome.delay) == ("failed", State.SCHEDULED, backoff(job))
    assert (outcome.alone, counts(outcome)) == (alone, (2, 0, 1, 2))
    text = "ran longer than its timeout of 30.0 s; its process was ended"
    assert outcome.error == Failure("TimeoutError", text, 'File "shop.py", line 3')


def test_a_run_that_was_overdue_uses_up_the_last_attempt() -> None:
    outcome = decide(claim(attempt=5), overdue())
    assert (outcome.ended, outcome.state, outcome.keep, counts(outcome)) == ("failed", State.DEAD, None, (5, 0, 0, 0))


def test_a_run_that_was_overdue_is_dead_where_a_timeout_is_not_retried() -> None:
    outcome = decide(claim(), overdue("final"))
    assert (outcome.ended, outcome.state, outcome.keep, counts(outcome)) == ("failed", State.DEAD, None, (2, 0, 0, 0))


def test_what_was_never_begun_cannot_be_overdue() -> None:
    outcome = decide(claim(), overdue("final", begun=False))
    assert (outcome.ended, outcome.state, counts(outcome)) == ("lost", State.QUEUED, (1, 0, 0, 0))


# --- Retry: what makes no sense is refused at definition


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        *[("max_attempts", value) for value in (0, -1, 2.5, "3", None, True, 2**31)],
        *[("max_crashes", value) for value in (-1, 1.5, "3", None, True, 2**31)],
        *[("base_delay", value) for value in (-1, "soon", None, float("nan"), float("inf"), True, 10**400)],
        *[("max_delay", value) for value in (-1, "soon", None, float("nan"), float("inf"), 0.5, 1e9 * 100)],
        *[("jitter", value) for value in (-0.1, 1.1, float("nan"), "0.2", None, True)],
        *[
            ("on", value)
            for value in (ValueError, [ValueError], ("ValueError",), (1,), None, (ValueError("x"),), (int,))
        ],
        *[("never", value) for value in (ValueError, [ValueError], ("ValueError",), None, (ValueError, object))],
    ],
)
def test_nonsense_is_refused_by_the_name_of_its_parameter(parameter: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"\b{parameter}="):
        Retry(**{parameter: value})


def test_every_parameter_is_covered_by_the_nonsense_above() -> None:
    assert set(Retry.__dataclass_fields__) == {
        "max_attempts",
        "base_delay",
        "max_delay",
        "jitter",
        "max_crashes",
        "on",
        "never",
    }


def test_a_longest_delay_below_the_first_names_both() -> None:
    with pytest.raises(ConfigError, match=r"base_delay='2m' is longer than max_delay='1m'"):
        Retry(base_delay="2m", max_delay="1m")


def test_what_makes_sense_is_taken() -> None:
    retry = Retry(max_attempts=1, base_delay=0, max_delay=0, jitter=1, max_crashes=0, on=(), never=(OSError,))
    assert retry.terms(timeout=5, keep=7) == Terms(1, 0, 0, 1.0, 0, 5, 7)
    assert Retry(base_delay="2s", max_delay="5m").terms(None, 0)[1:3] == (2 * SECOND, 5 * MINUTE)


def test_retry_after_refuses_nonsense_where_it_is_written() -> None:
    for nonsense in (-1, "soon", None, float("nan")):
        with pytest.raises(ConfigError, match=r"\bdelay="):
            Retry.after(nonsense)
    error = Retry.after("5m", "they said so")
    assert isinstance(error, RetryAfter)
    assert (error.delay, error.reason) == ("5m", "they said so")


@pytest.mark.parametrize(
    ("retry", "text"),
    [
        (Retry(), "<Retry 12 attempts over 18 min>"),
        (Retry(max_attempts=1), "<Retry 1 attempt>"),
        (Retry(max_attempts=5), "<Retry 5 attempts over 15.0 s>"),
        (Retry(max_attempts=3, base_delay=0), "<Retry 3 attempts over 0 ms>"),
        (Retry(max_attempts=100, base_delay="1h", max_delay="1d"), "<Retry 100 attempts over 2287 h>"),
    ],
)
def test_a_retry_shows_how_long_it_goes_on(retry: Retry, text: str) -> None:
    assert repr(retry) == text


def test_a_retry_of_millions_of_attempts_can_be_shown() -> None:
    assert repr(Retry(max_attempts=2**31 - 1)).startswith("<Retry 2147483647 attempts over ")


# --- from an exception to a verdict


class OurPermanent(Permanent):
    pass


class OurSnooze(Snooze):
    pass


class OurCancel(Cancel):
    pass


class SmtpError(OSError):
    pass


def raised(error: BaseException) -> BaseException:
    """The error with a traceback, as a handler's."""
    try:
        raise error
    except BaseException as caught:  # noqa: BLE001  # a test of them all
        return caught


PATIENT = Retry(max_attempts=5)


@pytest.mark.parametrize("error", [Permanent("no"), OurPermanent("no")])
def test_permanent_is_final_even_where_it_would_be_retried(error: Permanent) -> None:
    verdict = verdict_of(raised(error), Retry(max_attempts=5, on=(Exception,)))
    assert isinstance(verdict, Failed)
    assert (verdict.final, verdict.error.message, verdict.error.type) == (True, "no", type(error).__qualname__)


def test_retry_after_names_the_delay() -> None:
    verdict = verdict_of(raised(Retry.after("90s", "come back later")), PATIENT)
    assert isinstance(verdict, Failed)
    assert (verdict.final, verdict.after, verdict.error.message) == (False, 90 * SECOND, "come back later")


@pytest.mark.parametrize("error", [Snooze("90s", "closed"), OurSnooze(90, "closed")])
def test_snooze_uses_no_attempt(error: Snooze) -> None:
    assert verdict_of(raised(error), PATIENT) == Snoozed(90 * SECOND, "closed")


@pytest.mark.parametrize("error", [Cancel("withdrawn"), OurCancel("withdrawn")])
def test_cancel_is_a_verdict_of_its_own(error: Cancel) -> None:
    assert verdict_of(raised(error), PATIENT) == Cancelled("withdrawn")


@pytest.mark.parametrize("nonsense", [-1, "soon", None, float("nan")])
def test_a_snooze_of_nonsense_is_the_jobs_own_failure_and_names_it(nonsense: Any) -> None:
    verdict = verdict_of(raised(Snooze(nonsense)), PATIENT)
    assert isinstance(verdict, Failed)
    assert "Snooze.delay=" in verdict.error.message
    assert not verdict.final


@pytest.mark.parametrize("error", [Snooze(5, 404), Cancel(None)])
def test_a_reason_that_is_no_text_is_the_jobs_own_failure(error: Exception) -> None:
    assert isinstance(verdict_of(raised(error), PATIENT), Failed)


def test_a_retry_after_nonsense_is_the_jobs_own_failure_and_names_it() -> None:
    verdict = verdict_of(raised(RetryAfter(-5)), PATIENT)
    assert isinstance(verdict, Failed)
    assert "Retry.after=" in verdict.error.message


@pytest.mark.parametrize(
    ("retry", "error", "again"),
    [
        (Retry(), ValueError(), True),
        (Retry(), KeyboardInterrupt(), False),
        (Retry(), SystemExit(1), False),
        (Retry(on=(OSError,)), OSError(), True),
        (Retry(on=(OSError,)), SmtpError(), True),
        (Retry(on=(OSError,)), ValueError(), False),
        (Retry(on=()), ValueError(), False),
        (Retry(never=(OSError,)), SmtpError(), False),
        (Retry(never=(OSError,)), ValueError(), True),
        (Retry(on=(OSError,), never=(SmtpError,)), SmtpError(), False),
        (Retry(on=(OSError,), never=(SmtpError,)), ConnectionError(), True),
    ],
)
def test_on_and_never_judge_the_error(retry: Retry, error: BaseException, again: bool) -> None:
    verdict = verdict_of(raised(error), retry)
    assert isinstance(verdict, Failed)
    assert verdict.final is not again
    assert retry.retries(error) is again


# --- the error as it is kept


def test_a_failure_keeps_type_message_and_traceback() -> None:
    kept = failure(raised(SmtpError(451, "try again later")))
    assert (kept.type, kept.message) == ("SmtpError", "[Errno 451] try again later")
    assert kept.traceback.startswith("Traceback (most recent call last):")
    assert "raise error" in kept.traceback


def test_what_caused_it_is_kept_too() -> None:
    try:
        try:
            raise KeyError("address")
        except KeyError as cause:
            raise ValueError("no address") from cause
    except ValueError as error:
        kept = failure(error)
    assert "KeyError: 'address'" in kept.traceback
    assert "direct cause" in kept.traceback


class Broken(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text for you")


class Wild(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)


class Mute(Exception):
    def __str__(self) -> str:
        return 5  # noqa: PLE0307  # as careless code does


@pytest.mark.parametrize(("error", "why"), [(Broken(), "RuntimeError"), (Wild(), "SystemExit"), (Mute(), "TypeError")])
def test_an_error_that_cannot_say_what_it_is_still_becomes_a_failure(error: Exception, why: str) -> None:
    kept = failure(raised(error))
    assert kept.type == type(error).__name__
    assert kept.message == f"<its __str__ raised {why}>"
    assert type(error).__name__ in kept.traceback or why in kept.traceback


@pytest.mark.parametrize(
    "error",
    [ValueError("x" * 10_000_000), ValueError(("y" * 99 + "\n") * 100_000), type("L" * 5_000, (Exception,), {})("z")],
    ids=["one long line", "many lines", "a long name"],
)
def test_what_is_kept_is_bounded_and_says_what_is_left_out(error: Exception) -> None:
    kept = failure(raised(error))
    assert len(kept.type) < 250
    assert len(kept.message) < MESSAGE_LIMIT + 50
    assert len(kept.traceback) < TRACEBACK_LIMIT + 50
    assert any(NOTE in text for text in kept)


def _dive(depth: int) -> None:
    _dive(depth + 1)


def test_endless_recursion_is_kept_in_short() -> None:
    try:
        _dive(0)
    except RecursionError as error:
        kept = failure(error)
    assert kept.type == "RecursionError"
    assert "_dive" in kept.traceback
    assert len(kept.traceback) < TRACEBACK_LIMIT + 50


def test_a_long_chain_of_causes_is_kept_in_short() -> None:
    error: BaseException = ValueError("the first")
    for number in range(5_000):
        following = ValueError(f"number {number}")
        following.__cause__ = error
        error = following
    kept = failure(error)
    assert (kept.type, kept.message) == ("ValueError", "number 4999")
    assert len(kept.traceback) < TRACEBACK_LIMIT + 50


def test_an_error_that_is_its_own_cause_ends() -> None:
    error = ValueError("snake")
    error.__context__ = other = KeyError("tail")
    other.__context__ = error
    assert failure(error).message == "snake"


def test_a_group_of_errors_shows_its_members() -> None:
    kept = failure(raised(ExceptionGroup("two went wrong", [ValueError("one"), KeyError("two")])))
    assert kept.type == "ExceptionGroup"
    assert "ValueError: one" in kept.traceback


@pytest.mark.parametrize("text", ["half a pair: \ud83d", "a name from the disk: \udcff", "all of it \U0001f4a5 \u0000"])
def test_what_is_kept_can_be_written_as_utf_8(text: str) -> None:
    for error in (ValueError(text), Cancel(text), Snooze(1, text), Permanent(text)):
        outcome = decide(claim(), verdict_of(raised(error), PATIENT))
        for kept in (outcome.reason, *(outcome.error or ())):
            kept.encode("utf-8")
        assert text[:8] in (outcome.error.message if outcome.error else outcome.reason)


@pytest.mark.parametrize("error", [asyncio.CancelledError(), Stop("timeout"), GeneratorExit(), KeyboardInterrupt()])
def test_what_is_no_exception_can_be_kept_as_well(error: BaseException) -> None:
    assert failure(raised(error)).type == type(error).__qualname__
