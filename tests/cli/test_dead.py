"""`holdfast dead`: one line for each kind of error, and what to run next."""

import contextlib
import json
import shlex
import sqlite3
from uuid import UUID

import pytest

from holdfast.cli import dead, show
from holdfast.clock import HOUR
from holdfast.job import Failed, Failure, Loss, Lost
from tests.cli.shop import Run, Shop


@pytest.fixture
def graves(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[UUID]]:
    """Dead jobs of three kinds, by the kind's name, the oldest first."""
    monkeypatch.setenv("HOLDFAST_URL", shop.url)
    away = [shop.dead(n, "TimeoutError", f"smtp{n}.example.com:587 did not answer in {n}.5 s") for n in range(3)]
    sku = [shop.dead(n, "KeyError", "'sku'") for n in range(2)]
    other = Failed(Failure("TimeoutError", "smtp9.example.com:25 did not answer in 9 s\nmore", ""), final=True)
    resized = shop.after(shop.resize.enqueue("a.png").id, other)
    return {"away": away, "sku": sku, "alone": [shop.dead(7, "OSError", "disk full")], "resized": [resized]}


def test_pipes_get_one_line_for_each_kind_the_most_frequent_first(run: Run, graves: dict[str, list[UUID]]) -> None:
    rows = [line.split("\t") for line in run("dead").stdout.splitlines()]
    assert [(row[0], row[4]) for row in rows] == [
        ("3", "TimeoutError: <host> did not answer in <n> s"),
        ("2", "KeyError: 'sku'"),
        ("1", "OSError: disk full"),
        ("1", "TimeoutError: smtp9.example.com:25 did not answer in 9 s"),
    ]
    assert [row[5] for row in rows] == [str(graves[name][-1]) for name in ("away", "sku", "alone", "resized")]
    assert [row[3] for row in rows] == [*["shop.send_invoice"] * 3, "shop.resize"]
    assert len({row[6] for row in rows}) == 4
    assert all(row[2] <= row[1] and row[1].endswith("Z") for row in rows)


def test_the_newest_and_oldest_are_by_death(run: Run, shop: Shop, graves: dict[str, list[UUID]]) -> None:
    first = json.loads(run("dead", "--json").stdout.splitlines()[0])
    died = [show.iso(shop.record(made).finished_at) for made in graves["away"]]
    assert (first["oldest_at"], first["newest_at"]) == (died[0], died[-1])


