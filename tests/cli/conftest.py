"""The command line against a real SQLite file that holds a job in every state."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import pytest
from click.testing import CliRunner, Result

from holdfast.cli.shell import shell
from tests.cli.shop import Run, Shop


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
