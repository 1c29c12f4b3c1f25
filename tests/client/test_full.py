"""A full queue that refuses or drops: what producers hear, what is told, and that its bound is never passed."""

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from holdfast import Holdfast, JobCancelled, JobNotFound, QueueFull, SyncTask
from holdfast.app import parts_of
from holdfast.client import queues
from tests.client.acts import fill, states

PATIENCE = 30


def test_a_full_queue_refuses_and_says_how_full_it_is(app: Holdfast, send: SyncTask[..., str]) -> None:
    app.queue("mail", max_size=3)
    jobs = fill(app, send, 3)
    with pytest.raises(QueueFull, match=r"queue mail is full: 3 of 3 places are taken") as full:
        send.enqueue("late")
    error = full.value
    assert (error.queue, error.depth, error.bound, error.retry_after) == ("mail", 3, 3, 1.0)
    assert (error.accepted, [new.draft.payload for new in error.refused]) == ([], [b'{"args":["late"]}'])
    assert len(list(app.find(queue="mail"))) == 3
    jobs[0].cancel()
    (late,) = app.enqueue_many(error.refused)
    assert late.created, "a job that ended gives its place up"
    assert send.using(queue="other").enqueue("ann").created, "other queues are as they were"


def test_a_finished_job_gives_its_place_up(app: Holdfast, send: SyncTask[..., str]) -> None:
    app.queue("mail", max_size=1)
    with app.worker():
        for n in range(3):
            assert send.enqueue(str(n)).result(PATIENCE) == str(n)


def test_what_fits_of_many_is_stored_and_repeating_the_call_is_harmless(
    app: Holdfast, send: SyncTask[..., str]
) -> None:
    app.queue("mail", max_size=3)
    many = [send.bind(str(n)) for n in range(5)]
    with pytest.raises(QueueFull, match=r"2 of 5 jobs are not stored.*; 3 are stored") as full:
        app.enqueue_many(many)
    assert [job.id for job in full.value.accepted] == [new.id for new in many[:3]]
    assert all(job.created for job in full.value.accepted)
    assert list(full.value.refused) == many[3:]
    full.value.accepted[0].cancel()
    with pytest.raises(QueueFull, match="1 of 5") as full:
        app.enqueue_many(many)
    assert [job.created for job in full.value.accepted] == [False, False, False, True]
    assert len(list(app.find(queue="mail"))) == 4


def test_a_long_call_goes_on_after_a_refusal(app: Holdfast, send: SyncTask[..., str]) -> None:
    app.queue("small", max_size=1)
    small = send.using(queue="small")
    with pytest.raises(QueueFull, match=r"599 of 1,?200 jobs") as full:
        app.enqueue_many((send if n % 2 else small).bind(str(n)) for n in range(1_200))
    assert len(full.value.accepted) == 601


