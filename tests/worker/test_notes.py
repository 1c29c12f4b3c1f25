"""Notes: what handlers say of their jobs is written together, soon, and not lost while the store is away."""

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any
from uuid import UUID, uuid4

import pytest

import holdfast.worker.loop as loops
import holdfast.worker.notes as notebooks
from holdfast import Job, Retry, Stop, current_job
from holdfast.errors import StoreAway, StoreError
from holdfast.job import LOG_MOST, Note, State, new_id
from holdfast.store import LogLine
from holdfast.worker.loop import Signal, repeat
from holdfast.worker.notes import LINES_MOST, Notes, Page
from holdfast.worker.outage import Outage
from tests.worker.rig import PATIENCE, Shop, claim, events, fields, soon, until

Word = tuple[UUID, int, UUID]


@pytest.fixture(autouse=True)
def swift_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that was away is asked again within milliseconds: nothing here is about that pause."""
    monkeypatch.setattr(loops, "BACKOFF_FIRST", 0.005)


@pytest.fixture
def slow_pile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Notes that nothing hurries stay where they are for as long as a test takes."""
    monkeypatch.setattr(notebooks, "EVERY", 10 * PATIENCE)


@pytest.fixture
def swift_pile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notebooks, "EVERY", 0.01)


def word() -> Word:
    return new_id(), 1, uuid4()


class Taking:
    """A store that takes every note, and keeps what it was given. `faults`: what the next calls raise instead."""

    def __init__(self, *faults: Exception) -> None:
        self.calls: list[list[Note]] = []
        self.faults = list(faults)
        self.refuses: UUID | None = None
        self.go = asyncio.Event()
        self.go.set()

    async def note(self, notes: Any) -> list[bool]:
        await self.go.wait()
        if self.faults:
            raise self.faults.pop(0)
        if any(note.id == self.refuses for note in notes):
            raise StoreError("no such place")
        self.calls.append(list(notes))
        return [True for _ in notes]

    @property
    def texts(self) -> list[str]:
        return [text for call in self.calls for note in call for _, text in note.lines]


class Role:
    """Notes with their loop running."""

    def __init__(self, store: Any) -> None:
        self.notes = Notes(store)
        self.stopping = Signal()
        self.task = asyncio.create_task(repeat("notes", self.notes.step, self.stopping))

    async def stop(self) -> None:
        self.stopping.set()
        self.notes.wake()
        await soon(self.task, "the role does not end")


# --- what piles up


async def test_what_is_said_is_written_together_once_it_is_hurried(slow_pile: None) -> None:
    store = Taking()
    role, one, two = Role(store), word(), word()
    for number in range(5):
        role.notes.add(Note(*one, number / 10, f"page {number}"))
        role.notes.add(Note(*two, lines=((0, f"line {number}"),)))
    role.notes.add(Note(*one, 0.9))
    await soon(role.notes.flush(PATIENCE), "it is not written")
    ((first, second),) = store.calls
    assert first == Note(*one, 0.9, "page 4")
    assert (second[:3], [text for _, text in second.lines]) == (two, [f"line {n}" for n in range(5)])
    await role.stop()


async def test_notes_that_pile_up_are_written_by_themselves(swift_pile: None) -> None:
    store = Taking()
    role, mine = Role(store), word()
    role.notes.add(Note(*mine, 0.5))
    await until(lambda: store.calls, "the first is not written")
    role.notes.add(Note(*mine, 0.6))
    await until(lambda: len(store.calls) == 2, "the second is not written")
    assert [note.progress for call in store.calls for note in call] == [0.5, 0.6]
    await role.stop()


async def test_what_an_ended_attempt_said_does_not_wait(slow_pile: None) -> None:
    store = Taking()
    role, ended = Role(store), claim()
    role.notes.add(Note(*ended[:3], 0.5))
    role.notes.ended(claim())  # another: nothing to write for it
    role.notes.ended(ended)
    await until(lambda: store.calls, "it is not written at its end")
    await role.stop()


