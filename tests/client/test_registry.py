"""Tasks that live in other modules: which are imported, by whom, and what is told of one that cannot be."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from holdfast import (
    ConfigError,
    Holdfast,
)

PATIENCE = 30


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
