"""Writes outcomes under their claims' words: one call of holdfast_finish, where no job comes twice in a batch."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any
from uuid import UUID

from holdfast.clock import Span
from holdfast.job import TOMBSTONE, Outcome, State
from holdfast.store import Answer, Settled
from holdfast.stores.columns import error_columns, storable
from holdfast.stores.postgres import packed
from holdfast.stores.postgres.lane import Lane

_ACCEPTED = Settled(Answer.ACCEPTED, State.SUCCEEDED)


async def finish(lane: Lane, outcomes: Sequence[Outcome], ring: Callable[[Collection[str]], object]) -> list[Settled]:
    answers: list[Settled] = [_ACCEPTED] * len(outcomes)
    words = set[str]()
    for places in _rounds(outcomes):
        await _finish(lane, outcomes, places, answers, words)
    if words:
        ring(words)
    return answers


def _rounds(outcomes: Sequence[Outcome]) -> Iterator[Sequence[int]]:
    """The places in `outcomes`, in as many calls as the job that comes most often comes."""
    left = list(range(len(outcomes)))
    while left:
        first: dict[UUID, int] = {}
        again = [place for place in left if first.setdefault(outcomes[place].id, place) != place]
        yield list(first.values())
        left = again


async def _finish(
    lane: Lane, outcomes: Sequence[Outcome], places: Sequence[int], answers: list[Settled], words: set[str]
) -> None:
    """Writes the outcomes of some places into the database, what is not just accepted into `answers`, and what is to be
    rung into `words`.
    """
    quick = [place for place in places if _plain(outcomes[place])]
    others = [place for place in places if not _plain(outcomes[place])] if len(quick) < len(places) else []
    asked = quick + others
    rows = await lane.call("finish", *_parameters([outcomes[place] for place in asked], len(quick)))
    for number, answer, state, word in rows:
        answers[asked[number - 1]] = Settled(Answer(answer), None if state is None else State(state))
        if word is not None:
            words.add(word)


def _plain(outcome: Outcome) -> bool:
    """Whether it is a success and no more."""
    return (
        outcome.ended == "succeeded"
        and outcome.state is State.SUCCEEDED
        and outcome.if_cancelled is None
        and not outcome.reason
    )


def _parameters(outcomes: Sequence[Outcome], quick: int) -> Iterator[object]:
    """What holdfast_finish takes; the first `quick` outcomes are plain."""
    ids, fences, workers, *_ = zip(*outcomes, strict=True)
    yield packed.uuids(ids)
    yield packed.bigints(fences)
    yield packed.uuids(workers)
    columns: list[Sequence[Any]] = list(zip(*outcomes[:quick], strict=True)) or [()] * len(Outcome._fields)
    _, _, _, _, _, attempts, releases, losses, crashes, alones, keeps, _, results, *_ = columns
    yield packed.byteas(results)
    yield packed.bigints([_kept(keep) for keep in keeps])
    yield packed.integers(attempts)
    yield packed.integers(releases)
    yield packed.integers(losses)
    yield packed.integers(crashes)
    yield packed.booleans(alones)
    others = [said for place, one in enumerate(outcomes[quick:], quick + 1) for said in _said(place, one)]
    yield json.dumps(others) if others else None


def _kept(keep: Span | None) -> Span | None:
    return None if keep is None else max(keep, TOMBSTONE)


def _said(place: int, outcome: Outcome) -> Iterator[dict[str, Any]]:
    """The rows for settle.sql: two where it depends on whether a cancel was asked for."""
    if outcome.ended == "succeeded" or outcome.if_cancelled is None:
        yield _columns(place, outcome, flagged=None)
    else:
        yield _columns(place, outcome, flagged=False)
        yield _columns(place, outcome.if_cancelled, flagged=True)


def _columns(place: int, outcome: Outcome, *, flagged: bool | None) -> dict[str, Any]:
    error_type, message, traceback = error_columns(outcome.error)
    return {
        "place": place,
        "flagged": flagged,
        "ended": outcome.ended,
        "state": outcome.state,
        "attempt": outcome.attempt,
        "releases": outcome.releases,
        "losses": outcome.losses,
        "crashes": outcome.crashes,
        "alone": outcome.alone,
        "keep": _kept(outcome.keep),
        "delay": outcome.delay,
        "result": None if outcome.result is None else outcome.result.hex(),
        "reason": storable(outcome.reason),
        "error_type": error_type,
        "error_message": message,
        "error_traceback": traceback,
        "fingerprint": storable(outcome.fingerprint),
    }
