"""A disk that is really full: what fits is stored, the rest is refused, workers pause and go on by themselves."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import resource
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from holdfast import Holdfast
from holdfast.clock import SystemClock
from holdfast.errors import StoreAway
from holdfast.job import Draft, Succeeded, Terms, new_id
from holdfast.policy import decide
from holdfast.store import Where
from holdfast.stores.sqlite import SqliteStore
from holdfast.worker.finisher import Finisher
from tests.flows.conftest import until
from tests.stores.faults import PATIENCE, Faults, Witness, faults

__all__ = ["faults"]

ROOM = 1 << 20  # bytes of the small disk
LARGE = 1_000_000  # bytes, of one job; more than the narrow files take, and with its index more than the small disk


def draft(size: int = 2) -> Draft:
    return Draft(new_id(), "shop.send", "mail", b"x" * size, Terms())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB; only root may make one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "holdfast-test", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True, timeout=PATIENCE)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no file system can be mounted here: {error}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True, timeout=PATIENCE)


class Narrow(sqlite3.Connection):
    """To a file that must not grow beyond so many pages, as if the disk ended there."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.execute("PRAGMA max_page_count = 200").close()


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """All connections that are opened from now on are Narrow."""
    monkeypatch.setattr(sqlite3, "connect", functools.partial(sqlite3.connect, factory=Narrow))


async def _one_of_five_is_too_large(path: Path, faults: Faults) -> None:
    store = SqliteStore(str(path), durability="normal", clock=SystemClock())
    await store.open()
    small, large = [draft() for _ in range(4)], draft(LARGE)
    calls = [[small[0]], [small[1]], [large], [small[2]], [small[3]]]
    async with faults.pile(store.beat([])):
        made = [asyncio.ensure_future(store.enqueue(jobs)) for jobs in calls]
        await asyncio.sleep(0)
    async with asyncio.timeout(PATIENCE):
        answers = await asyncio.gather(*made, return_exceptions=True)
    assert [type(answer) for answer in answers] == [list, list, StoreAway, list, list], answers
    refusal = answers[2]
    assert "is full" in str(refusal)
    assert "free some space" in str(refusal)
    assert str(path) in str(refusal)
    assert [receipt.created for answer in answers if isinstance(answer, list) for receipt in answer] == [True] * 4
    assert {record.id for record in await store.find(Where())} == {job.id for job in small}
    await store.close()
    witness = Witness(path)
    assert len(witness.contents()["holdfast_jobs"]) == 4, "told as stored, and not in the file"
    assert witness.whole()
    witness.close()


async def test_in_a_group_commit_only_the_caller_who_does_not_fit_is_refused(
    tmp_path: Path, faults: Faults, narrow: None
) -> None:
    await _one_of_five_is_too_large(tmp_path / "jobs.db", faults)


async def test_on_a_full_file_system_only_the_caller_who_does_not_fit_is_refused(
    small_disk: Path, faults: Faults
) -> None:
    await _one_of_five_is_too_large(small_disk / "jobs.db", faults)


async def test_a_store_that_was_opened_on_a_full_disk_opens_once_there_is_room(small_disk: Path) -> None:
    filler = small_disk / "filler"
    for left in (0, 20_000, 60_000):  # bytes: not enough for the file, for the index of its log, for its tables
        _fill(filler, ROOM - left)
        store = SqliteStore(str(small_disk / "jobs.db"), durability="normal", clock=SystemClock())
        with pytest.raises(StoreAway, match=r"jobs\.db: .*full"):
            await store.open()
    _fill(filler, 0)
    await store.open()
    assert (await store.enqueue([draft()]))[0].created
    await store.close()


def _fill(file: Path, size: int) -> None:
    with contextlib.suppress(OSError):  # it is full to the last page
        file.write_bytes(b"x" * size)


