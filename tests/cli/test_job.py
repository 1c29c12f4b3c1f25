"""`holdfast job`: all about one job, by any way of naming it."""

import json
import re
import time
from typing import Any
from uuid import UUID

import click
import pytest

from holdfast import Unique
from holdfast.app import parts_of
from holdfast.cli import ids, show
from holdfast.clock import DAY, HOUR, MINUTE
from holdfast.job import Failed, Failure, Loss, Lost, Note, Snoozed, State, Succeeded
from tests.cli.shop import Run, Shop


def _words(text: str) -> str:
    return " ".join(text.split())


def test_a_dead_job_tells_its_story(run: Run, filled: dict[str, UUID]) -> None:
    text = run("job", str(filled["dead"])).stdout
    head, sentence = text.splitlines()[:2]
    assert head == f"✕ dead   shop.send_invoice   {filled['dead']}"
    assert "1 of 3 attempts used, the last ended with TimeoutError. To try again: holdfast retry" in sentence
    assert "queue mail priority 0 attempt 1 of 3 timeout 30.0 s enqueued" in _words(text)
    assert "tags eu" in text
    assert "arguments  1\n" in text
    assert "✕ failed: TimeoutError" in text
    assert "error (attempt 1)" in text
    assert "      File shop.py\n" in text


def test_text_from_jobs_is_shown_and_not_obeyed(run: Run, filled: dict[str, UUID]) -> None:
    text = run("job", str(filled["dead"])).stdout
    assert all(line.isprintable() for line in text.splitlines())
    assert r"no \x1b[31mroute\x07 ⟪RLO⟫to" in text


@pytest.mark.parametrize(
    ("length", "words"),
    [
        (999, "999 ms"),
        (9_949, "9.9 s"),
        (10_499, "10 s"),
        (59_499, "59 s"),
        (59_500, "1 m"),
        (2 * HOUR - 1_000, "2 h"),
        (HOUR - 1_000, "1 h"),
        (89 * MINUTE, "1 h"),
        (91 * MINUTE, "2 h"),
        (47 * HOUR, "47 h"),
        (2 * DAY - 1, "2 d"),
        (-5, "0 ms"),
    ],
)
def test_a_length_of_time_in_one_unit_is_the_nearest(length: int, words: str) -> None:
    assert show.coarse(length) == words


