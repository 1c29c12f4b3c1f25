"""What a pool counts."""

from __future__ import annotations


class Tally:
    """What one thread, or who holds the core's lock, has counted; times in seconds."""

    __slots__ = ("cancelled", "dropped", "failed", "latency", "longest", "retried", "succeeded")

    def __init__(self) -> None:
        self.succeeded = self.failed = self.retried = self.cancelled = self.dropped = 0
        self.latency = self.longest = 0.0

    def add(self, other: Tally) -> None:
        """Takes in what another has counted."""
        self.succeeded += other.succeeded
        self.failed += other.failed
        self.retried += other.retried
        self.cancelled += other.cancelled
        self.dropped += other.dropped
        self.latency += other.latency
        self.longest = max(self.longest, other.longest)

    def took(self, seconds: float) -> None:
        """A job took so long from its submission to its end."""
        self.latency += seconds
        self.longest = max(self.longest, seconds)
