"""The deaths of processes: waited for, confirmed for their whole group, and told for people."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from holdfast.observe.logging import tell, workers

T = TypeVar("T")

GROUP_GONE = 5.0
PEAK_UNIT = 1024 if sys.platform != "darwin" else 1  # bytes that ru_maxrss counts in


def ending(code: int | None) -> str:
    """How a process ended, from its return code, for people."""
    if code is None:
        return "nobody could ask how (its program may ignore SIGCHLD)"
    if code >= 0:
        return f"exit code {code}"
    with suppress(ValueError):
        return f"killed by signal {-code} ({signal.Signals(-code).name})"
    return f"killed by signal {-code}"


def kill_group(group: int) -> None:
    """Kills a process and everything that it started; works after its leader's own death, too."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def end_family(pid: int) -> set[int]:
    """Kills a process, its group, and all its descendants, be they in groups of their own; returns the descendants.

    It is stopped first, so that it starts nothing meanwhile. Where the system does not list processes, only the group.
    """
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGSTOP)
    family = _descendants(pid)
    for one in (pid, *family):
        with suppress(ProcessLookupError, PermissionError):
            os.kill(one, signal.SIGKILL)
    kill_group(pid)
    return family


def _descendants(pid: int) -> set[int]:
    children: dict[int, list[int]] = {}
    with suppress(OSError):
        for path in Path("/proc").iterdir():
            if path.name.isdigit():
                with suppress(OSError, ValueError, IndexError):
                    parent = int((path / "stat").read_bytes().rpartition(b")")[2].split()[1])
                    children.setdefault(parent, []).append(int(path.name))
    found: set[int] = set()
    todo = [pid]
    while todo:
        for child in children.get(todo.pop(), []):
            if child not in found:
                found.add(child)
                todo.append(child)
    return found


def await_gone(pids: Collection[int]) -> None:
    """Waits until killed processes run no more, a few seconds at most."""
    end = time.monotonic() + GROUP_GONE
    while any(_lives(pid) for pid in pids) and time.monotonic() < end:
        time.sleep(0.001)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] not in {b"Z", b"X"}
    except (OSError, IndexError):
        return False


async def in_thread(call: Callable[[], T], name: str) -> T:
    """What `call()` gives or raises, in a thread of its own: each child needs one all its life."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()

    def wait() -> None:
        told: Callable[[], None]
        try:
            told = partial(_tell, answer.set_result, answer, call())
        except BaseException as error:  # noqa: BLE001  # it belongs to whoever waits
            told = partial(_tell, answer.set_exception, answer, error)
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(told)

    while True:
        try:
            threading.Thread(target=wait, name=name, daemon=True).start()
            break
        except RuntimeError:  # no more threads just now
            await asyncio.sleep(0.1)
    return await answer


def _tell(tell: Callable[[Any], None], answer: asyncio.Future[Any], what: object) -> None:
    if not answer.done():
        tell(what)


def await_death(process: subprocess.Popen[bytes]) -> None:
    """Waits until the child is dead, leaving it unreaped: so neither its pid nor its group can be another's yet."""
    if not hasattr(os, "waitid"):  # macOS before Python 3.13: reaped at once
        process.wait()
        return
    with suppress(ChildProcessError):
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)


def reaped(process: subprocess.Popen[bytes]) -> tuple[int | None, int]:
    """Reaps a dead child: its return code and the most memory that it held, in bytes; None and 0: not known."""
    if process.returncode is not None:  # macOS: reaped by the wait for its death
        return process.returncode, 0
    try:
        _, status, usage = os.wait4(process.pid, 0)
    except ChildProcessError:  # the program reaps, or has the system reap, whatever child there is
        process.returncode = 0
        return None, 0
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, usage.ru_maxrss * PEAK_UNIT


def await_group(group: int) -> None:
    """Waits until nobody of a killed group is left; its leader is reaped already."""
    end = time.monotonic() + GROUP_GONE
    while _runs(group):
        if time.monotonic() > end:
            message = "killed, but something of it is still there"
            tell(workers, logging.ERROR, "group-stays", group=group, message=message)
            return
        time.sleep(0.001)


def _runs(group: int) -> bool:
    """Whether any process of the group still runs; a zombie does not, whoever has to reap it."""
    with suppress(ChildProcessError):
        while os.waitpid(-group, os.WNOHANG)[0]:  # as PID 1 or subreaper, the orphans are this process's own
            pass
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    try:
        seen = [path / "stat" for path in Path("/proc").iterdir() if path.name.isdigit()]
    except OSError:
        return True
    return not seen or any(_runs_in(stat, group) for stat in seen)


def _runs_in(stat: Path, group: int) -> bool:
    try:
        fields = stat.read_bytes().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError, PermissionError):  # gone, or nobody's whom this process could kill
        return False
    except OSError:  # no descriptors just now: not known to be gone
        return True
    state, members, threads = fields[0], int(fields[2]), int(fields[17])
    return members == group and (state not in {b"Z", b"X"} or threads > 1)  # the first thread may end before others


def reap_strangers(own: set[int]) -> None:
    """As PID 1: reaps what was orphaned; leaves the pids in `own`, whose exit codes are waited for elsewhere."""
    if not hasattr(os, "waitid"):
        return
    with suppress(ChildProcessError):
        while (dead := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
            if dead.si_pid in own:  # seen first until it is reaped, which is soon
                return
            os.waitpid(dead.si_pid, os.WNOHANG)


def is_stopped(pid: int) -> bool:
    """Whether a process was stopped by a signal, or by a debugger."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] in {b"T", b"t"}
    except OSError:
        return False


def busy_threads(pid: int, seconds: float) -> set[int]:
    """The threads of a process, as the system numbers them, that use the processor for most of the next `seconds`.

    Threads that only wait for the interpreter look for it again and again, which takes a little time, too.
    """
    before = _thread_times(pid)
    time.sleep(seconds)
    least = seconds * os.sysconf("SC_CLK_TCK") / 4
    return {thread for thread, used in _thread_times(pid).items() if used - before.get(thread, used) >= least}


def _thread_times(pid: int) -> dict[int, int]:
    """Clock ticks that each thread has used; empty where the system does not say."""
    times: dict[int, int] = {}
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError, ValueError, IndexError):
                fields = (task / "stat").read_bytes().rpartition(b")")[2].split()
                times[int(task.name)] = int(fields[11]) + int(fields[12])
    return times
