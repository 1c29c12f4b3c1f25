"""The slots of a worker: which claims run, which wait for a slot, and how much more the fetcher may claim."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from uuid import UUID

from holdfast.clock import Clock
from holdfast.job import Claim
from holdfast.worker.loop import Signal
from holdfast.worker.runner import Run

PREFETCH_MOST = 500
PREFETCH_AHEAD = 0.1  # seconds: prefetch only what will start within this time
WAIT_MOST = 1.0  # seconds: a prefetched job that has not started by then is given back
RATE_WINDOW = 0.02  # seconds
QUIET_FIRST, QUIET_MOST = 5.0, 600.0  # seconds that nothing is claimed, for a job that must run alone


class Slots:
    """At most `concurrency` attempts at a time. `quietly`: a job that must run alone runs with nothing beside it.

    That is for a worker that can spawn no process for such a job.
    """

    def __init__(
        self, concurrency: int, start: Callable[[Claim, float], Run | None], clock: Clock, *, quietly: bool = True
    ) -> None:
        self.concurrency = concurrency
        self.running: dict[tuple[UUID, int], Run] = {}
        self.waiting: deque[tuple[float, Claim]] = deque()
        self.held: dict[UUID, Claim] = {}  # by job: those that run, and those that wait
        self.changed = Signal()
        self._start = start
        self._clock = clock
        self._quietly = quietly
        self._quiet_until = self._restless_until = 0.0  # monotonic seconds
        self._patience = QUIET_FIRST
        self._alone = False
        self._ended, self._mark, self._rate = 0, clock.monotonic(), 0.0

    def admit(self, claims: Sequence[Claim]) -> tuple[Sequence[Claim], bool]:
        """Starts or keeps claims; returns those that are to be given back, and whether for later.

        A job that must run alone is kept only if it was claimed in quiet, when nothing else was held: a job that
        waits here behind another would be charged with the other's crash. Meeting one, the worker goes quiet for a
        while. If it does not become idle in that time it works on as usual for as long, and is quiet longer then.
        """
        lone = [claim for claim in claims if self._lonely(claim)]
        if lone and self.quiet and len(claims) == 1:
            self._quiet_until, self._patience = 0.0, QUIET_FIRST
            self.add(claims)
            return [], False
        now = self._clock.monotonic()
        restless = bool(lone) and now < self._restless_until
        if lone and not self.quiet and not restless:
            self._quiet_until = now + self._patience
        self.add([claim for claim in claims if not self._lonely(claim)])
        return lone, restless

    def _lonely(self, claim: Claim) -> bool:
        return self._quietly and claim.alone

    @property
    def quiet(self) -> bool:
        """Whether a job that must run alone was met: nothing more is claimed until this worker is idle."""
        return self._quiet_until > 0

    def found_nothing(self) -> None:
        """A claim found nothing: the job that must run alone is somebody else's by now."""
        self._quiet_until = 0.0

    def _end_quiet(self) -> None:
        now = self._clock.monotonic()
        if 0 < self._quiet_until <= now and self.running:
            self._quiet_until, self._restless_until = 0.0, now + self._patience
            self._patience = min(2 * self._patience, QUIET_MOST)

    def add(self, claims: Iterable[Claim]) -> None:
        """Starts what there is a slot for; the rest waits."""
        now = self._clock.monotonic()
        for claim in claims:
            self.waiting.append((now, claim))
            self.held[claim.id] = claim
        self.fill()

    def fill(self) -> None:
        """Starts waiting claims while slots are free."""
        while self.waiting and self._may_start(self.waiting[0][1]):
            since, claim = self.waiting.popleft()
            run = self._start(claim, since)
            if run is None:
                self.held.pop(claim.id, None)
            else:
                self.running[run.key] = run
                self._alone = self._lonely(claim)

    def _may_start(self, claim: Claim) -> bool:
        if not self.running:
            return True
        return len(self.running) < self.concurrency and not self._alone and not self._lonely(claim)

    def ended(self, run: Run) -> None:
        """Frees the attempt's slot."""
        self.running.pop(run.key, None)
        self.held.pop(run.claim.id, None)
        self._ended += 1
        if not self.running:
            self._alone = False

    def room(self) -> int:
        """How many jobs the fetcher may claim now: for free slots, and ahead of the present rate of ends."""
        if self._alone:
            return 0
        self._end_quiet()
        if self.quiet:
            return 0 if self.running or self.waiting else 1
        free = self.concurrency - len(self.running)
        ahead = self._ahead()
        if len(self.waiting) > ahead // 2:
            return 0
        return max(0, min(free + ahead - len(self.waiting), max(PREFETCH_MOST, free)))

    def _ahead(self) -> int:
        now = self._clock.monotonic()
        if now - self._mark >= RATE_WINDOW:
            self._rate = self._ended / (now - self._mark)
            self._ended, self._mark = 0, now
        return min(PREFETCH_MOST, int(self._rate * PREFETCH_AHEAD))

    def stale(self) -> list[Claim]:
        """Takes out the waiting claims if the first has waited too long: others could run them."""
        if self.waiting and self._clock.monotonic() - self.waiting[0][0] > WAIT_MOST:
            return self.take()
        return []

    def take(self) -> list[Claim]:
        """Takes out all claims that wait."""
        claims = [claim for _, claim in self.waiting]
        self.waiting.clear()
        for claim in claims:
            self.held.pop(claim.id, None)
        return claims
