"""Settings: which place wins, and what the errors say."""

from pathlib import Path

import pytest

from holdfast import ConfigError, Holdfast
from holdfast.app import parts_of
from holdfast.config import setting, store_url


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _write(folder: Path, text: str) -> Path:
    path = folder / "pyproject.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_an_argument_wins_over_the_environment_and_that_over_the_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write(folder, '[tool.holdfast]\nurl = "sqlite:///file.db"\n')
    assert store_url(None) == "sqlite:///file.db"
    monkeypatch.setenv("HOLDFAST_URL", "sqlite:///environment.db")
    assert store_url(None) == "sqlite:///environment.db"
    assert store_url("sqlite:///argument.db") == "sqlite:///argument.db"


def test_no_store_at_all_is_an_error_at_first_use_that_names_every_place() -> None:
    jobs = Holdfast()
    with pytest.raises(ConfigError) as caught:
        _ = parts_of(jobs).link.store
    for place in ("Holdfast(url=...)", "jobs.configure(url=...)", "HOLDFAST_URL", "[tool.holdfast]"):
        assert place in str(caught.value)


def test_an_empty_variable_chooses_nothing_and_hides_the_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(folder, '[tool.holdfast]\nurl = "sqlite:///file.db"\n')
    monkeypatch.setenv("HOLDFAST_URL", "  ")
    with pytest.raises(ConfigError, match="no store is chosen"):
        store_url(None)


def test_the_file_is_looked_for_from_the_working_directory_upwards(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write(folder, '[tool.holdfast]\napp = "shop:jobs"\n')
    below = folder / "src" / "shop"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert setting("app") == "shop:jobs"


def test_the_nearest_file_decides_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(folder, '[tool.holdfast]\napp = "outer:jobs"\n')
    inner = folder / "inner"
    inner.mkdir()
    _write(inner, "[project]\nname = 'inner'\n")
    monkeypatch.chdir(inner)
    assert setting("app") is None


def test_a_file_that_is_no_toml_is_named(folder: Path) -> None:
    path = _write(folder, "[tool.holdfast\n")
    with pytest.raises(ConfigError, match="cannot be read") as caught:
        setting("url")
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[tool.holdfast]\nurl = 5\n", "url = 5: must be a text"),
        ("[tool]\nholdfast = 5\n", "must be a table"),
        ("tool = 5\n", "must be a table"),
    ],
)
def test_settings_of_the_wrong_kind_are_refused(folder: Path, text: str, words: str) -> None:
    _write(folder, text)
    with pytest.raises(ConfigError, match=words):
        setting("url")


def test_a_file_without_our_section_says_nothing(folder: Path) -> None:
    _write(folder, "[tool.other]\nurl = 'x'\n")
    assert setting("url") is None
