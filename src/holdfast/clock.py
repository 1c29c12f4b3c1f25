"""Time: one object tells stored time and measured time, and one function reads what users mean by a duration.

Stored time is whole milliseconds since 1970 in UTC (`Instant`); lengths of time of our own are whole
milliseconds too (`Span`). Measured time is `monotonic()`, in seconds, and is never stored.
"""

from __future__ import annotations

import math
import re
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol, TypeAlias

from holdfast.errors import ConfigError

Instant: TypeAlias = int
Span: TypeAlias = int
Duration: TypeAlias = float | timedelta | str

SECOND: Span = 1000
MINUTE: Span = 60 * SECOND
HOUR: Span = 60 * MINUTE
DAY: Span = 24 * HOUR
LONGEST: Span = 100 * 365 * DAY

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EARLIEST = (datetime.min.replace(tzinfo=UTC) - EPOCH) // timedelta(milliseconds=1)
LATEST = (datetime.max.replace(tzinfo=UTC) - EPOCH) // timedelta(milliseconds=1)

_UNITS = {"ms": 1, "s": SECOND, "m": MINUTE, "min": MINUTE, "h": HOUR, "d": DAY}
_TEXT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|min|m|h|d)\s*")


class Clock(Protocol):
    """Where all code takes the time from, so that a test can put another one in its place."""

    def now(self) -> Instant: ...
    def monotonic(self) -> float: ...


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> Instant:
        return time.time_ns() // 1_000_000

    monotonic = staticmethod(time.monotonic)


class FakeClock:
    """A clock that stands still until a test moves it."""

    def __init__(self, now: Instant = 1_800_000_000_000) -> None:
        self._now = now
        self._monotonic = 0.0

    def now(self) -> Instant:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    def advance(self, by: Span) -> None:
        """Moves both times on by `by` milliseconds."""
        self._now += by
        self._monotonic += by / SECOND

    def step(self, by: Span) -> None:
        """Moves the wall clock alone, as an administrator or NTP does."""
        self._now += by


def span(duration: Duration, parameter: str, *, positive: bool = False) -> Span:
    """Milliseconds of a `Duration`: seconds as a number, a timedelta, or text such as "90s", "5m", "2h", "7d".

    Raises ConfigError naming `parameter` when it is none of these, negative (or zero, where `positive`),
    not finite, or longer than a hundred years.
    """
    try:
        length = _milliseconds(duration, parameter)
    except OverflowError:  # a number that no float holds
        length = LONGEST + 1
    if length < 0 or (positive and length == 0):
        least = "more than zero" if positive else "zero or more"
        raise ConfigError(f"{parameter}={duration!r}: a duration must be {least}, for example 30 or '5m'")
    if length > LONGEST:
        raise ConfigError(f"{parameter}={duration!r}: longer than a hundred years")
    return length


def _milliseconds(duration: Duration, parameter: str) -> Span:
    match duration:
        case timedelta():
            return round(duration / timedelta(milliseconds=1))
        case bool():
            pass
        case int() | float() if math.isfinite(duration):
            return math.ceil(duration * SECOND) if duration > 0 else math.floor(duration * SECOND)
        case str() if match_ := _TEXT.fullmatch(duration):
            return round(float(match_[1]) * _UNITS[match_[2]])
        case _:
            pass
    raise ConfigError(
        f"{parameter}={duration!r}: not a duration; give seconds (30), '90s', '5m', '2h', '7d' or a timedelta"
    )


def instant(moment: datetime, parameter: str) -> Instant:
    """Milliseconds since 1970 of an aware datetime; ConfigError naming `parameter` for a naive one."""
    if not isinstance(moment, datetime):
        raise ConfigError(f"{parameter}={moment!r}: not a datetime; for a duration use delay=")
    if moment.tzinfo is None:
        raise ConfigError(
            f"{parameter}={moment!r}: has no time zone; give an aware datetime, such as datetime.now(UTC)"
        )
    at = (moment - EPOCH) // timedelta(milliseconds=1)
    if not EARLIEST <= at <= LATEST:
        raise ConfigError(f"{parameter}={moment!r}: lies outside of the years 1 to 9999 in UTC")
    return at


def moment(instant: Instant) -> datetime:
    """The aware UTC datetime of a stored instant."""
    return EPOCH + timedelta(milliseconds=min(max(instant, EARLIEST), LATEST))


def short(length: Span) -> str:
    """A length of time for people: 840 ms, 12.4 s, 3 m 12 s, 2 d 4 h."""
    if length < SECOND:
        return f"{length} ms"
    if length < MINUTE:
        return f"{length // 100 / 10:.1f} s"
    for size, unit, below, smaller in ((MINUTE, "m", SECOND, "s"), (HOUR, "h", MINUTE, "m")):
        if length < size * (60 if unit == "m" else 24):
            return f"{length // size} {unit} {length % size // below} {smaller}"
    return f"{length // DAY} d {length % DAY // HOUR} h"
