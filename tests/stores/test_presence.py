"""File locks of worker processes beside a SQLite file: one that is gone is noticed, one that is there never robbed.

The lease is ten minutes here, and the sweepers are new, so that nothing can come from a lease that ran out.
"""

import asyncio
import errno
import fcntl
import logging
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from holdfast import Holdfast
from holdfast.clock import DAY, MINUTE, SystemClock
from holdfast.job import Loss, Succeeded
from holdfast.stores.sqlite import SqliteStore, presence
from holdfast.stores.sqlite.presence import MOST_ASKED, MOST_HELD
from holdfast.stores.sqlite.sweep import PROCESS_GONE
from tests.flows.conftest import Ledger, Service, until
from tests.store.acts import LOSS, PATIENCE, Hand, finish, hand, now, record, running

LEASE = 10 * MINUTE

PROGRAM = """
import asyncio, os, subprocess, sys
from uuid import UUID
from holdfast.clock import SystemClock
from holdfast.stores.sqlite import SqliteStore

async def main(path, *workers):
    store = SqliteStore(path, durability="normal", clock=SystemClock())
    await store.open()
    for names in workers:
        worker, _, supervisor = names.partition("/")
        await store.register(UUID(worker), UUID(supervisor) if supervisor else None, {})
    other = 0
    THEN
    print(other, flush=True)
    sys.stdin.read()

asyncio.run(main(*sys.argv[1:]))
"""
FORKS = """
    if (other := os.fork()) == 0:
        os.read(0, 1)
        os._exit(0)
"""
STARTS = """
    other = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], close_fds=False).pid
"""
CLOSES = """
    await store.close()
"""


