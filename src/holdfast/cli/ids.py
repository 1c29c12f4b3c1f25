"""Job ids as people give them: whole, the short form of tables (`01a20391…7c3e`), or a beginning."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import islice
from uuid import UUID

from holdfast.app import Holdfast, parts_of
from holdfast.cli.ends import NothingMatched, Wrong
from holdfast.job import Record
from holdfast.store import Where

LEAST = 4  # hexadecimal digits
CANDIDATES = 10
_PARTS = re.compile(r"([0-9a-f-]*?)(?:(?:…|\.{2,3})([0-9a-f]{0,12}))?", re.IGNORECASE)
_GROUPS = (8, 4, 4, 4, 12)


def short(id: UUID) -> str:
    """The form for tables: first 8 digits and last 4."""
    text = str(id)
    return f"{text[:8]}…{text[-4:]}"


def found(app: Holdfast, text: str) -> Record:
    """The job that `text` names; NothingMatched without one, a usage error that lists the candidates with several."""
    where = _where(text)
    candidates = list(islice(parts_of(app).operating.records(where), CANDIDATES + 1))
    if len(candidates) > 1:
        some = ", ".join(str(record.id) for record in candidates[:CANDIDATES])
        more = ", …" if len(candidates) > CANDIDATES else ""
        raise Wrong(f"{text!r} fits {len(candidates) if not more else 'many'} jobs: {some}{more}")
    if not candidates:
        raise NothingMatched(f"no job {text}: never stored, or pruned after its time (24 h for succeeded jobs)")
    return candidates[0]


def resolved(app: Holdfast, texts: Sequence[str]) -> tuple[UUID, ...]:
    """Whole ids of all that `texts` name, each once; only shortened ones are looked up."""
    return tuple(dict.fromkeys(_whole(text) or found(app, text).id for text in texts))


def _where(text: str) -> Where:
    whole = _whole(text)
    if whole is not None:
        return Where(ids=(whole,))
    match = _PARTS.fullmatch(text.strip())
    if match is None or len(text) > len(str(UUID(int=0))):
        hint = "; filters are flags, such as --state dead" if ":" in text else ""
        raise Wrong(f"{text!r} is not a job id, nor the short form or the beginning of one{hint}")
    starts, ends = match[1].replace("-", "").lower(), (match[2] or "").lower()
    if len(starts) + len(ends) < LEAST:
        raise Wrong(f"{text!r} is too short for a job id: give {LEAST} digits at least")
    return Where(starts=_dashed(starts) or None, ends=ends or None)


def _whole(text: str) -> UUID | None:
    try:
        return UUID(text.strip())
    except ValueError:
        return None


def _dashed(digits: str) -> str:
    groups, place = list[str](), 0
    for size in _GROUPS:
        groups.append(digits[place : place + size])
        place += size
    return "-".join(group for group in groups if group)
