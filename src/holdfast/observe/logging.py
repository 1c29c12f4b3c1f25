"""Log lines: each is an event with fields, shown for people or for machines; lines about a job carry its id."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from holdfast.errors import ConfigError
from holdfast.job import Claim
from holdfast.observe.told import Told

if TYPE_CHECKING:
    from holdfast.observe.lines import Lines

INFO, WARNING = logging.INFO, logging.WARNING
POOL = "(pool)"  # the queue of a Pool's job, in current_job() and QueueFull; no queue can be called so

Style: TypeAlias = Literal["human", "kv", "json"]
STYLES = ("human", "kv", "json")
LEVELS = ("debug", "info", "warning", "error")

ours = logging.getLogger("holdfast")
jobs = logging.getLogger("holdfast.job")
workers = logging.getLogger("holdfast.worker")
stores = logging.getLogger("holdfast.store")


told_by_parent = set[str]()  # events of which another process tells for the whole service; see who looks there
shown = set[str]()  # of what lines leave out unless somebody asks: "arguments"
_installed: list[Lines] = []  # by `configure`: one at most


def tell(logger: logging.Logger, level: int, event: str, /, **fields: Any) -> None:
    """Logs one event; a field that is None is left out, a float is a length of time in seconds.

    Costs one comparison when the level is off.
    """
    if logger.isEnabledFor(level):
        # Not logger.log(): finding the calling line costs a third of the whole, and says nothing here.
        record = logger.makeRecord(logger.name, level, __file__, 0, Told(event, fields), (), None)
        with suppress(Exception):  # an application's filter or handler may raise; no job shall hang on a log line
            logger.handle(record)


def tell_attempt(level: int, event: str, claim: Claim, fields: dict[str, Any]) -> None:
    """`tell` of an attempt: its task, job, queue, attempt and fence, then `fields`."""
    if jobs.isEnabledFor(level):
        tell(
            jobs,
            level,
            event,
            task=claim.task,
            job=claim.id,
            queue=claim.queue,
            attempt=f"{claim.attempt}/{claim.terms.max_attempts}",
            fence=claim.fence,
            **fields,
        )


def tell_usual(event: str, claim: Claim, name: str, seconds: float | None) -> None:
    """`tell_attempt` at INFO with one length of time: the lines that each job has, at a fraction of the cost."""
    if not jobs.isEnabledFor(INFO):
        return
    # Only ours hear of it: no record has to be made.
    alone = ours.handlers == _installed and not (ours.propagate or ours.filters or jobs.handlers or jobs.filters)
    if not (alone and _installed and seconds is not None and _installed[0].usual(event, claim, name, seconds)):
        tell_attempt(INFO, event, claim, {name: seconds})


def configure(style: Style | None, level: str, *, waits: bool = True, together: bool = False) -> None:
    """Sends our log lines to stderr, and nowhere else; what other handlers do with other loggers stays.

    Without a style: for people on a terminal, else key=value. Colours only on a terminal without NO_COLOR.
    Without `waits` a line that nobody reads is left out rather than waited for. `together`: what a turn of the loop
    tells is written together, unless that is on a terminal. ConfigError for an unknown level.
    A second call replaces the first.
    """
    from holdfast.observe.lines import Lines

    if level not in LEVELS:
        raise ConfigError(f"log level {level!r}: there are {', '.join(LEVELS)}")
    terminal = sys.stderr.isatty()
    handler = Lines(sys.stderr, waits=waits, together=together and not terminal)
    handler.setFormatter(_formatter(style or ("human" if terminal else "kv"), terminal=terminal))
    for former in [h for h in ours.handlers if isinstance(h, Lines)]:
        former.flush()
        ours.removeHandler(former)
    _installed[:] = [handler]
    ours.addHandler(handler)
    ours.setLevel(level.upper())
    ours.propagate = False


def _formatter(style: Style, *, terminal: bool) -> logging.Formatter:
    from holdfast.observe.human import Human
    from holdfast.observe.styles import Json, KeyValue

    if style == "human":
        return Human(colour=terminal and not os.environ.get("NO_COLOR"))
    return Json() if style == "json" else KeyValue()


def flush() -> None:
    """Writes what waits to be written together."""
    for lines in _installed:
        lines.flush()


def adopt_root(level: str) -> None:
    """In a process of ours alone: the app's own loggers speak the same way, unless it has seen to that itself.

    Ours speak in any case: `dictConfig` silences all that it does not know, unless it is told otherwise.
    """
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger) and f"{name}.".startswith("holdfast."):
            logger.disabled = False
    root = logging.getLogger()
    if not root.handlers:
        for handler in ours.handlers:
            root.addHandler(handler)
        root.setLevel(level.upper())
