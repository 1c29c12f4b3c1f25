"""What makes two errors the same to people: the fingerprint of a death, and the shape of a message.

Of an error count its task, its type, the shape of its message, and the place that raised it: file and function of the
innermost frame that is the user's own code, without the line. Of a crash and a timeout the place is left out, since
where they strike is chance.
"""

from __future__ import annotations

import functools
import re
from hashlib import blake2b

from holdfast.errors import ConfigError
from holdfast.job import Failure
from holdfast.observe.places import own_frame

DIGITS = 12  # hexadecimal ones
MOST = 300  # characters of a message that are looked at
OVERRAN = "ran longer than its timeout of"  # how the message of a timeout begins
LATE = "ran past its deadline"  # and of a run that was ended by its job's deadline
LOST = "Lost"  # the type that stands for the loss of the process

# In this order: what comes first takes what a later one would cut into pieces. A host is known by its port or by three
# labels.
_PARTS = (
    ("<url>", r"\b[a-z][a-z0-9+.-]{1,20}://[^\s'\"<>]+", re.IGNORECASE),
    ("<id>", r"\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b", re.IGNORECASE),
    ("<mail>", r"[\w.+-]{1,64}@[\w-]+(?:\.[\w-]+)+", 0),
    ("<text>", r"(?<!\w)'[^']*'|\"[^\"]*\"|‘[^’]*’|“[^”]*”|`[^`]*`", 0),
    ("<path>", r"(?<![\w<])(?:[A-Za-z]:)?(?:[/\\][\w.@+-]+){2,}[/\\]?", 0),
    ("<host>", r"(?<![\w:])[0-9a-f:]*::[0-9a-f:]*(?![\w:])|\b(?:[a-z0-9-]+\.){2,}[a-z]{2,}\b(?::\d+)?", re.IGNORECASE),
    ("<host>", r"\b[\w-]+(?:\.[\w-]+)*:\d{2,5}\b|\b\d{1,3}(?:\.\d{1,3}){3}\b", 0),
    ("<hex>", r"\b0x[0-9a-f]+\b|\b(?=[a-f]*\d)(?=\d*[a-f])[0-9a-f]{8,}\b", re.IGNORECASE),
    ("<n>", r"\d+(?:[.,:]\d+)*", 0),
)


def fingerprint(task: str, error: Failure | None, reason: str = "") -> str:
    """DIGITS hexadecimal digits for a death of `task`: by its error, else by the reason that was given for it."""
    if error is None:
        return _digest(task, "", shape(reason), "")
    for said in (OVERRAN, LATE):
        if error.message.startswith(said):
            return _digest(task, error.type, said, "")
    at = "" if error.type == LOST else _place(error, task)
    return _digest(task, error.type, shape(error.message), at)


def as_fingerprint(text: object) -> str:
    """What a user gives as one, with or without "f:" before it. ConfigError for what is none."""
    bare = text.strip().lower().removeprefix("f:") if isinstance(text, str) else ""
    if len(bare) != DIGITS or not bare.isalnum() or set(bare) - set("0123456789abcdef"):
        raise ConfigError(
            f"fingerprint={text!r}: {DIGITS} hexadecimal digits, such as 7c1e90ab12cd; `holdfast dead` shows them"
        )
    return bare


def shape(message: str) -> str:
    """The first line of `message` with its numbers, ids, quotations, paths, hosts and addresses replaced."""
    text = message.strip().partition("\n")[0][:MOST]
    for word, part in _parts():
        text = part.sub(word, text)
    return text


def _digest(*parts: str) -> str:
    return blake2b("\0".join(parts).encode("utf-8", "backslashreplace"), digest_size=DIGITS // 2).hexdigest()


def _place(error: Failure, task: str) -> str:
    """File and function of the innermost own frame; "" where there is none, or what is kept does not show it."""
    frame = own_frame(error.traceback, task, error.message)
    return f"{_file(frame.file)}:{frame.function}" if frame else ""


def _file(path: str) -> str:
    """Its name alone: another deployment may have it in another folder."""
    folder, _, name = path.rpartition("/")
    return f"{folder.rpartition('/')[2]}/{name}" if name.startswith("__") else name


@functools.cache
def _parts() -> list[tuple[str, re.Pattern[str]]]:  # at the first death, as it takes milliseconds
    return [(word, re.compile(pattern, flags)) for word, pattern, flags in _PARTS]
