"""What janitors do: promote, reclaim, prune. Each looks first, and writes nothing where there is nothing to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from holdfast.clock import DAY, HOUR, Instant
from holdfast.store import LEASE_RAN_OUT, Promoted
from holdfast.stores.sqlite.lives import lease, life_of
from holdfast.stores.sqlite.rows import text_of_loss
from holdfast.stores.sqlite.statements import Row, Sql

# --- promote


def nothing_due(sql: Sql) -> Promoted | None:
    """The answer where no scheduled job is due yet."""
    next_in = _next_in(sql)
    return None if next_in == 0 else Promoted(0, next_in)


def promote(sql: Sql, limit: int) -> Promoted:
    return Promoted(sql.write("promote", sql.now(), max(0, limit)), _next_in(sql))


def _next_in(sql: Sql) -> int | None:
    row = sql.row("next_due")
    return None if row is None else max(0, row[0] - sql.now())


# --- reclaim


class _Holder(NamedTuple):
    """What holders.sql returns; without a lease_until there is no such worker."""

    id: str
    lease_until: Instant | None
    retired_at: Instant | None
    loss: str | None


def nothing_lost(sql: Sql, sweeper: UUID, limit: int) -> Sequence[Row] | None:
    """The rows that a reclaim returns where it has nothing to write."""
    life, now, length = life_of(sql, sweeper), sql.now(), lease(sql)
    if life is None or not life.live(now):
        return []
    steady = life.steady(now, length)
    if steady and sql.rows("leases_ahead", now + length) == [(1,)]:
        return None
    mine = _mine(sql, sweeper, limit)
    return mine if len(mine) >= limit or not _lost(sql, sweeper, steady=steady) else None


def reclaim(sql: Sql, sweeper: UUID, limit: int) -> Sequence[Row]:
    """What held.sql returns of the jobs that the sweeper holds as such now."""
    life, now, length = life_of(sql, sweeper), sql.now(), lease(sql)
    if life is None or not life.live(now):
        return []
    steady = life.steady(now, length)
    if steady:
        sql.write("cut_leases", now + length, now + length)
    left = limit - len(_mine(sql, sweeper, limit))
    for holder in _lost(sql, sweeper, steady=steady):
        if left <= 0:
            break
        left -= _take_over(sql, holder, sweeper, left)
    return _mine(sql, sweeper, limit)


def _mine(sql: Sql, sweeper: UUID, limit: int) -> list[Row]:
    return sql.rows("held", str(sweeper), None, max(0, limit))


def _lost(sql: Sql, sweeper: UUID, *, steady: bool) -> Sequence[_Holder]:
    """Those whose jobs may be taken over: the retired, then, by a steady sweeper, those whose lease is over."""
    holders = [holder for holder in map(_Holder._make, sql.rows("holders")) if holder.id != str(sweeper)]
    retired = [holder for holder in holders if holder.retired_at is not None]
    if not steady:
        return retired
    now = sql.now()
    return retired + [
        holder
        for holder in holders
        if holder.retired_at is None and (holder.lease_until is None or holder.lease_until <= now)
    ]


def _take_over(sql: Sql, holder: _Holder, sweeper: UUID, limit: int) -> int:
    if holder.lease_until is not None and holder.retired_at is None:
        sql.write("tell_lost", holder.id, limit)
    return sql.write("take_over", str(sweeper), holder.loss or text_of_loss(LEASE_RAN_OUT), holder.id, limit)


# --- prune


def nothing_over(sql: Sql) -> int | None:
    """0 where there is nothing to prune."""
    now = sql.now()
    [[some]] = sql.rows("prunable", now, now - HOUR, now - DAY)
    return None if some else 0


def prune(sql: Sql, limit: int) -> int:
    now, most = sql.now(), max(0, limit)
    sql.write("prune_attempts", now, most)
    pruned = sql.write("prune_jobs", now, most)
    if sql.write("prune_workers", now - HOUR, now - DAY):
        sql.write("prune_mail")
    return pruned
