"""A service's endpoint: its counters equal what the store has on record, whoever was killed; red and green in time."""

from __future__ import annotations

import os
import random
import signal
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from holdfast import Holdfast, Job
from holdfast.app import parts_of
from holdfast.job import Record
from holdfast.store import Where
from tests import servers
from tests.flows.conftest import Ledger, Service, until
from tests.flows.proxy import Pipe, Proxy, behind
from tests.flows.scrape import ENDPOINT, ask, checks, scrape
from tests.flows.shop import blocks_the_loop, held, thread_work, work

Serve = Callable[..., Service]
STATUSES = ("succeeded", "failed", "lost", "dead", "released")


def _counted(service: Service) -> dict[str, float]:
    found = scrape(service)
    return {status: found.value("worker_jobs_total", status=status) for status in STATUSES}


def _recorded(app: Holdfast, jobs: list[Job[Any]]) -> dict[str, float]:
    """How the attempts of these jobs ended, as the store has it: a success has no entry of its own."""
    link, ends = parts_of(app).link, Counter[str]()

    async def records() -> list[Record]:
        store, ids = (await link.opened()).store, [job.id for job in jobs]
        parts = [ids[at : at + 100] for at in range(0, len(ids), 100)]
        return [one for part in parts for one in await store.find(Where(ids=part), None, 100)]

    for record in link.run(records):
        ends[str(record.state)] += 1
        ends.update(attempt.ended for attempt in record.history)
    return {status: float(ends[status]) for status in STATUSES}


