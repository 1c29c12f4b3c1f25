"""Writes outcomes under their claims' words, in scripts of some hundreds for each queue."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
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
_PIPELINED = 16  # scripts, in one round trip: all that they say is in memory, more than once
_ACCEPTED = {state: Settled(Answer.ACCEPTED, state) for state in State}
_HEAD = 8  # what stands before the outcomes of a group
_GONE = Settled(Answer.GONE)


async def finish(lane: Lane, outcomes: Sequence[Outcome]) -> list[Settled]:
    answers = [_ACCEPTED[outcome.state] for outcome in outcomes]
    for places in _rounds(outcomes):
        await _finish(lane, outcomes, places, answers)
    return answers


async def finish_in(lane: Lane, queue: str, outcomes: Sequence[Outcome]) -> None:
    """Writes outcomes of different jobs, of just this queue, whatever this process knows of their ids."""
    scripts = [_Script()]
    for place, outcome in enumerate(outcomes):
        _add(scripts, place, str(outcome.id).encode(), outcome)
    await lane.scripts([("finish", queue_keys(lane.place, queue), script.said()) for script in scripts])


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
    texts = await _texts(lane, [outcomes[place].id for place in places])
    scripts: dict[str, list[_Script]] = {}
    for place, text in zip(places, texts, strict=True):
        if text is None:
            answers[place] = _GONE
        else:
            _add(scripts.setdefault(text[0], [_Script()]), place, text[1], outcomes[place])
    every = [(queue, script) for queue, several in scripts.items() for script in several]
    for start in range(0, len(every), _PIPELINED):
        asked = every[start : start + _PIPELINED]
        steps = [lane.step("finish", queue_keys(lane.place, queue), script.said()) for queue, script in asked]
        for (_, script), (_, *said) in zip(asked, await lane.ask(steps), strict=True):
            for number, answer, state in zip(said[::3], said[1::3], said[2::3], strict=True):
                answers[script.places[number]] = _settled(answer, state)
    lane.place.whereabouts.let_go([outcomes[place].id for place in places])
    lane.place.whereabouts.forget([outcomes[place].id for place in places if answers[place] is _GONE])


@lru_cache(maxsize=64)
def _settled(answer: bytes, state: bytes) -> Settled:
    if answer == b"gone":
        return _GONE
    return Settled(Answer(answer.decode()), State(state.decode()) if state else None)


async def _texts(lane: Lane, ids: Sequence[UUID]) -> list[tuple[str, bytes] | None]:
    """The queue of each job, and its id as the server writes it; None for one that no queue has."""
    held = lane.place.whereabouts.held
    texts = [None if (here := held(job)) is None else here[:2] for job in ids]
    if None in texts:
        queues = await located(lane, lane.place, [job for job, text in zip(ids, texts, strict=True) if text is None])
        for n, job in enumerate(ids):
            if texts[n] is None and job in queues:
                texts[n] = queues[job], str(job).encode()
    return texts


def _add(scripts: list[_Script], place: int, text: bytes, outcome: Outcome) -> None:
    if not scripts[-1].add(place, text, outcome):
        scripts.append(_Script())
        scripts[-1].add(place, text, outcome)


class _Script:
    """What one script writes: the plain successes, in groups of those that have all but id, fence and result in common,
    then the others.
    """

    def __init__(self) -> None:
        self._plain: list[int] = []
        self._others: list[int] = []
        self._groups: list[list[Argument]] = []
        self._same: tuple[object, ...] = ()  # what those of the last group have in common
        self._of_others: list[Argument] = []
        self._bytes = 0

    @property
    def places(self) -> list[int]:
        """Of the outcomes, in their order here."""
        return self._plain + self._others

    def add(self, place: int, text: bytes, outcome: Outcome) -> bool:
        """False where it is one too many."""
        (
            _, fence, worker, ended, state, attempt, releases, losses, crashes, alone, keep, _, result, error, reason,
            if_cancelled, _,
        ) = outcome  # fmt: skip
        size = (0 if result is None else len(result)) + (0 if error is None else len(error.message + error.traceback))
        if len(self._plain) + len(self._others) == _AT_ONCE or (self._bytes and self._bytes + size > _BYTES):
            return False
        self._bytes += size
        if not (ended == "succeeded" and state is State.SUCCEEDED and result is not None) or reason or if_cancelled:
            self._others.append(place)
            self._of_others += _said_of(text, outcome)
            return True
        same = (worker, keep, attempt, releases, losses, crashes, alone)
        if same != self._same:
            self._same = same
            self._groups.append([str(worker), _kept(keep), attempt, releases, losses, crashes, _flag(alone), 0])
        self._plain.append(place)
        self._groups[-1] += (text, fence, result)
        return True

    def said(self) -> list[Argument]:
        """The arguments of finish.lua behind the shift."""
        said: list[Argument] = [len(self._groups)]
        for group in self._groups:
            group[_HEAD - 1] = (len(group) - _HEAD) // 3
            said += group
        return said + self._of_others


def _said_of(text: bytes, outcome: Outcome) -> list[Argument]:
    branches = [outcome] if outcome.if_cancelled is None else [outcome, outcome.if_cancelled]
    said: list[Argument] = [text, outcome.fence, str(outcome.worker), len(branches)]
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
        storable(outcome.fingerprint),
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
