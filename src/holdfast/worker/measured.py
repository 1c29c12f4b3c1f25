"""A store whose answers are timed: wrapped around the seam once, as a worker uses it."""

from __future__ import annotations

import time
from typing import Any, cast

from holdfast.observe.tally import Counts
from holdfast.store import Store

# Calls that wait for something, and those that are too rare to be worth a series each.
UNTIMED = frozenset({"wait", "watch", "open", "close", "migrate", "twin", "locker"})


class _Measured:
    def __init__(self, store: Store, counts: Counts) -> None:
        self._inner = store
        self._counts = counts

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name in UNTIMED or not callable(found):
            return found
        called = self._counts.called

        async def timed(*args: Any, **options: Any) -> Any:
            began = time.perf_counter()
            answer = await found(*args, **options)
            called(name, time.perf_counter() - began)
            return answer

        return timed


def measured(store: Store, counts: Counts) -> Store:
    """`store`, telling `counts` how long each of its answers took. Calls that fail are not told of."""
    return cast("Store", _Measured(store, counts))
