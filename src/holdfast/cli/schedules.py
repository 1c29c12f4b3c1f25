"""`holdfast schedules`: when each ticks next and what became of its last ticks; adding, changing, pausing them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, TypeVar, get_args

import click

from holdfast.app import Holdfast, parts_of
from holdfast.cli import ids, options, show
from holdfast.cli.ends import NothingMatched, Refused, Wrong
from holdfast.cli.enqueue import argument, keywords, must_last, task_named
from holdfast.cli.load import load_app
from holdfast.client.schedules import Edit, ScheduleStatus, ScheduleTick, explained, not_found
from holdfast.clock import Instant, instant, moment
from holdfast.errors import ConfigError, StoreAway, StoreError
from holdfast.observe.visible import visible
from holdfast.schedule.rule import LATE, Missed, Overlap, Rule, rule_of
from holdfast.schedule.zone import zone

C = TypeVar("C", bound=Callable[..., Any])
T = TypeVar("T")

_TICKS = {"made": ("✓", "green"), "skipped": ("↷", "yellow"), "missed": ("✕", "red")}
_REASONS = {
    "duplicate": "duplicate: its last job is not finished",
    "taken": "taken: another job has its unique key",
    "full": "full: its queue has no place",
}
FIELDS = 5  # of a cron text without seconds
SHOWN = 10  # ticks in the table
MOST = 1000  # times of `next`


def _rule_options(command: C) -> C:
    """Adds the flags that say when a schedule ticks; `None` for those that are not given."""
    for option in reversed(
        (
            click.option("--cron", metavar="TEXT", help="Such as '0 9 * * MON-FRI', or @daily."),
            click.option("--every", metavar="DURATION", callback=options.duration, help="Such as 90s, 5m, 2h."),
            click.option("--tz", metavar="ZONE", help="For --cron, such as Europe/Amsterdam; default: UTC."),
        )
    ):
        command = option(command)
    return command


def _policy_options(command: C) -> C:
    """Adds the flags that say what becomes of ticks."""
    for option in reversed(
        (
            click.option(
                "--missed", type=click.Choice(get_args(Missed)), help="What nobody made in time. Default: once"
            ),
            click.option("--overlap", type=click.Choice(get_args(Overlap)), help="While the last job is unfinished."),
            click.option("--jitter", metavar="DURATION", callback=options.duration, help="Due up to so much later."),
        )
    ):
        command = option(command)
    return command


@click.group(invoke_without_command=True, short_help="Show schedules; add, change, pause, trigger them.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per schedule.")
@click.option("-q", "--quiet", is_flag=True, help="Names only.")
@options.url_option
@click.pass_context
def schedules(context: click.Context, as_json: bool, quiet: bool, url: str | None) -> None:
    """Show every schedule: when it ticks, when it does so next, and its last ticks, the newest at the right:
    ✓ made a job, ↷ skipped, ✕ missed.

    On a terminal a table. In a pipe tab-separated columns: name, cron text or interval, zone, next tick, state, task,
    queue, ticks made, skipped, missed.
    """
    if context.invoked_subcommand is None:
        _list(url, as_json=as_json, quiet=quiet)
    elif as_json or quiet:
        raise Wrong(f"--json and --quiet are for the list, not for `schedules {context.invoked_subcommand}`")


@schedules.command("list", short_help="Show every schedule.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per schedule.")
@click.option("-q", "--quiet", is_flag=True, help="Names only.")
@options.url_option
@click.pass_context
def list_(context: click.Context, as_json: bool, quiet: bool, url: str | None) -> None:
    """As `holdfast schedules` alone."""
    _list(_url(context, url), as_json=as_json, quiet=quiet)


def _list(url: str | None, *, as_json: bool, quiet: bool) -> None:
    if as_json and quiet:
        raise Wrong("--json and --quiet exclude each other")
    with options.operated(url) as app:
        found = app.schedules()
        if not found:
            place = parts_of(app).link.store.url
            show.note(f"no schedule in {place} yet; one comes with a worker whose code has @jobs.cron, or by `add`")
    if as_json or quiet or not show.on_terminal():
        form = _as_json if as_json else _name if quiet else _columns
        for status in found:
            show.out(form(status))
    elif found:
        _table(found)


def _table(found: Sequence[ScheduleStatus]) -> None:
    now = show.now()
    rows = [
        (
            status.name,
            show.painted("unreadable", "red") if status.problem else status.description,
            _next(status, now),
            "".join(_square(tick) for tick in status.ticks[-SHOWN:]),
            _state(status),
        )
        for status in found
    ]
    cuts = (show.Cut(1, 12), show.Cut(0, 12, front=True), show.Cut(3, 5, front=True), show.Cut(2, 16))
    for line in show.table(show.Table(("SCHEDULE", "WHEN", "NEXT", "TICKS", "FROM"), rows, cuts)):
        show.out(line)
    for status in found:
        if status.problem:
            show.note(visible(status.problem))
        if status.stranded:
            show.note(f"{status.name}: {_stranded(status)}")


def _stranded(status: ScheduleStatus) -> str:
    return f"no live worker has its task, {visible(status.task)}, so that its jobs wait"


def _next(status: ScheduleStatus, now: Instant) -> str:
    if status.paused:
        until = f" until {_local(status.paused_until, status)}" if status.paused_until else ""
        why = f": {visible(status.pause_reason)}" if status.pause_reason else ""
        return show.painted(f"paused{until}{why}", "yellow")
    if status.next_at is None or status.problem:
        return "never" if not status.problem else ""
    left = instant(status.next_at, "next_at") - now
    if left < -LATE:  # nobody ticks
        return show.painted(f"overdue by {show.coarse(-left)}: no worker ticks", "yellow")
    return f"{_local(status.next_at, status)} (in {show.coarse(left)})"


def _state(status: ScheduleStatus) -> str:
    if not status.declared:
        return "an operator" if status.edited else ""
    return f"{status.owner}, changed*" if status.edited else status.owner


def _square(tick: ScheduleTick) -> str:
    glyph, _ = _TICKS[tick.outcome]
    return glyph


def _local(at: datetime, status: ScheduleStatus) -> str:
    """In the schedule's own zone, which is named, to the minute or, where the schedule needs that, to the second."""
    try:
        local = at.astimezone(zone(status.tz))
    except ConfigError:
        local = at.astimezone(UTC)
    by_seconds = len((status.cron or "").split()) > FIELDS or (status.every or 0) % 60 > 0
    reading = f"{local:%Y-%m-%d %H:%M:%S}"
    return (reading if by_seconds else reading.removesuffix(":00")) + f" {local.tzname()}"