async def test_producers_that_share_a_batch_are_refused_each_for_himself(tmp_path: Path, narrow: None) -> None:
    """What one process enqueues at the same time goes to the store as one call."""
    jobs = Holdfast(f"sqlite:///{tmp_path}/jobs.db?durability=normal")

    @jobs.task
    def send(text: str) -> None: ...

    async with jobs, asyncio.timeout(PATIENCE):
        await send.aenqueue("the file is open")
        sizes = [1, 2, LARGE, 3, 4]
        answers = await asyncio.gather(*(send.aenqueue("x" * size) for size in sizes), return_exceptions=True)
        refused = [isinstance(answer, StoreAway) for answer in answers]
        assert refused == [size == LARGE for size in sizes], answers
        assert len([status async for status in jobs.afind()]) == 5


async def test_a_result_that_does_not_fit_keeps_no_other_outcome_waiting(tmp_path: Path, narrow: None) -> None:
    store = SqliteStore(f"{tmp_path}/jobs.db", durability="normal", clock=SystemClock())
    await store.open()
    await store.register(worker := uuid4(), None, {})
    await store.enqueue([draft() for _ in range(5)])
    claims = (await store.claim(worker, 1, None, 5)).jobs
    finisher = Finisher(store, lambda _: None, lambda _: None)
    for number, claim in enumerate(claims):
        finisher.add(decide(claim, Succeeded(b"1" * (LARGE if number == 2 else 1))))
    async with asyncio.timeout(PATIENCE):
        await finisher.step()
        assert finisher.pending == {claims[2].id}
        with pytest.raises(StoreAway, match="full"):
            await finisher.step()
        assert finisher.pending == {claims[2].id}, "an outcome was dropped"
        states = {record.id: str(record.state) for record in await store.find(Where())}
        await store.close()
    assert states == {claim.id: "succeeded" for claim in claims} | {claims[2].id: "running"}


# --- a worker on a full disk

PROGRAM = """
import asyncio, json, logging, os, sys
from holdfast import Holdfast, current_job

path, ledger = sys.argv[1], os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
logging.basicConfig(filename=sys.argv[2] + ".log", level=logging.WARNING, format="%(message)s")
jobs = Holdfast(f"sqlite:///{path}?durability=normal")

def note(event, **fields):
    os.write(ledger, json.dumps({"event": event, **fields}).encode() + b"\\n")

gates = {}

@jobs.task
async def send(number: int, waits: bool = False) -> int:
    note("begin", number=number, fence=current_job().fence)
    if waits:
        await gates.setdefault(number, asyncio.Event()).wait()
    note("effect", number=number)
    return number

async def main():
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async with jobs, jobs.worker(concurrency=3):
        note("ready")
        while line := await reader.readline():
            order, number = json.loads(line)
            if order == "finish":
                gates.setdefault(number, asyncio.Event()).set()
                continue
            try:
                await send.aenqueue(number, waits=order == "waits")
                note("stored", number=number)
            except Exception as error:
                note("refused", number=number, error=f"{type(error).__name__}: {error}")

asyncio.run(main())
"""


class Shop:
    """A process that enqueues what it is told, with a worker in it, whose files can be kept from growing."""

    def __init__(self, folder: Path) -> None:
        self.path, self.ledger = folder / "jobs.db", folder / "ledger"
        self.ledger.touch()
        self._errors = folder / "errors"
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, str(self.path), str(self.ledger)], stdin=subprocess.PIPE, stderr=errors
            )
        until(lambda: self.noted("ready"), "the worker's start")

    def tell(self, order: str, number: int) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([order, number]).encode() + b"\n")
        self._process.stdin.flush()

    def noted(self, event: str, number: int | None = None) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.ledger.read_text().splitlines()]
        return [line for line in lines if line["event"] == event and number in (None, line.get("number"))]

    def log(self) -> str:
        return Path(f"{self.ledger}.log").read_text()

    def fill(self) -> None:
        """From now on no file of the process grows beyond the length that the store's log has now."""
        most = Path(f"{self.path}-wal").stat().st_size
        resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))

    def free(self) -> None:
        resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    def states(self) -> dict[str, int]:
        with contextlib.closing(sqlite3.connect(self.path)) as connection:
            return dict(connection.execute("SELECT state, count(*) FROM holdfast_jobs GROUP BY 1").fetchall())

    def end(self) -> None:
        self.free()
        if self._process.poll() is None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            assert self._process.wait(PATIENCE) == 0, self._errors.read_text()[-2000:]

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(PATIENCE)


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    made = Shop(tmp_path)
    yield made
    made.kill()