async def test_nothing_is_written_when_nothing_is_said() -> None:
    store = Taking()
    role = Role(store)
    role.notes.ended(claim())
    assert await soon(role.notes.flush(PATIENCE), "there is nothing to wait for") == 0
    await role.stop()
    assert store.calls == []


async def test_lines_that_are_too_many_are_counted(slow_pile: None) -> None:
    store = Taking()
    role, mine = Role(store), word()
    for number in range(LINES_MOST + 23):
        role.notes.add(Note(*mine, lines=((0, str(number)),)))
    await soon(role.notes.flush(PATIENCE), "it is not written")
    assert store.texts == ["… 23 lines left out", *map(str, range(23, LINES_MOST + 23))]
    assert len(store.texts) == LOG_MOST, "the newest, as many as are kept"
    role.notes.add(Note(*mine, lines=((0, "after"),)))
    await soon(role.notes.flush(PATIENCE), "it is not written")
    assert store.texts[-1] == "after", "they are counted once"
    await role.stop()


async def test_lines_that_a_slot_has_left_out_are_counted_with_the_others() -> None:
    page, mine = Page(), word()
    slots = Page()
    slots.add(Note(*mine, lines=tuple((0, str(number)) for number in range(LINES_MOST + 7))), now=1.0)
    assert len(slots.lines) == LINES_MOST
    page.add(slots.note(mine, now=1.0), now=1.0)
    page.add(Note(*mine, lines=((0, "last"),)), now=1.0)
    texts = [text for _, text in page.note(mine, now=1.0).lines]
    assert (texts[0], texts[1], texts[-1]) == ("… 8 lines left out", "8", "last")


async def test_lines_are_as_old_as_they_are_when_they_are_written() -> None:
    page = Page()
    page.add(Note(*word(), lines=((0, "a"),)), now=100.0)
    page.add(Note(*word(), lines=((50, "b"),)), now=100.2)
    assert page.note(word(), now=101.0).lines == ((1_000, "a"), (850, "b"))


# --- a store that is away, or that does not take it


async def test_nothing_is_lost_while_the_store_is_away(swift_pile: None, caplog: pytest.LogCaptureFixture) -> None:
    store = Taking(*[StoreAway("away")] * 3)
    store.go.clear()
    role, mine, other = Role(store), word(), word()
    role.notes.add(Note(*mine, 0.1, "early", ((0, "first"),)))
    role.notes.add(Note(*other, 0.7))
    await until(lambda: not role.notes._pages, "nothing is being written")  # noqa: SLF001
    role.notes.add(Note(*mine, 0.2, None, ((0, "second"),)))
    store.go.set()
    await soon(role.notes.flush(PATIENCE), "it is not written")
    written = {note.id: note for call in store.calls for note in call}
    assert (written[mine[0]].progress, written[mine[0]].text, written[other[0]].progress) == (0.2, "early", 0.7)
    assert store.texts == ["first", "second"]
    assert events(caplog, "store-away") == ["store-away"]
    await role.stop()


async def test_what_is_kept_for_an_away_store_is_bounded(swift_pile: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notebooks, "ATTEMPTS_MOST", 3)
    monkeypatch.setattr(notebooks, "LINES_MOST", 4)
    store = Taking(StoreAway("away"))
    store.go.clear()
    role, words = Role(store), [word() for _ in range(5)]
    for mine in words:
        for number in range(3):
            role.notes.add(Note(*mine, 0.5, lines=((0, str(number)),)))
    await until(lambda: not role.notes._pages, "nothing is being written")  # noqa: SLF001
    for number in range(3, 6):
        role.notes.add(Note(*words[0], lines=((0, str(number)),)))
    store.go.set()
    assert await soon(role.notes.flush(PATIENCE), "it is not written") == 2, "attempts whose notes were dropped"
    written = {note.id: [text for _, text in note.lines] for call in store.calls for note in call}
    assert written[words[0][0]] == ["… 2 lines left out", "2", "3", "4", "5"]
    assert len(written) == 3
    await role.stop()


