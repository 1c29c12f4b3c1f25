"""Takes queued jobs for a worker. An idle claim only reads; one that finds jobs uses its ticket up."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple
from uuid import UUID

from holdfast.clock import Instant
from holdfast.store import Quota
from holdfast.stores.sqlite.lives import Life
from holdfast.stores.sqlite.rows import text_of
from holdfast.stores.sqlite.statements import Row, Sql


class Taken(NamedTuple):
    """What a claim took, as held.sql returns it, or why it was refused."""

    rows: Sequence[Row] = ()
    refused: Literal["gone", "expired", "ticket", "used"] | None = None


class HeldBack(NamedTuple):
    """What is queued and must not be claimed: jobs of `paused` queues, and those whose time is over. `over`: now, where
    there are any of these.
    """

    over: Instant | None
    paused: Collection[str]


class _Start(NamedTuple):
    """What a claim that may take jobs begins with: `turn` is the queue that began the worker's last one."""

    turn: str
    back: HeldBack


def _held_back(over: int, paused: str, now: Instant) -> HeldBack:
    return HeldBack(now if over else None, () if paused == "[]" else json.loads(paused))


@dataclass(frozen=True, slots=True)
class Claiming:
    """One claim: `look` and `write` answer None where the next step is to answer; `read` comes after the commit."""

    worker: UUID
    ticket: int
    queues: Sequence[str] | None
    limit: int
    quotas: Sequence[Quota] = ()

    def look(self, sql: Sql) -> Taken | None:
        """Answers refusals, repeats and claims that find nothing."""
        answer = self._before_taking(sql)
        if isinstance(answer, Taken):
            return answer
        names = self.queues
        if self.quotas and names is not None:
            names = [*names, *(quota.queue for quota in self.quotas)]
        return Taken() if next(_filled(sql, answer.back, names, answer.turn), None) is None else None

    def write(self, sql: Sql) -> Taken | None:
        """Takes jobs, one queue after the other until there are enough."""
        answer = self._before_taking(sql)
        if isinstance(answer, Taken):
            return answer
        turn, back = answer
        left, first = self.limit, None
        for queue, most in self.quotas:
            if queue not in back.paused and min(most, left) > 0:
                left -= self._take(sql, queue, min(most, left), back)
        for queue in _filled(sql, back, self.queues, turn) if left > 0 else ():
            left -= self._take(sql, queue, left, back)
            first = first or queue
            if left <= 0:
                break
        if left == self.limit:
            return Taken()
        sql.write("use_ticket", self.ticket, first or turn, text_of(self.worker))
        return None

    def _take(self, sql: Sql, queue: str, limit: int, back: HeldBack) -> int:
        return sql.write("claim", text_of(self.worker), self.ticket, sql.now(), queue, limit, back.over)

    def read(self, sql: Sql) -> Taken:
        """What is held under the ticket, which is used; all of it may have been settled or taken over since."""
        return self._held(sql, unsaved=1)

    def _held(self, sql: Sql, *, unsaved: int) -> Taken:
        rows = sql.rows("held", unsaved, text_of(self.worker), self.ticket, -1)
        return Taken(rows, None if rows else "used")

    def _before_taking(self, sql: Sql) -> Taken | _Start:
        """The answer where nothing may be taken; else what the claim begins with."""
        now = sql.now()
        row = sql.row("claimer", now, text_of(self.worker))
        if row is None:
            return Taken(refused="gone")
        *of_life, over, paused = row
        life = Life._make(of_life)
        if life.retired_at is not None:
            return Taken(refused="gone")
        if not life.live(now):
            return Taken(refused="expired")
        if self.ticket == life.ticket:  # its reply was lost
            return self._held(sql, unsaved=0)
        if self.ticket != life.ticket + 1:
            return Taken(refused="ticket")
        return _Start(life.turn, _held_back(over, paused, now)) if self.limit > 0 else Taken()


def _filled(sql: Sql, back: HeldBack, queues: Collection[str] | None, turn: str) -> Iterator[str]:
    """The queues that have jobs, those behind the one that began the last claim first: so each gets its turn."""
    if queues is None:
        return (queue for queue in _every_filled(sql, back, turn) if queue not in back.paused)
    names = sorted(set(queues).difference(back.paused))
    return _some_filled(sql, back, [name for name in names if name > turn] + [name for name in names if name <= turn])


def _every_filled(sql: Sql, back: HeldBack, turn: str) -> Iterator[str]:
    for start, end in ((turn, None), ("", turn)):
        name = start
        while (row := sql.row("next_queue", name, back.over)) is not None and (end is None or row[0] <= end):
            name = row[0]
            yield name


def _some_filled(sql: Sql, back: HeldBack, names: list[str]) -> Iterator[str]:
    while names and (row := sql.row("first_filled", json.dumps(names), back.over)) is not None:
        yield row[0]
        names = names[names.index(row[0]) + 1 :]


def any_filled(sql: Sql, queues: Sequence[str] | None) -> bool:
    """Whether something can be claimed of these queues, or of any (None)."""
    now = sql.now()
    [[over, paused]] = sql.rows("held_back", now)
    return next(_filled(sql, _held_back(over, paused, now), queues, ""), None) is not None
