"""What is on record of a dead worker's runs: under its word, whatever became of the jobs since."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from holdfast.clock import SECOND
from holdfast.job import Record, State
from holdfast.store import Store, Where

AT_ONCE = 100  # jobs per look: their payloads come along

_ENDS = {State.SUCCEEDED: "succeeded", State.DEAD: "dead", State.CANCELLED: "cancelled"}


class Account(NamedTuple):
    """How a run ended; `ran`: the seconds that it took, None if they are not known."""

    queue: str
    task: str
    status: str
    ran: float | None


async def settled_under(store: Store, worker: UUID, runs: Sequence[tuple[UUID, int]]) -> list[Account]:
    """Of those runs (job, fence) of `worker` that are on record. One that was deleted since is not."""
    fences: dict[UUID, list[int]] = {}
    for job, fence in runs:
        fences.setdefault(job, []).append(fence)
    ids, found = list(fences), list[Account]()
    for start in range(0, len(ids), AT_ONCE):
        some = tuple(ids[start : start + AT_ONCE])
        for record in await store.find(Where(ids=some), None, len(some)):
            accounts = (account_of(record, fence, worker) for fence in fences[record.id])
            found += [account for account in accounts if account is not None]
    return found


def account_of(record: Record, fence: int, worker: UUID) -> Account | None:
    """How the claim with this word ended; None if it did not under this word."""
    attempt = next((one for one in record.history if (one.fence, one.worker) == (fence, worker)), None)
    status: str | None = None
    began, ended = record.started_at, record.finished_at
    if attempt is not None:
        status, began, ended = attempt.ended, attempt.started_at, attempt.ended_at
    if (record.settled_fence, record.settled_by) == (fence, worker) and record.settled_state is not None:
        status = _ENDS.get(record.settled_state, status)
    if status is None:
        return None
    ran = None if began is None or ended is None else max(0, ended - began) / SECOND
    return Account(record.queue, record.task, status, ran)
