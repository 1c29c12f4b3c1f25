"""The keeper and the identity: leases are kept from a thread of their own; each listener hears of its own worker."""

import asyncio
import logging
import threading
from collections.abc import Sequence
from uuid import UUID, uuid4

import pytest

from holdfast.clock import SECOND, FakeClock, SystemClock
from holdfast.errors import StoreAway
from holdfast.store import LEASE, Beat, Line
from holdfast.worker import outage
from holdfast.worker.identity import DOUBT, Identity
from holdfast.worker.keeper import BEATS_PER_LEASE, Keeper, KeeperThread, OnLoop
from holdfast.worker.standing import Standing
from tests.store.acts import hand, running
from tests.worker.rig import Flaky, events, memory, soon, until


class Ear:
    """A listener that notes what it hears, and in which thread."""

    def __init__(self) -> None:
        self.beats: list[tuple[float, int]] = []
        self.lines: list[Line] = []
        self.gone_times = 0
        self.threads: set[int] = set()

    def beaten(self, sent: float, lease: int) -> None:
        self.beats.append((sent, lease))

    def gone(self) -> None:
        self.gone_times += 1
        self.threads.add(threading.get_ident())

    def line(self, line: Line) -> None:
        self.lines.append(line)
        self.threads.add(threading.get_ident())


async def registered(store: Flaky, number: int) -> list[UUID]:
    ids = [uuid4() for _ in range(number)]
    for worker in ids:
        await store.inner.register(worker, None, {})
    return ids


# --- steps


async def test_all_leases_are_renewed_in_one_write_three_times_per_lease() -> None:
    clock = FakeClock()
    store = memory(clock)
    keeper = Keeper(store, clock)
    ears = {worker: Ear() for worker in await registered(store, 3)}
    keeper.kept.update(ears)
    clock.advance(2_500)
    assert await keeper.beat_step() == LEASE / SECOND / BEATS_PER_LEASE
    assert store.times("beat") == 1
    assert [ear.beats for ear in ears.values()] == [[(2.5, LEASE)]] * 3, "the time is that of the sending"


async def test_after_an_answer_that_came_late_the_next_beat_is_due_sooner() -> None:
    clock = FakeClock()
    store, late = memory(clock), LEASE / SECOND
    keeper = Keeper(store, clock)
    (worker,) = await registered(store, 1)
    keeper.kept[worker] = Ear()
    beat = store.inner.beat

    async def slow(workers: Sequence[UUID]) -> Beat:
        said = await beat(workers)
        clock.advance(pause)
        return said

    store.inner.beat = slow  # type: ignore[method-assign]
    pause = 1_000
    assert await keeper.beat_step() == late / BEATS_PER_LEASE - 1
    pause = LEASE // 2
    assert await keeper.beat_step() == 0


async def test_a_store_that_answers_late_answers() -> None:
    clock = FakeClock()
    standing = Standing(lambda url: memory(clock), clock)  # type: ignore[arg-type,return-value]
    clock.advance(100_000)
    assert not standing.answers()
    standing.beaten(clock.monotonic() - LEASE / SECOND * 0.9, LEASE)
    assert standing.answers()
    clock.advance(LEASE)
    assert not standing.answers()


async def test_a_worker_that_is_gone_is_told_once_and_beaten_for_no_more() -> None:
    store = memory()
    keeper = Keeper(store, FakeClock())
    good, gone = await registered(store, 2)
    ears = {good: Ear(), gone: Ear()}
    keeper.kept.update(ears)
    await store.retire(gone)
    await keeper.beat_step()
    await keeper.beat_step()
    assert (ears[gone].gone_times, ears[gone].beats) == (1, [])
    assert len(ears[good].beats) == 2
    assert set(keeper.kept) == {good}


async def test_without_workers_the_store_is_left_alone() -> None:
    store = memory()
    keeper = Keeper(store, FakeClock())
    assert await keeper.beat_step() > 0
    assert await keeper.mail_step() > 0
    assert store.calls == []


