"""The documents keep their word: what they name exists."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
GUARANTEES = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")


def named() -> dict[str, bool]:
    """The tests that the guarantees name; whether the text says of one that it is run by `make soak` alone."""
    return {name: bool(soak) for name, soak in re.findall(r"`(test_\w+)`( \(soak\))?", GUARANTEES)}


def there() -> Iterator[tuple[str, bool]]:
    """Every test, and whether it is run by `make soak` alone."""
    for path in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                yield node.name, any(ast.unparse(mark) == "pytest.mark.soak" for mark in node.decorator_list)


def test_every_guarantee_names_tests_that_exist() -> None:
    assert len(named()) > 30
    assert sorted(named().keys() - dict(there()).keys()) == []


def test_a_guarantee_whose_test_is_seldom_run_says_so() -> None:
    soak = {name for name, seldom in there() if seldom}
    assert soak
    assert sorted(name for name, said in named().items() if said != (name in soak)) == []


def test_every_row_of_the_guarantees_names_a_test() -> None:
    tables = re.findall(r"^\|.*\|\n\|[-|]+\|\n((?:\|.*\|\n)+)", GUARANTEES, re.MULTILINE)
    rows = [row for table in tables for row in table.splitlines()]
    assert (len(tables), len(rows) > 35) == (5, True)
    assert [row for row in rows if "`test_" not in row] == []
