"""The command as it is started for real: by name, by module, in a pipe, at a terminal."""

import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from uuid import UUID

import pytest

import holdfast
from holdfast.cli.shell import shell
from tests.cli.shop import Run, Shop

HOLDFAST = [sys.executable, "-m", "holdfast"]
PATIENCE = 30.0  # seconds until a process that hangs is a finding


def _start(*args: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*HOLDFAST, *args],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        env={**os.environ, **more},
    )


def _at_terminal(
    *args: str, types: str = "", interrupts: str | None = None, columns: int = 80, **more: str
) -> tuple[int, str]:
    """Runs a command at a terminal where somebody types, or interrupts it when a text appears.

    Gives the exit code and what the screen showed.
    """
    ours, theirs = pty.openpty()
    os.write(ours, types.encode())
    env = {**os.environ, "TERM": "xterm", "COLUMNS": str(columns), **more}
    process = subprocess.Popen([*HOLDFAST, *args], stdin=theirs, stdout=theirs, stderr=theirs, env=env)
    os.close(theirs)
    screen, end, asked = b"", time.monotonic() + PATIENCE, False
    try:
        while True:
            assert time.monotonic() < end, f"no end after {PATIENCE} s: {screen!r}"
            news = bool(select.select([ours], [], [], 3.0)[0])
            if news:
                try:
                    screen += os.read(ours, 65536)
                except OSError:  # Linux: the other end is closed
                    break
            # Again if nothing follows: Python does not notice the one that comes just before it begins to read.
            if interrupts is not None and interrupts.encode() in screen and not (asked and news):
                asked = True
                process.send_signal(signal.SIGINT)
        return process.wait(PATIENCE), screen.decode()
    finally:
        process.kill()
        process.wait()
        os.close(ours)


COMMANDS = {
    "cancel",
    "dead",
    "delete",
    "enqueue",
    "health",
    "job",
    "jobs",
    "migrate",
    "pause",
    "queues",
    "resume",
    "retry",
    "schedules",
    "worker",
    "workers",
}


def test_help_lists_every_command(run: Run) -> None:
    text = run("--help").stdout
    assert run().stdout == text
    for name in COMMANDS:
        assert f"\n  {name} " in text
        assert "Usage: " in run(name, "--help").stdout
    assert set(shell.commands) == COMMANDS


def test_version(run: Run) -> None:
    assert holdfast.__version__ in run("--version").stdout


@pytest.mark.parametrize(
    ("args", "words"),
    [(["wrok"], "No such command 'wrok'"), (["jobs", "--nope"], "--nope"), (["job"], "Missing argument 'ID'")],
)
def test_wrong_usage_says_where_help_is(run: Run, args: list[str], words: str) -> None:
    result = run(*args, fails=True)
    assert result.exit_code == 2
    assert words in result.stderr
    assert "--help tells more" in result.stderr


def test_the_module_and_the_command_are_the_same(shop: Shop) -> None:
    job = shop.send.enqueue(1)
    done = _start("jobs", "-q", "--url", shop.url)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{job.id}\n", "")
    command = Path(sys.executable).with_name("holdfast")
    if command.exists():
        by_name = subprocess.run(
            [command, "jobs", "-q", "--url", shop.url], capture_output=True, text=True, timeout=PATIENCE, check=True
        )
        assert by_name.stdout == done.stdout


def test_an_error_is_one_line_and_no_traceback(folder: Path) -> None:
    done = _start("jobs", "--url", "sqlite:///no/such/folder/x.db")
    assert done.returncode == 3
    assert done.stdout == ""
    assert done.stderr.startswith("holdfast: ")
    assert done.stderr.count("\n") == 1


def test_a_reader_that_goes_away_is_no_error(shop: Shop) -> None:
    shop.jobs.enqueue_many(shop.resize.bind("x" * 500) for _ in range(400))
    process = subprocess.Popen(
        [*HOLDFAST, "jobs", "--json", "--limit", "400", "--url", shop.url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith(b"{")
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def test_a_terminal_without_unicode_gets_escapes_not_errors(shop: Shop) -> None:
    shop.dead(message="日本")
    done = _start("jobs", "--url", shop.url, PYTHONIOENCODING="latin-1", PYTHONUTF8="0")
    assert done.returncode == 0, done.stderr
    assert r"\u65e5\u672c" in done.stdout


def test_a_terminal_gets_glyphs_colours_and_its_own_width(filled: dict[str, UUID]) -> None:
    code, screen = _at_terminal("jobs", columns=90)
    assert code == 0
    assert "\x1b[31m✕\x1b[0m dead" in screen
    assert len(screen.splitlines()) == 1 + len(filled)


@pytest.mark.parametrize("columns", [60, 80, 90, 120])
def test_no_row_is_ever_wider_than_the_terminal(filled: dict[str, UUID], columns: int) -> None:
    _, screen = _at_terminal("jobs", columns=columns, NO_COLOR="1")
    assert "\x1b" not in screen
    assert len(screen.splitlines()) == 1 + len(filled)
    assert max(map(len, screen.splitlines())) <= columns
    if columns >= 80:
        assert all(str(job)[-4:] in screen for job in filled.values())
        assert "invoice" in screen


def test_at_a_terminal_it_asks_and_takes_no_for_an_answer(shop: Shop, filled: dict[str, UUID]) -> None:
    before = shop.states()
    code, screen = _at_terminal("retry", "--state", "dead,cancelled", types="n\n", NO_COLOR="1")
    assert "2 jobs would be retried:" in screen
    assert "✕ dead  mail  shop.send_invoice" in screen
    assert "Retry 2 jobs? [y/N]" in screen
    assert "nothing was changed" in screen
    assert code == 5
    assert shop.states() == before
    assert len(before) == len(filled)


def test_at_a_terminal_it_asks_and_does_what_was_agreed(shop: Shop, filled: dict[str, UUID]) -> None:
    code, screen = _at_terminal("retry", "--state", "dead,cancelled", types="y\n")
    assert code == 0
    assert "retried 2 jobs" in screen
    assert shop.record(filled["dead"]).state == "queued"


def test_ctrl_c_at_the_question_changes_nothing(shop: Shop, filled: dict[str, UUID]) -> None:
    code, screen = _at_terminal("retry", "--state", "dead,cancelled", interrupts="[y/N]")
    assert code == 130
    assert "Traceback" not in screen
    assert shop.record(filled["dead"]).state == "dead"


def test_enqueue_in_the_shell_is_seen_by_the_shell(folder: Path) -> None:
    (folder / "stand.py").write_text(
        "from holdfast import Holdfast\njobs = Holdfast('sqlite:///stand.db')\n"
        "@jobs.task\ndef sell(what: str) -> None: ...\n"
    )
    made = _start("enqueue", "--app", "stand:jobs", "stand.sell", '"tea"')
    assert made.returncode == 0, made.stderr
    listed = _start("jobs", "-q", HOLDFAST_APP="stand:jobs")
    assert listed.stdout == made.stdout


def test_a_workers_process_does_not_import_click() -> None:
    program = "import sys, holdfast.cli, holdfast.cli.load; sys.exit('click' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], timeout=PATIENCE, check=False).returncode == 0
