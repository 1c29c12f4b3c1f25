"""Stores drafts, in a transaction of ours or of the caller's: all at once where that can be, else one by one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Sequence

from holdfast.job import Draft
from holdfast.store import Receipt
from holdfast.stores.sqlite.admission import admit, room_of
from holdfast.stores.sqlite.rows import row_of, whole_row_of
from holdfast.stores.sqlite.statements import Sql


def enqueue(sql: Sql, jobs: Sequence[Draft]) -> list[Receipt]:
    """Receipts in the order of the jobs. Where no key and no bound has a say, it is one look and one statement."""
    [[newest, any_bound]] = sql.rows("moment")
    if not any_bound and not any(draft.unique for draft in jobs):
        return _together(sql, jobs, newest)
    wanted = Counter(draft.queue for draft in jobs) if any_bound else Counter[str]()
    rooms = {queue: room for queue in wanted if (room := room_of(sql, queue)) is not None}
    fit = all(room.depth + wanted[queue] <= room.bound for queue, room in rooms.items())
    if not fit or not _all_new(sql, jobs):
        return _apart(sql, jobs, rooms, newest)
    for queue in rooms:
        sql.write("take_places", wanted[queue], queue)
    return [Receipt(draft.id, "accepted") for draft in jobs]


def _apart(sql: Sql, jobs: Sequence[Draft], bounded: Container[str], newest: int) -> list[Receipt]:
    """What a key or a bound may refuse is met job by job."""
    if len({draft.id.int for draft in jobs}) < len(jobs):  # the first of each id is stored, whatever the others are
        return [admit(sql, draft) for draft in jobs]
    alone = [draft.unique is not None or draft.queue in bounded for draft in jobs]
    others = [draft for draft, so in zip(jobs, alone, strict=True) if not so]
    receipts = iter(_together(sql, others, newest))
    return [admit(sql, draft) if so else next(receipts) for draft, so in zip(jobs, alone, strict=True)]


def _together(sql: Sql, jobs: Sequence[Draft], newest: int) -> list[Receipt]:
    """For jobs that nothing but their id can meet. Almost always all ids are new, and one statement tells."""
    if _stored(sql, jobs) == len(jobs):
        return [Receipt(draft.id, "accepted") for draft in jobs]
    seen = set[object]()
    return [_recognised(sql, draft, newest, seen) for draft in jobs]


def _stored(sql: Sql, jobs: Sequence[Draft]) -> int:
    """Stores those whose id and key are free; how many."""
    now = sql.now()
    if any(draft.headers or draft.unique or draft.expires or draft.deadline for draft in jobs):
        return sql.spread("enqueue_whole", [whole_row_of(draft, now) for draft in jobs])
    return sql.spread("enqueue", [row_of(draft, now) for draft in jobs])


def _recognised(sql: Sql, draft: Draft, newest: int, seen: set[object]) -> Receipt:
    """What a draft met whose id may have been taken: before this call, or earlier in it."""
    content = draft.content
    [[new, same]] = sql.rows("recognise", newest, draft.task, draft.queue, draft.payload, content, str(draft.id))
    created = bool(new) and draft.id not in seen
    seen.add(draft.id)
    return Receipt(draft.id, "accepted" if same else "conflict", created=created)


def _all_new(sql: Sql, jobs: Sequence[Draft]) -> bool:
    """Stores all of them, or none if one's id or unique key is taken."""
    sql.run("SAVEPOINT together")
    stored = _stored(sql, jobs) == len(jobs)
    if not stored:
        sql.run("ROLLBACK TO together")
    sql.run("RELEASE together")
    return stored
