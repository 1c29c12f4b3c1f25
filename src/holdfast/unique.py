"""Unique keys as producers declare them: which key a job has, how long it is held, and what a clash means."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Literal, Protocol, cast, get_args

from holdfast.clock import Duration, span
from holdfast.errors import ConfigError
from holdfast.job import KEY_LIMIT, UniqueKey

Call = Callable[[inspect.BoundArguments], object]
Until = Literal["started", "finished"]
OnClash = Literal["return", "raise", "replace"]


@dataclass(frozen=True)
class Unique:
    """At most one unfinished job of a queue has the same key: `@jobs.task(unique=Unique())`.

    `key`: a text, or a function of the task's own arguments that returns one; None: by task and arguments, however they
    are passed (not for sets, whose order differs from process to process). The function gets the arguments as the
    handler will, defaults filled in: those that it names, else all of them in their order. A key is one for all tasks
    of its queue: put into its text what the job does.

    It is held until the job is finished and `hold` has passed (it needs until="finished"), or until="started": until it
    is claimed. `on_clash`: what an enqueue does while another job of the task holds it. "return": gives that job's
    handle, with created=False; "raise": UniqueConflict; "replace": gives that job these arguments and this due time, if
    it was not started yet, else UniqueConflict. A job of another task that holds it is always a UniqueConflict.

    ConfigError naming the parameter that makes no sense.
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


class Stored(Protocol):
    """How calls are stored, as codec.Signature knows."""

    def decode(self, payload: bytes) -> tuple[tuple[object, ...], dict[str, object]]: ...
    def whole(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> bytes: ...


class Keying:
    """How the jobs of one task get their keys; made once, so that what can never work is told there."""

    def __init__(self, unique: Unique, task: str, fn: Callable[..., Any]) -> None:
        """ConfigError if `unique` has a function that cannot take the task's arguments."""
        self._unique = unique
        self._task = task
        self._signature = inspect.signature(fn)
        self._call = _call(unique.key, task, self._signature) if callable(unique.key) else None

    def of(self, payload: bytes, signature: Stored) -> UniqueKey:
        """The key of a job with these stored arguments. ConfigError where the key function fails or gives no key."""
        its = self._unique
        return UniqueKey(self._text(payload, signature), its.until, span(its.hold, "hold"), its.on_clash)

    def _text(self, payload: bytes, signature: Stored) -> str:
        if isinstance(self._unique.key, str):
            return self._unique.key
        if self._call is None:
            return f"{self._task}:{blake2b(self._canonical(payload, signature), digest_size=16).hexdigest()}"
        return self._said(self._call, payload, signature)

    def _said(self, call: Call, payload: bytes, signature: Stored) -> str:
        by = f"{self._task}: the key function {_name(self._unique.key)}"
        bound = self._bound(signature.decode(payload))
        bound.apply_defaults()
        try:
            text: object = call(bound)
        except Exception as error:
            raise ConfigError(f"{by} raised {type(error).__name__}: {error}") from error
        if inspect.iscoroutine(text):
            text.close()
        if not isinstance(text, str):
            raise ConfigError(f"{by} returned {text!r}, which is no text")
        _check_key(text, f"{by} returned key")
        return text

    def _canonical(self, payload: bytes, signature: Stored) -> bytes:
        """The arguments by the names of their parameters, whole and in one order, however they were passed; without
        those that are their parameter's default, so that a new parameter leaves the keys of stored jobs as they are.
        """
        bound = self._bound(signature.decode(payload))
        stored = json.loads(signature.whole(bound.args, bound.kwargs))
        written = self._bound((stored.get("args", ()), stored.get("kwargs", {}))).arguments
        given = {name: written[name] for name, value in bound.arguments.items() if not self._is_default(name, value)}
        return json.dumps(given, sort_keys=True, separators=(",", ":")).encode()

    def _is_default(self, name: str, value: object) -> bool:
        default = self._signature.parameters[name].default
        try:
            return type(value) is type(default) and bool(value == default)
        except Exception:  # noqa: BLE001  # such as arrays, which have no one answer
            return False

    def _bound(self, call: tuple[Sequence[object], Mapping[str, object]]) -> inspect.BoundArguments:
        return self._signature.bind(*call[0], **call[1])


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


def _call(key: Callable[..., str], task: str, signature: inspect.Signature) -> Call:
    """How the function is called: with what it names of the task's arguments, else with all of them in their order.

    ConfigError if neither works.
    """
    try:
        takes = inspect.signature(key)
    except (TypeError, ValueError):  # some that are written in C
        return _in_order(key)
    kinds = {parameter.kind for parameter in takes.parameters.values()}
    fixed = [p for p in signature.parameters.values() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    names = [p.name for p in fixed]
    all_of_them = inspect.Parameter.VAR_KEYWORD in kinds
    wanted = names if all_of_them else [name for name in names if name in takes.parameters]
    if wanted and inspect.Parameter.VAR_POSITIONAL not in kinds and _fits(takes, (), wanted):
        return _by_name(key, None if all_of_them else wanted)
    ordered = [p.name for p in fixed if p.kind is not p.KEYWORD_ONLY]
    if _fits(takes, ordered, [p.name for p in fixed if p.kind is p.KEYWORD_ONLY]):
        return _in_order(key)
    raise ConfigError(
        f"unique={_name(key)}{takes}: it gets the arguments of {task}{signature}, those that it names or else all of "
        "them in their order, and it can be called with neither"
    )


def _in_order(key: Callable[..., str]) -> Call:
    return lambda bound: key(*bound.args, **bound.kwargs)


def _by_name(key: Callable[..., str], names: Sequence[str] | None) -> Call:
    if names is None:
        return lambda bound: key(**_named(bound))
    return lambda bound: key(**{name: bound.arguments[name] for name in names})


def _fits(takes: inspect.Signature, ordered: Sequence[str], named: Sequence[str]) -> bool:
    try:
        takes.bind(*ordered, **dict.fromkeys(named))
    except TypeError:
        return False
    return True


def _named(bound: inspect.BoundArguments) -> dict[str, Any]:
    """All arguments by name, those of `**extra` among them."""
    named = dict(bound.arguments)
    for parameter in bound.signature.parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            named.update(named.pop(parameter.name))
    return named


def _name(fn: object) -> str:
    return str(getattr(fn, "__qualname__", None) or repr(fn))
