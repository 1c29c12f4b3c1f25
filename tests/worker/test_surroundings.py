"""What surrounds a handler in a slot process: notes over the channel, reasons to stop, hooks, carry and resources."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

import holdfast.worker.notes as notebooks
from holdfast import Job, JobFailed, Worker
from holdfast.app import parts_of
from holdfast.errors import StoreAway, StoreError
from holdfast.job import Note
from holdfast.store import Where
from holdfast.worker.processes.pad import Pad
from tests.worker import talkers
from tests.worker.rig import PATIENCE, Flaky, claim, soon, until

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TALKERS", str(tmp_path))
    (tmp_path / "seen").touch()
    return tmp_path


@pytest.fixture
async def worker(here: Path) -> AsyncIterator[Worker]:
    async with talkers.jobs.worker(concurrency=4, deadline=0) as it:
        yield it


@pytest.fixture
async def flaky(here: Path) -> AsyncIterator[Flaky]:
    """A store that can be made to fail, and a worker on it."""
    it = talkers.jobs.worker(concurrency=4, deadline=0)
    supply = it._crew._supply  # noqa: SLF001
    store = Flaky(supply()[0])
    it._crew._supply = lambda: (store, supply()[1])  # type: ignore[assignment]  # noqa: SLF001
    async with it:
        yield store
        store.back()


def seen(here: Path, *, mine: bool | None = None) -> list[str]:
    """What was noted, in the worker's own process, in the slots', or in all."""
    lines = [line.split(" ", 1) for line in (here / "seen").read_text().splitlines()]
    return [event for pid, event in lines if mine is None or (int(pid) == os.getpid()) is mine]


async def over(job: Job[Any]) -> str:
    async with asyncio.timeout(60):
        while not (await job.astatus()).finished:  # noqa: ASYNC110  # a handle tells nobody of its end
            await asyncio.sleep(0.005)
    return str((await job.astatus()).state)


async def until_said(job: Job[Any], expected: list[str]) -> None:
    said: list[str] = []
    try:
        async with asyncio.timeout(PATIENCE):
            while said != expected:
                said = [line.text for line in await parts_of(talkers.jobs).link.store.log(job.id)]
                await asyncio.sleep(0.005)
    except TimeoutError:
        pytest.fail(f"it says {said}, not {expected}")


async def until_at(job: Job[Any], share: float, text: str | None = None) -> None:
    found: tuple[float | None, str | None] = (None, None)
    try:
        async with asyncio.timeout(PATIENCE):
            while found != (share, text):
                status = await job.astatus()
                found = (status.progress, status.text)
                await asyncio.sleep(0.005)
    except TimeoutError:
        pytest.fail(f"it is at {found}, not at {share}")


async def begun(here: Path, name: str) -> None:
    await until((here / name).exists, f"{name} does not begin")


# --- notes


async def test_what_it_says_is_kept_and_what_travelled_is_there(here: Path, worker: Worker) -> None:
    talkers.tenant.set("acme")
    job = await talkers.says.using(headers={"trace": "4bf9"}).aenqueue()
    assert await job.aresult(60) == {"tenant": "acme", "headers": {"trace": "4bf9", "tenant": '"acme"'}}
    await until_said(job, [f"line {number}" for number in range(5)])
    await until_at(job, 0.75, "number 199")
    assert seen(here, mine=False) == ["+hook acme", "-hook"]


async def test_what_it_says_is_seen_while_it_runs(here: Path, worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notebooks, "EVERY", 0.01)
    job = await talkers.says_and_waits.aenqueue("it")
    await until_said(job, ["begun"])
    await until_at(job, 0.25)
    assert (await job.astatus()).state == "running"
    await job.acancel()
    assert await over(job) == "cancelled"


@pytest.mark.parametrize("task", [talkers.saves, talkers.saves_async], ids=["plain", "async"])
async def test_what_is_saved_is_there_for_the_next_attempt(task: Any, worker: Worker) -> None:
    assert await (await task.aenqueue()).aresult(60) == [1, 2, 3]


async def test_as_much_as_may_be_saved_goes_through(worker: Worker) -> None:
    assert await (await talkers.saves_much.aenqueue()).aresult(60) == 500_000


async def test_threads_of_the_handler_save_and_speak(worker: Worker) -> None:
    job = await talkers.saves_from_threads.aenqueue()
    assert await job.aresult(60) in range(8)
    async with asyncio.timeout(PATIENCE):
        while len(lines := await parts_of(talkers.jobs).link.store.log(job.id)) < 8:  # noqa: ASYNC110  # a log tells nobody
            await asyncio.sleep(0.005)
    assert sorted(line.text for line in lines) == [f"thread {number}" for number in range(8)]


class _Full(StoreAway):
    full = True


@pytest.mark.parametrize(
    ("error", "met"), [(_Full("no room"), "StoreAway: no room"), (StoreError("broken"), "StoreError: broken")]
)
async def test_what_the_store_says_of_a_save_is_told_in_the_process(flaky: Flaky, error: Exception, met: str) -> None:
    flaky.fail("note", error)
    assert await (await talkers.meets_what_a_save_raises.aenqueue()).aresult(60) == met


async def test_who_saves_there_while_the_store_is_away_waits_for_it(flaky: Flaky) -> None:
    flaky.fail("note", times=3)
    assert await (await talkers.meets_what_a_save_raises.aenqueue()).aresult(60) == "nothing"


async def test_what_it_said_before_it_closed_the_channel_and_after_comes_with_its_end(worker: Worker) -> None:
    job = await talkers.closes_everything.aenqueue()
    assert "the handler has closed the channel to its worker" in await job.aresult(60)
    await until_said(job, ["before", "after"])
    await until_at(job, 1)


# --- reasons to stop


EACH = [(how, look) for how in ("plain", "async") for look in ("check", "save")]


def looking(how: str, *, timed: bool = False) -> Any:
    tasks = {"plain": (talkers.looks, talkers.looks_timed), "async": (talkers.looks_async, talkers.looks_async_timed)}
    return tasks[how][timed]


@pytest.mark.parametrize(("how", "look"), EACH)
async def test_a_cancel_reaches_it(here: Path, worker: Worker, how: str, look: str) -> None:
    job = await looking(how).aenqueue("it", look)
    await begun(here, "it")
    await job.acancel()
    assert await over(job) == "cancelled"
    assert "stopped cancelled" in seen(here)


@pytest.mark.parametrize(("how", "look"), EACH)
async def test_its_timeout_reaches_it(here: Path, worker: Worker, how: str, look: str) -> None:
    with pytest.raises(JobFailed, match="TimeoutError"):
        await (await looking(how, timed=True).aenqueue("it", look)).aresult(60)
    assert "stopped timeout" in seen(here)


@pytest.mark.parametrize(("how", "look"), EACH)
async def test_the_shutdown_reaches_it_and_the_job_is_given_back(here: Path, how: str, look: str) -> None:
    async with talkers.jobs.worker(deadline=0):
        job = await looking(how).aenqueue("it", look)
        await begun(here, "it")
    status = await job.astatus()
    assert (status.state, status.attempt) == ("queued", 0)
    assert "stopped shutdown" in seen(here)
    await job.acancel()


@pytest.mark.parametrize(("how", "look"), EACH)
async def test_the_loss_of_its_claim_reaches_it(here: Path, flaky: Flaky, how: str, look: str) -> None:
    job = await looking(how).aenqueue("it", look)
    await begun(here, "it")
    record = next(iter(await flaky.find(Where(ids=(job.id,)), None, 1)))
    assert record.worker is not None
    await flaky.retire(record.worker)
    if look == "save":  # else the worker's next beat says so
        sweeper = uuid4()
        await flaky.register(sweeper, None, {})
        assert [claim.id for claim in await flaky.reclaim(sweeper, 10)] == [job.id]
    await until(lambda: "stopped lost" in seen(here), "it is not told")
    await job.acancel()


async def test_who_catches_the_shutdown_and_returns_has_succeeded(here: Path) -> None:
    async with talkers.jobs.worker(deadline=0):
        job = await talkers.tidies_up.aenqueue("it")
        await begun(here, "it")
    assert await job.aresult(60) == "closed the file: shutdown"


# --- resources


async def test_plain_ones_are_opened_at_their_first_use_and_closed_when_the_process_leaves(here: Path) -> None:
    async with talkers.jobs.worker():
        assert seen(here, mine=True) == ["+files", "+never_used", "+http"]
        first = await (await talkers.pid.aenqueue()).aresult(60)
        assert await (await talkers.uses.aenqueue(3)).aresult(60) == ["files"] * 3
        assert await (await talkers.uses.aenqueue(1)).aresult(60) == ["files"]
        assert await (await talkers.pid.aenqueue()).aresult(60) == first, "one process did all of it"
    slot = [event for event in seen(here, mine=False) if "hook" not in event]
    assert slot == ["+files", "-files"]
    assert seen(here, mine=True)[3:] == ["-http", "-never_used", "-files"]


async def test_an_async_handler_in_a_process_has_both_kinds(here: Path, worker: Worker) -> None:
    assert await (await talkers.uses_async.aenqueue()).aresult(60) == ["files", "http"]
    assert await (await talkers.uses_async.aenqueue()).aresult(60) == ["files", "http"]
    slot = [event for event in seen(here, mine=False) if "hook" not in event]
    assert slot == ["+files", "+http", "-http", "+http", "-http"], "the async ones live as long as their loop"


async def test_an_alone_run_of_an_async_handler_has_both_kinds(here: Path, worker: Worker) -> None:
    draft = talkers.on_the_loop.bind().draft
    await parts_of(talkers.jobs).link.store.enqueue([replace(draft, alone=True)])
    assert await talkers.on_the_loop.job(draft.id).aresult(60) == "http"
    assert "+http" in seen(here, mine=False)


async def test_an_async_one_in_a_plain_handlers_process_says_what_to_do(worker: Worker) -> None:
    with pytest.raises(JobFailed, match=r"ResourceError.*it is async"):
        await (await talkers.wants_the_async_one.aenqueue()).aresult(60)


async def test_one_that_cannot_be_opened_there_fails_the_attempt(
    here: Path, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROKEN", "1")  # for the processes that start from now on
    for task in (talkers.uses.bind(1), talkers.uses_async.bind()):
        (job,) = await talkers.jobs.aenqueue_many([task])
        with pytest.raises(JobFailed, match=r"files could not be opened: OSError: no such disk"):
            await job.aresult(60)


# --- the pad by itself


async def test_notes_of_an_attempt_that_has_ended_are_not_laid_to_the_next() -> None:
    said: list[bytes] = []
    pad = Pad(lambda line: said.append(line) or True, threading.Lock())  # type: ignore[func-returns-value]
    first, second = claim(), claim()
    pad.begin(1, first)
    assert pad.end() is None
    pad.begin(2, second)
    pad.add(Note(*first[:3], 0.5))
    assert pad.save(Note(*first[:3], saved=b"1")) is False
    assert pad.end() is None
    assert said == []


async def test_who_waits_for_a_save_is_answered_by_the_key() -> None:
    said: list[bytes] = []
    pad = Pad(lambda line: said.append(line) or True, threading.Lock())  # type: ignore[func-returns-value]
    mine = claim()
    pad.begin(1, mine)
    saves = [asyncio.create_task(asyncio.to_thread(pad.save, Note(*mine[:3], saved=b"1"))) for _ in range(2)]
    await until(lambda: len(said) == 2, "they are not sent")
    pad.answered({"key": 99, "held": True, "error": "", "away": False})
    pad.answered({"key": 1, "held": False, "error": "", "away": False})
    pad.answered({"key": 0, "held": True, "error": "", "away": False})
    assert sorted(await soon(asyncio.gather(*saves), "they are not answered")) == [False, True]
