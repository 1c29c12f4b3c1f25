"""Unique keys as producers declare them: which key a job has, how long it is held, and what a clash means."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Literal, NamedTuple, cast, get_args

from holdfast.clock import Duration, span
from holdfast.errors import ConfigError
from holdfast.job import KEY_LIMIT, UniqueKey

Until = Literal["started", "finished"]
OnClash = Literal["return", "raise", "replace"]


class Call(NamedTuple):
    """A call of a task that is enqueued: the arguments as they were passed, and as they are stored."""

    signature: inspect.Signature
    args: tuple[object, ...]
    kwargs: dict[str, object]
    payload: bytes

    def canonical(self) -> bytes:
        """The stored arguments by the names of their parameters, in one order however they were passed."""
        stored = json.loads(self.payload)
        bound = self.signature.bind(*stored.get("args", ()), **stored.get("kwargs", {}))
        return json.dumps(bound.arguments, sort_keys=True, separators=(",", ":")).encode()


@dataclass(frozen=True)
class Unique:
    """At most one unfinished job of a queue has the same key: `@jobs.task(unique=Unique())`.

    `key`: a text, or a function of the task's own arguments that returns one; None: by task and arguments (as JSON and
    by name, however they are passed; not for sets, whose order differs from process to process). It is held
    until the job is finished and `hold` has passed (it needs until="finished"), or until="started": until it is
    claimed. `on_clash`: what an enqueue does while another job holds it. "return": gives that job's handle, with
    created=False; "raise": UniqueConflict; "replace": gives that job these arguments and this due time, if it is of
    the same task and was not started yet, else UniqueConflict. ConfigError naming the parameter that makes no sense.
    """

    key: str | Callable[..., str] | None = None
    until: Until = "finished"
    hold: Duration = 0
    on_clash: OnClash = "return"

    def __post_init__(self) -> None:
        if isinstance(self.key, str):
            _check_key(self.key, "key")
        elif self.key is not None and (not callable(self.key) or inspect.iscoroutinefunction(self.key)):
            raise ConfigError(f"key={self.key!r}: a text, a plain function of the task's arguments, or None")
        _one_of("until", self.until, get_args(Until))
        _one_of("on_clash", self.on_clash, get_args(OnClash))
        if span(self.hold, "hold") and self.until == "started":
            raise ConfigError(f"hold={self.hold!r}: a hold begins when the job is finished; it needs until='finished'")

    def of(self, task: str, call: Call) -> UniqueKey:
        """The key of a job. ConfigError where the key function fails or gives no key."""
        return UniqueKey(self._text(task, call), self.until, span(self.hold, "hold"), self.on_clash)

    def _text(self, task: str, call: Call) -> str:
        if self.key is None:
            return f"{task}:{blake2b(call.canonical(), digest_size=16).hexdigest()}"
        if isinstance(self.key, str):
            return self.key
        by = f"{task}: the key function {_name(self.key)}"
        try:
            key: object = self.key(*call.args, **call.kwargs)
        except Exception as error:
            raise ConfigError(f"{by} raised {type(error).__name__}: {error}") from error
        if inspect.iscoroutine(key):
            key.close()
        if not isinstance(key, str):
            raise ConfigError(f"{by} returned {key!r}, which is no text")
        _check_key(key, f"{by} returned key")
        return key


def as_unique(value: object, parameter: str) -> Unique | None:
    """What `unique=` says; ConfigError if it is neither a key, a function, a Unique nor None."""
    if value is None or isinstance(value, Unique):
        return value
    if isinstance(value, str):
        _check_key(value, parameter)
        return Unique(value)
    if callable(value) and not isinstance(value, type):
        return Unique(cast("Callable[..., str]", value))
    raise ConfigError(f"{parameter}={value!r}: a text, a function of the task's arguments, a Unique(...), or None")


def not_one_for_all(value: object, parameter: str) -> Unique | None:
    """As `as_unique`, for a whole task."""
    if isinstance(value, str):
        raise ConfigError(
            f"{parameter}={value!r}: one key for all jobs of the task, so that there is only one at a time; give a "
            f"function of the arguments, Unique() for one job per arguments, or Unique({value!r}) if it is meant"
        )
    return as_unique(value, parameter)


def _check_key(key: str, what: str) -> None:
    shown = key if len(key) <= KEY_LIMIT else f"{key[:20]}… ({len(key)} characters)"
    if not 1 <= len(key) <= KEY_LIMIT:
        raise ConfigError(f"{what}={shown!r}: a key has 1 to {KEY_LIMIT} characters; use a digest of what is longer")
    try:
        key.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{what}={key!r}: half a surrogate pair is no text") from None
    if "\0" in key:
        raise ConfigError(f"{what}={key!r}: a key has no NUL character")


def _one_of(parameter: str, value: object, words: tuple[str, ...]) -> None:
    if value not in words:
        raise ConfigError(f"{parameter}={value!r}: {' or '.join(map(repr, words))}")


def _name(fn: Callable[..., Any]) -> str:
    return str(getattr(fn, "__qualname__", None) or repr(fn))