@pytest.mark.timeout(180)
@pytest.mark.parametrize("count", [150, pytest.param(3000, marks=pytest.mark.soak)])
def test_the_counters_equal_the_record_whoever_is_killed(
    count: int, app: Holdfast, ledger: Ledger, serve: Serve, url: str
) -> None:
    chance = random.Random(7)
    service = serve("--processes", "2", "--concurrency", "4", *ENDPOINT)
    bound = [work.bind(n, fails_first=n % 5 == 0, seconds=0.02) for n in range(count)]
    bound += [thread_work.bind(n, seconds=0.01) for n in range(count // 2)]
    chance.shuffle(bound)
    jobs = app.enqueue_many(bound)
    kills = 0
    for done in range(25, count, max(25, count // 12)):
        until(lambda done=done: ledger.count("effect") >= done, f"{done} effects before a kill")
        victim = until(service.children, "a worker process")[0]
        with suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
            kills += 1
        until(lambda victim=victim: victim not in service.children(), "the victim's end")
    for job in jobs:
        job.result(timeout=60)
    recorded = _recorded(app, jobs)
    until(lambda: _counted(service) == recorded, f"the counters are not what is on record, {recorded}")
    assert recorded["succeeded"] == len(jobs)
    assert recorded["lost"], "nobody was interrupted: the kills proved nothing"
    found = scrape(service)
    assert found.value("worker_process_deaths_total") == kills
    assert found.value("worker_job_retries_total") == recorded["failed"]
    assert found.value("worker_jobs_rescued_total") == recorded["lost"]
    assert found.value("worker_queue_depth") == found.value("worker_jobs_in_flight") == 0
    _as_the_handlers_saw_it(ledger, recorded)
    assert service.stop() == 0


def _as_the_handlers_saw_it(ledger: Ledger, counted: dict[str, float]) -> None:
    """The store is not trusted to judge itself: a run that was lost may have begun or not, all others did."""
    succeeded, failed, lost = (counted[status] for status in ("succeeded", "failed", "lost"))
    assert len({line["job"] for line in ledger.lines("effect")}) == succeeded
    assert failed <= ledger.count("failed") <= failed + lost
    assert succeeded + failed <= ledger.count("begin") <= succeeded + failed + lost


def test_what_goes_on_is_seen_while_it_does(app: Holdfast, ledger: Ledger, serve: Serve, url: str) -> None:
    service = serve("--processes", "2", "--concurrency", "2", *ENDPOINT)
    own = {held.queue, work.queue}
    until(lambda: own <= scrape(service).labels("worker_queue_depth", "queue"), "the app's own queues, before any job")
    app.enqueue_many(held.bind("go") for _ in range(6))
    until(lambda: ledger.count("begin") == 4, "four jobs at work")
    until(lambda: scrape(service).value("worker_jobs_in_flight") == 4, "four jobs in flight")
    until(lambda: scrape(service).value("worker_queue_oldest_seconds") > 0, "the age of those that wait")
    found = scrape(service)
    assert found.value("worker_slots") == 4
    assert found.value("worker_processes") == 2
    assert found.value("worker_memory_bytes", process="0") > 2**20
    assert found.value("worker_memory_bytes", process="supervisor") > 2**20
    assert found.value("worker_queue_running") + found.value("worker_queue_depth") == 6
    assert found.value("worker_queue_backlog_seconds") >= found.value("worker_queue_depth")
    assert ask(service, "/live")[0] == 200
    assert ask(service, "/ready")[0] == 200
    ledger.path.with_name("go").touch()
    until(lambda: scrape(service).value("worker_job_duration_seconds_count") == 6, "six that have ended")


@pytest.fixture
def way() -> Iterator[tuple[str, Proxy]]:
    """A store's URL, and the way to it that can be cut."""
    with servers.valkey().bare() as prefix:
        parts = urlsplit(prefix.url)
        assert parts.hostname
        assert parts.port
        with Proxy(parts.hostname, parts.port, Pipe) as proxy:
            yield behind(prefix.url, proxy), proxy


class TestAStoreThatIsAway:
    @pytest.fixture
    def url(self, way: tuple[str, Proxy]) -> str:
        return way[0]

    @pytest.mark.timeout(180)
    def test_is_red_while_it_is_away_and_green_by_itself_after(
        self, way: tuple[str, Proxy], serve: Serve, url: str
    ) -> None:
        service = serve(*ENDPOINT)
        until(lambda: checks(service)[0] == 200, f"ready: {service.text()}")
        way[1].refuses = True
        way[1].cut()
        until(lambda: checks(service)[0] == 503, "red while the store is away")
        _, red = checks(service)
        assert not red["store"]["ok"]
        assert red["store"]["why"]
        assert ask(service, "/live")[0] == 200, "a worker must not be killed for its store"
        found = scrape(service)
        assert found.value("worker_store_up") == found.value("worker_ready") == 0
        assert "worker_queue_depth" not in found.names, "what nobody knows was shown"
        way[1].refuses = False
        until(lambda: checks(service)[0] == 200, "green by itself")
        assert not any(check["why"] for check in checks(service)[1].values())


def test_a_service_that_stops_is_not_ready_and_says_so(app: Holdfast, ledger: Ledger, serve: Serve, url: str) -> None:
    service = serve("--deadline", "60", *ENDPOINT)
    held.enqueue("go")
    until(lambda: ledger.count("begin"), "the job's start")
    service.process.send_signal(signal.SIGTERM)
    until(lambda: checks(service)[0] == 503, "red while it drains")
    assert "stopping" in checks(service)[1]["running"]["why"]
    assert ask(service, "/live")[0] == 200
    ledger.path.with_name("go").touch()
    assert service.stop() == 0


def test_systemd_hears_when_it_is_ready_that_it_goes_on_and_that_it_stops(
    serve: Serve, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(40)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "500000")
        service = serve()

        def hear(line: str) -> list[str]:
            while line not in heard:
                heard.extend(systemd.recv(4096).decode().split("\n"))
            return heard

        assert "WATCHDOG=1" in hear("READY=1")
        assert "event=started" in service.text(), "it is said to be ready before anybody claims"
        heard.clear()
        hear("WATCHDOG=1")
        service.process.send_signal(signal.SIGTERM)
        hear("STOPPING=1")
    assert service.stop() == 0


def test_a_loop_that_a_handler_blocks_is_named_and_is_green_again(
    app: Holdfast, ledger: Ledger, serve: Serve, url: str
) -> None:
    service = serve(*ENDPOINT)
    until(lambda: checks(service)[0] == 200, "ready")
    blocks_the_loop.enqueue("go")
    until(lambda: not checks(service)[1]["loop"]["ok"], "the blocked loop")
    assert checks(service)[0] == 503
    assert scrape(service).value("worker_event_loop_lag_seconds", process="0") > 1
    ledger.path.with_name("go").touch()
    until(lambda: checks(service)[0] == 200, "ready again")
