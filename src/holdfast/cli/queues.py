"""`holdfast queues`: each queue as it is now, and what an operator lays down for it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, get_args

import click

from holdfast.app import Holdfast, parts_of
from holdfast.bounds import SIZE_MOST, queue_terms
from holdfast.cli import show
from holdfast.cli.ends import NothingMatched, Refused, Wrong
from holdfast.cli.options import duration, in_flags, operated, url_option
from holdfast.clock import SECOND, Instant
from holdfast.clock import short as exact
from holdfast.errors import ConfigError
from holdfast.job import Pause, QueueTerms, State, WhenFull
from holdfast.naming import named
from holdfast.observe.visible import visible
from holdfast.store import QueueStats, Stats

SHOWN = (State.SCHEDULED, State.QUEUED, State.RUNNING, State.DEAD)
MODES: tuple[str, ...] = get_args(WhenFull)
NO_BOUND = "none"


@click.group(invoke_without_command=True, short_help="Show queues; set and reset their bounds and weights.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per queue.")
@click.option("-q", "--quiet", is_flag=True, help="Names only.")
@url_option
@click.pass_context
def queues(context: click.Context, as_json: bool, quiet: bool, url: str | None) -> None:
    """Show every queue as it is now: its jobs by state, its bound, what was dropped, how long the oldest job waits.

    On a terminal a table. In a pipe tab-separated columns: name, scheduled, queued, running, dead, places taken, bound,
    when full, dropped, since when the oldest is due, "edited" if an operator's word is in effect, weight, "paused" if
    it is, until when, why.
    """
    if context.invoked_subcommand is not None:
        if as_json or quiet:
            raise Wrong(f"--json and --quiet are for the list, not for `queues {context.invoked_subcommand}`")
        return
    if as_json and quiet:
        raise Wrong("--json and --quiet exclude each other")
    with operated(url) as app:
        stats = parts_of(app).operating.stats()
        if not stats.queues:
            place = parts_of(app).link.store.url
            show.note(f"no queue in {place} yet; one appears with its first job, or with a worker that declares it")
    if as_json or quiet or not show.on_terminal():
        _lines(stats, _form(as_json=as_json, quiet=quiet))
    elif stats.queues:
        _table(stats)


def _table(stats: Stats) -> None:
    columns = {
        "QUEUE": [queue.name for queue in stats.queues],
        **{state.upper(): [f"{queue.counts.get(state, 0):,}" for queue in stats.queues] for state in SHOWN},
        "PLACES": [_places(queue) for queue in stats.queues],
        "WHEN FULL": [_when_full(queue.terms) for queue in stats.queues],
        "WEIGHT": [_weight(queue) for queue in stats.queues],
        "DROPPED": [f"{queue.dropped:,}" for queue in stats.queues],
        "OLDEST": [_waits(queue, stats.now) for queue in stats.queues],
    }
    heads = _that_fit(columns)
    rows = list(zip(*(columns[head] for head in heads), strict=True))
    least = {"WHEN FULL": 6, "SCHEDULED": 6, "DROPPED": 5, "RUNNING": 5}  # names are needed whole, by `queues set`
    cuts = [show.Cut(heads.index(head), width) for head, width in least.items() if head in heads]
    for line in show.table(show.Table(heads, rows, cuts)):
        show.out(line)
    for queue in stats.queues:
        if queue.pause is not None:
            show.out(f"⏸ {queue.name}: {paused(queue, queue.pause)}; `holdfast resume {queue.name}` ends it")
    if any(queue.edited for queue in stats.queues):
        show.out("* an operator's: `holdfast queues reset QUEUE` gives it back to its code")


def _that_fit(columns: dict[str, list[str]]) -> list[str]:
    """The heads; on a narrow terminal without columns that have nothing to say."""
    heads = [head for head in columns if head != "WEIGHT" or set(columns[head]) != {"1"}]
    for spare in ("DROPPED", "SCHEDULED", "DEAD", "OLDEST", "WHEN FULL"):
        rows = list(zip(*(columns[head] for head in heads), strict=True))
        if show.excess(show.Table(heads, rows, ())) <= 0:
            break
        if all(cell in ("", "0") for cell in columns[spare]):
            heads.remove(spare)
    return heads


def _places(queue: QueueStats) -> str:
    """Taken and bound: 12/10,000; with a sign where there is none left, a star where an operator has said so."""
    bound, star = queue.terms.max_size, "*" if queue.edited and not _weighed_alone(queue) else ""
    if bound is None:
        return f"no bound{star}"
    text = f"{queue.admitted or 0:,}/{bound:,}{star}"
    return f"{text} {show.painted('▲', 'yellow')}" if (queue.admitted or 0) >= bound else text


def _weight(queue: QueueStats) -> str:
    return f"{queue.terms.weight}{'*' if queue.edited and _weighed_alone(queue) else ''}"


def _weighed_alone(queue: QueueStats) -> bool:
    """Whether an operator who has said something can have meant its weight alone."""
    return queue.terms.max_size is None and queue.terms.weight != 1


def _when_full(terms: QueueTerms) -> str:
    if terms.max_size is None:
        return ""
    patience = "" if terms.block_timeout is None else f" {exact(terms.block_timeout)}"
    return terms.when_full + (patience if terms.when_full == "block" else "")


def paused(queue: QueueStats, pause: Pause) -> str:
    """Since when, until when, why, and how much it holds back."""
    until = "" if pause.until is None else f" until {show.utc(pause.until)}"
    why = f": {visible(pause.reason)}" if pause.reason else ""
    held = queue.counts.get(State.QUEUED, 0)
    back = f"; {show.many(held, 'job')} held back" if held else ""
    return f"paused since {show.utc(pause.since)}{until}{why}{back}"


def _waits(queue: QueueStats, now: Instant) -> str:
    return "" if queue.oldest_due is None else show.coarse(queue.waited(now))


def _form(*, as_json: bool, quiet: bool) -> Callable[[QueueStats], str]:
    if as_json:
        return _as_json
    return _name if quiet else _columns


def _lines(stats: Stats, form: Callable[[QueueStats], str]) -> None:
    for queue in stats.queues:
        show.out(form(queue))


def _name(queue: QueueStats) -> str:
    return queue.name


def _columns(queue: QueueStats) -> str:
    cells: Sequence[object] = (
        queue.name,
        *(queue.counts.get(state, 0) for state in SHOWN),
        "" if queue.admitted is None else queue.admitted,
        "" if queue.terms.max_size is None else queue.terms.max_size,
        "" if queue.terms.max_size is None else queue.terms.when_full,
        queue.dropped,
        show.iso(queue.oldest_due) or "",
        "edited" if queue.edited else "",
        queue.terms.weight,
        "" if queue.pause is None else "paused",
        "" if queue.pause is None else show.iso(queue.pause.until) or "",
        "" if queue.pause is None else visible(queue.pause.reason),
    )
    return "\t".join(map(str, cells))


def _as_json(queue: QueueStats) -> str:
    terms = queue.terms
    document = {
        "queue": queue.name,
        **{str(state): queue.counts.get(state, 0) for state in SHOWN},
        "max_size": terms.max_size,
        "admitted": queue.admitted,
        "when_full": terms.when_full,
        "block_timeout": None if terms.block_timeout is None else terms.block_timeout / SECOND,
        "weight": terms.weight,
        "edited": queue.edited,
        "paused": None if queue.pause is None else _pause(queue.pause),
        "dropped": queue.dropped,
        "oldest_due": show.iso(queue.oldest_due),
    }
    return json.dumps(document)


def _pause(pause: Pause) -> dict[str, str | None]:
    return {"since": show.iso(pause.since), "until": show.iso(pause.until), "reason": pause.reason}


# --- an operator's word


def _bound(context: click.Context, parameter: click.Parameter, text: str | None) -> int | str | None:
    """A callback: a whole number, or "none"."""
    if text is None or text == NO_BOUND:
        return text
    plain = text.replace(",", "").replace("_", "")
    if not (plain.isascii() and plain.isdigit()) or len(plain) > len(str(SIZE_MOST)):
        why = f"{text!r}: a whole number from 1 to {SIZE_MOST:,}, or {NO_BOUND} for no bound"
        raise click.BadParameter(why, ctx=context, param=parameter)
    return int(plain)


@queues.command("set", short_help="Set a queue's bound or weight, whatever its code declares.")
@click.argument("name", metavar="QUEUE")
@click.option("--max-size", metavar="N|none", callback=_bound, help="So many unfinished jobs at most; none: no bound.")
@click.option("--when-full", type=click.Choice(MODES), help="What becomes of a job that finds no place.")
@click.option(
    "--block-timeout",
    metavar="DURATION|none",
    callback=duration,
    help="How long a producer waits, with block; none: as long as it takes.",
)
@click.option("--weight", metavar="N", type=int, help="Its share of what workers start, against the other queues'.")
@url_option
@click.pass_context
def set_(context: click.Context, /, name: str, url: str | None, **given: Any) -> None:
    """Set a queue's bound or weight. A bound is in effect from the next enqueue on, a weight within seconds; both stay,
    whatever code declares, until `holdfast queues reset QUEUE`. What is not given stays as it is; --max-size none takes
    the rest of a bound away, too.

    QUEUE full: reject refuses the new job, block has its producer wait, drop_oldest cancels the oldest job that was
    never started, drop_newest drops the new one.
    """
    if all(value is None for value in given.values()):
        raise Wrong("say what to set: --max-size, --when-full, --block-timeout or --weight")
    name = named(name, "QUEUE")
    with operated(_url(context, url)) as app:
        before = _seen(app, name)
        terms = _changed(QueueTerms() if before is None else before.terms, given)
        parts_of(app).operating.set_queue(name, terms)
        if before is None:
            show.note(f"no code has declared queue {name} and it has no job: is the name right?")
        _told(name, before, _seen(app, name))


@queues.command("reset", short_help="Give a queue back to what its code declares.")
@click.argument("name", metavar="QUEUE")
@url_option
@click.pass_context
def reset(context: click.Context, name: str, url: str | None) -> None:
    """Take an operator's bound back: what the queue's code declares is in effect again."""
    name = named(name, "QUEUE")
    with operated(_url(context, url)) as app:
        before = _seen(app, name)
        if before is None:
            place = parts_of(app).link.store.url
            raise NothingMatched(f"no queue {name} in {place}: nobody has declared it and it has no job")
        if not before.edited:
            raise Refused(f"nothing to reset: what is in effect for queue {name} is not an operator's word")
        parts_of(app).operating.set_queue(name, None)
        _told(name, before, _seen(app, name))


def _url(context: click.Context, url: str | None) -> str | None:
    """The command's own --url, else the one before its name: `holdfast queues --url … set`."""
    above = context.parent.params.get("url") if context.parent is not None else None
    return url or above


