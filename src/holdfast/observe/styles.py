"""How lines look to machines: key=value, or JSON, one line for each event."""

from __future__ import annotations

import logging
import math
import os
import re
import socket
import time
from collections.abc import Iterator, Sequence
from functools import lru_cache
from json.encoder import encode_basestring, encode_basestring_ascii
from typing import Any

from holdfast.context import writing
from holdfast.observe.told import LINE_LIMIT, MESSAGE, VALUE_LIMIT, Told, bytes_of, quoted, within, within_bytes

JOBS = "holdfast.job"
EXTRA_MOST = 20  # fields of an application's own line
_TAKEN = frozenset(vars(logging.makeLogRecord({}))) | {  # by logging, and by what our lines say themselves
    *("asctime", "message", "time", "level", "logger", "event", "task", "job", "attempt", "traceback"),
    *("worker", "process", "taskName"),
}
_field = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,49}").fullmatch


def plain(record: logging.LogRecord) -> Told:
    """A record that is no event, as one; with the job, if code of a job wrote it, and the fields of its `extra=`."""
    fields: dict[str, Any] = {"message": record.getMessage()}
    job = writing()
    if job is not None:
        fields |= {"task": job.task, "job": job.id}
    fields |= _extra(record)
    if record.exc_info:
        fields["traceback"] = logging.Formatter().formatException(record.exc_info)
    return Told(MESSAGE, fields)


def _extra(record: logging.LogRecord) -> dict[str, Any]:
    found = [(name, value) for name, value in vars(record).items() if name not in _TAKEN and _field(name)]
    return dict(found[:EXTRA_MOST])


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


# Each job has two usual lines, and most of them take as many milliseconds as others: to write such a text anew takes
# longer than all the rest of a line.


@lru_cache(4000)
def _id(number: int) -> str:
    digits = f"{number:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


@lru_cache(1000)
def _seconds(millis: int) -> str:
    return repr(millis / 1000)


class _ForMachines(logging.Formatter):
    def __init__(self) -> None:
        super().__init__()
        self._at = _Stamps().at
        self._process = f"{socket.gethostname()}:{os.getpid()}"
        self._head, self._end = "", ""  # of a usual line

    def _stamp(self, record: logging.LogRecord) -> str:
        return self._at(int(record.created) * 1000 + int(record.msecs))

    def written(self, told: Sequence[Any]) -> Iterator[str]:
        """As `lines.Usual` says: as `format`, in a fraction of its time."""
        each, head, end = iter(told), self._head, self._end
        last, stamp = -1, ""
        for shape, what, number, moment in zip(each, each, each, each, strict=True):
            if shape is None:
                yield what
                continue
            if (millis := int(moment * 1000)) != last:
                last, stamp = millis, self._at(millis)
            before, after = shape
            yield f"{head}{stamp}{before}{_id(what)}{after}{_seconds(round(number * 1000))}{end}"


class KeyValue(_ForMachines):
    """UTC time, level, logger, then `key=value` with the process at the end."""

    def __init__(self) -> None:
        super().__init__()
        self._process = quoted(self._process)
        self._end = f" worker={self._process}\n"

    def format(self, record: logging.LogRecord) -> str:
        told = record.msg if isinstance(record.msg, Told) else plain(record)
        line = f"{self._stamp(record)} {record.levelname} {record.name} {told}"
        end = f" {_origin(told)}={self._process}"
        return within_bytes(line, LINE_LIMIT - len(end)) + end

    @staticmethod
    @lru_cache(1000)
    def shape(event: str, task: str, queue: str, attempt: int, most: int, fence: int, name: str) -> tuple[str, str]:
        """What stands between the time and the job's id, and between that and the number."""
        return (
            f" INFO {JOBS} event={event} task={quoted(task)} job=",
            f" queue={quoted(queue)} attempt={attempt}/{most} fence={fence} {name}=",
        )


class Json(_ForMachines):
    """One object: time, level, logger, event, the event's fields, and the process. Lengths of time are seconds."""

    def __init__(self) -> None:
        super().__init__()
        self._process = _json(self._process, VALUE_LIMIT)
        self._head, self._end = '{"time":"', f',"worker":{self._process}}}\n'

    def format(self, record: logging.LogRecord) -> str:
        told = record.msg if isinstance(record.msg, Told) else plain(record)
        head = f'{{"time":"{self._stamp(record)}","level":"{record.levelname}"'
        rest = f'"{_origin(told)}":{self._process}}}'
        fields = {"logger": record.name, "event": told.event, **told.fields}
        limit = VALUE_LIMIT
        while limit > _SHORTEST:
            line = ",".join([head, *_members(fields, limit), rest])
            if bytes_of(line) <= LINE_LIMIT:
                return line
            limit //= 2
        return ",".join([head, *_members({"logger": record.name, "event": told.event}, limit), rest])

    @staticmethod
    @lru_cache(1000)
    def shape(event: str, task: str, queue: str, attempt: int, most: int, fence: int, name: str) -> tuple[str, str]:
        """As in KeyValue."""
        text = VALUE_LIMIT // 4
        return (
            f'","level":"INFO","logger":"{JOBS}","event":"{event}","task":{_json(task, text)},"job":"',
            f'","queue":{_json(queue, text)},"attempt":"{attempt}/{most}","fence":{fence},"{name}":',
        )


_SHORTEST = 10  # characters of a value, below which the fields are left out


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
