"""Writes outcomes under their claims' words, in scripts of some hundreds for each queue."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from uuid import UUID

from holdfast.clock import Span
from holdfast.job import TOMBSTONE, Failure, Outcome, State
from holdfast.store import Answer, Settled
from holdfast.stores.columns import storable, storable_error
from holdfast.stores.redis.lane import Lane
from holdfast.stores.redis.place import queue_keys
from holdfast.stores.redis.resp import Argument
from holdfast.stores.redis.whereabouts import located

_AT_ONCE, _BYTES = 200, 1_000_000  # outcomes, and bytes of their results, of one script
_ACCEPTED = {state: Settled(Answer.ACCEPTED, state) for state in State}
_GONE = Settled(Answer.GONE)


async def finish(lane: Lane, outcomes: Sequence[Outcome]) -> list[Settled]:
    answers = [_ACCEPTED[outcome.state] for outcome in outcomes]
    for places in _rounds(outcomes):
        await _finish(lane, outcomes, places, answers)
    return answers


def _rounds(outcomes: Sequence[Outcome]) -> Iterator[Sequence[int]]:
    """The places in `outcomes`, in as many rounds as the job that comes most often comes."""
    left: Sequence[int] = range(len(outcomes))
    if len({outcome.id.int for outcome in outcomes}) == len(outcomes):
        yield left
        return
    while left:
        first: dict[UUID, int] = {}
        again = [place for place in left if first.setdefault(outcomes[place].id, place) != place]
        yield list(first.values())
        left = again


async def _finish(lane: Lane, outcomes: Sequence[Outcome], places: Sequence[int], answers: list[Settled]) -> None:
    """Writes the outcomes of some places, of different jobs, and what is not just accepted into `answers`."""
    queues = await located(lane, lane.place, [outcomes[place].id for place in places])
    by_queue: defaultdict[str, list[int]] = defaultdict(list)
    for place in places:
        if (queue := queues.get(outcomes[place].id)) is None:
            answers[place] = _GONE
        else:
            by_queue[queue].append(place)
    parts = [(queue, part) for queue, in_queue in by_queue.items() for part in _parts(outcomes, in_queue)]
    steps = [
        lane.step("finish", queue_keys(lane.place, queue), _said([outcomes[one] for one in part]))
        for queue, part in parts
    ]
    for (_, part), (_, *said) in zip(parts, await lane.ask(steps), strict=True):
        for number, answer, state in zip(said[::3], said[1::3], said[2::3], strict=True):
            answers[part[number]] = Settled(Answer(answer.decode()), State(state.decode()) if state else None)
        lane.place.whereabouts.let_go([outcomes[place].id for place in part])


def _parts(outcomes: Sequence[Outcome], places: Sequence[int]) -> Iterator[list[int]]:
    """As many as go into one script each, the plain successes first."""
    plain: list[int] = []
    others: list[int] = []
    size = 0
    for place in places:
        weight = _weight(outcomes[place])
        if len(plain) + len(others) == _AT_ONCE or (size and size + weight > _BYTES):
            yield plain + others
            plain, others, size = [], [], 0
        size += weight
        (plain if _plain(outcomes[place]) else others).append(place)
    yield plain + others


def _weight(outcome: Outcome) -> int:
    """About as many bytes as it says, beside what all say."""
    result, error = outcome.result, outcome.error
    return (0 if result is None else len(result)) + (0 if error is None else len(error.message) + len(error.traceback))


def _plain(outcome: Outcome) -> bool:
    """Whether it is a success and no more."""
    return (
        outcome.ended == "succeeded"
        and outcome.state is State.SUCCEEDED
        and outcome.result is not None
        and outcome.if_cancelled is None
        and not outcome.reason
    )


_same_of = itemgetter(2, 10, 5, 6, 7, 8, 9)  # of an outcome: worker, keep, attempt, releases, losses, crashes, alone


def _said(outcomes: Sequence[Outcome]) -> list[Argument]:
    """The arguments of finish.lua behind the shift."""
    said: list[Argument] = []
    groups = 0
    others: list[Outcome] = []
    for same, group in groupby(outcomes, lambda outcome: _same_of(outcome) if _plain(outcome) else None):
        if same is None:
            others += group
            continue
        groups += 1
        worker, keep, attempt, releases, losses, crashes, alone = same
        words = [word for one in group for word in (str(one.id), one.fence, one.result or b"")]
        said += (str(worker), _kept(keep), attempt, releases, losses, crashes, _flag(alone), len(words) // 3, *words)
    for other in others:
        said += _said_of(other)
    return [groups, *said]


def _said_of(outcome: Outcome) -> list[Argument]:
    branches = [outcome] if outcome.if_cancelled is None else [outcome, outcome.if_cancelled]
    said: list[Argument] = [str(outcome.id), outcome.fence, str(outcome.worker), len(branches)]
    for branch in branches:
        said += _branch(branch)
    return said


def _branch(outcome: Outcome) -> tuple[Argument, ...]:
    sizes, texts = _error(outcome.error)
    return (
        outcome.ended,
        outcome.state.value,
        outcome.attempt,
        outcome.releases,
        outcome.losses,
        outcome.crashes,
        _flag(outcome.alone),
        _kept(outcome.keep),
        "" if outcome.delay is None else outcome.delay,
        b"" if outcome.result is None else b"+" + outcome.result,
        storable(outcome.reason),
        sizes,
        texts,
    )


def _error(error: Failure | None) -> tuple[str, bytes]:
    """As an attempt in the history has it: sizes, and all its texts in one."""
    if error is None:
        return "- 0", b""
    kind, message, traceback = (text.encode() for text in storable_error(error))
    return f"{len(kind)} {len(message)}", kind + message + traceback


def _flag(flag: bool) -> str:
    return "1" if flag else ""


def _kept(keep: Span | None) -> Argument:
    return "" if keep is None else max(keep, TOMBSTONE)
