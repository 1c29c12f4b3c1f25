"""The laws of note and log: what a running handler says of itself, and what its next attempt finds."""

from uuid import uuid4

import pytest

from holdfast.clock import HOUR, MINUTE, SECOND
from holdfast.job import (
    LOG_MOST,
    SAVED_LIMIT,
    TOMBSTONE,
    Cancelled,
    Claim,
    LogLine,
    Note,
    Released,
    Succeeded,
    Terms,
    Verdict,
)
from holdfast.store import Store
from tests.store.acts import (
    BOOM,
    ENDS,
    FINAL_BOOM,
    LOSS,
    Hand,
    draft,
    ended,
    finish,
    hand,
    listing,
    now,
    record,
    retried,
    running,
    stored,
)

VERDICTS: list[Verdict] = [Succeeded(b"1"), BOOM, FINAL_BOOM, Released(), Cancelled("no")]


def _note(job: Claim, **says: object) -> Note:
    return Note(job.id, job.fence, job.worker, **says)  # type: ignore[arg-type]


async def _told(store: Store, job: Claim, **says: object) -> bool:
    [answer] = await store.note([_note(job, **says)])
    return answer


async def _shown(store: Store, job: Claim) -> tuple[float | None, str | None]:
    found = await record(store, job.id)
    return (found.progress, found.text)


async def _lines(store: Store, job: Claim) -> list[str]:
    return [line.text for line in await store.log(job.id)]


# --- progress and text


async def test_progress_and_text_are_shown(store: Store) -> None:
    job = await running(store, await hand(store))
    assert await _shown(store, job) == (None, None)
    assert await _told(store, job, progress=0.25, text="page 1 of 4")
    assert await _shown(store, job) == (0.25, "page 1 of 4")


async def test_none_says_nothing_new(store: Store) -> None:
    job = await running(store, await hand(store))
    await _told(store, job, progress=0.25)
    assert await _shown(store, job) == (0.25, None)
    await _told(store, job, text="naïve 🎲")
    await _told(store, job)
    assert await _shown(store, job) == (0.25, "naïve 🎲")
    await _told(store, job, progress=0.0, text="")
    assert await _shown(store, job) == (0.0, "")


@pytest.mark.parametrize("progress", [0.0, 1.0, 1 / 3, 0.1 + 0.2])
async def test_a_number_is_kept_as_it_is(store: Store, progress: float) -> None:
    job = await running(store, await hand(store))
    await _told(store, job, progress=progress)
    assert (await _shown(store, job))[0] == progress


async def test_a_note_changes_nothing_else_of_the_job(store: Store) -> None:
    job = await running(store, await hand(store))
    before = await record(store, job.id)
    store.shift += 5
    await _told(store, job, lines=((0, "line"),), saved=b"1")
    assert await record(store, job.id) == before


async def test_of_several_notes_about_one_job_the_last_counts(store: Store) -> None:
    worker = await hand(store)
    job, other = await running(store, worker), await running(store, worker)
    notes = [_note(job, progress=0.1, text="a"), _note(other, progress=0.9), _note(job, progress=0.2)]
    assert list(await store.note(notes)) == [True, True, True]
    assert await _shown(store, job) == (0.2, "a")
    assert await _shown(store, other) == (0.9, None)


async def test_progress_is_of_the_last_claim_only(store: Store) -> None:
    worker = await hand(store)
    job = await running(store, worker)
    await _told(store, job, progress=0.5, text="half")
    await finish(store, job, Released())
    assert await _shown(store, job) == (0.5, "half"), "until the next claim it says how far the last one came"
    again = await worker.take()
    assert await _shown(store, job) == (None, None)
    await _told(store, again, text="anew")
    assert await _shown(store, job) == (None, "anew")


async def test_a_reclaim_ends_the_progress_of_the_claim_it_took(store: Store) -> None:
    worker, sweeper = await hand(store), await hand(store)
    job = await running(store, worker)
    await _told(store, job, progress=0.5, text="half")
    await worker.retire(LOSS)
    await sweeper.reclaim()
    assert await _shown(store, job) == (None, None)


@pytest.mark.parametrize("verdict", VERDICTS)
async def test_how_far_it_came_stays_after_the_end(store: Store, verdict: Verdict) -> None:
    job = await running(store, await hand(store))
    await _told(store, job, progress=0.5, text="half")
    await finish(store, job, verdict)
    assert await _shown(store, job) == (0.5, "half")


# --- whose word holds


async def test_only_the_word_of_the_running_claim_holds(store: Store) -> None:
    worker = await hand(store)
    job = await running(store, worker)
    says = {"progress": 0.5, "text": "half", "lines": ((0, "line"),), "saved": b"1"}
    forged = [
        job._replace(fence=0),
        job._replace(fence=2),
        job._replace(worker=uuid4()),
        job._replace(id=uuid4()),
    ]
    assert list(await store.note([_note(each, **says) for each in forged])) == [False] * 4
    assert await _shown(store, job) == (None, None)
    assert await _lines(store, job) == []
    await finish(store, job, Released())
    assert (await worker.take()).saved is None


