"""The example `examples/download.py`, with fewer pages: what it prints, on a terminal and elsewhere, and Ctrl-C."""

import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMMAND = [sys.executable, "-m", "examples.download"]
PATIENCE = 50


def test_it_downloads_what_there_is_and_counts_the_rest() -> None:
    done = subprocess.run([*COMMAND, "1000"], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [line.strip().split("  ")[0] for line in lines[:2]] == ["100 of 1,000", "200 of 1,000"]
    assert lines[9].startswith(" 1,000 of 1,000")
    had, retries, lost = map(int, re.findall(r"(\d+) (?:pages|retries|not)", lines[10].replace(",", "")))
    assert had + lost == 1000
    assert retries > 10
    assert lost > 0
    assert f"{lost} × Permanent" in done.stdout


def test_a_bar_on_a_terminal() -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen([*COMMAND, "300"], cwd=ROOT, stdout=theirs, stderr=subprocess.PIPE) as process:
        os.close(theirs)
        shown = b""
        try:
            while data := os.read(ours, 65536):
                shown += data
        except OSError:  # the program has ended
            pass
        finally:
            os.close(ours)
        assert process.wait(PATIENCE) == 0
    text = shown.decode()
    assert "\r█" in text
    assert re.search(r"█{40}  +300 of 300", text)


def test_ctrl_c() -> None:
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [*COMMAND, "20000"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        assert "2,000 of 20,000" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert any(line.startswith("interrupted:") for line in err.splitlines()), err
    assert "Traceback" not in err
