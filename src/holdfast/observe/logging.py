"""Log lines: each is an event with fields, shown for people or as key=value; lines about a job carry its id."""

from __future__ import annotations

import logging
import os
import re
import select
import socket
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Literal, TypeAlias

from holdfast.clock import SECOND, short
from holdfast.errors import ConfigError
from holdfast.observe.visible import visible, visible_lines

WARNING = logging.WARNING
LINE_LIMIT, VALUE_LIMIT = 4_000, 2_000  # characters
MESSAGE_LINES = 12  # of one message on a terminal
MESSAGE = "message"  # the event of a plain log record
POOL = "(pool)"  # the queue of a Pool's job, in current_job() and QueueFull; no queue can be called so

Style: TypeAlias = Literal["human", "kv"]
LEVELS = ("debug", "info", "warning", "error")

ours = logging.getLogger("holdfast")
jobs = logging.getLogger("holdfast.job")
workers = logging.getLogger("holdfast.worker")
stores = logging.getLogger("holdfast.store")


told_by_parent = set[str]()  # events of which another process tells for the whole service; see who looks there


class Told:
    """A log message that keeps its event and fields; as text it is key=value."""

    __slots__ = ("event", "fields")

    def __init__(self, event: str, fields: dict[str, Any]) -> None:
        self.event = event
        self.fields = fields

    def __getattr__(self, name: str) -> Any:
        return getattr(str(self), name)  # an application's filter takes a record's msg for a text

    def __contains__(self, part: str) -> bool:
        return part in str(self)

    def __str__(self) -> str:
        return " ".join([f"event={self.event}", *[f"{k}={quoted(v)}" for k, v in self.fields.items() if v is not None]])


def tell(logger: logging.Logger, level: int, event: str, /, **fields: Any) -> None:
    """Logs one event; a field that is None is left out, a float is a length of time in seconds.

    Costs one comparison when the level is off.
    """
    if logger.isEnabledFor(level):
        # Not logger.log(): finding the calling line costs a third of the whole, and says nothing here.
        record = logger.makeRecord(logger.name, level, __file__, 0, Told(event, fields), (), None)
        with suppress(Exception):  # an application's filter or handler may raise; no job shall hang on a log line
            logger.handle(record)


_bare = re.compile(r"[!#-<>-\[\]-~]{1,100}").fullmatch  # ASCII that reads the same without quotes, the usual case
_special = re.compile(r'[ "=\\]').search


