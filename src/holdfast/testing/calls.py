"""Calls of tasks, as a test names them and as jobs keep them: whether they are the same, how near, how they read."""

from __future__ import annotations

import inspect
import reprlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any

from holdfast.job import Record
from holdfast.task import Task

SHOWN = 10
_short = reprlib.Repr()
_short.maxstring = _short.maxother = 100
_short.maxlevel = 4


class Call:
    """A task's name and its arguments by name, defaults filled in, as its handler would get them."""

    def __init__(self, task: Task[..., Any], payload: bytes) -> None:
        args, kwargs = task.signature.decode(payload)
        bound = inspect.signature(task.fn).bind(*args, **kwargs)
        bound.apply_defaults()
        self.name = task.name
        self.payload = payload
        self.arguments: Mapping[str, Any] = bound.arguments

    def same(self, other: Call) -> bool:
        """Whether both are the same call, however the arguments were passed."""
        return self.payload == other.payload or not self.differing(other)

    def differing(self, other: Call) -> list[str]:
        """The names of the arguments that differ."""
        return [name for name, value in self.arguments.items() if not _equal(value, other.arguments.get(name))]

    def nearness(self, other: Call) -> tuple[int, float]:
        """More is nearer: first by how many arguments differ, then by how they read."""
        return -len(self.differing(other)), SequenceMatcher(None, str(self), str(other)).ratio()

    def __str__(self) -> str:
        return f"{self.name}({', '.join(f'{name}={_short.repr(value)}' for name, value in self.arguments.items())})"


def missing(wanted: Call, task: Task[..., Any], records: Sequence[Record]) -> str:
    """What to say when `wanted` is not among the jobs: what was enqueued instead, the nearest first."""
    same_task = [(Call(task, record.payload), record) for record in records if record.task == task.name]
    others = Counter(record.task for record in records if record.task != task.name)
    return "\n".join(_told(wanted, same_task, others))


def _told(wanted: Call, near: list[tuple[Call, Record]], others: Counter[str]) -> Iterator[str]:
    if not near and not others:
        yield f"{wanted} was not enqueued; nothing was"
        return
    if near:
        yield f"{wanted} was not enqueued. Of this task {_jobs(len(near))}, the nearest first:"
        near.sort(key=lambda found: wanted.nearness(found[0]), reverse=True)
        yield from (f"  {call}: {_why(wanted, call)} ({record.state})" for call, record in near[:SHOWN])
        if len(near) > SHOWN:
            yield f"  … and {len(near) - SHOWN} more"
    else:
        yield f"{wanted} was not enqueued, nor any other job of this task."
    if others:
        yield f"Of other tasks: {_counted(others.most_common(SHOWN))}{', …' if len(others) > SHOWN else ''}"


def _why(wanted: Call, call: Call) -> str:
    differing = wanted.differing(call)
    return f"{', '.join(differing)} differ{'s' if len(differing) == 1 else ''}"


def _jobs(count: int) -> str:
    return "there is 1 job" if count == 1 else f"there are {count} jobs"


def _counted(tasks: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{name} ({count})" for name, count in tasks)


def _equal(one: object, other: object) -> bool:
    try:
        return bool(one == other)
    except Exception:  # noqa: BLE001  # such as arrays, which have no one answer
        return False
