"""`holdfast health`: what a probe that can only run a command sees."""

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from holdfast.app import parts_of
from holdfast.observe.endpoint import Server, Watched
from holdfast.observe.health import Seen, Vitals
from tests.cli.shop import Run, Shop

WELL = Seen([Vitals(0, 10, 0, 1, 0.0, 0.1, 0.1, held=True, unheard=True)], answers=True)


class Service:
    """An endpoint in a thread of its own."""

    def __init__(self) -> None:
        self.seen = WELL
        self._server = Server.bound("127.0.0.1:0")
        self.at = self._server.address
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._do(self._server.start(Watched(lambda: self.seen, self._looked, self._metrics)))

    async def _looked(self) -> Seen:
        return self.seen

    async def _metrics(self, _: str) -> tuple[str, bytes]:
        return "text/plain", b""

    def _do(self, work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def close(self) -> None:
        self._do(self._server.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service()
    yield service
    service.close()


def ill(run: Run, *args: str) -> str:
    """What it prints where it ends with 1."""
    from click.testing import CliRunner

    from holdfast.cli.shell import shell

    result = CliRunner().invoke(shell, args)
    assert result.exit_code == 1, result.output
    return result.stdout


def test_a_worker_that_is_ready(run: Run, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    said = run("health", "--at", service.at).stdout
    assert said.startswith(f"✓ {service.at} is ready\n")
    assert "✓ store" in said
    assert "▲ notifier: hints of new jobs do not arrive" in said
    monkeypatch.setenv("HOLDFAST_METRICS", service.at)
    assert run("health").stdout == said
    assert json.loads(run("health", "--json").stdout)["ready"] is True


def test_a_worker_that_is_not_says_why_and_lives(run: Run, service: Service) -> None:
    service.seen = WELL._replace(answers=False, away="refused by \x1b[31m10.0.0.1")
    said = ill(run, "health", "--at", service.at)
    assert f"✕ {service.at} is not ready" in said
    assert r"✕ store: refused by \x1b[31m10.0.0.1" in said
    assert run("health", "--at", service.at, "--live").stdout.startswith(f"✓ {service.at} is live")


def test_nobody_there_is_3_and_says_what_to_do(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    result = run("health", "--at", f"127.0.0.1:{port}", fails=True)
    assert result.exit_code == 3
    assert f"--metrics 127.0.0.1:{port}" in result.stderr


def test_something_else_that_listens_there_is_3(run: Run) -> None:
    def answer(other: socket.socket) -> None:
        client, _ = other.accept()
        with client:
            client.sendall(b"220 mail\r\n")

    with socket.create_server(("127.0.0.1", 0)) as other:
        thread = threading.Thread(target=answer, args=(other,))
        thread.start()
        result = run("health", "--at", f"127.0.0.1:{other.getsockname()[1]}", fails=True)
        thread.join(30)
    assert result.exit_code == 3
    assert "220 mail" in result.stderr


def test_who_does_not_answer_in_time_is_3(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        at = f"127.0.0.1:{silent.getsockname()[1]}"
        result = run("health", "--at", at, "--timeout", "0.05", fails=True)
    assert result.exit_code == 3
    assert "no answer in time" in result.stderr


def test_an_address_that_is_none_is_2(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("health", "--at", "9100", fails=True).exit_code == 2
    monkeypatch.setenv("HOLDFAST_METRICS", "nowhere")
    result = run("health", fails=True)
    assert result.exit_code == 2
    assert "HOLDFAST_METRICS nowhere: give HOST:PORT" in result.stderr


def test_without_an_address_the_store_says_whether_anybody_serves_it(run: Run, shop: Shop) -> None:
    said = ill(run, "health", "--url", shop.url)
    assert "no live worker serves it" in said
    store = parts_of(shop.jobs).link

    async def register() -> None:
        from uuid import uuid4

        opened = await store.opened()
        await opened.store.register(uuid4(), None, {})  # a supervisor serves nothing itself
        await opened.store.register(uuid4(), None, {"slots": 10, "tasks": []})

    store.run(register)
    assert "1 worker, the last beat" in run("health", "--url", shop.url).stdout
    assert json.loads(run("health", "--url", shop.url, "--json").stdout) == {
        "ready": True,
        "store": shop.url,
        "workers": 1,
    }


def test_a_store_that_is_not_there_is_3(run: Run, tmp_path: Any) -> None:
    assert run("health", "--url", f"sqlite:///{tmp_path}/none/jobs.db", fails=True).exit_code == 3
