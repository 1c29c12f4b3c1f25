"""The app: choosing a store, enqueueing, asking, cancelling, retrying; one job and many; from sync and async code."""

import asyncio
import dataclasses
import logging
import re
import subprocess
import sys
import textwrap
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from itertools import chain, pairwise
from pathlib import Path
from types import FunctionType
from typing import Any
from uuid import UUID, uuid4

import pytest

from holdfast import (
    Cancel,
    ConfigError,
    Holdfast,
    IdConflict,
    Job,
    JobCancelled,
    JobFailed,
    JobNotFound,
    NewJob,
    Retry,
    State,
    StoreError,
    SyncTask,
    current_job,
)
from holdfast.app import parts_of
from holdfast.errors import PayloadError
from holdfast.store import Receipt

PATIENCE = 30


@pytest.fixture(params=["memory", "sqlite"])
def app(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Holdfast]:
    """An app in a fresh place, not open yet."""
    if request.param == "sqlite":
        pytest.importorskip("holdfast.stores.sqlite")
    urls = {"memory": "memory://", "sqlite": f"sqlite:///{tmp_path}/jobs.db?durability=normal"}
    it = Holdfast(urls[request.param], keep="1h")
    yield it
    it.close()


@pytest.fixture
def send(app: Holdfast) -> SyncTask[..., str]:
    @app.task(name="shop.send", queue="mail")
    def send(to: str, *, html: bool = False) -> str:
        return f"<{to}>" if html else to

    return send


@contextmanager
def working(app: Holdfast, **options: Any) -> Iterator[None]:
    with app.worker(**options):
        yield


