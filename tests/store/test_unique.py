"""The laws of unique keys: at most one job of a queue holds a key, and none is held without a record that says why."""

from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from holdfast.clock import HOUR, MINUTE
from holdfast.job import KEY_LIMIT, TOMBSTONE, Draft, Released, State, Succeeded, Terms, Verdict, new_id
from holdfast.store import Promoted, Receipt, Store
from tests.store.acts import (
    BOOM,
    ENDS,
    FINAL_BOOM,
    GOES_ON,
    Way,
    admitted,
    answer,
    answers,
    bound,
    draft,
    exists,
    finish,
    hand,
    keyed,
    listing,
    now,
    record,
    retried,
    stored,
)

ends = pytest.mark.parametrize("end", ENDS.values(), ids=ENDS.keys())
goes_on = pytest.mark.parametrize("way", GOES_ON.values(), ids=GOES_ON.keys())


def _receipt(job: Draft, answer: Any, holder: Draft) -> Receipt:
    return Receipt(job.id, answer, created=False, holder=holder.id)


async def _holds(store: Store, job: Draft) -> bool:
    """Whether the job holds its key, and the record says so."""
    probe = keyed(queue=job.queue, text=job.unique.text if job.unique else "", on_clash="raise")
    [receipt] = await store.enqueue([probe])
    if receipt.answer == "accepted":
        await store.delete([probe.id])
    holders = [row for row in await listing(store) if row.holds and row.queue == job.queue and row.id != probe.id]
    assert [row.id for row in holders if row.unique == job.unique] == ([receipt.holder] if receipt.holder else [])
    return receipt.holder == job.id


# --- a clash, and what becomes of the draft


@pytest.mark.parametrize(("on_clash", "says"), [("return", "duplicate"), ("raise", "taken")])
async def test_of_a_held_key_nothing_is_stored_and_its_holder_is_named(store: Store, on_clash: str, says: str) -> None:
    first, second = keyed(), keyed(on_clash=on_clash)
    await stored(store, first)
    before = await record(store, first.id)
    store.shift += MINUTE
    assert list(await store.enqueue([second])) == [_receipt(second, says, first)]
    assert await listing(store) == [before]


async def test_a_job_is_stored_with_its_key_and_says_that_it_holds_it(store: Store) -> None:
    job, plain = keyed(until="started", hold=5, on_clash="raise"), draft()
    await stored(store, job, plain)
    found = await record(store, job.id)
    assert (found.unique, found.holds, found.holds_until) == (job.unique, True, None)
    found = await record(store, plain.id)
    assert (found.unique, found.holds, found.holds_until) == (None, False, None)


async def test_the_scope_of_a_key_is_its_queue(store: Store) -> None:
    await stored(store, keyed(queue="mail"), keyed(queue="slow"))
    assert await answers(store, [keyed(queue="mail"), keyed(queue="slow"), keyed(queue="third")]) == [
        "duplicate",
        "duplicate",
        "accepted",
    ]


@pytest.mark.parametrize("on_clash", ["return", "raise", "replace"])
async def test_a_key_is_held_against_every_task_of_the_queue_and_no_duplicate_is_of_another(
    store: Store, on_clash: str
) -> None:
    holder, other = keyed(task="shop.send"), keyed(task="shop.print", on_clash=on_clash)
    await stored(store, holder)
    before = await record(store, holder.id)
    assert list(await store.enqueue([other])) == [_receipt(other, "taken", holder)]
    assert await listing(store) == [before]


async def test_other_keys_and_jobs_without_any_are_not_concerned(store: Store) -> None:
    await stored(store, keyed(text="k"), keyed(text="K"), keyed(text="k "), keyed(text="kk"), draft(), draft())
    assert await answers(store, [draft(), keyed(text="K"), keyed(text="l")]) == ["accepted", "duplicate", "accepted"]


