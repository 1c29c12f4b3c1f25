"""`holdfast schedules`: shown to people and pipes, and what an operator says of them."""

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest

from holdfast import Holdfast
from holdfast.app import parts_of
from holdfast.client.schedules import ScheduleStatus
from holdfast.errors import ConfigError
from holdfast.worker.ticker import tick_of
from tests.cli.shop import Run, Shop

CODE = """
from holdfast import Holdfast
jobs = Holdfast()

@jobs.task(name="shop.nightly", queue="night")
def nightly(region: str, days: int = 1) -> None: ...
"""


@pytest.fixture
def with_two(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Holdfast:
    """A store with two schedules, to which HOLDFAST_URL leads."""
    monkeypatch.setenv("HOLDFAST_URL", shop.url)
    shop.jobs.add_schedule("nightly", shop.resize.bind("a.png"), cron="30 2 * * *", tz="Europe/Amsterdam")
    shop.jobs.add_schedule("flush", shop.send.bind(1), every="1h")
    return shop.jobs


def one(jobs: Holdfast, name: str) -> ScheduleStatus:
    return next(status for status in jobs.schedules() if status.name == name)


def test_nothing_there_yet(run: Run, shop: Shop) -> None:
    assert "no schedule in sqlite:" in run("schedules", "--url", shop.url).stderr


def test_in_a_pipe(run: Run, with_two: Holdfast) -> None:
    flush, nightly = (line.split("\t") for line in run("schedules").stdout.splitlines())
    assert (flush[:3], flush[4:]) == (
        ["flush", "3600s", ""],
        ["on", "shop.send_invoice", "mail", "0", "0", "0"],
    )
    assert nightly[:3] == ["nightly", "30 2 * * *", "Europe/Amsterdam"]
    assert datetime.fromisoformat(nightly[3]) > datetime.now(UTC)
    assert run("schedules", "list").stdout == run("schedules").stdout
    assert run("schedules", "-q").stdout.split() == ["flush", "nightly"]


def test_as_json(run: Run, with_two: Holdfast) -> None:
    documents = [json.loads(line) for line in run("schedules", "--json").stdout.splitlines()]
    assert [one["name"] for one in documents] == ["flush", "nightly"]
    assert documents[1]["description"] == "At 02:30 every day, Europe/Amsterdam"
    assert (documents[0]["every"], documents[0]["ticks"], documents[0]["paused"]) == (3600.0, [], False)


def test_for_people(run: Run, with_two: Holdfast, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.cli.show.on_terminal", lambda: True)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "140")
    with_two.pause_schedule("flush", reason="the mail \x1b[31mserver")
    head, flush, nightly = run("schedules").stdout.splitlines()
    assert head.split() == ["SCHEDULE", "WHEN", "NEXT", "TICKS", "FROM"]
    assert "paused: the mail \\x1b[31mserver" in flush
    assert "At 02:30 every day, Europe/Amsterdam" in nightly
    assert " 02:30 CE" in nightly, "in its own zone"
    monkeypatch.setenv("COLUMNS", "60")
    assert all(len(line) <= 60 for line in run("schedules").stdout.splitlines())


def test_the_next_times_in_both_zones(run: Run, with_two: Holdfast) -> None:
    lines = run("schedules", "next", "nightly", "-n", "3").stdout.splitlines()
    assert lines[0] == "nightly  At 02:30 every day, Europe/Amsterdam  (task shop.resize, queue default)"
    assert len(lines) == 4
    assert all(line.endswith(" UTC") and " CE" in line for line in lines[1:])


def test_the_next_times_of_a_text_need_no_store(run: Run) -> None:
    out = run("schedules", "next", "--cron", "30 2 28-31 3 SUN", "--tz", "Europe/Amsterdam", "-n", "40").stdout
    assert out.splitlines()[0].startswith("At 02:30 on ")
    assert "does not exist on that day" in out
    assert len(run("schedules", "next", "--every", "5m").stdout.splitlines()) == 6


def test_what_became_of_ticks(run: Run, with_two: Holdfast, shop: Shop) -> None:
    ticks(shop, "flush")
    lines = run("schedules", "next", "flush", "-n", "1").stdout.splitlines()
    assert lines[2].startswith("  ✓ made  ")
    assert "job " in lines[2]


def ticks(shop: Shop, name: str) -> None:
    """The schedule's next tick, now."""

    async def tick() -> None:
        store = parts_of(shop.jobs).link.store.twin()
        await store.open()
        found = await store.schedules([name])
        made = tick_of(found.entries[0], found.entries[0].next_at or 0)
        assert made is not None
        assert None not in await store.tick([made])
        await store.close()

    asyncio.run(tick())


def test_added_from_the_shell(run: Run, shop: Shop, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.joinpath("nights.py").write_text(CODE)
    monkeypatch.setenv("HOLDFAST_URL", shop.url)
    add = ("schedules", "add", "--app", "nights:jobs", "us", "shop.nightly", '"us"')
    out = run(
        *add, "--cron", "0 3 * * *", "--tz", "America/New_York", "--kwargs", '{"days": 2}', "--priority", "3"
    ).stdout
    assert out.startswith("us  At 03:00 every day, America/New_York  (task shop.nightly, queue night)\n")
    assert (one(shop.jobs, "us").missed, one(shop.jobs, "us").edited) == ("once", True)
    again = run(*add, "--every", "5m", fails=True)
    assert (again.exit_code, "is there already" in again.stderr) == (5, True)
    job = run("schedules", "trigger", "us").stdout.strip()
    assert json.loads(run("job", job, "--json").stdout)["kwargs"] == {"days": 2}
    assert run("schedules", "trigger", "us").stdout.strip() == job, "the last one is unfinished"


@pytest.mark.parametrize(
    ("arguments", "code", "why"),
    [
        (("add", "--app", "nights:jobs", "n", "shop.nightly", '"us"'), 2, "give --cron"),
        (("add", "--app", "nights:jobs", "n", "shop.nightly", "--every", "5m"), 2, "region"),
        (("add", "--app", "nights:jobs", "n", "shop.nightli", "--every", "5m"), 2, "did you mean shop.nightly"),
        (("add", "--app", "nights:jobs", "a b", "shop.nightly", '"us"', "--every", "5m"), 2, "a b"),
        (
            ("add", "--app", "nights:jobs", "n", "shop.nightly", "--cron", "0 0 31 2 *"),
            2,
            "--cron '0 0 31 2 *': month 2",
        ),
        (("change", "nightly"), 2, "say what to change"),
        (("change", "nightly", "--tz", "Europe/Amsterdan"), 2, "did you mean Europe/Amsterdam"),
        (("change", "nightly", "--every", "50ms"), 2, "at least a second"),
        (("change", "nigthly", "--every", "5m"), 4, "did you mean nightly"),
        (("pause", "x"), 4, "there is no schedule 'x'"),
        (
            ("pause", "nightly", "--until", "2020-01-01T00:00:00Z"),
            2,
            "'2020-01-01T00:00:00Z': that is over; give a later time",
        ),
        (("pause", "nightly", "--until", "soon"), 2, "or an instant such as 2026-"),
        (("pause", "nightly", "--until", "2026-12-01"), 2, "write 2026-12-01T00:00Z for UTC"),
        (("pause", "nightly", "--until", "2026-12-01T03:00"), 2, "write 2026-12-01T03:00Z for UTC"),
        (("resume", "nightly"), 5, "is not paused"),
        (("reset", "nightly"), 5, "declared by no code"),
        (("next",), 2, "give the NAME"),
        (
            ("next", "--cron", "@daily", "--every", "5m"),
            2,
            "give --cron or --every, and not both: --cron '0 9 * * MON-FRI', or --every '5m'",
        ),
        (("next", "--every", "5m", "--tz", "Asia/Tokyo"), 2, "has no time zone; it is for --cron\n"),
        (("next", "--cron", "@daily", "--tz", ""), 2, "a name such as 'Europe/Amsterdam', or 'UTC'"),
        (("next", "--cron", "@daily", "--tz", "+02:00"), 2, "a name such as 'Europe/Amsterdam', or 'UTC'"),
        (("next", "--cron", "@daily", "--tz", "../../etc/passwd"), 2, "a name such as 'Europe/Amsterdam', or 'UTC'"),
        (("next", "x"), 4, "there is no schedule 'x'"),
        (("next", "nigthly"), 4, "did you mean nightly?"),
        (("next", "--cron", "* * *"), 2, "it has 3 fields"),
        (("trigger", "x"), 4, "there is no schedule 'x'"),
        (("--json", "next", "nightly"), 2, "are for the list"),
        (("--json", "-q"), 2, "exclude each other"),
    ],
)
def test_what_is_refused(
    run: Run, with_two: Holdfast, folder: Path, arguments: tuple[str, ...], code: int, why: str
) -> None:
    folder.joinpath("nights.py").write_text(CODE)
    result = run("schedules", *arguments, fails=True)
    assert (result.exit_code, why in result.stderr) == (code, True), result.stderr


def test_over_by_the_clock_of_the_store_alone(run: Run, with_two: Holdfast, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.cli.options.coming", lambda *_: None)

    def over(*_: object, **__: object) -> None:
        raise ConfigError("until=2026-01-01T00:00:00+00:00: that is over")

    monkeypatch.setattr(with_two.__class__, "pause_schedule", over)
    refused = run("schedules", "pause", "nightly", fails=True)
    assert (refused.exit_code, "--until 2026-01-01T00:00:00+00:00: that is over" in refused.stderr) == (2, True)


def test_a_task_that_no_live_worker_has(run: Run, with_two: Holdfast, monkeypatch: pytest.MonkeyPatch) -> None:
    async def begin() -> None:
        store = parts_of(with_two).link.store.twin()
        await store.open()
        await store.register(UUID(int=7), None, {"tasks": ["shop.resize"]})
        await store.close()

    asyncio.run(begin())
    assert [json.loads(line)["stranded"] for line in run("schedules", "--json").stdout.splitlines()] == [True, False]
    assert "no live worker has its task, shop.send_invoice" in run("schedules", "next", "flush").stdout
    assert "no live worker" not in run("schedules", "next", "nightly").stdout
    monkeypatch.setattr("holdfast.cli.show.on_terminal", lambda: True)
    assert "flush: no live worker has its task, shop.send_invoice" in run("schedules").stderr


def test_why_a_tick_made_no_job(run: Run, shop: Shop, with_two: Holdfast) -> None:
    for _ in range(2):
        ticks(shop, "flush")
    assert "duplicate: its last job is not finished" in run("schedules", "next", "flush").stdout


def test_utc_stands_beside_every_zone_but_itself(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    lines = run("schedules", "next", "--cron", "0 2 * * *", "--tz", "Europe/Lisbon", "-n", "365").stdout.splitlines()
    assert all(line.endswith(" UTC") for line in lines[1:])
    assert {line.split()[3] for line in lines[1:]} == {"WET", "WEST"}
    assert run("schedules", "next", "--cron", "0 2 * * *", "-n", "1").stdout.count("UTC") == 2, "in words, and once"


def test_seconds_are_shown_where_the_schedule_has_them(run: Run, shop: Shop, with_two: Holdfast) -> None:
    with_two.add_schedule("often", shop.resize.bind("a.png"), every="5s")
    for name in ("often", "flush"):
        ticks(shop, name)
    often, flush = (run("schedules", "next", name).stdout.splitlines()[-1] for name in ("often", "flush"))
    assert (often.split()[3].count(":"), flush.split()[3].count(":")) == (2, 1)


def test_changed_paused_resumed_and_deleted(run: Run, with_two: Holdfast) -> None:
    assert "Every 2 hours" in run("schedules", "change", "flush", "--every", "2h").stdout
    assert one(with_two, "flush").every == 7200.0
    assert "paused until" in run("schedules", "pause", "flush", "--until", "3h", "--reason", "move").stdout
    assert one(with_two, "flush").pause_reason == "move"
    run("schedules", "resume", "flush")
    assert not one(with_two, "flush").paused
    assert run("schedules", "delete", "flush").stdout == "flush deleted\n"
    assert [status.name for status in with_two.schedules()] == ["nightly"]


def test_what_code_declares(
    run: Run, shop: Shop, reconciled: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOLDFAST_URL", shop.url)
    shop.jobs.schedule("coded", shop.resize.bind("a.png"), every="1h")
    reconciled()
    refused = run("schedules", "delete", "coded", fails=True)
    assert (refused.exit_code, "declared by code" in refused.stderr) == (5, True)
    assert run("schedules", "reset", "coded", fails=True).exit_code == 5
    run("schedules", "change", "coded", "--every", "2h")
    assert "Every hour" in run("schedules", "reset", "coded").stdout


@pytest.fixture
def reconciled(shop: Shop) -> Callable[[], None]:
    """What a worker does at its start."""

    async def reconcile() -> None:
        store = parts_of(shop.jobs).link.store.twin()
        await store.open()
        await parts_of(shop.jobs).staffing.reconcile(store)
        await store.close()

    return lambda: asyncio.run(reconcile())