def _seen(app: Holdfast, name: str) -> QueueStats | None:
    return next((queue for queue in parts_of(app).operating.stats().queues if queue.name == name), None)


def _changed(now: QueueTerms, given: dict[str, Any]) -> QueueTerms:
    """What is given over what is in effect, of which a queue without a bound keeps nothing. Wrong, where that makes no
    sense together.
    """
    max_size, when_full, patience = (given[name] for name in ("max_size", "when_full", "block_timeout"))
    weight = now.weight if given["weight"] is None else given["weight"]
    if max_size is None and now.max_size is None and (when_full, patience) == (None, None):
        max_size = NO_BOUND
    if max_size is None and now.max_size is None:
        raise Wrong("the queue has no bound: give --max-size too")
    max_size = now.max_size if max_size is None else max_size
    bounded = max_size != NO_BOUND
    when_full = when_full or (now.when_full if bounded else "reject")
    if patience is None and when_full == "block":
        patience = _kept(now)
    try:
        return queue_terms(max_size if bounded else None, when_full, None if patience == NO_BOUND else patience, weight)
    except ConfigError as error:
        raise Wrong(in_flags(str(error))) from None


def _kept(now: QueueTerms) -> timedelta | None:
    return None if now.block_timeout is None else timedelta(milliseconds=now.block_timeout)


