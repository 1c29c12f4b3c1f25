"""Handlers that misbehave: each ends as its user would expect, and neither a neighbour nor the service is harmed."""

from __future__ import annotations

import array
import fcntl
import signal
import subprocess
import termios
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest

from holdfast import Holdfast
from holdfast.job import MESSAGE_LIMIT, TRACEBACK_LIMIT
from holdfast.observe.told import LINE_LIMIT
from holdfast.policy import failure
from tests.flows import hostile
from tests.flows.conftest import Service, until
from tests.flows.hostile import EXECUTORS, KILLERS, ROGUES, Rogue, neighbour, neighbour_in_thread, whereabouts

APP = "tests.flows.hostile:jobs"
RAISING = [name for name, rogue in ROGUES.items() if name.startswith("raises_a_") or rogue.error == "RecursionError"]
ROOM = 200  # characters for what says that something was cut


@pytest.fixture
def app(using: Callable[[Holdfast], Holdfast]) -> Holdfast:
    return using(hostile.jobs)


@pytest.fixture
def service(app: Holdfast, serve: Callable[..., Service]) -> Service:
    return serve("--deadline", "0.5", app=APP)


def _complaints(rogue: Rogue, executor: str) -> list[str]:
    """Runs it between two neighbours, and says what was not as it should be."""
    job = rogue.tasks[executor].enqueue()
    neighbours = [neighbour.enqueue(), neighbour_in_thread.enqueue()]
    until(lambda: job.status().finished, f"the end of {job!r}")
    status = job.status()
    wrong = [f"{one!r} suffered" for one in neighbours if one.result(timeout=40) != "unharmed"]
    if not rogue.error:
        return wrong if job.result(timeout=40) == rogue.result else [*wrong, f"{status}"]
    error = status.errors[-1]
    if status.state != "dead" or error.type != rogue.error or rogue.says not in error.message:
        wrong.append(f"{status.state}: {error.type}: {error.message[:300]}")
    if len(error.message) > MESSAGE_LIMIT + ROOM or len(error.traceback) > TRACEBACK_LIMIT + ROOM:
        wrong.append(f"{len(error.message)} and {len(error.traceback)} characters were kept")
    return wrong


@pytest.mark.timeout(240)
@pytest.mark.parametrize("executor", EXECUTORS)
def test_whatever_a_handler_does_its_attempt_ends_and_its_worker_goes_on(executor: str, service: Service) -> None:
    rogues = {name: rogue for name, rogue in ROGUES.items() if executor in rogue.tasks}
    pid = whereabouts.enqueue().result(timeout=40)
    for name, rogue in rogues.items():
        assert _complaints(rogue, executor) == [], name
        assert whereabouts.enqueue().result(timeout=40) == pid, f"{name} ended the worker's process"
    assert len(rogues) > 25
    assert service.stop() == 0, service.text()[-3000:]
    assert max(map(len, service.text().splitlines())) < LINE_LIMIT + ROOM
    assert "event=step-failed" not in service.text()


@pytest.mark.parametrize("name", RAISING)
def test_what_is_kept_of_an_error_shows_where_it_came_from(name: str) -> None:
    with pytest.raises(BaseException) as caught:  # noqa: PT011  # whatever it is
        ROGUES[name].tasks["thread"]()  # type: ignore[operator]
    kept = failure(caught.value)
    assert kept.type == ROGUES[name].error
    assert kept.type in kept.traceback
    assert f"in {name}" in kept.traceback or "RecursionError" in kept.traceback


@pytest.mark.timeout(240)
@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_handler_that_ends_its_process_is_dead_with_the_evidence_and_no_neighbour_is(
    executor: str, app: Holdfast, serve: Callable[..., Service]
) -> None:
    service = serve("--deadline", "0.5", "--processes", "1" if executor == "process" else "4", app=APP)
    pid = whereabouts.enqueue().result(timeout=40)
    killers = {name: rogue for name, rogue in KILLERS.items() if executor in rogue.tasks}
    for name, rogue in killers.items():
        assert _complaints(rogue, executor) == [], name
    assert len(killers) > 3
    if executor == "process":
        assert whereabouts.enqueue().result(timeout=40) == pid, "more than the slot's own process ended"
    else:
        assert service.text().count("event=restart") >= len(killers) - 1
    assert service.stop() == 0, service.text()[-3000:]