async def test_answers_come_in_the_order_of_the_call(store: Store) -> None:
    worker = await hand(store)
    job, other = await running(store, worker), await running(store, worker)
    await finish(store, other, Succeeded(b"1"))
    notes = [_note(other, progress=1.0), _note(job, progress=0.1), _note(job._replace(fence=7), progress=0.2)]
    assert list(await store.note(notes)) == [False, True, False]
    assert list(await store.note([])) == []


async def test_the_lease_is_not_looked_at(store: Store) -> None:
    job = await running(store, await hand(store))
    store.shift += HOUR
    assert await _told(store, job, progress=0.5)


async def test_a_job_whose_cancel_is_asked_for_may_still_speak(store: Store) -> None:
    job = await running(store, await hand(store))
    await store.cancel([job.id])
    assert await _told(store, job, progress=0.5, saved=b"1")
    assert await _shown(store, job) == (0.5, None)


@pytest.mark.parametrize("verdict", VERDICTS)
async def test_what_comes_just_after_the_end_is_kept_but_nothing_is_saved(store: Store, verdict: Verdict) -> None:
    worker = await hand(store)
    job = await running(store, worker)
    await _told(store, job, progress=0.5, text="half", lines=((0, "early"),), saved=b"1")
    await finish(store, job, verdict)
    assert not await _told(store, job, progress=1.0, text="all", lines=((0, "late"),), saved=b"2")
    assert await _shown(store, job) == (1.0, "all")
    assert await _lines(store, job) == ["early", "late"]
    await retried(store, job.id)
    store.shift += MINUTE
    await worker.beat()
    await store.promote(10)
    assert [again.saved for again in await worker.claim()] == ([b"1"] if not isinstance(verdict, Succeeded) else [])


async def test_once_it_is_claimed_again_the_settled_claim_is_heard_no_more(store: Store) -> None:
    worker = await hand(store)
    job = await running(store, worker)
    await finish(store, job, Released())
    again = await worker.take()
    assert not await _told(store, job, progress=1.0, text="all", lines=((0, "late"),))
    assert await _shown(store, again) == (None, None)
    assert await _lines(store, again) == []


async def test_a_robbed_claim_is_heard_no_more(store: Store) -> None:
    worker, sweeper = await hand(store), await hand(store)
    job = await running(store, worker)
    await worker.retire(LOSS)
    await sweeper.reclaim()
    assert not await _told(store, job, progress=1.0, lines=((0, "late"),), saved=b"1")
    await sweeper.sweep()
    assert not await _told(store, job, progress=1.0, lines=((0, "late"),), saved=b"1")
    assert await _shown(store, job) == (None, None)
    assert await _lines(store, job) == []


async def test_a_sweeper_may_speak_under_its_own_word(store: Store) -> None:
    worker, sweeper = await hand(store), await hand(store)
    await running(store, worker)
    await worker.retire(LOSS)
    [claim] = (await sweeper.reclaim()).values()
    assert await _told(store, claim, lines=((0, "lost with its worker"),))
    assert [(line.fence, line.text) for line in await store.log(claim.id)] == [(2, "lost with its worker")]


# --- the job's own log


async def test_lines_are_kept_with_their_time_and_fence_in_the_order_they_came(store: Store) -> None:
    worker = await hand(store)
    job = await running(store, worker)
    store.shift += SECOND
    await _told(store, job, lines=((500, "one"), (20, "two")))
    await _told(store, job, lines=((30, "three"),))
    first = await now(store)
    await finish(store, job, Released())
    again = await worker.take()
    store.shift += 10
    await _told(store, again, lines=((0, "four"),))
    assert list(await store.log(job.id)) == [
        LogLine(first - 500, 1, "one"),
        LogLine(first - 20, 1, "two"),
        LogLine(first - 30, 1, "three"),
        LogLine(first + 10, 2, "four"),
    ]


@pytest.mark.parametrize("text", ["", "naïve 🎲\n\ttwo lines", "x" * 10_000])
async def test_any_text_is_a_line(store: Store, text: str) -> None:
    job = await running(store, await hand(store))
    await _told(store, job, lines=((0, text), (0, text)))
    assert await _lines(store, job) == [text, text]


@pytest.mark.parametrize("at_once", [1, 7, LOG_MOST + 50])
async def test_the_newest_lines_are_kept(store: Store, at_once: int) -> None:
    job = await running(store, await hand(store))
    texts = [str(n) for n in range(LOG_MOST + 50)]
    for start in range(0, len(texts), at_once):
        assert await _told(store, job, lines=tuple((0, text) for text in texts[start : start + at_once]))
    assert await _lines(store, job) == texts[-LOG_MOST:]


