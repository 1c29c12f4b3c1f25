"""What running handlers say of themselves: progress, lines of their job's log, and what the next attempt shall find."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from uuid import UUID

from holdfast.clock import Instant
from holdfast.job import LOG_MOST, LogLine, Note
from holdfast.stores.columns import storable
from holdfast.stores.sqlite.statements import Row, Sql


def note(sql: Sql, notes: Sequence[Note]) -> list[bool]:
    words = json.dumps([(str(note.id), note.fence, str(note.worker)) for note in notes])
    found = {place: (seq, runs == 1) for place, seq, runs in sql.rows("speaking", words)}
    heard = [(*found[place], said) for place, said in enumerate(notes) if place in found]
    sql.spread("note", [_progress(seq, said) for seq, _, said in heard if (said.progress, said.text) != (None, None)])
    sql.spread("save", [(seq, said.saved) for seq, runs, said in heard if runs and said.saved is not None])
    _append(sql, [(seq, said) for seq, _, said in heard if said.lines])
    return [found.get(place, (0, False))[1] for place in range(len(notes))]


def _progress(seq: int, said: Note) -> Row:
    return seq, said.fence, said.progress, None if said.text is None else storable(said.text)


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
        for age, text in said.lines[-LOG_MOST:]:
            newest[seq] += 1
            yield seq, newest[seq], now - age, said.fence, storable(text)


def log(sql: Sql, job: UUID) -> list[LogLine]:
    return [LogLine(*row) for row in sql.rows("log", str(job))]