@pytest.mark.parametrize(
    "text", ["'; --", "50%_off*?[a]", "naïve 🎲", "ключ", " ", "\n", "x" * KEY_LIMIT, "🎲" * KEY_LIMIT]
)
async def test_any_text_is_a_key(store: Store, text: str) -> None:
    job = keyed(text=text)
    await stored(store, job)
    found = await record(store, job.id)
    assert found.unique == job.unique
    assert await answer(store, keyed(text=text)) == "duplicate"
    assert await answer(store, keyed(text=text[:-1] + "y")) == "accepted"


async def test_the_clash_is_as_the_draft_says_and_not_as_its_holder_did(store: Store) -> None:
    holder = keyed(on_clash="raise")
    await stored(store, holder)
    assert await answers(store, [keyed(on_clash="return"), keyed(on_clash="raise"), keyed(on_clash="replace")]) == [
        "duplicate",
        "taken",
        "replaced",
    ]


async def test_of_a_key_twice_in_one_call_the_first_is_stored(store: Store) -> None:
    first, second, third = keyed(), keyed(), keyed(on_clash="replace", payload=b"[43]")
    assert list(await store.enqueue([first, second, third])) == [
        Receipt(first.id, "accepted"),
        _receipt(second, "duplicate", first),
        _receipt(third, "replaced", first),
    ]
    assert [(row.id, row.payload) for row in await listing(store)] == [(first.id, b"[43]")]


async def test_one_clash_spares_the_others_and_receipts_keep_the_order(store: Store) -> None:
    holder = keyed()
    await stored(store, holder)
    jobs = [draft(), keyed(), keyed(on_clash="raise"), keyed(text="l"), draft()]
    assert await answers(store, jobs) == ["accepted", "duplicate", "taken", "accepted", "accepted"]
    assert {row.id for row in await listing(store)} == {holder.id, jobs[0].id, jobs[3].id, jobs[4].id}


async def test_thousands_of_keys_in_one_call(store: Store) -> None:
    first = [keyed(text=f"order {n}") for n in range(1500)]
    await stored(store, *first)
    again = [keyed(text=f"order {n}") for n in range(1600)]
    receipts = await store.enqueue(again)
    assert [r.holder for r in receipts] == [job.id for job in first] + [None] * 100
    assert [r.answer for r in receipts] == ["duplicate"] * 1500 + ["accepted"] * 100


# --- the id comes first


async def test_a_repeat_of_the_holders_own_enqueue_is_no_clash(store: Store) -> None:
    job = keyed(on_clash="raise")
    await stored(store, job)
    before = await record(store, job.id)
    assert list(await store.enqueue([job, job])) == [Receipt(job.id, "accepted", created=False)] * 2
    assert await record(store, job.id) == before


async def test_an_id_of_other_content_is_a_conflict_though_its_key_is_held_too(store: Store) -> None:
    job = keyed()
    await stored(store, job)
    assert await answer(store, replace(job, payload=b"[43]")) == "conflict"


async def test_a_finished_holders_repeat_is_accepted_though_another_has_the_key_now(store: Store) -> None:
    first, second = keyed(), keyed(on_clash="raise")
    await stored(store, first)
    await store.cancel([first.id])
    await stored(store, second)
    assert list(await store.enqueue([first])) == [Receipt(first.id, "accepted", created=False)]
    assert await _holds(store, second)


# --- replace


