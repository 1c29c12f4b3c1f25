"""SIGTERM at many points of a job's life, for each executor: nothing lost, nothing charged, and the process leaves."""

from __future__ import annotations

import random
import signal
from collections import Counter
from collections.abc import Callable, Sequence

import pytest

from holdfast import Holdfast, Job
from tests.flows import taps
from tests.flows.conftest import Ledger, Service, until
from tests.flows.taps import LIVES, POINTS, QUICK, async_quick

APP = "tests.flows.taps:jobs"
LEAVES = 30  # jobs that a handler enqueues


@pytest.fixture
def tapped(using: Callable[[Holdfast], Holdfast]) -> Holdfast:
    """The producers' side of the app whose jobs can be held."""
    return using(taps.jobs)


def go(ledger: Ledger, point: str) -> None:
    ledger.path.with_name(f"{point}.go").touch()


def leaves(service: Service) -> int:
    """The exit code of a service that was told to stop."""
    return service.stop(signal.SIGTERM)


def hurry(service: Service) -> None:
    """The deadline, now: a second signal, repeated, since the echo of the first is not a second."""

    def heard() -> bool:
        service.process.send_signal(signal.SIGTERM)
        return "then=hurry" in service.text()

    until(heard, "the second signal")


@pytest.mark.timeout(120)
@pytest.mark.parametrize("executor", LIVES)
def test_handlers_within_the_deadline_end_and_others_are_given_back_uncharged(
    executor: str, tapped: Holdfast, ledger: Ledger, serve: Callable[..., Service]
) -> None:
    life = LIVES[executor]
    ending = [life.enqueue(point, False) for point in POINTS]
    ending.append(life.enqueue("middle", False, LEAVES))  # in the middle of a burst of its own
    staying = [life.enqueue(point, True) for point in POINTS]
    service = serve("--concurrency", str(len(ending + staying)), "--deadline", "300", app=APP)
    until(lambda: held(ledger) == len(ending + staying), "every job at its point")
    waiting = [async_quick.enqueue() for _ in range(3)]

    service.process.send_signal(signal.SIGTERM)
    until(lambda: "event=stopping" in service.text(), "the drain")
    go(ledger, "handlers")
    until(lambda: ledger.count("effect") >= len(ending), "the end of those that may end")
    hurry(service)
    assert service.process.wait(40) == 0, service.text()[-3000:]
    assert [(s.state, s.attempt) for s in statuses(ending)] == [("succeeded", 1)] * len(ending)
    assert [(s.state, s.attempt) for s in statuses(staying)] == [("queued", 0)] * len(staying)
    assert [(s.state, s.attempt) for s in statuses(waiting)] == [("queued", 0)] * len(waiting)

    assert leaves(finished(tapped, serve)) == 0
    begun = Counter(line["job"] for line in ledger.lines("begin"))
    assert [begun[str(job.id)] for job in ending + waiting] == [1] * len(ending + waiting)
    assert [begun[str(job.id)] for job in staying] == [2] * len(staying)
    assert Counter(line["job"] for line in ledger.lines("effect")).most_common(1)[0][1] == 1
    assert len(list(tapped.find(task="tests.flows.taps.leaf"))) == LEAVES


def held(ledger: Ledger) -> int:
    return sum(line["event"].startswith("at ") for line in ledger.lines())


def statuses(jobs: Sequence[Job[None]]) -> list[object]:
    return [job.status() for job in jobs]


def finished(app: Holdfast, serve: Callable[..., Service]) -> Service:
    """Another service has run whatever was left; every job has succeeded in what counts as its first attempt."""
    service = serve("--concurrency", "10", app=APP)
    until(lambda: "ready in" in service.text(), "the banner")
    until(lambda: all(status.finished for status in app.find()), "every job's end")
    odd = [status for status in app.find() if (status.state, status.attempt) != ("succeeded", 1)]
    assert not odd, odd[0]
    return service


@pytest.mark.timeout(120)
@pytest.mark.parametrize("point", ["claim", "claimed", "finish", "finished"])
def test_a_call_to_the_store_under_way_is_no_loss_and_no_charge(
    point: str,
    tapped: Holdfast,
    ledger: Ledger,
    serve: Callable[..., Service],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    jobs = [async_quick.enqueue() for _ in range(3)]
    monkeypatch.setenv("HOLD", point)
    service = serve("--concurrency", "3", app=APP)
    monkeypatch.delenv("HOLD")
    until(lambda: held(ledger), "the call")
    service.process.send_signal(signal.SIGTERM)
    until(lambda: "event=signal" in service.text(), "the signal")
    if point.startswith("finish"):
        until(lambda: "event=stopping" in service.text(), "the drain")
    go(ledger, point)
    assert service.process.wait(40) == 0, service.text()[-3000:]
    assert ledger.count("begin") in ((3,) if point.startswith("finish") else (0, 3)), "all of a claim, or nothing"
    assert all(status.attempt == (status.state == "succeeded") for status in statuses(jobs))
    assert leaves(finished(tapped, serve)) == 0
    assert Counter(line["job"] for line in ledger.lines("begin")) == {str(job.id): 1 for job in jobs}


def storm(rounds: int, tapped: Holdfast, ledger: Ledger, serve: Callable[..., Service]) -> None:
    """Services that are stopped one after the other, each when the ledger has grown by a random number of lines."""
    chance = random.Random(rounds)
    jobs = 0
    for number in range(rounds):
        for quick in QUICK.values():
            tapped.enqueue_many(quick.bind() for _ in range(40))
            jobs += 40
        service = serve("--concurrency", "4", app=APP)
        stop = len(ledger.lines()) + chance.randrange(1, 160)
        until(lambda stop=stop: len(ledger.lines()) >= stop, f"the moment of stop {number}")
        assert leaves(service) == 0, service.text()[-3000:]
        assert not list(tapped.find(state="running")), "given back, or finished"
        assert all(status.attempt == 0 for status in tapped.find(state="queued"))
    assert leaves(finished(tapped, serve)) == 0
    begun = Counter(line["job"] for line in ledger.lines("begin"))
    assert len(begun) == jobs
    assert set(begun.values()) == {1}, "what had begun was waited for"


@pytest.mark.timeout(120)
def test_stops_at_random_moments_lose_nothing_and_repeat_nothing(
    tapped: Holdfast, ledger: Ledger, serve: Callable[..., Service]
) -> None:
    storm(2, tapped, ledger, serve)


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_stops_at_many_random_moments_lose_nothing_and_repeat_nothing(
    tapped: Holdfast, ledger: Ledger, serve: Callable[..., Service]
) -> None:
    storm(12, tapped, ledger, serve)
