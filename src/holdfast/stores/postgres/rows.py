"""Between rows and values: what the functions of the database return as values of job.py."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from holdfast.job import Claim
from holdfast.stores.columns import loss_of, storable, terms_of
from holdfast.stores.postgres.lane import Lane
from holdfast.stores.postgres.session import Row
from holdfast.stores.unreadable import Told, decoded


def claim_of(row: Row, worker: UUID) -> Claim:
    """What holdfast_claim_2 returns, of this worker: the fields of a Claim without its worker."""
    fields = list(row)
    fields.insert(2, worker)
    fields[6] = terms_of(fields[6])
    if fields[15] is None:
        raise ValueError("started_at is NULL")
    if fields[16] is not None:
        fields[16] = loss_of(fields[16])
    return Claim(*fields)


async def claims_of(lane: Lane, rows: Sequence[Row], worker: UUID, told: Told) -> list[Claim]:
    """The jobs of these rows; what cannot be read is settled as dead, so that it is in nobody's way any more."""
    claims, unreadable = decoded(rows, lambda row: claim_of(row, worker))
    for (job, fence, *_), why in unreadable:
        [[buried]] = await lane.call("bury", job, fence, storable(f"row cannot be read: {why}"))
        if buried:
            told.buried([(job, why)])
    return claims
