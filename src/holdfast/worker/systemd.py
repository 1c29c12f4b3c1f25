"""What systemd is told of a service (`Type=notify`, `WatchdogSec=`): that it is ready, that it goes on, that it stops.

The protocol is sd_notify(3): datagrams of `NAME=value` lines to the socket that NOTIFY_SOCKET names.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import suppress

WATCHES = 2  # how often it says within the time that the watchdog gives
QUIET = 60.0  # seconds between looks where nobody asks


class Notice:
    """To systemd; to nobody where it has not started this process."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")
        self._limit = _limit(environment)
        self._status = ""

    @property
    def heard(self) -> bool:
        """Whether somebody listens."""
        return bool(self._address)

    def ready(self, status: str) -> None:
        """The service works."""
        self._status = status
        self._say("READY=1", f"STATUS={status}")

    def stopping(self) -> None:
        """It ends."""
        self._say("STOPPING=1", "STATUS=stopping")

    def status(self, status: str) -> None:
        """How it is now, for `systemctl status`; said again only when it is another."""
        if status != self._status:
            self._status = status
            self._say(f"STATUS={status}")

    def goes_on(self) -> float:
        """Says so to the watchdog; returns the seconds until it should be said again."""
        if self._limit is None:
            return QUIET
        self._say("WATCHDOG=1")
        return self._limit / WATCHES

    def _say(self, *lines: str) -> None:
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with suppress(OSError, ValueError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as it:
            it.setblocking(False)
            it.sendto("\n".join(line.replace("\n", " ") for line in lines).encode(errors="replace"), address)


def _limit(environment: Mapping[str, str]) -> float | None:
    """The seconds that the watchdog gives this process; None: there is none."""
    whom, limit = environment.get("WATCHDOG_PID", ""), environment.get("WATCHDOG_USEC", "")
    if (whom and whom != str(os.getpid())) or not limit.isdigit() or int(limit) <= 0:
        return None
    return int(limit) / 1e6
