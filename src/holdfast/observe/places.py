"""Where an error came from: of a traceback the innermost frame that is the user's own code."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from typing import NamedTuple

_FRAME = re.compile(r'^[ |+-]*File "(.*)", line (\d+), in (.*)$', re.MULTILINE)  # of an exception group's members, too
_INSTALLED = re.compile(r".*[/\\](?:site|dist)-packages[/\\]([^/\\]*)")
_LIBRARIES = (  # this package, and Python's own
    "<",
    __file__.removesuffix("observe/places.py"),
    os.path.dirname(os.__file__) + os.sep,  # noqa: PTH120  # pathlib is slow to import
)


class Frame(NamedTuple):
    """A line of code. `file` is as the traceback has it."""

    file: str
    line: str
    function: str


def own_frame(traceback: str, task: str = "", message: str = "") -> Frame | None:
    """The innermost frame that is no library's; None where there is none. Of a group it is where the group was raised.

    Installed code is the user's own if it is of the package that `task` is named for. `message` is the error's, which
    may itself speak of files and lines.
    """
    text = (traceback.rpartition(message)[0] or traceback) if message else traceback
    package = task.partition(".")[0]
    own = [found for found in _FRAME.findall(text) if _is_own(found[0], package)]
    return Frame(*own[-1]) if own else None


def place(traceback: str, task: str = "", message: str = "") -> str | None:
    """`own_frame` as log lines have it: `app/mail.py:88 in send_invoice`."""
    frame = own_frame(traceback, task, message)
    if frame is None:
        return None
    path = frame.file
    with suppress(OSError):  # the working directory may have been deleted, as by a deploy
        path = path.removeprefix(os.getcwd() + os.sep)  # noqa: PTH109  # a text, not a path
    return f"{path}:{frame.line} in {frame.function}"


def _is_own(path: str, package: str) -> bool:
    if installed := _INSTALLED.match(path):
        return installed[1].removesuffix(".py") == package
    return not path.startswith(_LIBRARIES)
