"""Claims and outcomes on Redis: replies that get lost, words that come late, large batches, a server that is full."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import pytest
from redis import Redis

from holdfast.clock import MINUTE
from holdfast.errors import StoreAway, StoreError
from holdfast.job import TOMBSTONE, Cancelled, Claim, Failed, Failure, Note, Released, State, Succeeded, Terms
from holdfast.policy import decide
from holdfast.store import LEASE, Answer, Claims, Settled, Store
from holdfast.stores import open_store
from holdfast.stores.redis import claim, queues
from holdfast.stores.redis.claim import _step
from holdfast.stores.redis.lane import Lane
from holdfast.stores.redis.place import queue_keys
from tests import servers
from tests.flows.proxy import Proxy
from tests.flows.resp import resp, tapped
from tests.servers.prefixes import Prefix
from tests.store.acts import (
    BOOM,
    FINAL_BOOM,
    LOSS,
    PATIENCE,
    Hand,
    bound,
    draft,
    finish,
    hand,
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
from tools.servers import Valkey

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]


@pytest.fixture
def prefix() -> Iterator[Prefix]:
    """At the end its indexes must fit its jobs, whatever a test did to them."""
    with servers.valkey().bare() as prefix:
        yield prefix
        assert wrongs(prefix) == []


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Store]:
    """As another process has it: it shares no memory with other stores. Its time stands still."""
    store = open_store(url)
    store._place.clock = STANDS_STILL  # type: ignore[attr-defined]  # noqa: SLF001
    await store.open()
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture
async def store(prefix: Prefix) -> AsyncIterator[Store]:
    async with opened(prefix.url) as store:
        yield store


@pytest.fixture
def proxy(prefix: Prefix) -> Iterator[Proxy]:
    server = urlsplit(prefix.server)
    with resp(server.hostname or "127.0.0.1", server.port or 6379) as proxy:
        yield proxy


@pytest.fixture
async def distant(prefix: Prefix, proxy: Proxy) -> AsyncIterator[Store]:
    """The same place behind the proxy."""
    async with opened(prefix.url.replace(str(urlsplit(prefix.server).port), str(proxy.port), 1)) as store:
        yield store


def hand_of(store: Store, worker: Hand) -> Hand:
    """The same worker, who speaks through another store."""
    again = Hand(store)
    again.id, again.ticket = worker.id, worker.ticket
    return again


def lose_next(proxy: Proxy) -> None:
    """The next reply is lost, and none after it."""
    keeps = proxy.keeps

    def loses() -> bool:
        proxy.keeps = keeps  # type: ignore[method-assign]
        proxy.lost += 1
        return False

    proxy.keeps = loses  # type: ignore[method-assign]


# --- late words


@pytest.mark.parametrize("late", [Succeeded(b"late"), BOOM, FINAL_BOOM, Cancelled("late")])
async def test_a_late_done_after_the_job_was_given_to_someone_else(store: Store, late: Any) -> None:
    """It was rescued from a worker that was silent, and given back. asynq takes its word by the job's id alone."""
    silent, next_one = await hand(store), await hand(store)
    mine = await running(store, silent)
    await (await steady_hand(store)).sweep()
    await next_one.beat()
    [theirs] = await next_one.claim(1, [mine.queue])
    before = await listing(store)
    own = await running(store, next_one)
    assert list(await store.finish([decide(mine, late), decide(own, Succeeded(b"2"))])) == [
        Settled(Answer.STALE),
        Settled(Answer.ACCEPTED, State.SUCCEEDED),
    ]
    assert [job for job in await listing(store) if job.id == mine.id] == before
    assert (await finish(store, theirs, Succeeded(b"in time"))).answer == "accepted"
    assert await finish(store, mine, late) == Settled(Answer.STALE)
    assert (await record(store, mine.id)).result == b"in time"


async def test_of_two_who_hold_the_same_number_only_one_is_heard(store: Store) -> None:
    """As after a failover that forgot a claim: job and fence agree, the worker does not."""
    worker, other = await hand(store), await hand(store)
    job = await running(store, worker)
    assert await finish(store, job._replace(worker=other.id), Succeeded(b"theirs")) == Settled(Answer.STALE)
    assert await finish(store, job, Succeeded(b"ours")) == Settled(Answer.ACCEPTED, State.SUCCEEDED)