def quoted(value: object) -> str:
    """A value for key=value: bare where it can be, else in quotes with everything unprintable escaped."""
    if isinstance(value, float):
        return repr(round(value, 3))
    text = str(value)
    if _bare(text):
        return text
    text = _within(text, VALUE_LIMIT)
    if not text.isprintable():
        return '"' + _within("".join(map(_escaped, text)), VALUE_LIMIT) + '"'
    if text and not _special(text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    if character == "\n":
        return "\\n"
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _within(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[:limit]}…[{len(text) - limit} more]"


class KeyValue(logging.Formatter):
    """One line per event, for machines: UTC time, level, logger, then `key=value` with the process at the end."""

    def __init__(self) -> None:
        super().__init__()
        self._process = quoted(f"{socket.gethostname()}:{os.getpid()}")
        self._second = -1
        self._stamp = ""

    def format(self, record: logging.LogRecord) -> str:
        told = record.msg if isinstance(record.msg, Told) else _plain(record)
        second = int(record.created)
        if second != self._second:
            self._stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self._second = second
        # On lines about a worker `worker` is its id in the store; elsewhere it is where the line comes from.
        origin = "process" if "worker" in told.fields else "worker"
        line = f"{self._stamp}.{int(record.msecs):03d}Z {record.levelname} {record.name} {told}"
        return f"{_within(line, LINE_LIMIT)} {origin}={self._process}"


def _plain(record: logging.LogRecord) -> Told:
    fields = {"message": record.getMessage()}
    if record.exc_info:
        fields["traceback"] = logging.Formatter().formatException(record.exc_info)
    return Told(MESSAGE, fields)


_DULL, _RED, _GREEN, _YELLOW, _BLUE, _CYAN = "\x1b[2m", "\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[34m", "\x1b[36m"
_RESET = "\x1b[0m"
_GLYPHS = {
    "started": ("▶", _CYAN),
    "succeeded": ("✓", _GREEN),
    "failed": ("✕", _YELLOW),
    "dead": ("✕", _RED),
    "snoozed": ("◷", _BLUE),
    "cancelled": ("⊘", _DULL),
    "released": ("↩", _BLUE),
    "rescued": ("↩", _YELLOW),
}
_WIDEST_TASK = 32  # task names up to this length line up
_WORKER_LINES = {
    "started": "worker started  {slots} slots  {store}",
    "stopping": "stopping: no new jobs; {running} running have {deadline}; {given_back} prefetched given back",
    "stopped": "stopped: {finished} finished, {refused} refused, {forced} forced, {not_recorded} not recorded",
    "signal": "{signal}: {then}, {processes} processes",
    "restart": "process {pid} ended ({ended}); another starts in {restart_in}",
    "store-away": "no answer from the store ({role}): {error}; trying again",
    "store-back": "the store answers again, after {away} and {tries} tries",
}


class Human(logging.Formatter):
    """For people at a terminal: local time, a glyph, what happened; a failure takes several lines."""

    def __init__(self, *, colour: bool = False) -> None:
        super().__init__()
        self._colour = colour
        self._second = -1
        self._stamp = ""
        self._widest = 0

    def format(self, record: logging.LogRecord) -> str:
        told = record.msg if isinstance(record.msg, Told) else _plain(record)
        lines = [f"{self._time(record)}  {self._glyph(told, record.levelno)} {self._headline(told, record.name)}"]
        lines += [f"            {detail}" for detail in _details(told)]
        return _within("\n".join(lines), LINE_LIMIT)

    def _time(self, record: logging.LogRecord) -> str:
        second = int(record.created)
        if second != self._second:
            text = time.strftime("%H:%M:%S", time.localtime(second))
            self._stamp = f"{_DULL}{text}{_RESET}" if self._colour else text
            self._second = second
        return self._stamp

    def _glyph(self, told: Told, level: int) -> str:
        known = _GLYPHS.get(told.event) if "task" in told.fields else None
        glyph, colour = known or _glyph_of(level)
        return f"{colour}{glyph}{_RESET}" if self._colour else glyph

    def _headline(self, told: Told, logger: str) -> str:
        fields = told.fields
        task = fields.get("task")
        if task is None:
            return _about_worker(told) if logger == workers.name else _about_anything(told, fields)
        return f"{self._padded(visible(str(task)))}  {_about_job(told)}"

    def _padded(self, task: str) -> str:
        self._widest = min(max(self._widest, len(task)), _WIDEST_TASK)
        return task.ljust(self._widest)


def _glyph_of(level: int) -> tuple[str, str]:
    if level >= logging.ERROR:
        return "✕", _RED
    return ("▲", _YELLOW) if level >= logging.WARNING else ("·", _DULL)


def _about_job(told: Told) -> str:
    fields = told.fields
    match told.event:
        case "started":
            return f"{_attempt(fields)}{_queue(fields)}  waited {_shown(fields.get('waited'))}  {fields['job']}"
        case "succeeded":
            return f"{_shown(fields.get('ran'))}{_queue(fields)}  {fields['job']}"
        case "failed" | "dead":
            end = ", now dead" if told.event == "dead" else ""
            after = f" after {_shown(fields['ran'])}" if fields.get("ran") is not None else ""
            return f"{_attempt(fields)} failed{after}{end}"
        case _:
            return _about_anything(told, {k: v for k, v in fields.items() if k != "task"})


def _about_worker(told: Told) -> str:
    known = _WORKER_LINES.get(told.event)
    try:
        return known.format_map(_Shown(told.fields)) if known else _about_anything(told, told.fields)
    except KeyError:
        return _about_anything(told, told.fields)


def _about_anything(told: Told, fields: Mapping[str, Any]) -> str:
    """The event in words, its message or reason, the other fields, and the job's id as the last word."""
    why = next((str(fields[name]) for name in ("message", "reason") if fields.get(name)), "")
    why = visible(_within(why, VALUE_LIMIT))
    parts = [why if told.event == MESSAGE else f"{_words(told.event)}: {why}" if why else _words(told.event)]
    parts += [
        f"{_words(name)} {_shown(value)}"
        for name, value in fields.items()
        if value not in (None, "") and name not in _TOLD_ELSEWHERE
    ]
    job = fields.get("job")
    return "  ".join(parts if job is None else [*parts, str(job)])


_TOLD_ELSEWHERE = frozenset({"message", "reason", "traceback", "job"})


def _details(told: Told) -> list[str]:
    fields = told.fields
    if told.event in ("failed", "dead") and "task" in fields:
        return [*_error(fields), "   ".join(_next_steps(told))]
    if "traceback" in fields:
        return visible_lines(_within(fields["traceback"], VALUE_LIMIT))
    return []


def _error(fields: Mapping[str, Any]) -> list[str]:
    text = f"{fields.get('error')}: {fields.get('message', '')}".removesuffix(": ")
    if text.isprintable():
        return [_within(text, VALUE_LIMIT)]
    lines = visible_lines(_within(text, VALUE_LIMIT))
    if len(lines) > MESSAGE_LINES:
        lines[MESSAGE_LINES:] = [f"… {len(lines) - MESSAGE_LINES} more lines"]
    return lines


def _next_steps(told: Told) -> list[str]:
    fields = told.fields
    steps = [f"at {visible(str(fields['at']))}"] if fields.get("at") else []
    if fields.get("hint"):
        steps.append(visible(str(fields["hint"])))
    if told.event == "dead":
        return [*steps, f"holdfast retry {fields['job']}"]
    if fields.get("retry_in") is not None:
        steps.append(f"retries in {_shown(fields['retry_in'])}")
    return [*steps, str(fields["job"])]


def _attempt(fields: Mapping[str, Any]) -> str:
    return "attempt " + str(fields.get("attempt", "?")).replace("/", " of ")


def _queue(fields: Mapping[str, Any]) -> str:
    return f"  queue {fields['queue']}" if "queue" in fields else ""  # a Pool's job has none


def _words(name: str) -> str:
    return name.replace("-", " ").replace("_", " ")


def _shown(value: object) -> str:
    return short(round(value * SECOND)) if isinstance(value, float) else visible(_within(str(value), VALUE_LIMIT))


class _Shown(dict[str, Any]):
    def __getitem__(self, name: str) -> str:
        return _shown(super().__getitem__(name))


class Lines(logging.StreamHandler[Any]):
    """The handler that `configure` installs: one write for each event.

    With `waits=False` a line that would have to wait for its reader, as in a full pipe, is left out.
    """

    def __init__(self, stream: Any, *, waits: bool = True) -> None:
        super().__init__(stream)
        self._waits = waits

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if self._waits or takes(self.stream):
                self.stream.write(f"{self.format(record)}\n")  # stderr flushes at a line's end by itself
        except Exception:  # noqa: BLE001  # whatever a log line meets, the job must not
            self.handleError(record)


def takes(stream: Any) -> bool:
    """Whether a line can be written to `stream` now, without waiting for somebody to read from it."""
    with suppress(OSError, ValueError):  # no descriptor behind it: it waits for nobody
        return bool(select.select([], [stream], [], 0)[1])
    return True


def configure(style: Style | None, level: str, *, waits: bool = True) -> None:
    """Sends our log lines to stderr, and nowhere else; what other handlers do with other loggers stays.

    Without a style: for people on a terminal, else key=value. Colours only on a terminal without NO_COLOR.
    Without `waits` a line that nobody reads is left out rather than waited for. ConfigError for an unknown level.
    A second call replaces the first.
    """
    if level not in LEVELS:
        raise ConfigError(f"log level {level!r}: there are {', '.join(LEVELS)}")
    terminal = sys.stderr.isatty()
    handler = Lines(sys.stderr, waits=waits)
    human = style == "human" or (style is None and terminal)
    handler.setFormatter(Human(colour=terminal and not os.environ.get("NO_COLOR")) if human else KeyValue())
    for former in [h for h in ours.handlers if isinstance(h, Lines)]:
        ours.removeHandler(former)
    ours.addHandler(handler)
    ours.setLevel(level.upper())
    ours.propagate = False


def adopt_root(level: str) -> None:
    """In a process of ours alone: the app's own loggers speak the same way, unless it has seen to that itself."""
    root = logging.getLogger()
    if not root.handlers:
        for handler in ours.handlers:
            root.addHandler(handler)
        root.setLevel(level.upper())


_LIBRARIES = (os.path.dirname(os.__file__) + os.sep, __file__.removesuffix("observe/logging.py"), "<")  # noqa: PTH120
_FRAME = re.compile(r'^  File "(.+)", line (\d+), in (.+)$', re.MULTILINE)


def place(traceback: str) -> str | None:
    """Where an error came from: the innermost frame that is not a library's, as `app/mail.py:88 in send_invoice`."""
    frames = [frame for frame in _FRAME.findall(traceback) if not _library(frame[0])]
    if not frames:
        return None
    path, line, function = frames[-1]
    with suppress(OSError):  # the working directory may have been deleted, as by a deploy
        path = path.removeprefix(os.getcwd() + os.sep)  # noqa: PTH109  # a text, not a path
    return f"{path}:{line} in {function}"


def _library(path: str) -> bool:
    return path.startswith(_LIBRARIES) or "site-packages" in path or "dist-packages" in path
