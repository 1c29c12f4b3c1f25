"""Asks many queues at once: what one of them refuses holds up none of the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self, TypeVar

from holdfast.errors import StoreAway, StoreError
from holdfast.stores.redis.lane import Lane, Step
from holdfast.stores.redis.place import queue_keys
from holdfast.stores.redis.resp import Argument, Reply

T = TypeVar("T")


class Slots:
    """What the queues answer to one call of the seam. As a context manager it raises the first error among that."""

    def __init__(self, lane: Lane) -> None:
        self.error: StoreError | None = None
        self._lane = lane
        self._answered = False

    async def scripts(self, name: str, calls: Mapping[str, Sequence[Argument]]) -> dict[str, Reply]:
        """The replies of a script by queue, of those that answered."""
        lane = self._lane
        return await self.ask({queue: lane.step(name, queue_keys(lane.place, queue), calls[queue]) for queue in calls})

    async def ask(self, steps: Mapping[T, Step], beside: Sequence[Step] = ()) -> dict[T, Reply]:
        """The same of any steps. `beside`: more of the same pipeline, whose replies do not matter."""
        answers = dict[T, Reply]()
        try:
            replies = await self._lane.each([*steps.values(), *beside])
        except StoreAway as error:
            error.certain = error.certain and not self._answered
            raise
        for of_what, reply in zip(steps, replies, strict=False):
            if isinstance(reply, StoreError):
                self.error = self.error or reply
            else:
                answers[of_what] = reply
                self._answered = True
        return answers

    def told(self, result: T) -> T:
        """The result of the call; the error where there is none.

        So what the other queues gave is not lost. Who asks again and again is told of the error once they have no more.
        """
        if self.error is None or result:
            return result
        if isinstance(self.error, StoreAway) and self._answered:
            self.error.certain = False  # something may have been done
        raise self.error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        if kind is None:
            self.told(None)
