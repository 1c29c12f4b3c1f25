"""`holdfast jobs`: what people see, what pipes get, which jobs match, and how pages follow each other."""

import json
from pathlib import Path
from uuid import UUID

import pytest

from holdfast.cli import show
from tests.cli.shop import Run, Shop

ORDER = ["queued", "scheduled", "cancelled", "running", "retrying", "succeeded", "dead"]  # newest first


def test_pipes_get_stable_columns(run: Run, filled: dict[str, UUID]) -> None:
    rows = [line.split("\t") for line in run("jobs").stdout.splitlines()]
    assert [row[-1] for row in rows] == [str(filled[name]) for name in ORDER]
    assert {len(row) for row in rows} == {7}
    dead = rows[-1]
    assert dead[:4] == ["dead", "shop.send_invoice", "mail", "1/3"]
    assert dead[4].endswith("Z")
    assert dead[5] == r"TimeoutError: no \x1b[31mroute\x07 ⟪RLO⟫to"
    assert rows[2][5] == "not wanted"
    assert rows[3][5].startswith("worker ")
    assert rows[4][:4] == ["scheduled", "shop.resize", "default", "1/3"]
    assert rows[4][5] == "KeyError: 'sku'"


def test_people_get_a_table_that_fits(run: Run, filled: dict[str, UUID], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(show, "on_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "100")
    lines = run("jobs").stdout.splitlines()
    assert lines[0].split() == ["STATE", "TASK", "QUEUE", "ATTEMPT", "TIME", "ERROR,", "WHERE", "ID"]
    assert len(lines) == 1 + len(filled)
    assert max(map(len, lines)) <= 100
    assert len({line.index(" 01") if " 01" in line else line.index("ID") - 1 for line in lines}) == 1, "aligned"
    assert lines[-1].startswith("✕ dead")
    assert "…" in lines[-1].removesuffix(lines[-1][-13:]), "the long error is cut, and says so"
    words = dict(zip(ORDER, lines[1:], strict=True))
    assert "waits " in words["queued"]
    assert "due in 1 h" in words["scheduled"]
    assert "for " in words["running"]
    assert "took " in words["succeeded"]
    assert " ago" in words["dead"]


@pytest.mark.parametrize(
    ("state", "head"),
    [("dead", "DIED"), ("queued", "WAITS"), ("running", "RUNS"), ("succeeded", "TOOK"), ("scheduled", "DUE IN")],
)
@pytest.mark.usefixtures("filled")
def test_the_time_column_suits_the_state(run: Run, monkeypatch: pytest.MonkeyPatch, state: str, head: str) -> None:
    monkeypatch.setattr(show, "on_terminal", lambda: True)
    assert head in run("jobs", "--state", state).stdout.splitlines()[0]


def test_json_has_one_whole_job_per_line(run: Run, filled: dict[str, UUID]) -> None:
    jobs = [json.loads(line) for line in run("jobs", "--json").stdout.splitlines()]
    assert [job["id"] for job in jobs] == [str(filled[name]) for name in ORDER]
    by_name = dict(zip(ORDER, jobs, strict=True))
    assert by_name["scheduled"]["args"] == [6]
    assert by_name["scheduled"]["kwargs"] == {"email": "ann@example.com"}
    assert by_name["scheduled"]["priority"] == 7
    assert by_name["scheduled"]["timeout"] == 30
    assert by_name["succeeded"]["result"] == {"width": 80}
    (attempt,) = by_name["dead"]["attempts"]
    assert attempt["error"]["message"] == "no \x1b[31mroute\x07 \u202eto\nhost\tnow"


def test_json_prints_nothing_that_a_terminal_obeys(run: Run, filled: dict[str, UUID]) -> None:
    text = run("jobs", "--json").stdout
    assert text.count("\n") == len(filled)
    assert text.replace("\n", "").isprintable()


def test_whole_numbers_of_any_size_come_back_unchanged(run: Run, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDFAST_URL", shop.url)
    shop.send.enqueue(2**53 + 1)
    assert json.loads(run("jobs", "--json").stdout)["args"] == [2**53 + 1]


def test_quiet_prints_ids_for_xargs(run: Run, filled: dict[str, UUID]) -> None:
    assert run("jobs", "-q").stdout.split() == [str(filled[name]) for name in ORDER]


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        (["--state", "dead"], ["dead"]),
        (["--state", "dead,cancelled"], ["cancelled", "dead"]),
        (["--queue", "mail"], ["queued", "scheduled", "cancelled", "dead"]),
        (["--task", "shop.resize"], ["running", "retrying", "succeeded"]),
        (["--tag", "big"], ["queued"]),
        (["--error", "KeyError"], ["retrying"]),
        (["--queue", "mail", "--state", "scheduled"], ["scheduled"]),
        (["--since", "1h"], ORDER),
        (["--before", "0"], ORDER),
        (["--since", "2020-01-01T00:00:00Z", "--state", "dead"], ["dead"]),
    ],
)
def test_filters(run: Run, filled: dict[str, UUID], flags: list[str], names: list[str]) -> None:
    assert run("jobs", "-q", *flags).stdout.split() == [str(filled[name]) for name in names]


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize("flags", [["--before", "1h"], ["--tag", "none"], ["--since", "2999-01-01T00:00:00+02:00"]])
def test_nothing_matches_is_4(run: Run, flags: list[str]) -> None:
    result = run("jobs", *flags, fails=True)
    assert result.exit_code == 4
    assert result.stdout == ""


def test_nothing_exists_is_another_text(run: Run, shop: Shop, folder: Path) -> None:
    result = run("jobs", "--url", shop.url)
    assert result.stdout == ""
    assert "no jobs in" in result.stderr
    assert str(folder / "shop.db") in result.stderr


def test_ids_choose_too(run: Run, filled: dict[str, UUID]) -> None:
    dead, queued = str(filled["dead"]), str(filled["queued"])
    assert run("jobs", "-q", dead, queued).stdout.split() == [queued, dead]
    assert run("jobs", "-q", dead, queued, "--state", "dead").stdout.split() == [dead]


def test_pages_follow_each_other_without_a_gap(run: Run, filled: dict[str, UUID]) -> None:
    seen, after = list[str](), list[str]()
    for size in (3, 3, 1):
        result = run("jobs", "-q", "--limit", "3", *after)
        page = result.stdout.split()
        assert len(page) == size
        seen += page
        after = ["--after", page[-1]]
        assert (f"next: --after {page[-1]}" in result.stderr) == (size == 3)
    assert seen == [str(filled[name]) for name in ORDER]
    last = run("jobs", "-q", *after)
    assert last.stdout == ""
    assert "no more jobs" in last.stderr


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--state", "ded"], "state='ded': there are scheduled"),
        (["--since", "yesterday"], "'--since': 'yesterday': not a duration"),
        (["--before", "-5m"], "'--before': '-5m'"),
        (["--since", "2026-11-22T00:00:00"], "'--since': '2026-11-22T00:00:00': has no time zone"),
        (["--since", "2026-13-45T00:00:00Z"], "not a time such as"),
        (["--limit", "0"], "'--limit'"),
        (["--json", "--quiet"], "exclude each other"),
        (["state:dead"], "filters are flags"),
        (["not-an-id"], "is not a job id"),
        (["0"], "too short"),
        (["0" * 60], "is not a job id"),
    ],
)
def test_wrong_usage_is_2_and_named(run: Run, shop: Shop, flags: list[str], words: str) -> None:
    shop.send.enqueue(1)
    result = run("jobs", "--url", shop.url, *flags, fails=True)
    assert result.exit_code == 2
    assert words in result.stderr