async def test_one_that_the_store_cannot_take_does_not_keep_the_others(
    swift_pile: None, caplog: pytest.LogCaptureFixture
) -> None:
    store = Taking()
    role, words = Role(store), [word() for _ in range(4)]
    store.refuses = words[1][0]
    for mine in words:
        role.notes.add(Note(*mine, 0.5))
    await until(lambda: len(store.calls) == 3, "the others are not written")
    assert {note.id for call in store.calls for note in call} == {mine[0] for mine in words} - {store.refuses}
    assert [entry["job"] for entry in fields(caplog, "note-refused")] == [store.refuses]
    assert not role.notes._pages, "it is not tried for ever"  # noqa: SLF001
    await role.stop()


async def test_a_flush_of_a_store_that_is_away_ends_and_says_what_is_lost(swift_pile: None) -> None:
    store = Taking()
    store.go.clear()
    role = Role(store)
    role.notes.add(Note(*word(), 0.5))
    role.notes.add(Note(*word(), 0.5))
    await until(lambda: not role.notes._pages, "nothing is being written")  # noqa: SLF001
    role.notes.add(Note(*word(), 0.5))
    assert await soon(role.notes.flush(0.02), "the flush does not end") >= 1
    store.go.set()
    await role.stop()


# --- from threads, and what is saved


async def test_threads_lose_nothing_of_each_other(swift_pile: None) -> None:
    store, role, threads = Taking(), None, list[threading.Thread]()
    role = Role(store)
    words = [word() for _ in range(8)]

    def talk(mine: Word) -> None:
        for number in range(LINES_MOST):
            role.notes.add(Note(*mine, number / LINES_MOST, lines=((0, f"{mine[0]} {number}"),)))

    for mine in words:
        threads.append(threading.Thread(target=talk, args=(mine,)))
        threads[-1].start()
    for thread in threads:
        await asyncio.to_thread(thread.join, PATIENCE)
    await soon(role.notes.flush(PATIENCE), "it is not written")
    assert sorted(store.texts) == sorted(f"{mine[0]} {number}" for mine in words for number in range(LINES_MOST))
    await role.stop()


async def test_saves_from_anywhere_are_written_at_once_and_answered() -> None:
    store = Taking()
    notes, mine = Notes(store), word()

    async def elsewhere() -> bool:
        return await notes.asave(Note(*mine, saved=b"3"))

    assert await notes.asave(Note(*mine, saved=b"1"))
    assert await soon(asyncio.to_thread(notes.save, Note(*mine, saved=b"2")), "the thread waits for ever")
    assert await soon(asyncio.to_thread(lambda: asyncio.run(elsewhere())), "the other loop waits for ever")
    assert [note.saved for call in store.calls for note in call] == [b"1", b"2", b"3"]


async def test_saves_at_the_same_time_go_together_and_one_error_is_one_callers() -> None:
    store = Taking()
    store.go.clear()
    notes, words = Notes(store), [word() for _ in range(20)]
    store.refuses = words[7][0]
    saves = [asyncio.create_task(notes.asave(Note(*mine, saved=b"1"))) for mine in words]
    await asyncio.sleep(0)
    store.go.set()
    answers = await soon(asyncio.gather(*saves, return_exceptions=True), "they are not answered")
    assert [type(answer).__name__ for answer in answers] == ["bool"] * 7 + ["StoreError"] + ["bool"] * 12


