"""`holdfast queues`, `queues set` and `queues reset`: what is shown, what is in effect then, what is refused."""

import json
from typing import Any
from uuid import UUID

import pytest

from holdfast import QueueFull
from holdfast.app import parts_of
from holdfast.cli import show
from holdfast.job import QueueTerms
from tests.cli.shop import Run, Shop


@pytest.fixture
def at(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.setenv("HOLDFAST_URL", shop.url)
    return shop


def test_pipes_get_stable_columns(run: Run, shop: Shop, filled: dict[str, UUID]) -> None:
    run("queues", "set", "mail", "--max-size", "5")
    rows = [line.split("\t") for line in run("queues").stdout.splitlines()]
    assert [row[0] for row in rows] == ["default", "mail"]
    assert {len(row) for row in rows} == {15}
    default, mail = rows
    assert default[1:9] == ["1", "0", "1", "0", "", "", "", "0"]
    assert mail[1:9] == ["1", "1", "0", "1", "2", "5", "reject", "0"]
    assert mail[9] == show.iso(shop.record(filled["queued"]).due_at)
    assert (default[9:], mail[10:]) == (["", "", "1", "", "", ""], ["edited", "1", "", "", ""])


def test_people_get_a_table(run: Run, filled: dict[str, UUID], monkeypatch: pytest.MonkeyPatch) -> None:
    run("queues", "set", "mail", "--max-size", "2", "--when-full", "block", "--block-timeout", "5s")
    monkeypatch.setattr(show, "on_terminal", lambda: True)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    lines = [" ".join(line.split()) for line in run("queues").stdout.splitlines()]
    assert lines[0] == "QUEUE SCHEDULED QUEUED RUNNING DEAD PLACES WHEN FULL DROPPED OLDEST"
    assert lines[1] == "default 1 0 1 0 no bound 0"
    assert lines[2].startswith("mail 1 1 0 1 2/2* ▲ block 5.0 s 0 ")
    assert lines[3].startswith("* an operator's: `holdfast queues reset QUEUE`")


def test_a_narrow_terminal_shows_names_whole_and_leaves_out_what_says_nothing(
    run: Run, at: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "mail-bulk-newsletters"
    run("queues", "set", name, "--max-size", "10000", "--when-full", "block", "--block-timeout", "5s")
    at.send.using(queue=name).enqueue(1)
    monkeypatch.setattr(show, "on_terminal", lambda: True)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    heads, row, _ = run("queues").stdout.splitlines()
    assert heads.split() == ["QUEUE", "QUEUED", "RUNNING", "DEAD", "PLACES", "WHEN", "FULL", "OLDEST"]
    assert row.split()[:2] == [name, "1"]
    assert "1/10,000*  block 5.0 s" in row
    assert max(len(heads), len(row)) <= 80
    monkeypatch.setenv("COLUMNS", "60")
    heads, row, _ = run("queues").stdout.splitlines()
    assert row.split()[0] == name
    assert max(len(heads), len(row)) <= 60


def test_json_has_one_object_for_each_queue(run: Run, filled: dict[str, UUID]) -> None:
    run("queues", "set", "mail", "--max-size", "7", "--when-full", "block", "--block-timeout", "1.5")
    mail = json.loads(run("queues", "--json").stdout.splitlines()[1])
    assert mail["queue"] == "mail"
    assert (mail["scheduled"], mail["queued"], mail["running"], mail["dead"]) == (1, 1, 0, 1)
    assert (mail["max_size"], mail["admitted"], mail["when_full"], mail["block_timeout"]) == (7, 2, "block", 1.5)
    assert mail["edited"] is True


def test_quiet_prints_names(run: Run, filled: dict[str, UUID]) -> None:
    assert run("queues", "-q").stdout == "default\nmail\n"


def test_drops_are_counted(run: Run, at: Shop) -> None:
    run("queues", "set", "mail", "--max-size", "1", "--when-full", "drop_oldest")
    first = at.send.enqueue(1)
    at.send.enqueue(2)
    assert first.status().state == "cancelled"
    assert run("queues").stdout.split("\t")[8] == "1"


def test_no_queue_is_no_error(run: Run, at: Shop) -> None:
    result = run("queues")
    assert result.stdout == ""
    assert "no queue in sqlite:" in result.stderr


# --- set


def test_set_is_in_effect_at_once_and_prints_before_and_after(run: Run, at: Shop) -> None:
    at.jobs.queue("mail", max_size=10)
    at.send.enqueue(1)
    result = run("queues", "set", "mail", "--max-size", "2", "--when-full", "drop_newest")
    lines = result.stdout.splitlines()
    assert lines[0] == "mail  before  10 places, when full reject (as code declares)"
    assert lines[1] == "      now     2 places, when full drop_newest (edited)"
    assert "an enqueue that finds no place drops its job" in lines[2]
    assert "1 of 2 places taken." in lines[3]
    assert "stays until `holdfast queues reset mail`" in lines[-1]
    assert result.stderr == ""
    at.send.enqueue(2)
    assert not at.send.enqueue(3).created
    assert at.queue("mail").terms == QueueTerms(2, "drop_newest", None)


def test_what_is_not_given_stays(run: Run, at: Shop) -> None:
    at.jobs.queue("mail", max_size=10, when_full="block", block_timeout=5)
    at.send.enqueue(1)
    run("queues", "set", "mail", "--max-size", "20")
    assert at.queue("mail").terms == QueueTerms(20, "block", 5000)
    run("queues", "set", "mail", "--block-timeout", "none")
    assert at.queue("mail").terms == QueueTerms(20, "block", None)
    run("queues", "set", "mail", "--block-timeout", "1m")
    run("queues", "set", "mail", "--when-full", "reject")
    assert at.queue("mail").terms == QueueTerms(20, "reject", None)


def test_without_a_bound_nothing_is_left_of_the_rest(run: Run, at: Shop) -> None:
    at.jobs.queue("mail", max_size=10, when_full="block", block_timeout=5)
    at.send.enqueue(1)
    run("queues", "set", "mail", "--max-size", "none")
    assert at.queue("mail").terms == QueueTerms()
    run("queues", "set", "mail", "--max-size", "2")
    assert at.queue("mail").terms == QueueTerms(2)


def test_a_patience_of_odd_milliseconds_stays_to_the_millisecond(run: Run, at: Shop) -> None:
    run("queues", "set", "mail", "--max-size", "9", "--when-full", "block", "--block-timeout", "4035ms")
    run("queues", "set", "mail", "--max-size", "8")
    assert at.queue("mail").terms == QueueTerms(8, "block", 4_035)


def test_a_lower_bound_says_how_many_must_end(run: Run, at: Shop) -> None:
    for number in range(5):
        at.send.enqueue(number)
    text = run("queues", "set", "mail", "--max-size", "3").stdout
    assert "It is full: 5 unfinished jobs, all keep their place; 3 must end before a new one fits" in text
    with pytest.raises(QueueFull):
        at.send.enqueue(6)
    assert "every enqueue is taken" in run("queues", "set", "mail", "--max-size", "none").stdout
    at.send.enqueue(7)


def test_a_queue_that_nobody_knows_is_accepted_with_a_word(run: Run, at: Shop) -> None:
    result = run("queues", "set", "mial", "--max-size", "3")
    assert "is the name right?" in result.stderr
    assert "now     3 places" in result.stdout
    assert at.queue("mial").edited


BLOCK = ("mail", "--max-size", "3", "--when-full", "block", "--block-timeout")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["mail"], "say what to set"),
        (["mail", "--weight", "0"], "--weight 0: a whole number from 1 to 1,000; a queue of which nothing shall be"),
        (["mail", "--weight", "1001"], "--weight 1001: a whole number from 1 to 1,000"),
        (["mail", "--weight", "1.5"], "'1.5' is not a valid int"),
        (["mail", "--max-size", "0"], "--max-size 0: a whole number from 1 to 1,000,000,000, or none for no bound"),
        (["mail", "--max-size", "-3"], "'-3': a whole number from 1"),
        (["mail", "--max-size", "many"], "'many': a whole number from 1 to 1,000,000,000, or none for no bound"),
        (["mail", "--max-size", "1e3"], "'1e3': a whole number from 1"),
        (["mail", "--max-size", "2000000000"], "--max-size 2000000000: a whole number from 1"),
        (["mail", "--when-full", "explode"], "drop_newest"),
        (["mail", "--when-full", "block"], "the queue has no bound: give --max-size too"),
        (["mail", "--block-timeout", "5s"], "the queue has no bound: give --max-size too"),
        (["mail", "--max-size", "none", "--when-full", "block"], "'block': a queue without --max-size is never full"),
        (["mail", "--max-size", "3", "--block-timeout", "5s"], "--block-timeout '5s': only --when-full 'block' waits"),
        ([*BLOCK, "soon"], "--block-timeout 'soon': not a duration; give seconds (30), '90s', '5m', '2h', '7d'\n"),
        ([*BLOCK, "0"], "--block-timeout 0.0: a duration must be more than zero"),
        (["no such", "--max-size", "3"], "a name has 1 to 100"),
        ([], "Missing argument 'QUEUE'"),
    ],
)
def test_nonsense_is_2_and_changes_nothing(run: Run, at: Shop, arguments: list[str], words: str) -> None:
    result = run("queues", "set", *arguments, fails=True)
    assert result.exit_code == 2
    assert words in result.stderr
    assert not parts_of(at.jobs).operating.stats().queues


