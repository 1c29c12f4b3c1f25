"""The janitor: promote, reclaim, prune. Safe for every worker to run at once; each step is bounded."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from uuid import UUID

from holdfast.clock import SECOND
from holdfast.job import Claim, Loss, Lost
from holdfast.policy import decide
from holdfast.store import Answer, Store
from holdfast.worker.report import tell_failed, tell_lost

PROMOTE_MOST, RECLAIM_MOST, PRUNE_MOST = 500, 100, 500
PROMOTE_EVERY, RECLAIM_EVERY, PRUNE_EVERY = 1.0, 5.0, 30.0  # seconds


class Janitor:
    """Three steps for `repeat`; `sweeper` is the worker in whose name jobs are taken over."""

    def __init__(self, store: Store, sweeper: Callable[[], UUID]) -> None:
        self._store = store
        self._sweeper = sweeper

    async def promote_step(self) -> float:
        """Scheduled jobs that are due become queued."""
        promoted = await self._store.promote(PROMOTE_MOST)
        if promoted.next_in is None:
            return PROMOTE_EVERY
        return min(PROMOTE_EVERY, promoted.next_in / SECOND)

    async def reclaim_step(self) -> float:
        """Takes over what lost workers held, and writes what their loss means for each job."""
        claims = await self._store.reclaim(self._sweeper(), RECLAIM_MOST)
        await self._rescue(claims)
        return 0 if len(claims) == RECLAIM_MOST else RECLAIM_EVERY * random.uniform(0.8, 1.2)

    async def prune_step(self) -> float:
        """Deletes finished jobs whose time is over."""
        pruned = await self._store.prune(PRUNE_MOST)
        return 0.05 if pruned == PRUNE_MOST else PRUNE_EVERY

    async def _rescue(self, claims: Sequence[Claim]) -> None:
        if not claims:
            return
        outcomes = [decide(claim, Lost(claim.loss or Loss("unknown"))) for claim in claims]
        answers = await self._store.finish(outcomes)
        for claim, outcome, answer in zip(claims, outcomes, answers, strict=True):
            if answer.answer is Answer.ACCEPTED:
                if outcome.ended == "failed":
                    tell_failed(claim, outcome)
                else:
                    tell_lost(claim, outcome, "rescued", cause=claim.loss.cause if claim.loss else "unknown")
