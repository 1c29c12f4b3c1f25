"""What goes wrong at the shop at the push of a button: its mail provider, and its workers."""

import os
import signal
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import httpx

from examples.invoices.processes import children
from examples.invoices.settings import MAIL_API, WORKER

Mood = Literal["well", "busy", "silent"]
FAULTS: dict[Mood, dict[str, bool]] = {"well": {}, "busy": {"busy": True}, "silent": {"hold": True}}


@dataclass(frozen=True)
class Provider:
    """What the mail provider says of itself."""

    accepted: int
    mood: Mood


def ask_provider() -> Provider | None:
    """None if it does not answer."""
    try:
        told = httpx.get(f"{MAIL_API}/mailbox", timeout=2).raise_for_status().json()
    except httpx.HTTPError:
        return None
    return Provider(told["accepted"], "busy" if told["busy"] else "silent" if told["hold"] else "well")


def make_provider(mood: Mood) -> bool:
    """Whether the provider has heard it."""
    try:
        httpx.put(f"{MAIL_API}/faults", json=FAULTS[mood], timeout=2).raise_for_status()
    except httpx.HTTPError:
        return False
    return True


def workers_can_be_killed() -> bool:
    """Whether somebody has said which service works for this shop."""
    return WORKER.exists()


def kill_a_worker() -> int | None:
    """`kill -9` for one worker process of the service; its process id, None if there is none."""
    with suppress(OSError, ValueError):
        for victim in children(int(WORKER.read_text())):
            os.kill(victim, signal.SIGKILL)
            return victim
    return None