def test_flags_of_the_list_are_refused_there(run: Run, at: Shop) -> None:
    assert run("queues", "--json", "set", "mail", "--max-size", "3", fails=True).exit_code == 2
    assert run("queues", "--json", "-q", fails=True).exit_code == 2


def test_url_may_stand_before_or_behind(run: Run, shop: Shop) -> None:
    run("queues", "--url", shop.url, "set", "mail", "--max-size", "3")
    run("queues", "set", "mail", "--max-size", "4", "--url", shop.url)
    assert shop.queue("mail").terms.max_size == 4


# --- weights


def test_a_weight_is_set_beside_a_bound_or_without_one(run: Run, at: Shop) -> None:
    at.jobs.queue("mail", max_size=10, weight=3)
    at.send.enqueue(1)
    lines = run("queues", "set", "mail", "--weight", "6").stdout.splitlines()
    assert lines[0] == "mail  before  10 places, when full reject, weight 3 (as code declares)"
    assert lines[1] == "      now     10 places, when full reject, weight 6 (edited)"
    assert "within seconds weigh it 6 against the other queues" in lines[-1]
    assert not any(line.startswith("  Producers") for line in lines), "nothing has changed for them"
    assert at.queue("mail").terms == QueueTerms(10, weight=6)
    run("queues", "set", "mail", "--max-size", "none")
    assert at.queue("mail").terms == QueueTerms(weight=6)
    assert "now     10 places, when full reject, weight 3" in run("queues", "reset", "mail").stdout
    assert "now     no bound, weight 2 (edited)" in run("queues", "set", "new", "--weight", "2").stdout


