"""Ticks through the changes of zones' clocks: a table by hand, every change of the installed database, and chance."""

# ruff: noqa: DTZ001  # naive datetimes are moments in UTC here, or what a wall clock reads

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import islice, pairwise, takewhile
from pathlib import Path
from typing import NamedTuple
from zoneinfo import TZPATH, ZoneInfo, available_timezones

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.clock import Instant, instant, moment
from holdfast.schedule.cron import cron
from holdfast.schedule.rule import Rule, rule_of

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
FIRST, LAST = datetime(2020, 1, 1), datetime(2036, 1, 1)
GOLDEN = [
    line.split("\t")
    for line in Path(__file__).with_name("schedule_zones.tsv").read_text().splitlines()
    if line and not line.startswith("#")
]


def at(utc: datetime) -> Instant:
    return instant(utc.replace(tzinfo=UTC), "utc")


def utc(at: Instant) -> datetime:
    return moment(at).replace(tzinfo=None)


def ticks(rule: Rule, after: datetime, count: int) -> list[datetime]:
    return [utc(tick) for tick in islice(rule.coming(at(after)), count)]


def until(rule: Rule, after: datetime, end: datetime) -> list[datetime]:
    return [utc(tick) for tick in takewhile(lambda tick: tick <= at(end), rule.coming(at(after)))]


@pytest.mark.parametrize(("tz", "text", "after", "expected"), GOLDEN, ids=lambda word: str(word)[:24])
def test_golden_table(tz: str, text: str, after: str, expected: str) -> None:
    wanted = [datetime.fromisoformat(word) for word in expected.split()]
    assert ticks(rule_of(cron=text, tz=tz), datetime.fromisoformat(after), len(wanted)) == wanted


# --- every change in the database


class Change(NamedTuple):
    """A zone's clock goes from one offset to another, at a moment in UTC."""

    at: datetime
    before: timedelta
    after: timedelta


def offset(tz: str, when: datetime) -> timedelta:
    return when.replace(tzinfo=UTC).astimezone(ZoneInfo(tz)).utcoffset() or timedelta(0)


