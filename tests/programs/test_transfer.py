"""Money is moved exactly once, though the workers that move it are killed: job and rows are one transaction."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress

import psycopg
import pytest

from holdfast import Holdfast, JobNotFound
from tests.flows.conftest import Service, until
from tests.programs.transfer import ask, in_process, in_thread, jobs, on_loop
from tests.servers.places import Database

KINDS = (in_thread, on_loop, in_process)
ACCOUNTS = ("ann", "bob", "eve", "joe")


@pytest.fixture
def url(postgres: Database) -> str:
    return postgres.url


@pytest.fixture
def bank(url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(url, autocommit=True) as bank:
        bank.execute("CREATE TABLE accounts (name text PRIMARY KEY, balance integer NOT NULL DEFAULT 1000)")
        bank.execute(
            "CREATE TABLE transfers (id integer PRIMARY KEY GENERATED ALWAYS AS IDENTITY, source text, target text, "
            "amount integer, times integer NOT NULL DEFAULT 0)"
        )
        for name in ACCOUNTS:
            bank.execute("INSERT INTO accounts (name) VALUES (%s)", [name])
        yield bank
        bank.execute("DROP TABLE accounts, transfers")


@pytest.fixture
def app(bank: psycopg.Connection, using: Callable[[Holdfast], Holdfast]) -> Holdfast:
    return using(jobs)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("number", [15, pytest.param(100, marks=pytest.mark.soak)])
def test_each_transfer_is_made_once_whoever_is_killed(
    number: int, app: Holdfast, bank: psycopg.Connection, serve: Callable[..., Service]
) -> None:
    dice = random.Random(number)
    service = serve("--processes", "2", app="tests.programs.transfer:jobs")
    asked = []
    for n in range(number):
        source, target = dice.sample(ACCOUNTS, 2)
        asked.append((ask(KINDS[n % 3], source, target, n + 1), source, target, n + 1))
        if n % 5 == 0:
            regretted = ask(KINDS[n % 3], source, target, 10_000, change_of_mind=True)
            with pytest.raises(JobNotFound):
                regretted.status()
    for made in range(number // 3, number, max(6, number // 12)):  # some have committed, and have not said so
        until(lambda made=made: done(bank) >= made, "the transfers")  # type: ignore[misc]
        with suppress(ProcessLookupError):
            os.kill(dice.choice(until(service.children, "a worker")), signal.SIGKILL)

    balances = dict.fromkeys(ACCOUNTS, 1000)
    for job, source, target, amount in asked:
        assert job.result(timeout=120) != -1
        balances[source] -= amount
        balances[target] += amount
    assert {times for (times,) in bank.execute("SELECT times FROM transfers")} == {1}
    assert done(bank) == number
    assert dict(bank.execute("SELECT name, balance FROM accounts").fetchall()) == balances
    assert service.stop() == 0, service.text()[-3000:]
    assert "event=dead" not in service.text()


def done(bank: psycopg.Connection) -> int:
    [(count,)] = bank.execute("SELECT count(*) FROM transfers WHERE times > 0").fetchall()
    return int(count)
