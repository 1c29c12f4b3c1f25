"""From `module:attribute` to the app: what is found, and what the errors say."""

import sys
import traceback
from pathlib import Path

import pytest

from holdfast import ConfigError, Holdfast
from holdfast.cli.load import load_app

APP = "from holdfast import Holdfast\njobs = Holdfast('sqlite:///x.db')\n"


def _refused(spec: str | None) -> str:
    with pytest.raises(ConfigError) as caught:
        load_app(spec)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_working_directory_comes_first(folder: Path) -> None:
    (folder / "loaded_here.py").write_text(APP)
    assert isinstance(load_app("loaded_here:jobs"), Holdfast)
    assert sys.path[0] == str(folder)
    load_app("loaded_here:jobs")
    assert sys.path.count(str(folder)) == 1


def test_packages_and_dotted_attributes(folder: Path) -> None:
    (folder / "loaded_package").mkdir()
    (folder / "loaded_package" / "app.py").write_text(APP + "class Settings:\n    app = jobs\n")
    app = load_app("loaded_package.app:jobs")
    assert load_app("loaded_package.app:Settings.app") is app
    assert load_app("loaded_package.app") is app, "the only one there"


def test_the_environment_and_the_file_name_it_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "loaded_by_name.py").write_text(APP)
    (folder / "pyproject.toml").write_text('[tool.holdfast]\napp = "loaded_by_name:jobs"\n')
    app = load_app(None)
    monkeypatch.setenv("HOLDFAST_APP", "loaded_by_name:nothing")
    assert "has no 'nothing'" in _refused(None)
    assert load_app("loaded_by_name:jobs") is app


def test_no_app_named_at_all() -> None:
    assert "HOLDFAST_APP" in _refused(None)


def test_a_module_that_is_not_there(folder: Path) -> None:
    text = _refused("no_such_module:jobs")
    assert "there is no module 'no_such_module'" in text
    assert str(folder) in text


def test_a_submodule_that_is_not_there_names_its_package(folder: Path) -> None:
    (folder / "loaded_outer").mkdir()
    (folder / "loaded_outer" / "__init__.py").write_text("")
    text = _refused("loaded_outer.missing:jobs")
    assert "there is no module 'loaded_outer.missing'" in text
    assert str(folder / "loaded_outer") in text


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("import no_such_dependency", "No module named 'no_such_dependency'"),
        ("from os import no_such_name", "cannot import name 'no_such_name'"),
        ("import loaded_broken.deeper", "No module named 'loaded_broken.deeper'"),
    ],
)
def test_an_import_error_inside_shows_its_own_line(folder: Path, line: str, words: str) -> None:
    (folder / "loaded_broken.py").write_text(f"import os\n\n{line}\n")
    text = _refused("loaded_broken:jobs")
    assert "importing 'loaded_broken' failed" in text
    assert f"{folder / 'loaded_broken.py'}, line 3 ({line})" in text
    assert words in text


def test_a_syntax_error_shows_its_line(folder: Path) -> None:
    (folder / "loaded_typo.py").write_text("x = 1\ndef broken(:\n")
    text = _refused("loaded_typo:jobs")
    assert f"{folder / 'loaded_typo.py'}, line 2" in text


def test_other_errors_pass_through_with_a_note(folder: Path) -> None:
    (folder / "loaded_raising.py").write_text("raise RuntimeError('settings are missing')\n")
    with pytest.raises(RuntimeError, match="settings are missing") as caught:
        load_app("loaded_raising:jobs")
    assert "importing 'loaded_raising'" in "".join(traceback.format_exception(caught.value))


def test_a_missing_attribute_lists_what_is_there(folder: Path) -> None:
    (folder / "loaded_two.py").write_text(APP + "others = Holdfast('sqlite:///y.db')\nx = 5\n")
    text = _refused("loaded_two:queue")
    assert "has no 'queue'" in text
    assert "it has loaded_two:jobs, loaded_two:others" in text
    assert "x is a int, not a Holdfast" in _refused("loaded_two:x")
    assert "which object of loaded_two" in _refused("loaded_two")


def test_one_app_under_two_names_is_one(folder: Path) -> None:
    (folder / "loaded_alias.py").write_text(APP + "app = jobs\n")
    assert load_app("loaded_alias") is load_app("loaded_alias:jobs")


def test_a_module_without_any_app(folder: Path) -> None:
    (folder / "loaded_empty.py").write_text("x = 5\n")
    assert "it has no Holdfast at all" in _refused("loaded_empty:jobs")
    assert "it has no Holdfast at all" in _refused("loaded_empty")


@pytest.mark.parametrize("spec", ["shop.py:jobs", "shop/app:jobs", ":jobs", "shop-app:jobs", ".shop:jobs"])
def test_a_spelling_that_cannot_be_a_module(spec: str) -> None:
    assert "module" in _refused(spec)


def test_a_file_name_is_turned_into_its_module() -> None:
    assert "write it as a module: shop:jobs" in _refused("shop.py:jobs")
