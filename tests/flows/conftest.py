"""One `place` per shared store; `Service` runs `holdfast worker` on it; `Ledger` reads what the handlers wrote."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast import Holdfast

SHARED: dict[str, Callable[[Path], str]] = {"sqlite": lambda folder: f"sqlite:///{folder}/jobs.db"}


def until(condition: Callable[[], Any], what: str, seconds: float = 40) -> Any:
    """Waits until `condition()` gives something true, and returns it."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"{what}: not within {seconds} s"
        time.sleep(0.01)
    return found


class Ledger:
    """What the handlers wrote, line by line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()

    def lines(self, event: str | None = None) -> list[dict[str, Any]]:
        text = self.path.read_text()
        whole = text[: text.rfind("\n") + 1]
        found = [json.loads(line) for line in whole.splitlines()]
        return [line for line in found if event in (None, line["event"])]

    def count(self, event: str, job: object = None) -> int:
        return sum(job is None or line["job"] == str(job) for line in self.lines(event))


class Service:
    """A `holdfast worker` as an operator would start it."""

    def __init__(
        self, url: str, ledger: Ledger, *options: str, app: str = "tests.flows.shop:jobs", **streams: Any
    ) -> None:
        environment = {**os.environ, "HOLDFAST_URL": url, "LEDGER": str(ledger.path)}
        self.log = ledger.path.parent / f"worker-{time.monotonic_ns()}.log"
        command = [sys.executable, "-m", "holdfast", "worker", app, "--log", "kv", *options]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, **{"stderr": log, **streams}, env=environment)

    def children(self) -> list[int]:
        """The worker processes that are alive now."""
        pid = self.process.pid
        path = Path(f"/proc/{pid}/task/{pid}/children")
        return [int(child) for child in path.read_text().split()] if path.exists() else []

    def text(self) -> str:
        return self.log.read_text()

    def stop(self, number: signal.Signals = signal.SIGTERM, seconds: float = 40) -> int:
        """Signals the supervisor and waits for its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            pytest.fail(f"the worker did not leave {seconds} s after {number.name}:\n{self.text()[-3000:]}")


@pytest.fixture(params=sorted(SHARED))
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return SHARED[request.param](tmp_path)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger")


@pytest.fixture
def serve(url: str, ledger: Ledger) -> Iterator[Callable[..., Service]]:
    """Starts services; whatever still runs at the end is killed, whole."""
    started: list[Service] = []

    def start(*options: str, **how: Any) -> Service:
        started.append(Service(url, ledger, *options, **how))
        return started[-1]

    yield start
    for service in started:
        for pid in [*service.children(), service.process.pid]:
            if service.process.poll() is None or pid != service.process.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        service.process.wait(10)


@pytest.fixture
def app(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Holdfast]:
    """The producers' side, in the test's own process."""
    from tests.flows import shop

    monkeypatch.setenv("HOLDFAST_URL", url)
    with shop.jobs:
        yield shop.jobs
