"""Many workers, loops and threads at once: nothing is claimed twice, nothing is settled twice, nothing is lost."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any
from uuid import UUID

import pytest

from holdfast.clock import HOUR, SECOND
from holdfast.job import (
    TOMBSTONE,
    Claim,
    Draft,
    Failed,
    Lost,
    Note,
    QueueTerms,
    Released,
    State,
    Succeeded,
    Terms,
    Until,
    WhenFull,
)
from holdfast.policy import decide
from holdfast.store import BUCKETS, Claims, Entry, Level, Receipt, Settled, Store, Tally, Where
from tests.store.acts import (
    BOOM,
    ENDS,
    FINAL_BOOM,
    LOSS,
    Hand,
    admitted,
    answer,
    bound,
    draft,
    elsewhere,
    finish,
    hand,
    keyed,
    listing,
    now,
    receipt,
    record,
    retried,
    running,
    stats_of,
    stored,
)

THREADS, TASKS = 4, 3  # in each thread an event loop with as many tasks


async def _crowd(store: Store, program: Callable[[Store], Awaitable[Any]]) -> list[Any]:
    """Runs `program` in all tasks of all threads at once, each thread with a twin; returns what they returned."""

    async def visit(twin: Store) -> list[Any]:
        return await asyncio.gather(*(program(twin) for _ in range(TASKS)))

    answers = await asyncio.gather(*(elsewhere(visit, store) for _ in range(THREADS)))
    return [answer for thread in answers for answer in thread]


async def _drain(twin: Store) -> list[Claim]:
    worker = await hand(twin)
    claimed: list[Claim] = []
    while jobs := await worker.claim(7):
        claimed += jobs
        settled = await twin.finish([decide(job, Succeeded(str(job.fence).encode())) for job in jobs])
        assert [s.answer for s in settled] == ["accepted"] * len(jobs)
    return claimed


async def test_nothing_is_claimed_twice_and_nothing_is_left(store: Store) -> None:
    ids = await stored(store, *(draft(queue="abc"[n % 3], priority=n % 5) for n in range(500)))
    claims = [job for claimed in await _crowd(store, _drain) for job in claimed]
    assert Counter(job.id for job in claims) == Counter(ids)
    assert {job.fence for job in claims} == {1}
    assert Counter(r.state for r in await listing(store)) == {"succeeded": 500}


async def test_jobs_that_go_round_are_held_by_one_worker_at_a_time(store: Store) -> None:
    """Each is released, failed and finished in turn; every fence is handed out once."""
    terms = Terms(max_attempts=100, jitter=0.0)
    ids = await stored(store, *(draft(terms=terms) for _ in range(60)))

    async def round_and_round(twin: Store) -> list[tuple[UUID, int]]:
        worker = await hand(twin)
        words = []
        while jobs := await worker.claim(4):
            words += [(job.id, job.fence) for job in jobs]
            verdicts = [
                Succeeded(b"1") if job.fence > 3 else Failed(BOOM.error, after=0) if job.fence % 2 else Released()
                for job in jobs
            ]
            settled = await twin.finish([decide(*pair) for pair in zip(jobs, verdicts, strict=True)])
            assert [s.answer for s in settled] == ["accepted"] * len(jobs)
        return words

    words = [word for words in await _crowd(store, round_and_round) for word in words]
    assert Counter(words) == Counter((job_id, fence) for job_id in ids for fence in (1, 2, 3, 4))
    assert Counter(r.state for r in await listing(store)) == {"succeeded": 60}


async def test_producers_and_workers_at_once_lose_nothing(store: Store) -> None:
    produced: list[UUID] = []
    places = iter(range(THREADS * TASKS))

    async def produce_or_work(twin: Store) -> list[Claim]:
        if next(places) % 2:
            return await _drain(twin)
        for _ in range(10):
            produced.extend(await stored(twin, *(draft() for _ in range(5))))
        return []

    early = [job for claimed in await _crowd(store, produce_or_work) for job in claimed]
    late = await _drain(store)
    assert len(produced) == 300
    assert Counter(job.id for job in early + late) == Counter(produced)


async def test_one_ticket_used_many_times_at_once_takes_one_claims_worth(store: Store) -> None:
    await stored(store, *(draft() for _ in range(50)))
    worker = await hand(store)

    async def again(twin: Store) -> Claims:
        return await twin.claim(worker.id, 1, None, 4)

    answers = await _crowd(store, again)
    assert {answer.refused for answer in answers} == {None}
    assert {tuple(sorted(answer.jobs)) for answer in answers} == {tuple(sorted(answers[0].jobs))}
    assert len([r for r in await listing(store) if r.state == "running"]) == 4


async def test_of_many_outcomes_for_one_claim_one_is_accepted(store: Store) -> None:
    worker = await hand(store)
    jobs = [await running(store, worker) for _ in range(10)]
    numbers = iter(range(1000))

    async def settle(twin: Store) -> list[Settled]:
        mine = str(next(numbers)).encode()
        return list(await twin.finish([decide(job, Succeeded(mine)) for job in jobs]))

    answers = await _crowd(store, settle)
    for n, job in enumerate(jobs):
        assert Counter(settled[n].answer for settled in answers) == {
            "accepted": 1,
            "replayed": THREADS * TASKS - 1,
        }
        assert {settled[n].state for settled in answers} == {State.SUCCEEDED}
        assert (await record(store, job.id)).settled_fence == 1


async def test_one_job_enqueued_from_everywhere_is_stored_once(store: Store) -> None:
    drafts = [draft() for _ in range(10)]

    async def enqueue(twin: Store) -> list[bool]:
        receipts = await twin.enqueue(drafts)
        assert {r.answer for r in receipts} == {"accepted"}
        return [r.created for r in receipts]

    answers = await _crowd(store, enqueue)
    assert [sum(created[n] for created in answers) for n in range(10)] == [1] * 10
    assert len(await listing(store)) == 10


async def test_other_content_under_one_id_wins_once(store: Store) -> None:
    first = draft()
    numbers = iter(range(1000))

    async def enqueue(twin: Store) -> tuple[bytes, str]:
        payload = str(next(numbers)).encode()
        [receipt] = await twin.enqueue([draft(id=first.id, payload=payload)])
        return payload, receipt.answer

    answers = await _crowd(store, enqueue)
    assert Counter(answer for _, answer in answers) == {"accepted": 1, "conflict": THREADS * TASKS - 1}
    [payload] = [payload for payload, answer in answers if answer == "accepted"]
    assert (await record(store, first.id)).payload == payload


async def test_a_sweeper_and_its_victim_settle_each_claim_once(store: Store) -> None:
    victims = [await hand(store) for _ in range(6)]
    jobs = [await running(store, victim) for victim in victims for _ in range(5)]
    places = iter(range(THREADS * TASKS))

    async def rob_or_finish(twin: Store) -> list[tuple[UUID, int]]:
        place = next(places)
        if place < 6:
            mine = jobs[place * 5 : place * 5 + 5]
            settled = await twin.finish([decide(job, Succeeded(b"1")) for job in mine])
            assert {s.answer for s in settled} <= {"accepted", "stale"}
            return [(job.id, job.fence) for job, s in zip(mine, settled, strict=True) if s.answer == "accepted"]
        await twin.retire(victims[place - 6].id, LOSS)
        sweeper = await hand(twin)
        robbed = list((await sweeper.reclaim()).values())
        settled = await twin.finish([decide(job, Lost(LOSS)) for job in robbed])
        assert [s.answer for s in settled] == ["accepted"] * len(robbed)
        return [(job.id, 1) for job in robbed]

    ended = [word for words in await _crowd(store, rob_or_finish) for word in words]
    assert Counter(ended) == Counter((job.id, 1) for job in jobs), "each claim ends once: finished or robbed"


async def test_many_sweepers_share_what_they_take(store: Store) -> None:
    ids = await stored(store, *(draft() for _ in range(120)))
    dead = await hand(store)
    await dead.claim(120)
    await dead.retire(LOSS)

    async def sweep(twin: Store) -> list[Claim]:
        sweeper = await hand(twin)
        taken = []
        while jobs := list((await sweeper.reclaim(10)).values()):
            taken += jobs
            await twin.finish([decide(job, Lost(LOSS._replace(begun=False))) for job in jobs])
        return taken

    taken = [job for jobs in await _crowd(store, sweep) for job in jobs]
    assert Counter(job.id for job in taken) == Counter(ids)
    assert {(job.fence, job.attempt) for job in taken} == {(2, 1)}


async def test_a_cancel_meets_a_job_before_or_after_its_claim_but_is_never_missed(store: Store) -> None:
    ids = await stored(store, *(draft() for _ in range(120)))
    places = iter(range(THREADS * TASKS))

    async def cancel_or_claim(twin: Store) -> Any:
        if (place := next(places)) % 2:
            return [
                answer for job_id in ids[place // 2 :: 6] for answer in [(job_id, (await twin.cancel([job_id]))[0])]
            ]
        worker = await hand(twin)
        held = []
        while jobs := await worker.claim(3):
            held += jobs
        return held

    answers = [item for items in await _crowd(store, cancel_or_claim) for item in items]
    held = {item.id: item for item in answers if isinstance(item, Claim)}
    asked = dict(item for item in answers if not isinstance(item, Claim))
    assert set(asked) == set(ids)
    for job_id in ids:
        found = await record(store, job_id)
        if job_id not in held:
            assert (asked[job_id], found.state, found.fence) == ("cancelled", "cancelled", 0)
        else:
            assert (asked[job_id], found.state) == ("requested", "running")
            assert (await finish(store, held[job_id], BOOM)).state == "cancelled"


async def test_no_claim_commits_behind_a_finished_rescue(store: Store) -> None:
    """Once retire and reclaim have answered, nothing may appear under the retired worker."""
    await stored(store, *(draft() for _ in range(300)))
    workers = [await hand(store) for _ in range(4)]
    places = iter(range(THREADS * TASKS))

    async def claim_or_retire(twin: Store) -> None:
        if (place := next(places)) < 4:
            ticket = 1
            while not (claims := await twin.claim(workers[place].id, ticket, None, 2)).refused and claims.jobs:
                ticket += 1
        elif place < 8:
            sweeper = await hand(twin)
            await twin.retire(workers[place - 4].id, LOSS)
            await sweeper.reclaim(1000)

    await _crowd(store, claim_or_retire)
    retired = {worker.id for worker in workers}
    left = [r for r in await listing(store) if r.worker in retired]
    assert left == []


async def test_promoters_at_once_promote_each_job_once(store: Store) -> None:
    ids = await stored(store, *(draft(delay=1 + n) for n in range(200)))
    store.shift += SECOND

    async def promote(twin: Store) -> int:
        moved = 0
        while (promoted := await twin.promote(9)).moved:
            moved += promoted.moved
        return moved

    assert sum(await _crowd(store, promote)) == 200
    jobs = await (await hand(store)).claim(1000)
    assert Counter(job.id for job in jobs) == Counter(ids)


async def test_what_is_over_is_ended_once_and_never_claimed(store: Store) -> None:
    """Claims and promoters meet the same jobs."""
    ids = await stored(store, *(draft(expires=Until(5), deadline=Until(9)) for _ in range(100)))
    others = await stored(store, *(draft() for _ in range(40)))
    store.shift += 5
    turns = count()

    async def promote_or_claim(twin: Store) -> list[UUID]:
        if next(turns) % 2:
            return [job.id for job in await (await hand(twin)).claim(5)]
        over = list[UUID]()
        while some := (await twin.promote(9)).over:
            over += [each.id for each in some]
        return over

    met = [job for answer in await _crowd(store, promote_or_claim) for job in answer]
    left = [over.id for over in (await store.promote(1000)).over]
    rest = [job.id for job in await (await hand(store)).claim(1000)]
    assert Counter([*met, *left, *rest]) == Counter([*ids, *others])
    assert {row.state for row in await listing(store, Where(ids=ids))} == {State.CANCELLED}


async def test_pruners_at_once_delete_each_job_once(store: Store) -> None:
    ids = await stored(store, *(draft(terms=Terms(keep=0)) for _ in range(200)))
    await store.cancel(ids)
    store.shift += TOMBSTONE

    async def prune(twin: Store) -> int:
        gone = 0
        while count := await twin.prune(9):
            gone += count
        return gone

    assert sum(await _crowd(store, prune)) == 200
    assert await listing(store) == []


async def test_a_job_retried_from_everywhere_gets_one_new_life(store: Store) -> None:
    ids = await stored(store, *(draft() for _ in range(20)))
    await store.cancel(ids)

    async def retry(twin: Store) -> list[str]:
        return await retried(twin, *ids)

    answers = await _crowd(store, retry)
    for n, job_id in enumerate(ids):
        assert Counter(a[n] for a in answers) == {"retried": 1, "unfinished": THREADS * TASKS - 1}
        assert (await record(store, job_id)).life == 2
    jobs = await (await hand(store)).claim(100)
    assert Counter(job.id for job in jobs) == Counter(ids)


@pytest.mark.parametrize("asked", [1, 2])
async def test_workers_registered_from_everywhere_live_once(store: Store, asked: int) -> None:
    worker = Hand(store)

    async def register(twin: Store) -> None:
        for _ in range(asked):
            await twin.register(worker.id, None, {})

    await _crowd(store, register)
    await stored(store, draft())
    assert (await worker.take()).fence == 1


# --- bounds


MODES: list[WhenFull] = ["block", "reject", "drop_oldest", "drop_newest"]


@pytest.mark.parametrize("when_full", MODES)
async def test_however_many_produce_at_once_a_bound_is_never_exceeded(store: Store, when_full: WhenFull) -> None:
    """Nothing ends meanwhile but what is dropped, so at the end just as many are left as the bound allows."""
    await bound(store, 25, when_full)

    async def produce(twin: Store) -> list[Receipt]:
        receipts: list[Receipt] = []
        for size in (1, 3, 1, 7, 1):
            receipts += await twin.enqueue([draft(delay=n % 2) for n in range(size)])
            stats = await stats_of(twin)
            assert stats is not None
            assert sum(stats.counts.values()) == stats.admitted in range(26)
        return receipts

    receipts = [each for some in await _crowd(store, produce) for each in some]
    everything = 13 * THREADS * TASKS
    says = {"drop_oldest": {"accepted": everything}, "drop_newest": {"accepted": 25, "dropped": everything - 25}}
    assert Counter(r.answer for r in receipts) == says.get(when_full, {"accepted": 25, "full": everything - 25})
    left = [row.id for row in await listing(store) if row.finished_at is None]
    assert len(left) == await admitted(store) == 25
    dropped = [r.dropped for r in receipts if r.dropped is not None]
    assert Counter([*left, *dropped]) == Counter(r.id for r in receipts if r.created), "each is there, or dropped once"
    assert (await stats_of(store)).dropped == (everything - 25 if when_full.startswith("drop") else 0)  # type: ignore[union-attr]


@pytest.mark.parametrize("when_full", MODES)
async def test_a_bound_holds_while_jobs_run_end_and_come_back(store: Store, when_full: WhenFull) -> None:
    """Producers, workers, an operator and sweepers at once; in every look the places are the unfinished jobs."""
    await bound(store, 9, when_full)
    places = iter(range(THREADS * TASKS))
    produced: list[UUID] = []

    async def look(twin: Store) -> None:
        stats = await stats_of(twin)
        assert stats is not None
        assert stats.admitted is not None
        unfinished = sum(count for state, count in stats.counts.items() if state is not State.DEAD)
        assert stats.admitted == unfinished <= 9

    async def act(twin: Store) -> None:
        place = next(places)
        for turn in range(8):
            if place % 3 == 0:
                receipts = await twin.enqueue([draft() for _ in range(4)])
                produced.extend(r.id for r in receipts if r.created)
            elif place % 3 == 1:
                worker = await hand(twin)
                jobs = await worker.claim(3)
                verdicts = [Succeeded(b"1"), FINAL_BOOM, Released()]
                await twin.finish([decide(job, verdicts[n]) for n, job in enumerate(jobs[: 1 + turn % 3])])
                await worker.retire(LOSS)
                sweeper = await hand(twin)
                robbed = (await sweeper.reclaim()).values()
                await twin.finish([decide(job, Lost(LOSS)) for job in robbed])
            else:
                ids = produced[-8:]
                await [twin.cancel, twin.retry, twin.delete][turn % 3](ids)
            await look(twin)

    await _crowd(store, act)
    assert await admitted(store) is not None
    assert len(produced) >= 9, "nothing was produced, so nothing was shown"


async def test_retries_and_enqueues_share_the_places(store: Store) -> None:
    ids = await stored(store, *(draft() for _ in range(30)))
    await store.cancel(ids)
    await bound(store, 10)

    async def ask(twin: Store) -> int:
        taken = 0
        for job_id in ids:
            taken += (await retried(twin, job_id)) == ["retried"]
            taken += (await answer(twin, draft())) == "accepted"
        return taken

    assert sum(await _crowd(store, ask)) == 10
    assert await admitted(store) == 10


async def test_one_place_is_given_to_one_of_many(store: Store) -> None:
    await bound(store, 1)
    for _ in range(5):
        drafts: list[Draft] = []

        async def enqueue(twin: Store, drafts: list[Draft] = drafts) -> str:
            drafts.append(job := draft())
            return await answer(twin, job)

        answers = await _crowd(store, enqueue)
        assert Counter(answers) == {"accepted": 1, "full": THREADS * TASKS - 1}
        [held] = [row for row in await listing(store) if row.finished_at is None]
        await store.cancel([held.id])


# --- unique keys


@pytest.mark.parametrize(("on_clash", "says"), [("return", "duplicate"), ("raise", "taken"), ("replace", "replaced")])
async def test_of_one_key_enqueued_from_everywhere_one_job_is_stored(store: Store, on_clash: str, says: str) -> None:
    keys = [f"order {n}" for n in range(10)]

    async def enqueue(twin: Store) -> list[Receipt]:
        return list(await twin.enqueue([keyed(text=text, on_clash=on_clash, queue=text[-1]) for text in keys]))

    answers = await _crowd(store, enqueue)
    for n in range(10):
        assert Counter(receipts[n].answer for receipts in answers) == {"accepted": 1, says: THREADS * TASKS - 1}
        [holder] = {receipts[n].id for receipts in answers if receipts[n].created}
        assert {receipts[n].holder for receipts in answers} == {None, holder}
        [row] = await listing(store, Where(queue=str(n)))
        assert (row.id, row.holds) == (holder, True)


@pytest.mark.parametrize(("until", "hold"), [("finished", 0), ("started", 0), ("finished", HOUR)])
async def test_a_key_has_one_holder_while_jobs_run_end_and_come_back(store: Store, until: str, hold: int) -> None:
    places = iter(range(THREADS * TASKS))
    produced: list[UUID] = []

    async def look(twin: Store) -> None:
        holders = [row for row in await listing(twin) if row.holds]
        assert len(holders) <= 1, holders
        assert all(row.finished_at is None or hold for row in holders)

    async def act(twin: Store) -> None:
        place = next(places)
        for turn in range(8):
            if place % 3 == 0:
                receipts = await twin.enqueue([keyed(until=until, hold=hold, on_clash="raise") for _ in range(2)])
                produced.extend(r.id for r in receipts if r.created)
            elif place % 3 == 1:
                worker = await hand(twin)
                jobs = await worker.claim(1)
                verdict = [Succeeded(b"1"), FINAL_BOOM, Released()][turn % 3]
                await twin.finish([decide(job, verdict) for job in jobs])
            else:
                ids = produced[-8:]
                await [twin.cancel, twin.retry, twin.delete][turn % 3](ids)
            await look(twin)

    await _crowd(store, act)
    assert produced, "nothing was produced, so nothing was shown"


async def test_of_many_that_want_a_key_whose_hold_is_over_one_gets_it(store: Store) -> None:
    first = keyed(hold=SECOND)
    await stored(store, first)
    await ENDS["succeeds"](store, first.id)
    store.shift += SECOND

    async def enqueue(twin: Store) -> str:
        return await answer(twin, keyed())

    assert Counter(await _crowd(store, enqueue)) == {"accepted": 1, "duplicate": THREADS * TASKS - 1}


async def test_a_replace_meets_a_job_before_its_claim_or_not_at_all(store: Store) -> None:
    """What a replace said it changed is what ran; what it did not change, it said so."""
    jobs = [keyed(text=str(n), payload=b"old") for n in range(60)]
    await stored(store, *jobs)
    places = iter(range(THREADS * TASKS))

    async def replace_or_claim(twin: Store) -> list[Any]:
        if (place := next(places)) % 2:
            mine = jobs[place // 2 :: 6]
            drafts = [keyed(text=job.unique.text, payload=b"new", on_clash="replace") for job in mine if job.unique]
            return [await receipt(twin, each) for each in drafts]
        worker = await hand(twin)
        held: list[Claim] = []
        while some := await worker.claim(2):
            held += some
        return held

    answers = [item for items in await _crowd(store, replace_or_claim) for item in items]
    ran = {item.id: item.payload for item in answers if isinstance(item, Claim)}
    said = {item.holder: item.answer for item in answers if isinstance(item, Receipt)}
    assert ran.keys() == said.keys() == {job.id for job in jobs}
    for job in jobs:
        assert (said[job.id], ran[job.id]) in {("replaced", b"new"), ("taken", b"old")}


# --- delete, configure, notes


async def test_a_job_deleted_from_everywhere_is_deleted_once(store: Store) -> None:
    await bound(store, 100)
    ids = await stored(store, *(draft() for _ in range(40)))

    async def delete(twin: Store) -> list[str]:
        return list(await twin.delete(ids))

    answers = await _crowd(store, delete)
    for n in range(40):
        assert Counter(some[n] for some in answers) == {"deleted": 1, "missing": THREADS * TASKS - 1}
    assert await admitted(store) == 0


async def test_a_delete_meets_a_job_before_or_after_its_claim(store: Store) -> None:
    ids = await stored(store, *(draft() for _ in range(60)))
    places = iter(range(THREADS * TASKS))

    async def delete_or_claim(twin: Store) -> list[Any]:
        if (place := next(places)) % 2:
            return [(job_id, (await twin.delete([job_id]))[0]) for job_id in ids[place // 2 :: 6]]
        worker = await hand(twin)
        held: list[Claim] = []
        while some := await worker.claim(2):
            held += some
        return held

    answers = [item for items in await _crowd(store, delete_or_claim) for item in items]
    held = {item.id for item in answers if isinstance(item, Claim)}
    said = dict(item for item in answers if not isinstance(item, Claim))
    assert said == {job_id: "running" if job_id in held else "deleted" for job_id in ids}


async def test_of_many_producers_words_one_counts(store: Store) -> None:
    sizes = iter(range(1, 1000))

    async def declare(twin: Store) -> None:
        await twin.configure({"mail": QueueTerms(next(sizes))}, by="producer")

    await _crowd(store, declare)
    first = await stats_of(store)
    await _crowd(store, declare)
    assert await stats_of(store) == first


async def test_of_many_who_change_a_schedule_at_once_one_does(store: Store) -> None:
    words = count()

    async def change(twin: Store) -> list[bool]:
        said = []
        for revision in range(5):
            said += await twin.schedule([Entry("nightly", "mail", f"word {next(words)}", None, revision=revision)])
        return said

    changed = await _crowd(store, change)
    [entry] = (await store.schedules()).entries
    assert entry.revision == sum(sum(each) for each in changed) <= 5
    assert entry.revision > 0


async def test_what_many_report_at_once_is_added_once_each(store: Store) -> None:
    one = Tally("mail", "shop.send", "succeeded", 1, (1,) * BUCKETS, (0,) * (BUCKETS - 1) + (1,))
    shared = (await hand(store)).id

    async def report(twin: Store) -> None:
        mine = (await hand(twin)).id
        for number in range(1, 6):
            await twin.record(mine, number, [one, one._replace(task="shop.print")], [Level("mail", number, 1)])
            await twin.record(shared, number, [one._replace(task="shop.count")], [Level("mail", 1, number)])

    await _crowd(store, report)
    [minute] = await store.history(0, await now(store) + HOUR)
    [ten] = await store.history(0, await now(store) + HOUR, tens=True)
    reports = 5 * THREADS * TASKS
    counts = {"shop.send": reports, "shop.print": reports, "shop.count": 5}
    for step in (minute, ten):
        assert {tally.task: (tally.count, tally.ran[0], tally.waited[-1]) for tally in step.tallies} == {
            task: (times, times, times) for task, times in counts.items()
        }
        assert list(step.levels) == [Level("mail", 5, 5)]


async def test_lines_of_many_jobs_written_at_once_stay_each_in_its_order(store: Store) -> None:
    worker = await hand(store)
    jobs = [await running(store, worker) for _ in range(THREADS * TASKS)]
    places = iter(jobs)

    async def tell(twin: Store) -> None:
        job = next(places)
        for n in range(10):
            line = (0, str(n))
            assert list(await twin.note([Note(job.id, job.fence, worker.id, n / 10, lines=(line,))])) == [True]

    await _crowd(store, tell)
    for job in jobs:
        assert [line.text for line in await store.log(job.id)] == [str(n) for n in range(10)]
        assert (await record(store, job.id)).progress == 0.9
