"""Tasks that live in other modules: which are imported, by whom, and what is told of one that cannot be."""

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from holdfast import ConfigError, Holdfast
from holdfast.app import parts_of


def program(text: str, *arguments: str, cwd: Path | None = None) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(text), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=cwd,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_modules_are_imported_by_workers_packages_with_all_that_is_in_them(tmp_path: Path) -> None:
    shop = tmp_path / "shop"
    (shop / "mail" / "deep").mkdir(parents=True)
    (shop / "__init__.py").write_text("from holdfast import Holdfast\n", "utf-8")
    (shop / "app.py").write_text(
        "from holdfast import Holdfast\njobs = Holdfast('memory://', modules=['shop.mail', 'shop.reports'])\n", "utf-8"
    )
    task = "from shop.app import jobs\n\n@jobs.task\ndef {}() -> None: ...\n"
    (shop / "mail" / "__init__.py").write_text(task.format("one"), "utf-8")
    (shop / "mail" / "invoices.py").write_text(task.format("two"), "utf-8")
    (shop / "mail" / "deep" / "__init__.py").write_text("", "utf-8")
    (shop / "mail" / "deep" / "er.py").write_text(task.format("three"), "utf-8")
    (shop / "reports.py").write_text(task.format("four"), "utf-8")
    (shop / "unasked.py").write_text(task.format("five"), "utf-8")
    (shop / "mail" / "__main__.py").write_text("raise SystemExit('the program runs')\n", "utf-8")
    out = program(
        """
        import sys
        sys.path.insert(0, "")
        from holdfast.app import parts_of
        from shop.app import jobs
        print(sorted(parts_of(jobs).registry.names))
        with jobs.worker():
            print(sorted(parts_of(jobs).registry.names))
        """,
        cwd=tmp_path,
    )
    assert out.splitlines() == [
        "[]",
        "['shop.mail.deep.er.three', 'shop.mail.invoices.two', 'shop.mail.one', 'shop.reports.four']",
    ]


def test_a_module_that_cannot_be_imported_is_named() -> None:
    jobs = Holdfast("memory://", modules=["no_such_module_of_ours"])
    with pytest.raises(ConfigError, match=r"modules: 'no_such_module_of_ours' cannot be imported"), jobs.worker():
        pass


@pytest.mark.parametrize("name", ["shop mail", "", ".mail", "shop.", "shop/mail.py", 5, None])
def test_what_is_no_modules_name_is_refused_at_once(name: Any) -> None:
    with pytest.raises(ConfigError, match=r"^modules: .* is no module's name, such as 'shop\.mail'"):
        Holdfast("memory://", modules=["shop", name])


def test_modules_are_a_list() -> None:
    with pytest.raises(ConfigError, match=r"^modules='shop\.mail': a list of module names"):
        Holdfast("memory://", modules="shop.mail")


def test_an_error_of_the_modules_own_passes_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_shop.py").write_text("1 / 0\n", "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ZeroDivisionError), Holdfast("memory://", modules=["broken_shop"]).worker():
        pass


def test_a_task_that_is_renamed_still_runs_its_old_jobs(app: Holdfast) -> None:
    old = app.task(name="shop.old")(lambda to: to)
    job = old.enqueue("ann")
    parts_of(app).registry.names.clear()  # the next version of the program
    app.task(name="shop.new", aliases=("shop.old",))(lambda to: f"new {to}")
    with app.worker():
        assert job.result(30) == "new ann"
