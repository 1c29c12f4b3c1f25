"""`holdfast migrate`: makes or shows the schema; twice is harmless."""

import sqlite3
from contextlib import closing
from pathlib import Path

from holdfast import Holdfast
from tests.cli.shop import Run


def _tables(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as connection:
        return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def test_it_makes_the_schema_once(run: Run, folder: Path) -> None:
    assert run("migrate", "--url", "sqlite:///new.db").stdout.startswith("migrated sqlite:")
    assert any(name.startswith("holdfast_") for name in _tables(folder / "new.db"))
    again = run("migrate", "--url", "sqlite:///new.db")
    assert again.stdout == ""
    assert "nothing to do" in again.stderr
    with Holdfast("sqlite:///new.db") as jobs:
        assert list(jobs.find()) == []


def test_sql_prints_what_would_run_and_runs_nothing(run: Run, folder: Path) -> None:
    text = run("migrate", "--sql", "--url", "sqlite:///new.db").stdout
    assert not (folder / "new.db").exists() or _tables(folder / "new.db") == set()
    with closing(sqlite3.connect(folder / "by_hand.db")) as connection:
        connection.executescript(text)
    run("migrate", "--url", "sqlite:///made.db")
    assert _tables(folder / "by_hand.db") == _tables(folder / "made.db")


def test_the_apps_own_url_will_do(run: Run, folder: Path) -> None:
    (folder / "migrated_app.py").write_text("from holdfast import Holdfast\njobs = Holdfast('sqlite:///own.db')\n")
    (folder / "pyproject.toml").write_text('[tool.holdfast]\napp = "migrated_app:jobs"\n')
    run("migrate")
    assert _tables(folder / "own.db")


def test_a_foreign_file_is_refused_untouched(run: Run, folder: Path) -> None:
    path = folder / "notes.txt"
    path.write_text("these are notes\n" * 1000)
    assert run("migrate", "--url", "sqlite:///notes.txt", fails=True).exit_code == 3
    assert path.read_text() == "these are notes\n" * 1000
