"""The worker's tests: a shop with a flaky store, and mail that is read without a pause."""

from collections.abc import AsyncIterator

import pytest

from tests.worker.rig import Shop


@pytest.fixture(autouse=True)
def swift_mail(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cancel is heard within milliseconds, not within a second: nothing here is about that second."""
    monkeypatch.setattr("holdfast.worker.keeper.MAIL_EVERY", 0.01)


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    it = Shop()
    yield it
    await it.stop()
