"""Tests of code that uses Holdfast: `Sandbox`, an app on a store in memory, with a clock that stands still.

A fixture, in the conftest.py of a project whose app is `shop.jobs:jobs`:

    @pytest.fixture
    def box():
        with Sandbox(jobs) as box:
            yield box

In tests that are coroutines, `async with Sandbox(jobs) as box:` runs the async handlers on the test's own loop.
"""

from holdfast.testing.sandbox import Sandbox

__all__ = ["Sandbox"]