def test_a_job_that_is_overdue_says_since_when(run: Run, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDFAST_URL", shop.url)
    made = shop.resize.using(delay="10s").enqueue("x.png").id
    assert "Due in " in run("job", str(made)).stdout
    later = show.now() + 2 * HOUR
    monkeypatch.setattr(show, "now", lambda: later)
    assert "Due for 2 h, since 20" in run("job", str(made)).stdout
    assert "no worker has looked since" in run("job", str(made)).stdout
    monkeypatch.setattr(show, "on_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "200")
    assert "due 2 h ago" in run("jobs").stdout
    assert "DUE IN " in (listed := run("jobs", "--state", "scheduled").stdout)
    assert " 2 h ago " in listed


@pytest.mark.parametrize(
    ("name", "glyph", "words"),
    [
        ("succeeded", "✓ succeeded", 'result {"width": 80}'),
        ("scheduled", "◷ scheduled", 'arguments 6, email="ann@example.com"'),
        ("retrying", "◷ scheduled", "It failed before: KeyError: 'sku'."),
        ("running", "▶ running", "Running for"),
        ("cancelled", "⊘ cancelled", "ago. not wanted"),
        ("queued", "▤ queued", "Waiting for a free worker"),
    ],
)
def test_each_state_has_its_sentence(run: Run, filled: dict[str, UUID], name: str, glyph: str, words: str) -> None:
    text = run("job", str(filled[name])).stdout
    assert text.startswith(glyph)
    assert words in _words(text)


def test_every_attempt_has_its_line(run: Run, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDFAST_URL", shop.url)
    made = shop.resize.enqueue("x.png").id
    for verdict in (Failed(Failure("OSError", "away", ""), after=0), Snoozed(0, "too early"), Succeeded(b"null")):
        shop.after(made, verdict)
    text = _words(run("job", str(made)).stdout)
    assert "1 1 20" in text
    assert "✕ failed: OSError: away" in text
    assert "snoozed: too early" in text
    assert "✓ succeeded" in text
    assert [a["ended"] for a in json.loads(run("job", str(made), "--json").stdout)["attempts"]] == ["failed", "snoozed"]


DIED = "its process (pid 5875) ended: killed by signal 9"


def test_a_run_whose_process_died_is_told_of_once_in_the_sentence_and_once_in_its_line(
    run: Run, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOLDFAST_URL", shop.url)
    made = shop.after(shop.resize.enqueue("x.png").id, Lost(Loss(DIED, culprit=True)))
    text = run("job", str(made)).stdout
    assert f"It was lost before: {DIED}." in text
    assert f"☠ lost: {DIED}" in text
    assert text.count(DIED) == 2
    assert "Lost" not in text


def test_the_stack_of_a_run_whose_process_died_is_shown(run: Run, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDFAST_URL", shop.url)
    made = shop.after(shop.resize.enqueue("x.png").id, Lost(Loss(DIED, culprit=True, stack="File shop.py, line 7")))
    assert f"  error (attempt 1)  {DIED}\n    File shop.py, line 7\n" in run("job", str(made)).stdout


def test_a_message_of_several_lines_without_a_stack_is_shown_once(
    run: Run, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOLDFAST_URL", shop.url)
    made = shop.after(shop.resize.enqueue("x.png").id, Failed(Failure("OSError", "away\nfor long", ""), final=True))
    text = run("job", str(made)).stdout
    assert "  error (attempt 1)  OSError: away\n    for long\n" in text


def test_a_narrow_terminal_cuts_no_code_of_a_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(show, "on_terminal", lambda: True)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "30")
    rows = [(show.state_of(State.RUNNING), "a" * 40), ("plain", show.painted("b" * 40, "red"))]
    for front in (False, True):
        cuts = (show.Cut(1, 5, front), show.Cut(0, 5))
        lines = list(show.table(show.Table(("STATE", "WHAT"), rows, cuts)))
        assert "\x1b[36m▶\x1b[0m running" in lines[1], "what fits keeps its colour"
        assert all(len(click.unstyle(line)) <= 30 for line in lines)
        assert all(re.sub(r"\x1b\[\d+m(.*?)\x1b\[0m", r"\1", line).isprintable() for line in lines)


def test_attempts_that_are_not_kept_are_counted(run: Run, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDFAST_URL", shop.url)
    made = shop.resize.enqueue("x.png").id
    for number in range(23):
        shop.after(made, Snoozed(0, f"no {number}"))
    text = run("job", str(made)).stdout
    assert text.index("no 1") < text.index("3 attempts are not kept") < text.index("no 5")


def test_json_is_one_object(run: Run, filled: dict[str, UUID]) -> None:
    job = json.loads(run("job", "--json", str(filled["running"])).stdout)
    assert job["state"] == "running"
    assert UUID(job["worker"])
    assert job["result"] is None


def test_short_forms_and_beginnings_are_accepted(run: Run, filled: dict[str, UUID]) -> None:
    text = str(filled["dead"])
    for name in (
        text,
        text.upper(),
        text.replace("-", ""),
        f"{text[:8]}…{text[-12:]}",
        f"{text[:8]}...{text[-12:]}",
        text[:-1],
    ):
        assert json.loads(run("job", "--json", name).stdout)["id"] == text


def test_the_form_that_tables_show_is_accepted(run: Run, shop: Shop) -> None:
    job = shop.send.enqueue(1)
    assert str(job.id) in run("job", ids.short(job.id), "--url", shop.url).stdout


def test_an_ambiguous_id_lists_the_candidates(run: Run, filled: dict[str, UUID]) -> None:
    result = run("job", str(filled["dead"])[:4], fails=True)
    assert result.exit_code == 2
    assert all(str(job) in result.stderr for job in filled.values())


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize("name", ["01234567-89ab-7def-8123-456789abcdef", "ffffffff", "ffffffff…0000"])
def test_an_unknown_id_is_4(run: Run, name: str) -> None:
    result = run("job", name, fails=True)
    assert result.exit_code == 4
    assert name in result.stderr


def test_long_arguments_are_cut_and_the_cut_says_where_the_rest_is(
    run: Run, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOLDFAST_URL", shop.url)
    made = shop.resize.enqueue("x" * 50_000).id
    text = run("job", str(made)).stdout
    assert "48,002 characters more: --json" in text
    assert max(map(len, text.splitlines())) < 2_100
    assert json.loads(run("job", "--json", str(made)).stdout)["args"] == ["x" * 50_000]


def test_what_a_running_job_says_of_itself_is_shown(run: Run, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDFAST_URL", shop.url)
    made = shop.resize.enqueue("x.png").id
    lines = tuple((1000 - n, f"line {n}") for n in range(12))
    shop.said(made, _note(progress=0.456, text="rendered\x1b[31m"), _note(lines=lines))
    text = run("job", str(made)).stdout
    assert r"progress   46 % rendered\x1b[31m" in text
    assert "log (times in UTC, the last 10 of 12 (--json has all))" in text
    assert text.rstrip().endswith("line 11")
    assert "line 1\n" not in text
    assert all(line.isprintable() for line in text.splitlines())
    document = json.loads(run("job", "--json", str(made)).stdout)
    assert (document["progress"], document["text"]) == (0.456, "rendered\x1b[31m")
    assert [line["text"] for line in document["log"]] == [f"line {n}" for n in range(12)]


def test_a_unique_key_is_shown_with_how_long_it_is_held(run: Run, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDFAST_URL", shop.url)
    until_finished = shop.resize.using(unique=Unique("thumb:1", hold="1h")).enqueue("x.png").id
    text = run("job", str(until_finished)).stdout
    assert "unique     thumb:1: holds it until it is finished and 1 h 0 m have passed" in text
    shop.after(until_finished, Succeeded(b"null"))
    text = run("job", str(until_finished)).stdout
    assert "unique     thumb:1: holds it until 20" in text
    assert "1 h more" in text
    document = json.loads(run("job", "--json", str(until_finished)).stdout)["unique"]
    assert (document["key"], document["until"], document["hold"]) == ("thumb:1", "finished", 3600)
    assert document["holds"] is True
    assert document["holds_until"].endswith("Z")
    until_started = shop.resize.using(unique=Unique("thumb:2", until="started")).enqueue("x.png").id
    assert "thumb:2: holds it until it is started" in run("job", str(until_started)).stdout
    shop.after(until_started, None)
    assert "thumb:2: does not hold it any more" in run("job", str(until_started)).stdout


def test_headers_are_shown_and_carried_texts_as_texts(run: Run, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDFAST_URL", shop.url)
    headers = {"trace": "4f1c", "who": "ann\x07", "n": "5", "tenant": '"acme"'}  # the last is as a variable travels
    made = shop.resize.using(headers=headers).enqueue("x.png").id
    assert r"headers    trace=4f1c, who=ann\x07, n=5, tenant=acme" in run("job", str(made)).stdout
    assert json.loads(run("job", "--json", str(made)).stdout)["headers"] == headers


def test_a_job_that_has_none_of_these_says_nothing_of_them(run: Run, shop: Shop) -> None:
    text = run("job", str(shop.send.enqueue(1).id), "--url", shop.url).stdout
    assert not any(word in text for word in ("progress", "log (", "unique", "headers"))


def _note(**said: Any) -> Note:
    return Note(UUID(int=0), 0, UUID(int=0), **said)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"expires": 0.001}, "ago: nobody had started it by 20"),
        ({"deadline": 0.001}, "attempts used; it was not finished by 20"),
    ],
)
def test_a_job_whose_time_was_over_says_so_in_words(
    run: Run, shop: Shop, options: dict[str, float], words: str
) -> None:
    store = parts_of(shop.jobs).link
    job = shop.resize.using(**options).enqueue("a.png").id

    async def promote() -> int:
        return len((await (await store.opened()).store.promote(10)).over)

    ends = time.monotonic() + 30
    while not store.run(promote):
        assert time.monotonic() < ends, "its time is never over"
    text = _words(run("job", str(job), "--url", shop.url).stdout)
    assert words in text
    assert next(iter(options)) + " 20" in text, "when is not said"
    assert ("To try again: holdfast retry" in text) == ("deadline" in options)
