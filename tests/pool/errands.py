"""What the pool's processes are sent to do; they import this, so it imports little."""

import os
import signal
import subprocess
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast import current_job


@dataclass
class Point:
    x: int
    y: int


class Fussy(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__("fussy")
        self.both = one, two


def mirrored(point: Point, *, factor: int = 1) -> Point:
    return Point(point.y * factor, point.x * factor)


async def amirrored(point: Point) -> Point:
    return mirrored(point)


def pid() -> int:
    return os.getpid()


def about() -> tuple[str, int, str, str]:
    job = current_job()
    job.check()
    job.progress(0.5)
    return str(job.id), job.attempt, job.task, job.queue


def fail() -> None:
    raise KeyError("no such key")


def fail_with(thing: object) -> None:
    raise KeyError("no such key")


def fail_fussily() -> None:
    raise Fussy(1, 2)


def die(number: int) -> None:
    os.kill(os.getpid(), number)


def leave() -> None:
    os._exit(7)


def unpicklable() -> Any:
    return threading.Lock()


def spin(path: str) -> None:
    Path(path).write_text(str(os.getpid()))
    while True:
        pass


def stubborn(path: str) -> None:
    Path(path).write_text(str(os.getpid()))
    while True:
        with suppress(BaseException):
            time.sleep(1)


def with_a_child(path: str) -> None:
    child = subprocess.Popen(["sleep", "1000"])
    Path(path).write_text(str(child.pid))
    child.wait()


class Slow:
    """Takes long to be unpickled."""

    def __reduce__(self) -> Any:
        return time.sleep, (1000,)


def wait_here() -> None:
    """In the pool's own process a test has it wait."""


class Read:
    """Calls `wait_here` where it is unpickled."""

    def __reduce__(self) -> Any:
        return _waited, ()


def _waited() -> None:
    wait_here()


def slow_to_read() -> Any:
    return Read()


def fork_and_die(path: str, apart: bool) -> None:
    if child := os.fork():
        Path(path).write_text(str(child))
        os.kill(os.getpid(), signal.SIGKILL)
    if apart:
        os.setsid()
    time.sleep(1000)