def _name(status: ScheduleStatus) -> str:
    return status.name


def _columns(status: ScheduleStatus) -> str:
    return "\t".join(
        visible(str(cell))
        for cell in (
            status.name,
            status.cron or ("" if status.every is None else f"{status.every:.3f}".rstrip("0").rstrip(".") + "s"),
            status.tz if status.cron else "",
            _iso(status.next_at) or "",
            "paused" if status.paused else "unreadable" if status.problem else "on",
            status.task,
            status.queue,
            status.ticks_made,
            status.ticks_skipped,
            status.ticks_missed,
        )
    )


def _as_json(status: ScheduleStatus) -> str:
    plain = ("name", "task", "queue", "cron", "every", "tz", "missed", "overlap", "jitter", "description")
    document = {
        **{name: getattr(status, name) for name in plain},
        "next_at": _iso(status.next_at),
        "paused": status.paused,
        "paused_since": _iso(status.paused_since),
        "paused_until": _iso(status.paused_until),
        "pause_reason": status.pause_reason,
        **{name: getattr(status, name) for name in ("declared", "edited", "owner", "problem", "stranded")},
        **{name: getattr(status, name) for name in ("ticks_made", "ticks_skipped", "ticks_missed")},
        "ticks": [
            {
                "due": _iso(tick.due),
                "at": _iso(tick.at),
                "outcome": tick.outcome,
                "job": None if tick.job is None else str(tick.job),
                "reason": tick.reason,
                "count": tick.count,
            }
            for tick in status.ticks
        ],
    }
    return json.dumps(document)


def _iso(at: datetime | None) -> str | None:
    return None if at is None else show.iso(instant(at, "at"))


# --- one schedule


@schedules.command("next", short_help="The next times of a schedule, or of a cron text.")
@click.argument("name", metavar="NAME", required=False)
@click.option("-n", "count", type=click.IntRange(1, MOST), default=5, show_default=True, help="How many.")
@_rule_options
@options.url_option
@click.pass_context
def next_(
    context: click.Context,
    *,
    name: str | None,
    count: int,
    url: str | None,
    cron: str | None,
    every: float | str | None,
    tz: str | None,
) -> None:
    """Show when schedule NAME ticks next, in its own zone and in UTC, and its last ticks. With --cron or --every
    instead: when such a schedule would, without a store.
    """
    if (name is None) == (cron is None and every is None):
        raise Wrong("give the NAME of a schedule, or --cron or --every for one that is not there yet")
    if name is None:
        rule = _checked(cron=cron, every=every, tz=tz)
        show.out(explained(rule))
        _times(_coming(rule, count))
        return
    with options.operated(_url(context, url)) as app:
        status = _seen(app, name)
    if status.problem:
        raise Refused(visible(status.problem))
    _told(status)
    _times(status.remarked(count))
    for tick in status.ticks:
        show.out(_past(tick, status))


