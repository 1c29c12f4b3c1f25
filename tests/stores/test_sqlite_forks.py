"""No file of SQLite's is open at the moment of a fork: the child would believe in locks that it does not have."""

import asyncio
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.clock import SystemClock
from holdfast.job import Draft, Terms, new_id
from holdfast.stores.sqlite import SqliteStore

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="no /proc here")

PATIENCE = 30  # seconds, for whatever a test waits for

HOLDER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "shop.db"


@pytest.fixture
def held_lock(file: Path) -> Iterator[None]:
    """Another process has the write lock of the file."""
    with subprocess.Popen([sys.executable, "-c", HOLDER, file], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        yield


def new_store(path: Path) -> SqliteStore:
    return SqliteStore(str(path), durability="normal", clock=SystemClock())


def open_in_a_child(folder: Path) -> list[str]:
    """What a forked child finds open in this folder."""
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # from Python 3.12 on, a fork beside threads warns: to have them is the point
        child = os.fork()
    if not child:
        try:
            places = [os.path.realpath(entry) for entry in Path("/proc/self/fd").iterdir()]
            os.write(write, "\n".join(place for place in places if place.startswith(f"{folder}/")).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as told:
        found = told.read().split()
    os.waitpid(child, 0)
    return found


async def test_though_a_write_waits_for_the_lock(file: Path, request: pytest.FixtureRequest) -> None:
    store = new_store(file)
    await store.open()
    request.getfixturevalue("held_lock")
    waiting = asyncio.ensure_future(store.enqueue([Draft(new_id(), "send", "mail", b"{}", Terms())]))
    for _ in range(30):
        await asyncio.sleep(0.002)  # lets the writer try again, and meet the lock again
        assert open_in_a_child(file.parent) == []
    assert not waiting.done()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    async with asyncio.timeout(PATIENCE):
        await store.close()


def test_though_other_threads_open_and_migrate_stores(file: Path) -> None:
    over = threading.Event()
    errors: list[BaseException] = []

    async def open_and_close(path: Path) -> None:
        while not over.is_set():
            store = new_store(path)
            await store.migrate()
            await store.open()
            await store.close()
            for place in file.parent.glob(f"{path.name}*"):
                place.unlink(missing_ok=True)

    def run(path: Path) -> None:
        try:
            asyncio.run(open_and_close(path))
        except BaseException as error:  # noqa: BLE001  # told below
            errors.append(error)

    threads = [threading.Thread(target=run, args=(file.with_name(f"{n}.db"),)) for n in range(2)]
    for thread in threads:
        thread.start()
    found = [open_in_a_child(file.parent) for _ in range(60)]
    over.set()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert (errors, [places for places in found if places]) == ([], [])