@pytest.mark.parametrize("was", [0, HOUR])
@pytest.mark.parametrize(
    ("due", "becomes", "at"),
    [
        ({"delay": 0}, State.QUEUED, 0),
        ({"delay": 1}, State.SCHEDULED, 1),
        ({"delay": HOUR}, State.SCHEDULED, HOUR),
        ({"at": 0}, State.QUEUED, 0),
        ({"at": -MINUTE}, State.QUEUED, -MINUTE),
        ({"at": MINUTE}, State.SCHEDULED, MINUTE),
    ],
)
async def test_replace_changes_payload_and_due_time_of_the_holder_and_nothing_else(
    store: Store, was: int, due: dict[str, int], becomes: State, at: int
) -> None:
    holder = keyed(delay=was, priority=3, tags=("a",), headers='{"tenant":"7"}', until="started", hold=0)
    await stored(store, holder)
    before = await record(store, holder.id)
    store.shift += 1000
    late = due | {"at": due["at"] + await now(store)} if "at" in due else due
    other = keyed(
        on_clash="replace", payload=b"[43]", priority=9, tags=("b",), headers="", terms=Terms(), alone=True, **late
    )
    assert list(await store.enqueue([other])) == [_receipt(other, "replaced", holder)]
    expected = replace(before, payload=b"[43]", state=becomes, due_at=await now(store) + at)
    assert await listing(store) == [expected]


async def test_what_was_replaced_runs_with_the_new_payload_at_the_new_time(store: Store) -> None:
    holder = keyed(payload=b"[1]")
    other = draft()
    await stored(store, holder, other)
    await answer(store, keyed(on_clash="replace", payload=b"[2]", delay=MINUTE))
    worker = await hand(store)
    assert [job.id for job in await worker.claim()] == [other.id], "put off, yet claimed"
    store.shift += MINUTE
    await worker.beat()
    assert (await store.promote(10)).moved == 1
    job = await worker.take()
    assert (job.id, job.payload, job.due_at) == (holder.id, b"[2]", await now(store))
    assert (await finish(store, job, Released())).answer == "accepted"
    assert (await worker.take()).payload == b"[2]"


async def test_what_was_brought_forward_is_claimed_at_once_and_is_not_promoted(store: Store) -> None:
    holder = keyed(delay=HOUR)
    await stored(store, holder)
    await answer(store, keyed(on_clash="replace"))
    store.shift += HOUR
    worker = await hand(store)
    assert await store.promote(10) == Promoted(0, None)
    assert [job.id for job in await worker.claim()] == [holder.id]


async def test_the_last_of_many_replaces_counts(store: Store) -> None:
    holder = keyed()
    await stored(store, holder)
    jobs = [keyed(on_clash="replace", payload=str(n).encode(), delay=n % 3) for n in range(10)]
    assert await answers(store, jobs) == ["replaced"] * 10
    [found] = await listing(store)
    assert (found.id, found.payload, found.state) == (holder.id, b"9", "queued")


async def test_a_holder_of_another_task_is_not_replaced(store: Store) -> None:
    holder = keyed(task="shop.send")
    await stored(store, holder)
    before = await record(store, holder.id)
    other = keyed(task="shop.print", on_clash="replace", payload=b"[43]")
    assert list(await store.enqueue([other])) == [_receipt(other, "taken", holder)]
    assert await record(store, holder.id) == before


@goes_on
async def test_a_holder_that_was_started_is_not_replaced(store: Store, way: Way) -> None:
    holder = keyed()
    await stored(store, holder)
    await way(store, holder.id)
    before = await record(store, holder.id)
    other = keyed(on_clash="replace", payload=b"[43]")
    assert list(await store.enqueue([other])) == [_receipt(other, "taken", holder)]
    assert await record(store, holder.id) == before


@ends
async def test_a_final_holder_is_not_replaced(store: Store, end: Way) -> None:
    holder = keyed(hold=HOUR)
    await stored(store, holder)
    await end(store, holder.id)
    before = await record(store, holder.id)
    other = keyed(on_clash="replace", payload=b"[43]")
    assert list(await store.enqueue([other])) == [_receipt(other, "taken", holder)]
    assert await record(store, holder.id) == before


