"""Reads records: what the server shows of jobs, as values of job.py. Those that cannot be read are left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, cast
from uuid import UUID

from holdfast.job import Attempt, Ended, Failure, Record
from holdfast.stores.columns import record_of
from holdfast.stores.redis.lane import Lane
from holdfast.stores.redis.resp import Reply
from holdfast.stores.redis.rows import kind_of
from holdfast.stores.redis.whereabouts import answers
from holdfast.stores.unreadable import decoded

_AT_ONCE = 2**20  # bytes, after which a script reads no further job


async def read(lane: Lane, jobs: Mapping[UUID, str]) -> list[Record]:
    """Those of the jobs that are there, in the same order; `jobs`: with their queues."""
    shown = await answers(lane, "records", [_AT_ONCE], list(jobs), jobs)
    there = [(job, queue, said) for (job, queue), said in zip(jobs.items(), shown, strict=True) if said is not None]
    records, unreadable = decoded(there, lambda row: _record_of(*row))
    lane.place.told.left_out((job, why) for (job, *_), why in unreadable)
    return records


def _record_of(id: UUID, queue: str, shown: Sequence[Reply]) -> Record:
    moment, pairs, runs, (noted, progress, told), has_key = shown
    job: dict[bytes, bytes] = dict(zip(pairs[::2], pairs[1::2], strict=True))
    number, text = partial(_number, job), partial(_text, job)
    terms, tags, headers, line = kind_of(job[b"kind"])
    settled = text("settled").split(" ") if text("settled") else [None, None, None]
    fence = number("fence") or 0
    runs_now = text("state") == "running"  # else the worker is that of the last run
    about_now = noted is not None and int(noted) == fence  # what its handler says is of its last claim
    row = (
        len(runs) + (number("omitted") or 0), id, text("task"), queue, line, text("state"), job[b"payload"], terms,
        number("priority") or 0, tags, number("life") or 1, number("attempt") or 0, fence, number("releases") or 0,
        number("losses") or 0, number("crashes") or 0, number("alone") or 0, int(job[b"at"]), int(job[b"due"]),
        number("started"), number("finished"), _id(text("worker")) if runs_now else None, number("cancel"),
        None if settled[0] is None else int(settled[0]), _id(settled[1] or ""), settled[2], job.get(b"result"),
        text("reason"), headers, text("key") if b"key" in job else None, text("until"), number("hold") or 0,
        text("clash"), not has_key, float(progress) if about_now and progress else None,
        told.decode() if about_now and told is not None else None,
        number("expires"), number("deadline"), text("fingerprint"),
    )  # fmt: skip
    return record_of(row, [_attempt_of(run) for run in runs], moment)


def _number(job: Mapping[bytes, bytes], name: str) -> int | None:
    value = job.get(name.encode())
    return int(value) if value else None


def _text(job: Mapping[bytes, bytes], name: str) -> str:
    return job.get(name.encode(), b"").decode()


def _id(text: str) -> UUID | None:
    return UUID(text) if text else None


def _attempt_of(run: bytes) -> Attempt:
    """As finish.lua writes a run: six words, the lengths of three texts, and four texts."""
    attempt, fence, worker, started, ended, word, *lengths, texts = run.split(b" ", 9)
    parts: list[Any] = []
    for length in lengths:
        size = 0 if length == b"-" else int(length)
        parts.append(texts[:size].decode())
        texts = texts[size:]
    reason, kind, message = parts
    error = None if lengths[1] == b"-" else Failure(kind, message, texts.decode())
    ended_as = cast("Ended", word.decode())
    return Attempt(int(attempt), int(fence), UUID(worker.decode()), int(started), int(ended), ended_as, error, reason)