def test_weights_are_shown_where_they_differ(
    run: Run, filled: dict[str, UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(show, "on_terminal", lambda: True)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    assert "WEIGHT" not in run("queues").stdout
    run("queues", "set", "mail", "--weight", "6")
    heads, default, mail, *_ = (line.split() for line in run("queues").stdout.splitlines())
    assert "WEIGHT" in heads
    assert ("6*" in mail, "6" in default) == (True, False)
    assert "bound*" not in mail, "its bound is not what was set"
    assert json.loads(run("queues", "--json").stdout.splitlines()[1])["weight"] == 6


# --- pause and resume


def test_pause_and_resume_say_what_that_means(run: Run, at: Shop) -> None:
    at.send.enqueue(1)
    at.send.enqueue(2)
    paused = run("pause", "mail", "--until", "2h", "--reason", "the provider is down").stdout
    assert paused.startswith("mail  paused since ")
    assert ": the provider is down; 2 jobs held back" in paused
    assert at.queue("mail").pause is not None
    document = json.loads(run("queues", "--json").stdout)
    assert document["paused"]["reason"] == "the provider is down"
    assert document["paused"]["until"] > document["paused"]["since"]
    assert run("queues").stdout.rstrip("\n").split("\t")[-3] == "paused"
    assert run("resume", "mail").stdout == "mail  goes on: 2 jobs due\n"
    assert at.queue("mail").pause is None


def test_a_pause_without_an_end_says_how_to_end_it(run: Run, at: Shop) -> None:
    at.send.enqueue(1)
    assert "It stays so until `holdfast resume mail`." in run("pause", "mail").stdout
    pause = at.queue("mail").pause
    assert pause is not None
    assert (pause.until, pause.reason) == (None, "")


def test_the_table_shows_why_a_queue_is_paused(run: Run, at: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    at.send.enqueue(1)
    run("pause", "mail", "--reason", "moving\x1b[31m house")
    monkeypatch.setattr(show, "on_terminal", lambda: True)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    last = run("queues").stdout.splitlines()[-1]
    assert last.startswith("⏸ mail: paused since ")
    assert last.endswith("`holdfast resume mail` ends it")
    assert "\x1b" not in last


def test_running_jobs_of_a_paused_queue_are_told(run: Run, at: Shop) -> None:
    at.running()
    assert "1 job of it runs on" in run("pause", "default").stdout


def test_a_queue_that_nobody_knows_may_be_paused_with_a_word(run: Run, at: Shop) -> None:
    result = run("pause", "mial")
    assert "is the name right?" in result.stderr
    assert at.queue("mial").pause is not None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["pause", "mail", "--until", "soon"], "'soon': not a duration"),
        (["pause", "mail", "--until", "0"], "a duration must be more than zero"),
        (["pause", "mail", "--until", "2020-01-01T00:00:00"], "has no time zone"),
        (["pause", "mail", "--until", "2020-01-01T00:00:00Z"], "that is over"),
        (["pause", "no such"], "a name has 1 to 100"),
        (["pause"], "Missing argument 'QUEUE'"),
    ],
)
def test_a_pause_that_makes_no_sense_is_2(run: Run, at: Shop, arguments: list[str], words: str) -> None:
    result = run(*arguments, fails=True)
    assert result.exit_code == 2
    assert words in result.stderr
    assert not parts_of(at.jobs).operating.stats().queues