async def test_each_job_has_a_log_of_its_own(store: Store) -> None:
    worker = await hand(store)
    jobs = [await running(store, worker) for _ in range(3)]
    await store.note([_note(job, lines=((0, str(n)),)) for n, job in enumerate(jobs)])
    assert [await _lines(store, job) for job in jobs] == [["0"], ["1"], ["2"]]
    assert list(await store.log(uuid4())) == []


async def test_the_log_goes_on_through_every_attempt_and_life(store: Store) -> None:
    worker = await hand(store)
    job = await running(store, worker)
    await _told(store, job, lines=((0, "first"),))
    await finish(store, job, FINAL_BOOM)
    await retried(store, job.id)
    again = await worker.take()
    await _told(store, again, lines=((0, "second"),))
    assert await _lines(store, job) == ["first", "second"]


@pytest.mark.parametrize("goes", ["pruned", "deleted"])
async def test_log_progress_and_what_was_saved_go_with_the_job(store: Store, goes: str) -> None:
    worker = await hand(store)
    job = draft(terms=Terms(keep=0))
    await stored(store, job)
    claim = await worker.take()
    await _told(store, claim, progress=0.5, text="half", lines=((0, "line"),), saved=b"1")
    await finish(store, claim, Succeeded(b"1"))
    if goes == "deleted":
        await store.delete([job.id])
        assert await _lines(store, claim) == []
    store.shift += TOMBSTONE
    assert await store.prune(10) == 1
    assert await _lines(store, claim) == []
    await stored(store, job)
    again = await (await hand(store)).take()
    assert (again.id, again.saved) == (job.id, None)
    assert await _shown(store, again) == (None, None)
    assert await _lines(store, again) == []


# --- what is saved for the next attempt


async def test_what_is_saved_is_in_every_later_claim(store: Store) -> None:
    worker = await hand(store)
    job = await running(store, worker)
    assert job.saved is None
    await _told(store, job, saved=b"[1]")
    await _told(store, job, saved=b"[2]")
    await _told(store, job, progress=0.5)
    for _ in range(2):
        await finish(store, job, Released())
        job = await worker.take()
        assert job.saved == b"[2]"


@pytest.mark.parametrize("size", [0, 1, SAVED_LIMIT])
async def test_it_is_kept_byte_for_byte(store: Store, size: int) -> None:
    worker = await hand(store)
    job = await running(store, worker)
    saved = (bytes(range(256)) * (size // 256 + 1))[:size]
    await _told(store, job, saved=saved)
    await finish(store, job, Released())
    assert (await worker.take()).saved == saved


async def test_a_repeated_claim_and_a_reclaim_carry_it_too(store: Store) -> None:
    worker, sweeper = await hand(store), await hand(store)
    job = await running(store, worker)
    await _told(store, job, saved=b"[1]")
    [again] = (await store.claim(worker.id, worker.ticket - 1, None, 10)).jobs
    assert again == job._replace(saved=b"[1]")
    await worker.retire(LOSS)
    [swept] = (await sweeper.reclaim()).values()
    assert swept.saved == b"[1]"
    [once_more] = (await sweeper.reclaim()).values()
    assert once_more == swept


async def test_it_outlives_failures_losses_and_an_operators_retry(store: Store) -> None:
    [job_id] = await stored(store, draft())
    worker = await hand(store)
    await _told(store, job := await worker.take(), saved=b"[1]")
    await finish(store, job, Released())
    await ENDS["kills its workers"](store, job_id)
    await retried(store, job_id)
    assert (await (await hand(store)).take()).saved == b"[1]"


async def test_a_job_that_saved_nothing_finds_nothing_of_others(store: Store) -> None:
    worker: Hand = await hand(store)
    job, other = await running(store, worker), await running(store, worker)
    await _told(store, job, saved=b"[1]")
    await finish(store, job, Released())
    await finish(store, other, Released())
    assert {again.id: again.saved for again in await worker.claim()} == {job.id: b"[1]", other.id: None}


async def test_hundreds_of_notes_in_one_call(store: Store) -> None:
    await stored(store, *(draft() for _ in range(600)))
    worker = await hand(store)
    jobs = await worker.claim(600)
    notes = [_note(job, progress=n / 600, lines=((0, str(n)),), saved=str(n).encode()) for n, job in enumerate(jobs)]
    assert list(await store.note(notes)) == [True] * 600
    shown = {row.id: row.progress for row in await listing(store)}
    assert shown == {job.id: n / 600 for n, job in enumerate(jobs)}
    assert await _lines(store, jobs[599]) == ["599"]


async def test_a_job_that_said_nothing_shows_nothing(store: Store) -> None:
    job_id = await ended(store, await hand(store), Succeeded(b"1"))
    found = await record(store, job_id)
    assert (found.progress, found.text, list(await store.log(job_id))) == (None, None, [])
