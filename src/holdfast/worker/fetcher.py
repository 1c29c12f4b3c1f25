"""The fetcher: free slots -> claim -> start. One claim is in flight at a time; one whose reply was lost is repeated."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Sequence
from uuid import UUID

from holdfast.job import Claim, Released, held_as
from holdfast.observe.logging import jobs, tell, workers
from holdfast.policy import decide
from holdfast.store import Claims, Store, Where
from holdfast.worker.finisher import Finisher
from holdfast.worker.identity import Identity
from holdfast.worker.loop import Signal, unless
from holdfast.worker.shares import Shares, Strict
from holdfast.worker.slots import WAIT_MOST, Slots

IDLE_MOST = 1.0  # seconds between claims when nothing hints at work
STRAYS_EVERY = 60.0
WEIGHTS_EVERY = 5.0


class Fetcher:
    """Claims for one worker. A ticket is used up by the answer that brings jobs; until then it is asked for again."""

    def __init__(
        self,
        store: Store,
        identity: Callable[[], Identity],
        slots: Slots,
        finisher: Finisher,
        queues: Sequence[str] | None,
        stopping: Signal,
        lost: Callable[[Identity], None],
        allowance: Callable[[], int],
        *,
        shares: Shares | Strict,
    ) -> None:
        self._store = store
        self._identity = identity
        self._slots = slots
        self._finisher = finisher
        self._queues = queues
        self._stopping = stopping
        self._lost = lost
        self._allowance = allowance  # how many more this worker may run before it is replaced
        self._shares = shares
        self._suspects: set[tuple[UUID, int]] = set()
        self.went_on = 0.0  # monotonic seconds: when it had an answer, or no room; 0: never

    async def step(self) -> float:
        """One claim, or one wait for room or for work."""
        self.give_back(self._slots.stale(), "waited too long for a slot")
        identity = self._identity()
        if identity.held():
            self._slots.fill()
        room = self._room(identity)
        if room <= 0:
            self.went_on = time.monotonic()
            await self._slots.changed.wait(WAIT_MOST / 4)
            return 0
        claims = await self._claimed(identity, room)
        if claims.refused:
            return self._refused(identity, claims)
        self.went_on = time.monotonic()
        if claims.jobs:
            identity.ticket += 1
            fresh = self._fresh(claims.jobs)
            if identity.lost or self._stopping:
                self.give_back(fresh, "claimed by a worker that was leaving")
            else:
                self._admit(fresh)
            return 0
        self._slots.found_nothing()
        await unless(self._stopping, self._store.wait(self._queues, IDLE_MOST * random.uniform(0.8, 1)))
        return 0

    async def _claimed(self, identity: Identity, room: int) -> Claims:
        """What a claim brings, in the order in which it is started."""
        if not self._shares.used:
            return await self._store.claim(identity.id, identity.ticket + 1, self._queues, room)
        quotas = self._shares.quotas(room)
        claims = await self._store.claim(identity.id, identity.ticket + 1, self._queues, room, quotas)
        return claims if claims.refused else claims._replace(jobs=self._shares.took(room, quotas, claims.jobs))

    async def weights_step(self) -> float:
        """Reads what is laid down about queues, so that an operator's word reaches workers that run."""
        if self._shares.weighs:
            self._shares.weigh(await self._store.queues())
        return WEIGHTS_EVERY * random.uniform(0.8, 1)

    def _room(self, identity: Identity) -> int:
        if self._finisher.full or not identity.held():
            return 0
        if self._slots.quiet and self._finisher.pending:  # what has ended must be on record before the next may crash
            return 0
        return min(self._slots.room(), self._allowance())

    def _admit(self, claims: Sequence[Claim]) -> None:
        lone, later = self._slots.admit(claims)
        self.give_back(lone, "it must run alone, and this worker is busy", later=later)
        for claim in () if later else lone:
            tell(
                workers,
                logging.WARNING,
                "quiet",
                job=claim.id,
                task=claim.task,
                losses=claim.losses,
                running=len(self._slots.running),
                message="it must run alone after its losses: nothing else is claimed for a while, to get idle",
            )

    def _fresh(self, claims: Sequence[Claim]) -> Sequence[Claim]:
        """Those of jobs that this worker does not have. A store that was put back to an earlier state gives out once
        more what it has: under the same word, for which the run under way answers, or under another, for later.
        """
        held, ended = self._slots.held, self._finisher.pending
        if not any(claim.id in held or claim.id in ended for claim in claims):  # as nearly always
            return claims
        settling = self._finisher.words
        fresh: list[Claim] = []
        for claim in claims:
            if claim.id not in held and claim[:3] not in settling:
                fresh.append(claim)
            elif claim[:3] in settling or claim[:3] == held[claim.id][:3]:
                self._tell_twice(claim, "not started again: the run under way answers for it")
            else:
                self._tell_twice(claim, "given back for later: its run by an earlier claim goes on")
                self.give_back([claim], "this worker runs it still, by an earlier claim", later=True)
        return fresh

    def _tell_twice(self, claim: Claim, text: str) -> None:
        tell(jobs, logging.WARNING, "claimed-twice", job=claim.id, fence=claim.fence, task=claim.task, message=text)

    def give_back(self, claims: Sequence[Claim], reason: str, *, later: bool = False) -> None:
        """Releases claims that were never begun; `later`: they shall not come back at once."""
        for claim in claims:
            self._finisher.add(decide(claim, Released(reason, unknown=later)), claim)

    def _refused(self, identity: Identity, claims: Claims) -> float:
        if claims.refused == "expired":  # the next beat revives the lease
            return IDLE_MOST / 4
        if claims.refused == "used":  # a claim whose reply was lost, and nothing of it is held any more
            identity.ticket += 1
            return 0
        tell(workers, logging.WARNING, "claim-refused", worker=identity.id, reason=claims.refused)
        self._lost(identity)
        return IDLE_MOST

    async def strays_step(self) -> float:
        """A belt: gives back what the store says this worker holds and the worker does not know, if seen twice."""
        identity = self._identity()
        records = await self._store.find(Where(worker=identity.id), None, 1000)
        known = self._slots.held.keys() | self._finisher.pending
        unknown = {(r.id, r.fence): r for r in records if r.id not in known}
        for key in self._suspects & unknown.keys():
            tell(workers, logging.ERROR, "stray", job=key[0], fence=key[1], worker=identity.id)
            claim = held_as(unknown[key], identity.id)
            self._finisher.add(decide(claim, Released("held by a worker that did not know it")), claim)
        self._suspects = set(unknown)
        return STRAYS_EVERY
