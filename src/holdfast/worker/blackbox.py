"""The black box of one worker process: memory that outlives it, with its pulses and the runs that it has begun.

The supervisor makes it and hands its descriptor down; an embedded worker has one of its own, which its process slots
read. One process writes each field; all times are monotonic seconds, which all processes of a machine share.
"""

from __future__ import annotations

import mmap
import os
import struct
import threading
import weakref
from collections.abc import Callable, Iterable
from functools import lru_cache
from inspect import unwrap
from typing import Any, NamedTuple
from uuid import UUID
from zlib import crc32

from holdfast.worker.memory import nameless

# Places for runs that have ended but are not settled, beside those under way: fewer than finisher.PENDING_MOST outcomes
# wait when a worker claims, finisher.BATCH_MOST are being written, slots.PREFETCH_MOST that were claimed ahead may end
# meanwhile, and telling.UNTOLD_MOST and one batch more are on record but not told. Their modules are above this one, so
# a test compares the sum.
SPARE = 3_000

_HEADER = 128
_TIME, _COUNT = struct.Struct("<d"), struct.Struct("<q")
_LOOP, _THREADS, _UNSENT, _BEATEN, _LEASE, _HELD = range(0, 48, 8)
_BLOCKER, _LOOP_IDENT, _LOOP_NATIVE, _TOP = range(48, 80, 8)
_LAG, _CLAIMING, _UNHEARD = range(80, 104, 8)
_RUN = struct.Struct("<16sqdQQQQd")  # the time of its beginning is written last: until then there is no run

_GROUP_AT = 56  # in a run

_RUN_SIZE, _write_run, _write_time = _RUN.size, _RUN.pack_into, _TIME.pack_into
_SINCE_AT = _HEADER + _RUN_SIZE - _TIME.size  # of the first run


class Begun(NamedTuple):
    """A run that was begun and is not settled. `thread`, `native`: 0 on the loop. `group`: its slot's process group."""

    id: UUID
    fence: int
    deadline: float  # 0: it may take as long as it likes
    thread: int
    native: int
    code: int  # see `code_of`
    group: int
    since: float  # -1: its code has ended, only its outcome is not on record yet; below: see `news`

    @property
    def key(self) -> tuple[UUID, int]:
        return self.id, self.fence

    @property
    def over(self) -> bool:
        return self.since < 0

    @property
    def news(self) -> int:
        """The number of the news that tell of its end, once it is on record; else 0."""
        return int(-1 - self.since) if self.since < -1 else 0


