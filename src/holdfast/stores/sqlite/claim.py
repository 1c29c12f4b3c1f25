"""Takes queued jobs for a worker. An idle claim only reads; one that finds jobs uses its ticket up."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple
from uuid import UUID

from holdfast.stores.sqlite.lives import life_of
from holdfast.stores.sqlite.rows import text_of
from holdfast.stores.sqlite.statements import Row, Sql


class Taken(NamedTuple):
    """What a claim took, as held.sql returns it, or why it was refused."""

    rows: Sequence[Row] = ()
    refused: Literal["gone", "expired", "ticket", "used"] | None = None


@dataclass(frozen=True, slots=True)
class Claiming:
    """One claim: `look` and `write` answer None where the next step is to answer; `read` comes after the commit."""

    worker: UUID
    ticket: int
    queues: Sequence[str] | None
    limit: int

    def look(self, sql: Sql) -> Taken | None:
        """Answers refusals, repeats and claims that find nothing."""
        answer = self._before_taking(sql)
        if isinstance(answer, Taken):
            return answer
        return Taken() if next(self._filled(sql, answer), None) is None else None

    def write(self, sql: Sql) -> Taken | None:
        """Takes jobs, one queue after the other until there are enough."""
        answer = self._before_taking(sql)
        if isinstance(answer, Taken):
            return answer
        worker, now = text_of(self.worker), sql.now()
        left, first = self.limit, None
        for queue in self._filled(sql, answer):
            left -= sql.write("claim", worker, self.ticket, now, queue, left)
            first = first or queue
            if left <= 0:
                break
        if first is None:
            return Taken()
        sql.write("use_ticket", self.ticket, first, worker)
        return None

    def read(self, sql: Sql) -> Taken:
        """What is held under the ticket, which is used; all of it may have been settled or taken over since."""
        return self._held(sql, unsaved=1)

    def _held(self, sql: Sql, *, unsaved: int) -> Taken:
        rows = sql.rows("held", unsaved, text_of(self.worker), self.ticket, -1)
        return Taken(rows, None if rows else "used")

    def _before_taking(self, sql: Sql) -> Taken | str:
        """The answer where nothing may be taken; else the queue that began the worker's last claim."""
        life = life_of(sql, self.worker)
        if life is None or life.retired_at is not None:
            return Taken(refused="gone")
        if not life.live(sql.now()):
            return Taken(refused="expired")
        if self.ticket == life.ticket:  # its reply was lost
            return self._held(sql, unsaved=0)
        if self.ticket != life.ticket + 1:
            return Taken(refused="ticket")
        return life.turn if self.limit > 0 else Taken()

    def _filled(self, sql: Sql, turn: str) -> Iterator[str]:
        """The queues that have jobs, those behind the one that began the last claim first: so each gets its turn."""
        if self.queues is None:
            return _every_filled(sql, turn)
        names = sorted(set(self.queues))
        return _some_filled(sql, [name for name in names if name > turn] + [name for name in names if name <= turn])


def _every_filled(sql: Sql, turn: str) -> Iterator[str]:
    for start, end in ((turn, None), ("", turn)):
        name = start
        while (row := sql.row("next_queue", name)) is not None and (end is None or row[0] <= end):
            name = row[0]
            yield name


def _some_filled(sql: Sql, names: list[str]) -> Iterator[str]:
    while names and (row := sql.row("first_filled", json.dumps(names))) is not None:
        yield row[0]
        names = names[names.index(row[0]) + 1 :]
