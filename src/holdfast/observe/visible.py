"""Text that came from jobs, made safe to print: control, escape and direction characters are shown, not obeyed."""

from __future__ import annotations

import re
import unicodedata

_DIRECTIONS = {
    "\u061c": "ALM",
    "\u200e": "LRM",
    "\u200f": "RLM",
    "\u202a": "LRE",
    "\u202b": "RLE",
    "\u202c": "PDF",
    "\u202d": "LRO",
    "\u202e": "RLO",
    "\u2066": "LRI",
    "\u2067": "RLI",
    "\u2068": "FSI",
    "\u2069": "PDI",
}
_ESCAPES = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}
# Joiners (U+200C, U+200D) stay: emoji and several scripts need them, and they reorder nothing.
_HIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)


def visible(text: str) -> str:
    r"""`text` on one line: an escape character as `\x1b`, a line's end as `\n`, a right-to-left override as `⟪RLO⟫`."""
    return text if text.isprintable() else _HIDDEN.sub(_shown, text)


def visible_lines(text: str) -> list[str]:
    """`text` as the lines that it has, each of them visible."""
    return [visible(line.expandtabs(4)) for line in text.replace("\r\n", "\n").strip("\n").split("\n")]


def escaped(character: str) -> str:
    r"""One character as Python would write it: `\x1b`, `\u200b`, `\U000e0001`."""
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _shown(match: re.Match[str]) -> str:
    character = match[0]
    if character in _DIRECTIONS:
        return f"⟪{_DIRECTIONS[character]}⟫"
    return _ESCAPES.get(character) or escaped(character)


def columns(text: str) -> int:
    """How many columns of a terminal `text` takes."""
    return len(text) if text.isascii() else sum(map(_columns, text))


def shortened(text: str, room: int) -> str:
    """`text` in at most `room` columns, its cut shown by `…`."""
    if columns(text) <= room:
        return text
    kept, left = list[str](), room - 1
    for character in text:
        left -= _columns(character)
        if left < 0:
            break
        kept.append(character)
    return "".join(kept) + "…" if room > 0 else ""


def _columns(character: str) -> int:
    if unicodedata.combining(character) or character in "\u200c\u200d\ufe0f":
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
