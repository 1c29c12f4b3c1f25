"""The janitor: promote, reclaim, prune. Safe for every worker to run at once; each step is bounded."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from uuid import UUID

from holdfast.clock import SECOND
from holdfast.job import Claim, Loss, Lost, Outcome
from holdfast.observe.tally import Counts
from holdfast.policy import decide
from holdfast.store import Answer, Store
from holdfast.worker.report import tell_failed, tell_lost, tell_over

PROMOTE_MOST, RECLAIM_MOST, PRUNE_MOST = 500, 100, 500
PROMOTE_EVERY, RECLAIM_EVERY, PRUNE_EVERY = 1.0, 5.0, 30.0  # seconds


class Janitor:
    """Three steps for `repeat`; `sweeper` is the worker in whose name jobs are taken over."""

    def __init__(self, store: Store, sweeper: Callable[[], UUID], counts: Counts | None = None) -> None:
        self._store = store
        self._sweeper = sweeper
        self._counts = Counts() if counts is None else counts
        self._reclaiming = asyncio.Lock()  # burials of a supervisor come beside its own sweeps
        self._losses: Sequence[tuple[Claim, Outcome]] = ()  # to be written

    async def promote_step(self) -> float:
        """Scheduled jobs that are due become queued, and jobs end whose time is over."""
        promoted = await self._store.promote(PROMOTE_MOST)
        for over in promoted.over:
            self._counts.ended(over.queue, over.task, "expired" if over.reason == "expired" else "dead")
            tell_over(over)
        if promoted.next_in is None:
            return PROMOTE_EVERY
        return min(PROMOTE_EVERY, promoted.next_in / SECOND)

    async def reclaim_step(self) -> float:
        """Takes over what lost workers held, and writes what their loss means for each job."""
        async with self._reclaiming:
            await self._rescue()  # what had no answer the last time
            claims = await self._store.reclaim(self._sweeper(), RECLAIM_MOST)
            self._losses = [(claim, decide(claim, Lost(claim.loss or Loss("unknown")))) for claim in claims]
            await self._rescue()
        return 0 if len(claims) == RECLAIM_MOST else RECLAIM_EVERY * random.uniform(0.8, 1.2)

    async def prune_step(self) -> float:
        """Deletes finished jobs whose time is over."""
        pruned = await self._store.prune(PRUNE_MOST)
        return 0.05 if pruned == PRUNE_MOST else PRUNE_EVERY

    async def _rescue(self) -> None:
        if not self._losses:
            return
        answers = await self._store.finish([outcome for _, outcome in self._losses])
        losses, self._losses = self._losses, ()
        for (claim, outcome), answer in zip(losses, answers, strict=True):
            if answer.answer is Answer.ACCEPTED or answer.answer is Answer.REPLAYED:
                self._counts.settled(claim, outcome, answer)
                self._counts.event("rescued", claim.queue)
                if outcome.ended == "failed":
                    tell_failed(claim, outcome)
                else:
                    tell_lost(claim, outcome, "rescued", cause=claim.loss.cause if claim.loss else "unknown")