def test_retry_after_grows_while_the_queue_stays_full(
    app: Holdfast, send: SyncTask[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(queues.time, "monotonic", lambda: now[0])
    app.queue("mail", max_size=1)
    (job,) = fill(app, send, 1)

    def refused() -> float:
        with pytest.raises(QueueFull) as full:
            send.enqueue("late")
        return full.value.retry_after

    assert refused() == 1.0
    now[0] += 12.5
    assert refused() == 12.5
    now[0] += 1000
    assert refused() == 60.0
    job.cancel()
    send.enqueue("in")
    assert refused() == 1.0, "a success begins it anew"


def test_a_retry_asks_for_a_place_like_an_enqueue(app: Holdfast, send: SyncTask[..., str]) -> None:
    app.queue("mail", max_size=1)
    (job,) = fill(app, send, 1)
    job.cancel()
    (other,) = fill(app, send, 1)
    with pytest.raises(QueueFull, match=rf"job {job.id} is not retried: queue mail is full: 1 of 1 places") as full:
        job.retry()
    assert (full.value.queue, full.value.depth, full.value.bound, full.value.retry_after) == ("mail", 1, 1, 1.0)
    assert app.retry(queue="mail") == 0, "of many it is left out"
    other.cancel()
    assert app.retry(queue="mail") == 1, "there is one place for two"


# --- drop


def events(caplog: pytest.LogCaptureFixture) -> list[tuple[str, int]]:
    told = [record.msg for record in caplog.records if getattr(record.msg, "event", None) == "dropped"]
    return [(each.fields["when_full"], each.fields["count"]) for each in told]


def test_drop_newest_drops_what_was_just_given(app: Holdfast, send: SyncTask[..., str]) -> None:
    app.queue("mail", max_size=2, when_full="drop_newest")
    jobs = fill(app, send, 3)
    assert [job.created for job in jobs] == [True, True, False]
    assert states(jobs[:2]) == ["queued", "queued"]
    with pytest.raises(JobCancelled, match=rf"job {jobs[2].id} of shop\.send was dropped: its queue mail was full"):
        jobs[2].result(PATIENCE)
    for ask in (jobs[2].status, jobs[2].cancel, jobs[2].retry, jobs[2].delete):
        with pytest.raises(JobNotFound, match=r"was dropped: its queue mail was full .* never stored"):
            ask()
    assert len(list(app.find(queue="mail"))) == 2
    (queue,) = parts_of(app).operating.stats().queues
    assert queue.dropped == 1


async def test_the_twins_of_a_dropped_jobs_handle_say_the_same(app: Holdfast, send: SyncTask[..., str]) -> None:
    app.queue("mail", max_size=1, when_full="drop_newest")
    async with app:
        await send.aenqueue("first")
        job = await send.aenqueue("late")
        with pytest.raises(JobCancelled, match="was dropped"):
            await job.aresult()
        for ask in (job.astatus, job.acancel, job.aretry, job.adelete):
            with pytest.raises(JobNotFound, match="was dropped"):
                await ask()


def test_drop_oldest_cancels_the_oldest_for_the_new_one(app: Holdfast, send: SyncTask[..., str]) -> None:
    app.queue("mail", max_size=2, when_full="drop_oldest")
    jobs = fill(app, send, 3)
    assert [job.created for job in jobs] == [True, True, True]
    assert states(jobs) == ["cancelled", "queued", "queued"]
    with pytest.raises(JobCancelled, match="dropped"):
        jobs[0].result(PATIENCE)


@pytest.mark.parametrize("when_full", ["drop_oldest", "drop_newest"])
def test_drops_are_told_once_a_second_with_their_number(
    app: Holdfast, send: SyncTask[..., str], caplog: pytest.LogCaptureFixture, when_full: Any
) -> None:
    app.queue("mail", max_size=1, when_full=when_full)
    with caplog.at_level(logging.WARNING, "holdfast"):
        fill(app, send, 12)
        assert events(caplog) == [(when_full, 1)]
        app.close()  # what was not told yet is told then at the latest
        assert [count for _, count in events(caplog)] == [1, 10]


def test_the_rest_is_told_when_the_second_is_over(
    app: Holdfast, send: SyncTask[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queues, "QUIET", 0.05)
    app.queue("mail", max_size=1, when_full="drop_oldest")
    counts: list[int] = []
    all_told = threading.Event()

    class Heard(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if getattr(record.msg, "event", None) == "dropped":
                counts.append(record.msg.fields["count"])  # type: ignore[attr-defined]
                if sum(counts) == 11:
                    all_told.set()

    logging.getLogger("holdfast").addHandler(heard := Heard())
    try:
        fill(app, send, 12)
        assert all_told.wait(PATIENCE), f"told of {counts}, and 11 were dropped"
    finally:
        logging.getLogger("holdfast").removeHandler(heard)
    assert len(counts) > 1


# --- many producers


@pytest.mark.parametrize("when_full", ["reject", "drop_newest"])
def test_a_bound_is_never_exceeded_by_many_producers(app: Holdfast, send: SyncTask[..., str], when_full: Any) -> None:
    app.queue("mail", max_size=10, when_full=when_full)

    def produce(n: int) -> int:
        made = 0
        for k in range(10):
            with suppress(QueueFull):
                made += send.enqueue(f"{n}-{k}").created
        return made

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(produce, range(8), timeout=PATIENCE)) == 10
    assert len(list(app.find(queue="mail"))) == 10
