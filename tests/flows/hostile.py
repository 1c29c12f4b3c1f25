"""The app that tests/flows/test_hostile.py runs: handlers that do to their process what no handler should."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import ctypes
import faulthandler
import gc
import logging
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from holdfast import Holdfast, Retry, Task

jobs = Holdfast()

EXECUTORS = ("loop", "thread", "process")
AT_MOST_ONCE = Retry(max_attempts=1, max_crashes=0)
MANY = 10_000


@dataclass(frozen=True)
class Rogue:
    """A handler, once for each executor, and what its user should read afterwards. Without an error it succeeds."""

    error: str = ""
    says: str = ""
    result: Any = None
    tasks: dict[str, Task[[], Any]] = field(default_factory=dict)


ROGUES: dict[str, Rogue] = {}  # their attempt ends, and their worker process goes on
KILLERS: dict[str, Rogue] = {}  # their process dies


def everywhere(among: dict[str, Rogue], rogue: Rogue, *only: str) -> Callable[[Callable[[], Any]], None]:
    """Makes tasks of a plain function: on the loop, in a thread, and in a process of its own; or `only` these."""

    def define(fn: Callable[[], Any]) -> None:
        name = fn.__name__

        async def on_loop() -> Any:
            return fn()

        for executor in only or EXECUTORS:
            body = on_loop if executor == "loop" else fn
            place: Any = {"run_in": "process"} if executor == "process" else {}
            retry = AT_MOST_ONCE if among is KILLERS else Retry(max_attempts=1)
            rogue.tasks[executor] = jobs.task(name=f"{name}.{executor}", retry=retry, **place)(body)
        among[name] = rogue

    return define


@jobs.task
async def neighbour() -> str:
    """What shall notice nothing of all this."""
    await asyncio.sleep(0)
    return "unharmed"


@jobs.task
def neighbour_in_thread() -> str:
    return "unharmed"


@jobs.task
async def whereabouts() -> int:
    """The process that the handlers of the loop and of the threads run in."""
    return os.getpid()


# --- what they raise


@everywhere(ROGUES, Rogue("SystemExit", "3"))
def leaves() -> None:
    sys.exit(3)


@everywhere(ROGUES, Rogue("KeyboardInterrupt"))
def interrupts() -> None:
    raise KeyboardInterrupt


@everywhere(ROGUES, Rogue("GeneratorExit"))
def closes_a_generator() -> None:
    raise GeneratorExit


@everywhere(ROGUES, Rogue("CancelledError"))
def says_it_was_cancelled() -> None:
    raise asyncio.CancelledError


class Doom(BaseException):
    """Not to be caught by `except Exception`."""


@everywhere(ROGUES, Rogue("Doom", "all is lost"))
def raises_a_base_exception() -> None:
    raise Doom("all is lost")


class Mute(Exception):
    def __str__(self) -> str:
        raise Doom("no text")

    __repr__ = __str__


@everywhere(ROGUES, Rogue("Mute", "<its __str__ raised Doom>"))
def raises_what_cannot_be_read() -> None:
    raise Mute


class Masked(Exception):
    @property
    def __class__(self) -> Any:
        raise Doom("no class")


@everywhere(ROGUES, Rogue("Masked"))
def raises_what_has_no_class() -> None:
    raise Masked("who am I?")


class Uncopied(Exception):
    def __init__(self, code: int, *, reason: str) -> None:
        super().__init__(f"{code} {reason}")
        self.lock = threading.Lock()

    def __reduce__(self) -> Any:
        raise Doom("no copy")


@everywhere(ROGUES, Rogue("Uncopied", "451 try later"))
def raises_what_cannot_be_copied() -> None:
    raise Uncopied(451, reason="try later")


@everywhere(ROGUES, Rogue("ValueError", "characters left out"))
def raises_a_hundred_megabytes() -> None:
    raise ValueError("é" * 100_000_000)


@everywhere(ROGUES, Rogue("ExceptionGroup", "two (2 sub-exceptions)"))
def raises_a_group() -> None:
    raise ExceptionGroup("two", [ValueError("one"), ExceptionGroup("more", [Mute(), KeyError("x")])])


@everywhere(ROGUES, Rogue("ExceptionGroup", "(10 sub-exceptions)"))
def raises_a_group_of_ten_billion() -> None:
    error: Exception = ValueError("one")
    for _ in range(10):
        error = ExceptionGroup("ten of it", [error] * 10)
    raise error


@everywhere(ROGUES, Rogue("ValueError", "number 9999"))
def raises_a_long_chain() -> None:
    error: Exception | None = None
    for number in range(MANY):
        try:
            raise ValueError(f"number {number}") from error
        except ValueError as new:
            error = new
    assert error is not None
    raise error


@everywhere(ROGUES, Rogue("RecursionError", "maximum recursion depth exceeded"))
def recurses() -> None:
    recurses_once_more()


def recurses_once_more() -> None:
    recurses_once_more()


# --- what they return


@everywhere(ROGUES, Rogue("PayloadError", "the limit is"))
def returns_ten_megabytes() -> str:
    return "x" * 10_000_000


@everywhere(ROGUES, Rogue("PayloadError", "object"))
def returns_what_is_no_json() -> object:
    return object()


@everywhere(ROGUES, Rogue("PayloadError"))
def returns_itself() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


# --- what they change in their process


@everywhere(ROGUES, Rogue(result="done"))
def empties_the_environment() -> str:
    os.environ.clear()
    return "done"


@everywhere(ROGUES, Rogue("ValueError", "nobody here"))
def fails_where_nothing_is() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
    raise ValueError("nobody here")


@everywhere(ROGUES, Rogue(result="done"))
def masks_every_permission() -> str:
    os.umask(0o777)
    return "done"


@everywhere(ROGUES, Rogue(result="done"))
def takes_the_streams() -> str:
    sys.stdout = sys.stderr = sys.__stdout__ = sys.__stderr__ = None  # type: ignore[assignment, misc]
    return "done"


@everywhere(ROGUES, Rogue(result="done"))
def closes_the_streams() -> str:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.close()
    return "done"


@everywhere(ROGUES, Rogue(result="done"))
def breaks_the_hooks() -> str:
    def broken(*_: object) -> None:
        raise Doom("a broken hook")

    sys.excepthook = sys.unraisablehook = threading.excepthook = broken
    return "done"


class Undying:
    def __del__(self) -> None:
        raise Doom("from __del__")


@everywhere(ROGUES, Rogue(result="done"))
def raises_in_del() -> str:
    Undying()
    Undying().self = Undying()  # type: ignore[attr-defined]
    return "done"


@everywhere(ROGUES, Rogue(result="done"))
def stops_the_collector() -> str:
    gc.disable()
    gc.freeze()
    return "done"


@everywhere(ROGUES, Rogue(result="done"))
def traces_with_what_raises() -> str:
    def trace(*_: object) -> None:
        raise Doom("a broken trace")

    with contextlib.suppress(Doom):
        sys.settrace(trace)
        recurses_not()
    return "done"


def recurses_not() -> None: ...


@everywhere(ROGUES, Rogue(result="done"))
def leaves_a_thread_behind() -> str:
    threading.Thread(target=time.sleep, args=(600,), name="left behind").start()
    return "done"


@everywhere(ROGUES, Rogue(result="done"))
def leaves_an_exit_hook_behind() -> str:
    atexit.register(time.sleep, 600)
    return "done"


@everywhere(ROGUES, Rogue("ValueError", "signal only works in main thread"), "thread")
def ignores_signals_in_a_thread() -> str:
    return ignored_signals()


@everywhere(ROGUES, Rogue(result="done"))
def ignores_signals() -> str:
    with contextlib.suppress(ValueError):  # only the main thread may
        return ignored_signals()
    return "done"


def ignored_signals() -> str:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    signal.set_wakeup_fd(-1)
    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, signal.NSIG))
    return "done"


# --- forks


@everywhere(ROGUES, Rogue(result="parent"))
def forks_and_the_child_returns() -> str:
    return "parent" if os.fork() else "child"


@everywhere(ROGUES, Rogue(result="parent"))
def forks_and_the_child_raises() -> str:
    if os.fork():
        return "parent"
    raise ValueError("from the child")


@everywhere(ROGUES, Rogue(result="parent"))
def forks_and_the_child_exits() -> str:
    if os.fork():
        return "parent"
    sys.exit(4)


@everywhere(ROGUES, Rogue(result="parent"))
def forks_and_the_child_lives_on() -> str:
    if os.fork():
        return "parent"
    time.sleep(600)
    os._exit(0)


@everywhere(ROGUES, Rogue(result="done"))
def turns_the_log_off() -> str:
    logging.shutdown()
    logging.disable()
    logging.getLogger("holdfast").handlers.clear()
    return "done"


# --- what ends their process


@everywhere(KILLERS, Rogue("Lost", "exit code 7"))
def ends_the_process() -> None:
    os._exit(7)


@everywhere(KILLERS, Rogue("Lost", "SIGSEGV"))
def reads_address_zero() -> None:
    ctypes.string_at(0)


@everywhere(KILLERS, Rogue("Lost", "SIGKILL"))
def kills_itself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


@everywhere(KILLERS, Rogue("Lost", "SIGABRT"))
def aborts() -> None:
    faulthandler.disable()
    os.abort()


@everywhere(KILLERS, Rogue("Lost", "SIGSEGV"), "thread")
def overflows_the_stack() -> None:
    sys.setrecursionlimit(10**9)

    class Deep:
        def __repr__(self) -> str:
            return repr(self)

    repr(Deep())


def closes_every_descriptor() -> str:
    os.closerange(3, 1024)
    return "done"


everywhere(KILLERS, Rogue("Lost", "its process"), "loop", "thread")(closes_every_descriptor)
everywhere(ROGUES, Rogue(result="done"), "process")(closes_every_descriptor)  # its slot needs none but its own


def on_loop(fn: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """A killer that works on the loop alone."""
    task = jobs.task(name=f"{fn.__name__}.loop", retry=AT_MOST_ONCE)(fn)
    KILLERS[fn.__name__] = Rogue("Lost", "its process", tasks={"loop": task})


@on_loop
async def cancels_every_task() -> None:
    for task in asyncio.all_tasks():
        task.cancel()
    await asyncio.sleep(0)


@on_loop
async def stops_the_loop() -> None:
    asyncio.get_running_loop().stop()
    await asyncio.sleep(0)


@on_loop
async def exits_in_a_task() -> None:
    async def exits() -> None:
        sys.exit(5)

    await asyncio.gather(asyncio.create_task(exits()), asyncio.sleep(60))


# --- what they print


def prints(megabytes: int) -> int:
    """So much to both streams, a line of 1,000 characters at a time."""
    for _ in range(megabytes * 500):
        for stream in (sys.stdout, sys.stderr):
            stream.write("x" * 999 + "\n")
    return megabytes


@jobs.task
async def prints_on_the_loop(megabytes: int) -> int:
    return prints(megabytes)


@jobs.task
def prints_in_a_thread(megabytes: int) -> int:
    return prints(megabytes)
