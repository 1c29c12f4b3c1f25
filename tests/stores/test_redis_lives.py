"""Workers' lives and sweeps on Redis: a registry and many queues' slots, none of which knows of the other."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import pytest
from redis.asyncio import Redis

from holdfast.clock import DAY, HOUR, MINUTE, SECOND
from holdfast.errors import StoreError
from holdfast.job import TOMBSTONE, Loss, Note, QueueTerms, State, Succeeded, Terms, held_as
from holdfast.policy import decide
from holdfast.store import LEASE, LEASE_RAN_OUT, Claims, Line, Promoted, Store, Where
from holdfast.stores import open_store
from holdfast.stores.redis import lives, sweep
from holdfast.stores.redis.lane import Lane
from holdfast.stores.redis.place import queue_keys
from tests import servers
from tests.servers.prefixes import Prefix
from tests.store.acts import (
    LOSS,
    Hand,
    draft,
    exists,
    finish,
    hand,
    keep_beating,
    keyed,
    listing,
    record,
    running,
    state,
    stats_of,
    steady_hand,
    stored,
)
from tests.store.backends import STANDS_STILL
from tests.stores.indexes import wrongs

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]


@pytest.fixture
def prefix() -> Iterator[Prefix]:
    with servers.valkey().bare() as prefix:
        yield prefix


@asynccontextmanager
async def process(prefix: Prefix, options: str = "") -> AsyncIterator[Store]:
    """The store as one more process has it: it shares no memory with the others. Its time stands still."""
    store = open_store(prefix.url + options)
    store._place.clock = STANDS_STILL  # type: ignore[attr-defined]  # noqa: SLF001
    await store.open()
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture
async def store(prefix: Prefix) -> AsyncIterator[Store]:
    async with process(prefix) as store:
        yield store


class Keys:
    """The keys under the prefix, as another program sees them."""

    def __init__(self, prefix: Prefix) -> None:
        self._prefix = prefix.name
        self.redis = Redis.from_url(prefix.server, decode_responses=True)

    def registry(self, name: str) -> str:
        return f"{{{self._prefix}}}:{name}"

    def of(self, queue: str, name: str) -> str:
        return f"{{{self._prefix}:{queue}}}:{name}"

    async def names(self) -> set[str]:
        """Of the queues that the registry knows."""
        return set(await self.redis.smembers(self.registry("queues")))

    async def all(self, queue: str) -> list[str]:
        return sorted([key async for key in self.redis.scan_iter(f"{{{self._prefix}:{queue}}}:*", count=1000)])


@pytest.fixture
async def keys(prefix: Prefix) -> AsyncIterator[Keys]:
    keys = Keys(prefix)
    yield keys
    await keys.redis.aclose()


# --- several slots


async def test_one_beat_renews_the_lease_in_every_queue(store: Store) -> None:
    worker, sweeper = await hand(store), await hand(store)
    jobs = [await running(store, worker) for _ in range(3)]
    await keep_beating([worker, sweeper], 3 * LEASE)
    assert await sweeper.reclaim() == {}
    for job in jobs:
        assert (await finish(store, job, Succeeded(b"1"))).answer == "accepted"


async def test_a_queue_that_another_process_made_is_beaten_in_too(store: Store, prefix: Prefix) -> None:
    """The supervisor beats for its children, who make and claim what it never heard of."""
    async with process(prefix) as child:
        worker = await hand(store)
        working = Hand(child)
        working.id = worker.id
        await running(child, working)
        sweeper = await hand(store)
        await keep_beating([worker, sweeper], 2 * LEASE)
        assert await sweeper.reclaim() == {}


async def test_a_worker_is_retired_in_queues_that_its_supervisor_never_heard_of(store: Store, prefix: Prefix) -> None:
    async with process(prefix) as child:
        child_of = Hand(child)
        await store.register(child_of.id, None, {})
        named, other = await running(child, child_of), await running(child, child_of)
        crash = Loss("SIGSEGV", culprit=True)
        await store.retire(child_of.id, LOSS, {(named.id, named.fence): crash})
        found = await (await hand(store)).reclaim()
        assert {job.id: job.loss for job in found.values()} == {named.id: crash, other.id: LOSS}


async def test_the_mail_of_a_queue_is_read_by_a_process_that_did_not_know_it(store: Store, prefix: Prefix) -> None:
    async with process(prefix) as child:
        worker = await hand(child)
        job = await running(child, worker)
        await child.cancel([job.id])
        assert list(await store.mail([worker.id])) == [Line(worker.id, "cancel", job.id, job.fence)]


async def test_a_cancel_is_told_to_a_retired_worker_until_its_job_is_taken_over(store: Store) -> None:
    """It may still run, and settle the job: only who took it over ends its word."""
    worker, sweeper = await hand(store), await hand(store)
    job = await running(store, worker)
    await worker.retire(LOSS)
    await store.cancel([job.id])
    assert list(await store.mail([worker.id])) == [Line(worker.id, "cancel", job.id, job.fence)]
    assert list(await sweeper.reclaim()) == [job.id]
    assert list(await store.mail([worker.id])) == []


async def test_a_worker_that_is_retired_cannot_join_a_queue_late(store: Store, keys: Keys) -> None:
    """Its claim was on its way while it was buried: what it would take now would wait for its lease to run out."""
    worker = await hand(store)
    queue = (await record(store, (await stored(store, draft()))[0])).queue
    row = await keys.redis.hget(keys.registry("workers"), str(worker.id))
    await worker.retire(LOSS)
    lane = store._opened().claim  # type: ignore[attr-defined]  # noqa: SLF001
    joined = await lane.script("join", queue_keys(lane.place, queue), LEASE, str(worker.id), str(row))
    assert joined == b"gone"
    assert await worker.refusal() == "gone"


CALLS: dict[str, Callable[[Store, Hand, Hand], Awaitable[Any]]] = {
    "beat": lambda store, worker, sweeper: store.beat([worker.id, sweeper.id]),
    "mail": lambda store, worker, _: store.mail([worker.id]),
    "promote": lambda store, _, __: store.promote(10),
    "reclaim": lambda store, _, sweeper: store.reclaim(sweeper.id, 10),
    "prune": lambda store, _, __: store.prune(10),
}


@pytest.mark.parametrize("call", CALLS)
async def test_what_is_wrong_in_one_queue_holds_up_no_other_and_is_said_at_last(
    store: Store, keys: Keys, call: str
) -> None:
    """Another program has written a key of a queue: the others' jobs are kept, promoted, rescued and pruned."""
    worker, dead = await hand(store), await hand(store)
    others = {"aa", "zz"}
    for queue in ("aa", "broken", "zz"):
        await stored(store, *(draft(queue=queue) for _ in range(3)), draft(queue=queue, delay=LEASE + 1))
        await finish(store, (await worker.claim(1, [queue]))[0]._replace(terms=Terms(keep=0)), Succeeded(b"1"))
        assert await dead.claim(1, [queue])
        await store.cancel([(await worker.claim(1, [queue]))[0].id])
    sweeper = await steady_hand(store)
    for key in ("due", "final", "workers", f"mail:{worker.id}"):
        await keys.redis.delete(keys.of("broken", key))
        await keys.redis.set(keys.of("broken", key), "another program's")
    if call == "prune":
        store.shift += MINUTE
    answer = await CALLS[call](store, worker, sweeper)
    rows = [row for queue in others for row in await listing(store, Where(queue=queue))]
    match call:
        case "beat":
            assert answer.gone == set()
            lives = [str(await keys.redis.hget(keys.of(queue, "workers"), str(worker.id))) for queue in others]
            assert [life.split()[1] for life in lives] == [str(answer.now)] * 2
            return  # not even at last: the worker lives
        case "mail":
            assert {line.job for line in answer} == {row.id for row in rows if row.cancel_requested_at}
            await store.finish(
                [decide(held_as(row, worker.id), Succeeded(b"1")) for row in rows if row.cancel_requested_at]
            )
        case "promote":
            assert answer.moved == 2
            assert {row.queue for row in rows if row.due_at > row.enqueued_at and row.state == "queued"} == others
        case "reclaim":
            assert {job.queue for job in answer} == {row.queue for row in rows if row.worker == sweeper.id} == others
            await store.finish([decide(job, Succeeded(b"1")) for job in answer])
        case _:
            assert answer == 2
            assert not [row for row in rows if row.state == "succeeded"]
    with pytest.raises(StoreError, match="another type"):
        await CALLS[call](store, worker, sweeper)


