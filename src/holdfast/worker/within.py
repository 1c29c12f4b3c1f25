"""Successes in handlers' own transactions: encoded and decided like any other, written on the handler's connection."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from holdfast.bridge import run_here
from holdfast.errors import ConfigError, StoreAway
from holdfast.job import Claim, Outcome, State, Succeeded
from holdfast.policy import decide
from holdfast.store import Answer, Settled, Store
from holdfast.task import Task


class Within:
    """For a worker or a slot process. `store` and `astore` give the store of its jobs, in a handler's thread and on its
    loop; `accepted` is told there of each claim whose success was written, before its handler can commit.
    """

    def __init__(
        self,
        store: Callable[[], Store],
        astore: Callable[[], Awaitable[Store]],
        accepted: Callable[[Claim], object] = lambda _: None,
    ) -> None:
        self.store = store
        self.astore = astore
        self.accepted = accepted
        self.pid = os.getpid()

    def of(self, claim: Claim, task: Task[..., Any]) -> Finish:
        """What one attempt finishes by."""
        return Finish(self, claim, task)


class Finish:
    """A job's `Finishing`."""

    __slots__ = ("_claim", "_task", "_within")

    def __init__(self, within: Within, claim: Claim, task: Task[..., Any]) -> None:
        self._within = within
        self._claim = claim
        self._task = task

    def finish(self, connection: object, result: object) -> bool:
        """On a synchronous connection, in its thread."""
        outcome = self._success(result)
        return self._held(run_here(self._within.store().finish([outcome], connection), "`await job.afinish(...)`"))

    async def afinish(self, connection: object, result: object) -> bool:
        """On a connection of either kind, on its loop."""
        outcome = self._success(result)
        return self._held(await (await self._within.astore()).finish([outcome], connection))

    def _success(self, result: object) -> Outcome:
        if os.getpid() != self._within.pid:
            raise RuntimeError("finish() in a process that a handler has forked: the job is its parent's")
        return decide(self._claim, Succeeded(self._task.signature.encode_result(result)))

    def _held(self, answers: Sequence[Settled]) -> bool:
        """Whether the success is written; its claim is not the job's any more if not. The store knows what was rolled
        back: whoever finishes again in another transaction may.
        """
        [settled] = answers
        match settled.answer:
            case Answer.ACCEPTED:
                self._within.accepted(self._claim)
                return True
            case Answer.REPLAYED if settled.state is State.SUCCEEDED:
                raise ConfigError(
                    f"finish() twice in {self._claim.task}: the success of job {self._claim.id} is part of this "
                    "transaction already, or of one that was committed; finish once, last before the commit"
                )
            case Answer.BUSY:
                raise StoreAway(
                    f"finish(): another transaction, still open, has locked job {self._claim.id}: this handler's, on "
                    "another connection, or somebody's own SQL; let it end, and try again"
                )
            case _:
                return False