async def test_each_line_reaches_the_worker_that_it_is_for() -> None:
    clock = FakeClock()
    store = memory(clock)
    one, other = await hand(store.inner), await hand(store.inner)
    keeper = Keeper(store, clock)
    ears = {one.id: Ear(), other.id: Ear()}
    keeper.kept.update(ears)
    jobs = [await running(store.inner, worker) for worker in (one, other, other)]
    await store.cancel([jobs[0].id, jobs[2].id])
    await keeper.mail_step()
    assert ears[one.id].lines == [Line(one.id, "cancel", jobs[0].id, 1)]
    assert ears[other.id].lines == [Line(other.id, "cancel", jobs[2].id, 1)]
    assert store.times("mail") == 1, "one look for all"


async def test_a_lost_reply_of_the_mail_loses_no_line() -> None:
    store = memory()
    worker = await hand(store.inner)
    keeper = Keeper(store, FakeClock())
    keeper.kept[worker.id] = ear = Ear()
    job = await running(store.inner, worker)
    await store.cancel([job.id])
    store.drop("mail")
    with pytest.raises(StoreAway):
        await keeper.mail_step()
    await keeper.mail_step()
    assert [line.job for line in ear.lines] == [job.id]


async def test_a_worker_that_is_added_during_a_step_is_kept_from_the_next_on() -> None:
    store = memory()
    keeper = Keeper(store, FakeClock())
    one, other = await registered(store, 2)
    keeper.kept[one] = Ear()
    made, go = store.hold("beat")
    step = asyncio.create_task(keeper.beat_step())
    await soon(made.wait(), "it does not beat")
    keeper.kept[other] = late = Ear()
    go.set()
    await soon(step, "the step does not end")
    assert late.beats == []
    await keeper.beat_step()
    assert len(late.beats) == 1


# --- the thread


async def test_it_beats_and_reads_mail_though_the_workers_loop_is_blocked() -> None:
    store = memory()
    worker = await hand(store.inner)
    thread = KeeperThread(store, SystemClock())
    ear = Ear()
    thread.keeper.kept[worker.id] = OnLoop(asyncio.get_running_loop(), ear)
    thread.start()
    patience = threading.Event()
    for _ in range(3_000):  # this blocks the loop
        if ear.beats and store.times("mail") > 2:
            break
        patience.wait(0.01)
    assert ear.beats, "a blocked loop makes its own lease look doubtful"
    await thread.stop()
    assert store.done.count("close") == 1


async def test_what_is_heard_is_told_on_the_workers_own_loop() -> None:
    store = memory()
    worker = await hand(store.inner)
    thread = KeeperThread(store, SystemClock())
    ear = Ear()
    thread.keeper.kept[worker.id] = OnLoop(asyncio.get_running_loop(), ear)
    job = await running(store.inner, worker)
    await store.cancel([job.id])
    thread.start()
    await until(lambda: ear.lines, "the line is not heard")
    await thread.stop()
    assert ear.threads == {threading.get_ident()}


async def test_what_is_heard_for_a_loop_that_is_closed_disturbs_nobody() -> None:
    ear = Ear()
    loop = asyncio.new_event_loop()
    loop.close()
    listener = OnLoop(loop, ear)
    listener.gone()
    listener.line(Line(uuid4(), "cancel", uuid4(), 1))
    assert ear.gone_times == 0


async def test_a_keeper_whose_store_is_away_at_first_beats_when_it_is_back() -> None:
    store = memory()
    (worker,) = await registered(store, 1)
    thread = KeeperThread(store, SystemClock())
    thread.keeper.kept[worker] = ear = Ear()
    store.fail("open", times=2)
    store.fail("beat", times=2)
    thread.start()
    try:
        await until(lambda: ear.beats, "it never beats")
    finally:
        await thread.stop()


async def test_a_keeper_that_is_stopped_at_once_stops() -> None:
    thread = KeeperThread(memory(), SystemClock())
    thread.start()
    await soon(thread.stop(), "it does not stop")
    assert not any(t.name == "holdfast-keeper" and t.is_alive() for t in threading.enumerate())


# --- code that runs longer than its worker


