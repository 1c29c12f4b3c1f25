"""The finisher: outcomes pile up, are written in batches, and are kept until the store has spoken."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeAlias
from uuid import UUID

from holdfast.errors import StoreAway
from holdfast.job import Claim, Outcome, State
from holdfast.observe.logging import jobs, tell
from holdfast.observe.tally import Counts
from holdfast.policy import unrecordable
from holdfast.store import Answer, Settled, Store
from holdfast.worker.confirms import BUSY_PAUSE, IDLE, Confirms
from holdfast.worker.loop import Signal

BATCH_MOST = 500
PENDING_MOST = 2 * BATCH_MOST
REFUSALS = 5  # of one outcome, before it is recorded as a failure instead
HELD_UP = 5.0  # seconds after which a row that stays locked is told of
_BUSY, _ACCEPTED, _REPLAYED = Answer.BUSY, Answer.ACCEPTED, Answer.REPLAYED  # Python 3.11 is slow to look them up
_SUCCEEDED = State.SUCCEEDED
_LATER = Settled(_BUSY)  # not the store's word: another reason to ask again

Ended: TypeAlias = tuple[Outcome, Claim | None, float | None]  # with the seconds that it ran; None: it was never begun


class Finisher:
    """Writes outcomes; while one write is in flight, later outcomes pile up for the next. `confirms`: what is not
    written but asked for, since a handler's own transaction has it. What the store took is told to `counts`.
    """

    def __init__(
        self,
        store: Store,
        refused: Callable[[Outcome], None],
        settled: Callable[[Sequence[tuple[UUID, int]]], object],
        counts: Counts | None = None,
    ) -> None:
        self._store = store
        self._refused = refused
        self._settled = settled
        self._counts = Counts() if counts is None else counts
        self._ended: deque[Ended] = deque()
        self._writing: Sequence[Outcome] = ()
        self._refusals: dict[UUID, int] = {}
        self._held_since: dict[UUID, float] = {}  # monotonic seconds; those that were told: never
        self._unsent_since = 0.0
        self.arrived = Signal()
        self.written = Signal()
        self.confirms = Confirms(self._write, self._spoken_of, self.written)

    def add(self, outcome: Outcome, claim: Claim | None = None, ran: float | None = None) -> None:
        """Takes an outcome to be written; what is said of its claim is for the counts."""
        if not self._unsent_since:
            self._unsent_since = time.monotonic()
        self._ended.append((outcome, claim, ran))
        self.arrived.poke()

    @property
    def full(self) -> bool:
        """Whether so much waits that the worker should claim nothing."""
        return len(self._ended) + len(self.confirms) >= PENDING_MOST

    @property
    def pending(self) -> set[UUID]:
        """The ids of jobs whose outcome is not settled yet."""
        return {outcome.id for outcome in self._unwritten} | self.confirms.pending

    @property
    def words(self) -> set[tuple[UUID, int, UUID]]:
        """The words (id, fence, worker) of claims whose outcome is not settled yet."""
        return {outcome[:3] for outcome in (*self._unwritten, *self.confirms.outcomes)}

    @property
    def _unwritten(self) -> list[Outcome]:
        return [*self._writing, *(outcome for outcome, _, _ in self._ended)]

    @property
    def unsent_since(self) -> float:
        """Monotonic seconds since when outcomes wait and the store has said nothing; 0: none waits."""
        first, second = self._unsent_since, self.confirms.unsent_since
        return min(first, second) or first or second

    async def step(self) -> float:
        """Writes one batch. A batch that could not be written stays."""
        if not self._ended:
            self.written.poke()
            await self.arrived.wait(IDLE)
            return 0
        taken = [self._ended.popleft() for _ in range(min(BATCH_MOST, len(self._ended)))]
        self._writing = batch = [outcome for outcome, _, _ in taken]
        try:
            answers = await self._write(batch)
        except BaseException:
            self._ended.extendleft(reversed(taken))
            raise
        finally:
            self._writing = ()
        busy = [ended for ended, answer in zip(taken, answers, strict=True) if answer.answer is _BUSY]
        self._ended += busy
        self._spoken(taken, answers)
        self._unsent_since = time.monotonic() if self._ended else 0.0
        if busy:
            await self._tell_held_up(batch, answers)
        return BUSY_PAUSE if len(busy) == len(taken) else 0

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
                answers.append(_LATER)
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
            return _LATER
        try:
            return (await self._store.finish([unrecordable(outcome, error)]))[0]
        except StoreAway:
            raise
        except Exception:  # noqa: BLE001  # this one job stays as it is and is asked for again; the others go on
            return _LATER

    async def _tell_held_up(self, batch: Sequence[Outcome], answers: Sequence[Settled]) -> None:
        """Once for each; those that are late at the same time in one line."""
        now = time.monotonic()
        held = [o for o, said in zip(batch, answers, strict=True) if said.answer is Answer.BUSY and said is not _LATER]
        late = [o for o in held if now - self._held_since.setdefault(o.id, now) >= HELD_UP]
        if not late:
            return
        self._held_since.update(dict.fromkeys((outcome.id for outcome in late), math.inf))
        by = ""
        with suppress(Exception):  # who it is adds to the line, and no more
            async with asyncio.timeout(1):
                by = await self._store.locker(late[0].id)
        tell(
            jobs,
            logging.WARNING,
            "held-up",
            job=late[0].id,
            fence=late[0].fence,
            count=len(late) if len(late) > 1 else None,
            by=by or None,
            message=f"it ended {HELD_UP:g} s ago, and that cannot be written: another transaction has locked its row",
        )

    def _spoken(self, taken: Sequence[Ended], answers: Sequence[Settled]) -> None:
        """What a batch has in common is done for all of it at once: nearly all are runs that succeeded."""
        runs: list[tuple[Claim, float]] = []
        keys: list[tuple[UUID, int]] = []
        others: list[tuple[Ended, Settled]] = []
        for ended, answer in zip(taken, answers, strict=True):
            outcome, claim, ran = ended
            if answer.answer is _BUSY:
                continue
            keys.append(outcome[:2])
            if answer.state is _SUCCEEDED and claim is not None and ran is not None:
                runs.append((claim, ran))
            else:
                others.append((ended, answer))
        self._settled(keys)
        if self._refusals or self._held_since:
            for job, _ in keys:
                self._refusals.pop(job, None)
                self._held_since.pop(job, None)
        self._counts.succeeded(runs)
        for ended, answer in others:
            self._spoken_otherwise(ended, answer)

    def _spoken_otherwise(self, ended: Ended, answer: Settled) -> None:
        outcome, claim, ran = ended
        if answer.answer is _ACCEPTED or answer.answer is _REPLAYED:
            if claim is not None:
                self._counts.settled(claim, outcome, answer, ran)
        elif answer.answer is Answer.STALE:
            self._counts.event("stale", claim.queue if claim else "")
            self._refused(outcome)
        else:
            tell(jobs, logging.WARNING, "gone", job=outcome.id, fence=outcome.fence, ended=outcome.ended)

    def _spoken_of(self, outcome: Outcome, answer: Settled, claim: Claim, ran: float) -> None:
        self._spoken([(outcome, claim, ran)], [answer])

    async def flush(self, seconds: float, now: Callable[[], float]) -> Sequence[Outcome]:
        """Waits until everything is written, at most `seconds`; returns what is not."""
        end = now() + seconds
        while (self._ended or self._writing or self.confirms) and now() < end:
            self.arrived.poke()
            await self.written.wait(min(0.1, end - now()))
        return [*self._unwritten, *self.confirms.outcomes]
