"""Asks many queues at once: what one of them refuses holds up none of the others, and is raised at the end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Self, TypeVar

from holdfast.errors import StoreAway, StoreError
from holdfast.stores.redis.lane import Lane, Step
from holdfast.stores.redis.place import queue_keys
from holdfast.stores.redis.resp import Argument, Reply

T = TypeVar("T")


def names_of(replies: Iterable[bytes]) -> set[str]:
    """Names of queues, as the registry has them."""
    return {name.decode() for name in replies}


class Slots:
    """For the time of a `with`; raises at its end the first error that a queue answered with."""

    def __init__(self, lane: Lane) -> None:
        self.error: StoreError | None = None
        self._answered = False  # whether something of it may be done
        self._lane = lane

    async def scripts(self, name: str, calls: Mapping[str, Sequence[Argument]]) -> dict[str, Reply]:
        """The replies of a script by queue, of those that answered."""
        lane = self._lane
        return await self.ask({queue: lane.step(name, queue_keys(lane.place, queue), calls[queue]) for queue in calls})

    async def ask(self, steps: Mapping[T, Step]) -> dict[T, Reply]:
        """The same of any steps."""
        answers = dict[T, Reply]()
        for of_what, reply in zip(steps, await self._lane.each(list(steps.values())), strict=True):
            if isinstance(reply, StoreError):
                self.error = self.error or reply
            else:
                answers[of_what] = reply
                self._answered = True
        return answers

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, raised: BaseException | None, _: TracebackType | None) -> None:
        error = raised or self.error
        if self._answered and isinstance(error, StoreAway):
            error.certain = False
        if kind is None and self.error is not None:
            raise self.error
