"""What commands share: which store, which jobs, times and durations as people write them."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar, cast

import click

from holdfast.app import Holdfast, parts_of
from holdfast.cli.load import load_app
from holdfast.client.filters import Filter
from holdfast.clock import SECOND, span
from holdfast.config import setting
from holdfast.errors import ConfigError
from holdfast.observe.endpoint import located

C = TypeVar("C", bound=Callable[..., Any])


def url_option(command: C) -> C:
    """Adds --url."""
    return click.option("--url", metavar="URL", help="The store, such as sqlite:///jobs.db.")(command)


def operated(url: str | None) -> Holdfast:
    """An app over the store to operate on: --url, HOLDFAST_URL, [tool.holdfast] url, else the app's own."""
    named = url or setting("url")
    if named or setting("app"):
        app = _shared(Holdfast(named) if named else load_app(None))
        parts_of(app).link.creates = False
        return app
    raise ConfigError(
        "no store is chosen: give --url, set HOLDFAST_URL, or write url (or app) under [tool.holdfast] "
        "in pyproject.toml; for example --url sqlite:///jobs.db"
    )


def _shared(app: Holdfast) -> Holdfast:
    place = parts_of(app).link.store
    if not place.shared:
        raise ConfigError(
            f"{place.url} lives and ends with the process that has it, and no command can see its jobs; "
            "a store such as sqlite:///jobs.db can be seen"
        )
    return app


def filter_without(*names: str) -> Callable[[C], C]:
    """Adds the flags that say which jobs, but for those named; `wanted` reads them."""

    def added(command: C) -> C:
        for name in reversed([name for name in _FILTER if name not in names]):
            command = _FILTER[name](command)
        return command

    return added


def filter_options(command: C) -> C:
    """Adds the flags that say which jobs; `wanted` reads them."""
    return filter_without()(command)


def wanted(flags: dict[str, Any]) -> Filter:
    """The flags that were given, as a Filter."""
    return cast("Filter", {name: value for name, value in flags.items() if value is not None})


def length(context: click.Context, parameter: click.Parameter, text: str | None) -> float | None:
    """A callback for durations: "90s", "5m", "2h", "7d", or a number of seconds; gives seconds."""
    if text is None:
        return None
    try:
        return span(_number(text), "it") / SECOND
    except ConfigError as error:
        raise _bad(context, parameter, f"{text!r}: {_reason(error)}") from None


def duration(context: click.Context, parameter: click.Parameter, text: str | None) -> float | str | None:
    """A callback for durations that something else will check: a number of seconds, or the text as it is."""
    del context, parameter
    return None if text is None else _number(text)


def instant(context: click.Context, parameter: click.Parameter, text: str | None) -> datetime | None:
    """A callback for instants: ISO 8601 with a time zone."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise _bad(context, parameter, f"{text!r}: not a time such as {_EXAMPLE}") from None
    if moment.tzinfo is None:
        said = text if "T" in text or " " in text else f"{text}T00:00"
        why = f"has no time zone; write {said}Z for UTC, or the offset as in {_EXAMPLE}"
        raise _bad(context, parameter, f"{text!r}: {why}")
    return moment


def past(context: click.Context, parameter: click.Parameter, text: str | None) -> datetime | None:
    """A callback for times gone by: a duration means so long ago, else as `instant`."""
    if text is None:
        return None
    try:
        ago = span(_number(text), "it")
    except ConfigError as error:
        if "T" in text or text.count("-") > 1:
            return instant(context, parameter, text)
        raise _bad(context, parameter, f"{text!r}: {_reason(error)}; or an instant such as {_EXAMPLE}") from None
    return datetime.now(UTC) - timedelta(milliseconds=ago)


def listening_at(address: str | None, flag: str) -> str | None:
    """HOST:PORT of a service's endpoint: the flag's, else HOLDFAST_METRICS, else [tool.holdfast] metrics."""
    found = address or setting("metrics")
    if found is not None:
        located(found, flag if address else "HOLDFAST_METRICS")
    return found


def coming(context: click.Context, parameter: click.Parameter, text: str | None) -> timedelta | datetime | None:
    """A callback for times to come: a duration from now, else as `instant`."""
    if text is None:
        return None
    try:
        return timedelta(milliseconds=span(_number(text), "it", positive=True))
    except ConfigError as error:
        if "T" in text or text.count("-") > 1:
            moment = instant(context, parameter, text)
            if moment is not None and moment <= datetime.now(UTC):
                raise _bad(context, parameter, f"{text!r}: that is over; give a later time") from None
            return moment
        raise _bad(context, parameter, f"{text!r}: {_reason(error)}; or an instant such as {_EXAMPLE}") from None


def size(context: click.Context, parameter: click.Parameter, text: str | None) -> int | None:
    """A callback for sizes: "500MB", "2GB", "512MiB"; gives bytes."""
    if text is None:
        return None
    found = _SIZE.fullmatch(text.strip())
    value = int(float(found[1]) * _UNITS[found[2].upper()]) if found else 0
    if value < 1:
        raise _bad(context, parameter, f"{text!r}: not a size such as 500MB, 2GB or 512MiB")
    return value


def in_flags(text: str) -> str:
    """An error about parameters, as `max_size=0: …`, in the words of the command line."""
    flags = _WITH_VALUE.sub(lambda found: f"{_flag(found[1])} ", text)
    return _ALONE.sub(lambda found: _flag(found[1]), flags).replace(" or a timedelta", "").replace("None", "none")


def _flag(parameter: str) -> str:
    return f"--{parameter.replace('_', '-')}"


_PARAMETERS = r"\b(max_size|when_full|block_timeout|weight|cron|every|tz|missed|overlap|jitter|until)="
_WITH_VALUE, _ALONE = re.compile(_PARAMETERS + r"(?=[^\s,;.)])"), re.compile(_PARAMETERS)
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([kKmMgG]i?[bB])")
_UNITS = {"KB": 1e3, "MB": 1e6, "GB": 1e9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}

_EXAMPLE = "2026-11-22T14:03:22+01:00"


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _reason(error: ConfigError) -> str:
    return str(error).partition(": ")[2].replace(" or a timedelta", "")


def _bad(context: click.Context, parameter: click.Parameter, why: str) -> click.BadParameter:
    return click.BadParameter(why, ctx=context, param=parameter)


_AGO = "2h (ago) or an instant with a zone."
_FILTER: dict[str, Callable[[Any], Any]] = {
    "state": click.option("--state", metavar="STATES", help="Such as dead, or scheduled,queued."),
    "queue": click.option("--queue", metavar="QUEUE", help="Jobs of this queue."),
    "task": click.option("--task", metavar="TASK", help="Jobs of this task."),
    "tag": click.option("--tag", metavar="TAG", help="Jobs with this tag."),
    "error": click.option("--error", metavar="TYPE", help="Whose last error is of this type, such as TimeoutError."),
    "fingerprint": click.option("--fingerprint", metavar="F", help="Dead of this error, as `dead` shows it."),
    "since": click.option("--since", metavar="WHEN", callback=past, help=f"Enqueued since: {_AGO}"),
    "before": click.option("--before", metavar="WHEN", callback=past, help=f"Enqueued before: {_AGO}"),
}
