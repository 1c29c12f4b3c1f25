"""The README and the pages in docs/ are true: their Python runs and prints what they say, their commands work."""

from __future__ import annotations

import os
import re
import shlex
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests import servers
from tests.servers.places import Database

README = Path(__file__).parent.parent / "README.md"
PAGES = sorted(path for path in (README.parent / "docs").glob("*.md") if "```python" in path.read_text("utf-8"))
PAGES.remove(README.parent / "docs" / "redis.md")  # it needs a server: tests/test_redis_page.py
LIMIT = 40


def blocks(language: str, page: Path = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text("utf-8"), re.DOTALL)


def programs(page: Path) -> list[tuple[str, str | None]]:
    """The Python blocks of a page, each with what it prints, where a text block right after it says that."""
    found = re.findall(r"```python\n(.*?)```\n(?:\n```text\n(.*?)```)?", page.read_text("utf-8"), re.DOTALL)
    return [(program, printed or None) for program, printed in found]


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
    assert len(snippets) == 6
    said = ""
    for number, snippet in enumerate(snippets):
        named = re.match(r"# (\w+\.py)\n", snippet)
        name = named[1] if named else f"snippet{number}.py"
        (folder / name).write_text(snippet)
        done = run(folder, "python", name)
        assert done.returncode == 0, f"{snippet}\n{done.stderr}"
        said += done.stdout
    assert "page 1" in said
    assert "count for acme, attempt 1" in said
    with closing(sqlite3.connect(folder / "shop.db")) as db:
        assert db.execute("SELECT paid FROM orders WHERE id = 44").fetchone() == (1,)
        assert db.execute("SELECT count(*) FROM holdfast_jobs").fetchone() == (3,)


VISIT = """
from fastapi.testclient import TestClient
from web import app
with TestClient(app) as client:
    made = client.post("/greetings/ann")
    print(made.status_code, client.get(f"/greetings/{made.json()['job']}").json())
    for id in ("0197a1b2-0000-7000-8000-000000000000", "abc"):
        print(client.get(f"/greetings/{id}").status_code)
"""


@pytest.mark.timeout(120)
def test_the_web_application_greets(tmp_path: Path) -> None:
    [program] = [block for block in blocks("python") if block.startswith("# web.py")]
    (tmp_path / "web.py").write_text(program)
    done = run(tmp_path, "python", "-c", VISIT)
    assert done.stdout == "202 {'greeting': 'hello ann'}\n404\n422\n", done.stderr


@pytest.mark.timeout(120)
def test_every_command_works(folder: Path) -> None:
    code = "from shop import send_invoice; print(send_invoice.enqueue(1, 'no address').id)"
    bad = run(folder, "python", "-c", code).stdout.strip()
    own = [command for command in commands() if not re.search(r"(postgresql|redis):", command)]
    assert len(own) == 8
    for command in own:
        if command.startswith("holdfast worker"):
            _work_until_dead(folder, command, bad)
            continue
        words = [bad if re.fullmatch(r"[0-9a-f-]{36}", word) else word for word in command.split()]
        done = run(folder, *words)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        told = "default" if command.startswith("holdfast queues") else "send_invoice"
        assert told in done.stdout + done.stderr, command


@pytest.mark.timeout(120)
def test_the_same_works_on_postgresql(tmp_path: Path, bare_postgres: Database) -> None:
    [migrate] = [command for command in commands() if "postgresql:" in command]
    done = run(tmp_path, *(bare_postgres.url if "postgresql:" in word else word for word in migrate.split()))
    assert done.returncode == 0, done.stderr
    shop = next(block for block in blocks("python") if block.startswith("# shop.py"))
    (tmp_path / "shop.py").write_text(shop.replace('"sqlite:///shop.db"', repr(bare_postgres.url)))
    assert run(tmp_path, "python", "shop.py").returncode == 0
    listed = run(tmp_path, "holdfast", "jobs", "--url", bare_postgres.url)
    assert listed.stdout.count("shop.send_invoice") == 2, listed.stdout + listed.stderr


@pytest.mark.timeout(120)
def test_the_same_works_on_redis(tmp_path: Path) -> None:
    shop = next(block for block in blocks("python") if block.startswith("# shop.py"))
    with servers.valkey().bare() as place:
        lines = [shlex.split(command) for command in commands() if "redis:" in command]
        [migrate, queues] = [[place.url if "redis:" in word else word for word in words] for words in lines]
        for command in (migrate, queues):  # on a server where nothing is yet
            done = run(tmp_path, *command)
            assert done.returncode == 0, f"{command}\n{done.stderr}"
        (tmp_path / "shop.py").write_text(shop.replace('"sqlite:///shop.db"', repr(place.url)))
        done = run(tmp_path, "python", "shop.py")
        assert done.returncode == 0, done.stderr
        listed = run(tmp_path, *queues)
    assert re.search(r"^default\b", listed.stdout, re.MULTILINE), listed.stdout + listed.stderr


def commands() -> list[str]:
    """Those of ours that the README shows."""
    lines = [line[2:].split("#")[0].strip() for block in blocks("console") for line in block.splitlines()]
    return [line for line in lines if line.startswith("holdfast")]


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


# ---- the pages


def test_there_are_pages_with_programs() -> None:
    assert {"handlers.md", "pool.md", "queues.md", "testing.md"} <= {page.name for page in PAGES}
    assert all(len(programs(page)) == len(blocks("python", page)) for page in PAGES)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_program_of_a_page_runs_and_prints_what_the_page_says(page: Path, tmp_path: Path) -> None:
    for number, (program, printed) in enumerate(programs(page)):
        named = re.match(r"# (\w+\.py)\n", program)
        name = named[1] if named else f"snippet{number}.py"
        (tmp_path / name).write_text(program)
        command = ("pytest", "-q", "-p", "no:cacheprovider") if name.startswith("test_") else ("python",)
        done = run(tmp_path, *command, name)
        assert done.returncode == 0, f"{program}\n{done.stdout}{done.stderr}"
        assert printed in (None, done.stdout), program


@pytest.mark.timeout(120)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_of_a_page_works(folder: Path, page: Path) -> None:
    lines = [line for block in blocks("console", page) for line in block.splitlines()]
    for command in (shlex.split(line[2:], comments=True) for line in lines if line.startswith("$ holdfast")):
        done = run(folder, *command)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
