"""The shape of an error's message: what stays the same when the same thing goes wrong for another job."""

from __future__ import annotations

import re

MOST = 300  # characters of a message that are looked at

# In this order: what comes first takes what a later one would cut into pieces. A host is known by its port.
_PARTS = [
    ("<url>", re.compile(r"\b[a-z][a-z0-9+.-]{1,20}://[^\s'\"<>]+", re.IGNORECASE)),
    ("<id>", re.compile(r"\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b", re.IGNORECASE)),
    ("<mail>", re.compile(r"[\w.+-]{1,64}@[\w-]+(?:\.[\w-]+)+")),
    ("<text>", re.compile(r"(?<!\w)'[^']*'|\"[^\"]*\"|‘[^’]*’|“[^”]*”|`[^`]*`")),
    ("<path>", re.compile(r"(?<![\w<])(?:[A-Za-z]:)?(?:[/\\][\w.@+-]+){2,}[/\\]?")),
    ("<host>", re.compile(r"\b[\w-]+(?:\.[\w-]+)*:\d{2,5}\b|\b\d{1,3}(?:\.\d{1,3}){3}\b")),
    ("<hex>", re.compile(r"\b0x[0-9a-f]+\b|\b(?=[a-f]*\d)(?=\d*[a-f])[0-9a-f]{8,}\b", re.IGNORECASE)),
    ("<n>", re.compile(r"\d+(?:[.,:]\d+)*")),
]


def shape(message: str) -> str:
    """The first line of `message` with its numbers, ids, quotations, paths, hosts and addresses replaced."""
    text = message.strip().partition("\n")[0][:MOST]
    for word, part in _PARTS:
        text = part.sub(word, text)
    return text
