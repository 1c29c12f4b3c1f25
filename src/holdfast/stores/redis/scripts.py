"""The .lua files of `scripts/`: the server runs each behind the parts that scripts share, and knows it by its digest.

Of a part only those statements go along that a script needs: the server makes all of them anew at each call.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

# All at once: later the process may have no descriptor left, or an upgrade may have put other files here.
_texts: Mapping[str, str] = {
    file.name.removesuffix(".lua"): file.read_text("utf-8")
    for file in (resources.files("holdfast.stores.redis") / "scripts").iterdir()
    if file.name.endswith(".lua")
}
CLOCK = _texts["clock"]
PARTS = (
    "prelude",
    "jobs",
    "places",
    "admission",
    "held",
    "timetable",
    "lives",
)  # behind the clock; each may use those before it


@dataclass(frozen=True, slots=True)
class Script:
    text: bytes
    sha: bytes


@lru_cache(maxsize=1024)
def script(name: str, clock: str = CLOCK, *, shebang: bool = False) -> Script:
    """The script of `scripts/<name>.lua`; `clock` is the Lua text of `now(shift)`."""
    whole = "\n".join([_bare(clock), *(_bare(_texts[part]) for part in PARTS)])
    text = "\n".join(["#!lua"] * shebang + _needed(whole, _bare(_texts[name]))).encode()
    return Script(text, hashlib.sha1(text).hexdigest().encode())  # noqa: S324  # it is a name, and the server's


def names() -> list[str]:
    """All scripts that there are, without parts."""
    return sorted(_texts.keys() - {"clock", *PARTS})


_CALLED = re.compile(r"call\(\s*'([A-Z]+)'")


@lru_cache(maxsize=1)
def commands() -> tuple[str, ...]:
    """The commands that scripts call."""
    return tuple(sorted({name for text in _texts.values() for name in _CALLED.findall(_bare(text))}))


_STATEMENT = re.compile(r"^(?=local )", re.MULTILINE)  # those of a part stand at the margin
_DEFINES = re.compile(r"local function (\w+)|local ([\w, ]+)")
_WORD = re.compile(r"[A-Za-z_]\w*")


def _needed(parts: str, script: str) -> list[str]:
    """The statements of the parts that the script needs, itself or by another of them, and the script."""
    words, texts = set(_WORD.findall(script)), [script]
    for statement in reversed(_STATEMENT.split(parts)):
        defines = _DEFINES.match(statement)
        if defines and words & set(_WORD.findall(defines[1] or defines[2])):
            words |= set(_WORD.findall(statement))
            texts.append(statement.rstrip())
    return texts[::-1]


def _bare(text: str) -> str:
    """Without lines that are comments only: every server keeps the text."""
    return "\n".join(line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("--"))
