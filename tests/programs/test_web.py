"""A FastAPI application with a worker inside, served by uvicorn over loopback, on SQLite through SQLAlchemy."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.flows.conftest import until

HERE = Path(__file__).with_name("web")
ORDERS = 9


class Site:
    """The shop's web application in a process of its own, and the shop's file."""

    def __init__(self, folder: Path) -> None:
        self.file, self.outbox, self._log = folder / "shop.db", folder / "outbox", folder / "site.log"
        self._client = httpx.Client(timeout=30)
        self.sql("CREATE TABLE orders (id INTEGER PRIMARY KEY, paid BOOLEAN NOT NULL DEFAULT false)")
        for _ in range(ORDERS):
            self.sql("INSERT INTO orders DEFAULT VALUES")
        self._start()

    def _start(self) -> None:
        environment = {**os.environ, "SHOP_FILE": str(self.file), "SHOP_OUTBOX": str(self.outbox)}
        command = [sys.executable, "-m", "uvicorn", "shop.later:app", "--port", "0"]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(command, cwd=HERE, env=environment, stdout=log, stderr=log)

    def open(self) -> None:
        """Returns when it answers."""
        self._client.base_url = until(self._address, "the site's address")

    def kill_and_restart(self) -> None:
        self.process.kill()
        self.process.wait(40)
        self._start()
        self.open()

    def _address(self) -> str:
        assert self.process.poll() is None, self.log
        _, found, rest = self.log.partition("running on ")
        return rest.partition(" ")[0] if found else ""

    @property
    def log(self) -> str:
        return self._log.read_text()

    def sql(self, statement: str) -> list[Any]:
        with closing(sqlite3.connect(self.file)) as database, database:
            return database.execute(statement).fetchall()

    def post(self, path: str) -> httpx.Response:
        return self._client.post(path)

    def status(self, job: str) -> dict[str, Any]:
        """What the site says of a job, once it knows it: FastAPI commits after it has answered."""

        def asked() -> Any:
            answer = self._client.get(f"/jobs/{job}")
            return answer.json() if answer.status_code == 200 else None

        return until(asked, f"a word about job {job}")

    def missing(self, job: str) -> bool:
        return self._client.get(f"/jobs/{job}").status_code == 404

    def paid(self) -> list[int]:
        return [number for [number] in self.sql("SELECT id FROM orders WHERE paid ORDER BY id")]

    def jobs(self) -> int:
        return self.sql("SELECT count(*) FROM holdfast_jobs")[0][0]

    def close(self) -> None:
        self._client.close()
        self.process.terminate()
        try:
            self.process.wait(40)
        finally:
            self.process.kill()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    try:
        site.open()
        yield site
    finally:
        site.close()


def finished(site: Site, job: str) -> dict[str, Any]:
    """What the site says in the end; how far a job was may be told a moment later than that it is done."""
    told = until(lambda: (said := site.status(job))["state"] == "succeeded" and said, f"the end of job {job}")
    return told if told["progress"] == 1 else until(lambda: (said := site.status(job))["progress"] == 1 and said, "all")


@pytest.mark.timeout(120)
def test_a_paid_order_gets_its_invoice(site: Site) -> None:
    site.outbox.mkdir()
    answer = site.post("/orders/7/paid")
    assert answer.status_code == 202, answer.text
    assert finished(site, answer.json()["job"]) == {"state": "succeeded", "progress": 1.0, "error": None}
    assert site.outbox.joinpath("7").read_text() == "Order 7: paid, with thanks"
    assert site.paid() == [7]
    site.close()
    assert "Application shutdown complete" in site.log
    assert "Traceback" not in site.log


@pytest.mark.timeout(120)
def test_what_is_rolled_back_leaves_no_job(site: Site) -> None:
    site.outbox.mkdir()
    answer = site.post(f"/orders/3/refused?job_id={'0' * 32}")
    assert answer.status_code == 409, answer.text
    assert site.missing(answer.json()["detail"])
    assert site.paid() == []
    kept = site.post("/orders/4/paid").json()["job"]
    finished(site, kept)
    assert site.jobs() == 1
    assert [path.name for path in site.outbox.iterdir()] == ["4"]


@pytest.mark.timeout(120)
def test_a_full_queue_is_told_to_come_back_later(site: Site) -> None:
    waiting = [site.post(f"/orders/{order}/paid").json()["job"] for order in (1, 2)]  # nobody takes mail yet
    until(lambda: site.status(waiting[1])["error"], "the first failure")
    assert "No such file" in site.status(waiting[1])["error"]
    answer = site.post("/orders/5/paid")
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) >= 1
    assert site.paid() == [1, 2], "the order was paid, but its job was refused"
    assert site.jobs() == 2

    site.outbox.mkdir()
    for job in waiting:
        assert finished(site, job)["progress"] == 1.0
    finished(site, site.post("/orders/5/paid").json()["job"])
    assert site.paid() == [1, 2, 5]


@pytest.mark.timeout(120)
def test_what_was_paid_before_the_site_was_killed_gets_its_invoice_after_it(site: Site) -> None:
    job = site.post("/orders/8/paid").json()["job"]
    until(lambda: site.status(job)["error"], "the first failure")
    site.kill_and_restart()
    site.outbox.mkdir()
    assert finished(site, job)["state"] == "succeeded"
    assert site.outbox.joinpath("8").read_text() == "Order 8: paid, with thanks"
