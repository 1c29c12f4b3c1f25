"""The README is true: its Python runs, and its commands do what they say, in order, in one folder."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"
LIMIT = 40


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text("utf-8"), re.DOTALL)


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(  # noqa: PLW1510  # the callers look at the exit code
        command, cwd=folder, env={**os.environ, "PATH": path}, text=True, capture_output=True, timeout=LIMIT
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where the README's shop.py has been run once."""
    folder = tmp_path_factory.mktemp("readme")
    shop = next(block for block in blocks("python") if block.startswith("# shop.py"))
    (folder / "shop.py").write_text(shop)
    done = run(folder, "python", "shop.py")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[1] == "queued"
    return folder


@pytest.mark.timeout(120)
def test_every_python_block_runs(folder: Path) -> None:
    snippets = [block for block in blocks("python") if not block.startswith("# shop.py")]
    assert len(snippets) == 3
    said = ""
    for number, snippet in enumerate(snippets):
        (folder / f"snippet{number}.py").write_text(snippet)
        done = run(folder, "python", f"snippet{number}.py")
        assert done.returncode == 0, f"{snippet}\n{done.stderr}"
        said += done.stdout
    assert "hello ann" in said
    assert "crunched 333332833333500000" in said
    with closing(sqlite3.connect(folder / "shop.db")) as db:
        assert db.execute("SELECT paid FROM orders WHERE id = 44").fetchone() == (1,)
        assert db.execute("SELECT count(*) FROM holdfast_jobs").fetchone() == (3,)


@pytest.mark.timeout(120)
def test_every_command_works(folder: Path) -> None:
    code = "from shop import send_invoice; print(send_invoice.enqueue(1, 'no address').id)"
    bad = run(folder, "python", "-c", code).stdout.strip()
    commands = [line[2:].split("#")[0].strip() for block in blocks("console") for line in block.splitlines()]
    own = [command for command in commands if command.startswith("holdfast")]
    assert len(own) == 5
    for command in own:
        if command.startswith("holdfast worker"):
            _work_until_dead(folder, command, bad)
            continue
        words = [bad if re.fullmatch(r"[0-9a-f-]{36}", word) else word for word in command.split()]
        done = run(folder, *words)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        assert "send_invoice" in done.stdout + done.stderr, command


def _work_until_dead(folder: Path, command: str, job: str) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    process = subprocess.Popen(
        command.split(), cwd=folder, env={**os.environ, "PATH": path}, stderr=subprocess.PIPE, text=True
    )
    try:
        end = time.monotonic() + LIMIT
        while _state(folder, job) != "dead":
            assert time.monotonic() < end, "the worker did not run the job with the bad address"
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, told
    assert "no address" in told


def _state(folder: Path, job: str) -> str:
    with closing(sqlite3.connect(folder / "shop.db")) as db:
        return str(db.execute("SELECT state FROM holdfast_jobs WHERE id = ?", (job,)).fetchone()[0])
