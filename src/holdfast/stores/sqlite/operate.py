"""What operators do to single jobs: cancel, retry, delete."""

from __future__ import annotations

import json
from collections.abc import Sequence
from uuid import UUID

from holdfast.job import TOMBSTONE, State
from holdfast.rulings import cancelling, deleting, retrying
from holdfast.store import Cancelling, Deleting, Retried
from holdfast.stores.columns import storable
from holdfast.stores.sqlite.admission import holder_of, room_of
from holdfast.stores.sqlite.rows import texts_of
from holdfast.stores.sqlite.statements import Row, Sql


def cancel(sql: Sql, ids: Sequence[UUID], reason: str) -> list[Cancelling]:
    now, told = sql.now(), storable(reason)
    jobs = _standing(sql, ids)
    cancelled: list[Row] = []
    flagged: list[Row] = []
    answers: list[Cancelling] = []
    for job in map(str, ids):
        seq, state, keep, asked, *rest = jobs.get(job, (0, None, 0, 0))
        answers.append(cancelling(state))
        if answers[-1] == "cancelled":
            cancelled.append((seq, now + max(keep, TOMBSTONE)))
            jobs[job] = (seq, State.CANCELLED, keep, asked, *rest)
        elif answers[-1] == "requested" and not asked:
            flagged.append((seq,))
            jobs[job] = (seq, state, keep, 1, *rest)
    sql.spread("cancel", cancelled, now, told, now)
    sql.spread("flag", flagged, now, told)
    return answers


def retry(sql: Sql, ids: Sequence[UUID]) -> list[Retried]:
    """One after the other: each may take the key or the place that the next would have."""
    jobs = _standing(sql, ids)
    [[_, bounded]] = sql.rows("moment")
    answers: list[Retried] = []
    for job in map(str, ids):
        seq, state, keep, asked, queue, key = jobs.get(job, (0, None, 0, 0, "", None))
        answer = retrying(state) or _in_the_way(sql, seq, queue, key, bounded=bounded == 1) or Retried("retried")
        answers.append(answer)
        if answer.answer == "retried":
            sql.spread("retry", [(seq,)], sql.now())
            jobs[job] = (seq, State.QUEUED, keep, asked, queue, key)
    return answers


def _in_the_way(sql: Sql, seq: int, queue: str, key: str | None, *, bounded: bool) -> Retried | None:
    """Who has its key, or what leaves it no place. A holder whose time is over is made to give the key up."""
    holder = None if key is None else holder_of(sql, queue, key)
    if holder is not None and holder.seq != seq and not holder.over:
        return Retried("taken", holder=holder.id)
    room = room_of(sql, queue) if bounded else None
    if room is not None and room.depth >= room.bound:
        return Retried("full", room=room)
    if holder is not None and holder.seq != seq:
        sql.write("lose_key", holder.seq)
    return None


def delete(sql: Sql, ids: Sequence[UUID]) -> list[Deleting]:
    jobs = _standing(sql, ids)
    gone: list[int] = []
    answers: list[Deleting] = []
    for job in map(str, ids):
        seq, state, *_ = jobs.get(job, (0, None))
        answers.append(deleting(state))
        if answers[-1] == "deleted":
            gone.append(seq)
            del jobs[job]
    now = sql.now()
    sql.spread("delete", [(seq,) for seq in gone], now, now, TOMBSTONE)
    drop_belongings(sql, json.dumps(gone))
    return answers


def drop_belongings(sql: Sql, seqs: str) -> None:
    """Deletes all that belongs to some jobs but their rows. `seqs`: a JSON array."""
    for table in ("attempts", "notes", "saved", "log"):
        sql.write(f"prune_{table}", seqs)


def _standing(sql: Sql, ids: Sequence[UUID]) -> dict[str, Row]:
    """By id: seq, state, keep, whether a cancel was asked for, queue, unique key."""
    [[found]] = sql.rows("standing", texts_of(ids))
    return {job: (seq, State(state), *rest) for job, seq, state, *rest in json.loads(found)}
