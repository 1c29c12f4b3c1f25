"""What the tests of the pool are made of: functions that wait for a word, and a guard against left-over threads."""

import threading
import time
from collections.abc import Callable
from typing import Any

from holdfast import Pool, PoolJob

PATIENCE = 40  # seconds, for whatever a test waits for


class Gate:
    """A function for a pool to run: it says that it has begun, and returns when it is let go."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self.begun = threading.Semaphore(0)

    def __call__(self, value: Any = None) -> Any:
        self.begun.release()
        assert self._open.wait(PATIENCE), "nobody opened the gate"
        return value

    def open(self) -> None:
        self._open.set()

    def await_begun(self, count: int = 1) -> None:
        for _ in range(count):
            assert self.begun.acquire(timeout=PATIENCE), "it has not begun"


def until(condition: Callable[[], bool], what: str) -> None:
    """Waits for something to become true."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {PATIENCE} s"
        time.sleep(0.002)


def held(pool: Pool, count: int = 1) -> tuple[Gate, list[PoolJob[Any]]]:
    """Has so many jobs of the pool under way, until the gate is opened."""
    gate = Gate()
    jobs = [pool.submit(gate, number) for number in range(count)]
    gate.await_begun(count)
    return gate, jobs


def threads_of_pools() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("holdfast-pool")}
