"""What can be said of a queue's bound and weight, by code, by an operator and of a Pool: one rule for all of them."""

from __future__ import annotations

from typing import get_args

from holdfast.clock import Duration, span
from holdfast.errors import ConfigError
from holdfast.job import QueueTerms, WhenFull

SIZE_MOST = 1_000_000_000
WEIGHT_MOST = 1_000


def queue_terms(
    max_size: int | None, when_full: WhenFull, block_timeout: Duration | None, weight: int = 1
) -> QueueTerms:
    """The terms, if they make sense together. ConfigError naming the parameter that does not, as `max_size=0: …`."""
    if not _whole(weight, WEIGHT_MOST):
        raise ConfigError(
            f"weight={weight!r}: a whole number from 1 to {WEIGHT_MOST:,}; a queue of which nothing shall be started "
            "is to be paused"
        )
    if max_size is not None and not _whole(max_size, SIZE_MOST):
        raise ConfigError(f"max_size={max_size!r}: a whole number from 1 to {SIZE_MOST:,}, or None for no bound")
    if when_full not in get_args(WhenFull):
        raise ConfigError(f"when_full={when_full!r}: {', '.join(map(repr, get_args(WhenFull)))}")
    if max_size is None and when_full != "reject":
        raise ConfigError(f"when_full={when_full!r}: a queue without max_size= is never full")
    if block_timeout is None:
        return QueueTerms(max_size, when_full, weight=weight)
    if when_full != "block":
        raise ConfigError(f"block_timeout={block_timeout!r}: only when_full='block' waits, and this is {when_full!r}")
    return QueueTerms(max_size, when_full, span(block_timeout, "block_timeout", positive=True), weight)


def _whole(value: object, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most