def _coming(rule: Rule, count: int) -> Iterable[tuple[datetime, str]]:
    its = zone(rule.tz)
    return [(moment(at).astimezone(its), rule.remark(at)) for at in islice(rule.coming(show.now()), count)]


def _times(times: Iterable[tuple[datetime, str]]) -> None:
    """The schedule's zone first, UTC beside it, and this machine's own zone where it is a third one."""
    for at, remark in times:
        readings = [f"{at:%a} {_reading(at)}"]
        utc, here = at.astimezone(UTC), at.astimezone()
        readings += [_reading(utc)] if at.tzname() != "UTC" else []
        readings += [_reading(here)] if here.utcoffset() not in (at.utcoffset(), utc.utcoffset()) else []
        show.out("  " + "   ".join(readings) + (f"   {show.painted(remark, 'yellow')}" if remark else ""))


def _reading(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} {at.tzname()}"


def _past(tick: ScheduleTick, status: ScheduleStatus) -> str:
    glyph, colour = _TICKS[tick.outcome]
    words = [f"{show.painted(glyph, colour)} {tick.outcome}", _local(tick.due, status)]
    if tick.count > 1:
        words.append(f"and {show.many(tick.count - 1, 'tick')} after it")
    if tick.job is not None:
        words.append(("job " if tick.outcome == "made" else "met job ") + ids.short(tick.job))
    if tick.reason:
        words.append(_REASONS.get(tick.reason) or visible(tick.reason))
    if tick.outcome == "made" and tick.at - tick.due > timedelta(milliseconds=LATE):
        words.append(f"{show.coarse((tick.at - tick.due) // timedelta(milliseconds=1))} late")
    return "  " + "  ".join(words)


def _told(status: ScheduleStatus) -> None:
    show.out(f"{status.name}  {status.description}  (task {status.task}, queue {status.queue})")
    if status.paused:
        show.out(f"  {_next(status, show.now())}")
    if status.stranded:
        show.out("  " + show.painted(_stranded(status), "yellow"))


# --- an operator's word


@schedules.command(
    "add",
    short_help="Add a schedule that no code declares.",
    context_settings={"ignore_unknown_options": True},  # -5 is an argument
)
@click.argument("name", metavar="NAME")
@click.argument("task")
@click.argument("args_json", nargs=-1)
@_rule_options
@_policy_options
@click.option("--app", "spec", metavar="APP", help="module:attribute, such as shop:jobs.")
@click.option("--kwargs", "kwargs_json", metavar="JSON", help="Keyword arguments as a JSON object.")
@click.option("--queue", metavar="QUEUE", help="Instead of the task's own.")
@click.option("--priority", type=int, help="-100 to 100, higher first.")
@click.option("--timeout", metavar="DURATION", callback=options.length, help="How long each job may run.")
def add(
    *,
    name: str,
    task: str,
    args_json: tuple[str, ...],
    spec: str | None,
    kwargs_json: str | None,
    queue: str | None,
    priority: int | None,
    timeout: float | None,
    **when: Any,
) -> None:
    """Add schedule NAME, whose ticks make jobs of TASK. The arguments are JSON, a text with its quotes:

    holdfast schedules add --app shop:jobs nightly-us shop.nightly '"us"' --cron '0 3 * * *' --tz America/New_York
    """
    args = [argument(place, text) for place, text in enumerate(args_json, 1)]
    kwargs = keywords(kwargs_json)
    given: Any = {"queue": queue, "priority": priority, "timeout": timeout}
    rule = _checked(**when)
    with load_app(spec) as app:
        must_last(app)
        parts_of(app).registry.load()
        chosen = task_named(app, task).using(**_given(given))
        try:
            job = chosen.bind(*args, **kwargs)
        except TypeError as error:
            raise Wrong(str(error)) from error
        try:
            parts_of(app).scheduling.add(name, job, rule)
        except StoreAway:
            raise
        except StoreError:
            raise Refused(
                f"schedule {name!r} is there already; `holdfast schedules change {name}` changes it"
            ) from None
        _shown(app, name)


def _given(options: dict[str, Any]) -> Any:
    return {word: value for word, value in options.items() if value is not None}


