"""Schedules while processes die: one job for each tick, on every store that processes share."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable

import pytest

from holdfast import Holdfast
from tests.flows import clockwork
from tests.flows.conftest import Ledger, Service, until

PROCESSES = 5


@pytest.mark.parametrize(
    ("seconds", "every"), [(15, 2.5), pytest.param(60, 1.0, marks=[pytest.mark.soak, pytest.mark.timeout(300)])]
)
@pytest.mark.timeout(180)
def test_a_tick_each_second_while_processes_are_killed(
    using: Callable[[Holdfast], Holdfast],
    ledger: Ledger,
    serve: Callable[..., Service],
    seconds: float,
    every: float,
) -> None:
    app, chance = using(clockwork.jobs), random.Random(7)
    service = serve("--processes", str(PROCESSES), "--concurrency", "2", app="tests.flows.clockwork:jobs")
    until(lambda: ledger.lines("tick"), "the first tick", 60)
    killed, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(every)  # not to wait for anything: it is how often somebody dies
        if children := service.children():
            os.kill(chance.choice(children), signal.SIGKILL)
            killed += 1
    assert killed >= seconds / every / 2, "hardly anybody was there to be killed"
    count = len(ledger.lines("tick"))
    until(lambda: len(ledger.lines("tick")) > count, "a tick after the last death", 60)
    app.pause_schedule("clockwork")
    (status,) = app.schedules()
    until(lambda: {job.state for job in app.find(task="clockwork.tick")} == {"succeeded"}, "the last jobs", 60)
    assert service.stop() == 0, service.text()[-3000:]

    ran: dict[float, set[str]] = {}
    for line in ledger.lines("tick"):
        ran.setdefault(line["tick"], set()).add(line["job"])
    ticks = sorted(ran)
    assert ticks == [ticks[0] + n for n in range(len(ticks))], "a tick without a job"
    assert {len(ids) for ids in ran.values()} == {1}, "two jobs for one tick"
    assert {job for ids in ran.values() for job in ids} == {str(job.id) for job in app.find()}
    assert (status.ticks_made, status.ticks_skipped, status.ticks_missed) == (len(ticks), 0, 0)
    assert len(ticks) >= seconds - 1