class BlackBox:
    """Fields for the pulses, and a table of runs."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        weakref.finalize(self, os.close, descriptor)
        self._memory = mmap.mmap(descriptor, 0)
        places = (len(self._memory) - _HEADER) // _RUN.size
        self._free = list(range(places - 1, -1, -1))
        self._taken: dict[tuple[UUID, int], int] = {}
        self._top = 0
        self._untold: list[int] = []  # places of runs that are on record, and not told
        self._growing = threading.Lock()

    @classmethod
    def made(cls, concurrency: int) -> BlackBox:
        """A new one, for a worker of so many slots, in memory that no file name leads to."""
        return cls(nameless("holdfast-blackbox", _HEADER + (concurrency + SPARE) * _RUN.size))

    # --- runs, written by the worker

    def begin(self, key: tuple[UUID, int], deadline: float | None, code: int, now: float, *, on_loop: bool) -> None:
        """Notes that a run begins, in the thread that it begins in. With no place left it goes unnoted, not unrun."""
        try:
            place = self._free.pop()
        except IndexError:
            return
        thread, native = (0, 0) if on_loop else (threading.get_ident(), threading.get_native_id())
        if place >= self._top:
            with self._growing:
                self._top = max(self._top, place + 1)
                self._put(_TOP, self._top)
        self._taken[key] = place
        id, fence = key  # noqa: A001
        offset = _HEADER + place * _RUN_SIZE
        _write_run(self._memory, offset, id.bytes, fence, deadline or 0.0, thread, native, code, 0, now)

    def in_group(self, key: tuple[UUID, int], group: int) -> None:
        """Notes the process group that the run's code is in, so that whoever ends this worker can end it, too."""
        place = self._taken.get(key)
        if place is not None:
            _COUNT.pack_into(self._memory, _HEADER + place * _RUN.size + _GROUP_AT, group)

    def group_gone(self, group: int) -> None:
        """Nothing of a process group runs any more: its number may be another's by now, whom nobody shall kill.

        To be called where `in_group` is, on the loop.
        """
        for place in list(self._taken.values()) if group else ():
            offset = _HEADER + place * _RUN_SIZE + _GROUP_AT
            if self._count(offset) == group:
                self._put(offset, 0)

    def over(self, key: tuple[UUID, int]) -> None:
        """Notes that a run's code has ended, so that nothing that happens from now on is its doing."""
        place = self._taken.get(key)
        if place is not None:
            _write_time(self._memory, _SINCE_AT + place * _RUN_SIZE, -1.0)

    def end(self, key: tuple[UUID, int]) -> None:
        """Notes that a run is settled, if it was ever begun."""
        self.end_each([key])

    def end_each(self, keys: Iterable[tuple[UUID, int]]) -> None:
        """`end` of many."""
        self._free += self._left(keys, 0.0)

    def settled(self, keys: Iterable[tuple[UUID, int]], news: int) -> int:
        """Notes that runs are settled, those that were ever begun, and that the news of this number will tell of them;
        how many there are by now that were not told.

        Their places stay their own until they are `told`: whoever heard of them knows it, and whoever did not can ask.
        """
        self._untold += self._left(keys, -1.0 - news)
        return len(self._untold)

    def _left(self, keys: Iterable[tuple[UUID, int]], since: float) -> list[int]:
        taken, memory = self._taken, self._memory
        places = [place for key in keys if (place := taken.pop(key, None)) is not None]
        for place in places:
            _write_time(memory, _SINCE_AT + place * _RUN_SIZE, since)
        return places

    def told(self) -> None:
        """All that is settled was told."""
        self._free += self._untold
        self._untold.clear()

    # --- runs, read by whoever outlives the worker

    def begun(self) -> list[Begun]:
        """The runs that are not settled."""
        return [run for run in self._runs() if run.since >= -1]

    def unheard(self, news: int) -> list[Begun]:
        """The runs that may be on record although the news up to this number did not tell of them."""
        return [run for run in self._runs() if run.since >= -1 or run.news > news]

    def running(self) -> int:
        """How many runs go on."""
        tops = range(self._count(_TOP))
        return sum(self._get(_SINCE_AT + place * _RUN_SIZE) > 0 for place in tops)

    def _runs(self) -> list[Begun]:
        found: list[Begun] = []
        for place in range(self._count(_TOP)):
            fields = _RUN.unpack_from(self._memory, _HEADER + place * _RUN.size)
            if fields[-1]:
                found.append(Begun._make((UUID(bytes=fields[0]), *fields[1:])))
        return found

    def blocker(self) -> tuple[UUID, int] | None:
        """The run that the worker itself saw keeping its loop from going on."""
        place = self._count(_BLOCKER) - 1
        if place < 0:
            return None
        id, fence, *_, since = _RUN.unpack_from(self._memory, _HEADER + place * _RUN.size)  # noqa: A001
        return (UUID(bytes=id), fence) if since > 0 else None

    def blocked_by(self, key: tuple[UUID, int] | None) -> None:
        """Notes which run keeps the loop from going on."""
        self._put(_BLOCKER, self._taken.get(key, -1) + 1 if key is not None else 0)

    # --- pulses

    def on_loop(self) -> None:
        """Notes which thread the loop runs in, which is this one."""
        self._put(_LOOP_IDENT, threading.get_ident())
        self._put(_LOOP_NATIVE, threading.get_native_id())

    @property
    def loop_thread(self) -> tuple[int, int]:
        """The loop's thread as Python numbers it and as the system does."""
        return self._count(_LOOP_IDENT), self._count(_LOOP_NATIVE)

    def pulse(self, now: float, unsent: float) -> None:
        """The loop goes on; `unsent`: since when the oldest outcome waits to be written, 0 if none does."""
        self._set(_LOOP, now)
        self._set(_UNSENT, unsent)

    def thread_pulse(self, now: float) -> None:
        """Threads go on."""
        self._set(_THREADS, now)

    @property
    def pulses(self) -> tuple[float, float, float]:
        """When the loop and when threads last went on, and since when the oldest outcome waits (0: none does)."""
        return self._get(_LOOP), self._get(_THREADS), self._get(_UNSENT)

    def lags(self, seconds: float) -> None:
        """The loop took so long to answer."""
        self._set(_LAG, seconds)

    @property
    def lag(self) -> float:
        """How long the loop took to answer last."""
        return self._get(_LAG)

    def claims(self, now: float, *, unheard: bool) -> None:
        """The fetcher goes on: it has claimed, or there was no room. `unheard`: it has to look for jobs."""
        self._set(_CLAIMING, now)
        self._put(_UNHEARD, int(unheard))

    @property
    def claiming(self) -> tuple[float, bool]:
        """When the fetcher went on last, 0: never; and whether it had to look for jobs."""
        return self._get(_CLAIMING), bool(self._count(_UNHEARD))

    # --- the lease, written by whoever beats

    def beat(self, sent: float, lease: float, held_until: float) -> None:
        """A beat that was sent at `sent` was accepted; the lease is beyond doubt until `held_until`."""
        self._set(_LEASE, lease)
        self._set(_BEATEN, max(sent, self._get(_BEATEN)))
        self._set(_HELD, max(held_until, self._get(_HELD)))

    @property
    def beaten(self) -> tuple[float, float]:
        """When the last accepted beat was sent, and the length of the lease in seconds; 0 and 0 before the first."""
        return self._get(_BEATEN), self._get(_LEASE)

    @property
    def held_until(self) -> float:
        """Until when the lease is beyond doubt."""
        return self._get(_HELD)

    # --- fields

    def _get(self, offset: int) -> float:
        value: float = _TIME.unpack_from(self._memory, offset)[0]
        return value

    def _set(self, offset: int, value: float) -> None:
        _TIME.pack_into(self._memory, offset, value)

    def _count(self, offset: int) -> int:
        value: int = _COUNT.unpack_from(self._memory, offset)[0]
        return value

    def _put(self, offset: int, value: int) -> None:
        _COUNT.pack_into(self._memory, offset, value)


@lru_cache(4096)
def code_of(fn: Callable[..., Any]) -> int:
    """A number for a handler's code, by which a stack that faulthandler wrote is recognised as its."""
    code = getattr(unwrap(fn), "__code__", None)
    return 0 if code is None else code_number(code.co_filename, code.co_name)


def code_number(file: str, name: str) -> int:
    """As `code_of`, from what a stack says."""
    return crc32(f"{file}\0{name}".encode(errors="backslashreplace")) + 1
