"""What is said of queues, how many places are taken in them, and how they stand.

Places are taken by the enqueue, which looks at the bound anyway. They are given back by triggers, which nothing can
pass by: no outcome, no operator, no statement that is written by hand. These are there only while a queue has a bound,
because all jobs of the file pay for them. What still goes wrong, a starting worker or an operator's word puts right.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from holdfast.clock import Instant
from holdfast.job import QueueTerms, State
from holdfast.rulings import Said
from holdfast.store import Authority, QueueStats, Stats
from holdfast.stores.sqlite.rows import plain_of
from holdfast.stores.sqlite.statements import Sql

_NO_TERMS = QueueTerms()
_TRIGGERS = ("count_ended", "count_deleted")


class _Change(NamedTuple):
    """What is said of a queue from now on; `places`: so many are taken, to be counted from now."""

    name: str
    said: Said
    places: int | None


def unchanged(sql: Sql, queues: Mapping[str, QueueTerms | None], by: Authority) -> Literal[True] | None:
    """True where `configure` has nothing to write."""
    return None if any(True for _ in _changes(sql, queues, by)) else True


def configure(sql: Sql, queues: Mapping[str, QueueTerms | None], by: Authority) -> None:
    """On any connection, in its transaction; writes nothing where nothing changes."""
    changes = list(_changes(sql, queues, by))
    for name, said, places in changes:
        _write(sql, name, said)
        if places is not None:
            sql.write("set_places", places, name)
    if changes:
        _equip(sql)


def _changes(sql: Sql, queues: Mapping[str, QueueTerms | None], by: Authority) -> Iterator[_Change]:
    met = dict[str, tuple[Said, Said, int | None]]()
    for name, terms in queues.items():
        declared, edited, taken = sql.row("queue", name) or (None, None, None)
        said = Said(_terms_of(declared), _terms_of(edited))
        met[name] = (said, said.after(terms, by), taken)
    recounted = [
        name
        for name, (_, then, taken) in met.items()
        if then.terms.max_size is not None and (taken is None or by != "producer")
    ]
    counted = _places(sql, recounted)
    for name, (said, then, taken) in met.items():
        places = counted.get(name)
        if then != said or places not in (None, taken):
            yield _Change(name, then, places)


def _places(sql: Sql, names: Sequence[str]) -> dict[str, int]:
    """How many unfinished jobs these queues have: all of them are counted in one pass, as it may be a long one."""
    if not names:
        return {}
    wanted = json.dumps(names)
    return dict.fromkeys(names, 0) | {plain_of(name): number for name, number in sql.rows("places", *[wanted] * 3)}


def _terms_of(written: bytes | None) -> QueueTerms | None:
    """None also for what somebody's hand has made unreadable: the next word of code or operator replaces it."""
    try:
        return None if written is None else QueueTerms._make(json.loads(plain_of(written)))
    except (ValueError, TypeError):
        return None


def _write(sql: Sql, name: str, said: Said) -> None:
    if said == Said():
        sql.write("forget_queue", name)
        return
    declared, edited = (None if terms is None else json.dumps(terms) for terms in said)
    sql.write("declare", name, declared, edited, *said.terms)


def _equip(sql: Sql) -> None:
    """Sees to it that there is what bounds need, and nothing else. What is counted from now on was counted just now."""
    [[bounded, drops, counted, indexed]] = sql.rows("counted")
    if bounded and not counted:
        for name in _TRIGGERS:
            sql.write(name)
    if counted and not bounded:
        for name in _TRIGGERS:
            sql.run(f"DROP TRIGGER holdfast_{name}")
    if drops and not indexed:
        sql.write("index_oldest")
    if indexed and not drops:
        sql.run("DROP INDEX holdfast_oldest")


def stats(sql: Sql) -> Stats:
    """Read in one moment, if all is read in one transaction."""
    counts, due = _counts(sql)
    said = {row[0]: row for row in sql.rows("queues")}
    queues = list[QueueStats]()
    for name in sorted(counts.keys() | said.keys()):
        _, max_size, when_full, block_timeout, edited, taken, dropped = said.get(name, (name, *_NO_TERMS, 0, 0, 0))
        terms = QueueTerms(max_size, when_full, block_timeout)
        admitted = None if max_size is None else taken
        queues.append(QueueStats(name, terms, edited == 1, counts.get(name, {}), admitted, dropped, due.get(name)))
    return Stats(sql.now(), queues)


def _counts(sql: Sql) -> tuple[Mapping[str, dict[State, int]], dict[str, Instant]]:
    """By queue: its jobs by state, and when the first of those queued is due."""
    counts: defaultdict[str, dict[State, int]] = defaultdict(dict)
    due: dict[str, Instant] = {}
    for queue, state, number, first in sql.rows("counts"):
        counts[queue][State(state)] = number
        if first is not None:
            due[queue] = first
    return counts, due
