"""What janitors do: promote, reclaim, prune. Each writes nothing where there is nothing to do."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from uuid import UUID

from holdfast.job import Claim
from holdfast.store import Over, Promoted
from holdfast.stores.postgres.lane import Lane
from holdfast.stores.postgres.rows import claims_of
from holdfast.stores.unreadable import Told


async def promote(lane: Lane, limit: int, ring: Callable[[Collection[str]], object]) -> Promoted:
    [(moved, next_in, filled, over)] = await lane.call("promote_2", max(0, limit))
    if filled:
        ring(filled)
    ended = () if over is None else json.loads(over)
    return Promoted(moved, next_in, tuple(Over(UUID(job), task, queue, reason) for job, task, queue, reason in ended))


async def reclaim(lane: Lane, sweeper: UUID, limit: int, told: Told) -> Sequence[Claim]:
    return await claims_of(lane, await lane.call("reclaim_2", sweeper, max(0, limit)), sweeper, told)


async def prune(lane: Lane, limit: int) -> int:
    [[pruned]] = await lane.call("prune", max(0, limit))
    return int(pruned)
