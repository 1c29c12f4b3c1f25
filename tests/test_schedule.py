"""Schedules as values: what a rule may be, what is missed, which job a tick makes, and what is written down."""

import functools
import json
import math
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.clock import DAY, HOUR, MINUTE, SECOND, Instant, instant, moment
from holdfast.errors import ConfigError, PayloadError, StoreError
from holdfast.headers import SCHEDULE, SCHEDULED_FOR, headers_of
from holdfast.job import Draft, Terms, UniqueKey, Until
from holdfast.schedule import rule as rules
from holdfast.schedule.cron import cron
from holdfast.schedule.entry import Definition, Text, read, tick_id
from holdfast.schedule.rule import BEHIND_MOST, Rule, Step, plan, rule_of

NOON = instant(datetime(2026, 11, 22, 12, tzinfo=UTC), "noon")


# --- texts


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0 9 * * MON-FRI", "At 09:00 on Monday through Friday"),
        ("@daily", "At 00:00 every day"),
        ("@Hourly", "At the start of every hour"),
        ("*/5 * * * *", "Every fifth minute of every hour"),
        ("*/10 * * * * *", "Every 10th second of every minute"),
        ("0 0 * * MON#1", "At 00:00 on the first Monday of the month"),
        ("0 0 L * *", "At 00:00 on the last day of every month"),
        ("0 0 1,2,3,21,22,23,31 * *", "the first, the second, the third, the 21st, the 22nd, the 23rd, and the 31st"),
    ],
)
def test_a_text_in_english(text: str, words: str) -> None:
    assert words in rule_of(cron=text).explain()


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("@yearly", "2027-01-01T00:00:00"),
        ("@monthly", "2026-12-01T00:00:00"),
        ("@weekly", "2026-11-29T00:00:00"),
        ("@midnight", "2026-11-23T00:00:00"),
        ("0 0 29 2 *", "2028-02-29T00:00:00"),
        ("0 0 * * 5L", "2026-11-27T00:00:00"),
        ("0 0 LW * *", "2026-11-30T00:00:00"),
        ("0 0 13 * FRI", "2026-11-27T00:00:00"),  # either, as in Debian's cron
        ("30 0 12 * * *", "2026-11-22T12:00:30"),
        ("  0   13 * *  sun ", "2026-11-22T13:00:00"),
    ],
)
def test_the_first_time_of_a_text(text: str, first: str) -> None:
    at = rule_of(cron=text).next(NOON)
    assert at is not None
    assert moment(at) == datetime.fromisoformat(first).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("0 0 31 2 *", "month 2 never has day 31"),
        ("0 0 30 FEB *", "month FEB never has day 30"),
        ("0 0 31 4,6 *", "never has day 31"),
        ("0 0 */31 * MON#5", "there is no such day in fifty years"),
        ("", "it has 0 fields"),
        ("* * * *", "it has 4 fields"),
        ("0 0 * * * * *", "it has 7 fields"),
        ("0 24 * * *", "'24' is no hour: 0 to 23"),
        ("60 * * * *", "'60' is no minute"),
        ("x * * * * *", "'x' is no second"),
        ("* * * * MON#6", "'MON#6' is no day of week"),
        ("* * ? * *", "'?' is no day of month"),
        ("*/0 * * * *", "'*/0' is no minute"),
        ("5-1 * * * *", "'5-1' is no minute"),
        ("@reboot", "there are @yearly"),
        ("@every 5m", "every='5m'"),
        ("* " * 500, "at most 200"),
    ],
)
def test_texts_that_are_none(text: str, why: str) -> None:
    with pytest.raises(ConfigError, match=r"^cron=") as raised:
        rule_of(cron=text)
    assert why in str(raised.value)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({}, "give cron= or every="),
        ({"cron": "@daily", "every": "5m"}, "not both"),
        ({"cron": 5}, "cron=5: a text"),
        ({"every": 0}, "every=0"),
        ({"every": "50ms"}, "at least a second"),
        ({"every": "5 minutes"}, "every='5 minutes'"),
        ({"every": "5m", "tz": "Europe/Amsterdam"}, "an interval has no time zone"),
        ({"cron": "@daily", "tz": "Europe/Amsterdan"}, "did you mean Europe/Amsterdam"),
        ({"cron": "@daily", "tz": "new york"}, "did you mean America/New_York"),
        ({"cron": "@daily", "tz": "../../etc/passwd"}, "no such time zone"),
        ({"cron": "@daily", "tz": "right/UTC"}, "no such time zone"),
        ({"cron": "@daily", "tz": "Europe"}, "no such time zone"),
        ({"cron": "@daily", "tz": 1}, "a zone's name"),
        ({"cron": "@daily", "missed": "twice"}, "'skip' or 'once' or 'all'"),
        ({"cron": "@daily", "overlap": "queue"}, "'skip' or 'allow'"),
        ({"cron": "@daily", "jitter": "2d"}, "jitter='2d': at most a day"),
        ({"cron": "@daily", "jitter": -1}, "jitter=-1"),
    ],
)
def test_rules_that_are_none(wrong: dict[str, object], why: str) -> None:
    with pytest.raises(ConfigError) as raised:
        rule_of(**wrong)  # type: ignore[arg-type]
    assert why in str(raised.value)