async def test_who_waits_for_a_save_when_the_worker_leaves_hears_that_it_was_not_made() -> None:
    store = Taking()
    store.go.clear()
    notes = Notes(store)
    save = asyncio.create_task(asyncio.to_thread(notes.save, Note(*word(), saved=b"1")))
    await until(lambda: notes._calls, "the save does not arrive")  # noqa: SLF001
    notes.close()
    with pytest.raises(StoreAway, match="nothing was saved: the worker has left"):
        await soon(save, "the thread waits for ever")
    with pytest.raises(StoreAway, match="the worker has left"):
        await asyncio.to_thread(notes.save, Note(*word(), saved=b"1"))
    with pytest.raises(StoreAway, match="the worker has left"):
        await notes.asave(Note(*word(), saved=b"1"))
    store.go.set()


def test_a_save_after_the_loop_has_ended_does_not_hang() -> None:
    async def made() -> Notes:
        return Notes(Taking())  # type: ignore[arg-type]

    notes = asyncio.run(made())
    with pytest.raises(StoreAway, match="the worker has left"):
        notes.save(Note(*word(), saved=b"1"))
    notes.add(Note(*word(), 0.5))


async def test_a_copy_that_a_handler_forks_says_nothing_for_its_parent() -> None:
    store, reading_writing = Taking(), os.pipe()
    notes = Notes(store)
    pid = os.fork()
    if pid == 0:
        _copy(notes, reading_writing[1])
    os.close(reading_writing[1])
    with os.fdopen(reading_writing[0]) as said:
        text = said.read()
    os.waitpid(pid, 0)  # noqa: ASYNC222  # it has closed its end, so it has ended
    assert "the job is its parent's" in text
    assert text.endswith("{}")


def _copy(notes: Notes, writing: int) -> None:
    try:
        notes.add(Note(*word(), 0.5))
        notes.save(Note(*word(), saved=b"1"))
    except RuntimeError as error:
        os.write(writing, f"{error} {notes._pages}".encode())  # noqa: SLF001
    os._exit(0)


# --- the whole way, through a worker


async def lines(shop: Shop, job: Job[Any]) -> list[str]:
    return [line.text for line in await shop.store.log(job.id)]


async def test_what_a_handler_says_is_there_soon_after_its_end(shop: Shop, slow_pile: None) -> None:
    @shop.task
    def plain() -> None:
        job = current_job()
        job.progress(1, 4, text="begun")
        job.log("first")
        job.progress(3, 4)
        job.log("second")

    @shop.task
    async def coro() -> None:
        current_job().progress(0.75, text="begun")
        current_job().log("first")
        current_job().log("second")

    await shop.started()
    for task in (plain, coro):
        job = await task.aenqueue()
        record = await shop.state(job, State.SUCCEEDED)
        await until_said(shop, job, ["first", "second"])
        record = await shop.state(job, State.SUCCEEDED)
        assert (record.progress, record.text) == (0.75, "begun")


async def until_said(shop: Shop, job: Job[Any], expected: list[str]) -> None:
    said: list[str] = []
    try:
        async with asyncio.timeout(PATIENCE):
            while said != expected:
                said = await lines(shop, job)
                await asyncio.sleep(0.002)
    except TimeoutError:
        pytest.fail(f"it says {said}, not {expected}")


async def test_progress_of_a_running_job_is_seen_from_outside(shop: Shop, swift_pile: None) -> None:
    goes_on = threading.Event()

    @shop.task
    def waits() -> None:
        current_job().progress(0.5, text="half")
        assert goes_on.wait(PATIENCE)

    await shop.started()
    job = await waits.aenqueue()
    record = await shop.state(job, State.RUNNING)
    async with asyncio.timeout(PATIENCE):
        while record.progress is None:
            record = await shop.state(job, State.RUNNING)
            await asyncio.sleep(0.002)
    assert (record.progress, record.text) == (0.5, "half")
    goes_on.set()
    await shop.state(job, State.SUCCEEDED)


