"""Stores drafts, in a transaction of ours or of the caller's."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.job import Draft
from holdfast.store import Receipt
from holdfast.stores.sqlite.rows import row_of
from holdfast.stores.sqlite.statements import Sql


def enqueue(sql: Sql, jobs: Sequence[Draft]) -> list[Receipt]:
    """Receipts in the order of the jobs. Almost always all ids are new, and one statement is enough to know it."""
    now = sql.now()
    [[newest]] = sql.rows("last_seq")
    if sql.spread("enqueue", [row_of(draft, now) for draft in jobs]) == len(jobs):
        return [Receipt(draft.id, "accepted") for draft in jobs]
    seen = set[object]()
    return [_recognised(sql, draft, newest, seen) for draft in jobs]


def _recognised(sql: Sql, draft: Draft, newest: int, seen: set[object]) -> Receipt:
    """What a draft met whose id may have been taken: before this call, or earlier in it."""
    [[new, same]] = sql.rows("recognise", newest, draft.task, draft.queue, draft.payload, str(draft.id))
    created = bool(new) and draft.id not in seen
    seen.add(draft.id)
    return Receipt(draft.id, "accepted" if same else "conflict", created=created)
