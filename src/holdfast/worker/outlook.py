"""The outlook of a supervisor: what its service has counted, how it is now, and who is told of that.

1. adds up what the children hand on, and what it counts itself;
2. reads how they are from their black boxes, which a child that does not go on cannot keep from it;
3. says so to whoever asks the endpoint, and to systemd.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

from holdfast.clock import Clock
from holdfast.observe.endpoint import Server, Watched
from holdfast.observe.health import Seen, ready, well
from holdfast.observe.pages import Pages
from holdfast.observe.tally import Counts, News, Totals
from holdfast.worker.child import Child
from holdfast.worker.standing import Standing
from holdfast.worker.systemd import Notice
from holdfast.worker.vitals import resident, vitals

if TYPE_CHECKING:
    from holdfast.observe.metrics import Shown

LOOK_EVERY = 5.0  # seconds: for systemd's status line


class Outlook:
    """Of one service."""

    def __init__(
        self,
        children: Collection[Child],
        standing: Standing,
        concurrency: int,
        clock: Clock,
        stopping: Callable[[], bool],
        endpoint: Server | None = None,
    ) -> None:
        self._children = children
        self._standing = standing
        self._concurrency = concurrency
        self._clock = clock
        self._stopping = stopping
        self._endpoint = endpoint
        self._notice = Notice()
        self.counts: Counts = standing.counts
        self.totals: Totals = standing.totals
        self.deaths = 0

    async def begin(self) -> None:
        """Answers at the endpoint from now on: that nothing is ready yet, first."""
        if self._endpoint is not None:
            await self._endpoint.start(Watched(self.seen, self._looked, Pages(self._shown).asked))

    async def end(self) -> None:
        if self._endpoint is not None:
            await self._endpoint.close()

    def heard(self, child: Child, message: dict[str, Any]) -> None:
        """A child handed on what it counted."""
        news = News(**message)
        child.news = news.number
        self.totals.add(news)

    def seen(self) -> Seen:
        """How the service is now."""
        self._add_own()
        now = self._clock.monotonic()
        working = sorted((one for one in self._children if one.worker is not None), key=lambda one: one.number)
        return Seen(
            [vitals(one.box, one.number, self._concurrency, resident(one.pid), now) for one in working],
            answers=self._standing.answers() and not self._standing.away,
            away=self._standing.away,
            held=self._standing.held(),
            stopping=self._stopping(),
            deaths=self.deaths,
            memory=resident(),
        )

    async def _looked(self) -> Seen:
        return self.seen()  # its lease says how the store is

    def _add_own(self) -> None:
        news = self.counts.take()
        if news is not None:
            self.totals.add(news)

    async def _shown(self) -> Shown:
        from importlib.metadata import version

        from holdfast.observe.metrics import Shown  # an extra, which not all have

        recorder = self._standing.recorder
        stats = None if recorder is None or self._standing.away else await recorder.looks.asked()
        return Shown(self.totals, self.seen(), stats, version("holdfast"))

    # --- systemd

    def started(self) -> None:
        """The first child claims."""
        self._notice.ready("ready")

    def stops(self) -> None:
        """It was asked to stop."""
        self._notice.stopping()

    async def step(self) -> float:
        """Says that it goes on, and how it is."""
        self._add_own()
        pause = self._notice.goes_on()
        if self._notice.heard and not self._stopping():
            seen = self.seen()
            wrong = [f"{check.check}: {check.why}" for check in ready(seen) if check.why]
            state = "ready" if well(ready(seen)) else "not ready"
            self._notice.status(f"{state}; {'; '.join(wrong)}" if wrong else state)
        return min(pause, LOOK_EVERY)