async def test_lines_of_an_attempt_that_is_tried_again_at_once_are_not_lost(shop: Shop, slow_pile: None) -> None:
    @shop.task(retry=Retry(max_attempts=5, base_delay=0))
    def fails() -> None:
        job = current_job()
        job.log(f"attempt {job.attempt}")
        job.progress(job.attempt, 10)
        if job.attempt < 5:
            raise ValueError

    await shop.started()
    job = await fails.aenqueue()
    await shop.state(job, State.SUCCEEDED)
    await until_said(shop, job, [f"attempt {number}" for number in range(1, 6)])
    log: list[LogLine] = list(await shop.store.log(job.id))
    assert [line.fence for line in log] == [1, 2, 3, 4, 5]


async def test_what_is_saved_is_there_for_the_next_attempt(shop: Shop) -> None:
    seen: list[tuple[str, int]] = []

    @shop.task(retry=Retry(max_attempts=3, base_delay=0))
    def plain() -> None:
        job = current_job()
        seen.append(("plain", job.saved(int, 0)))
        job.save(job.attempt * 10)
        if job.attempt < 3:
            raise ValueError

    @shop.task(retry=Retry(max_attempts=3, base_delay=0))
    async def coro() -> None:
        job = current_job()
        seen.append(("coro", job.saved(int, 0)))
        await job.asave(job.attempt * 10)
        if job.attempt < 3:
            raise ValueError

    await shop.started()
    for task in (plain, coro):
        await shop.state(await task.aenqueue(), State.SUCCEEDED)
    assert seen == [("plain", 0), ("plain", 10), ("plain", 20), ("coro", 0), ("coro", 10), ("coro", 20)]