linux = pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="the limit of another process is Linux's")


@linux
def test_a_full_disk_during_enqueue_refuses_it_and_later_takes_it(shop: Shop) -> None:
    shop.tell("stores", 1)
    until(lambda: shop.noted("effect", 1), "the first job's run")
    shop.fill()
    shop.tell("stores", 2)
    [refused] = until(lambda: shop.noted("refused", 2), "the refusal")
    assert "StoreAway" in refused["error"]
    assert str(shop.path) in refused["error"]
    shop.free()
    shop.tell("stores", 3)
    until(lambda: shop.noted("effect", 3), "a job's run once there is room")
    shop.end()
    assert not shop.noted("begin", 2), "a refused job ran"
    assert shop.states() == {"succeeded": 2}


@linux
def test_a_full_disk_during_finish_keeps_the_outcome_and_runs_nothing_twice(shop: Shop) -> None:
    for number in range(3):
        shop.tell("waits", number)
    until(lambda: len(shop.noted("begin")) == 3, "three running jobs")
    shop.fill()
    for number in range(3):
        shop.tell("finish", number)
    until(lambda: "event=store-away" in shop.log(), "a word that the disk is full")
    assert shop.states() == {"running": 3}
    shop.free()
    until(lambda: shop.states() == {"succeeded": 3}, "three outcomes once there is room")
    until(lambda: shop.log().count("event=store-back") == 1, "a word that it is over")
    shop.end()
    assert len(shop.noted("begin")) == len(shop.noted("effect")) == 3
    assert shop.log().count("event=store-away") == 1, shop.log()
    assert "free some space" in shop.log() or "a limit on the size of files" in shop.log()


@linux
def test_a_full_disk_during_claim_pauses_the_worker(shop: Shop) -> None:
    shop.tell("stores", 1)
    until(lambda: shop.noted("effect", 1), "the first job's run")
    shop.fill()
    with contextlib.closing(sqlite3.connect(shop.path, isolation_level=None)) as other:  # a process that has room
        [row] = other.execute("SELECT * FROM holdfast_jobs").fetchall()
        columns = [name for _, name, *_ in other.execute("PRAGMA table_info(holdfast_jobs)").fetchall()]
        job = dict(zip(columns, row, strict=True)) | {"seq": 2, "id": str(new_id()), "state": "queued", "worker": None}
        job |= {"fence": 0, "attempt": 0, "settled_fence": None, "settled_by": None, "settled_state": None}
        job |= {"prune_at": None, "finished_at": None, "payload": row[columns.index("payload")]}
        other.execute(f"INSERT INTO holdfast_jobs VALUES ({', '.join('?' * len(columns))})", [job[c] for c in columns])
    until(lambda: "event=store-away" in shop.log(), "a word that the disk is full")
    assert len(shop.noted("begin")) == 1, "it ran a job whose claim was not stored"
    shop.free()
    until(lambda: len(shop.noted("effect")) == 2, "the job's run once there is room")
    until(lambda: shop.log().count("event=store-back") == 1, "a word that it is over")
    shop.end()
    assert len(shop.noted("begin")) == 2
    assert shop.log().count("event=store-away") == 1, shop.log()
    assert shop.states() == {"succeeded": 2}