def test_without_a_time_zone_database_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoneinfo.available_timezones", set)
    with pytest.raises(ConfigError, match="install tzdata"):
        rule_of(cron="@daily", tz="No/Database")
    assert rule_of(cron="@daily").next(NOON), "UTC needs none"


@settings(max_examples=200)
@given(
    st.text("0123456789*/,-#LWMONJAN? @²٣\x00", max_size=60) | st.from_regex(r"([0-9*/,L#-]{1,6} ){4,5}[0-9A-Z#]{1,5}")
)
def test_any_text_is_a_schedule_or_a_config_error(text: str) -> None:
    try:
        rule = rule_of(cron=text, tz="Europe/Amsterdam")
    except ConfigError:
        return
    first, second = islice(rule.coming(NOON), 2)
    assert NOON < first < second
    assert rule.explain()


def test_an_interval_is_counted_from_1970() -> None:
    rule = rule_of(every="5m")
    assert list(islice(rule.coming(NOON), 2)) == [NOON + 5 * MINUTE, NOON + 10 * MINUTE]
    assert rule.next(NOON + 1) == NOON + 5 * MINUTE
    assert rule.next(NOON - 1) == NOON
    assert [rule_of(every=it).explain() for it in ("5m", "1h", 1, timedelta(days=2), "1.5s")] == [
        "Every 5 minutes",
        "Every hour",
        "Every second",
        "Every 2 days",
        "Every 1.5 s",
    ]


def test_a_time_beyond_the_calendar_is_none() -> None:
    last = instant(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC), "last")
    assert rule_of(cron="@daily").next(last) is None
    assert rule_of(cron="0 3 * * *", tz="Europe/Amsterdam").next(last) is None


# --- what is missed


@pytest.mark.parametrize(
    ("missed", "behind", "step"),
    [
        ("skip", 0, Step(NOON, NOON + 5 * MINUTE, makes=True)),
        ("skip", MINUTE, Step(NOON, NOON + 5 * MINUTE, makes=True)),
        ("skip", MINUTE + 1, Step(NOON, NOON + 5 * MINUTE, makes=False, missed=1)),
        ("skip", 10 * MINUTE, Step(NOON + 10 * MINUTE, NOON + 15 * MINUTE, makes=True, missed=2)),
        ("skip", 12 * MINUTE, Step(NOON + 10 * MINUTE, NOON + 15 * MINUTE, makes=False, missed=3)),
        ("once", 0, Step(NOON, NOON + 5 * MINUTE, makes=True)),
        ("once", 4 * MINUTE, Step(NOON, NOON + 5 * MINUTE, makes=True)),
        ("once", 12 * MINUTE, Step(NOON + 10 * MINUTE, NOON + 15 * MINUTE, makes=True, missed=2)),
        ("all", 0, Step(NOON, NOON + 5 * MINUTE, makes=True)),
        ("all", 12 * MINUTE, Step(NOON, NOON + 5 * MINUTE, makes=True)),
        ("all", 99 * 5 * MINUTE, Step(NOON, NOON + 5 * MINUTE, makes=True)),
        ("all", 101 * 5 * MINUTE, Step(NOON + 10 * MINUTE, NOON + 15 * MINUTE, makes=True, missed=2)),
    ],
)
def test_what_a_late_tick_means(missed: rules.Missed, behind: int, step: Step) -> None:
    assert plan(rule_of(every="5m", missed=missed), NOON, NOON + behind) == step


@pytest.mark.parametrize(
    "when", [{"every": 1}, {"cron": "* * * * * *"}, {"cron": "*/2 * * * * *", "tz": "Asia/Kolkata"}]
)
@pytest.mark.parametrize("missed", ["skip", "once", "all"])
def test_a_year_of_seconds_is_not_walked_through(when: dict[str, object], missed: rules.Missed) -> None:
    rule = rule_of(missed=missed, **when)  # type: ignore[arg-type]
    first = rule.next(NOON - 400 * DAY - 1)
    assert first == NOON - 400 * DAY
    whole = 400 * DAY // (2 * SECOND if "tz" in when else SECOND) + 1
    step = plan(rule, first, NOON)
    latest = step.at if missed != "all" else list(islice(rule.coming(step.at), BEHIND_MOST - 1))[-1]
    assert latest == NOON
    assert step.makes
    assert step.missed == whole - (BEHIND_MOST if missed == "all" else 1)


