"""Code that does not let go: it is named, its lease is kept, others go on; past its timeout its process is ended."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from holdfast import Holdfast
from tests.flows.conftest import Ledger, Service, until
from tests.flows.robber import Robber
from tests.flows.shop import (
    blocks_the_loop,
    blocks_the_loop_when,
    deaf,
    held,
    held_in_thread,
    holds_it_on_the_loop,
    holds_it_throughout,
    holds_it_throughout_on_the_loop,
    holds_the_interpreter,
    pids,
    spins,
    swallows_its_cancel,
    work,
)

pytestmark = [pytest.mark.timeout(150)]


def told(service: Service, event: str, **fields: object) -> bool:
    """Whether a line of the log tells of `event` with these fields."""
    wanted = [f"event={event}", *(f"{name}={value}" for name, value in fields.items())]
    return any(all(f" {field} " in f" {line} " for field in wanted) for line in service.text().splitlines())


def both_run(app: Holdfast, ledger: Ledger, service: Service) -> None:
    """Waits until both processes of the service take jobs."""
    until(lambda: len(service.children()) == 2, "two processes")
    seen: set[int] = set()
    while len(seen) < 2:
        seen |= {job.result(timeout=40) for job in app.enqueue_many(pids.bind() for _ in range(8))}


@pytest.mark.parametrize(
    "handler", [blocks_the_loop, pytest.param(spins, marks=pytest.mark.soak)], ids=["async", "thread"]
)
def test_a_handler_that_spins_in_python_keeps_its_lease_and_holds_up_nobody_elsewhere(
    handler: Any, robber: Robber, app: Holdfast, ledger: Ledger, serve: Callable[..., Service], tmp_path: Path
) -> None:
    service = serve("--processes", "2", "--concurrency", "2")
    both_run(app, ledger, service)
    job = handler.enqueue("enough")
    until(lambda: ledger.count("begin", job.id), "its start")
    if handler is blocks_the_loop:
        until(lambda: told(service, "loop-blocked", job=job.id, task=handler.name), "the report, by name")
        assert "test_stuck" not in service.text()
        assert "tests/flows/shop.py" in next(line for line in service.text().splitlines() if "loop-blocked" in line)
    others_go_on(app)
    robber.waits_for_a_lease()
    tmp_path.joinpath("enough").touch()
    assert not robber.robbed
    assert job.result(timeout=60) == "enough"
    assert ledger.count("begin", job.id) == 1
    assert service.stop() == 0


def others_go_on(app: Holdfast) -> None:
    others = app.enqueue_many(work.bind(n) for n in range(6))
    assert [other.result(timeout=60) for other in others] == list(range(6))


@pytest.mark.parametrize(
    "handler",
    [holds_it_throughout, pytest.param(holds_it_throughout_on_the_loop, marks=pytest.mark.soak)],
    ids=["thread", "async"],
)
def test_a_c_call_that_holds_the_interpreter_is_named_by_the_supervisor(
    handler: Any, robber: Robber, app: Holdfast, ledger: Ledger, serve: Callable[..., Service], tmp_path: Path
) -> None:
    service = serve("--processes", "2", "--concurrency", "2")
    both_run(app, ledger, service)
    job = handler.enqueue("enough")
    until(lambda: ledger.count("begin", job.id), "its start")
    others_go_on(app)
    until(lambda: told(service, "frozen", job=job.id, task=handler.name), "the report, by name")
    with tmp_path.joinpath("enough").open("r+b") as mapped:
        mapped.write(b"\1")
    assert not robber.robbed, "its lease was kept"
    assert job.result(timeout=60) == "enough"
    assert ledger.count("begin", job.id) == 1
    assert service.stop() == 0


@pytest.mark.parametrize(
    ("handler", "arguments"),
    [
        pytest.param(blocks_the_loop, ["never"], marks=pytest.mark.soak),
        (spins, ["never"]),
        pytest.param(holds_the_interpreter, [300.0, "never"], marks=pytest.mark.soak),
        (holds_it_on_the_loop, [300.0, "never"]),
        (deaf, [600.0]),
        (swallows_its_cancel, [600.0]),
    ],
    ids=["async", "thread", "thread-in-c", "async-in-c", "asleep", "cancel-swallowed"],
)
def test_past_its_timeout_it_is_ended_with_its_process_and_its_neighbours_are_not_charged(
    handler: Any, arguments: list[Any], app: Holdfast, ledger: Ledger, serve: Callable[..., Service]
) -> None:
    service = serve("--concurrency", "4", "--deadline", "3")
    neighbours = app.enqueue_many(work.bind(n, seconds=2.0) for n in range(3))
    until(lambda: ledger.count("begin") == 3, "the neighbours' start")
    job = handler.using(timeout=1).enqueue(*arguments)
    until(lambda: job.status().finished, "its end", 60)
    status = job.status()
    assert status.state == "dead"
    assert status.errors[-1].type == "TimeoutError"
    assert "its process was ended" in status.errors[-1].message
    assert status.attempt == 1
    (pid,) = {line["pid"] for line in ledger.lines("begin") if line["job"] == str(job.id)}
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert [neighbour.result(timeout=60) for neighbour in neighbours] == [0, 1, 2]
    for neighbour in neighbours:
        assert neighbour.status().attempt == 1
    assert service.stop() == 0


def test_what_stands_still_for_the_stall_limit_is_ended_and_only_the_culprit_is_charged(
    app: Holdfast, ledger: Ledger, serve: Callable[..., Service], tmp_path: Path
) -> None:
    service = serve("--concurrency", "4", "--stall-limit", "3")
    neighbours = [held_in_thread.enqueue("enough"), held.enqueue("enough")]
    until(lambda: ledger.count("begin") == 2, "the neighbours' start")
    ask = tmp_path / "ask"
    ask.touch()
    bad = blocks_the_loop_when.enqueue("ask")
    until(lambda: told(service, "stuck", job=bad.id, task=bad.status().task), "the report, by name")
    until(lambda: ledger.count("begin", bad.id) == 2, "its next run, alone")
    until(lambda: all(ledger.count("begin", one.id) == 2 for one in neighbours), "the neighbours' next runs")
    tmp_path.joinpath("enough").touch()
    assert [neighbour.result(timeout=60) for neighbour in neighbours] == ["enough", "enough"]
    assert [neighbour.status().attempt for neighbour in neighbours] == [1, 1]
    (error,) = bad.status().errors
    assert "stood still" in error.message
    assert "_spin_until" in error.traceback
    for neighbour in neighbours:
        assert not neighbour.status().errors, "a neighbour is not charged"
    ask.touch()
    until(lambda: not ask.exists(), "its standing still again")
    bad.cancel()
    until(lambda: bad.status().state == "cancelled", "its end")
    assert service.stop() == 0


def test_a_stopped_child_is_ended_after_the_stall_limit_and_its_jobs_run_again(
    app: Holdfast, ledger: Ledger, serve: Callable[..., Service]
) -> None:
    service = serve("--stall-limit", "3")
    job = work.enqueue(1, seconds=1.0)
    (begun,) = until(lambda: ledger.lines("begin"), "its start")
    os.kill(begun["pid"], signal.SIGSTOP)
    assert job.result(timeout=60) == 1
    assert told(service, "stuck", pid=begun["pid"])
    assert ledger.count("effect", job.id) == 1, "the stopped one never went on"
    assert service.stop() == 0


@pytest.mark.parametrize(
    ("handler", "arguments"),
    [
        pytest.param(blocks_the_loop, [], marks=pytest.mark.soak),
        pytest.param(spins, [], marks=pytest.mark.soak),
        (holds_the_interpreter, [3.5]),
        pytest.param(holds_it_on_the_loop, [3.5], marks=pytest.mark.soak),
    ],
    ids=["async", "thread", "thread-in-c", "async-in-c"],
)
def test_for_three_leases_the_lease_is_kept(
    handler: Any,
    arguments: list[float],
    robber: Robber,
    app: Holdfast,
    ledger: Ledger,
    serve: Callable[..., Service],
    tmp_path: Path,
) -> None:
    service = serve("--processes", "2", "--concurrency", "2")
    both_run(app, ledger, service)
    other = serve()  # whose sweepers would rescue it, too
    job = handler.enqueue(*arguments, "enough")
    until(lambda: ledger.count("begin", job.id), "its start")
    for _ in range(3):
        robber.waits_for_a_lease()
        assert not robber.robbed
        others_go_on(app)
    tmp_path.joinpath("enough").touch()
    assert job.result(timeout=60) == "enough"
    assert ledger.count("begin", job.id) == 1
    assert service.stop() == 0
    assert other.stop() == 0
