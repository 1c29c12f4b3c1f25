"""Log lines: what people and machines read, and that no job's text can forge or break one."""

import io
import json
import logging
import os
import re
import select
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from holdfast import ConfigError
from holdfast.fingerprint import fingerprint
from holdfast.job import Failed, Failure
from holdfast.observe import logging as observed
from holdfast.observe.human import Human
from holdfast.observe.lines import Lines
from holdfast.observe.logging import adopt_root, configure, tell
from holdfast.observe.places import place
from holdfast.observe.styles import Json, KeyValue
from holdfast.observe.told import LINE_LIMIT, Told, quoted
from holdfast.observe.visible import columns, shortened, visible
from holdfast.policy import decide
from holdfast.worker import report
from tests.test_policy import claim

JOB = UUID("01a20391-922e-7b4c-a1d0-5f6e8c2b7c3e")
ABOUT = {"task": "send_invoice", "job": JOB, "queue": "mail", "attempt": "2/5", "fence": 2}
NASTY = "\x1b[31mred\x07 \u202eevil\u2066 \u2028next\nevent=succeeded job=forged\r14:00:00  ✓ forged \ud800 \x9b"


@pytest.fixture
def told() -> Iterator[list[logging.LogRecord]]:
    """The records that our logger is given, and our logger as it was afterwards."""
    records: list[logging.LogRecord] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    logger = observed.ours
    before = (logger.level, logger.propagate, list(logger.handlers))
    logger.handlers, logger.propagate = [Keep()], False
    logger.setLevel(logging.DEBUG)
    yield records
    logger.setLevel(before[0])
    logger.propagate, logger.handlers = before[1], before[2]


def _shown(form: logging.Formatter, records: list[logging.LogRecord]) -> str:
    return form.format(records[-1])


def _human(records: list[logging.LogRecord]) -> str:
    text = _shown(Human(), records)
    stamp, rest = text[:8], text[8:]
    assert re.fullmatch(r"\d\d:\d\d:\d\d", stamp)
    return rest


def _pairs(line: str) -> dict[str, str]:
    """key=value as a reader of logs would take it apart."""
    found = re.findall(r'(\w+)=("(?:[^"\\]|\\.)*"|[^\s"]*)(?: |$)', line)
    return {key: value.strip('"') for key, value in found}


def test_a_start_and_an_end_take_a_line_each(told: list[logging.LogRecord]) -> None:
    tell(observed.jobs, logging.INFO, "started", **ABOUT, waited=1.2)
    assert _human(told) == f"  ▶ send_invoice  attempt 2 of 5  queue mail  waited 1.2 s  {JOB}"
    tell(observed.jobs, logging.INFO, "succeeded", **ABOUT, ran=0.6)
    assert _human(told) == f"  ✓ send_invoice  600 ms  queue mail  {JOB}"


def test_a_failure_says_what_and_what_comes_next(told: list[logging.LogRecord]) -> None:
    tell(
        observed.jobs,
        logging.WARNING,
        "failed",
        **ABOUT,
        ran=30.0,
        error="TimeoutError",
        message="smtp.example.com:587 did not answer in 30 s",
        retry_in=2.1,
        hint=None,
    )
    assert _human(told).split("\n") == [
        "  ✕ send_invoice  attempt 2 of 5 failed after 30.0 s",
        "            TimeoutError: smtp.example.com:587 did not answer in 30 s",
        f"            retries in 2.1 s   {JOB}",
    ]


def test_the_last_failure_names_the_command(told: list[logging.LogRecord]) -> None:
    tell(
        observed.jobs,
        logging.ERROR,
        "dead",
        **{**ABOUT, "attempt": "1/1"},
        ran=0.5,
        error="KeyError",
        message="'sku'",
        retry_in=None,
        hint="no retry= set",
    )
    assert _human(told).split("\n") == [
        "  ✕ send_invoice  attempt 1 of 1 failed after 500 ms, now dead",
        "            KeyError: 'sku'",
        f"            no retry= set   holdfast retry {JOB}",
    ]