def events(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [getattr(record.msg, "event", str(record.msg)) for record in caplog.records]


def program(text: str, *arguments: str, cwd: Path | None = None) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(text), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=cwd,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- which store


def test_without_a_url_the_first_use_fails_and_names_the_four_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    jobs = Holdfast()
    send = jobs.task(name="shop.send")(lambda: None)
    for use in (send.enqueue, jobs.__enter__, lambda: jobs.url, lambda: list(jobs.find(queue="mail"))):
        with pytest.raises(ConfigError) as refused:
            use()
        for place in ("Holdfast(url=...)", "jobs.configure(url=...)", "HOLDFAST_URL", "[tool.holdfast]"):
            assert place in str(refused.value)
    assert list(tmp_path.iterdir()) == [], "no store is chosen by silence"


@pytest.mark.parametrize("url", ["postgres", "ftp://x", "sqlite://", "memory://x", "sqlite:///a.db?sync=off", "://"])
def test_a_url_that_names_no_store_is_refused_and_the_schemes_are_listed(url: str) -> None:
    jobs = Holdfast(url)
    with pytest.raises(ConfigError, match=r"memory://.*sqlite:///"), jobs:
        pass


def test_a_password_in_a_refused_url_is_not_shown() -> None:
    with pytest.raises(ConfigError) as refused, Holdfast("ftp://shop:geheim@db.example/jobs"):
        pass
    assert "geheim" not in str(refused.value)


def test_the_url_may_be_set_after_construction_until_the_store_is_in_use() -> None:
    jobs = Holdfast()
    task = jobs.task(name="shop.send")(lambda: None)
    jobs.configure(url="memory://")
    assert jobs.url == "memory://"
    with jobs:
        task.enqueue()
        with pytest.raises(ConfigError, match=r"configure\(\): the store is in use already"):
            jobs.configure(url="sqlite:///x.db")
    jobs.configure(url="sqlite:///x.db")
    assert jobs.url == "sqlite:///x.db", "a closed app may be configured again"


def test_a_store_may_be_asked_for_again_after_a_failure() -> None:
    jobs = Holdfast("ftp://x")
    for _ in range(2):
        with pytest.raises(ConfigError, match="no store for ftp"), jobs:
            pass
    jobs.configure(url="memory://")
    with jobs:
        pass


def test_building_an_app_opens_reads_and_starts_nothing(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("this is no toml [", "utf-8")
    out = program(
        """
        import os, sys, threading
        os.environ["HOLDFAST_URL"] = "ftp://nonsense"
        from holdfast import Holdfast, Retry
        jobs = Holdfast("sqlite:///jobs.db", modules=["no.such.module"], retry=Retry(), timeout="5m", keep="1d")
        other = Holdfast()

        @jobs.task(queue="mail")
        def send(n: int) -> int:
            return n

        send.bind(1), send.using(delay=5).bind(2), jobs.job("0197a1b2-0000-7000-8000-000000000000"), jobs.tasks
        jobs.worker(concurrency=3)
        assert send(3) == 3
        jobs.close()
        drivers = [name for name in ("sqlite3", "pysqlite3", "psycopg", "redis") if name in sys.modules]
        print(threading.active_count(), os.listdir("."), drivers)
        """,
        cwd=tmp_path,
    )
    assert out.strip() == "1 ['pyproject.toml'] []"


def test_with_opens_now_and_fails_now(tmp_path: Path) -> None:
    pytest.importorskip("holdfast.stores.sqlite")
    (tmp_path / "jobs.db").write_bytes(b"this is not a database, it is a text of some length " * 100)
    jobs = Holdfast(f"sqlite:///{tmp_path}/jobs.db")
    with pytest.raises(StoreError, match=r"jobs\.db"), jobs:
        pass
    jobs.close()


async def test_async_with_opens_and_closes(app: Holdfast, send: SyncTask[..., str]) -> None:
    async with app:
        job = await send.aenqueue("ann")
        assert (await job.astatus()).state == "queued"


def test_an_app_may_be_opened_and_closed_again_and_again(tmp_path: Path) -> None:
    pytest.importorskip("holdfast.stores.sqlite")
    jobs = Holdfast(f"sqlite:///{tmp_path}/jobs.db?durability=normal")
    task = jobs.task(name="shop.send")(lambda: None)
    for n in range(1, 4):
        with jobs:
            task.enqueue()
            assert len(list(jobs.find(task="shop.send"))) == n
    jobs.close()
    jobs.close()


# --- tasks of other modules


def test_modules_are_imported_by_workers_packages_with_all_that_is_in_them(tmp_path: Path) -> None:
    shop = tmp_path / "shop"
    (shop / "mail" / "deep").mkdir(parents=True)
    (shop / "__init__.py").write_text("from holdfast import Holdfast\n", "utf-8")
    (shop / "app.py").write_text(
        "from holdfast import Holdfast\njobs = Holdfast('memory://', modules=['shop.mail', 'shop.reports'])\n", "utf-8"
    )
    task = "from shop.app import jobs\n\n@jobs.task\ndef {}() -> None: ...\n"
    (shop / "mail" / "__init__.py").write_text(task.format("one"), "utf-8")
    (shop / "mail" / "invoices.py").write_text(task.format("two"), "utf-8")
    (shop / "mail" / "deep" / "__init__.py").write_text("", "utf-8")
    (shop / "mail" / "deep" / "er.py").write_text(task.format("three"), "utf-8")
    (shop / "reports.py").write_text(task.format("four"), "utf-8")
    (shop / "unasked.py").write_text(task.format("five"), "utf-8")
    out = program(
        """
        import sys
        sys.path.insert(0, "")
        from shop.app import jobs
        print(sorted(jobs.tasks))
        with jobs.worker():
            print(sorted(jobs.tasks))
        """,
        cwd=tmp_path,
    )
    assert out.splitlines() == [
        "[]",
        "['shop.mail.deep.er.three', 'shop.mail.invoices.two', 'shop.mail.one', 'shop.reports.four']",
    ]


def test_a_module_that_cannot_be_imported_is_named() -> None:
    jobs = Holdfast("memory://", modules=["no_such_module_of_ours"])
    with pytest.raises(ConfigError, match=r"modules: 'no_such_module_of_ours' cannot be imported"), jobs.worker():
        pass


# --- enqueue, status, result


def test_a_job_is_stored_when_enqueue_returns(app: Holdfast, send: SyncTask[..., str]) -> None:
    before = datetime.now(UTC) - timedelta(milliseconds=1)
    job = send.using(priority=5, tags=["eu"]).enqueue("ann", html=True)
    status = job.status()
    assert (status.id, status.task, status.queue, status.state) == (job.id, "shop.send", "mail", State.QUEUED)
    assert (status.attempt, status.errors, status.tags, status.finished) == (0, (), ("eu",), False)
    assert before <= status.enqueued_at <= datetime.now(UTC)
    assert status.due_at == status.enqueued_at
    assert (status.started_at, status.finished_at) == (None, None)
    assert job.created
    assert status.job == job
    with pytest.raises(dataclasses.FrozenInstanceError):
        status.state = State.DEAD


def test_delay_and_at_schedule_a_job(app: Holdfast, send: SyncTask[..., str]) -> None:
    status = send.using(delay="1h").enqueue("ann").status()
    assert status.state == "scheduled"
    assert status.due_at is not None
    assert status.due_at - status.enqueued_at == timedelta(hours=1)
    due = datetime(2999, 1, 1, tzinfo=UTC)
    assert send.using(at=due).enqueue("ann").status().due_at == due
    assert send.using(at=datetime(2000, 1, 1, tzinfo=UTC)).enqueue("ann").status().state == "queued"
    last = send.using(at=datetime.max.replace(tzinfo=UTC)).enqueue("ann").status().due_at
    assert last is not None
    assert last.year == 9999


def test_a_result_is_what_the_handler_returned(app: Holdfast, send: SyncTask[..., str]) -> None:
    @app.task(name="shop.when")
    def when() -> dict[str, datetime]:
        return {"day": datetime(2030, 1, 1, tzinfo=UTC)}

    @app.task(name="shop.nothing")
    def nothing() -> None: ...

    with working(app):
        one, two, three = send.enqueue("ann", html=True), when.enqueue(), nothing.enqueue()
        assert one.result(PATIENCE) == "<ann>"
        assert two.result(timeout=f"{PATIENCE}s") == {"day": datetime(2030, 1, 1, tzinfo=UTC)}
        assert three.result(timeout=timedelta(seconds=PATIENCE)) is None
    status = one.status()
    assert (status.state, status.attempt, status.finished, status.due_at) == (State.SUCCEEDED, 1, True, None)
    assert status.started_at is not None
    assert status.finished_at is not None
    assert status.enqueued_at <= status.started_at <= status.finished_at


async def test_the_twins_say_the_same(app: Holdfast, send: SyncTask[..., str]) -> None:
    async with app.worker():
        job = await send.aenqueue("ann")
        assert await job.aresult(PATIENCE) == "ann"
        assert (await job.astatus()).state == "succeeded"
        assert [status.id async for status in app.afind(task="shop.send")] == [job.id]
        assert await job.acancel() is False
        many = await app.aenqueue_many(send.bind(f"{n}") for n in range(3))
        assert [await one.aresult(PATIENCE) for one in many] == ["0", "1", "2"]
    await asyncio.to_thread(app.close)


def test_a_job_of_a_task_that_is_not_known_here_still_has_its_result(app: Holdfast, send: SyncTask[..., str]) -> None:
    with working(app):
        job = send.enqueue("ann")
        job.result(PATIENCE)
    parts_of(app).registry.names.clear()  # as in a process that has the store and not the code
    assert app.job(job.id).result(PATIENCE) == "ann"


def test_a_result_that_does_not_come_in_time_is_a_time_out_naming_the_state(
    app: Holdfast, send: SyncTask[..., str]
) -> None:
    job = send.enqueue("ann")
    for timeout in (0, 0.02, "20ms"):
        with pytest.raises(TimeoutError, match=rf"{job.id} of shop\.send is still queued after"):
            job.result(timeout)


@pytest.mark.parametrize("timeout", [-1, "soon", float("nan")])
def test_a_nonsense_timeout_is_refused(app: Holdfast, send: SyncTask[..., str], timeout: Any) -> None:
    with pytest.raises(ConfigError, match=r"^timeout="):
        send.enqueue("ann").result(timeout)


def test_a_result_waits_for_a_job_that_ends_later(app: Holdfast) -> None:
    go = threading.Event()

    @app.task(name="shop.slow")
    def slow() -> str:
        assert go.wait(PATIENCE), "nobody lets it go on"
        return "late"

    with working(app), ThreadPoolExecutor(1) as pool:
        job = slow.enqueue()
        waiting = pool.submit(job.result, PATIENCE)
        with pytest.raises(TimeoutError):
            job.result(0.05)
        assert not waiting.done()
        go.set()
        assert waiting.result(PATIENCE) == "late"


def test_a_dead_job_raises_its_last_error(app: Holdfast) -> None:
    @app.task(name="shop.fail", retry=Retry(max_attempts=2, base_delay=0))
    def fail() -> None:
        raise OSError(f"attempt {current_job().attempt}: no such address")

    with working(app):
        job = fail.enqueue()
        with pytest.raises(JobFailed) as failed:
            job.result(PATIENCE)
    error = failed.value.error
    assert (error.attempt, error.type, error.message) == (2, "OSError", "attempt 2: no such address")
    assert "raise OSError" in error.traceback
    assert f"{job.id} of shop.fail is dead after attempt 2: OSError: attempt 2" in str(failed.value)
    status = job.status()
    assert [(e.attempt, e.message) for e in status.errors] == [
        (1, "attempt 1: no such address"),
        (2, "attempt 2: no such address"),
    ]
    assert status.state == "dead"
    assert all(e.at.tzinfo is not None for e in status.errors)


def test_no_job_with_this_id(app: Holdfast) -> None:
    unknown = app.job(uuid4())
    for ask in (unknown.status, unknown.result, unknown.cancel, unknown.retry):
        with pytest.raises(JobNotFound, match=str(unknown.id)):
            ask()


# --- cancel and retry


def test_a_job_that_does_not_run_is_cancelled_at_once(app: Holdfast, send: SyncTask[..., str]) -> None:
    for job in (send.enqueue("ann"), send.using(delay="1h").enqueue("ann")):
        assert job.cancel("the customer left") is True
        assert job.status().state == "cancelled"
        assert job.status().reason == "the customer left"
        with pytest.raises(JobCancelled, match=rf"{job.id} of shop\.send was cancelled: the customer left"):
            job.result(PATIENCE)
        assert job.cancel() is False


def test_a_job_cancelled_without_a_reason_says_so(app: Holdfast, send: SyncTask[..., str]) -> None:
    job = send.enqueue("ann")
    job.cancel()
    with pytest.raises(JobCancelled, match="no reason given"):
        job.result(PATIENCE)


def test_a_running_job_is_cancelled_with_the_reason_that_was_given(app: Holdfast) -> None:
    running = threading.Event()

    @app.task(name="shop.endless")
    async def endless() -> None:
        running.set()
        await asyncio.Event().wait()

    with working(app):
        job = endless.enqueue()
        assert running.wait(PATIENCE)
        assert job.cancel("the customer left") is True
        with pytest.raises(JobCancelled, match="the customer left"):
            job.result(PATIENCE)
    assert job.status().state == "cancelled"


def test_a_handler_may_cancel_its_own_job(app: Holdfast) -> None:
    @app.task(name="shop.unwanted")
    def unwanted() -> None:
        raise Cancel("already paid")

    with working(app):
        job = unwanted.enqueue()
        with pytest.raises(JobCancelled, match="already paid"):
            job.result(PATIENCE)


def test_a_finished_job_gets_a_new_life_by_an_operators_retry(app: Holdfast) -> None:
    healed = threading.Event()

    @app.task(name="shop.fail")
    def fail() -> int:
        if not healed.is_set():
            raise OSError("down")
        return current_job().attempt

    with working(app):
        job = fail.enqueue()
        with pytest.raises(JobFailed):
            job.result(PATIENCE)
        healed.set()
        job.retry()
        assert job.result(PATIENCE) == 1, "attempts start again"
    assert [error.message for error in job.status().errors] == ["down"], "the history is kept"


def test_only_dead_and_cancelled_jobs_can_be_retried(app: Holdfast, send: SyncTask[..., str]) -> None:
    job = send.enqueue("ann")
    with pytest.raises(StoreError, match=rf"{job.id} is not finished; only dead and cancelled"):
        job.retry()
    job.cancel()
    job.retry()
    with working(app):
        job.result(PATIENCE)
    with pytest.raises(StoreError, match=rf"{job.id} has succeeded; only dead and cancelled"):
        job.retry()


# --- many at once


def test_enqueue_many_answers_in_order(app: Holdfast, send: SyncTask[..., str]) -> None:
    bound = [send.using(queue=f"q{n % 3}").bind(str(n)) for n in range(20)]
    jobs = app.enqueue_many(bound)
    assert [job.id for job in jobs] == [new.id for new in bound]
    assert [job.created for job in jobs] == [True] * 20
    assert app.enqueue_many([]) == []


def test_the_same_bound_jobs_again_are_harmless(app: Holdfast, send: SyncTask[..., str]) -> None:
    bound = [send.bind("ann"), send.bind("bob")]
    first = app.enqueue_many(bound)
    again = app.enqueue_many([*bound, bound[0]])
    assert [job.id for job in again] == [first[0].id, first[1].id, first[0].id]
    assert [job.created for job in again] == [False, False, False]
    assert len(list(app.find(task="shop.send"))) == 2


def test_a_generator_of_thousands_is_read_as_it_goes(app: Holdfast, send: SyncTask[..., str]) -> None:
    stored_when_made: list[int] = []

    def bound() -> Iterator[NewJob[str]]:
        for n in range(2_000):
            if n == 1_999:
                stored_when_made.append(len(list(app.find(task="shop.send"))))
            yield send.bind(str(n))

    jobs = app.enqueue_many(bound())
    assert len({job.id for job in jobs}) == 2_000
    assert stored_when_made[0] >= 1_000, "the whole generator was read before anything was stored"
    assert len(list(app.find(task="shop.send"))) == 2_000


def test_a_generator_that_fails_leaves_what_was_stored(app: Holdfast, send: SyncTask[..., str]) -> None:
    def bound() -> Iterator[NewJob[str]]:
        for n in range(700):
            yield send.bind(str(n))
        raise KeyError("the file ends here")

    with pytest.raises(KeyError, match="the file ends here"):
        app.enqueue_many(bound())
    assert 0 < len(list(app.find(task="shop.send"))) <= 700


def _other(job: NewJob[str], send: SyncTask[..., str]) -> NewJob[str]:
    return NewJob(dataclasses.replace(send.bind("other").draft, id=job.id))


def test_an_id_with_other_content_is_refused_and_the_others_are_stored(app: Holdfast, send: SyncTask[..., str]) -> None:
    taken = send.bind("ann")
    app.enqueue_many([taken])
    fresh = [send.bind("bob"), send.bind("cid")]
    with pytest.raises(IdConflict, match=rf"1 of 3 jobs.*{taken.id}"):
        app.enqueue_many([fresh[0], _other(taken, send), fresh[1]])
    assert {status.id for status in app.find(task="shop.send")} == {taken.id, *(new.id for new in fresh)}
    with working(app):
        assert send.job(taken.id).result(PATIENCE) == "ann", "the stored job is untouched"


def test_many_conflicts_are_told_with_the_first_five(app: Holdfast, send: SyncTask[..., str]) -> None:
    taken = [send.bind(str(n)) for n in range(7)]
    app.enqueue_many(taken)
    with pytest.raises(IdConflict, match=r"7 of 7 jobs.*, …"):
        app.enqueue_many([_other(new, send) for new in taken])


def test_what_is_no_bound_job_is_refused_by_name(app: Holdfast, send: SyncTask[..., str]) -> None:
    for wrong in (send.enqueue("ann"), send, "ann"):
        with pytest.raises(TypeError, match=r"no bound job: make one with task\.bind"):
            app.enqueue_many([send.bind("ann"), wrong])


def test_concurrent_callers_do_not_mix(app: Holdfast, send: SyncTask[..., str]) -> None:
    def enqueue(n: int) -> tuple[int, list[Job[str]]]:
        return n, [send.enqueue(f"{n}-{k}") for k in range(10)]

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(enqueue, range(8), timeout=PATIENCE))
    with working(app):
        for n, jobs in made:
            assert [job.result(PATIENCE) for job in jobs] == [f"{n}-{k}" for k in range(10)]


def test_one_refused_payload_leaves_strangers_in_the_same_batch_alone(app: Holdfast, send: SyncTask[..., str]) -> None:
    async def storm() -> list[object]:
        good = [send.aenqueue(str(n)) for n in range(20)]
        bad = [send.aenqueue(object()) for _ in range(5)]
        return list(await asyncio.gather(*good, *bad, return_exceptions=True))

    answers = asyncio.run(storm())
    assert [type(answer) for answer in answers] == [Job] * 20 + [PayloadError] * 5


# --- finding, and acting on what is found


@pytest.fixture
def stock(app: Holdfast, send: SyncTask[..., str]) -> list[Job[str]]:
    """Five queued jobs, two of them tagged; two cancelled; one scheduled. Oldest first."""
    fixed = [send.enqueue(str(n)) for n in range(3)]
    tagged = [send.using(tags=["eu", "b2b"], queue="slow").enqueue(str(n)) for n in range(2)]
    cancelled = [send.enqueue("cancelled") for _ in range(2)]
    for job in cancelled:
        job.cancel("not wanted")
    return [*fixed, *tagged, *cancelled, send.using(delay="1h").enqueue("later")]


def ids(found: Any) -> list[UUID]:
    return [status.id for status in found]


def test_find_yields_the_newest_first(app: Holdfast, stock: list[Job[str]]) -> None:
    found = list(app.find(task="shop.send"))
    assert sorted(ids(found)) == sorted(job.id for job in stock)
    assert all(newer.enqueued_at >= older.enqueued_at for newer, older in pairwise(found))


@pytest.mark.parametrize(
    ("where", "which"),
    [
        ({}, range(8)),
        ({"queue": "mail"}, [0, 1, 2, 5, 6, 7]),
        ({"queue": "nowhere"}, []),
        ({"task": "shop.send"}, range(8)),
        ({"task": "shop"}, []),
        ({"tag": "eu"}, [3, 4]),
        ({"state": "queued"}, range(5)),
        ({"state": State.CANCELLED}, [5, 6]),
        ({"state": "cancelled, scheduled"}, [5, 6, 7]),
        ({"state": "queued", "tag": "b2b", "queue": "slow"}, [3, 4]),
        ({"state": "dead"}, []),
        ({"error": "OSError"}, []),
        ({"since": datetime(2000, 1, 1, tzinfo=UTC)}, range(8)),
        ({"before": datetime(2000, 1, 1, tzinfo=UTC)}, []),
        ({"since": datetime(2999, 1, 1, tzinfo=UTC)}, []),
    ],
    ids=lambda value: repr(value)[:50],
)
def test_find_by(app: Holdfast, stock: list[Job[str]], where: Any, which: Any) -> None:
    assert sorted(ids(app.find(**where))) == sorted(stock[n].id for n in which)


def test_find_reads_page_by_page(app: Holdfast, send: SyncTask[..., str]) -> None:
    jobs = app.enqueue_many(send.bind(str(n)) for n in range(250))
    found = app.find(task="shop.send")
    first = next(found)
    for job in jobs:
        job.cancel()
    rest = list(found)
    assert sorted([first.id, *ids(rest)]) == sorted(job.id for job in jobs)
    assert {status.state for status in rest[150:]} == {State.CANCELLED}, "later pages are read later"


@pytest.mark.parametrize(
    ("where", "named"),
    [
        ({"quee": "mail"}, r"no filter 'quee'; there are state, queue, task"),
        ({"state": "running,lost"}, r"state='running,lost': there are .*scheduled"),
        ({"state": ""}, r"state=''"),
        ({"state": None}, r"state=None"),
        ({"state": 5}, r"state=5"),
        ({"since": datetime(2030, 1, 1)}, r"since=.*no time zone"),  # noqa: DTZ001  # naive on purpose
        ({"before": "2030-01-01"}, r"before='2030-01-01'"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_filter_that_makes_no_sense_is_refused(app: Holdfast, where: Any, named: str) -> None:
    for act in (lambda: list(app.find(**where)), lambda: app.cancel(**where), lambda: app.retry(**where)):
        with pytest.raises(ConfigError, match=named):
            act()


def test_acting_on_everything_must_be_meant(app: Holdfast, stock: list[Job[str]]) -> None:
    for act in (app.cancel, app.retry):
        for where in ({}, {"dry_run": True}, {"queue": None}):
            with pytest.raises(ConfigError, match=r"no filter is given: name at least one"):
                act(**where)
    assert [job.status().state for job in stock[:5]] == ["queued"] * 5


def test_cancel_all_that_match(app: Holdfast, stock: list[Job[str]]) -> None:
    assert app.cancel(dry_run=True, queue="mail") == 4
    assert [job.status().state for job in stock[:3]] == ["queued"] * 3, "a dry run changes nothing"
    assert app.cancel(queue="mail") == 4
    assert [job.status().state for job in stock] == ["cancelled"] * 3 + ["queued"] * 2 + ["cancelled"] * 3
    assert app.cancel(queue="mail") == 0
    assert app.cancel(state="succeeded", queue="slow") == 0


def test_retry_all_that_match(app: Holdfast, stock: list[Job[str]]) -> None:
    assert app.retry(dry_run=True, task="shop.send") == 2
    assert app.retry(state="dead", task="shop.send") == 0
    assert app.retry(task="shop.send") == 2
    assert [job.status().state for job in stock[5:7]] == ["queued"] * 2


async def test_the_twins_of_the_bulk_acts(app: Holdfast, send: SyncTask[..., str]) -> None:
    await app.aenqueue_many(send.bind(str(n)) for n in range(3))
    assert await app.acancel(dry_run=True, queue="mail") == 3
    assert await app.acancel(queue="mail") == 3
    assert await app.aretry(queue="mail") == 3
    with pytest.raises(ConfigError, match="no filter is given"):
        await app.acancel()
    await asyncio.to_thread(app.close)


def test_bulk_acts_go_through_more_than_one_step(app: Holdfast, send: SyncTask[..., str]) -> None:
    app.enqueue_many(send.bind(str(n)) for n in range(1_200))
    assert app.cancel(dry_run=True, queue="mail") == 1_200
    assert app.cancel(queue="mail") == 1_200
    assert app.retry(queue="mail") == 1_200
    assert {status.state for status in app.find(queue="mail")} == {State.QUEUED}


# --- loops and threads


async def test_a_sync_call_on_a_running_loop_works_and_warns_once_naming_its_twin(
    app: Holdfast, send: SyncTask[..., str]
) -> None:
    with pytest.warns(RuntimeWarning, match=r"await ….aenqueue\(\)") as warned:
        job = send.enqueue("ann")
    assert [warning.filename for warning in warned] == [__file__], "it points at the caller's line"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        send.enqueue("bob")
    with pytest.warns(RuntimeWarning, match=r"await ….astatus\(\)"):
        assert job.status().state == "queued"
    await asyncio.to_thread(app.close)


@pytest.mark.parametrize(
    ("call", "twin"),
    [
        (lambda app, send: app.enqueue_many([send.bind("x")]), "aenqueue_many"),
        (lambda app, send: app.cancel(queue="mail"), "acancel"),
        (lambda app, send: app.retry(queue="mail"), "aretry"),
        (lambda app, send: list(app.find(queue="mail")), "afind"),
        (lambda app, send: app.job(uuid4()).cancel(), "acancel"),
    ],
    ids=["enqueue_many", "cancel all", "retry all", "find", "cancel one"],
)
async def test_every_sync_call_on_a_running_loop_points_at_its_caller(
    app: Holdfast, send: SyncTask[..., str], call: FunctionType, twin: str
) -> None:
    with pytest.warns(RuntimeWarning, match=rf"await ….{twin}\(\)") as warned, suppress(JobNotFound):
        call(app, send)
    assert [(warning.filename, warning.lineno) for warning in warned] == [(__file__, call.__code__.co_firstlineno)]
    await asyncio.to_thread(app.close)


def test_one_app_serves_many_loops_at_once_and_one_after_another(app: Holdfast, send: SyncTask[..., str]) -> None:
    async def enqueue(n: int) -> list[UUID]:
        return [job.id for job in await asyncio.gather(*(send.aenqueue(f"{n}-{k}") for k in range(5)))]

    def loops(n: int) -> list[UUID]:
        return asyncio.run(enqueue(n)) + asyncio.run(enqueue(n))

    with ThreadPoolExecutor(4) as pool:
        made = list(chain.from_iterable(pool.map(loops, range(4), timeout=PATIENCE)))
    assert len(set(made)) == 40
    assert len(list(app.find(task="shop.send"))) == 40


def test_a_caller_that_waits_for_a_result_is_told_when_the_app_is_closed(
    app: Holdfast, send: SyncTask[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.bridge.EXIT_GRACE", 0.1)
    job = send.enqueue("ann")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(job.result)
        with pytest.raises(TimeoutError):
            waiting.result(0.05)
        app.close()
        assert waiting.exception(PATIENCE) is not None, "it waits for ever"


# --- memory


def test_memory_without_a_worker_warns_once(caplog: pytest.LogCaptureFixture) -> None:
    jobs = Holdfast("memory://")
    task = jobs.task(name="shop.send")(lambda: None)
    with caplog.at_level(logging.WARNING, "holdfast"), jobs:
        task.enqueue()
        task.enqueue()
        assert events(caplog) == ["lonely"]


def test_memory_with_a_worker_does_not_warn(caplog: pytest.LogCaptureFixture) -> None:
    jobs = Holdfast("memory://")
    task = jobs.task(name="shop.send")(lambda: None)
    with caplog.at_level(logging.WARNING, "holdfast"), jobs.worker():
        task.enqueue().result(PATIENCE)
    jobs.close()
    assert events(caplog) == []


def test_a_shared_store_without_a_worker_does_not_warn(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("holdfast.stores.sqlite")
    jobs = Holdfast(f"sqlite:///{tmp_path}/jobs.db?durability=normal")
    task = jobs.task(name="shop.send")(lambda: None)
    with caplog.at_level(logging.WARNING, "holdfast"), jobs:
        task.enqueue()
    assert "lonely" not in events(caplog)


def test_a_connection_to_somewhere_else_is_refused(send: SyncTask[..., str], app: Holdfast) -> None:
    with pytest.raises(ConfigError, match="connection="):
        send.using(connection=object()).enqueue("ann")
    with pytest.raises(ConfigError, match="connection="):
        app.enqueue_many([send.bind("ann")], connection=object())


async def test_a_caller_that_leaves_is_told_which_job_may_have_been_stored() -> None:
    jobs = Holdfast("memory://")
    task = jobs.task(name="shop.send")(lambda: None)
    held = asyncio.Event()

    async def slow(*_: object) -> list[Receipt]:
        await held.wait()
        return []

    jobs.place.enqueue = slow  # type: ignore[method-assign]
    async with jobs:
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(0.05):
                await task.aenqueue()
        cause = caught.value.__cause__ or caught.value.__context__
        assert cause is not None
        assert "may have been" in cause.__notes__[0]
        assert re.search(r"[0-9a-f]{8}-[0-9a-f]{4}-7", cause.__notes__[0])
