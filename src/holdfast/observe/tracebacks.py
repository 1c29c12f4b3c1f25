"""An exception as text, bounded in the time that it takes, whatever the exception is made of. Nothing here raises."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from typing import TypeAlias, cast

from holdfast.job import MESSAGE_LIMIT, cut

Group: TypeAlias = "BaseExceptionGroup[BaseException]"

FRAMES = 50  # the innermost ones of each exception
PLENTY = 200  # exceptions that hang together: up to here Python itself writes them
LONG = 100_000  # characters of a message that Python itself would write once more
ENDS = 5  # of a longer chain: the first causes, and the last effects
SEARCHED = 10_000  # links that are followed to the first cause

_BY_CAUSE = "\nThe above exception was the direct cause of the following exception:\n\n"
_MEANWHILE = "\nDuring handling of the above exception, another exception occurred:\n\n"


def text_of(error: object) -> str:
    """What the exception, or anything else, says; or why it cannot."""
    try:
        return str.__str__(str(error))  # an exact str, whatever subclass of it came
    except BaseException as broken:  # noqa: BLE001  # a user's __str__ may raise anything
        return f"<its __str__ raised {type(broken).__name__}>"


def traceback_of(error: BaseException, text: str) -> str:
    """Where the exception came from, and from what; `text` is what it says."""
    try:
        if len(text) < LONG and _few(error):
            return "".join(traceback.format_exception(error, limit=-FRAMES))
        return "".join(_outline(error))
    except BaseException as broken:  # noqa: BLE001  # as above
        return f"<the traceback could not be written: {type(broken).__name__}>"


def _few(error: BaseException) -> bool:
    """Whether Python can write it in good time: it writes every link, and members of groups as often as they occur."""
    waiting, seen, count = [error], set[int](), 0
    while waiting and count <= PLENTY:
        one = waiting.pop()
        count += 1
        seen.add(id(one))
        waiting += [link for link in (one.__cause__, one.__context__) if link is not None and id(link) not in seen]
        waiting += _members(one)[: PLENTY + 1]
    return count <= PLENTY


def _outline(error: BaseException) -> Iterator[str]:
    """The first causes and the last effects, the oldest first, each by itself."""
    chain = list(_chain(error))
    for place in reversed(range(len(chain))):
        if len(chain) <= 2 * ENDS or place < ENDS or place >= len(chain) - ENDS:
            yield from _alone(chain[place])
            if place:
                yield _BY_CAUSE if chain[place - 1].__cause__ is chain[place] else _MEANWHILE
        elif place == ENDS:
            yield f"… {len(chain) - 2 * ENDS} more exceptions …\n\n"


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen = set[int]()
    following: BaseException | None = error
    while following is not None and id(following) not in seen and len(seen) < SEARCHED:
        seen.add(id(following))
        yield following
        hidden = following.__suppress_context__
        following = following.__cause__ or (None if hidden else following.__context__)


def _alone(error: BaseException) -> Iterator[str]:
    frames = traceback.extract_tb(error.__traceback__, limit=-FRAMES)
    if frames:
        yield "Traceback (most recent call last):\n"
        yield from traceback.format_list(frames)
    yield _line(error)
    members = _members(error)
    for member in members[:ENDS]:
        yield f"  | {_line(member)}"
    if len(members) > ENDS:
        yield f"  | … {len(members) - ENDS} more exceptions\n"


def _members(error: BaseException) -> tuple[BaseException, ...]:
    return cast("Group", error).exceptions if isinstance(error, BaseExceptionGroup) else ()


def _line(error: BaseException) -> str:
    return f"{type(error).__qualname__}: {cut(text_of(error), MESSAGE_LIMIT)}\n"
