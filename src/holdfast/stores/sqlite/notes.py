"""What running handlers say of themselves: progress, lines of their job's log, and what the next attempt shall find."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import NamedTuple
from uuid import UUID

from holdfast.clock import Instant
from holdfast.job import LOG_MOST, LogLine, Note
from holdfast.stores.sqlite.rows import storable
from holdfast.stores.sqlite.statements import Row, Sql


class _Word(NamedTuple):
    """A word as speaking.sql answers it: `runs`, or the claim that settled the job last."""

    seq: int
    runs: bool


def note(sql: Sql, notes: Sequence[Note]) -> list[bool]:
    words = [(str(note.id), note.fence, str(note.worker)) for note in notes]
    found = {row[:3]: _Word(row[3], row[4] == 1) for row in sql.spread_rows("speaking", list(dict.fromkeys(words)))}
    heard = [(note, found[word]) for note, word in zip(notes, words, strict=True) if word in found]
    for said, word in heard:
        _write(sql, said, word)
    _append(sql, [(word.seq, said) for said, word in heard if said.lines])
    return [word in found and found[word].runs for word in words]


def _write(sql: Sql, said: Note, word: _Word) -> None:
    if said.progress is not None or said.text is not None:
        text = None if said.text is None else storable(said.text)
        sql.spread("note", [(word.seq, said.fence, said.progress, text)])
    if said.saved is not None and word.runs:
        sql.spread("save", [(word.seq, said.saved)])


def _append(sql: Sql, spoken: Sequence[tuple[int, Note]]) -> None:
    if not spoken:
        return
    newest = {seq: number or 0 for seq, number in sql.rows("lines", json.dumps(sorted({seq for seq, _ in spoken})))}
    rows = list(_numbered(spoken, newest, sql.now()))
    sql.spread("write_lines", rows)
    for seq, number in newest.items():
        sql.write("cut_log", seq, number - LOG_MOST)


def _numbered(spoken: Sequence[tuple[int, Note]], newest: dict[int, int], now: Instant) -> Iterator[Row]:
    """Rows for write_lines.sql; `newest` counts along."""
    for seq, said in spoken:
        newest[seq] += max(0, len(said.lines) - LOG_MOST)
        for age, text in said.lines[-LOG_MOST:]:
            newest[seq] += 1
            yield seq, newest[seq], now - age, said.fence, storable(text)


def log(sql: Sql, job: UUID) -> list[LogLine]:
    return [LogLine(*row) for row in sql.rows("log", str(job))]
