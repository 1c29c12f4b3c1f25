"""Confirms: asks the store whether what handlers finished in their own transactions was committed.

1. asks with the outcomes that are right if it was not, apart from all others, which must not wait with them: the
   store's answer says how it was;
2. goes on asking while the transaction is open; once it is so OPEN_MOST later, the outcome says that it was left open;
3. keeps a question until the store has spoken.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from uuid import UUID

from holdfast.errors import StoreAway
from holdfast.job import Claim, Outcome, Verdict
from holdfast.policy import decide
from holdfast.store import Answer, Settled
from holdfast.worker.loop import Signal
from holdfast.worker.report import tell_of

OPEN_MOST = 5.0  # seconds after its handler's end for a transaction to be committed or rolled back
AT_ONCE = 100
IDLE = 60.0
BUSY_PAUSE = 0.1  # seconds before rows that another transaction has locked are asked for again
_SILENT = Settled(Answer.BUSY)  # not the store's word: it gave none

Write = Callable[[Sequence[Outcome]], Awaitable[Sequence[Settled]]]


class Question:
    """What became of an attempt that was finished within? `undone`: what it ended as if that was rolled back;
    `left_open`: if it was open for too long. `answered` is told the answer. `ran`: how many seconds it ran.
    """

    def __init__(
        self,
        claim: Claim,
        undone: Verdict,
        left_open: Verdict,
        answered: Callable[[Question, Settled], object],
        ran: float = 0.0,
    ) -> None:
        self.claim = claim
        self.ran = ran
        self.verdict = undone
        self.outcome = decide(claim, undone)
        self.answered = answered
        self.since = time.monotonic()  # when its handler ended, or the store was back; 0: the store is away
        self.late = False
        self._left_open = left_open

    def give_up(self) -> None:
        """It was open for too long: what it ended as is another now, if it was rolled back."""
        self.late, self.verdict = True, self._left_open
        self.outcome = decide(self.claim, self._left_open)


class Confirms:
    """Questions wait here until they are answered. `write` asks the store; `spoken` is told of each answer."""

    def __init__(
        self, write: Write, spoken: Callable[[Outcome, Settled, Claim, float], object], written: Signal
    ) -> None:
        self._write = write
        self._spoken = spoken
        self._written = written
        self._questions: list[Question] = []
        self.unsent_since = 0.0  # monotonic seconds since when questions wait and the store said nothing; 0: none waits
        self.arrived = Signal()

    def add(self, question: Question) -> None:
        """Takes a question to be asked."""
        if not self.unsent_since:
            self.unsent_since = time.monotonic()
        self._questions.append(question)
        self.arrived.poke()

    @property
    def outcomes(self) -> list[Outcome]:
        """What is asked with, of those not answered yet."""
        return [question.outcome for question in self._questions]

    @property
    def pending(self) -> set[UUID]:
        """The ids of the jobs asked for."""
        return {question.claim.id for question in self._questions}

    def __len__(self) -> int:
        return len(self._questions)

    async def step(self) -> float:
        """Asks for all that wait. Those that are not answered stay, behind the others."""
        if not self._questions:
            self._written.poke()
            await self.arrived.wait(IDLE)
            return 0
        asked, at = self._questions[:AT_ONCE], time.monotonic()
        answers = await self._ask(asked, at)
        left = [question for question, answer in zip(asked, answers, strict=True) if answer.answer is Answer.BUSY]
        self._questions = self._questions[len(asked) :] + left
        for question, answer in zip(asked, answers, strict=True):
            if answer.answer is not Answer.BUSY:
                self._spoken(question.outcome, answer, question.claim, question.ran)
                question.answered(question, answer)
            elif not question.late and (answer is _SILENT or at - question.since >= OPEN_MOST):
                _tell_left_open(question)
        if not self._questions:
            self.unsent_since = 0.0
        return BUSY_PAUSE if len(left) == len(asked) else 0

    async def _ask(self, asked: Sequence[Question], at: float) -> Sequence[Settled]:
        for question in asked:
            question.since = question.since or at
        try:
            async with asyncio.timeout(None if all(question.late for question in asked) else OPEN_MOST):
                answers = await self._write([question.outcome for question in asked])
        except TimeoutError:  # on SQLite an open transaction keeps everybody waiting
            return [_SILENT] * len(asked)
        except StoreAway:
            for question in asked:
                question.since = 0.0
            raise
        self.unsent_since = time.monotonic()
        return answers


def _tell_left_open(question: Question) -> None:
    question.give_up()
    text = f"it ended {OPEN_MOST:g} s ago, and the transaction that it finished in is not committed or rolled back"
    tell_of(question.claim, logging.WARNING, "left-open", message=text)