async def test_a_new_life_can_be_replaced_until_it_starts(store: Store) -> None:
    holder = keyed()
    await stored(store, holder)
    await ENDS["dies"](store, holder.id)
    await retried(store, holder.id)
    assert await answer(store, keyed(on_clash="replace", payload=b"[43]")) == "replaced"
    job = await (await hand(store)).take()
    assert (job.id, job.payload) == (holder.id, b"[43]")
    assert await answer(store, keyed(on_clash="replace", payload=b"[44]")) == "taken"


async def test_after_a_replace_the_repeat_of_the_holders_enqueue_is_accepted_and_undoes_nothing(store: Store) -> None:
    """The reply of the first producer was lost; meanwhile a second one has replaced the arguments."""
    holder = keyed(payload=b"[1]")
    await stored(store, holder)
    await answer(store, keyed(on_clash="replace", payload=b"[2]", delay=HOUR))
    before = await record(store, holder.id)
    assert list(await store.enqueue([holder])) == [Receipt(holder.id, "accepted", created=False)]
    assert await record(store, holder.id) == before
    assert await answer(store, replace(holder, payload=b"[2]")) == "conflict", "its own content is what it came with"
    await store.cancel([holder.id])
    assert list(await store.enqueue([holder])) == [Receipt(holder.id, "accepted", created=False)]


async def test_a_replace_may_be_repeated_until_the_holder_starts(store: Store) -> None:
    holder, other = keyed(payload=b"[1]"), keyed(on_clash="replace", payload=b"[2]")
    await stored(store, holder)
    assert await answers(store, [other, other]) == ["replaced", "replaced"]
    assert await answer(store, other) == "replaced"
    job = await (await hand(store)).take()
    assert job.payload == b"[2]"
    assert list(await store.enqueue([other])) == [_receipt(other, "taken", holder)]
    await finish(store, job, Succeeded(b"1"))
    assert list(await store.enqueue([other])) == [Receipt(other.id, "accepted", created=True)]


async def test_a_free_key_needs_no_replacing(store: Store) -> None:
    job = keyed(on_clash="replace")
    assert list(await store.enqueue([job])) == [Receipt(job.id, "accepted", created=True)]


async def test_a_job_put_off_is_no_hint_and_no_head(store: Store) -> None:
    await stored(store, keyed())
    await answer(store, keyed(on_clash="replace", delay=HOUR))
    assert not await store.wait(["mail"], 0.01)
    await answer(store, keyed(on_clash="replace"))
    assert await store.wait(["mail"], 0.01)


# --- until when a key is held


@goes_on
async def test_until_finished_it_is_held_whatever_happens_before(store: Store, way: Way) -> None:
    job = keyed()
    await stored(store, job)
    await way(store, job.id)
    assert await _holds(store, job)


@ends
async def test_every_end_frees_the_key_once(store: Store, end: Way) -> None:
    first, second, third = keyed(), keyed(), keyed()
    await stored(store, first)
    await end(store, first.id)
    assert not (await record(store, first.id)).holds
    assert await answers(store, [second, third]) == ["accepted", "duplicate"]
    assert await _holds(store, second)
    assert (await record(store, first.id)).holds_until is None


async def test_a_refused_outcome_frees_no_key(store: Store) -> None:
    job = keyed()
    await stored(store, job)
    claim = await (await hand(store)).take()
    forged = claim._replace(worker=uuid4())
    assert (await finish(store, forged, Succeeded(b"1"))).answer == "stale"
    assert await _holds(store, job)


@pytest.mark.parametrize("verdict", [Succeeded(b"1"), FINAL_BOOM])
async def test_a_repeated_finish_does_not_free_what_another_holds_now(store: Store, verdict: Verdict) -> None:
    first, second = keyed(), keyed()
    await stored(store, first)
    claim = await (await hand(store)).take()
    await finish(store, claim, verdict)
    await stored(store, second)
    assert (await finish(store, claim, verdict)).answer == "replayed"
    await store.cancel([first.id])
    assert await _holds(store, second)


