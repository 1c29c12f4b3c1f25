"""Hearing: whether a listener hears of others' jobs, what is told of that, and when it tries again."""

from __future__ import annotations

import logging

from holdfast.observe.logging import stores, tell
from holdfast.stores.waiters import Waiters

BACKOFF_FIRST, BACKOFF_MOST = 0.1, 5.0  # seconds between tries to connect
DEAF = 300.0  # seconds between tries where nothing comes back

POLLING = "idle workers look for jobs instead, soon after they had some and at least every second"
_AGAIN = "notifications arrive again"
_NOT_LISTENING = f"the connection that listens for notifications failed twice; {POLLING}"


class Hearing:
    """Of one listener. `now`: whether it hears."""

    def __init__(self, waiters: Waiters, url: str) -> None:
        self._waiters = waiters
        self._url = url
        self._failed = 0
        self._alone = 0  # times in a row that it failed while calls were answered
        self._told = False  # that it does not listen
        self.now = False

    def begins(self) -> None:
        """From now on it hears, and what was rung for before is looked for."""
        self.now = True
        if self._told or self._waiters.deaf:
            self._tell(logging.WARNING, "listening", _AGAIN)
        self._failed, self._alone, self._told = 0, 0, False
        self._waiters.deaf, self._waiters.unheard = False, ""
        self._waiters.look()

    def deaf(self, text: str) -> float:
        """It cannot hear, and that will not change soon: says `text`; returns the seconds until the next try."""
        self._waiters.unheard = text
        if not self._waiters.deaf:
            self._waiters.deaf = True
            self._tell(logging.WARNING, "deaf", text)
        return DEAF

    def cut_off(self, error: str, *, alone: bool) -> float:
        """Its connection was lost, or not made; returns the seconds until the next try. `alone`: others work.

        One lost connection is not worth a line: the next is there at once, as a rule. Nor is an outage of the whole
        server, of which those tell who ask it for something.
        """
        self._failed += 1
        self._alone = self._alone + 1 if alone else 0
        if self._alone >= 2:
            self._waiters.unheard = f"{_NOT_LISTENING}: {error}"
        if self._alone == 2 and not self._told:
            self._told = True
            self._tell(logging.WARNING, "not-listening", _NOT_LISTENING, error)
        pause: float = min(BACKOFF_FIRST * 2 ** min(self._failed, 16), BACKOFF_MOST)
        return pause

    def _tell(self, level: int, event: str, text: str, error: str | None = None) -> None:
        tell(stores, level, event, store=self._url, error=error, message=text)
