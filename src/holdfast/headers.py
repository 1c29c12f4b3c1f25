"""A job's headers: texts that travel with it, and the context variables that an app carries from enqueue to handler.

On a job they are one JSON object of texts. A carried variable is in it under its name, its value as JSON.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import Any, cast

from holdfast.errors import ConfigError, PayloadError
from holdfast.job import HEADERS_LIMIT, cut

Headers = Mapping[str, str]
OURS = "holdfast."  # how the names begin that the library keeps for itself
SCHEDULE, SCHEDULED_FOR = f"{OURS}schedule", f"{OURS}scheduled_for"  # which made the job, and for which tick
_UNSET = object()


class Carry:
    """The variables of an app that travel; those that are not set where a job is enqueued do not."""

    def __init__(self, variables: Sequence[ContextVar[Any]] = ()) -> None:
        if not isinstance(variables, (list, tuple)) or not all(isinstance(v, ContextVar) for v in variables):
            raise ConfigError(f"carry={variables!r}: a list of ContextVars, for example carry=[tenant]")
        self.variables = {variable.name: variable for variable in variables}
        if broken := [name for name in self.variables if not _writable(name)]:
            raise ConfigError(f"carry: the name {broken[0]!r} has half a surrogate pair, which is no text")
        if ours := [name for name in self.variables if name.startswith(OURS)]:
            raise ConfigError(f"carry: {_reserved(ours[0])}")
        if len(self.variables) < len(variables):
            names = [variable.name for variable in variables]
            twice = next(name for name in names if names.count(name) > 1)
            raise ConfigError(f"carry: two variables are named {twice!r}; each travels under its own name")

    def text(self, own: Headers | None) -> str:
        """The headers of a job that is enqueued here and now, `own` among them; "" for none.

        ConfigError where one of `own` has a carried variable's name. PayloadError, naming the variable, for a value
        that JSON does not give back as it was; and above HEADERS_LIMIT.
        """
        if not self.variables and not own:
            return ""
        headers = dict(own or {})
        for name, variable in self.variables.items():
            if name in headers:
                raise ConfigError(
                    f"headers: {name!r} is the name of a carried variable; set that instead, or rename it"
                )
            value = variable.get(_UNSET)
            if value is not _UNSET:  # a default is the worker's own affair
                headers[name] = _json(value, name)
        return headers_text(headers)

    def restore(self, headers: Headers) -> None:
        """Sets the variables in the current context, as they were at the enqueue; those that did not travel stay unset.

        PayloadError, naming the variable, for a header that is no JSON.
        """
        for name, variable in self.variables.items():
            if name in headers:
                variable.set(_value(headers[name], name))


def with_more(text: str, more: Headers) -> str:
    """A job's headers and those of `more` that it does not have yet; without these where all would be too much."""
    headers = {**more, **headers_of(text)}
    try:
        return _within_limit(headers) if headers else ""
    except PayloadError:
        return text


def headers_of(text: str) -> Headers:
    """A job's headers, from what is stored."""
    return cast("Headers", json.loads(text)) if text else {}


def headers_text(headers: Headers) -> str:
    """As they are stored; PayloadError above HEADERS_LIMIT."""
    return _within_limit(headers) if headers else ""


def without_ours(headers: Headers) -> Headers:
    """Those that users know of."""
    return {name: text for name, text in headers.items() if not name.startswith(OURS)}


def own_headers(value: object, parameter: str) -> Headers:
    """What users give as headers; ConfigError unless it is a dict of texts."""
    if not isinstance(value, Mapping):
        raise ConfigError(f"{parameter}={value!r}: a dict of texts, for example {{'trace': '4bf9'}}")
    headers = dict(cast("Mapping[object, object]", value))
    for name, text in headers.items():
        if not (isinstance(name, str) and name and isinstance(text, str)):
            raise ConfigError(f"{parameter}: {name!r}: {text!r}: names and values are texts, a name is not empty")
        if name.startswith(OURS):
            raise ConfigError(f"{parameter}: {_reserved(name)}")
        if not (_writable(name) and _writable(text)):
            raise ConfigError(f"{parameter}: {name!r}: {text!r} has half a surrogate pair, which is no text")
    return cast("Headers", headers)


def _reserved(name: str) -> str:
    return (
        f"{name!r}: names that begin with {OURS!r} are the library's own; such as {name.removeprefix(OURS)!r} would do"
    )


def _json(value: object, name: str) -> str:
    try:
        if not _plain(value):
            raise PayloadError(
                f"carry: the variable {name!r} is {cut(repr(value), 200)}: what travels is plain JSON, "
                "None, True, False, a finite number, a text, or a list or dict of these"
            )
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    except (RecursionError, ValueError) as error:
        if isinstance(error, PayloadError):
            raise
        raise PayloadError(f"carry: the variable {name!r} cannot be JSON: {error}") from error


def _value(text: str, name: str) -> object:
    try:
        return json.loads(text)
    except ValueError as error:
        raise PayloadError(
            f"carry: the header {name!r} of this job is {text!r}, which is no JSON ({error}): the app that enqueued it "
            "does not carry this variable; rename one of them"
        ) from error


def _plain(value: object) -> bool:
    """Whether JSON gives it back just as it is; subclasses, such as an enum, it does not."""
    if type(value) is dict:
        items = cast("dict[object, object]", value).items()
        return all(type(key) is str and _writable(key) and _plain(one) for key, one in items)
    if type(value) is list:
        return all(map(_plain, cast("list[object]", value)))
    if type(value) is float:
        return math.isfinite(value)
    if type(value) is str:
        return _writable(value)
    return value is None or type(value) is bool or type(value) is int


def _writable(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _within_limit(headers: Headers) -> str:
    text = json.dumps(headers, ensure_ascii=False, separators=(",", ":"))
    size = len(text.encode())
    if size > HEADERS_LIMIT:
        raise PayloadError(f"headers: they are {size:,} bytes as JSON, at most {HEADERS_LIMIT:,}: pass a reference")
    return text