# --- the same id in two queues


async def test_of_two_jobs_of_one_id_a_worker_holds_one_and_the_other_waits(
    store: Store, prefix: Prefix, caplog: pytest.LogCaptureFixture
) -> None:
    """Two processes that do not know of each other made them. Outcomes say ids alone."""
    one = draft(queue="a", payload=b"A")
    async with opened(prefix.url) as other:
        await stored(store, one)
        await stored(other, replace(one, queue="b", payload=b"B"))
    async with opened(prefix.url) as service:
        worker = await hand(service)
        [job] = await worker.claim(9, ["a"])
        for _ in range(3):
            claims = await service.claim(worker.id, worker.ticket, ["b"], 9)
            assert list(claims.jobs) == []
            worker.ticket += 1
            service.shift += MINUTE
            assert (await service.promote(9)).moved == 1
            await worker.beat()
        assert caplog.text.count("same id") == 1
        assert await finish(service, job, Succeeded(b"of a")) == Settled(Answer.ACCEPTED, State.SUCCEEDED)
        [job] = await worker.claim(9, ["b"])
        assert (job.id, job.queue, job.payload, job.attempt) == (one.id, "b", b"B", 1)
        assert await finish(service, job, Succeeded(b"of b")) == Settled(Answer.ACCEPTED, State.SUCCEEDED)
    with Redis.from_url(prefix.server) as redis:
        results = [redis.hget(f"{{{prefix.name}:{queue}}}:job:{one.id}", "result") for queue in "ab"]
    assert results == [b"of a", b"of b"]


async def test_of_two_jobs_of_one_id_a_sweeper_settles_one_after_the_other(store: Store, prefix: Prefix) -> None:
    one = draft(queue="a")
    async with opened(prefix.url) as other:
        dead = await hand(other)
        await stored(other, replace(one, queue="b"))
        await dead.claim(1, ["b"])
        await dead.retire(LOSS)
    await stored(store, one)
    sweeper = await hand(store)
    [job] = await sweeper.claim(9, ["a"])
    for _ in range(2):
        assert await sweeper.reclaim() == {}
    assert await finish(store, job, Succeeded(b"1")) == Settled(Answer.ACCEPTED, State.SUCCEEDED)
    assert [(job.queue, job.loss) for job in (await sweeper.reclaim()).values()] == [("b", LOSS)]
    assert await sweeper.sweep() == [one.id]


# --- an acknowledgement whose retry is dead


@pytest.mark.parametrize("verdict", [Succeeded(b"1"), BOOM, Released()], ids=["success", "failure", "release"])
async def test_an_acknowledgement_whose_reply_is_lost_is_repeated_and_counts_once(
    store: Store, distant: Store, proxy: Proxy, verdict: Any
) -> None:
    worker = await hand(store)
    job = await running(store, worker)
    await distant.finish([decide(job, verdict)._replace(fence=9)])  # its lane stands, and it knows the queue
    lose_next(proxy)
    [settled] = await distant.finish([decide(job, verdict)])
    assert proxy.lost == 1, "no reply was lost: nothing was tried"
    assert settled == Settled(Answer.REPLAYED, decide(job, verdict).state)
    assert len((await record(store, job.id)).history) == (0 if isinstance(verdict, Succeeded) else 1)


@pytest.mark.parametrize("verdict", [Succeeded(b"1"), BOOM], ids=["success", "failure"])
async def test_an_acknowledgement_of_which_nothing_was_heard_can_be_made_again(
    store: Store, distant: Store, proxy: Proxy, verdict: Any
) -> None:
    job = await running(store, await hand(store))
    outcome = decide(job, verdict)
    await distant.finish([outcome._replace(fence=9)])  # its lane stands, and it knows the queue
    proxy.lose_every = 1
    with pytest.raises(StoreAway) as away:
        await distant.finish([outcome])
    assert not away.value.certain
    proxy.lose_every = 0
    assert list(await distant.finish([outcome])) == [Settled(Answer.REPLAYED, outcome.state)]
    assert await state(store, job.id) == outcome.state


