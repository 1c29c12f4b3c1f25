"""The history of each minute, and of each ten minutes: steps that are added to, and dropped when they are old."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from uuid import UUID

from holdfast.clock import MINUTE, Instant, Span
from holdfast.rulings import added, higher
from holdfast.store import MINUTES_KEPT, TENS_KEPT, Level, Minutes, Tally
from holdfast.stores.sqlite.statements import Row, Sql

_KEPT = {MINUTE: MINUTES_KEPT, 10 * MINUTE: TENS_KEPT}  # by the length of a step


def record(sql: Sql, reporter: UUID, number: int, tallies: Sequence[Tally], levels: Sequence[Level]) -> int:
    row = sql.row("reported", str(reporter))
    if row is None:
        return 0
    last = int(row[0])
    if number <= last:
        return last
    sql.write("report", number, str(reporter))
    for length in _KEPT:
        start = sql.now() // length * length
        _add_tallies(sql, length, start, tallies)
        _add_levels(sql, length, start, levels)
    return number


def _add_tallies(sql: Sql, length: Span, start: Instant, tallies: Sequence[Tally]) -> None:
    stored = {tally[:3]: tally for tally in map(_tally_of, sql.rows("tallies", length, start, start + 1))}
    changed = dict[tuple[str, str, str], Tally]()
    for tally in tallies:
        before = changed.get(tally[:3]) or stored.get(tally[:3])
        changed[tally[:3]] = tally if before is None else added(before, tally)
    rows = [(length, start, *tally[:4], json.dumps(tally.ran), json.dumps(tally.waited)) for tally in changed.values()]
    sql.spread("tally", rows)


def _add_levels(sql: Sql, length: Span, start: Instant, levels: Sequence[Level]) -> None:
    met = {queue: Level(queue, *level) for _, queue, *level in sql.rows("levels", length, start, start + 1)}
    for level in levels:
        met[level.queue] = higher(met.get(level.queue, level), level)
    sql.spread("level", [(length, start, *met[queue]) for queue in {level.queue for level in levels}])


def history(sql: Sql, since: Instant, before: Instant, length: Span) -> list[Minutes]:
    tallies, levels = defaultdict[Instant, list[Tally]](list), defaultdict[Instant, list[Level]](list)
    for row in sql.rows("tallies", length, since, before):
        tallies[row[0]].append(_tally_of(row))
    for start, *level in sql.rows("levels", length, since, before):
        levels[start].append(Level(*level))
    return [Minutes(start, tallies[start], levels[start]) for start in sorted(tallies.keys() | levels.keys())]


def _tally_of(row: Row) -> Tally:
    _, queue, task, outcome, count, ran, waited = row
    return Tally(queue, task, outcome, count, tuple(json.loads(ran)), tuple(json.loads(waited)))


def outlasts(sql: Sql) -> bool:
    """Whether it goes further back than it is kept."""
    return any(sql.rows("old_steps", length, sql.now() - kept) == [(1,)] for length, kept in _KEPT.items())


def prune(sql: Sql) -> None:
    for length, kept in _KEPT.items():
        sql.write("prune_tallies", length, sql.now() - kept)
        sql.write("prune_levels", length, sql.now() - kept)