# --- leases that are gone, and slots that were away


async def test_a_running_job_whose_worker_has_no_row_any_more_is_rescued(store: Store, keys: Keys) -> None:
    """The known defect of others: a job in "active" whose lease entry is gone stays there for ever."""
    worker, sweeper = await hand(store), await hand(store)
    job = await running(store, worker)
    await keys.redis.delete(keys.of(job.queue, "workers"), keys.registry("workers"))
    await store.register(sweeper.id, None, {})
    assert await sweeper.reclaim() == {}, "robbed by a sweeper that is not steady"
    await keep_beating([sweeper], LEASE + 1)
    assert [(one.id, one.loss) for one in (await sweeper.reclaim()).values()] == [(job.id, LEASE_RAN_OUT)]
    assert (await finish(store, job, Succeeded(b"late"))).answer == "stale"
    assert await sweeper.sweep() == [job.id]
    assert await state(store, job.id) == "queued"


async def test_what_is_held_without_being_a_job_is_forgotten_and_holds_up_no_sweep(store: Store, keys: Keys) -> None:
    worker, sweeper = await hand(store), await hand(store)
    jobs = [await running(store, worker, queue="mail") for _ in range(2)]
    await keys.redis.delete(keys.of("mail", f"job:{jobs[0].id}"))
    await worker.retire(LOSS)
    assert list(await sweeper.reclaim()) == [jobs[1].id]
    assert await sweeper.sweep() == [jobs[1].id]
    assert await keys.redis.hgetall(keys.of("mail", "holders")) == {}
    assert await keys.redis.hget(keys.of("mail", "meta"), "running") == "0"


