"""Lets a job in where its unique key or the bound of its queue has a say: one draft, or one retry, at a time."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple
from uuid import UUID

from holdfast.clock import Instant
from holdfast.job import TOMBSTONE, Draft
from holdfast.rulings import clash, due, instant
from holdfast.store import Receipt, Room
from holdfast.stores.sqlite.rows import plain_of, uuid_of, whole_row_of
from holdfast.stores.sqlite.statements import Sql


class Holder(NamedTuple):
    """What holder.sql returns: who holds a key. `over`: only until another takes it. `alike`: of the same task.
    `open`: it was not started in this life.
    """

    seq: int
    id: UUID
    over: bool
    alike: bool
    open: bool


def admit(sql: Sql, draft: Draft) -> Receipt:
    """First the id counts, then the unique key, then the place."""
    if (known := _recognised(sql, draft)) is not None:
        return known
    holder = holder_of(sql, draft.queue, draft.unique.text, draft.task) if draft.unique else None
    if holder is not None and not holder.over:
        return _clash(sql, draft, holder)
    receipt = _placed(sql, draft)
    if receipt.answer == "accepted":
        if holder is not None:
            sql.write("lose_key", holder.seq)
        if sql.spread("enqueue_whole", [whole_row_of(draft, sql.now())]) != 1:
            raise AssertionError(f"job {draft.id} was not stored, though its id and its key are free")
        sql.write("take_places", 1, draft.queue)
    return receipt


def holder_of(sql: Sql, queue: str, key: str, task: str = "") -> Holder | None:
    row = sql.row("holder", sql.now(), task, queue, key)
    return None if row is None else Holder(row[0], uuid_of(plain_of(row[1])), *map(bool, row[2:]))


def room_of(sql: Sql, queue: str) -> Room | None:
    """The queue as it is met; None if it has no bound."""
    row = sql.row("room", queue)
    return None if row is None else Room(row[0], row[1], plain_of(row[2]), row[3])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def _recognised(sql: Sql, draft: Draft) -> Receipt | None:
    row = sql.row("recognise", 0, draft.task, draft.queue, draft.payload, draft.content, str(draft.id))
    return None if row is None else Receipt(draft.id, "accepted" if row[1] else "conflict", created=False)


def _clash(sql: Sql, draft: Draft, holder: Holder) -> Receipt:
    receipt = clash(draft, holder.id, alike=holder.alike, unstarted=holder.open)
    if receipt.answer == "replaced":
        _replace(sql, draft, holder.seq)
    return receipt


def _replace(sql: Sql, draft: Draft, seq: int) -> None:
    """The holder's producer may repeat his enqueue, and is recognised by what he wrote."""
    [[payload]] = sql.rows("payload", seq)
    now, content = sql.now(), replace(draft, payload=payload).content
    state, due_at = due(draft, now)
    ends = instant(draft.expires, now), instant(draft.deadline, now)
    sql.write("replace", draft.payload, state.value, due_at, *ends, content, seq)


def _placed(sql: Sql, draft: Draft) -> Receipt:
    """Whether there is a place for it, which may be another's that is dropped."""
    room = room_of(sql, draft.queue)
    if room is None or room.depth < room.bound:
        return Receipt(draft.id, "accepted")
    dropped = None
    if room.when_full == "drop_oldest":
        dropped = _drop_oldest(sql, draft.queue, sql.now())
    if dropped is None and room.when_full != "drop_newest":
        return Receipt(draft.id, "full", created=False, room=room)
    sql.write("count_dropped", draft.queue)
    if dropped is None:
        return Receipt(draft.id, "dropped", created=False, room=room)
    return Receipt(draft.id, "accepted", dropped=dropped)


def _drop_oldest(sql: Sql, queue: str, now: Instant) -> UUID | None:
    row = sql.row("oldest", queue)
    if row is None:
        return None
    seq, job, keep = row
    sql.spread("cancel", [(seq, now + max(keep, TOMBSTONE))], now, "dropped", now)
    return uuid_of(plain_of(job))