@goes_on
async def test_until_started_a_claim_frees_it_and_nothing_after_takes_it_again(store: Store, way: Way) -> None:
    first, second, third = keyed(until="started"), keyed(until="started"), keyed()
    await stored(store, first)
    assert await _holds(store, first)
    await way(store, first.id)
    assert not (await record(store, first.id)).holds
    assert await answers(store, [second, third]) == ["accepted", "duplicate"]
    await store.promote(10)
    await store.cancel([first.id])
    assert await _holds(store, second)


async def test_until_started_many_jobs_of_one_key_may_run_and_end(store: Store) -> None:
    worker = await hand(store)
    jobs = [keyed(until="started") for _ in range(3)]
    claims = []
    for job in jobs:
        await stored(store, job)
        claims.append(await worker.take())
    last = keyed(until="started")
    await stored(store, last)
    for claim in claims:
        assert (await finish(store, claim, BOOM)).state == "scheduled"
    store.shift += HOUR
    await store.promote(10)
    assert await _holds(store, last), "a retry took the key, or freed it"


@pytest.mark.parametrize("until", ["started", "finished"])
async def test_a_job_cancelled_before_its_start_frees_its_key(store: Store, until: str) -> None:
    job = keyed(until=until, delay=HOUR)
    await stored(store, job)
    await store.cancel([job.id])
    assert await answer(store, keyed()) == "accepted"


# --- for a time after


@ends
async def test_a_hold_keeps_the_key_for_its_time_after_every_end(store: Store, end: Way) -> None:
    job = keyed(hold=HOUR)
    await stored(store, job)
    await end(store, job.id)
    found = await record(store, job.id)
    assert found.finished_at is not None
    assert (found.holds, found.holds_until) == (True, found.finished_at + HOUR)
    store.shift += HOUR - 1
    clash = keyed(on_clash="raise")
    assert list(await store.enqueue([clash])) == [_receipt(clash, "taken", job)]
    store.shift += 1
    found = await record(store, job.id)
    assert (found.holds, found.holds_until) == (False, None)
    assert await answers(store, [clash, keyed()]) == ["accepted", "duplicate"]
    assert await _holds(store, clash)


@ends
async def test_a_held_job_is_not_prunable_before_its_hold_is_over(store: Store, end: Way) -> None:
    job = keyed(hold=HOUR, terms=Terms(max_attempts=3, max_crashes=2, keep=0))
    await stored(store, job)
    await end(store, job.id)
    kept = (await record(store, job.id)).state is State.DEAD
    store.shift += HOUR - 1
    assert await store.prune(10) == 0
    assert await answer(store, keyed()) == "duplicate"
    store.shift += 1
    assert await store.prune(10) == (0 if kept else 1)
    assert await answer(store, keyed()) == "accepted"


@pytest.mark.parametrize(("keep", "hold", "stays"), [(0, 1, TOMBSTONE), (HOUR, MINUTE, HOUR), (MINUTE, HOUR, HOUR)])
async def test_it_is_kept_for_the_longest_of_its_times(store: Store, keep: int, hold: int, stays: int) -> None:
    job = keyed(hold=hold, terms=Terms(keep=keep))
    await stored(store, job)
    await ENDS["succeeds"](store, job.id)
    store.shift += stays - 1
    assert await store.prune(10) == 0
    store.shift += 1
    assert await store.prune(10) == 1


async def test_a_hold_begins_with_the_end_and_not_before(store: Store) -> None:
    job = keyed(hold=MINUTE)
    await stored(store, job)
    store.shift += HOUR
    assert await _holds(store, job)
    await ENDS["succeeds"](store, job.id)
    store.shift += MINUTE - 1
    assert await _holds(store, job)


async def test_what_was_pruned_after_its_hold_takes_nothing_along(store: Store) -> None:
    """Another job took the key when the hold was over; then the first one is pruned."""
    first, second = keyed(hold=MINUTE, terms=Terms(keep=0)), keyed()
    await stored(store, first)
    await ENDS["succeeds"](store, first.id)
    store.shift += MINUTE
    await stored(store, second)
    assert await store.prune(10) == 1
    assert await _holds(store, second)


