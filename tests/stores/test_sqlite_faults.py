"""Every statement of the SQLite store's writer fails once, in every way: nothing is half-written, nothing invented."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from holdfast.clock import DAY, HOUR, SECOND, FakeClock
from holdfast.errors import StoreAway
from holdfast.job import (
    Cancelled,
    Claim,
    Draft,
    Failed,
    Failure,
    Loss,
    Lost,
    Released,
    Snoozed,
    Succeeded,
    Terms,
    Verdict,
)
from holdfast.policy import decide
from holdfast.stores.sqlite import SqliteStore
from tests.stores.faults import BROKEN, FULL, LOCKED, PATIENCE, Fault, Faults, Then, Witness, faults

__all__ = ["faults"]

OPERATIONS = 200
FEW = 70  # of them, in `make test`
TERMS = Terms(max_attempts=3, keep=HOUR)
ERROR = Failure("OSError", "no", "Traceback …")
VERDICTS: Sequence[Verdict] = [
    Succeeded(b"42"),
    Succeeded(b"42"),
    Failed(ERROR),
    Failed(ERROR, final=True),
    Snoozed(500, "later"),
    Cancelled("not wanted"),
    Released("leaving"),
    Lost(Loss("its process died", culprit=True)),
]
KINDS = [
    *["enqueue"] * 5, *["claim"] * 6, *["finish"] * 4, *["beat"] * 3, *["group"] * 2, *["retire"] * 2,
    "cancel", "retry", "promote", "night", "register",
]  # fmt: skip
FOLLOWED = {
    "night": ["prune"],
    "retire": ["finish", "reclaim", "register", "beat"],
}  # what must come next, the last first


@dataclass
class Step:
    """Calls that go into one transaction (almost always one call), what they answer, and what the file holds then."""

    calls: Sequence[tuple[str, tuple[Any, ...]]]
    pause: int = 0  # ms before it
    answers: Sequence[Any] = ()
    contents: Any = None


class Script:
    """Draws operations that fit what is stored; deterministic, given the answers."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._jobs: list[UUID] = []
        self._drafts: list[Draft] = []
        self._workers: dict[UUID, int] = {}
        self._gone: list[UUID] = []
        self._held: list[Claim] = []
        self._sweeper = self._id()
        self._then: list[str] = []  # what must come next, the last first

    def first(self) -> Iterator[Step]:
        yield Step([("register", (self._sweeper, None, {}))])
        yield from [Step([self._register()]) for _ in range(2)]

    def next(self) -> Step:
        kind = self._then.pop() if self._then else self._random.choice(KINDS)
        self._then += FOLLOWED.get(kind, [])
        pause = self._random.choice([0, 0, 1, 300])
        if kind == "night":
            return Step([self._beat()], DAY + 1)
        if kind == "group":
            return Step(self._group(), pause)
        return Step([getattr(self, f"_{kind}")()], pause)

    def heard(self, step: Step) -> None:
        """Takes in what the calls answered."""
        for (method, arguments), answer in zip(step.calls, step.answers, strict=True):
            if method == "enqueue":
                self._drafts += arguments[0]
                self._jobs += [draft.id for draft in arguments[0]]
            if method == "claim" and answer.jobs:
                self._workers[arguments[0]] += 1
                self._held += answer.jobs
            if method == "reclaim":
                self._held += [claim for claim in answer if claim not in self._held]

    def _id(self) -> UUID:
        return UUID(int=self._random.getrandbits(128), version=4)

    def _register(self) -> tuple[str, Any]:
        worker = self._id()
        self._workers[worker] = 0
        return "register", (worker, None, {"pid": 1})

    def _group(self) -> list[tuple[str, Any]]:
        """Calls whose answers do not depend on which of them comes first: where some are repeated it may be another."""
        cancel, claim = self._cancel(), self._claim(["pdf"])
        return [self._enqueue("mail"), self._finish(Succeeded(b"1")), self._enqueue("mail"), cancel, claim]

    def _enqueue(self, *queues: str) -> tuple[str, Any]:
        drafts = [self._draft(queues or ("mail", "pdf")) for _ in range(self._random.randint(1, 6))]
        if not queues and self._drafts and self._random.random() < 0.3:
            drafts.append(self._random.choice(self._drafts))  # the same again, or anew if it was pruned
        return "enqueue", (drafts,)

    def _draft(self, queues: Sequence[str]) -> Draft:
        delay = self._random.choice([0, 0, 0, 300, 5 * SECOND])
        queue, size = self._random.choice(queues), self._random.choice([5, 50, 50, 5000])
        return Draft(
            self._id(), "shop.send", queue, b"x" * size, TERMS, delay=delay, priority=self._random.randint(0, 2)
        )

    def _claim(self, queues: Sequence[str] | None = None) -> tuple[str, Any]:
        gone = self._gone[:1] if self._random.random() < 0.1 else []
        worker = self._random.choice(gone or list(self._workers))
        return "claim", (worker, self._workers.get(worker, 0) + 1, queues, self._random.randint(1, 8))

    def _finish(self, *verdicts: Verdict) -> tuple[str, Any]:
        """Some of what is held, each with an end of its own; now and then one that was settled before."""
        count = min(len(self._held), self._random.randint(1, 6))
        chosen = self._random.sample(self._held, count)
        again = self._random.random() < 0.2
        self._held = [claim for claim in self._held if again or claim not in chosen]
        return "finish", ([decide(claim, self._random.choice(verdicts or VERDICTS)) for claim in chosen],)

    def _cancel(self) -> tuple[str, Any]:
        return "cancel", (self._random.sample(self._jobs, min(3, len(self._jobs))), "not wanted")

    def _retry(self) -> tuple[str, Any]:
        return "retry", (self._random.sample(self._jobs, min(20, len(self._jobs))),)

    def _promote(self) -> tuple[str, Any]:
        return "promote", (1000,)

    def _beat(self) -> tuple[str, Any]:
        return "beat", ([self._sweeper, *self._workers],)

    def _retire(self) -> tuple[str, Any]:
        """One of those that hold jobs, if there are any."""
        holders = {claim.worker for claim in self._held} & set(self._workers)
        worker = self._random.choice(sorted(holders) or list(self._workers))
        del self._workers[worker]
        self._gone.append(worker)
        return "retire", (worker, Loss("it was stopped"))

    def _reclaim(self) -> tuple[str, Any]:
        return "reclaim", (self._sweeper, 1000)

    def _prune(self) -> tuple[str, Any]:
        return "prune", (1000,)