async def test_an_acknowledgement_whose_caller_has_left_can_be_made_by_another(
    store: Store, distant: Store, proxy: Proxy
) -> None:
    """In asynq the retry carries the context of the first try, which is over by then."""
    job, other = await running(store, await hand(store)), await running(store, await hand(store))
    proxy.deaf = True
    leaving = asyncio.ensure_future(distant.finish([decide(job, BOOM)]))
    await asyncio.sleep(0)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    proxy.deaf = False
    async with asyncio.timeout(PATIENCE):
        settled = await distant.finish([decide(job, BOOM), decide(other, Succeeded(b"1"))])
    assert [each.state for each in settled] == ["scheduled", "succeeded"]
    assert {each.answer for each in settled} <= {"accepted", "replayed"}
    assert len((await record(store, job.id)).history) == 1


# --- claims whose replies are lost


@pytest.mark.parametrize("queues", [["mail"], ["mail", "other"], None], ids=["one queue", "two", "all"])
async def test_a_claim_of_which_nothing_was_heard_strands_no_job(
    store: Store, distant: Store, proxy: Proxy, queues: list[str] | None
) -> None:
    ids = await stored(store, *(draft(queue=name) for name in ("mail", "other") for _ in range(3)))
    wanted = 3 if queues == ["mail"] else 6
    worker = hand_of(distant, await hand(store))
    await distant.claim(worker.id, 1, ["none"], 1)  # its lane stands
    proxy.lose_every = 1
    with pytest.raises(StoreAway):
        await worker.claim(10, queues)
    proxy.lose_every = 0
    taken: list[Claim] = []
    for _ in range(4):
        claims = await distant.claim(worker.id, worker.ticket, queues, 10)
        assert claims.refused in (None, "used")
        taken += claims.jobs
        worker.ticket += 1 if claims.refused or claims.jobs else 0
    assert len(taken) == wanted
    assert {job.id for job in taken} <= set(ids)
    answers = await store.finish([decide(job, Succeeded(b"1")) for job in taken])
    assert [each.answer for each in answers] == ["accepted"] * wanted


async def test_the_first_repeat_of_a_claim_returns_what_the_lost_one_took(
    store: Store, distant: Store, proxy: Proxy
) -> None:
    ids = await stored(store, *(draft(priority=n) for n in range(3)))
    worker = hand_of(distant, await hand(store))
    [first] = await worker.claim(1, ["mail"])
    lose_next(proxy)
    [second] = await worker.claim(1, ["mail"])
    assert proxy.lost == 1, "no reply was lost: nothing was tried"
    assert [first.id, second.id] == [ids[2], ids[1]]
    assert (second.fence, second.attempt, second.claimed_at) == (1, 1, (await record(store, second.id)).started_at)
    assert Counter(job.state for job in await listing(store)) == {"running": 2, "queued": 1}


async def test_a_copy_of_a_claim_that_was_given_up_takes_nothing_when_it_comes_late(
    store: Store, distant: Store, proxy: Proxy
) -> None:
    """The call may still be on its way when its worker asks again."""
    [first] = await stored(store, draft())
    worker = hand_of(distant, await hand(store))
    assert (await worker.take()).id == first
    proxy.lose_every = 1
    with pytest.raises(StoreAway):
        await worker.claim(1, ["mail"])  # there was nothing to take
    proxy.lose_every = 0
    late = worker.ticket * 1000
    [job] = await stored(store, draft())
    claims = await distant.claim(worker.id, worker.ticket, ["mail"], 1)
    assert (list(claims.jobs), claims.refused) == ([], "used")
    with store._flight() as lanes:  # type: ignore[attr-defined]  # noqa: SLF001
        assert await lanes.claim.ask([_step(lanes.claim, worker.id, "mail", late, 10)]) == [b"stamp"]
    assert await state(store, job) == "queued"
    worker.ticket += 1
    assert [each.id for each in await worker.claim(1, ["mail"])] == [job]


