"""The notebook of a slot process: its handler's notes go to the worker, from a thread of their own.

That thread writes, because a signal that stops the handler must not cut a message short. Progress and lines pile up
between two messages; what is left at the end goes with the verdict. Who saves waits for the worker's answer.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any

from holdfast.codec import to_json
from holdfast.errors import StoreAway, StoreError
from holdfast.job import Claim, Note
from holdfast.worker.notes import EVERY, Page, Word


class Pad:
    """One for the process. `say` sends a line to the worker, under the lock `sending`; False: the handler has closed
    the channel.
    """

    def __init__(self, say: Callable[[bytes], bool], sending: threading.Lock) -> None:
        self._say = say
        self._sending = sending
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._number = 0
        self._word: Word | None = None  # of the attempt under way
        self._page: Page | None = None
        self._todo: SimpleQueue[tuple[int, int, Note] | None] = SimpleQueue()  # None: there is a page
        self._keys = itertools.count()
        self._waiting: dict[int, Future[bool]] = {}
        threading.Thread(target=self._serve, name="holdfast-notes", daemon=True).start()

    def begin(self, number: int, claim: Claim) -> None:
        """The attempt with this number begins."""
        self._number, self._word, self._page = number, claim[:3], None

    def end(self) -> Note | None:
        """The attempt has ended: what it said and was not sent yet."""
        with self._sending, self._lock:
            word, self._word = self._word, None
            page, self._page = self._page, None
        return None if word is None or page is None else page.note(word, time.monotonic())

    # --- what a job's Notebook does

    def add(self, note: Note) -> None:
        """Takes progress, text or lines, to be sent soon."""
        if os.getpid() != self._pid:  # a process that the handler forked
            return
        with self._lock:
            if note[:3] != self._word:  # of an attempt that has ended, whose thread goes on
                return
            first = self._page is None
            self._page = self._page or Page()
            self._page.add(note, time.monotonic())
        if first:
            self._todo.put(None)

    def save(self, note: Note) -> bool:
        """Sends what a handler saves, and waits until its worker has stored it."""
        return self._sent(note).result()

    async def asave(self, note: Note) -> bool:
        """As `save`."""
        return await asyncio.wrap_future(self._sent(note))

    def answered(self, message: dict[str, Any]) -> None:
        """What the worker says of a save."""
        answer = self._waiting.pop(message["key"], None)
        if answer is None:
            return
        with suppress(InvalidStateError):  # nobody waits for it any more
            if message["error"]:
                kind = StoreAway if message["away"] else StoreError
                answer.set_exception(kind(message["error"]))
            else:
                answer.set_result(message["held"])

    def _sent(self, note: Note) -> Future[bool]:
        if os.getpid() != self._pid:
            raise RuntimeError("save() in a process that a handler has forked: the job is its parent's")
        answer: Future[bool] = Future()
        if note[:3] != self._word:
            answer.set_result(False)
            return answer
        key = next(self._keys)
        self._waiting[key] = answer
        self._todo.put((self._number, key, note))
        return answer

    # --- its thread

    def _serve(self) -> None:
        again = 0.0  # when the next page may be sent, in monotonic seconds
        waits = False
        while True:
            try:
                save = self._todo.get(timeout=max(0.0, again - time.monotonic()) if waits else None)
            except Empty:
                self._say_page()
                again, waits = time.monotonic() + EVERY / 2, False
                continue
            if save is None:
                waits = True
            else:
                self._say_save(*save)

    def _say_page(self) -> None:
        with self._sending:
            with self._lock:
                word, page, self._page = self._word, self._page, None
            if word is None or page is None:
                return
            note = page.note(word, time.monotonic())
            if not self._say(to_json({"word": "note", "number": self._number, "note": note})):
                with self._lock:  # it goes with the verdict, by another way
                    self._page = self._page or Page()
                    self._page.put_back(page)

    def _say_save(self, number: int, key: int, note: Note) -> None:
        with self._sending:
            if self._say(to_json({"word": "save", "number": number, "key": key, "note": note})):
                return
        text = "nothing was saved: the handler has closed the channel to its worker"
        self.answered({"key": key, "error": text, "away": False})
