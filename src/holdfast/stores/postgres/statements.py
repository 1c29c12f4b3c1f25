"""The .sql files of these folders, as texts for one schema.

`functions/` has one function of the database each, which does what must happen in one step; `sql/` has statements that
only read. Both are sent unprepared, so that any pooler may stand between: a function keeps its own plans.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from importlib import resources


def _read(folder: str) -> Mapping[str, str]:
    files = (resources.files("holdfast.stores.postgres") / folder).iterdir()
    return {file.name.removesuffix(".sql"): file.read_text("utf-8") for file in files if file.name.endswith(".sql")}


# All at once: later the process may have no descriptor left, or an upgrade may have put other files here.
_statements, _functions, _migrations = _read("sql"), _read("functions"), _read("migrations")


@lru_cache(maxsize=1024)
def statement(name: str, schema: str) -> str:
    """The statement of `sql/<name>.sql`, without the comments above it."""
    lines = _statements[name].splitlines()
    return within("\n".join(line for line in lines if not line.startswith("--")).strip().rstrip(";"), schema)


@cache
def quoted(schema: str) -> str:
    """The schema's name as it stands in a statement."""
    return '"' + schema.replace('"', '""') + '"'


_QUOTE = re.compile(r"\$(function|body|name)\$")


def within(text: str, schema: str) -> str:
    """The text with every {schema} replaced."""
    if "$" in schema:  # it must not end the quotes in which it stands
        text = _QUOTE.sub(rf"$\1_{hashlib.sha256(schema.encode()).hexdigest()[:8]}$", text)
    return text.replace("{schema}", quoted(schema))


def functions() -> Mapping[str, str]:
    """The texts of all functions, by name."""
    return _functions


@cache
def digest() -> str:
    """Tells these functions from those of other versions."""
    return hashlib.sha256("\0".join(text for _, text in sorted(_functions.items())).encode()).hexdigest()


def migrations() -> Mapping[str, str]:
    """The texts of all migrations, by name: `<number>_<name>`."""
    return _migrations


_PIECE = re.compile(
    r"""
    --[^\n]* | /\*.*?\*/                # comments
    | (?P<quote>\$\w*\$).*?(?P=quote)    # a function's body
    | '(?:[^']|'')*' | "(?:[^"]|"")*"   # texts and names
    | (?P<end>;) | .
    """,
    re.VERBOSE | re.DOTALL,
)


def split(text: str) -> Sequence[str]:
    """The statements of a text, each whole with its semicolon and with the comments above it."""
    found, start = list[str](), 0
    for piece in _PIECE.finditer(text):
        if piece["end"]:
            found.append(text[start : piece.end()].strip())
            start = piece.end()
    return found
