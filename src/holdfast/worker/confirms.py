"""Confirms: asks the store whether what handlers finished in their own transactions was committed.

1. asks with the outcome that is right if it was not, each on its own: the store's answer says how it was;
2. goes on asking while the transaction is open; after OPEN_MOST the outcome says that it was left open;
3. keeps a question until the store has spoken.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeGuard
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
BUSY_PAUSE = 0.1  # seconds before what is open is asked for again
_OPEN = Settled(Answer.BUSY)

Write = Callable[[Sequence[Outcome]], Awaitable[Sequence[Settled]]]


class Question:
    """What became of an attempt that was finished within? `undone`: what it ended as if that was rolled back;
    `left_open`: if it was open for too long. `answered` is told the answer.
    """

    def __init__(
        self, claim: Claim, undone: Verdict, left_open: Verdict, answered: Callable[[Question, Settled], object]
    ) -> None:
        self.claim = claim
        self.verdict = undone
        self.outcome = decide(claim, undone)
        self.answered = answered
        self.since = 0.0  # monotonic seconds; when it was asked first since the store last was away
        self.late = False
        self._left_open = left_open

    def is_late(self) -> None:
        """It was open for too long."""
        self.late, self.verdict = True, self._left_open
        self.outcome = decide(self.claim, self._left_open)


class Confirms:
    """Questions wait here until they are answered. `write` asks the store; `spoken` is told of each answer."""

    def __init__(self, write: Write, spoken: Callable[[Outcome, Settled], object], written: Signal) -> None:
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
        asked = self._questions[:AT_ONCE]
        answers = await asyncio.gather(*map(self._ask, asked), return_exceptions=True)
        left = [question for question, answer in zip(asked, answers, strict=True) if not _is_word(answer)]
        self._questions = self._questions[len(asked) :] + left
        for question, answer in zip(asked, answers, strict=True):
            if _is_word(answer):
                self._spoken(question.outcome, answer)
                question.answered(question, answer)
        if not self._questions:
            self.unsent_since = 0.0
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return BUSY_PAUSE if len(left) == len(asked) else 0

    async def _ask(self, question: Question) -> Settled:
        now = time.monotonic()
        question.since = question.since or now
        left = question.since + OPEN_MOST - now
        if left <= 0 and not question.late:
            self._is_late(question)
        try:
            async with asyncio.timeout(None if question.late else left):
                [settled] = await self._write([question.outcome])
        except TimeoutError:  # on SQLite an open transaction keeps everybody waiting
            return _OPEN
        except StoreAway:
            question.since = 0.0
            raise
        self.unsent_since = time.monotonic()
        return settled

    def _is_late(self, question: Question) -> None:
        question.is_late()
        text = f"it ended {OPEN_MOST:g} s ago, and the transaction that it finished in is not committed or rolled back"
        tell_of(question.claim, logging.WARNING, "left-open", message=text)


def _is_word(answer: Settled | BaseException) -> TypeGuard[Settled]:
    return isinstance(answer, Settled) and answer.answer is not Answer.BUSY
