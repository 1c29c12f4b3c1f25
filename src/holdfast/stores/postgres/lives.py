"""Workers' lives: register, beat, retire, the mailbox, and who there is."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from holdfast.job import Loss
from holdfast.store import Beat, Line, Registered, Roster, WorkerRow
from holdfast.stores.columns import text_of_loss
from holdfast.stores.postgres import packed
from holdfast.stores.postgres.lane import Lane


async def register(lane: Lane, worker: UUID, supervisor: UUID | None, facts: Mapping[str, object]) -> Registered:
    told = json.dumps(dict(facts), default=str)
    [row] = await lane.call("register", worker, supervisor, told)
    return Registered(*row)


async def beat(lane: Lane, workers: Sequence[UUID]) -> Beat:
    [(length, now, alive)] = await lane.call("beat", packed.uuids(workers))
    return Beat(length, now, frozenset(workers) - frozenset(alive))


async def retire(lane: Lane, worker: UUID, loss: Loss | None, jobs: Mapping[tuple[UUID, int], Loss]) -> None:
    losses = {f"{job}:{fence}": text_of_loss(of_job) for (job, fence), of_job in jobs.items()}
    await lane.call("retire", worker, text_of_loss(loss), json.dumps(losses) if losses else None)


async def mail(lane: Lane, workers: Sequence[UUID]) -> list[Line]:
    return [Line(*row) for row in await lane.call("mail", packed.uuids(workers))]


async def workers(lane: Lane) -> Roster:
    rows = await lane.read("workers", lane.shift)
    return Roster(rows[0][0], [_worker_of(*row[1:]) for row in rows if row[1] is not None])


def _worker_of(worker: UUID, supervisor: UUID | None, facts: str, *times: Any) -> WorkerRow:
    return WorkerRow(worker, supervisor, json.loads(facts), *times)
