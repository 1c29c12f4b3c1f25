"""How long things may take: how long each lane waits for a word of its server, and what else is waited for."""

from __future__ import annotations

from holdfast.clock import SECOND, Span

CONNECT: Span = 5 * SECOND  # with the server's names, TLS and the greeting; unless the URL says connect_timeout
LISTEN: Span = 5 * SECOND  # for an answer on the connection that listens, and for the probe to come back on it
WAIT: Span = 1 * SECOND  # for replicas, unless the URL says wait_timeout
_SILENCE = {
    "enqueue": 10 * SECOND,
    "finish": 10 * SECOND,
    "work": 15 * SECOND,
    "open": 7 * SECOND,
}


def silence(lane: str, lease: Span) -> Span:
    """After which the connection of this lane is given up, while an answer is due.

    It is longer than any script of ours takes, or every slow one would be an unclear one. Of claim and beat: what is
    told again on another connection is told before the lease is over. "open" is for the first look at a place.
    """
    return _SILENCE.get(lane, lease // 3)
