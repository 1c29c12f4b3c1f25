"""/metrics: what a scraper reads is well formed, whatever names there are, and says what was counted."""

import asyncio
import shutil
import subprocess
import threading
from collections.abc import Mapping
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as parsed

from holdfast.job import Pause, QueueTerms, State, Succeeded
from holdfast.observe import metrics
from holdfast.observe.health import Seen, Vitals
from holdfast.observe.metrics import Shown, exposition
from holdfast.observe.pages import Pages
from holdfast.observe.tally import Counts, Totals
from holdfast.policy import decide
from holdfast.store import Answer, QueueStats, Settled, Stats, Ticked
from tests.worker.rig import claim, until

HOSTILE = [
    'a"b',
    "a\nworker_ready 1",
    "a\\",
    "a\\n",
    "\x1b[2J",
    "{}",
    "# HELP x",
    "é",
    "\udc80",
    "\u202e",
    "",
    " ",
    "a" * 300,
]


def queue(name: str = "mail", **changes: Any) -> QueueStats:
    fields: dict[str, Any] = {"edited": False, "counts": {}, "admitted": None, "dropped": 0, "oldest_due": None}
    return QueueStats(**{"name": name, "terms": QueueTerms(), **fields, **changes})


def vitals(number: int = 0, **changes: Any) -> Vitals:
    return Vitals(number, 10, 3, 5_000_000, 0.001, 0.2, 0.3, held=True, unheard=False)._replace(**changes)


def shown(totals: Totals | None = None, *queues: QueueStats, seen: Seen | None = None) -> Shown:
    return Shown(totals or Totals(), seen or Seen([vitals()], answers=True), Stats(100_000, queues), "1.2")


def counted(*names: str, ran: float = 0.2) -> Totals:
    counts, totals = Counts(), Totals()
    for name in names:
        of = claim(queue=name, task=name, due_at=1000, claimed_at=3000)
        counts.settled(of, decide(of, Succeeded(b"")), Settled(Answer.ACCEPTED, State.SUCCEEDED), ran)
        counts.event("crashes", name)
    counts.called("claim", 0.003)
    counts.ticked(Ticked(1, 2, "made"), 0.5)
    news = counts.take()
    assert news is not None
    totals.add(news)
    return totals


def samples(text: bytes) -> Mapping[tuple[str, tuple[tuple[str, str], ...]], float]:
    found = [sample for family in parsed(text.decode()) for sample in family.samples]
    series = {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for sample in found}
    assert len(series) == len(found), "a series is shown twice: Prometheus refuses the whole scrape"
    return series


def value(series: Mapping[Any, float], name: str, **labels: str) -> float:
    return series[name, tuple(sorted(labels.items()))]


def test_what_was_counted_is_what_is_scraped() -> None:
    text = exposition(shown(counted("mail", "mail", "other-queue")))[1]
    series = samples(text)
    assert value(series, "worker_jobs_total", queue="mail", status="succeeded") == 2
    assert value(series, "worker_job_duration_seconds_count", task_type="mail") == 2
    assert value(series, "worker_job_duration_seconds_sum", task_type="mail") == pytest.approx(0.4)
    assert value(series, "worker_job_duration_seconds_bucket", task_type="mail", le="0.1") == 0
    assert value(series, "worker_job_duration_seconds_bucket", task_type="mail", le="0.5") == 2
    assert value(series, "worker_job_duration_seconds_bucket", task_type="mail", le="+Inf") == 2
    assert value(series, "worker_job_wait_seconds_sum", queue="mail") == pytest.approx(4)
    assert value(series, "worker_job_crashes_total", queue="mail") == 2
    assert value(series, "worker_store_call_seconds_count", call="claim") == 1
    assert value(series, "worker_schedule_ticks_total", outcome="made") == 1
    assert value(series, "worker_schedule_lateness_seconds_sum") == 0.5
    assert any(name == "worker_info" for name, _ in series)


def test_the_queues_are_shown_as_they_are_and_what_waits_in_seconds_of_work() -> None:
    counts = {State.QUEUED: 40, State.SCHEDULED: 3, State.RUNNING: 2, State.DEAD: 1}
    mail = queue(counts=counts, dropped=7, oldest_due=90_000, pause=Pause(1))
    series = samples(exposition(shown(counted("mail"), mail, queue("idle")))[1])
    for name, much in {
        "worker_queue_depth": 40,
        "worker_queue_scheduled": 3,
        "worker_queue_running": 2,
        "worker_queue_dead": 1,
        "worker_queue_oldest_seconds": 10,
        "worker_queue_backlog_seconds": 8,
        "worker_queue_paused": 1,
        "worker_jobs_dropped_total": 7,
    }.items():
        assert value(series, name, queue="mail") == pytest.approx(much), name
        assert value(series, name, queue="idle") == 0, name


