"""What every test gets: asyncio as the only loop, a clean environment, a guard against left-over threads."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING
from zlib import crc32

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from tests.servers.places import Database

# The machines that run this are shared: a slow example is no finding.
settings.register_profile("holdfast", deadline=None, print_blob=True)
settings.load_profile("holdfast")

# What is started in the background of a shell ignores Ctrl-C, and so would all programs that the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A HOLDFAST_URL of the developer's own must not decide where the tests write.
for _name in [name for name in os.environ if name.startswith("HOLDFAST_")]:
    del os.environ[_name]

LONG = (
    "tests/flows/",
    "tests/programs/",
    "tests/test_demo.py",
    "tests/test_readme.py",
    "tests/store/test_machine.py",
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What starts whole services runs on one shared store, each test on another in turn, and on all in `make soak`.

    It comes first, or one process would still be at it when the others have nothing left to do.
    """
    stores: dict[str, set[str]] = {}  # of a test: not all run on all
    for item in items:
        if (store := _store(item)) is not None:
            stores.setdefault(_test(item), set()).add(store)
    for item in items:
        if (store := _store(item)) is None or item.get_closest_marker("every_store"):
            continue
        mine = sorted(stores[_test(item)])
        if store != mine[crc32(_test(item).encode()) % len(mine)]:
            item.add_marker("soak")
    items.sort(key=lambda item: not item.nodeid.startswith(LONG))


def _test(item: pytest.Item) -> str:
    return item.nodeid.partition("[")[0]


def _store(item: pytest.Item) -> str | None:
    call = getattr(item, "callspec", None)
    return None if call is None else call.params.get("shared")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def no_thread_left_behind() -> Iterator[None]:
    """Fail a test that leaves a thread of ours which would keep the interpreter from ending."""
    before = set(threading.enumerate())
    yield
    patience = time.monotonic() + 5
    for thread in set(threading.enumerate()) - before:
        if thread.name.startswith("holdfast") and not thread.daemon:
            thread.join(max(0.0, patience - time.monotonic()))
            assert not thread.is_alive(), f"thread {thread.name!r} still runs 5 s after its test; close what started it"


@pytest.fixture
def postgres() -> Iterator["Database"]:
    """A fresh place for jobs in PostgreSQL: migrated, empty."""
    from tests import servers

    with servers.postgres().ready() as database:
        yield database


@pytest.fixture
def bare_postgres() -> Iterator["Database"]:
    """An empty database."""
    from tests import servers

    with servers.postgres().bare() as database:
        yield database
