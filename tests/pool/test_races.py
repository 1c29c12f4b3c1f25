"""Steps of two threads in the one order that would lose a job, a place or a word: made to happen, not waited for."""

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest

from holdfast import ConfigError, Pool, QueueFull
from tests.pool.rig import PATIENCE, held, until


def double(number: int) -> int:
    return 2 * number


class Between(deque[Any]):
    """A deque before whose next `append` something else happens, once."""

    def __init__(self, items: Any, first: Callable[[], object]) -> None:
        super().__init__(items)
        self._first: Callable[[], object] | None = first

    def append(self, item: Any) -> None:
        first, self._first = self._first, None
        if first is not None:
            first()
        super().append(item)


@pytest.mark.parametrize("drain", [True, False])
def test_a_stop_between_the_look_and_the_entry(drain: bool) -> None:
    pool = Pool(1)
    lane = Between([], lambda: pool.stop(drain=drain))
    pool._plan = pool._plan._replace(lane=lane)  # noqa: SLF001
    pool._core.lanes = [lane]  # noqa: SLF001
    with pytest.raises(ConfigError, match="this pool was stopped"):
        pool.submit(double, 1)
    assert (pool.join(PATIENCE), pool.stats().submitted) == (True, 0)


def test_a_job_that_comes_while_the_last_slot_goes_home() -> None:
    jobs: list[Any] = []
    with Pool(1) as pool:
        gate, _ = held(pool)
        pool._core.slots = Between([], lambda: jobs.append(pool.submit(double, 4)))  # noqa: SLF001
        gate.open()
        until(lambda: bool(jobs), "it has come")
        assert jobs[0].result(PATIENCE) == 8


def test_who_gives_up_although_a_place_was_his_passes_the_word_on() -> None:
    with Pool(1, max_size=1) as pool:
        pool.submit(double, 1).result(PATIENCE)  # so that there is a place, and it is free
        told = threading.Event()
        pool._core.askers.append(told.set)  # noqa: SLF001  # somebody else, who also waits
        assert not pool._entry._stop_asking(lambda: None)  # noqa: SLF001  # one who was told, and has given up
        assert told.is_set()


def test_a_word_that_comes_late_meets_nobody_elses_bell() -> None:
    class Line(deque[Any]):
        """Takes who asks first out at once, and rings when he asks again, once for each time that he asked."""

        def __init__(self) -> None:
            super().__init__()
            self.asked: list[Callable[[], object]] = []

        def append(self, ring: Any) -> None:
            self.asked.append(ring)
            if len(self.asked) == 2:
                for each in self.asked:
                    each()
            elif len(self.asked) > 2:
                super().append(ring)

        appendleft = append

    with Pool(1, max_size=1, block_timeout=0.02) as pool:
        gate, _ = held(pool)
        pool._core.askers = Line()  # noqa: SLF001
        with pytest.raises(QueueFull):
            pool.submit(double, 4)
        gate.open()
