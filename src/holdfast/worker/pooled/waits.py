"""Jobs whose code waits for a pool's job: a wait that nothing could ever end is refused before it begins."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeAlias

from holdfast.context import current
from holdfast.errors import ConfigError
from holdfast.worker.pooled.inside import Inside
from holdfast.worker.pooled.kinds import LOOP

if TYPE_CHECKING:
    from holdfast.worker.pooled.core import Core
    from holdfast.worker.pooled.work import Work

Waited: TypeAlias = "Iterable[Work] | Core"  # the end of one of these jobs, or of whatever is in this pool

_lock = threading.RLock()  # a finalizer may wait, too
_waiting: dict[Inside, list[Waited]] = {}  # attempts under way, and what their code waits for without a limit


@contextmanager
def noticed(waited: Waited, call: str, *, forever: bool = True) -> Generator[None]:
    """Around a wait. ConfigError if it is a job's, and for what cannot go on before this job has ended.

    A wait that ends by itself, at a time limit or at its job's timeout, is the caller's own affair.
    """
    run = current.get(None)
    if not forever or not isinstance(run, Inside) or (run.job.kind is LOOP and run.only is not None):
        yield
        return
    _begin(run, waited, call)
    try:
        yield
    finally:
        _end(run, waited)


def forget() -> None:
    """In a forked child: nobody waits here."""
    global _lock  # noqa: PLW0603  # another thread may have held it
    _lock = threading.RLock()
    _waiting.clear()


def _begin(run: Inside, waited: Waited, call: str) -> None:
    with _lock:
        _waiting.setdefault(run, []).append(waited)
        if _may_end(waited):
            return
        _end(run, waited)
    raise ConfigError(
        f"{call} inside {run.job.task} would wait for ever: what it waits for cannot go on before this job has ended, "
        "as the slots that it needs are held by jobs that wait, too. Wait outside of the pool's jobs, give the inner "
        "jobs a Pool of their own, or make concurrency larger"
    )


def _end(run: Inside, waited: Waited) -> None:
    with _lock:
        _waiting[run].remove(waited)
        if not _waiting[run]:
            del _waiting[run]


def _may_end(waited: Waited) -> bool:
    """Whether something goes on that may lead there: from each wait to what it waits for, until nothing is new."""
    seen: set[object] = set()
    ahead = [waited]
    while ahead:
        for run in _needed(ahead.pop(), seen):
            if run is None or run not in _waiting or (run.why is not None and run.job.kind is LOOP):  # cancelled
                return True
            if run not in seen:
                seen.add(run)
                ahead += _waiting[run]
    return False


def _needed(waited: Waited, seen: set[object]) -> Iterator[Inside | None]:
    """The attempts of which one must go on; None: nothing must, as a job is over, or there is a slot."""
    jobs, cores = (waited, set["Core"]()) if isinstance(waited, Iterable) else ((), {waited})
    for job in jobs:
        run = job.run
        if job.done:
            yield None
        elif run is not None:
            yield run
        else:
            cores.add(job.core)
    for core in cores:
        if core not in seen:
            seen.add(core)
            yield from core.runs_in_all_slots() or (None,)
