"""The app: which store it has, opening and closing it, and what a store in memory alone warns of."""

import logging
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from holdfast import ConfigError, Holdfast, Job, StoreError
from holdfast.app import parts_of

PATIENCE = 30


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
    for use in (send.enqueue, jobs.__enter__, lambda: parts_of(jobs).link.url, lambda: list(jobs.find(queue="mail"))):
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
    assert parts_of(jobs).link.url == "memory://"
    with jobs:
        task.enqueue()
        with pytest.raises(ConfigError, match=r"configure\(\): the store is in use already"):
            jobs.configure(url="sqlite:///x.db")
    jobs.configure(url="sqlite:///x.db")
    assert parts_of(jobs).link.url == "sqlite:///x.db", "a closed app may be configured again"


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

        send.bind(1), send.using(delay=5).bind(2), jobs.job("0197a1b2-0000-7000-8000-000000000000")
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


# --- what users see of it

ONCE = {
    "around",
    "close",
    "configure",
    "cron",
    "every",
    "find",
    "job",
    "queue",
    "resource",
    "schedule",
    "task",
    "worker",
}
SCHEDULE = {f"{verb}_schedule" for verb in ("add", "change", "delete", "pause", "reset", "resume", "trigger")}
TWICE = {"cancel", "delete", "enqueue_many", "pause", "resume", "retry", "schedules", *SCHEDULE}


def seen(it: object) -> set[str]:
    return {name for name in dir(it) if not name.startswith("_")}


def twins(names: set[str]) -> set[str]:
    return names | {f"a{name}" for name in names}


def test_an_app_its_tasks_and_handles_show_what_users_call_and_nothing_else() -> None:
    app = Holdfast("memory://")
    assert seen(app) == ONCE | {"afind"} | twins(TWICE)
    facts = {"name", "queue", "aliases", "fn", "in_process", "is_async", "plan", "retry", "signature"}  # for workers
    assert seen(app.task(name="shop.send")(lambda: None)) == facts | {"bind", "job", "using"} | twins({"enqueue"})
    assert seen(Job) == {"id", "created"} | twins({"status", "result", "cancel", "retry", "delete"})
