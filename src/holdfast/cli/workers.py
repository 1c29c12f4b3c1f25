"""`holdfast workers`: who runs jobs, what of them, and when they were last heard."""

from __future__ import annotations

import json
from collections.abc import Sequence, Sized
from typing import Any, cast

import click

from holdfast.app import parts_of
from holdfast.cli import show
from holdfast.cli.ends import Wrong
from holdfast.cli.options import operated, url_option
from holdfast.clock import Instant
from holdfast.observe.visible import visible
from holdfast.store import WorkerRow


@click.command(short_help="Show workers: their slots, queues, tasks, and when they were last heard.")
@click.option("--all", "every", is_flag=True, help="Also those that have left and are remembered still.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per worker.")
@click.option("-q", "--quiet", is_flag=True, help="Ids only.")
@url_option
def workers(every: bool, as_json: bool, quiet: bool, url: str | None) -> None:
    """Show the workers that the store knows, supervisors among them: live, or silent, as its lease has run out and its
    jobs are taken over.

    On a terminal a table. In a pipe tab-separated columns: name, id, state, slots, queues, number of tasks, version,
    Python, when last heard, since when steadily.
    """
    if as_json and quiet:
        raise Wrong("--json and --quiet exclude each other")
    with operated(url) as app:
        roster = parts_of(app).operating.workers()
        rows = [row for row in roster.workers if every or row.retired_at is None]
        if not rows:
            show.note(f"no worker is at work on {parts_of(app).link.store.url}: start one with `holdfast worker`")
    if as_json or quiet:
        for row in rows:
            show.out(_document(row, roster.now) if as_json else str(row.id))
    elif not show.on_terminal():
        for row in rows:
            show.out("\t".join(_columns(row, roster.now)))
    elif rows:
        _table(rows, roster.now)


def _table(rows: Sequence[WorkerRow], now: Instant) -> None:
    heads = ("WORKER", "ID", "STATE", "SLOTS", "QUEUES", "TASKS", "VERSION", "HEARD", "SINCE")
    cells = [
        (
            visible(_name(row)),
            str(row.id)[:8],
            _painted(row, now),
            _text(row, "slots"),
            _queues(row),
            _tasks(row),
            _text(row, "version"),
            f"{show.coarse(now - row.beat_at)} ago",
            show.coarse(now - row.steady_since),
        )
        for row in rows
    ]
    for line in show.table(show.Table(heads, cells, (show.Cut(4, 8), show.Cut(0, 10, front=True)))):
        show.out(line)


def _state(row: WorkerRow, now: Instant) -> str:
    if row.retired_at is not None:
        return "left"
    return "live" if now < row.lease_until else "silent"


def _painted(row: WorkerRow, now: Instant) -> str:
    state = _state(row, now)
    glyph, colour = {"live": ("●", "green"), "silent": ("▲", "yellow"), "left": ("○", "bright_black")}[state]
    return f"{show.painted(glyph, colour)} {state}"


def _name(row: WorkerRow) -> str:
    return _text(row, "name") or str(row.id)


def _text(row: WorkerRow, fact: str) -> str:
    value = row.facts.get(fact)
    return "" if value is None else visible(str(value))


def _queues(row: WorkerRow) -> str:
    """Those that it serves; a supervisor runs no jobs itself."""
    if "tasks" not in row.facts:
        return "(supervisor)"
    names = row.facts.get("queues")
    return "every queue" if names is None else visible(",".join(map(str, cast("list[Any]", names))))


def _tasks(row: WorkerRow) -> str:
    names = row.facts.get("tasks")
    return str(len(names)) if isinstance(names, Sized) else ""


def _columns(row: WorkerRow, now: Instant) -> tuple[str, ...]:
    return (
        visible(_name(row)),
        str(row.id),
        _state(row, now),
        _text(row, "slots"),
        _queues(row),
        _tasks(row),
        _text(row, "version"),
        _text(row, "python"),
        show.iso(row.beat_at) or "",
        show.iso(row.steady_since) or "",
    )


def _document(row: WorkerRow, now: Instant) -> str:
    document = {
        "id": str(row.id),
        "supervisor": None if row.supervisor is None else str(row.supervisor),
        "state": _state(row, now),
        "beat_at": show.iso(row.beat_at),
        "steady_since": show.iso(row.steady_since),
        "lease_until": show.iso(row.lease_until),
        "retired_at": show.iso(row.retired_at),
        "facts": dict(row.facts),
    }
    return json.dumps(document, default=str)