async def test_a_claim_that_was_repeated_and_took_nothing_takes_nothing_when_its_first_copy_comes_late(
    store: Store, distant: Store, proxy: Proxy
) -> None:
    """The lane asks again by itself. What it asked first may still be on its way, when the queue has jobs."""
    await stored(store, draft())
    worker = hand_of(distant, await hand(store))
    await worker.take()
    lose_next(proxy)
    assert await worker.claim(1, ["mail"]) == []
    assert proxy.lost == 1, "no reply was lost: nothing was tried"
    late = worker.ticket * 1000
    [elsewhere] = await stored(store, draft(queue="other"))
    claims = await distant.claim(worker.id, worker.ticket, ["other"], 1)
    if claims.refused == "used":
        worker.ticket += 1
        claims = await distant.claim(worker.id, worker.ticket, ["other"], 1)
    assert [job.id for job in claims.jobs] == [elsewhere]
    [job] = await stored(store, draft())
    with store._flight() as lanes:  # type: ignore[attr-defined]  # noqa: SLF001
        assert await lanes.claim.ask([_step(lanes.claim, worker.id, "mail", late, 10)]) == [b"stamp"]
    assert await state(store, job) == "queued"
    worker.ticket += 1
    assert [each.id for each in await worker.claim(1, ["mail"])] == [job]


async def test_a_claim_at_the_very_end_of_the_lease_takes_nothing(store: Store) -> None:
    worker = await hand(store)
    await running(store, worker, queue="mail")
    await stored(store, draft())
    store.shift += LEASE
    assert await store.claim(worker.id, worker.ticket, ["mail"], 1) == Claims([], "expired")
    store.shift -= 1
    assert len(await worker.claim(1, ["mail"])) == 1


async def test_a_job_that_is_claimed_again_does_not_free_the_key_that_is_anothers_now(store: Store) -> None:
    worker = await hand(store)
    first, second, third = (keyed(until="started", on_clash="return") for _ in range(3))
    await stored(store, first)
    job = await worker.take()
    await stored(store, replace(second, delay=MINUTE))
    await finish(store, job, Released())
    assert (await worker.take()).id == first.id
    assert (await store.enqueue([third]))[0].holder == second.id


async def test_a_queue_whose_name_was_lost_is_known_again_by_who_claims_there(
    store: Store, prefix: Prefix, monkeypatch: pytest.MonkeyPatch
) -> None:
    time = 1000.0
    monkeypatch.setattr(queues, "monotonic", lambda: time)
    await stored(store, *(draft() for _ in range(9)))
    names = f"{{{prefix.name}}}:queues"
    with Redis.from_url(prefix.server) as redis:
        async with opened(prefix.url) as service:
            worker = await hand(service)
            await worker.claim(1, ["mail"])
            for later, wanted in ((0, {b"mail"}), (59, set()), (2, {b"mail"})):
                redis.delete(names)
                time += later
                await worker.claim(1, ["mail"])
                assert redis.smembers(names) == wanted


async def test_a_worker_that_speaks_through_another_process_goes_on_with_its_tickets(
    store: Store, prefix: Prefix
) -> None:
    await stored(store, *(draft(queue=name) for name in "aab"))
    worker = await hand(store)
    [first] = await worker.claim(1, ["a"])
    async with opened(prefix.url) as elsewhere:
        there = hand_of(elsewhere, worker)
        assert list((await elsewhere.claim(worker.id, 1, ["b"], 9)).jobs) == [first]
        assert [job.queue for job in await there.claim(9)] == ["a", "b"]


async def test_a_queue_that_refuses_does_not_hold_up_the_others(prefix: Prefix, store: Store) -> None:
    """As one whose keys are on their way to another server, or were written by somebody else."""
    ids = await stored(store, *(draft(queue="whole") for _ in range(4)), draft(queue="broken"))
    worker = await hand(store)
    broken = f"{{{prefix.name}:broken}}:ready"
    with Redis.from_url(prefix.server) as redis:
        redis.rename(broken, f"{broken}-aside")
        redis.set(broken, "nothing of ours")
        taken: list[Claim] = []
        refused = 0
        for _ in range(9):
            try:
                taken += await worker.claim(1)
            except StoreError:
                refused += 1
        assert [job.id for job in taken] == ids[:4]
        assert refused, "the broken queue was never asked: nothing was tried"
        redis.rename(f"{broken}-aside", broken)
    assert [job.id for job in await worker.claim()] == ids[4:]


