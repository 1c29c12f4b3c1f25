"""The janitor: due jobs are queued, lost ones rescued, old ones deleted; each step is bounded and may be repeated."""

import logging
from typing import Any
from uuid import UUID

import pytest

from holdfast.clock import HOUR, SECOND, FakeClock
from holdfast.errors import StoreAway
from holdfast.job import Loss, State, Succeeded, Terms
from holdfast.policy import decide
from holdfast.store import LEASE
from holdfast.worker import janitor as janitors
from holdfast.worker.janitor import PROMOTE_EVERY, PRUNE_EVERY, RECLAIM_EVERY, Janitor
from tests.store.acts import TERMS, Hand, draft, hand, keep_beating, running, stored
from tests.worker.rig import Flaky, events, fields, memory, record


@pytest.fixture
def store() -> Flaky:
    return memory(FakeClock())


@pytest.fixture
async def sweeper(store: Flaky) -> Hand:
    return await hand(store.inner)


@pytest.fixture
def janitor(store: Flaky, sweeper: Hand) -> Janitor:
    return Janitor(store, lambda: sweeper.id)


async def states(store: Flaky, ids: list[UUID]) -> list[str]:
    return [str((await record(store, job)).state) for job in ids]


# --- promote


async def test_due_jobs_are_queued_and_the_next_look_is_when_the_next_is_due(store: Flaky, janitor: Janitor) -> None:
    ids = await stored(store.inner, draft(delay=200), draft(delay=900), draft(delay=HOUR))
    assert await janitor.promote_step() == pytest.approx(0.2)
    store.shift += 200
    assert await janitor.promote_step() == pytest.approx(0.7)
    assert await states(store, ids) == ["queued", "scheduled", "scheduled"]
    store.shift += 700
    assert await janitor.promote_step() == PROMOTE_EVERY, "a job may come meanwhile that is due earlier"
    assert await states(store, ids) == ["queued", "queued", "scheduled"]


async def test_with_nothing_scheduled_it_looks_now_and_then(janitor: Janitor) -> None:
    assert await janitor.promote_step() == PROMOTE_EVERY


