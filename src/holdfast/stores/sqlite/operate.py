"""What operators do to single jobs: cancel, retry."""

from __future__ import annotations

import json
from collections.abc import Sequence
from uuid import UUID

from holdfast.job import FINAL, TOMBSTONE, State
from holdfast.store import Cancelling, Retrying
from holdfast.stores.sqlite.rows import storable, texts_of
from holdfast.stores.sqlite.statements import Row, Sql


def cancel(sql: Sql, ids: Sequence[UUID], reason: str) -> list[Cancelling]:
    now, told = sql.now(), storable(reason)
    jobs = _standing(sql, ids)
    cancelled: list[Row] = []
    flagged: list[Row] = []
    answers: list[Cancelling] = []
    for job in map(str, ids):
        seq, state, keep, asked = jobs.get(job, (0, None, 0, 0))
        answers.append(_cancelling(state))
        if answers[-1] == "cancelled":
            cancelled.append((seq, now + max(keep, TOMBSTONE)))
            jobs[job] = (seq, State.CANCELLED, keep, asked)
        elif answers[-1] == "requested" and not asked:
            flagged.append((seq,))
            jobs[job] = (seq, state, keep, 1)
    sql.spread("cancel", cancelled, now, told)
    sql.spread("flag", flagged, now, told)
    return answers


def _cancelling(state: str | None) -> Cancelling:
    if state is None:
        return "missing"
    if state in FINAL:
        return "final"
    return "requested" if state == State.RUNNING else "cancelled"


def retry(sql: Sql, ids: Sequence[UUID]) -> list[Retrying]:
    jobs = _standing(sql, ids)
    retried: list[Row] = []
    answers: list[Retrying] = []
    for job in map(str, ids):
        seq, state, *rest = jobs.get(job, (0, None))
        answers.append(_retrying(state))
        if answers[-1] == "retried":
            retried.append((seq,))
            jobs[job] = (seq, State.QUEUED, *rest)
    sql.spread("retry", retried, sql.now())
    return answers


def _retrying(state: str | None) -> Retrying:
    if state is None:
        return "missing"
    if state == State.SUCCEEDED:
        return "succeeded"
    return "retried" if state in FINAL else "unfinished"


def _standing(sql: Sql, ids: Sequence[UUID]) -> dict[str, Row]:
    """By id: seq, state, keep, whether a cancel was asked for."""
    [[found]] = sql.rows("standing", texts_of(ids))
    return {job: tuple(rest) for job, *rest in json.loads(found)}