async def test_what_was_pruned_holds_no_key_though_the_clock_steps_back_into_its_hold(store: Store) -> None:
    job = keyed(hold=MINUTE, terms=Terms(keep=0))
    await stored(store, job)
    await ENDS["succeeds"](store, job.id)
    store.shift += MINUTE
    assert await store.prune(10) == 1
    store.shift -= 1
    assert await answer(store, keyed()) == "accepted", "a key is held, and no record says why"


async def test_a_hold_that_is_over_is_lost_for_good_once_another_has_the_key(store: Store) -> None:
    """Even where the clock then steps back into the hold's time."""
    first, second = keyed(hold=MINUTE), keyed()
    await stored(store, first)
    await ENDS["succeeds"](store, first.id)
    store.shift += MINUTE
    await stored(store, second)
    store.shift -= 2
    assert not (await record(store, first.id)).holds
    assert await _holds(store, second)
    await store.cancel([second.id])
    assert await answer(store, keyed()) == "accepted", "a key came back to a job that had lost it"


async def test_until_somebody_takes_the_key_a_stepped_clock_brings_the_hold_back(store: Store) -> None:
    job = keyed(hold=MINUTE)
    await stored(store, job)
    await ENDS["succeeds"](store, job.id)
    store.shift += MINUTE
    assert not (await record(store, job.id)).holds
    store.shift -= 1
    assert await _holds(store, job)


async def test_what_another_takes_frees_no_other_hold(store: Store) -> None:
    """The holds of two keys are over; one key is taken."""
    jobs = [keyed(text=text, hold=MINUTE, queue=text) for text in ("a", "b")]
    await stored(store, *jobs)
    for job in jobs:
        await ENDS["succeeds"](store, job.id)
    store.shift += MINUTE
    await stored(store, keyed(text="a", queue="a"))
    store.shift -= 1
    assert [(await record(store, job.id)).holds for job in jobs] == [False, True]


async def test_a_key_freed_by_a_claim_is_not_held_after_the_end(store: Store) -> None:
    first, second = keyed(until="started", hold=HOUR, terms=Terms(keep=0)), keyed()
    await stored(store, first)
    claim = await (await hand(store)).take()
    await finish(store, claim, Succeeded(b"1"))
    found = await record(store, first.id)
    assert (found.holds, found.holds_until) == (False, None)
    assert await answer(store, second) == "accepted"
    store.shift += TOMBSTONE
    assert await store.prune(10) == 1, "kept for a hold that it has not"


# --- an operator's retry


@pytest.mark.parametrize("until", ["started", "finished"])
@pytest.mark.parametrize("end", ["dies", "gives up", "is cancelled before it runs"])
async def test_a_new_life_takes_the_key_again_whatever_until_is(store: Store, until: str, end: str) -> None:
    job = keyed(until=until)
    await stored(store, job)
    await ENDS[end](store, job.id)
    assert await retried(store, job.id) == ["retried"]
    assert await _holds(store, job)
    claim = await (await hand(store)).take()
    assert (await record(store, job.id)).holds is (until == "finished")
    await finish(store, claim, Succeeded(b"1"))
    assert not await _holds(store, job)


@pytest.mark.parametrize("end", ["dies", "gives up", "is cancelled before it runs"])
async def test_a_retry_is_refused_while_another_job_holds_the_key(store: Store, end: str) -> None:
    first, second = keyed(), keyed()
    await stored(store, first)
    await ENDS[end](store, first.id)
    await stored(store, second)
    before = await record(store, first.id)
    [answer] = await store.retry([first.id])
    assert (answer.answer, answer.holder, answer.room) == ("taken", second.id, None)
    assert await record(store, first.id) == before
    await ENDS["succeeds"](store, second.id)
    assert await retried(store, first.id) == ["retried"]
    assert await _holds(store, first)


