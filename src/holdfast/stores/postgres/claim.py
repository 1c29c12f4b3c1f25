"""Takes queued jobs for a worker: one call of holdfast_claim_2."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from holdfast.job import Claim
from holdfast.store import Claims, Quota
from holdfast.stores.postgres.lane import Lane
from holdfast.stores.postgres.rows import claims_of
from holdfast.stores.unreadable import Told


async def claim(
    lane: Lane, worker: UUID, ticket: int, queues: Sequence[str] | None, limit: int, quotas: Sequence[Quota], told: Told
) -> Claims:
    names = None if queues is None else list(queues)
    firsts = [quota.queue for quota in quotas] or None
    rows = await lane.call("claim_2", worker, ticket, names, limit, firsts, [quota.most for quota in quotas] or None)
    if len(rows) == 1 and rows[0][-1] is not None:
        return Claims([], rows[0][-1])
    claims = await claims_of(lane, [row[:-1] for row in rows], worker, told)
    claims.sort(key=_running_order)
    if firsts:
        turns = {queue: turn for turn, queue in reversed(list(enumerate(firsts)))}
        claims.sort(key=lambda job: turns.get(job.queue, len(turns)))
    return Claims(claims)


def _running_order(job: Claim) -> tuple[int, int, UUID]:
    """The order in which a queue's jobs are claimed: the database returns them in no order."""
    return (-job.priority, job.due_at, job.id)