@pytest.mark.parametrize("how", ["plain", "async", "elsewhere"])
async def test_who_saves_while_the_store_is_away_waits_for_it(
    shop: Shop, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    @shop.task
    def plain() -> None:
        current_job().log("said while away")
        current_job().save(7)

    @shop.task(name="async")
    async def coro() -> None:
        current_job().log("said while away")
        await current_job().asave(7)

    @shop.task
    def elsewhere() -> None:
        """On a loop of its own."""
        current_job().log("said while away")
        asyncio.run(current_job().asave(7))

    shop.store.away("note")
    await shop.started()
    job = await {"plain": plain, "async": coro, "elsewhere": elsewhere}[how].aenqueue()
    await until(lambda: shop.store.times("note") >= 5, "it is not asked for again")
    assert (await shop.state(job, State.RUNNING)).history == ()
    shop.store.back()
    found = await shop.state(job, State.SUCCEEDED)
    assert (found.attempt, found.history) == (1, ())
    assert events(caplog, "store-away") == ["store-away"], "each try is told"
    await until_said(shop, job, ["said while away"])


@pytest.mark.parametrize("why", ["shutdown", "timeout", "lost"])
@pytest.mark.parametrize("how", ["plain", "async"])
async def test_who_waits_for_the_store_to_save_and_must_end_waits_no_longer(shop: Shop, how: str, why: str) -> None:
    met: list[BaseException] = []

    @shop.task(timeout="50ms" if why == "timeout" else None)
    def plain() -> None:
        try:
            current_job().save(1)
        except BaseException as error:
            met.append(error)
            raise

    @shop.task(name="async", timeout="50ms" if why == "timeout" else None)
    async def coro() -> None:
        try:
            await current_job().asave(1)
        except BaseException as error:
            met.append(error)
            raise

    shop.store.away("note")
    worker = await shop.started(deadline=0)
    job = await (plain if how == "plain" else coro).aenqueue()
    await until(lambda: shop.store.times("note") >= 2, "it is not asked for again")
    if why == "shutdown":
        assert (await soon(worker.astop(), "it does not stop")).forced == []
    elif why == "lost":
        worker.lost(worker.identity)
    await until(lambda: met, "it waits for ever")
    assert isinstance(met[0], StoreAway if how == "plain" else asyncio.CancelledError)
    shop.store.back()
    if why == "timeout":
        assert (await shop.state(job, State.DEAD)).history[0].error.type == "TimeoutError"
    if why == "shutdown":
        assert [end.ended for end in (await shop.state(job, State.QUEUED)).history] == ["released"]


async def test_a_worker_whose_lease_is_in_doubt_saves_no_longer() -> None:
    """Another may have the job soon, and would not see what this one saves."""
    store, held, outage = Taking(*[StoreAway("away")] * 1000), True, Outage()
    notes = Notes(store, outage, lambda _: held)
    save = asyncio.create_task(notes.asave(Note(*word(), saved=b"1")))
    await until(lambda: len(store.faults) < 998, "it is not asked for again")
    assert outage.goes_on
    held = False
    with pytest.raises(StoreAway, match=r"^away$"):
        await soon(save, "it waits for ever")
    assert not outage.goes_on, "an outage of which nobody asks any more would never be over"


async def test_a_full_store_is_told_to_who_saves_at_once() -> None:
    store, full = Taking(), StoreAway("there is no room")
    full.full = True
    store.faults = [full]
    with pytest.raises(StoreAway, match="no room"):
        await soon(Notes(store, None, lambda _: True).asave(Note(*word(), saved=b"1")), "it waits for ever")


async def test_who_waits_for_the_store_to_save_when_the_worker_leaves_hears_that_it_was_not_made() -> None:
    store = Taking(*[StoreAway("away")] * 1000)
    notes = Notes(store, None, lambda _: True)
    save = asyncio.create_task(notes.asave(Note(*word(), saved=b"1")))
    await until(lambda: len(store.faults) < 998, "it is not asked for again")
    notes.close()
    with pytest.raises(StoreAway, match="the worker has left"):
        await soon(save, "it waits for ever")


async def test_what_was_said_before_the_worker_stops_is_written(shop: Shop, slow_pile: None) -> None:
    running = threading.Event()

    @shop.task
    def waits() -> None:
        job = current_job()
        job.log("still here")
        running.set()
        try:
            while True:
                job.check()
        except Stop as stop:
            job.log(f"stopped: {stop.why}")
            raise

    worker = await shop.started()
    job = await waits.aenqueue()
    assert await asyncio.to_thread(running.wait, PATIENCE), "it does not begin"
    await soon(worker.astop(0), "the worker does not stop")
    assert await lines(shop, job) == ["still here", "stopped: shutdown"]


async def test_what_could_not_be_written_at_the_stop_is_counted(
    shop: Shop, slow_pile: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("holdfast.worker.crew.NOTES_FLUSH", 0.05)

    @shop.task
    def says() -> None:
        current_job().log("nobody will read this")

    shop.store.away("note")
    worker = await shop.started()
    await shop.state(await says.aenqueue(), State.SUCCEEDED)
    departure = await soon(worker.astop(0), "the worker does not stop")
    assert departure.exit_code == 0
    assert [entry["attempts"] for entry in fields(caplog, "notes-lost")] == [1]


async def test_a_worker_that_hears_nothing_writes_no_notes(shop: Shop) -> None:
    @shop.task
    def silent() -> None:
        pass

    await shop.started()
    for _ in range(20):
        await shop.state(await silent.aenqueue(), State.SUCCEEDED)
    assert shop.store.times("note") == 0


# --- why it must end, in every kind of handler that runs in the worker's own process


class Stopped:
    """A plain or an async handler that looks, by check() or save(), until it is stopped, and says why."""

    def __init__(self, shop: Shop, how: str, look: str, **options: Any) -> None:
        self.running = threading.Event()
        self.heard: list[str] = []
        self.look = look
        self.task = shop.task(name="looks", **options)(self.plain_handler() if how == "plain" else self.async_handler())

    def plain_handler(self) -> Callable[[], None]:
        def handler() -> None:
            try:
                while True:
                    self.running.set()
                    with suppress(Exception):  # what most handlers do: it must not eat a Stop
                        current_job().check() if self.look == "check" else current_job().save(1)
            except Stop as stop:
                self.heard.append(stop.why)
                raise

        return handler

    def async_handler(self) -> Callable[[], Coroutine[Any, Any, None]]:
        async def handler() -> None:
            try:
                while True:
                    self.running.set()
                    with suppress(Exception, asyncio.CancelledError):  # it looks for the reason itself
                        current_job().check() if self.look == "check" else await current_job().asave(1)
                        await asyncio.sleep(0)
            except Stop as stop:
                self.heard.append(stop.why)
                raise

        return handler

    async def begun(self) -> None:
        assert await asyncio.to_thread(self.running.wait, PATIENCE), "it does not begin"


EACH = [(how, look) for how in ("plain", "async") for look in ("check", "save")]


@pytest.mark.parametrize(("how", "look"), EACH)
async def test_a_cancel_reaches_it(shop: Shop, how: str, look: str) -> None:
    it = Stopped(shop, how, look)
    await shop.started()
    job = await it.task.aenqueue()
    await it.begun()
    await job.acancel()
    await shop.state(job, State.CANCELLED)
    assert it.heard == ["cancelled"]


@pytest.mark.parametrize(("how", "look"), EACH)
async def test_its_timeout_reaches_it(shop: Shop, how: str, look: str) -> None:
    it = Stopped(shop, how, look, timeout=0.05)
    await shop.started()
    record = await shop.state(await it.task.aenqueue(), State.DEAD)
    assert it.heard == ["timeout"]
    assert record.history[-1].error is not None
    assert record.history[-1].error.type == "TimeoutError"


@pytest.mark.parametrize(("how", "look"), EACH)
async def test_the_shutdown_reaches_it_and_the_job_is_given_back(shop: Shop, how: str, look: str) -> None:
    it = Stopped(shop, how, look)
    worker = await shop.started()
    job = await it.task.aenqueue()
    await it.begun()
    departure = await soon(worker.astop(0), "the worker does not stop")
    record = await shop.state(job, State.QUEUED)
    assert (it.heard, record.attempt, departure.exit_code) == (["shutdown"], 0, 0)


@pytest.mark.parametrize(("how", "look"), EACH)
async def test_the_loss_of_its_claim_reaches_it_and_nothing_is_written(
    shop: Shop, how: str, look: str, caplog: pytest.LogCaptureFixture
) -> None:
    it = Stopped(shop, how, look)
    worker = await shop.started()
    job = await it.task.aenqueue()
    await it.begun()
    robbed = worker.identity
    await shop.store.retire(robbed.id)
    if look == "check":
        worker.lost(robbed)
    else:  # the store's answer to the save is the first that is heard of it
        sweeper = uuid4()
        await shop.store.register(sweeper, None, {})
        assert [claim.id for claim in await shop.store.reclaim(sweeper, 10)] == [job.id]
    await until(lambda: it.heard, "it is not told")
    assert it.heard == ["lost"]
    await until(lambda: events(caplog, "lost"), "its end is not told")
    if look == "save":
        record = await shop.state(job, State.RUNNING)
        assert (record.worker, record.fence) == (sweeper, 2), "it is the sweeper's, untouched"


@pytest.mark.parametrize("how", ["plain", "async"])
async def test_who_catches_the_shutdown_and_returns_has_succeeded(shop: Shop, how: str) -> None:
    running = threading.Event()

    @shop.task(name="plain")
    def plain() -> str:
        running.set()
        try:
            while True:
                current_job().check()
        except Stop as stop:
            return f"closed the file: {stop.why}"

    @shop.task(name="async")
    async def coro() -> str:
        running.set()
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        try:
            current_job().check()
        except Stop as stop:
            return f"closed the file: {stop.why}"
        return "nobody stopped it"

    worker = await shop.started()
    job = await (plain if how == "plain" else coro).aenqueue()
    assert await asyncio.to_thread(running.wait, PATIENCE), "it does not begin"
    await soon(worker.astop(0), "the worker does not stop")
    record = await shop.state(job, State.SUCCEEDED)
    assert record.result == b'"closed the file: shutdown"'