def test_of_a_group_the_one_that_died_last_is_named(run: Run, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDFAST_URL", shop.url)
    early = shop.send.using(priority=-1).enqueue(1).id
    late = shop.dead(2, "OSError", "disk 1 full")
    shop.after(early, Failed(Failure("OSError", "disk 2 full", ""), final=True))
    assert run("dead", "-q").stdout.split() == [str(early)]
    assert json.loads(run("dead", "--json").stdout)["oldest_at"] == show.iso(shop.record(late).finished_at)


def test_people_get_a_table_and_the_next_commands(
    run: Run, shop: Shop, graves: dict[str, list[UUID]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(show, "on_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "110")
    lines = run("dead").stdout.splitlines()
    assert lines[0].split() == ["ALL", "24H", "1H", "NEWEST", "OLDEST", "TASKS", "ERROR", "FINGERPRINT"]
    assert lines[1].split()[:3] == ["3", "3", "3"]
    mark = shop.record(graves["away"][0]).fingerprint
    assert lines[1].endswith(mark)
    assert max(map(len, lines)) <= 110
    assert "7 dead jobs, 4 kinds of error" in lines[6]
    assert lines[7:] == [
        f"  look at one    holdfast job {graves['away'][-1]}",
        f"  retry one      holdfast retry {graves['away'][-1]}",
        f"  then the rest  holdfast retry --fingerprint {mark}",
    ]


@pytest.mark.usefixtures("graves")
def test_of_very_many_kinds_people_see_the_first(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead, "SHOWN", 1)
    assert len(run("dead").stdout.splitlines()) == 4
    monkeypatch.setattr(show, "on_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "110")
    lines = run("dead").stdout.splitlines()
    assert "KeyError" not in "".join(lines)
    assert lines[2] == "… and 3 more kinds: holdfast dead --json has all"


def test_what_it_says_to_run_runs(run: Run, shop: Shop, graves: dict[str, list[UUID]]) -> None:
    groups = [json.loads(line) for line in run("dead", "--queue", "mail", "--json").stdout.splitlines()]
    assert [group["count"] for group in groups] == [3, 2, 1]
    commands = groups[1]["next"]
    assert "KeyError" in run(*shlex.split(commands["look"])[1:]).stdout
    run(*shlex.split(commands["retry_one"])[1:])
    assert shop.record(graves["sku"][1]).state == "queued"
    rest = shlex.split(commands["retry_all"])[1:]
    assert rest == ["retry", "--fingerprint", groups[1]["fingerprint"], "--queue", "mail"]
    run(*rest)
    assert shop.record(graves["sku"][0]).state == "queued"
    assert shop.record(graves["alone"][0]).state == "dead"


def test_a_kind_can_be_listed_by_itself(run: Run, shop: Shop, graves: dict[str, list[UUID]]) -> None:
    mark = shop.record(graves["sku"][0]).fingerprint
    assert set(run("jobs", "-q", "--fingerprint", f"f:{mark}").stdout.split()) == set(map(str, graves["sku"]))
    assert [row.split("\t")[0] for row in run("dead", "--fingerprint", mark).stdout.splitlines()] == ["2"]
    refused = run("dead", "--fingerprint", mark[:6], fails=True)
    assert refused.exit_code == 2
    assert "12 hexadecimal digits" in refused.stderr


def test_what_older_code_has_stored_without_a_fingerprint_is_grouped_all_the_same(
    run: Run, shop: Shop, graves: dict[str, list[UUID]]
) -> None:
    with contextlib.closing(sqlite3.connect(shop.url.removeprefix("sqlite:///"))) as file, file:
        old = str(graves["sku"][0])
        assert file.execute("UPDATE holdfast_jobs SET fingerprint = '' WHERE id = ?", (old,)).rowcount == 1
    group = json.loads(run("dead", "--json").stdout.splitlines()[1])
    assert (group["count"], group["fingerprint"]) == (2, shop.record(graves["sku"][1]).fingerprint)
    rest = shlex.split(group["next"]["retry_all"])[1:]
    assert rest == ["retry", "--state", "dead", "--task", "shop.send_invoice", "--error", "KeyError"]


def test_a_deadline_that_came_while_it_waited_is_a_kind_of_its_own_whatever_failed_before(
    run: Run, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOLDFAST_URL", shop.url)
    late = shop.after(shop.send.using(deadline="1h").enqueue(1).id, Failed(Failure("KeyError", "'sku'", "")))
    shop.promote(2 * HOUR)
    assert shop.record(late).state == "dead"
    group = json.loads(run("dead", "--json").stdout)
    assert (group["type"], group["message"]) == ("deadline", "")
    assert group["next"]["retry_all"] == "holdfast retry --state dead --task shop.send_invoice"


def test_quiet_prints_the_newest_of_each(run: Run, graves: dict[str, list[UUID]]) -> None:
    assert run("dead", "-q").stdout.split() == [str(group[-1]) for group in graves.values()]


@pytest.mark.parametrize(
    ("flags", "counts"),
    [
        (["--task", "shop.resize"], ["1"]),
        (["--queue", "mail"], ["3", "2", "1"]),
        (["--since", "1h"], ["3", "2", "1", "1"]),
        (["--error", "OSError"], ["1"]),
    ],
)
@pytest.mark.usefixtures("graves")
def test_filters_are_those_of_jobs(run: Run, flags: list[str], counts: list[str]) -> None:
    assert [line.split("\t")[0] for line in run("dead", *flags).stdout.splitlines()] == counts


@pytest.mark.usefixtures("graves")
def test_nothing_matches_is_4_and_the_state_is_not_asked(run: Run) -> None:
    assert run("dead", "--queue", "none", fails=True).exit_code == 4
    assert run("dead", "--before", "1h", fails=True).exit_code == 4
    assert run("dead", "--state", "queued", fails=True).exit_code == 2
    assert run("dead", "--json", "-q", fails=True).exit_code == 2


def test_no_dead_job_is_no_error(run: Run, shop: Shop) -> None:
    shop.send.enqueue(1)
    result = run("dead", "--url", shop.url)
    assert result.stdout == ""
    assert "no dead jobs" in result.stderr


def test_jobs_that_were_lost_have_a_group_too(run: Run, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDFAST_URL", shop.url)
    made = shop.send.enqueue(1).id
    for _ in range(3):
        shop.after(made, Lost(Loss("killed by signal 9", culprit=True)))
    assert run("dead").stdout.split("\t")[4] == "Lost: killed by signal 9"


def test_text_from_jobs_is_shown_and_not_obeyed(run: Run, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDFAST_URL", shop.url)
    shop.dead(1, "Bad\x1b[31mError", "out\x07 of \u202e order")
    monkeypatch.setenv("COLUMNS", "150")
    for terminal in (True, False):
        monkeypatch.setattr(show, "on_terminal", lambda terminal=terminal: terminal)
        text = run("dead").stdout
        assert all(line.replace("\t", "").isprintable() for line in text.splitlines())
        assert r"Bad\x1b[31mError: out\x07 of ⟪RLO⟫ order" in text


def test_of_very_many_the_newest_are_looked_at_and_that_is_said(
    run: Run, graves: dict[str, list[UUID]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead, "COUNTED", 2)
    result = run("dead", "-q")
    assert set(result.stdout.split()) == {str(graves["alone"][0]), str(graves["resized"][0])}
    assert "the newest 2 dead jobs were looked at" in result.stderr