@settings(max_examples=40)
@given(
    st.sampled_from(["*/7 3-9 1,15 * MON", "0 0 * * *", "5,10 */6 * * *", "*/20 30 1-4 * * *", "0 12 L * *"]),
    st.integers(0, 400 * DAY),
    st.integers(0, 40 * DAY),
)
def test_counting_is_as_walking(text: str, since: int, length: int) -> None:
    rule = rule_of(cron=text)
    walked = sum(1 for _ in rules._between(rule, NOON + since, NOON + since + length))  # noqa: SLF001  # the slow way
    assert rule.between(NOON + since, NOON + since + length) == walked


def test_steps_make_up_for_each_tick_once_and_in_order() -> None:
    rule, now = rule_of(cron="*/10 * * * *", tz="Europe/Amsterdam", missed="all"), NOON + 3 * HOUR
    made, next_at = list[Instant](), NOON
    while next_at <= now:
        step = plan(rule, next_at, now)
        made.append(step.at)
        assert step.next_at is not None
        next_at = step.next_at
    assert made == [NOON + n * 10 * MINUTE for n in range(19)]


def test_all_allows_overlap_unless_told_otherwise() -> None:
    assert rule_of(every="5m").overlap == "skip"
    assert rule_of(every="5m", missed="all").overlap == "allow"
    assert rule_of(every="5m", missed="all", overlap="skip").overlap == "skip"


# --- the job of a tick


def draft(**changes: object) -> Draft:
    fields = {"id": uuid4(), "task": "shop.report", "queue": "mail", "payload": b'{"args":["us"]}', "terms": Terms()}
    return Draft(**fields | changes)  # type: ignore[arg-type]


def test_a_tick_makes_a_job_that_knows_it() -> None:
    definition = Definition(rule_of(every="5m"), draft(headers='{"trace":"1"}'))
    job = definition.made("nightly", tick_id("nightly", NOON), NOON)
    assert headers_of(job.headers) == {"trace": "1", SCHEDULE: "nightly", SCHEDULED_FOR: "2026-11-22T12:00:00+00:00"}
    assert job.unique == UniqueKey("schedule:nightly")
    assert job.at == NOON
    now = definition.made("nightly", uuid4(), None)
    assert (now.at, headers_of(now.headers)) == (None, {"trace": "1", SCHEDULE: "nightly"})


def test_its_ends_count_from_when_it_is_due() -> None:
    """However late the tick is, what nobody wants any more is not run; and jitter takes nothing of either."""
    ends = draft(expires=Until(5 * SECOND), deadline=Until(7 * SECOND))
    definition = Definition(rule_of(every="5m", jitter="4m"), ends)
    for at in range(NOON, NOON + 20 * 5 * MINUTE, 5 * MINUTE):
        job = definition.made("nightly", tick_id("nightly", at), at)
        assert job.at is not None
        assert job.expires == Until(at=job.at + 5 * SECOND)
        assert job.deadline == Until(job.at - at + 7 * SECOND)
    now = definition.made("nightly", uuid4(), None)
    assert (now.expires, now.deadline) == (Until(5 * SECOND), Until(7 * SECOND))
    assert Definition(rule_of(every="5m"), draft()).made("n", uuid4(), NOON).expires is None


def test_a_key_of_its_own_stays() -> None:
    own = UniqueKey("mine", "started")
    assert Definition(rule_of(every="5m"), draft(unique=own)).made("n", uuid4(), NOON).unique == own
    assert Definition(rule_of(every="5m", overlap="allow"), draft()).made("n", uuid4(), NOON).unique is None


def test_ids_of_ticks_are_their_own_and_always_the_same() -> None:
    ids = {tick_id(name, at) for name in ("a", "b") for at in range(0, 500 * SECOND, SECOND)}
    assert len(ids) == 1000
    assert {(one.version, one.variant) for one in ids} == {(8, "specified in RFC 4122")}
    assert str(tick_id("nightly", NOON)) == str(tick_id("nightly", NOON)), "every worker makes the same one"


def test_jitter_is_spread_and_always_the_same() -> None:
    definition = Definition(rule_of(every="5m", jitter="1m"), draft())
    late = [definition.jitter("nightly", NOON + n * MINUTE) for n in range(200)]
    assert late == [definition.jitter("nightly", NOON + n * MINUTE) for n in range(200)]
    assert 0 <= min(late) < 10 * SECOND
    assert 50 * SECOND < max(late) <= MINUTE
    job = definition.made("nightly", uuid4(), NOON)
    assert job.at == NOON + late[0]


# --- what is written down


