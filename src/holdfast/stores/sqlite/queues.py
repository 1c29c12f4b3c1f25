"""What is said of queues, how many places are taken in them, and how they stand.

Places are taken by the enqueue, which looks at the bound anyway. They are given back by triggers, which nothing can
pass by: no outcome, no operator, no statement that is written by hand. These are there only while a queue has a bound,
because all jobs of the file pay for them. What still goes wrong, a starting worker or an operator's word puts right.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from holdfast.clock import Instant, Span
from holdfast.job import Pause, QueueTerms, State, Until, WhenFull
from holdfast.rulings import Said, paused
from holdfast.store import Authority, QueueSetup, QueueStats, Stats
from holdfast.stores.columns import queue_terms_of, storable, text_of_queue_terms
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
        return None if written is None else queue_terms_of(plain_of(written))
    except (ValueError, TypeError):
        return None


def _write(sql: Sql, name: str, said: Said) -> None:
    if said == Said():
        sql.write("forget_queue", name)
        return
    sql.write("declare", name, *map(text_of_queue_terms, said), *said.terms)


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
    return Stats(
        sql.now(), [_stats_of(each, counts.get(each.name, {}), due.get(each.name)) for each in _all(sql, counts)]
    )


def _stats_of(queue: _Queue, counts: Mapping[State, int], oldest_due: Instant | None) -> QueueStats:
    admitted = None if queue.terms.max_size is None else queue.taken
    return QueueStats(queue.name, queue.terms, queue.edited, counts, admitted, queue.dropped, oldest_due, queue.pause)


def setups(sql: Sql) -> list[QueueSetup]:
    return [QueueSetup(each.name, each.terms, each.edited, each.pause) for each in _all(sql, ())]


class _Queue(NamedTuple):
    """What is laid down about a queue; so many places are `taken` in it, so many of its jobs were `dropped`."""

    name: str
    terms: QueueTerms = _NO_TERMS
    edited: bool = False
    taken: int = 0
    dropped: int = 0
    pause: Pause | None = None


def _all(sql: Sql, more: Iterable[str]) -> list[_Queue]:
    """The queues that are declared or paused, and `more`, by name."""
    pauses = _pauses(sql)
    said = {name: _queue_of(name, *row) for name, *row in sql.rows("queues")}
    names = sorted({*said, *pauses, *more})
    return [said.get(name, _Queue(name))._replace(pause=pauses.get(name)) for name in names]


def _queue_of(
    name: str, size: int | None, when_full: WhenFull, timeout: Span | None, weight: int, *rest: int
) -> _Queue:
    edited, taken, dropped = rest
    return _Queue(name, QueueTerms(size, when_full, timeout, weight), edited == 1, taken, dropped)


# --- pauses


def pause(sql: Sql, queue: str, until: Until | None, reason: str) -> None:
    now = sql.now()
    word = paused(_pauses(sql).get(queue), until, storable(reason), now)
    sql.write("pause", queue, *word)


def resume(sql: Sql, queue: str) -> bool:
    """Whether it was paused."""
    pause = _pauses(sql).get(queue)
    sql.write("resume", queue)
    return pause is not None


def _pauses(sql: Sql) -> dict[str, Pause]:
    return {queue: Pause(*pause) for queue, *pause in sql.rows("pauses", sql.now())}


def _counts(sql: Sql) -> tuple[Mapping[str, dict[State, int]], dict[str, Instant]]:
    """By queue: its jobs by state, and when the first of those queued is due."""
    counts: defaultdict[str, dict[State, int]] = defaultdict(dict)
    due: dict[str, Instant] = {}
    for queue, state, number, first in sql.rows("counts"):
        counts[queue][State(state)] = number
        if first is not None:
            due[queue] = first
    return counts, due
