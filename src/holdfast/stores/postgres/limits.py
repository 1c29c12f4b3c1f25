"""How long things may take: the time-outs of calls by the lane that they go by, and what else is waited for.

What only looks again and again (waking.py, bell.py) has its pauses beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from holdfast.clock import SECOND, Span
from holdfast.store import LEASE

CONNECT: Span = 5 * SECOND  # for each host that the URL names, unless it says connect_timeout
RESOLVE: Span = 5 * SECOND  # more, for their names

# Of what another transaction holds. Most are over in a few ms: what one enqueue has waited for so long is a stranger's,
# and is only looked at when it comes again.
ENQUEUE: Span = 150
ENQUEUE_AGAIN: Span = 5
OPERATE: Span = 1 * SECOND  # cancel, retry, delete: asked again and again
RETRY: Span = 20  # one retry, for the first key or place
MIGRATE: Span = 60 * SECOND  # for all that holds a lock on our tables, and for another migration
MIGRATE_LOCK: Span = 2 * SECOND  # at a time: whoever comes later stands behind us

LISTEN: Span = 10 * SECOND  # for any answer on the connection that listens
LISTEN_PROBE: Span = 5 * SECOND  # for a notification of our own to come back on it
LAST_RINGS: Span = 2 * SECOND  # when a store is closed


class Limit(NamedTuple):
    """`statement` and `lock` are the server's statement_timeout and lock_timeout (0: none); when `answer` is over, the
    connection is given up, since even the server's word about its own time-outs has not come.
    """

    statement: Span
    lock: Span
    answer: Span


def limits(lease: Span = LEASE) -> Mapping[str, Limit]:
    """By the name of a lane; "open" is for the first look at a place, and for the connection that listens.

    Of claim and beat: a beat that waits behind a claim of the same worker is done within a third of the lease, and one
    on a dead connection is told again on another before the lease is over. Of enqueue: its function has a lock_timeout
    of its own; where that does not hold, as for a repeat that meets its own first copy, it waits as long as it may.
    """
    quick = Limit(statement=lease * 3 // 10, lock=lease * 2 // 10, answer=lease // 3)
    return {
        "claim": quick,
        "beat": quick,
        "enqueue": Limit(statement=10 * SECOND, lock=0, answer=12 * SECOND),
        "finish": Limit(statement=10 * SECOND, lock=5 * SECOND, answer=12 * SECOND),
        "work": Limit(statement=15 * SECOND, lock=5 * SECOND, answer=18 * SECOND),
        "open": Limit(statement=5 * SECOND, lock=2 * SECOND, answer=7 * SECOND),
        "migrate": Limit(statement=0, lock=0, answer=24 * 3600 * SECOND),
    }