def test_key_value_has_everything_on_one_line(told: list[logging.LogRecord]) -> None:
    tell(
        observed.jobs,
        logging.WARNING,
        "failed",
        **ABOUT,
        ran=30.0,
        error="TimeoutError",
        message='said "no"',
        retry_in=2.1,
        hint=None,
    )
    told[-1].created, told[-1].msecs = 1795356231.54, 540.0
    line = _shown(KeyValue(), told)
    assert line.startswith(
        "2026-11-22T14:03:51.540Z WARNING holdfast.job event=failed task=send_invoice "
        f"job={JOB} queue=mail attempt=2/5 fence=2 ran=30.0 error=TimeoutError "
        r'message="said \"no\"" retry_in=2.1 worker='
    )
    assert "hint" not in line


def test_json_keeps_numbers_and_leaves_out_what_is_none(told: list[logging.LogRecord]) -> None:
    tell(
        observed.workers,
        logging.WARNING,
        "odd",
        worker=JOB,
        n=2**70,
        yes=True,
        nan=float("nan"),
        s=1.23456,
        nothing=None,
    )
    told[-1].created, told[-1].msecs = 1795356231.54, 540.0
    found = json.loads(_shown(Json(), told))
    assert ":" in found.pop("process"), "`worker` is a worker's id here"
    assert found == {
        "time": "2026-11-22T14:03:51.540Z",
        "level": "WARNING",
        "logger": "holdfast.worker",
        "event": "odd",
        "worker": str(JOB),
        "n": 2**70,
        "yes": True,
        "nan": "nan",
        "s": 1.235,
    }


def test_time_stamps_follow_the_record(told: list[logging.LogRecord]) -> None:
    form = KeyValue()
    tell(observed.jobs, logging.INFO, "started", **ABOUT, waited=0.0)
    stamps = []
    for created in (1795356231.001, 1795356231.999, 1795356232.0, 1795356231.5):
        told[-1].created, told[-1].msecs = created, round(created % 1 * 1000)
        stamps.append(form.format(told[-1]).split(" ")[0])
    assert stamps == [f"2026-11-22T14:03:{rest}Z" for rest in ("51.001", "51.999", "52.000", "51.500")]


@pytest.mark.parametrize(
    ("level", "event", "fields"),
    [
        (logging.INFO, "started", {"worker": JOB, "slots": 10, "store": "sqlite:////x.db"}),
        (logging.INFO, "stopping", {"worker": JOB, "running": 7, "deadline": 10.0, "given_back": 3}),
        (logging.INFO, "stopping", {"of": "the supervisor"}),
        (logging.INFO, "stopped", {"worker": JOB, "finished": 6, "refused": 0, "forced": 1, "not_recorded": 0}),
        (logging.WARNING, "store-away", {"role": "fetcher", "error": "disk full"}),
        (logging.ERROR, "never-heard-of", {"child": 3, "cause": "killed by signal 9", "nothing": None}),
    ],
)
def test_every_event_about_workers_keeps_its_facts(
    told: list[logging.LogRecord], level: int, event: str, fields: dict[str, Any]
) -> None:
    tell(observed.workers, level, event, **fields)
    machine = _pairs(_shown(KeyValue(), told))
    assert machine["event"] == event
    assert {k: machine[k] for k, v in fields.items() if v is not None} == {
        k: str(v) for k, v in fields.items() if v is not None
    }
    assert "nothing" not in machine
    human = _human(told)
    assert "\n" not in human
    for name, value in fields.items():
        if value is not None and name not in ("worker", "deadline"):
            assert str(value) in human


def test_the_job_is_the_last_word_of_other_lines_about_it(told: list[logging.LogRecord]) -> None:
    tell(observed.jobs, logging.WARNING, "refused", job=JOB, fence=3, ended="succeeded", message="a late outcome")
    assert _human(told) == f"  ▲ refused: a late outcome  fence 3  ended succeeded  {JOB}"
    tell(observed.jobs, logging.INFO, "snoozed", **ABOUT, ran=0.01, reason="busy")
    assert _human(told).startswith("  ◷ send_invoice  snoozed: busy  queue mail")
    assert _human(told).endswith(str(JOB))


