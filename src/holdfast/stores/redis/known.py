"""Which queues jobs are in, as far as this process knows."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import islice
from threading import Lock
from uuid import UUID

MOST = 20_000  # jobs that are known, beside those that are held here
_SLACK = 1_000  # that many more before the oldest are forgotten, all at once


class Whereabouts:
    """By id, the queue. Shared by all twins; keyed by the ids' integers, which hash four times as fast."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._known: dict[int, str] = {}  # the longest known first
        self._held: dict[int, tuple[str, bytes, UUID]] = {}  # the queue, the id as the server writes it, the worker
        self._lock = Lock()

    def learn(self, queue: str, ids: Iterable[UUID]) -> None:
        """These are in `queue`, or were."""
        with self._lock:
            self._learn({job.int: queue for job in ids})

    def hold(self, queue: str, worker: UUID, ids: Iterable[UUID], texts: Iterable[bytes]) -> set[UUID]:
        """These are held by a worker of this process: not forgotten before they are let go. `texts` of the ids: making
        one costs as much as all else that a claim costs.

        Returns those that are not, as this process holds another queue's job of the same id: who says an id alone would
        mean both.
        """
        jobs = {job.int: (queue, text, worker) for job, text in zip(ids, texts, strict=True)}
        others = set[UUID]()
        with self._lock:
            if not self._held.keys().isdisjoint(jobs):
                others = {UUID(int=job) for job in jobs if self._held.get(job, (queue,))[0] != queue}
                for other in others:
                    del jobs[other.int]
            self._held.update(jobs)
        return others

    def held(self, id: UUID) -> tuple[str, bytes, UUID] | None:
        """Queue, text and worker of a job that is held here."""
        return self._held.get(id.int)

    def let_go(self, ids: Iterable[UUID]) -> None:
        with self._lock:
            self._learn({job.int: held[0] for job in ids if (held := self._held.pop(job.int, None)) is not None})

    def leave(self, workers: Collection[UUID]) -> None:
        """What they hold is not theirs any more."""
        with self._lock:
            for job in [job for job, held in self._held.items() if held[2] in workers]:
                self._learn({job: self._held.pop(job)[0]})

    def forget(self, ids: Iterable[UUID]) -> None:
        """They are not where they were thought to be."""
        with self._lock:
            for job in ids:
                self._known.pop(job.int, None)
                self._held.pop(job.int, None)

    def queue_of(self, id: UUID) -> str | None:
        """As far as this process knows."""
        held = self._held.get(id.int)
        return self._known.get(id.int) if held is None else held[0]

    def _learn(self, learnt: dict[int, str]) -> None:
        self._known.update(learnt)
        if len(self._known) > self._most + _SLACK:
            for job in list(islice(self._known, len(self._known) - self._most)):
                del self._known[job]
