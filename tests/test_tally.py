"""What is counted: by cell and bucket, handed on once, and bounded whatever names come."""

from typing import Any

import pytest

from holdfast.job import (
    Cancelled,
    Claim,
    Failed,
    Failure,
    Loss,
    Lost,
    Released,
    Snoozed,
    State,
    Succeeded,
    Terms,
    Verdict,
)
from holdfast.observe.tally import (
    BOUNDS,
    CALL_BOUNDS,
    OTHER,
    PACE_UNKNOWN,
    PAIRS_MOST,
    QUEUES_MOST,
    STATUSES,
    TASKS_MOST,
    Counts,
    News,
    Totals,
)
from holdfast.policy import decide
from holdfast.store import BUCKETS, Answer, Settled, Ticked
from tests.worker.rig import claim

BOOM = Failed(Failure("ValueError", "no", ""))


def settle(counts: Counts, of: Claim, verdict: Verdict, ran: float | None = 0.2, state: State | None = None) -> None:
    outcome = decide(of, verdict)
    counts.settled(of, outcome, Settled(Answer.ACCEPTED, state or outcome.state), ran)


def taken(counts: Counts) -> News:
    news = counts.take()
    assert news is not None
    return news


def totals_of(*news: News) -> Totals:
    totals = Totals()
    for one in news:
        totals.add(one)
    return totals


@pytest.mark.parametrize(
    ("verdict", "changes", "status"),
    [
        (Succeeded(b"1"), {}, "succeeded"),
        (BOOM, {}, "failed"),
        (BOOM, {"terms": Terms(max_attempts=1)}, "dead"),
        (Cancelled("enough"), {}, "cancelled"),
        (Snoozed(5000, ""), {}, "snoozed"),
        (Released("leaving"), {}, "released"),
        (Lost(Loss("killed")), {}, "lost"),
        (Lost(Loss("killed", culprit=True)), {"terms": Terms(max_crashes=1)}, "dead"),
    ],
)
def test_each_end_is_counted_as_what_it_means(verdict: Verdict, changes: dict[str, Any], status: str) -> None:
    counts = Counts()
    settle(counts, claim(**changes), verdict)
    assert totals_of(taken(counts)).by_status() == {("mail", status): 1}
    assert status in STATUSES


def test_what_the_store_made_of_an_outcome_counts_and_not_what_was_asked() -> None:
    """A failure of a job that was to be cancelled is a cancel; one that was committed by its handler, a success."""
    counts = Counts()
    settle(counts, claim(), BOOM, state=State.CANCELLED)
    settle(counts, claim(), BOOM, state=State.SUCCEEDED)
    assert totals_of(taken(counts)).by_status() == {("mail", "cancelled"): 1, ("mail", "succeeded"): 1}


def test_a_crash_is_counted_where_the_job_is_charged_with_it() -> None:
    counts = Counts()
    settle(counts, claim(), Lost(Loss("killed", culprit=True)))
    settle(counts, claim(), Lost(Loss("ended", on_purpose=True)))
    settle(counts, claim(crashes=2), BOOM)
    assert totals_of(taken(counts)).events == {("crashes", "mail"): 1}


def test_buckets_end_where_they_say_and_the_sums_are_kept() -> None:
    counts = Counts()
    for ran in (0.0, 0.005, 0.0051, 7200.0, 7201.0):
        settle(counts, claim(due_at=1000, claimed_at=1500), Succeeded(b""), ran)
    (tally,) = totals_of(taken(counts)).fresh()
    assert tally.count == 5
    assert tally.ran == (2, 1, *[0] * 8, 1, 1)
    assert tally.waited == (0, 0, 0, 5, *[0] * 8)
    assert len(BOUNDS) == len(CALL_BOUNDS) == BUCKETS - 1
    assert (tally.queue, tally.task, tally.outcome) == ("mail", "shop.send", "succeeded")


@pytest.mark.parametrize("claimed_at", [1000, 900])
def test_a_job_that_did_not_wait_is_in_the_first_bucket(claimed_at: int) -> None:
    counts = Counts()
    settle(counts, claim(due_at=1000, claimed_at=claimed_at), Succeeded(b""))
    (tally,) = totals_of(taken(counts)).fresh()
    assert tally.waited == (1, *[0] * 11)


def test_how_long_it_waited_is_not_made_up() -> None:
    """A rescued job was being run for some of the time since it was due; one that was never begun did not run."""
    counts = Counts()
    settle(counts, claim(losses=1, claimed_at=900_000), Succeeded(b""))
    settle(counts, claim(claimed_at=900_000), Released("leaving"), ran=None)
    for tally in totals_of(taken(counts)).fresh():
        assert not any(tally.waited)


def test_what_is_taken_is_handed_on_once_and_numbered() -> None:
    counts = Counts()
    assert counts.take() is None
    settle(counts, claim(), Succeeded(b""))
    first = taken(counts)
    assert counts.take() is None
    counts.called("claim", 0.001)
    second = taken(counts)
    assert (first.number, second.number, counts.number) == (1, 2, 3)
    totals = totals_of(first, second)
    assert totals.by_status() == {("mail", "succeeded"): 1}
    assert totals.lengths["store", "claim"] == [0.001, 0, 1, *[0] * 10]


