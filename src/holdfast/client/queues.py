"""What code declares of queues, and what a full one means to this process: who was told, how long, what was dropped."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence

from holdfast.bounds import queue_terms
from holdfast.clock import Duration
from holdfast.errors import ConfigError
from holdfast.job import Draft, QueueTerms, WhenFull
from holdfast.naming import named
from holdfast.observe.logging import WARNING, jobs, tell
from holdfast.store import Receipt, Room, Store

QUIET = 1.0  # seconds between two lines about what one queue drops
RETRY_LEAST, RETRY_MOST = 1.0, 60.0  # seconds


class Queues:
    """An app's declarations, by queue."""

    def __init__(self) -> None:
        self.terms: dict[str, QueueTerms] = {}

    def declare(
        self, name: str, max_size: int | None, when_full: WhenFull, block_timeout: Duration | None, weight: int
    ) -> None:
        """ConfigError naming the parameter that makes no sense, or both declarations where they differ."""
        name = named(name, "name")
        terms = queue_terms(max_size, when_full, block_timeout, weight)
        known = self.terms.setdefault(name, terms)
        if known != terms:
            raise ConfigError(f"queue {name!r} is declared twice: {_told(known)}, and {_told(terms)}; say it once")

    def of(self, drafts: Iterable[Draft]) -> dict[str, QueueTerms]:
        """What is declared of the queues of these drafts."""
        return {draft.queue: self.terms[draft.queue] for draft in drafts if draft.queue in self.terms}


class Told:
    """What one opened store was told of the declarations."""

    def __init__(self, queues: Queues, store: Store) -> None:
        self._queues = queues
        self._store = store
        self._known: set[str] = set()

    async def before(self, drafts: Sequence[Draft]) -> None:
        """Declares the queues of `drafts`, and all others that are new, before a job is put there."""
        declared = self._queues.terms
        if len(self._known) == len(declared) or self._known.issuperset(draft.queue for draft in drafts):
            return
        fresh = {name: terms for name, terms in declared.items() if name not in self._known}
        if any(draft.queue in fresh for draft in drafts):
            await self._store.configure(fresh, by="producer")
            self._known.update(fresh)


class Fullness:
    """Since when this process has found queues full, without a success; and what they dropped, told once a second."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}
        self._dropped: dict[str, int] = {}
        self._quiet_until: dict[str, float] = {}

    def no_news(self, receipts: Sequence[Receipt]) -> bool:
        """Whether all was simply accepted, and no queue was known to be full: what nearly every call comes to."""
        return not self._since and all(it.answer == "accepted" and it.dropped is None for it in receipts)

    def seen(self, draft: Draft, receipt: Receipt) -> None:
        """Takes in what became of one draft."""
        if receipt.answer == "full":
            self._since.setdefault(draft.queue, time.monotonic())
        elif self._since and receipt.created:
            self._since.pop(draft.queue, None)
        if receipt.answer == "dropped" or receipt.dropped is not None:
            self._drop(draft.queue, "drop_newest" if receipt.dropped is None else "drop_oldest")

    def retry_after(self, queue: str) -> float:
        """Seconds: as long as it has been full by now, since it may well be so for that long again."""
        now = time.monotonic()
        return min(max(now - self._since.get(queue, now), RETRY_LEAST), RETRY_MOST)

    def _drop(self, queue: str, when_full: WhenFull) -> None:
        self._dropped[queue] = self._dropped.get(queue, 0) + 1
        left = self._quiet_until.get(queue, 0.0) - time.monotonic()
        if left <= 0:
            self._quiet_until[queue] = time.monotonic() + QUIET
            self._tell(queue, when_full)
        elif self._dropped[queue] == 1 and (loop := _loop()):
            loop.call_later(left, self._tell, queue, when_full)

    def _tell(self, queue: str, when_full: WhenFull | None) -> None:
        if count := self._dropped.pop(queue, 0):
            tell(jobs, WARNING, "dropped", queue=queue, count=count, when_full=when_full)

    def flush(self) -> None:
        """Tells what is not told yet."""
        for queue in list(self._dropped):
            self._tell(queue, None)


def full_text(queue: str, room: Room) -> str:
    """What to say of a queue that a job has found full."""
    return f"queue {queue} is full: {room.depth:,} of {room.bound:,} places are taken"


def _told(terms: QueueTerms) -> str:
    wait = f", block_timeout={terms.block_timeout / 1000:g}" if terms.block_timeout is not None else ""
    weight = f", weight={terms.weight}" if terms.weight != 1 else ""
    return f"max_size={terms.max_size}, when_full={terms.when_full!r}{wait}{weight}"


def _loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
