"""Payloads: a call or a result to JSON and back, by the task's type hints (the only file that knows msgspec).

The rule: the handler gets a value equal to what was passed, or the call is refused. A hint says how it is read
back: a `datetime` parameter gets its datetime. Without one, and under `Any`, `object`, a bare `list`, `dict`,
JSON alone decides: what it would change (a datetime, a tuple, a dict key that is no str) is refused.
Two freedoms: a hinted parameter also takes the JSON form of its type (ISO text for a datetime, a dict for a
dataclass), and `list[X]`, `Sequence[X]` also take a tuple or a set of X.
Pydantic's types, where a hint names one, are read and written by pydantic (models.py).
A result exists only after the work is done, so only what JSON cannot hold is refused there.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from itertools import chain, repeat
from types import GenericAlias, SimpleNamespace
from typing import Any, NamedTuple, TypeAlias

import msgspec
from msgspec import Raw
from msgspec.inspect import AnyType, CustomType, Field, Type, type_info
from msgspec.json import Decoder, Encoder

from holdfast import models
from holdfast.errors import ArgumentsChanged, ConfigError, PayloadError

PAYLOAD_LIMIT = 1024 * 1024  # bytes of JSON, payload and result each
NOTHING = b"null"  # the result of most handlers


def to_json(value: object) -> bytes:
    """Compact JSON of plain values, dataclasses, UUIDs, datetimes; TypeError or ValueError for others."""
    return _ENCODER.encode(value)


def from_json(data: bytes | str) -> Any:
    """The plain values that `data` spells; PayloadError (a ValueError) if it is not JSON."""
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise PayloadError(f"this is not JSON: {error}") from error


class Signature:
    """One task's parameters and return value: encodes calls and results, decodes them by the type hints.

    Hints are read at the first use, so that they may name what is defined further down: `encode`, `decode`,
    `decode_result` raise ConfigError, naming the parameter, if one is unknown or cannot be stored as JSON.
    """

    def __init__(self, fn: Callable[..., object]) -> None:
        self._fn = fn
        self._name = _name_of(fn)

    def encode(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> bytes:
        """The call as JSON, `{"args":[...],"kwargs":{...}}`: only what was passed; an empty part is left out.

        TypeError if the call does not fit the signature. PayloadError, naming the path to the bad value, if
        it does not fit its hint, cannot be JSON or would come back changed; also above PAYLOAD_LIMIT.
        """
        kwargs = dict(kwargs)
        self._bind(args, kwargs)
        payload = self._payload(_SPARSE, args, kwargs)
        if len(payload) > PAYLOAD_LIMIT:
            raise PayloadError(f"{self._name}(…): the arguments are {_too_large(payload)}; pass {_REFERENCE}")
        if _has_long_number(payload):
            self._refuse_unstorable(args, kwargs)
        try:
            self._refuse_changed(payload, args, kwargs)
        except PayloadError:
            whole = self._payload(_ENCODER, args, kwargs)
            if whole == payload:
                raise
            self._refuse_changed(whole, args, kwargs)  # a model's default may be what tells it from others in a union
            return whole
        return payload

    def whole(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> bytes:
        """The call as JSON with every field of its models, given or not: equal calls are written alike."""
        return self._payload(_ENCODER, args, dict(kwargs))

    def decode(self, payload: bytes) -> tuple[tuple[object, ...], dict[str, object]]:
        """Positional and keyword arguments as they were passed, in the types of the hints.

        ArgumentsChanged if they do not fit the function as it is now; PayloadError if `payload` is no call.
        """
        args = self._in_place(payload)
        if args is not None:
            return args, {}
        call = self._read(payload)
        try:
            self._bind(call.args, call.kwargs)
            return self._typed(call)
        except (TypeError, _MisfitError) as misfit:
            raise ArgumentsChanged(
                f"the stored arguments do not fit {self._name}{self._signature} any more: {misfit}"
            ) from misfit.__cause__

    def encode_result(self, value: object) -> bytes:
        """The return value as JSON; PayloadError if it cannot be JSON or is larger than PAYLOAD_LIMIT."""
        if value is None:
            return NOTHING
        return encode_value(value, "result", f"result of {self._name}", PAYLOAD_LIMIT, "return")

    def decode_result(self, data: bytes) -> Any:
        """The return value by its annotation, plain JSON without one; PayloadError if it does not fit."""
        hint = self._hints.result
        try:
            return hint.decode(data)
        except Exception as error:
            fault = _located(error, "result")
            raise PayloadError(f"result of {self._name}: {fault}; it is annotated {hint.spelt}") from error

    @functools.cached_property
    def _signature(self) -> inspect.Signature:
        try:
            return inspect.signature(self._fn)
        except (NameError, TypeError, ValueError) as error:
            raise ConfigError(f"{self._name}: its signature cannot be read: {error}") from error

    @functools.cached_property
    def _hints(self) -> _Hints:
        return _read_hints(self._fn, self._name, self._signature)

    @functools.cached_property
    def _keywords(self) -> tuple[_Keywords, ...]:
        return _keywords_by_place(self._signature)

    def _bind(self, args: Sequence[object], kwargs: Mapping[str, object]) -> None:
        if len(args) < len(self._keywords):
            required, allowed = self._keywords[len(args)]
            if (required <= kwargs.keys() <= allowed) if kwargs else not required:
                return
        try:
            self._signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self._name}() {error}") from None

    def _payload(self, encoder: Encoder, args: tuple[object, ...], kwargs: Mapping[str, object]) -> bytes:
        call: dict[str, object] = {}
        if args:
            call["args"] = args
        if kwargs:
            call["kwargs"] = kwargs
        try:
            return encoder.encode(call)
        except Exception as error:
            self._refuse_unstorable(args, kwargs)
            raise PayloadError(f"{self._name}(…): {error}") from error

    def _read(self, payload: bytes) -> _Call:
        try:
            return _CALL.decode(payload)
        except (msgspec.DecodeError, RecursionError) as error:
            raise PayloadError(f"{self._name}: the stored arguments cannot be read: {error}") from error

    @functools.cached_property
    def _whole(self) -> Callable[[bytes], Any] | None:
        """Reads a call that passes every parameter by its place; None where there are others, or none at all."""
        if not self._hints.positional or not self._keywords or self._keywords[-1].required:
            return None
        args = GenericAlias(tuple, tuple(hint.wanted for hint in self._hints.positional))
        return Decoder(msgspec.defstruct("_", [("args", args)], forbid_unknown_fields=True), dec_hook=_model).decode

    def _in_place(self, payload: bytes) -> tuple[object, ...] | None:
        """The arguments of a call that `_whole` reads, as it does nearly all in a tenth of the time; None of any other
        and of one that does not fit: `_typed` says what is wrong.
        """
        if self._whole is None or not payload.startswith(_ARGS):
            return None
        try:
            args: tuple[object, ...] = self._whole(payload).args
        except Exception:  # noqa: BLE001  # a model's own, too
            return None
        return args

    def _typed(self, call: _Call) -> tuple[tuple[object, ...], dict[str, object]]:
        hints = self._hints
        args: list[object] = []
        kwargs: dict[str, object] = {}
        name: str | None = None
        try:
            for hint, raw in zip(hints.by_place(len(call.args)), call.args, strict=False):
                args.append(hint.decode(raw))
            for name, raw in call.kwargs.items():
                kwargs[name] = hints.named.get(name, hints.extra).decode(raw)
        except Exception as error:
            label, hint = hints.at(len(args)) if name is None else hints.of(name)
            raise _MisfitError(label, hint, _located(error, label)) from error
        return tuple(args), kwargs

    def _passed(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> Iterator[tuple[str, _Hint, object]]:
        for place, value in enumerate(args):
            yield *self._hints.at(place), value
        for name, value in kwargs.items():
            yield *self._hints.of(name), value

    def _refuse_unstorable(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> None:
        for label, _, value in self._passed(args, kwargs):
            fault = _unstorable(value, label)
            if fault:
                raise self._refusal(label, fault)

    def _refuse_changed(self, payload: bytes, args: tuple[object, ...], kwargs: Mapping[str, object]) -> None:
        try:
            in_place = self._in_place(payload)
            back_args, back_kwargs = (in_place, {}) if in_place is not None else self._typed(self._read(payload))
        except _MisfitError as misfit:
            self._refuse_unstorable(args, kwargs)
            wanted = f"; the parameter is annotated {misfit.hint.spelt}"
            raise PayloadError(f"{self._name}({misfit.label}=…): {misfit}{wanted}") from misfit.__cause__
        if _equal(args, back_args) and _equal(kwargs, back_kwargs):
            return
        self._refuse_unstorable(args, kwargs)
        back = chain(back_args, back_kwargs.values())
        for (label, hint, value), returned in zip(self._passed(args, kwargs), back, strict=True):
            fault = _loss(value, returned, label, hint)
            if fault:
                raise self._refusal(label, fault)

    def _refusal(self, label: str, fault: _Fault) -> PayloadError:
        return PayloadError(f"{self._name}({label}=…): {fault}")


def encode_value(value: object, label: str, subject: str, limit: int, verb: str) -> bytes:
    """A value that is no argument, as JSON; PayloadError if it cannot be JSON or is larger than `limit` bytes."""
    try:
        data = _ENCODER.encode(value)
    except Exception as error:
        fault = _unstorable(value, label) or _Fault(label, str(error))
        raise PayloadError(f"{subject}: {fault}") from error
    if len(data) > limit:
        raise PayloadError(f"{subject} is {_too_large(data, limit)}; {verb} {_REFERENCE}")
    if (b"null" in data and value is not None) or _has_long_number(data):
        found = _unstorable(value, label)
        if found:
            raise PayloadError(f"{subject}: {found}")
    return data


def decode_value(data: bytes, annotation: object, label: str, subject: str) -> Any:
    """What `encode_value` stored, as `annotation`; PayloadError if it does not fit, ConfigError for what is no type."""
    hint = _read_hint(subject, annotation, None)
    try:
        return hint.decode(data)
    except Exception as error:
        raise PayloadError(f"{subject}: {_located(error, label)}; it was asked for as {hint.spelt}") from error


class _Call(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    args: list[Raw] = []
    kwargs: dict[str, Raw] = {}


# ---- the hints of one function


class _Hint(NamedTuple):
    spelt: str
    decode: Callable[[bytes | Raw], Any]
    free: bool  # somewhere within it anything goes
    wanted: Any = Any  # as msgspec takes it
    exact: bool = False  # pydantic reads a part of it, by rules of its own: whatever comes back unequal is refused


class _Hints(NamedTuple):
    positional: tuple[_Hint, ...]
    labels: tuple[str, ...]  # of `positional`, then of *args
    rest: _Hint  # of *args
    named: dict[str, _Hint]
    extra: _Hint  # of **kwargs
    result: _Hint

    def by_place(self, number: int) -> Iterable[_Hint]:
        """Those of so many positional arguments, or more."""
        return self.positional if number <= len(self.positional) else chain(self.positional, repeat(self.rest))

    def at(self, place: int) -> tuple[str, _Hint]:
        if place < len(self.positional):
            return self.labels[place], self.positional[place]
        return f"{self.labels[-1]}[{place - len(self.positional)}]", self.rest

    def of(self, name: str) -> tuple[str, _Hint]:
        return name, self.named.get(name, self.extra)


_PLAIN = _Hint("Any", Decoder(Any).decode, free=True)
_ANYTHING: tuple[object, ...] = (Any, object, typing.NoReturn, typing.Never)


def _read_hints(fn: Callable[..., object], task: str, signature: inspect.Signature) -> _Hints:
    scope = _scope_of(fn)
    parameters = signature.parameters.values()
    hints = {p.name: _read_hint(f"{task}: parameter {p.name!r}", p.annotation, scope) for p in parameters}
    in_place = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    rest = [p.name for p in parameters if p.kind is p.VAR_POSITIONAL]
    extra = [p.name for p in parameters if p.kind is p.VAR_KEYWORD]
    named = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    return _Hints(
        positional=tuple(hints[name] for name in in_place),
        labels=(*in_place, *rest),
        rest=hints[rest[0]] if rest else _PLAIN,
        named={name: hints[name] for name in named},
        extra=hints[extra[0]] if extra else _PLAIN,
        result=_read_hint(f"{task}: the return value", signature.return_annotation, scope),
    )


def _read_hint(subject: str, annotation: object, scope: object) -> _Hint:
    if annotation is inspect.Signature.empty:
        return _PLAIN
    hint = _resolve(subject, annotation, scope)
    if hint in _ANYTHING or isinstance(hint, (typing.ParamSpecArgs, typing.ParamSpecKwargs)):
        return _PLAIN
    spelt = inspect.formatannotation(hint)
    try:
        wanted = models.portable(hint)
        decode = Decoder(wanted, dec_hook=_model).decode
    except Exception as error:
        raise ConfigError(f"{subject} is annotated {spelt}, which cannot be stored as JSON: {error}") from error
    kinds = _kinds(wanted)
    custom = [kind.cls for kind in kinds if isinstance(kind, CustomType) and kind.cls is not object]
    foreign = [kind for kind in custom if not models.is_own(kind)]
    if foreign:
        within = f"{_type_name(foreign[0])} cannot be stored as JSON; "
        raise ConfigError(f"{subject} is annotated {spelt}: {within}use {_STORABLE}, or leave the annotation out")
    free = any(isinstance(kind, AnyType) or (isinstance(kind, CustomType) and kind.cls is object) for kind in kinds)
    return _Hint(spelt, decode, free, wanted, exact=bool(custom))


def _model(kind: type, value: object) -> object:
    if models.is_own(kind):
        return models.read(kind, value)
    return value


def _resolve(subject: str, annotation: object, scope: object) -> object:
    holder = SimpleNamespace(__annotations__={"it": annotation}, __type_params__=getattr(scope, "__type_params__", ()))
    names = getattr(scope, "__globals__", {})
    try:
        return typing.get_type_hints(holder, globalns=names, include_extras=True)["it"]
    except Exception as error:
        spelt = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
        raise ConfigError(
            f"{subject} is annotated {spelt}, which cannot be resolved: {error}; "
            "use a name that its module defines or imports at run time"
        ) from error


def _kinds(hint: object) -> list[Type]:
    """Every type within `hint`, fields of classes included."""
    try:
        todo: list[Type | Field] = [type_info(hint)]
    except TypeError:  # msgspec before 0.22 trips over Literal[1, "a"], which its decoder takes
        return [AnyType()]
    seen: dict[int, Type | Field] = {}
    while todo:
        node = todo.pop()
        if id(node) in seen:
            continue
        seen[id(node)] = node
        for name in node.__struct_fields__:
            value: Any = getattr(node, name)
            below: list[Any] = list(value) if issubclass(type(value), tuple) else [value]
            todo += [part for part in below if isinstance(part, (Type, Field))]
    return [node for node in seen.values() if isinstance(node, Type)]


def _scope_of(fn: Callable[..., object]) -> object:
    scope: Any = fn
    while isinstance(scope, functools.partial) or hasattr(scope, "__wrapped__"):
        scope = scope.func if isinstance(scope, functools.partial) else scope.__wrapped__
    return scope if hasattr(scope, "__globals__") else type(scope).__call__


def _name_of(fn: Callable[..., object]) -> str:
    while isinstance(fn, functools.partial):
        fn = fn.func
    return getattr(fn, "__name__", type(fn).__name__)


class _Keywords(NamedTuple):
    required: frozenset[str]
    allowed: frozenset[str]


def _keywords_by_place(signature: inspect.Signature) -> tuple[_Keywords, ...]:
    """The keywords that may follow 0, 1, 2... positional arguments; none for *args or **kwargs.

    Exact, and a tenth of the cost of `inspect.Signature.bind`.
    """
    parameters = list(signature.parameters.values())
    if any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters):
        return ()
    places = sum(p.kind is not p.KEYWORD_ONLY for p in parameters)
    return tuple(_keywords_of(parameters[place:]) for place in range(places + 1))


def _keywords_of(left: list[inspect.Parameter]) -> _Keywords:
    return _Keywords(
        required=frozenset(p.name for p in left if p.default is p.empty),
        allowed=frozenset(p.name for p in left if p.kind is not p.POSITIONAL_ONLY),
    )


# ---- what is wrong, and where


class _Fault(NamedTuple):
    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class _MisfitError(Exception):
    def __init__(self, label: str, hint: _Hint, fault: _Fault) -> None:
        super().__init__(str(fault))
        self.label = label
        self.hint = hint


_Path: TypeAlias = tuple["_Path | None", str, object]  # (above, how to spell this step, the step)
_Parts: TypeAlias = list[tuple[str, object, object]]  # (how to spell the step, the step, what is there)

_STORABLE = "plain values (str, int, float, list, dict), a dataclass or a msgspec.Struct"
_REFERENCE = "a reference to the data (a file's path, a key) instead"


def _unstorable(value: object, label: str) -> _Fault | None:
    """The first thing within `value` that JSON cannot hold."""
    above: set[int] = set()
    todo: list[tuple[Any, _Path, bool]] = [(value, (None, "{0}", label), False)]
    while todo:
        item, path, done = todo.pop()
        if done:
            above.discard(id(item))
            continue
        parts = _parts(item)
        if id(item) in above:
            reason: str | None = "it contains itself"
        elif issubclass(type(item), dict):
            reason = _why_no_keys(item)
        else:
            reason = _why_no_json(item) if parts is None else None
        if reason:
            return _Fault(_spelt_path(path), reason)
        if parts:
            above.add(id(item))
            todo.append((item, path, True))
            todo += [(part, (path, spelling, step), False) for spelling, step, part in reversed(parts)]
    error = _error_of(value)
    if isinstance(error, RecursionError):
        return _Fault(label, "it is nested too deeply to be stored; pass flatter data")
    return _Fault(label, f"{error}") if error else None


def _parts(value: Any) -> _Parts | None:
    kind = _kind_of(value)
    if issubclass(kind, (str, int, float, Enum)):
        return None
    if issubclass(kind, dict):
        return [("[{1}]", key, part) for key, part in value.items()]
    if issubclass(kind, (list, tuple)):
        return [("[{0}]", place, part) for place, part in enumerate(value)]
    if issubclass(kind, (set, frozenset)):
        return [("[...]", None, part) for part in value]
    names = _field_names(value)
    return None if names is None else [(".{0}", name, getattr(value, name)) for name in names]


def _field_names(value: object) -> list[str] | None:
    kind = _kind_of(value)
    names: Iterable[str]
    if issubclass(kind, msgspec.Struct):
        names = kind.__struct_fields__
    elif dataclasses.is_dataclass(kind):
        names = (field.name for field in dataclasses.fields(kind))
    elif hasattr(kind, "__attrs_attrs__"):
        names = (field.name for field in kind.__attrs_attrs__)
    else:
        return None
    return [name for name in names if hasattr(value, name)]


def _why_no_json(value: object) -> str | None:
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, float) and not math.isfinite(value):
        return f"{value!r} is no number in JSON; pass None or a str"
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return f"an int of {value.bit_length()} bits, the limit is 64; pass a str"
    error = _error_of(value)
    if error is None:
        return None
    if isinstance(error, UnicodeEncodeError):
        lone = error.object[error.start]
        return f"the str holds the lone surrogate {lone!r}, which UTF-8 cannot; replace it or pass bytes"
    if isinstance(error, models.ModelMisfit):
        return str(error)
    return f"<object of type {_type_of(value)}> cannot be stored as JSON; pass {_STORABLE}, or a key"


def _why_no_keys(keys: Iterable[object]) -> str | None:
    for key in keys:
        if type(key) is str and key.isascii():
            continue
        reason = _why_no_json(key)
        if reason:
            return f"the dict key {_shown(key)}: {reason}"
        if _error_of({key: None}):
            return f"the dict key {_shown(key)} ({_type_of(key)}) cannot be a JSON key; use a str"
    return None


def _error_of(value: object) -> Exception | None:
    try:
        _ENCODER.encode(value)
    except Exception as error:  # noqa: BLE001  # a value's own code runs here; what it raised is the answer
        return error
    return None


def _loss(given: object, back: object, label: str, hint: _Hint) -> _Fault | None:
    """The first place where `back`, made of `given` by JSON and the hint, differs from what was passed.

    `hint.free`: anything goes somewhere in it, so that a list for a tuple is not what the hint asked for.
    """
    todo: list[tuple[object, object, _Path, bool]] = [(given, back, (None, "{0}", label), False)]
    while todo:
        one, other, path, in_model = todo.pop()
        if _equal(one, other):
            continue
        same_type = type(one) is type(other)
        below_model = same_type and (in_model or models.is_model(one))
        twins = {step: twin for _, step, twin in _pieces(other)}
        below: list[tuple[object, object, _Path, bool]] = [
            (part, twins[step], (path, spelling, step), below_model)
            for spelling, step, part in reversed(_pieces(one))
            if step in twins
        ]
        reason = _why_changed(one, other, free=hint.free)
        if not reason and hint.exact and (same_type or in_model) and all(_equal(*pair[:2]) for pair in below):
            reason = _why_unequal(one, other)
        if reason:
            return _Fault(_spelt_path(path), reason)
        todo += below
    return None


def _pieces(value: object) -> _Parts:
    fields = models.fields_of(value)
    if fields is None:
        return _parts(value) or []
    return [(".{0}", name, part) for name, part in fields.items()]


def _why_unequal(given: object, back: object) -> str:
    if models.is_model(given):
        return "it would not come back equal; a pydantic model is stored without private attributes"
    if _shown(given) == _shown(back):
        return f"{_shown(given)} would not come back equal"
    return f"{_shown(given)} would come back as {_shown(back)}"


def _why_changed(given: Any, back: Any, *, free: bool) -> str | None:
    if type(given) is int and type(back) is float:
        return f"{given} would come back as {back!r}; annotate it as int, or pass a float"
    if _loses_its_type(given, back, free=free):
        was, would_be = _type_of(given), _type_of(back)
        return f"{was} would come back as {would_be}; annotate it as {was}, or pass {would_be}"
    if all(isinstance(value, dict) for value in (given, back)):
        return _why_keys_changed(given, back)
    if free and isinstance(given, AbstractSet) and isinstance(back, AbstractSet):
        return "its elements would come back as other types; annotate them"
    if isinstance(given, (datetime, time)) and _has_odd_offset(given):
        return "its UTC offset has seconds, which ISO text cannot hold; pass the time in UTC"
    return None


def _why_keys_changed(given: Any, back: Any) -> str | None:
    for key in given:
        if key not in back and not isinstance(key, str):
            return f"the dict key {_shown(key)} would come back as a str; annotate the keys, or use str"
    return "two of its keys are the same in JSON; use str for all" if len(back) < len(given) else None


def _loses_its_type(given: object, back: object, *, free: bool) -> bool:
    kind = type(back)
    if _field_names(given) is not None or models.is_model(given):
        return kind is not type(given)
    if kind in (str, int, float, bool) or (free and kind in (list, dict)):
        return not isinstance(given, kind)
    return False


def _has_odd_offset(moment: datetime | time) -> bool:
    offset = moment.utcoffset()
    return offset is not None and bool(offset % timedelta(minutes=1))


def _equal(one: object, other: object) -> bool:
    try:
        return bool(one == other)
    except Exception:  # noqa: BLE001  # Decimal("sNaN") raises, and so may anyone's __eq__
        return False


def _located(error: Exception, label: str) -> _Fault:
    if not isinstance(error, msgspec.ValidationError):
        return _Fault(label, f"{type(error).__name__}: {error}")
    below = error.__cause__.path if isinstance(error.__cause__, models.ModelMisfit) else ""
    reason, _, where = str(error).rpartition(" - at ")
    if "`$" not in where:
        return _Fault(label + below, str(error))
    return _Fault(where.replace("`", "").replace("$", label, 1) + below, reason)


def _spelt_path(path: _Path) -> str:
    steps: list[str] = []
    above: _Path | None = path
    while above:
        above, spelling, step = above
        steps.append(spelling.format(step, _shown(step)))
    return _short("".join(reversed(steps)), limit=200)


def _shown(value: object) -> str:
    try:
        return _short(repr(value))
    except Exception:  # noqa: BLE001  # an int of more than 4,300 digits has no repr, and a class's own may fail
        return f"<{_type_of(value)}>"


def _short(text: str, limit: int = 60) -> str:
    return text if len(text) <= limit else f"{text[: limit // 2]}…{text[-limit // 2 :]}"


def _kind_of(value: object) -> type[Any]:
    return type(value)


def _type_of(value: object) -> str:
    return _type_name(type(value))


def _type_name(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _too_large(data: bytes, limit: int = PAYLOAD_LIMIT) -> str:
    return f"{len(data):,} bytes of JSON, the limit is {limit:,}"


_ZEROS = bytes.maketrans(b"123456789", b"000000000")
_LONG_NUMBER = b"0" * 19  # 2**63 has 19 digits


def _has_long_number(data: bytes) -> bool:
    return _LONG_NUMBER in data.translate(_ZEROS)


# ---- types that msgspec does not know


def _plain(value: object) -> object:
    """A subclass of a plain type (Django's SafeString, numpy.float64, a fake datetime) goes as that type."""
    match value:
        case str():
            return str.__str__(value)
        case int():
            return int.__int__(value)
        case float():
            return float.__float__(value)
        case Decimal():
            return Decimal.__str__(value)
        case datetime():
            return datetime.isoformat(value)
        case date():
            return date.isoformat(value)
        case _:
            raise TypeError(f"{_type_of(value)} cannot be stored as JSON")


def _plain_or_model(value: object) -> object:
    written = models.write(value, sparse=False)
    return _plain(value) if written is None else Raw(written)


def _plain_or_sparse(value: object) -> object:
    written = models.write(value, sparse=True)
    return _plain(value) if written is None else Raw(written)


_ENCODER = Encoder(enc_hook=_plain_or_model)
_SPARSE = Encoder(enc_hook=_plain_or_sparse)
_CALL = Decoder(_Call)
_ARGS = b'{"args":['