def test_queues_beyond_the_bound_are_shown_together() -> None:
    queues = [queue(f"q{n:03}", counts={State.QUEUED: 1}, oldest_due=100_000 - 1000 * n) for n in range(110)]
    series = samples(exposition(shown(None, *queues))[1])
    depths = {dict(labels)["queue"]: much for (name, labels), much in series.items() if name == "worker_queue_depth"}
    assert len(depths) == 101
    assert depths["other"] == 10
    assert value(series, "worker_queue_oldest_seconds", queue="other") == 109


def test_what_is_not_known_is_not_shown() -> None:
    seen = Seen([], answers=False, away="connection refused")
    series = samples(exposition(shown(seen=seen)._replace(stats=None))[1])
    assert not [name for name, _ in series if name.startswith("worker_queue_")]
    assert value(series, "worker_store_up") == value(series, "worker_ready") == 0


def test_workers_of_one_process_have_one_memory() -> None:
    seen = Seen([vitals(0, memory=0), vitals(1, memory=0)], answers=True, memory=9, supervised=False)
    series = samples(exposition(shown(seen=seen))[1])
    assert [found for (name, _), found in series.items() if name == "worker_memory_bytes"] == [9]
    assert value(series, "worker_memory_bytes", process="own") == 9


def test_each_process_is_shown_with_its_memory_and_its_lag() -> None:
    seen = Seen([vitals(0), vitals(3, lag=0.2, still=5.0, memory=7)], answers=True, memory=9, deaths=2)
    series = samples(exposition(shown(seen=seen))[1])
    assert value(series, "worker_event_loop_lag_seconds", process="0") == 0.001
    assert value(series, "worker_event_loop_lag_seconds", process="3") > 3, "what blocks it just now is not shown"
    assert value(series, "worker_memory_bytes", process="3") == 7
    assert value(series, "worker_memory_bytes", process="supervisor") == 9
    assert value(series, "worker_slots") == 20
    assert value(series, "worker_jobs_in_flight") == 6
    assert value(series, "worker_process_deaths_total") == 2


def test_hostile_names_break_nothing_and_stay_apart() -> None:
    text = exposition(shown(counted(*HOSTILE), *[queue(name) for name in HOSTILE]))[1]
    series = samples(text)
    queues = {dict(labels)["queue"] for name, labels in series if name == "worker_jobs_total"}
    assert len(queues) == len(HOSTILE)
    assert all(name.isprintable() for name in queues)
    assert value(series, "worker_ready") == 1, "a name has written a line of its own"


def test_a_scraper_that_asks_for_openmetrics_gets_it() -> None:
    kind, text = exposition(shown(counted("mail")), openmetrics=True)
    assert kind.startswith("application/openmetrics-text")
    assert {family.name for family in openmetrics(text.decode())} >= {"worker_jobs", "worker_job_duration_seconds"}
    assert exposition(shown())[0].startswith("text/plain; version=0.0.4")


@pytest.mark.parametrize(
    "odd", ["", "version=x", "version=..; escaping=", "escaping=\xff", ";;==", "version=" + "9" * 5000]
)
async def test_whatever_a_stranger_accepts_he_gets_the_metrics(odd: str) -> None:
    async def here() -> Shown:
        return shown(counted("mail"))

    kind, text = await Pages(here).asked(f"text/html, application/openmetrics-text;{odd},*/*;q=0.1")
    assert kind.startswith("application/openmetrics-text; version=1.0.0")
    assert b"worker_jobs_total" in text


async def test_all_who_ask_within_a_moment_get_one_page_made_off_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, made, go_on = list[int](), list[int](), threading.Event()

    async def here() -> Shown:
        asked.append(1)
        return shown(counted("mail"))

    def slow(of: Shown, *, openmetrics: bool) -> tuple[str, bytes]:
        made.append(threading.get_ident())
        go_on.wait(30)
        return exposition(of, openmetrics=openmetrics)

    monkeypatch.setattr(metrics, "exposition", slow)
    pages = Pages(here)
    asking = [asyncio.create_task(pages.asked("")) for _ in range(20)]
    await until(lambda: made, "nobody makes a page")
    asking[0].cancel()  # whoever does not wait spoils it for nobody
    monkeypatch.setattr("holdfast.observe.pages.SHARE", 1e9)
    go_on.set()
    texts = await asyncio.gather(*asking[1:], pages.asked(""))
    assert len(set(texts)) == 1
    assert (await pages.asked("")) == texts[0], "a young page is made again"
    assert len(asked) == len(made) == 1
    assert made != [threading.get_ident()], "it is made on the loop"


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool (Debian: prometheus) is not installed")
def test_promtool_has_nothing_to_say() -> None:
    text = exposition(shown(counted(*HOSTILE), *[queue(name) for name in HOSTILE]))[1]
    said = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, timeout=60, check=False)
    assert (said.returncode, said.stdout, said.stderr) == (0, b"", b"")
