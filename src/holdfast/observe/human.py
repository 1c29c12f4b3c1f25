"""How lines look to people: local time, a glyph, what happened; a failure takes several lines."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

from holdfast.clock import SECOND, short
from holdfast.observe.styles import plain
from holdfast.observe.told import LINE_LIMIT, MESSAGE, VALUE_LIMIT, Told, within, within_bytes
from holdfast.observe.visible import visible, visible_lines

MESSAGE_LINES = 12  # of one message on a terminal
WORKERS = "holdfast.worker"

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
    "signal": "{signal}: {then}; processes: {processes}",
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
        told = record.msg if isinstance(record.msg, Told) else plain(record)
        lines = [f"{self._time(record)}  {self._glyph(told, record.levelno)} {self._headline(told, record.name)}"]
        lines += [f"            {detail}" for detail in _details(told)]
        return within_bytes("\n".join(lines), LINE_LIMIT)

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
            return _about_worker(told) if logger == WORKERS else _about_anything(told, fields)
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
    why = visible(within(why, VALUE_LIMIT))
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
    if fields.get("arguments"):
        return [f"arguments {visible(str(fields['arguments']))}"]
    if told.event in ("failed", "dead") and "task" in fields:
        return [*_error(fields), "   ".join(_next_steps(told))]
    if "traceback" in fields:
        return visible_lines(within(fields["traceback"], VALUE_LIMIT))
    return []


def _error(fields: Mapping[str, Any]) -> list[str]:
    text = f"{fields.get('error')}: {fields.get('message', '')}".removesuffix(": ")
    if text.isprintable():
        return [within(text, VALUE_LIMIT)]
    lines = visible_lines(within(text, VALUE_LIMIT))
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
    return short(round(value * SECOND)) if isinstance(value, float) else visible(within(str(value), VALUE_LIMIT))


class _Shown(dict[str, Any]):
    def __getitem__(self, name: str) -> str:
        return _shown(super().__getitem__(name))