class Elsewhere:
    """A process that registers these workers ("id" or "id/supervisor"), then waits for its end."""

    def __init__(self, file: Path, *workers: object, then: str = "") -> None:
        text = PROGRAM.replace("    THEN\n", then)
        command = [sys.executable, "-c", text, str(file), *map(str, workers)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.other = int(self._process.stdout.readline() or -1)  # the pid of what it started
        assert self.other >= 0, "it could not register"

    def stop(self) -> None:
        """SIGSTOP; returns when it has stopped."""
        self._process.send_signal(signal.SIGSTOP)
        os.waitpid(self._process.pid, os.WUNTRACED)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(PATIENCE)

    def close(self) -> None:
        self.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()  # what it started ends with its input


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "shop.db"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "shop.db-workers"


@pytest.fixture
async def store(file: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(str(file), durability="normal", clock=SystemClock())
    await store.open()
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("UPDATE holdfast_meta SET lease = ?", [LEASE])
    yield store
    async with asyncio.timeout(PATIENCE):
        await store.close()


@pytest.fixture
def start(file: Path) -> Iterator[Callable[..., Elsewhere]]:
    """Starts processes, which are killed at the end."""
    started: list[Elsewhere] = []

    def start(*workers: object, path: Path = file, then: str = "") -> Elsewhere:
        started.append(Elsewhere(path, *workers, then=then))
        return started[-1]

    yield start
    for process in started:
        process.close()


Start = Callable[..., Elsewhere]


def named(store: SqliteStore, worker: UUID) -> Hand:
    """The hand of a worker that another process registered."""
    made = Hand(store)
    made.id = worker
    return made


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def lease_until(file: Path, worker: UUID) -> int:
    with closing(sqlite3.connect(file)) as database:
        [[until]] = database.execute("SELECT lease_until FROM holdfast_workers WHERE id = ?", [str(worker)])
    return int(until)


# --- a process that is gone


async def test_the_job_of_a_killed_process_is_taken_at_once_by_anyone(
    store: SqliteStore, file: Path, start: Start
) -> None:
    worker, sweeper = uuid4(), await hand(store)
    process = start(worker)
    job = await running(store, named(store, worker))
    assert await sweeper.reclaim() == {}, "its process is there"
    process.kill()
    assert lease_until(file, worker) > await now(store) + LEASE // 2, "its lease lives on"
    assert await sweeper.reclaim() == {job.id: job._replace(fence=2, worker=sweeper.id, loss=PROCESS_GONE)}
    assert not await named(store, worker).beat(), "it is retired"
    assert (await finish(store, job, Succeeded(b"late"))).answer == "stale"


def _killed_after_its_first_line(program: str) -> str:
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        process.kill()
    return line


async def test_an_embedded_workers_job_runs_again_elsewhere_long_before_the_lease_ends(
    store: SqliteStore, file: Path
) -> None:
    url = f"sqlite:///{file}"
    program = f"""
import threading
from holdfast import Holdfast
jobs = Holdfast({url!r})
@jobs.task(name="shop.wait")
def wait():
    print("begun", flush=True)
    threading.Event().wait()
with jobs.worker():
    threading.Event().wait()
"""
    with Holdfast(url) as jobs:

        @jobs.task(name="shop.wait")
        def wait() -> int:
            return 7

        job = await wait.aenqueue()
        assert _killed_after_its_first_line(program) == "begun\n"
        dead = (await record(store, job.id)).worker
        assert dead is not None
        end = lease_until(file, dead)
        async with jobs.worker():
            assert await job.aresult(timeout=PATIENCE) == 7
    found = await record(store, job.id)
    assert found.started_at is not None
    assert found.started_at < end, "it was not the lease"
    assert [(a.ended, a.reason) for a in found.history] == [("lost", PROCESS_GONE.cause)]
    assert (found.attempt, found.losses, found.crashes) == (1, 1, 0)


async def test_when_a_whole_service_was_killed_the_next_goes_on_at_once(
    store: SqliteStore, file: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.flows import shop

    url, ledger = f"sqlite:///{file}", Ledger(tmp_path / "ledger")
    monkeypatch.setenv("HOLDFAST_URL", url)
    services = [Service(url, ledger)]
    try:
        with shop.jobs:
            job = await shop.work.aenqueue(7, seconds=2)
            first = until(lambda: ledger.lines("begin"), "the first run")[0]
            until(lambda: len(names(folder)) == 2, "the locks of the supervisor and its child")
            services[0].process.kill()
            os.kill(first["pid"], signal.SIGKILL)
            services[0].process.wait(PATIENCE)
            services.append(Service(url, ledger))
            assert await job.aresult(timeout=PATIENCE) == 7
        found = await record(store, job.id)
        assert [(a.ended, a.reason) for a in found.history] == [("lost", PROCESS_GONE.cause)]
        assert services[1].stop() == 0
    finally:
        for service in services:
            service.process.kill()
            service.process.wait(PATIENCE)


async def test_a_word_that_was_said_before_stays(store: SqliteStore, start: Start) -> None:
    worker, first, next_ = uuid4(), uuid4(), await hand(store)
    process = start(worker, first)
    job = await running(store, named(store, worker))
    await named(store, worker).retire(LOSS, {(job.id, job.fence): Loss("SIGSEGV", culprit=True)})
    assert job.id in await named(store, first).reclaim()
    process.kill()
    assert (await next_.reclaim())[job.id].loss == Loss("SIGSEGV", culprit=True)


async def test_a_lock_that_another_sweeper_asks_for_just_now_can_be_asked_for(
    store: SqliteStore, folder: Path, start: Start
) -> None:
    worker, sweeper = uuid4(), await hand(store)
    process = start(worker)
    job = await running(store, named(store, worker))
    process.kill()
    with (folder / str(worker)).open() as asked:
        fcntl.flock(asked, fcntl.LOCK_SH | fcntl.LOCK_NB)
        assert list(await sweeper.reclaim()) == [job.id]


@pytest.mark.parametrize("then", [FORKS, STARTS])
async def test_a_process_that_it_forked_or_started_does_not_stand_in_for_it(
    store: SqliteStore, start: Start, then: str
) -> None:
    worker, sweeper = uuid4(), await hand(store)
    process = start(worker, then=then)
    job = await running(store, named(store, worker))
    assert await sweeper.reclaim() == {}
    process.kill()
    os.kill(process.other, 0)  # that one lives on
    assert (await sweeper.reclaim())[job.id].loss == PROCESS_GONE


async def test_a_file_is_the_same_by_whatever_path(store: SqliteStore, tmp_path: Path, start: Start) -> None:
    (tmp_path / "link.db").symlink_to("shop.db")
    worker, sweeper = uuid4(), await hand(store)
    process = start(worker, path=tmp_path / "link.db")
    job = await running(store, named(store, worker))
    process.kill()
    assert (await sweeper.reclaim())[job.id].loss == PROCESS_GONE


# --- a process that is there


async def test_a_process_that_was_stopped_is_not_robbed(store: SqliteStore, start: Start) -> None:
    worker, sweeper = uuid4(), await hand(store)
    process = start(worker)
    job = await running(store, named(store, worker))
    process.stop()
    assert await sweeper.reclaim() == {}
    process.kill()
    assert list(await sweeper.reclaim()) == [job.id]


async def test_closing_the_store_does_not_let_go_of_the_lock(store: SqliteStore, start: Start) -> None:
    """Code of a worker may go on after its store was closed."""
    worker, sweeper = uuid4(), await hand(store)
    process = start(worker, then=CLOSES)
    job = await running(store, named(store, worker))
    assert await sweeper.reclaim() == {}
    process.kill()
    assert list(await sweeper.reclaim()) == [job.id]


async def test_registering_again_changes_nothing(store: SqliteStore, folder: Path, start: Start) -> None:
    worker, other, sweeper = uuid4(), uuid4(), await hand(store)
    process = start(worker, other, worker)
    job = await running(store, named(store, worker))
    before = (folder / str(worker)).stat().st_ino
    await store.register(worker, None, {})  # here, where it does not belong
    assert (folder / str(worker)).stat().st_ino == before
    assert await sweeper.reclaim() == {}
    process.kill()
    assert list(await sweeper.reclaim()) == [job.id]


async def test_registering_again_in_the_same_process_takes_no_second_lock(
    store: SqliteStore, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    worker = await hand(store)
    await store.register(worker.id, None, {})
    assert names(folder) == {str(worker.id)}
    assert caplog.records == []


async def test_workers_of_one_process_never_take_each_other_for_gone(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even where locks are the process's, so that it may have its own once more, as on some network disks."""
    worker, sweeper = await hand(store), await hand(store)
    monkeypatch.setattr(presence.fcntl, "flock", lambda *_: None)
    job = await running(store, worker)
    assert await sweeper.reclaim() == {}
    assert (await finish(store, job, Succeeded(b"1"))).answer == "accepted"


async def test_a_file_is_locked_before_anybody_sees_it(
    store: SqliteStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link, seen = os.link, list[bool]()

    def watched(new: Path, name: Path) -> None:
        seen.append(name.exists())
        link(new, name)
        with name.open() as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_SH | fcntl.LOCK_NB)
        seen.append(name.exists())

    monkeypatch.setattr(presence.os, "link", watched)
    worker = await hand(store)
    assert seen == [False, True]
    assert str(worker.id) in names(folder)


async def test_a_file_that_goes_while_it_is_asked_for_says_nothing(
    store: SqliteStore, folder: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, sweeper = uuid4(), await hand(store)
    process = start(worker)
    await running(store, named(store, worker))
    process.kill()
    flock, calls = fcntl.flock, list[int]()

    def leaving(descriptor: int, how: int) -> None:
        calls.append(descriptor)
        if len(calls) == 2:  # the first look finds it, and the second, under the write lock, is what counts
            (folder / str(worker)).unlink()
        flock(descriptor, how)

    monkeypatch.setattr(presence.fcntl, "flock", leaving)
    assert await sweeper.reclaim() == {}
    assert len(calls) == 2


# --- with a supervisor


async def test_a_dead_child_is_left_to_its_supervisor_as_long_as_that_is_there(
    store: SqliteStore, start: Start
) -> None:
    """It kills what the child has left behind before it gives the jobs back."""
    supervisor, child, sweeper = uuid4(), uuid4(), await hand(store)
    above = start(supervisor)
    below = start(f"{child}/{supervisor}")
    job = await running(store, named(store, child))
    below.kill()
    above.stop()
    assert await sweeper.reclaim() == {}
    above.kill()
    assert (await sweeper.reclaim())[job.id].loss == PROCESS_GONE


async def test_a_child_that_outlives_its_supervisor_is_not_robbed(store: SqliteStore, start: Start) -> None:
    supervisor, child, sweeper = uuid4(), uuid4(), await hand(store)
    above = start(supervisor)
    below = start(f"{child}/{supervisor}")
    job = await running(store, named(store, child))
    above.kill()
    assert await sweeper.reclaim() == {}
    below.kill()
    assert list(await sweeper.reclaim()) == [job.id]


async def test_of_a_supervisor_that_is_not_known_nothing_is_concluded(store: SqliteStore, start: Start) -> None:
    supervisor, child, sweeper = uuid4(), uuid4(), await hand(store)
    below = start(f"{child}/{supervisor}")
    await running(store, named(store, child))
    below.kill()
    assert await sweeper.reclaim() == {}


# --- the files


async def test_a_worker_that_leaves_takes_its_file_along(store: SqliteStore, folder: Path) -> None:
    worker, other = await hand(store), await hand(store)
    assert names(folder) == {str(worker.id), str(other.id)}
    await worker.retire()
    assert names(folder) == {str(other.id)}
    await worker.retire()
    await Hand(store).retire()
    assert names(folder) == {str(other.id)}


async def test_who_retires_a_dead_worker_removes_its_file(store: SqliteStore, folder: Path, start: Start) -> None:
    worker, other = uuid4(), uuid4()
    start(worker, other).kill()
    await store.retire(worker, LOSS)
    assert names(folder) == {str(other)}


async def test_pruning_removes_the_files_of_workers_that_nobody_knows_any_more(
    store: SqliteStore, folder: Path, start: Start
) -> None:
    dead, silent, forgotten = uuid4(), uuid4(), uuid4()
    start(dead, silent).kill()
    start(forgotten)
    mine = await hand(store)
    old, young = folder / f"{uuid4()}.new", folder / f"{uuid4()}.new"
    for path in (old, young, folder / "readme"):
        path.touch()
    os.utime(old, (0, 0))
    store.shift += DAY
    await store.beat([silent])
    await store.prune(100)
    kept = {str(silent), str(forgotten), str(mine.id), young.name, "readme"}
    assert names(folder) == kept, "a process that lives keeps its file, known or not"


async def test_a_process_holds_only_so_many_locks(store: SqliteStore, folder: Path) -> None:
    workers = [await hand(store) for _ in range(MOST_HELD + 1)]
    assert names(folder) == {str(worker.id) for worker in workers[1:]}
    assert await workers[0].beat()


async def test_a_descriptor_that_is_a_strangers_now_is_not_closed(store: SqliteStore, tmp_path: Path) -> None:
    """Code that closes all descriptors takes the lock along, and its number may be used anew."""
    worker = await hand(store)
    number = presence._held[str(worker.id)].descriptor  # noqa: SLF001  # it is nobody else's business
    with (tmp_path / "other").open("w") as stranger:
        os.dup2(stranger.fileno(), number)
        await worker.retire()
        assert os.fstat(number).st_ino == os.fstat(stranger.fileno()).st_ino
    os.close(number)


# --- where there can be no lock


@contextmanager
def _a_file_in_its_place(folder: Path, _: pytest.MonkeyPatch) -> Iterator[None]:
    folder.touch()
    yield


@contextmanager
def _failing(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, code: int) -> Iterator[None]:
    def fail(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(module, name, fail)
        yield


CANNOT: dict[str, Callable[[Path, pytest.MonkeyPatch], Any]] = {
    "a file in place of the folder": _a_file_in_its_place,
    "a folder that cannot be made": lambda _, patch: _failing(patch, presence.Path, "mkdir", errno.EROFS),
    "no locks": lambda _, patch: _failing(patch, presence.fcntl, "flock", errno.ENOLCK),
    "no links": lambda _, patch: _failing(patch, presence.os, "link", errno.EPERM),
    "no descriptor left": lambda _, patch: _failing(patch, presence.os, "open", errno.EMFILE),
}


@pytest.mark.parametrize("why", CANNOT)
async def test_without_a_lock_a_worker_works_with_its_lease_alone(
    store: SqliteStore,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    why: str,
) -> None:
    caplog.set_level(logging.WARNING)
    with CANNOT[why](folder, monkeypatch):
        worker, sweeper = await hand(store), await hand(store)
        job = await running(store, worker)
        assert await sweeper.reclaim() == {}
        assert (await finish(store, job, Succeeded(b"1"))).answer == "accepted"
        await running(store, worker)
        await worker.retire()
        assert len(await sweeper.reclaim()) == 1
    assert sum("no-file-lock" in str(entry.msg) for entry in caplog.records) == 1, "told once"
    assert names(folder) == set()


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EMFILE])
async def test_a_lock_that_cannot_be_asked_for_says_nothing(
    store: SqliteStore, start: Start, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    worker, sweeper = uuid4(), await hand(store)
    process = start(worker)
    job = await running(store, named(store, worker))
    process.kill()
    module, name = (presence.os, "open") if code == errno.EMFILE else (presence.fcntl, "flock")
    with _failing(monkeypatch, module, name, code):
        assert await sweeper.reclaim() == {}
    assert list(await sweeper.reclaim()) == [job.id]


async def test_a_file_that_was_removed_says_nothing(store: SqliteStore, folder: Path, start: Start) -> None:
    worker, sweeper = uuid4(), await hand(store)
    process = start(worker)
    await running(store, named(store, worker))
    (folder / str(worker)).unlink()
    process.kill()
    assert await sweeper.reclaim() == {}


# --- what it costs


async def test_where_nobody_else_holds_a_job_nothing_is_asked(
    store: SqliteStore, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(uuid4(), uuid4())
    sweeper, retired = await hand(store), await hand(store)
    await running(store, sweeper)
    await running(store, retired)
    await retired.retire()

    def asked(*_: object) -> None:
        raise AssertionError("asked the system")

    monkeypatch.setattr(presence.os, "open", asked)
    monkeypatch.setattr(presence.os.path, "realpath", asked)
    assert len(await sweeper.reclaim()) == 1


async def test_only_so_many_are_looked_after_at_once_the_silent_ones_first(
    store: SqliteStore, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers = [uuid4() for _ in range(MOST_ASKED + 8)]
    process = start(*workers)
    silent = {(await running(store, named(store, worker))).id for worker in workers[::2]}
    rest = {(await running(store, named(store, worker))).id for worker in workers[1::2]}
    store.shift += 1000
    await store.beat(workers[1::2])
    sweeper = await hand(store)
    ended, asked = presence._ended, list[str]()  # noqa: SLF001  # what is counted

    def counted(folder: Path, name: str) -> bool:
        asked.append(name)
        return ended(folder, name)

    monkeypatch.setattr(presence, "_ended", counted)
    assert await sweeper.reclaim() == {}
    assert len(asked) == MOST_ASKED
    process.kill()
    first = await sweeper.reclaim()
    assert silent < first.keys()
    assert len(first) == MOST_ASKED
    assert (await sweeper.reclaim()).keys() == silent | rest