def test_totals_add_up_and_tell_the_history_only_what_is_new() -> None:
    totals, counts = Totals(), Counts()
    for times in (1, 2):
        for _ in range(times):
            settle(counts, claim(), Succeeded(b""), 0.2)
        totals.add(taken(counts))
    (tally,) = totals.fresh()
    assert tally.count == 3
    assert totals.fresh() == []
    settle(counts, claim(), Succeeded(b""), 0.2)
    totals.add(taken(counts))
    assert [tally.count for tally in totals.fresh()] == [1]
    assert totals.by_status() == {("mail", "succeeded"): 4}


def test_the_pace_of_a_queue_is_that_of_its_runs_and_of_all_where_it_had_none() -> None:
    totals, counts = Totals(), Counts()
    assert totals.pace("mail") == PACE_UNKNOWN
    for ran in (1.0, 3.0):
        settle(counts, claim(), Succeeded(b""), ran)
    settle(counts, claim(), Released("never begun"), None)
    totals.add(taken(counts))
    assert totals.pace("mail") == 2
    assert totals.pace("unknown") == 2
    totals.fresh()
    settle(counts, claim(), Succeeded(b""), 8.0)
    totals.add(taken(counts))
    assert 4 < totals.pace("mail") < 4.1, "what is longer ago does not count for less"


def test_a_tick_is_counted_with_its_lateness_and_a_missed_one_without() -> None:
    totals, counts = Totals(), Counts()
    counts.ticked(Ticked(1, 2, "made"), 0.05)
    counts.ticked(Ticked(1, 2, "missed", count=7), 3600)
    totals.add(taken(counts))
    assert totals.events == {("tick-made", ""): 1, ("tick-missed", ""): 7}
    assert totals.lengths["late", ""][0] == 0.05


def test_names_beyond_the_bounds_are_counted_together() -> None:
    totals, counts = Totals(), Counts()
    for number in range(QUEUES_MOST + 5):
        settle(counts, claim(queue=f"q{number}", task="t"), Succeeded(b""))
    for number in range(TASKS_MOST + 5):
        settle(counts, claim(queue="q0", task=f"t{number}"), Succeeded(b""))
    totals.add(taken(counts))
    queues, tasks = {key[0] for key in totals.cells}, {key[1] for key in totals.cells}
    assert len(queues - {OTHER}) == QUEUES_MOST
    assert len(tasks - {OTHER}) <= TASKS_MOST
    assert totals.by_status()[OTHER, "succeeded"] == 5
    assert sum(totals.by_status().values()) == QUEUES_MOST + TASKS_MOST + 10


def test_the_pairs_of_names_are_bounded_too() -> None:
    totals, counts = Totals(), Counts()
    for number in range(3 * PAIRS_MOST):
        settle(counts, claim(queue=f"q{number % 90}", task=f"t{number % 191}"), Succeeded(b""))
    totals.add(taken(counts))
    assert len(totals.cells) <= PAIRS_MOST + QUEUES_MOST
    assert sum(totals.by_status().values()) == 3 * PAIRS_MOST


def test_strangers_cannot_take_the_places_of_the_apps_own_names() -> None:
    counts, totals = Counts(), Totals()
    for number in range(3 * QUEUES_MOST):  # before anybody says what the app has
        counts.ended(f"early-{number}", "early", "released")
    totals.add(taken(counts))
    totals.know(["mail"], ["send"])
    for number in range(3 * QUEUES_MOST):  # and whatever task a stranger sends wherever
        counts.ended(f"late-{number}", "send", "succeeded")
        counts.ended("mail", f"late-{number}", "released")
    for number in range(3 * PAIRS_MOST):
        counts.ended(f"early-{number % QUEUES_MOST}", f"task-{number}", "released")
    counts.ended("mail", "send", "succeeded")
    totals.add(taken(counts))
    assert totals.cells["mail", "send", "succeeded"][0] == 1
    assert totals.by_status()["mail", "succeeded"] == 1
    assert totals.by_status()["mail", "released"] == totals.cells["mail", OTHER, "released"][0] == 3 * QUEUES_MOST
    assert {task for _, task, _ in totals.cells} == {"send", "early", OTHER}
    assert len(totals.queues.known()) == QUEUES_MOST + 1


@pytest.mark.parametrize("name", ['a"b', "a\nb", "a\\b", "\x1b[31m", "a" * 5000, "\udc80", "\u202eabc", "", "ü"])
def test_a_hostile_name_is_text_that_can_be_shown(name: str) -> None:
    totals, counts = Totals(), Counts()
    settle(counts, claim(queue=name, task=name), Succeeded(b""))
    totals.add(taken(counts))
    ((queue, task, _),) = totals.cells
    assert queue == task
    assert queue.isprintable()
    assert len(queue) <= 110
    queue.encode()


def test_names_that_look_alike_once_they_are_cut_are_one_series() -> None:
    totals, counts = Totals(), Counts()
    for end in "xy":
        settle(counts, claim(task="a" * 200 + end), Succeeded(b""))
    totals.add(taken(counts))
    assert [cell[0] for cell in totals.cells.values()] == [2]
