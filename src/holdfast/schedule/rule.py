"""When a schedule runs: by a cron text or at an interval, and what becomes of ticks that were missed."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice, takewhile
from typing import Literal, NamedTuple, TypeAlias, get_args

from holdfast.clock import DAY, HOUR, MINUTE, SECOND, Duration, Instant, Span, short, span
from holdfast.errors import ConfigError
from holdfast.schedule.cron import cron

Missed: TypeAlias = Literal["skip", "once", "all"]
Overlap: TypeAlias = Literal["skip", "allow"]

EVERY_LEAST: Span = SECOND
JITTER_MOST: Span = DAY
LATE: Span = MINUTE  # a tick that nobody made for so long was missed
BEHIND_MOST = 100  # ticks that missed="all" makes up for
COUNTED_MOST = 1000  # ticks that are walked through one by one
_WINDOWS: tuple[Span, ...] = (MINUTE, 10 * MINUTE, HOUR, DAY, 31 * DAY, 400 * DAY, 60 * 365 * DAY)


class Rule(NamedTuple):
    """Exactly one of `cron` and `every` is given. `jitter`: each job is due up to so much later than its tick."""

    cron: str | None = None
    every: Span | None = None
    tz: str = "UTC"
    missed: Missed = "once"
    overlap: Overlap = "skip"
    jitter: Span = 0

    def next(self, after: Instant) -> Instant | None:
        """The first tick later than `after`; None if there is none any more."""
        if self.every is not None:
            return (after // self.every + 1) * self.every
        return cron(self.cron or "", self.tz).next(after)

    def coming(self, after: Instant) -> Iterator[Instant]:
        """All ticks later than `after`."""
        at = self.next(after)
        while at is not None:
            yield at
            at = self.next(at)

    def between(self, after: Instant, until: Instant) -> int:
        """How many ticks there are in (after, until]: by the wall clock, as if it never jumped."""
        if self.every is not None:
            return until // self.every - after // self.every
        return cron(self.cron or "", self.tz).count(after, until)

    @property
    def times(self) -> tuple[object, ...]:
        """What its ticks depend on."""
        return (self.cron, self.every, self.tz if self.cron else "")

    def explain(self) -> str:
        """In English, without the zone."""
        if self.every is not None:
            return f"Every {_interval(self.every)}"
        return cron(self.cron or "", self.tz).explain()

    def remark(self, at: Instant) -> str:
        """What is odd about a tick, since a zone's clock changes then; mostly nothing."""
        return "" if self.every is not None else cron(self.cron or "", self.tz).remark(at)


def rule_of(
    *,
    cron: str | None = None,
    every: Duration | None = None,
    tz: str | None = None,
    missed: Missed = "once",
    overlap: Overlap | None = None,
    jitter: Duration = 0,
) -> Rule:
    """A checked rule. ConfigError naming the parameter that makes no sense, its value and what would work.

    `overlap` is "skip" if it is not said, and "allow" with missed="all", whose jobs would else meet each other.
    """
    _one_of("missed", missed, get_args(Missed))
    if overlap is not None:
        _one_of("overlap", overlap, get_args(Overlap))
    if callable(said := every if cron is None else cron):
        raise ConfigError(f"{said!r}: say when, as in @jobs.cron('0 9 * * MON-FRI') or @jobs.every('5m')")
    if (cron is None) == (every is None):
        raise ConfigError("give cron= or every=, and not both: cron='0 9 * * MON-FRI', or every='5m'")
    made = Rule(
        cron=cron,
        every=None if every is None else _every(every),
        tz=_zoned(tz, every),
        missed=missed,
        overlap=overlap or ("allow" if missed == "all" else "skip"),
        jitter=_jitter(jitter),
    )
    _check_times(made)
    return made


def _every(every: Duration) -> Span:
    length = span(every, "every", positive=True)
    if length < EVERY_LEAST:
        raise ConfigError(f"every={every!r}: at least a second; what is to run all the time is a loop inside a job")
    return length


def _zoned(tz: str | None, every: Duration | None) -> str:
    if tz is None or (tz == "UTC" and every is not None):
        return "UTC"
    if every is not None:
        raise ConfigError(f"tz={tz!r}: an interval has no time zone; it is for cron=")
    if not isinstance(tz, str):
        raise ConfigError(f"tz={tz!r}: a zone's name, such as 'Europe/Amsterdam'")
    return tz


def _jitter(jitter: Duration) -> Span:
    length = span(jitter, "jitter")
    if length > JITTER_MOST:
        raise ConfigError(f"jitter={jitter!r}: at most a day")
    return length


def _check_times(rule: Rule) -> None:
    if rule.cron is None:
        return
    if not isinstance(rule.cron, str):
        raise ConfigError(f"cron={rule.cron!r}: a text, such as '0 9 * * MON-FRI'")
    cron(rule.cron, rule.tz)


def _one_of(parameter: str, value: object, words: tuple[str, ...]) -> None:
    if value not in words:
        raise ConfigError(f"{parameter}={value!r}: {' or '.join(map(repr, words))}")


def _interval(length: Span) -> str:
    """every='5m' as people write it: 5 minutes."""
    for size, word in ((DAY, "day"), (HOUR, "hour"), (MINUTE, "minute"), (SECOND, "second")):
        if length % size == 0:
            count = length // size
            return word if count == 1 else f"{count:,} {word}s"
    return short(length)


# --- what to do about the ticks that are due


class Step(NamedTuple):
    """What to do now about a schedule: pass over `missed` ticks, then the tick `at`, with a job if it `makes` one."""

    at: Instant
    next_at: Instant | None
    makes: bool
    missed: int = 0


def plan(rule: Rule, next_at: Instant, now: Instant) -> Step:
    """The next step of a schedule whose next tick, at `next_at`, is due by the store's `now`.

    The ticks that are due are those from `next_at` up to now. All but the latest were missed, the latest too if it is
    more than LATE ago. missed="skip": a missed tick makes no job; "once": the latest tick makes one, however late;
    "all": each makes one, one per step, but for those that are more than BEHIND_MOST behind.
    """
    wanted = BEHIND_MOST if rule.missed == "all" else 1
    due = _Due.of(rule, next_at, now, wanted)
    if rule.missed == "all":
        at, *later = due.latest[-wanted:]
        return Step(at, rule.next(at), makes=True, missed=due.number - 1 - len(later))
    at = due.latest[-1]
    makes = rule.missed == "once" or now - at <= LATE
    return Step(at, rule.next(at), makes, due.number - 1 if makes else due.number)


class _Due(NamedTuple):
    """The ticks that are due: how many, and the latest of them, oldest first: as many as are asked for, or more."""

    number: int
    latest: list[Instant]

    @classmethod
    def of(cls, rule: Rule, first: Instant, now: Instant, wanted: int) -> _Due:
        ticks = [first, *islice(_between(rule, first, now), COUNTED_MOST)]
        return cls(len(ticks), ticks) if len(ticks) <= COUNTED_MOST else cls._of_many(rule, first, now, wanted)

    @classmethod
    def _of_many(cls, rule: Rule, first: Instant, now: Instant, wanted: int) -> _Due:
        """What an outage of months has left is not walked through: the latest are sought from the end."""
        latest = list[Instant]()
        for window in _WINDOWS:
            since = max(first, now - window)
            latest = list(_between(rule, since - 1, now))
            if len(latest) >= wanted or since == first:
                break
        return cls(1 + rule.between(first, now), latest)


def _between(rule: Rule, after: Instant, until: Instant) -> Iterator[Instant]:
    return takewhile(lambda at: at <= until, rule.coming(after))