STEPS = [FIRST.replace(tzinfo=UTC) + n * 8 * DAY for n in range((LAST - FIRST) // (8 * DAY) + 1)]


def changes(tz: str) -> Iterator[Change]:
    its = ZoneInfo(tz)
    offsets = [step.astimezone(its).utcoffset() or timedelta(0) for step in STEPS]
    for (since, before), (until, after) in pairwise(zip(STEPS, offsets, strict=True)):
        low, high = since, until
        while before != after and high - low > timedelta(seconds=1):
            middle = (low + (high - low) / 2).replace(microsecond=0)
            low, high = (middle, high) if middle.astimezone(its).utcoffset() == before else (low, middle)
        if before != after:
            yield Change(high.replace(tzinfo=None), before, after)


def distinct() -> list[str]:
    """The zones, without those that are another's alias, as far as files tell."""
    files: dict[object, str] = {}
    for name in sorted(available_timezones()):
        path = next((file for folder in TZPATH if (file := Path(folder, name)).is_file()), None)
        files.setdefault(name if path is None else path.read_bytes(), name)
    return sorted(files.values())


@cache
def all_changes() -> dict[Change, str]:
    """Each change once, with a zone that has it: many zones change at one moment by the same."""
    return {change: tz for tz in distinct() for change in changes(tz)}


def fixed(wall: datetime) -> str:
    return f"{wall.minute} {wall.hour} * * *"


def test_every_change_of_the_database() -> None:
    found = all_changes()
    jumps = {change.after - change.before for change in found}
    assert len(found) > 300, "the time zone database of this machine is nearly empty"
    assert {HOUR, -HOUR, HOUR / 2, -HOUR / 2} <= jumps
    midnight_gaps = 0
    for change, tz in found.items():
        jump = change.after - change.before
        edge = change.at + min(change.before, change.after)  # the wall clock where the gap or the overlap begins
        length = abs(jump)
        midnight_gaps += jump > timedelta(0) and (edge + length).date() != (edge - MINUTE).date()
        inside = [edge, edge + length / 2, edge + length - MINUTE]
        for wall in inside if length < DAY else ():
            rule = Rule(cron=fixed(wall), tz=tz)
            expected = change.at if jump > timedelta(0) else wall - change.before
            around = until(rule, change.at - 20 * HOUR, change.at + 20 * HOUR)
            near = [tick for tick in around if abs(tick - change.at) <= length + HOUR]
            assert near == [expected], (tz, change, wall)
        rule = Rule(cron="*/15 * * * *", tz=tz)
        since, end = change.at - 2 * HOUR, change.at + 2 * HOUR
        quarters = [q for n in range(1, 240) if (q := since + n * MINUTE) and (q + offset(tz, q)).minute % 15 == 0]
        assert until(rule, since, end - MINUTE) == quarters, (tz, change)
    assert midnight_gaps > 20


def test_no_zone_keeps_an_offset_for_less_than_a_day() -> None:
    """`zone.change` looks once a day."""
    by_zone: dict[str, list[datetime]] = {}
    for change, tz in all_changes().items():
        by_zone.setdefault(tz, []).append(change.at)
    for tz in ("Africa/Casablanca", "Africa/El_Aaiun", "Europe/Amsterdam"):
        by_zone[tz] = [change.at for change in changes(tz)]
    gaps = [later - earlier for moments in by_zone.values() for earlier, later in pairwise(sorted(moments))]
    assert min(gaps) > 2 * DAY


# --- against a slow reference

ZONES = [
    "Europe/Amsterdam",
    "America/New_York",
    "Australia/Lord_Howe",
    "Africa/Cairo",
    "America/Havana",
    "Asia/Kolkata",
]
SPAN = 2 * DAY


@cache
def readings(tz: str, since: datetime) -> tuple[list[tuple[datetime, datetime]], dict[datetime, datetime]]:
    """Minute by minute: what the clock reads; and for each reading the first moment that it is read."""
    walk = [(when, when + offset(tz, when)) for n in range(int(SPAN / MINUTE)) if (when := since + n * MINUTE)]
    return walk, {wall: when for when, wall in reversed(walk)}


class Fields(NamedTuple):
    minutes: str
    hours: str

    def fits(self, wall: datetime) -> bool:
        return self._has(self.minutes, wall.minute) and self._has(self.hours, wall.hour)

    @staticmethod
    def _has(field: str, value: int) -> bool:
        if field.startswith("*"):
            return value % int(field[2:] or 1) == 0
        return value in map(int, field.split(","))


def slowly(fields: Fields, tz: str, since: datetime) -> list[datetime]:
    walk, first = readings(tz, since)
    if fields.minutes.startswith("*") or fields.hours.startswith("*"):
        return [when for when, wall in walk if fields.fits(wall)]
    found = set()
    wall, end = walk[0][1], walk[-1][1]
    while wall < end:
        if fields.fits(wall):
            found.add(first.get(wall) or next(when for when, later in walk if later > wall))
        wall += MINUTE
    return sorted(found)


def numbers(most: int) -> st.SearchStrategy[str]:
    some = st.lists(st.integers(0, most), min_size=1, max_size=4).map(lambda found: ",".join(map(str, found)))
    steps = st.sampled_from(["*", "*/2", "*/7", "*/15"])
    return st.one_of(some, steps)


@settings(max_examples=60)
@given(tz=st.sampled_from(ZONES), which=st.integers(0, 50), fields=st.builds(Fields, numbers(59), numbers(4)))
def test_as_a_slow_reference(tz: str, which: int, fields: Fields) -> None:
    its = _changes_of(tz)
    near = its[which % len(its)].at if its else datetime(2024, 3, 31)
    since = (near - DAY).replace(minute=0, second=0)
    expected = [when for when in slowly(fields, tz, since) if since + 4 * HOUR < when < since + SPAN - 4 * HOUR]
    rule = Rule(cron=f"{fields.minutes} {fields.hours} * * *", tz=tz)
    assert until(rule, since + 4 * HOUR, since + SPAN - 4 * HOUR - MINUTE) == expected


@cache
def _changes_of(tz: str) -> list[Change]:
    return list(changes(tz))


def test_the_odd_times_are_remarked() -> None:
    text = cron("30 2 * * *", "Europe/Amsterdam")
    assert "does not exist" in text.remark(at(datetime(2023, 3, 26, 1, 0)))
    assert "twice" in text.remark(at(datetime(2023, 10, 29, 0, 30)))
    assert text.remark(at(datetime(2023, 10, 30, 1, 30))) == ""
