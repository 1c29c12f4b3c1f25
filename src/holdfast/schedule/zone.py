"""Time zones: from a name to its rules, and which offset from UTC holds when."""

from __future__ import annotations

import functools
from datetime import UTC, datetime, timedelta, tzinfo

from holdfast.errors import ConfigError

DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)
NAME_MOST = 100  # characters
_NONE_HERE = (
    "this machine has no time zone database: install tzdata, by the system's package manager or `pip install tzdata`"
)
_NONE_NEAR = "no such time zone; give a name such as 'Europe/Amsterdam', or 'UTC'"


@functools.lru_cache(256)
def zone(name: str) -> tzinfo:
    """The zone of this name in the installed database; UTC needs none. ConfigError for one that is not there, with
    names that are near.
    """
    if name == "UTC":
        return UTC
    from zoneinfo import ZoneInfo

    try:
        if name.startswith(("right/", "posix/")):  # the same zones, in another count of seconds
            raise ValueError
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ConfigError(f"tz={name!r}: {_instead(name)}") from None


@functools.lru_cache(256)  # a worker meets the same one again with each look at a schedule
def _instead(name: str) -> str:
    """What to do about a zone that is not there."""
    import difflib
    from zoneinfo import available_timezones

    if not (known := available_timezones()):
        return _NONE_HERE
    by_words = {known_name.lower(): known_name for known_name in sorted(known)}
    by_words |= {known_name.lower().rpartition("/")[2]: known_name for known_name in sorted(known, reverse=True)}
    wanted = name.strip().lower().replace(" ", "_")
    near = difflib.get_close_matches(wanted, by_words, n=6, cutoff=0.6)
    names = list(dict.fromkeys(by_words[word] for word in near))[:3]
    return f"no such time zone; did you mean {' or '.join(names)}?" if names else _NONE_NEAR


def offset(its: tzinfo, utc: datetime) -> timedelta:
    """How far the wall clock is ahead of UTC at `utc`, a naive datetime."""
    return its.fromutc(utc.replace(tzinfo=its)).utcoffset() or timedelta(0)


def change(its: tzinfo, since: datetime, until: datetime) -> datetime | None:
    """The first moment in (since, until] with another offset than `since` has; all in UTC, naive.

    Zones keep an offset for days at least (tests/test_schedule_zones.py looks through the database), so it looks once
    a day.
    """
    if its is UTC:
        return None
    held, before = offset(its, since), since
    while before < until:
        after = min(before + DAY, until)
        if offset(its, after) != held:
            return _first_without(its, held, before, after)
        before = after
    return None


def _first_without(its: tzinfo, held: timedelta, before: datetime, after: datetime) -> datetime:
    """The second at which the offset changes from `held`, which holds at `before` and not at `after`."""
    while after - before > SECOND:
        middle = before + (after - before) // 2
        middle = middle.replace(microsecond=0)
        if offset(its, middle) == held:
            before = middle
        else:
            after = middle
    return after


def first_reading(its: tzinfo, wall: datetime) -> datetime:
    """When the wall clock reads `wall`, in UTC: of two times the first; the next valid moment, if it never does."""
    early = wall - (wall.replace(tzinfo=its, fold=0).utcoffset() or timedelta(0))
    if early + offset(its, early) == wall:
        return early
    late = wall - (wall.replace(tzinfo=its, fold=1).utcoffset() or timedelta(0))  # before the gap: by the new offset
    return _first_without(its, offset(its, late), late, early)