class Stage:
    """A store on a file, a clock that stands still, and someone who looks on."""

    def __init__(self, path: Path, faults: Faults) -> None:
        self.clock = FakeClock()
        self.store = SqliteStore(str(path), durability="normal", clock=self.clock)
        self.witness = Witness(path)
        self._faults = faults

    async def run(self, step: Step) -> list[Any]:
        """What the calls answered or raised."""
        made = (getattr(self.store, method)(*arguments) for method, arguments in step.calls)
        async with asyncio.timeout(PATIENCE):
            if len(step.calls) == 1:
                return await asyncio.gather(*made, return_exceptions=True)
            async with self._faults.pile(self.store.beat([])):
                calls = [asyncio.ensure_future(call) for call in made]
                await asyncio.sleep(0)
            return await asyncio.gather(*calls, return_exceptions=True)

    async def rehearse(self, number: int, seed: int) -> list[Step]:
        """Draws a script and runs it without faults."""
        script, steps = Script(seed), list[Step]()
        for step in script.first():
            steps.append(await self._heard(step))
        while sum(len(step.calls) for step in steps) < number:
            steps.append(await self._heard(step := script.next()))
            script.heard(step)
        return steps

    async def _heard(self, step: Step) -> Step:
        self.clock.advance(step.pause)
        step.answers = await self.run(step)
        assert not any(isinstance(answer, BaseException) for answer in step.answers), (step.calls, step.answers)
        step.contents = self.witness.contents()
        return step


