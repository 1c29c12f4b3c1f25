"""Time: what users may write as a duration or a moment, what is refused, and how lengths of time are shown."""

import math
import time
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.clock import DAY, HOUR, LONGEST, MINUTE, SECOND, FakeClock, SystemClock, instant, moment, short, span
from holdfast.errors import ConfigError


@pytest.mark.parametrize(
    ("duration", "length"),
    [
        (0, 0),
        (1, SECOND),
        (30, 30 * SECOND),
        (0.25, 250),
        (0.0001, 1),  # a timeout must not become none at all
        (timedelta(minutes=5), 5 * MINUTE),
        (timedelta(days=2, milliseconds=7), 2 * DAY + 7),
        ("250ms", 250),
        ("90s", 90 * SECOND),
        ("5m", 5 * MINUTE),
        ("5min", 5 * MINUTE),
        ("2h", 2 * HOUR),
        ("7d", 7 * DAY),
        ("1.5h", 90 * MINUTE),
        (" 5 m ", 5 * MINUTE),
        (LONGEST / SECOND, LONGEST),
    ],
)
def test_what_a_duration_means(duration: Any, length: int) -> None:
    assert span(duration, "delay") == length


@pytest.mark.parametrize(
    "nonsense",
    [
        None,
        True,
        False,
        "",
        "5",
        "m",
        "-5m",
        "5 fortnights",
        "1h30m",
        "5M",
        "1e3s",
        "nan",
        b"5m",
        Decimal(5),
        5j,
        [5],
        math.nan,
        math.inf,
        -math.inf,
        -1,
        -0.0001,
        "1." + "s",
        timedelta(seconds=-1),
        datetime(2030, 1, 1, tzinfo=UTC),
        LONGEST / SECOND + 1,
        "40000d",
        timedelta.max,
        1e300,
        1.7e308,
        10**400,
        -(10**400),
        "9" * 400 + "d",
    ],
    ids=lambda value: repr(value)[:30],
)
def test_nonsense_is_refused_by_the_name_of_its_parameter(nonsense: Any) -> None:
    with pytest.raises(ConfigError, match=r"\btime_to_wait="):
        span(nonsense, "time_to_wait")


@pytest.mark.parametrize("nothing", [0, 0.0, "0s", timedelta()])
def test_where_a_duration_must_be_positive_zero_is_refused(nothing: Any) -> None:
    assert span(nothing, "timeout") == 0
    with pytest.raises(ConfigError, match=r"^timeout=.*more than zero"):
        span(nothing, "timeout", positive=True)


def test_a_refused_duration_says_its_value_and_what_would_work() -> None:
    with pytest.raises(ConfigError, match=r"delay='soon'.*'90s', '5m'"):
        span("soon", "delay")
    with pytest.raises(ConfigError, match=r"delay=-3: a duration must be zero or more"):
        span(-3, "delay")


@given(st.integers(0, LONGEST))
def test_whole_milliseconds_survive_in_every_form(length: int) -> None:
    assert span(timedelta(milliseconds=length), "delay") == length
    assert span(f"{length}ms", "delay") == length


@given(st.floats(0, LONGEST / SECOND))
def test_a_number_of_seconds_is_rounded_up_so_that_only_zero_is_none(seconds: float) -> None:
    length = span(seconds, "delay")
    assert (length == 0) == (seconds == 0)
    assert seconds * SECOND <= length <= seconds * SECOND + 1


@pytest.mark.parametrize(
    ("aware", "stored"),
    [
        (datetime(1970, 1, 1, tzinfo=UTC), 0),
        (datetime(1970, 1, 1, 1, tzinfo=timezone(timedelta(hours=1))), 0),
        (datetime(2027, 1, 15, 8, 0, 0, 500, tzinfo=UTC), 1_800_000_000_000),
        (datetime(2026, 7, 1, 12, tzinfo=ZoneInfo("Europe/Amsterdam")), 1_782_900_000_000),
        (datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC), -1000),
    ],
)
def test_an_aware_datetime_is_stored_as_milliseconds_of_utc(aware: datetime, stored: int) -> None:
    assert instant(aware, "at") == stored


@given(st.datetimes(timezones=st.just(UTC)))
def test_what_is_stored_comes_back_to_the_millisecond(aware: datetime) -> None:
    assert timedelta() <= aware - moment(instant(aware, "at")) < timedelta(milliseconds=1)


def test_the_last_datetime_of_all_can_be_stored_and_shown() -> None:
    assert moment(instant(datetime.max.replace(tzinfo=UTC), "at")).year == 9999


def test_a_naive_datetime_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^at=datetime.*no time zone.*datetime\.now\(UTC\)"):
        instant(datetime(2030, 1, 1), "at")  # noqa: DTZ001  # the point of the test


@pytest.mark.parametrize("nonsense", [None, 5, "2030-01-01", timedelta(1), time.struct_time(range(9))])
def test_what_is_no_datetime_is_refused(nonsense: Any) -> None:
    with pytest.raises(ConfigError, match=r"^at=.*not a datetime.*delay="):
        instant(nonsense, "at")


@pytest.mark.parametrize(
    ("length", "text"),
    [
        (0, "0 ms"),
        (840, "840 ms"),
        (999, "999 ms"),
        (1000, "1.0 s"),
        (12_400, "12.4 s"),
        (59_999, "59.9 s"),
        (MINUTE, "1 m 0 s"),
        (3 * MINUTE + 12 * SECOND + 999, "3 m 12 s"),
        (HOUR - 1, "59 m 59 s"),
        (HOUR, "1 h 0 m"),
        (23 * HOUR + 59 * MINUTE, "23 h 59 m"),
        (DAY, "1 d 0 h"),
        (2 * DAY + 4 * HOUR, "2 d 4 h"),
        (400 * DAY, "400 d 0 h"),
    ],
)
def test_a_length_of_time_for_people(length: int, text: str) -> None:
    assert short(length) == text


def test_the_system_clock_tells_the_time_in_whole_milliseconds() -> None:
    clock = SystemClock()
    before = time.time()
    now = clock.now()
    assert isinstance(now, int)
    assert math.floor(before * 1000) <= now <= time.time() * 1000
    assert clock.monotonic() <= clock.monotonic()


def test_a_fake_clock_stands_still_until_it_is_moved() -> None:
    clock = FakeClock(now=5)
    assert (clock.now(), clock.monotonic()) == (5, 0)
    clock.advance(2500)
    assert (clock.now(), clock.monotonic()) == (2505, 2.5)
    clock.step(-1000)  # as NTP does: the wall clock alone
    assert (clock.now(), clock.monotonic()) == (1505, 2.5)


def test_an_instant_that_no_utc_datetime_can_show_is_refused_and_a_stored_one_is_shown_at_the_edge() -> None:
    beyond = datetime.max.replace(tzinfo=timezone(-timedelta(hours=14)))
    with pytest.raises(ConfigError, match="years 1 to 9999"):
        instant(beyond, "at")
    assert moment(10**18).year == 9999
    assert moment(-(10**18)).year == 1
