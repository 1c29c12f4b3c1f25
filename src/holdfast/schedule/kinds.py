"""What the values of a stored schedule may be: a newer version, or somebody's hand, may have written others."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any, TypeAlias, cast, get_args

from holdfast.clock import EARLIEST, LATEST, LONGEST
from holdfast.job import cut
from holdfast.schedule.rule import EVERY_LEAST, JITTER_MOST, Missed, Overlap

Kind: TypeAlias = Callable[[Any], bool]
_WHOLE_MOST = 2**53  # what every store keeps exactly
_SHOWN_MOST = 100  # characters of a value that is wrong


def check(said: Any, kinds: Mapping[str, Kind], what: str) -> None:
    """ValueError, naming the value, unless `said` has just these fields, and each of its kind."""
    if type(said) is not dict:
        raise ValueError(f"{what} is {_shown(said)}")
    fields = cast("dict[str, Any]", said)
    if strange := sorted(fields.keys() ^ kinds.keys()):
        raise ValueError(f"{what} {'has' if strange[0] in fields else 'lacks'} {strange[0]!r}")
    for name, kind in kinds.items():
        if not kind(fields[name]):
            raise ValueError(f"{what}.{name} is {_shown(fields[name])}")


def _shown(value: object) -> str:
    return cut(repr(value), _SHOWN_MOST)


# --- kinds


def _whole(least: int, most: int) -> Kind:
    return lambda value: type(value) is int and least <= value <= most


def _text(value: Any) -> bool:
    if type(value) is not str:
        return False
    value.encode()  # a ValueError for half a surrogate pair
    return True


def _name(value: Any) -> bool:
    return _text(value) and 0 < len(value) <= 100  # as naming.named has it


def _number(value: Any) -> bool:
    return type(value) in (int, float) and isfinite(value)


def _flag(value: Any) -> bool:
    return type(value) is bool


def _word(words: Any) -> Kind:
    return lambda value: type(value) is str and value in get_args(words)


def _or_none(kind: Kind) -> Kind:
    return lambda value: value is None or kind(value)


def _texts(value: Any) -> bool:
    return _list(value) and all(map(_text, value))


def _list(value: Any) -> bool:
    return type(value) is list


def _row(*kinds: Kind) -> Kind:
    return lambda value: _list(value) and len(value) == len(kinds) and all(map(_fits, kinds, value))


def _fits(kind: Kind, value: Any) -> bool:
    return kind(value)


def _headers(value: Any) -> bool:
    if value == "":
        return True
    headers = json.loads(value) if type(value) is str else None
    return type(headers) is dict and all(type(text) is str for text in cast("dict[str, Any]", headers).values())


_count, _span, _instant = _whole(0, _WHOLE_MOST), _whole(0, LONGEST), _whole(EARLIEST, LATEST)
_until = _or_none(_row(_span, _or_none(_instant)))

DOCUMENT: Mapping[str, Kind] = {"declared": lambda _: True, "edited": lambda _: True}
DEFINITION: Mapping[str, Kind] = {"rule": lambda _: True, "job": lambda _: True, "owner": _text}
RULE: Mapping[str, Kind] = {
    "cron": _or_none(_text),
    "every": _or_none(_whole(EVERY_LEAST, LONGEST)),
    "tz": _name,
    "missed": _word(Missed),
    "overlap": _word(Overlap),
    "jitter": _whole(0, JITTER_MOST),
}
JOB: Mapping[str, Kind] = {
    "task": _name,
    "queue": _name,
    "payload": _text,
    "terms": _row(_count, _span, _span, _number, _count, _or_none(_span), _span),
    "priority": _whole(-_WHOLE_MOST, _WHOLE_MOST),
    "tags": _texts,
    "headers": _headers,
    "alone": _flag,
    "unique": _or_none(
        _row(_text, lambda v: v in ("started", "finished"), _span, lambda v: v in ("return", "raise", "replace"))
    ),
    "expires": _until,
    "deadline": _until,
}
