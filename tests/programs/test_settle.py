"""A handler that uses everything, in real workers."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path

import pytest

from holdfast import Holdfast, JobCancelled
from holdfast.app import parts_of
from tests.flows.conftest import Ledger, Service, until
from tests.programs.bank import PAGES
from tests.programs.settle import jobs, settle


@pytest.fixture
def app(using: Callable[[Holdfast], Holdfast]) -> Holdfast:
    return using(jobs)


@pytest.fixture
def service(app: Holdfast, serve: Callable[..., Service]) -> Service:
    return serve(app="tests.programs.settle:jobs")


@pytest.fixture
def open_bank(ledger: Ledger) -> Path:
    bank = ledger.path.with_name("bank is open")
    bank.touch()
    return bank


def test_a_closed_bank_is_no_attempt(service: Service, ledger: Ledger) -> None:
    job = settle.enqueue(1)
    status = until(lambda: (now := job.status()).reason and now, "the snooze")
    assert (status.state, status.attempt, status.reason) == ("scheduled", 0, "bank closed")
    assert timedelta(minutes=13) < status.due_at - datetime.now(UTC) <= timedelta(minutes=15)
    assert ledger.lines() == []


def test_a_test_order_is_cancelled(service: Service, open_bank: Path, ledger: Ledger) -> None:
    job = settle.enqueue(-1)
    with pytest.raises(JobCancelled, match="test order"):
        job.result(timeout=30)
    assert ledger.lines() == []


@pytest.mark.timeout(120)
def test_killed_in_the_middle_it_goes_on_where_it_was(
    service: Service, open_bank: Path, ledger: Ledger, app: Holdfast
) -> None:
    job = settle.enqueue(7)
    until(lambda: ledger.count("page") == 4, "the fourth page")
    status = until(lambda: (now := job.status()).progress == 0.6 and now, "its progress, seen from outside")
    assert (status.state, status.text) == ("running", PAGES[2])
    until(lambda: len(lines(app, job.id)) == 3, "its log, seen from outside")

    victim = ledger.lines("page")[0]["pid"]
    os.kill(victim, signal.SIGKILL)
    until(lambda: ledger.count("page") == 5, "the next run")
    ledger.path.with_name("go").touch()
    assert job.result(timeout=60) == "receipt 7"

    runs = [
        (fence, [line["page"] for line in of_one])
        for fence, of_one in groupby(ledger.lines("page"), key=lambda line: line["fence"])
    ]
    assert [pages for _, pages in runs] == [list(PAGES[:4]), list(PAGES[3:])], "a saved page was done again"
    assert [(text, PAGES.index(text) >= 3) for _, text in lines(app, job.id)] == [
        (text, fence != runs[0][0]) for fence, text in lines(app, job.id)
    ]
    assert [text for _, text in lines(app, job.id)] == list(PAGES)
    status = job.status()
    assert (status.state, status.attempt) == ("succeeded", 2), "the death is no attempt, the lost answer is"
    assert [error.message for error in status.errors if error.type == "ConnectionError"] == ["the bank did not answer"]

    first, second = ledger.lines("charge")
    assert first["key"] == second["key"] == str(job.id)
    assert first["attempt"] == 1
    assert second["attempt"] == 2
    assert all(590 < line["timeout"] <= 600 for line in (first, second)), "what is left of its ten minutes"


def lines(app: Holdfast, id: object) -> list[tuple[int, str]]:
    return [(line.fence, line.text) for line in parts_of(app).operating.log(id)]  # type: ignore[arg-type]
