"""The finisher: outcomes pile up, are written in batches, and are kept until the store has spoken."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from uuid import UUID

from holdfast.errors import StoreAway
from holdfast.job import Outcome
from holdfast.observe.logging import jobs, tell
from holdfast.policy import unrecordable
from holdfast.store import Answer, Settled, Store
from holdfast.worker.confirms import Confirms
from holdfast.worker.loop import Signal

BATCH_MOST = 500
PENDING_MOST = 2 * BATCH_MOST
IDLE = 60.0
REFUSALS = 5  # of one outcome, before it is recorded as a failure instead
BUSY_PAUSE = 0.1  # seconds before rows that another transaction has locked are tried again


class Finisher:
    """Writes outcomes; while one write is in flight, later outcomes pile up for the next. `confirms`: what is not
    written but asked for, since a handler's own transaction has it.
    """

    def __init__(
        self, store: Store, refused: Callable[[Outcome], None], settled: Callable[[tuple[UUID, int]], object]
    ) -> None:
        self._store = store
        self._refused = refused
        self._settled = settled
        self._outcomes: deque[Outcome] = deque()
        self._writing: Sequence[Outcome] = ()
        self._refusals: dict[UUID, int] = {}
        self._unsent_since = 0.0
        self.arrived = Signal()
        self.written = Signal()
        self.confirms = Confirms(self._write, self._spoken, self.written)

    def add(self, outcome: Outcome) -> None:
        """Takes an outcome to be written."""
        if not self._unsent_since:
            self._unsent_since = time.monotonic()
        self._outcomes.append(outcome)
        self.arrived.poke()

    @property
    def full(self) -> bool:
        """Whether so much waits that the worker should claim nothing."""
        return len(self._outcomes) + len(self.confirms) >= PENDING_MOST

    @property
    def pending(self) -> set[UUID]:
        """The ids of jobs whose outcome is not settled yet."""
        return {outcome.id for outcome in (*self._outcomes, *self._writing)} | self.confirms.pending

    @property
    def unsent_since(self) -> float:
        """Monotonic seconds since when outcomes wait and the store has said nothing; 0: none waits."""
        first, second = self._unsent_since, self.confirms.unsent_since
        return min(first, second) or first or second

    async def step(self) -> float:
        """Writes one batch. A batch that could not be written stays."""
        if not self._outcomes:
            self.written.poke()
            await self.arrived.wait(IDLE)
            return 0
        batch = [self._outcomes.popleft() for _ in range(min(BATCH_MOST, len(self._outcomes)))]
        self._writing = batch
        try:
            answers = await self._write(batch)
        except BaseException:
            self._outcomes.extendleft(reversed(batch))
            raise
        finally:
            self._writing = ()
        for outcome, answer in zip(batch, answers, strict=True):
            self._settle(outcome, answer)
        self._unsent_since = time.monotonic() if self._outcomes else 0.0
        return BUSY_PAUSE if all(answer.answer is Answer.BUSY for answer in answers) else 0

    async def _write(self, batch: Sequence[Outcome]) -> Sequence[Settled]:
        try:
            return await self._store.finish(batch)
        except StoreAway as error:
            if len(batch) == 1 or not error.full:
                raise
            return await self._write_what_fits(batch, error)
        except Exception as error:  # noqa: BLE001  # whatever a store cannot take, the others must not wait for
            if len(batch) == 1:
                return [await self._refused_by_store(batch[0], error)]
        return [(await self._write([outcome]))[0] for outcome in batch]

    async def _write_what_fits(self, batch: Sequence[Outcome], error: StoreAway) -> Sequence[Settled]:
        """One by one: where the disk is almost full, a long result must not keep the others from it."""
        answers: list[Settled] = []
        for outcome in batch:
            try:
                answers += await self._write([outcome])
            except StoreAway as refusal:
                if not refusal.full:
                    raise
                answers.append(Settled(Answer.BUSY))
        if all(answer.answer is Answer.BUSY for answer in answers):
            raise error
        return answers

    async def _refused_by_store(self, outcome: Outcome, error: Exception) -> Settled:
        """Asks again a few times; what the store can never take is then recorded as a failure that says so."""
        refusals = self._refusals[outcome.id] = self._refusals.get(outcome.id, 0) + 1
        if refusals == 1:
            text = f"{type(error).__name__}: {error}"
            tell(jobs, logging.ERROR, "outcome-refused", job=outcome.id, fence=outcome.fence, error=text)
        if refusals % REFUSALS:
            return Settled(Answer.BUSY)
        try:
            return (await self._store.finish([unrecordable(outcome, error)]))[0]
        except StoreAway:
            raise
        except Exception:  # noqa: BLE001  # this one job stays as it is and is asked for again; the others go on
            return Settled(Answer.BUSY)

    def _settle(self, outcome: Outcome, answer: Settled) -> None:
        if answer.answer is Answer.BUSY:
            self._outcomes.append(outcome)
        else:
            self._spoken(outcome, answer)

    def _spoken(self, outcome: Outcome, answer: Settled) -> None:
        self._refusals.pop(outcome.id, None)
        self._settled((outcome.id, outcome.fence))
        if answer.answer is Answer.STALE:
            self._refused(outcome)
        elif answer.answer is Answer.GONE:
            tell(jobs, logging.WARNING, "gone", job=outcome.id, fence=outcome.fence, ended=outcome.ended)

    async def flush(self, seconds: float, now: Callable[[], float]) -> Sequence[Outcome]:
        """Waits until everything is written, at most `seconds`; returns what is not."""
        end = now() + seconds
        while (self._outcomes or self._writing or self.confirms) and now() < end:
            self.arrived.poke()
            await self.written.wait(min(0.1, end - now()))
        return [*self._writing, *self._outcomes, *self.confirms.outcomes]
