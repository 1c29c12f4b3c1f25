"""Who the worker is to the store: one incarnation, with its lease and the number of its last claim."""

from __future__ import annotations

from uuid import UUID, uuid4

from holdfast.clock import SECOND, Clock, Span

DOUBT = 8  # from an eighth of the lease before its end nothing prefetched is started


class Identity:
    """One incarnation. The id is random and never used again; the lease counts from when its last beat was sent."""

    def __init__(self, clock: Clock) -> None:
        self.id: UUID = uuid4()
        self.ticket = 0
        self.lost = False
        self._clock = clock
        self._lease = 0.0
        self._beaten = clock.monotonic()
        self.held_until = self._beaten  # monotonic seconds: when the lease comes into doubt without another beat

    def beaten(self, sent: float, lease: Span) -> None:
        """A beat that was sent at `sent` (monotonic seconds) was accepted."""
        self._lease = lease / SECOND
        self._beaten = max(self._beaten, sent)
        self.held_until = doubt_from(self._beaten, self._lease)

    def held(self) -> bool:
        """Whether the lease is beyond doubt."""
        return not self.lost and self._clock.monotonic() < self.held_until


def doubt_from(sent: float, lease: float) -> float:
    """When a lease of so many seconds comes into doubt whose last beat was sent at `sent`."""
    return sent + lease - lease / DOUBT
