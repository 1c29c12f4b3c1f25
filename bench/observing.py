"""What it costs to be watched: INFO lines, and metrics that are scraped each second, beside neither."""

from __future__ import annotations

import socket
import statistics
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bench.measure import drained, say
from bench.places import Places

JOBS, ROUNDS = 10_000, 5
INFO = ("--log-level", "info")


def observing(places: Places, folder: Path) -> None:
    """In turn, round by round, since what else the machine does changes; ratios are of jobs per second and of CPU."""
    kinds = {"bare": False, "INFO logs": False, "metrics": True, "INFO logs and metrics": True}
    rates: dict[str, list[float]] = {kind: [] for kind in kinds}
    costs: dict[str, list[float]] = {kind: [] for kind in kinds}
    for number in range(ROUNDS):
        for kind, scrapes in kinds.items():
            logs = INFO if kind.startswith("INFO") else ()
            used: list[float] = []
            place = places.fresh(folder, f"{kind.replace(' ', '-').lower()}-{number}")
            with scraped() if scrapes else nothing() as options:
                rates[kind].append(drained(place, folder, JOBS, used, options=(*logs, *options)))
            costs[kind].append(sum(used))
    say("drain, nobody watches", f"{statistics.median(rates['bare']):,.0f} jobs/s")
    for kind in list(kinds)[1:]:
        speed = statistics.median(a / b for a, b in zip(rates[kind], rates["bare"], strict=True))
        cost = statistics.median(a / b for a, b in zip(costs[kind], costs["bare"], strict=True))
        say(f"  with {kind}, speed (CPU)", f"{speed:.0%} ({cost:.0%})", "[>= 85 %]" if " and " in kind else "[>= 90 %]")


@contextmanager
def nothing() -> Iterator[tuple[str, ...]]:
    """Nobody looks."""
    yield ()


@contextmanager
def scraped() -> Iterator[tuple[str, ...]]:
    """The options of a worker whose metrics are looked at each second."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = "{}:{}".format(*free.getsockname())
    over = threading.Event()

    def scrape() -> None:
        while not over.wait(1):
            with suppress(OSError):
                urllib.request.urlopen(f"http://{address}/metrics", timeout=5).read()

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield ("--metrics", address)
    finally:
        over.set()
        thread.join()