async def test_it_keeps_the_lease_of_code_that_still_runs_and_gives_its_jobs_back_then() -> None:
    store = memory()
    worker = await hand(store.inner)
    job = await running(store.inner, worker)
    thread = KeeperThread(store, SystemClock())
    thread.keeper.kept[worker.id] = Ear()
    thread.start()
    await until(lambda: store.times("beat"), "it does not beat")
    over = threading.Event()
    asked = threading.Event()

    def is_over() -> bool:
        asked.set()
        return over.is_set()

    thread.linger(worker.id, is_over)
    assert await asyncio.to_thread(asked.wait, 30)
    other = await hand(store.inner)
    assert await other.reclaim() == {}, "its code still runs"
    over.set()
    await until(lambda: "close" in store.done, "the keeper does not end")
    claims = await other.reclaim()
    assert set(claims) == {job.id}
    loss = claims[job.id].loss
    assert loss is not None
    assert loss.on_purpose, "we ended it: nobody is to be charged for it"
    await thread.stop()


async def test_a_store_that_is_away_when_the_code_has_ended_is_asked_again() -> None:
    store = memory()
    worker = await hand(store.inner)
    await running(store.inner, worker)
    thread = KeeperThread(store, SystemClock())
    thread.keeper.kept[worker.id] = Ear()
    thread.start()
    await until(lambda: store.times("beat"), "it does not beat")
    store.fail("retire", times=2)
    thread.linger(worker.id, lambda: True)
    try:
        await until(lambda: "retire" in store.done, "its job is held for ever")
    finally:
        await thread.stop()


# --- who the worker is


def test_an_identity_is_held_from_its_first_beat_until_its_lease_is_in_doubt() -> None:
    clock = FakeClock()
    identity = Identity(clock)
    assert not identity.held(), "it is not registered yet"
    identity.beaten(clock.monotonic(), LEASE)
    assert identity.held()
    clock.advance(LEASE - LEASE // DOUBT - 1)
    assert identity.held()
    clock.advance(1)
    assert not identity.held()
    identity.beaten(clock.monotonic(), LEASE)
    assert identity.held()


def test_the_lease_counts_from_when_the_beat_was_sent() -> None:
    clock = FakeClock()
    identity = Identity(clock)
    sent = clock.monotonic()
    clock.advance(LEASE - LEASE // DOUBT)
    identity.beaten(sent, LEASE)  # its answer took that long
    assert not identity.held()


def test_an_answer_that_comes_late_does_not_shorten_the_lease() -> None:
    clock = FakeClock()
    identity = Identity(clock)
    clock.advance(10_000)
    identity.beaten(10.0, LEASE)
    identity.beaten(5.0, LEASE)
    clock.advance(LEASE - LEASE // DOUBT - 1)
    assert identity.held()


def test_a_wall_clock_that_is_stepped_changes_nothing() -> None:
    clock = FakeClock()
    identity = Identity(clock)
    identity.beaten(clock.monotonic(), LEASE)
    clock.step(10 * LEASE)
    assert identity.held()
    clock.step(-20 * LEASE)
    assert identity.held()


def test_a_lost_identity_is_never_held_again() -> None:
    clock = FakeClock()
    identity = Identity(clock)
    identity.lost = True
    identity.beaten(clock.monotonic(), LEASE)
    assert not identity.held()


def test_no_two_incarnations_have_the_same_id() -> None:
    clock = FakeClock()
    assert len({Identity(clock).id for _ in range(1_000)}) == 1_000


async def test_trouble_with_the_store_is_told_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outage, "CALM_FIRST", 0.0)
    store = memory()
    (worker,) = await registered(store, 1)
    thread = KeeperThread(store, SystemClock())
    thread.keeper.kept[worker] = ear = Ear()
    store.fail("beat", times=2)
    with caplog.at_level(logging.WARNING, "holdfast"):
        thread.start()
        await until(lambda: ear.beats, "it does not beat again")
        await thread.stop()
    assert events(caplog, "store-away", "store-back") == ["store-away", "store-back"]