@pytest.fixture
async def stages(tmp_path: Path, faults: Faults) -> AsyncIterator[tuple[Stage, Stage]]:
    """One to rehearse on, one to play on."""
    both = Stage(tmp_path / "first.db", faults), Stage(tmp_path / "second.db", faults)
    for stage in both:
        await stage.store.open()
    yield both
    for stage in both:
        async with asyncio.timeout(PATIENCE):
            await stage.store.close()
        stage.witness.close()


MANNERS = [
    (FULL, Then.OPEN),
    (FULL, Then.UNDONE),
    (BROKEN, Then.OPEN),
    (BROKEN, Then.UNDONE),
    (BROKEN, Then.DONE),
    (BROKEN, Then.ALL),
    (LOCKED, Then.OPEN),
]


async def test_any_statement_may_fail_and_a_repeat_gives_what_was_due(
    stages: tuple[Stage, Stage], faults: Faults
) -> None:
    """Each fails once, in one manner or another."""
    await _play(stages, faults, MANNERS, FEW)


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("manner", MANNERS, ids=lambda manner: f"{manner[0].name}-{manner[1].name}")
async def test_any_statement_may_fail_in_each_manner(
    stages: tuple[Stage, Stage], faults: Faults, manner: tuple[Fault, Then]
) -> None:
    await _play(stages, faults, [manner], OPERATIONS)


async def _play(
    stages: tuple[Stage, Stage], faults: Faults, manners: Sequence[tuple[Fault, Then]], operations: int
) -> None:
    """Repeats each step, with its first statement failing, then its second, and so on until none fails any more."""
    rehearsal, stage = stages
    steps = await rehearsal.rehearse(operations, seed=4)
    struck = refused = 0
    for step in steps:
        stage.clock.advance(step.pause)
        stage.witness.keep()
        for at in count(1):
            fault, then = manners[struck % len(manners)]
            before = stage.witness.version()
            faults.arm(at, fault, then)
            answers = await stage.run(step)
            faults.disarm()
            if not faults.struck:
                break
            struck += 1
            refused += await _checked(stage, step, answers, before, then, faults)
        _equal(stage, step, answers)
    assert stage.witness.whole()
    assert struck > operations, "a script of so many operations has more statements"
    assert refused > struck // 2, "hardly any failure reached its caller"


async def _checked(stage: Stage, step: Step, answers: list[Any], before: int, then: Then, faults: Faults) -> int:
    """Judges one failure, and brings the file back to where the step began; the number of calls that were refused."""
    told = f"{[method for method, _ in step.calls]} with {faults.statement!r} failing: {answers}"
    errors = [answer for answer in answers if isinstance(answer, BaseException)]
    assert all(isinstance(error, StoreAway) for error in errors), told
    assert all(error.args[0].startswith(stage.store.url.removeprefix("sqlite:///")) for error in errors), told
    assert stage.witness.unlocked(), f"{told}: a transaction was left open"
    if not errors and then is not Then.DONE:
        _equal(stage, step, answers)
    elif then is Then.DONE:  # nobody can know; the repeat may answer that it is one
        await stage.run(step)
        assert stage.witness.contents() == step.contents, f"{told}: and the repeat did not lead to what was due"
    elif faults.committed or len(errors) < len(answers):  # an answer was lost, or one call failed before it wrote
        answers = [await _again(stage, step, number, answer) for number, answer in enumerate(answers)]
        _equal(stage, step, answers)
    else:
        assert stage.witness.version() == before, f"{told}: and something was stored"
        return len(errors)
    stage.witness.restore()
    return len(errors)


async def _again(stage: Stage, step: Step, number: int, answer: Any) -> Any:
    return (await stage.run(Step([step.calls[number]])))[0] if isinstance(answer, BaseException) else answer


def _equal(stage: Stage, step: Step, answers: list[Any]) -> None:
    methods = [method for method, _ in step.calls]
    for (method, arguments), answer, due in zip(step.calls, answers, step.answers, strict=True):
        assert answer == due, f"{method}{arguments} among {methods}"
    for table, rows in stage.witness.contents().items():
        assert rows == step.contents[table], f"{table} after {methods}: (what is there, what is due)"