# --- which store


def test_the_url_comes_from_the_flag_then_the_environment_then_the_file(
    run: Run, shop: Shop, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = shop.send.enqueue(1)
    (folder / "pyproject.toml").write_text(f'[tool.holdfast]\nurl = "{shop.url}"\n')
    assert run("jobs", "-q").stdout.split() == [str(job.id)]
    monkeypatch.setenv("HOLDFAST_URL", "sqlite:///other.db")
    mistaken = run("jobs", "-q", fails=True)
    assert mistaken.exit_code == 3
    assert "there is no such file" in mistaken.stderr
    assert not (folder / "other.db").exists(), "a look makes no database"
    assert run("jobs", "-q", "--url", shop.url).stdout.split() == [str(job.id)]


def test_without_a_url_the_app_says_it(run: Run, shop: Shop, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = shop.send.enqueue(1)
    (folder / "app_with_url.py").write_text(f"from holdfast import Holdfast\njobs = Holdfast({shop.url!r})\n")
    monkeypatch.setenv("HOLDFAST_APP", "app_with_url:jobs")
    assert run("jobs", "-q").stdout.split() == [str(job.id)]


def test_with_a_url_the_code_is_not_touched(
    run: Run, shop: Shop, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = shop.send.enqueue(1)
    (folder / "broken_app.py").write_text("raise SystemExit('the code was run')\n")
    monkeypatch.setenv("HOLDFAST_APP", "broken_app:jobs")
    assert run("jobs", "-q", "--url", shop.url).stdout.split() == [str(job.id)]


def test_no_store_is_never_chosen_by_silence(run: Run, folder: Path) -> None:
    result = run("jobs", fails=True)
    assert result.exit_code == 2
    for place in ("--url", "HOLDFAST_URL", "[tool.holdfast]", "sqlite:///"):
        assert place in result.stderr
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("mysql://db", "there is no store for mysql://"),
        ("shop.db", "it has no scheme"),
        ("memory://", "no command can see its jobs"),
        ("sqlite://shop.db", "three slashes"),
    ],
)
def test_a_url_that_cannot_work_is_2(run: Run, url: str, words: str) -> None:
    result = run("jobs", "--url", url, fails=True)
    assert result.exit_code == 2
    assert words in result.stderr


def test_a_store_that_cannot_be_used_is_3(run: Run, folder: Path) -> None:
    (folder / "notes.txt").write_text("these are notes, and no database at all\n" * 100)
    result = run("jobs", "--url", "sqlite:///notes.txt", fails=True)
    assert result.exit_code == 3
    assert "notes.txt" in result.stderr
    assert run("jobs", "--url", "sqlite:///no/such/folder/shop.db", fails=True).exit_code == 3