def test_what_is_written_is_read_again() -> None:
    whole = draft(
        id=UUID(int=0),
        payload='{"args":["ä☃"]}'.encode(),
        priority=3,
        tags=("eu",),
        headers='{"a":"b"}',
        alone=True,
        unique=UniqueKey("k", "started", 5, "raise"),
        expires=Until(5),
        deadline=Until(at=NOON),
        terms=Terms(3, 2, 1, 0.5, 0, 9, 8),
    )
    definition = Definition(rule_of(cron="0 9 * * *", tz="Asia/Tokyo", missed="all", jitter=3), whole, "shop.mail")
    text = Text(declared=definition, edited=Definition(Rule(every=5000), draft(id=UUID(int=0))))
    again = read(text.written(), "n")
    assert again.declared == definition
    assert again.effective == text.effective == again.edited


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"declared": 1, "edited": null}', '{"declared": {"rule": {"x": 1}}}']
)
def test_what_nobody_can_read_is_a_store_error(text: str) -> None:
    with pytest.raises(StoreError, match="schedule nightly: its entry"):
        read(text, "nightly")


_ANY = {
    "declared": {
        "rule": {"cron": None, "every": 60_000, "tz": "UTC", "missed": "once", "overlap": "skip", "jitter": 0},
        "job": {
            "task": "shop.mail",
            "queue": "mail",
            "payload": "{}",
            "terms": [1, 0, 0, 0.2, 0, None, 0],
            "priority": 0,
            "tags": [],
            "headers": "",
            "alone": False,
            "unique": None,
            "expires": None,
            "deadline": None,
        },
        "owner": "shop",
    },
    "edited": None,
}
_DEEP = "[" * 100_000


def _with(place: str, value: object) -> str:
    """_ANY, with another value at one place."""
    document: dict[str, Any] = json.loads(json.dumps(_ANY))
    *path, last = place.split(".")
    functools.reduce(lambda found, name: found[name], path, document)[last] = value
    return json.dumps(document)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("declared.rule.every", 0),
        ("declared.rule.every", -5),
        ("declared.rule.every", 1),
        ("declared.rule.every", 10**30),
        ("declared.rule.every", True),
        ("declared.rule.every", 60_000.0),
        ("declared.rule.every", None),
        ("declared.rule.cron", "* * * * *"),
        ("declared.rule.cron", 5),
        ("declared.rule.tz", None),
        ("declared.rule.tz", "Mars/Base"),
        ("declared.rule.tz", "x" * 100_000),
        ("declared.rule.missed", "later"),
        ("declared.rule.missed", []),
        ("declared.rule.overlap", None),
        ("declared.rule.jitter", -1),
        ("declared.rule.jitter", "5m"),
        ("declared.rule.new", 1),
        ("declared.job", None),
        ("declared.job.new", 1),
        ("declared.job.task", ""),
        ("declared.job.queue", 7),
        ("declared.job.payload", None),
        ("declared.job.payload", "\ud800"),
        ("declared.job.terms", [1, 0, 0]),
        ("declared.job.terms", [1, 0, 0, math.nan, 0, None, 0]),
        ("declared.job.terms", [1, None, 0, 0.2, 0, None, 0]),
        ("declared.job.priority", "high"),
        ("declared.job.tags", "eu"),
        ("declared.job.tags", [5]),
        ("declared.job.headers", "{"),
        ("declared.job.headers", "[]"),
        ("declared.job.headers", '{"a": 5}'),
        ("declared.job.headers", _DEEP),
        ("declared.job.headers", None),
        ("declared.job.alone", 1),
        ("declared.job.unique", "key"),
        ("declared.job.unique", ["k", "never", 0, "return"]),
        ("declared.job.unique", ["k", "started", 0, ["return"]]),
        ("declared.job.expires", 60_000),
        ("declared.job.deadline", [0, 10**30]),
        ("declared.owner", None),
        ("declared", []),
        ("edited", "x"),
        ("new", 1),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_value_of_the_wrong_kind_is_a_store_error_that_names_it(place: str, value: object) -> None:
    assert read(json.dumps(_ANY), "nightly").declared is not None
    with pytest.raises(StoreError, match="schedule nightly: its entry") as caught:
        read(_with(place, value), "nightly")
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("text", [_DEEP, '{"declared": ' + "9" * 5000 + ', "edited": null}'])
def test_a_text_that_no_parser_takes_is_a_store_error(text: str) -> None:
    with pytest.raises(StoreError, match="schedule nightly: its entry"):
        read(text, "nightly")


def test_an_entry_has_a_limit() -> None:
    large = Definition(rule_of(every=5), draft(payload=b'"' + b"\\" * 1_100_000 + b'"'))
    with pytest.raises(PayloadError, match=r"would be 2,200,\d{3} bytes, at most 2,097,152"):
        Text(edited=large).written()


def test_cron_texts_are_parsed_once() -> None:
    assert cron("0 9 * * *", "UTC") is cron("0 9 * * *", "UTC")
