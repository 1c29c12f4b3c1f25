"""Schedules while processes die: one job for each tick, on every store that processes share."""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from holdfast import Holdfast, ScheduleStatus, StoreError
from holdfast.app import parts_of
from holdfast.client.declaring import without_an_id
from holdfast.schedule.entry import Definition, Text
from holdfast.schedule.rule import rule_of
from holdfast.store import Entry
from holdfast.worker.ticker import Ticker
from tests.flows import clockwork
from tests.flows.conftest import Ledger, Service, until

PROCESSES = 5


@pytest.mark.parametrize(
    ("seconds", "every"), [(15, 2.5), pytest.param(60, 3.0, marks=[pytest.mark.soak, pytest.mark.timeout(300)])]
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
    banner = re.compile(r"^  cron     1: clockwork (next 2|due now$)", re.MULTILINE)  # a tick may be due
    until(lambda: banner.search(service.text()), "the banner that names it", 60)
    asyncio.run(declared_by_a_newer_version(app))
    killed, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(every)  # not to wait for anything: it is how often somebody dies
        if children := service.children():
            os.kill(chance.choice(children), signal.SIGKILL)
            killed += 1
    assert killed >= seconds / every / 2, "hardly anybody was there to be killed"
    last = datetime.now(UTC)
    until(lambda: (one(app, "clockwork").next_at or last) > last, "the ticks up to the last death", 90)
    app.pause_schedule("clockwork")
    assert [status.name for status in app.schedules()] == ["clockwork", "newer"], "code of long ago took it away"
    status = one(app, "clockwork")
    until(lambda: {job.state for job in app.find(task="clockwork.tick")} == {"succeeded"}, "the last jobs", 90)
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


async def declared_by_a_newer_version(app: Holdfast) -> None:
    """Of the same module, as its worker leaves it in the store while those of the version before still drain."""
    store = parts_of(app).link.store.twin()
    await store.open()
    job = without_an_id(parts_of(app).registry.names["clockwork.tick"].bind().draft)
    text = Text(declared=Definition(rule_of(cron="@yearly"), job, clockwork.__name__)).written()
    assert await store.schedule([Entry("newer", job.queue, text, 4_000_000_000_000)]) == [True]
    await store.close()


def report(region: str = "eu") -> None: ...


def one(app: Holdfast, name: str) -> ScheduleStatus:
    (found,) = [status for status in app.schedules() if status.name == name]
    return found


async def reconciled(app: Holdfast, *, until: Callable[[], bool] | None = None) -> None:
    """What a worker does at its start; then it ticks `until` that holds."""
    store = parts_of(app).link.store.twin()
    await store.open()
    try:
        await parts_of(app).staffing.reconcile(store)
        ticker = Ticker(store)
        async with asyncio.timeout(60):
            while until is not None and not await asyncio.to_thread(until):  # noqa: ASYNC110  # what it waits for tells nobody
                await asyncio.sleep(min(await ticker.step(), 0.1))
    finally:
        await store.close()


@pytest.mark.every_store
def test_what_code_and_operators_say_of_schedules(url: str) -> None:
    with Holdfast(url) as app:
        task = app.task(name="shop.report", queue="mail")(report)
        app.schedule("coded", task.bind(), every=1)
        asyncio.run(reconciled(app, until=lambda: one(app, "coded").ticks_made + one(app, "coded").ticks_skipped >= 2))
        status = one(app, "coded")
        assert (status.ticks_made, status.queue, status.owner) == (1, "mail", __name__), "its first job is not finished"
        assert [(tick.outcome, tick.job) for tick in status.ticks][:2] == [
            ("made", status.ticks[0].job),
            ("skipped", status.ticks[0].job),
        ]
        app.change_schedule("coded", job=task.using(queue="night").bind("us"), every="1h")
        changed = one(app, "coded")
        assert (changed.queue, changed.every, changed.edited, changed.declared) == ("night", 3600.0, True, True)
        assert changed.ticks == status.ticks, "they go along to the other queue"
        app.pause_schedule("coded", until="1d", reason="it rains")
        assert (one(app, "coded").paused, one(app, "coded").pause_reason) == (True, "it rains")
        assert app.trigger_schedule("coded").status().queue == "night"
        assert app.resume_schedule("coded")
        with pytest.raises(StoreError, match="declared by code"):
            app.delete_schedule("coded")
    with Holdfast(url) as later:
        again = later.task(name="shop.report", queue="mail")(report)
        later.add_schedule("mine", again.bind(), cron="0 3 * * *", tz="Europe/Amsterdam")
        asyncio.run(reconciled(later))
        assert (one(later, "coded").declared, one(later, "coded").edited) == (False, True)
        for name in ("coded", "mine"):
            later.delete_schedule(name)
        assert later.schedules() == []
