"""The laws of pause, resume and queues: nothing of a paused queue is claimed, and its pause is seen by all."""

import pytest

from holdfast.clock import DAY, HOUR, MINUTE
from holdfast.job import Pause, QueueTerms, Released, State, Succeeded, Until
from holdfast.store import QueueSetup, Store
from tests.store.acts import (
    Hand,
    answer,
    bound,
    draft,
    elsewhere,
    finish,
    hand,
    now,
    running,
    state,
    stats_of,
    stored,
)


async def _claimed(store: Store, worker: Hand) -> set[str]:
    """The queues of what is claimed; it is given back at once."""
    jobs = await worker.claim()
    for job in jobs:
        assert (await finish(store, job, Released())).answer == "accepted"
    return {job.queue for job in jobs}


async def _pause_of(store: Store, queue: str = "mail") -> Pause | None:
    """As `queues` and `stats` tell it."""
    [setup] = [each for each in await store.queues() if each.name == queue] or [None]
    stats = await stats_of(store, queue)
    pause = None if setup is None else setup.pause
    assert pause == (None if stats is None else stats.pause)
    return pause


async def test_nothing_of_a_paused_queue_is_claimed_until_it_is_resumed(store: Store) -> None:
    await stored(store, draft(), draft(queue="slow"), draft(queue="fast"))
    worker = await hand(store)
    await store.pause("mail", None, "mail server moves")
    await store.pause("slow")
    assert await _claimed(store, worker) == {"fast"}
    assert await worker.claim(9, ["slow", "mail"]) == []
    assert await store.resume("mail") is True
    assert await _claimed(store, worker) == {"mail", "fast"}
    assert [await store.resume(queue) for queue in ("mail", "slow", "slow", "nobody")] == [False, True, False, False]
    assert await _claimed(store, worker) == {"mail", "slow", "fast"}


@pytest.mark.parametrize("by", ["delay", "at"])
async def test_a_pause_ends_by_itself_at_its_time_and_not_before(store: Store, by: str) -> None:
    await stored(store, draft())
    worker = await hand(store)
    began = await now(store)
    await store.pause("mail", Until(delay=5) if by == "delay" else Until(at=began + 5), "short")
    assert await _pause_of(store) == Pause(began, began + 5, "short")
    store.shift += 4
    assert await _claimed(store, worker) == set()
    store.shift += 1
    assert await _pause_of(store) is None
    assert await store.resume("mail") is False
    assert await _claimed(store, worker) == {"mail"}


async def test_paused_again_the_new_word_holds_and_the_beginning_stays(store: Store) -> None:
    began = await now(store)
    await store.pause("mail", Until(HOUR), "first")
    store.shift += MINUTE
    await store.pause("mail", None, "naïve \0 reason")
    pause = await _pause_of(store)
    assert pause is not None
    assert (pause.since, pause.until) == (began, None)
    assert pause.reason.startswith("naïve")
    await store.pause("mail", Until(MINUTE))
    assert await _pause_of(store) == Pause(began, began + 2 * MINUTE, "")
    store.shift += MINUTE
    await store.pause("mail")  # the one before is over
    assert await _pause_of(store) == Pause(began + 2 * MINUTE)
    await store.pause("mail", Until())  # until now
    assert await _pause_of(store) is None


async def test_what_runs_goes_on_and_all_but_claims_is_as_ever(store: Store) -> None:
    worker = await hand(store)
    job = await running(store, worker, queue="mail")
    await store.pause("mail")
    [later, mortal] = await stored(store, draft(delay=5), draft(expires=Until(5)))
    store.shift += 5
    promoted = await store.promote(10)
    assert (promoted.moved, [over.id for over in promoted.over]) == (1, [mortal])
    assert await state(store, later) == State.QUEUED
    assert (await finish(store, job, Succeeded(b"1"))).answer == "accepted"
    assert list(await store.cancel([later])) == ["cancelled"]
    assert await worker.claim() == []


async def test_a_lost_reply_is_found_again_though_the_queue_was_paused_meanwhile(store: Store) -> None:
    await stored(store, draft(), draft())
    worker = await hand(store)
    jobs = (await store.claim(worker.id, 1, None, 1)).jobs
    await store.pause("mail")
    assert list((await store.claim(worker.id, 1, None, 1)).jobs) == list(jobs)
    assert list((await store.claim(worker.id, 2, None, 1)).jobs) == []


async def test_queues_tells_of_all_that_are_declared_or_paused(store: Store) -> None:
    assert list(await store.queues()) == []
    began = await now(store)
    await store.configure({"b": QueueTerms(5, weight=6), "z": None}, "worker")
    await store.configure({"b": QueueTerms(4, "block", MINUTE, weight=3), "c": QueueTerms(weight=9)}, "operator")
    await store.pause("a", None, "why")
    await store.pause("c", Until(MINUTE))
    await stored(store, draft())  # of a queue that nobody declared
    edited = QueueTerms(4, "block", MINUTE, weight=3)
    assert list(await elsewhere(lambda twin: twin.queues(), store)) == [
        QueueSetup("a", QueueTerms(), edited=False, pause=Pause(began, None, "why")),
        QueueSetup("b", edited, edited=True, pause=None),
        QueueSetup("c", QueueTerms(weight=9), edited=True, pause=Pause(began, began + MINUTE)),
    ]
    stats = await stats_of(store, "a")
    assert stats is not None, "a queue that is paused is not shown"
    assert (stats.counts, stats.pause) == ({}, Pause(began, None, "why"))
    await store.configure({"b": None, "c": None}, "operator")
    await store.resume("a")
    assert [(each.name, each.terms.weight) for each in await store.queues()] == [("b", 6), ("c", 1)]
    store.shift += MINUTE
    assert [each.name for each in await store.queues()] == ["b"]


async def test_a_paused_queue_keeps_its_bound_and_its_keys(store: Store) -> None:
    await bound(store, 1)
    await store.pause("mail")
    await stored(store, draft())
    assert await answer(store, draft()) == "full"
    await store.resume("mail")
    stats = await stats_of(store)
    assert stats is not None
    assert (stats.terms, stats.admitted, stats.dropped) == (QueueTerms(1), 1, 0)


async def test_a_pause_outlives_every_prune(store: Store) -> None:
    began = await now(store)
    await store.pause("mail", None, "for ever")
    await store.pause("slow", Until(200 * DAY))
    await store.pause("fast", Until(MINUTE))
    store.shift += 100 * DAY
    for _ in range(3):
        await store.prune(1000)
    assert [(each.name, each.pause) for each in await store.queues()] == [
        ("mail", Pause(began, None, "for ever")),
        ("slow", Pause(began, began + 200 * DAY)),
    ]
    assert [await store.resume(queue) for queue in ("mail", "slow", "fast")] == [True, True, False]
