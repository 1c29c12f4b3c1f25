"""An outage of the store, as all roles of a process see it together: told once, and once more when it is over.

It is over when every role that met it has had an answer, and none has met it again for a while. That while grows with
outages that come soon after one another: a wire that loses single replies does not fill the log.
"""

from __future__ import annotations

import logging
import threading
import time

from holdfast.errors import StoreAway
from holdfast.observe.logging import tell, workers

CALM_FIRST, CALM_MOST = 1.0, 60.0  # seconds without trouble before it is over


class Outage:
    """Of one worker, or of a supervisor. For any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._troubled: set[object] = set()  # who has no answer yet
        self._roles: dict[str, None] = {}  # who met it, in this order
        self._told: set[bool] = set()  # by whether the store is full: that is another matter than one that is gone
        self._tries = 0
        self.why = ""  # what was met last
        self._began_at = self._eased_at = 0.0  # monotonic seconds
        self._over_at = float("-inf")  # the last one before
        self._calm = CALM_FIRST

    @property
    def goes_on(self) -> bool:
        """Whether somebody has no answer."""
        return bool(self._troubled)

    def met(self, who: object, role: str, error: StoreAway) -> None:
        """`who`, as `role`, has had no answer."""
        with self._lock:
            if not self._told:
                self._begin()
            news = error.full not in self._told
            self._told.add(error.full)
            self.why = str(error)
            self._troubled.add(who)
            self._roles[role] = None
            self._tries += 1
        if news:
            tell(workers, logging.WARNING, "store-away", role=role, error=str(error))

    def _begin(self) -> None:
        self._began_at = time.monotonic()
        soon = self._began_at - self._over_at < CALM_MOST
        self._calm = min(self._calm * 2, CALM_MOST) if soon else CALM_FIRST

    def left(self, who: object) -> None:
        """`who` has had an answer, or asks no more."""
        with self._lock:
            if who in self._troubled:
                self._troubled.discard(who)
                self._eased_at = time.monotonic()

    def look(self, *, last: bool = False) -> None:
        """Tells of its end when that has come. To be called now and then; `last`: nobody asks any more."""
        if not self._told:
            return
        with self._lock:
            now = time.monotonic()
            if not self._told or self._troubled or (now - self._eased_at < self._calm and not last):
                return
            roles, tries, away = ", ".join(self._roles), self._tries, self._eased_at - self._began_at
            self._roles, self._told, self._tries, self._over_at = {}, set(), 0, now
        tell(workers, logging.WARNING, "store-back", roles=roles, tries=tries, away=away)
