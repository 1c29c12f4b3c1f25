"""No test of the pool may leave a thread of a pool behind."""

import logging
from collections.abc import Iterator

import pytest

from tests.pool.rig import threads_of_pools, until


@pytest.fixture(autouse=True)
def no_thread_of_a_pool_left(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(logging.INFO, "holdfast")
    before = threads_of_pools()
    yield
    until(lambda: threads_of_pools() <= before, "the threads of the test's pools end")
