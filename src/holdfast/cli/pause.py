"""`holdfast pause` and `resume`: whether workers start anything of a queue."""

from __future__ import annotations

from datetime import datetime, timedelta

import click

from holdfast.app import Holdfast, parts_of
from holdfast.cli import show
from holdfast.cli.ends import Refused
from holdfast.cli.options import coming, operated, url_option
from holdfast.cli.queues import paused
from holdfast.job import State
from holdfast.naming import named
from holdfast.store import QueueStats


@click.command(short_help="Have workers start nothing more of a queue.")
@click.argument("name", metavar="QUEUE")
@click.option("--until", metavar="WHEN", callback=coming, help="2h (from now) or an instant; default: until resumed.")
@click.option("--reason", metavar="TEXT", default="", help="Why: everybody who looks at the queue sees it.")
@url_option
def pause(name: str, until: timedelta | datetime | None, reason: str, url: str | None) -> None:
    """Have workers start nothing more of QUEUE; what runs goes on, and jobs may be enqueued.

    Again: the new --until and --reason are in effect.
    """
    name = named(name, "QUEUE")
    with operated(url) as app:
        if _seen(app, name) is None:
            show.note(f"nobody has declared queue {name} and it has no job: is the name right?")
        app.pause(name, until=until, reason=reason)
        if (queue := _seen(app, name)) is None or queue.pause is None:
            return
        show.out(f"{name}  {paused(queue, queue.pause)}")
        if running := queue.counts.get(State.RUNNING, 0):
            show.out(f"  {show.many(running, 'job')} of it {'runs' if running == 1 else 'run'} on")
        if queue.pause.until is None:
            show.out(f"  It stays so until `holdfast resume {name}`.")


@click.command(short_help="End a queue's pause.")
@click.argument("name", metavar="QUEUE")
@url_option
def resume(name: str, url: str | None) -> None:
    """End the pause of QUEUE: workers go on with it at once."""
    name = named(name, "QUEUE")
    with operated(url) as app:
        if not app.resume(name):
            raise Refused(f"nothing to resume: queue {name} is not paused")
        queue = _seen(app, name)
        waiting = queue.counts.get(State.QUEUED, 0) if queue is not None else 0
        show.out(f"{name}  goes on" + (f": {show.many(waiting, 'job')} due" if waiting else ""))


def _seen(app: Holdfast, name: str) -> QueueStats | None:
    return next((queue for queue in parts_of(app).operating.stats().queues if queue.name == name), None)