async def test_a_queue_that_refuses_after_an_unclear_claim_does_not_hold_up_the_others(
    prefix: Prefix, store: Store, distant: Store, proxy: Proxy
) -> None:
    ids = await stored(store, draft(queue="whole"), draft(queue="whole"), draft(queue="broken"))
    worker = hand_of(distant, await hand(store))
    assert [job.id for job in await worker.claim(1, ["whole"])] == ids[:1]
    proxy.lose_every = 1
    with pytest.raises(StoreAway):
        await distant.claim(worker.id, worker.ticket, ["broken"], 1)
    proxy.lose_every = 0
    rows = f"{{{prefix.name}:broken}}:workers"
    with Redis.from_url(prefix.server) as redis:
        there = redis.exists(rows)
        if there:
            redis.rename(rows, f"{rows}-aside")
        redis.set(rows, "nothing of ours")
        for _ in range(2):
            claims = await distant.claim(worker.id, worker.ticket, ["whole"], 1)
            if claims.refused == "used":
                worker.ticket += 1
                continue
            break
        assert [job.id for job in claims.jobs] == ids[1:2]
        redis.delete(rows)
        if there:
            redis.rename(f"{rows}-aside", rows)
        worker.ticket += 1
        for _ in range(3):
            claims = await distant.claim(worker.id, worker.ticket, ["broken"], 1)
            if claims.jobs:
                break
            worker.ticket += 1
        assert [job.id for job in claims.jobs] == ids[2:]