def _told(name: str, before: QueueStats | None, now: QueueStats | None) -> None:
    width = len(name)
    show.out(f"{name}  before  {_words(before)}")
    show.out(f"{'':{width}}  now     {_words(now)}")
    if now is None:
        return
    heavier = before is None or before.terms.weight != now.terms.weight
    bound = before is None or before.terms._replace(weight=now.terms.weight) != now.terms or not heavier
    for line in _effects(now, heavier=heavier, bound=bound):
        show.out(f"  {line}")


def _words(queue: QueueStats | None) -> str:
    if queue is None:
        return "nothing declared, no jobs"
    terms = queue.terms
    bound = "no bound"
    if terms.max_size is not None:
        bound = f"{show.many(terms.max_size, 'place')}, when full {_when_full(terms)}"
    weight = f", weight {terms.weight}" if terms.weight != 1 else ""
    whose = " (as code declares)" if terms != QueueTerms() else ""
    return f"{bound}{weight}{' (edited)' if queue.edited else whose}"


_MEETS = {
    "reject": "an enqueue that finds no place raises QueueFull",
    "block": "an enqueue that finds no place waits for one",
    "drop_oldest": "an enqueue that finds no place has the oldest job cancelled that was never started",
    "drop_newest": "an enqueue that finds no place drops its job",
}


def _effects(queue: QueueStats, *, heavier: bool, bound: bool) -> Sequence[str]:
    """What workers and producers will do now, as far as that has changed."""
    stays = (
        f"It stays until `holdfast queues reset {queue.name}`, whatever code declares."
        if queue.edited
        else "What code declares counts again: a producer's word where nothing is declared, a starting worker's always."
    )
    terms = queue.terms
    weighed = f"within seconds weigh it {terms.weight} against the other queues (1, where nothing is said)."
    workers = f"Workers: {weighed if heavier else 'go on as before.'} {stays}"
    if not bound:
        return (workers,)
    if terms.max_size is None:
        return ("Producers: every enqueue is taken, from the next one on; those that wait for a place get it.", workers)
    after = f" for {exact(terms.block_timeout)}, then raises QueueFull" if terms.block_timeout is not None else ""
    taken = queue.admitted or 0
    if taken < terms.max_size:
        room = f"{taken:,} of {show.many(terms.max_size, 'place')} taken."
    else:
        over, jobs = taken - terms.max_size + 1, show.many(taken, "unfinished job")
        room = f"It is full: {jobs}, all keep their place; {over:,} must end before a new one fits."
    return (
        f"Producers: from the next enqueue on, {_MEETS[terms.when_full]}{after}.",
        room,
        workers,
    )
