"""Cron texts: what one means, and when its next time is, through the changes of a zone's clock.

Five fields, or six with seconds first; names, ranges, steps, `L`, `LW`, `5L`, `MON#1`; `@daily` and its kin. The wall
clock of a zone jumps twice a year, and this is the rule:

- where minute and hour are both fixed (neither begins with `*`), a time that does not exist runs once, at the next
  valid moment; one that comes twice runs once, the first time;
- else it follows real time: it runs whenever the clock's reading fits, as often as that is.

cronsim parses, and walks through readings of a clock that never jumps; what a zone does to it is decided here.
"""

from __future__ import annotations

import copy
import functools
import re
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta, tzinfo
from typing import TYPE_CHECKING

from holdfast.clock import DAY, EARLIEST, EPOCH, Instant
from holdfast.errors import ConfigError
from holdfast.schedule.zone import SECOND, change, first_reading, offset, zone

if TYPE_CHECKING:
    from cronsim import CronSim

TEXT_MOST = 200  # characters
ALIASES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_EPOCH = EPOCH.replace(tzinfo=None)
_LOOKED_FROM = datetime(2000, 1, 1)  # noqa: DTZ001  # a reading of a clock
_MILLISECOND = timedelta(milliseconds=1)
_WRONG_ORDINAL = re.compile(r"\b(2?1|22|2?3|31)th\b")
_DAYS = re.compile(r"(29|3[01])([,/-][0-9,/-]*)?")  # that are days, but not of every month
_ORDINALS = {"1": "st", "2": "nd", "3": "rd"}


class Cron:
    """A cron text in a zone. ConfigError naming `cron` or `tz` for what is none, or never comes."""

    def __init__(self, text: str, tz: str) -> None:
        self._zone: tzinfo = zone(tz)
        self._sim = _parsed(text)
        self._fixed = not any(part.startswith("*") for part in self._sim.parts[1:3])
        if next(self._readings(_LOOKED_FROM), None) is None:
            raise ConfigError(f"cron={text!r}: there is no such day in fifty years, so that it would never run")

    def next(self, after: Instant) -> Instant | None:
        """Its first time later than `after`; None if there is none before the year 10000."""
        try:
            utc = (_EPOCH + max(after, EARLIEST + DAY) * _MILLISECOND).replace(microsecond=0)
            found = self._by_the_wall_clock(utc) if self._fixed else self._by_real_time(utc)
        except OverflowError:
            return None
        return None if found is None else (found - _EPOCH) // _MILLISECOND

    def count(self, after: Instant, until: Instant) -> int:
        """How many times the wall clock reads one of its times in (after, until], as if it never jumped."""
        first, last = self._wall(after), self._wall(until)
        days = (first.date() + timedelta(n) for n in range((last.date() - first.date()).days))
        whole = sum(map(self._on, days)) * self._in_a_day(time.max)
        return whole + self._by_then(last) - self._by_then(first)

    def remark(self, at: Instant) -> str:
        """What is odd about a time of its own, since the clock changes then; mostly nothing."""
        if not self._fixed:
            return ""
        wall = self._wall(at)
        if next(self._readings(wall - SECOND), None) != wall:
            return "its time does not exist on that day: the clock jumps over it"
        if wall.replace(tzinfo=self._zone, fold=1).utcoffset() != wall.replace(tzinfo=self._zone).utcoffset():
            return "its time comes twice on that day: this is the first"
        return ""

    def explain(self) -> str:
        """The text in English, without the zone."""
        english = self._sim.explain()
        return _WRONG_ORDINAL.sub(lambda found: f"{found[1]}{_ORDINALS[found[1][-1]]}", english)

    def _by_the_wall_clock(self, utc: datetime) -> datetime | None:
        for wall in self._readings(utc + offset(self._zone, utc)):
            if (at := first_reading(self._zone, wall)) > utc:
                return at
        return None

    def _by_real_time(self, utc: datetime) -> datetime | None:
        since = utc
        held = offset(self._zone, since)
        after = since + held
        while (wall := next(self._readings(after), None)) is not None:
            at = wall - held
            changed = change(self._zone, since, at)
            if changed is None:
                return at
            since, held = changed, offset(self._zone, changed)
            after = since + held - SECOND  # the moment of the change is a time, too
        return None

    def _wall(self, at: Instant) -> datetime:
        utc = _EPOCH + at * _MILLISECOND
        return utc + offset(self._zone, utc)

    def _on(self, day: date) -> bool:
        return day.month in self._sim.months and self._sim.match_day(day)

    def _by_then(self, wall: datetime) -> int:
        return self._in_a_day(wall.time()) if self._on(wall.date()) else 0

    def _in_a_day(self, until: time) -> int:
        """How many of its times there are from midnight to `until`."""
        sim = self._sim
        minutes = sum(minute < until.minute for minute in sim.minutes) * len(sim.seconds)
        seconds = sum(second <= until.second for second in sim.seconds) if until.minute in sim.minutes else 0
        hours = sum(hour < until.hour for hour in sim.hours) * len(sim.minutes) * len(sim.seconds)
        return hours + (minutes + seconds if until.hour in sim.hours else 0)

    def _readings(self, after: datetime) -> Iterator[datetime]:
        """Its times on a clock that never jumps, later than `after`; it gives up after fifty years without one."""
        walk = copy.copy(self._sim)
        walk.dt = after
        return walk


@functools.lru_cache(512)
def cron(text: str, tz: str) -> Cron:
    """A parsed text; the same one again costs nothing."""
    return Cron(text, tz)


def _parsed(text: str) -> CronSim:
    from cronsim import CronSim, CronSimError

    said = ALIASES.get(text.strip().lower(), text)
    if said.lstrip().startswith("@"):
        raise ConfigError(f"cron={text!r}: there are {', '.join(ALIASES)}; for a plain interval use every='5m'")
    if len(said) > TEXT_MOST:
        raise ConfigError(f"cron={text[:20]!r}…: {len(text):,} characters, at most {TEXT_MOST}")
    if len(said.split()) not in (5, 6):
        raise ConfigError(
            f"cron={text!r}: it has {len(said.split())} fields, and needs five: minute, hour, day of month, month, "
            "day of week (with seconds first: six); for example '0 9 * * MON-FRI'"
        )
    try:
        return CronSim(said, _LOOKED_FROM)
    except (CronSimError, AssertionError) as error:
        raise ConfigError(f"cron={text!r}: {_why(str(error), said)}") from None


_EXAMPLES = {
    "second": "0 to 59, as 0 or */10",
    "minute": "0 to 59, as 30 or */5",
    "hour": "0 to 23, as 9, 9-17 or */2",
    "day-of-month": "1 to 31, as 1, */2, L for the last or LW for the last weekday",
    "month": "1 to 12, or JAN to DEC, as 1-3",
    "day-of-week": "0 to 7, or SUN to SAT, as MON-FRI, MON#1 for the first Monday or 5L for the last Friday",
}


def _why(error: str, said: str) -> str:
    field = error.removeprefix("Bad ")
    if field not in _EXAMPLES:
        return error
    fields = said.split()
    place = list(_EXAMPLES).index(field) - (len(fields) == 5)
    if field == "day-of-month" and _DAYS.fullmatch(fields[place]):
        return f"month {fields[place + 1]} never has day {fields[place]}, so that it would never run; L is the last day"
    return f"{fields[place]!r} is no {field.replace('-', ' ')}: {_EXAMPLES[field]}"
