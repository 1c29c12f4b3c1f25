"""A worker's life as its lease and its beats make it, and its mailbox."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from uuid import UUID

from holdfast.clock import DAY, HOUR, Instant
from holdfast.job import Loss
from holdfast.store import LEASE, Line, WorkerRow


@dataclass(slots=True, eq=False)
class Life:
    """A worker's life, and its mailbox."""

    lease_until: Instant
    beat_at: Instant
    steady_since: Instant
    ticket: int = 0
    retired_at: Instant | None = None
    loss: Loss | None = None
    mail: list[Line] = field(default_factory=list)
    supervisor: UUID | None = None
    facts: Mapping[str, object] = field(default_factory=dict[str, object])
    reported: int = 0  # the number of its newest report to the history

    def live(self, now: Instant) -> bool:
        return self.retired_at is None and now < self.lease_until

    def steady(self, now: Instant) -> bool:
        """Its beats came without a pause for a whole lease: the store was there, others could beat too."""
        return 0 <= 2 * (now - self.beat_at) < LEASE and now - self.steady_since > LEASE

    def beat(self, now: Instant) -> None:
        if 2 * (now - self.beat_at) > LEASE or self.beat_at > now:
            self.steady_since = now
        self.beat_at = now
        self.lease_until = now + LEASE

    def over(self, now: Instant) -> bool:
        """Whether its row may go, if nothing is held under it."""
        return now >= (self.beat_at + DAY if self.retired_at is None else self.retired_at + HOUR)

    def shown(self, worker: UUID) -> WorkerRow:
        return WorkerRow(
            worker,
            self.supervisor,
            self.facts,
            self.beat_at,
            self.steady_since,
            self.lease_until,
            self.retired_at,
        )
