"""Who waits for a result in another process: woken by the job's end alone; and `holdfast job --watch`, live."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast import Holdfast, JobFailed
from holdfast.client import asking
from tests.flows import shop
from tests.flows.conftest import Guest, Ledger, Service, until

pytestmark = pytest.mark.timeout(120)
HOURS = 7_200.0  # longer than any test


@pytest.mark.every_store
def test_who_waits_is_woken_by_the_end_alone(
    app: Holdfast,
    serve: Callable[..., Service],
    ledger: Ledger,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(asking, "POLL_FIRST", HOURS)
    monkeypatch.setattr(asking, "POLL_MOST", HOURS)
    serve("--processes", "2")
    jobs = [shop.held.enqueue("go") for _ in range(3)]
    until(lambda: ledger.count("begin") == 3, "all three running")
    ledger.path.with_name("go").touch()
    assert [job.result(timeout=60) for job in jobs] == ["go"] * 3
    assert shop.work.enqueue(5).result(timeout=60) == 5


GUEST = """
import time
from pathlib import Path
from holdfast import Holdfast, current_job
jobs = Holdfast()

@jobs.task
def render(until: str) -> str:
    job = current_job()
    job.log("begins")
    job.progress(1, 2, text="half of it")
    while not Path(until).exists():
        time.sleep(0.01)
    raise OSError("no such\\u202e page")
"""


def test_a_job_is_watched_while_it_runs(url: str, tmp_path: Path) -> None:
    jobs = Holdfast(url)

    @jobs.task(name="guest.render")
    def render(until: str) -> str: ...

    guest, go, seen = Guest(url, tmp_path, GUEST), tmp_path / "go", tmp_path / "seen"
    with jobs:
        job = render.enqueue(str(go))
        command = [sys.executable, "-m", "holdfast", "job", str(job.id), "--watch", "--url", url]
        with seen.open("wb") as output:
            watcher = subprocess.Popen(command, stdout=output, cwd=tmp_path)
        try:
            until(lambda: "half of it" in seen.read_text(), "the progress, while it runs")
            assert "    begins\n" in seen.read_text()
            assert "dead" not in seen.read_text()
            go.touch()
            assert watcher.wait(60) == 1
            assert guest.stop() == 0, guest.text()
        finally:
            watcher.kill()
            guest.process.kill()
        with pytest.raises(JobFailed, match="no such") as failed:
            job.result(timeout=0)
    assert "raise OSError" in failed.value.error.traceback
    text = seen.read_text()
    assert "✕ dead   attempt 1 of 1: OSError: no such⟪RLO⟫ page\n" in text
    assert 'raise OSError("no such' in text
