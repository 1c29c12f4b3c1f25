"""`holdfast jobs`: the jobs that match, newest first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import click

from holdfast.app import Holdfast, parts_of
from holdfast.cli import ids, show
from holdfast.cli.ends import NothingMatched, Wrong
from holdfast.cli.options import filter_options, operated, url_option, wanted
from holdfast.client.filters import which
from holdfast.job import Record
from holdfast.store import Where


@click.command(short_help="List jobs, newest first.")
@click.argument("ids_given", metavar="[ID]...", nargs=-1)
@filter_options
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="At most so many.")
@click.option("--after", metavar="ID", help="Go on behind this job, the last one of the list before.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
@click.option("-q", "--quiet", is_flag=True, help="Ids only.")
@url_option
def jobs(
    ids_given: tuple[str, ...],
    limit: int,
    after: str | None,
    as_json: bool,
    quiet: bool,
    url: str | None,
    **flags: Any,
) -> None:
    """List the jobs that match all that is given, newest first.

    On a terminal a table. In a pipe tab-separated columns: state, task, queue, attempt, the time that goes with the
    state (due, started or finished), error or worker, id.
    """
    if as_json and quiet:
        raise Wrong("--json and --quiet exclude each other")
    with operated(url) as app:
        where = which(wanted(flags))
        if ids_given:
            where = replace(where, ids=ids.resolved(app, ids_given))
        page, more = _page(app, where, after, limit)
        if not page:
            _nothing(app, where, after)
        _show(page, where, _form(as_json=as_json, quiet=quiet))
        if more:
            show.note(f"{len(page)} shown, there are more; next: --after {page[-1].id}")


def _page(app: Holdfast, where: Where, after: str | None, limit: int) -> tuple[list[Record], bool]:
    behind = None if after is None else ids.found(app, after)
    cursor = None if behind is None else (behind.enqueued_at, behind.id)
    records = list(islice(parts_of(app).operating.records(where, cursor), limit + 1))
    return records[:limit], len(records) > limit


def _nothing(app: Holdfast, where: Where, after: str | None) -> None:
    if after is not None:
        show.note(f"no more jobs behind {after}")
    elif where == Where():
        show.note(f"no jobs in {parts_of(app).link.store.url} yet")
    else:
        raise NothingMatched(f"no job in {parts_of(app).link.store.url} matches all of this")


def _form(*, as_json: bool, quiet: bool) -> Callable[[Record], str] | None:
    if as_json:
        return show.as_json
    if quiet:
        return lambda record: str(record.id)
    return None if show.on_terminal() else show.for_pipes


def _show(page: Sequence[Record], where: Where, form: Callable[[Record], str] | None) -> None:
    if form is not None:
        show.lines(page, form)
        return
    state = where.states[0] if where.states and len(where.states) == 1 else None
    for line in show.for_people(page, state) if page else ():
        show.out(line)
