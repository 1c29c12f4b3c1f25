"""One `store` for every test of the seam, once per backend; its time stands still until the test moves `shift`."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from holdfast.clock import FakeClock
from holdfast.store import Store
from tests.store.backends import ALWAYS, BACKENDS, Backend


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        call = getattr(item, "callspec", None)
        always = None if call is None else ALWAYS.get(call.params.get("backend"))
        if always is not None and item.path.stem not in always:
            item.add_marker("soak")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    return BACKENDS[request.param]


@pytest.fixture
def unopened(backend: Backend, tmp_path: Path, clock: FakeClock) -> Iterator[Store]:
    """A store in a fresh place: no schema, no jobs, not open."""
    with backend.bare(tmp_path, clock) as store:
        yield store


@pytest.fixture
def migrated(backend: Backend, tmp_path: Path, clock: FakeClock) -> Iterator[Store]:
    with backend.ready(tmp_path, clock) as store:
        yield store


@pytest.fixture
async def store(migrated: Store) -> AsyncIterator[Store]:
    await migrated.open()
    try:
        yield migrated
    finally:
        await migrated.close()