def test_plain_records_of_ours_are_shown_with_their_traceback(told: list[logging.LogRecord]) -> None:
    try:
        raise ValueError("boom")
    except ValueError:
        observed.workers.exception("in the step of %s", "fetcher")
    human = _human(told)
    assert human.startswith("  ✕ in the step of fetcher\n            Traceback")
    assert human.endswith("            ValueError: boom")
    line = _shown(KeyValue(), told)
    assert "\n" not in line
    assert 'message="in the step of fetcher" traceback="Traceback' in line
    assert json.loads(_shown(Json(), told))["traceback"].endswith("ValueError: boom")


@pytest.mark.parametrize("event", ["failed", "dead", "refused", "snoozed"])
def test_text_from_jobs_cannot_forge_or_break_a_line(told: list[logging.LogRecord], event: str) -> None:
    fields = {**ABOUT, "task": NASTY, "error": NASTY, "message": NASTY, "reason": NASTY, "ran": 1.0}
    tell(observed.jobs, logging.WARNING, event, **fields)
    line = _shown(KeyValue(), told)
    assert line.isprintable(), "one line, and nothing that a terminal obeys"
    assert _pairs(line)["event"] == event
    assert _pairs(line)["job"] == str(JOB)
    line = _shown(Json(), told)
    assert line.isprintable()
    assert json.loads(line)["event"] == event
    assert json.loads(line)["message"] == NASTY
    human = _human(told)
    assert all(text.isprintable() for text in human.split("\n"))
    assert all(text.startswith("            ") for text in human.split("\n")[1:])
    assert r"\x1b[31mred\x07 ⟪RLO⟫evil⟪LRI⟫" in human


@pytest.mark.parametrize("form", [Human(), Human(colour=True), KeyValue(), Json()])
@pytest.mark.parametrize(
    "text",
    ["x" * 100_000, "\n" * 100_000, "\x1b" * 100_000, "a\nb" * 50_000, "é" * 100_000, "中" * 1_900, "😀" * 1_900],
)
def test_a_line_is_bounded_and_the_cut_is_visible(
    told: list[logging.LogRecord], form: logging.Formatter, text: str
) -> None:
    tell(observed.jobs, logging.WARNING, "failed", **ABOUT, ran=1.0, error="E", message=text, retry_in=1.0)
    line = _shown(form, told)
    assert len(line.encode()) <= LINE_LIMIT
    assert " more" in line
    if isinstance(form, KeyValue):
        assert _pairs(line)["retry_in"] == "1.0"
    if isinstance(form, Json):
        assert json.loads(line)["retry_in"] == 1.0
    tell(observed.jobs, logging.WARNING, "refused", job=JOB, message=text)
    assert len(_shown(form, told).encode()) <= LINE_LIMIT
    many = {f"field_{number}": text[:500] for number in range(100)}
    tell(observed.jobs, logging.WARNING, "refused", job=JOB, **many)
    line = _shown(form, told)
    assert len(line.encode()) <= LINE_LIMIT
    assert not isinstance(form, Json) or json.loads(line)["event"] == "refused"


def test_a_cut_value_still_ends_its_quotes() -> None:
    assert quoted("a b" * 10_000).endswith(' more]"')
    assert quoted("\x1b" * 10_000).endswith(' more]"')


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("plain", "plain"),
        ("", '""'),
        ("two words", '"two words"'),
        ('say "x" \\ y', r'"say \"x\" \\ y"'),
        ("a=b", '"a=b"'),
        ("Zoë", "Zoë"),
        ("line\nline", r'"line\nline"'),
        ("\x1b[0m", r'"\u001b[0m"'),
        ("\U000e0041", r'"\U000e0041"'),
        (30.0, "30.0"),
        (0.00049, "0.0"),
        (2.1, "2.1"),
        (7, "7"),
        (True, "True"),
        (JOB, str(JOB)),
    ],
)
def test_values_are_quoted_where_they_must_be(value: object, text: str) -> None:
    assert quoted(value) == text


