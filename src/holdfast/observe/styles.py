"""How lines look to machines: key=value, or JSON, one line for each event."""

from __future__ import annotations

import logging
import math
import os
import socket
import time
from collections.abc import Iterator
from functools import lru_cache
from json.encoder import encode_basestring, encode_basestring_ascii
from typing import Any

from holdfast.context import current
from holdfast.job import Claim
from holdfast.observe.told import LINE_LIMIT, MESSAGE, VALUE_LIMIT, Told, quoted, within

JOBS = "holdfast.job"


def plain(record: logging.LogRecord) -> Told:
    """A record that is no event, as one; with the job, if code of a job wrote it."""
    fields: dict[str, Any] = {"message": record.getMessage()}
    job = current.get(None)
    if job is not None:
        fields |= {"task": job.task, "job": job.id}
    if record.exc_info:
        fields["traceback"] = logging.Formatter().formatException(record.exc_info)
    return Told(MESSAGE, fields)


class _Stamps:
    """UTC, to the millisecond. Lines of one batch share it."""

    def __init__(self) -> None:
        self._last = (-1, "")
        self._second = (-1, "")

    def at(self, millis: int) -> str:
        known, text = self._last
        if known != millis:
            second, rest = divmod(millis, 1000)
            known, text = self._second
            if known != second:
                text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
                self._second = second, text
            text = f"{text}.{rest:03d}Z"
            self._last = millis, text
        return text


class _ForMachines(logging.Formatter):
    def __init__(self) -> None:
        super().__init__()
        self._at = _Stamps().at
        self._process = f"{socket.gethostname()}:{os.getpid()}"

    def _stamp(self, record: logging.LogRecord) -> str:
        return self._at(int(record.created) * 1000 + int(record.msecs))


class KeyValue(_ForMachines):
    """UTC time, level, logger, then `key=value` with the process at the end."""

    def __init__(self) -> None:
        super().__init__()
        self._process = quoted(self._process)
        self._end = f" worker={self._process}\n"

    def format(self, record: logging.LogRecord) -> str:
        told = record.msg if isinstance(record.msg, Told) else plain(record)
        line = f"{self._stamp(record)} {record.levelname} {record.name} {told}"
        return f"{within(line, LINE_LIMIT)} {_origin(told)}={self._process}"

    def attempt(self, level: str, event: str, claim: Claim, fields: dict[str, Any]) -> str:
        """As `format`, now, and in a fraction of its time: most lines are of this kind."""
        before, after = _around_id(level, event, claim.task, claim.queue, claim.attempt, claim.terms.max_attempts)
        job = f"{claim.id.int:032x}"  # str() of a UUID takes twice as long
        line = (
            f"{self._at(int(time.time() * 1000))} {before}{job[:8]}-{job[8:12]}-{job[12:16]}-{job[16:20]}-{job[20:]}"
            f"{after}{claim.fence}"
        )
        for key, value in fields.items():
            if value is not None:
                line += f" {key}={round(value, 3) if type(value) is float else quoted(value)}"
        if len(line) > LINE_LIMIT:
            line = within(line, LINE_LIMIT)
        return line + self._end


class Json(_ForMachines):
    """One object: time, level, logger, event, the event's fields, and the process. Lengths of time are seconds."""

    def __init__(self) -> None:
        super().__init__()
        self._process = _json(self._process, VALUE_LIMIT)
        self._end = f'"worker":{self._process}}}\n'

    def format(self, record: logging.LogRecord) -> str:
        told = record.msg if isinstance(record.msg, Told) else plain(record)
        head = f'{{"time":"{self._stamp(record)}","level":"{record.levelname}"'
        rest = f'"{_origin(told)}":{self._process}}}'
        fields = {"logger": record.name, "event": told.event, **told.fields}
        limit, line = VALUE_LIMIT, ""
        while limit > _SHORTEST:
            line = ",".join([head, *_members(fields, limit), rest])
            if len(line) <= LINE_LIMIT:
                break
            limit //= 2
        return line

    def attempt(self, level: str, event: str, claim: Claim, fields: dict[str, Any]) -> str:
        """As in KeyValue."""
        before, after = _json_around_id(level, event, claim.task, claim.queue, claim.attempt, claim.terms.max_attempts)
        job = f"{claim.id.int:032x}"
        line = (
            f'{{"time":"{self._at(int(time.time() * 1000))}{before}'
            f"{job[:8]}-{job[8:12]}-{job[12:16]}-{job[16:20]}-{job[20:]}{after}{claim.fence},"
        )
        for key, value in fields.items():
            if value is not None:
                line += f'"{key}":{_json(value, VALUE_LIMIT // 2)},'
        return line + self._end


_SHORTEST = 50  # characters of a value, below which a line is let be longer than it should


def _origin(told: Told) -> str:
    """On lines about a worker `worker` is its id in the store; elsewhere it is where the line comes from."""
    return "process" if "worker" in told.fields else "worker"


def _members(fields: dict[str, Any], limit: int) -> Iterator[str]:
    for name, value in fields.items():
        if value is not None:
            yield f'"{name}":{_json(value, limit)}'


def _json(value: object, limit: int) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, float) and math.isfinite(value):
        return repr(round(value, 3))
    text = within(str(value), limit)
    return encode_basestring(text) if text.isprintable() else encode_basestring_ascii(text)


@lru_cache(1000)
def _around_id(level: str, event: str, task: str, queue: str, attempt: int, most: int) -> tuple[str, str]:
    """What stands before a job's id in key=value, and behind it up to the fence: few texts, for all jobs."""
    return (
        f"{level} {JOBS} event={event} task={quoted(task)} job=",
        f" queue={quoted(queue)} attempt={attempt}/{most} fence=",
    )


@lru_cache(1000)
def _json_around_id(level: str, event: str, task: str, queue: str, attempt: int, most: int) -> tuple[str, str]:
    return (
        f'","level":"{level}","logger":"{JOBS}","event":"{event}","task":{_json(task, VALUE_LIMIT // 4)},"job":"',
        f'","queue":{_json(queue, VALUE_LIMIT // 4)},"attempt":"{attempt}/{most}","fence":',
    )