@pytest.mark.timeout(120)
def test_a_service_whose_starter_ignores_the_death_of_children_knows_how_its_own_ended(
    app: Holdfast, serve: Callable[..., Service]
) -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        service = serve("--deadline", "0.5", app=APP)
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert _complaints(KILLERS["ends_the_process"], "thread") == []
    assert "exit code 7" in service.text()
    assert service.stop() == 0


# --- forks


@pytest.mark.timeout(120)
@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_forked_copy_of_a_worker_does_none_of_its_work(executor: str, service: Service) -> None:
    rogue = ROGUES["forks_and_the_child_raises"]
    for _ in range(3):
        assert rogue.tasks[executor].enqueue().result(timeout=40) == "parent"
    until(lambda: service.text().count("came back from the handler") == 3, "the end of the copies")
    assert service.stop() == 0
    assert service.text().count("event=succeeded") == 3
    assert "event=dead" not in service.text(), "a copy told of an end that the worker's own run did not have"
    assert "event=step-failed" not in service.text(), "a copy went on as the worker"


# --- what handlers print

PRINTING = [hostile.prints_on_the_loop, hostile.prints_in_a_thread]


def _prints(megabytes: int, serve: Callable[..., Service], output: Path) -> None:
    with output.open("wb") as file:
        service = serve("--deadline", "0.5", app=APP, stdout=file, stderr=file)
        jobs = [task.enqueue(megabytes // 2) for task in PRINTING]
        near = [neighbour.enqueue(), neighbour_in_thread.enqueue()]
        assert [job.result(timeout=600) for job in (*jobs, *near)] == [megabytes // 2] * 2 + ["unharmed"] * 2
        assert service.stop() == 0
    assert output.stat().st_size > megabytes * 1_000_000


@pytest.mark.timeout(120)
def test_fifty_megabytes_of_output_harm_nobody(app: Holdfast, serve: Callable[..., Service], tmp_path: Path) -> None:
    _prints(50, serve, tmp_path / "output")


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_a_gigabyte_of_output_harms_nobody(app: Holdfast, serve: Callable[..., Service], tmp_path: Path) -> None:
    _prints(1000, serve, tmp_path / "output")


def _full(pipe: IO[bytes]) -> bool:
    waiting = array.array("i", [0])
    fcntl.ioctl(pipe, termios.FIONREAD, waiting)
    return waiting[0] > 60_000


@pytest.mark.timeout(120)
@pytest.mark.parametrize("task", PRINTING, ids=["loop", "thread"])
def test_output_that_is_read_late_delays_and_loses_nothing(
    task: hostile.Task[[int], int], app: Holdfast, serve: Callable[..., Service]
) -> None:
    service = serve("--deadline", "0.5", app=APP, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    pipe = service.process.stdout
    assert pipe is not None
    job = task.enqueue(5)
    until(lambda: _full(pipe), "a pipe that nobody reads, full")
    near = [neighbour.enqueue(), neighbour_in_thread.enqueue()]
    assert job.status().state == "running"
    read: list[int] = []
    reader = threading.Thread(target=lambda: read.extend(map(len, pipe)), daemon=True)
    reader.start()
    assert [one.result(timeout=40) for one in (job, *near)] == [5, "unharmed", "unharmed"]
    assert job.status().attempt == 1
    assert service.stop() == 0
    reader.join(20)
    pipe.close()
    assert sum(read) > 5_000_000


@pytest.mark.soak
@pytest.mark.timeout(120)
@pytest.mark.parametrize("task", PRINTING, ids=["loop", "thread"])
def test_output_that_nobody_ever_reads_does_not_keep_the_service_from_leaving(
    task: hostile.Task[[int], int], app: Holdfast, serve: Callable[..., Service]
) -> None:
    service = serve("--deadline", "0.5", app=APP, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    pipe = service.process.stdout
    assert pipe is not None
    job = task.enqueue(5)
    until(lambda: _full(pipe), "a pipe that nobody reads, full")
    with pipe:
        assert service.stop() == 1
    status = job.status()
    assert (status.state, status.attempt) == ("queued", 0), "given back, and not charged"
