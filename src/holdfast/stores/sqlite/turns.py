"""What a thread of ours holds of the file, in turns: before a fork it is let go of, and taken anew afterwards.

SQLite keeps its locks in tables of the process. A forked child inherits the tables but not the locks, and would
write with locks that it does not have: what it was told is stored could be deleted under it. So nothing of ours is
open at the moment of a fork.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

T = TypeVar("T")

_all: weakref.WeakSet[Turns[Any]] = weakref.WeakSet()
_forking = threading.RLock()  # one fork at a time, during which nothing new comes into being
_parted: list[Turns[Any]] = []  # between its `before` and its `after`


class Turns(Generic[T]):
    """`take` opens it at the first turn; `let_go` closes it. A turn must be short: a fork waits for its end.

    None may be made within a turn.
    """

    def __init__(self, take: Callable[[], T], let_go: Callable[[T], None]) -> None:
        self._take = take
        self._let_go = let_go
        self._turn = threading.Lock()
        self._held: T | None = None
        with _forking:
            _all.add(self)

    @contextmanager
    def turn(self) -> Generator[T]:
        """For the thread that owns it."""
        with self._turn:
            if self._held is None:
                self._held = self._take()
            yield self._held

    def close(self) -> None:
        """Lets go of it, for now or for good."""
        with self._turn:
            self._drop()

    def _drop(self) -> None:
        if self._held is not None:
            held, self._held = self._held, None
            self._let_go(held)

    def part(self) -> None:
        """Before a fork: waits for the end of the turn, lets go, and keeps others from taking it."""
        self._turn.acquire()
        self._drop()

    def meet(self) -> None:
        """After the fork, in the parent and in the child."""
        self._turn.release()


def _before_fork() -> None:
    _forking.acquire()
    for turns in list(_all):
        turns.part()
        _parted.append(turns)


def _after_fork() -> None:
    while _parted:
        _parted.pop().meet()
    _forking.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
