"""`holdfast enqueue`: one job from the shell, checked against its task."""

from __future__ import annotations

import difflib
import json
from datetime import datetime, timedelta
from typing import Any

import click

from holdfast.app import Holdfast, parts_of
from holdfast.cli import options, show
from holdfast.cli.ends import Wrong
from holdfast.cli.load import load_app
from holdfast.errors import ConfigError
from holdfast.task import Task


@click.command(
    short_help="Enqueue one job.",
    context_settings={"ignore_unknown_options": True},  # -5 is an argument
)
@click.argument("task")
@click.argument("args_json", nargs=-1)
@click.option("--app", "spec", metavar="APP", help="module:attribute, such as shop:jobs.")
@click.option("--kwargs", "kwargs_json", metavar="JSON", help="Keyword arguments as a JSON object.")
@click.option("--queue", metavar="QUEUE", help="Instead of the task's own.")
@click.option("--delay", metavar="DURATION", callback=options.length, help="Run it later: 90s, 5m, 2h, 7d.")
@click.option("--at", metavar="INSTANT", callback=options.instant, help="Run it then: ISO 8601 with a zone.")
@click.option(
    "--expires", metavar="WHEN", callback=options.coming, help="Not started by then: cancelled. 5m, or an instant."
)
@click.option(
    "--deadline", metavar="WHEN", callback=options.coming, help="Not finished by then: dead. 2h, or an instant."
)
@click.option("--priority", type=int, help="-100 to 100, higher first.")
@click.option("--tag", "tags", multiple=True, help="A tag; may be repeated.")
@click.option("--timeout", metavar="DURATION", callback=options.length, help="How long it may run.")
def enqueue(task: str, args_json: tuple[str, ...], spec: str | None, kwargs_json: str | None, **given: Any) -> None:
    """Enqueue one job of TASK and print its id. The arguments are JSON, a text with its quotes:

    holdfast enqueue --app shop:jobs shop.send_invoice 42 '"ann@example.com"'
    """
    args = [argument(place, text) for place, text in enumerate(args_json, 1)]
    kwargs = keywords(kwargs_json)
    with load_app(spec) as app:
        must_last(app)
        parts_of(app).registry.load()
        chosen = task_named(app, task).using(**_options(**given))
        try:
            job = chosen.enqueue(*args, **kwargs)
        except TypeError as error:
            raise Wrong(str(error)) from error
    show.out(str(job.id))


def argument(place: int, text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        pass
    if text.startswith("--"):
        raise click.NoSuchOption(text.partition("=")[0])
    quoted = json.dumps(text, ensure_ascii=False)
    raise Wrong(f"argument {place}, {text!r}, is not JSON; as a text it is written '{quoted}'")


def keywords(text: str | None) -> dict[str, Any]:
    try:
        found: object = json.loads(text or "{}")
    except ValueError as error:
        raise Wrong(f"--kwargs {text!r} is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise Wrong(f"""--kwargs {text!r} is not an object, such as '{{"order_id": 42}}'""")
    return found  # pyright: ignore[reportUnknownVariableType]  # JSON's keys are texts


def _options(
    *,
    queue: str | None,
    delay: float | None,
    at: datetime | None,
    expires: timedelta | datetime | None,
    deadline: timedelta | datetime | None,
    priority: int | None,
    tags: tuple[str, ...],
    timeout: float | None,
) -> Any:
    given = {
        "queue": queue,
        "delay": delay,
        "at": at,
        "expires": expires,
        "deadline": deadline,
        "priority": priority,
        "tags": tags or None,
        "timeout": timeout,
    }
    return {name: value for name, value in given.items() if value is not None}


def task_named(app: Holdfast, name: str) -> Task[..., Any]:
    tasks = parts_of(app).registry.names
    if name in tasks:
        return tasks[name]
    if not tasks:
        raise Wrong(f"there is no task {name!r}: the app has none; are their modules in modules=[...]?")
    near = difflib.get_close_matches(name, tasks, n=3, cutoff=0.5)
    if near:
        raise Wrong(f"there is no task {name!r}; did you mean {' or '.join(near)}?")
    some = sorted(tasks)[:5]
    raise Wrong(f"there is no task {name!r}; there are {', '.join(some)}{', …' if len(tasks) > len(some) else ''}")


def must_last(app: Holdfast) -> None:
    if not parts_of(app).link.store.shared:
        raise ConfigError(f"{parts_of(app).link.store.url} lives in one process: the job would end with this command")
