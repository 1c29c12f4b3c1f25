"""The typing contract: both checkers accept contract.py, and report every suppressed line once it is bare."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CONTRACT = Path(__file__).with_name("contract.py")
MYPY_CODES = re.compile(r"#\s*type:\s*ignore\[([^]]*)]")
PYRIGHT_RULES = re.compile(r"#\s*pyright:\s*ignore\[([^]]*)]")

pytestmark = pytest.mark.timeout(300)  # a checker reads the whole standard library first

Findings = dict[int, set[str]]


def _run(folder: Path, *command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=folder, capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode in {0, 1}, f"{command[0]} could not do its work:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def _collected(findings: list[tuple[int, str]]) -> Findings:
    lines: Findings = {}
    for line, code in findings:
        lines.setdefault(line, set()).add(code)
    return lines


def mypy(file: Path) -> Findings:
    """Run mypy on one file; its errors by line."""
    (file.parent / "mypy.ini").write_text("[mypy]\nstrict = true\nenable_error_code = unused-awaitable\n")
    output = _run(file.parent, "mypy", "--output", "json", "--config-file", "mypy.ini", file.name)
    found: list[dict[str, Any]] = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    return _collected([(one["line"], one["code"]) for one in found if one["severity"] == "error"])


def basedpyright(file: Path) -> Findings:
    """Run basedpyright on one file; its errors by line."""
    settings = {
        "typeCheckingMode": "standard",
        "enableTypeIgnoreComments": False,
        "reportUnnecessaryTypeIgnoreComment": "error",
        "reportUnusedCoroutine": "error",
    }
    (file.parent / "pyrightconfig.json").write_text(json.dumps(settings))
    output = _run(file.parent, "basedpyright", "--outputjson", "--pythonpath", sys.executable, file.name)
    found: list[dict[str, Any]] = json.loads(output)["generalDiagnostics"]
    return _collected(
        [(one["range"]["start"]["line"] + 1, one.get("rule", "syntax")) for one in found if one["severity"] == "error"]
    )


CHECKERS = [
    pytest.param(mypy, MYPY_CODES, id="mypy"),
    pytest.param(basedpyright, PYRIGHT_RULES, id="basedpyright"),
]


def suppressed(text: str, suppression: re.Pattern[str]) -> Findings:
    """What the text says that a checker refuses, by line."""
    return {
        number: set(re.split(r",\s*", match[1]))
        for number, line in enumerate(text.splitlines(), start=1)
        if (match := suppression.search(line))
    }


@pytest.mark.parametrize(("checker", "suppression"), CHECKERS)
def test_checker_accepts_the_contract(checker: Any, suppression: re.Pattern[str], tmp_path: Path) -> None:
    file = tmp_path / "contract.py"
    file.write_text(CONTRACT.read_text())
    assert checker(file) == {}


@pytest.mark.parametrize(("checker", "suppression"), CHECKERS)
def test_checker_refuses_every_suppressed_line(checker: Any, suppression: re.Pattern[str], tmp_path: Path) -> None:
    text = CONTRACT.read_text()
    expected = suppressed(text, suppression)
    assert len(expected) >= 10, "the contract has lost its refusals"
    file = tmp_path / "contract.py"
    file.write_text(PYRIGHT_RULES.sub("", MYPY_CODES.sub("", text)))
    assert checker(file) == expected