async def test_a_retry_is_refused_while_a_finished_job_holds_the_key(store: Store) -> None:
    first, second = keyed(), keyed(hold=HOUR)
    await stored(store, first)
    await store.cancel([first.id])
    await stored(store, second)
    await ENDS["succeeds"](store, second.id)
    [answer] = await store.retry([first.id])
    assert (answer.answer, answer.holder) == ("taken", second.id)
    store.shift += HOUR
    assert await retried(store, first.id) == ["retried"]
    assert await _holds(store, first)
    assert not (await record(store, second.id)).holds


@pytest.mark.parametrize("later", [0, HOUR + 1])
async def test_ones_own_hold_is_no_obstacle_and_begins_anew_with_the_next_end(store: Store, later: int) -> None:
    job = keyed(hold=HOUR)
    await stored(store, job)
    await ENDS["dies"](store, job.id)
    store.shift += later
    assert await retried(store, job.id) == ["retried"]
    found = await record(store, job.id)
    assert (found.holds, found.holds_until) == (True, None)
    store.shift += 2 * HOUR
    assert await _holds(store, job), "the hold of the life before ended the key of this one"
    await ENDS["dies"](store, job.id)
    assert (await record(store, job.id)).holds_until == await now(store) + HOUR


async def test_of_two_retries_of_one_key_in_one_call_the_first_has_it(store: Store) -> None:
    first, second = keyed(), keyed()
    for job in (first, second):
        await stored(store, job)
        await store.cancel([job.id])
    assert await retried(store, first.id, second.id) == ["retried", "taken"]
    assert await _holds(store, first)


# --- delete, and places


@pytest.mark.parametrize("hold", [0, HOUR])
@pytest.mark.parametrize("end", [None, *ENDS])
async def test_a_deleted_job_holds_no_key(store: Store, hold: int, end: str | None) -> None:
    first, second = keyed(hold=hold), keyed()
    await stored(store, first)
    if end is not None:
        await ENDS[end](store, first.id)
    assert list(await store.delete([first.id])) == ["deleted"]
    assert await answers(store, [second, keyed(), first]) == ["accepted", "duplicate", "accepted"]
    assert not await exists(store, first.id)
    assert await _holds(store, second)


async def test_a_clash_asks_for_no_place(store: Store) -> None:
    await bound(store, 1)
    await stored(store, keyed())
    jobs = [keyed(), keyed(on_clash="raise"), keyed(on_clash="replace", delay=5), keyed(text="l"), draft()]
    assert await answers(store, jobs) == ["duplicate", "taken", "replaced", "full", "full"]
    assert await admitted(store) == 1


@pytest.mark.parametrize("when_full", ["reject", "drop_newest"])
async def test_what_finds_no_place_takes_no_key(store: Store, when_full: Any) -> None:
    await bound(store, 1, when_full)
    [other] = await stored(store, draft())
    job = keyed()
    assert await answer(store, job) in ("full", "dropped")
    await store.cancel([other])
    second = keyed()
    assert await answer(store, second) == "accepted", "a job that was not stored holds a key"
    assert await _holds(store, second)


@pytest.mark.parametrize("hold", [0, HOUR])
async def test_a_dropped_job_frees_or_holds_its_key_like_any_that_ends(store: Store, hold: int) -> None:
    await bound(store, 1, "drop_oldest")
    old = keyed(hold=hold)
    await stored(store, old)
    new = draft(id=new_id())
    [receipt] = await store.enqueue([new])
    assert receipt.dropped == old.id
    assert (await record(store, old.id)).holds is (hold > 0)
    store.shift += hold
    again = keyed()
    [receipt] = await store.enqueue([again])
    assert (receipt.answer, receipt.dropped) == ("accepted", new.id)
