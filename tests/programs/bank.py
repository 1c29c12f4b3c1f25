"""The bank that settle.py settles with, as its test has it: files beside the ledger say what it does."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from holdfast import current_job

PAGES = ("cover", "items", "taxes", "terms", "signature")
PATIENCE = 60  # seconds, that something is held at most: the test must have failed by then


def _beside_the_ledger(name: str) -> Path:
    return Path(os.environ["LEDGER"]).with_name(name)


def _note(event: str, **facts: Any) -> None:
    """A line in the ledger: one write, so that lines of several processes never mix."""
    job = current_job()
    line = {"event": event, "job": str(job.id), "fence": job.fence, "attempt": job.attempt, "pid": os.getpid(), **facts}
    ledger = os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(ledger, json.dumps(line).encode() + b"\n")
    finally:
        os.close(ledger)


def bank_open() -> bool:
    return _beside_the_ledger("bank is open").exists()


def charge(order: int, *, key: str, timeout: float | None) -> str:
    """Charges once per key, however often it is asked; the first answer is lost on the way."""
    _note("charge", key=key, timeout=timeout)
    paid = _beside_the_ledger(f"paid {key}")
    if not paid.exists():
        paid.write_text(f"receipt {order}")
        raise ConnectionError("the bank did not answer")
    return paid.read_text()


class Slow(list[str]):
    """Pages that come one by one, the fourth of them when the file `go` is there."""

    def __getitem__(self, which: Any) -> Any:
        return self._one_by_one(super().__getitem__(which)) if isinstance(which, slice) else super().__getitem__(which)

    def _one_by_one(self, pages: list[str]) -> Iterator[str]:
        for page in pages:
            _note("page", page=page)
            if page == PAGES[3]:
                self._wait()
            yield page

    def _wait(self) -> None:
        end = time.monotonic() + PATIENCE
        while not _beside_the_ledger("go").exists() and time.monotonic() < end:
            current_job().check()
            time.sleep(0.01)


def pages(order: int) -> list[str]:
    return Slow(PAGES)
