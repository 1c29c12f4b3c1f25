"""A store whose answers are timed: wrapped around the seam once, as a worker uses it."""

from __future__ import annotations

import time
from typing import Any, cast

from holdfast.observe.tally import Counts
from holdfast.store import Store

# What waits for something, what is too rare to be worth a series, and what is no call.
UNTIMED = frozenset(
    {"wait", "watch", "open", "close", "migrate", "twin", "locker", "url", "shared", "unheard", "shift"}
)


class _Measured:
    def __init__(self, store: Store, counts: Counts) -> None:
        self._inner = store
        self._counts = counts

    def __getattr__(self, name: str) -> Any:
        found: Any = getattr(self._inner, name)
        if name in UNTIMED:
            return found
        called = self._counts.called

        async def timed(*args: Any, **options: Any) -> Any:
            began = time.perf_counter()
            answer: Any = await found(*args, **options)
            called(name, time.perf_counter() - began)
            return answer

        return timed


def measured(store: Store, counts: Counts) -> Store:
    """`store`, telling `counts` how long each of its answers took. Calls that fail are not told of."""
    return cast("Store", _Measured(store, counts))