async def test_nobody_robs_in_a_slot_that_was_away_before_all_could_beat_there(store: Store, keys: Keys) -> None:
    """Only this queue's server was away: the sweeper's beats went on elsewhere, the workers' here could not."""
    worker, joined, stranger = await hand(store), await hand(store), await hand(store)
    job = await running(store, worker, queue="away")
    await stored(store, draft(queue="away"))
    [held] = await joined.claim(1, ["away"])
    await keep_beating([worker, joined, stranger], LEASE)
    await _out_of_reach(store, keys, "away")
    await keep_beating([worker, joined, stranger], 2 * LEASE)
    await keys.redis.sadd(keys.registry("queues"), "away")
    assert await stranger.reclaim() == {}, "it joined just now, and saw no silence of the slot"
    assert await joined.reclaim() == {}, "its own beats did not come through"
    await keep_beating([worker, joined, stranger], 2 * LEASE)
    for healthy in (job, held):
        assert (await finish(store, healthy, Succeeded(b"1"))).answer == "accepted"


async def test_the_dead_of_a_slot_that_was_away_are_rescued_a_lease_after_it_is_back(store: Store, keys: Keys) -> None:
    worker, stranger = await hand(store), await hand(store)
    job = await running(store, worker, queue="away")
    await keep_beating([worker, stranger], LEASE)
    await _out_of_reach(store, keys, "away")
    await keep_beating([stranger], 2 * LEASE)
    await keys.redis.sadd(keys.registry("queues"), "away")
    await keep_beating([stranger], LEASE)
    assert await stranger.reclaim() == {}
    await keep_beating([stranger], LEASE // 3 + 1)
    assert list(await stranger.reclaim()) == [job.id]


async def _out_of_reach(store: Store, keys: Keys, queue: str) -> None:
    """No call finds its way to the queue, as if its slot were away."""
    await keys.redis.srem(keys.registry("queues"), queue)
    store._place.queues.clear()  # type: ignore[attr-defined]  # noqa: SLF001
    store._place.joined.clear()  # type: ignore[attr-defined]  # noqa: SLF001


async def test_a_queue_whose_name_is_lost_is_beaten_in_by_who_has_joined_it(store: Store, keys: Keys) -> None:
    worker = await hand(store)
    await running(store, worker, queue="mail")
    await keys.redis.delete(keys.registry("queues"))
    await worker.reclaim()  # the registry's word goes before what the process knew
    assert not store._place.queues  # type: ignore[attr-defined]  # noqa: SLF001
    await keep_beating([worker], 2 * LEASE)
    assert await keys.names() == {"mail"}
    [job] = await stored(store, draft(queue="mail"))
    assert [one.id for one in await worker.claim(1, ["mail"])] == [job]


async def test_what_is_no_name_in_the_registry_disturbs_nobody(store: Store, keys: Keys) -> None:
    [job] = await stored(store, draft())
    await keys.redis.sadd(keys.registry("queues"), b"\xff")
    worker = await hand(store)
    assert await worker.beat()
    assert [one.id for one in await worker.claim()] == [job]
    assert [queue.name for queue in (await store.stats()).queues] == ["mail"]
    assert await store.mail([worker.id]) == []
    assert await store.promote(1) == Promoted(0, None)
    await store.prune(1)


# --- keys that somebody has deleted


RESTORES: dict[str, Callable[[Store, Hand], Awaitable[Any]]] = {
    "a beat": lambda _, worker: worker.beat(),
    "an enqueue": lambda store, _: stored(store, draft()),
    "an enqueue with a key": lambda store, _: stored(store, keyed()),
    "a claim by a new worker": lambda store, _: _claim_anew(store),
    "a declaration": lambda store, _: store.configure({"mail": QueueTerms(9)}, "worker"),
}


async def _claim_anew(store: Store) -> None:
    assert len(await (await hand(store)).claim(1, ["mail"])) == 1


@pytest.mark.parametrize("restores", RESTORES)
async def test_a_queue_that_lost_its_meta_is_a_queue_again(
    store: Store, prefix: Prefix, keys: Keys, restores: str
) -> None:
    worker = await hand(store)
    jobs = [await running(store, worker, queue="mail") for _ in range(2)]
    await stored(store, draft())
    await keys.redis.delete(keys.of("mail", "meta"))
    await finish(store, jobs[0], Succeeded(b"1"))
    await RESTORES[restores](store, worker)
    assert await keys.redis.hget(keys.of("mail", "meta"), "layout") == "1"
    assert await asyncio.to_thread(wrongs, prefix) == []
    sweeper = await hand(store)
    await keep_beating([worker, sweeper], 2 * LEASE)
    assert jobs[1].id not in await sweeper.reclaim(), "its worker is well"
    assert (await finish(store, jobs[1], Succeeded(b"1"))).answer == "accepted"


async def test_a_worker_is_retired_in_a_queue_that_lost_its_meta(store: Store, keys: Keys) -> None:
    worker, sweeper = await hand(store), await hand(store)
    job = await running(store, worker)
    await keys.redis.delete(keys.of(job.queue, "meta"))
    await worker.retire(LOSS)
    assert {one.id: one.loss for one in (await sweeper.reclaim()).values()} == {job.id: LOSS}


@pytest.mark.parametrize("end", ["retired", "silent"])
async def test_jobs_of_a_dead_worker_whose_count_was_deleted_are_found_by_a_prune(
    store: Store, prefix: Prefix, keys: Keys, end: str
) -> None:
    worker, sweeper = await hand(store), await hand(store)
    jobs = [await running(store, worker, queue="mail") for _ in range(2)]
    await keys.redis.delete(keys.of("mail", "holders"))
    if end == "retired":
        await worker.retire(LOSS)
    await keep_beating([sweeper], HOUR + MINUTE if end == "retired" else 2 * LEASE)  # its row would be over
    assert await sweeper.reclaim() == {}, "nothing is lost: nothing was tried"
    await store.prune(1)
    assert set(await sweeper.reclaim()) == {job.id for job in jobs}
    assert await asyncio.to_thread(wrongs, prefix) == []


# --- retired while it joins


@pytest.mark.parametrize("call", ["claim", "reclaim"])
async def test_who_is_retired_while_it_joins_a_queue_gets_nothing_there(
    store: Store, keys: Keys, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Whoever retires it has told the registry, and not this queue, of which he did not hear."""
    worker, dead = await hand(store), await hand(store)
    job = await running(store, dead, queue="mail")
    [queued] = await stored(store, draft())
    await dead.retire(LOSS)
    asked = lives.standing
    looks: list[str] = []

    async def and_retire(lane: Lane, one: UUID, **how: Any) -> lives.Standing:
        stands = await asked(lane, one, **how)
        looks.append(stands.state)
        if len(looks) == 1:
            await lane.script("leave", lane.place.registry, str(worker.id))
        return stands

    monkeypatch.setattr(lives, "standing", and_retire)
    monkeypatch.setattr(sweep, "standing", and_retire)
    if call == "claim":
        assert await store.claim(worker.id, 1, ["mail"], 5) == Claims([], "gone")
    else:
        assert await store.reclaim(worker.id, 5) == []
    assert looks[0] == "live", "it was retired before: nothing was tried"
    monkeypatch.undo()
    assert await keys.redis.hkeys(keys.of("mail", "workers")) == []
    assert (await state(store, queued), (await record(store, job.id)).worker) == ("queued", dead.id)


async def test_a_sweeper_that_is_not_steady_any_more_takes_nothing_of_the_silent(store: Store) -> None:
    """It was, when it looked at how much there is to do."""
    worker, sweeper = await hand(store), await hand(store)
    job = await running(store, worker)
    await stored(store, draft(queue=job.queue))
    await sweeper.claim(1, [job.queue])  # it has joined
    await keep_beating([sweeper], 2 * LEASE)
    lane = store._opened().work  # type: ignore[attr-defined]  # noqa: SLF001
    args = (LEASE, str(sweeper.id), 10, "silent", 1_000_000, "", "")
    store.shift += LEASE // 2 + 1
    assert await lane.script("reclaim", queue_keys(lane.place, job.queue), *args) == []
    await keep_beating([sweeper], 2 * LEASE)
    assert len(await lane.script("reclaim", queue_keys(lane.place, job.queue), *args)) == 1


async def test_a_lease_that_lies_too_far_ahead_is_cut_in_the_registry_too(store: Store, keys: Keys) -> None:
    """The clock was stepped back: a worker that dies then would count as live until the old time is reached again."""
    store.shift += DAY
    dead = await hand(store)
    await dead.beat()
    store.shift -= DAY
    sweeper = await steady_hand(store)
    assert await dead.refusal() is None, "its lease is over already: nothing was tried"
    await sweeper.reclaim()
    await keep_beating([sweeper], LEASE + 1)
    assert await dead.refusal() == "expired"
    assert await sweeper.refusal() is None


async def test_a_worker_that_came_back_is_not_taken_out_of_the_registry(store: Store) -> None:
    """Between the look at whose rows are over, and taking them out."""
    worker, gone = await hand(store), await hand(store)
    store.shift += 2 * DAY
    assert await worker.beat()
    lane = store._opened().work  # type: ignore[attr-defined]  # noqa: SLF001
    assert await lane.script("forget", lane.place.registry, str(worker.id), str(gone.id)) == 1
    assert (await worker.beat(), await gone.beat()) == (True, False)


async def test_what_a_worker_held_and_used_is_forgotten_with_it(store: Store, prefix: Prefix) -> None:
    place = store._place  # type: ignore[attr-defined]  # noqa: SLF001
    stays = await hand(store)
    held = await running(store, stays)
    async with process(prefix) as elsewhere:
        for end in (store.retire, elsewhere.retire):
            worker = await hand(store)
            job = await running(store, worker)
            assert place.whereabouts.held(job.id) is not None
            assert worker.id in place.tickets
            await end(worker.id)
            assert (await store.beat([worker.id])).gone == {worker.id}
            assert place.whereabouts.held(job.id) is None
            assert place.whereabouts.queue_of(job.id) == job.queue
            assert worker.id not in place.tickets
    assert place.whereabouts.held(held.id) is not None
    assert stays.id in place.tickets


async def test_a_registry_that_forgot_its_queues_learns_them_from_who_works_there(store: Store, keys: Keys) -> None:
    worker = await hand(store)
    await running(store, worker, queue="mail")
    await keys.redis.delete(keys.registry("queues"))
    assert await worker.beat()
    assert await keys.names() == {"mail"}


# --- promote


@pytest.mark.parametrize("protocol", [2, 3])
async def test_the_earliest_of_all_queues_are_promoted_first(prefix: Prefix, protocol: int) -> None:
    delays = {"a": [1, 4, 5], "b": [2, 3, 9], "c": [6, 7, 8]}
    async with process(prefix, f"&protocol={protocol}") as store:
        for queue, some in delays.items():
            await stored(store, *(draft(queue=queue, delay=delay) for delay in some))
        store.shift += 20
        assert await store.promote(4) == Promoted(4, 0)
        promoted = Counter(row.queue for row in await listing(store, Where(states=[State.QUEUED])))
        assert promoted == {"a": 2, "b": 2}
        assert await store.promote(100) == Promoted(5, None)


async def test_the_next_due_of_all_queues_is_told(store: Store) -> None:
    await stored(store, draft(queue="a", delay=7 * SECOND), draft(queue="b", delay=3 * SECOND))
    assert await store.promote(10) == Promoted(0, 3 * SECOND)
    store.shift += 3 * SECOND
    assert await store.promote(10) == Promoted(1, 4 * SECOND)


async def test_a_job_that_is_scheduled_by_an_index_alone_is_not_queued(store: Store, keys: Keys) -> None:
    job = await running(store, await hand(store))
    await keys.redis.zadd(keys.of(job.queue, "due"), {str(job.id): 1})
    assert await store.promote(10) == Promoted(0, None)
    assert await state(store, job.id) == "running"
    assert await keys.redis.zcard(keys.of(job.queue, "ready")) == 0


# --- notes


async def test_a_late_note_of_another_worker_under_the_same_number_is_not_heard(store: Store) -> None:
    """As after a failover that forgot a claim: job and fence agree, the worker does not."""
    worker, other = await hand(store), await hand(store)
    job = await running(store, worker)
    await finish(store, job, Succeeded(b"1"))
    assert await store.note([Note(job.id, job.fence, other.id, 0.7, "theirs", ((0, "theirs"),))]) == [False]
    assert ((await record(store, job.id)).progress, await store.log(job.id)) == (None, [])
    await store.note([Note(job.id, job.fence, worker.id, 0.5, "ours", ((0, "ours"),))])
    assert [line.text for line in await store.log(job.id)] == ["ours"]


# --- what is pruned


async def test_a_prune_reads_no_mailbox_but_those_that_its_jobs_are_spoken_of_in(store: Store, keys: Keys) -> None:
    """There may be thousands. Another program's key stands in the place of one: it is not met."""
    worker, other = await hand(store), await hand(store)
    job = await running(store, worker, queue="mail", terms=Terms(keep=0))
    await stored(store, draft())
    await other.claim(1, ["mail"])
    await finish(store, job, Succeeded(b"1"))
    await keys.redis.set(keys.of("mail", f"mail:{other.id}"), "another program's")
    store.shift += TOMBSTONE
    assert await store.prune(10) == 1


@pytest.mark.parametrize("deleted", [False, True], ids=["pruned", "deleted first"])
async def test_that_a_job_was_lost_is_told_until_the_job_is_pruned(store: Store, deleted: bool) -> None:
    workers, sweeper = [await hand(store), await hand(store)], await hand(store)
    job = await running(store, workers[0], queue="mail", terms=Terms(keep=0))
    lost = []
    for worker in workers:  # one after the other
        lost.append(Line(worker.id, "lost", job.id, job.fence))
        await keep_beating([sweeper], 2 * LEASE)
        assert await sweeper.sweep() == [job.id]
        await workers[1].beat()
        [job] = await workers[1].claim(1, ["mail"])
    ids = [worker.id for worker in workers]
    assert sorted(await store.mail(ids)) == sorted(lost)
    await finish(store, job._replace(terms=Terms(keep=0)), Succeeded(b"1"))
    if deleted:
        assert list(await store.delete([job.id])) == ["deleted"]
    store.shift += TOMBSTONE
    assert await store.prune(10) == 1
    assert await store.mail(ids) == []


# --- many jobs: no script is long


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """Every script that is asked for: its name and what it is told."""
    asked: list[tuple[str, Any]] = []
    step = Lane.step

    def and_note(lane: Lane, name: str, keys: Any, args: Any = ()) -> Any:
        asked.append((name, args))
        return step(lane, name, keys, args)

    monkeypatch.setattr(Lane, "step", and_note)
    return asked


async def test_no_script_moves_or_deletes_more_than_100_jobs(
    store: Store, prefix: Prefix, scripts: list[tuple[str, Any]]
) -> None:
    worker, sweeper = await hand(store), await hand(store)
    ids = await stored(store, *(draft(delay=1, terms=Terms(keep=0)) for _ in range(250)))
    store.shift += 1
    assert await store.promote(250) == Promoted(250, None)
    assert len(await worker.claim(250)) == 250
    await worker.retire(LOSS)
    taken = await sweeper.reclaim(250)
    assert set(taken) == set(ids)
    assert await sweeper.reclaim(250) == taken
    assert await asyncio.to_thread(wrongs, prefix) == []
    await store.finish([decide(job, Succeeded(b"1")) for job in taken.values()])
    store.shift += TOMBSTONE
    assert await store.prune(250) == 250
    assert await asyncio.to_thread(wrongs, prefix) == []
    sizes = {
        "promote": [args[0] for name, args in scripts if name == "promote" and args[0]],
        "reclaim": [args[2] for name, args in scripts if name == "reclaim" and args[2]],
        "prune": [args[0] for name, args in scripts if name == "prune"],
    }
    assert sizes == {"promote": [100, 100, 50], "reclaim": [100, 100, 50] * 2, "prune": [100, 100, 50]}


async def test_a_limit_is_kept_over_all_queues(store: Store) -> None:
    worker, sweeper = await hand(store), await hand(store)
    for queue in ("a", "b", "c"):
        await stored(store, *(draft(queue=queue, terms=Terms(keep=0)) for _ in range(4)))
    assert len(await worker.claim(12)) == 12
    await worker.retire(LOSS)
    first = await sweeper.reclaim(7)
    assert len(first) == 7
    assert await sweeper.reclaim(7) == first
    taken = await sweeper.reclaim(100)
    assert len(taken) == 12
    await store.finish([decide(job, Succeeded(b"1")) for job in taken.values()])
    store.shift += TOMBSTONE
    assert [await store.prune(5) for _ in range(4)] == [5, 5, 2, 0]


async def test_sweepers_with_large_payloads_take_them_in_several_scripts(
    store: Store, scripts: list[tuple[str, Any]]
) -> None:
    worker, sweeper = await hand(store), await hand(store)
    for _ in range(6):
        await stored(store, draft(payload=b"x" * 1_500_000))
    assert len(await worker.claim(6)) == 6
    await worker.retire(LOSS)
    taken = await sweeper.reclaim()
    assert len(taken) == 6
    assert await sweeper.reclaim() == taken
    assert sum(name == "reclaim" and args[3] == "retired" for name, args in scripts) == 2


# --- what a passing crowd leaves behind


async def _pass_through(store: Store, worker: Hand, number: int) -> None:
    """So many jobs are enqueued, claimed and finished, and stay for their time."""
    ids = await stored(store, *(draft(terms=Terms(keep=0)) for _ in range(number)))
    jobs = await worker.claim(number)
    assert len(jobs) == len(ids)
    settled = await store.finish([decide(job, Succeeded(b"1")) for job in jobs])
    assert {each.answer for each in settled} == {"accepted"}


async def _prune_all(store: Store) -> int:
    pruned = 0
    while some := await store.prune(500):
        pruned += some
    return pruned


async def test_finished_jobs_pass_through_and_leave_no_key_behind(store: Store, keys: Keys) -> None:
    worker = await hand(store)
    await _pass_through(store, worker, 10)
    store.shift += TOMBSTONE
    await worker.beat()
    assert await _prune_all(store) == 10
    left = await keys.all("mail")
    for _ in range(4):
        await _pass_through(store, worker, 500)
        store.shift += TOMBSTONE
        await worker.beat()
        assert await _prune_all(store) == 500
        assert await keys.all("mail") == left


@pytest.mark.soak
@pytest.mark.timeout(3600)
async def test_four_million_finished_jobs_pass_and_no_prune_holds_up_the_server(prefix: Prefix) -> None:
    from tools.servers import Valkey

    with Valkey() as server:
        async with process(Prefix("holdfast", server.url)) as store:
            await _pass_four_million(store, Redis.from_url(server.url, decode_responses=True))


async def _pass_four_million(store: Store, redis: Redis) -> None:
    worker = await hand(store)
    memory: list[int] = []
    spent: list[float] = []  # ms of the server's own time for each step of a janitor: one script that deletes, or two
    try:
        for n in range(200):
            for _ in range(10):
                await _pass_through(store, worker, 2_000)
            store.shift += TOMBSTONE // 2  # so that those of two rounds are kept at any time
            await worker.beat()
            for _ in range(200 if n else 0):
                before = await _busy(redis)
                assert await store.prune(100) == 100
                spent.append(await _busy(redis) - before)
            assert await store.prune(100) == 0
            memory.append(int((await redis.info("memory"))["used_memory"]))
            if n % 20 == 0:
                print(
                    f"{(n + 1) * 20_000:,} jobs, {memory[-1]:,} bytes, at most {max(spent, default=0):.1f} ms at a time"
                )
    finally:
        await redis.aclose()
    spent.sort()
    assert spent[-len(spent) // 1000] < 5, f"prune holds up the server for too long: {spent[-40:]}"
    assert max(memory[2:]) < 1.2 * memory[1], f"memory grows: {memory}"


async def _busy(redis: Redis) -> float:
    """The server's time on the processor so far, in ms: what else the machine does is not in it."""
    cpu = await redis.info("cpu")
    return 1000 * (float(cpu["used_cpu_user_main_thread"]) + float(cpu["used_cpu_sys_main_thread"]))


# --- names of queues


async def _work_off(store: Store, worker: Hand, queue: str) -> None:
    [job] = await worker.claim(1, [queue])
    await finish(store, job._replace(terms=Terms(keep=0)), Succeeded(b"1"))


async def _until_empty(store: Store) -> None:
    """Nothing but the queue's name is left to be pruned, with the next prune."""
    worker = await hand(store)
    await stored(store, draft(queue="gone", terms=Terms(keep=0)))
    await _work_off(store, worker, "gone")
    await worker.retire()
    store.shift += HOUR
    assert await store.prune(10) == 1


async def test_a_queue_that_nobody_uses_any_more_is_forgotten_without_a_trace(store: Store, keys: Keys) -> None:
    await _until_empty(store)
    await stored(store, draft(queue="stays"))
    assert await keys.names() == {"gone", "stays"}
    assert await store.prune(10) == 0
    assert await keys.names() == {"stays"}
    assert await keys.all("gone") == []
    assert not await keys.redis.exists(keys.registry("leaving"))


@pytest.mark.parametrize("by", ["operator", "worker"])
async def test_a_queue_that_is_declared_is_not_forgotten(store: Store, keys: Keys, by: Any) -> None:
    await _until_empty(store)
    await store.configure({"gone": QueueTerms(5)}, by)
    await store.prune(10)
    assert await keys.names() == {"gone"}
    stats = await stats_of(store, "gone")
    assert stats is not None
    assert stats.terms.max_size == 5


STEPS = ["SADD", "EXISTS", "SREM"]  # put aside, looked at once more, forgotten


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("what", ["enqueued", "declared"])
async def test_a_queue_that_comes_back_while_its_name_is_taken_out_is_known(
    store: Store, prefix: Prefix, monkeypatch: pytest.MonkeyPatch, step: str, moment: str, what: str
) -> None:
    """Another process uses it again between any two steps of the prune."""
    async with process(prefix) as producer, process(prefix) as reader:
        await _until_empty(store)
        producer.shift = reader.shift = store.shift
        await stored(producer, once := draft(queue="gone", terms=Terms(keep=0)))  # it has said the name
        await producer.cancel([once.id])
        for each in (producer, reader, store):
            each.shift += TOMBSTONE
        assert await store.prune(10) == 1
        back: list[UUID] = []
        commands = Lane.commands

        async def come_back() -> None:
            if what == "declared":
                await producer.configure({"gone": QueueTerms(7)}, "worker")
                back.append(uuid4())
            else:
                back.extend(await stored(producer, draft(queue="gone")))

        async def watched(lane: Lane, some: Any) -> Any:
            mine = lane.place is store._place and bool(some) and some[0][0] == step  # type: ignore[attr-defined]  # noqa: SLF001
            if mine and moment == "before" and not back:
                await come_back()
            replies = await commands(lane, some)
            if mine and moment == "after" and not back:
                await come_back()
            return replies

        monkeypatch.setattr(Lane, "commands", watched)
        assert await store.prune(10) == 0
        assert back, f"{step} was never asked for"
        monkeypatch.undo()
        await store.prune(10)
        if what == "declared":
            assert (await stats_of(reader, "gone")) is not None
        else:
            assert await exists(reader, back[0])
            assert [job.id for job in await (await hand(reader)).claim()] == back


@pytest.mark.parametrize("back", [True, False])
async def test_who_dies_while_he_takes_a_name_out_leaves_it_to_the_next(
    store: Store, prefix: Prefix, keys: Keys, monkeypatch: pytest.MonkeyPatch, back: bool
) -> None:
    await _until_empty(store)
    commands = Lane.commands

    async def dies(lane: Lane, some: Any) -> Any:
        if some and some[0][0] == "EXISTS":
            raise StoreError("dead")
        return await commands(lane, some)

    monkeypatch.setattr(Lane, "commands", dies)
    with pytest.raises(StoreError, match="dead"):
        await store.prune(10)
    monkeypatch.undo()
    assert await keys.names() == set()
    if back:  # by a producer that has said the name and died before it could say it again
        async with process(prefix) as producer:
            await stored(producer, draft(queue="gone"))
        await keys.redis.srem(keys.registry("queues"), "gone")
    await store.prune(10)
    assert await keys.names() == ({"gone"} if back else set())
    assert not await keys.redis.exists(keys.registry("leaving"))


# --- rows that are over


async def test_the_row_of_a_worker_stays_in_the_registry_while_any_queue_has_a_job_under_it(
    store: Store, keys: Keys
) -> None:
    worker = await hand(store)
    job, other = await running(store, worker), await running(store, worker)
    store.shift += DAY
    await store.prune(10)
    assert await worker.beat()
    for done in (job, other):
        store.shift += DAY
        assert await keys.redis.hexists(keys.registry("workers"), str(worker.id))
        await finish(store, done, Succeeded(b"1"))
        await store.prune(10)
    assert not await keys.redis.hexists(keys.registry("workers"), str(worker.id))
    assert not await keys.redis.hexists(keys.registry("facts"), str(worker.id))


async def test_thousands_of_workers_rows_are_looked_at_in_parts(store: Store, keys: Keys) -> None:
    await stored(store, draft())
    workers = [Hand(store) for _ in range(1500)]
    await asyncio.gather(*(store.register(worker.id, None, {}) for worker in workers))
    await asyncio.gather(*(worker.retire(LOSS) for worker in workers))
    assert await keys.redis.hlen(keys.of("mail", "losses")) == 1500
    store.shift += HOUR
    await store.prune(10)
    assert await keys.redis.hlen(keys.of("mail", "losses")) == 0
    assert await keys.redis.hlen(keys.registry("workers")) == 0


# --- notes


async def test_notes_of_many_queues_in_one_call_are_answered_in_order(store: Store) -> None:
    worker = await hand(store)
    jobs = [await running(store, worker, queue=f"q{n % 3}") for n in range(250)]
    notes = [Note(job.id, job.fence + (n % 5 == 0), worker.id, progress=n / 250) for n, job in enumerate(jobs)]
    assert list(await store.note(notes)) == [n % 5 != 0 for n in range(250)]
    assert (await record(store, jobs[249].id)).progress == 249 / 250


async def test_a_note_about_a_job_that_no_queue_has_is_not_heard(store: Store) -> None:
    job = await running(store, await hand(store))
    notes = [Note(uuid4(), 1, job.worker, text="who?"), Note(job.id, job.fence, job.worker, text="me")]
    assert list(await store.note(notes)) == [False, True]