def test_resuming_what_is_not_paused_is_5(run: Run, at: Shop) -> None:
    at.send.enqueue(1)
    result = run("resume", "mail", fails=True)
    assert result.exit_code == 5
    assert "queue mail is not paused" in result.stderr


# --- reset


def test_reset_gives_it_back_to_its_code(run: Run, at: Shop) -> None:
    at.jobs.queue("mail", max_size=10)
    at.send.enqueue(1)
    run("queues", "set", "mail", "--max-size", "2")
    lines = run("queues", "reset", "mail").stdout.splitlines()
    assert lines[0] == "mail  before  2 places, when full reject (edited)"
    assert lines[1] == "      now     10 places, when full reject (as code declares)"
    assert not at.queue("mail").edited
    assert at.queue("mail").terms.max_size == 10


def test_reset_of_what_code_never_declared_leaves_no_bound(run: Run, at: Shop) -> None:
    at.send.enqueue(1)
    run("queues", "set", "mail", "--max-size", "2")
    assert "now     no bound" in run("queues", "reset", "mail").stdout
    run("queues", "set", "other", "--max-size", "2")
    assert "now     nothing declared, no jobs" in run("queues", "reset", "other").stdout


def test_reset_of_what_is_not_edited_is_5_and_of_nothing_4(run: Run, at: Shop) -> None:
    at.send.enqueue(1)
    refused = run("queues", "reset", "mail", fails=True)
    assert refused.exit_code == 5
    assert "is not an operator's" in refused.stderr
    assert run("queues", "reset", "nothing", fails=True).exit_code == 4


def test_a_store_that_is_not_there_is_not_made(run: Run, folder: Any) -> None:
    for arguments in (["queues"], ["queues", "set", "mail", "--max-size", "3"], ["queues", "reset", "mail"], ["dead"]):
        result = run(*arguments, "--url", "sqlite:///none.db", fails=True)
        assert result.exit_code == 3
    assert list(folder.iterdir()) == []
