"""Workers' lives: register, beat, retire, and the mailbox."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from uuid import UUID

from holdfast.clock import Instant, Span
from holdfast.job import Loss
from holdfast.store import Beat, Line, Registered, Roster, WorkerRow
from holdfast.stores.columns import text_of_loss
from holdfast.stores.sqlite.rows import id_of, texts_of, uuid_of
from holdfast.stores.sqlite.statements import Row, Sql
from holdfast.stores.sqlite.unreadable import decoded


class Life(NamedTuple):
    """What worker.sql returns."""

    lease_until: Instant
    retired_at: Instant | None
    ticket: int
    turn: str
    beat_at: Instant
    steady_since: Instant

    def live(self, now: Instant) -> bool:
        return self.retired_at is None and now < self.lease_until

    def steady(self, now: Instant, lease: Span) -> bool:
        """Its beats came without a pause for a whole lease: the store was there, others could beat too."""
        return 0 <= 2 * (now - self.beat_at) < lease and now - self.steady_since > lease


def life_of(sql: Sql, worker: UUID) -> Life | None:
    row = sql.row("worker", str(worker))
    return None if row is None else Life._make(row)


def lease(sql: Sql) -> Span:
    [[length]] = sql.rows("lease")
    return int(length)


def register(sql: Sql, worker: UUID, supervisor: UUID | None, facts: Mapping[str, object]) -> Registered:
    now, length = sql.now(), lease(sql)
    told = json.dumps(dict(facts), default=str)
    sql.write("register", str(worker), supervisor and str(supervisor), told, now, now, now, length)
    _renew(sql, texts_of([worker]), now, length)
    return Registered(length, now)


def beat(sql: Sql, workers: Sequence[UUID]) -> Beat:
    now, length, ids = sql.now(), lease(sql), texts_of(workers)
    if workers:
        _renew(sql, ids, now, length)
    [[alive]] = sql.rows("alive", ids)
    return Beat(length, now, frozenset(workers) - frozenset(map(uuid_of, json.loads(alive))))


def _renew(sql: Sql, ids: str, now: Instant, length: Span) -> None:
    sql.write("beat", now, length, now, now, now, now, length, ids)


def retire(sql: Sql, worker: UUID, loss: Loss | None, jobs: Mapping[tuple[UUID, int], Loss] = {}) -> bool:
    """Whether its life ended just now."""
    now = sql.now()
    ended = sql.write("retire", now, now, text_of_loss(loss), str(worker)) > 0
    if ended:
        sql.write("drop_mail", str(worker))
        rows = [(str(job), fence, text_of_loss(of_job), str(worker)) for (job, fence), of_job in jobs.items()]
        sql.spread("tell_loss", rows)
    return ended


def mail(sql: Sql, workers: Sequence[UUID]) -> list[Line]:
    ids = texts_of(workers)
    lines, _ = decoded(sql.rows("mail", ids, ids), _line_of, lambda row: (0, row[3], row[2]))
    return lines


def _line_of(row: Row) -> Line:
    worker, kind, job, fence = row
    return Line(uuid_of(worker), kind, id_of(job), fence)


def workers(sql: Sql) -> Roster:
    """A row that somebody's hand has made unreadable is left out."""
    rows, _ = decoded(sql.rows("workers"), _worker_of, lambda row: (0, 0, row[0]))
    return Roster(sql.now(), rows)


def _worker_of(row: Row) -> WorkerRow:
    worker, supervisor, facts, *times = row
    return WorkerRow(uuid_of(worker), None if supervisor is None else uuid_of(supervisor), json.loads(facts), *times)
