"""`holdfast worker`: checks the options and hands over to the supervisor."""

from __future__ import annotations

import click

from holdfast.cli.ends import Wrong
from holdfast.cli.load import app_named
from holdfast.cli.options import length, listening_at, size
from holdfast.config import setting
from holdfast.errors import ConfigError
from holdfast.naming import named
from holdfast.observe.logging import LEVELS, STYLES, Style

_COUNT = click.IntRange(min=1)
_DEADLINE = "How long running jobs may go on after SIGTERM or Ctrl-C; default: 10 seconds."
_STALL = "End a process whose loop, threads or outcomes stand still so long; off: never. Default: 5 minutes."
_LOG = "Default: HOLDFAST_LOG, else human on a terminal, else kv."
_METRICS = "Answer /metrics, /live and /ready there, such as 127.0.0.1:9100; default: HOLDFAST_METRICS, else nowhere."
STALL_LEAST = 2.0  # seconds: pulses come twice a second, and are looked at once


def _limit(context: click.Context, parameter: click.Parameter, text: str) -> float | None:
    if text == "off":
        return None
    seconds = length(context, parameter, text)
    if seconds is None or seconds < STALL_LEAST:
        why = f"{text!r}: at least {STALL_LEAST:g} seconds, or 'off' for never"
        raise click.BadParameter(why, ctx=context, param=parameter)
    return seconds


def _style(context: click.Context, parameter: click.Parameter, text: str | None) -> str | None:
    style = text or setting("log")
    if style is not None and style not in STYLES:
        why = f"HOLDFAST_LOG, or log under [tool.holdfast], is {style!r}: there are {', '.join(STYLES)}"
        raise click.BadParameter(why, ctx=context, param=parameter)
    return style


@click.command(short_help="Run jobs until a signal.")
@click.argument("spec", metavar="[APP]", required=False)
@click.option("--queues", metavar="NAMES", help="Serve these alone, with commas between; default: all in the store.")
@click.option("--strict", is_flag=True, help="Start nothing of a queue while one before it in --queues has jobs.")
@click.option("--concurrency", type=_COUNT, default=10, show_default=True, help="Jobs at a time, in each process.")
@click.option("--processes", type=_COUNT, default=1, show_default=True, help="Worker processes.")
@click.option("--deadline", metavar="DURATION", default="10", callback=length, help=_DEADLINE)
@click.option("--max-jobs", type=_COUNT, metavar="N", help="Replace a process after so many jobs; it finishes first.")
@click.option("--max-memory", metavar="SIZE", callback=size, help="Replace a process that holds more, such as 500MB.")
@click.option("--stall-limit", metavar="DURATION", default="5m", callback=_limit, help=_STALL)
@click.option("--metrics", metavar="HOST:PORT", help=_METRICS)
@click.option("--log", "style", type=click.Choice(STYLES), callback=_style, help=_LOG)
@click.option("--log-level", "level", type=click.Choice(LEVELS), default="info", help="The least that is told.")
@click.option("--log-arguments", is_flag=True, help="Show the arguments of jobs on their started lines, in plain text.")
def worker(
    *,
    spec: str | None,
    queues: str | None,
    strict: bool,
    concurrency: int,
    processes: int,
    deadline: float,
    style: Style | None,
    level: str,
    max_jobs: int | None,
    max_memory: int | None,
    log_arguments: bool,
    stall_limit: float | None,
    metrics: str | None,
) -> int:
    """Run the jobs of APP, a module:attribute such as shop:jobs, until a signal.

    The first SIGTERM or Ctrl-C drains: running jobs have --deadline to end. The second stops at once.
    Exit codes: 0 drained, 1 some were forced and given back, 2 the app could not be started, 3 the store could not be
    opened, or did not take all outcomes.
    """
    from holdfast.cli.supervise import run

    if strict and queues is None:
        raise Wrong("--strict: in which order? Name the queues, as in --queues urgent,mail --strict")
    return run(
        app=app_named(spec),
        queues=_names(queues),
        strict=strict,
        concurrency=concurrency,
        processes=processes,
        deadline=deadline,
        style=style,
        level=level,
        arguments=log_arguments,
        max_jobs=max_jobs,
        max_memory=max_memory,
        stall_limit=stall_limit,
        metrics=listening_at(metrics, "--metrics"),
    )


def _names(text: str | None) -> list[str] | None:
    if text is None:
        return None
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise Wrong("--queues names no queue; leave it out to serve every queue")
    try:
        return [named(name, "--queues") for name in names]
    except ConfigError as error:
        raise Wrong(str(error)) from None
