"""One `store` for every test of the seam, once per backend; its time stands still until the test moves `shift`."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from holdfast.clock import FakeClock
from holdfast.store import Store
from tests.store.backends import BACKENDS


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=BACKENDS)
def unopened(request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock) -> Store:
    """A store in a fresh place: no schema, no jobs, not open."""
    return BACKENDS[request.param](tmp_path, clock)


@pytest.fixture
async def store(unopened: Store) -> AsyncIterator[Store]:
    await unopened.migrate()
    await unopened.open()
    try:
        yield unopened
    finally:
        await unopened.close()