async def test_more_due_jobs_than_one_step_takes_are_taken_without_a_pause(
    store: Flaky, janitor: Janitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(janitors, "PROMOTE_MOST", 10)
    ids = await stored(store.inner, *(draft(delay=10) for _ in range(25)))
    store.shift += 10
    assert [await janitor.promote_step() for _ in range(3)] == [0, 0, PROMOTE_EVERY]
    assert await states(store, ids) == ["queued"] * 25


# --- reclaim


async def lost(store: Flaky, number: int, loss: Loss | None = None, **changes: Any) -> list[UUID]:
    """Jobs of a worker that was retired while it ran them."""
    worker = await hand(store.inner)
    jobs = [await running(store.inner, worker, **changes) for _ in range(number)]
    await worker.retire(loss)
    return [job.id for job in jobs]


async def test_jobs_of_a_retired_worker_are_queued_again_and_told(
    store: Flaky, janitor: Janitor, caplog: pytest.LogCaptureFixture
) -> None:
    ids = await lost(store, 3, Loss("killed by signal 9"))
    with caplog.at_level(logging.WARNING, "holdfast"):
        delay = await janitor.reclaim_step()
    assert 0.8 * RECLAIM_EVERY <= delay <= 1.2 * RECLAIM_EVERY
    for job in ids:
        found = await record(store, job)
        assert found.state in (State.QUEUED, State.SCHEDULED)
        assert (found.attempt, found.losses, found.fence) == (0, 1, 2)
    assert events(caplog) == ["rescued"] * 3
    assert {told["message"] for told in fields(caplog, "rescued")} == {"killed by signal 9"}
    assert {told["job"] for told in fields(caplog, "rescued")} == set(ids)


async def test_the_loss_decides_what_becomes_of_the_job(store: Flaky, janitor: Janitor) -> None:
    (innocent,) = await lost(store, 1, Loss("deadline", on_purpose=True))
    (alone,) = await lost(store, 1, Loss("killed by signal 11"), alone=True)
    (once,) = await lost(store, 1, Loss("killed by signal 9"), terms=TERMS._replace(max_crashes=0))
    await janitor.reclaim_step()
    found = {job: await record(store, job) for job in (innocent, alone, once)}
    assert (found[innocent].state, found[innocent].losses) == ("queued", 0)
    assert (found[alone].state, found[alone].crashes) == ("queued", 1)
    assert found[once].state == "dead"


async def test_a_lost_job_whose_cancel_was_asked_for_ends_cancelled(store: Flaky, janitor: Janitor) -> None:
    worker = await hand(store.inner)
    job = await running(store.inner, worker)
    await store.cancel([job.id], "the customer left")
    await worker.retire()
    await janitor.reclaim_step()
    found = await record(store, job.id)
    assert (found.state, found.reason, found.losses) == ("cancelled", "the customer left", 0)


async def test_jobs_of_a_silent_worker_are_rescued_by_a_steady_one_alone(
    store: Flaky, sweeper: Hand, janitor: Janitor
) -> None:
    silent = await hand(store.inner)
    job = await running(store.inner, silent)
    store.shift += LEASE + 1  # the store was away for all, as in a failover
    await sweeper.beat()
    await janitor.reclaim_step()
    assert await states(store, [job.id]) == ["running"], "nobody could beat: nobody is to be robbed"
    await keep_beating([sweeper], LEASE + SECOND)
    await janitor.reclaim_step()
    assert (await record(store, job.id)).state in ("queued", "scheduled")


async def test_more_lost_jobs_than_one_step_takes_are_taken_without_a_pause(
    store: Flaky, janitor: Janitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(janitors, "RECLAIM_MOST", 2)
    ids = await lost(store, 5, Loss("recycled", on_purpose=True))
    delays = [await janitor.reclaim_step() for _ in range(3)]
    assert delays[:2] == [0, 0]
    assert delays[2] > 0
    assert await states(store, ids) == ["queued"] * 5


@pytest.mark.parametrize("method", ["reclaim", "finish"])
@pytest.mark.parametrize("how", ["fail", "drop"])
async def test_a_rescue_that_is_interrupted_is_taken_up_again_and_charged_once(
    store: Flaky, janitor: Janitor, method: str, how: str
) -> None:
    ids = await lost(store, 2, Loss("killed by signal 9"))
    getattr(store, how)(method)
    with pytest.raises(StoreAway):
        await janitor.reclaim_step()
    await janitor.reclaim_step()
    for job in ids:
        found = await record(store, job)
        assert found.state in (State.QUEUED, State.SCHEDULED)
        assert (found.losses, len(found.history)) == (1, 1)


async def test_a_sweeper_that_dies_leaves_the_same_loss_to_the_next(
    store: Flaky, sweeper: Hand, janitor: Janitor
) -> None:
    (job,) = await lost(store, 1, Loss("killed by signal 9"))
    store.fail("finish")
    with pytest.raises(StoreAway):
        await janitor.reclaim_step()
    await sweeper.retire(Loss("the sweeper died too"))
    other = await hand(store.inner)
    await Janitor(store, lambda: other.id).reclaim_step()
    found = await record(store, job)
    assert (found.losses, [attempt.reason for attempt in found.history]) == (1, ["killed by signal 9"])


async def test_nothing_lost_means_nothing_written(store: Flaky, janitor: Janitor) -> None:
    await janitor.reclaim_step()
    assert store.times("finish") == 0


async def test_a_rescue_is_made_in_the_name_of_the_present_incarnation(store: Flaky) -> None:
    ids = await lost(store, 1, Loss("recycled", on_purpose=True))
    incarnations = [(await hand(store.inner)).id, (await hand(store.inner)).id]
    await store.retire(incarnations[0])
    janitor = Janitor(store, lambda: incarnations[0])
    await janitor.reclaim_step()
    assert await states(store, ids) == ["running"], "a retired sweeper gets nothing"
    incarnations.pop(0)
    await janitor.reclaim_step()
    assert await states(store, ids) == ["queued"]


# --- prune


async def test_what_is_over_is_deleted(store: Flaky, sweeper: Hand, janitor: Janitor) -> None:
    jobs = [await running(store.inner, sweeper, terms=Terms(keep=HOUR)) for _ in range(3)]
    await store.inner.finish([decide(job, Succeeded(b"1")) for job in jobs])
    assert await janitor.prune_step() == PRUNE_EVERY
    assert await states(store, [job.id for job in jobs]) == ["succeeded"] * 3
    store.shift += HOUR
    assert await janitor.prune_step() == PRUNE_EVERY
    for job in jobs:
        with pytest.raises(ValueError, match="not enough values"):
            await record(store, job.id)


async def test_much_that_is_over_is_deleted_step_by_step_with_room_for_others(
    store: Flaky, sweeper: Hand, janitor: Janitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(janitors, "PRUNE_MOST", 2)
    jobs = [await running(store.inner, sweeper, terms=Terms(keep=HOUR)) for _ in range(5)]
    await store.inner.finish([decide(job, Succeeded(b"1")) for job in jobs])
    store.shift += HOUR
    delays = [await janitor.prune_step() for _ in range(3)]
    assert 0 < delays[0] == delays[1] < 1
    assert delays[2] == PRUNE_EVERY
