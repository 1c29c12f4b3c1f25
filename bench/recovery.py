"""How long an interrupted job waits for its next run: its worker killed, its supervisor killed, both killed."""

from __future__ import annotations

import os
import signal
import statistics
import time
from pathlib import Path
from typing import Any

from bench.measure import family, runs, say, until, worker

ROUNDS = 3
LAST = 1.0  # seconds that the job of a killed supervisor still has to run


def recovery(folder: Path) -> None:
    """Each round in a service of its own."""
    for name, promise, once in (
        ("worker killed: next run, in another, after", "[<= 1 s]", _one_of_two_killed),
        ("the only worker killed: next run after", "", _worker_killed),
        ("supervisor killed: its worker left after", "[drained, nothing re-run]", _supervisor_killed),
        ("both killed, started anew: next run after", "[<= 30 s; less where the store notices]", _both_killed),
    ):
        seconds = [once(_fresh(folder, f"{once.__name__}-{number}")) for number in range(ROUNDS)]
        say(name, f"{statistics.median(seconds):.2f} s", f"most {max(seconds):.2f} s of {ROUNDS}   {promise}")


class Scene:
    """A store, and what its one interrupted job wrote."""

    def __init__(self, folder: Path) -> None:
        from holdfast import Holdfast

        self.folder = folder
        self.url = f"sqlite:///{folder}/jobs.db"
        self.starts = folder / "starts"
        self.starts.touch()
        self.client = Holdfast(self.url)
        self.stay = self.client.task(name="bench.app.stay")(_stay)

    def runs(self) -> list[int]:
        """When each run began, in nanoseconds."""
        return [int(line.split()[1]) for line in self.starts.read_text().splitlines()]

    def pid(self) -> int:
        """The process of the last run."""
        return int(self.starts.read_text().split()[-1])

    def service(self, *options: str) -> Any:
        return worker(self.url, self.folder, *options, BENCH_STARTS=str(self.starts))

    def begun(self, process: Any, seconds: float) -> tuple[list[int], Any]:
        """Has the job begun; the supervisor's pid and its worker's, and the job."""
        until(lambda: "ready in" in (self.folder / "worker.log").read_text(), "the supervisor")
        job = self.stay.enqueue(seconds)
        until(lambda: len(self.runs()) == 1, "the first run")
        return family(process.pid), job

    def next_run(self, since: int) -> float:
        until(lambda: len(self.runs()) == 2, "the next run", every=0.002)
        return (self.runs()[1] - since) / 1e9


async def _stay(seconds: float) -> None: ...


def _fresh(folder: Path, name: str) -> Scene:
    (folder / name).mkdir()
    return Scene(folder / name)


def _one_of_two_killed(scene: Scene) -> float:
    with scene.client, scene.service("--processes", "2") as process:
        until(lambda: len(family(process.pid)) == 3, "two workers")
        scene.begun(process, 60)
        killed = time.time_ns()
        os.kill(scene.pid(), signal.SIGKILL)
        return scene.next_run(killed)


def _worker_killed(scene: Scene) -> float:
    with scene.client, scene.service() as process:
        (_, child), _ = scene.begun(process, 60)
        killed = time.time_ns()
        os.kill(child, signal.SIGKILL)
        return scene.next_run(killed)


def _supervisor_killed(scene: Scene) -> float:
    with scene.client, scene.service() as process:
        (supervisor, child), job = scene.begun(process, LAST)
        start = time.monotonic()
        os.kill(supervisor, signal.SIGKILL)
        until(lambda: not runs(child), "the worker's leave")
        left = time.monotonic() - start
        assert job.status().state == "succeeded", job.status()  # noqa: S101  # what is promised
        assert len(scene.runs()) == 1, "it was run again"  # noqa: S101
        return left


def _both_killed(scene: Scene) -> float:
    with scene.client:
        with scene.service() as process:
            pids, _ = scene.begun(process, 60)
            killed = time.time_ns()
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
            process.wait(30)
        with scene.service():
            return scene.next_run(killed)
