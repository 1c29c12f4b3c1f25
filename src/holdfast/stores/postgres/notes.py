"""What running handlers say of themselves: progress, lines of their job's log, and what the next attempt shall find."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from holdfast.job import LOG_MOST, LogLine, Note
from holdfast.stores.columns import storable
from holdfast.stores.postgres.lane import Lane


async def note(lane: Lane, notes: Sequence[Note]) -> list[bool]:
    if not notes:
        return []
    words = json.dumps([_word_of(said) for said in notes])
    return [holds for (holds,) in await lane.call("note", words, LOG_MOST)]


def _word_of(said: Note) -> list[Any]:
    return [
        str(said.id),
        said.fence,
        str(said.worker),
        said.progress,
        None if said.text is None else storable(said.text),
        [(age, storable(text)) for age, text in said.lines[-LOG_MOST:]],
        None if said.saved is None else b64encode(said.saved).decode(),
    ]


async def log(lane: Lane, id: UUID) -> list[LogLine]:
    return [LogLine(*row) for row in await lane.read("log", id)]