async def test_what_other_queues_gave_is_not_told_while_one_of_them_is_unclear(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It took jobs perhaps, under this very ticket: all of them are returned when it is used again."""
    ids = await stored(store, *(draft(queue=queue) for queue in "aabb"))
    worker = await hand(store)
    asked = claim._Taking.asked  # noqa: SLF001

    async def and_lose(taking: Any, queue: str, limit: int, beside: Any = ()) -> Any:
        replies = await asked(taking, queue, limit, beside)
        if queue == "b" and replies[0] != b"stranger":
            with claim._unclear(taking.lane, worker.id, worker.ticket, queue):  # noqa: SLF001
                raise StoreAway("the reply was lost")
        return replies

    monkeypatch.setattr(claim._Taking, "asked", and_lose)  # noqa: SLF001
    with pytest.raises(StoreAway):
        await worker.claim(9, ["a", "b"])
    monkeypatch.undo()
    assert {job.id for job in await worker.claim(9, ["a", "b"])} == set(ids)


# --- batches


async def test_a_claim_of_large_jobs_is_taken_in_parts(prefix: Prefix, store: Store) -> None:
    ids = await stored(store, *(draft(payload=b"x" * 1_500_000) for _ in range(7)))
    calls: list[list[bytes]] = []
    server = urlsplit(prefix.server)
    with Proxy(server.hostname or "127.0.0.1", server.port or 6379, tapped(calls.append)) as proxy:
        async with opened(prefix.url.replace(str(server.port), str(proxy.port), 1)) as distant:
            worker = hand_of(distant, await hand(store))
            calls.clear()
            jobs = await worker.claim(6, ["mail"])
            stamps = {b"%070d" % (1000 + part) for part in range(9)}
            scripts = [call for call in calls if stamps.intersection(call)]
    assert [job.id for job in jobs] == sorted(ids)[:6]
    assert {len(job.payload) for job in jobs} == {1_500_000}
    assert len(scripts) - 1 == 2, "9 MB, about 4 MB each; the first was asked as a stranger before"
    assert [job.id for job in await hand_of(store, worker).claim(9, ["mail"])] == sorted(ids)[6:]


async def test_large_results_and_notes_are_written_in_parts(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    step = Lane.step

    def and_note(lane: Lane, name: str, keys: Any, args: Any = ()) -> Any:
        asked.append(name)
        return step(lane, name, keys, args)

    await stored(store, *(draft() for _ in range(5)))
    jobs = await (await hand(store)).claim(5, ["mail"])
    monkeypatch.setattr(Lane, "step", and_note)
    notes = [Note(job.id, job.fence, job.worker, saved=b"s" * 400_000) for job in jobs]
    assert list(await store.note(notes)) == [True] * 5
    settled = await store.finish([decide(job, Succeeded(b"r" * 400_000)) for job in jobs])
    assert {each.answer for each in settled} == {"accepted"}
    assert Counter(asked) == {"note": 3, "finish": 3}, "two of them are less than a megabyte, three are more"
    asked.clear()
    ids = await stored(store, *(draft(queue=f"q.{n}") for n in range(40)))
    jobs = await (await hand(store)).claim(40, [f"q.{n}" for n in range(40)])
    assert {job.id for job in jobs} == set(ids)
    asked.clear()
    settled = await store.finish([decide(job, Succeeded(b"1")) for job in jobs])
    assert {each.answer for each in settled} == {"accepted"}
    assert asked == ["finish"] * 40


async def test_outcomes_of_many_queues_and_kinds_in_one_call_are_each_written(store: Store) -> None:
    worker = await hand(store)
    drafts = [draft(queue=f"q{n % 3}", priority=n % 2, terms=Terms(max_attempts=2, keep=n % 2)) for n in range(700)]
    await stored(store, *drafts)
    jobs = [job for name in ("q0", "q1", "q2") for job in await worker.claim(700, [name])]
    verdicts = [Succeeded(b"r" * 20_000), BOOM, FINAL_BOOM, Released(), Failed(Failure("E", "é" * 900, "t"), after=0)]
    outcomes = [decide(job, verdicts[n % 5]) for n, job in enumerate(jobs)]
    settled = await store.finish(outcomes)
    assert [(each.answer, each.state) for each in settled] == [("accepted", each.state) for each in outcomes]
    found = {each.id: each for each in await listing(store)}
    assert [found[each.id].state for each in outcomes] == [each.state for each in outcomes]
    assert [found[each.id].result for each in outcomes] == [each.result for each in outcomes]
    assert [each.answer for each in await store.finish(outcomes)] == ["replayed"] * 700


async def test_what_is_held_is_no_list_that_is_searched_from_end_to_end(store: Store, prefix: Prefix) -> None:
    worker = await hand(store)
    job = await running(store, worker)
    with Redis.from_url(prefix.server, decode_responses=True) as redis:
        encoding = redis.object("ENCODING", f"{{{prefix.name}:{job.queue}}}:held:{worker.id}")
    assert encoding == "hashtable"


# --- what is rarely there


async def test_a_row_that_cannot_be_read_dies_and_holds_up_no_other(
    store: Store, prefix: Prefix, caplog: pytest.LogCaptureFixture
) -> None:
    first, broken, last = await stored(store, draft(), draft(), draft())
    job_key = f"{{{prefix.name}:mail}}:job:"
    with Redis.from_url(prefix.server) as redis:
        redis.hset(f"{job_key}{broken}", "kind", "no JSON")
        jobs = await (await hand(store)).claim(9, ["mail"])
        assert [job.id for job in jobs] == [first, last]
        assert redis.hget(f"{job_key}{broken}", "state") == b"dead"
        assert b"row cannot be read" in (redis.hget(f"{job_key}{broken}", "reason") or b"")
    assert str(broken) in caplog.text


async def test_only_who_holds_a_job_can_bury_it(store: Store) -> None:
    job, other = await running(store, await hand(store)), await hand(store)
    lane = store._opened().claim  # type: ignore[attr-defined]  # noqa: SLF001
    keys = queue_keys(lane.place, job.queue)
    assert await lane.script("bury", keys, str(job.id), str(other.id), "why") == 0
    assert await state(store, job.id) == "running"
    assert await lane.script("bury", keys, str(job.id), str(job.worker), "why") == 1


async def test_whatever_is_odd_about_a_job_is_heeded_by_its_end(store: Store, prefix: Prefix) -> None:
    """Each alone: claim and finish look at these fields only where the job is marked."""
    worker = await hand(store)
    one = await running(store, worker, unique=keyed(until="finished", text="a").unique)
    two = await running(store, worker)
    await store.note([Note(two.id, two.fence, two.worker, saved=b"half")])
    three = await running(store, worker)
    await store.cancel([three.id], "enough")
    four = await running(store, worker, priority=7, alone=True)
    assert (four.priority, four.alone) == (7, True)
    await store.finish([decide(job, BOOM) for job in (one, two, three, four)])
    assert [(await record(store, job.id)).holds for job in (one, two)] == [True, False]
    found = await record(store, three.id)
    assert (found.state, found.reason, found.cancel_requested_at) == ("cancelled", "enough", None)
    store.shift += 60_000
    await store.promote(10)
    await worker.beat()
    again = {job.id: job for job in await worker.claim(9, None)}
    assert again.keys() == {one.id, two.id, four.id}
    assert (again[two.id].saved, again[four.id].priority, again[four.id].alone) == (b"half", 7, True)
    await store.finish([decide(job, Succeeded(b"1")) for job in again.values()])
    assert not (await record(store, one.id)).holds
    assert list(await store.mail([worker.id])) == []
    with Redis.from_url(prefix.server) as redis:
        assert redis.hget(f"{{{prefix.name}:{two.queue}}}:note:{two.id}", "saved") is None, "no attempt follows"


@pytest.mark.parametrize("size", [None, 9], ids=["without a bound", "bounded"])
async def test_what_a_draft_says_is_known_to_its_claim(store: Store, size: int | None) -> None:
    await bound(store, size)
    drafts = [draft(priority=7), draft(alone=True), draft(priority=-1, alone=True), draft()]
    await stored(store, *drafts)
    jobs = {job.id: job for job in await (await hand(store)).claim(9, ["mail"])}
    assert [(jobs[each.id].priority, jobs[each.id].alone) for each in drafts] == [
        (7, False),
        (0, True),
        (-1, True),
        (0, False),
    ]


async def test_the_reason_of_an_earlier_run_does_not_stand_on_a_success(store: Store) -> None:
    worker = await hand(store)
    job = await running(store, worker)
    await finish(store, job, Released("the worker was stopped"))
    assert (await record(store, job.id)).reason == "the worker was stopped"
    [job] = await worker.claim(1, [job.queue])
    await finish(store, job, Succeeded(b"1"))
    assert (await record(store, job.id)).reason == ""


async def test_the_loss_of_a_worker_that_answers_after_all_is_cleared(store: Store) -> None:
    worker = await hand(store)
    job = await running(store, worker)
    await worker.retire(None, {(job.id, job.fence): LOSS})
    assert (await finish(store, job, Released())).answer == "accepted"
    [again] = await (await hand(store)).claim(1, [job.queue])
    assert (again.id, again.loss) == (job.id, None)


async def test_a_success_of_which_nothing_is_kept_is_known_for_as_long_as_a_repeat_may_come(store: Store) -> None:
    job = await running(store, await hand(store), terms=Terms(keep=0))
    assert (await finish(store, job, Succeeded(b"1"))).answer == "accepted"
    store.shift += TOMBSTONE - 1
    assert await store.prune(10) == 0
    assert (await finish(store, job, Succeeded(b"1"))).answer == "replayed"
    store.shift += 1
    assert await store.prune(10) == 1


# --- a server that is full


@pytest.fixture
def small() -> Iterator[Valkey]:
    with Valkey() as server:
        yield server


async def test_at_a_full_server_what_is_there_is_worked_off(small: Valkey) -> None:
    """Nothing new is taken, nothing is half-written, and the service does not stand still."""
    async with opened(small.url) as store:
        worker = await hand(store)
        await stored(store, *(draft(terms=Terms(max_attempts=9, base_delay=0, jitter=0.0)) for _ in range(40)))
        first = await worker.claim(10)
        small.say("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(StoreAway) as away:
            await store.enqueue([draft()])
        assert away.value.full
        jobs = [*first, *await worker.claim(30)]
        verdicts = [Succeeded(b"1"), BOOM, FINAL_BOOM, Released()]
        outcomes = [decide(job, verdicts[n % 4]) for n, job in enumerate(jobs)]
        settled = await store.finish(outcomes)
        assert [each.answer for each in settled] == ["accepted"] * 40
        small.say("CONFIG", "SET", "maxmemory", "0")
        assert {job.id: job.state for job in await listing(store)} == {each.id: each.state for each in outcomes}
        stats = await stats_of(store)
        assert stats is not None
        assert State.RUNNING not in stats.counts
