"""Schedules of an app: what code declares, how it comes to the store, and what an operator's word does to it."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from holdfast import (
    ConfigError,
    Holdfast,
    NewJob,
    ScheduleNotFound,
    ScheduleStatus,
    StoreError,
    current_job,
)
from holdfast.app import parts_of
from holdfast.clock import HOUR, FakeClock, moment
from holdfast.errors import PayloadError
from holdfast.schedule.rule import Rule
from holdfast.store import Entry
from holdfast.testing import Sandbox
from tests.worker.rig import events, fields

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def report(region: str = "eu") -> str:
    return region


def needs(region: str) -> None: ...


@pytest.fixture
def jobs() -> Iterator[Holdfast]:
    clock = FakeClock(int(NOW.timestamp() * 1000))
    with Holdfast("memory://", clock=clock) as made:
        yield made


def start(jobs: Holdfast) -> None:
    """What a worker does at its start."""
    parts = parts_of(jobs)
    asyncio.run(parts.staffing.reconcile(parts.link.store))


def one(jobs: Holdfast, name: str) -> ScheduleStatus:
    (found,) = [status for status in jobs.schedules() if status.name == name]
    return found


def app(url_of: Holdfast) -> Holdfast:
    """Another version of the code, over the same store."""
    made = Holdfast("memory://", clock=parts_of(url_of).link.clock)
    parts_of(made).link._place = parts_of(url_of).link.store  # noqa: SLF001  # a memory store is its process's
    return made


# --- what code declares


def test_declared_above_a_task_on_a_function_and_bound(jobs: Holdfast) -> None:
    task = jobs.task(name="shop.report", queue="mail", timeout=30)(report)
    assert jobs.cron("0 9 * * MON-FRI", tz="Europe/Amsterdam")(task) is task
    plain = jobs.every("5m", name="flush")(_plain)
    jobs.schedule("report-us", task.using(priority=5).bind("us"), cron="@daily", tz="America/New_York", jitter="5m")
    start(jobs)
    assert [status.name for status in jobs.schedules()] == ["flush", "report-us", "shop.report"]
    flush, us, daily = jobs.schedules()
    assert (flush.task, flush.every, flush.cron, flush.next_at) == (plain.name, 300.0, None, NOW + timedelta(minutes=5))
    assert (us.task, us.queue, us.jitter, us.description) == (
        "shop.report",
        "mail",
        300.0,
        "At 00:00 every day, America/New_York",
    )
    assert us.coming(2) == [datetime(2026, 11, 23, 5, tzinfo=UTC), datetime(2026, 11, 24, 5, tzinfo=UTC)]
    assert us.coming(1)[0].hour == 0, "in the schedule's own zone"
    assert (daily.cron, daily.tz, daily.missed, daily.overlap) == (
        "0 9 * * MON-FRI",
        "Europe/Amsterdam",
        "once",
        "skip",
    )
    assert (daily.declared, daily.edited, daily.owner) == (True, False, __name__)
    assert (daily.ticks_made, daily.ticks_skipped, daily.ticks_missed, daily.ticks) == (0, 0, 0, ())


def _plain() -> None: ...


@pytest.mark.parametrize(
    ("declare", "why"),
    [
        (lambda jobs: jobs.cron("@daily")(needs), "the parameter 'region' of .* has no default"),
        (lambda jobs: jobs.every("5m", name="a b")(_plain), "name='a b'"),
        (
            lambda jobs: jobs.every("5m")(report) and jobs.every("6m")(parts_of(jobs).registry.tasks[0]),
            "two schedules are named",
        ),
        (lambda jobs: jobs.every("5m")(jobs.task(report).using(delay=5)), "delay= and at= do not go"),
        (lambda jobs: jobs.every("5m")(jobs.task(report).using(connection=object())), "connection= does not go"),
        (lambda jobs: jobs.schedule("n", jobs.task(report).using(delay=5).bind(), every=5), "delay= and at= do not go"),
        (lambda jobs: jobs.every("5m")(jobs.task(report).using(expires=NOW.replace(year=2099))), "expires=2099.*'1h'"),
        (lambda jobs: jobs.schedule("n", jobs.task(report), every=5), "no bound job"),
        (lambda jobs: jobs.schedule("n", jobs.task(report).bind(), every=5, cron="@daily"), "not both"),
        (lambda jobs: jobs.schedule("n", jobs.task(report).bind()), "give cron= or every="),
        (lambda jobs: jobs.schedule("n", Holdfast().task(report).bind(), every=5), "not a task of this app"),
        (lambda jobs: jobs.every("5m")(Holdfast().task(report)), "not a task of this app"),
        (lambda jobs: jobs.task(jobs.every("5m")(report)), "is a task already; @jobs.cron"),
        (lambda jobs: jobs.cron(report), r"say when, as in @jobs.cron\('0 9"),
        (lambda jobs: jobs.every(report), r"say when, as in .* @jobs.every\('5m"),
        (lambda jobs: [jobs.schedule("n", jobs.task(name="x")(report).bind(), every=n) for n in (5, 6)], "named"),
    ],
)
def test_what_cannot_be_declared(jobs: Holdfast, declare: Callable[[Holdfast], object], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        declare(jobs)


def test_a_module_that_is_loaded_again_declares_again(jobs: Holdfast) -> None:
    source = "@jobs.every('5m', name='n')\n@jobs.task(name='t')\ndef fn(): ...\n"
    for _ in range(2):
        exec(compile(source, "again.py", "exec"), {"jobs": jobs, "__name__": "again"})
    start(jobs)
    assert one(jobs, "n").owner == "again"


# --- reconciled at a start


def test_added_changed_removed_are_told(jobs: Holdfast, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    clock: Any = parts_of(jobs).link.clock
    task = jobs.task(name="t")(report)
    jobs.schedule("kept", task.bind(), every="1h")
    jobs.schedule("changed", task.bind(), every="1h")
    jobs.schedule("other-job", task.bind(), every="1h")
    jobs.schedule("removed", task.bind(), every="1h")
    start(jobs)
    start(jobs)
    assert events(caplog) == ["schedule-added"] * 4
    clock.advance(2 * HOUR)

    new = app(jobs)
    task = new.task(name="t")(report)
    new.schedule("kept", task.bind(), every="1h")
    new.schedule("changed", task.bind(), every="10m")
    new.schedule("other-job", task.using(queue="mail").bind("us"), every="1h")
    new.schedule("added", task.bind(), every="1h")
    caplog.clear()
    start(new)
    told = [(entry["schedule"], event) for event in set(events(caplog)) for entry in fields(caplog, event)]
    assert sorted(told) == [
        ("added", "schedule-added"),
        ("changed", "schedule-changed"),
        ("other-job", "schedule-changed"),
        ("removed", "schedule-removed"),
    ]
    assert [status.name for status in new.schedules()] == ["added", "changed", "kept", "other-job"]
    assert one(new, "changed").next_at == NOW + timedelta(minutes=130), "from now on"
    other = one(new, "other-job")
    assert (other.queue, other.next_at) == ("mail", NOW + timedelta(hours=1)), (
        "the same times: what was missed stays so"
    )


def test_entries_of_other_owners_are_left_alone(jobs: Holdfast) -> None:
    exec("jobs.every('5m', name='theirs')(jobs.task(fn))", {"jobs": jobs, "fn": _of_another_module()})
    start(jobs)
    new = app(jobs)
    new.task(report)
    new.add_schedule("an-operators", new.task(name="t")(report).bind(), every="1h")
    start(new)
    assert [status.name for status in new.schedules()] == ["an-operators", "theirs"]


def test_what_may_be_another_apps_is_told(jobs: Holdfast, caplog: pytest.LogCaptureFixture) -> None:
    exec("jobs.every('5m', name='both')(jobs.task(fn))", {"jobs": jobs, "fn": _of_another_module()})
    jobs.every("5m", name="theirs")(jobs.task(name="backup")(report))
    jobs.every("5m", name="gone")(jobs.task(name="gone")(report))
    start(jobs)
    asyncio.run(parts_of(jobs).link.store.register(UUID(int=7), None, {"tasks": ["backup"]}))
    new = app(jobs)
    new.every("5m", name="both")(new.task(name="t")(report))
    start(new)
    told = [(one["schedule"], one["owner"], one["task"]) for one in fields(caplog, "schedule-taken")]
    assert sorted(told) == [("both", "elsewhere", "elsewhere.fn"), ("theirs", __name__, "backup")]
    caplog.clear()
    start(new)
    assert not fields(caplog, "schedule-taken"), "once"


def _of_another_module() -> Callable[[], None]:
    space: dict[str, Any] = {"__name__": "elsewhere"}
    exec("def fn(): ...", space)
    return space["fn"]  # type: ignore[no-any-return]


def test_what_an_operator_changed_outlives_the_code(jobs: Holdfast, caplog: pytest.LogCaptureFixture) -> None:
    jobs.schedule("n", jobs.task(name="t")(report).bind(), every="1h")
    start(jobs)
    jobs.change_schedule("n", every="10m")
    caplog.set_level(logging.INFO)
    new = app(jobs)
    new.schedule("n", new.task(name="t")(report).bind(), every="2h")
    start(new)
    assert one(new, "n").every == 600.0
    assert "operator" in fields(caplog, "schedule-changed")[0]["message"]
    bare = app(jobs)
    bare.task(name="t")(report)
    start(bare)
    assert (one(bare, "n").every, one(bare, "n").declared, one(bare, "n").edited) == (600.0, False, True)


def test_a_schedule_whose_task_is_gone_is_told_of(jobs: Holdfast, caplog: pytest.LogCaptureFixture) -> None:
    jobs.add_schedule("n", jobs.task(name="gone")(report).bind(), every="1h")
    start(jobs)
    assert events(caplog) == [], "it is there"
    new = app(jobs)
    start(new)
    assert [(told["schedule"], told["task"]) for told in fields(caplog, "schedule-without-task")] == [("n", "gone")]
    store = parts_of(jobs).link.store
    asyncio.run(store.register(UUID(int=7), None, {"tasks": ["gone"]}))
    caplog.clear()
    start(new)
    assert events(caplog) == [], "another worker has it"
    assert not one(new, "n").stranded
    asyncio.run(store.retire(UUID(int=7), None))
    assert not one(new, "n").stranded, "nobody is live who could have it"
    asyncio.run(store.register(UUID(int=8), None, {"tasks": ["other"]}))
    assert one(new, "n").stranded


def test_an_entry_that_cannot_be_read_is_left_alone(jobs: Holdfast, caplog: pytest.LogCaptureFixture) -> None:
    store = parts_of(jobs).link.store
    asyncio.run(store.schedule([Entry("newer", "default", '{"declared":{"rule":{"moon":1}},"edited":null}', 1)]))
    jobs.every("5m", name="newer")(jobs.task(report))
    start(jobs)
    (status,) = jobs.schedules()
    assert "newer version" in status.problem
    assert status.coming() == []
    assert [told["schedule"] for told in fields(caplog, "schedule-unreadable")] == ["newer"]
    with pytest.raises(StoreError, match="cannot be read"):
        jobs.trigger_schedule("newer")
    jobs.pause_schedule("newer")
    jobs.delete_schedule("newer")
    assert jobs.schedules() == []


def test_an_entry_that_nobody_thought_of_hides_no_other(
    jobs: Holdfast, bound: NewJob[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    explain = Rule.explain

    def broken(rule: Rule) -> str:
        if rule.every == 60_000:
            raise ZeroDivisionError("nobody knows")
        return explain(rule)

    jobs.add_schedule("bad", bound, every="1m")
    jobs.add_schedule("good", bound, every="1h")
    monkeypatch.setattr(Rule, "explain", broken)
    assert [(status.name, status.problem) for status in jobs.schedules()] == [
        ("bad", "schedule bad: ZeroDivisionError: nobody knows"),
        ("good", ""),
    ]


def test_a_bug_in_reconciling_keeps_no_worker_from_its_work(
    jobs: Holdfast, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> None:
        raise IndexError("nobody knows")

    jobs.every("5m", name="n")(jobs.task(report))
    monkeypatch.setattr("holdfast.client.declaring._made", broken)
    start(jobs)
    (told,) = fields(caplog, "step-failed")
    assert (told["role"], told["error"]) == ("schedules", "IndexError: nobody knows")


def test_carried_variables_do_not_change_what_is_declared() -> None:
    from contextvars import ContextVar

    tenant = ContextVar[str]("tenant")
    jobs = Holdfast("memory://", carry=[tenant], clock=FakeClock())
    jobs.every("5m")(jobs.task(name="t")(report))
    with jobs:
        start(jobs)
        token = tenant.set("acme")
        revisions = _revisions(jobs)
        start(jobs)
        tenant.reset(token)
        assert _revisions(jobs) == revisions


def _revisions(jobs: Holdfast) -> list[int]:
    return [entry.revision for entry in asyncio.run(parts_of(jobs).link.store.schedules()).entries]


# --- an operator's word


@pytest.fixture
def bound(jobs: Holdfast) -> NewJob[str]:
    return jobs.task(name="t", queue="mail")(report).bind("us")


def test_added_changed_and_deleted_at_run_time(jobs: Holdfast, bound: NewJob[str]) -> None:
    jobs.add_schedule("n", bound, cron="0 9 * * *", tz="Asia/Tokyo", missed="skip", overlap="allow", jitter=5)
    status = one(jobs, "n")
    assert (status.declared, status.edited, status.owner, status.next_at) == (
        False,
        True,
        "",
        datetime(2026, 11, 23, tzinfo=UTC),
    )
    jobs.change_schedule("n", tz="Europe/Amsterdam")
    assert (one(jobs, "n").cron, one(jobs, "n").next_at) == ("0 9 * * *", datetime(2026, 11, 23, 8, tzinfo=UTC))
    jobs.change_schedule("n", every="10m", missed="once")
    changed = one(jobs, "n")
    assert (changed.cron, changed.every, changed.missed, changed.jitter) == (None, 600.0, "once", 5.0)
    assert changed.overlap == "allow", "what is not given stays"
    jobs.change_schedule("n", overlap="skip")
    jobs.change_schedule("n", missed="all")
    assert one(jobs, "n").overlap == "allow", "as where it is declared"
    jobs.change_schedule("n", job=jobs.task(name="other")(report).bind())
    assert (one(jobs, "n").task, one(jobs, "n").queue, one(jobs, "n").every) == ("other", "default", 600.0)
    jobs.delete_schedule("n")
    assert jobs.schedules() == []


def test_what_is_refused(jobs: Holdfast, bound: NewJob[str]) -> None:
    jobs.schedule("coded", bound, every="1h")
    start(jobs)
    jobs.add_schedule("mine", bound, every="1h")
    for call, kind, why in (
        (lambda: jobs.add_schedule("coded", bound, every="5m"), StoreError, "is there already"),
        (lambda: jobs.add_schedule("no name", bound, every="5m"), ConfigError, "name='no name'"),
        (lambda: jobs.add_schedule("n", bound, cron="0 0 31 2 *"), ConfigError, "never has day 31"),
        (lambda: jobs.change_schedule("coded"), ConfigError, "say what to change"),
        (lambda: jobs.change_schedule("coded", cron="x"), ConfigError, "cron='x'"),
        (lambda: jobs.change_schedule("coded", tz="Mars"), ConfigError, "an interval has no time zone"),
        (lambda: jobs.change_schedule("codet", every=5), ScheduleNotFound, "did you mean coded"),
        (lambda: jobs.delete_schedule("coded"), StoreError, f"declared by code, in {__name__}"),
        (lambda: jobs.reset_schedule("mine"), StoreError, "declared by no code"),
        (lambda: jobs.pause_schedule("x"), ScheduleNotFound, "there is no schedule 'x'"),
        (
            lambda: jobs.pause_schedule("coded", until=NOW - timedelta(days=1)),
            ConfigError,
            "it is 2026-11-22T12:00:00.00:00 now",
        ),
        (lambda: jobs.pause_schedule("coded", until=0), ConfigError, "until=0"),
        (lambda: jobs.pause_schedule("coded", until="2030-01-01T00:00:00Z"), ConfigError, "or an aware datetime"),
        (lambda: jobs.trigger_schedule("x"), ScheduleNotFound, "there is no schedule 'x'"),
    ):
        with pytest.raises(kind, match=why):  # type: ignore[call-overload]
            call()  # type: ignore[no-untyped-call]


def test_the_same_addition_again_is_harmless(jobs: Holdfast, bound: NewJob[str]) -> None:
    for _ in range(2):  # its reply was lost
        jobs.add_schedule("n", bound, every="1h")
    assert len(jobs.schedules()) == 1


def test_reset_gives_it_back_to_its_code(jobs: Holdfast, bound: NewJob[str]) -> None:
    jobs.schedule("n", bound, every="1h")
    start(jobs)
    assert not jobs.reset_schedule("n")
    jobs.change_schedule("n", every="1h")
    assert not one(jobs, "n").edited, "nothing was changed"
    jobs.change_schedule("n", every="10m")
    assert (one(jobs, "n").every, one(jobs, "n").declared, one(jobs, "n").edited) == (600.0, True, True)
    assert jobs.reset_schedule("n")
    assert (one(jobs, "n").every, one(jobs, "n").edited, one(jobs, "n").next_at) == (
        3600.0,
        False,
        NOW + timedelta(hours=1),
    )


def test_trigger_makes_one_job_now(jobs: Holdfast, bound: NewJob[str]) -> None:
    jobs.add_schedule("n", bound, every="1h")
    jobs.pause_schedule("n", reason="holidays")
    first, second = jobs.trigger_schedule("n"), jobs.trigger_schedule("n")
    assert (first.created, second.created, second.id) == (True, False, first.id), "overlap=skip: it is under way"
    assert first.status().queue == "mail"
    jobs.change_schedule("n", overlap="allow")
    assert jobs.trigger_schedule("n").created
    assert one(jobs, "n").ticks_made == 0, "no tick"


async def test_the_a_twins(jobs: Holdfast, bound: NewJob[str]) -> None:
    await jobs.aadd_schedule("n", bound, every="1h")
    await jobs.achange_schedule("n", every="2h")
    await jobs.apause_schedule("n", until="1h", reason="r")
    assert [(s.every, s.paused, s.pause_reason) for s in await jobs.aschedules()] == [(7200.0, True, "r")]
    assert await jobs.aresume_schedule("n")
    assert not await jobs.aresume_schedule("n")
    assert (await jobs.atrigger_schedule("n")).created
    with pytest.raises(StoreError):
        await jobs.areset_schedule("n")
    await jobs.adelete_schedule("n")
    assert await jobs.aschedules() == []


# --- in a sandbox, where time passes


@pytest.fixture
def box(jobs: Holdfast) -> Iterator[Sandbox]:
    ran.clear()
    jobs.schedule("hourly", jobs.task(name="t")(_noted).bind(), every="1h")
    with Sandbox(jobs, now=NOW) as box:
        yield box


ran: list[datetime | None] = []


def _noted() -> None:
    ran.append(current_job().scheduled_for)


def hours(*which: float) -> list[datetime]:
    return [NOW + timedelta(hours=n) for n in which]


def test_a_sandbox_ticks_as_time_passes(box: Sandbox) -> None:
    assert box.run() == []
    assert [status.state for status in box.advance("3h")] == ["succeeded"] * 3
    assert ran == hours(1, 2, 3)
    assert box.run() == []


async def test_a_sandbox_ticks_on_the_callers_loop(jobs: Holdfast) -> None:
    jobs.every("1h")(jobs.task(name="t")(_alate))
    ran.clear()
    async with Sandbox(jobs, now=NOW) as box:
        assert len(await box.aadvance("2h")) == 2
    assert ran == hours(1, 2)


async def _alate() -> None:
    _noted()


async def test_a_worker_within_a_sandbox_finds_no_tick(jobs: Holdfast, box: Sandbox) -> None:
    store = parts_of(jobs).link.store
    (entry,) = (await store.schedules()).entries
    assert await store.schedule([entry._replace(next_at=1)]) == [True]
    assert len((await store.due(10)).entries) == 1
    assert not (await store.twin().due(10)).entries


def test_what_a_pause_covers_is_not_missed(jobs: Holdfast, box: Sandbox) -> None:
    jobs.pause_schedule("hourly", reason="holidays")
    status = one(jobs, "hourly")
    assert (status.paused, status.paused_since, status.paused_until, status.next_at) == (True, NOW, None, None)
    assert status.coming(1) == hours(1)
    assert box.advance("5h") == []
    assert jobs.resume_schedule("hourly")
    box.advance("2h")
    assert ran == hours(6, 7)
    assert one(jobs, "hourly").ticks_missed == 0


def test_a_pause_ends_by_itself(jobs: Holdfast, box: Sandbox) -> None:
    jobs.pause_schedule("hourly", until="150m")
    assert one(jobs, "hourly").next_at == NOW + timedelta(hours=3)
    jobs.pause_schedule("hourly", until=NOW + timedelta(hours=2), reason="shorter")
    assert one(jobs, "hourly").next_at == NOW + timedelta(hours=2)
    box.advance("1h")
    assert one(jobs, "hourly").paused
    box.advance("2h")
    assert ran == hours(2, 3)
    status = one(jobs, "hourly")
    assert (status.paused, status.pause_reason, status.ticks_missed) == (False, "", 0)
    jobs.pause_schedule("hourly", until="150m")
    assert jobs.resume_schedule("hourly")
    box.advance("1h")
    assert ran == hours(2, 3, 4), "resumed before its end"


def test_ticks_are_kept_with_their_jobs(jobs: Holdfast, box: Sandbox) -> None:
    made = box.advance("2h")
    status = one(jobs, "hourly")
    assert [(tick.outcome, tick.due, tick.job) for tick in status.ticks] == [
        ("made", due, job.id) for due, job in zip(hours(1, 2), made, strict=True)
    ]
    assert all(isinstance(tick.job, UUID) for tick in status.ticks)


def test_arguments_that_cannot_be_stored_are_told_where_the_schedule_starts(jobs: Holdfast) -> None:
    jobs.every("1h")(jobs.task(name="t", tags=["x"])(report))
    assert parts_of(jobs).declarations.by_name["t"].definition().job.tags == ("x",)
    with pytest.raises(PayloadError):
        jobs.schedule("n", jobs.task(name="u")(_anything).bind(object()), every=5)
    assert moment(0).tzinfo is UTC


def _anything(value: object) -> None: ...
