"""Notes: what handlers say of their jobs. Progress and lines pile up and are written together; what is saved, at once.

1. takes notes from any thread, and keeps what is new of each attempt: the last progress, the newest LINES_MOST lines;
2. writes all of them in one call per EVERY seconds, and soon when an attempt has ended;
3. keeps them while the store is away, up to ATTEMPTS_MOST attempts; what it cannot keep is counted and told;
4. asks again to save while the store is away, for as long as the attempt may go on.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Any, TypeAlias
from uuid import UUID

from holdfast.errors import StoreAway
from holdfast.job import LOG_MOST, Claim, Note
from holdfast.observe.logging import jobs, tell
from holdfast.store import Store
from holdfast.worker.batcher import Batcher
from holdfast.worker.loop import Signal, Trouble
from holdfast.worker.outage import Outage

EVERY = 0.5  # seconds between two writes
LINES_MOST = LOG_MOST - 1  # of one attempt between two writes: with the line that counts the others, all that is kept
ATTEMPTS_MOST = 2_000  # whose notes are kept while they cannot be written
BATCH_MOST = 200
AGAIN_MOST = 0.5  # seconds between two tries to save, and so until it is seen that its attempt must end
IDLE = 60.0

_counted = re.compile(r"… (\d{1,15}) lines left out").fullmatch  # what a slot has left out itself

Word: TypeAlias = tuple[UUID, int, UUID]  # of a claim: id, fence, worker


class Page:
    """What is new of one attempt. The caller sees to it that one thread at a time uses it."""

    __slots__ = ("left_out", "lines", "progress", "text")

    def __init__(self) -> None:
        self.progress: float | None = None
        self.text: str | None = None
        self.lines: deque[tuple[float, str]] = deque()  # each with when it was said, in monotonic seconds
        self.left_out = 0

    def add(self, note: Note, now: float) -> None:
        """Adds what the note says; of lines the newest stay, the others are counted."""
        if note.progress is not None:
            self.progress = note.progress
        if note.text is not None:
            self.text = note.text
        for age, line in note.lines:
            self.lines.append((now - age / 1000, line))
        self._cut()

    def put_back(self, older: Page) -> None:
        """Takes back what could not be written; what was said since counts more."""
        self.progress = older.progress if self.progress is None else self.progress
        self.text = older.text if self.text is None else self.text
        self.left_out += older.left_out
        self.lines.extendleft(reversed(older.lines))
        self._cut()

    def _cut(self) -> None:
        while len(self.lines) > LINES_MOST:
            counted = _counted(self.lines.popleft()[1])
            self.left_out += int(counted[1]) if counted else 1

    def note(self, word: Word, now: float) -> Note:
        """All of it as a note that is written now."""
        lines = [(max(0, round(1000 * (now - at))), line) for at, line in self.lines]
        if self.left_out:
            lines.insert(0, (lines[0][0] if lines else 0, f"… {self.left_out} lines left out"))
        return Note(*word, self.progress, self.text, tuple(lines))


class Notes:
    """The notes of one worker. Made on the worker's loop, on which all is written; used from any thread and loop."""

    def __init__(
        self, store: Store, outage: Outage | None = None, goes_on: Callable[[Note], bool] = lambda _: False
    ) -> None:
        self._store = store
        self._outage = Outage() if outage is None else outage
        self._goes_on = goes_on  # whether the attempt that says this is under way, not asked to end, and surely held
        self._loop = asyncio.get_running_loop()
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._pages: dict[Word, Page] = {}
        self._due = False  # an attempt has ended, so what it said is not left to pile up
        self._calls: set[Future[Any]] = set()
        self._lost = 0
        self._writing = False
        self._closed = Signal()
        self._batcher: Batcher[Note, bool] = Batcher(store.note, BATCH_MOST)
        self._arrived, self._hurry = Signal(), Signal()
        self.written = Signal()

    # --- what a job's Notebook does

    def add(self, note: Note) -> None:
        """Takes progress, text or lines, to be written soon."""
        if os.getpid() != self._pid:  # a process that a handler forked: the job is its parent's
            return
        with self._lock:
            first = not self._pages
            page = self._pages.get(note[:3])
            if page is None:
                page = self._pages[note[:3]] = Page()
            page.add(note, time.monotonic())
        if first:
            self._call_soon(self._arrived.poke)

    def save(self, note: Note) -> bool:
        """Stores what a handler saves and waits for it, in any thread but the loop's own."""
        return self._on_loop(note).result()

    async def asave(self, note: Note) -> bool:
        """As `save`, on any loop."""
        if asyncio.get_running_loop() is self._loop:
            return await self._save(note)
        return await asyncio.wrap_future(self._on_loop(note))

    def _on_loop(self, note: Note) -> Future[bool]:
        if os.getpid() != self._pid:
            raise RuntimeError("save() in a process that a handler has forked: the job is its parent's")
        answer: Future[bool] = Future()
        if self._closed or not self._call_soon(self._begin, note, answer):
            raise _left()
        return answer

    def _begin(self, note: Note, answer: Future[bool]) -> None:
        task = self._loop.create_task(self._save(note))
        self._calls.add(answer)
        task.add_done_callback(lambda done: self._answer(answer, done))

    def _answer(self, answer: Future[bool], done: asyncio.Task[bool]) -> None:
        self._calls.discard(answer)
        error = _left() if done.cancelled() else done.exception()
        with suppress(InvalidStateError):  # nobody waits for it any more
            if error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(done.result())

    async def _save(self, note: Note) -> bool:
        trouble = Trouble("save", self._outage)
        try:
            while not self._closed:
                try:
                    return (await self._batcher.put([note]))[0]
                except StoreAway as error:
                    if error.full or not self._goes_on(note):
                        raise
                    await self._closed.wait(min(trouble.again(error), AGAIN_MOST))
        finally:
            trouble.over()
        raise _left()

    # --- the role

    def ended(self, claim: Claim) -> None:
        """On the loop, when an attempt has ended: what it said is written at once."""
        if self._pages and claim[:3] in self._pages:
            self._due = True
            self.wake()

    def wake(self) -> None:
        """On the loop: lets the step look again at once."""
        self._arrived.poke()
        self._hurry.poke()

    async def step(self) -> float:
        """Waits for notes, lets them pile up a moment, and writes them. What could not be written stays."""
        if not self._pages:
            self.written.poke()
            await self._arrived.wait(IDLE)
        if self._pages and not self._due:
            await self._hurry.wait(EVERY)
        if self._pages:
            await self._write_all()
        return 0

    async def _write_all(self) -> None:
        with self._lock:
            taken, self._pages = self._pages, {}
        self._due, self._writing = False, True
        try:
            await self._write(taken)
        finally:
            self._writing = False

    async def _write(self, taken: dict[Word, Page]) -> None:
        words = list(taken)
        while words:
            batch, now = words[:BATCH_MOST], time.monotonic()
            try:
                await self._written([taken[word].note(word, now) for word in batch])
            except BaseException:
                self._put_back({word: taken[word] for word in words})
                raise
            del words[:BATCH_MOST]

    async def _written(self, notes: Sequence[Note]) -> None:
        try:
            await self._store.note(notes)
        except StoreAway:
            raise
        except Exception as error:  # noqa: BLE001  # what the store cannot take, the others must not wait for
            if len(notes) > 1:
                for note in notes:
                    await self._written([note])
                return
            text = f"{type(error).__name__}: {error}"
            tell(jobs, logging.WARNING, "note-refused", job=notes[0].id, fence=notes[0].fence, error=text)

    def _put_back(self, pages: dict[Word, Page]) -> None:
        with self._lock:
            for word, page in pages.items():
                newer = self._pages.get(word)
                if newer is not None:
                    newer.put_back(page)
                elif len(self._pages) < ATTEMPTS_MOST:
                    self._pages[word] = page
                else:
                    self._lost += 1

    async def flush(self, seconds: float) -> int:
        """Waits until all is written, at most `seconds`. Returns of how many attempts something was lost."""
        end = time.monotonic() + seconds
        while (self._pages or self._writing) and time.monotonic() < end:
            self._due = True
            self.wake()
            await self.written.wait(min(0.1, end - time.monotonic()))
        return self._lost + len(self._pages)

    def close(self) -> None:
        """Whoever waits for a save hears that it was not made."""
        self._closed.set()
        for answer in list(self._calls):
            with suppress(InvalidStateError):
                answer.set_exception(_left())

    def _call_soon(self, call: Callable[..., object], *args: object) -> bool:
        try:
            self._loop.call_soon_threadsafe(call, *args)
        except RuntimeError:  # the loop is closed: the worker has left
            return False
        return True


def _left() -> StoreAway:
    return StoreAway("nothing was saved: the worker has left, and its process is ending")