def test_what_is_below_the_level_is_not_made(told: list[logging.LogRecord]) -> None:
    observed.ours.setLevel(logging.WARNING)
    tell(observed.jobs, logging.INFO, "succeeded", **ABOUT, ran=0.6)
    assert told == []


# --- configure


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def _configured(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, style: Any, level: str = "info") -> str:
    monkeypatch.setattr(sys, "stderr", stream)
    configure(style, level)
    tell(observed.jobs, logging.INFO, "succeeded", **ABOUT, ran=0.6)
    return stream.getvalue()


@pytest.mark.usefixtures("told")
def test_people_get_the_human_form_and_pipes_get_key_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[32m✓\x1b[0m" in _configured(monkeypatch, Screen(), None)
    assert " event=succeeded " in _configured(monkeypatch, io.StringIO(), None)
    assert " event=succeeded " in _configured(monkeypatch, Screen(), "kv")
    piped = _configured(monkeypatch, io.StringIO(), "human")
    assert "✓ send_invoice" in piped
    assert "\x1b" not in piped


@pytest.mark.usefixtures("told")
def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in _configured(monkeypatch, Screen(), None)


@pytest.mark.usefixtures("told")
def test_a_second_call_replaces_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    first = io.StringIO()
    before = _configured(monkeypatch, first, "kv")
    assert _configured(monkeypatch, io.StringIO(), "kv").count("\n") == 1
    assert first.getvalue() == before
    assert sum(isinstance(handler, Lines) for handler in observed.ours.handlers) == 1


@pytest.mark.usefixtures("told")
def test_a_record_is_shown_once_even_if_the_app_has_a_root_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    root = io.StringIO()
    handler = logging.StreamHandler(root)
    logging.getLogger().addHandler(handler)
    observed.ours.propagate = True
    try:
        assert _configured(monkeypatch, io.StringIO(), "kv").count("\n") == 1
    finally:
        logging.getLogger().removeHandler(handler)
    assert root.getvalue() == ""


@pytest.mark.usefixtures("told")
def test_the_level_is_applied(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _configured(monkeypatch, io.StringIO(), "kv", "warning") == ""


@pytest.mark.usefixtures("told")
def test_an_unknown_level_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="log level 'loud': there are debug, info"):
        configure("kv", "loud")


# --- text


def test_visible_keeps_what_people_write() -> None:
    for text in ("Zoë Müller", "日本語", "👩‍👩‍👧 family", "naïve\u00a0space", "می‌خواهم"):
        assert visible(text) == text


def test_visible_shows_what_a_terminal_would_obey() -> None:
    assert visible("a\x1b[2Jb\tc\nd\x00\x9b") == r"a\x1b[2Jb\tc\nd\x00\x9b"
    assert visible("\u202eabc\u202c\u200b\U000e0041\ud800") == r"⟪RLO⟫abc⟪PDF⟫\u200b\U000e0041\ud800"


def test_texts_are_cut_by_the_columns_that_they_take() -> None:
    assert shortened("abcdef", 6) == "abcdef"
    assert shortened("abcdef", 5) == "abcd…"
    assert shortened("日本語です", 6) == "日本…"
    assert columns("e\u0301") == 1


def test_the_place_of_an_error_is_the_innermost_frame_of_own_code() -> None:
    import json

    from holdfast.policy import failure

    def handler() -> None:
        json.loads("{")  # fails inside the standard library

    with pytest.raises(json.JSONDecodeError) as caught:
        handler()
    line = handler.__code__.co_firstlineno + 1
    found = place(failure(caught.value).traceback)
    assert found is not None
    assert found.endswith(f"tests/test_logging.py:{line} in handler")
    assert place("") is None


GROUP = """  + Exception Group Traceback (most recent call last):
  |   File "/srv/shop/mail.py", line 8, in send
  |     async with asyncio.TaskGroup() as group:
  | ExceptionGroup: unhandled errors in a TaskGroup (1 sub-exception)
  +-+---------------- 1 ----------------
    | Traceback (most recent call last):
    |   File "/srv/shop/smtp.py", line 9, in talk
    | ZeroDivisionError: division by zero
    +------------------------------------
"""


@pytest.mark.parametrize(
    ("text", "message", "expected"),
    [
        (GROUP, "unhandled errors in a TaskGroup (1 sub-exception)", "/srv/shop/mail.py:8 in send"),
        (
            '  File "/srv/v/site-packages/shop/mail.py", line 8, in send\n',
            "",
            "/srv/v/site-packages/shop/mail.py:8 in send",
        ),
        ('  File "/srv/v/site-packages/smtp/mail.py", line 8, in send\n', "", None),
        ('  File "/nix/my-packages/mail.py", line 8, in send\n', "", "/nix/my-packages/mail.py:8 in send"),
        (
            '  File "/srv/shop/mail.py", line 8, in send\nOSError: said\n  File "/x.py", line 1, in y',
            'said\n  File "/x.py", line 1, in y',
            "/srv/shop/mail.py:8 in send",
        ),
    ],
)
def test_the_place_that_is_told_of_an_error_is_the_one_that_marks_it(
    text: str, message: str, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert place(text, "shop.send", message) == expected
    error, elsewhere = Failure("OSError", message, text), Failure("OSError", message, "")
    assert (fingerprint("shop.send", error) == fingerprint("shop.send", elsewhere)) is (expected is None)
    at = place(text, "shop.send", message)
    told = list[dict[str, Any]]()
    monkeypatch.setattr(report, "tell_attempt", lambda level, event, claim, fields: told.append(fields))
    of = claim(task="shop.send")
    report.tell_failed(of, decide(of, Failed(error)))
    assert told[0]["at"] == at


def test_the_place_of_an_error_is_found_where_the_working_directory_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    (tmp_path / "release").mkdir()
    monkeypatch.chdir(tmp_path / "release")
    (tmp_path / "release").rmdir()  # as a deploy does, under a worker that runs
    assert place('  File "/srv/shop/mail.py", line 8, in send\n') == "/srv/shop/mail.py:8 in send"


def test_a_handler_that_does_not_wait_leaves_out_what_nobody_reads() -> None:
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as reading, os.fdopen(writer, "w", buffering=1) as stream:
        handler = Lines(stream, waits=False)
        record = logging.makeLogRecord(
            {"msg": Told("beat", {"seconds": 1}), "name": "holdfast", "levelno": logging.INFO}
        )
        handler.emit(record)
        first = os.read(reading.fileno(), 100)
        while select.select([], [writer], [], 0)[1]:
            os.write(writer, b"x" * 4096)
        handler.emit(record)  # would wait for ever
        os.read(reading.fileno(), 4096)
        long = logging.makeLogRecord(vars(record) | {"msg": Told("beat", dict.fromkeys("abc", "x" * 2000))})
        handler.emit(long)  # there is room, and not for all of it: this form has no limit of its own
        os.read(reading.fileno(), 1_000_000)
        handler.emit(record)
        assert os.read(reading.fileno(), 100) == first


@pytest.mark.usefixtures("told")
def test_an_app_that_sets_up_its_own_logging_does_not_silence_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    silenced = [observed.ours, observed.jobs, observed.workers, observed.stores, logging.getLogger("shop.old")]
    for logger in silenced:  # as dictConfig does with all that it does not name
        monkeypatch.setattr(logger, "disabled", True)
    monkeypatch.setattr(logging.getLogger(), "handlers", [logging.NullHandler()])
    adopt_root("info")
    assert [logger.disabled for logger in silenced] == [False, False, False, False, True]
