"""What running handlers say of themselves: progress, lines of their job's log, and what the next attempt shall find."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from uuid import UUID

from holdfast.job import LOG_MOST, LogLine, Note
from holdfast.stores.columns import storable
from holdfast.stores.redis.lane import Call, Lane
from holdfast.stores.redis.place import queue_keys
from holdfast.stores.redis.resp import Argument
from holdfast.stores.redis.whereabouts import located

_NOTES, _BYTES = 100, 1_000_000  # of one script: it holds up the server for a few milliseconds


async def note(lane: Lane, notes: Sequence[Note]) -> list[bool]:
    answers = [False] * len(notes)
    calls: list[Call] = []
    asked: list[list[int]] = []
    for queue, nths in (await _by_queue(lane, notes)).items():
        for some, words in _batches(notes, nths):
            calls.append(("note", queue_keys(lane.place, queue), (LOG_MOST, *words)))
            asked.append(some)
    for nths, holds in zip(asked, await lane.scripts(calls), strict=True):
        for nth, each in zip(nths, holds, strict=True):
            answers[nth] = each == 1
    return answers


async def _by_queue(lane: Lane, notes: Sequence[Note]) -> dict[str, list[int]]:
    """Positions in the call; without notes about jobs that no queue has."""
    queues = await located(lane, lane.place, [said.id for said in notes])
    nths: defaultdict[str, list[int]] = defaultdict(list)
    for nth, said in enumerate(notes):
        if said.id in queues:
            nths[queues[said.id]].append(nth)
    return nths


def _batches(notes: Sequence[Note], nths: Iterable[int]) -> Iterator[tuple[list[int], list[Argument]]]:
    """For one script each: positions, and what is said there."""
    some: list[int] = []
    words: list[Argument] = []
    size = 0
    for nth in nths:
        said = _words_of(notes[nth])
        length = sum(len(word) for word in said if not isinstance(word, int))
        if some and (len(some) == _NOTES or size + length > _BYTES):
            yield some, words
            some, words, size = [], [], 0
        some.append(nth)
        words += said
        size += length
    if some:
        yield some, words


def _words_of(said: Note) -> list[Argument]:
    lines = said.lines[-LOG_MOST:]
    return [
        str(said.id),
        said.fence,
        str(said.worker),
        "" if said.progress is None else repr(said.progress),
        "-" if said.text is None else f"+{storable(said.text)}",
        b"-" if said.saved is None else b"+" + said.saved,
        len(lines),
        *(word for age, text in lines for word in (age, storable(text))),
    ]


async def log(lane: Lane, id: UUID) -> list[LogLine]:
    queue = (await located(lane, lane.place, [id])).get(id)
    if queue is None:
        return []
    [lines] = await lane.commands([("LRANGE", f"{queue_keys(lane.place, queue).base}log:{id}", 0, -1)])
    return [_line_of(line.decode()) for line in lines]


def _line_of(text: str) -> LogLine:
    at, fence, line = text.split(" ", 2)
    return LogLine(int(at), int(fence), line)
