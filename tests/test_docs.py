"""The documents keep their word: what they name exists."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_every_guarantee_names_tests_that_exist() -> None:
    text = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(test_\w+)`", text))
    assert len(named) > 15
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py"))
    missing = sorted(name for name in named if f"def {name}(" not in sources)
    assert missing == []
