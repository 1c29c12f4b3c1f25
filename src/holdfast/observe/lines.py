"""The handler behind our lines: what one turn of a loop has told goes out in one write."""

from __future__ import annotations

import asyncio
import logging
import os
import select
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, Protocol, cast

from holdfast.job import Claim
from holdfast.observe.told import Told, bytes_of

MOST = 1_000  # lines that wait to be written


class Usual(Protocol):
    """A formatter that has a short way for lines that differ in job, number and time alone, as most do."""

    def shape(self, event: str, task: str, queue: str, attempt: int, most: int, fence: int, name: str) -> object:
        """What such lines have in common; the same object for the same line."""
        ...

    def written(self, told: Sequence[Any]) -> Iterator[str]:
        """The lines of `told`, each with its end: of each its shape, the job's id as a number, the number that it says,
        and the time; or None and a text, and twice None.
        """
        ...


class Lines(logging.StreamHandler[Any]):
    """Writes whole lines. `together`: events below WARNING that are told on a loop wait until its turn is over; all
    else is written at once, behind what waits.

    With `waits=False` a line that would have to wait for its reader, as in a full pipe, is left out.
    """

    def __init__(self, stream: Any, *, waits: bool = True, together: bool = False) -> None:
        super().__init__(stream)
        self._waits = waits
        self._together = together
        self._most = _write_most(stream)
        self._short: Usual | None = None
        self._told: list[Any] = []  # four for each line, as in Usual: nothing that the garbage collector has to look at
        self._turn: asyncio.AbstractEventLoop | None = None  # the loop whose turn they wait for

    def setFormatter(self, fmt: logging.Formatter | None) -> None:  # noqa: N802  # as logging has it
        super().setFormatter(fmt)
        self._short = cast("Usual", fmt) if self._together and hasattr(fmt, "written") else None

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = f"{self.format(record)}\n"
        except Exception:  # noqa: BLE001  # whatever a log line meets, the job must not
            self.handleError(record)
            return
        self._told.extend((None, line, None, None))
        if record.levelno < logging.WARNING and isinstance(record.msg, Told):
            self._wait_or_flush()
        else:  # a handler's own word may be its last
            self.flush()

    def usual(self, event: str, claim: Claim, name: str, number: float) -> bool:
        """Takes a line about an attempt at INFO that says one number, if no record has to be made of it for others."""
        short = self._short
        if short is None or self.filters:
            return False
        shape = short.shape(event, claim.task, claim.queue, claim.attempt, claim.terms.max_attempts, claim.fence, name)
        self._told.extend((shape, claim.id.int, number, time.time()))
        self._wait_or_flush()
        return True

    def _wait_or_flush(self) -> None:
        loop = asyncio._get_running_loop() if self._together else None  # noqa: SLF001  # the public one raises
        if loop is None or len(self._told) >= 4 * MOST:
            self.flush()
        elif self._turn is not loop:
            if self._turn is not None:  # another loop's: it may be held up
                self.flush()
            else:
                self._turn = loop
                loop.call_soon(self.flush)

    def flush(self) -> None:
        """Writes what waits; never raises."""
        self.acquire()
        try:
            self._turn = None
            count = len(self._told)
            told = self._told[:count]
            del self._told[:count]  # by number: others go on adding
            lines = told[1::4] if self._short is None else list(self._short.written(told))
            for text in _writes(lines, self._most):
                with suppress(Exception):  # nobody is there to tell
                    if self._waits or (takes(self.stream) and bytes_of(text) <= self._most):
                        self.stream.write(text)  # stderr flushes at a line's end by itself
        finally:
            self.release()

    def forget(self) -> None:
        """In a process that was forked: what waits is the other's to write."""
        self._told.clear()
        self._turn = None


def _write_most(stream: Any) -> int:
    """Bytes of one write. In a pipe more may be torn by what other processes write there."""
    with suppress(OSError, ValueError, AttributeError):
        if stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            return 2**17
    return select.PIPE_BUF


def _writes(lines: Sequence[str], most: int) -> Iterator[str]:
    whole = "".join(lines)
    plain = whole.isascii()  # as nearly always: asked once for all of them
    if plain and len(whole) <= most:
        lines = [whole] if whole else []
    parts, size = list[str](), 0
    for line in lines:
        length = len(line) if plain else bytes_of(line)
        if parts and size + length > most:
            yield "".join(parts)
            parts, size = [], 0
        parts.append(line)
        size += length
    if parts:
        yield "".join(parts)


def takes(stream: Any) -> bool:
    """Whether a line can be written to `stream` now, without waiting for somebody to read from it."""
    with suppress(OSError, ValueError):  # no descriptor behind it: it waits for nobody
        return bool(select.select([], [stream], [], 0)[1])
    return True


def _of(logger: logging.Logger) -> list[Lines]:
    return [handler for handler in logger.handlers if isinstance(handler, Lines)]


def _before_fork() -> None:
    for handler in _of(logging.getLogger("holdfast")):
        handler.flush()


def _in_copy() -> None:
    for handler in _of(logging.getLogger("holdfast")):
        handler.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_child=_in_copy)
