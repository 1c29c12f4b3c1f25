"""The command line against a real SQLite file that holds a job in every state."""

import asyncio
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol
from uuid import UUID, uuid4

import pytest
from click.testing import CliRunner, Result

from holdfast import Holdfast, Retry
from holdfast.cli.shell import shell
from holdfast.job import Failed, Failure, Record, Succeeded, Verdict
from holdfast.policy import decide
from holdfast.store import Where

NASTY = "no \x1b[31mroute\x07 \u202eto\nhost\tnow"


class Run(Protocol):
    def __call__(self, *args: str, fails: bool = False) -> Result: ...


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working directory; what commands import from it is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    modules, path = set(sys.modules), list(sys.path)
    yield tmp_path
    for name in set(sys.modules) - modules:
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]
    sys.path[:] = path


@pytest.fixture
def run() -> Run:
    """Runs a command in this process; one that fails says why in one line on stderr and never by a traceback."""

    def run(*args: str, fails: bool = False) -> Result:
        result = CliRunner().invoke(shell, args)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
        if fails:
            assert result.exit_code != 0, result.output
            assert result.stderr.startswith("holdfast: "), result.stderr
            assert result.stderr.count("\n") == 1, result.stderr
        else:
            assert result.exit_code == 0, result.stderr
        return result

    return run


class Shop:
    """An app over a SQLite file, whose jobs are brought into a state by speaking to the store as a worker does."""

    def __init__(self, path: Path) -> None:
        self.jobs = Holdfast(f"sqlite:///{path}", retry=Retry(max_attempts=3))
        self.url = f"sqlite:///{path}"
        self.send = self.jobs.task(name="shop.send_invoice", queue="mail", tags=["eu"], timeout=30)(_send_invoice)
        self.resize = self.jobs.task(name="shop.resize")(_resize)

    def dead(self, order: int = 1, error: str = "TimeoutError", message: str = NASTY) -> UUID:
        failed = Failed(Failure(error, message, f"Traceback\n  File shop.py\n{error}: {message}\n"), final=True)
        return self.after(self.send.enqueue(order).id, failed)

    def succeeded(self) -> UUID:
        return self.after(self.resize.enqueue("a.png").id, Succeeded(b'{"width":80}'))

    def retrying(self) -> UUID:
        return self.after(self.resize.enqueue("b.png").id, Failed(Failure("KeyError", "'sku'", "")))

    def running(self) -> UUID:
        return self.after(self.resize.enqueue("c.png").id, None)

    def cancelled(self) -> UUID:
        job = self.send.enqueue(5)
        job.cancel("not wanted")
        return job.id

    def after(self, id: UUID, verdict: Verdict | None) -> UUID:
        """Claims the job, the only one that is due, and ends its attempt so; None lets it run on."""
        asyncio.run(self._attempt(id, verdict))
        return id

    async def _attempt(self, id: UUID, verdict: Verdict | None) -> None:
        store, worker = self.jobs.place.twin(), uuid4()
        await store.open()
        try:
            await store.register(worker, None, {})
            (claim,) = (await store.claim(worker, 1, None, 1)).jobs
            assert claim.id == id, "another job was due"
            if verdict is not None:
                await store.finish([decide(claim, verdict)])
        finally:
            await store.close()

    def record(self, id: UUID | str) -> Record:
        (record,) = self.jobs.records(Where(ids=(UUID(str(id)),)))
        return record

    def states(self) -> dict[UUID, str]:
        return {record.id: str(record.state) for record in self.jobs.records(Where())}


def _send_invoice(order_id: int, email: str = "") -> str:
    return email


def _resize(path: str) -> None: ...


@pytest.fixture
def shop(folder: Path) -> Iterator[Shop]:
    shop = Shop(folder / "shop.db")
    with shop.jobs:
        yield shop


@pytest.fixture
def filled(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> dict[str, UUID]:
    """A job in every state, by the state's name, the oldest first; HOLDFAST_URL leads to them."""
    monkeypatch.setenv("HOLDFAST_URL", shop.url)
    makers: dict[str, Callable[[], UUID]] = {
        "dead": shop.dead,
        "succeeded": shop.succeeded,
        "retrying": shop.retrying,
        "running": shop.running,
        "cancelled": shop.cancelled,
        "scheduled": lambda: shop.send.using(delay="1h", priority=7).enqueue(6, email="ann@example.com").id,
        "queued": lambda: shop.send.using(tags=["big"]).enqueue(7).id,
    }
    return {name: make() for name, make in makers.items()}
