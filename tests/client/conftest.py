"""An app in a fresh place on each store that needs no server, and a task of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast import Holdfast, SyncTask


@pytest.fixture(params=["memory", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store that nobody has used."""
    urls = {"memory": "memory://", "sqlite": f"sqlite:///{tmp_path}/jobs.db?durability=normal"}
    return urls[request.param]


@pytest.fixture
def app(url: str) -> Iterator[Holdfast]:
    """An app in a fresh place, not open yet."""
    it = Holdfast(url, keep="1h")
    yield it
    it.close()


@pytest.fixture
def send(app: Holdfast) -> SyncTask[..., str]:
    @app.task(name="shop.send", queue="mail")
    def send(to: str, *, html: bool = False) -> str:
        return f"<{to}>" if html else to

    return send