@schedules.command("change", short_help="Change when a schedule ticks, whatever its code declares.")
@click.argument("name", metavar="NAME")
@_rule_options
@_policy_options
@options.url_option
@click.pass_context
def change(context: click.Context, /, name: str, url: str | None, **when: Any) -> None:
    """Change when schedule NAME ticks. It stays so, whatever its code declares, until `holdfast schedules reset NAME`.
    What is not given stays as it is.
    """
    if all(value is None for value in when.values()):
        raise Wrong("say what to change: --cron, --every, --tz, --missed, --overlap or --jitter")
    with options.operated(_url(context, url)) as app:
        try:
            parts_of(app).scheduling.change(name, Edit(**when), None)
        except ConfigError as error:
            raise Wrong(options.in_flags(str(error))) from None
        _shown(app, name)


@schedules.command("pause", short_help="Make no jobs of a schedule for a while.")
@click.argument("name", metavar="NAME")
@click.option("--until", metavar="WHEN", callback=options.coming, help="2h (from now) or an instant with a zone.")
@click.option("--reason", metavar="TEXT", default="", help="Why; it is shown to everyone.")
@options.url_option
@click.pass_context
def pause(context: click.Context, *, name: str, until: Any, reason: str, url: str | None) -> None:
    """Pause schedule NAME. What the pause covers is not made up for."""
    with options.operated(_url(context, url)) as app:
        try:
            app.pause_schedule(name, until=until, reason=reason)
        except ConfigError as error:  # over, by the store's clock
            raise Wrong(options.in_flags(str(error))) from None
        _shown(app, name)


@schedules.command("resume", short_help="End a schedule's pause.")
@click.argument("name", metavar="NAME")
@options.url_option
@click.pass_context
def resume(context: click.Context, *, name: str, url: str | None) -> None:
    """End the pause of schedule NAME now."""
    with options.operated(_url(context, url)) as app:
        if not app.resume_schedule(name):
            raise Refused(f"schedule {name!r} is not paused")
        _shown(app, name)


@schedules.command("trigger", short_help="Enqueue a schedule's job now.")
@click.argument("name", metavar="NAME")
@options.url_option
@click.pass_context
def trigger(context: click.Context, *, name: str, url: str | None) -> None:
    """Enqueue the job of schedule NAME now, beside its ticks, and print its id."""
    with options.operated(_url(context, url)) as app:
        job = app.trigger_schedule(name)
        if not job.created:
            show.note("its last job is not finished yet, and its overlap is skip: this is that job")
        show.out(str(job.id))


@schedules.command("reset", short_help="Give a schedule back to what its code declares.")
@click.argument("name", metavar="NAME")
@options.url_option
@click.pass_context
def reset(context: click.Context, *, name: str, url: str | None) -> None:
    """Take an operator's change of schedule NAME back: what its code declares is in effect again."""
    with options.operated(_url(context, url)) as app:
        if not _obeyed(app.reset_schedule, name):
            raise Refused(f"nothing to reset: schedule {name!r} is as its code declares")
        _shown(app, name)


@schedules.command("delete", short_help="Delete a schedule that no code declares.")
@click.argument("name", metavar="NAME")
@options.url_option
@click.pass_context
def delete(context: click.Context, *, name: str, url: str | None) -> None:
    """Delete schedule NAME, which no code may declare any more. Its jobs stay."""
    with options.operated(_url(context, url)) as app:
        _obeyed(app.delete_schedule, name)
        show.out(f"{name} deleted")


def _obeyed(act: Callable[[str], T], name: str) -> T:
    """What the store refuses is no matter of its being away."""
    try:
        return act(name)
    except StoreAway:
        raise
    except StoreError as error:
        raise Refused(str(error)) from None


def _shown(app: Holdfast, name: str) -> None:
    status = _seen(app, name)
    _told(status)
    if not status.paused:
        _times(status.remarked(3))


def _seen(app: Holdfast, name: str) -> ScheduleStatus:
    found = {status.name: status for status in app.schedules()}
    if name not in found:
        raise NothingMatched(f"{not_found(name, [*found])}, in {parts_of(app).link.store.url}")
    return found[name]


def _checked(**when: Any) -> Rule:
    try:
        return rule_of(**_given(when))
    except ConfigError as error:
        raise Wrong(options.in_flags(str(error))) from None


def _url(context: click.Context, url: str | None) -> str | None:
    """The command's own --url, else the one before its name: `holdfast schedules --url … next`."""
    above = context.parent.params.get("url") if context.parent is not None else None
    return url or above
