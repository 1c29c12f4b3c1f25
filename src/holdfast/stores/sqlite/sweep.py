"""What janitors do: promote, reclaim, prune. Each looks first, and writes nothing where there is nothing to do."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import NamedTuple
from uuid import UUID

from holdfast.clock import DAY, HOUR, Instant
from holdfast.job import TOMBSTONE, Loss
from holdfast.store import LEASE_RAN_OUT, Over, Promoted
from holdfast.stores.columns import text_of_loss
from holdfast.stores.sqlite import history
from holdfast.stores.sqlite.lives import lease, life_of, retire
from holdfast.stores.sqlite.operate import drop_belongings
from holdfast.stores.sqlite.presence import Presence
from holdfast.stores.sqlite.rows import id_of, texts_of, uuid_of
from holdfast.stores.sqlite.statements import Row, Sql
from holdfast.stores.unreadable import decoded

# --- promote


def nothing_due(sql: Sql) -> Promoted | None:
    """The answer where no scheduled job is due yet, and no job's time over."""
    next_in = _next_in(sql)
    return None if next_in == 0 else Promoted(0, next_in)


def promote(sql: Sql, limit: int) -> Promoted:
    over = _time_out(sql, max(0, limit))
    return Promoted(sql.write("promote", sql.now(), max(0, limit)), _next_in(sql), over)


def _next_in(sql: Sql) -> int | None:
    [times] = sql.rows("next_due")
    following = min((time for time in times if time is not None), default=None)
    return None if following is None else max(0, following - sql.now())


def _time_out(sql: Sql, limit: int) -> tuple[Over, ...]:
    """Ends jobs whose time is over. A row that cannot be read is ended too, and not told of."""
    now = sql.now()
    rows = sql.rows("timed_out", now, limit)
    expired = [(seq, now + max(keep, TOMBSTONE)) for seq, keep, dead, *_ in rows if not dead]
    sql.spread("cancel", expired, now, "expired", now)
    sql.spread("time_out", [(seq,) for seq, _, dead, *_ in rows if dead], now)
    over, _ = decoded(rows, _over_of)
    return tuple(over)


def _over_of(row: Row) -> Over:
    _, _, dead, job, task, queue = row
    return Over(id_of(job), task, queue, "deadline" if dead else "expired")


# --- reclaim


PROCESS_GONE = Loss("the worker's process is gone")  # what is written then where nobody said more


class _Holder(NamedTuple):
    """What holders.sql returns; without a lease_until there is no such worker."""

    id: str
    supervisor: str | None
    lease_until: Instant | None
    retired_at: Instant | None
    loss: str | None


class Sweeping(NamedTuple):
    """One call of reclaim."""

    sweeper: UUID
    limit: int
    presence: Presence

    def look(self, sql: Sql) -> Sequence[Row] | None:
        """The rows that it returns where it has nothing to write."""
        life, now, length = life_of(sql, self.sweeper), sql.now(), lease(sql)
        if life is None or not life.live(now):
            return []
        steady = life.steady(now, length)
        if steady and sql.rows("leases_ahead", now + length) == [(1,)]:
            return None
        mine = self._mine(sql)
        if len(mine) >= self.limit:
            return mine
        others = self._others(sql)
        return None if _lost(others, now, steady=steady) or any(self._gone(others)) else mine

    def write(self, sql: Sql) -> Sequence[Row]:
        """What held.sql returns of the jobs that the sweeper holds as such now."""
        life, now, length = life_of(sql, self.sweeper), sql.now(), lease(sql)
        if life is None or not life.live(now):
            return []
        steady = life.steady(now, length)
        if steady:
            sql.write("cut_leases", now + length, now + length)
        left = self.limit - len(self._mine(sql))
        for worker in self._gone(self._others(sql)):
            retire(sql, uuid_of(worker), PROCESS_GONE)
        for holder in _lost(self._others(sql), now, steady=steady):
            if left <= 0:
                break
            left -= _take_over(sql, holder, self.sweeper, left)
        return self._mine(sql)

    def _mine(self, sql: Sql) -> list[Row]:
        return sql.rows("held", 0, str(self.sweeper), None, max(0, self.limit))

    def _others(self, sql: Sql) -> list[_Holder]:
        return [holder for holder in map(_Holder._make, sql.rows("holders")) if holder.id != str(self.sweeper)]

    def _gone(self, others: Sequence[_Holder]) -> Iterator[str]:
        """Whose process has ended without a word; those that were silent longest are looked after first."""
        living = [holder for holder in others if holder.retired_at is None and holder.lease_until is not None]
        living.sort(key=lambda holder: holder.lease_until or 0)
        return self.presence.gone((holder.id, holder.supervisor) for holder in living)


def _lost(others: Sequence[_Holder], now: Instant, *, steady: bool) -> Sequence[_Holder]:
    """Those whose jobs may be taken over: the retired, then, by a steady sweeper, those whose lease is over."""
    retired = [holder for holder in others if holder.retired_at is not None]
    if not steady:
        return retired
    return retired + [
        holder
        for holder in others
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
    return None if some or history.outlasts(sql) else 0


def prune(sql: Sql, limit: int, presence: Presence) -> int:
    now, most = sql.now(), max(0, limit)
    [[over]] = sql.rows("over", now, most)
    drop_belongings(sql, over)
    sql.write("prune_lost", over)
    pruned = sql.write("prune_jobs", over)
    if sql.write("prune_workers", now - HOUR, now - DAY):
        sql.write("prune_mail")
        _tidy(sql, presence)
    history.prune(sql)
    return pruned


def _tidy(sql: Sql, presence: Presence) -> None:
    left_over = presence.left_over()
    [[alive]] = sql.rows("alive", texts_of(left_over))
    for worker in set(left_over) - set(map(uuid_of, json.loads(alive))):
        presence.end(worker)
